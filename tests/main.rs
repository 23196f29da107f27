//! The tests of the whole program; one binary, one module a behaviour.

// Helpers of tests fail by panicking too, not only functions marked as tests.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod architecture;
mod shell;
mod support;
