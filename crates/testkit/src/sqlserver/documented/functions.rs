//! Functions and variables, as their pages describe them.

use super::{EVERYWHERE, NOT_AZURE, On};
use crate::sqlserver::types::{MAX, SYSNAME, Type, Type::*};

pub struct Function {
    pub name: &'static str,
    pub page: &'static str,
    pub on: On,
    pub returns: Type,
}

const fn row(name: &'static str, page: &'static str, on: On, returns: Type) -> Function {
    Function { name, page, on, returns }
}

pub const FUNCTIONS: &[Function] = &[
    row("SERVERPROPERTY", "SERVERPROPERTY (Transact-SQL)", EVERYWHERE, Variant),
    row("DATABASEPROPERTYEX", "DATABASEPROPERTYEX (Transact-SQL)", EVERYWHERE, Variant),
    row("HAS_PERMS_BY_NAME", "HAS_PERMS_BY_NAME (Transact-SQL)", EVERYWHERE, Int),
    row("IS_ROLEMEMBER", "IS_ROLEMEMBER (Transact-SQL)", EVERYWHERE, Int),
    row("HAS_DBACCESS", "HAS_DBACCESS (Transact-SQL)", NOT_AZURE, Int),
    row("DB_ID", "DB_ID (Transact-SQL)", EVERYWHERE, Int),
    row("DB_NAME", "DB_NAME (Transact-SQL)", EVERYWHERE, NVarChar(128)),
    row("COL_LENGTH", "COL_LENGTH (Transact-SQL)", EVERYWHERE, SmallInt),
    row("OBJECT_ID", "OBJECT_ID (Transact-SQL)", EVERYWHERE, Int),
    row("OBJECT_DEFINITION", "OBJECT_DEFINITION (Transact-SQL)", EVERYWHERE, NVarChar(MAX)),
    row("OBJECT_NAME", "OBJECT_NAME (Transact-SQL)", EVERYWHERE, SYSNAME),
    row("OBJECT_SCHEMA_NAME", "OBJECT_SCHEMA_NAME (Transact-SQL)", EVERYWHERE, SYSNAME),
    row("SCHEMA_NAME", "SCHEMA_NAME (Transact-SQL)", EVERYWHERE, SYSNAME),
    row("USER_NAME", "USER_NAME (Transact-SQL)", EVERYWHERE, NVarChar(128)),
    row("SUSER_SNAME", "SUSER_SNAME (Transact-SQL)", NOT_AZURE, NVarChar(128)),
    row("DATABASE_PRINCIPAL_ID", "DATABASE_PRINCIPAL_ID (Transact-SQL)", EVERYWHERE, Int),
    row("@@SPID", "@@SPID (Transact-SQL)", EVERYWHERE, SmallInt),
];
