//! Declared masks: which statements replace the values of the columns, what has to stand aside while they do, and whether afterwards any value of
//! before is still there. A mask that did nothing is a failure, whatever kept it from its work.
//!
//! The values are replaced by the throw-away role that also runs the operator's scripts, which owns the copy meanwhile: indexes, checks and
//! generated columns of the copy are evaluated by whoever writes. What stands there before and afterwards is read by the administrator: see [`digests`].

use super::{Postgres, connect, digests, refused};
use crate::{TargetError, movement::Move, some_of};
use daypass_core::{
    masks::{Column, Mask, Partial},
    movement::Swept,
};
use futures_util::{SinkExt, future::try_join_all};
use postgres_protocol::escape::{escape_identifier, escape_literal};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};
use tokio_postgres::{Client, Config, Row, error::SqlState};

/// What a value becomes follows from it by HMAC-SHA-256 (RFC 2104) with the key of the project, which the server's own sha256() computes. The
/// key reaches the server as data of COPY, which no log of statements shows. Code of the copy that runs when a row is written could read it: whoever owns the
/// source can learn the key of the target's project, and no other.
const KEY: &str = "CREATE TEMP TABLE daypass_mask (i pg_catalog.bytea, o pg_catalog.bytea)";

/// Hexadecimal digits of a hash that stand for a text.
const DIGITS: i32 = 16;
/// And the fewest, where a column has no room for more: fewer would meet values of the source by chance.
const FEWEST: i32 = 8;
const DOMAIN: &str = "@masked.invalid";

/// A declared column, as the catalog knows it.
struct Known {
    column: Column,
    mask: Mask,
    table: Table,
    /// As SQL writes it, with its length.
    kind: String,
    /// The type below domains.
    base: String,
    category: String,
    typmod: i32,
    unique: bool,
    identity: bool,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Table {
    oid: u32,
    /// Qualified and quoted.
    name: String,
}

pub fn qualified(schema: &str, table: &str) -> String {
    format!("{}.{}", escape_identifier(schema), escape_identifier(table))
}

/// What the catalog says of a column of a table; none: there is no such column.
const COLUMN: &str = "
SELECT c.oid, pg_catalog.format_type(a.atttypid, a.atttypmod), CASE WHEN b.typnamespace = 'pg_catalog'::pg_catalog.regnamespace THEN b.typname::text ELSE '' END, b.typcategory::text,
  CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END, a.attgenerated <> '', a.attidentity = 'a', a.attnotnull,
  EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum),
  c.relkind::text
 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
 JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
 JOIN LATERAL (WITH RECURSIVE d (oid, typname, typnamespace, typcategory, typtype, typbasetype) AS (SELECT t.oid, t.typname, t.typnamespace, t.typcategory, t.typtype, t.typbasetype
   UNION ALL SELECT x.oid, x.typname, x.typnamespace, x.typcategory, x.typtype, x.typbasetype FROM d JOIN pg_catalog.pg_type x ON x.oid = d.typbasetype WHERE d.typtype = 'd')
   SELECT typname, typnamespace, typcategory FROM d WHERE typtype <> 'd') b ON true
 WHERE n.nspname = $1 AND c.relname = $2 AND a.attname = $3 AND a.attnum > 0 AND NOT a.attisdropped";

/// The keys that refer to something else, with the columns of both sides in their order. Those of partitions follow from their parent's.
const KEYS: &str = "
SELECT k.oid, k.conname::text, n.nspname::text, c.relname::text, fn.nspname::text, f.relname::text, pg_catalog.pg_get_constraintdef(k.oid), pg_catalog.obj_description(k.oid, 'pg_constraint'),
  ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(k.conkey) WITH ORDINALITY u (num, at) JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num ORDER BY u.at),
  ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(k.confkey) WITH ORDINALITY u (num, at) JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.num ORDER BY u.at)
 FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 JOIN pg_catalog.pg_class f ON f.oid = k.confrelid JOIN pg_catalog.pg_namespace fn ON fn.oid = f.relnamespace
 WHERE k.contype = 'f' AND k.conparentid = 0 ORDER BY 1";

