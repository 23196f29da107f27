//! The certificate authorities trusted upstream, for calls and dials alike.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_smithy_http_client::tls::{TlsContext, TrustStore};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::BrokerError;
use crate::proxy::Proxies;

/// The variable by which the AWS tools name a bundle of roots.
const AWS_CA_BUNDLE: &str = "AWS_CA_BUNDLE";

/// The system's roots (or `SSL_CERT_FILE`'s) and those of the bundle.
pub(super) struct Roots {
    certificates: Vec<CertificateDer<'static>>,
    store: RootCertStore,
}

impl Roots {
    /// Loads them; a bundle that cannot be read or used is an error.
    pub(super) fn load(bundle: Option<&Path>) -> Result<Self, BrokerError> {
        let mut roots = Self { certificates: Vec::new(), store: RootCertStore::empty() };
        let native = rustls_native_certs::load_native_certs();
        for error in &native.errors {
            tracing::warn!(%error, "a system root certificate cannot be read");
        }
        for certificate in native.certs {
            // Systems carry the odd root that rustls does not parse.
            let _ = roots.add(certificate);
        }
        let named = bundle.map(Path::to_owned).or_else(|| std::env::var_os(AWS_CA_BUNDLE).map(PathBuf::from));
        if let Some(path) = named {
            roots.add_bundle(&path)?;
        }
        if roots.certificates.is_empty() {
            tracing::warn!("no root certificates: nothing behind TLS can be reached");
        }
        Ok(roots)
    }

    /// The HTTP client of the AWS calls.
    pub(super) fn http_client(&self) -> Result<SharedHttpClient, BrokerError> {
        let pem: String = self.certificates.iter().map(|certificate| pem(certificate)).collect();
        let store = TrustStore::empty().with_pem_certificate(pem);
        let context = TlsContext::builder().with_trust_store(store).build();
        let context = context.map_err(|error| BrokerError::Config(format!("TLS: {error}")))?;
        Ok(Proxies::from_env().sdk_client(context))
    }

    /// The TLS configuration of the dials; it keeps sessions to resume.
    pub(super) fn client_config(&self) -> Result<ClientConfig, BrokerError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| BrokerError::Config(format!("TLS: {error}")))?;
        let mut config = builder.with_root_certificates(self.store.clone()).with_no_client_auth();
        // A WebSocket needs HTTP/1.1: nothing else is offered.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    fn add_bundle(&mut self, path: &Path) -> Result<(), BrokerError> {
        let wrong = |why: &str| BrokerError::Config(format!("ca_bundle {}: {why}", path.display()));
        let found = CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error.to_string()))?;
        let before = self.certificates.len();
        for certificate in found {
            let certificate = certificate.map_err(|error| wrong(&error.to_string()))?;
            self.add(certificate).map_err(|error| wrong(&error.to_string()))?;
        }
        if self.certificates.len() == before {
            return Err(wrong("it holds no certificate"));
        }
        Ok(())
    }

    fn add(&mut self, certificate: CertificateDer<'static>) -> Result<(), rustls::Error> {
        self.store.add(certificate.clone())?;
        self.certificates.push(certificate);
        Ok(())
    }
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(certificate))
}
