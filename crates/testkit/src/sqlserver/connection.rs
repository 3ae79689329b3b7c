//! One connection: PRELOGIN, TLS in each of its modes, LOGIN7, then one session, or several inside SMP frames (MARS).

use super::{
    Encryption, Server,
    engine::{Gone, Reply, Session},
    reply::{put_collation, put_returned},
    request::{bulk, calls, declared, filled},
    state::{Session as Row, key},
};
use daypass_gateway::wrapped::Wrapped;
use daypass_wire::tds::{
    login7::Login7,
    packet::{self, Gathered, Gathering, HEADER, Header, kind, put_packet, utf16},
    prelogin::{Prelogin, encryption, option},
    refuse::Reason,
    smp::{self, Frame, flag},
    startup::VERSION,
    token::{done, env_change, put_done, put_env_change, put_login_ack, put_message, token_type},
};
use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::{Notify, mpsc, watch},
};
use tokio_rustls::TlsAcceptor;

/// What both sides said, inside of TLS: pieces of `C` or `S`, a length of four bytes, the bytes. Only kept when asked for.
#[derive(Clone, Default)]
pub struct Tape(Option<Arc<Mutex<Vec<u8>>>>);

impl Tape {
    fn for_connection(server: &Server) -> Tape {
        if !server.options.record {
            return Tape(None);
        }
        let tape = Arc::new(Mutex::new(Vec::new()));
        server.with(|state| state.tapes.push(tape.clone()));
        Tape(Some(tape))
    }

    fn put(&self, side: u8, bytes: &[u8]) {
        if let Some(tape) = &self.0 {
            let mut tape = tape.lock().unwrap_or_else(PoisonError::into_inner);
            tape.push(side);
            tape.extend((bytes.len() as u32).to_le_bytes());
            tape.extend_from_slice(bytes);
        }
    }
}

pub async fn serve(server: Arc<Server>, tcp: TcpStream, peer: SocketAddr) -> io::Result<()> {
    let tape = Tape::for_connection(&server);
    let mut first = [0];
    tcp.peek(&mut first).await?;
    if first[0] == 0x16 {
        let tls = TlsAcceptor::from(server.strict.clone()).accept(tcp).await?;
        return greet(server, tls, peer, tape).await;
    }
    let mut tcp = tcp;
    let mars = prelogin(&server, &mut tcp, false, &tape).await?;
    if server.options.encryption == Encryption::None {
        return log_in(server, tcp, peer, mars, tape).await;
    }
    let mut tls = TlsAcceptor::from(server.wrapped.clone()).accept(Wrapped::in_packets(tcp)).await?;
    tls.get_mut().0.unwrap();
    log_in(server, tls, peer, mars, tape).await
}

async fn greet<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(server: Arc<Server>, mut stream: S, peer: SocketAddr, tape: Tape) -> io::Result<()> {
    let mars = prelogin(&server, &mut stream, true, &tape).await?;
    log_in(server, stream, peer, mars, tape).await
}