/// What of a table would do something else than to write what it is told: triggers and rules, of the table and of what inherits from it. Those on DELETE and
/// INSERT as well: a row that moves to another partition is deleted and inserted.
const ASIDE: &str = "
WITH RECURSIVE tree (oid) AS (SELECT $1::pg_catalog.oid UNION SELECT i.inhrelid FROM tree t JOIN pg_catalog.pg_inherits i ON i.inhparent = t.oid),
 named AS (SELECT t.oid, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name FROM tree t JOIN pg_catalog.pg_class c ON c.oid = t.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace)
SELECT pg_catalog.format('ALTER TABLE ONLY %s DISABLE TRIGGER %I', name, g.tgname), pg_catalog.format('ALTER TABLE ONLY %s ENABLE %s TRIGGER %I', name, CASE g.tgenabled WHEN 'A' THEN 'ALWAYS' ELSE '' END, g.tgname),
  pg_catalog.format('the trigger %s of %s', g.tgname, name)
 FROM named JOIN pg_catalog.pg_trigger g ON g.tgrelid = named.oid WHERE NOT g.tgisinternal AND g.tgenabled IN ('O', 'A') AND g.tgtype & 28 <> 0
UNION ALL
SELECT pg_catalog.format('ALTER TABLE %s DISABLE RULE %I', name, r.rulename), pg_catalog.format('ALTER TABLE %s ENABLE %s RULE %I', name, CASE r.ev_enabled WHEN 'A' THEN 'ALWAYS' ELSE '' END, r.rulename),
  pg_catalog.format('the rule %s of %s', r.rulename, name)
 FROM named JOIN pg_catalog.pg_rewrite r ON r.ev_class = named.oid WHERE r.rulename <> '_RETURN' AND r.ev_enabled IN ('O', 'A') AND r.ev_type = '2'
ORDER BY 3";

/// All that is to be done, worked out before anything is.
pub struct Plan {
    columns: Vec<Known>,
    /// Columns that are masked because what they refer to is.
    follow: Vec<String>,
    /// What stands aside, and the statements that put it back; in the order of the first.
    aside: Vec<(String, String)>,
    /// And what of that people should know.
    off: Vec<String>,
    /// Tables whose row policies count for their owner as well.
    forced: Vec<String>,
}

impl Plan {
    /// What the declared masks mean in this database. What cannot be masked as declared is an error that names all of it.
    pub async fn of(client: &Client, movement: &Move<'_>) -> Result<Plan, TargetError> {
        let Whole { masks, follow, keys } = Whole::of(client, movement).await?;
        let (mut plan, mut wrong) = (Plan { columns: Vec::new(), follow, aside: Vec::new(), off: Vec::new(), forced: Vec::new() }, Vec::new());
        for (column, mask) in masks {
            match known(client, &column, &mask).await? {
                Ok(Some(known)) => plan.columns.push(known),
                Ok(None) => {}
                Err(why) => wrong.push(format!("{column}: {why}")),
            }
        }
        let tables: BTreeSet<Table> = plan.columns.iter().map(|known| known.table.clone()).collect();
        for table in &tables {
            let elsewhere = "WITH RECURSIVE tree (oid) AS (SELECT $1::pg_catalog.oid UNION SELECT i.inhrelid FROM tree t JOIN pg_catalog.pg_inherits i ON i.inhparent = t.oid) \
                             SELECT 1 FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid WHERE c.relkind = 'f' LIMIT 1";
            if client.query_opt(elsewhere, &[&table.oid]).await?.is_some() {
                wrong.push(format!("{}: a part of it is a foreign table, whose rows are on another server", table.name));
            }
        }
        if !wrong.is_empty() {
            return Err(refused(format!("declared masks do not fit the new database: {}", some_of(&wrong))));
        }
        for table in &tables {
            for row in client.query(ASIDE, &[&table.oid]).await? {
                plan.aside.push((row.try_get(0)?, row.try_get(1)?));
                plan.off.push(row.try_get(2)?);
            }
        }
        // to set a key again is to read both its tables, as their owner; to compare is to read where the rows lie
        let mut read: BTreeSet<String> = tables.iter().map(|table| &table.name).chain(keys.iter().flat_map(|key| [&key.table, &key.to])).cloned().collect();
        for table in &tables {
            read.extend(digests::leaves(client, table.oid).await?);
        }
        for table in read {
            let forced = "SELECT 1 FROM pg_catalog.pg_class WHERE oid = $1::text::pg_catalog.regclass AND relrowsecurity AND relforcerowsecurity";
            plan.forced.extend(client.query_opt(forced, &[&table]).await?.map(|_| table));
        }
        plan.aside.extend(plan.forced.iter().map(|table| unforced(table)));
        plan.aside.extend(keys.iter().map(|key| (key.take(), key.set())));
        for known in plan.columns.iter().filter(|known| known.identity) {
            let set = |how: &str| format!("ALTER TABLE {} ALTER COLUMN {} SET GENERATED {how}", known.table.name, escape_identifier(&known.column.name));
            plan.aside.push((set("BY DEFAULT"), set("ALWAYS")));
        }
        Ok(plan)
    }

    fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    fn tables(&self) -> Vec<(&Table, Vec<&Known>)> {
        let mut tables: BTreeMap<&Table, Vec<&Known>> = BTreeMap::new();
        for known in &self.columns {
            tables.entry(&known.table).or_default().push(known);
        }
        tables.into_iter().collect()
    }
}

/// What is declared, with what follows from it.
pub struct Whole {
    pub masks: BTreeMap<Column, Mask>,
    /// Columns that are masked because what they refer to is, in words.
    follow: Vec<String>,
    /// Keys between columns that are masked: they stand aside meanwhile.
    keys: Vec<ForeignKey>,
}

impl Whole {
    pub async fn of(client: &Client, movement: &Move<'_>) -> Result<Whole, TargetError> {
        let mut masks: BTreeMap<Column, Mask> = movement.environment.masks.iter().map(|(column, mask)| (column.clone(), mask.clone())).collect();
        let mut keys: Vec<ForeignKey> = client.query(KEYS, &[]).await?.iter().map(ForeignKey::read).collect::<Result<_, _>>()?;
        let mut follow = Vec::new();
        // until nothing refers to a masked column that is not declared itself
        loop {
            let pairs = keys.iter().flat_map(|key| &key.pairs).filter(|(from, _)| !masks.contains_key(from));
            let more: BTreeMap<Column, Mask> = pairs
                .filter_map(|(from, to)| Some((from.clone(), masks.get(to).filter(|mask| **mask != Mask::Keep && mask.carries_over())?.clone())))
                .collect();
            if more.is_empty() {
                break;
            }
            follow.extend(more.iter().map(|(column, mask)| format!("{column} ({mask})")));
            masks.extend(more);
        }
        let touched = |column: &Column| masks.get(column).is_some_and(|mask| *mask != Mask::Keep);
        keys.retain(|key| key.pairs.iter().any(|(from, to)| touched(from) || touched(to)));
        Ok(Whole { masks, follow, keys })
    }
}

/// Its row policies do not count for its owner, and do again.
pub fn unforced(table: &str) -> (String, String) {
    (format!("ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY"), format!("ALTER TABLE {table} FORCE ROW LEVEL SECURITY"))
}

struct ForeignKey {
    table: String,
    /// The table that it refers to.
    to: String,
    name: String,
    definition: String,
    comment: Option<String>,
    /// What refers, and to what.
    pairs: Vec<(Column, Column)>,
}

