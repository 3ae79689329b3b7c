//! SQL Server 2016 to 2025, Azure SQL Managed Instance, Azure SQL Database, and what else speaks TDS, with an administrator that
//! need not be `sysadmin`.
//!
//! Where logins belong to the server, an account is a login with a user of the same name in its database. Both bear a SID that we
//! choose: the installation in its first half, the pass in its second. It is the marker by which an account is found again, and
//! it travels with a copy of the database. In Azure SQL Database an account is a contained user, and an extended property marks it.
//!
//! No error number decides anything here: engines that speak TDS have others. What exists is asked for first.

mod bacpac;
mod drift;
mod identity;
mod link;
mod movement;
mod obstacles;
mod recipe;
mod removal;
mod rights;
mod sweep;
mod value;

pub use identity::{is_answer, question};
#[cfg(test)]
pub use obstacles::documented;
pub use recipe::recipe;
pub use removal::by_hand;

use crate::{
    AccountSpec, Check, Estate, Known, SessionAt, Target, TargetError,
    movement::{Move, Scripts, Source, Standing},
};
use daypass_core::{
    drift::Finding,
    environment::{Grants, Identity, TargetSpec},
    firewall::Rule,
    ids::*,
    movement::{Made, Swept},
    names::{AccountName, DatabaseName, RoleName},
    pass::Access,
    plan::{Backend, Observation, ObservedAccount},
    secret::{Secret, hex},
};
use link::{Link, name, text};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
};
use tokio::sync::Mutex;

/// Server-wide work is done from here: a connection that rests in a database stands in the way of whoever replaces it.
const MASTER: &str = "master";
/// The name of the extended property on accounts; on databases the environment's id stands behind it, so that two installations,
/// or two targets for one server, do not take each other's mark for a replaced database.
const PROPERTY: &str = "daypass";

pub struct SqlServer {
    spec: TargetSpec,
    password: Secret,
    store: StoreId,
    /// The connections to `master`, kept between looks: one for looks, one for ends. The second is opened before anybody is let in, so that
    /// nobody can take the last place before it.
    server: Mutex<Option<Link>>,
    ends: Mutex<Option<Link>>,
    /// On Azure: one inside each database.
    inside: Mutex<HashMap<DatabaseName, Link>>,
}

impl SqlServer {
    pub fn new(spec: TargetSpec, password: Secret, store: StoreId) -> Self {
        SqlServer { spec, password, store, server: Mutex::new(None), ends: Mutex::new(None), inside: Mutex::default() }
    }

    async fn connect(&self, database: &str) -> Result<Link, TargetError> {
        Link::connect(&self.spec, &self.password, database, Some(link::STATEMENT)).await
    }

    /// As somebody else than the administrator.
    async fn connect_as(&self, account: &AccountName, password: &Secret, database: &DatabaseName) -> Result<Link, TargetError> {
        let spec = TargetSpec { admin: account.to_string(), ..self.spec.clone() };
        Link::connect(&spec, password, database.as_str(), Some(link::STATEMENT)).await
    }

    /// For statements that take as long as they take: a backup, a restore.
    async fn connect_long(&self, database: &str) -> Result<Link, TargetError> {
        Link::connect(&self.spec, &self.password, database, None).await
    }

    /// Runs server-wide work on the kept connection; a connection that failed is thrown away.
    async fn on_server<T>(&self, work: impl AsyncFnOnce(&mut Link) -> Result<T, TargetError>) -> Result<T, TargetError> {
        self.on_kept(&self.server, work).await
    }

    async fn on_kept<T>(&self, kept: &Mutex<Option<Link>>, work: impl AsyncFnOnce(&mut Link) -> Result<T, TargetError>) -> Result<T, TargetError> {
        let mut kept = kept.lock().await;
        let mut link = match kept.take() {
            Some(link) => link,
            None => self.connect(MASTER).await?,
        };
        let result = work(&mut link).await;
        if !matches!(result, Err(TargetError::Unreachable(_) | TargetError::Silent(_))) {
            *kept = Some(link);
        }
        result
    }

