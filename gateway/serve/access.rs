//! How the archive reaches AWS: keys, region, roots and endpoint.

use std::path::Path;

use aws_config::BehaviorVersion;

use crate::archive::Access;
use crate::broker::StaticKeys;
use crate::client::{ClientError, Trust};

/// Variables that name another S3 than AWS's, the first one first.
const ENDPOINTS: [&str; 2] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
/// The variable by which the AWS tools name a bundle of roots.
const AWS_CA_BUNDLE: &str = "AWS_CA_BUNDLE";

/// What the AWS configuration says; keys given in so many words win.
pub async fn archive_access(
    ca_bundle: Option<&Path>,
    keys: Option<&StaticKeys>,
) -> Result<Access, ClientError> {
    let named = std::env::var_os(AWS_CA_BUNDLE);
    let trust = Trust::load(ca_bundle.or(named.as_deref().map(Path::new)))?;
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(trust.sdk_http()?);
    if let Some(keys) = keys {
        loader = loader.credentials_provider(keys.credentials());
    }
    let sdk = loader.load().await;
    Ok(Access {
        http: trust.rest_http()?,
        credentials: sdk.credentials_provider(),
        region: sdk.region().map(ToString::to_string),
        endpoint_url: ENDPOINTS.iter().find_map(|name| std::env::var(name).ok()),
    })
}
