//! The broker against a hand-made AWS.
