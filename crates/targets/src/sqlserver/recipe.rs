//! What an administrator needs, as T-SQL to paste and as checks.

use super::{
    MASTER, SqlServer, column,
    link::{Link, name, text},
};
use crate::{Check, TargetError};
use daypass_core::{
    names::{AccountName, DatabaseName},
    pass::Access,
    secret::Secret,
};

/// What `env test` asks on the server, with the sentence that mends it.
const SERVER: &[(&str, &str, &str)] = &[
    ("the administrator may make logins", "ALTER ANY LOGIN", "GRANT ALTER ANY LOGIN TO …"),
    ("the administrator may end sessions", "ALTER ANY CONNECTION", "GRANT ALTER ANY CONNECTION TO …"),
];

pub async fn test(target: &SqlServer, database: &DatabaseName) -> Vec<Check> {
    let away = |error: TargetError| {
        Check::missing(format!("the administrator does not reach the server: {error}"), "Check host, port, TLS, and the administrator's name and password.")
    };
    let mut link = match target.connect(MASTER).await {
        Ok(link) => link,
        Err(error) => return vec![away(error)],
    };
    let there = format!("SELECT name FROM sys.databases WHERE name = {} AND state = 0", text(database.as_str()));
    let found = link.exists(&there).await;
    let mut checks = vec![match found {
        Ok(true) => Check::fine(format!("the database {database} is there, and online")),
        Ok(false) => Check::missing(format!("there is no database {database} that is online"), "Check the name and the state of the database."),
        Err(error) => away(error),
    }];
    let azure = link.azure;
    for (what, permission, remedy) in SERVER.iter().filter(|_| !azure) {
        let answer = link.rows(&format!("SELECT HAS_PERMS_BY_NAME(NULL, NULL, '{permission}')")).await;
        let ok = answer.is_ok_and(|rows| rows.first().is_some_and(|row| column(row, 0) == "1"));
        checks.push(Check::needs(ok, *what, format!("{remedy} (the recipe: daypass env recipe)")));
    }
    if !azure {
        // by either of two rights, as when it is needed
        let sees = super::sees_sessions(&mut link).await;
        checks.push(Check::needs(sees.is_ok(), "the administrator sees who is connected", "GRANT VIEW SERVER STATE TO … (the recipe: daypass env recipe)"));
    }
    if azure {
        let sees = target
            .within(&mut link, database.as_str(), async |link| {
                super::sees_sessions(link).await?;
                link.rows(super::CONNECTED).await
            })
            .await;
        checks.push(Check::needs(
            sees.is_ok(),
            "the administrator sees who is connected",
            "GRANT VIEW DATABASE STATE TO … in the database; on Basic, S0, S1 and in elastic pools, in master: \
             ALTER SERVER ROLE [##MS_ServerStateReader##] ADD MEMBER …",
        ));
    }
    let member = target.within(&mut link, database.as_str(), async |link| link.rows("SELECT IS_ROLEMEMBER('db_owner')").await).await;
    checks.push(Check::needs(
        member.is_ok_and(|rows| rows.first().is_some_and(|row| column(row, 0) == "1")),
        "the administrator may make users and put them into the database's roles",
        "ALTER ROLE db_owner ADD MEMBER … in the database (the recipe: daypass env recipe)",
    ));
    let version = "SELECT CAST(SERVERPROPERTY('ProductVersion') AS nvarchar(128)), CAST(SERVERPROPERTY('Edition') AS nvarchar(128))";
    if let Ok(Some(rows)) = link.attempt(version).await
        && let Some(row) = rows.first()
    {
        checks.push(Check::fine(format!("the server is version {}, {}", column(row, 0), column(row, 1))));
    }
    let policies = "SELECT name FROM sys.security_policies WHERE is_enabled = 1";
    let policies = target.within(&mut link, database.as_str(), async |link| link.attempt(policies).await).await.ok().flatten().unwrap_or_default();
    if !policies.is_empty() {
        let names: Vec<String> = policies.iter().map(|row| column(row, 0)).collect();
        checks.push(Check::note(
            format!("security policies hide rows: {}", crate::some_of(&names)),
            "Accounts see the rows that their predicates let them see, perhaps none; if that is not meant, the predicate has to let jit_ accounts through.",
        ));
    }
    checks
}

