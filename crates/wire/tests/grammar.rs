//! Legal requests and answers of SQL Server, made at random from the grammar of [MS-TDS] 2.2.6.6, 2.2.6.7 and 2.2.7: what is on record of each is
//! what was put into it. `DAYPASS_STREAMS=1000000 cargo test --release -p daypass-wire --test grammar` tries more of them than each run does.

use daypass_wire::{
    observe::{Observe, Outcome},
    tds::{
        observe::Observer,
        packet::{self, kind},
        token::{Agreed, done, put_done, put_env_change, put_message, token_type},
    },
};

/// splitmix64: the same streams for the same number.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }

    /// Mostly short, now and then longer than anything is kept.
    fn length(&mut self) -> usize {
        let most = self.of(&[0, 1, 8, 100, 100, 3_000]);
        if self.one_in(400) { 150_000 } else { self.below(most + 1) as usize }
    }
}

fn short_text(out: &mut Vec<u8>, text: &str) {
    out.push(text.encode_utf16().count() as u8);
    packet::put_utf16(out, text);
}

fn long_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.encode_utf16().count() as u16).to_le_bytes());
    packet::put_utf16(out, text);
}

const COLLATION: [u8; 5] = [9, 4, 0xd0, 0, 0x34];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Type {
    Fixed(u8, u8),
    /// A length of one byte, one of these.
    Byte(u8, u8),
    Decimal(u8),
    Scaled(u8, u8),
    Short(u8),
    Max(u8),
    Pointer(u8),
    Variant,
    Xml(bool),
    Udt,
    Json,
    Vector,
}

const TYPES: &[Type] = &[
    Type::Fixed(0x30, 1),
    Type::Fixed(0x32, 1),
    Type::Fixed(0x34, 2),
    Type::Fixed(0x38, 4),
    Type::Fixed(0x3a, 4),
    Type::Fixed(0x3b, 4),
    Type::Fixed(0x3c, 8),
    Type::Fixed(0x3d, 8),
    Type::Fixed(0x3e, 8),
    Type::Fixed(0x7a, 4),
    Type::Fixed(0x7f, 8),
    Type::Byte(0x24, 16),
    Type::Byte(0x26, 1),
    Type::Byte(0x26, 4),
    Type::Byte(0x26, 8),
    Type::Byte(0x68, 1),
    Type::Byte(0x6d, 8),
    Type::Byte(0x6e, 8),
    Type::Byte(0x6f, 8),
    Type::Byte(0x28, 3),
    Type::Decimal(0x6a),
    Type::Decimal(0x6c),
    Type::Scaled(0x29, 5),
    Type::Scaled(0x2a, 8),
    Type::Scaled(0x2b, 10),
    Type::Short(0xa5),
    Type::Short(0xad),
    Type::Short(0xa7),
    Type::Short(0xaf),
    Type::Short(0xe7),
    Type::Short(0xef),
    Type::Max(0xa5),
    Type::Max(0xa7),
    Type::Max(0xe7),
    Type::Pointer(0x23),
    Type::Pointer(0x63),
    Type::Pointer(0x22),
    Type::Variant,
    Type::Xml(false),
    Type::Xml(true),
    Type::Udt,
    Type::Json,
    Type::Vector,
];

impl Type {
    fn is_nullable(self) -> bool {
        !matches!(self, Type::Fixed(..))
    }

