//! Alerts that are to be published, kept until SNS has taken them.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::sessions::{signed, unsigned};
use super::{Registry, RegistryError};

/// Most alerts that wait: some megabytes. What comes then is refused, so
/// that whoever raises many cannot push out the first ones.
pub const ALERTS_MAX: u32 = 10_000;

/// An alert on its way to SNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingAlert {
    /// The same whenever the same alert is raised; it is in the message.
    pub id: String,
    /// When it was raised, ms since the Unix epoch.
    pub at_ms: u64,
    /// The message's subject.
    pub subject: String,
    /// The message.
    pub body: String,
}

impl Registry {
    /// Keeps alerts, all or none of those that have room; how many have not.
    ///
    /// One that waits already is not kept twice.
    pub async fn keep_alerts(&self, node: &str, alerts: &[WaitingAlert]) -> Result<usize, RegistryError> {
        let statement = "INSERT INTO waiting_alerts (id, at_ms, node, subject, body, tries) \
             VALUES ($1, $2, $3, $4, $5, 0) ON CONFLICT (id) DO NOTHING";
        let mut transaction = self.writer.begin().await?;
        let waiting: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM waiting_alerts").fetch_one(&mut *transaction).await?;
        let mut room = u64::from(ALERTS_MAX).saturating_sub(unsigned(waiting));
        let mut refused = 0;
        for alert in alerts {
            if room == 0 {
                refused += 1;
                continue;
            }
            let done = sqlx::query(statement)
                .bind(&alert.id)
                .bind(signed(alert.at_ms))
                .bind(node)
                .bind(&alert.subject)
                .bind(&alert.body)
                .execute(&mut *transaction)
                .await?;
            room = room.saturating_sub(done.rows_affected());
        }
        transaction.commit().await?;
        Ok(refused)
    }

    /// The alert to publish next: the one that was tried least, then oldest.
    ///
    /// It is one of this node's, or one raised before `left_ms`: the node
    /// that raised it may never come back.
    pub async fn next_alert(&self, node: &str, left_ms: u64) -> Result<Option<WaitingAlert>, RegistryError> {
        let statement = "SELECT * FROM waiting_alerts WHERE node = $1 OR at_ms < $2 \
             ORDER BY tries, at_ms, id LIMIT 1";
        let row =
            sqlx::query(statement).bind(node).bind(signed(left_ms)).fetch_optional(&self.reader).await?;
        row.as_ref().map(read).transpose()
    }

    /// How many wait.
    pub async fn alerts_waiting(&self) -> Result<u64, RegistryError> {
        let waiting: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM waiting_alerts").fetch_one(&self.reader).await?;
        Ok(unsigned(waiting))
    }

    /// Notes that SNS did not take an alert: others have their turn first.
    pub async fn alert_tried(&self, id: &str) -> Result<(), RegistryError> {
        let statement = "UPDATE waiting_alerts SET tries = tries + 1 WHERE id = $1";
        sqlx::query(statement).bind(id).execute(&self.writer).await?;
        Ok(())
    }

    /// Forgets an alert that SNS has taken.
    pub async fn alert_published(&self, id: &str) -> Result<(), RegistryError> {
        sqlx::query("DELETE FROM waiting_alerts WHERE id = $1").bind(id).execute(&self.writer).await?;
        Ok(())
    }

    /// Forgets alerts that were raised before; how many there were.
    pub async fn expire_alerts(&self, before_ms: u64) -> Result<u64, RegistryError> {
        let statement = "DELETE FROM waiting_alerts WHERE at_ms < $1";
        Ok(sqlx::query(statement).bind(signed(before_ms)).execute(&self.writer).await?.rows_affected())
    }
}

fn read(row: &SqliteRow) -> Result<WaitingAlert, RegistryError> {
    Ok(WaitingAlert {
        id: row.try_get("id")?,
        at_ms: unsigned(row.try_get("at_ms")?),
        subject: row.try_get("subject")?,
        body: row.try_get("body")?,
    })
}
