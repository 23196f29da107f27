//! Stream tokens: sealed, short-lived, good for one session.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::identity::KeyRing;
use crate::session::SessionId;

/// How long a token opens a stream, seconds; clients use it at once.
const LIFE_SECONDS: i64 = 60;
/// Keeps stream tokens apart from everything else the key ring seals.
const PURPOSE: &str = "stream-token";

/// What a stream token says once it is opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StreamToken {
    #[serde(rename = "s")]
    pub(super) session: SessionId,
    #[serde(rename = "n")]
    pub(super) nonce: String,
    /// Seconds since the Unix epoch.
    #[serde(rename = "t")]
    pub(super) issued: i64,
    /// The browser it was given to; it holds no longer than that is signed in.
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    pub(super) visit: Option<String>,
}

impl StreamToken {
    pub(super) fn new(session: SessionId, now: i64) -> Self {
        Self { session, nonce: Uuid::new_v4().simple().to_string(), issued: now, visit: None }
    }

    /// The same for one browser.
    pub(super) fn for_visit(self, visit: Option<String>) -> Self {
        Self { visit, ..self }
    }

    /// The text a client presents, at most 400 characters.
    pub(super) fn seal(&self, keys: &KeyRing) -> Option<String> {
        Some(keys.seal(PURPOSE, &serde_json::to_vec(self).ok()?))
    }

    /// Opens a token for this session; `None` for anything else.
    pub(super) fn open(keys: &KeyRing, text: &str, session: &SessionId, now: i64) -> Option<Self> {
        let plain = keys.unseal(PURPOSE, text).ok()?;
        let token: Self = serde_json::from_slice(&plain).ok()?;
        let fresh = now >= token.issued - 5 && now <= token.issued + LIFE_SECONDS;
        (fresh && token.session == *session).then_some(token)
    }
}

/// Displaced clients of one session that are remembered.
const DISPLACED_MAX: usize = 8;

/// Which client holds the session: the one that used the newest token.
#[derive(Debug, Default)]
pub(super) struct Holder {
    current: Option<(StreamToken, String)>,
    /// Client ids that another one took the session from, the last ones.
    displaced: Vec<String>,
}

impl Holder {
    /// The browser that holds the session, if one does.
    pub(super) fn visit(&self) -> Option<&str> {
        self.current.as_ref()?.0.visit.as_deref()
    }

    /// Nobody holds it any more, and no older token takes it again.
    pub(super) fn sign_out(&mut self) {
        if let Some((token, client)) = &mut self.current {
            (token.visit, token.nonce, *client) = (None, String::new(), String::new());
        }
    }

    /// Lets a client in, or not.
    ///
    /// A token binds to the first client id that uses it; a newer token,
    /// which only the session's owner can get, moves the session. Who lost it
    /// so does not come back: two would take it from each other for ever, and
    /// each counts on from numbers that the other has used.
    pub(super) fn admit(&mut self, token: StreamToken, client_id: &str) -> bool {
        let admitted = match &self.current {
            None => true,
            Some((held, client)) if held.nonce == token.nonce => client == client_id,
            Some((held, _)) => token.issued >= held.issued,
        };
        if !admitted || self.displaced.iter().any(|displaced| displaced == client_id) {
            return false;
        }
        let before = self.current.replace((token, client_id.to_owned()));
        if let Some((_, before)) = before.filter(|(_, before)| before != client_id) {
            if self.displaced.len() >= DISPLACED_MAX {
                self.displaced.remove(0);
            }
            self.displaced.push(before);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> SessionId {
        SessionId::parse("alice-0123456789").unwrap()
    }

    fn keys() -> (tempfile::TempDir, KeyRing) {
        let dir = tempfile::tempdir().unwrap();
        let keys = KeyRing::open(&dir.path().join("keys")).unwrap();
        (dir, keys)
    }

    #[test]
    fn a_token_opens_its_own_session_for_a_minute() {
        let (_dir, keys) = keys();
        let sealed = StreamToken::new(session(), 1000).seal(&keys).unwrap();
        assert!(StreamToken::open(&keys, &sealed, &session(), 1030).is_some());
        assert!(StreamToken::open(&keys, &sealed, &session(), 1061).is_none());
        let other = SessionId::parse("bob-0123456789").unwrap();
        assert!(StreamToken::open(&keys, &sealed, &other, 1030).is_none());
    }

    #[test]
    fn a_forged_token_opens_nothing() {
        let (_dir, keys) = keys();
        let sealed = StreamToken::new(session(), 1000).seal(&keys).unwrap();
        for place in 0..sealed.len() {
            let mut forged = sealed.clone().into_bytes();
            forged[place] = if forged[place] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).unwrap();
            assert!(StreamToken::open(&keys, &forged, &session(), 1000).is_none(), "byte {place}");
        }
    }

    #[test]
    fn the_longest_token_fits_the_api_model() {
        let (_dir, keys) = keys();
        let id = SessionId::mint(&"x".repeat(64));
        assert!(StreamToken::new(id, 1_800_000_000).seal(&keys).unwrap().len() <= 300);
    }

    #[test]
    fn a_token_in_use_is_of_no_use_to_another_client() {
        let mut holder = Holder::default();
        let token = StreamToken::new(session(), 1000);
        assert!(holder.admit(token.clone(), "a"));
        assert!(holder.admit(token.clone(), "a"));
        assert!(!holder.admit(token.clone(), "b"));
        assert!(holder.admit(StreamToken::new(session(), 1010), "b"));
        assert!(!holder.admit(token, "a"));
    }

    #[test]
    fn who_was_displaced_does_not_take_the_session_back() {
        let mut holder = Holder::default();
        let token = |issued| StreamToken::new(session(), issued);
        assert!(holder.admit(token(1000), "a"));
        assert!(holder.admit(token(1010), "a"), "the same client comes back");
        assert!(holder.admit(token(1020), "b"));
        assert!(!holder.admit(token(1030), "a"));
        assert!(holder.admit(token(1030), "b"));
        assert!(holder.admit(token(1040), "c"));
        for other in 0..20 {
            assert!(holder.admit(token(1050), &format!("other {other}")));
        }
        assert!(holder.displaced.len() <= DISPLACED_MAX);
    }
}
