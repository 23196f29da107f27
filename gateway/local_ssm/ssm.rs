//! The SSM API: signed calls in AWS JSON, sessions out.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sigv4::{Request, Rules, SignatureError};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Service;
use super::agent::Agent;
use super::answer::{self, Answer};
use super::callers::{Caller, Refusal};
use super::document::Work;
use super::listener::Alive;
use super::session_policy::SessionPolicy;
use super::sessions::{Order, Session, Status};
use crate::error::{ApiError, Blame, Code};
use crate::session::{Document, SessionId, SessionRequest, Target, clean_reason};

/// Most sessions of one page, as in AWS.
const SESSIONS_PAGE_MAX: usize = 200;

/// The error that a refused signature is, in SSM's words.
pub(super) fn api_error(refusal: &Refusal) -> ApiError {
    let code = match refusal {
        Refusal::UnknownKey => Code::UnrecognizedClient,
        Refusal::Expired => Code::ExpiredToken,
        Refusal::Signature(
            SignatureError::Unsigned | SignatureError::Malformed(_) | SignatureError::NotSigned(_),
        ) => Code::IncompleteSignature,
        _ => Code::InvalidSignature,
    };
    ApiError::client(code, refusal.to_string())
}

/// Reads an operation's input.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| ApiError::client(Code::Validation, error.to_string()))
}

/// Where a page starts, from the token that the page before gave.
pub(super) fn page_start(token: Option<&str>) -> Result<usize, ApiError> {
    let invalid = || ApiError::client(Code::InvalidNextToken, "NextToken is not valid");
    token.map_or(Ok(0), |token| token.strip_prefix("at-").and_then(|n| n.parse().ok()).ok_or_else(invalid))
}

