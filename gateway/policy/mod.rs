//! May they, and still?
