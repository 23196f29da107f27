//! Postern: the one guarded door between engineers and their AWS machines.
//!
//! The rooms below stand in the order in which a session meets them; each
//! answers one question. A room imports only rooms listed above it in the
//! table of ARCHITECTURE.md, and `tests/architecture.rs` keeps that true.

// Nouns: session id, target, document, principal.
pub mod session;
// What a client is told: AWS code, sentence, and who is to blame.
pub mod error;
// Every metric, its name, unit and labels, in one table.
pub mod metrics;

// How do bytes cross the network in few system calls?
pub mod socket;
// Which proxy leads out, and how is a connection got through it?
pub mod proxy;

// How is a session written down? The asciicast format, without I/O.
pub mod asciicast;
// What was on the screen, and which commands were typed? No I/O either.
pub mod transcript;

// Who is calling?
pub mod identity;
// May they, and still?
pub mod policy;
// Which session upstream?
pub mod broker;
// What is going on, and what went on?
pub mod registry;

// Is it on disk, whole and unaltered?
pub mod recorder;
// Where is recording X?
pub mod store;
// Where are recordings kept for good?
pub mod archive;
// Has CloudWatch Logs got it?
pub mod shipper;
// What did they see?
pub mod replay;
// Which recording says X?
pub mod catalogue;
// Is somebody to be told?
pub mod alerts;
// Are both legs still moving?
pub mod relay;
// In which order? One session, top to bottom.
pub mod lifecycle;
// How do callers reach us?
pub mod front_door;
// What does a browser see?
pub mod console;

// The engineer's side: a data-channel client.
pub mod client;
// AWS, for one machine: SSM API, message gateway and agent.
pub mod local_ssm;

// One `Config` made of the rooms' configurations.
pub mod config;
// Build the rooms, listen, drain.
pub mod serve;
// The commands an engineer, an SRE or a security person types.
pub mod cli;
