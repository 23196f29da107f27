//! A whole gateway under load, beside HAProxy under the same load.
//!
//! Three processes on one machine: this one (all clients), the origin (this
//! program again, as SSM, STS and agents), and the proxy, whose CPU the kernel
//! counts. TLS on both legs; the gateway decides by the demo's policies and
//! records everything; HAProxy passes the same stream and records nothing.
//! Every message is checked at the client and acknowledged. Proxies take
//! turns within each round, so that the machine's moods hit all alike.

// A bench that cannot go on has nothing to report; indexing is of JSON.
#![allow(clippy::print_stdout, clippy::indexing_slicing)]

mod api;
mod corpus;
mod line;
mod loads;
mod measure;
mod options;
mod origin;
mod pacer;
mod proxies;
mod report;
mod rig;
mod script;
mod trust;

use std::path::Path;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::corpus::Corpus;
use self::options::Options;
use self::proxies::Site;
use self::rig::Rig;
use self::trust::Trust;

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [role, folder, port, corpus] = words.as_slice()
        && role == "origin"
    {
        return origin::main(Path::new(folder), port.parse()?, Corpus::parse(corpus)?);
    }
    let options = Options::read(words.into_iter())?;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    let folder = tempfile::Builder::new().prefix("postern-bench-").tempdir()?;
    let state = tempfile::Builder::new().prefix("postern-bench-state-").tempdir_in(&options.state)?;
    let (folder, state) =
        if options.keep { (folder.keep(), state.keep()) } else { (path(&folder), path(&state)) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(options, &folder, &state))
}

fn path(folder: &tempfile::TempDir) -> std::path::PathBuf {
    folder.path().to_owned()
}

async fn run(options: Options, folder: &Path, state: &Path) -> anyhow::Result<()> {
    let trust = Trust::make(folder)?;
    let tls = Arc::new(trust.client()?);
    let site = Site {
        folder: folder.to_owned(),
        state: state.to_owned(),
        postern: options.postern.clone(),
        haproxy: options.haproxy.clone(),
        trust,
        corpus: options.corpus,
    };
    let origin = site.origin()?;
    let (gateway, shown) = (site.postern.display(), site.corpus.name());
    println!("gateway {gateway}, terminals show {shown}, recordings and database in {}", state.display());
    let rig = Rig { site, options, origin, tls };
    let wanted = |load: &str| {
        let wanted = rig.options.wants(load);
        if wanted {
            eprintln!("{load}:");
        }
        wanted
    };
    if wanted("burst") {
        loads::burst(&rig).await?;
    }
    if wanted("paced") {
        loads::paced(&rig).await?;
    }
    if wanted("keystrokes") {
        loads::keystrokes(&rig).await?;
    }
    if wanted("idle") {
        loads::idle(&rig).await?;
    }
    if wanted("connect") {
        loads::connect(&rig).await?;
    }
    if wanted("cut") {
        loads::cut(&rig).await?;
    }
    Ok(())
}
