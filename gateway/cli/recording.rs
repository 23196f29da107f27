//! `postern replay`: a session's recording is fetched, then played.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::elsewhere::{self, Place};
use super::replay::{ReplayArgs, run};
use crate::client::{Gateway, Profile};
use crate::replay::{FlowTable, Outline, Timeline, commands, flow_table};
use crate::session::SessionId;
use crate::transcript::Command;

/// The word for the session that ended last.
const LAST: &str = "last";
/// Largest packed outline that is taken, bytes; that of 1 GB has a few MB.
const OUTLINE_MAX: usize = 16 << 20;

/// What `postern replay` can be told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    postern replay alice-abcdefghijklmnopqrstuvwxyz\n  \
    postern replay last                              the session that ended last\n  \
    postern replay recording.cast.zst --speed 4 --idle-limit 2\n  \
    postern replay alice-abcdefghijklmnopqrstuvwxyz --output session.cast\n  \
    postern replay recording.cast.zst | less -R\n  \
    postern replay alice-abcdefghijklmnopqrstuvwxyz --follow    while it runs\n\n\
    Without a gateway, with AWS credentials and its public key:\n  \
    postern replay --cloudwatch /postern/sessions --key recording.key.pub alice-abcdefghijklmnopqrstuvwxyz\n  \
    postern replay --archive s3://example-recordings/postern --key recording.key.pub \\\n      \
    alice-abcdefghijklmnopqrstuvwxyz --output session.cast.zst")]
pub struct Args {
    #[command(flatten)]
    replay: ReplayArgs,
    /// Read a session back from this log group of CloudWatch Logs, with the
    /// AWS credentials and the region of your environment.
    #[arg(long, value_name = "LOG_GROUP", conflicts_with_all = ["archive", "follow"])]
    cloudwatch: Option<String>,
    /// Take it from an archive: a directory, or s3://bucket/prefix.
    #[arg(long, value_name = "LOCATION", conflicts_with = "follow")]
    archive: Option<String>,
    /// A public key that you trust, PEM, for --cloudwatch and --archive; may
    /// be given more than once. Else the gateway is asked for its keys.
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// The AWS profile that points at the gateway.
    #[arg(long, env = "POSTERN_PROFILE")]
    profile: Option<String>,
}

