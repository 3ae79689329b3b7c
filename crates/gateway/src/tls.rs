//! The gateway's certificate, exchangeable while it runs, and the hash of a certificate for channel binding.

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use sha2::{Digest, Sha256, Sha384, Sha512};
use std::sync::{Arc, RwLock};

/// What one handshake needs.
#[derive(Clone)]
pub struct Identity {
    /// For protocols with TLS of any version.
    pub config: Arc<ServerConfig>,
    /// For TLS inside TDS packets: 1.2 only, since clients hang or fail with 1.3 in there (microsoft/mssql-jdbc issue 1524).
    pub wrapped: Arc<ServerConfig>,
    /// For TDS 8.0: TLS first, with its own protocol name.
    pub strict: Arc<ServerConfig>,
    /// For `tls-server-end-point`; none: SCRAM-PLUS is not offered.
    pub end_point: Option<Vec<u8>>,
}

/// The certificate in use. New connections take the newest.
pub struct Certificate(RwLock<Identity>);

impl Certificate {
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, rustls::Error> {
        Ok(Certificate(RwLock::new(identity(chain, key)?)))
    }

    pub fn replace(&self, chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<(), rustls::Error> {
        let fresh = identity(chain, key)?;
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = fresh;
        Ok(())
    }

    pub fn current(&self) -> Identity {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

fn identity(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Identity, rustls::Error> {
    let end_point = chain.first().and_then(|leaf| end_point_hash(leaf));
    // one of each: a certificate is read and its key prepared once
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    // database clients do not resume: tickets and a session cache would cost each connection for nothing
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    let mut wrapped =
        ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS12]).with_no_client_auth().with_cert_resolver(config.cert_resolver.clone());
    wrapped.session_storage = config.session_storage.clone();
    let mut strict = config.clone();
    strict.alpn_protocols = vec![b"tds/8.0".to_vec()];
    // psql with sslnegotiation=direct names it; clients that name none are served as well
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(Identity { config: Arc::new(config), wrapped: Arc::new(wrapped), strict: Arc::new(strict), end_point })
}

/// The hash of a certificate with its own signature's hash function, SHA-256 in place of MD5 and SHA-1 (RFC 5929, section 4.1).
/// None where that is not defined (Ed25519) or not known: then there is no channel binding.
pub fn end_point_hash(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    match parsed.signature_algorithm.algorithm.to_id_string().as_str() {
        // sha1WithRSA, md5WithRSA, ecdsa-with-SHA1, sha256WithRSA, ecdsa-with-SHA256
        "1.2.840.113549.1.1.5" | "1.2.840.113549.1.1.4" | "1.2.840.10045.4.1" | "1.2.840.113549.1.1.11" | "1.2.840.10045.4.3.2" => {
            Some(Sha256::digest(certificate).to_vec())
        }
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Some(Sha384::digest(certificate).to_vec()),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Some(Sha512::digest(certificate).to_vec()),
        _ => None,
    }
}
