//! The demo's own certificate authority and the certificate it gave out.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Life of authority and certificate; the demo is no place to stay.
const VALID_DAYS: i64 = 3650;
/// Public roots of this machine, so that other HTTPS still works.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Where the demo's TLS material lies.
pub(super) struct Trust {
    /// The authority's certificate.
    pub(super) authority: PathBuf,
    /// The authority and the system's roots together.
    pub(super) bundle: PathBuf,
    /// The server's certificate chain.
    pub(super) certificate: PathBuf,
    /// The server's key.
    pub(super) key: PathBuf,
}

impl Trust {
    /// Opens what an earlier start made, or makes it.
    ///
    /// The server's certificate is made anew each time: the address that it
    /// names may be another one.
    pub(super) fn open(folder: &Path, listen: IpAddr) -> anyhow::Result<Self> {
        super::private_folder(folder)?;
        let trust = Self {
            authority: folder.join("ca.pem"),
            bundle: folder.join("ca-bundle.pem"),
            certificate: folder.join("server.pem"),
            key: folder.join("server.key"),
        };
        let (authority, issuer) = trust.authority(&folder.join("ca.key"))?;
        trust.issue(&authority, &issuer, listen)?;
        let system = std::fs::read_to_string(SYSTEM_ROOTS).unwrap_or_default();
        super::private_file(&trust.bundle, &format!("{authority}{system}"))?;
        Ok(trust)
    }

    fn authority(&self, key_file: &Path) -> anyhow::Result<(String, Issuer<'static, KeyPair>)> {
        if self.authority.exists() && key_file.exists() {
            let pem = std::fs::read_to_string(&self.authority)?;
            let key = KeyPair::from_pem(&std::fs::read_to_string(key_file)?)?;
            // The same name and key make the same issuer; only the PEM file says since when.
            return Ok((pem, Issuer::new(new_authority(), key)));
        }
        let key = KeyPair::generate()?;
        let params = new_authority();
        let pem = params.self_signed(&key)?.pem();
        super::private_file(&self.authority, &pem)?;
        super::private_file(key_file, &key.serialize_pem())?;
        Ok((pem, Issuer::new(params, key)))
    }

    fn issue(&self, authority: &str, issuer: &Issuer<'_, KeyPair>, listen: IpAddr) -> anyhow::Result<()> {
        let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        if !listen.is_unspecified() && !listen.is_loopback() {
            names.push(listen.to_string());
        }
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, "postern demo");
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        validity(&mut params);
        let key = KeyPair::generate()?;
        let leaf = params.signed_by(&key, issuer).context("the demo's certificate cannot be signed")?;
        super::private_file(&self.certificate, &format!("{}{authority}", leaf.pem()))?;
        super::private_file(&self.key, &key.serialize_pem())
    }
}

fn new_authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "postern demo authority");
    validity(&mut params);
    params
}

fn validity(params: &mut CertificateParams) {
    let now = time::OffsetDateTime::now_utc();
    // A clock a little behind must not find it "not yet valid".
    params.not_before = now - time::Duration::days(1);
    params.not_after = now + time::Duration::days(VALID_DAYS);
}
