//! Signing in without AWS: a code that the person types into a browser.

use std::path::Path;
use std::time::Duration;

use reqwest::{StatusCode, Url};
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::client::error::shown;
use crate::client::gateway::{read_json, refused_or, unreachable};
use crate::client::sign_in::{Keys, join, post, refused};
use crate::client::{ClientError, Trust};

/// Questions in a row that may fail before the sign-in does: a gateway that
/// restarts, or a network that is away for a moment.
const FAILURES_MAX: u32 = 5;

/// A sign-in that waits for somebody with a browser.
pub struct DeviceLogin {
    http: reqwest::Client,
    gateway: Url,
    code: Code,
}

#[derive(Deserialize)]
struct Code {
    handle: String,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    expires_in: u64,
    interval: u64,
}

#[derive(Deserialize)]
struct Pending {
    interval: u64,
}

impl DeviceLogin {
    /// Asks the gateway for a code.
    pub async fn begin(gateway: &Url, ca_bundle: Option<&Path>) -> Result<Self, ClientError> {
        let http = Trust::load(ca_bundle)?.rest_http()?;
        let url = join(gateway, "/v1/login/device")?;
        let answer = http.post(url.clone()).send().await.map_err(|e| unreachable(&url, &e))?;
        let code: Code = read_json(refused_or(answer).await.map_err(refused)?).await?;
        Ok(Self { http, gateway: gateway.clone(), code })
    }

    /// Where the code is typed; safe to show.
    pub fn page(&self) -> String {
        shown(&self.code.verification_uri)
    }

    /// The same with the code in it, if there is such a page.
    pub fn page_with_code(&self) -> Option<String> {
        self.code.verification_uri_complete.as_deref().map(shown)
    }

    /// What is typed; safe to show.
    pub fn code(&self) -> String {
        shown(&self.code.user_code)
    }

    /// Waits until somebody has typed it, and takes the keys.
    pub async fn keys(&self) -> Result<Keys, ClientError> {
        let url = join(&self.gateway, "/v1/login/device/keys")?;
        let over = Instant::now() + Duration::from_secs(self.code.expires_in);
        let mut pause = Duration::from_secs(self.code.interval.clamp(1, 60));
        let mut failures = 0;
        while Instant::now() < over {
            sleep(pause).await;
            match self.ask(&url).await {
                Ok(Asked::Keys(keys)) => return Ok(*keys),
                Ok(Asked::Pending(seconds)) => {
                    pause = Duration::from_secs(seconds.clamp(1, 60));
                    failures = 0;
                }
                Err(error) if error.is_passing() && failures < FAILURES_MAX => failures += 1,
                Err(error) => return Err(refused(error)),
            }
        }
        Err(ClientError::SignIn("nobody has typed the code in time; run `postern login` again".to_owned()))
    }

    async fn ask(&self, url: &Url) -> Result<Asked, ClientError> {
        let question = json!({"handle": self.code.handle});
        let answer = refused_or(post(&self.http, url, &question).await?).await?;
        if answer.status() == StatusCode::ACCEPTED {
            let pending: Pending = read_json(answer).await?;
            return Ok(Asked::Pending(pending.interval));
        }
        Ok(Asked::Keys(Box::new(read_json(answer).await?)))
    }
}

enum Asked {
    Pending(u64),
    Keys(Box<Keys>),
}
