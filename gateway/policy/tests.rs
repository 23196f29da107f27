//! The bridge, asked from outside: what loads, what is denied, and why.
use super::*;
use std::path::PathBuf;

fn shipped() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("policies")
}

#[test]
fn the_shipped_policies_load() {
    let policy = Policy::load(&shipped()).unwrap_or_else(|error| panic!("{error}"));
    assert!(policy.len() > 10);
    assert!(policy.warnings().is_empty());
}