    /// Runs work inside a database, and stays in there no longer than that.
    async fn within<T>(&self, link: &mut Link, database: &str, work: impl AsyncFnOnce(&mut Link) -> Result<T, TargetError>) -> Result<T, TargetError> {
        if link.azure {
            return work(&mut self.connect(database).await?).await;
        }
        link.run(&format!("USE {}", name(database))).await?;
        let result = work(link).await;
        link.run(&format!("USE {}", name(MASTER))).await?;
        result
    }

    /// The first half of the SIDs of this installation.
    fn mark(&self) -> [u8; 8] {
        let store = self.store.uuid().into_bytes();
        [b'D', b'P', store[10], store[11], store[12], store[13], store[14], store[15]]
    }

    fn sid(&self, pass: PassId) -> String {
        let mark = self.mark();
        format!("0x{}{}", hex(&mark), hex(&pass.uuid().into_bytes()[8..])).to_uppercase().replacen("0X", "0x", 1)
    }

    fn is_marked(&self, sid: &str) -> bool {
        sid.to_uppercase().starts_with(&hex(&self.mark()).to_uppercase())
    }

    /// The value of the extended property on an account of Azure SQL Database.
    fn property(&self, pass: PassId) -> String {
        format!("{} {pass}", self.store)
    }
}

/// Whether a database is there and can be entered.
async fn is_open(link: &mut Link, database: &DatabaseName) -> Result<bool, TargetError> {
    link.exists(&format!("SELECT name FROM sys.databases WHERE name = {} AND state = 0", text(database.as_str()))).await
}

/// The name of the mark that an environment's database has.
fn mark_of(environment: EnvironmentId) -> String {
    format!("{PROPERTY} {environment}")
}

/// Sessions of accounts of ours, and where they come from.
const CONNECTED: &str = "SELECT s.original_login_name, s.session_id, c.client_net_address \
                         FROM sys.dm_exec_sessions s JOIN sys.dm_exec_connections c ON c.session_id = s.session_id \
                         WHERE s.original_login_name LIKE N'jit!_%' ESCAPE N'!'";

/// The roles of users, in one database.
const ROLES: &str = "SELECT USER_NAME(member_principal_id), USER_NAME(role_principal_id) FROM sys.database_role_members";

fn has_roles(accounts: &mut BTreeMap<String, ObservedAccount>, roles: &[link::Row]) {
    for row in roles {
        if let Some(rights) = accounts.get_mut(&column(row, 0)).and_then(|account| account.rights.as_mut()) {
            rights.insert(column(row, 1));
        }
    }
}

async fn sessions_of_accounts<'a>(link: &mut Link, names: impl Iterator<Item = &'a str>) -> Result<Vec<Backend>, TargetError> {
    let mut look = "SELECT original_login_name, session_id FROM sys.dm_exec_sessions \
                    WHERE original_login_name LIKE N'jit!_%' ESCAPE N'!'"
        .to_owned();
    let others: Vec<String> = names.filter(|name| !name.starts_with("jit_")).map(text).collect();
    if !others.is_empty() {
        look.push_str(&format!(" OR original_login_name IN ({})", others.join(", ")));
    }
    let rows = link.rows(&look).await?;
    Ok(rows.iter().filter_map(|row| Some(Backend { account: column(row, 0), id: column(row, 1).parse().ok()? })).collect())
}

/// An administrator who may not see sessions sees none, and would take that for proof that none is left.
async fn sees_sessions(link: &mut Link) -> Result<(), TargetError> {
    // from 2022 on the second is asked for, and earlier ones do not know it (sys.dm_exec_sessions, permissions)
    let ask = if link.azure {
        "SELECT HAS_PERMS_BY_NAME(DB_NAME(), 'DATABASE', 'VIEW DATABASE STATE'), HAS_PERMS_BY_NAME(DB_NAME(), 'DATABASE', 'VIEW DATABASE PERFORMANCE STATE')"
    } else {
        "SELECT HAS_PERMS_BY_NAME(NULL, NULL, 'VIEW SERVER STATE'), HAS_PERMS_BY_NAME(NULL, NULL, 'VIEW SERVER PERFORMANCE STATE')"
    };
    let answer = link.attempt(ask).await?.and_then(|rows| rows.into_iter().next()).unwrap_or_default();
    // an engine that does not know the question is taken at its word
    if column(&answer, 0) == "0" && column(&answer, 1) != "1" {
        return Err(TargetError::Refused(
            "the administrator may not see who is connected: GRANT VIEW SERVER STATE (the recipe: daypass env recipe)".to_owned(),
        ));
    }
    Ok(())
}

