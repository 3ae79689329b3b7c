//! The gateway's own login at a target: the same for a person's session and for the probe that makes a pass ready.

use crate::{World, nonce, tls::end_point_hash};
use daypass_core::{
    environment::{Environment, Target},
    pass::Pass,
};
use daypass_wire::{
    machine::Step,
    pg::upstream::{Credentials, Found, Ready, Upstream},
};
use rustls::pki_types::ServerName;
use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

/// A target that does not take a connection or a login within this is given up for now.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("the target is not reachable: {0}")]
    Unreachable(std::io::Error),
    #[error("the target's TLS failed: {0}")]
    Tls(std::io::Error),
    #[error("the target refused the gateway's login: {0}")]
    Refused(String),
    #[error("the target does not answer within {} seconds", PATIENCE.as_secs())]
    Silent,
    #[error("the secret of the account is not there: it is being made or already gone")]
    NoSecret,
}

/// A stream to a target, encrypted or (by plain word of its environment) not.
pub enum UpstreamStream {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

macro_rules! delegate {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            UpstreamStream::Plain($stream) => $call,
            UpstreamStream::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for UpstreamStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for UpstreamStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        delegate!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_flush(cx))
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

/// A connection to a target that is ready for queries.
pub struct Upstreamed {
    pub stream: UpstreamStream,
    pub peer: SocketAddr,
    pub ready: Ready,
}

/// Logs in at the target with the pass's own account and the password that only the gateway knows.
pub async fn login(
    world: &impl World,
    pass: &Pass,
    env: &Environment,
    target: &Target,
    parameters: Vec<(String, String)>,
) -> Result<Upstreamed, UpstreamError> {
    let password = world.target_password(pass.id).ok_or(UpstreamError::NoSecret)?;
    let tls = world.target_tls(target.id);
    let credentials = Credentials {
        user: pass.account.to_string(),
        password: Zeroizing::new(password.expose().to_owned()),
        database: env.spec.database.to_string(),
        parameters,
        nonce: nonce(),
        salted: world.salted(pass.id),
    };
    let machine = Upstream::new(credentials, tls.is_some());
    let login = async {
        let (tcp, peer) = connect(target).await?;
        drive(machine, tcp, peer, tls, target.spec.host.as_str()).await
    };
    let (upstreamed, mut machine) = tokio::time::timeout(PATIENCE, login).await.map_err(|_| UpstreamError::Silent)??;
    if let Some(salted) = machine.salted() {
        world.keep_salted(pass.id, salted);
    }
    Ok(upstreamed)
}

async fn connect(target: &Target) -> Result<(TcpStream, SocketAddr), UpstreamError> {
    let tcp = TcpStream::connect((target.spec.host.as_str(), target.spec.port)).await.map_err(UpstreamError::Unreachable)?;
    tcp.set_nodelay(true).map_err(UpstreamError::Unreachable)?;
    crate::accept::keep_alive(&tcp);
    let peer = tcp.peer_addr().map_err(UpstreamError::Unreachable)?;
    Ok((tcp, peer))
}

async fn start_tls(tcp: TcpStream, tls: Arc<rustls::ClientConfig>, host: &str) -> Result<UpstreamStream, UpstreamError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|e| UpstreamError::Tls(std::io::Error::other(e)))?;
    let stream = TlsConnector::from(tls).connect(name, tcp).await.map_err(UpstreamError::Tls)?;
    Ok(UpstreamStream::Tls(Box::new(stream)))
}

async fn drive(
    mut machine: Upstream,
    tcp: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<rustls::ClientConfig>>,
    host: &str,
) -> Result<(Upstreamed, Upstream), UpstreamError> {
    let mut stream = UpstreamStream::Plain(tcp);
    let mut buffer = Vec::new();
    loop {
        match machine.step() {
            Step::Send(bytes) => {
                stream.write_all(&bytes).await.map_err(UpstreamError::Unreachable)?;
                stream.flush().await.map_err(UpstreamError::Unreachable)?;
            }
            Step::Read(n) => {
                buffer.resize(n, 0);
                stream.read_exact(&mut buffer).await.map_err(UpstreamError::Unreachable)?;
                machine.feed(&buffer);
            }
            Step::StartTls => {
                let (UpstreamStream::Plain(tcp), Some(tls)) = (stream, tls.clone()) else { return Err(UpstreamError::Refused("TLS twice".to_owned())) };
                stream = start_tls(tcp, tls, host).await?;
                let UpstreamStream::Tls(started) = &stream else { return Err(UpstreamError::Refused("no TLS".to_owned())) };
                let certificate = started.get_ref().1.peer_certificates().and_then(|chain| end_point_hash(chain.first()?));
                machine.tls_started(certificate);
            }
            Step::Found(Found::Ready(ready)) => return Ok((Upstreamed { stream, peer, ready }, machine)),
            Step::Found(Found::Failed(why)) => return Err(UpstreamError::Refused(why)),
            Step::Peek | Step::Close => return Err(UpstreamError::Refused("it closed the connection".to_owned())),
        }
    }
}

/// Cancels what runs on a target's backend, with the key that it gave us. Encrypted like the session itself.
pub async fn cancel(
    peer: SocketAddr,
    host: &str,
    tls: Option<Arc<rustls::ClientConfig>>,
    key: &daypass_wire::pg::message::CancelKey,
) -> Result<(), UpstreamError> {
    let cancelling = async {
        let tcp = TcpStream::connect(peer).await.map_err(UpstreamError::Unreachable)?;
        let mut stream = UpstreamStream::Plain(tcp);
        if let Some(tls) = tls {
            let UpstreamStream::Plain(mut tcp) = stream else { return Err(UpstreamError::NoSecret) };
            let mut request = Vec::new();
            daypass_wire::pg::message::put_untagged(&mut request, &daypass_wire::pg::message::SSL_REQUEST.to_be_bytes());
            tcp.write_all(&request).await.map_err(UpstreamError::Unreachable)?;
            if tcp.read_u8().await.map_err(UpstreamError::Unreachable)? != b'S' {
                return Err(UpstreamError::Refused("it does not speak TLS".to_owned()));
            }
            stream = start_tls(tcp, tls, host).await?;
        }
        stream.write_all(&key.request()).await.map_err(UpstreamError::Unreachable)?;
        stream.flush().await.map_err(UpstreamError::Unreachable)?;
        // the target closes when it has passed the signal on; it says nothing
        let _ = stream.read(&mut [0; 1]).await;
        Ok(())
    };
    tokio::time::timeout(PATIENCE, cancelling).await.map_err(|_| UpstreamError::Silent)?
}
