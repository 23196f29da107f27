//! The commands.

/// `postern policy …`.
pub mod policy;