impl ForeignKey {
    fn read(row: &Row) -> Result<ForeignKey, TargetError> {
        let text = |at: usize| row.try_get::<_, String>(at);
        let (schema, table, other_schema, other) = (text(2)?, text(3)?, text(4)?, text(5)?);
        let (from, to): (Vec<String>, Vec<String>) = (row.try_get(8)?, row.try_get(9)?);
        let column = |schema: &str, table: &str, name: String| Column { schema: schema.to_owned(), table: table.to_owned(), name };
        let pairs = from.into_iter().zip(to).map(|(from, to)| (column(&schema, &table, from), column(&other_schema, &other, to))).collect();
        Ok(ForeignKey {
            table: qualified(&schema, &table),
            to: qualified(&other_schema, &other),
            name: text(1)?,
            definition: text(6)?,
            comment: row.try_get(7)?,
            pairs,
        })
    }

    fn take(&self) -> String {
        format!("ALTER TABLE {} DROP CONSTRAINT {}", self.table, escape_identifier(&self.name))
    }

    fn set(&self) -> String {
        let name = escape_identifier(&self.name);
        let comment = self.comment.as_deref().map(|text| format!("; COMMENT ON CONSTRAINT {name} ON {} IS {}", self.table, escape_literal(text)));
        format!("ALTER TABLE {} ADD CONSTRAINT {name} {}{}", self.table, self.definition, comment.unwrap_or_default())
    }
}

/// The column, unless it stays as it is; or why it cannot be masked so.
async fn known(client: &Client, column: &Column, mask: &Mask) -> Result<Result<Option<Known>, String>, TargetError> {
    let Some(row) = client.query_opt(COLUMN, &[&column.schema, &column.table, &column.name]).await? else {
        return Ok(Err("there is no such column".to_owned()));
    };
    let (generated, not_null, relkind): (bool, bool, String) = (row.try_get(5)?, row.try_get(7)?, row.try_get(9)?);
    let table = Table { oid: row.try_get(0)?, name: qualified(&column.schema, &column.table) };
    let known = Known {
        column: column.clone(),
        mask: mask.clone(),
        table,
        kind: row.try_get(1)?,
        base: row.try_get(2)?,
        category: row.try_get(3)?,
        typmod: row.try_get(4)?,
        unique: row.try_get(8)?,
        identity: row.try_get(6)?,
    };
    if *mask == Mask::Keep {
        return Ok(Ok(None));
    }
    Ok(match relkind.as_str() {
        _ if generated => Err("it is computed from other columns: mask those".to_owned()),
        "r" | "p" if *mask == Mask::Null && not_null => Err("it is NOT NULL: a constant, for example".to_owned()),
        "r" | "p" if known.unique && matches!(mask, Mask::Constant(_) | Mask::Shuffle) => Err("each value stands in it once: hash, for example".to_owned()),
        "r" | "p" => known.becomes().map(|_| Some(known)),
        "m" => Err("it is of a materialized view: mask the tables that it reads, and it is made anew".to_owned()),
        "f" => Err("it is of a foreign table, whose rows are elsewhere".to_owned()),
        _ => Err("it is of no table".to_owned()),
    })
}

/// An operator of the server's own, whatever the database's search_path finds.
fn op(left: &str, operator: &str, right: &str) -> String {
    format!("({left} OPERATOR(pg_catalog.{operator}) {right})")
}

impl Known {
    fn name(&self) -> String {
        escape_identifier(&self.column.name)
    }

    fn is_text(&self) -> bool {
        self.category == "S"
    }

    /// How many characters it takes; none: as many as one likes.
    fn characters(&self) -> Option<i32> {
        (matches!(self.base.as_str(), "varchar" | "bpchar") && self.typmod > 4).then(|| self.typmod - 4)
    }

    /// The value as its type in the server's catalog, below domains: for those nobody can make an operator that fits better.
    fn value(&self, kind: &str) -> String {
        format!("({}::pg_catalog.{kind})", self.name())
    }

    /// HMAC of the value, in hexadecimal.
    fn digest(&self) -> String {
        let key = |part: char| format!("(SELECT {part} FROM pg_temp.daypass_mask)");
        let bytes = if self.base == "bytea" { self.value("bytea") } else { format!("pg_catalog.convert_to({}, 'UTF8')", self.value("text")) };
        let inner = format!("pg_catalog.sha256(pg_catalog.byteacat({}, {bytes}))", key('i'));
        format!("pg_catalog.encode(pg_catalog.sha256(pg_catalog.byteacat({}, {inner})), 'hex')", key('o'))
    }

