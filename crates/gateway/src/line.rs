//! The client's side of a connection: driven by its protocol's start-up machine in the clear first, then inside TLS.

use crate::{tls::Identity, wrapped::Wrapped};
use daypass_wire::machine::Step;
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// A start-up machine of `wire`, whatever its protocol.
pub trait Startup {
    type Found;
    fn step(&mut self) -> Step<Self::Found>;
    fn feed(&mut self, bytes: &[u8]);
    fn tls_started(&mut self, alpn: Option<&[u8]>);
    /// The TLS that it asks for, and whether its handshake lies in packets.
    fn tls(&self, identity: &Identity) -> (Arc<rustls::ServerConfig>, bool);
}

/// Before and after TLS the same machine is driven, over another stream.
pub enum Line {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<Wrapped>>),
}

impl Line {
    /// Drives the machine until it has found something. A machine that closes has said what was to be said.
    pub async fn drive<M: Startup>(mut self, machine: &mut M, identity: &Identity) -> io::Result<(Line, M::Found)> {
        loop {
            match machine.step() {
                Step::Peek => {
                    let Line::Plain(tcp) = &self else { return Err(io::ErrorKind::InvalidData.into()) };
                    let mut first = [0];
                    if tcp.peek(&mut first).await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    machine.feed(&first);
                }
                Step::Read(n) => machine.feed(&self.read(n).await?),
                Step::Send(bytes) => self.send(&bytes).await?,
                Step::StartTls => {
                    let Line::Plain(tcp) = self else { return Err(io::ErrorKind::InvalidData.into()) };
                    let (config, in_packets) = machine.tls(identity);
                    let stream = if in_packets { Wrapped::in_packets(tcp) } else { Wrapped::bare(tcp) };
                    let mut tls = TlsAcceptor::from(config).accept(stream).await?;
                    tls.get_mut().0.unwrap();
                    machine.tls_started(tls.get_ref().1.alpn_protocol());
                    self = Line::Encrypted(Box::new(tls));
                }
                Step::Found(found) => return Ok((self, found)),
                Step::Close => {
                    self.end().await;
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
            }
        }
    }

    /// The encrypted stream; a login in the clear is none.
    pub fn guest(self) -> io::Result<Guest> {
        match self {
            Line::Encrypted(tls) => Ok(Guest(*tls)),
            Line::Plain(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Line::Plain(tcp) => tcp.write_all(bytes).await,
            Line::Encrypted(tls) => tls.write_all(bytes).await.and(tls.flush().await),
        }
    }

    async fn read(&mut self, n: usize) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; n];
        match self {
            Line::Plain(tcp) => tcp.read_exact(&mut buffer).await?,
            Line::Encrypted(tls) => tls.read_exact(&mut buffer).await?,
        };
        Ok(buffer)
    }

    /// Says that it is over before it closes, and lets the client say so first.
    pub async fn end(mut self) {
        let closing = async {
            match &mut self {
                Line::Plain(tcp) => tcp.shutdown().await,
                Line::Encrypted(tls) => tls.shutdown().await,
            }
        };
        let _ = closing.await;
        let mut rest = [0; 64];
        let reading = async {
            match &mut self {
                Line::Plain(tcp) => tcp.read(&mut rest).await,
                Line::Encrypted(tls) => tls.read(&mut rest).await,
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(300), reading).await;
    }
}

/// The client's side of a session. Always encrypted.
pub struct Guest(TlsStream<Wrapped>);

impl Guest {
    /// The name that TLS was asked for.
    pub fn server_name(&self) -> Option<&str> {
        self.0.get_ref().1.server_name()
    }

    /// Lets the kernel drop what the client did not take: a stuck peer keeps nothing of ours.
    pub fn hang_up(&mut self) {
        let socket = socket2::SockRef::from(self.0.get_ref().0.tcp());
        // unread input would turn the close into a reset and might cost the client our last words; a full output queue means
        // that the client stopped reading, and then there is nothing to lose
        let stuck = self.0.get_ref().1.wants_write();
        if stuck {
            let _ = socket.set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Guest {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Guest {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf)
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}
