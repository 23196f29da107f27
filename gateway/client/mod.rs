//! The engineer's side: a data-channel client.

pub mod aws_config_file;
pub mod channel;
pub mod device_login;
mod ending;
mod error;
pub mod gateway;
pub mod key_cache;
pub mod plugin;
pub mod ports;
pub mod profile;
pub mod sign_in;
pub mod socks;
pub mod start;
pub mod target;
pub mod terminal;
pub mod trust;
mod web_identity;

pub use ending::{Ending, exit_code};
pub use error::ClientError;
pub use gateway::{Gateway, Opened};
pub use profile::Profile;
pub use trust::Trust;
