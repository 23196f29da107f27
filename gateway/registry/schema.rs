//! The tables, and the steps that bring an older file up to date.

use sqlx::sqlite::SqlitePool;

use super::RegistryError;

/// Each step is applied once, in order, in one transaction with the rest.
///
/// A step that was released is never edited: add another one.
const STEPS: &[&[&str]] =
    &[FIRST, SESSION_KEYS, TAKING_OVER, ARCHIVED, REVOCATIONS, VISITS, LEDGER, PROOFS, ALERTS];

/// Sessions and decisions.
pub(super) const FIRST: &[&str] = &[
    "CREATE TABLE decisions (
        id TEXT PRIMARY KEY,
        at_ms BIGINT NOT NULL,
        principal TEXT NOT NULL,
        owner TEXT NOT NULL,
        action TEXT NOT NULL,
        target TEXT,
        document TEXT,
        session_id TEXT,
        allowed BOOLEAN NOT NULL,
        policies TEXT NOT NULL,
        sentence TEXT NOT NULL,
        policy_digest TEXT NOT NULL,
        source_ip TEXT)",
    "CREATE INDEX decisions_newest ON decisions (at_ms, id)",
    "CREATE INDEX decisions_of_session ON decisions (session_id, at_ms, id)",
    "CREATE INDEX decisions_of_owner ON decisions (owner, at_ms, id)",
    "CREATE TABLE sessions (
        id TEXT PRIMARY KEY,
        principal TEXT NOT NULL,
        owner TEXT NOT NULL,
        target TEXT NOT NULL,
        instance TEXT NOT NULL,
        document TEXT NOT NULL,
        kind TEXT NOT NULL,
        reason TEXT,
        state TEXT NOT NULL,
        started_ms BIGINT NOT NULL,
        ended_ms BIGINT,
        end_reason TEXT,
        upstream_id TEXT,
        decision_id TEXT NOT NULL REFERENCES decisions (id),
        node TEXT NOT NULL,
        recording_sha256 TEXT,
        bytes_in BIGINT NOT NULL,
        bytes_out BIGINT NOT NULL)",
    "CREATE INDEX sessions_newest ON sessions (started_ms, id)",
    "CREATE INDEX sessions_of_target ON sessions (target, started_ms, id)",
    "CREATE INDEX sessions_of_owner ON sessions (owner, started_ms, id)",
    "CREATE INDEX sessions_of_state ON sessions (state, started_ms, id)",
];

const SESSION_KEYS: &[&str] = &["CREATE TABLE session_keys (
        session_id TEXT PRIMARY KEY REFERENCES sessions (id),
        kms_key_id TEXT NOT NULL,
        challenge TEXT,
        sealed BLOB NOT NULL)"];
/// What a process needs that takes over an earlier one's sessions.
const TAKING_OVER: &[&str] = &[
    "ALTER TABLE sessions ADD COLUMN state_ms BIGINT",
    "CREATE TABLE session_starts (
        session_id TEXT PRIMARY KEY REFERENCES sessions (id),
        given TEXT NOT NULL)",
];

/// Recordings that are archived or held; not all of them have a session.
const ARCHIVED: &[&str] = &[
    "CREATE TABLE archived (
        session_id TEXT PRIMARY KEY,
        at_ms BIGINT NOT NULL,
        ended_ms BIGINT NOT NULL,
        bytes BIGINT NOT NULL,
        sha256 TEXT NOT NULL)",
    "CREATE INDEX archived_oldest ON archived (ended_ms, session_id)",
    "CREATE TABLE holds (
        session_id TEXT PRIMARY KEY,
        at_ms BIGINT NOT NULL,
        holder TEXT NOT NULL,
        reason TEXT)",
];

const REVOCATIONS: &[&str] = &["CREATE TABLE revocations (
        id TEXT PRIMARY KEY,
        revoked TEXT NOT NULL,
        reason TEXT NOT NULL,
        revoked_by TEXT NOT NULL,
        at_ms BIGINT NOT NULL,
        until_ms BIGINT,
        lifted_ms BIGINT,
        lifted_by TEXT)"];