    /// A number of 60 bits that follows from the value.
    fn number(&self) -> String {
        let bits = format!("pg_catalog.textcat('x', pg_catalog.left({}, 15))", self.digest());
        format!("({bits}::pg_catalog.bit(60)::pg_catalog.int8)")
    }

    /// How many numbers a column takes for a hash, from 0 on; none: the type is for no number, or rounds.
    fn numbers(&self) -> Option<i64> {
        match self.base.as_str() {
            "int2" => Some(i64::from(i16::MAX)),
            "int4" => Some(i64::from(i32::MAX)),
            "int8" => Some(i64::MAX),
            "numeric" if self.typmod < 4 => Some(i64::MAX),
            "numeric" => {
                // the precision in the upper bits, the scale below as a number of 11 bits with a sign (PostgreSQL source, numeric.c, make_numeric_typmod)
                let (precision, scale) = ((self.typmod - 4) >> 16 & 0xffff, (((self.typmod - 4) & 0x7ff) ^ 1024) - 1024);
                let before_the_point = precision - scale;
                let room = scale >= 0 && before_the_point >= 1;
                room.then(|| 10_i64.checked_pow(before_the_point.unsigned_abs()).unwrap_or(i64::MAX))
            }
            _ => None,
        }
    }

    /// The expression that stands for what the value becomes; NULL of NULL. Why not, where the type does not allow it.
    fn becomes(&self) -> Result<String, String> {
        let (name, kind) = (self.name(), self.kind.as_str());
        match &self.mask {
            Mask::Keep | Mask::Shuffle => Ok(name),
            Mask::Null => Ok("NULL".to_owned()),
            Mask::Constant(text) => Ok(format!("CASE WHEN {name} IS NOT NULL THEN {}::{kind} END", escape_literal(text))),
            Mask::Hash if self.is_text() => match self.characters().unwrap_or(DIGITS).min(DIGITS) {
                few if few < FEWEST => Err(format!("it takes {few} characters, and a hash has at least {FEWEST}: a constant, for example")),
                digits => Ok(format!("pg_catalog.left({}, {digits})::{kind}", self.digest())),
            },
            Mask::Hash if self.base == "uuid" => Ok(format!("pg_catalog.left({}, 32)::{kind}", self.digest())),
            Mask::Hash if self.base == "bytea" => Ok(format!("pg_catalog.decode({}, 'hex')::{kind}", self.digest())),
            Mask::Hash => {
                let below =
                    self.numbers().ok_or_else(|| format!("hash is for texts, whole numbers, uuid and bytea, not for {kind}: null, constant or shuffle"))?;
                let within = |number: String| op(&number, "%", &format!("{below}::pg_catalog.int8"));
                let number = within(self.number());
                // no number becomes itself
                let same = op(&format!("{number}::pg_catalog.numeric"), "=", &self.value("numeric"));
                Ok(format!("{}::{kind}", within(op(&number, "+", &format!("CASE WHEN {same} THEN 1::pg_catalog.int8 ELSE 0::pg_catalog.int8 END")))))
            }
            Mask::Mail => {
                let least = DIGITS + DOMAIN.len() as i32;
                match self.characters() {
                    _ if !self.is_text() => Err(format!("mail is for texts, not for {kind}")),
                    Some(most) if most < least => Err(format!("it takes {most} characters, and an address of {DOMAIN} has {least}: hash, for example")),
                    _ => Ok(format!("pg_catalog.textcat(pg_catalog.left({}, {DIGITS}), '{DOMAIN}')::{kind}", self.digest())),
                }
            }
            Mask::Partial(_) if !self.is_text() => Err(format!("partial is for texts, not for {kind}")),
            Mask::Partial(Partial { first, last }) => {
                let (text, stay) = (self.value("text"), i32::from(*first) + i32::from(*last));
                let length = format!("pg_catalog.length({text})");
                let (more, stars) = (op(&length, ">", &stay.to_string()), op(&length, "-", &stay.to_string()));
                let middle = format!("pg_catalog.textcat(pg_catalog.left({text}, {first}), pg_catalog.repeat('*', {stars}))");
                Ok(format!(
                    "(CASE WHEN {more} THEN pg_catalog.textcat({middle}, pg_catalog.right({text}, {last})) ELSE pg_catalog.repeat('*', {length}) END)::{kind}"
                ))
            }
            Mask::ShiftDays(days) => {
                let days = i32::from(*days);
                let by = format!("{}::pg_catalog.int4", op(&self.number(), "%", &format!("{}::pg_catalog.int8", days * 2)));
                // -days to -1 and 1 to days
                let skip = format!("CASE WHEN {} THEN 1 ELSE 0 END", op(&by, ">=", &days.to_string()));
                let by = op(&op(&by, "-", &days.to_string()), "+", &skip);
                match self.base.as_str() {
                    "date" => Ok(format!("{}::{kind}", op(&self.value("date"), "+", &by))),
                    of @ ("timestamp" | "timestamptz") => {
                        Ok(format!("{}::{kind}", op(&self.value(of), "+", &format!("pg_catalog.make_interval(days => {by})"))))
                    }
                    _ => Err(format!("shift_days is for dates and timestamps, not for {kind}")),
                }
            }
        }
    }