fn column(row: &link::Row, at: usize) -> String {
    row.get(at).cloned().flatten().unwrap_or_default()
}

impl Target for SqlServer {
    /// `database_id` and `create_date` change when a database is made anew; the GUIDs of its recovery when one is restored over it;
    /// the planted marker is missing in a copy of another database. What an engine does not have is left out.
    async fn identity(&self, environment: EnvironmentId, database: &DatabaseName) -> Result<Identity, TargetError> {
        identity::identity(self, environment, database).await
    }

    /// Plants a marker that no copy of this database from before has. An administrator who may not is no hindrance.
    async fn adopt(&self, environment: EnvironmentId, database: &DatabaseName) -> Result<(), TargetError> {
        self.on_server(async |link| {
            self.within(link, database.as_str(), async |link| {
                let property = text(&mark_of(environment));
                let there = format!("SELECT name FROM sys.extended_properties WHERE class = 0 AND name = {property}");
                let procedure =
                    if link.attempt(&there).await?.is_some_and(|rows| !rows.is_empty()) { "sp_updateextendedproperty" } else { "sp_addextendedproperty" };
                let value = uuid::Uuid::now_v7().to_string();
                link.attempt(&format!("EXEC {procedure} @name = {property}, @value = {}", text(&value))).await.map(drop)
            })
            .await
        })
        .await
    }

    async fn reserve(&self) -> Result<(), TargetError> {
        self.on_kept(&self.ends, async |_| Ok(())).await
    }

    async fn observe(&self, databases: &[DatabaseName], names: &[String]) -> Result<Observation, TargetError> {
        self.on_kept(&self.ends, async |link| {
            // an open transaction of somebody's in one database keeps nobody from being seen in the others (error 1222)
            link.attempt("SET LOCK_TIMEOUT 500").await?;
            if link.azure { self.observe_contained(link, databases, names).await } else { self.observe_logins(link, databases, names).await }
        })
        .await
    }

    async fn shut(&self, accounts: &[String], backends: &[Backend], databases: &[DatabaseName]) -> Result<(), TargetError> {
        self.on_kept(&self.ends, async |link| {
            if !link.azure {
                return removal::shut(link, accounts, backends).await;
            }
            let mut all = Ok(());
            for database in databases {
                if is_open(link, database).await? {
                    all = all.and(self.inside(database, async |link| removal::shut(link, accounts, backends).await).await);
                }
            }
            all
        })
        .await
    }

    fn rights(&self, _environment: EnvironmentId, access: Access, _grants: Grants, _sessions: u16) -> BTreeSet<String> {
        let roles = [("db_datareader", true), ("db_datawriter", access == Access::ReadWrite)];
        roles.into_iter().filter(|(_, wanted)| *wanted).map(|(role, _)| role.to_owned()).collect()
    }

    async fn provide(&self, spec: &AccountSpec<'_>) -> Result<(), TargetError> {
        self.on_server(async |link| {
            if !link.azure {
                self.provide_login(link, spec).await?;
            }
            self.within(link, spec.database.as_str(), async |link| self.provide_user(link, spec).await).await
        })
        .await
    }

    /// The roles of the engine cover what is created later.
    async fn refresh_grants(&self, _environment: EnvironmentId, _database: &DatabaseName) -> Result<(), TargetError> {
        Ok(())
    }

    async fn remains(&self, account: &str, databases: &[DatabaseName]) -> Result<Vec<String>, TargetError> {
        removal::remains(self, account, databases).await
    }

    async fn remove(&self, account: &str, databases: &[DatabaseName], _estate: Estate<'_>) -> Result<(), TargetError> {
        // a schema is never dropped with what others put into it
        removal::remove(self, account, databases).await
    }

    async fn sweep_marked(&self, _environment: EnvironmentId, database: &DatabaseName, theirs: &Known<'_>) -> Result<Vec<Swept>, TargetError> {
        sweep::sweep_marked(self, database, theirs).await
    }

    async fn drift(&self, databases: &[DatabaseName], ours: &Known<'_>) -> Result<Vec<Finding>, TargetError> {
        drift::look(self, databases, ours).await
    }