/// Plays a file, or a session's recording from the gateway.
pub fn replay(mut args: Args) -> anyhow::Result<ExitCode> {
    let mut fetched = None;
    let profile = args.profile.as_deref();
    if let Some(place) = place(&args) {
        let copy = fetched.insert(Fetched::from(place, &args)?);
        args.replay.recording = copy.path.display().to_string();
        run(&args.replay, |_| bail!("it is no file"))?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.replay.recording == LAST {
        args.replay.recording = super::block_on(last(profile))?;
    }
    if args.replay.follow {
        super::block_on(super::follow::follow(&args.replay.recording, profile))?;
        return Ok(ExitCode::SUCCESS);
    }
    run(&args.replay, |id| {
        let (copy, outline) = Fetched::fetch(id, profile)?;
        Ok((fetched.insert(copy).path.clone(), outline))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Where to look for it, if not at the gateway.
fn place(args: &Args) -> Option<Place<'_>> {
    let group = args.cloudwatch.as_deref().map(Place::LogGroup);
    group.or(args.archive.as_deref().map(Place::Archive))
}

/// The id of the session that ended last, of those the caller may see.
async fn last(profile: Option<&str>) -> anyhow::Result<String> {
    let gateway = Gateway::open(Profile::load(profile).await?).await?;
    let newest = super::sessions::newest(&gateway, "history", 1).await?;
    let id = newest.first().and_then(|session| session.get("id")?.as_str());
    Ok(id.context("no session has ended yet")?.to_owned())
}

/// A copy of a recording, removed when it is no longer needed.
pub(super) struct Fetched {
    pub path: PathBuf,
}

impl Fetched {
    /// The recording, and its outline if somebody is there to go to and fro.
    fn fetch(id: &SessionId, profile: Option<&str>) -> anyhow::Result<(Self, Option<Outline>)> {
        let (copy, file) = Self::new(id)?;
        let outline = super::block_on(fetch(id, profile, file))?;
        Ok((copy, outline))
    }

    /// The recording from where it lies, proved by keys that are trusted.
    fn from(place: Place<'_>, args: &Args) -> anyhow::Result<Self> {
        let id = SessionId::parse(&args.replay.recording).context("a session is read back by its id")?;
        let trusted = elsewhere::trusted(&args.keys, args.profile.as_deref())?;
        let (copy, file) = Self::new(&id)?;
        let known = super::block_on(elsewhere::fetch(place, &id, (&trusted, file)))?;
        if let Some(proved) = known.proved {
            let (lines, seconds) = (proved.lines, proved.until_ms as f64 / 1000.0);
            eprintln!("postern: it is not sealed; proved are its first {lines} lines, up to {seconds:.3} s");
        }
        for other in known.others {
            eprintln!("postern: {}", elsewhere::strange(&other));
        }
        Ok(copy)
    }

    /// A file that is empty so far.
    pub(super) fn new(id: &SessionId) -> anyhow::Result<(Self, File)> {
        let name = format!("postern-{}-{id}.cast.zst", uuid::Uuid::new_v4());
        let path = std::env::temp_dir().join(name);
        let file = create(&path)?;
        Ok((Self { path }, file))
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        // What somebody else removed need not be removed.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn create(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.with_context(|| format!("cannot write {}", path.display()))
}

/// The connections of a port session, as far as its recording goes now.
pub(super) async fn connections(gateway: &Gateway, id: &SessionId) -> anyhow::Result<FlowTable> {
    let (copy, file) = Fetched::new(id)?;
    tell(download(id, gateway, file).await?);
    let (table, _) = flow_table(&mut Timeline::open(&copy.path)?)?;
    Ok(table)
}

/// The commands of a session, as far as its recording goes now.
pub(super) async fn typed(gateway: &Gateway, id: &SessionId) -> anyhow::Result<Vec<Command>> {
    let (copy, file) = Fetched::new(id)?;
    tell(download(id, gateway, file).await?);
    Ok(commands(&mut Timeline::open(&copy.path)?)?)
}

async fn fetch(id: &SessionId, profile: Option<&str>, file: File) -> anyhow::Result<Option<Outline>> {
    let gateway = Gateway::open(Profile::load(profile).await?).await?;
    tell(download(id, &gateway, file).await?);
    if !std::io::stdout().is_terminal() {
        return Ok(None);
    }
    // Without it a moment far away takes a while.
    let answer = gateway.get(&format!("/v1/sessions/{id}/outline")).await;
    let Ok(mut answer) = answer else { return Ok(None) };
    let mut packed = Vec::new();
    while let Ok(Some(piece)) = answer.chunk().await {
        if packed.len() + piece.len() > OUTLINE_MAX {
            return Ok(None);
        }
        packed.extend_from_slice(&piece);
    }
    Ok(Outline::unpack(&packed))
}

/// Takes the recording as it is now.
///
/// One that breaks off is asked for once more: what the gateway found out by
/// that, it then has from elsewhere or refuses with a sentence. Says what the
/// person should know of it.
pub(super) async fn download(
    id: &SessionId,
    gateway: &Gateway,
    mut file: File,
) -> anyhow::Result<Option<&'static str>> {
    let broke_off = "the recording broke off, so nothing of it is shown: the gateway stopped sending it. Its log says \
         why; what is not as it was archived is not given out";
    let path = format!("/v1/sessions/{id}/recording");
    let mut answer = gateway.get(&path).await?;
    let mut asked_again = false;
    loop {
        match answer.chunk().await {
            Ok(Some(piece)) => file.write_all(&piece)?,
            Ok(None) => break,
            Err(error) if asked_again => return Err(error).context(broke_off),
            Err(_) => {
                asked_again = true;
                file.set_len(0).and_then(|()| file.rewind())?;
                answer = gateway.get(&path).await?;
            }
        }
    }
    Ok(answer.headers().contains_key("x-postern-archive-damaged").then_some(
        "what the archive has of this recording is not what was archived, so it is shown as CloudWatch Logs has it, \
         which is signed; tell whoever runs the gateway",
    ))
}

/// Tells the person what a download has told.
pub(super) fn tell(notice: Option<&str>) {
    if let Some(notice) = notice {
        eprintln!("postern: {notice}");
    }
}
