//! What runs at AWS, as SSM itself tells it: for who looks for more.

use std::time::Duration;

use aws_sdk_ssm::types::SessionState;
use serde::Serialize;

use super::ssm::with;
use super::{Broker, BrokerError, Operation};
use crate::session::printable;

/// Largest page that DescribeSessions gives.
const PAGE: i32 = 200;
/// Most pages read: 5,000 sessions of one account and region.
const PAGES_MAX: usize = 25;
/// Pause between two pages: SSM takes six such calls a second from all.
const PAUSE: Duration = Duration::from_millis(500);
/// Longest word of SSM that is kept, characters.
const WORD_MAX: usize = 300;

/// A session as SSM describes it; every word is safe to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AtAws {
    /// Its id at AWS.
    pub id: String,
    /// The machine.
    pub target: String,
    /// The ARN of who started it.
    pub owner: String,
    /// The document, if SSM names it.
    pub document: Option<String>,
    /// Why, in the words of who started it.
    pub reason: Option<String>,
    /// When it began, ms since the Unix epoch.
    pub started_ms: u64,
}

impl Broker {
    /// Every session that is open in the account and region, 5,000 at most.
    pub async fn sessions_at_aws(&self) -> Result<Vec<AtAws>, BrokerError> {
        let operation = Operation::DescribeSessions;
        let (mut found, mut token) = (Vec::new(), None);
        for page in 0..PAGES_MAX {
            if page > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            let keys = self.keys.for_inventory().await?;
            let call = self.ssm.describe_sessions().state(SessionState::Active).max_results(PAGE);
            let call = call.set_next_token(token);
            let asked = async {
                let answer = call.customize().config_override(with(&keys)).send().await;
                answer.map_err(|error| BrokerError::of(operation, &error))
            };
            let answer = self.calls.run(operation, asked).await?;
            found.extend(answer.sessions.unwrap_or_default().into_iter().filter_map(session));
            token = answer.next_token.filter(|token| !token.is_empty());
            if token.is_none() {
                return Ok(found);
            }
        }
        tracing::warn!(sessions = found.len(), "SSM has more open sessions than are looked at");
        Ok(found)
    }
}

fn session(said: aws_sdk_ssm::types::Session) -> Option<AtAws> {
    let word = |text: String| printable(&text).chars().take(WORD_MAX).collect::<String>();
    let started = said.start_date.and_then(|at| at.to_millis().ok());
    Some(AtAws {
        id: word(said.session_id?),
        target: word(said.target.unwrap_or_default()),
        owner: word(said.owner.unwrap_or_default()),
        document: said.document_name.map(word),
        reason: said.reason.map(word).filter(|reason| !reason.is_empty()),
        started_ms: started.and_then(|ms| u64::try_from(ms).ok()).unwrap_or_default(),
    })
}