/// One page of a list and the token of the next.
pub(super) fn page<T>(items: Vec<T>, start: usize, most: usize) -> (Vec<T>, Option<String>) {
    let end = start.saturating_add(most);
    let next = (end < items.len()).then(|| format!("at-{end}"));
    (items.into_iter().skip(start).take(most).collect(), next)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StartSession {
    target: String,
    document_name: Option<String>,
    reason: Option<String>,
    #[serde(default)]
    parameters: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OfSession {
    session_id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Opened<'a> {
    session_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_url: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DescribeSessions {
    state: String,
    max_results: Option<usize>,
    next_token: Option<String>,
    #[serde(default)]
    filters: Vec<SessionFilter>,
}

#[derive(Deserialize)]
struct SessionFilter {
    key: String,
    value: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Described {
    session_id: String,
    target: String,
    status: &'static str,
    start_date: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_date: Option<f64>,
    document_name: String,
    owner: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    access_type: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Sessions {
    sessions: Vec<Described>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

impl Service {
    /// Answers one call.
    pub(super) fn ssm(
        self: &Arc<Self>,
        operation: &str,
        request: &Request<'_>,
        now: OffsetDateTime,
        alive: &Alive,
    ) -> Answer {
        let rules = Rules::json_call("ssm");
        let caller = self.callers.verify(request, &rules, now).map_err(|refusal| api_error(&refusal));
        let result = caller.and_then(|caller| match operation {
            "StartSession" => self.start_session(&caller, request.body, alive),
            "ResumeSession" => self.resume_session(&caller, request.body),
            "TerminateSession" => self.terminate_session(&caller, request.body),
            "DescribeSessions" => self.describe_sessions(&caller, request.body),
            "GetConnectionStatus" => self.get_connection_status(&caller, request.body),
            "DescribeInstanceInformation" => self.describe_instances(&caller, request.body, now),
            "GetDocument" => self.get_document(&caller, request.body),
            "ListTagsForResource" => self.list_tags(&caller, request.body),
            _ => Err(ApiError::client(Code::UnknownOperation, "no such operation")),
        });
        result.unwrap_or_else(|error| answer::refusal(&error))
    }

    /// The ARN of something of this account in SSM.
    pub(super) fn arn(&self, resource: &str) -> String {
        format!("arn:aws:ssm:{}:{}:{resource}", self.region, self.account)
    }

    /// Whether a caller's session policy lets it do this.
    pub(super) fn permit(&self, caller: &Caller, action: &str, resource: &str) -> Result<(), ApiError> {
        self.permit_in(caller, action, resource, &BTreeMap::new())
    }

    /// The same in an encryption context, which the policy may name.
    pub(super) fn permit_in(
        &self,
        caller: &Caller,
        action: &str,
        resource: &str,
        context: &BTreeMap<String, String>,
    ) -> Result<(), ApiError> {
        let Some(text) = &caller.session_policy else { return Ok(()) };
        if SessionPolicy::parse(text).is_ok_and(|policy| policy.allows_in(action, resource, context)) {
            return Ok(());
        }
        let arn = &caller.arn;
        let why = format!(
            "User: {arn} is not authorized to perform: {action} on resource: {resource} \
             because no session policy allows the {action} action"
        );
        Err(ApiError::new(Code::AccessDenied, Blame::Client, why))
    }

    fn start_session(
        self: &Arc<Self>,
        caller: &Caller,
        body: &[u8],
        alive: &Alive,
    ) -> Result<Answer, ApiError> {
        let input: StartSession = read(body)?;
        let validation =
            |why: crate::session::InvalidNoun| ApiError::client(Code::Validation, why.to_string());
        let target = Target::parse(&input.target).map_err(validation)?;
        self.permit(caller, "ssm:StartSession", &self.target_arn(&target))?;
        let document = match &input.document_name {
            None => Document::shell(),
            Some(name) => {
                let document = Document::parse(name).map_err(validation)?;
                self.permit_document(caller, "ssm:StartSession", &document)?;
                document
            }
        };
        let (_, _, content) = self.document(&document)?;
        let work = Work::of(content, &input.parameters)?;
        let kms_key = content.kms_key(&input.parameters)?;
        let known = self.targets.get(target.as_str()).filter(|t| self.is_online(&t.id));
        let Some(machine) = known.map(|machine| machine.encrypting_with(kms_key)) else {
            let why = format!("{target} is not connected.");
            return Err(ApiError::new(Code::TargetNotConnected, Blame::Target, why));
        };
        let reason = input.reason.as_deref().map(clean_reason);
        let request = SessionRequest { target, document, parameters: input.parameters, reason };
        let id = SessionId::mint(caller.name());
        let (session, orders) = Session::new(id, request, caller, self.habits.keep_sent);
        if !self.sessions.add(&session) {
            return Err(ApiError::client(Code::Throttling, "Too many sessions on this machine."));
        }
        let agent = Agent::new(Arc::clone(self), Arc::clone(&session), machine, work, orders);
        let alive = alive.clone();
        tokio::spawn(async move {
            agent.run().await;
            drop(alive);
        });
        Ok(self.opened(&session))
    }

    fn resume_session(&self, caller: &Caller, body: &[u8]) -> Result<Answer, ApiError> {
        let session = self.session_for(caller, "ssm:ResumeSession", body)?;
        Ok(self.opened(&session))
    }

    fn terminate_session(&self, caller: &Caller, body: &[u8]) -> Result<Answer, ApiError> {
        let session = self.session_for(caller, "ssm:TerminateSession", body)?;
        session.set_status(Status::Terminating);
        session.order(Order::Terminate);
        let session_id = session.id.as_str();
        Ok(answer::json(&Opened { session_id, token_value: None, stream_url: None }))
    }

    fn session_for(&self, caller: &Caller, action: &str, body: &[u8]) -> Result<Arc<Session>, ApiError> {
        let input: OfSession = read(body)?;
        self.permit(caller, action, &self.arn(&format!("session/{}", input.session_id)))?;
        let unknown = || ApiError::client(Code::DoesNotExist, "The session does not exist.");
        self.sessions.find(&input.session_id).ok_or_else(unknown)
    }

    /// A session's token and URL; neither once it is over.
    fn opened(&self, session: &Session) -> Answer {
        let (session_id, token_value) = (session.id.as_str(), session.token());
        // As in AWS the query holds characters that careless code would
        // encode or cut: it must be dialled as it is.
        let query = "role=publish_subscribe&cell-number=AAEAAb+/4Q7nTw==";
        let url = format!("{}/v1/data-channel/{session_id}?{query}", self.stream_url);
        let stream_url = token_value.is_some().then_some(url);
        answer::json(&Opened { session_id, token_value, stream_url })
    }

    fn describe_sessions(&self, caller: &Caller, body: &[u8]) -> Result<Answer, ApiError> {
        let input: DescribeSessions = read(body)?;
        self.permit(caller, "ssm:DescribeSessions", "*")?;
        let live = match input.state.as_str() {
            "Active" => true,
            "History" => false,
            _ => return Err(ApiError::client(Code::Validation, "State must be Active or History")),
        };
        let most = input.max_results.unwrap_or(SESSIONS_PAGE_MAX);
        if !(1..=SESSIONS_PAGE_MAX).contains(&most) {
            return Err(ApiError::client(Code::Validation, "MaxResults must be 1 to 200"));
        }
        let filters: Vec<_> = input.filters.iter().map(SessionFilter::read).collect::<Result<_, _>>()?;
        let mut sessions = self.sessions.list(live);
        sessions.retain(|session| filters.iter().all(|fits| fits(session)));
        let start = page_start(input.next_token.as_deref())?;
        let (sessions, next_token) = page(sessions, start, most);
        let sessions = sessions.iter().map(|session| described(session)).collect();
        Ok(answer::json(&Sessions { sessions, next_token }))
    }
}

/// Whether a session fits one filter.
type Fits<'a> = Box<dyn Fn(&Session) -> bool + 'a>;

impl SessionFilter {
    fn read(&self) -> Result<Fits<'_>, ApiError> {
        let value = self.value.as_str();
        let moment = || {
            let invalid = |_| ApiError::client(Code::Validation, "the filter's value is no date");
            OffsetDateTime::parse(value, &Rfc3339).map_err(invalid)
        };
        Ok(match self.key.as_str() {
            "Target" => Box::new(move |session| session.request.target.as_str() == value),
            "Owner" => Box::new(move |session| session.owner == value),
            "Status" => Box::new(move |session| session.status().as_str() == value),
            "SessionId" => Box::new(move |session| session.id.as_str() == value),
            "AccessType" => Box::new(move |_| value == "Standard"),
            "InvokedAfter" => {
                let moment = moment()?;
                Box::new(move |session| session.started >= moment)
            }
            "InvokedBefore" => {
                let moment = moment()?;
                Box::new(move |session| session.started <= moment)
            }
            _ => return Err(ApiError::client(Code::InvalidFilterKey, "no such filter key")),
        })
    }
}

fn described(session: &Session) -> Described {
    Described {
        session_id: session.id.to_string(),
        target: session.request.target.to_string(),
        status: session.status().as_str(),
        start_date: seconds(session.started),
        end_date: session.ended().map(seconds),
        document_name: session.request.document.as_str().to_owned(),
        owner: session.owner.clone(),
        reason: session.request.reason.clone(),
        access_type: "Standard",
    }
}

/// A moment as AWS JSON writes it: seconds with three decimals.
pub(super) fn seconds(moment: OffsetDateTime) -> f64 {
    let ms = moment.unix_timestamp_nanos() / 1_000_000;
    // Exact up to the year 287396: an f64 holds 53 bits.
    ms as f64 / 1_000.0
}
