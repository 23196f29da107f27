//! The master keys that seal what leaves the gateway and comes back.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{aead, hkdf, hmac};

use super::IdentityError;

/// Length of a master key, bytes: what HKDF-SHA256 can use.
const MASTER_LENGTH: usize = 32;
/// Length of a key's id, bytes; it leads everything the key seals.
const ID_LENGTH: usize = 8;
/// Length of a tag, bytes: what nobody guesses.
pub(super) const TAG_LENGTH: usize = 16;
/// Largest key ring file, bytes: some hundred keys.
const FILE_MAX: u64 = 16 * 1024;
/// Longest sealed text opened, bytes; headers end at 8 KB anyway.
const SEALED_MAX: usize = 8 * 1024;
/// Bits that let somebody else than the owner at the file.
const OTHERS: u32 = 0o077;

const HEADER: &str = "# Postern key ring: keep it secret, mode 0600, the same on every node.\n\
    # A line is an id of 8 lower-case letters and digits, and 32 random bytes in base64.\n\
    # The last key seals; the ones before still open what they sealed.\n";

/// One master key; its bytes never leave this file.
struct MasterKey {
    id: [u8; ID_LENGTH],
    derive: hkdf::Prk,
}

/// Master keys: the newest seals, every one opens.
pub struct KeyRing {
    newest: MasterKey,
    older: Vec<MasterKey>,
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyRing").field("keys", &(self.older.len() + 1)).finish_non_exhaustive()
    }
}

/// What was sealed, and the id of the key that sealed it.
pub(super) struct Opened {
    pub(super) bytes: Vec<u8>,
    pub(super) key_id: [u8; ID_LENGTH],
}