    /// Whether a value of before may well stand in another row: then only rows are compared, by their key.
    fn meets_others(&self) -> bool {
        match self.mask {
            Mask::Shuffle | Mask::ShiftDays(_) => true,
            Mask::Hash => self.category == "N",
            _ => false,
        }
    }
}

/// The key that rows are compared by: the primary one, unless it is masked itself or computed.
async fn key_of(client: &Client, table: &Table, masked: &[&Known]) -> Result<Vec<String>, TargetError> {
    let look = "SELECT a.attname::text, a.attgenerated <> '' FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY u (num, at) JOIN pg_attribute a ON a.attrelid = $1 AND a.attnum = u.num \
                WHERE i.indrelid = $1 AND i.indisprimary AND u.at <= i.indnkeyatts ORDER BY u.at";
    let columns: Vec<(String, bool)> =
        client.query(look, &[&table.oid]).await?.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, TargetError>>()?;
    let stays = |(name, computed): &(String, bool)| !computed && !masked.iter().any(|known| known.column.name == *name);
    Ok(if columns.iter().all(stays) { columns.iter().map(|(name, _)| escape_identifier(name)).collect() } else { Vec::new() })
}

async fn bring_key(client: &Client, movement: &Move<'_>) -> Result<(), TargetError> {
    let (inner, outer) = movement.masking.key.pads(movement.environment.project.uuid());
    client.batch_execute(KEY).await?;
    let sink = client.copy_in("COPY pg_temp.daypass_mask FROM STDIN").await?;
    tokio::pin!(sink);
    sink.send(bytes::Bytes::from(format!("\\\\x{}\t\\\\x{}\n", *inner, *outer))).await?;
    sink.finish().await?;
    Ok(())
}

/// An error of the server in our words: what it says itself, names included, may hold values, and code of the copy may make it say anything.
pub fn without_values(what: &str, error: &tokio_postgres::Error) -> TargetError {
    let Some(db) = error.as_db_error() else { return TargetError::Unreachable(format!("{what}: {error}")) };
    let code = db.code();
    let why = match *code {
        SqlState::UNIQUE_VIOLATION => "two values became the same one; hash of a text, a bigint or a uuid has room for all",
        SqlState::FOREIGN_KEY_VIOLATION => {
            "what refers to it was masked otherwise; hash and mail are carried over to columns of the same type that refer to it"
        }
        SqlState::CHECK_VIOLATION => {
            "a check of the table, or what its partitions are for, does not take what the mask makes; a constant that fits, for example"
        }
        SqlState::NOT_NULL_VIOLATION => "it takes no NULL",
        SqlState::INSUFFICIENT_PRIVILEGE => "the administrator may not read it, or row level security keeps it out",
        SqlState::LOCK_NOT_AVAILABLE => "somebody holds a lock on it",
        _ if code.code().starts_with("22") => "its type does not take what the mask makes",
        _ => "the server refuses",
    };
    refused(format!("{what}: {why} (SQLSTATE {})", code.code()))
}

