//! The gateway as its users meet it: whole, over TLS, with a real shell.

// Helpers beside the tests may fail as loudly as the tests themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

mod shell;
