//! The tests of the whole program; one binary, one module a behaviour.

// Helpers of tests fail by panicking too, not only functions marked as tests.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod accounts;
mod alerts;
mod architecture;
mod archived;
mod bad_frames;
mod bad_requests;
mod caps;
mod channel_closed;
mod client_drop;
mod command_sign_in;
mod connections;
mod console;
mod denials;
mod describe;
mod follow;
mod forged;
mod handshakes;
mod held;
mod hidden_input;
mod identity_expiry;
mod keys;
mod kms;
mod ledger;
mod lost_acknowledge;
mod marks;
mod oidc;
mod operations;
mod pastes;
mod policy_changes;
mod port_restart;
mod ports;
mod read_back;
mod read_only;
mod record_before_acknowledge;
mod replay;
mod restart;
mod resume;
mod revocations;
mod search;
mod sdk;
mod shell;
mod shipper;
mod shipper_sealed;
mod shipper_weather;
mod signatures;
mod slow_clients;
mod start_once;
mod support;
mod time_limits;
mod tokens;
mod upstream_drop;
mod web_identity;