    /// TYPE_INFO (2.2.5.6).
    fn info(self, out: &mut Vec<u8>, column: bool) {
        let collated = |token: u8| !matches!(token, 0xa5 | 0xad | 0x22);
        match self {
            Type::Fixed(token, _) => out.push(token),
            Type::Byte(0x28, _) => out.push(0x28),
            Type::Byte(token, length) => out.extend([token, length]),
            Type::Decimal(token) => out.extend([token, 17, 38, 4]),
            Type::Scaled(token, _) => out.extend([token, 7]),
            Type::Short(token) | Type::Max(token) => {
                out.push(token);
                out.extend(if matches!(self, Type::Max(_)) { u16::MAX } else { 8_000 }.to_le_bytes());
                out.extend(collated(token).then_some(COLLATION).into_iter().flatten());
            }
            Type::Pointer(token) => {
                out.push(token);
                out.extend(i32::MAX.to_le_bytes());
                out.extend(collated(token).then_some(COLLATION).into_iter().flatten());
            }
            Type::Variant => {
                out.push(0x62);
                out.extend(8_009_u32.to_le_bytes());
            }
            Type::Xml(false) => out.extend([0xf1, 0]),
            Type::Xml(true) => {
                out.extend([0xf1, 1]);
                short_text(out, "db");
                short_text(out, "dbo");
                long_text(out, "schemas");
            }
            Type::Udt => {
                out.push(0xf0);
                if column {
                    out.extend(u16::MAX.to_le_bytes());
                }
                ["db", "sys", "geography"].iter().for_each(|name| short_text(out, name));
                if column {
                    long_text(out, "Microsoft.SqlServer.Types.SqlGeography");
                }
            }
            Type::Json => out.push(0xf4),
            Type::Vector => out.extend([0xf5, 0x28, 0, 0]),
        }
    }

    /// A value, or NULL.
    fn value(self, random: &mut Random, out: &mut Vec<u8>, column: bool, null: bool) {
        let chunks = |random: &mut Random, out: &mut Vec<u8>| {
            if null {
                return out.extend([0xff; 8]);
            }
            let length = random.length();
            // its length may be unknown to whoever begins to send it
            out.extend(if random.one_in(3) { 0xffff_ffff_ffff_fffe_u64 } else { length as u64 }.to_le_bytes());
            let mut left = length;
            while left > 0 {
                let part = 1 + random.below(left as u64) as usize;
                out.extend((part as u32).to_le_bytes());
                out.extend(random.bytes(part));
                left -= part;
            }
            out.extend([0; 4]);
        };
        match self {
            Type::Fixed(_, n) => out.extend(random.bytes(n.into())),
            Type::Byte(_, n) | Type::Scaled(_, n) => {
                let n = if null { 0 } else { n };
                out.push(n);
                out.extend(random.bytes(n.into()));
            }
            Type::Decimal(_) => {
                let n = if null { 0 } else { random.of(&[5, 9, 13, 17]) };
                out.push(n);
                out.extend(random.bytes(n.into()));
            }
            Type::Short(_) | Type::Vector => {
                if null {
                    return out.extend([0xff; 2]);
                }
                let n = random.length().min(8_000) & !1;
                out.extend((n as u16).to_le_bytes());
                out.extend(random.bytes(n));
            }
            Type::Max(_) | Type::Xml(_) | Type::Udt | Type::Json => chunks(random, out),
            Type::Variant => {
                if null {
                    return out.extend([0; 4]);
                }
                out.extend(6_u32.to_le_bytes());
                out.extend([0x38, 0, 1, 2, 3, 4]);
            }
            Type::Pointer(_) if column => {
                if null {
                    return out.push(0);
                }
                out.push(16);
                out.extend(random.bytes(16 + 8));
                let n = random.length();
                out.extend((n as u32).to_le_bytes());
                out.extend(random.bytes(n));
            }
            Type::Pointer(_) => {
                if null {
                    return out.extend([0xff; 4]);
                }
                let n = random.length();
                out.extend((n as u32).to_le_bytes());
                out.extend(random.bytes(n));
            }
        }
    }
}

/// What should be on record of a call.
#[derive(PartialEq, Eq, Debug, Default, Clone)]
struct Expected {
    text: String,
    values: usize,
    rows: u64,
    bytes: u64,
    error: Option<u32>,
}

const HEADERS: [u8; 22] = [22, 0, 0, 0, 18, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];

/// A parameter of some type.
fn parameter(random: &mut Random, out: &mut Vec<u8>, n: usize, agreed: Agreed) {
    short_text(out, &if random.one_in(2) { format!("@p{n}") } else { String::new() });
    if random.one_in(12) {
        return table(random, out);
    }
    if agreed.column_encryption && random.one_in(5) {
        out.push(0x08);
        Type::Max(0xa5).info(out, false);
        Type::Max(0xa5).value(random, out, false, false);
        random.of(TYPES).info(out, false);
        return out.extend(random.bytes(1 + 1 + 4 + 4 + 4 + 8 + 1));
    }
    out.push(random.of(&[0, 1, 2]));
    let ty = random.of(TYPES);
    ty.info(out, false);
    let null = ty.is_nullable() && random.one_in(4);
    ty.value(random, out, false, null);
}