impl KeyRing {
    /// Reads the key ring, and makes one with a fresh key on first use.
    ///
    /// The file is made whole or not at all, so that two processes starting
    /// at once end up with the same ring.
    pub fn open(path: &Path) -> Result<Self, IdentityError> {
        let wrong = |why: String| IdentityError::KeyRing { path: path.display().to_string(), why };
        let text = match read_private(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create(path).and_then(|()| read_private(path))
            }
            other => other,
        };
        Self::parse(&text.map_err(|error| wrong(error.to_string()))?).map_err(|why| wrong(why.to_owned()))
    }

    /// Seals bytes for one purpose: AES-256-GCM, base64url.
    ///
    /// What was sealed for one purpose does not open for another.
    pub fn seal(&self, purpose: &str, bytes: &[u8]) -> String {
        let key = &self.newest;
        let nonce: [u8; aead::NONCE_LEN] = random();
        let mut sealed = bytes.to_vec();
        let done = key.sealing(purpose).and_then(|with| {
            let nonce = aead::Nonce::assume_unique_for_key(nonce);
            with.seal_in_place_append_tag(nonce, aead::Aad::from(purpose), &mut sealed)
        });
        if done.is_err() {
            // Only a text of 64 GB cannot be sealed; it must never go out open.
            std::process::abort();
        }
        URL_SAFE_NO_PAD.encode([key.id.as_slice(), &nonce, &sealed].concat())
    }

    /// Opens what [`KeyRing::seal`] sealed for the same purpose.
    pub fn unseal(&self, purpose: &str, sealed: &str) -> Result<Vec<u8>, IdentityError> {
        self.opened(purpose, sealed).map(|opened| opened.bytes)
    }

    pub(super) fn opened(&self, purpose: &str, sealed: &str) -> Result<Opened, IdentityError> {
        let broken = || IdentityError::NotSealed;
        if sealed.len() > SEALED_MAX {
            return Err(broken());
        }
        let raw = URL_SAFE_NO_PAD.decode(sealed).map_err(|_| broken())?;
        let (key_id, rest) = raw.split_first_chunk::<ID_LENGTH>().ok_or_else(broken)?;
        let (nonce, rest) = rest.split_first_chunk::<{ aead::NONCE_LEN }>().ok_or_else(broken)?;
        let key = self.key(key_id).ok_or_else(broken)?;
        let with = key.sealing(purpose).map_err(|_| broken())?;
        let mut bytes = rest.to_vec();
        let nonce = aead::Nonce::assume_unique_for_key(*nonce);
        let length =
            with.open_in_place(nonce, aead::Aad::from(purpose), &mut bytes).map_err(|_| broken())?.len();
        bytes.truncate(length);
        Ok(Opened { bytes, key_id: *key_id })
    }

    /// Keys for one purpose and one thing, such as a session: newest first.
    ///
    /// Every node with this ring has the same; none tells of another.
    pub fn keys_for(&self, purpose: &str, about: &[u8]) -> Vec<[u8; 32]> {
        let newest_first = std::iter::once(&self.newest).chain(self.older.iter().rev());
        let tags = newest_first.map(|key| self.mac(&key.id, purpose, about));
        // HMAC-SHA256 always has 32 bytes; with no key nothing may go on.
        let key = |tag: Option<hmac::Tag>| tag.and_then(|tag| tag.as_ref().first_chunk().copied());
        tags.map(|tag| key(tag).unwrap_or_else(|| std::process::abort())).collect()
    }

    /// A keyed hash under the key of this id, for one purpose.
    pub(super) fn mac(&self, key_id: &[u8; ID_LENGTH], purpose: &str, bytes: &[u8]) -> Option<hmac::Tag> {
        let info = [b"mac".as_slice(), purpose.as_bytes()];
        let derived = self.key(key_id)?.derive.expand(&info, hmac::HMAC_SHA256).ok()?;
        Some(hmac::sign(&hmac::Key::from(derived), bytes))
    }

    /// A keyed hash under the newest key, cut to 16 bytes.
    pub(super) fn tag(&self, purpose: &str, bytes: &[u8]) -> Option<[u8; TAG_LENGTH]> {
        let mac = self.mac(&self.newest.id, purpose, bytes)?;
        mac.as_ref().first_chunk().copied()
    }

    /// Whether one of the keys has tagged these bytes.
    pub(super) fn has_tagged(&self, purpose: &str, bytes: &[u8], tag: &[u8; TAG_LENGTH]) -> bool {
        let by = |key: &MasterKey| {
            let mac = self.mac(&key.id, purpose, bytes);
            // All of it is looked at, so the time it takes tells nothing.
            let differs = |mac: hmac::Tag| mac.as_ref().iter().zip(tag).fold(0, |all, (a, b)| all | (a ^ b));
            mac.is_some_and(|mac| differs(mac) == 0)
        };
        std::iter::once(&self.newest).chain(&self.older).any(by)
    }

    fn key(&self, id: &[u8; ID_LENGTH]) -> Option<&MasterKey> {
        std::iter::once(&self.newest).chain(&self.older).find(|key| key.id == *id)
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut older: Vec<MasterKey> = lines.map(MasterKey::parse).collect::<Result<_, _>>()?;
        let newest = older.pop().ok_or("it holds no key: delete it to have a new one made")?;
        let ring = Self { newest, older };
        let mut ids: Vec<_> = ring.older.iter().map(|key| key.id).chain([ring.newest.id]).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() == ring.older.len() + 1 { Ok(ring) } else { Err("two keys have the same id") }
    }
}

impl MasterKey {
    fn parse(line: &str) -> Result<Self, &'static str> {
        let broken = "each line must be an id of 8 lower-case letters and digits, and 32 bytes in base64";
        let (id, key) = line.split_once(' ').ok_or(broken)?;
        let plain = id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let id: [u8; ID_LENGTH] = id.as_bytes().try_into().map_err(|_| broken)?;
        let key = STANDARD.decode(key.trim()).map_err(|_| broken)?;
        if !plain || key.len() != MASTER_LENGTH {
            return Err(broken);
        }
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"postern key ring 1");
        Ok(Self { id, derive: salt.extract(&key) })
    }

    fn sealing(&self, purpose: &str) -> Result<aead::LessSafeKey, ring::error::Unspecified> {
        let info = [b"seal".as_slice(), purpose.as_bytes()];
        let derived = self.derive.expand(&info, &aead::AES_256_GCM)?;
        Ok(aead::LessSafeKey::new(aead::UnboundKey::from(derived)))
    }
}

/// Random bytes from the operating system.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Without the operating system's randomness nothing here is safe.
    if SystemRandom::new().fill(&mut bytes).is_err() {
        std::process::abort();
    }
    bytes
}

