//! One page of rows, newest first, and the token that asks for the next.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sqlx::QueryBuilder;
use sqlx::sqlite::Sqlite;

use super::RegistryError;

/// Most rows in one page; the SSM API's `MaxResults` ends here too.
const ROWS_MAX: usize = 200;
/// Longest token looked at, bytes: base64 of a number and a 96-byte id.
const TOKEN_MAX: usize = 200;

/// One page of rows, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// What to ask with for the rows after these, if there are any.
    pub next: Option<String>,
}

/// How many rows, and after which.
pub(super) struct Cut {
    limit: usize,
    after: Option<(i64, String)>,
}

impl Cut {
    /// Reads a caller's wish; a limit of 0 or above 200 becomes 1 or 200.
    pub(super) fn new(limit: usize, token: Option<&str>) -> Result<Self, RegistryError> {
        let after = token.map(read_token).transpose()?;
        Ok(Self { limit: limit.clamp(1, ROWS_MAX), after })
    }

    /// Adds the position, the order and the limit to a query on `time`.
    pub(super) fn push(&self, query: &mut QueryBuilder<Sqlite>, time: &'static str) {
        if let Some((ms, id)) = &self.after {
            query.push(" AND (").push(time).push(", id) < (").push_bind(*ms);
            query.push(", ").push_bind(id.clone()).push(")");
        }
        query.push(" ORDER BY ").push(time).push(" DESC, id DESC LIMIT ");
        // One more than asked for tells whether there is a next page.
        query.push_bind(i64::try_from(self.limit + 1).unwrap_or(i64::MAX));
    }

    /// Makes the page of the rows found; `key` gives a row's time and id.
    pub(super) fn page<T>(&self, mut rows: Vec<T>, key: impl Fn(&T) -> (u64, &str)) -> Page<T> {
        let more = rows.len() > self.limit;
        rows.truncate(self.limit);
        let next = rows.last().filter(|_| more).map(|row| {
            let (ms, id) = key(row);
            URL_SAFE_NO_PAD.encode(format!("{ms}:{id}"))
        });
        Page { rows, next }
    }
}

fn read_token(token: &str) -> Result<(i64, String), RegistryError> {
    let read = || {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (ms, id) = text.split_once(':')?;
        Some((ms.parse().ok()?, id.to_owned()))
    };
    if token.len() > TOKEN_MAX {
        return Err(RegistryError::InvalidNextToken);
    }
    read().ok_or(RegistryError::InvalidNextToken)
}
