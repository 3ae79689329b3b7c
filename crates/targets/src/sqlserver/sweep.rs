//! What came inside a copy is found and disabled before anybody is let in; what the database of before granted is granted again.

use super::{
    MASTER, PROPERTY, SqlServer, column,
    link::{Link, name, text},
    movement::{alone, refused},
    removal::drop_user,
    rights,
};
use crate::{
    Known, Target as _, TargetError,
    movement::{Move, Scripts},
};
use daypass_core::{
    firewall::{Rule, is_ours},
    movement::Swept,
    names::DatabaseName,
};
use std::collections::{BTreeMap, BTreeSet};

/// Users of a database and the roles that each is a member of.
async fn users(link: &mut Link) -> Result<BTreeMap<String, BTreeSet<String>>, TargetError> {
    let people = "SELECT name FROM sys.database_principals WHERE type IN ('S', 'U', 'G', 'E', 'X') AND principal_id > 4";
    let mut found: BTreeMap<String, BTreeSet<String>> = link.rows(people).await?.iter().map(|row| (column(row, 0), BTreeSet::new())).collect();
    let members = "SELECT USER_NAME(member_principal_id), USER_NAME(role_principal_id) FROM sys.database_role_members";
    for row in link.rows(members).await? {
        if let Some(roles) = found.get_mut(&column(&row, 0)) {
            roles.insert(column(&row, 1));
        }
    }
    found.retain(|user, _| !["dbo", "guest", "INFORMATION_SCHEMA", "sys"].contains(&user.as_str()));
    Ok(found)
}

/// Roles that are members of roles.
async fn nested(link: &mut Link) -> Result<BTreeSet<(String, String)>, TargetError> {
    let roles: BTreeSet<String> = link.rows("SELECT name FROM sys.database_principals WHERE type = 'R'").await?.iter().map(|row| column(row, 0)).collect();
    let members = "SELECT USER_NAME(member_principal_id), USER_NAME(role_principal_id) FROM sys.database_role_members";
    let all = link.rows(members).await?.iter().map(|row| (column(row, 0), column(row, 1))).collect::<BTreeSet<_>>();
    Ok(all.into_iter().filter(|(member, _)| roles.contains(member)).collect())
}

/// Nobody stays in the copy but those who are in the database of before, and without any rights: they get theirs when nobody is in the
/// database of before any more, as they are then.
pub async fn sweep(target: &SqlServer, movement: &Move<'_>, scripts: &Scripts) -> Result<Vec<Swept>, TargetError> {
    checked(movement, scripts)?;
    let (database, scratch) = (movement.environment.spec.database.as_str(), movement.names.scratch.as_str());
    let (home, granted) = before(target, database).await?;
    let mut master = target.connect_long(MASTER).await?;
    if !master.azure {
        confine(&mut master, scratch).await?;
    }
    let mut link = target.connect_long(scratch).await?;
    let mut swept = triggers(&mut link).await?;
    let admin = target.spec.admin.as_str();
    for (user, roles) in users(&mut link).await? {
        let Some(wanted) = home.get(&user) else {
            let what =
                if user.starts_with("jit_") { format!("day account {user} of another environment") } else { format!("user {user}, who has no home here") };
            // nobody connects as it from here on; then it goes
            link.attempt(&format!("DENY CONNECT TO {}", name(&user))).await?;
            drop_user(&mut link, &user).await?;
            swept.push(took(what, "removed from the copy"));
            continue;
        };
        for role in roles.iter().filter(|_| !user.eq_ignore_ascii_case(admin)) {
            link.run(&format!("ALTER ROLE {} DROP MEMBER {}", name(role), name(&user))).await?;
            if !wanted.contains(role) {
                swept.push(took(format!("{user} was a member of {role} in the source"), "taken away"));
            }
        }
    }
    // whoever is put into a role again gets what that role has
    let known = nested(&mut target.connect_long(database).await?).await?;
    for (member, role) in nested(&mut link).await?.difference(&known) {
        link.run(&format!("ALTER ROLE {} DROP MEMBER {}", name(role), name(member))).await?;
        swept.push(took(format!("the role {member} was a member of {role} in the source"), "taken away"));
    }
    swept.extend(passwords(&mut link, admin).await?);
    for right in rights::all(&mut link).await?.into_iter().filter(|right| right.allows() && !right.grantee.eq_ignore_ascii_case(admin)) {
        link.run(&right.revoke()).await?;
        if !granted.contains(&right) {
            swept.push(took(format!("{} of the source", right.words()), "taken away"));
        }
    }
    // the marks of other environments travel with a copy
    let marks = format!("SELECT name FROM sys.extended_properties WHERE class = 0 AND name LIKE {}", text(&format!("{PROPERTY} %")));
    for mark in link.attempt(&marks).await?.unwrap_or_default() {
        link.attempt(&format!("EXEC sp_dropextendedproperty @name = {}", text(&column(&mark, 0)))).await?;
    }
    if link.azure {
        swept.extend(rules_of_before(target, movement, &mut link).await?);
    }
    drop(link);
    swept.extend(run_scripts(target, movement, scripts).await?);
    Ok(swept)
}

