//! What stands in columns, read without running anything of the copy. COPY of a table sends its rows as they are: no statement over them is planned or
//! evaluated, so no cast, no domain, no index expression of whoever made the table is called by the administrator (PostgreSQL manual, COPY: a
//! view, or a generated column, it refuses). What is compared are digests with a key that is gone afterwards, in tables of the administrator's own session.

use super::{Postgres, connect, masks, refused};
use crate::{TargetError, movement::Move, some_of};
use bytes::Bytes;
use daypass_core::{
    masks::{Column, Mask, Partial},
    movement::Swept,
};
use futures_util::{SinkExt, StreamExt};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    hash::{BuildHasher, RandomState},
};
use tokio_postgres::{Client, CopyOutStream};

const BEFORE: &str = "before";
const AFTER: &str = "after";

/// How much of the digests is gathered before it goes back to the server.
const PIECE: usize = 256 * 1024;

/// The tables in which the rows of a table lie: itself, its partitions, and what inherits from it.
pub async fn leaves(client: &Client, oid: u32) -> Result<Vec<String>, TargetError> {
    let look = "WITH RECURSIVE tree (oid) AS (SELECT $1::pg_catalog.oid UNION SELECT i.inhrelid FROM tree t JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) t.oid) \
                SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM tree JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) tree.oid \
                JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace WHERE c.relkind = 'r' ORDER BY tree.oid";
    Ok(client.query(look, &[&oid]).await?.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// What COPY sends, cut into rows and fields of its text format.
#[derive(Default)]
pub struct Rows {
    rest: Vec<u8>,
}

impl Rows {
    pub fn push(&mut self, piece: &[u8], mut each: impl FnMut(&[Option<&str>])) {
        self.rest.extend_from_slice(piece);
        let mut begin = 0;
        while let Some(length) = self.rest[begin..].iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&self.rest[begin..begin + length]);
            let fields: Vec<Option<&str>> = line.split('\t').map(|field| (field != "\\N").then_some(field)).collect();
            each(&fields);
            begin += length + 1;
        }
        self.rest.drain(..begin);
    }
}

/// The rows of a table, as pieces of COPY.
pub async fn copied(client: &Client, table: &str, columns: &[String]) -> Result<CopyOutStream, TargetError> {
    client.copy_out(&format!("COPY {table} ({}) TO STDOUT", columns.join(", "))).await.map_err(|e| masks::without_values(table, &e))
}

/// A field as the value that it stands for (PostgreSQL manual, COPY, text format).
pub fn unescaped(field: &str) -> String {
    let (mut text, mut chars) = (String::with_capacity(field.len()), field.chars());
    while let Some(c) = chars.next() {
        text.push(match (c, if c == '\\' { chars.next() } else { None }) {
            (_, None) => c,
            (_, Some('b')) => '\u{8}',
            (_, Some('f')) => '\u{c}',
            (_, Some('n')) => '\n',
            (_, Some('r')) => '\r',
            (_, Some('t')) => '\t',
            (_, Some('v')) => '\u{b}',
            (_, Some(other)) => other,
        });
    }
    text
}

/// A column that is masked, as it is compared.
pub struct Compared {
    pub column: Column,
    pub mask: Mask,
    /// By the key of its row: a value of before may stand in another one.
    pub by_row: bool,
    /// What a constant is, as its type writes it.
    pub constant: Option<String>,
}

impl Compared {
    /// Whether a value is one that its mask changes: what stands in it already is not looked for afterwards.
    fn changes(&self, field: &str) -> bool {
        match self.mask {
            Mask::ShiftDays(_) => !matches!(field, "infinity" | "-infinity"),
            Mask::Constant(_) => self.constant.as_deref() != Some(&unescaped(field)),
            Mask::Partial(Partial { first, last }) => {
                // what fills a char(n) up is no part of the value
                let chars: Vec<char> = unescaped(field).trim_end_matches(' ').chars().collect();
                let (first, last) = if chars.len() > usize::from(first) + usize::from(last) { (first.into(), last.into()) } else { (0, 0) };
                chars[first..chars.len() - last].iter().any(|c| *c != '*')
            }
            _ => true,
        }
    }
}

