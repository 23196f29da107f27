//! `postern replay`: a session's recording is fetched, then played.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::Context;

use super::replay::{ReplayArgs, run};
use crate::client::{Gateway, Profile};
use crate::replay::{FlowTable, Outline, ReplayError, Timeline, commands, flow_table};
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
    postern replay alice-abcdefghijklmnopqrstuvwxyz --follow    while it runs")]
pub struct Args {
    #[command(flatten)]
    replay: ReplayArgs,
    /// The AWS profile that points at the gateway.
    #[arg(long, env = "POSTERN_PROFILE")]
    profile: Option<String>,
}

/// Plays a file, or a session's recording from the gateway.
pub fn replay(mut args: Args) -> anyhow::Result<ExitCode> {
    let mut fetched = None;
    let profile = args.profile.as_deref();
    if args.replay.recording == LAST {
        args.replay.recording = super::block_on(last(profile))?;
    }
    if args.replay.follow {
        super::block_on(follow(&args.replay.recording, profile))?;
        return Ok(ExitCode::SUCCESS);
    }
    run(&args.replay, |id| {
        let (copy, outline) = Fetched::fetch(id, profile)?;
        Ok((fetched.insert(copy).path.clone(), outline))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The id of the session that ended last, of those the caller may see.
async fn last(profile: Option<&str>) -> anyhow::Result<String> {
    let gateway = Gateway::open(Profile::load(profile).await?).await?;
    let newest = super::sessions::newest(&gateway, "history", 1).await?;
    let id = newest.first().and_then(|session| session.get("id")?.as_str());
    Ok(id.context("no session has ended yet")?.to_owned())
}

/// A copy of a recording, removed when it is no longer needed.
struct Fetched {
    path: PathBuf,
}

impl Fetched {
    /// The recording, and its outline if somebody is there to go to and fro.
    fn fetch(id: &SessionId, profile: Option<&str>) -> anyhow::Result<(Self, Option<Outline>)> {
        let (copy, file) = Self::new(id)?;
        let outline = super::block_on(fetch(id, profile, file))?;
        Ok((copy, outline))
    }

    fn new(id: &SessionId) -> anyhow::Result<(Self, File)> {
        let path = std::env::temp_dir().join(format!("postern-{}-{id}.cast.zst", std::process::id()));
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

/// Shows a running session until it ends or the person has seen enough.
async fn follow(session: &str, profile: Option<&str>) -> anyhow::Result<()> {
    let id = SessionId::parse(session).context("only a session can be followed, by its id")?;
    let gateway = Gateway::open(Profile::load(profile).await?).await?;
    let mut lines = gateway.get(&format!("/v1/sessions/{id}/recording?follow=true")).await?;
    let (copy, mut file) = Fetched::new(&id)?;
    let (grew, grown) = sync_channel(1);
    let (path, on_terminal) = (copy.path.clone(), std::io::stdout().is_terminal());
    let mut shown = tokio::task::spawn_blocking(move || show(&path, &grown, on_terminal));
    let fetched = async {
        while let Some(piece) = lines.chunk().await.context("the gateway broke off")? {
            file.write_all(&piece)?;
            // Full: it will look anyway. Gone: the other branch tells why.
            let _ = grew.try_send(());
        }
        Ok::<_, anyhow::Error>(())
    };
    let broke_off = tokio::select! {
        fetched = fetched => fetched.err(),
        shown = &mut shown => return Ok(shown??),
    };
    drop(grew);
    shown.await??;
    broke_off.map_or(Ok(()), Err)
}

fn show(path: &Path, grown: &Receiver<()>, on_terminal: bool) -> Result<(), ReplayError> {
    match crate::replay::follow(path, grown, on_terminal) {
        // `postern replay ID --follow | head` is no error.
        Err(ReplayError::Write(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map(|_| ()),
    }
}

/// The connections of a port session, as far as its recording goes now.
pub(super) async fn connections(gateway: &Gateway, id: &SessionId) -> anyhow::Result<FlowTable> {
    let (copy, file) = Fetched::new(id)?;
    download(id, gateway, file).await?;
    let (table, _) = flow_table(&mut Timeline::open(&copy.path)?)?;
    Ok(table)
}

/// The commands of a session, as far as its recording goes now.
pub(super) async fn typed(gateway: &Gateway, id: &SessionId) -> anyhow::Result<Vec<Command>> {
    let (copy, file) = Fetched::new(id)?;
    download(id, gateway, file).await?;
    Ok(commands(&mut Timeline::open(&copy.path)?)?)
}

async fn fetch(id: &SessionId, profile: Option<&str>, file: File) -> anyhow::Result<Option<Outline>> {
    let gateway = Gateway::open(Profile::load(profile).await?).await?;
    download(id, &gateway, file).await?;
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

async fn download(id: &SessionId, gateway: &Gateway, mut file: File) -> anyhow::Result<()> {
    let mut answer = gateway.get(&format!("/v1/sessions/{id}/recording")).await?;
    while let Some(piece) = answer.chunk().await.context("the recording broke off")? {
        file.write_all(&piece)?;
    }
    Ok(())
}
