//! The commands.

/// `postern policy …`.
pub mod policy;
pub mod replay;
