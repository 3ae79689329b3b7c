//! What Microsoft's reference says of everything that Daypass sends to a SQL Server: one row for each statement, view, function and answer, with
//! the title of its page. The stand-in answers by these rows, and refuses what Daypass sends without one: so what Daypass relies on is written
//! down here, and no assumption of ours can hide in the stand-in and in the code alike.

mod functions;
mod statements;
mod views;

pub use functions::{FUNCTIONS, Function};
pub use statements::{Needs, STATEMENTS, Statement};
pub use views::{Sees, VIEWS, View};

use super::{
    lexer::{self, Token, tokens},
    types::Type,
};

/// What a server says it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Edition {
    /// SQL Server, by the year in its name.
    Server(u16),
    /// Azure SQL Database.
    Azure,
    /// Azure SQL Managed Instance.
    Managed,
}

/// Each of them once.
pub const EDITIONS: &[Edition] =
    &[Edition::Server(2016), Edition::Server(2017), Edition::Server(2019), Edition::Server(2022), Edition::Server(2025), Edition::Azure, Edition::Managed];

impl Default for Edition {
    fn default() -> Self {
        Edition::Server(2022)
    }
}

impl Edition {
    /// `SERVERPROPERTY('EngineEdition')`: 3 is Enterprise and Developer.
    pub fn number(self) -> u8 {
        match self {
            Edition::Server(_) => 3,
            Edition::Azure => 5,
            Edition::Managed => 8,
        }
    }

    /// `SERVERPROPERTY('ProductVersion')`.
    pub fn version(self) -> &'static str {
        match self {
            Edition::Server(2016) => "13.0.6300.2",
            Edition::Server(2017) => "14.0.3456.2",
            Edition::Server(2019) => "15.0.4316.3",
            Edition::Server(2025) => "17.0.1000.7",
            Edition::Server(_) => "16.0.4135.4",
            Edition::Azure | Edition::Managed => "12.0.2000.8",
        }
    }
}

/// Where there is such a thing, by the page's "applies to"; all that is here is older than SQL Server 2016.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct On {
    pub server: bool,
    pub azure: bool,
    pub managed: bool,
}

pub const EVERYWHERE: On = On { server: true, azure: true, managed: true };
pub const NOT_AZURE: On = On { server: true, azure: false, managed: true };
pub const ONLY_SERVER: On = On { server: true, azure: false, managed: false };
pub const ONLY_AZURE: On = On { server: false, azure: true, managed: false };

impl On {
    pub fn has(self, edition: Edition) -> bool {
        match edition {
            Edition::Server(_) => self.server,
            Edition::Azure => self.azure,
            Edition::Managed => self.managed,
        }
    }
}

/// The row of a statement.
pub fn statement(said: &[Token]) -> Option<&'static Statement> {
    STATEMENTS.iter().find(|row| matches(&tokens(row.shape), said))
}

pub fn view(name: &str) -> Option<&'static View> {
    VIEWS.iter().find(|view| view.name.eq_ignore_ascii_case(name))
}

pub fn function(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name.eq_ignore_ascii_case(name))
}

/// Stands for whatever a program puts into a statement: in one that is looked at before it is filled in.
pub const ANYTHING: &str = "__anything__";

/// The statements of a batch for which there is no row.
pub fn undocumented(batch: &str) -> Vec<String> {
    let filled = |statement: &Vec<Token>| !matches!(statement.as_slice(), [only] if only.is(ANYTHING));
    let unknown = |statement: &Vec<Token>| filled(statement) && !is_documented(statement);
    let said = |statement: Vec<Token>| statement.iter().map(Token::text).collect::<Vec<_>>().join(" ");
    lexer::statements(batch).into_iter().filter(unknown).map(said).collect()
}

/// Whether all that a statement names is documented: a query by its views and functions, everything else by its shape.
pub fn is_documented(said: &[Token]) -> bool {
    if !said.first().is_some_and(|first| first.is("SELECT") || first.is("WITH")) {
        return statement(said).is_some();
    }
    let views = views_named(said).all(|name| name == ANYTHING || view(&name).is_some());
    views && functions_named(said).all(|name| function(name).is_some())
}

/// What stands behind `sys.`
pub fn views_named(query: &[Token]) -> impl Iterator<Item = String> {
    query.windows(3).filter(|three| three[0].is("sys") && three[1].is_symbol('.')).map(|three| three[2].text())
}

