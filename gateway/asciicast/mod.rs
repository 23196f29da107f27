//! How is a session written down?
