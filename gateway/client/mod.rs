//! The engineer's side: a data-channel client.

mod error;
pub mod gateway;
pub mod profile;
pub mod trust;

pub use error::ClientError;
pub use gateway::{Gateway, Opened};
pub use profile::Profile;
pub use trust::Trust;