/// A table (2.2.5.5.5.3).
fn table(random: &mut Random, out: &mut Vec<u8>) {
    out.push(0);
    out.push(0xf3);
    short_text(out, "");
    short_text(out, "dbo");
    short_text(out, "rows_of_it");
    if random.one_in(6) {
        return out.extend([0xff, 0xff, 0, 0]);
    }
    let columns: Vec<(Type, bool)> =
        (0..1 + random.below(4)).map(|_| (random.of(TYPES), random.one_in(8))).filter(|(ty, _)| !matches!(ty, Type::Pointer(_))).collect();
    out.extend((columns.len() as u16).to_le_bytes());
    for (ty, is_default) in &columns {
        out.extend([0; 4]);
        out.extend(if *is_default { 0x0200_u16 } else { 0x0001 }.to_le_bytes());
        ty.info(out, true);
        out.push(0);
    }
    if random.one_in(3) && !columns.is_empty() {
        out.extend([0x10, 1, 0, 1, 0, 1]);
    }
    if random.one_in(5) && !columns.is_empty() {
        out.extend([0x11, 1, 0, 1, 0]);
    }
    out.push(0);
    for _ in 0..random.below(6) {
        out.push(1);
        for (ty, _) in columns.iter().filter(|(_, is_default)| !is_default) {
            let null = ty.is_nullable() && random.one_in(4);
            ty.value(random, out, true, null);
        }
    }
    out.push(0);
}

/// A message of calls.
fn request(random: &mut Random, agreed: Agreed) -> (u8, Vec<u8>, Vec<Expected>) {
    if random.one_in(4) {
        let text = format!("SELECT {} FROM t", random.below(1_000));
        let mut message = HEADERS.to_vec();
        packet::put_utf16(&mut message, &text);
        return (kind::BATCH, message, vec![Expected { text, ..Expected::default() }]);
    }
    let mut message = HEADERS.to_vec();
    let mut calls = Vec::new();
    for n in 0..1 + random.below(4) {
        if n > 0 {
            message.push(random.of(&[0xff, 0xff, 0xfe]));
        }
        let text = format!("SELECT {} FROM t", random.below(1_000));
        let parameters = random.below(5) as usize;
        let nvarchar = |out: &mut Vec<u8>, text: &str| {
            out.extend([0, 0, 0xe7, 0x40, 0x1f]);
            out.extend(COLLATION);
            out.extend((2 * text.encode_utf16().count() as u16).to_le_bytes());
            packet::put_utf16(out, text);
        };
        // by number, and by name
        match random.below(3) {
            0 => {
                message.extend([0xff, 0xff, 10, 0, 0, 0]);
                nvarchar(&mut message, &text);
                nvarchar(&mut message, "@p0 int");
                calls.push(Expected { text, values: parameters, ..Expected::default() });
            }
            1 => {
                long_text(&mut message, "[sys].sp_executesql");
                message.extend([0, 0]);
                nvarchar(&mut message, &text);
                nvarchar(&mut message, "@p0 int");
                calls.push(Expected { text, values: parameters, ..Expected::default() });
            }
            _ => {
                long_text(&mut message, "dbo.pay");
                message.extend([0, 0]);
                calls.push(Expected { text: "EXEC dbo.pay".to_owned(), values: parameters, ..Expected::default() });
            }
        }
        for n in 0..parameters {
            parameter(random, &mut message, n, agreed);
        }
    }
    (kind::RPC, message, calls)
}

