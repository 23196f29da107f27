//! The tests of the whole program; one binary, one module a behaviour.

// Helpers of tests fail by panicking too, not only functions marked as tests.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod architecture;
mod channel_closed;
mod client_drop;
mod denials;
mod replay;
mod resume;
mod shell;
mod signatures;
mod start_once;
mod support;
mod time_limits;
mod tokens;
mod upstream_drop;