fn took(what: String, done: &str) -> Swept {
    Swept { what, done: done.to_owned() }
}

/// Who is in the database of before, and which rights it gave.
async fn before(target: &SqlServer, database: &str) -> Result<(BTreeMap<String, BTreeSet<String>>, BTreeSet<rights::Right>), TargetError> {
    let mut link = target.connect_long(database).await?;
    Ok((users(&mut link).await?, rights::all(&mut link).await?))
}

/// Those who are in the database of before are in the new one, with the roles and the rights that they have there now.
pub async fn carry_over(target: &SqlServer, movement: &Move<'_>) -> Result<Vec<Swept>, TargetError> {
    let (database, scratch) = (movement.environment.spec.database.as_str(), movement.names.scratch.as_str());
    let (home, granted) = before(target, database).await?;
    let (mut master, mut link) = (target.connect_long(MASTER).await?, target.connect_long(scratch).await?);
    let (here, admin, mut swept) = (users(&mut link).await?, target.spec.admin.as_str(), Vec::new());
    for user in here.keys().filter(|user| home.contains_key(*user)) {
        // its login here has another SID than in the source, when it was made by itself
        let login = format!("SELECT name FROM sys.sql_logins WHERE name = {}", text(user));
        if !link.azure && master.exists(&login).await? {
            link.run(&format!("ALTER USER {} WITH LOGIN = {}", name(user), name(user))).await?;
        }
    }
    for (user, wanted) in home.iter().filter(|(user, _)| !user.starts_with("jit_")) {
        if !here.contains_key(user) {
            // whoever makes a database owns it, and then can be no user in it besides; without either it could not go in again
            if user.eq_ignore_ascii_case(admin) {
                swept.push(took(format!("user {user} of the database of before"), "owns the new one, in the place of its owner of before"));
                continue;
            }
            let login = format!("SELECT name FROM sys.sql_logins WHERE name = {}", text(user));
            if link.azure || !master.exists(&login).await? {
                swept.push(took(format!("user {user} of the database of before"), "NOT made again: its password is not known here"));
                continue;
            }
            link.run(&format!("CREATE USER {} FOR LOGIN {}", name(user), name(user))).await?;
            swept.push(took(format!("user {user} of the database of before"), "made again, with its roles"));
        }
        let has = here.get(user).cloned().unwrap_or_default();
        for role in wanted.difference(&has) {
            link.run(&format!("ALTER ROLE {} ADD MEMBER {}", name(role), name(user))).await?;
        }
    }
    swept.extend(rights_as_before(&mut link, &granted).await?);
    if link.azure {
        swept.extend(rules_of_before(target, movement, &mut link).await?);
    } else if !home.keys().any(|user| user.eq_ignore_ascii_case(admin)) {
        // whoever owns a database is dbo in it: until here that is the administrator
        let owner = format!("SELECT SUSER_SNAME(owner_sid) FROM sys.databases WHERE name = {}", text(database));
        if let Some(owner) = master.maybe(&owner).await? {
            link.attempt(&format!("ALTER AUTHORIZATION ON DATABASE::{} TO {}", name(scratch), name(&owner))).await?;
        }
    }
    Ok(swept)
}

/// Code in the copy gets no further than the copy, and its messages have a broker of their own.
async fn confine(master: &mut Link, scratch: &str) -> Result<(), TargetError> {
    for (option, column) in [("TRUSTWORTHY", "is_trustworthy_on"), ("DB_CHAINING", "is_db_chaining_on")] {
        // a restore leaves them off, and to switch them takes CONTROL SERVER (ALTER DATABASE SET options)
        let on = format!("SELECT name FROM sys.databases WHERE name = {} AND {column} = 1", text(scratch));
        if master.exists(&on).await? && master.attempt(&format!("ALTER DATABASE {} SET {option} OFF", name(scratch))).await?.is_none() {
            return Err(refused(format!(
                "the copy has {option} ON, so that code in it reaches beyond it, and the administrator may not switch that off (it takes CONTROL SERVER). Switch it off in the source, or grant it for the movement"
            )));
        }
    }
    match alone(master, scratch, "ALTER DATABASE CURRENT SET NEW_BROKER").await {
        Err(TargetError::Refused(why)) => tracing::debug!(%why, "the copy keeps the broker of its source"),
        done => done?,
    }
    Ok(())
}

