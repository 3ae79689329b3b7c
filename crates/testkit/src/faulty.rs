//! A TCP proxy that misbehaves on order. What it draws by lot (how long it delays, how little it dribbles) follows from a seed,
//! so that a failure can be played again.

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
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// What the proxy does with bytes, of connections old and new.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Fault {
    None = 0,
    /// Nothing passes, and nobody is told.
    Freeze = 1,
    /// Connections end with a reset.
    Reset = 2,
    /// Each chunk waits up to 50 ms.
    Delay = 3,
    /// A few bytes at a time.
    Dribble = 4,
    /// Bytes are taken and thrown away.
    Drop = 5,
    /// Each side is told that the other one will say nothing more; what it says itself still passes.
    HalfClose = 6,
}

/// SplitMix64: small, seeded, the same everywhere.
struct Lot(u64);

impl Lot {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

pub struct FaultyProxy {
    pub address: SocketAddr,
    fault: Arc<AtomicU8>,
    task: tokio::task::JoinHandle<()>,
}

impl FaultyProxy {
    pub async fn start(to: SocketAddr, seed: u64) -> Result<FaultyProxy> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let fault = Arc::new(AtomicU8::new(0));
        let shared = fault.clone();
        let task = tokio::spawn(async move {
            let mut connection = seed;
            while let Ok((near, _)) = listener.accept().await {
                connection = connection.wrapping_add(2);
                tokio::spawn(pipe(near, to, shared.clone(), connection));
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

async fn pipe(near: TcpStream, to: SocketAddr, fault: Arc<AtomicU8>, seed: u64) {
    let Ok(far) = TcpStream::connect(to).await else { return };
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    tokio::join!(one_way(near_in, far_out, fault.clone(), Lot(seed)), one_way(far_in, near_out, fault, Lot(seed + 1)));
}

async fn one_way(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, fault: Arc<AtomicU8>, mut lot: Lot) {
    let mut buffer = vec![0; 16 * 1024];
    let mut open = true;
    loop {
        let tick = Duration::from_millis(10);
        let is = |wanted: Fault| fault.load(Ordering::Acquire) == wanted as u8;
        if is(Fault::Reset) {
            #[expect(deprecated, reason = "a reset is wanted, and zero linger does not block")]
            let _ = to.as_ref().set_linger(Some(Duration::ZERO));
            return;
        }
        if is(Fault::HalfClose) && open {
            open = false;
            let _ = to.shutdown().await;
        }
        if is(Fault::Freeze) {
            tokio::time::sleep(tick).await;
            continue;
        }
        let most = if is(Fault::Dribble) { 1 + lot.below(7) as usize } else { buffer.len() };
        let n = match tokio::time::timeout(tick, from.read(&mut buffer[..most])).await {
            Err(_) => continue,
            Ok(Ok(n)) if n > 0 => n,
            // the end of one way is passed on; the other way ends by itself
            Ok(_) => return,
        };
        if is(Fault::Delay) {
            tokio::time::sleep(Duration::from_millis(lot.below(50))).await;
        }
        if !is(Fault::Drop) && open && to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}
