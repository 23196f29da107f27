//! The gateway as a client sees it: SSM operations and signed plain calls.

use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_ssm::config::retry::RetryConfig;
use aws_sdk_ssm::config::timeout::TimeoutConfig;
use aws_sdk_ssm::types::InstanceInformationStringFilter;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use reqwest::{Method, Response, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};

use crate::client::error::{no_keys, shown, with_causes};
use crate::client::trust::{ANSWER_TIMEOUT, CONNECT_TIMEOUT, Trust};
use crate::client::{ClientError, Profile};
use crate::session::{Details, Instance, Machine, SessionRequest, Target};

/// Most bytes of an answer held in memory: a page of sessions is 1 MB.
const ANSWER_MAX: usize = 16 * 1024 * 1024;
/// Instances of one page; without it AWS and the gateway give ten.
const PAGE: i32 = 50;
/// Most pages of instances read: 50 pages of 50 are 2500 machines.
const PAGES_MAX: usize = 50;
/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(5);
/// Between questions whether a session's end is on record.
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(300);
/// Tries of one call before the caller hears of it.
const ATTEMPTS: u32 = 3;

/// Signed with StartSession: two alike in one second have two signatures,
/// and the gateway takes none for a replay of the other.
const NONCE: &str = "x-postern-nonce";

/// Machines that a caller may see.
#[derive(Debug)]
pub struct Machines {
    /// Account and tags are empty: the answer has none.
    pub found: Vec<Machine>,
    /// Whether there are more, which were not read.
    pub cut: bool,
}

/// What opens a data channel.
pub struct Opened {
    /// The session's id.
    pub session_id: String,
    /// Where to dial.
    pub stream_url: String,
    /// What proves that this client may.
    pub token: String,
}

/// A signed-in client of one gateway.
pub struct Gateway {
    /// The profile it was opened with.
    pub profile: Profile,
    /// Whom it trusts.
    pub trust: Trust,
    ssm: aws_sdk_ssm::Client,
    http: reqwest::Client,
    credentials: SharedCredentialsProvider,
}

impl Gateway {
    /// Prepares the clients; the first call fetches the keys.
    pub async fn open(profile: Profile) -> Result<Self, ClientError> {
        let trust = Trust::load(profile.ca_bundle.as_deref())?;
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_attempt_timeout(ANSWER_TIMEOUT)
            .build();
        let sdk = aws_config::defaults(BehaviorVersion::latest())
            .profile_name(&profile.name)
            .region(Region::new(profile.region.clone()))
            .http_client(trust.sdk_http()?)
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
            .load()
            .await;
        let credentials = sdk.credentials_provider().ok_or_else(|| {
            ClientError::Credentials(format!("profile {} has none configured", shown(&profile.name)))
        })?;
        let settings =
            aws_sdk_ssm::config::Builder::from(&sdk).endpoint_url(profile.endpoint.as_str()).build();
        let ssm = aws_sdk_ssm::Client::from_conf(settings);
        Ok(Self { http: trust.rest_http()?, trust, ssm, credentials, profile })
    }

    /// Starts a session.
    pub async fn start_session(&self, request: &SessionRequest) -> Result<Opened, ClientError> {
        let parameters = (!request.parameters.is_empty())
            .then(|| request.parameters.iter().map(|(k, v)| (k.clone(), v.clone())).collect());
        let answer = self
            .ssm
            .start_session()
            .target(request.target.as_str())
            .set_document_name(Some(request.document.as_str().to_owned()))
            .set_parameters(parameters)
            .set_reason(request.reason.clone())
            .customize()
            .mutate_request(|request| {
                request.headers_mut().insert(NONCE, uuid::Uuid::new_v4().to_string());
            })
            .send()
            .await
            .map_err(|e| ClientError::from_sdk(self.url(), e))?;
        let (id, url, token) = (answer.session_id, answer.stream_url, answer.token_value);
        match (id, url, token) {
            (Some(session_id), Some(stream_url), Some(token)) => Ok(Opened { session_id, stream_url, token }),
            _ => Err(ClientError::Answer("StartSession without id, stream URL or token".to_owned())),
        }
    }

