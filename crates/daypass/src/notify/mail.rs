//! Mail by SMTP.

use super::{Failed, Message};
use crate::config;
use anyhow::{Context, Result};
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message as Letter, Tokio1Executor,
    message::{Mailbox, header::ContentType},
    transport::smtp::{
        authentication::Credentials,
        client::{Certificate, Tls, TlsParameters},
    },
};
use std::time::Duration;

pub struct Mail {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    server: String,
}

impl Mail {
    pub fn new(config: &config::Mail) -> Result<Mail> {
        let from = config.from.parse().with_context(|| format!("'{}' is not an address", config.from))?;
        let mut tls = TlsParameters::builder(config.host.clone());
        if let Some(ca) = &config.ca {
            let pem = std::fs::read(ca).with_context(|| format!("{} cannot be read", ca.display()))?;
            tls = tls.add_root_certificate(Certificate::from_pem(&pem).context("the CA is not a certificate")?);
        }
        let tls = || tls.clone().build_rustls();
        let tls = match config.tls {
            config::MailTls::Starttls => Tls::Required(tls()?),
            config::MailTls::Tls => Tls::Wrapper(tls()?),
            config::MailTls::Off => Tls::None,
        };
        let mut transport =
            AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&config.host).port(config.port).tls(tls).timeout(Some(Duration::from_secs(20)));
        if let (Some(user), Some(file)) = (&config.user, &config.password_file) {
            let password = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
            transport = transport.credentials(Credentials::new(user.clone(), password.trim_end().to_owned()));
        }
        Ok(Mail { transport: transport.build(), from, server: format!("{}:{}", config.host, config.port) })
    }

    pub fn describe(&self) -> String {
        format!("mail by {}, from {}", self.server, self.from)
    }

    pub async fn send(&self, message: &Message, to: &str) -> Result<(), Failed> {
        let never = |why: String| Failed { why, again: false };
        let to: Mailbox = to.parse().map_err(|e| never(format!("an address for mail cannot be used: {e}")))?;
        let body = format!("{}\n\n{}\n", message.text, message.link);
        // a line break in a subject would begin a header of its own; the library encodes it, and it looks odd besides
        let subject = message.subject.replace(['\r', '\n'], " ");
        let letter = Letter::builder().from(self.from.clone()).to(to).subject(subject).header(ContentType::TEXT_PLAIN).body(body);
        let letter = letter.map_err(|e| never(format!("a mail could not be written: {e}")))?;
        match self.transport.send(letter).await {
            Ok(_) => Ok(()),
            Err(error) => Err(Failed { again: !error.is_permanent(), why: format!("{}: {error}", self.server) }),
        }
    }
}
