//! What recording costs: CPU of one message of 1 KB, all told.

use std::time::Duration;

use super::cpu_seconds;
use postern::asciicast::Header;
use postern::recorder::{Position, Recorder, Recording, Stream};
use postern::session::{Durability, SessionId};

/// Payload of one output message, bytes; the agent's size.
const MESSAGE: usize = 1024;
/// Sessions that write at the same time: as in the relay's burst, and many.
const SESSIONS: [usize; 2] = [10, 200];
/// Messages of one round, and rounds.
const MESSAGES: usize = 200_000;
const ROUNDS: usize = 5;
/// Messages until the bench waits for the journal, as a window of acks does.
const WINDOW: usize = 200;

/// Records what the workloads wrote once more, as fast as it goes.
///
/// Each session shows all of it from a place of its own on. CPU is that of the
/// whole process, so the journal's and the compression's share are in it.
pub fn measure(recorder: &Recorder, shown: &[u8]) {
    let messages: Vec<&[u8]> = shown.chunks_exact(MESSAGE).collect();
    for sessions in SESSIONS {
        let mut playing: Vec<Playing> = (0..sessions)
            .map(|number| Playing::begin(recorder, sessions, number, messages.len() * number / sessions))
            .collect();
        let mut rounds: Vec<f64> = (0..ROUNDS).map(|_| round(&mut playing, &messages)).collect();
        rounds.sort_by(f64::total_cmp);
        println!(
            "{sessions} sessions: {:.1} µs of CPU a message of 1 KB ({:.1}–{:.1}, {ROUNDS} rounds of {MESSAGES})",
            rounds[ROUNDS / 2],
            rounds[0],
            rounds[ROUNDS - 1],
        );
        // Sealed, it would take the time of the next rounds.
        playing.into_iter().for_each(|playing| playing.recording.leave());
    }
}

/// A session and its place in what is shown.
struct Playing {
    recording: Recording,
    from: usize,
    sequence: usize,
    position: Position,
}

impl Playing {
    fn begin(recorder: &Recorder, of: usize, number: usize, from: usize) -> Self {
        let id = SessionId::parse(&format!("speed-{of}-{number}")).unwrap();
        let recording = recorder.begin(&id, Header::new(0), Durability::Process).unwrap();
        let position = recording.position();
        Self { recording, from, sequence: 0, position }
    }

    fn output(&mut self, messages: &[&[u8]]) {
        while !self.recording.has_room() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let message = messages[(self.from + self.sequence) % messages.len()];
        // The agent waits a millisecond after each.
        let at_ms = self.sequence as u64;
        self.position = self.recording.output(at_ms, self.sequence as i64, Stream::Output, message).unwrap();
        self.sequence += 1;
    }

    fn wait(&self) {
        while self.recording.recorded() < self.position {
            std::thread::sleep(Duration::from_micros(500));
        }
    }
}

/// Microseconds of CPU a message, until the journal has all of them.
fn round(playing: &mut [Playing], messages: &[&[u8]]) -> f64 {
    let (before, sessions) = (cpu_seconds(), playing.len());
    for number in 0..MESSAGES {
        let one = &mut playing[number % sessions];
        one.output(messages);
        if number % WINDOW == WINDOW - 1 {
            one.wait();
        }
    }
    playing.iter().for_each(Playing::wait);
    (cpu_seconds() - before) * 1e6 / MESSAGES as f64
}
