//! The shared shape of all handshakes.

/// What the driver of a handshake does next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step<Found> {
    /// Look at the next byte without taking it, and feed it.
    Peek,
    /// Read exactly so many bytes and feed them.
    Read(usize),
    /// Write these bytes.
    Send(Vec<u8>),
    /// Do the TLS handshake, then say so.
    StartTls,
    /// The handshake has come to something that its driver must act on.
    Found(Found),
    /// Close: everything that was to be said has been said.
    Close,
}
