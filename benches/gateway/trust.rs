//! Throw-away certificates: one authority, one server name for everybody.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Where the certificates lie.
#[derive(Clone)]
pub struct Trust {
    /// The authority's certificate.
    pub authority: PathBuf,
    /// The server's certificate.
    pub certificate: PathBuf,
    /// The server's key.
    pub key: PathBuf,
    /// Certificate and key in one file, as HAProxy wants them.
    pub both: PathBuf,
}

impl Trust {
    /// The files in a folder, whether they are there or not.
    pub fn at(folder: &Path) -> Self {
        let file = |name: &str| folder.join(name);
        Self {
            authority: file("ca.pem"),
            certificate: file("server.pem"),
            key: file("server.key"),
            both: file("both.pem"),
        }
    }

    /// Makes an authority and a certificate for this machine (ECDSA P-256).
    pub fn make(folder: &Path) -> anyhow::Result<Self> {
        let trust = Self::at(folder);
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, "bench authority");
        let authority_key = KeyPair::generate()?;
        let authority_pem = authority.self_signed(&authority_key)?.pem();
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate()?;
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let leaf = CertificateParams::new(names)?.signed_by(&key, &issuer)?.pem();
        std::fs::write(&trust.authority, authority_pem)?;
        std::fs::write(&trust.certificate, &leaf)?;
        std::fs::write(&trust.key, key.serialize_pem())?;
        std::fs::write(&trust.both, format!("{leaf}{}", key.serialize_pem()))?;
        Ok(trust)
    }

    /// A client that trusts the authority and nobody else.
    pub fn client(&self) -> anyhow::Result<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&self.authority)? {
            roots.add(certificate?)?;
        }
        let mut config = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Every connection is somebody else's, so none resumes another's.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }

    /// The server side of the origin.
    pub fn server(&self) -> anyhow::Result<Arc<rustls::ServerConfig>> {
        let chain = CertificateDer::pem_file_iter(&self.certificate)?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(&self.key).context("the server's key")?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
