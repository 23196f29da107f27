//! Follows a session's lines and tells what a person wants to read of them.

use super::connections::Connections;
use super::event::{self, About, Happened, What};
use crate::asciicast::{Event, EventCode, FlowEvent, Header};
use crate::session::printable;
use crate::transcript::{Command, Text, Transcript};

/// What was output and typed, as far as the lines went.
pub(super) struct Readable {
    about: About,
    /// None if no transcript is shipped.
    following: Option<Box<Following>>,
}

struct Following {
    begun: bool,
    text: Text,
    last_ms: u64,
    connections: Connections,
    /// None if the header has no usable terminal.
    commands: Option<Transcript>,
}

impl Readable {
    /// A follower that has seen no line, not even the header.
    pub(super) fn of(about: About, header: &Header, wanted: bool) -> Self {
        let following = wanted.then(|| {
            let commands = Transcript::of(header).ok();
            let connections = Connections::of(header);
            Box::new(Following { begun: false, text: Text::default(), last_ms: 0, connections, commands })
        });
        Self { about, following }
    }

    /// What every event of the session says.
    pub(super) fn about(&self) -> &About {
        &self.about
    }

    /// Follows whole lines; the first ones begin with the header.
    pub(super) fn follow(&mut self, lines: &[u8]) -> Vec<Happened> {
        let mut happened = Vec::new();
        if let Some(following) = &mut self.following {
            for line in lines.split_inclusive(|byte| *byte == b'\n') {
                following.line(line, &mut happened);
            }
        }
        happened
    }

    /// What is left at the end of the recording.
    pub(super) fn finish(&mut self) -> Vec<Happened> {
        let mut happened = Vec::new();
        if let Some(following) = &mut self.following {
            let mut lines = Vec::new();
            following.text.finish(&mut lines);
            event::output(following.last_ms, lines, &mut happened);
            following.connections.finish(following.last_ms, &mut happened);
            let rest = following.commands.take().map(|commands| commands.finish().commands);
            happened.extend(rest.unwrap_or_default().into_iter().map(command));
        }
        happened
    }
}

impl Following {
    fn line(&mut self, line: &[u8], happened: &mut Vec<Happened>) {
        if !std::mem::replace(&mut self.begun, true) {
            happened.push(Happened { time_ms: 0, what: What::Start });
            return;
        }
        // Lines of other programs may be anything; ours are events.
        let Ok(event) = Event::parse(line) else { return };
        let time_ms = event.time_ms;
        self.last_ms = time_ms;
        match event.code {
            EventCode::Output => {
                let mut lines = Vec::new();
                self.text.output(&event.data, &mut lines);
                event::output(time_ms, lines, happened);
            }
            EventCode::Resize => {
                happened.push(Happened { time_ms, what: What::Resize(printable(&event.data)) });
            }
            EventCode::Marker if self.commands.as_ref().is_some_and(|commands| commands.has_told(&event)) => {
            }
            EventCode::Marker => {
                happened.push(Happened { time_ms, what: What::Notice(printable(&event.data)) });
            }
            EventCode::FLOW => {
                // One that cannot be read takes nothing from the others.
                if let Some(Ok(flow)) = FlowEvent::of(&event) {
                    self.connections.follow(time_ms, flow, happened);
                }
            }
            _ => {}
        }
        if let Some(commands) = &mut self.commands {
            commands.event(&event);
            happened.extend(commands.take().commands.into_iter().map(command));
        }
    }
}

fn command(command: Command) -> Happened {
    Happened { time_ms: command.time_ms, what: What::Command(command.text, command.source.as_str()) }
}
