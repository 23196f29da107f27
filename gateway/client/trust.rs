//! Whom the client trusts: one list of roots for every connection it makes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_smithy_http_client::tls::{TlsContext, TrustStore};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::client::ClientError;
use crate::proxy::Proxies;

/// How long a connection to the gateway may take to open.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for one answer: StartSession may wait for a target.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Base64 characters in a line of PEM (RFC 7468).
const PEM_LINE: usize = 64;

/// The certificates that a gateway's certificate may chain to.
#[derive(Clone)]
pub struct Trust {
    roots: Vec<CertificateDer<'static>>,
}

impl Trust {
    /// System roots (or those of `SSL_CERT_FILE`) and the given bundle.
    pub fn load(ca_bundle: Option<&Path>) -> Result<Self, ClientError> {
        let mut trust = Self::system();
        if let Some(path) = ca_bundle {
            trust.roots.extend(Self::bundle(path)?.roots);
        }
        Ok(trust)
    }

    /// System roots only, as the plugin's WebSocket sees them.
    pub fn system() -> Self {
        let found = rustls_native_certs::load_native_certs();
        for error in found.errors {
            tracing::debug!(%error, "a system root certificate was passed over");
        }
        // Old roots that webpki cannot read are no reason to fail.
        let roots = found.certs.into_iter().filter(|cert| is_readable(cert)).collect();
        Self { roots }
    }

    /// The roots of one PEM file only, as the AWS CLI sees them.
    pub fn bundle(path: &Path) -> Result<Self, ClientError> {
        let wrong = |why: &str| {
            ClientError::Trust(format!("the CA bundle {} {why}; correct `ca_bundle`", path.display()))
        };
        let pem = std::fs::read(path).map_err(|e| wrong(&format!("cannot be read ({e})")))?;
        let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let certs = parsed.map_err(|_| wrong("is not PEM"))?;
        let roots: Vec<_> = certs.into_iter().filter(|cert| is_readable(cert)).collect();
        if roots.is_empty() {
            return Err(wrong("holds no usable certificate"));
        }
        Ok(Self { roots })
    }

    /// A TLS configuration for the WebSocket: ring, no client certificate.
    pub fn tls(&self) -> Result<ClientConfig, ClientError> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(self.roots.iter().cloned());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = versions.map_err(|e| ClientError::Trust(format!("TLS cannot be set up: {e}")))?;
        Ok(builder.with_root_certificates(store).with_no_client_auth())
    }

    /// The HTTP client that the AWS SDK uses.
    pub fn sdk_http(&self) -> Result<SharedHttpClient, ClientError> {
        // Every certificate was read once: the SDK panics on one it cannot read.
        let store =
            self.roots.iter().fold(TrustStore::empty(), |store, cert| store.with_pem_certificate(pem(cert)));
        let context = TlsContext::builder().with_trust_store(store).build();
        let context = context.map_err(|e| ClientError::Trust(format!("TLS cannot be set up: {e}")))?;
        Ok(Proxies::from_env().sdk_client(context))
    }

    /// The HTTP client for calls that are not AWS operations.
    pub fn rest_http(&self) -> Result<reqwest::Client, ClientError> {
        let client = Proxies::from_env().of_http(reqwest::Client::builder());
        client
            .tls_backend_preconfigured(self.tls()?)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(ANSWER_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("postern/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| ClientError::Trust(format!("TLS cannot be set up: {e}")))
    }
}

fn is_readable(cert: &CertificateDer<'_>) -> bool {
    RootCertStore::empty().add(cert.clone().into_owned()).is_ok()
}

fn pem(cert: &CertificateDer<'_>) -> Vec<u8> {
    let body = STANDARD.encode(cert);
    let mut text = String::with_capacity(body.len() + body.len() / PEM_LINE + 64);
    text.push_str("-----BEGIN CERTIFICATE-----\n");
    for (at, character) in body.chars().enumerate() {
        text.push(character);
        if at % PEM_LINE == PEM_LINE - 1 {
            text.push('\n');
        }
    }
    text.push_str("\n-----END CERTIFICATE-----\n");
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> rcgen::Certificate {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["gateway.test".to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.self_signed(&key).unwrap()
    }

    #[test]
    fn a_bundle_is_read_and_every_client_is_built_from_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, certificate().pem()).unwrap();
        let trust = Trust::bundle(&path).unwrap();
        assert_eq!(trust.roots.len(), 1);
        assert!(trust.tls().is_ok() && trust.sdk_http().is_ok() && trust.rest_http().is_ok());
    }

    #[test]
    fn certificates_survive_the_way_through_pem() {
        let certificate = certificate();
        let again = CertificateDer::from_pem_slice(&pem(certificate.der())).unwrap();
        assert_eq!(&again, certificate.der());
    }

    #[test]
    fn a_bad_bundle_is_named_in_the_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, "not a certificate").unwrap();
        for path in [path, dir.path().join("missing.pem")] {
            let Err(error) = Trust::bundle(&path) else { panic!("a bad bundle was accepted") };
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        }
    }
}
