//! Recordings that are read where they lie, with no gateway in between.

use std::fs::File;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::archive::{Archive, ArchiveConfig};
use crate::client::{Gateway, Profile};
use crate::recorder::{Checkpoint, PublicKey};
use crate::serve::archive_access;
use crate::session::{SessionId, printable};
use crate::shipper::{Copy, Reader, ShipperError};

/// The keys of these files; if there are none, those of the gateway.
pub(super) fn trusted(files: &[PathBuf], profile: Option<&str>) -> anyhow::Result<Vec<PublicKey>> {
    if !files.is_empty() {
        return Ok(files.iter().map(|path| PublicKey::read(path)).collect::<Result<_, _>>()?);
    }
    let asked = super::block_on(async {
        let gateway = Gateway::open(Profile::load(profile).await?).await?;
        Ok(gateway.get_json::<Value>("/v1/recording-keys").await?)
    });
    let asked = asked.context("no key to check with; give --key FILE or the --profile of the gateway")?;
    let pems = asked.as_array().into_iter().flatten().filter_map(|key| key.get("pem")?.as_str());
    Ok(pems.map(PublicKey::from_pem).collect::<Result<_, _>>()?)
}

/// An archive that is there: a directory, or `s3://bucket/prefix`.
pub(super) async fn archive(location: &str) -> anyhow::Result<Archive> {
    let config = ArchiveConfig { location: Some(location.to_owned()), ..ArchiveConfig::default() };
    let far = config.needs_access();
    anyhow::ensure!(far || Path::new(location).is_dir(), "{location} is no directory");
    let access = if far { Some(archive_access(None, None).await?) } else { None };
    Ok(Archive::open(&config, access.as_ref())?)
}

/// A log group, and a folder for what is read from it.
pub(super) struct LogGroup {
    pub name: String,
    folder: PathBuf,
}

impl LogGroup {
    pub fn open(name: &str) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("postern-read-back-{}", std::process::id()));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&folder);
        made.with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self { name: name.to_owned(), folder })
    }

    /// Makes a recording again from its log stream.
    pub async fn recording(&self, id: &SessionId, trusted: &[PublicKey]) -> Result<Copy, ShipperError> {
        Reader::open(&self.name, &self.folder).await?.recording(id, trusted).await
    }
}

impl Drop for LogGroup {
    fn drop(&mut self) {
        // What is left is a folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Where a recording is fetched from.
pub(super) enum Place<'a> {
    /// A log group of CloudWatch Logs.
    LogGroup(&'a str),
    /// A directory, or `s3://bucket/prefix`.
    Archive(&'a str),
}

/// What is known of a recording that was fetched.
pub(super) struct Known {
    /// What is proved of one that is not sealed.
    pub proved: Option<Checkpoint>,
    /// What else is there that no gateway put there.
    pub others: Vec<String>,
}

/// What is said of something else in a log stream.
pub(super) fn strange(other: &str) -> String {
    format!("also in the log stream, put there by no gateway: {}", printable(other))
}

/// Copies a session's recording into a file, once it is proved.
///
/// Of a recording that is not this session's, or not as it was signed,
/// the error says what is wrong, and what is in the file is not for use.
pub(super) async fn fetch(
    place: Place<'_>,
    id: &SessionId,
    (trusted, mut into): (&[PublicKey], File),
) -> anyhow::Result<Known> {
    match place {
        Place::Archive(location) => {
            let found = archive(location).await?.read(id, trusted).await?;
            let reading = found.with_context(|| format!("{location} has no recording of a session {id}"))?;
            reading.copy(&mut into).await?;
            Ok(Known { proved: None, others: Vec::new() })
        }
        Place::LogGroup(name) => {
            let group = LogGroup::open(name)?;
            let mut copy = group.recording(id, trusted).await?;
            if !copy.is_proved() {
                bail!(
                    "{name} has the beginning of session {id}, and nothing of it is signed: it proves nothing"
                );
            }
            std::io::copy(&mut File::open(&copy.path)?, &mut into)?;
            Ok(Known { proved: copy.proved.take(), others: std::mem::take(&mut copy.others) })
        }
    }
}
