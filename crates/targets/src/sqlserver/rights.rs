//! Rights that were given by name in a database (sys.database_permissions): on the database, its schemas and its objects.

use super::{
    column,
    link::{Link, name},
};
use crate::TargetError;
use std::collections::BTreeSet;

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Right {
    pub grantee: String,
    permission: String,
    /// `G`: granted, `W`: and may be handed on, `D`: denied.
    state: String,
    /// `ON …`, or nothing for the database itself.
    on: String,
}

/// All of them, but for what everybody may do with the engine's own objects, and rights on single columns.
pub async fn all(link: &mut Link) -> Result<BTreeSet<Right>, TargetError> {
    let look = "SELECT USER_NAME(grantee_principal_id), permission_name, state, \
                class, SCHEMA_NAME(major_id), OBJECT_SCHEMA_NAME(major_id), \
                OBJECT_NAME(major_id) FROM sys.database_permissions WHERE state IN ('G', 'W', 'D') AND class IN (0, 1, 3) AND minor_id = 0 AND major_id >= 0";
    let right = |row: &super::link::Row| {
        let on = match column(row, 3).as_str() {
            "0" => String::new(),
            "3" => format!(" ON SCHEMA::{}", name(&column(row, 4))),
            _ => format!(" ON OBJECT::{}.{}", name(&column(row, 5)), name(&column(row, 6))),
        };
        Right { grantee: column(row, 0), permission: column(row, 1), state: column(row, 2), on }
    };
    let mine = |right: &Right| !right.grantee.is_empty() && right.grantee != "dbo";
    Ok(link.rows(look).await?.iter().map(right).filter(mine).collect())
}

impl Right {
    pub fn allows(&self) -> bool {
        self.state != "D"
    }

    /// Every user that can come in at all has this one.
    pub fn is_connect(&self) -> bool {
        self.permission == "CONNECT"
    }

    pub fn words(&self) -> String {
        format!("right of {}: {}{}", self.grantee, self.permission, self.on)
    }

    pub fn revoke(&self) -> String {
        format!("REVOKE {}{} FROM {} CASCADE", self.permission, self.on, name(&self.grantee))
    }

    pub fn grant(&self) -> String {
        let (verb, more) = match self.state.as_str() {
            "D" => ("DENY", ""),
            "W" => ("GRANT", " WITH GRANT OPTION"),
            _ => ("GRANT", ""),
        };
        format!("{verb} {}{} TO {}{more}", self.permission, self.on, name(&self.grantee))
    }
}