async fn message(stream: &mut (impl AsyncRead + Unpin), wanted: u8, limit: usize, tape: &Tape) -> io::Result<Vec<u8>> {
    let mut gathering = Gathering::new(wanted, limit);
    loop {
        let mut bytes = vec![0; gathering.want()];
        stream.read_exact(&mut bytes).await?;
        tape.put(b'C', &bytes);
        match gathering.feed(&bytes) {
            Gathered::More => {}
            Gathered::Whole(message, _) => return Ok(message),
            Gathered::Broken => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// Says whether there are to be several sessions.
async fn prelogin(server: &Server, stream: &mut (impl AsyncRead + AsyncWrite + Unpin), strict: bool, tape: &Tape) -> io::Result<bool> {
    let said = Prelogin::read(&message(stream, kind::PRELOGIN, 4_096, tape).await?).ok_or(io::ErrorKind::InvalidData)?;
    let mars = said.byte(option::MARS) == Some(1) && !server.options.sparse;
    let encrypt = if !strict && server.options.encryption == Encryption::None { encryption::NOT_SUPPORTED } else { encryption::REQUIRED };
    let mut answer = Prelogin::default().with(option::VERSION, &VERSION).with(option::ENCRYPTION, &[encrypt]).with(option::INSTANCE, &[0]);
    answer = answer.with(option::THREAD, &[]).with(option::MARS, &[u8::from(mars)]);
    let mut out = Vec::new();
    packet::put(&mut out, kind::REPLY, 0, &answer.message(), 4_096);
    stream.write_all(&out).await?;
    stream.flush().await?;
    Ok(mars)
}

async fn log_in<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    server: Arc<Server>,
    mut stream: S,
    peer: SocketAddr,
    mars: bool,
    tape: Tape,
) -> io::Result<()> {
    let login = Login7::read(&message(&mut stream, kind::LOGIN7, 128 * 1024, &tape).await?).ok_or(io::ErrorKind::InvalidData)?;
    let kill = Arc::new(Notify::new());
    let size = match login.packet_size as usize {
        0 => 4_096,
        size => size.clamp(512, 32_767) & !3,
    };
    let (id, database) = match enter(&server, &login, peer, &kill) {
        Ok(entered) => entered,
        Err(reason) => {
            stream.write_all(&reason.reply()).await?;
            stream.flush().await?;
            return stream.shutdown().await;
        }
    };
    let mut tokens = Vec::new();
    put_env_change(&mut tokens, env_change::DATABASE, &database, "master");
    put_message(&mut tokens, 5701, 2, 0, &format!("Changed database context to '{database}'."), "STANDIN");
    put_collation(&mut tokens);
    put_env_change(&mut tokens, 2, "us_english", "");
    put_login_ack(&mut tokens, 0x7400_0004, "Microsoft SQL Server", [16, 0, 0x10, 0x27]);
    put_env_change(&mut tokens, env_change::PACKET_SIZE, &size.to_string(), "4096");
    put_done(&mut tokens, token_type::DONE, 0, 0, 0);
    let mut out = Vec::new();
    packet::put(&mut out, kind::REPLY, id, &tokens, 4_096);
    stream.write_all(&out).await?;
    stream.flush().await?;
    tape.put(b'S', &out);
    let (reader, mut writer) = tokio::io::split(stream);
    let (to_client, mut outgoing) = mpsc::channel::<Vec<u8>>(2);
    let heard = tape.clone();
    let writing = tokio::spawn(async move {
        while let Some(bytes) = outgoing.recv().await {
            heard.put(b'S', &bytes);
            if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                return;
            }
        }
        let _ = writer.shutdown().await;
    });
    let make = || Session::new(server.clone(), id, &login.user, &database, login.application == "daypass keeper");
    let serving = async { if mars { serve_many(reader, to_client, size, make, &tape).await } else { serve_one(reader, to_client, size, make(), &tape).await } };
    let done = tokio::select! {
        done = serving => done,
        () = kill.notified() => Ok(()),
    };
    server.with(|state| state.sessions.remove(&id));
    writing.abort();
    done
}

/// The login: a password, a database that it may open, and on Azure an address that a rule lets in.
fn enter(server: &Server, login: &Login7, peer: SocketAddr, kill: &Arc<Notify>) -> Result<(u16, String), Reason> {
    let azure = server.options.azure();
    server.with(|state| {
        let failed = || Reason { number: 18_456, class: 14, text: format!("Login failed for user '{}'.", login.user) };
        let no_database =
            |name: &str| Reason { number: 4_060, class: 11, text: format!("Cannot open database \"{name}\" requested by the login. The login failed.") };
        if let Some((number, text)) = state.refused.clone().filter(|_| login.user.starts_with("jit_")) {
            return Err(Reason { number, class: 14, text });
        }
        let known = state.logins.get(&key(&login.user)).cloned();
        let wanted = match (&known, login.database.as_str()) {
            (Some(known), "") => known.default_database.clone(),
            (None, "") => "master".to_owned(),
            (_, name) => name.to_owned(),
        };
        let db = state.databases.get(&key(&wanted)).ok_or_else(|| no_database(&wanted))?;
        // all come from one machine here: what Daypass itself runs is taken to come from a host that a rule lets in
        if azure && !login.application.starts_with("daypass ") {
            let address = peer.ip().to_string();
            let number = |text: &str| text.parse::<std::net::Ipv4Addr>().map_or(0, u32::from);
            let open = db.rules.iter().chain(&state.rules).any(|(_, from, to)| (number(from)..=number(to)).contains(&number(&address)));
            if !open {
                let text =
                    format!("Cannot open server 'standin' requested by the login. Client with IP address '{address}' is not allowed to access the server.");
                return Err(Reason { number: 40_615, class: 14, text });
            }
        }
        match &known {
            Some(known) if known.disabled || known.password != login.password.as_str() => return Err(failed()),
            None if db.principals.get(&key(&login.user)).and_then(|u| u.password.as_deref()) != Some(login.password.as_str()) => return Err(failed()),
            _ => {}
        }
        let user = db.user_of(known.as_ref(), &login.user).ok_or_else(|| no_database(&wanted))?;
        if db.permissions.iter().any(|p| p.denied && p.name == "CONNECT" && key(&p.grantee) == key(&user.name)) {
            return Err(failed());
        }
        let database = db.name.clone();
        state.next_session = state.next_session.wrapping_add(1).max(51);
        while state.sessions.contains_key(&state.next_session) {
            state.next_session = state.next_session.wrapping_add(1).max(51);
        }
        let id = state.next_session;
        let row = Row {
            login: login.user.clone(),
            executes_as: login.user.clone(),
            database: database.clone(),
            host: login.host.clone(),
            program: login.application.clone(),
            address: peer.ip(),
            kill: kill.clone(),
        };
        state.sessions.insert(id, row);
        Ok((id, database))
    })
}

/// A whole request.
struct Request {
    kind: u8,
    status: u8,
    message: Vec<u8>,
}

/// Puts requests together out of packets.
#[derive(Default)]
struct Assembly {
    message: Vec<u8>,
    status: u8,
}

impl Assembly {
    fn packet(&mut self, header: Header, payload: &[u8]) -> Option<Request> {
        if self.message.is_empty() {
            self.status = header.status;
        }
        self.message.extend_from_slice(payload);
        header.is_last().then(|| Request { kind: header.kind, status: self.status, message: std::mem::take(&mut self.message) })
    }
}

/// Hands requests on; an attention overtakes those that wait.
struct Inbox {
    assembly: Assembly,
    requests: mpsc::Sender<Request>,
    attention: Arc<Notify>,
}

impl Inbox {
    async fn packet(&mut self, header: Header, payload: &[u8]) -> io::Result<()> {
        if header.kind == kind::ATTENTION {
            self.attention.notify_one();
            return Ok(());
        }
        match self.assembly.packet(header, payload) {
            Some(request) => self.requests.send(request).await.map_err(|_| io::ErrorKind::BrokenPipe.into()),
            None => Ok(()),
        }
    }
}

async fn read_packet(reader: &mut (impl AsyncRead + Unpin), tape: &Tape) -> io::Result<(Header, Vec<u8>)> {
    let mut header = [0; HEADER];
    reader.read_exact(&mut header).await?;
    tape.put(b'C', &header);
    let header = Header::read(&header).ok_or(io::ErrorKind::InvalidData)?;
    let mut payload = vec![0; header.payload];
    reader.read_exact(&mut payload).await?;
    tape.put(b'C', &payload);
    Ok((header, payload))
}

async fn serve_one(mut reader: impl AsyncRead + Unpin, to_client: mpsc::Sender<Vec<u8>>, size: usize, session: Session, tape: &Tape) -> io::Result<()> {
    let attention = Arc::new(Notify::new());
    let (requests, mut incoming) = mpsc::channel(4);
    let mut inbox = Inbox { assembly: Assembly::default(), requests, attention: attention.clone() };
    let mut out = Out { to_client, size, number: 1, spid: session.id, smp: None };
    let reading = async {
        loop {
            let (header, payload) = read_packet(&mut reader, tape).await?;
            inbox.packet(header, &payload).await?;
        }
    };
    let working = work(session, &mut incoming, &attention, &mut out);
    tokio::select! {
        done = reading => done,
        () = working => Ok(()),
    }
}

/// Flow control of one session inside a connection: what the client is ready to take, and what we are.
struct Smp {
    session: u16,
    sent: Arc<AtomicU32>,
    window: watch::Receiver<u32>,
    received: watch::Receiver<u32>,
}

async fn serve_many(
    mut reader: impl AsyncRead + Unpin,
    to_client: mpsc::Sender<Vec<u8>>,
    size: usize,
    make: impl Fn() -> Session,
    tape: &Tape,
) -> io::Result<()> {
    struct Lane {
        inbox: Inbox,
        window: watch::Sender<u32>,
        received: watch::Sender<u32>,
        sent: Arc<AtomicU32>,
    }
    let mut lanes: HashMap<u16, Lane> = HashMap::new();
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        let mut header = [0; smp::HEADER];
        reader.read_exact(&mut header).await?;
        let frame = Frame::read(&header).ok_or(io::ErrorKind::InvalidData)?;
        let mut payload = vec![0; frame.payload];
        reader.read_exact(&mut payload).await?;
        tape.put(b'C', &[&header[..], &payload].concat());
        if frame.flags & flag::SYN != 0 {
            let attention = Arc::new(Notify::new());
            let (requests, mut incoming) = mpsc::channel(4);
            let ((window, window_seen), (received, received_seen)) = (watch::channel(frame.window), watch::channel(0));
            let session = make();
            let sent = Arc::new(AtomicU32::new(0));
            let smp = Smp { session: frame.session, sent: sent.clone(), window: window_seen, received: received_seen };
            let mut out = Out { to_client: to_client.clone(), size, number: 1, spid: session.id, smp: Some(smp) };
            let heard = attention.clone();
            tasks.spawn(async move { work(session, &mut incoming, &heard, &mut out).await });
            lanes.insert(frame.session, Lane { inbox: Inbox { assembly: Assembly::default(), requests, attention }, window, received, sent });
            continue;
        }
        let Some(lane) = lanes.get_mut(&frame.session) else { continue };
        lane.window.send_replace(frame.window);
        if frame.flags & flag::FIN != 0 {
            lanes.remove(&frame.session);
            let mut bytes = Vec::new();
            Frame { flags: flag::FIN, session: frame.session, payload: 0, sequence: 0, window: frame.sequence + 4 }.put(&mut bytes, &[]);
            let _ = to_client.send(bytes).await;
        } else if frame.flags & flag::DATA != 0 {
            lane.received.send_replace(frame.sequence);
            let header: [u8; HEADER] = payload.get(..HEADER).and_then(|h| h.try_into().ok()).ok_or(io::ErrorKind::InvalidData)?;
            let header = Header::read(&header).ok_or(io::ErrorKind::InvalidData)?;
            // every second frame says that more may come
            if frame.sequence.is_multiple_of(2) {
                let mut bytes = Vec::new();
                Frame { flags: flag::ACK, session: frame.session, payload: 0, sequence: lane.sent.load(Ordering::Acquire), window: frame.sequence + 4 }
                    .put(&mut bytes, &[]);
                let _ = to_client.send(bytes).await;
            }
            lane.inbox.packet(header, &payload[HEADER..]).await?;
        }
    }
}

