//! The tests of the whole program; one binary, one module a behaviour.

mod architecture;
