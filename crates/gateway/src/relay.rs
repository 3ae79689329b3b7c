//! Bytes both ways until the end. Nothing is decoded and encoded again; the observer looks at what passes.
//!
//! An idle session holds no buffer: bytes are read into a buffer that all sessions of a thread share, and only what the other
//! side did not take at once is kept.

use crate::{World, line::Guest, recorder::Recorder, sessions::Session, upstream::UpstreamStream};
use daypass_core::{admission::Told, time::Time};
use daypass_wire::observe::{LastWords, Observe};
use std::{
    cell::RefCell,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    task::JoinHandle,
    time::{Instant, Sleep},
};

/// One read: four TLS records. Bigger reads make no bulk transfer faster here.
const CHUNK: usize = 64 * 1024;
/// Statements wait at most so long to be handed to the records.
const RECORD_DELAY: Duration = Duration::from_millis(250);
/// How long the end of a session may take on the target's side: to the end of the message that is on its way.
const LAST_WORDS: Duration = Duration::from_millis(150);
/// What may be kept of that message while its receiver is slow.
const MESSAGE: usize = 1 << 20;
/// How long a client may take over what was on its way to it, and over why its session ended; then it is reset.
const SLOW: Duration = Duration::from_secs(5);
/// How long what a client still says is listened to, so that it hears all of it.
const READ_OUT: Duration = Duration::from_secs(1);

/// How soon words for a client are tried again that had no place yet.
const ASIDE: Duration = Duration::from_millis(100);

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
}

/// How a session ended.
pub enum End {
    /// One side closed.
    ClientLeft,
    TargetLeft,
    /// The fence, with the reason.
    Cut(Told),
    /// For something that the client sent.
    Refused(&'static str),
    /// Statements could not be recorded any more.
    NotRecorded(String),
    /// What the target sends cannot be followed any more: nothing of ours may stand behind it.
    NotFollowed,
}

impl End {
    /// What its client can do about it.
    fn remedy(&self) -> &str {
        match self {
            End::Cut(told) => &told.remedy,
            End::NotRecorded(_) => "Tell whoever runs Daypass: its store cannot be written.",
            End::ClientLeft | End::TargetLeft | End::Refused(_) | End::NotFollowed => "Your access goes on: connect again.",
        }
    }

    pub fn words(&self) -> String {
        match self {
            End::ClientLeft => "the client closed the connection".to_owned(),
            End::TargetLeft => "the target closed the connection".to_owned(),
            End::Cut(told) => told.why.clone(),
            End::Refused(why) => (*why).to_owned(),
            End::NotRecorded(why) => format!("its statements could not be recorded: {why}"),
            End::NotFollowed => "its statements could not be recorded: a defect in Daypass".to_owned(),
        }
    }
}

/// One direction: what the receiver did not take yet.
struct Way {
    left: Vec<u8>,
    sent: usize,
    unflushed: bool,
    passed: u64,
    /// When something passed last.
    moved_at: Time,
}

impl Way {
    fn new(began: Time) -> Way {
        Way { left: Vec::new(), sent: 0, unflushed: false, passed: 0, moved_at: began }
    }