    async fn end_drift(&self, finding: &Finding) -> Result<(), TargetError> {
        drift::end(self, finding).await
    }

    async fn set_password(&self, database: &DatabaseName, account: &RoleName, password: &Secret) -> Result<(), TargetError> {
        if account.as_str().starts_with("jit_") || account.as_str().eq_ignore_ascii_case(&self.spec.admin) {
            return Err(TargetError::Refused(format!("{account} belongs to Daypass itself, and is no standing account")));
        }
        let (quoted, password) = (name(account.as_str()), text(password.expose()));
        // a login of the server where there is one, else a contained user
        let done = self
            .on_server(async |link| {
                let known = format!("SELECT name FROM sys.sql_logins WHERE name = {}", text(account.as_str()));
                if link.azure || !link.exists(&known).await? {
                    return Ok(false);
                }
                link.run(&format!("ALTER LOGIN {quoted} WITH PASSWORD = {password}")).await.map(|()| true)
            })
            .await?;
        if !done {
            let mut link = self.connect(database.as_str()).await?;
            link.run(&format!("ALTER USER {quoted} WITH PASSWORD = {password}")).await?;
        }
        Ok(())
    }

    async fn kill(&self, account: &str, session: u32, database: &DatabaseName) -> Result<(), TargetError> {
        self.on_server(async |link| {
            // the account's name is asked for again: a number that was given away again is somebody else
            let theirs =
                format!("SELECT original_login_name FROM sys.dm_exec_sessions WHERE session_id = {session} AND original_login_name = {}", text(account));
            let kill = async |link: &mut Link| {
                if !link.exists(&theirs).await? {
                    return Ok(());
                }
                match link.run(&format!("KILL {session}")).await {
                    // one that ended by itself meanwhile is no failure
                    Err(TargetError::Refused(_)) if !link.exists(&theirs).await? => Ok(()),
                    done => done,
                }
            };
            if link.azure { kill(&mut self.connect(database.as_str()).await?).await } else { kill(link).await }
        })
        .await
    }

    async fn test(&self, database: &DatabaseName) -> Vec<Check> {
        recipe::test(self, database).await
    }

    async fn look_around(&self, account: &AccountName, password: &Secret, database: &DatabaseName, access: Access) -> Result<Vec<Check>, TargetError> {
        recipe::look_around(self, account, password, database, access).await
    }

    async fn run_scripts(&self, movement: &Move<'_>, scripts: &Scripts) -> Result<Vec<Swept>, TargetError> {
        sweep::run_scripts(self, movement, scripts).await
    }

    async fn copy(&self, movement: &Move<'_>, source: &Source<'_>) -> Result<(), TargetError> {
        movement::copy(self, movement, source).await
    }

    async fn sweep(&self, movement: &Move<'_>, scripts: &Scripts) -> Result<Vec<Swept>, TargetError> {
        sweep::sweep(self, movement, scripts).await
    }

    async fn look_ahead(&self, movement: &Move<'_>, source: Option<&Source<'_>>) -> Result<Vec<Check>, TargetError> {
        movement::look_ahead(self, movement, source).await
    }

    async fn in_the_way(&self, movement: &Move<'_>) -> Result<Vec<Check>, TargetError> {
        movement::in_the_way(self, movement).await
    }

    async fn carry_over(&self, movement: &Move<'_>) -> Result<Vec<Swept>, TargetError> {
        sweep::carry_over(self, movement).await
    }

    async fn discard(&self, movement: &Move<'_>) -> Result<(), TargetError> {
        movement::discard(self, movement).await
    }

    async fn swap(&self, movement: &Move<'_>, incoming: &DatabaseName) -> Result<(), TargetError> {
        movement::swap(self, movement, incoming).await
    }

    async fn settle(&self, movement: &Move<'_>, incoming: &DatabaseName) -> Result<Standing, TargetError> {
        movement::settle(self, movement, incoming).await
    }

    async fn drop_kept(&self, database: &DatabaseName) -> Result<(), TargetError> {
        movement::drop_kept(self, database).await
    }

    async fn export(&self, movement: &Move<'_>, file: &Path) -> Result<Made, TargetError> {
        bacpac::export(self, movement, file).await
    }