/// As whom values are replaced: see `sweep`.
pub struct Masker<'a> {
    pub role: &'a str,
    pub password: &'a str,
    /// Where it does not own the tables itself.
    pub acting: Option<&'a String>,
}

impl Masker<'_> {
    async fn connect(&self, target: &Postgres, movement: &Move<'_>) -> Result<Client, TargetError> {
        let mut config: Config = target.config(movement.names.scratch.as_str(), crate::postgres::Use::Work);
        config.user(self.role).password(self.password);
        // the settings that the database has, but none that would let a mask do nothing, or make another text of a value
        config.options(format!(
            "{} {AS_TEXT} -c client_min_messages=error -c row_security=off -c synchronous_commit=off -c lock_timeout=30s",
            super::tools::TOOLS
        ));
        let client = target.connect_with(config).await?;
        if let Some(owner) = self.acting {
            client.batch_execute(&format!("SET ROLE {}", escape_identifier(owner))).await?;
        }
        Ok(client)
    }
}

/// How values are written, as our own connections read them.
const AS_TEXT: &str =
    "-c DateStyle=ISO -c TimeZone=UTC -c IntervalStyle=postgres -c extra_float_digits=1 -c bytea_output=hex -c standard_conforming_strings=on";

/// Takes the digests of what stands in the columns now.
pub async fn before(target: &Postgres, movement: &Move<'_>, plan: &Plan, masker: &Masker<'_>) -> Result<Option<digests::Before>, TargetError> {
    let client = connect(target, movement.names.scratch.as_str()).await?;
    let constants = plan.columns.iter().filter(|known| matches!(known.mask, Mask::Constant(_))).count();
    // how the type writes a constant, the type says, and that is the copy's to run
    let theirs = if constants > 0 { Some(masker.connect(target, movement).await?) } else { None };
    let mut tables = Vec::new();
    for (table, masked) in plan.tables() {
        let key = key_of(&client, table, &masked).await?;
        let mut columns = Vec::new();
        for known in masked {
            let constant = match (&known.mask, &theirs) {
                (Mask::Constant(text), Some(theirs)) => {
                    let sql = format!("SELECT pg_catalog.format('%s', {}::{})", escape_literal(text), known.kind);
                    let written = theirs.query_one(&sql, &[]).await.map_err(|e| without_values(&known.column.to_string(), &e))?;
                    Some(written.try_get(0)?)
                }
                _ => None,
            };
            let compared = digests::Compared { column: known.column.clone(), mask: known.mask.clone(), by_row: known.meets_others(), constant };
            columns.push((known.name(), compared));
        }
        tables.push(digests::Masked { oid: table.oid, name: table.name.clone(), key, columns });
    }
    drop(theirs);
    digests::before(target, movement, tables, &plan.forced).await
}

