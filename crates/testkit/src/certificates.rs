//! A CA, and a certificate of it for 127.0.0.1 and localhost.

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::{os::unix::fs::PermissionsExt, path::Path};

/// All in PEM.
pub struct Certificates {
    pub ca: String,
    pub certificate: String,
    pub key: String,
}

impl Certificates {
    pub fn make() -> Result<Certificates> {
        let ca_key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // two names: OpenSSL takes a certificate whose issuer has its own name for a self-signed one
        params.distinguished_name.push(DnType::CommonName, "throw-away CA");
        let ca = params.self_signed(&ca_key)?.pem();
        let key = KeyPair::generate()?;
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut leaf = CertificateParams::new(names)?;
        leaf.distinguished_name.push(DnType::CommonName, "throw-away server");
        let certificate = leaf.signed_by(&key, &Issuer::from_ca_cert_pem(&ca, ca_key)?)?.pem();
        Ok(Certificates { ca, certificate, key: key.serialize_pem() })
    }

    /// Writes certificate and key, the key for its owner only.
    pub fn write(&self, certificate: &Path, key: &Path) -> Result<()> {
        std::fs::write(key, &self.key)?;
        std::fs::set_permissions(key, PermissionsExt::from_mode(0o600))?;
        std::fs::write(certificate, &self.certificate)?;
        Ok(())
    }
}