    async fn sessions(&self, database: &DatabaseName) -> Result<Vec<SessionAt>, TargetError> {
        let mut link = self.connect(database.as_str()).await?;
        sees_sessions(&mut link).await?;
        let rows = link.rows(CONNECTED).await?;
        let session = |row: &link::Row| Some(SessionAt { account: column(row, 0), id: column(row, 1).parse().ok()?, address: column(row, 2).parse().ok() });
        Ok(rows.iter().filter_map(session).collect())
    }

    async fn rules(&self, database: &DatabaseName) -> Result<Vec<Rule>, TargetError> {
        let look = |view: &str| format!("SELECT name, start_ip_address, end_ip_address FROM sys.{view}");
        let rule = |row: &link::Row| Rule { name: column(row, 0), from: column(row, 1), to: column(row, 2) };
        let rows = self.connect(database.as_str()).await?.rows(&look("database_firewall_rules")).await?;
        // rules of the whole server open this database as well; only its own administrator may read them
        let server = self.on_server(async |link| link.attempt(&look("firewall_rules")).await).await?.unwrap_or_default();
        Ok(rows.iter().chain(&server).map(rule).filter(|rule| rule.from != NOWHERE).collect())
    }

    async fn set_rule(&self, database: &DatabaseName, rule: &Rule) -> Result<(), TargetError> {
        self.connect(database.as_str()).await?.run(&set(rule)).await
    }

    /// Also has the database forget what it knows of logins: a rule that is gone would count for minutes. Azure lets only the
    /// server's own administrator delete a rule, but whoever made it may make it one that lets nobody in.
    async fn remove_rule(&self, database: &DatabaseName, rule: &Rule) -> Result<(), TargetError> {
        let mut link = self.connect(database.as_str()).await?;
        // one batch each: it runs to its end even when we do not
        let delete = format!("EXEC sp_delete_database_firewall_rule @name = {}", text(&rule.name));
        let nobody = Rule { name: rule.name.clone(), from: NOWHERE.to_owned(), to: NOWHERE.to_owned() };
        for way in [format!("{delete}; {FLUSH}"), format!("{}; {FLUSH}", set(&nobody)), delete] {
            match link.run(&way).await {
                Err(TargetError::Refused(why)) => tracing::debug!(%why, "a firewall rule is removed in another way"),
                done => return done,
            }
        }
        link.run(&set(&nobody)).await
    }
}

/// No connection comes from here.
const NOWHERE: &str = "255.255.255.255";
const FLUSH: &str = "DBCC FLUSHAUTHCACHE";

fn set(rule: &Rule) -> String {
    let plain = |text: &str| format!("'{}'", text.replace('\'', "''"));
    format!("EXEC sp_set_database_firewall_rule @name = {}, @start_ip_address = {}, @end_ip_address = {}", text(&rule.name), plain(&rule.from), plain(&rule.to))
}

impl SqlServer {
    async fn observe_logins(&self, link: &mut Link, databases: &[DatabaseName], names: &[String]) -> Result<Observation, TargetError> {
        let look = "SELECT l.name, l.is_disabled, CONVERT(nvarchar(200), l.sid, 2) \
                    FROM sys.sql_logins l WHERE l.name LIKE N'jit!_%' ESCAPE N'!'";
        sees_sessions(link).await?;
        // by our mark, or by a name that is in the log: a mark can be taken off
        let is_ours = |name: &str, sid: &str| self.is_marked(sid) || names.iter().any(|known| known == name);
        let mut accounts = BTreeMap::new();
        for row in link.rows(look).await?.iter().filter(|row| is_ours(&column(row, 0), &column(row, 2))) {
            let account = ObservedAccount { name: column(row, 0), can_login: column(row, 1) == "0", expires_in: None, rights: Some(BTreeSet::new()) };
            accounts.insert(account.name.clone(), account);
        }
        // users without a login: half of an account, or one that came inside a copy
        let users = "SELECT name, CONVERT(nvarchar(200), sid, 2) FROM sys.database_principals WHERE name LIKE N'jit!_%' ESCAPE N'!'";
        let mut unseen = BTreeSet::new();
        for database in databases {
            if !is_open(link, database).await? {
                continue;
            }
            match self.within(link, database.as_str(), async |link| Ok((link.rows(users).await?, link.rows(ROLES).await?))).await {
                Ok((rows, roles)) => {
                    for row in rows.iter().filter(|row| is_ours(&column(row, 0), &column(row, 1))) {
                        accounts.entry(column(row, 0)).or_insert_with(|| ObservedAccount {
                            name: column(row, 0),
                            can_login: false,
                            expires_in: None,
                            rights: Some(BTreeSet::new()),
                        });
                    }
                    has_roles(&mut accounts, &roles);
                }
                // without its login nobody comes in; what else there is, the next look shows
                Err(TargetError::Refused(_)) => drop(unseen.insert(database.clone())),
                Err(error) => return Err(error),
            }
        }
        // the roles of an account whose database could not be looked into are not known
        if !unseen.is_empty() {
            accounts.values_mut().for_each(|account| account.rights = None);
        }
        let known = |name: &String| accounts.contains_key(name) || names.contains(name);
        let backends = sessions_of_accounts(link, names.iter().map(String::as_str)).await?.into_iter().filter(|backend| known(&backend.account)).collect();
        Ok(Observation { accounts: accounts.into_values().collect(), backends, room: None, unseen })
    }

