//! One Config made of the rooms' configurations.
