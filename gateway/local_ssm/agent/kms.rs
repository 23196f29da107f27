//! The agent's side of an encrypted session: key, challenge, payloads.

use std::sync::atomic::Ordering;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use data_channel::handshake::{EncChallenge, HandshakeRequest, HandshakeResponse, KmsAction};
use data_channel::{Cipher, Message, PayloadType};

use super::{Agent, HANDSHAKE_WAIT, Stage};
use crate::local_ssm::callers::random;
use crate::local_ssm::kms::Context;
use crate::local_ssm::sessions::{Session, Status};

/// Random bytes that a newer agent wants bound to the key; its own number.
const CHALLENGE: usize = 16;
/// Random bytes that the client has to decrypt; the agent's own number.
const PROOF: usize = 64;

/// The encryption of one session.
pub(super) struct Encryption {
    key_id: String,
    challenge: Option<String>,
    cipher: Option<Cipher>,
    proof: [u8; PROOF],
}

impl Encryption {
    /// With the target's key; newer agents add a challenge.
    pub(super) fn new(key_id: &str, challenges: bool) -> Self {
        let challenge = challenges.then(|| STANDARD.encode(random::<CHALLENGE>()));
        Self { key_id: key_id.to_owned(), challenge, cipher: None, proof: random() }
    }

    /// The handshake that asks the client for the key.
    pub(super) fn asked_for(&self, request: HandshakeRequest) -> HandshakeRequest {
        let key = KmsAction { kms_key_id: self.key_id.clone(), challenge: self.challenge.clone() };
        request.encrypted_with(&key)
    }

    /// A payload as it goes out; none if it goes out as it is.
    pub(super) fn sealed(&self, kind: PayloadType, clear: &[u8], session: &Session) -> Option<Vec<u8>> {
        let cipher = self.cipher.as_ref().filter(|_| kind.is_encrypted_by_kms())?;
        let mut sealed = cipher.encrypt(clear).ok()?;
        if session.spoil_next.swap(false, Ordering::Relaxed)
            && let Some(last) = sealed.last_mut()
        {
            *last ^= 1;
        }
        Some(sealed)
    }
}

impl Agent {
    /// An input message in clear; none if it does not decrypt.
    pub(super) fn opened(&self, message: Message) -> Option<Message> {
        let cipher = self.encryption.as_ref().and_then(|encryption| encryption.cipher.as_ref());
        match cipher.filter(|_| message.payload_type() == PayloadType::Output) {
            None => Some(message),
            Some(cipher) => {
                let clear = cipher.decrypt(message.payload()).ok()?;
                Message::parse(message.with_payload(PayloadType::Output, &clear)).ok()
            }
        }
    }

    /// Takes the key from the client's answer and asks for proof of it.
    pub(super) fn take_key(&mut self, answer: &HandshakeResponse) {
        if let Err(why) = self.key_from(answer) {
            self.ended(Status::Failed, &format!("Fetching data key failed: {why}"));
        }
    }

    fn key_from(&mut self, answer: &HandshakeResponse) -> Result<(), String> {
        let Some(encryption) = &mut self.encryption else { return Ok(()) };
        if encryption.cipher.is_some() {
            // The real agent goes deaf on it; here it shows.
            return Err("the client answered the handshake twice".to_owned());
        }
        let given = answer.key().ok_or("the client gave no key")?;
        let sealed = given.sealed_key().map_err(|error| error.to_string())?;
        let (session, target) = (self.session.id.to_string(), self.target.id.clone());
        let mut context = Context::from([
            ("aws:ssm:SessionId".to_owned(), session),
            ("aws:ssm:TargetId".to_owned(), target),
        ]);
        if let Some(challenge) = encryption.challenge.clone().filter(|_| given.challenge_acknowledged) {
            context.insert("aws:ssm:RandomChallenge".to_owned(), challenge);
        }
        let opened = self.service.keys.open(&sealed, &context, Some(&encryption.key_id));
        let (_, key) = opened.map_err(|fault| fault.sentence())?;
        let cipher = Cipher::agent(&key).map_err(|error| error.to_string())?;
        let challenge = cipher.challenge(&encryption.proof).map_err(|error| error.to_string())?;
        encryption.cipher = Some(cipher);
        self.unsent.push_back((PayloadType::EncChallengeRequest, challenge.encode()));
        self.stage = Stage::Handshake { until: Instant::now() + HANDSHAKE_WAIT };
        Ok(())
    }

    /// The client has shown that it has the key, or has not.
    pub(super) fn proved(&mut self, payload: &[u8]) {
        let Some(Encryption { cipher: Some(cipher), proof, .. }) = &self.encryption else { return };
        let proved = EncChallenge::parse(payload).is_ok_and(|answer| cipher.is_proof(&answer, proof));
        // The real agent notices a wrong answer only when its time is up.
        if proved {
            self.handshake_answered();
        }
    }
}
