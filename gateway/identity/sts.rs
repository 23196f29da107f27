//! Asking STS whose signature it is: one request, over the narrowest path.

use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url};
use sigv4::sts_proof::{BODY, CallerIdentity};
use tokio::sync::Semaphore;

use super::config::Checked;
use super::sts_answer::{self, StsAnswer};
use super::{IdentityError, outbound};
use crate::session::printable;

/// How long one try may take, from dialling to the last byte.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Tries in all; asking whose a signature is changes nothing.
const TRIES: u32 = 2;
/// Longest answer read, bytes; a real one is under 1 KB.
const ANSWER_MAX: usize = 64 * 1024;
/// Most questions open at once; more sign-ins wait in the client.
const ASKING_MAX: usize = 32;
/// Longest request id kept for the log, characters.
const REQUEST_ID_MAX: usize = 64;

/// The one client that talks to STS.
pub(super) struct Sts {
    client: Client,
    instead: Option<Url>,
    asking: Semaphore,
}

impl Sts {
    pub(super) fn new(config: &Checked) -> Result<Self, IdentityError> {
        let client = outbound::client(config.ca_bundle.as_deref(), TIMEOUT)?;
        Ok(Self { client, instead: config.sts_endpoint_url.clone(), asking: Semaphore::new(ASKING_MAX) })
    }

    /// Sends the rebuilt request and reads the answer strictly.
    pub(super) async fn ask(
        &self,
        request: &CallerIdentity,
        authorization: &str,
    ) -> Result<StsAnswer, IdentityError> {
        let _permit = self.asking.try_acquire().map_err(|_| IdentityError::TooMany("sign-ins at once"))?;
        let url = match &self.instead {
            Some(url) => url.clone(),
            None => Url::parse(&format!("https://{}/", request.endpoint().host))
                .map_err(|_| IdentityError::Region(request.endpoint().region.to_owned()))?,
        };
        let headers = headers(request, authorization)?;
        let mut outcome = Err(IdentityError::StsUnreachable("it was not asked"));
        for _ in 0..TRIES {
            outcome = self.ask_once(url.clone(), headers.clone()).await;
            if !matches!(outcome, Err(IdentityError::StsUnreachable(_))) {
                break;
            }
        }
        outcome
    }

    async fn ask_once(&self, url: Url, headers: HeaderMap) -> Result<StsAnswer, IdentityError> {
        let unreachable = |error: reqwest::Error| {
            tracing::warn!(%error, "STS could not be asked");
            IdentityError::StsUnreachable(if error.is_timeout() {
                "no answer in time"
            } else {
                "no connection"
            })
        };
        let sent = self.client.post(url).headers(headers).body(BODY).send();
        let mut response = sent.await.map_err(unreachable)?;
        let status = response.status();
        let request_id = header(&response, "x-amzn-requestid");
        let is_xml = header(&response, "content-type").split(';').next().map(str::trim) == Some("text/xml");
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > ANSWER_MAX {
                return Err(IdentityError::StsAnswer("it is larger than 64 KB"));
            }
            body.extend_from_slice(&chunk);
        }
        if status != StatusCode::OK {
            return Err(refusal(status, &body));
        }
        if !is_xml {
            return Err(IdentityError::StsAnswer("its content type is not text/xml"));
        }
        let answer = sts_answer::read(&body)?;
        Ok(StsAnswer { request_id, ..answer })
    }
}

/// What an answer other than 200 means; only fixed words are passed on.
fn refusal(status: StatusCode, body: &[u8]) -> IdentityError {
    let code = sts_answer::error_code(body);
    match (status.as_u16(), code) {
        (_, Some("Throttling")) | (429, _) => IdentityError::StsUnreachable("it is throttling"),
        (_, Some("ExpiredToken" | "ExpiredTokenException")) => IdentityError::RefusedExpired,
        (400..=499, code) => IdentityError::Refused(code.unwrap_or("no reason that is known")),
        (500..=599, _) => IdentityError::StsUnreachable("it failed"),
        _ => IdentityError::StsAnswer("its status is not 200"),
    }
}

fn headers(request: &CallerIdentity, authorization: &str) -> Result<HeaderMap, IdentityError> {
    let wrong = |_| IdentityError::Signature(sigv4::SignatureError::InvalidWord("a header"));
    let secret = |text: &str| {
        let mut value = HeaderValue::from_str(text).map_err(wrong)?;
        value.set_sensitive(true);
        Ok::<_, IdentityError>(value)
    };
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("text/xml"));
    for (name, value) in request.headers() {
        headers.insert(HeaderName::from_static(name), secret(value)?);
    }
    headers.insert(AUTHORIZATION, secret(authorization)?);
    Ok(headers)
}

fn header(response: &Response, name: &str) -> String {
    let value = response.headers().get(name).and_then(|value| value.to_str().ok());
    printable(value.unwrap_or_default()).chars().take(REQUEST_ID_MAX).collect()
}