/// Replaces the values, as `role`, in place acting as the owner; several tables at once where the movement may. A database that is
/// in place already is masked in one transaction, and stays as it was when that fails.
pub async fn mask(target: &Postgres, movement: &Move<'_>, plan: &Plan, masker: &Masker<'_>) -> Result<Vec<Swept>, TargetError> {
    if plan.is_empty() {
        return Ok(Vec::new());
    }
    let connected = async || {
        let client = masker.connect(target, movement).await?;
        bring_key(&client, movement).await?;
        Ok::<_, TargetError>(client)
    };
    let tables = plan.tables();
    let in_place = movement.names.scratch == movement.environment.spec.database;
    let at_once = if in_place { 1 } else { usize::from(movement.tools.jobs).min(tables.len()) };
    let lead = connected().await?;
    if at_once < 2 {
        lead.batch_execute("BEGIN").await?;
    }
    let run = async |client: &Client, sql: &str, what: &str| client.batch_execute(sql).await.map_err(|e| without_values(what, &e));
    for (aside, _) in &plan.aside {
        run(&lead, aside, "what stands aside for the masks").await?;
    }
    let work = tables.iter().map(|(table, columns)| Ok((table.name.clone(), replacing(table, columns)?))).collect::<Result<Vec<_>, TargetError>>()?;
    let work = Mutex::new(work);
    if at_once < 2 {
        replace(&lead, &work).await?;
        // what waits for the end of the transaction would keep tables from being altered
        run(&lead, "SET CONSTRAINTS ALL IMMEDIATE", "the masks").await?;
    } else {
        let mut hands = Vec::new();
        for _ in 0..at_once {
            hands.push(connected().await?);
        }
        try_join_all(hands.iter().map(|hand| replace(hand, &work))).await?;
    }
    for (_, back) in plan.aside.iter().rev() {
        run(&lead, back, "what stood aside for the masks").await?;
    }
    if at_once < 2 {
        run(&lead, "COMMIT", "the masks").await?;
    }
    // the rows of before leave the files, and the tables are as small as they were
    for (table, _) in &tables {
        for leaf in digests::leaves(&lead, table.oid).await? {
            run(&lead, &format!("VACUUM (FULL) {leaf}"), &leaf).await?;
        }
    }
    let mut swept = Vec::new();
    if !plan.follow.is_empty() {
        swept.push(Swept { what: format!("columns that refer to masked ones: {}", some_of(&plan.follow)), done: "masked alike".to_owned() });
    }
    if !plan.off.is_empty() {
        let done =
            "did not run for the masks, and are on again: what they keep beside the row (a search column, a history) is masked when it is declared".to_owned();
        swept.push(Swept { what: some_of(&plan.off), done });
    }
    Ok(swept)
}

/// The statements that replace the values of one table.
fn replacing(table: &Table, columns: &[&Known]) -> Result<Vec<String>, TargetError> {
    let sets = columns.iter().filter(|known| known.mask != Mask::Shuffle).map(|known| Ok(format!("{} = {}", known.name(), known.becomes()?)));
    let sets: Vec<String> = sets.collect::<Result<_, String>>().map_err(refused)?;
    let update = (!sets.is_empty()).then(|| format!("UPDATE {} SET {}", table.name, sets.join(", ")));
    let shuffles = columns.iter().filter(|known| known.mask == Mask::Shuffle).map(|known| {
        // each value goes one row further in an order of chance, so that no row keeps its own
        format!(
            "WITH mixed AS (SELECT tableoid AS place, ctid AS at, {name} AS value, pg_catalog.row_number() OVER (ORDER BY pg_catalog.random()) AS n FROM {table} WHERE {name} IS NOT NULL), \
             whole AS (SELECT pg_catalog.count(*) AS rows FROM mixed), \
             given AS (SELECT m.place, m.at, o.value FROM mixed m CROSS JOIN whole JOIN mixed o ON o.n OPERATOR(pg_catalog.=) ((m.n OPERATOR(pg_catalog.%) whole.rows) OPERATOR(pg_catalog.+) 1)) \
             UPDATE {table} t SET {name} = given.value FROM given WHERE t.tableoid OPERATOR(pg_catalog.=) given.place AND t.ctid OPERATOR(pg_catalog.=) given.at",
            name = known.name(),
            table = table.name
        )
    });
    Ok(update.into_iter().chain(shuffles).collect())
}

/// Table by table, until none is left.
async fn replace(client: &Client, work: &Mutex<Vec<(String, Vec<String>)>>) -> Result<(), TargetError> {
    loop {
        let next = work.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some((table, statements)) = next else { return Ok(()) };
        for sql in statements {
            client.batch_execute(&sql).await.map_err(|e| without_values(&table, &e))?;
        }
    }
}
