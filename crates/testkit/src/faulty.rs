//! A TCP proxy that misbehaves on order: it freezes, resets, delays, dribbles, or refuses.

use anyhow::Result;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What the proxy does with bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Fault {
    None = 0,
    /// Takes connections and passes nothing.
    Freeze = 1,
    /// Closes connections, old and new, with a reset.
    Reset = 2,
    /// Each chunk waits 50 ms.
    Delay = 3,
    /// One byte a time.
    Dribble = 4,
}

pub struct FaultyProxy {
    pub address: SocketAddr,
    fault: Arc<AtomicU8>,
    task: tokio::task::JoinHandle<()>,
}

impl FaultyProxy {
    pub async fn start(to: SocketAddr) -> Result<FaultyProxy> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let fault = Arc::new(AtomicU8::new(0));
        let shared = fault.clone();
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(pipe(near, to, shared.clone()));
            }
        });
        Ok(FaultyProxy { address, fault, task })
    }

    pub fn set(&self, fault: Fault) {
        self.fault.store(fault as u8, Ordering::Release);
    }
}

impl Drop for FaultyProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pipe(near: TcpStream, to: SocketAddr, fault: Arc<AtomicU8>) {
    let Ok(far) = TcpStream::connect(to).await else { return };
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    tokio::select! {
        () = one_way(near_in, far_out, fault.clone()) => {}
        () = one_way(far_in, near_out, fault) => {}
    }
}

async fn one_way(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf, fault: Arc<AtomicU8>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let tick = Duration::from_millis(10);
        let is = |wanted: Fault| fault.load(Ordering::Acquire) == wanted as u8;
        if is(Fault::Reset) {
            #[expect(deprecated, reason = "a reset is wanted, and zero linger does not block")]
            let _ = to.as_ref().set_linger(Some(Duration::ZERO));
            return;
        }
        if is(Fault::Freeze) {
            tokio::time::sleep(tick).await;
            continue;
        }
        let most = if is(Fault::Dribble) { 1 } else { buffer.len() };
        let n = match tokio::time::timeout(tick, from.read(&mut buffer[..most])).await {
            Err(_) => continue,
            Ok(Ok(n)) if n > 0 => n,
            Ok(_) => return,
        };
        if is(Fault::Delay) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}