/// Browsers that are signed in, and the codes that sign one in.
///
/// Both are known by a digest: who reads the file cannot use them.
const VISITS: &[&str] = &[
    "CREATE TABLE visits (
        id TEXT PRIMARY KEY,
        principal TEXT NOT NULL,
        principal_id TEXT NOT NULL,
        began_ms BIGINT NOT NULL,
        until_ms BIGINT NOT NULL)",
    "CREATE INDEX visits_of_principal ON visits (principal_id, began_ms)",
    "CREATE TABLE visit_codes (
        id TEXT PRIMARY KEY,
        principal TEXT NOT NULL,
        good_until_ms BIGINT NOT NULL,
        until_ms BIGINT NOT NULL)",
];

/// What was asked and what came of it, and each way from one to the other.
///
/// Decisions of an earlier version are not shipped: they lack the request.
const LEDGER: &[&str] = &[
    "ALTER TABLE decisions ADD COLUMN request TEXT",
    "ALTER TABLE decisions ADD COLUMN obligations TEXT",
    "ALTER TABLE decisions ADD COLUMN took_us BIGINT",
    "ALTER TABLE decisions ADD COLUMN node TEXT",
    "ALTER TABLE decisions ADD COLUMN shipped_ms BIGINT",
    "UPDATE decisions SET shipped_ms = 0",
    "CREATE INDEX decisions_to_ship ON decisions (node, at_ms, id) WHERE shipped_ms IS NULL",
    "CREATE INDEX decisions_of_target ON decisions (target, at_ms, id)",
    "ALTER TABLE sessions ADD COLUMN source_identity TEXT",
    "CREATE INDEX sessions_of_decision ON sessions (decision_id)",
    "CREATE INDEX sessions_of_upstream ON sessions (upstream_id)",
    "CREATE INDEX sessions_of_recording ON sessions (recording_sha256)",
    "CREATE INDEX sessions_of_source ON sessions (source_identity, started_ms, id)",
];

/// Who has proved who they are, for sessions that outlive a sign-in.
const PROOFS: &[&str] = &[
    "CREATE TABLE proofs (
        principal_id TEXT PRIMARY KEY,
        principal TEXT NOT NULL,
        until_ms BIGINT NOT NULL)",
    "CREATE INDEX proofs_oldest ON proofs (until_ms)",
];

/// What is to be published, until it was.
const ALERTS: &[&str] = &[
    "CREATE TABLE waiting_alerts (
        id TEXT PRIMARY KEY,
        at_ms BIGINT NOT NULL,
        node TEXT NOT NULL,
        subject TEXT NOT NULL,
        body TEXT NOT NULL,
        tries BIGINT NOT NULL)",
    "CREATE INDEX waiting_alerts_next ON waiting_alerts (tries, at_ms, id)",
    "CREATE INDEX waiting_alerts_oldest ON waiting_alerts (at_ms)",
];

/// Applies the steps the file lacks; refuses a file from the future.
pub(super) async fn migrate(pool: &SqlitePool) -> Result<(), RegistryError> {
    // The write lock is taken first, so that two starts cannot both apply.
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)")
        .execute(&mut *transaction)
        .await?;
    let found: Option<i64> =
        sqlx::query_scalar("SELECT MAX(version) FROM schema_version").fetch_one(&mut *transaction).await?;
    let found = found.unwrap_or(0);
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    if found > known {
        return Err(RegistryError::Newer { found, known });
    }
    for step in STEPS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        for statement in *step {
            sqlx::query(*statement).execute(&mut *transaction).await?;
        }
    }
    if found < known {
        sqlx::query("DELETE FROM schema_version").execute(&mut *transaction).await?;
        sqlx::query("INSERT INTO schema_version (version) VALUES ($1)")
            .bind(known)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(())
}
