//! Are both legs still moving?
