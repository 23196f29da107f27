//! The stand-in through its real doors: SDK calls and WebSockets.

mod api;
mod channel;
mod kms;
mod documents;
mod ports;
mod resume;
mod support;
mod tunnel;
