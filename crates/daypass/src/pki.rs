//! The gateway's certificate: the operator's files, or one from our own CA. The CA's key lies sealed in the store; only its
//! certificate is written to the data directory, for clients to trust.

use crate::config;
use anyhow::{Context, Result};
use daypass_core::secret::Secret;
use daypass_gateway::tls::Certificate;
use daypass_store::{Change, LogStore};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use std::path::Path;

/// Where the CA lies among the secrets: certificate and key, one PEM after the other.
const CA: &str = "ca";
/// Certificates of the gateway are made anew each day and at each start; they last this long.
const LEAF_DAYS: i64 = 30;
const CA_DAYS: i64 = 3650;

pub struct Ca {
    pub certificate_pem: String,
    key: KeyPair,
}

impl Ca {
    /// The CA of this store; made at the first start.
    pub async fn open(log: &LogStore, head: daypass_core::chain::Head) -> Result<Ca> {
        if let Some(known) = log.secret(CA).await? {
            let end = known.expose().find("-----BEGIN PRIVATE KEY").unwrap_or(known.expose().len());
            let (certificate, key) = known.expose().split_at(end);
            let key = KeyPair::from_pem(key).context("the CA's key cannot be read")?;
            return Ok(Ca { certificate_pem: certificate.to_owned(), key });
        }
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name("Daypass CA of this installation");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid(&mut params, CA_DAYS);
        let certificate_pem = params.self_signed(&key)?.pem();
        let sealed = Secret::new(format!("{certificate_pem}{}", key.serialize_pem()));
        log.append(head, &[], &[Change::Put { id: CA.to_owned(), secret: sealed }]).await?;
        Ok(Ca { certificate_pem, key })
    }

    /// What only this installation knows, to derive other such things from.
    pub fn private(&self) -> Vec<u8> {
        self.key.serialize_der()
    }

    /// A certificate for these names and addresses, with its chain.
    pub fn issue(&self, names: &[String]) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names.to_vec()).context("gateway.names holds something that is no host name or address")?;
        params.distinguished_name = name(names.first().map_or("daypass", String::as_str));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        valid(&mut params, LEAF_DAYS);
        let issuer = Issuer::from_ca_cert_pem(&self.certificate_pem, &self.key)?;
        let leaf = params.signed_by(&key, &issuer)?;
        let ca = CertificateDer::from_pem_slice(self.certificate_pem.as_bytes())?;
        Ok((vec![leaf.der().clone(), ca], PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()))))
    }
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// Good from yesterday (clocks differ) until so many days from now.
fn valid(params: &mut CertificateParams, days: i64) {
    let today = jiff::Timestamp::now().to_zoned_datetime(jiff::tz::TimeZone::UTC).date();
    let day = |from_today: i64| {
        let date = today.checked_add(jiff::Span::new().days(from_today)).unwrap_or(today);
        rcgen::date_time_ymd(i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    (params.not_before, params.not_after) = (day(-1), day(days));
}

/// The operator's files.
fn from_files(chain: &Path, key: &Path) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let certificates = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("gateway.certificate {} cannot be read", chain.display()))?;
    let key = PrivateKeyDer::from_pem_file(key).with_context(|| format!("gateway.key {} cannot be read", key.display()))?;
    Ok((certificates, key))
}

/// The certificate to begin with.
pub fn certificate(config: &config::Gateway, ca: &Ca) -> Result<Certificate> {
    let (chain, key) = load(config, ca)?;
    Certificate::new(chain, key).context("the certificate and the key of the gateway do not go together")
}

fn load(config: &config::Gateway, ca: &Ca) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    match (&config.certificate, &config.key) {
        (Some(chain), Some(key)) => from_files(chain, key),
        // one wildcard for the names of all environments: a new one needs no new certificate
        _ => ca.issue(&config.names.iter().cloned().chain(config.suffix.as_ref().map(|suffix| format!("*.{suffix}"))).collect::<Vec<_>>()),
    }
}

/// Takes the operator's files when they change, and renews our own certificate each day.
pub async fn keep(config: config::Gateway, ca: Ca, certificate: std::sync::Arc<Certificate>, told: std::sync::Arc<tokio::sync::Notify>) {
    let stamp = |path: &Option<std::path::PathBuf>| path.as_ref().and_then(|p| std::fs::metadata(p).ok()).and_then(|m| m.modified().ok());
    let mut seen = (stamp(&config.certificate), stamp(&config.key));
    let mut age = 0_u32;
    loop {
        let was_told = tokio::select! {
            () = told.notified() => true,
            () = tokio::time::sleep(std::time::Duration::from_secs(5)) => false,
        };
        age += 5;
        let now = (stamp(&config.certificate), stamp(&config.key));
        let due = if config.certificate.is_some() { now != seen } else { age >= 86_400 };
        if !due && !was_told {
            continue;
        }
        (seen, age) = (now, 0);
        match load(&config, &ca).and_then(|(chain, key)| Ok(certificate.replace(chain, key)?)) {
            Ok(()) => tracing::info!("the gateway has a new certificate"),
            Err(error) => tracing::error!(%error, "the new certificate cannot be used; the old one stays"),
        }
    }
}