/// Cuts replies into packets, and packets into frames where there are several sessions.
struct Out {
    to_client: mpsc::Sender<Vec<u8>>,
    size: usize,
    number: u8,
    spid: u16,
    smp: Option<Smp>,
}

impl Out {
    async fn packets(&mut self, tokens: &mut Vec<u8>, last: bool) -> Result<(), Gone> {
        let room = self.size - HEADER;
        let whole = if last { tokens.len() } else { tokens.len() / room * room };
        let mut parts = tokens[..whole].chunks(room).peekable();
        let mut bytes = Vec::with_capacity(whole + whole / 100 + 64);
        loop {
            let part = match parts.next() {
                Some(part) => part,
                None if last && whole == 0 => &[],
                None => break,
            };
            let ends = last && parts.peek().is_none();
            let mut one = Vec::new();
            let into = if self.smp.is_some() { &mut one } else { &mut bytes };
            put_packet(into, kind::REPLY, if ends { packet::EOM } else { 0 }, self.spid, self.number, part);
            self.number = if ends { 1 } else { self.number.wrapping_add(1) };
            if let Some(smp) = &mut self.smp {
                let next = smp.sent.load(Ordering::Acquire) + 1;
                smp.window.wait_for(|window| *window >= next).await.map_err(|_| Gone)?;
                smp.sent.store(next, Ordering::Release);
                let window = *smp.received.borrow() + 4;
                Frame { flags: flag::DATA, session: smp.session, payload: 0, sequence: next, window }.put(&mut bytes, &one);
                self.to_client.send(std::mem::take(&mut bytes)).await.map_err(|_| Gone)?;
            }
            if ends {
                break;
            }
        }
        tokens.drain(..whole);
        if bytes.is_empty() { Ok(()) } else { self.to_client.send(bytes).await.map_err(|_| Gone) }
    }
}