/// The rows as a document: what stands in README.md beside this file, which a test compares.
pub fn readme() -> String {
    let mut out = README.to_owned();
    let on = |on: On| match (on.server, on.azure, on.managed) {
        (true, true, true) => "everywhere",
        (true, false, true) => "SQL Server, Managed Instance",
        (true, false, false) => "SQL Server",
        _ => "Azure SQL Database",
    };
    out.push_str("\n## Statements\n\n| statement | page | SQL Server takes | Azure SQL Database takes | Managed Instance takes |\n|---|---|---|---|---|\n");
    for row in STATEMENTS {
        let needs = |needs: Option<Needs>| needs.map_or_else(|| "not sent".to_owned(), |needs| needs.to_string());
        out.push_str(&format!("| `{}` | {} | {} | {} | {} |\n", row.shape, row.page, needs(row.server), needs(row.azure), needs(row.managed)));
    }
    out.push_str("\n## Views\n\n`!`: never NULL, `?`: may be NULL, nothing: the page does not say.\n\n| view | page | where | who sees which rows | columns |\n|---|---|---|---|---|\n");
    for view in VIEWS {
        let column = |(name, ty, null): &(&str, Type, Option<bool>)| {
            let sign = match null {
                Some(true) => "?",
                Some(false) => "!",
                None => "",
            };
            format!("{name} {ty}{sign}")
        };
        let columns: Vec<String> = view.columns.iter().map(column).collect();
        out.push_str(&format!("| `sys.{}` | {} | {} | {} | {} |\n", view.name, view.page, on(view.on), view.sees, columns.join(", ")));
    }
    out.push_str("\n## Functions\n\n| function | page | where | gives |\n|---|---|---|---|\n");
    for function in FUNCTIONS {
        out.push_str(&format!("| `{}` | {} | {} | {} |\n", function.name, function.page, on(function.on), function.returns));
    }
    out.push_str("\n## What RESTORE FILELISTONLY answers\n\n| column | type |\n|---|---|\n");
    for (name, ty) in FILES {
        out.push_str(&format!("| {name} | {ty} |\n"));
    }
    out
}

const README: &str = "# What Microsoft's reference says

What Daypass sends to a SQL Server, and reads of it, with the title of the page that documents it: the stand-in answers by these rows, and refuses what
Daypass sends without one. They were read in the sources of the reference as of November 2026, by hand; no server has confirmed them. All of it is as old as SQL Server
2016, or older; `sys.schemas` does not name Azure SQL Database, which other pages use it on.

This file is written by `DAYPASS_WRITE=1 cargo test -p daypass-testkit documented`, out of the rows in the code.
";

/// The columns of RESTORE FILELISTONLY (RESTORE Statements - FILELISTONLY), all of which may be NULL.
pub const FILES: &[(&str, Type)] = &[
    ("LogicalName", Type::NVarChar(128)),
    ("PhysicalName", Type::NVarChar(260)),
    ("Type", Type::Char(1)),
    ("FileGroupName", Type::NVarChar(128)),
    ("Size", Type::Numeric(20, 0)),
    ("MaxSize", Type::Numeric(20, 0)),
    ("FileID", Type::BigInt),
    ("CreateLSN", Type::Numeric(25, 0)),
    ("DropLSN", Type::Numeric(25, 0)),
    ("UniqueID", Type::UniqueIdentifier),
    ("ReadOnlyLSN", Type::Numeric(25, 0)),
    ("ReadWriteLSN", Type::Numeric(25, 0)),
    ("BackupSizeInBytes", Type::BigInt),
    ("SourceBlockSize", Type::Int),
    ("FileGroupID", Type::Int),
    ("LogGroupGUID", Type::UniqueIdentifier),
    ("DifferentialBaseLSN", Type::Numeric(25, 0)),
    ("DifferentialBaseGUID", Type::UniqueIdentifier),
    ("IsReadOnly", Type::Bit),
    ("IsPresent", Type::Bit),
    ("TDEThumbprint", Type::VarBinary(32)),
    ("SnapshotURL", Type::NVarChar(360)),
];

/// Words before a parenthesis that are not part of the language itself, and variables.
pub fn functions_named(query: &[Token]) -> impl Iterator<Item = &str> {
    let called = query.windows(2).filter(|two| two[1].is_symbol('(')).map(|two| &two[0]);
    let variables = query.iter().filter(|token| token.text().starts_with("@@"));
    called.chain(variables).filter_map(|token| match token {
        Token::Word(word) if !SYNTAX.iter().any(|known| word.eq_ignore_ascii_case(known)) => Some(word.as_str()),
        _ => None,
    })
}

const SYNTAX: &[&str] = &["IN", "CAST", "CONVERT", "COUNT", "SUM", "AND", "OR", "NOT", "WHERE", "EXISTS", "NVARCHAR", "SELECT"];

