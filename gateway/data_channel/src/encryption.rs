//! The encryption of a session with a KMS key: AES-256-GCM, a key each way.
//!
//! KMS makes 64 bytes for the session. The first half protects what the
//! agent sends, the second what the client sends. An encrypted payload is
//! nonce (12 bytes), ciphertext and tag (16 bytes) in a row; nothing else is
//! authenticated with it. Observed in the public sources of both peers
//! (`encryption/encrypter.go`, `agent/session/crypto/blockcipher.go`).

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

use crate::handshake::EncChallenge;

/// Bytes of the key that KMS makes for one session.
pub const DATA_KEY: usize = 64;
/// Bytes that encryption adds to a payload: nonce and tag.
pub const OVERHEAD: usize = NONCE_LEN + TAG_LEN;

/// Bytes of one direction's half of the key.
const HALF: usize = 32;
/// Bytes of an AES-GCM tag.
const TAG_LEN: usize = 16;

/// Why a payload was not encrypted or decrypted; shows nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncryptionError {
    /// KMS did not make what was asked for.
    #[error("the data key has {0} bytes, it must have 64")]
    DataKey(usize),
    /// Too short, of another key, or altered on the way.
    #[error("the payload was not encrypted with this session's key")]
    NotOurs,
    /// The operating system gives no random bytes.
    #[error("there is no randomness to encrypt with")]
    NoRandomness,
}

/// A session's key: for use here, and sealed by KMS for the other end.
#[derive(Debug)]
pub struct DataKey {
    /// Encrypts and decrypts.
    pub cipher: Cipher,
    /// What the other end has KMS open; no secret.
    pub sealed: Vec<u8>,
}

/// One end of an encrypted session.
pub struct Cipher {
    seals: LessSafeKey,
    opens: LessSafeKey,
    random: SystemRandom,
}

impl Cipher {
    /// The client's end: it opens with the first half, seals with the second.
    pub fn client(data_key: &[u8]) -> Result<Self, EncryptionError> {
        let (down, up) = halves(data_key)?;
        Ok(Self { seals: up, opens: down, random: SystemRandom::new() })
    }

    /// The agent's end: the other way round.
    pub fn agent(data_key: &[u8]) -> Result<Self, EncryptionError> {
        let (down, up) = halves(data_key)?;
        Ok(Self { seals: down, opens: up, random: SystemRandom::new() })
    }

    /// Encrypts a payload under a fresh random nonce.
    pub fn encrypt(&self, clear: &[u8]) -> Result<Vec<u8>, EncryptionError> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| EncryptionError::NoRandomness)?;
        self.encrypt_under(nonce, clear)
    }

    /// Decrypts a payload; what was altered on the way is refused.
    pub fn decrypt(&self, payload: &[u8]) -> Result<Vec<u8>, EncryptionError> {
        let (nonce, sealed) = payload.split_first_chunk::<NONCE_LEN>().ok_or(EncryptionError::NotOurs)?;
        let mut clear = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.opens.open_in_place(nonce, Aad::empty(), &mut clear);
        let len = opened.map_err(|_| EncryptionError::NotOurs)?.len();
        clear.truncate(len);
        Ok(clear)
    }

    /// Asks the other end to show that it has the key too.
    pub fn challenge(&self, random: &[u8]) -> Result<EncChallenge, EncryptionError> {
        Ok(EncChallenge::new(&self.encrypt(random)?))
    }

    /// Answers a challenge: what was encrypted one way goes back the other.
    pub fn answer(&self, challenge: &EncChallenge) -> Result<EncChallenge, EncryptionError> {
        self.challenge(&self.challenged(challenge)?)
    }

    /// Whether an answer shows that the other end has the key.
    pub fn is_proof(&self, answer: &EncChallenge, random: &[u8]) -> bool {
        self.challenged(answer).is_ok_and(|shown| shown == random)
    }

    fn challenged(&self, challenge: &EncChallenge) -> Result<Vec<u8>, EncryptionError> {
        self.decrypt(&challenge.encrypted().map_err(|_| EncryptionError::NotOurs)?)
    }

    fn encrypt_under(&self, nonce: [u8; NONCE_LEN], clear: &[u8]) -> Result<Vec<u8>, EncryptionError> {
        let mut payload = Vec::with_capacity(clear.len() + OVERHEAD);
        payload.extend_from_slice(&nonce);
        payload.extend_from_slice(clear);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let body = payload.get_mut(NONCE_LEN..).unwrap_or_default();
        let tag = self.seals.seal_in_place_separate_tag(nonce, Aad::empty(), body);
        // It fails only for payloads of 64 GB.
        payload.extend_from_slice(tag.map_err(|_| EncryptionError::NotOurs)?.as_ref());
        Ok(payload)
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cipher").finish_non_exhaustive()
    }
}

