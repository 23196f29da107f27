//! A token of STS for the gateway, as another proof than a signed request.

use aws_config::{Region, SdkConfig};
use reqwest::Url;
use serde::Serialize;

use crate::client::ClientError;

/// What the token is signed with: the shorter of the two.
const ALGORITHM: &str = "ES384";
/// How long it is good for, seconds: it is used at once, and once.
const LIFE: i32 = 60;

/// What travels.
#[derive(Serialize)]
pub(super) struct WebIdentity {
    token: String,
}

/// Asks STS for a token that names this gateway alone.
pub(super) async fn ask(sdk: &SdkConfig, region: String, gateway: &Url) -> Result<WebIdentity, ClientError> {
    // Regional endpoints alone issue tokens; the SDK uses no other.
    let config = aws_sdk_sts::config::Builder::from(sdk).region(Region::new(region)).build();
    let asked = aws_sdk_sts::Client::from_conf(config)
        .get_web_identity_token()
        .audience(gateway.origin().ascii_serialization())
        .signing_algorithm(ALGORITHM)
        .duration_seconds(LIFE)
        .send()
        .await;
    match asked.map_err(|error| ClientError::from_sdk("AWS STS", error)) {
        Ok(answer) => {
            let token = answer.web_identity_token.filter(|token| !token.is_empty());
            let missing = || ClientError::Credentials("AWS STS gave no token".to_owned());
            Ok(WebIdentity { token: token.ok_or_else(missing)? })
        }
        Err(ClientError::Api { code, message }) => Err(ClientError::Credentials(format!(
            "AWS STS gives no token for the gateway: {message} ({code})"
        ))),
        Err(ClientError::Unreachable { why, .. } | ClientError::BrokeOff { why, .. }) => {
            Err(ClientError::Credentials(format!("AWS STS cannot be reached: {why}")))
        }
        Err(error) => Err(error),
    }
}