/// The operator's scripts, as the user who owns the database: what came inside the copy, a trigger for example, runs as whoever sets it off, and
/// the rights of that user end at the database.
pub async fn run_scripts(target: &SqlServer, movement: &Move<'_>, scripts: &Scripts) -> Result<Vec<Swept>, TargetError> {
    checked(movement, scripts)?;
    let mut swept = scripts.skipped.clone();
    if scripts.is_empty() {
        return Ok(swept);
    }
    let mut link = target.connect_long(movement.names.scratch.as_str()).await?;
    link.run("EXECUTE AS USER = N'dbo'").await?;
    for script in &scripts.run {
        swept.push(run_script(&mut link, script).await?);
    }
    for check in &scripts.checks {
        swept.push(run_check(&mut link, check).await?);
    }
    // what else it could do ends with its connection
    Ok(swept)
}

/// A trigger on the database runs as whoever makes or changes an account, which is the administrator: whoever planted it would have the
/// rights of that. It is disabled by the owner's user, whose rights end at the database.
async fn triggers(link: &mut Link) -> Result<Vec<Swept>, TargetError> {
    let look = "SELECT name FROM sys.triggers WHERE parent_class = 0 AND is_disabled = 0";
    let mut swept = Vec::new();
    for trigger in link.attempt(look).await?.unwrap_or_default().iter().map(|row| column(row, 0)) {
        link.run(&format!("EXECUTE AS USER = N'dbo'; DISABLE TRIGGER {} ON DATABASE; REVERT", name(&trigger))).await?;
        swept.push(Swept { what: format!("trigger {trigger} on the database"), done: "disabled: it would run as whoever makes accounts".to_owned() });
    }
    Ok(swept)
}

/// A user with a password of its own, and an application role, has the password of the source. Nobody knows the new one: those in the vault
/// get theirs when the database is in place.
async fn passwords(link: &mut Link, admin: &str) -> Result<Vec<Swept>, TargetError> {
    let mut swept = Vec::new();
    for (look, kind) in [
        ("SELECT name FROM sys.database_principals WHERE authentication_type = 2", "USER"),
        ("SELECT name FROM sys.database_principals WHERE type = 'A'", "APPLICATION ROLE"),
    ] {
        for whose in link.attempt(look).await?.unwrap_or_default().iter().map(|row| column(row, 0)).filter(|whose| !whose.eq_ignore_ascii_case(admin)) {
            let password = format!("Dp-{:032x}", uuid::Uuid::new_v4().as_u128());
            link.run(&format!("ALTER {kind} {} WITH PASSWORD = {}", name(&whose), text(&password))).await?;
            swept.push(Swept {
                what: format!("password of the source of {} {whose}", kind.to_lowercase()),
                done: "changed; nobody knows the new one".to_owned(),
            });
        }
    }
    Ok(swept)
}

/// Whoever is in both databases has the rights that the database of before gave, on what is in the new one as well.
async fn rights_as_before(link: &mut Link, granted: &BTreeSet<rights::Right>) -> Result<Option<Swept>, TargetError> {
    let here = rights::all(link).await?;
    let (mut given, mut missing) = (0, 0);
    for right in granted.difference(&here).filter(|right| !right.grantee.starts_with("jit_")) {
        match link.attempt(&right.grant()).await? {
            Some(_) => given += 1,
            None => missing += 1,
        }
    }
    let but = if missing == 0 { String::new() } else { format!(", but for {missing} whose object or user is not there any more") };
    Ok((given + missing > 0).then(|| took(format!("{} rights of the database of before", given + missing), &format!("given again{but}"))))
}

/// Users in a database that bear our mark and are nobody's who has a pass for it: they came inside a copy that others made.
pub async fn sweep_marked(target: &SqlServer, database: &DatabaseName, theirs: &Known<'_>) -> Result<Vec<Swept>, TargetError> {
    if !super::is_open(&mut target.connect(MASTER).await?, database).await? {
        return Ok(Vec::new());
    }
    let mut link = target.connect(database.as_str()).await?;
    let look = format!(
        "SELECT u.name, CONVERT(nvarchar(200), u.sid, 2), CAST((SELECT e.value FROM sys.extended_properties e \
         WHERE e.class = 4 AND e.major_id = u.principal_id AND e.name = {}) AS nvarchar(200)) \
         FROM sys.database_principals u WHERE u.name LIKE N'jit!_%' ESCAPE N'!'",
        text(PROPERTY)
    );
    let (mut swept, rows) = (Vec::new(), link.rows(&look).await?);
    let theirs = theirs();
    for row in rows {
        let user = column(&row, 0);
        let ours = target.is_marked(&column(&row, 1)) || column(&row, 2).starts_with(&format!("{} ", target.store));
        if ours && !theirs.contains(&user) {
            link.attempt(&format!("DENY CONNECT TO {}", name(&user))).await?;
            drop_user(&mut link, &user).await?;
            swept.push(Swept { what: format!("day account {user} of another environment"), done: "removed from the database".to_owned() });
        }
    }
    Ok(swept)
}

