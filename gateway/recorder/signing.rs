//! The Ed25519 key that signs evidence, and the public halves that check it.
//!
//! One key signs. Its predecessors' public halves stay, in a folder beside it,
//! because what they signed stays: `recording.key` is the key, `.pub` its
//! public half, and `recording.key.retired/<id>.pub` are those before it.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use data_encoding::HEXLOWER;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use super::RecorderError;

/// PKCS#8 v1 around a 32-byte Ed25519 seed (RFC 8410, section 7).
const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// SubjectPublicKeyInfo around a 32-byte Ed25519 key (RFC 8410, section 4).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// The gateway's signing key for evidence.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
    retired: Vec<PublicKey>,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.public.id()).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Reads the key file (PEM, mode 0600); makes it on first use.
    ///
    /// The public half is kept beside it as `<path>.pub`. Both are PEM that
    /// `openssl pkey` reads.
    pub fn open(path: &Path) -> Result<Self, RecorderError> {
        let mut key = match fs::read_to_string(path) {
            Ok(text) => Self::read(path, &text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(path)?,
            Err(error) => return Err(RecorderError::io(format!("read {}", path.display()))(error)),
        };
        let public = beside(path, ".pub");
        if fs::read_to_string(&public).ok().as_deref() != Some(&key.public.to_pem()) {
            let what = format!("write {}", public.display());
            fs::write(&public, key.public.to_pem()).map_err(RecorderError::io(what))?;
        }
        key.retired = retired(path)?;
        Ok(key)
    }

    /// Makes another key sign from now on; gives the old and the new one.
    ///
    /// A gateway that runs signs with the old one until it is started again.
    /// The old private key is gone then, its public half stays known.
    pub fn rotate(path: &Path) -> Result<(PublicKey, PublicKey), RecorderError> {
        let what = || format!("write {}", path.display());
        let old = Self::read(path, &fs::read_to_string(path).map_err(RecorderError::io(what()))?)?.public;
        let folder = beside(path, ".retired");
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        let kept = made
            .and_then(|()| write_whole(&folder.join(format!("{}.pub", old.id())), &old.to_pem(), 0o644))
            .and_then(|()| flush_names(&folder));
        kept.map_err(RecorderError::io(format!("write into {}", folder.display())))?;
        write_whole(path, &fresh()?, 0o600).map_err(RecorderError::io(what()))?;
        Ok((old, Self::open(path)?.public))
    }

    /// Every key that has signed here: this one, then its predecessors.
    pub fn known(&self) -> Vec<PublicKey> {
        let retired = self.retired.iter().copied().filter(|key| *key != self.public);
        std::iter::once(self.public).chain(retired).collect()
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The Ed25519 signature of a message.
    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }

    fn read(path: &Path, text: &str) -> Result<Self, RecorderError> {
        let bad = |why: &str| RecorderError::Key(format!("{} {why}", path.display()));
        let mode = fs::metadata(path).map_err(RecorderError::io(format!("read {}", path.display())))?.mode();
        if mode & 0o077 != 0 {
            return Err(bad("may be read by others: chmod 600 it"));
        }
        let der = unwrap_pem(text, "PRIVATE KEY").ok_or_else(|| bad("is not PEM"))?;
        Self::from_pkcs8(&der).ok_or_else(|| bad("is not an Ed25519 key"))
    }

    fn from_pkcs8(der: &[u8]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok()?;
        let public = PublicKey(pair.public_key().as_ref().try_into().ok()?);
        Some(Self { pair, public, retired: Vec::new() })
    }

    /// Makes a key; when two processes race, both use the one that won.
    fn create(path: &Path) -> Result<Self, RecorderError> {
        let pem = fresh()?;
        let what = || format!("write {}", path.display());
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(RecorderError::io(what()))?;
        }
        let draft = path.with_extension(format!("new-{}", std::process::id()));
        let written = write_secret(&draft, &pem).and_then(|()| match fs::hard_link(&draft, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        });
        let _ = fs::remove_file(&draft);
        written.map_err(RecorderError::io(what()))?;
        let text = fs::read_to_string(path).map_err(RecorderError::io(what()))?;
        Self::read(path, &text)
    }
}

/// The public half of a signing key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; 32]);

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

impl PublicKey {
    /// The key's id: the first 16 hex digits of its SHA-256.
    pub fn id(&self) -> String {
        let digest = ring::digest::digest(&ring::digest::SHA256, &self.0);
        HEXLOWER.encode(digest.as_ref().get(..8).unwrap_or_default())
    }

    /// Reads PEM (SubjectPublicKeyInfo), as in the `.pub` file.
    pub fn from_pem(text: &str) -> Result<Self, RecorderError> {
        let der = unwrap_pem(text, "PUBLIC KEY");
        let raw = der.as_deref().and_then(|der| der.strip_prefix(&SPKI));
        let key = raw.and_then(|raw| raw.try_into().ok());
        key.map(Self).ok_or_else(|| RecorderError::Key("is not an Ed25519 public key in PEM".into()))
    }

    /// Reads a `.pub` file.
    pub fn read(path: &Path) -> Result<Self, RecorderError> {
        let text = fs::read_to_string(path);
        Self::from_pem(&text.map_err(RecorderError::io(format!("read {}", path.display())))?)
    }

    /// The key as PEM (SubjectPublicKeyInfo).
    pub fn to_pem(&self) -> String {
        wrap_pem("PUBLIC KEY", &[SPKI.as_slice(), &self.0].concat())
    }

    /// Whether the signature of the message is by this key.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

/// A new private key, PEM.
fn fresh() -> Result<String, RecorderError> {
    let mut der = [PKCS8.as_slice(), &[0; 32]].concat();
    let seed = der.get_mut(PKCS8.len()..).unwrap_or_default();
    let filled = SystemRandom::new().fill(seed);
    filled.map_err(|_| RecorderError::Key("cannot be made: no randomness".into()))?;
    Ok(wrap_pem("PRIVATE KEY", &der))
}

/// The public halves of the keys before this one, by their ids.
fn retired(path: &Path) -> Result<Vec<PublicKey>, RecorderError> {
    let folder = beside(path, ".retired");
    let failed = || RecorderError::io(format!("read {}", folder.display()));
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed())?,
    };
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    let mut paths = paths.map_err(failed())?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "pub"));
    paths.sort();
    paths.iter().map(|path| PublicKey::read(path)).collect()
}

/// Where what belongs to a key file is kept.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Puts a file in place of the one before, whole or not at all.
fn write_whole(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let draft = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    flush_names(path)
}

/// The names in the folder that a file is in survive the machine.
fn flush_names(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn wrap_pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

fn unwrap_pem(text: &str, label: &str) -> Option<Vec<u8>> {
    let body = text.trim().strip_prefix(&format!("-----BEGIN {label}-----"))?;
    let body = body.strip_suffix(&format!("-----END {label}-----"))?;
    let packed: String = body.split_whitespace().collect();
    STANDARD.decode(packed).ok()
}
