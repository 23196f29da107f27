//! AWS, for one machine.