impl Reply for Out {
    async fn put(&mut self, tokens: &mut Vec<u8>) -> Result<(), Gone> {
        self.packets(tokens, false).await
    }
}

async fn work(mut session: Session, incoming: &mut mpsc::Receiver<Request>, attention: &Notify, out: &mut Out) {
    loop {
        let mut tokens = Vec::new();
        let request = tokio::select! {
            request = incoming.recv() => request,
            () = attention.notified() => {
                put_done(&mut tokens, token_type::DONE, done::ATTENTION, 0, 0);
                if out.packets(&mut tokens, true).await.is_err() {
                    return;
                }
                continue;
            }
        };
        let Some(request) = request else { return };
        let done = tokio::select! {
            done = answer(&mut session, request, &mut tokens, out) => done,
            () = attention.notified() => {
                session.sqlite = session.sqlite.take().filter(|_| session.transactions > 0);
                // where nothing was sent yet, what was under way ends as a message of its own: tedious waits for a second one
                if out.number == 1 && tokens.is_empty() {
                    put_done(&mut tokens, token_type::DONE, done::ERROR, 0, 0);
                    if out.packets(&mut tokens, true).await.is_err() {
                        return;
                    }
                }
                put_done(&mut tokens, token_type::DONE, done::ATTENTION, 0, 0);
                Ok(())
            }
        };
        if done.is_err() || out.packets(&mut tokens, true).await.is_err() {
            return;
        }
    }
}

