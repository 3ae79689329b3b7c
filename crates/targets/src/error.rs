//! Failures of a target, in the words of somebody who administers it. All are worth another try: targets come back.

#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error("the target is not reachable: {0}")]
    Unreachable(String),
    #[error("the target does not answer within {0} seconds")]
    Silent(u64),
    #[error("the target has no database {0}")]
    NoDatabase(String),
    #[error("the target refused: {0}")]
    Refused(String),
    #[error("the account still has connections that do not end")]
    StillConnected,
}

impl TargetError {
    /// The server has no connection left (PostgreSQL: SQLSTATE 53300; SQL Server: 10928, 10929, 17809).
    pub fn is_full(&self) -> bool {
        self.has_code(&["53300", "10928", "10929", "17809"])
    }

    /// Somebody holds on to what is to be changed (PostgreSQL: 55P03), or changes it in the same moment (XX000).
    pub fn is_held_on_to(&self) -> bool {
        self.has_code(&["55P03", "XX000"])
    }

    /// The server does not take the administrator's password.
    pub fn is_refused_login(&self) -> bool {
        self.has_code(&["28P01", "28000", "18456"])
    }

    /// PostgreSQL does not know a setting that is asked for (42704).
    pub fn is_unknown_setting(&self) -> bool {
        self.has_code(&["42704"])
    }

    fn has_code(&self, codes: &[&str]) -> bool {
        matches!(self, TargetError::Refused(why) if codes.iter().any(|code| why.starts_with(&format!("{code}:"))))
    }
}

impl From<tokio_postgres::Error> for TargetError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(db) => {
                let detail = db.detail().map(|d| format!(" ({d})")).unwrap_or_default();
                TargetError::Refused(format!("{}: {}{detail}", db.code().code(), db.message()))
            }
            None => {
                // the cause says more than the outermost words; none of them holds the password
                let mut text = error.to_string();
                let mut source = std::error::Error::source(&error);
                while let Some(inner) = source {
                    text = format!("{text}: {inner}");
                    source = inner.source();
                }
                TargetError::Unreachable(text)
            }
        }
    }
}