/// Where a policy asks for masking, and there is nothing that shows it.
pub const UNCHECKED: &str = "masking is required here, and no check looks at the copy";
pub const CHECK_IT: &str = "Write what must not be there as movement.scripts/ENVIRONMENT/checks/*.sql (docs/movement.md)";

fn checked(movement: &Move<'_>, scripts: &Scripts) -> Result<(), TargetError> {
    if movement.masking.required && scripts.checks.is_empty() { Err(TargetError::Refused(format!("{UNCHECKED}. {CHECK_IT}"))) } else { Ok(()) }
}

/// The rules of Azure's firewall lie inside the database and travel with a copy: those of the database of before take their place.
async fn rules_of_before(target: &SqlServer, movement: &Move<'_>, link: &mut Link) -> Result<Vec<Swept>, TargetError> {
    let look = "SELECT name, start_ip_address, end_ip_address FROM sys.database_firewall_rules";
    let rule = |row: &super::link::Row| Rule { name: column(row, 0), from: column(row, 1), to: column(row, 2) };
    let mut before = target.connect_long(movement.environment.spec.database.as_str()).await?;
    // ours follow the allowed addresses, all of which have ended
    let home: Vec<Rule> = before.rows(look).await?.iter().map(rule).filter(|rule| !is_ours(rule)).collect();
    let here: Vec<Rule> = link.rows(look).await?.iter().map(rule).collect();
    let (scratch, mut swept) = (&movement.names.scratch, Vec::new());
    // what lets us in first, so that nothing shuts us out in between
    for rule in home.iter().filter(|rule| !here.contains(rule)) {
        target.set_rule(scratch, rule).await?;
    }
    for rule in here.iter().filter(|rule| !home.iter().any(|known| known.name == rule.name)) {
        target.remove_rule(scratch, rule).await?;
        swept.push(Swept { what: format!("firewall rule {} of the source", rule.name), done: "taken away".to_owned() });
    }
    Ok(swept)
}

/// Rows of a batch's last result that are shown.
const SHOWN: usize = 20;

/// A check: any row that it gives is a failure.
async fn run_check(link: &mut Link, check: &std::path::Path) -> Result<Swept, TargetError> {
    let file = check.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let sql = tokio::fs::read_to_string(check).await.map_err(|e| refused(format!("the check {file} cannot be read: {e}")))?;
    for batch in batches(&sql) {
        let (rows, count) = link.some(&batch, SHOWN).await.map_err(|error| refused(format!("the check {file}: {error}")))?;
        if count > 0 {
            let shown: Vec<String> = rows.into_iter().map(|row| row.into_iter().flatten().collect::<Vec<_>>().join(" ")).collect();
            let shown: String = shown.join("; ").chars().take(500).collect();
            return Err(refused(format!("the check {file} found what should not be there, and the new database does not open: {shown}")));
        }
    }
    Ok(took(format!("check {file}"), "found nothing"))
}

/// An operator's script: batches with GO between them, as every tool of SQL Server reads it.
async fn run_script(link: &mut Link, script: &std::path::Path) -> Result<Swept, TargetError> {
    let file = script.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let sql = tokio::fs::read_to_string(script).await.map_err(|e| refused(format!("the script {file} cannot be read: {e}")))?;
    let mut said = Vec::new();
    for batch in batches(&sql) {
        let (rows, count) = link.some(&batch, SHOWN).await.map_err(|error| match error {
            TargetError::Refused(why) => refused(format!("the script {file}: {why}")),
            other => refused(format!("the script {file}: {other}")),
        })?;
        said.extend(rows.into_iter().map(|row| row.into_iter().flatten().collect::<Vec<_>>().join(" ")));
        if count > SHOWN as u64 {
            said.push(format!("and {} rows more", count - SHOWN as u64));
        }
    }
    let said = said.join("; ");
    let done = if said.is_empty() { "ran, and said nothing".to_owned() } else { format!("ran: {}", said.chars().take(1_500).collect::<String>()) };
    Ok(Swept { what: format!("script {file}"), done })
}

fn batches(sql: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    for line in sql.lines() {
        if line.trim().eq_ignore_ascii_case("go") {
            all.push(String::new());
        } else if let Some(last) = all.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
    }
    all.retain(|batch| !batch.trim().is_empty());
    all
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_script_is_read_in_batches() {
        let sql = "UPDATE t SET x = 1\nGO\n\n go \nSELECT 'let''s go'\n";
        assert_eq!(super::batches(sql), ["UPDATE t SET x = 1\n", "SELECT 'let''s go'\n"]);
    }
}
