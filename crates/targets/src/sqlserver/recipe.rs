//! What an administrator needs, as T-SQL to paste and as checks.

use super::{
    MASTER, SqlServer, column,
    link::{name, text},
};
use crate::Check;
use daypass_core::names::DatabaseName;

/// What `env test` asks on the server, with the sentence that mends it.
const SERVER: &[(&str, &str, &str)] = &[
    ("the administrator may make logins", "ALTER ANY LOGIN", "GRANT ALTER ANY LOGIN TO …"),
    ("the administrator may end sessions", "ALTER ANY CONNECTION", "GRANT ALTER ANY CONNECTION TO …"),
    ("the administrator sees who is connected", "VIEW SERVER STATE", "GRANT VIEW SERVER STATE TO …"),
];

pub async fn test(target: &SqlServer, database: &DatabaseName) -> Vec<Check> {
    let reach = |ok, what: String| Check { what, ok, remedy: "Check host, port, TLS, and the administrator's name and password.".to_owned() };
    let mut link = match target.connect(MASTER).await {
        Ok(link) => link,
        Err(error) => return vec![reach(false, error.to_string())],
    };
    let there = format!("SELECT CAST(name AS nvarchar(128)) FROM sys.databases WHERE name = {} AND state = 0", text(database.as_str()));
    let found = link.exists(&there).await;
    let mut checks = vec![match found {
        Ok(true) => reach(true, format!("the database {database} is reachable")),
        Ok(false) => {
            Check { what: format!("there is no open database {database}"), ok: false, remedy: "Check the name and the state of the database.".to_owned() }
        }
        Err(error) => reach(false, error.to_string()),
    }];
    let azure = link.azure;
    for (what, permission, remedy) in SERVER.iter().filter(|_| !azure) {
        let answer = link.rows(&format!("SELECT CAST(HAS_PERMS_BY_NAME(NULL, NULL, '{permission}') AS nvarchar(5))")).await;
        let ok = answer.is_ok_and(|rows| rows.first().is_some_and(|row| column(row, 0) == "1"));
        checks.push(Check { what: (*what).to_owned(), ok, remedy: format!("{remedy} (the recipe: daypass env recipe)") });
    }
    if azure {
        let sees = target
            .within(&mut link, database.as_str(), async |link| {
                super::sees_sessions(link).await?;
                link.rows(super::CONNECTED).await
            })
            .await;
        checks.push(Check {
            what: "the administrator sees who is connected".to_owned(),
            ok: sees.is_ok(),
            remedy: "GRANT VIEW DATABASE STATE TO … in the database; on Basic, S0, S1 and in elastic pools, in master: \
                     ALTER SERVER ROLE [##MS_ServerStateReader##] ADD MEMBER …"
                .to_owned(),
        });
    }
    let member = target.within(&mut link, database.as_str(), async |link| link.rows("SELECT CAST(IS_ROLEMEMBER('db_owner') AS nvarchar(5))").await).await;
    checks.push(Check {
        what: "the administrator may make users and put them into the database's roles".to_owned(),
        ok: member.is_ok_and(|rows| rows.first().is_some_and(|row| column(row, 0) == "1")),
        remedy: "ALTER ROLE db_owner ADD MEMBER … in the database (the recipe: daypass env recipe)".to_owned(),
    });
    checks
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
         -- connected to {database}:\n\
         CREATE USER {admin} FOR LOGIN {admin};\n\
         GO\n\
         ALTER ROLE db_owner ADD MEMBER {admin};      -- users, roles, sessions; with --enforce azure_sql_firewall also the rules\n\
         GO\n\
         -- Azure lets only the server's own administrator delete a rule; any other makes it one that lets nobody in.\n"
    )
}
