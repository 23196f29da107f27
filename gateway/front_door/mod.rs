//! How do callers reach us?