/// One result: its description, what stands around it, its rows.
fn result(random: &mut Random, out: &mut Vec<u8>, expected: &mut Expected, agreed: Agreed, in_procedure: bool, more: bool) {
    let most = if random.one_in(50) { 300 } else { 6 };
    let count = 1 + random.below(most);
    let columns: Vec<Type> = (0..count).map(|_| random.of(TYPES)).collect();
    out.push(token_type::COLUMNS);
    out.extend((count as u16).to_le_bytes());
    let keys = agreed.column_encryption && random.one_in(2);
    if agreed.column_encryption {
        out.extend(u16::from(keys).to_le_bytes());
        if keys {
            out.extend(random.bytes(4 + 4 + 4 + 8));
            out.extend([1, 2, 0, 7, 7]);
            short_text(out, "AZURE_KEY_VAULT");
            long_text(out, "https://vault.example/keys/1");
            short_text(out, "RSA_OAEP");
        }
    }
    let columns: Vec<Type> = columns
        .into_iter()
        .map(|ty| {
            let encrypted = keys && random.one_in(3);
            let shown = if encrypted { Type::Max(0xa5) } else { ty };
            out.extend([0; 4]);
            out.extend((if encrypted { 0x0800_u16 } else { 0 } | 9).to_le_bytes());
            shown.info(out, true);
            if let Type::Pointer(_) = shown {
                out.push(2);
                long_text(out, "dbo");
                long_text(out, "documents");
            }
            if encrypted {
                out.extend([0, 0]);
                out.extend([0; 4]);
                ty.info(out, true);
                let algorithm = random.of(&[0, 2]);
                out.push(algorithm);
                if algorithm == 0 {
                    short_text(out, "OWN_ALGORITHM");
                }
                out.extend([1, 1]);
            }
            short_text(out, "column");
            shown
        })
        .collect();
    if agreed.classification > 0 && random.one_in(2) {
        let rank = if agreed.classification > 1 { 4 } else { 0 };
        out.push(token_type::DATA_CLASSIFICATION);
        for names in [["Confidential", "1"], ["Financial", "2"]] {
            out.extend([1, 0]);
            names.iter().for_each(|name| short_text(out, name));
        }
        out.extend(random.bytes(rank));
        out.extend((count as u16).to_le_bytes());
        for _ in 0..count {
            let properties = random.below(3) as u16;
            out.extend(properties.to_le_bytes());
            (0..properties).for_each(|_| out.extend(random.bytes(4 + rank)));
        }
    }
    // ORDER, TABNAME, COLINFO: what browse mode and sorted results bring
    for token in [token_type::ORDER, 0xa4, 0xa5] {
        if random.one_in(6) {
            let n = 2 * random.below(20) as usize;
            out.push(token);
            out.extend((n as u16).to_le_bytes());
            out.extend(random.bytes(n));
        }
    }
    let most = if random.one_in(20) { 60 } else { 5 };
    let rows = random.below(most);
    for _ in 0..rows {
        let nulls: Vec<bool> = columns.iter().map(|ty| ty.is_nullable() && random.one_in(4)).collect();
        let compressed = random.one_in(3);
        out.push(if compressed { token_type::NBC_ROW } else { token_type::ROW });
        if compressed {
            let mut bitmap = vec![0_u8; columns.len().div_ceil(8)];
            nulls.iter().enumerate().filter(|(_, null)| **null).for_each(|(at, _)| bitmap[at / 8] |= 1 << (at % 8));
            out.extend(bitmap);
        }
        let before = out.len();
        for (ty, null) in columns.iter().zip(&nulls) {
            if !(compressed && *null) {
                ty.value(random, out, true, *null);
            }
        }
        expected.bytes += (out.len() - before) as u64;
    }
    expected.rows += rows;
    let kind = if in_procedure { token_type::DONE_IN_PROC } else { token_type::DONE };
    put_done(out, kind, done::COUNT | if in_procedure || more { done::MORE } else { 0 }, done::SELECT, rows);
}

