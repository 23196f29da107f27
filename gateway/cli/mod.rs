//! The commands.

pub mod demo;
pub mod policy;
pub mod replay;
pub mod serve;
