//! Columns that look personal and of which nobody said what becomes of them. The administrator looks, by COPY: see [`digests`].
//! No value leaves this room.

use super::{Postgres, connect, digests, masks, refused};
use crate::{Check, TargetError, Verdict, movement::Move, some_of};
use daypass_core::{masks::Column as Named, movement::Swept, personal};
use futures_util::StreamExt;
use postgres_protocol::escape::escape_identifier;
use std::collections::BTreeMap;
use tokio_postgres::Client;

/// Rows of a table that are looked at, of each partition, and how much of each value (characters).
const SAMPLE: usize = 200;
const LONGEST: usize = 1_000;

/// Columns that look personal and of which nobody said anything, with what they look like.
const LOOK: &str = "
SELECT n.nspname::text, c.relname::text, a.attname::text, pg_catalog.format_type(a.atttypid, NULL), t.typcategory::text IN ('S', 'N') OR b.oid IN ('pg_catalog.json'::pg_catalog.regtype, 'pg_catalog.jsonb'::pg_catalog.regtype)
 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
 JOIN pg_catalog.pg_type t ON t.oid = a.atttypid JOIN pg_catalog.pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.deptype = 'e' AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid)
 ORDER BY n.nspname, c.relname, a.attnum";

/// A column of which nobody said anything.
struct Column {
    named: Named,
    kind: String,
    /// Whether what it holds can be told from its values.
    tells: bool,
}

impl Column {
    fn by_name(&self) -> Option<&'static str> {
        personal::by_name(&self.named.table, &self.named.name, &self.kind)
    }
}

/// A few values of each of these columns, as COPY gives them: see [`digests`]. Of a table that is large the rest is not waited for.
async fn sample(target: &Postgres, database: &str, client: &Client, table: &str, columns: &[&Column]) -> Result<Vec<Vec<String>>, TargetError> {
    let names: Vec<String> = columns.iter().map(|column| escape_identifier(&column.named.name)).collect();
    let mut samples = vec![Vec::new(); columns.len()];
    let oid: u32 = client.query_one("SELECT $1::text::regclass::oid", &[&table]).await?.try_get(0)?;
    for leaf in digests::leaves(client, oid).await? {
        let small = client.query_one("SELECT pg_table_size($1::text::regclass) < 1000000", &[&leaf]).await?.try_get(0)?;
        // a cancel that comes too late would be another statement's
        let own = if small { None } else { Some(connect(target, database).await?) };
        let reading = own.as_ref().unwrap_or(client);
        reading.batch_execute("SET row_security = off").await?;
        let out = digests::copied(reading, &leaf, &names).await?;
        tokio::pin!(out);
        let (mut rows, mut seen) = (digests::Rows::default(), 0);
        while let Some(piece) = out.next().await {
            rows.push(&piece.map_err(|e| masks::without_values(&leaf, &e))?, |fields| {
                seen += 1;
                if seen <= SAMPLE {
                    for (values, field) in samples.iter_mut().zip(fields) {
                        values.extend(field.map(|field| digests::unescaped(field).chars().take(LONGEST).collect::<String>()));
                    }
                }
            });
            if seen >= SAMPLE && own.is_some() {
                target.cancel(reading).await?;
                // to its end: what is let go before is still read, and its connection would stand in the way of a copy
                while out.next().await.is_some_and(|piece| piece.is_ok()) {}
                break;
            }
        }
    }
    Ok(samples)
}

async fn look(target: &Postgres, database: &str, movement: &Move<'_>) -> Result<Vec<String>, TargetError> {
    let client = connect(target, database).await?;
    client.batch_execute("SET row_security = off").await?;
    let declared = masks::Whole::of(&client, movement).await?.masks;
    let mut tables: BTreeMap<String, Vec<Column>> = BTreeMap::new();
    for row in client.query(LOOK, &[]).await? {
        let named = Named { schema: row.try_get(0)?, table: row.try_get(1)?, name: row.try_get(2)? };
        if !declared.contains_key(&named) {
            let table = masks::qualified(&named.schema, &named.table);
            tables.entry(table).or_default().push(Column { named, kind: row.try_get(3)?, tells: row.try_get(4)? });
        }
    }
    let mut found = Vec::new();
    for (table, columns) in tables {
        found.extend(columns.iter().filter_map(|column| Some(format!("{} ({})", column.named, column.by_name()?))));
        let telling: Vec<&Column> = columns.iter().filter(|column| column.tells && column.by_name().is_none()).collect();
        if telling.is_empty() {
            continue;
        }
        match sample(target, database, &client, &table, &telling).await {
            Ok(samples) => {
                for (values, column) in samples.iter().zip(telling) {
                    found.extend(personal::by_values(values.iter().map(String::as_str)).map(|seen| format!("{} ({seen})", column.named)));
                }
            }
            Err(TargetError::Refused(why)) => {
                tracing::info!(why, "the values of a table could not be looked at");
                found.extend(telling.iter().map(|column| format!("{} (not looked at: the server refuses)", column.named)));
            }
            Err(other) => return Err(other),
        }
    }
    Ok(found)
}

/// What helps where columns look personal.
fn declare(movement: &Move<'_>) -> String {
    format!("Say of each what becomes of it, or keep: daypass env masks {} --file masks.toml (docs/movement.md)", movement.environment.spec.name)
}

/// The row of the dry run: what of a source that is copied looks personal.
pub async fn check(source: &Postgres, database: &str, movement: &Move<'_>) -> Result<Check, TargetError> {
    let found = look(source, database, movement).await?;
    if found.is_empty() {
        return Ok(Check::fine("each column of the source that looks personal is declared"));
    }
    let verdict = if movement.masking.required { Verdict::Missing } else { Verdict::Note };
    Ok(Check { what: format!("{} columns look personal and are not declared: {}", found.len(), some_of(&found)), verdict, remedy: declare(movement) })
}

/// The last look at the new database.
pub async fn last_look(target: &Postgres, movement: &Move<'_>, required: bool) -> Result<Option<Swept>, TargetError> {
    let found = look(target, movement.names.scratch.as_str(), movement).await?;
    if found.is_empty() {
        return Ok(None);
    }
    let what = format!("{} columns that look personal and are not declared: {}", found.len(), some_of(&found));
    if required {
        return Err(refused(format!("masking is required here, and there are {what}. {}. Or have checks look at them", declare(movement))));
    }
    Ok(Some(Swept { what, done: format!("NOT masked. {}", declare(movement)) }))
}