/// Whether a statement has a shape. In one, `<name>`, `<text>`, `<number>` and `<bytes>` stand for any such, and `<rest>` for all that follows.
fn matches(shape: &[Token], said: &[Token]) -> bool {
    let (mut at, mut n) = (0, 0);
    while let Some(part) = shape.get(at) {
        let wild = part.is_symbol('<').then(|| shape.get(at + 1).map(Token::text)).flatten();
        let anything = said.get(n).is_some_and(|token| token.is(ANYTHING));
        let Some(wild) = wild else {
            let same = match (part, said.get(n)) {
                _ if anything => true,
                (Token::Word(word), Some(token)) => token.is(word),
                (part, Some(token)) => part == token,
                (_, None) => false,
            };
            if !same {
                return false;
            }
            (at, n) = (at + 1, n + 1);
            continue;
        };
        // the sign, the word, the sign
        at += 3;
        let fits = match (wild.as_str(), said.get(n)) {
            ("rest", Some(_)) => return true,
            _ if anything => true,
            ("name", Some(Token::Name(_) | Token::Word(_))) | ("text", Some(Token::Text(_))) => true,
            ("number", Some(Token::Word(word))) => word.chars().all(|c| c.is_ascii_digit()),
            ("bytes", Some(Token::Word(word))) => word.starts_with("0x"),
            _ => false,
        };
        if !fits {
            return false;
        }
        n += 1;
    }
    n == said.len()
}

/// The documented types of what a SELECT gives, where they are known: of columns of the views, of functions, casts and plain values.
pub fn types(query: &[Token]) -> Vec<Option<(Type, bool)>> {
    let mut from = 1;
    if query.get(1).is_some_and(|t| t.is("TOP")) {
        from = if query.get(2).is_some_and(|t| t.is_symbol('(')) { 5 } else { 3 };
    }
    let (mut items, mut depth, mut end) = (Vec::new(), 0_usize, query.len());
    let mut begin = from;
    for (n, token) in query.iter().enumerate().skip(from) {
        match token {
            Token::Symbol('(') => depth += 1,
            Token::Symbol(')') if depth == 0 => {
                end = n;
                break;
            }
            Token::Symbol(')') => depth -= 1,
            Token::Symbol(',') if depth == 0 => {
                items.push(&query[begin..n]);
                begin = n + 1;
            }
            Token::Word(word) if depth == 0 && word.eq_ignore_ascii_case("FROM") => {
                end = n;
                break;
            }
            _ => {}
        }
    }
    if begin < end {
        items.push(&query[begin..end]);
    }
    let views = views_in(query);
    items.into_iter().map(|item| ty(item, &views)).collect()
}

/// The views that a query names, with what each is called there.
pub fn views_in(query: &[Token]) -> Vec<(String, &'static View)> {
    let mut found = Vec::new();
    for (n, token) in query.iter().enumerate() {
        if !(token.is("FROM") || token.is("JOIN")) || !query.get(n + 1).is_some_and(|t| t.is("sys")) || !query.get(n + 2).is_some_and(|t| t.is_symbol('.')) {
            continue;
        }
        let Some(view) = query.get(n + 3).and_then(|name| view(&name.text())) else { continue };
        let alias = query.get(n + 4).filter(|t| matches!(t, Token::Word(word) if !KEYWORDS.iter().any(|key| word.eq_ignore_ascii_case(key))));
        found.push((alias.map_or_else(|| view.name.to_owned(), Token::text), view));
    }
    found
}

const KEYWORDS: &[&str] = &["WHERE", "JOIN", "LEFT", "INNER", "ON", "ORDER", "GROUP", "UNION", "AS"];

