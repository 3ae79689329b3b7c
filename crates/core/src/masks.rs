//! What a movement changes in a database before anybody is let in: which columns hold what is personal, and what stands in its place afterwards.

use crate::{names::shown, refusal::Refusal};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// What becomes of the values of a column. NULL stays NULL.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Mask {
    /// They are nobody's secret: the column was looked at, and stays as it is.
    Keep,
    /// NULL.
    Null,
    /// A value that follows from the one before and a key of this installation: the same value becomes the same in every table and database.
    Hash,
    /// An address of the domain `masked.invalid`, which follows from the one before as with `hash`.
    Mail,
    /// The values of the column in other rows.
    Shuffle,
    /// This text, as the column's type reads it.
    Constant(String),
    /// The first and the last characters stay, the others become `*`.
    Partial(Partial),
    /// A date so many days earlier or later, at most and at least one; by how many follows from the value as with `hash`.
    ShiftDays(u16),
}

/// How many characters stay. A text that has no more than these is masked whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Partial {
    pub first: u8,
    pub last: u8,
}

impl Mask {
    /// Whether equal values become equal ones, and others others, so that what refers to a column still does.
    pub fn carries_over(&self) -> bool {
        matches!(self, Mask::Keep | Mask::Hash | Mask::Mail)
    }

    fn check(&self) -> Result<(), String> {
        match self {
            Mask::Constant(text) if text.len() > 1_000 || text.contains('\0') => Err("a constant has at most 1,000 bytes, and no NUL".to_owned()),
            Mask::Partial(Partial { first, last }) if *first > 20 || *last > 20 => Err("first and last are at most 20 characters".to_owned()),
            Mask::ShiftDays(days) if !(1..=3_650).contains(days) => Err("shift_days is 1 to 3,650".to_owned()),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mask::Keep => f.write_str("keep"),
            Mask::Null => f.write_str("null"),
            Mask::Hash => f.write_str("hash"),
            Mask::Mail => f.write_str("mail"),
            Mask::Shuffle => f.write_str("shuffle"),
            Mask::Constant(text) => write!(f, "constant '{}'", shown(text)),
            Mask::Partial(Partial { first, last }) => write!(f, "partial (first {first}, last {last})"),
            Mask::ShiftDays(days) => write!(f, "shift_days {days}"),
        }
    }
}

/// A column, as the target names it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Column {
    pub schema: String,
    pub table: String,
    pub name: String,
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", shown(&self.schema), shown(&self.table), shown(&self.name))
    }
}

/// By schema, table and column.
type Declared = BTreeMap<String, BTreeMap<String, BTreeMap<String, Mask>>>;

/// The masks of an environment: at most one a column, and 2,000 in all.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "Declared", into = "Declared")]
pub struct Masks(BTreeMap<Column, Mask>);

const MOST: usize = 2_000;

impl Masks {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn of(&self, column: &Column) -> Option<&Mask> {
        self.0.get(column)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Column, &Mask)> {
        self.0.iter()
    }
}

impl TryFrom<Declared> for Masks {
    type Error = String;

    fn try_from(declared: Declared) -> Result<Masks, String> {
        let mut masks = BTreeMap::new();
        for (schema, tables) in declared {
            for (table, columns) in tables {
                for (name, mask) in columns {
                    let column = Column { schema: schema.clone(), table: table.clone(), name };
                    mask.check().map_err(|why| format!("{column}: {why}"))?;
                    let fits = |text: &String| matches!(text.len(), 1..=128) && !text.contains(char::is_control);
                    if ![&column.schema, &column.table, &column.name].into_iter().all(fits) {
                        return Err(format!("'{column}' is no schema, table and column: each has 1 to 128 bytes, without control characters"));
                    }
                    masks.insert(column, mask);
                }
            }
        }
        if masks.len() > MOST {
            return Err(format!("there are {} masks; {MOST} is the most", masks.len()));
        }
        Ok(Masks(masks))
    }
}

impl From<Masks> for Declared {
    fn from(masks: Masks) -> Declared {
        let mut declared = Declared::new();
        for (column, mask) in masks.0 {
            declared.entry(column.schema).or_default().entry(column.table).or_default().insert(column.name, mask);
        }
        declared
    }
}

impl Masks {
    /// Masks for an engine that has none.
    pub fn check_for(&self, engine: crate::environment::Engine) -> Result<(), Refusal> {
        if engine == crate::environment::Engine::Postgres || self.is_empty() {
            return Ok(());
        }
        Err(Refusal::invalid(format!(
            "Daypass masks databases of PostgreSQL only, not of {}: use scripts, and checks that look at what they did.",
            engine.title()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_written_as_people_write_them() {
        let text = r#"{"public": {"people": {"mail": "mail", "born": {"shift_days": 30}, "card": {"partial": {"last": 4}}, "town": {"constant": "Town"}, "id": "keep"}}}"#;
        let masks: Masks = serde_json::from_str(text).unwrap();
        let column = |name: &str| Column { schema: "public".to_owned(), table: "people".to_owned(), name: name.to_owned() };
        assert_eq!(masks.of(&column("card")), Some(&Mask::Partial(Partial { first: 0, last: 4 })));
        assert_eq!(masks.of(&column("born")).unwrap().to_string(), "shift_days 30");
        assert_eq!(serde_json::from_str::<Masks>(&serde_json::to_string(&masks).unwrap()).unwrap(), masks);
        let words: Vec<String> = masks.iter().map(|(column, mask)| format!("{column} {mask}")).collect();
        assert_eq!(words[1], "public.people.card partial (first 0, last 4)");
    }

    #[test]
    fn what_is_no_mask_is_refused_by_name() {
        let wrong = |text: &str| serde_json::from_str::<Masks>(text).unwrap_err().to_string();
        assert!(wrong(r#"{"public": {"people": {"born": {"shift_days": 0}}}}"#).contains("public.people.born: shift_days is 1 to 3,650"));
        assert!(wrong(r#"{"public": {"people": {"born": "sometimes"}}}"#).contains("sometimes"));
        assert!(wrong(r#"{"public": {"people": {"": "null"}}}"#).contains("is no schema, table and column"));
        assert!(wrong(r#"{"public": {"people": {"card": {"partial": {"lost": 4}}}}}"#).contains("lost"));
        let many: BTreeMap<String, Mask> = (0..=MOST).map(|n| (format!("c{n}"), Mask::Null)).collect();
        assert!(Masks::try_from(BTreeMap::from([("s".to_owned(), BTreeMap::from([("t".to_owned(), many)]))])).unwrap_err().contains("2000 is the most"));
        let masks: Masks = serde_json::from_str(r#"{"dbo": {"people": {"mail": "null"}}}"#).unwrap();
        assert!(masks.check_for(crate::environment::Engine::SqlServer).is_err());
    }
}
