//! Which session upstream?