/// The answer to a message of calls, or to a batch.
fn answer(random: &mut Random, calls: &mut [Expected], is_batch: bool, agreed: Agreed) -> Vec<u8> {
    let mut out = Vec::new();
    let mark = random.of(&[done::MORE | done::RPC_IN_BATCH, done::MORE]);
    let last = calls.len() - 1;
    for (n, call) in calls.iter_mut().enumerate() {
        let results = random.below(3);
        for at in 0..results {
            if random.one_in(4) {
                put_message(&mut out, 5701, 2, 10, "Changed database context.", "db7");
            }
            if random.one_in(6) {
                put_env_change(&mut out, 1, "uat", "master");
            }
            result(random, &mut out, call, agreed, !is_batch, at + 1 < results);
        }
        if random.one_in(5) && (!is_batch || results == 0) {
            put_message(&mut out, 547, 1, 16, "The statement conflicted.", "db7");
            call.error = Some(547);
        }
        if is_batch {
            if results == 0 {
                put_done(&mut out, token_type::DONE, if call.error.is_some() { done::ERROR } else { 0 }, 0, 0);
            }
            continue;
        }
        if random.one_in(2) {
            out.push(token_type::RETURN_STATUS);
            out.extend([0; 4]);
        }
        for _ in 0..random.below(3) {
            let (ty, encrypted) = (random.of(TYPES), agreed.column_encryption && random.one_in(4));
            let shown = if encrypted { Type::Max(0xa5) } else { ty };
            // there is no output parameter of the old large types
            if matches!(shown, Type::Pointer(_)) {
                continue;
            }
            out.push(token_type::RETURN_VALUE);
            out.extend([0, 0]);
            short_text(&mut out, "@out");
            out.push(1);
            out.extend([0; 4]);
            out.extend((if encrypted { 0x0800_u16 } else { 0 } | 9).to_le_bytes());
            shown.info(&mut out, true);
            if encrypted {
                out.extend([0; 4]);
                ty.info(&mut out, true);
                out.extend([2, 1, 1]);
            }
            let null = shown.is_nullable() && random.one_in(3);
            shown.value(random, &mut out, true, null);
        }
        let error = if call.error.is_some() { done::ERROR } else { 0 };
        put_done(&mut out, token_type::DONE_PROC, error | if n < last { mark } else { 0 }, 0xe0, 0);
    }
    out
}

/// A message in packets of some size, in chunks of any size.
fn passes(random: &mut Random, kind: u8, message: &[u8], mut take: impl FnMut(&[u8])) {
    let mut bytes = Vec::new();
    packet::put(&mut bytes, kind, 0, message, random.of(&[512, 4_096, 8_000, 32_767]));
    let whole = random.one_in(2);
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let n = if whole { rest.len() } else { 1 + random.below(most_at_once(rest.len())) as usize };
        take(&rest[..n.min(rest.len())]);
        rest = &rest[n.min(rest.len())..];
    }
}

fn most_at_once(left: usize) -> u64 {
    (left as u64).min(if left > 20_000 { 16_000 } else { 700 })
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how long a test goes on is its environment's to say")]
fn what_is_on_record_is_what_was_said_and_answered() {
    let streams: u64 = std::env::var("DAYPASS_STREAMS").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000);
    for seed in 0..streams {
        let mut random = Random(seed.wrapping_mul(0x1234_5678_9abc_def1));
        let agreed = Agreed { column_encryption: random.one_in(3), classification: random.of(&[0, 1, 2]) };
        let mut observer = Observer::new(false, agreed);
        for turn in 0..1 + random.below(3) {
            let (kind, message, mut calls) = request(&mut random, agreed);
            passes(&mut random, kind, &message, |bytes| observer.client(bytes, 1));
            let tokens = answer(&mut random, &mut calls, kind == kind::BATCH, agreed);
            let mut found = Vec::new();
            passes(&mut random, kind::REPLY, &tokens, |bytes| {
                found.extend(observer.server(bytes, 2).map(|statement| {
                    let error = match &statement.outcome {
                        Outcome::Failed { code, .. } => Some(code.parse().unwrap_or(0)),
                        _ => None,
                    };
                    assert_eq!(statement.tag, "", "stream {seed}, turn {turn}");
                    Expected { text: statement.text.to_string(), values: statement.values.len(), rows: statement.rows, bytes: statement.bytes, error }
                }));
            });
            assert_eq!(found, calls, "stream {seed}, turn {turn}");
        }
        assert!(observer.end(3).is_empty(), "stream {seed}");
        assert_eq!(observer.held(), 0, "stream {seed}");
    }
}