/// A table with masked columns: first the columns of the key that its rows are known by, then those that are masked.
pub struct Masked {
    pub oid: u32,
    /// Qualified and quoted, as it was declared.
    pub name: String,
    /// Quoted.
    pub key: Vec<String>,
    pub columns: Vec<(String, Compared)>,
}

/// What there was before anything ran.
pub struct Before {
    reading: Client,
    /// With the tables of digests, which end with it.
    keeping: Client,
    tables: Vec<Masked>,
    forced: Vec<String>,
    hasher: RandomState,
    /// How many values there were to mask, by column.
    rows: BTreeMap<Column, u64>,
}

/// Takes the digests of what stands in the columns now.
pub async fn before(target: &Postgres, movement: &Move<'_>, tables: Vec<Masked>, forced: &[String]) -> Result<Option<Before>, TargetError> {
    if tables.is_empty() {
        return Ok(None);
    }
    let scratch = movement.names.scratch.as_str();
    let (reading, keeping) = (connect(target, scratch).await?, connect(target, scratch).await?);
    for table in [BEFORE, AFTER] {
        keeping.batch_execute(&format!("CREATE TEMP TABLE daypass_{table} (n int4, digest int8)")).await?;
    }
    let mut before = Before { reading, keeping, tables, forced: forced.to_vec(), hasher: RandomState::new(), rows: BTreeMap::new() };
    before.rows = before.take(BEFORE).await?;
    Ok(Some(before))
}

impl Before {
    /// Digests of all values go into this table. How many there are, by column.
    async fn take(&self, into: &str) -> Result<BTreeMap<Column, u64>, TargetError> {
        // nothing of this transaction stays: where row policies count for the owner, they do not while it reads
        self.reading.batch_execute("SET row_security = off; BEGIN").await?;
        for table in &self.forced {
            self.reading.batch_execute(&masks::unforced(table).0).await?;
        }
        self.keeping.batch_execute(&format!("TRUNCATE pg_temp.daypass_{into}")).await?;
        let (mut counts, mut n) = (BTreeMap::new(), 0_usize);
        for table in &self.tables {
            // who may act in the copy could put another table in its place
            let same = "SELECT c.oid = $1 FROM pg_class c WHERE c.oid = to_regclass($2)";
            if self.reading.query_opt(same, &[&table.oid, &table.name]).await?.map(|row| row.try_get(0)).transpose()? != Some(true) {
                return Err(refused(format!("{} is not the table any more that was to be masked", table.name)));
            }
            // of what becomes NULL nothing has to be known but that it has: it may be as large as a value can be
            let read = |(_, compared): &&(String, Compared)| into == AFTER || compared.mask != Mask::Null;
            let wanted: Vec<(usize, &(String, Compared))> = (n..).zip(&table.columns).filter(|(_, column)| read(column)).collect();
            let mut found = vec![0_u64; wanted.len()];
            if !wanted.is_empty() {
                for leaf in leaves(&self.reading, table.oid).await? {
                    self.pass(&leaf, &table.key, &wanted, into, &mut found).await?;
                }
            }
            counts.extend(wanted.into_iter().zip(found).map(|((_, (_, compared)), count)| (compared.column.clone(), count)));
            n += table.columns.len();
        }
        self.reading.batch_execute("ROLLBACK").await?;
        self.keeping.batch_execute(&format!("ANALYZE pg_temp.daypass_{into}")).await?;
        Ok(counts)
    }

