//! Rights are carried over by what the catalog says of them: who gave what to whom on which object, with which option. Everything is read from
//! both databases, what is wanted is worked out of the two, and afterwards it is read again and compared.

use super::refused;
use crate::TargetError;
use daypass_core::movement::Swept;
use postgres_protocol::escape::escape_identifier;
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::{Client, error::SqlState};

/// What a right is on: as GRANT names it (PostgreSQL manual, GRANT), so that it means the same in each database.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Object {
    /// `TABLE`, `ROUTINE` ...
    kind: String,
    /// Qualified and quoted.
    name: String,
    column: Option<String>,
}

impl Object {
    /// A large object has a number for a name, which in another database is another's.
    fn is_the_same_in(&self, rights: &Rights) -> bool {
        self.kind != "LARGE OBJECT" && rights.objects.contains(self)
    }

    fn words(&self) -> String {
        let column = self.column.as_ref().map(|column| format!(", column {column}")).unwrap_or_default();
        format!("{} {}{column}", self.kind.to_lowercase(), self.name)
    }
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Right {
    pub object: Object,
    /// None: everybody.
    grantee: Option<String>,
    privilege: String,
    grantable: bool,
}

impl Right {
    /// What everybody may do with each new object of this kind (PostgreSQL manual, "Privileges", default PUBLIC privileges), so that not to
    /// have it is a refusal.
    fn is_everybodys_from_the_start(&self) -> bool {
        let from_the_start = match (self.object.kind.as_str(), self.privilege.as_str()) {
            ("ROUTINE", "EXECUTE") | ("TYPE" | "LANGUAGE", "USAGE") => true,
            // each database is made with it
            ("SCHEMA", _) => self.object.name == "public",
            _ => false,
        };
        self.grantee.is_none() && from_the_start
    }

    fn whom(&self) -> String {
        self.grantee.as_deref().map_or_else(|| "PUBLIC".to_owned(), escape_identifier)
    }

    fn on(&self) -> String {
        let column = self.object.column.as_deref().map(|column| format!(" ({})", escape_identifier(column))).unwrap_or_default();
        format!("{}{column} ON {} {}", self.privilege, self.object.kind, self.object.name)
    }

    fn give(&self) -> String {
        let option = if self.grantable { " WITH GRANT OPTION" } else { "" };
        format!("GRANT {} TO {}{option}", self.on(), self.whom())
    }

    pub fn take(&self) -> String {
        format!("REVOKE {} FROM {}", self.on(), self.whom())
    }

