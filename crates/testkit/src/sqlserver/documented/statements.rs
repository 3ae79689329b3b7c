//! Statements and procedures: the shape in which Daypass sends each, its page, and who may run it on SQL Server, on Azure SQL Database and on
//! Managed Instance; nothing where there is no such statement, or where Daypass does not send it.

use super::Edition;
use std::fmt;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Needs {
    /// Anybody may.
    Nothing,
    /// One of these on the whole server.
    Server(&'static [&'static str]),
    /// This in the database that one is in; members of `db_owner` have it.
    Inside(&'static str),
    /// One of these on the whole server, or to be a member of `db_owner` in the database that is named.
    Named(&'static [&'static str]),
    /// To be a user of the database that is named.
    Connect,
    /// The role `dbmanager` in `master`.
    Manager,
    /// That, or to be a member of `db_owner` in the database that is named.
    ManagerOrOwner,
    /// To be the administrator of the server.
    Administrator,
}

pub struct Statement {
    pub shape: &'static str,
    pub page: &'static str,
    pub server: Option<Needs>,
    pub azure: Option<Needs>,
    pub managed: Option<Needs>,
}

impl Statement {
    pub fn needs(&self, edition: Edition) -> Option<Needs> {
        match edition {
            Edition::Server(_) => self.server,
            Edition::Azure => self.azure,
            Edition::Managed => self.managed,
        }
    }
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Nothing => f.write_str("nothing"),
            Server(rights) => write!(f, "{} on the server", rights.join(" or ")),
            Inside(what) => write!(f, "{what} in the database"),
            Named(rights) => write!(f, "db_owner in the database, or {} on the server", rights.join(" or ")),
            Connect => f.write_str("to be a user of the database"),
            Manager => f.write_str("dbmanager"),
            ManagerOrOwner => f.write_str("dbmanager, or db_owner in the database"),
            Administrator => f.write_str("to be the server's administrator"),
        }
    }
}

use Needs::{Administrator, Connect, Inside, Manager, ManagerOrOwner, Named, Nothing, Server};

const LOGIN: Needs = Server(&["ALTER ANY LOGIN"]);
const USER: Needs = Inside("ALTER ANY USER");
const CONTROL: Needs = Inside("CONTROL");
const CREATE: Needs = Server(&["CREATE ANY DATABASE", "ALTER ANY DATABASE"]);
const ALTER: Needs = Named(&["ALTER ANY DATABASE"]);
const SYSADMIN: Needs = Server(&["CONTROL SERVER"]);

/// The same wherever it is.
const fn all(shape: &'static str, page: &'static str, needs: Needs) -> Statement {
    Statement { shape, page, server: Some(needs), azure: Some(needs), managed: Some(needs) }
}

const fn not_azure(shape: &'static str, page: &'static str, needs: Needs) -> Statement {
    Statement { shape, page, server: Some(needs), azure: None, managed: Some(needs) }
}

const fn only_server(shape: &'static str, page: &'static str, needs: Needs) -> Statement {
    Statement { shape, page, server: Some(needs), azure: None, managed: None }
}

const fn only_azure(shape: &'static str, page: &'static str, needs: Needs) -> Statement {
    Statement { shape, page, server: None, azure: Some(needs), managed: None }
}

const CREATE_LOGIN: &str = "CREATE LOGIN (Transact-SQL)";
const ALTER_LOGIN: &str = "ALTER LOGIN (Transact-SQL)";
const CREATE_USER: &str = "CREATE USER (Transact-SQL)";
const ALTER_USER: &str = "ALTER USER (Transact-SQL)";
const ALTER_ROLE: &str = "ALTER ROLE (Transact-SQL)";
const AUTHORIZATION: &str = "ALTER AUTHORIZATION (Transact-SQL)";
const ALTER_DATABASE: &str = "ALTER DATABASE (Transact-SQL)";
const SET_OPTIONS: &str = "ALTER DATABASE SET Options (Transact-SQL)";
const BACKUP: &str = "BACKUP (Transact-SQL)";

