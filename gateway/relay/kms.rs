//! KMS: the gateway is the client that the agent shares its key with.
//!
//! The agent's leg is encrypted, the user's is not, and the numbers of both
//! stay as they are: the agent's wish for a key is taken out of its first
//! message and the gateway's key put into the client's answer; the agent's
//! challenge becomes a second handshake request at the client, and the
//! client's answer to that becomes the answer to the challenge.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use data_channel::encryption::{Cipher, DataKey};
use data_channel::handshake::{EncChallenge, HandshakeRequest, HandshakeResponse, KmsAction, KmsResult};
use data_channel::message::Message;
use data_channel::payload::PayloadType;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Ended;
use super::pump::{Pump, Step, end};
use crate::recorder::Position;

/// A key that is being asked for; the error is a sentence for the user.
pub type AskedKey = Pin<Box<dyn Future<Output = Result<DataKey, String>> + Send>>;
/// Has KMS make the session's key, as the target asks in its handshake.
pub type DataKeys = Box<dyn FnMut(KmsAction) -> AskedKey + Send>;

/// The encryption of one session's upstream leg.
pub(super) struct Kms {
    data_keys: DataKeys,
    stage: Stage,
}

enum Stage {
    /// The target has not asked for encryption.
    Clear,
    /// The key is on its way, and maybe the client's answer waits for it.
    Asking { key: AskedKey, wish: Wish, answer: Option<Message> },
    /// There is no key; the sentence waits for a client to read it.
    Refused(String),
    /// Both ends have the key.
    Keyed(Box<Keyed>),
}

/// What the target asked for.
struct Wish {
    /// Its request as the client gets it; used once more for the challenge.
    clear_request: Vec<u8>,
    challenged: bool,
}

struct Keyed {
    cipher: Cipher,
    result: KmsResult,
    clear_request: Vec<u8>,
    /// The number under which the client answered the handshake.
    answered: Option<i64>,
    /// The answer to the target's challenge, and the number it has taken.
    proof: Option<(Vec<u8>, Option<i64>)>,
    complete: bool,
}

impl Kms {
    /// Of a new session; with a key, of one that is taken over.
    ///
    /// That one's handshake must be complete: what was said in it is gone.
    pub(super) fn new(data_keys: DataKeys, key: Option<DataKey>) -> Self {
        let taken_over = |key: DataKey| {
            let result = KmsResult::new(&key.sealed, false);
            let keyed = Keyed::new(key.cipher, result, Vec::new());
            Stage::Keyed(Box::new(Keyed { complete: true, ..keyed }))
        };
        Self { data_keys, stage: key.map_or(Stage::Clear, taken_over) }
    }

    /// An output message as the client gets it and the recording has it.
    pub(super) fn downward(&mut self, message: Message) -> Result<Message, Ended> {
        match message.payload_type() {
            PayloadType::HandshakeRequest => self.requested(message),
            PayloadType::EncChallengeRequest => self.challenged(&message),
            PayloadType::HandshakeComplete => {
                if let Stage::Keyed(keyed) = &mut self.stage {
                    keyed.complete = true;
                }
                Ok(message)
            }
            kind if kind.is_encrypted_by_kms() => match &self.stage {
                Stage::Clear => Ok(message),
                Stage::Asking { .. } | Stage::Refused(_) => Err(broken("sent output before it had its key")),
                Stage::Keyed(keyed) => {
                    let clear = keyed.cipher.decrypt(message.payload());
                    let clear = clear.map_err(|_| broken("sent output that does not decrypt"))?;
                    rewritten(&message, kind, &clear)
                }
            },
            _ => Ok(message),
        }
    }

    /// Takes the encryption out of the target's request and asks for the key.
    fn requested(&mut self, message: Message) -> Result<Message, Ended> {
        // One that cannot be read is refused by who looks at it next.
        let Ok(request) = HandshakeRequest::parse(message.payload()) else { return Ok(message) };
        match (&self.stage, request.asks_for_encryption()) {
            (Stage::Clear, false) => return Ok(message),
            (Stage::Clear, true) => {}
            _ => return Err(broken("began a second handshake")),
        }
        // Agents never encrypt ports; nobody else could open this one.
        if request.session_type().is_none_or(|kind| kind.session_type == "Port") {
            return Err(broken("asked for an encrypted port session, which does not exist"));
        }
        let Some(action) = request.kms_encryption() else {
            return Err(broken("asked for encryption in a way that cannot be read"));
        };
        let clear_request = request.without_encryption().encode();
        let clear = rewritten(&message, PayloadType::HandshakeRequest, &clear_request)?;
        let wish = Wish { clear_request, challenged: action.has_challenge() };
        // The agent waits for 15 s, so the key is asked for before the client answers.
        self.stage = Stage::Asking { key: (self.data_keys)(action), wish, answer: None };
        Ok(clear)
    }

