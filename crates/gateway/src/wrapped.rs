//! A stream whose TLS handshake may lie inside TDS packets of type PRELOGIN ([MS-TDS] 3.2.5.1, 3.3.5.1), as all of SQL Server's
//! protocol before 8.0 has it. After the handshake, and for every other protocol, bytes pass as they are.

use daypass_wire::tds::packet::{HEADER, kind, put};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

pub struct Wrapped {
    tcp: TcpStream,
    /// Only during a handshake that lies in packets: an idle session pays for none of it.
    packets: Option<Box<Packets>>,
}

#[derive(Default)]
struct Packets {
    header: [u8; HEADER],
    header_len: usize,
    /// What is still to come of the packet that is being read.
    remaining: usize,
    /// The peer has left the packets behind.
    bare: bool,
    /// What the handshake wrote since its last flush, then the packets that are being sent.
    waiting: Vec<u8>,
    sending: Vec<u8>,
    sent: usize,
}

/// Packets before the login are no longer than this.
const SIZE: usize = 4_096;

impl Wrapped {
    pub fn bare(tcp: TcpStream) -> Self {
        Wrapped { tcp, packets: None }
    }

    pub fn in_packets(tcp: TcpStream) -> Self {
        Wrapped { tcp, packets: Some(Box::default()) }
    }

    /// The handshake is done and flushed: from here on, bytes pass as they are.
    pub fn unwrap(&mut self) {
        self.packets = None;
    }

    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    pub fn into_tcp(self) -> TcpStream {
        self.tcp
    }
}

impl AsyncRead for Wrapped {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Wrapped { tcp, packets } = self.get_mut();
        let Some(packets) = packets.as_deref_mut().filter(|packets| !packets.bare) else { return Pin::new(tcp).poll_read(cx, buf) };
        loop {
            if packets.remaining > 0 {
                let room = packets.remaining.min(buf.remaining());
                let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
                ready!(Pin::new(&mut *tcp).poll_read(cx, &mut part))?;
                let n = part.filled().len();
                buf.advance(n);
                packets.remaining -= n;
                return Poll::Ready(Ok(()));
            }
            // byte by byte at first: one that begins no packet is the peer's first byte behind the handshake
            let wanted = if packets.header_len == 0 { 1 } else { HEADER };
            let mut part = ReadBuf::new(&mut packets.header[packets.header_len..wanted]);
            ready!(Pin::new(&mut *tcp).poll_read(cx, &mut part))?;
            let n = part.filled().len();
            if n == 0 {
                return Poll::Ready(Ok(()));
            }
            packets.header_len += n;
            if !matches!(packets.header[0], kind::PRELOGIN | kind::REPLY) {
                packets.bare = true;
                buf.put_slice(&packets.header[..1]);
                return Poll::Ready(Ok(()));
            }
            if packets.header_len == HEADER {
                packets.header_len = 0;
                let header = daypass_wire::tds::packet::Header::read(&packets.header).ok_or(io::ErrorKind::InvalidData)?;
                packets.remaining = header.payload;
            }
        }
    }
}

impl AsyncWrite for Wrapped {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Wrapped { tcp, packets } = self.get_mut();
        match packets {
            None => Pin::new(tcp).poll_write(cx, bytes),
            Some(packets) => {
                packets.waiting.extend_from_slice(bytes);
                Poll::Ready(Ok(bytes.len()))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Wrapped { tcp, packets } = self.get_mut();
        if let Some(packets) = packets {
            if !packets.waiting.is_empty() {
                put(&mut packets.sending, kind::PRELOGIN, 0, &std::mem::take(&mut packets.waiting), SIZE);
            }
            while packets.sent < packets.sending.len() {
                let n = ready!(Pin::new(&mut *tcp).poll_write(cx, &packets.sending[packets.sent..]))?;
                if n == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                packets.sent += n;
            }
            packets.sending.clear();
            packets.sent = 0;
        }
        Pin::new(tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}
