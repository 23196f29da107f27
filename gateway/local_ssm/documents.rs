//! The documents by name: those of AWS and the account's own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::answer::{self, Answer};
use super::callers::Caller;
use super::document::Content;
use super::ssm::{read, seconds};
use super::{LocalSsmError, Service};
use crate::error::{ApiError, Code};
use crate::session::Document;

/// How the names of AWS's own documents begin.
const OWNED_PREFIX: &str = "AWS-";
/// What every account has.
const OWNED: &[(&str, &str)] = &[
    (Document::SHELL, include_str!("document/owned/SSM-SessionManagerRunShell.json")),
    ("AWS-StartSSHSession", include_str!("document/owned/AWS-StartSSHSession.json")),
    ("AWS-StartPortForwardingSession", include_str!("document/owned/AWS-StartPortForwardingSession.json")),
    (
        "AWS-StartPortForwardingSessionToRemoteHost",
        include_str!("document/owned/AWS-StartPortForwardingSessionToRemoteHost.json"),
    ),
    ("AWS-StartInteractiveCommand", include_str!("document/owned/AWS-StartInteractiveCommand.json")),
    ("AWS-StartNonInteractiveCommand", include_str!("document/owned/AWS-StartNonInteractiveCommand.json")),
];

/// Every document there is.
pub(super) struct Documents {
    created: OffsetDateTime,
    by_name: BTreeMap<String, (String, Content)>,
}

impl Documents {
    /// AWS's documents, and these beside or instead of the account's.
    pub(super) fn new(own: &BTreeMap<String, String>) -> Result<Self, LocalSsmError> {
        let mut by_name = BTreeMap::new();
        let owned = OWNED.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        let own = own.iter().map(|(name, text)| (name.clone(), text.clone()));
        for (index, (name, text)) in owned.chain(own).enumerate() {
            let refuse = |why: String| LocalSsmError::Document(name.clone(), why);
            if index >= OWNED.len() && !is_free(&name) {
                return Err(refuse("an account cannot have a document of this name".to_owned()));
            }
            let content = Content::parse(&text).map_err(refuse)?;
            by_name.insert(name, (text, content));
        }
        Ok(Self { created: OffsetDateTime::now_utc(), by_name })
    }
}

/// Whether an account may give a document this name.
fn is_free(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (3..=128).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with(OWNED_PREFIX)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetDocument {
    name: String,
    document_version: Option<String>,
    document_format: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Got<'a> {
    name: &'a str,
    created_date: f64,
    document_version: &'static str,
    status: &'static str,
    content: &'a str,
    document_type: &'static str,
    document_format: &'static str,
}

impl Service {
    /// `GetDocument`; every document has one version, in JSON.
    pub(super) fn get_document(&self, caller: &Caller, body: &[u8]) -> Result<Answer, ApiError> {
        let input: GetDocument = read(body)?;
        let validation = |why: String| ApiError::client(Code::Validation, why);
        let document = Document::parse(&input.name).map_err(|why| validation(why.to_string()))?;
        self.permit_document(caller, "ssm:GetDocument", &document)?;
        if input.document_format.is_some_and(|format| format != "JSON") {
            return Err(validation("DocumentFormat must be JSON".to_owned()));
        }
        let (name, text, _) = self.document(&document)?;
        let version = input.document_version.as_deref().unwrap_or("$DEFAULT");
        if !matches!(version, "$DEFAULT" | "$LATEST" | "1") {
            let why = format!("The document version {version} of {name} does not exist.");
            return Err(ApiError::client(Code::InvalidDocument, why));
        }
        Ok(answer::json(&Got {
            name,
            created_date: seconds(self.documents.created),
            document_version: "1",
            status: "Active",
            content: text,
            document_type: "Session",
            document_format: "JSON",
        }))
    }

    /// A document's name, text and content, by its name or ARN.
    pub(super) fn document(&self, document: &Document) -> Result<(&str, &str, &Content), ApiError> {
        let given = document.as_str();
        let name = match given.strip_prefix(&self.arn("document/")) {
            Some(name) => name,
            // Documents of AWS are in no account, or in one of AWS's own.
            None => match given.rsplit_once(":document/") {
                Some((arn, name)) if arn.starts_with("arn:") && name.starts_with(OWNED_PREFIX) => name,
                _ => given,
            },
        };
        let found = self.documents.by_name.get_key_value(name);
        let (name, (text, content)) = found.ok_or_else(|| {
            ApiError::client(Code::InvalidDocument, format!("Document with name {given} does not exist."))
        })?;
        Ok((name, text, content))
    }

    /// Whether the caller may do this with a document.
    pub(super) fn permit_document(
        &self,
        caller: &Caller,
        action: &str,
        document: &Document,
    ) -> Result<(), ApiError> {
        let name = document.as_str().rsplit('/').next().unwrap_or_default();
        let owned = self.arn(&format!("document/{name}"));
        // Documents of AWS have no account in their ARN.
        let public = format!("arn:aws:ssm:{}::document/{name}", self.region);
        self.permit(caller, action, &owned).or_else(|_| self.permit(caller, action, &public))
    }
}