async fn answer(session: &mut Session, request: Request, tokens: &mut Vec<u8>, out: &mut Out) -> Result<(), Gone> {
    // a pool gives the connection to somebody else: everything but the identity begins anew
    if request.status & 0x18 != 0 {
        session.prepared.clear();
        session.cursors.clear();
        session.sqlite = None;
        session.transactions = 0;
        tokens.extend([token_type::ENV_CHANGE, 3, 0, 18, 0, 0]);
    }
    let message = &request.message;
    match request.kind {
        kind::BATCH => session.batch(&utf16(super::request::body(message)), false, tokens, out).await.map(drop),
        kind::RPC => match calls(message) {
            Some(calls) => {
                let last = calls.len().saturating_sub(1);
                for (n, call) in calls.into_iter().enumerate() {
                    procedure(session, call, n < last, tokens, out).await?;
                }
                Ok(())
            }
            None => {
                put_message(tokens, 8_009, 1, 16, "The incoming remote procedure call stream is incorrect.", "STANDIN");
                put_done(tokens, token_type::DONE_PROC, done::ERROR, 0, 0);
                Ok(())
            }
        },
        kind::BULK => {
            let done = match bulk(message) {
                Some(rows) => session.bulk_rows(rows).await,
                None => Err(super::state::Failure::new(4_022, "The bulk data could not be read.")),
            };
            match done {
                Ok(rows) => put_done(tokens, token_type::DONE, done::COUNT, 0xf0, rows),
                Err(failure) => {
                    session.put_failure(tokens, failure);
                    put_done(tokens, token_type::DONE, done::ERROR, 0, 0);
                }
            }
            Ok(())
        }
        kind::TRANSACTION => {
            let body = super::request::body(message);
            let verb = match body.first() {
                Some(5) => "BEGIN",
                Some(7) => "COMMIT",
                _ => "ROLLBACK",
            };
            let again = verb != "BEGIN" && body.last().is_some_and(|flags| flags & 1 == 1) && body.len() > 4;
            let mut done = session.transaction(verb, tokens).await;
            if again && done.is_ok() {
                done = session.transaction("BEGIN", tokens).await;
            }
            if let Err(failure) = done {
                session.put_failure(tokens, failure);
                put_done(tokens, token_type::DONE, done::ERROR, 0, 0);
            } else {
                put_done(tokens, token_type::DONE, 0, 0, 0);
            }
            Ok(())
        }
        _ => Err(Gone),
    }
}

