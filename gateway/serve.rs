//! Build the rooms, listen, drain.
