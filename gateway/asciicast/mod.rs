//! How is a session written down? Asciicast v2 with ms times, no I/O.
//!
//! A recording is one header line and then one JSON line an event. Beside
//! the codes every player knows (`o i r m x`) the gateway writes two that
//! players skip: `s` (which sequence number and stream the next event is,
//! see [`Marks`]) and `b` (the exact bytes of the next event as base64,
//! when they were not UTF-8, see [`exact_output`]). The recording of a port
//! session has `f` and `t` instead of output, see [`FlowEvent`].

mod encode;
mod event;
mod flow;
mod flow_state;
mod header;
mod marks;
mod runes;

pub use encode::encode_event;
pub use event::{Event, EventCode, Peek, peek};
pub use flow::{Direction, FlowEvent, FlowNote, Guess, Mode, Side, Traffic, encode_flow, encode_traffic};
pub use flow_state::{FlowConnection, FlowStage, FlowState, FramePlace, INPUT_DIGEST};
pub use header::Header;
pub use marks::{Covered, Handover, Marks, Stream, encode_mark, exact_output};
pub use runes::{Piece, Runes, encode_piece};

/// Why a line is not asciicast v2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CastError {
    /// The first line is not a header.
    #[error("the header is not asciicast v2: {0}")]
    Header(String),
    /// A line is not an event.
    #[error("the line is not an event: {0}")]
    Event(String),
}

#[cfg(test)]
mod tests;
