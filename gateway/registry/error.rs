//! Why the registry did not answer.

use std::path::PathBuf;

use crate::error::{ApiError, Code};

/// Why the registry did not answer.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The URL names no SQLite file.
    #[error("the registry's url must be sqlite:<path of a file>")]
    Url,
    /// The database file cannot be made or opened.
    #[error("the registry's file {} cannot be opened: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file was written by a later version of the program.
    #[error("the registry has schema {found}, this build knows {known}: run the newer build")]
    Newer {
        /// The schema of the file.
        found: i64,
        /// The newest schema of this build.
        known: i64,
    },
    /// The database refused or failed.
    #[error("the registry's database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// A row does not read back as what was written.
    #[error("the registry's row {id} is damaged: {column}")]
    Damaged {
        /// The row's id.
        id: String,
        /// The column that does not parse.
        column: &'static str,
    },
    /// A page token is not one of ours.
    #[error("the NextToken is not one that this gateway gave out")]
    InvalidNextToken,
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::InvalidNextToken => {
                Self::client(Code::InvalidNextToken, "The NextToken is not valid: start again without one.")
            }
            _ => Self::gateway(
                "The gateway cannot read or write its session registry: try again, then tell whoever runs it.",
            ),
        }
    }
}