async fn procedure(session: &mut Session, call: super::request::Call, more: bool, tokens: &mut Vec<u8>, out: &mut Out) -> Result<(), Gone> {
    use super::reply::Value;
    let text = |at: usize| match call.parameters.get(at) {
        Some((_, Value::Text(text))) => text.clone(),
        _ => String::new(),
    };
    let number = |at: usize| match call.parameters.get(at) {
        Some((_, Value::Integer(number))) => *number as i32,
        _ => 0,
    };
    let named = |declaration: &str, from: usize| -> Vec<(String, Value)> {
        let names = declared(declaration);
        let values = call.parameters.iter().skip(from).enumerate();
        values.map(|(n, (name, value))| (if name.is_empty() { names.get(n).cloned().unwrap_or_default() } else { name.clone() }, value.clone())).collect()
    };
    let mut made = Vec::new();
    let well = match call.procedure.as_str() {
        "sp_executesql" => session.batch(&filled(&text(0), &named(&text(1), 2)), true, tokens, out).await?,
        name @ ("sp_prepexec" | "sp_prepare") => {
            let (declaration, sql) = (text(1), text(2));
            session.next_handle += 1;
            session.prepared.insert(session.next_handle, format!("{declaration}\0{sql}"));
            made.push(session.next_handle);
            if name == "sp_prepexec" { session.batch(&filled(&sql, &named(&declaration, 3)), true, tokens, out).await? } else { true }
        }
        "sp_execute" => match session.prepared.get(&number(0)).cloned() {
            Some(known) => {
                let (declaration, sql) = known.split_once('\0').unwrap_or_default();
                session.batch(&filled(sql, &named(declaration, 1)), true, tokens, out).await?
            }
            None => {
                put_message(tokens, 8_179, 1, 16, &format!("Could not find prepared statement with handle {}.", number(0)), "STANDIN");
                false
            }
        },
        "sp_cursoropen" => match session.open_cursor(&text(1), tokens).await {
            Ok(cursor) => {
                super::reply::put_end(tokens, true, true, false, Some(0), true);
                // the cursor, what kind it became, whether it is read only, how many rows (not known)
                made.extend([cursor, number(2), number(3), -1]);
                true
            }
            Err(failure) => {
                session.put_failure(tokens, failure);
                false
            }
        },
        "sp_cursorfetch" => match session.fetch(number(0), number(3).max(1) as usize, !call.without_description, tokens) {
            Ok(rows) => {
                super::reply::put_end(tokens, true, true, false, Some(rows), true);
                true
            }
            Err(failure) => {
                session.put_failure(tokens, failure);
                false
            }
        },
        "sp_cursorclose" => session.cursors.remove(&number(0)).is_some(),
        "sp_unprepare" => session.prepared.remove(&number(0)).is_some(),
        name if name.ends_with("extendedproperty") || name.contains("firewall_rule") => {
            let with: Vec<String> = call.parameters.iter().map(|(name, value)| format!("{name} = {}", super::request::literal(value))).collect();
            session.batch(&format!("EXEC {name} {}", with.join(", ")), true, tokens, out).await?
        }
        // what drivers ask of the catalog; no answer is an answer
        _ => true,
    };
    tokens.push(token_type::RETURN_STATUS);
    tokens.extend(i32::from(!well).to_le_bytes());
    for (at, number) in made.into_iter().enumerate() {
        // the statement itself gives nothing back
        let at = if at > 0 { at + 1 } else { at };
        let name = call.parameters.get(at).map(|(name, _)| name.clone()).unwrap_or_default();
        put_returned(tokens, &name, number);
    }
    let status = if more { done::MORE | done::RPC_IN_BATCH } else { 0 } | if well { 0 } else { done::ERROR };
    put_done(tokens, token_type::DONE_PROC, status, 0xe0, 0);
    Ok(())
}