fn ty(item: &[Token], views: &[(String, &'static View)]) -> Option<(Type, bool)> {
    let column = |alias: Option<&str>, name: &str| {
        let of = views.iter().filter(|(known, _)| alias.is_none_or(|alias| alias.eq_ignore_ascii_case(known)));
        of.flat_map(|(_, view)| view.columns).find(|(known, ..)| known.eq_ignore_ascii_case(name)).map(|(_, ty, null)| (*ty, null.unwrap_or(true)))
    };
    match item {
        [Token::Word(word)] if word.starts_with("@@") => function(word).map(|known| (known.returns, false)),
        [Token::Word(word)] if word.eq_ignore_ascii_case("NULL") => Some((Type::Int, true)),
        [Token::Word(word)] if word.chars().all(|c| c.is_ascii_digit()) => Some((Type::Int, false)),
        [name] => column(None, &name.text()),
        [alias, dot, name] if dot.is_symbol('.') => column(Some(&alias.text()), &name.text()),
        [open, inner @ .., close] if open.is_symbol('(') && close.is_symbol(')') => types(inner).first().copied().flatten(),
        [name, open, inner @ .., close] if open.is_symbol('(') && close.is_symbol(')') => match name.text().to_uppercase().as_str() {
            "CAST" => {
                let at = inner.iter().rposition(|t| t.is("AS"))?;
                named(&inner[at + 1..]).map(|ty| (ty, true))
            }
            "CONVERT" => {
                let at = inner.iter().position(|t| t.is_symbol(','))?;
                // nvarchar(40) has no comma, numeric(20, 0) has
                named(&inner[..at]).map(|ty| (ty, true))
            }
            "COUNT" => Some((Type::Int, false)),
            "SUM" => ty(inner, views).map(|(ty, _)| (ty, true)),
            other => function(other).map(|known| (known.returns, true)),
        },
        _ => None,
    }
}

fn named(words: &[Token]) -> Option<Type> {
    let sizes: Vec<String> = words.iter().skip(1).filter(|t| matches!(t, Token::Word(_))).map(Token::text).collect();
    Type::of(&words.first()?.text(), &sizes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlserver::types::{MAX, SYSNAME};

    fn of(sql: &str) -> Vec<Option<(Type, bool)>> {
        types(&tokens(sql))
    }

    #[test]
    fn a_query_has_the_types_of_its_columns_functions_and_casts() {
        assert_eq!(of("SELECT name, d.state FROM sys.databases d WHERE name = N'x'"), [Some((SYSNAME, true)), Some((Type::TinyInt, true))]);
        assert_eq!(
            of("SELECT s.session_id, c.session_id FROM sys.dm_exec_sessions s JOIN sys.dm_exec_connections c ON c.session_id = s.session_id"),
            [Some((Type::SmallInt, false)), Some((Type::Int, true))]
        );
        assert_eq!(
            of("SELECT CAST(SERVERPROPERTY('Edition') AS nvarchar(128)), @@SPID, NULL, 7"),
            [Some((Type::NVarChar(128), true)), Some((Type::SmallInt, false)), Some((Type::Int, true)), Some((Type::Int, false))]
        );
        assert_eq!(
            of("SELECT TOP (1) CONVERT(nvarchar(40), create_date, 126), OBJECT_DEFINITION(3) FROM sys.databases"),
            [Some((Type::NVarChar(40), true)), Some((Type::NVarChar(MAX), true))]
        );
        assert_eq!(
            of("SELECT (SELECT CAST(value AS nvarchar(200)) FROM sys.extended_properties WHERE class = 0), SUM(CAST(size AS bigint)) FROM sys.master_files"),
            [Some((Type::NVarChar(200), true)), Some((Type::BigInt, true))]
        );
        assert_eq!(of("SELECT customer FROM sales.orders"), [None]);
    }

    #[test]
    fn a_statement_is_found_by_its_shape_and_by_no_other() {
        let row = |sql: &str| statement(&tokens(sql)).map(|row| row.shape);
        assert_eq!(row("ALTER LOGIN [a b] DISABLE"), Some("ALTER LOGIN <name> DISABLE"));
        assert_eq!(row("ALTER LOGIN [a] DISABLED"), None);
        assert_eq!(row("ALTER LOGIN [a] DISABLE NOW"), None);
        assert_eq!(row("KILL 55"), Some("KILL <number>"));
        assert_eq!(row("KILL 55 WITH STATUSONLY"), None);
        assert!(row("RESTORE DATABASE [x] FROM DISK = N'y' WITH MOVE N'a' TO N'b', RECOVERY").is_some());
    }

    #[test]
    fn the_readme_is_what_stands_in_the_code() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sqlserver/documented/README.md");
        if std::env::var_os("DAYPASS_WRITE").is_some() {
            std::fs::write(&file, readme()).unwrap();
        }
        let differ = |(n, (is, has)): (usize, (&str, &str))| (is != has).then(|| format!("line {}: {is}", n + 1));
        let (is, has) = (readme(), std::fs::read_to_string(&file).unwrap());
        let differences: Vec<String> = is.lines().zip(has.lines()).enumerate().filter_map(differ).collect();
        assert!(is == has, "README.md differs: {differences:#?}");
    }

    #[test]
    fn no_row_is_hidden_by_another() {
        for row in STATEMENTS {
            let mut said = row.shape.to_owned();
            for (wild, example) in [("<name>", "[x]"), ("<text>", "N'x'"), ("<number>", "7"), ("<bytes>", "0x00"), ("<rest>", "SELECT TO [x]")] {
                said = said.replace(wild, example);
            }
            assert_eq!(statement(&tokens(&said)).map(|found| found.shape), Some(row.shape), "{said}");
        }
    }
}
