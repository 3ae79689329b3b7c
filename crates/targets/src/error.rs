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