    pub fn words(&self) -> String {
        let option = if self.grantable { ", with the option to pass it on" } else { "" };
        format!("{} on {} of {}{option}", self.privilege, self.object.words(), self.grantee.as_deref().unwrap_or("everybody"))
    }
}

/// All rights in a database that somebody else has than the owner of the object.
#[derive(Default)]
pub struct Rights {
    objects: BTreeSet<Object>,
    /// With each, who gave it; none: the owner.
    given: BTreeMap<Right, Option<String>>,
    /// What belongs to an extension.
    of_extensions: BTreeSet<Object>,
    /// What objects to come are made with: statements.
    defaults: BTreeSet<String>,
}

/// Each object of a user's that can have an access list (system catalogs: relacl, attacl, proacl, typacl, nspacl, lanacl, lomacl, fdwacl,
/// srvacl), with what stands in it. The rights on parameters belong to the server, those on the database to the database itself.
const LOOK: &str = "
WITH n AS (SELECT oid, nspname, nspowner, nspacl FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'),
o (class, id, kind, name, col, owner, acl) AS (
 SELECT 'pg_class'::regclass::oid, c.oid, CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, format('%I.%I', n.nspname, c.relname), NULL::text, c.relowner, c.relacl
   FROM pg_class c JOIN n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
 UNION ALL SELECT 'pg_class'::regclass, c.oid, 'TABLE', format('%I.%I', n.nspname, c.relname), a.attname::text, c.relowner, a.attacl
   FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN n ON n.oid = c.relnamespace WHERE NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0
 UNION ALL SELECT 'pg_proc'::regclass, p.oid, 'ROUTINE', format('%I.%I(%s)', n.nspname, p.proname, oidvectortypes(p.proargtypes)), NULL, p.proowner, coalesce(p.proacl, acldefault('f', p.proowner))
   FROM pg_proc p JOIN n ON n.oid = p.pronamespace
 UNION ALL SELECT 'pg_type'::regclass, t.oid, 'TYPE', format('%I.%I', n.nspname, t.typname), NULL, t.typowner, coalesce(t.typacl, acldefault('T', t.typowner))
   FROM pg_type t JOIN n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid WHERE t.typcategory <> 'A' AND t.typtype <> 'm' AND (t.typrelid = 0 OR c.relkind = 'c')
 UNION ALL SELECT 'pg_namespace'::regclass, n.oid, 'SCHEMA', format('%I', n.nspname), NULL, n.nspowner, n.nspacl FROM n
 UNION ALL SELECT 'pg_language'::regclass, l.oid, 'LANGUAGE', format('%I', l.lanname), NULL, l.lanowner, coalesce(l.lanacl, acldefault('l', l.lanowner)) FROM pg_language l WHERE l.lanispl
 UNION ALL SELECT 'pg_largeobject'::regclass, m.oid, 'LARGE OBJECT', m.oid::text, NULL, m.lomowner, m.lomacl FROM pg_largeobject_metadata m
 UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, f.oid, 'FOREIGN DATA WRAPPER', format('%I', f.fdwname), NULL, f.fdwowner, f.fdwacl FROM pg_foreign_data_wrapper f
 UNION ALL SELECT 'pg_foreign_server'::regclass, s.oid, 'FOREIGN SERVER', format('%I', s.srvname), NULL, s.srvowner, s.srvacl FROM pg_foreign_server s)
SELECT o.kind, o.name, o.col, x.privilege_type, x.is_grantable, CASE WHEN x.grantee <> 0 THEN pg_get_userbyid(x.grantee)::text END,
  CASE WHEN x.grantor <> o.owner THEN pg_get_userbyid(x.grantor)::text END,
  EXISTS (SELECT FROM pg_depend d WHERE d.deptype = 'e' AND d.classid = o.class AND d.objid = o.id)
 FROM o LEFT JOIN LATERAL aclexplode(o.acl) x ON x.grantee <> o.owner";

/// What objects to come are made with, as statements; one for each right that is given, and one for each that everybody would have and has
/// not (system catalog pg_default_acl).
const DEFAULTS: &str = "
WITH a AS (SELECT d.oid, format('ALTER DEFAULT PRIVILEGES FOR ROLE %I%s', pg_get_userbyid(d.defaclrole),
    coalesce((SELECT format(' IN SCHEMA %I', nspname) FROM pg_namespace WHERE oid = d.defaclnamespace), '')) AS head,
  CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'ROUTINES' WHEN 'T' THEN 'TYPES' WHEN 'L' THEN 'LARGE OBJECTS' ELSE 'SCHEMAS' END AS what,
  d.defaclobjtype, d.defaclnamespace, d.defaclacl, d.defaclrole FROM pg_default_acl d)
SELECT format('%s GRANT %s ON %s TO %s%s', a.head, x.privilege_type, a.what, CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END,
    CASE WHEN x.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
  FROM a, aclexplode(a.defaclacl) x WHERE x.grantee <> a.defaclrole
UNION ALL SELECT format('%s REVOKE ALL ON %s FROM PUBLIC', a.head, a.what) FROM a WHERE a.defaclnamespace = 0 AND a.defaclobjtype IN ('f', 'T')
  AND NOT EXISTS (SELECT FROM aclexplode(a.defaclacl) x WHERE x.grantee = 0)";

impl Rights {
    /// Over a connection whose search_path is pg_catalog alone, so that every name comes qualified.
    pub async fn of(client: &Client) -> Result<Rights, TargetError> {
        let mut rights = Rights::default();
        for row in client.query(LOOK, &[]).await? {
            let object = Object { kind: row.try_get(0)?, name: row.try_get(1)?, column: row.try_get(2)? };
            if row.try_get(7)? {
                rights.of_extensions.insert(object.clone());
            }
            rights.objects.insert(object.clone());
            let Some(privilege) = row.try_get::<_, Option<String>>(3)? else { continue };
            let right = Right { object, privilege, grantable: row.try_get(4)?, grantee: row.try_get(5)? };
            // when several gave the same, the owner counts
            let by: Option<String> = row.try_get(6)?;
            rights.given.entry(right).and_modify(|known| *known = known.take().and(by.clone())).or_insert(by);
        }
        let defaults = client.query(DEFAULTS, &[]).await?;
        rights.defaults = defaults.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        Ok(rights)
    }

    /// What everybody may do here and could not with an object that was just made. What an extension gives everybody is its own affair.
    pub fn of_everybody(&self) -> impl Iterator<Item = &Right> {
        let theirs = |right: &&Right| right.grantee.is_none() && !right.is_everybodys_from_the_start() && !self.of_extensions.contains(&right.object);
        self.given.keys().filter(theirs)
    }

    /// What somebody else than `owner` has by name. What an extension gives is its own affair.
    pub fn of_somebody(&self, owner: &str) -> impl Iterator<Item = &Right> {
        self.given.keys().filter(move |right| right.grantee.as_ref().is_some_and(|grantee| grantee != owner) && !self.of_extensions.contains(&right.object))
    }

    pub fn has(&self, right: &Right) -> bool {
        self.given.contains_key(right) || !right.grantable && self.given.contains_key(&Right { grantable: true, ..right.clone() })
    }

    /// What the database of before refused to everybody and this one does not.
    fn refused_by<'a>(&'a self, before: &'a Rights) -> impl Iterator<Item = &'a Right> {
        let refused = |right: &&Right| right.grantee.is_none() && before.objects.contains(&right.object) && !before.has(right);
        self.given.keys().filter(refused)
    }

    /// What the database of before gave on objects that are here as well, and this one does not give: whoever passes on comes after whoever
    /// gave it to them. What everybody has from the start, and does not have here, the source refuses: that stays so.
    fn lacks(&self, before: &Rights) -> Vec<(Right, Option<String>)> {
        let wanted = |right: &&Right| right.object.is_the_same_in(self) && !self.has(right) && !right.is_everybodys_from_the_start();
        let mut left: Vec<(Right, Option<String>)> = before.given.iter().filter(|(right, _)| wanted(right)).map(|(r, by)| (r.clone(), by.clone())).collect();
        let mut ordered: Vec<(Right, Option<String>)> = Vec::new();
        let mut passing: BTreeSet<(Object, String, String)> = self.given.keys().filter_map(option).collect();
        while !left.is_empty() {
            let may = |(right, by): &(Right, Option<String>)| {
                by.as_ref().is_none_or(|by| passing.contains(&(right.object.clone(), right.privilege.clone(), by.clone())))
            };
            let (now, later): (Vec<_>, Vec<_>) = left.into_iter().partition(may);
            if now.is_empty() {
                // nobody is left who could give it: the owner does
                ordered.extend(later.into_iter().map(|(right, _)| (right, None)));
                break;
            }
            passing.extend(now.iter().filter_map(|(right, _)| option(right)));
            ordered.extend(now);
            left = later;
        }
        ordered
    }
}

/// Whoever may pass a right on.
fn option(right: &Right) -> Option<(Object, String, String)> {
    let grantee = right.grantee.clone().filter(|_| right.grantable)?;
    Some((right.object.clone(), right.privilege.clone(), grantee))
}

/// How many rights a report names one by one.
const NAMED: usize = 20;

/// Gives the new database the rights of the one before, in one transaction, and reads them back. What the source refuses stays refused, what
/// the database of before refused is refused again. Nobody is in either of the two.
pub async fn carry(old: &Client, new: &Client) -> Result<Vec<Swept>, TargetError> {
    let (before, source) = (Rights::of(old).await?, Rights::of(new).await?);
    new.batch_execute("BEGIN").await?;
    let carried = apply(new, &before, &source).await;
    new.batch_execute(if carried.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
    let instead = carried?;
    report(&before, &source, &Rights::of(new).await?, instead)
}

/// The same without keeping it: what stands in the way is known before anybody's access ends.
pub async fn rehearse(old: &Client, new: &Client) -> Result<(), TargetError> {
    let (before, source) = (Rights::of(old).await?, Rights::of(new).await?);
    new.batch_execute("BEGIN").await?;
    let done = async {
        let instead = apply(new, &before, &source).await?;
        report(&before, &source, &Rights::of(new).await?, instead).map(drop)
    };
    let done = done.await;
    new.batch_execute("ROLLBACK").await?;
    done
}

/// How many rights the owner gave in the place of whoever gave them before.
async fn apply(new: &Client, before: &Rights, source: &Rights) -> Result<usize, TargetError> {
    let take: Vec<String> = source.refused_by(before).map(Right::take).collect();
    all(new, &take).await?;
    let (mut instead, mut rows) = (0, source.lacks(before).into_iter().peekable());
    while let Some((first, by)) = rows.next() {
        let mut give = vec![first.give()];
        while let Some((right, _)) = rows.next_if(|(_, next)| *next == by) {
            give.push(right.give());
        }
        let given = match &by {
            None => false,
            Some(grantor) => as_whoever(new, grantor, &give).await?,
        };
        if !given {
            instead += if by.is_some() { give.len() } else { 0 };
            all(new, &give).await?;
        }
    }
    let defaults: Vec<String> = before.defaults.difference(&source.defaults).cloned().collect();
    all(new, &defaults).await?;
    Ok(instead)
}

/// Runs statements in a transaction. What cannot be done is left out: it is missing when all is read again.
async fn all(client: &Client, statements: &[String]) -> Result<(), TargetError> {
    if statements.is_empty() || attempt(client, &statements.join("; ")).await? {
        return Ok(());
    }
    for statement in statements {
        if !attempt(client, statement).await? {
            tracing::info!(statement, "a right could not be carried over");
        }
    }
    Ok(())
}

/// As whoever gave it before, which takes that the administrator belongs to them, or may make itself belong to them for the moment.
async fn as_whoever(client: &Client, grantor: &str, statements: &[String]) -> Result<bool, TargetError> {
    let role = escape_identifier(grantor);
    let member = client.query_one("SELECT pg_has_role(current_user, rolname, 'MEMBER') FROM pg_roles WHERE rolname = $1", &[&grantor]).await?.try_get(0)?;
    let (join, leave) =
        if member { (String::new(), String::new()) } else { (format!("GRANT {role} TO CURRENT_USER; "), format!("; REVOKE {role} FROM CURRENT_USER")) };
    attempt(client, &format!("{join}SET LOCAL ROLE {role}; {}; SET LOCAL ROLE NONE{leave}", statements.join("; "))).await
}

/// Whether it was done; if not, the transaction is where it was.
async fn attempt(client: &Client, sql: &str) -> Result<bool, TargetError> {
    client.batch_execute("SAVEPOINT carried").await?;
    match client.batch_execute(sql).await {
        Ok(()) => client.batch_execute("RELEASE SAVEPOINT carried").await.map(|()| true).map_err(TargetError::from),
        Err(error) if error.code().is_some_and(|code| *code != SqlState::ADMIN_SHUTDOWN) => {
            tracing::debug!(%error, "a right could not be carried over like this");
            client.batch_execute("ROLLBACK TO SAVEPOINT carried").await.map(|()| false).map_err(TargetError::from)
        }
        Err(error) => Err(error.into()),
    }
}

/// The comparison of what was and what is now. Nobody may have gained anything.
fn report(before: &Rights, source: &Rights, now: &Rights, instead: usize) -> Result<Vec<Swept>, TargetError> {
    let gained: Vec<String> = now.refused_by(before).map(Right::words).collect();
    if !gained.is_empty() {
        return Err(refused(format!(
            "everybody would have what the database of before refuses, and the administrator cannot take it away: {}",
            named(&gained)
        )));
    }
    let names = |text: &BTreeSet<String>, from: &BTreeSet<String>| text.difference(from).cloned().collect::<Vec<_>>();
    let mut lost: Vec<String> = now.lacks(before).iter().map(|(right, _)| right.words()).collect();
    lost.extend(names(&before.defaults, &now.defaults));
    let gone = before.given.keys().filter(|right| !right.object.is_the_same_in(now)).count();
    let given = source.lacks(before).len() + before.defaults.difference(&source.defaults).count() - lost.len();
    let mut swept = Vec::new();
    let mut line = |what: String, done: String| swept.push(Swept { what, done });
    if given > 0 {
        let by = if instead > 0 { format!(", {instead} of them by the owner in place of whoever gave them before") } else { String::new() };
        line(format!("{given} rights of the database of before"), format!("given again{by}"));
    }
    if !lost.is_empty() {
        line(format!("{} rights of the database of before: {}", lost.len(), named(&lost)), "LOST: the administrator may not give them".to_owned());
    }
    if gone > 0 {
        line(format!("{gone} rights of the database of before on objects that the new one does not have, and on large objects"), "gone with them".to_owned());
    }
    let refusals: Vec<String> = before
        .given
        .keys()
        .filter(|right| right.is_everybodys_from_the_start() && now.objects.contains(&right.object) && !now.has(right))
        .map(Right::words)
        .collect();
    if !refusals.is_empty() {
        line(format!("{} rights that the source refuses: {}", refusals.len(), named(&refusals)), "refused here as well".to_owned());
    }
    Ok(swept)
}

fn named(all: &[String]) -> String {
    let more = if all.len() > NAMED { format!("; and {} more", all.len() - NAMED) } else { String::new() };
    format!("{}{more}", all.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("; "))
}

/// What the list of a dump says of everybody: statements as `pg_restore` writes them. They are executed by a role that may do nothing but fill
/// the copy, like all else in the dump.
pub fn of_everybody_in(sql: &str) -> Vec<String> {
    let everybodys = |statement: &&str| {
        (statement.starts_with("REVOKE ") && statement.ends_with(" FROM PUBLIC")) || (statement.starts_with("GRANT ") && statement.ends_with(" TO PUBLIC"))
    };
    statements(sql).iter().map(|statement| statement.trim()).filter(everybodys).map(str::to_owned).collect()
}

/// Statements of a list of rights, without comments; a semicolon in a quoted name ends none (PostgreSQL manual, "Lexical Structure").
fn statements(sql: &str) -> Vec<String> {
    let (mut all, mut current, mut quote) = (Vec::new(), String::new(), None);
    let mut letters = sql.chars().peekable();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), _) if open == letter => quote = None,
            (None, '"' | '\'') => quote = Some(letter),
            (None, '-') if letters.peek() == Some(&'-') => {
                letters.by_ref().take_while(|letter| *letter != '\n').for_each(drop);
                continue;
            }
            (None, ';') => {
                all.push(std::mem::take(&mut current));
                continue;
            }
            _ => {}
        }
        current.push(letter);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn right(name: &str, grantee: Option<&str>, grantable: bool) -> Right {
        let object = Object { kind: "TABLE".to_owned(), name: name.to_owned(), column: None };
        Right { object, grantee: grantee.map(str::to_owned), privilege: "SELECT".to_owned(), grantable }
    }

    fn rights(given: &[(Right, Option<&str>)]) -> Rights {
        let mut rights = Rights::default();
        for (right, by) in given {
            rights.objects.insert(right.object.clone());
            rights.given.insert(right.clone(), by.map(str::to_owned));
        }
        rights
    }

    #[test]
    fn whoever_passes_a_right_on_comes_after_whoever_gave_it_to_them() {
        let (app, report, lost) = (right("t", Some("zoe"), true), right("t", Some("app"), false), right("t", Some("all"), false));
        let before = rights(&[(report.clone(), Some("zoe")), (app.clone(), None), (lost.clone(), Some("nobody"))]);
        let now = Rights { objects: before.objects.clone(), ..Rights::default() };
        // whose giver has it from nobody, is given by the owner
        assert_eq!(now.lacks(&before), [(app, None), (report, Some("zoe".to_owned())), (lost, None)]);
    }

    #[test]
    fn what_the_source_refuses_and_what_the_database_of_before_refuses_is_refused() {
        let run = |name: &str| Right {
            object: Object { kind: "ROUTINE".to_owned(), name: name.to_owned(), column: None },
            grantee: None,
            privilege: "EXECUTE".to_owned(),
            grantable: false,
        };
        let (both, here, there) = (run("both()"), run("here()"), run("there()"));
        let mut before = rights(&[(both.clone(), None), (there.clone(), None)]);
        before.objects.insert(here.object.clone());
        let mut now = rights(&[(both, None), (here.clone(), None)]);
        now.objects.insert(there.object.clone());
        assert_eq!(now.refused_by(&before).collect::<Vec<_>>(), [&here]);
        assert!(now.lacks(&before).is_empty(), "what the source refuses is not given");
    }

    #[test]
    fn of_a_list_of_rights_what_is_said_of_everybody_is_read() {
        let list = "-- Name: FUNCTION wipe(); Type: ACL\n\nREVOKE ALL ON FUNCTION public.wipe() FROM PUBLIC;\nGRANT ALL ON FUNCTION public.wipe() TO app;\n\
                    REVOKE ALL ON FUNCTION public.\"a;b -- \"\"c\"(text) FROM PUBLIC;\nGRANT USAGE ON SCHEMA public TO PUBLIC;\nDROP TABLE x;\n";
        let found = of_everybody_in(list);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[1].contains("\"a;b -- \"\"c\""), "{found:?}");
    }
}