    /// Answers the target's challenge; the client is asked again instead.
    fn challenged(&mut self, message: &Message) -> Result<Message, Ended> {
        let Stage::Keyed(keyed) = &mut self.stage else {
            return Err(broken("asked for proof of a key that it cannot have"));
        };
        if keyed.proof.is_some() || keyed.complete {
            return Err(broken("asked twice for proof of its key"));
        }
        let challenge = EncChallenge::parse(message.payload()).ok();
        let answer = challenge.and_then(|challenge| keyed.cipher.answer(&challenge).ok());
        let answer = answer.ok_or_else(|| broken("does not have the key that KMS made for it"))?;
        keyed.proof = Some((answer.encode(), None));
        rewritten(message, PayloadType::HandshakeRequest, &keyed.clear_request)
    }

    /// Whether an input message comes too early to be passed on or recorded.
    ///
    /// An agent discards what comes before its handshake is complete, and
    /// goes deaf on what it cannot decrypt yet. The client sends it again.
    pub(super) fn is_too_early(&self, message: &Message) -> bool {
        let complete = match &self.stage {
            Stage::Clear => true,
            Stage::Asking { .. } | Stage::Refused(_) => false,
            Stage::Keyed(keyed) => keyed.complete,
        };
        !complete && message.payload_type() == PayloadType::Output
    }

    /// An input message as the target gets it; none if it gets none now.
    pub(super) fn upward(&mut self, message: &Message) -> Result<Option<Bytes>, Ended> {
        match (&mut self.stage, message.payload_type()) {
            (Stage::Clear, _) => Ok(Some(message.raw().clone())),
            (Stage::Asking { answer, .. }, PayloadType::HandshakeResponse) => {
                answer.get_or_insert_with(|| message.clone());
                Ok(None)
            }
            (Stage::Keyed(keyed), PayloadType::HandshakeResponse) => Ok(keyed.response(message)),
            (Stage::Keyed(keyed), PayloadType::Output) => {
                let sealed = keyed.cipher.encrypt(message.payload());
                let sealed = sealed.map_err(|error| end("encryption_failed", &error.to_string()))?;
                Ok(Some(message.with_payload(PayloadType::Output, &sealed)))
            }
            // The proof of the key is the gateway's to give; without one there is no answer.
            (_, PayloadType::EncChallengeResponse) | (Stage::Refused(_), _) => Ok(None),
            _ => Ok(Some(message.raw().clone())),
        }
    }

    /// Why there is no key, if there is none.
    fn refusal(&self) -> Option<&str> {
        match &self.stage {
            Stage::Refused(sentence) => Some(sentence),
            _ => None,
        }
    }

    /// Takes the key once it is there; with it goes what has waited for it.
    fn poll_key(&mut self, cx: &mut Context<'_>) -> Option<Option<Bytes>> {
        let Stage::Asking { key, wish, answer } = &mut self.stage else { return None };
        let Poll::Ready(key) = key.as_mut().poll(cx) else { return None };
        let key = match key {
            Ok(key) => key,
            Err(sentence) => {
                self.stage = Stage::Refused(sentence);
                return None;
            }
        };
        let result = KmsResult::new(&key.sealed, wish.challenged);
        let mut keyed = Keyed::new(key.cipher, result, std::mem::take(&mut wish.clear_request));
        let waited = answer.take().and_then(|answer| keyed.response(&answer));
        self.stage = Stage::Keyed(Box::new(keyed));
        Some(waited)
    }
}

impl Keyed {
    fn new(cipher: Cipher, result: KmsResult, clear_request: Vec<u8>) -> Self {
        Self { cipher, result, clear_request, answered: None, proof: None, complete: false }
    }

    /// The client's answers: first to the handshake, then for the challenge.
    ///
    /// Each keeps its number, and so a repeat of it is the same again. An
    /// agent goes deaf on a third, so there is none.
    fn response(&mut self, message: &Message) -> Option<Bytes> {
        let number = message.sequence();
        if *self.answered.get_or_insert(number) == number {
            // What is no answer is the agent's to refuse.
            let Ok(answer) = HandshakeResponse::parse(message.payload()) else {
                return Some(message.raw().clone());
            };
            let answer = answer.with_key(&self.result).encode();
            return Some(message.with_payload(PayloadType::HandshakeResponse, &answer));
        }
        let (proof, taken) = self.proof.as_mut()?;
        (*taken.get_or_insert(number) == number)
            .then(|| message.with_payload(PayloadType::EncChallengeResponse, proof))
    }
}

impl<C, U> Pump<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    /// Hears from KMS; true if the session's key has come.
    pub(super) fn hear_kms(&mut self, cx: &mut Context<'_>) -> Step {
        let Some(waited) = self.kms.poll_key(cx) else {
            let refused = self.client.is_some().then(|| self.kms.refusal()).flatten();
            return refused.map_or(Ok(false), |sentence| Err(end("key_unavailable", sentence)));
        };
        self.backlog.extend(waited.map(|raw| (Position::default(), raw)));
        self.send_backlog(cx);
        Ok(true)
    }
}

fn rewritten(message: &Message, kind: PayloadType, payload: &[u8]) -> Result<Message, Ended> {
    let raw = message.with_payload(kind, payload);
    Message::parse(raw).map_err(|_| broken("sent a message that cannot be passed on"))
}

/// Nothing of a session goes on that cannot be recorded in clear.
fn broken(what: &str) -> Ended {
    end("encryption_failed", &format!("the session ended because its target {what}"))
}

#[cfg(test)]
mod tests;