    async fn observe_contained(&self, link: &mut Link, databases: &[DatabaseName], names: &[String]) -> Result<Observation, TargetError> {
        let look = format!(
            "SELECT u.name, \
             (SELECT COUNT(*) FROM sys.database_permissions p WHERE p.grantee_principal_id = u.principal_id AND p.type = 'CO' AND p.state = 'D'), \
             CAST(e.value AS nvarchar(200)) \
             FROM sys.database_principals u LEFT JOIN sys.extended_properties e ON e.class = 4 AND e.major_id = u.principal_id AND e.name = {} \
             WHERE u.name LIKE N'jit!_%' ESCAPE N'!'",
            text(PROPERTY)
        );
        let mut seen = Observation::default();
        for database in databases {
            if !is_open(link, database).await? {
                continue;
            }
            let looking = self.inside(database, async |link| {
                sees_sessions(link).await?;
                Ok((link.rows(&look).await?, link.rows(ROLES).await?, sessions_of_accounts(link, names.iter().map(String::as_str)).await?))
            });
            match looking.await {
                Ok((rows, roles, sessions)) => {
                    let is_ours =
                        |row: &&link::Row| column(row, 2).starts_with(&format!("{} ", self.store)) || names.iter().any(|name| *name == column(row, 0));
                    let account = |row: &link::Row| {
                        let (name, can_login) = (column(row, 0), column(row, 1) == "0");
                        (name.clone(), ObservedAccount { name, can_login, expires_in: None, rights: Some(BTreeSet::new()) })
                    };
                    let mut ours: BTreeMap<String, ObservedAccount> = rows.iter().filter(is_ours).map(account).collect();
                    has_roles(&mut ours, &roles);
                    seen.accounts.extend(ours.into_values());
                    let known = |name: &String| names.contains(name) || seen.accounts.iter().any(|account| account.name == *name);
                    let theirs: Vec<Backend> = sessions.into_iter().filter(|backend| known(&backend.account)).collect();
                    seen.backends.extend(theirs);
                }
                // its accounts lie inside: what is not seen may be there all the same
                Err(error) => {
                    tracing::warn!(%database, %error, "a database cannot be looked into");
                    seen.unseen.insert(database.clone());
                }
            }
        }
        Ok(seen)
    }

    /// Runs work on the connection that is kept inside a database of Azure, where each database shows and ends its own sessions only.
    async fn inside<T>(&self, database: &DatabaseName, work: impl AsyncFnOnce(&mut Link) -> Result<T, TargetError>) -> Result<T, TargetError> {
        let kept = self.inside.lock().await.remove(database);
        let mut link = match kept {
            Some(link) => link,
            None => self.connect(database.as_str()).await?,
        };
        let result = work(&mut link).await;
        if !matches!(result, Err(TargetError::Unreachable(_) | TargetError::Silent(_))) {
            self.inside.lock().await.insert(database.clone(), link);
        }
        result
    }