    /// One table of rows, from the one connection to the other; no more than a little of it is here at a time.
    async fn pass(&self, leaf: &str, key: &[String], wanted: &[(usize, &(String, Compared))], into: &str, found: &mut [u64]) -> Result<(), TargetError> {
        let columns: Vec<String> = key.iter().chain(wanted.iter().map(|(_, (name, _))| name)).cloned().collect();
        let sink = self.keeping.copy_in::<_, Bytes>(&format!("COPY pg_temp.daypass_{into} (n, digest) FROM STDIN")).await?;
        let out = copied(&self.reading, leaf, &columns).await?;
        tokio::pin!(sink, out);
        let (mut rows, mut lines) = (Rows::default(), String::new());
        while let Some(piece) = out.next().await {
            rows.push(&piece.map_err(|e| masks::without_values(leaf, &e))?, |fields| {
                let (key, values) = fields.split_at(key.len().min(fields.len()));
                for (((n, (_, compared)), value), found) in wanted.iter().zip(values).zip(&mut *found) {
                    let Some(value) = value.filter(|value| compared.changes(value)) else { continue };
                    *found += 1;
                    let digest = if compared.by_row { self.hasher.hash_one((key, value)) } else { self.hasher.hash_one(value) };
                    let _ = writeln!(lines, "{n}\t{}", digest.cast_signed());
                }
            });
            if lines.len() > PIECE {
                sink.send(Bytes::from(std::mem::take(&mut lines))).await?;
            }
        }
        sink.send(Bytes::from(lines)).await?;
        sink.finish().await?;
        Ok(())
    }

    /// What of before is still there. A value that should have gone is an error, with the column and how many.
    pub async fn compare(&self, required: bool) -> Result<Vec<Swept>, TargetError> {
        let now = self.take(AFTER).await?;
        let (mut swept, mut left) = (Vec::new(), Vec::new());
        let mut columns = Vec::new();
        for table in &self.tables {
            columns.extend(table.columns.iter().map(|(_, compared)| (table, compared)));
        }
        for (n, (table, compared)) in columns.into_iter().enumerate() {
            let (Compared { column, mask, by_row, .. }, rows) = (compared, self.rows.get(&compared.column).copied().unwrap_or_default());
            let look = "SELECT count(*) FROM pg_temp.daypass_after a WHERE a.n = $1 AND EXISTS (SELECT FROM pg_temp.daypass_before b WHERE b.n = $1 AND b.digest = a.digest)";
            let n = i32::try_from(n).map_err(|_| refused("there are too many masks"))?;
            let same = match mask {
                Mask::Null => now.get(column).copied().unwrap_or_default(),
                _ => self.keeping.query_one(look, &[&n]).await?.try_get::<_, i64>(0)?.unsigned_abs(),
            };
            let known = !table.key.is_empty() || !by_row;
            let done = match same {
                _ if !known && required => {
                    left.push(format!("{column} ({mask}): the table has no primary key by which rows could be compared, and masking is required"));
                    continue;
                }
                _ if !known => format!("{rows} rows were masked, and NOT compared: the table has no primary key that stays as it is"),
                _ if *mask == Mask::Shuffle && same == rows => format!("NOT masked: none of {rows} rows has another value than in the source"),
                _ if *mask == Mask::Shuffle => {
                    format!("{} of {rows} rows have another value than in the source; the values stay, in other rows", rows.saturating_sub(same))
                }
                0 if *mask == Mask::Null => "no row has a value any more".to_owned(),
                0 if *by_row => format!("{rows} of {rows} rows differ from the source"),
                0 => format!("{rows} of {rows} rows differ from the source, and no row has a value that stood in this column there"),
                _ => {
                    left.push(format!("{column} ({mask}): {same} rows hold what stood in the source"));
                    continue;
                }
            };
            swept.push(Swept { what: format!("mask {mask} of {column}"), done });
        }
        if !left.is_empty() {
            return Err(refused(format!("what is masked is not, and the new database does not open: {}", some_of(&left))));
        }
        Ok(self.in_short(swept))
    }

    /// A report has room for some hundred lines: with more masks, what is out of the ordinary, and a line a table.
    fn in_short(&self, mut swept: Vec<Swept>) -> Vec<Swept> {
        if swept.len() <= 100 {
            return swept;
        }
        swept.retain(|line| line.done.contains("NOT "));
        let line = |table: &Masked| {
            let values: u64 = table.columns.iter().filter_map(|(_, compared)| self.rows.get(&compared.column)).sum();
            Swept {
                what: format!("{} masks of {}", table.columns.len(), table.name),
                done: format!("{values} values; but for what is named, none of the source is left where it was"),
            }
        };
        swept.extend(self.tables.iter().map(line));
        swept
    }
}
