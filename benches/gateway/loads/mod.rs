//! The loads: what the clients do, and what is measured of the proxies.

mod connect;
mod cut;
mod idle;
mod keystrokes;
mod stream;

pub use connect::connect;
pub use cut::cut;
pub use idle::idle;
pub use keystrokes::keystrokes;
pub use stream::{burst, paced};