    /// The login: made with all that the engine takes, or with less where it does not know an option.
    async fn provide_login(&self, link: &mut Link, spec: &AccountSpec<'_>) -> Result<(), TargetError> {
        let (login, password) = (name(spec.account.as_str()), text(spec.password.expose()));
        let known = format!("SELECT CONVERT(nvarchar(200), sid, 2) FROM sys.sql_logins WHERE name = {}", text(spec.account.as_str()));
        if let Some(row) = link.rows(&known).await?.first() {
            if !column(row, 0).eq_ignore_ascii_case(self.sid(spec.pass).trim_start_matches("0x")) {
                return Err(TargetError::Refused(format!("there is a login {} already, which Daypass did not make", spec.account)));
            }
            link.run(&format!("ALTER LOGIN {login} WITH PASSWORD = {password}")).await?;
            return link.run(&format!("ALTER LOGIN {login} ENABLE")).await;
        }
        let create =
            format!("CREATE LOGIN {login} WITH PASSWORD = {password}, SID = {}, DEFAULT_DATABASE = {}", self.sid(spec.pass), name(spec.database.as_str()));
        match link.run(&format!("{create}, CHECK_EXPIRATION = OFF, CHECK_POLICY = ON")).await {
            Err(TargetError::Refused(_)) => link.run(&create).await,
            done => done,
        }
    }

    /// The user and its rights, in the database.
    async fn provide_user(&self, link: &mut Link, spec: &AccountSpec<'_>) -> Result<(), TargetError> {
        let user = name(spec.account.as_str());
        let known = format!(
            "SELECT CONVERT(nvarchar(200), u.sid, 2), CAST((SELECT e.value FROM sys.extended_properties e \
             WHERE e.class = 4 AND e.major_id = u.principal_id AND e.name = {}) AS nvarchar(200)) FROM sys.database_principals u WHERE u.name = {}",
            text(PROPERTY),
            text(spec.account.as_str())
        );
        let rows = link.rows(&known).await?;
        let exists = !rows.is_empty();
        let is_ours = |row: &link::Row| if link.azure { column(row, 1) == self.property(spec.pass) } else { self.is_marked(&column(row, 0)) };
        if !rows.iter().all(is_ours) {
            return Err(TargetError::Refused(format!("there is a user {} in the database already, whom Daypass did not make", spec.account)));
        }
        if link.azure {
            let password = text(spec.password.expose());
            if exists {
                link.run(&format!("ALTER USER {user} WITH PASSWORD = {password}")).await?;
                link.attempt(&format!("GRANT CONNECT TO {user}")).await?;
            } else {
                // the marker in the same batch and transaction: there is never a user of ours without one
                link.run(&format!(
                    "SET XACT_ABORT ON; BEGIN TRANSACTION; CREATE USER {user} WITH PASSWORD = {password}, DEFAULT_SCHEMA = [dbo]; \
                     EXEC sp_addextendedproperty @name = {}, @value = {}, @level0type = N'USER', @level0name = {}; COMMIT TRANSACTION",
                    text(PROPERTY),
                    text(&self.property(spec.pass)),
                    text(spec.account.as_str())
                ))
                .await?;
            }
        } else if exists {
            // one that came inside a copy, or lost its login, gets it back
            link.run(&format!("ALTER USER {user} WITH LOGIN = {user}")).await?;
        } else if let Err(TargetError::Refused(_)) = link.run(&format!("CREATE USER {user} FOR LOGIN {user} WITH DEFAULT_SCHEMA = [dbo]")).await {
            link.run(&format!("CREATE USER {user} FOR LOGIN {user}")).await?;
        }
        let roles = self.rights(spec.environment, spec.access, spec.grants, spec.sessions);
        for role in &roles {
            link.run(&format!("ALTER ROLE {role} ADD MEMBER {user}")).await?;
        }
        if exists {
            // what it has beside that was given to it by somebody
            let has: Vec<String> = link.rows(ROLES).await?.iter().filter(|row| column(row, 0) == spec.account.as_str()).map(|row| column(row, 1)).collect();
            for role in has.iter().filter(|role| !roles.contains(*role)) {
                link.run(&format!("ALTER ROLE {} DROP MEMBER {user}", name(role))).await?;
            }
        }
        for extra in spec.extras {
            link.attempt(&format!("GRANT {} TO {user}", extra.as_sql())).await?;
        }
        Ok(())
    }
}
