//! Where is recording X?
