//! What a document does: which kind of session, with which parameters.
//!
//! The documents of AWS are known by name; any other is read from SSM. What
//! it comes to is put under the names that AWS's own documents use, so that
//! policies decide on what the agent will really do.

mod content;
mod owned;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_ssm::error::ProvideErrorMetadata;
use aws_sdk_ssm::types::DocumentFormat;

pub use content::ContentError;
use content::SessionDocument;

use super::error::clean;
use super::fresh::Fresh;
use super::ssm::with;
use super::{Broker, BrokerError, Operation};
use crate::session::{Document, SessionKind, SessionRequest};

/// How long a document's content holds; policies decide on it.
const KNOWN: Duration = Duration::from_secs(60);
/// How long "there is no such document" holds.
const UNKNOWN: Duration = Duration::from_secs(5);
/// Documents kept; an account has at most 500 of its own.
const DOCUMENTS_MAX: usize = 1_000;

/// What a request will do, once its document is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The kind of session.
    pub kind: SessionKind,
    /// `command`, `host` and `portNumber`, defaults filled in.
    pub parameters: BTreeMap<String, Vec<String>>,
}

type Kept = Arc<Fresh<Option<Arc<SessionDocument>>>>;

/// The documents read lately.
#[derive(Default)]
pub(super) struct Documents {
    kept: Mutex<HashMap<Document, Kept>>,
}

impl Broker {
    /// What the request will do on a machine of that platform.
    ///
    /// An unknown document or a parameter that does not fit is the caller's
    /// error, as SSM itself would call it.
    pub async fn plan(&self, request: &SessionRequest, platform: Option<&str>) -> Result<Plan, BrokerError> {
        let content = match owned::content(&request.document) {
            Some(owned) => Arc::new(owned.map_err(|error| unfit(request, &error))?),
            None => self.document(&request.document).await?,
        };
        let (kind, parameters) =
            content.plan(&request.parameters, platform).map_err(|error| unfit(request, &error))?;
        Ok(Plan { kind, parameters })
    }

    async fn document(&self, document: &Document) -> Result<Arc<SessionDocument>, BrokerError> {
        let age = |found: &Option<_>| if found.is_some() { KNOWN } else { UNKNOWN };
        let found = match self.documents.place_for(document) {
            Some(kept) => kept.get(age, self.get_document(document)).await?,
            None => self.get_document(document).await?,
        };
        found.ok_or_else(|| BrokerError::InvalidDocument {
            document: document.clone(),
            message: format!("Document with name {} does not exist.", document.as_str()),
        })
    }

    async fn get_document(&self, document: &Document) -> Result<Option<Arc<SessionDocument>>, BrokerError> {
        let operation = Operation::GetDocument;
        let keys = self.keys.for_inventory().await?;
        let call = self.ssm.get_document().name(document.as_str()).document_format(DocumentFormat::Json);
        let asked = async {
            match call.customize().config_override(with(&keys)).send().await {
                Ok(answer) => Ok(answer.content),
                Err(error) if error.code() == Some("InvalidDocument") => Ok(None),
                Err(error) => Err(BrokerError::of(operation, &error)),
            }
        };
        let Some(content) = self.calls.run(operation, asked).await? else { return Ok(None) };
        let read = SessionDocument::parse(&content).map_err(|error| BrokerError::InvalidDocument {
            document: document.clone(),
            message: clean(&error.to_string()),
        })?;
        Ok(Some(Arc::new(read)))
    }
}

/// The caller's error: a document or a parameter that SSM would not take.
fn unfit(request: &SessionRequest, error: &ContentError) -> BrokerError {
    let message = clean(&error.to_string());
    match error {
        ContentError::Document(_) => {
            BrokerError::InvalidDocument { document: request.document.clone(), message }
        }
        ContentError::Parameter { .. } => {
            BrokerError::InvalidParameters { document: request.document.clone(), message }
        }
    }
}

impl Documents {
    /// Where a document is kept; none if all places are in use.
    fn place_for(&self, document: &Document) -> Option<Kept> {
        let mut all = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = all.get(document) {
            return Some(Arc::clone(kept));
        }
        if all.len() >= DOCUMENTS_MAX {
            all.retain(|_, kept| !kept.is_spent());
        }
        if all.len() >= DOCUMENTS_MAX {
            return None;
        }
        Some(Arc::clone(all.entry(document.clone()).or_default()))
    }
}