    /// A fresh token for a session, or `None` if the session is over.
    pub async fn resume_session(&self, session_id: &str) -> Result<Option<Opened>, ClientError> {
        let answer = self.ssm.resume_session().session_id(session_id).send().await;
        let answer = match answer.map_err(|e| ClientError::from_sdk(self.url(), e)) {
            Ok(answer) => answer,
            Err(ClientError::Api { code, .. }) if code == "DoesNotExistException" => return Ok(None),
            Err(error) => return Err(error),
        };
        let stream_url = answer.stream_url.unwrap_or_default();
        let opened = |token| Opened { session_id: session_id.to_owned(), stream_url, token };
        Ok(answer.token_value.filter(|token| !token.is_empty()).map(opened))
    }

    /// Ends a session.
    pub async fn terminate_session(&self, session_id: &str) -> Result<(), ClientError> {
        let sent = self.ssm.terminate_session().session_id(session_id).send().await;
        sent.map(|_| ()).map_err(|e| ClientError::from_sdk(self.url(), e))
    }

    /// Ends a session that nobody will come back to; false if it goes on.
    pub async fn say_farewell(&self, id: &str) -> bool {
        let ended = timeout(FAREWELL, self.terminate_session(id)).await;
        let why = match ended {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the gateway does not answer".to_owned(),
        };
        tracing::debug!(why, "the session could not be terminated");
        false
    }

    /// Why a session ended whose last words never arrived, if the gateway knows.
    pub async fn last_words(&self, id: &str) -> Option<String> {
        #[derive(Deserialize)]
        struct Ended {
            ended_ms: Option<i64>,
            end_reason: Option<String>,
        }
        let known = async {
            loop {
                let session: Ended = self.get_json(&format!("/v1/sessions/{id}")).await.ok()?;
                if session.ended_ms.is_some() {
                    return session.end_reason.map(|why| shown(&why)).filter(|why| !why.is_empty());
                }
                // Its recording is being sealed.
                sleep(BETWEEN_QUESTIONS).await;
            }
        };
        timeout(FAREWELL, known).await.ok().flatten()
    }

    /// The machines that this caller may see.
    pub async fn machines(&self) -> Result<Machines, ClientError> {
        self.machines_tagged(&[]).await
    }

    /// Those of them that have all of these tags with these values.
    pub async fn machines_tagged(&self, tags: &[(String, String)]) -> Result<Machines, ClientError> {
        let filter = |(key, value): &(String, String)| {
            InstanceInformationStringFilter::builder().key(format!("tag:{key}")).values(value).build()
        };
        let filters: Result<Vec<_>, _> = tags.iter().map(filter).collect();
        let filters = filters.map_err(|e| ClientError::Target(shown(&e.to_string())))?;
        let mut found = Vec::new();
        let mut token = None;
        for _ in 0..PAGES_MAX {
            let call = self.ssm.describe_instance_information().max_results(PAGE).set_next_token(token);
            let call = call.set_filters((!filters.is_empty()).then(|| filters.clone()));
            let page = call.send().await.map_err(|e| ClientError::from_sdk(self.url(), e))?;
            let list = page.instance_information_list.unwrap_or_default();
            found.extend(list.into_iter().filter_map(|info| self.machine(info)));
            token = page.next_token.filter(|token| !token.is_empty());
            if token.is_none() {
                break;
            }
        }
        Ok(Machines { found, cut: token.is_some() })
    }

    /// The keys this client signs with.
    pub async fn credentials(&self) -> Result<Credentials, ClientError> {
        let found = self.credentials.provide_credentials().await;
        found.map_err(|e| ClientError::Credentials(no_keys(&e)))
    }

