//! The integration tests: one binary, so that the gateway is linked once.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed, and says where"
)]

mod architecture;
mod replay;
mod shell;
mod support;
