//! The engineer's side: a data-channel client.
