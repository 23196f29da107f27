//! What is going on, and what went on?
