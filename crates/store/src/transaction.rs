//! One transaction on one connection. A connection on which anything failed is thrown away: after a commit that failed, the
//! driver's idea of how deep it is in transactions and SQLite's differ, and what it wrote next would be durable in name only.

use sqlx::{Sqlite, SqliteConnection, SqlitePool, pool::PoolConnection};

pub struct Transaction {
    /// There until the commit.
    connection: Option<PoolConnection<Sqlite>>,
    begun: bool,
}

impl Transaction {
    /// Takes the write lock at once, so that what is read in it stays true until the commit.
    pub async fn begin(pool: &SqlitePool) -> Result<Self, sqlx::Error> {
        let mut this = Transaction::of_one_statement(pool).await?;
        sqlx::query("BEGIN IMMEDIATE").execute(this.connection()).await?;
        this.begun = true;
        Ok(this)
    }

    /// For a single statement, which is a transaction by itself.
    pub async fn of_one_statement(pool: &SqlitePool) -> Result<Self, sqlx::Error> {
        Ok(Transaction { connection: Some(pool.acquire().await?), begun: false })
    }

    pub fn connection(&mut self) -> &mut SqliteConnection {
        self.connection.as_mut().expect("it is there until the commit")
    }

    /// Durable when it answers.
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        if self.begun {
            sqlx::query("COMMIT").execute(self.connection()).await?;
        }
        // only now is the connection good for others
        self.connection = None;
        Ok(())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.close_on_drop();
        }
    }
}
