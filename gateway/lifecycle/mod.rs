//! In which order? One session, top to bottom.
