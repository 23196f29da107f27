//! The narrow way out: one client for STS and identity providers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, RequestBuilder, StatusCode, Url, redirect, retry};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::Semaphore;

use super::IdentityError;
use crate::proxy::Proxies;

/// How long one call may take, from dialling to the last byte.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer read, bytes: key sets have a few KB, tokens too.
const ANSWER_MAX: usize = 64 * 1024;
/// Most calls to one provider at once; more sign-ins wait in the client.
const CALLS_MAX: usize = 32;

/// A client without redirects, retries and cookies; through the proxy of
/// the environment, which learns the host's name and nothing else.
pub(super) fn client(ca_bundle: Option<&Path>, timeout: Duration) -> Result<Client, IdentityError> {
    Proxies::from_env()
        .of_http(Client::builder())
        .tls_backend_preconfigured(tls(ca_bundle)?)
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .http1_only()
        .referer(false)
        .timeout(timeout)
        .build()
        .map_err(|error| IdentityError::Config(format!("the client for sign-ins: {error}")))
}

/// Calls of one provider: JSON comes back, of bounded size.
pub(super) struct Outbound {
    client: Client,
    calls: Semaphore,
}

impl Outbound {
    pub(super) fn new(ca_bundle: Option<&Path>) -> Result<Self, IdentityError> {
        Ok(Self { client: client(ca_bundle, TIMEOUT)?, calls: Semaphore::new(CALLS_MAX) })
    }

    /// A document that everybody may read.
    pub(super) async fn get(&self, url: &Url) -> Result<(StatusCode, Vec<u8>), IdentityError> {
        self.send(self.client.get(url.clone())).await
    }

    /// A form; `basic` is the value of `Authorization`, if there is one.
    pub(super) async fn post(
        &self,
        url: &Url,
        form: String,
        basic: Option<&str>,
    ) -> Result<(StatusCode, Vec<u8>), IdentityError> {
        let mut request = self.client.post(url.clone()).body(form);
        request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some(basic) = basic {
            let mut value = HeaderValue::from_str(basic)
                .map_err(|_| IdentityError::Config("the client secret is not a header".to_owned()))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        self.send(request).await
    }

    async fn send(&self, request: RequestBuilder) -> Result<(StatusCode, Vec<u8>), IdentityError> {
        let _permit = self.calls.try_acquire().map_err(|_| IdentityError::TooMany("sign-ins at once"))?;
        let unreachable = |error: reqwest::Error| {
            // The URL of a form's call has no secret, but nobody needs it here.
            tracing::warn!(error = %error.without_url(), "an identity provider could not be asked");
            IdentityError::ProviderUnreachable
        };
        let mut response = request.header(ACCEPT, "application/json").send().await.map_err(unreachable)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > ANSWER_MAX {
                return Err(IdentityError::ProviderAnswer("it is larger than 64 KB"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, body))
    }
}

/// TLS by ring, trusting the system's roots and those of the bundle.
fn tls(ca_bundle: Option<&Path>) -> Result<ClientConfig, IdentityError> {
    let wrong = |what: String| IdentityError::Config(what);
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::warn!(%error, "some of the system's certificates cannot be read");
    }
    roots.add_parsable_certificates(native.certs);
    if let Some(path) = ca_bundle {
        let named = |error: &dyn std::fmt::Display| wrong(format!("ca_bundle {}: {error}", path.display()));
        let certificates = CertificateDer::pem_file_iter(path).map_err(|error| named(&error))?;
        let mut count = 0;
        for certificate in certificates {
            roots.add(certificate.map_err(|error| named(&error))?).map_err(|error| named(&error))?;
            count += 1;
        }
        if count == 0 {
            return Err(named(&"it holds no certificate"));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(format!("TLS: {error}")))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