/// Reads a file that nobody but its owner can read.
fn read_private(path: &Path) -> io::Result<String> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a plain file"));
    }
    if metadata.mode() & OTHERS != 0 {
        return Err(io::Error::other("others can read it: run chmod 600 on it, and replace its keys"));
    }
    let mut text = String::new();
    file.take(FILE_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_MAX {
        return Err(io::Error::other("it is larger than 16 KB"));
    }
    Ok(text)
}

/// Makes a ring with one fresh key; leaves one alone that is there by now.
fn create(path: &Path) -> io::Result<()> {
    let mark: [u8; ID_LENGTH] = random();
    let id = data_encoding::BASE32_NOPAD.encode(&mark).to_ascii_lowercase();
    let id = id.get(..ID_LENGTH).unwrap_or("firstkey");
    let key: [u8; MASTER_LENGTH] = random();
    let draft = path.with_extension(format!("{id}.new"));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let written = file
        .write_all(format!("{HEADER}{id} {}\n", STANDARD.encode(key)).as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::hard_link(&draft, path));
    fs::remove_file(&draft)?;
    match written {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn ring_in(folder: &tempfile::TempDir) -> KeyRing {
        KeyRing::open(&folder.path().join("keys")).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let sealed = ring_in(&folder).seal("stream", b"session-1");
        assert_eq!(ring_in(&folder).unseal("stream", &sealed).unwrap(), b"session-1");
        let mode = fs::metadata(folder.path().join("keys")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a draft was left behind");
    }

    #[test]
    fn a_changed_sealed_text_or_another_purpose_does_not_open() {
        let folder = tempfile::tempdir().unwrap();
        let ring = ring_in(&folder);
        let sealed = ring.seal("stream", b"session-1");
        assert!(ring.unseal("login", &sealed).is_err());
        assert!(ring.unseal("stream", &"A".repeat(9000)).is_err());
        for at in 0..sealed.len() {
            let mut bytes = sealed.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(ring.unseal("stream", &changed).is_err(), "changed at {at}");
            assert!(ring.unseal("stream", &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn an_older_key_still_opens_and_the_last_one_seals() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let sealed = ring_in(&folder).seal("stream", b"old");
        let line = format!("second00 {}\n", STANDARD.encode([7; 32]));
        OpenOptions::new().append(true).open(&path).unwrap().write_all(line.as_bytes()).unwrap();
        let ring = ring_in(&folder);
        assert_eq!(ring.unseal("stream", &sealed).unwrap(), b"old");
        let raw = URL_SAFE_NO_PAD.decode(ring.seal("stream", b"new")).unwrap();
        assert!(raw.starts_with(b"second00"));
    }

    #[test]
    fn keys_for_a_session_outlive_a_restart_and_another_master_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let before = ring_in(&folder).keys_for("input", b"session-1");
        let line = format!("second00 {}\n", STANDARD.encode([7; 32]));
        OpenOptions::new().append(true).open(&path).unwrap().write_all(line.as_bytes()).unwrap();
        let ring = ring_in(&folder);
        let after = ring.keys_for("input", b"session-1");
        assert_eq!((after.len(), &after[1..]), (2, before.as_slice()));
        assert_ne!(after, ring.keys_for("input", b"session-2"));
        assert_ne!(after, ring.keys_for("other", b"session-1"));
    }

    #[test]
    fn a_ring_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        ring_in(&folder);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let sentence = KeyRing::open(&path).unwrap_err().to_string();
        assert!(sentence.contains("chmod 600"), "{sentence}");
    }

    #[test]
    fn a_broken_ring_is_refused_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let key = STANDARD.encode([7; 32]);
        let twice = format!("aaaaaaaa {key}\naaaaaaaa {key}\n");
        for text in ["", "# nothing\n", "short AAAA\n", "aaaaaaaa AAAA\n", "AAAAAAAA x\n", &twice] {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            assert!(KeyRing::open(&path).is_err(), "{text:?} was accepted");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn nothing_of_a_key_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(format!("{:?}", ring_in(&folder)), "KeyRing { keys: 1, .. }");
    }
}