pub const STATEMENTS: &[Statement] = &[
    only_server(
        "CREATE LOGIN <name> WITH PASSWORD = <text>, SID = <bytes>, DEFAULT_DATABASE = <name>, CHECK_EXPIRATION = OFF, CHECK_POLICY = ON",
        CREATE_LOGIN,
        LOGIN,
    ),
    not_azure("CREATE LOGIN <name> WITH PASSWORD = <text>, SID = <bytes>, DEFAULT_DATABASE = <name>", CREATE_LOGIN, LOGIN),
    not_azure("CREATE LOGIN <name> WITH PASSWORD = <text>, DEFAULT_DATABASE = <name>", CREATE_LOGIN, LOGIN),
    not_azure("ALTER LOGIN <name> DISABLE", ALTER_LOGIN, LOGIN),
    not_azure("ALTER LOGIN <name> ENABLE", ALTER_LOGIN, LOGIN),
    not_azure("ALTER LOGIN <name> WITH PASSWORD = <text>", ALTER_LOGIN, LOGIN),
    not_azure("DROP LOGIN <name>", "DROP LOGIN (Transact-SQL)", LOGIN),
    not_azure("ALTER SERVER ROLE <name> DROP MEMBER <name>", "ALTER SERVER ROLE (Transact-SQL)", SYSADMIN),
    not_azure("CREATE USER <name> FOR LOGIN <name> WITH DEFAULT_SCHEMA = <name>", CREATE_USER, USER),
    not_azure("CREATE USER <name> FOR LOGIN <name>", CREATE_USER, USER),
    only_azure("CREATE USER <name> WITH PASSWORD = <text>, DEFAULT_SCHEMA = <name>", CREATE_USER, USER),
    not_azure("ALTER USER <name> WITH LOGIN = <name>", ALTER_USER, CONTROL),
    all("ALTER USER <name> WITH PASSWORD = <text>", ALTER_USER, USER),
    all("ALTER APPLICATION ROLE <name> WITH PASSWORD = <text>", "ALTER APPLICATION ROLE (Transact-SQL)", Inside("ALTER ANY APPLICATION ROLE")),
    all("DROP USER <name>", "DROP USER (Transact-SQL)", USER),
    all("CREATE ROLE <name>", "CREATE ROLE (Transact-SQL)", Inside("CREATE ROLE")),
    all("ALTER ROLE <name> ADD MEMBER <name>", ALTER_ROLE, Inside("membership in db_owner, for a fixed role")),
    all("ALTER ROLE <name> DROP MEMBER <name>", ALTER_ROLE, Inside("membership in db_owner, for a fixed role")),
    all("GRANT <rest>", "GRANT Database Permissions (Transact-SQL)", CONTROL),
    all("DENY <rest>", "DENY Database Permissions (Transact-SQL)", CONTROL),
    all("REVOKE <rest>", "REVOKE Database Permissions (Transact-SQL)", CONTROL),
    all("ALTER AUTHORIZATION ON SCHEMA::<name> TO <name>", AUTHORIZATION, Inside("TAKE OWNERSHIP")),
    all("ALTER AUTHORIZATION ON ROLE::<name> TO <name>", AUTHORIZATION, Inside("TAKE OWNERSHIP")),
    all("ALTER AUTHORIZATION ON FULLTEXT CATALOG::<name> TO <name>", AUTHORIZATION, Inside("TAKE OWNERSHIP")),
    all("ALTER AUTHORIZATION ON OBJECT::<name>.<name> TO <name>", AUTHORIZATION, Inside("TAKE OWNERSHIP")),
    not_azure("ALTER AUTHORIZATION ON DATABASE::<name> TO <name>", AUTHORIZATION, SYSADMIN),
    all("DROP PROCEDURE <name>.<name>", "DROP PROCEDURE (Transact-SQL)", Inside("ALTER on the schema")),
    all("DROP FUNCTION <name>.<name>", "DROP FUNCTION (Transact-SQL)", Inside("ALTER on the schema")),
    all("DROP VIEW <name>.<name>", "DROP VIEW (Transact-SQL)", Inside("ALTER on the schema")),
    all("DROP TRIGGER <name>.<name>", "DROP TRIGGER (Transact-SQL)", Inside("ALTER on the table")),
    all("DROP SYNONYM <name>.<name>", "DROP SYNONYM (Transact-SQL)", Inside("ALTER on the schema")),
    not_azure("DROP QUEUE <name>.<name>", "DROP QUEUE (Transact-SQL)", Inside("membership in db_owner or db_ddladmin")),
    not_azure("DROP AGGREGATE <name>.<name>", "DROP AGGREGATE (Transact-SQL)", Inside("ALTER on the schema")),
    all("DROP CERTIFICATE <name>", "DROP CERTIFICATE (Transact-SQL)", CONTROL),
    all("DROP SYMMETRIC KEY <name>", "DROP SYMMETRIC KEY (Transact-SQL)", CONTROL),
    all("DROP ASYMMETRIC KEY <name>", "DROP ASYMMETRIC KEY (Transact-SQL)", CONTROL),
    not_azure("DROP SERVICE <name>", "DROP SERVICE (Transact-SQL)", Inside("membership in db_owner or db_ddladmin")),
    not_azure("DROP ROUTE <name>", "DROP ROUTE (Transact-SQL)", Inside("membership in db_owner or db_ddladmin")),
    not_azure("DROP REMOTE SERVICE BINDING <name>", "DROP REMOTE SERVICE BINDING (Transact-SQL)", Inside("membership in db_owner")),
    not_azure("DROP CONTRACT <name>", "DROP CONTRACT (Transact-SQL)", Inside("membership in db_owner or db_ddladmin")),
    not_azure("DROP MESSAGE TYPE <name>", "DROP MESSAGE TYPE (Transact-SQL)", Inside("membership in db_owner or db_ddladmin")),
    only_server("DROP ASSEMBLY <name>", "DROP ASSEMBLY (Transact-SQL)", CONTROL),
    all("EXECUTE AS USER = <text>", "EXECUTE AS (Transact-SQL)", Inside("IMPERSONATE on the user")),
    all("REVERT", "REVERT (Transact-SQL)", Nothing),
    all("DISABLE TRIGGER <name> ON DATABASE", "DISABLE TRIGGER (Transact-SQL)", Inside("ALTER ANY DATABASE DDL TRIGGER")),
    Statement {
        shape: "KILL <number>",
        page: "KILL (Transact-SQL)",
        server: Some(Server(&["ALTER ANY CONNECTION"])),
        azure: Some(Inside("KILL DATABASE CONNECTION")),
        managed: Some(Server(&["ALTER ANY CONNECTION"])),
    },
    not_azure("USE <name>", "USE (Transact-SQL)", Connect),
    all("SET LOCK_TIMEOUT <number>", "SET LOCK_TIMEOUT (Transact-SQL)", Nothing),
    all("SET XACT_ABORT ON", "SET XACT_ABORT (Transact-SQL)", Nothing),
    all("BEGIN TRANSACTION", "BEGIN TRANSACTION (Transact-SQL)", Nothing),
    all("COMMIT TRANSACTION", "COMMIT TRANSACTION (Transact-SQL)", Nothing),
    only_server("BACKUP DATABASE <name> TO DISK = <text> WITH COPY_ONLY, FORMAT, INIT, CHECKSUM, COMPRESSION", BACKUP, Named(&["CONTROL SERVER"])),
    only_server("BACKUP DATABASE <name> TO DISK = <text> WITH COPY_ONLY, FORMAT, INIT, CHECKSUM", BACKUP, Named(&["CONTROL SERVER"])),
    only_server("RESTORE FILELISTONLY FROM DISK = <text>", "RESTORE Statements - FILELISTONLY (Transact-SQL)", CREATE),
    only_server("RESTORE DATABASE <name> FROM DISK = <text> WITH MOVE <rest>", "RESTORE Statements (Transact-SQL)", CREATE),
    only_azure("CREATE DATABASE <name> AS COPY OF <name>", "CREATE DATABASE (Transact-SQL)", Manager),
    Statement {
        shape: "CREATE DATABASE <name> COLLATE <name>",
        page: "CREATE DATABASE (Transact-SQL)",
        server: Some(CREATE),
        azure: Some(Manager),
        managed: None,
    },
    Statement { shape: "CREATE DATABASE <name>", page: "CREATE DATABASE (Transact-SQL)", server: Some(CREATE), azure: Some(Manager), managed: None },
    only_server("ALTER DATABASE CURRENT MODIFY NAME = <name>", ALTER_DATABASE, ALTER),
    only_server("ALTER DATABASE CURRENT SET SINGLE_USER WITH ROLLBACK IMMEDIATE", SET_OPTIONS, ALTER),
    only_server("ALTER DATABASE CURRENT SET MULTI_USER WITH ROLLBACK IMMEDIATE", SET_OPTIONS, ALTER),
    only_server("ALTER DATABASE CURRENT SET NEW_BROKER", SET_OPTIONS, ALTER),
    only_azure("ALTER DATABASE <name> MODIFY NAME = <name>", ALTER_DATABASE, ManagerOrOwner),
    only_server("ALTER DATABASE <name> SET SINGLE_USER WITH ROLLBACK IMMEDIATE", SET_OPTIONS, ALTER),
    only_server("ALTER DATABASE <name> SET MULTI_USER WITH ROLLBACK IMMEDIATE", SET_OPTIONS, ALTER),
    only_server("ALTER DATABASE <name> SET OFFLINE WITH ROLLBACK IMMEDIATE", SET_OPTIONS, ALTER),
    only_server("ALTER DATABASE <name> SET ONLINE", SET_OPTIONS, Server(&["ALTER ANY DATABASE"])),
    only_server("ALTER DATABASE <name> SET AUTO_UPDATE_STATISTICS_ASYNC OFF", SET_OPTIONS, ALTER),
    only_server("ALTER DATABASE <name> SET AUTO_UPDATE_STATISTICS_ASYNC ON", SET_OPTIONS, ALTER),
    only_server("ALTER DATABASE <name> SET TRUSTWORTHY OFF", SET_OPTIONS, SYSADMIN),
    only_server("ALTER DATABASE <name> SET DB_CHAINING OFF", SET_OPTIONS, SYSADMIN),
    Statement { shape: "DROP DATABASE <name>", page: "DROP DATABASE (Transact-SQL)", server: Some(ALTER), azure: Some(Manager), managed: None },
    all("EXEC sp_addextendedproperty @name = <text>, @value = <text>", "sp_addextendedproperty (Transact-SQL)", Inside("membership in db_owner")),
    all(
        "EXEC sp_addextendedproperty @name = <text>, @value = <text>, @level0type = <text>, @level0name = <text>",
        "sp_addextendedproperty (Transact-SQL)",
        Inside("membership in db_owner"),
    ),
    all("EXEC sp_updateextendedproperty @name = <text>, @value = <text>", "sp_updateextendedproperty (Transact-SQL)", Inside("membership in db_owner")),
    all("EXEC sp_dropextendedproperty @name = <text>", "sp_dropextendedproperty (Transact-SQL)", Inside("membership in db_owner")),
    all(
        "EXEC sp_dropextendedproperty @name = <text>, @level0type = <text>, @level0name = <text>",
        "sp_dropextendedproperty (Transact-SQL)",
        Inside("membership in db_owner"),
    ),
    only_azure(
        "EXEC sp_set_database_firewall_rule @name = <text>, @start_ip_address = <text>, @end_ip_address = <text>",
        "sp_set_database_firewall_rule (Azure SQL Database)",
        CONTROL,
    ),
    only_azure("EXEC sp_delete_database_firewall_rule @name = <text>", "sp_delete_database_firewall_rule (Azure SQL Database)", Administrator),
    only_azure("DBCC FLUSHAUTHCACHE", "DBCC FLUSHAUTHCACHE (Transact-SQL)", Inside("KILL DATABASE CONNECTION")),
];