    /// Writes what is left. Ready when the receiver has all of it.
    fn poll_drain(&mut self, to: &mut (impl AsyncWrite + Unpin), cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while self.sent < self.left.len() {
            let n = ready!(Pin::new(&mut *to).poll_write(cx, &self.left[self.sent..]))?;
            if n == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            self.sent += n;
        }
        if self.sent > 0 {
            self.left = Vec::new();
            self.sent = 0;
        }
        if self.unflushed {
            ready!(Pin::new(to).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends a chunk; what is not taken at once is left for [`Way::poll_drain`].
    fn poll_send(&mut self, chunk: &[u8], to: &mut (impl AsyncWrite + Unpin), cx: &mut Context<'_>) -> std::io::Result<()> {
        self.passed += chunk.len() as u64;
        self.unflushed = true;
        let mut sent = 0;
        while sent < chunk.len() {
            match Pin::new(&mut *to).poll_write(cx, &chunk[sent..])? {
                Poll::Ready(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                Poll::Ready(n) => sent += n,
                Poll::Pending => break,
            }
        }
        self.left.extend_from_slice(&chunk[sent..]);
        Ok(())
    }
}

/// Why the copying stopped.
enum Stop {
    ClientLeft,
    TargetLeft,
    Fenced(Told),
    Refused(&'static str),
    Unfollowed,
    /// A block of statements has to be handed over first.
    Record,
}

pub struct Relay<W> {
    world: Arc<W>,
    session: Arc<Session>,
    client: Guest,
    upstream: UpstreamStream,
    to_target: Way,
    to_client: Way,
    observer: Box<dyn Observe + Send>,
    recorder: Recorder,
    /// A block of statements that was being handed over when the fence fell.
    handing: Option<JoinHandle<Result<(), String>>>,
}

/// What passed, for the closing record.
pub struct Passed {
    pub end: End,
    pub from_client: u64,
    pub to_client: u64,
    pub recorder: Recorder,
    /// A block of statements that was being handed over when the fence fell.
    pub handing: Option<JoinHandle<Result<(), String>>>,
    /// A statement was under way: the target does not notice by itself that nobody waits for it.
    pub busy: bool,
    /// A client that has not taken all of its last words yet.
    pub farewell: Option<Farewell>,
}

/// A session that is over, but for its client's hearing why. There is no way to a target any more.
pub struct Farewell {
    client: Guest,
    left: Way,
}

impl Farewell {
    /// Sends what is left. Whoever does not take it in time is reset: it keeps nothing of ours.
    pub async fn see_out(mut self) {
        let told = async {
            poll_fn(|cx| self.left.poll_drain(&mut self.client, cx)).await?;
            self.client.shutdown().await
        };
        match tokio::time::timeout(SLOW, told).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => return self.client.hang_up(),
        }
        // a close with input that nobody has read is a reset, and some systems throw away then what they have not shown yet
        let mut rest = [0; 512];
        let read_out = async { while self.client.read(&mut rest).await.is_ok_and(|n| n > 0) {} };
        let _ = tokio::time::timeout(READ_OUT, read_out).await;
    }
}

impl<W: World> Relay<W> {
    pub fn new(world: Arc<W>, session: Arc<Session>, client: Guest, upstream: UpstreamStream, observer: Box<dyn Observe + Send>) -> Self {
        let recorder = Recorder::new(session.id, session.record);
        let began = world.now();
        Relay { world, session, client, upstream, to_target: Way::new(began), to_client: Way::new(began), observer, recorder, handing: None }
    }

    /// Relays until the end, and sees it through.
    pub async fn run(mut self) -> Passed {
        let mut timer = std::pin::pin!(tokio::time::sleep(Duration::ZERO));
        let mut record_at: Option<Instant> = None;
        let end = loop {
            self.set_timer(timer.as_mut(), record_at);
            let stop = tokio::select! {
                biased;
                () = self.session.woken() => None,
                () = timer.as_mut() => None,
                stop = poll_fn(|cx| copy(&*self.world, &self.session, &mut self.client, &mut self.upstream, &mut self.to_target, &mut self.to_client, &mut *self.observer, &mut self.recorder, &mut record_at, cx)) => Some(stop),
            };
            match stop {
                Some(Stop::ClientLeft) => break End::ClientLeft,
                Some(Stop::TargetLeft) if self.observer.has_left() => break End::ClientLeft,
                Some(Stop::TargetLeft) => break End::TargetLeft,
                Some(Stop::Fenced(why)) => break End::Cut(why),
                Some(Stop::Refused(why)) => break End::Refused(why),
                Some(Stop::Unfollowed) => break End::NotFollowed,
                Some(Stop::Record) | None => {}
            }
            if let Some(why) = self.session.fenced(self.world.now()) {
                break End::Cut(why);
            }
            // what waits for this client has been observed already, so the words stand behind it
            if let Some(aside) = self.session.word().and_then(|words| self.observer.aside(&words)) {
                self.session.told();
                self.to_client.left.extend(aside);
                self.to_client.unflushed = true;
            }
            if let Some(idle) = self.session.idle.filter(|_| self.idle_left() == Some(0)) {
                let why = format!("nothing happened in this session for {idle}, and the policy of {} ends it then", self.session.environment_name);
                break End::Cut(Told::and_connect_again(why));
            }
            if self.recorder.is_full() || record_at.is_some_and(|at| Instant::now() >= at) {
                record_at = None;
                if let Err(end) = self.record().await {
                    break end;
                }
            }
        };
        let busy = self.observer.is_busy();
        let mut telling = false;
        match &end {
            End::Cut(_) | End::Refused(_) | End::NotRecorded(_) => {
                let (why, remedy) = (end.words(), end.remedy());
                // the target's side ends in time, whatever the client takes of it
                match tokio::time::timeout(LAST_WORDS, self.last_words(&why, remedy)).await {
                    Ok(Ok(true)) => telling = true,
                    _ => self.client.hang_up(),
                }
            }
            // a chunk of the target's is lost: what would follow it would be read as part of it
            End::NotFollowed => self.client.hang_up(),
            End::TargetLeft => {
                let _ = tokio::time::timeout(LAST_WORDS, poll_fn(|cx| self.to_client.poll_drain(&mut self.client, cx))).await;
                let _ = tokio::time::timeout(LAST_WORDS, self.client.shutdown()).await;
            }
            End::ClientLeft => {
                let _ = tokio::time::timeout(LAST_WORDS, poll_fn(|cx| self.to_target.poll_drain(&mut self.upstream, cx))).await;
            }
        }
        // not into the middle of a request of which a part is still here
        let give_up = self.observer.give_up();
        if !give_up.is_empty() && self.to_target.left.is_empty() {
            let _ = tokio::time::timeout(LAST_WORDS, async { self.upstream.write_all(&give_up).await.and(self.upstream.flush().await) }).await;
        }
        let now = self.world.now().micros() as u64;
        for statement in self.observer.end(now) {
            self.recorder.add(statement);
        }
        // the target's side is closed before anything is waited for
        drop(self.upstream);
        let (from_client, to_client) = (self.to_target.passed, self.to_client.passed);
        let farewell = telling.then_some(Farewell { client: self.client, left: self.to_client });
        Passed { end, from_client, to_client, recorder: self.recorder, handing: self.handing, busy, farewell }
    }

    /// Hands a block of statements over. The session waits for it, but its end does not.
    async fn record(&mut self) -> Result<(), End> {
        let Some(block) = self.recorder.take() else { return Ok(()) };
        let world = self.world.clone();
        let mut handing = tokio::spawn(async move { world.statements(block).await });
        loop {
            let left = self.session.until().since(self.world.now()).max(0) as u64;
            tokio::select! {
                done = &mut handing => return done.map_err(|e| e.to_string()).flatten().map_err(End::NotRecorded),
                () = self.session.woken() => {}
                () = tokio::time::sleep(Duration::from_micros(left)) => {}
            }
            if let Some(why) = self.session.fenced(self.world.now()) {
                // the block is not lost: its handing over is seen through when the session is closed
                self.handing = Some(handing);
                return Err(End::Cut(why));
            }
        }
    }

    /// Microseconds until the session has been idle for too long. A statement that runs is not idle, however silent it is.
    fn idle_left(&self) -> Option<u64> {
        let idle = self.session.idle?;
        let now = self.world.now();
        let since = if self.observer.is_busy() { now } else { self.to_target.moved_at.max(self.to_client.moved_at) };
        Some(since.after(idle).since(now).max(0) as u64)
    }

    fn set_timer(&self, timer: Pin<&mut Sleep>, record_at: Option<Instant>) {
        let left = self.session.until().since(self.world.now()).clamp(0, 3_600_000_000) as u64;
        let left = self.idle_left().map_or(left, |idle| left.min(idle));
        let deadline = Instant::now() + Duration::from_micros(left);
        let mut at = record_at.map_or(deadline, |record| record.min(deadline));
        // the client is in the middle of a message: its words are tried again in a moment
        if self.session.word().is_some() {
            at = at.min(Instant::now() + ASIDE);
        }
        if timer.deadline() != at {
            timer.reset(at);
        }
    }

    /// Reads on to the next place where the protocol allows a reason to stand, and puts it there; gives whether it stands there. What the
    /// client does not take meanwhile is left, to a bound.
    async fn last_words(&mut self, why: &str, remedy: &str) -> std::io::Result<bool> {
        let mut chunk = vec![0; CHUNK];
        let mut n = 0;
        loop {
            let (passing, last) = match self.observer.last_words(&chunk[..n], why, remedy, self.world.now().micros() as u64) {
                LastWords::More(passing) => (passing, false),
                LastWords::Last(passing) => (passing, true),
            };
            self.to_client.passed += passing.len() as u64;
            self.to_client.left.extend(passing);
            self.to_client.unflushed = true;
            let full = self.to_client.left.len() > MESSAGE;
            let drained = poll_fn(|cx| match self.to_client.poll_drain(&mut self.client, cx) {
                Poll::Ready(done) => Poll::Ready(done),
                Poll::Pending if full => Poll::Pending,
                Poll::Pending => Poll::Ready(Ok(())),
            });
            drained.await?;
            if last {
                return Ok(true);
            }
            n = self.upstream.read(&mut chunk).await?;
            if n == 0 {
                return Ok(false);
            }
        }
    }
}

/// Moves what can be moved. Pending when neither side has anything.
#[expect(clippy::too_many_arguments, reason = "the parts of one relay, borrowed apart")]
fn copy(
    world: &impl World,
    session: &Session,
    client: &mut Guest,
    upstream: &mut UpstreamStream,
    to_target: &mut Way,
    to_client: &mut Way,
    observer: &mut (dyn Observe + Send),
    recorder: &mut Recorder,
    record_at: &mut Option<Instant>,
    cx: &mut Context<'_>,
) -> Poll<Stop> {
    SCRATCH.with_borrow_mut(|scratch| {
        loop {
            let from_client = pass(
                client,
                upstream,
                to_target,
                scratch,
                cx,
                |bytes, now| {
                    observer.client(bytes, now);
                    observer.refused()
                },
                world.now(),
                session,
            );
            let from_client = match from_client {
                Moved::Closed => return Poll::Ready(Stop::ClientLeft),
                Moved::Broken => return Poll::Ready(Stop::TargetLeft),
                Moved::Fenced(why) => return Poll::Ready(Stop::Fenced(why)),
                Moved::Refused(why) => return Poll::Ready(Stop::Refused(why)),
                Moved::Unfollowed => return Poll::Ready(Stop::Unfollowed),
                Moved::Some => true,
                Moved::Nothing => false,
            };
            let from_target = pass(
                upstream,
                client,
                to_client,
                scratch,
                cx,
                |bytes, now| {
                    for statement in observer.server(bytes, now) {
                        recorder.add(statement);
                    }
                    None
                },
                world.now(),
                session,
            );
            let from_target = match from_target {
                Moved::Closed => return Poll::Ready(Stop::TargetLeft),
                Moved::Broken => return Poll::Ready(Stop::ClientLeft),
                Moved::Fenced(why) => return Poll::Ready(Stop::Fenced(why)),
                Moved::Refused(why) => return Poll::Ready(Stop::Refused(why)),
                Moved::Unfollowed => return Poll::Ready(Stop::Unfollowed),
                Moved::Some => true,
                Moved::Nothing => false,
            };
            if recorder.is_full() {
                return Poll::Ready(Stop::Record);
            }
            if record_at.is_none() && !recorder.is_empty() {
                *record_at = Some(Instant::now() + RECORD_DELAY);
                return Poll::Ready(Stop::Record);
            }
            if !from_client && !from_target {
                return Poll::Pending;
            }
        }
    })
}

enum Moved {
    Some,
    Nothing,
    /// The sender is gone.
    Closed,
    /// The receiver is gone.
    Broken,
    Fenced(Told),
    /// What was sent may not pass.
    Refused(&'static str),
    /// A defect in the parsing of it.
    Unfollowed,
}

#[expect(clippy::too_many_arguments, reason = "the parts of one relay, borrowed apart")]
fn pass(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    way: &mut Way,
    scratch: &mut [u8],
    cx: &mut Context<'_>,
    observe: impl FnOnce(&[u8], u64) -> Option<&'static str>,
    now: Time,
    session: &Session,
) -> Moved {
    match way.poll_drain(to, cx) {
        Poll::Ready(Ok(())) => {}
        Poll::Ready(Err(_)) => return Moved::Broken,
        // the receiver is slow: its sender has to wait
        Poll::Pending => return Moved::Nothing,
    }
    // the fence is asked before anything is read: what is taken out of a stream goes on, or the stream ends there. A chunk that was read
    // and dropped would make the client take the middle of a later row for the rest of this one
    if let Some(why) = session.fenced(now) {
        return Moved::Fenced(why);
    }
    let mut buffer = ReadBuf::new(scratch);
    match Pin::new(from).poll_read(cx, &mut buffer) {
        Poll::Pending => return Moved::Nothing,
        Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
        Poll::Ready(_) => return Moved::Closed,
    }
    // a defect in the parsing of what somebody sends ends that session, and no record of it is lost
    let observed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| observe(buffer.filled(), now.micros() as u64)));
    match observed {
        Ok(None) => {}
        Ok(Some(why)) => return Moved::Refused(why),
        Err(_) => return Moved::Unfollowed,
    }
    way.moved_at = now;
    match way.poll_send(buffer.filled(), to, cx) {
        Ok(()) => Moved::Some,
        Err(_) => Moved::Broken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::{Opening, Sessions};
    use daypass_core::{
        admission::{Fallen, Standing},
        ids::*,
        plan::Backend,
    };
    use std::task::Waker;
    use uuid::Uuid;

    fn session(until: Time) -> Arc<Session> {
        let account = "jit_maria_aaaa";
        Sessions::default().open(Opening {
            id: SessionId::new(Uuid::nil()),
            pass: PassId::new(Uuid::nil()),
            environment: EnvironmentId::new(Uuid::nil()),
            environment_name: "uat".to_owned(),
            account: account.parse().unwrap(),
            address: [127, 0, 0, 1].into(),
            opened_at: Time::ZERO,
            until: Standing { until, then: Fallen::AddressNotAllowed },
            idle: None,
            record: true,
            cancel: None,
            target: TargetId::new(Uuid::nil()),
            upstream: ([127, 0, 0, 1], 1).into(),
            there: Backend { account: account.to_owned(), id: 1 },
        })
    }

    /// One step with what the server has sent; gives whether it was fenced, what the client got, and what is still to be read.
    async fn step(session: &Session, now: Time, sent: &[u8], observe: impl FnOnce(&[u8], u64) -> Option<&'static str>) -> (Moved, Vec<u8>, Vec<u8>) {
        let (mut server, mut from) = tokio::io::duplex(4096);
        let (mut to, mut client) = tokio::io::duplex(4096);
        server.write_all(sent).await.unwrap();
        drop(server);
        let mut way = Way::new(Time::ZERO);
        let moved = pass(&mut from, &mut to, &mut way, &mut [0; 64], &mut Context::from_waker(Waker::noop()), observe, now, session);
        drop(to);
        let (mut got, mut left) = (Vec::new(), Vec::new());
        client.read_to_end(&mut got).await.unwrap();
        from.read_to_end(&mut left).await.unwrap();
        (moved, got, left)
    }

    #[test]
    fn whatever_a_session_is_ended_with_is_explained() {
        let ends = [
            End::TargetLeft,
            End::Cut(Told::and_connect_again("nothing happened in this session for 15 min, and the policy of uat ends it then".to_owned())),
            End::Cut(Told::and_connect_again("this session was ended by sam".to_owned())),
            End::Refused("its statements could not be recorded: the client does not keep to the protocol"),
            End::Refused("it asked for a distributed transaction, and others could commit that behind its end"),
            End::NotRecorded("the disk is full".to_owned()),
            End::NotFollowed,
        ];
        for end in ends {
            let found = daypass_core::explain::explain(&end.words(), None, Time::ZERO);
            assert!(!found.cause.contains("not one that Daypass writes"), "{}", end.words());
        }
    }

    #[tokio::test]
    async fn what_is_taken_out_of_a_stream_goes_on_or_the_stream_ends_there() {
        let end = Time::from_micros(1_000_000);
        let (moved, got, left) = step(&session(end), Time::ZERO, b"row", |_, _| None).await;
        assert!(matches!(moved, Moved::Some) && got == b"row" && left.is_empty());
        // by the clock, and by a cut: nothing was read, so what follows is what the client waits for
        let (moved, got, left) = step(&session(end), end, b"row", |_, _| panic!("nobody looks at it")).await;
        assert!(matches!(moved, Moved::Fenced(_)) && got.is_empty() && left == b"row");
        let cut = session(end);
        cut.cut(Told::and_connect_again("enough"));
        let (moved, got, left) = step(&cut, Time::ZERO, b"row", |_, _| panic!("nobody looks at it")).await;
        assert!(matches!(moved, Moved::Fenced(told) if told.why == "enough") && got.is_empty() && left == b"row");
        // a defect in the following of it: the chunk is gone, so nothing may follow, not even a reason
        let (moved, got, _) = step(&session(end), Time::ZERO, b"row", |_, _| panic!("a defect")).await;
        assert!(matches!(moved, Moved::Unfollowed) && got.is_empty());
    }
}
