//! The bytes of the SSM data channel.