/// As somebody who is in with an account.
pub async fn look_around(
    target: &SqlServer,
    account: &AccountName,
    password: &Secret,
    database: &DatabaseName,
    access: Access,
) -> Result<Vec<Check>, TargetError> {
    let mut link = target.connect_as(account, password, database).await?;
    let word = access.as_str();
    let mut checks = Vec::new();
    let may = async |link: &mut Link, right: &str| {
        let ask = format!("SELECT HAS_PERMS_BY_NAME(DB_NAME(), 'DATABASE', '{right}')");
        Ok::<_, TargetError>(link.rows(&ask).await?.first().is_some_and(|row| column(row, 0) == "1"))
    };
    let denied =
        "Something in the database denies it to public or to the roles of accounts (db_datareader, db_datawriter): look for DENY in sys.database_permissions.";
    checks.push(Check::needs(may(&mut link, "SELECT").await?, format!("{word}: an account reads the whole database"), denied));
    if access == Access::ReadWrite {
        let mut all = true;
        for right in ["INSERT", "UPDATE", "DELETE"] {
            all &= may(&mut link, right).await?;
        }
        checks.push(Check::needs(all, format!("{word}: an account writes in the whole database"), denied));
        let state = link.rows("SELECT CAST(DATABASEPROPERTYEX(DB_NAME(), 'Updateability') AS nvarchar(128))").await?;
        let read_only = state.first().is_some_and(|row| column(row, 0) == "READ_ONLY");
        checks.push(Check::needs(
            !read_only,
            format!("{word}: the database takes changes"),
            "ALTER DATABASE … SET READ_WRITE; a secondary replica takes none.",
        ));
    }
    Ok(checks)
}

/// The least that an administrator needs, as T-SQL to paste: on a server with logins, and on Azure SQL Database.
pub fn recipe(admin: &str, database: &str) -> String {
    let (admin, database) = (name(admin), name(database));
    format!(
        "-- SQL Server 2016 to 2025 and Azure SQL Managed Instance, as sysadmin. The login is none.\n\
         USE [master];\n\
         CREATE LOGIN {admin} WITH PASSWORD = N'choose-one', CHECK_EXPIRATION = OFF;\n\
         GRANT ALTER ANY LOGIN TO {admin};            -- to make and drop the logins of passes\n\
         GRANT ALTER ANY CONNECTION TO {admin};       -- to end sessions of accounts whose time is over\n\
         GRANT VIEW SERVER STATE TO {admin};          -- to see that none is left\n\
         GO\n\
         USE {database};\n\
         CREATE USER {admin} FOR LOGIN {admin};\n\
         ALTER ROLE db_owner ADD MEMBER {admin};      -- only db_owner may add members to db_datareader and db_datawriter\n\
         GO\n\
         -- only if Daypass is to move databases (daypass move): backups are made as db_owner, restores and names take\n\
         USE [master]; GRANT CREATE ANY DATABASE TO {admin}; GRANT ALTER ANY DATABASE TO {admin};\n\
         GO\n\
         -- and a firewall rule on the server: port 1433 from the gateway's address only\n\
         \n\
         -- Azure SQL Database, as the server's administrator: accounts are contained users, so nothing of them is made in master.\n\
         -- connected to master:\n\
         CREATE LOGIN {admin} WITH PASSWORD = N'choose-one';\n\
         GO\n\
         CREATE USER {admin} FOR LOGIN {admin};       -- to read sys.databases\n\
         GO\n\
         -- who is connected: Basic, S0, S1 and elastic pools show it to this role only\n\
         ALTER SERVER ROLE [##MS_ServerStateReader##] ADD MEMBER {admin};\n\
         GO\n\
         -- only if Daypass is to move databases (daypass move): copies and drops take this role\n\
         ALTER ROLE dbmanager ADD MEMBER {admin};\n\
         GO\n\
         -- connected to {database}:\n\
         CREATE USER {admin} FOR LOGIN {admin};\n\
         GO\n\
         ALTER ROLE db_owner ADD MEMBER {admin};      -- users, roles, sessions; with --enforce azure_sql_firewall also the rules\n\
         GO\n\
         -- Azure lets only the server's own administrator delete a rule; any other makes it one that lets nobody in.\n"
    )
}
