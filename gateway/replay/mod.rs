//! What did they see? Reads recordings, plays them, writes them as files.
//!
//! [`Timeline`] reads a recording event by event, [`Player`] decides what a
//! terminal shows when (time is an argument), [`play`] runs it on the real
//! terminal, [`export`] and [`plain`] write it elsewhere.

mod conversation;
mod export;
mod flows;
mod follow;
mod lines;
mod outline;
mod pcapng;
mod places;
mod player;
mod queries;
mod scenes;
mod screen;
mod source;
mod terminal;
mod timeline;
mod version3;

use std::io;

pub use export::{Format, export, plain};
pub use flows::{Flow, FlowTable, flow_table, holds_flows};
pub use follow::follow;
pub use outline::{Outline, Outliner};
pub use places::{commands, find};
pub use player::{Key, Player, Settings, Wait};
pub use scenes::{Scenes, Shown};
pub use terminal::{Played, play};
pub use timeline::{End, Place, Timeline};

use crate::asciicast::CastError;

/// Why a recording cannot be read, played or written.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The file cannot be read.
    #[error("cannot read the recording: {0}")]
    Read(io::Error),
    /// The result cannot be written.
    #[error("cannot write: {0}")]
    Write(io::Error),
    /// The bytes of the connections were not recorded.
    #[error(
        "this recording holds no captured traffic: only a port session whose policy says @capture_traffic does"
    )]
    NoTraffic,
    /// Connections have no screen.
    #[error("a port session has no screen to follow; `postern sessions show` tells its connections")]
    NoScreen,
    /// The file holds nothing yet.
    #[error("the recording is empty")]
    Empty,
    /// The file is no asciicast v2 or v3, compressed or not.
    #[error("this is not a recording: {0}")]
    NotARecording(String),
    /// The compressed bytes are damaged.
    #[error("the recording is damaged at byte {at} of the file: {why}")]
    Damaged {
        /// Bytes from the start of the file.
        at: u64,
        /// What the decoder said.
        why: String,
    },
    /// A line is no event.
    #[error("line {line} of the recording: {why}")]
    Line {
        /// Counted from 1, the header.
        line: u64,
        /// What is wrong with it.
        why: CastError,
    },
    /// A line is longer than any event may be.
    #[error("line {line} of the recording is longer than {max} bytes")]
    LongLine {
        /// Counted from 1, the header.
        line: u64,
        /// The bound.
        max: usize,
    },
}

#[cfg(test)]
mod tests;
