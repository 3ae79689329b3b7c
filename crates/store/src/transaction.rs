//! One transaction on one connection. A connection on which anything failed is thrown away: after a commit that failed, the
//! driver's idea of how deep it is in transactions and SQLite's differ, and what it wrote next would be durable in name only.

use sqlx::{Sqlite, SqliteConnection, SqlitePool, pool::PoolConnection};

pub struct Transaction(Option<PoolConnection<Sqlite>>);

impl Transaction {
    /// Takes the write lock at once, so that what is read in it stays true until the commit.
    pub async fn begin(pool: &SqlitePool) -> Result<Self, sqlx::Error> {
        let mut this = Transaction(Some(pool.acquire().await?));
        sqlx::query("BEGIN IMMEDIATE").execute(this.connection()).await?;
        Ok(this)
    }

    pub fn connection(&mut self) -> &mut SqliteConnection {
        self.0.as_mut().expect("it is there until the commit")
    }

    /// Durable when it answers.
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        sqlx::query("COMMIT").execute(self.connection()).await?;
        // only now is the connection good for others
        self.0 = None;
        Ok(())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(connection) = &mut self.0 {
            connection.close_on_drop();
        }
    }
}