/// The keys of what goes down and of what goes up.
fn halves(data_key: &[u8]) -> Result<(LessSafeKey, LessSafeKey), EncryptionError> {
    let wrong = || EncryptionError::DataKey(data_key.len());
    let (down, up) = data_key.split_at_checked(HALF).ok_or_else(wrong)?;
    let key = |half: &[u8]| UnboundKey::new(&AES_256_GCM, half).map(LessSafeKey::new).map_err(|_| wrong());
    Ok((key(down)?, key(up)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test case 15 of the GCM specification, as a session's payload.
    const KEY: &str = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308";
    const NONCE: &str = "cafebabefacedbaddecaf888";
    const CLEAR: &str = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255";
    const SEALED: &str = "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad";
    const TAG: &str = "b094dac5d93471bdec1a502270e3cc6c";

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    fn key() -> Vec<u8> {
        (0..64).collect()
    }

    fn ends() -> (Cipher, Cipher) {
        (Cipher::agent(&key()).unwrap(), Cipher::client(&key()).unwrap())
    }

    #[test]
    fn a_payload_is_nonce_ciphertext_and_tag() {
        let data_key = [bytes(KEY), vec![7; 32]].concat();
        let agent = Cipher::agent(&data_key).unwrap();
        let nonce = bytes(NONCE).try_into().unwrap();
        let payload = agent.encrypt_under(nonce, &bytes(CLEAR)).unwrap();
        assert_eq!(payload, bytes(&[NONCE, SEALED, TAG].concat()));
        assert_eq!(Cipher::client(&data_key).unwrap().decrypt(&payload), Ok(bytes(CLEAR)));
        assert_eq!(payload.len(), bytes(CLEAR).len() + OVERHEAD);
    }

    #[test]
    fn the_first_half_protects_what_the_agent_sends() {
        let (agent, client) = ends();
        let swapped: Vec<u8> = [&key()[32..], &key()[..32]].concat();
        let down = agent.encrypt(b"$ ").unwrap();
        let up = client.encrypt(b"ls\r").unwrap();
        assert_eq!(client.decrypt(&down).unwrap(), b"$ ");
        assert_eq!(agent.decrypt(&up).unwrap(), b"ls\r");
        // Its own words sent back to an end are not taken for the other's.
        assert_eq!(agent.decrypt(&down), Err(EncryptionError::NotOurs));
        assert_eq!(Cipher::client(&swapped).unwrap().decrypt(&down), Err(EncryptionError::NotOurs));
    }

    #[test]
    fn the_same_words_are_never_encrypted_the_same() {
        let (agent, client) = ends();
        let (one, two) = (agent.encrypt(b"x").unwrap(), agent.encrypt(b"x").unwrap());
        assert_ne!(one, two);
        assert_eq!(client.decrypt(&one), client.decrypt(&two));
    }

    #[test]
    fn any_altered_or_missing_byte_is_refused() {
        let (agent, client) = ends();
        let payload = agent.encrypt(b"reboot").unwrap();
        for at in 0..payload.len() {
            let mut altered = payload.clone();
            altered[at] ^= 1;
            assert_eq!(client.decrypt(&altered), Err(EncryptionError::NotOurs), "byte {at}");
            assert_eq!(client.decrypt(&payload[..at]), Err(EncryptionError::NotOurs), "cut at {at}");
        }
    }

    #[test]
    fn a_challenge_is_answered_by_who_has_the_key_only() {
        let (agent, client) = ends();
        let random = [9; 64];
        let challenge = agent.challenge(&random).unwrap();
        let answer = client.answer(&challenge).unwrap();
        assert!(agent.is_proof(&answer, &random));
        assert!(!agent.is_proof(&answer, &[8; 64]));
        assert!(!agent.is_proof(&challenge, &random), "an echo is no answer");
        let stranger = Cipher::client(&[1; 64]).unwrap();
        assert!(stranger.answer(&challenge).is_err());
        let garbage = EncChallenge { challenge: "not base64!".to_owned() };
        assert_eq!(client.answer(&garbage), Err(EncryptionError::NotOurs));
    }

    #[test]
    fn a_key_of_another_length_is_none() {
        for len in [0, 32, 63, 65] {
            let key = vec![1; len];
            assert_eq!(Cipher::client(&key).err(), Some(EncryptionError::DataKey(len)));
        }
    }

    #[test]
    fn no_debug_text_tells_the_key() {
        let key = DataKey { cipher: Cipher::client(&key()).unwrap(), sealed: vec![1] };
        assert_eq!(format!("{key:?}"), "DataKey { cipher: Cipher { .. }, sealed: [1] }");
    }
}