    /// A signed GET of a JSON document.
    pub async fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let answer = self.call(Method::GET, path, None).await?;
        read_json(answer).await
    }

    /// A signed POST of a JSON document.
    pub async fn post_json<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<T, ClientError> {
        let answer = self.call(Method::POST, path, Some(body.to_string().into_bytes())).await?;
        read_json(answer).await
    }

    /// A signed GET whose body the caller reads piece by piece.
    pub async fn get(&self, path: &str) -> Result<Response, ClientError> {
        self.call(Method::GET, path, None).await
    }

    /// The gateway's URL, for messages.
    pub fn url(&self) -> &str {
        self.profile.endpoint.as_str().trim_end_matches('/')
    }

    async fn call(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Response, ClientError> {
        let url = self.profile.endpoint.join(path);
        let url = url.map_err(|_| ClientError::Answer(format!("{} is not a path", shown(path))))?;
        let body = body.unwrap_or_default();
        let mut request = http::Request::builder().method(method.as_str()).uri(url.as_str());
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        let mut request =
            request.body(body).map_err(|e| ClientError::Answer(format!("a request cannot be made: {e}")))?;
        let keys = self.credentials().await?;
        sign_request(&mut request, &url, keys, &self.profile.region, "ssm")?;
        let request = reqwest::Request::try_from(request)
            .map_err(|e| ClientError::Answer(format!("a request cannot be made: {e}")))?;
        let answer = self.http.execute(request).await.map_err(|e| unreachable(&url, &e))?;
        refused_or(answer).await
    }

    /// What commands show of a machine.
    fn machine(&self, info: aws_sdk_ssm::types::InstanceInformation) -> Option<Machine> {
        let named = |text: &String| !text.is_empty();
        let last_ping = info.last_ping_date_time.and_then(|moment| moment.to_millis().ok());
        let details = Details {
            last_ping_ms: last_ping.and_then(|ms| u64::try_from(ms).ok()),
            platform_name: info.platform_name.map(String::into_boxed_str),
            platform_version: info.platform_version.map(String::into_boxed_str),
            ..Details::default()
        };
        let instance = Instance {
            target: Target::parse(info.instance_id.as_deref()?).ok()?,
            account: String::new(),
            region: self.profile.region.clone(),
            name: info.name.filter(named).or(info.computer_name.filter(named)),
            platform: info.platform_type.map(|platform| platform.as_str().to_owned()),
            agent_version: info.agent_version,
            online: info.ping_status.is_some_and(|status| status.as_str() == "Online"),
            tags: Default::default(),
        };
        Some(Machine { instance, details })
    }
}

/// Signs a request's headers with SigV4 for a service.
pub(crate) fn sign_request<B: AsRef<[u8]>>(
    request: &mut http::Request<B>,
    url: &Url,
    keys: Credentials,
    region: &str,
    service: &str,
) -> Result<(), ClientError> {
    let wrong = |why: String| ClientError::Answer(format!("a request cannot be signed: {why}"));
    let identity = keys.into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(service)
        .time(SystemTime::now())
        .settings(SigningSettings::default())
        .build()
        .map_err(|e| wrong(e.to_string()))?
        .into();
    let headers: Vec<(String, String)> = request
        .headers()
        .iter()
        .filter(|(name, _)| *name == "content-type")
        .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
        .collect();
    let borrowed = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let body = SignableBody::Bytes(request.body().as_ref());
    let signable = SignableRequest::new(request.method().as_str(), url.as_str(), borrowed, body);
    let signed =
        sign(signable.map_err(|e| wrong(e.to_string()))?, &params).map_err(|e| wrong(e.to_string()))?;
    signed.into_parts().0.apply_to_request_http1x(request);
    Ok(())
}

/// Turns an error status into the error that its body tells.
pub(crate) async fn refused_or(answer: Response) -> Result<Response, ClientError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    #[derive(serde::Deserialize)]
    struct Refusal {
        #[serde(rename = "__type", default)]
        code: String,
        #[serde(default, alias = "Message")]
        message: String,
    }
    let body = read_body(answer).await?;
    let Ok(refusal) = serde_json::from_slice::<Refusal>(&body) else {
        return Err(ClientError::Answer(format!("HTTP status {status}, is this a gateway?")));
    };
    let code = refusal.code.rsplit('#').next().unwrap_or_default();
    Err(ClientError::Api { code: shown(code), message: shown(&refusal.message) })
}

/// Reads a JSON answer of bounded size.
pub(crate) async fn read_json<T: DeserializeOwned>(answer: Response) -> Result<T, ClientError> {
    let body = read_body(answer).await?;
    serde_json::from_slice(&body).map_err(|e| ClientError::Answer(shown(&e.to_string())))
}

/// The network's error, with the address that was tried.
pub(crate) fn unreachable(url: &Url, error: &reqwest::Error) -> ClientError {
    let url = url.origin().ascii_serialization();
    // Whoever was connected has reached it.
    match error.is_connect() || error.is_timeout() {
        true => ClientError::unreachable(&url, with_causes(error)),
        false => ClientError::BrokeOff { url, why: with_causes(error) },
    }
}

async fn read_body(mut answer: Response) -> Result<Vec<u8>, ClientError> {
    let url = answer.url().clone();
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(|e| unreachable(&url, &e))? {
        if body.len() + piece.len() > ANSWER_MAX {
            return Err(ClientError::Answer("it is larger than 16 MB".to_owned()));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}
