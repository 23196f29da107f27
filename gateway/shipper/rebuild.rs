//! Puts a recording together again from the events of its log stream.
//!
//! Events may come twice and out of order; whatever is missing or altered
//! is found by the chain.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};

use data_encoding::BASE64;

use super::segment::{self, Holds, Place, RecordingEvent};
use crate::recorder::{Checkpoint, Links, is_sealed_frame};

/// Events that wait for an earlier one at the most, bytes of base64.
const WAITING_MAX: usize = 256 << 20;
/// Largest segment that is read, decompressed, bytes.
const SEGMENT_MAX: usize = 64 << 20;
/// Runs in one log stream; a gateway begins another one very rarely.
const RUNS_MAX: usize = 64;

/// Why a recording cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// No event of the recording is there.
    #[error("the log stream holds no recording")]
    Nothing,
    /// An event is not as the gateway writes them.
    #[error("a recording event is damaged: {0}")]
    Event(String),
    /// An event says it is of another session.
    #[error("an event of another session is in the log stream")]
    Foreign,
    /// Lines are not those that were shipped.
    #[error("segment {segment} (from line {line}) was altered")]
    Altered {
        /// Which segment.
        segment: u64,
        /// Its first line, counted from 1.
        line: u64,
    },
    /// Later events are there, this one is not.
    #[error("segment {segment} (from line {line}) is missing")]
    Missing {
        /// Which segment.
        segment: u64,
        /// Its first line, counted from 1.
        line: u64,
    },
    /// More events wait for a missing one than can be held.
    #[error("the log stream is out of order by more than {} MB", WAITING_MAX >> 20)]
    OutOfOrder,
    /// The copy could not be written.
    #[error("the copy of the recording cannot be written: {0}")]
    Io(#[from] io::Error),
}

/// A recording as far as the log stream has it.
#[derive(Debug)]
pub struct Rebuilt {
    /// Every line, as an open recording: `.cast.zst` without evidence.
    pub file: File,
    /// How many lines it holds.
    pub lines: u64,
    /// The evidence's JSON, if the session was sealed.
    pub evidence: Option<Vec<u8>>,
}

/// Everything that a log stream holds of a session.
pub(super) struct Rebuilds {
    /// Its runs, the likeliest first: sealed ones, then those with most lines.
    pub runs: Vec<Result<Rebuilt, RebuildError>>,
    /// The first event that belongs to no run of the session.
    pub strange: Option<RebuildError>,
    /// What says that it was signed.
    pub checkpoints: Vec<Checkpoint>,
}

/// Takes the events of one log stream, in the order they are read.
pub(super) struct Rebuild<F> {
    session: String,
    make: F,
    runs: BTreeMap<u64, Run>,
    waiting: usize,
    strange: Option<RebuildError>,
    checkpoints: Vec<Checkpoint>,
}

/// One attempt of a gateway at the whole session.
struct Run {
    file: File,
    segment: u64,
    links: Links,
    evidence: Option<Vec<u8>>,
    waiting: BTreeMap<u64, Gathered>,
    failed: Option<RebuildError>,
}

/// The parts of a segment that have come.
struct Gathered {
    place: Place,
    holds: Holds,
    parts: Vec<Option<String>>,
}

impl<F: FnMut() -> io::Result<File>> Rebuild<F> {
    /// `make` opens the file that a run's lines are kept in.
    pub(super) fn new(session: &str, make: F) -> Self {
        let (runs, checkpoints) = (BTreeMap::new(), Vec::new());
        Self { session: session.to_owned(), make, runs, waiting: 0, strange: None, checkpoints }
    }

    /// Takes one event; those of the transcript are passed over.
    ///
    /// What is wrong with a run is told of it at the end: whoever can add
    /// events to the stream must not keep others from reading what is right.
    pub(super) fn event(&mut self, message: &str) -> Result<(), RebuildError> {
        let Some(parsed) = RecordingEvent::parse(message) else {
            self.checkpoints.extend(segment::parse_checkpoint(message));
            return Ok(());
        };
        let event = match parsed {
            Ok(event) if event.session_id == self.session => event,
            Ok(_) => return self.is_strange(RebuildError::Foreign),
            Err(error) => return self.is_strange(RebuildError::Event(error.to_string())),
        };
        if !self.runs.contains_key(&event.run) && self.runs.len() >= RUNS_MAX {
            return self.is_strange(RebuildError::Event("more runs than any gateway begins".to_owned()));
        }
        let run = match self.runs.entry(event.run) {
            std::collections::btree_map::Entry::Occupied(run) => run.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => place.insert(Run::new((self.make)()?)),
        };
        let taken = run.take(&event, &mut self.waiting);
        if self.waiting > WAITING_MAX {
            return Err(RebuildError::OutOfOrder);
        }
        match taken {
            Err(RebuildError::Io(error)) => return Err(error.into()),
            Err(error) => {
                self.waiting -= run.waiting.values().map(Gathered::size).sum::<usize>();
                run.waiting.clear();
                run.failed = Some(error);
            }
            Ok(()) => {}
        }
        Ok(())
    }

    fn is_strange(&mut self, error: RebuildError) -> Result<(), RebuildError> {
        self.strange.get_or_insert(error);
        Ok(())
    }

    /// What became of every run.
    pub(super) fn finish(self) -> Rebuilds {
        let mut runs: Vec<Run> = self.runs.into_values().collect();
        runs.sort_by_key(|run| std::cmp::Reverse((run.evidence.is_some(), run.links.lines())));
        let mut checkpoints = self.checkpoints;
        checkpoints.retain(|checkpoint| checkpoint.session == self.session);
        Rebuilds { runs: runs.into_iter().map(Run::finish).collect(), strange: self.strange, checkpoints }
    }
}

impl Run {
    fn new(file: File) -> Self {
        let (links, waiting) = (Links::new(), BTreeMap::new());
        Self { file, segment: 0, links, evidence: None, waiting, failed: None }
    }

    /// Takes an event, and whatever can be added to the lines with it.
    fn take(&mut self, event: &RecordingEvent<'_>, waiting: &mut usize) -> Result<(), RebuildError> {
        if self.failed.is_some() {
            return Ok(());
        }
        *waiting += self.gather(event)?;
        while let Some(gathered) = self.ready() {
            *waiting -= gathered.size();
            self.append(gathered)?;
        }
        Ok(())
    }

    fn finish(self) -> Result<Rebuilt, RebuildError> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        let lines = self.links.lines();
        // Of the next segment some parts may not be shipped yet.
        if self.waiting.keys().any(|segment| *segment > self.segment) {
            return Err(RebuildError::Missing { segment: self.segment, line: lines + 1 });
        }
        Ok(Rebuilt { file: self.file, lines, evidence: self.evidence })
    }

    /// Keeps a part that has not come before; says how large it is.
    fn gather(&mut self, event: &RecordingEvent<'_>) -> Result<usize, RebuildError> {
        if event.segment < self.segment || self.evidence.is_some() {
            return Ok(0);
        }
        let wrong = |what: &str| RebuildError::Event(format!("segment {}: {what}", event.segment));
        if event.parts == 0 || event.parts > 10_000 {
            return Err(wrong("it has no number of parts"));
        }
        let gathered = self.waiting.entry(event.segment).or_insert_with(|| Gathered {
            place: event.place(),
            holds: event.holds,
            parts: vec![None; event.parts as usize],
        });
        if gathered.place != event.place() || gathered.parts.len() != event.parts as usize {
            return Err(wrong("two events say different things of it"));
        }
        let part = gathered.parts.get_mut(event.part as usize).ok_or_else(|| wrong("a part too many"))?;
        if part.as_deref().is_some_and(|known| known != event.data) {
            return Err(wrong("two events hold different lines"));
        }
        Ok(part.replace(event.data.to_string()).map_or(event.data.len(), |_| 0))
    }

    /// The next segment, once all its parts have come.
    fn ready(&mut self) -> Option<Gathered> {
        let next = self.waiting.first_entry()?;
        let whole = *next.key() == self.segment && next.get().parts.iter().all(Option::is_some);
        whole.then(|| next.remove())
    }

    fn append(&mut self, gathered: Gathered) -> Result<(), RebuildError> {
        let Gathered { place, holds, parts } = gathered;
        let line = self.links.lines() + 1;
        let altered = || RebuildError::Altered { segment: place.segment, line };
        let data: String = parts.into_iter().flatten().collect();
        let packed = BASE64.decode(data.as_bytes()).map_err(|_| altered())?;
        let bytes = zstd::bulk::decompress(&packed, SEGMENT_MAX).map_err(|_| altered())?;
        if place.before != self.links.head() || place.first_line != self.links.lines() {
            return Err(altered());
        }
        match holds {
            Holds::Lines => {
                self.links.extend(&bytes);
                if self.links.head() != place.after || self.links.lines() != place.first_line + place.lines {
                    return Err(altered());
                }
                // Frames of a sealed file in an open one would look like a cut.
                let packed =
                    if is_sealed_frame(&packed) == Some(true) { segment::pack(&bytes)? } else { packed };
                self.file.write_all(&packed)?;
            }
            Holds::Seal => self.evidence = Some(bytes),
        }
        self.segment += 1;
        Ok(())
    }
}

impl Gathered {
    fn size(&self) -> usize {
        self.parts.iter().flatten().map(String::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};

    use proptest::prelude::*;

    use super::super::segment::encode;
    use super::*;

    /// A frame as a sealed recording has it.
    fn sealed_frame(lines: &[u8]) -> Vec<u8> {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 9).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.write_all(lines).unwrap();
        encoder.finish().unwrap()
    }

    /// The messages of a recording cut into so many segments, and its lines.
    ///
    /// The last of them are frames of the sealed recording.
    fn shipped(segments: u64, evidence: &[u8]) -> (Vec<String>, Vec<u8>) {
        let (mut messages, mut all, mut links) = (Vec::new(), Vec::new(), Links::new());
        for segment in 0..=segments {
            let last = segment == segments;
            let lines: Vec<u8> = (0..segment + 1)
                .flat_map(|line| format!("[{segment}.{line:03},\"o\",\"x\"]\n").into_bytes())
                .collect();
            let (first_line, before) = (links.lines(), links.head());
            if !last {
                links.extend(&lines);
                all.extend_from_slice(&lines);
            }
            let (lines_in, after) = (links.lines() - first_line, links.head());
            let place = Place { run: 1, segment, first_line, lines: lines_in, before, after };
            let holds = if last { (Holds::Seal, evidence) } else { (Holds::Lines, lines.as_slice()) };
            let sealed = !last && segment > segments / 2;
            let packed = if sealed { sealed_frame(holds.1) } else { segment::pack(holds.1).unwrap() };
            let events = encode("alice-1", 5, (holds.0, &packed), &place).unwrap();
            messages.extend(events.into_iter().map(|event| event.message));
        }
        (messages, all)
    }

    fn rebuilt(messages: &[String]) -> Result<Rebuilt, RebuildError> {
        let mut rebuild = Rebuild::new("alice-1", tempfile::tempfile);
        messages.iter().try_for_each(|message| rebuild.event(message))?;
        let mut all = rebuild.finish();
        let first = if all.runs.is_empty() { Err(RebuildError::Nothing) } else { all.runs.remove(0) };
        first.map_err(|error| all.strange.unwrap_or(error))
    }

    /// Of each frame, whether it has a checksum as only sealed ones have.
    fn checksums(mut frames: &[u8]) -> Vec<bool> {
        let mut found = Vec::new();
        while !frames.is_empty() {
            found.push(is_sealed_frame(frames).unwrap());
            frames = &frames[zstd::zstd_safe::find_frame_compressed_size(frames).unwrap()..];
        }
        found
    }

    /// What does not compress, so that it has several parts.
    fn large() -> Vec<u8> {
        let mut state = 7_u64;
        let next = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..400_000).map(next).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn events_may_come_twice_and_in_any_order(order in prop::collection::vec(any::<u16>(), 24)) {
            let evidence = large();
            let (messages, lines) = shipped(9, &evidence);
            prop_assert!(messages.len() > 10 && messages.len() <= 12);
            let twice: Vec<String> = messages.iter().chain(&messages).cloned().collect();
            let mut mixed: Vec<(u16, String)> = order.into_iter().zip(twice).collect();
            mixed.sort();
            mixed.extend(messages.into_iter().map(|message| (0, message)));
            let mixed: Vec<String> = mixed.into_iter().map(|(_, message)| message).collect();
            let mut whole = rebuilt(&mixed).unwrap();
            let mut packed = Vec::new();
            whole.file.rewind().unwrap();
            whole.file.read_to_end(&mut packed).unwrap();
            prop_assert_eq!(zstd::decode_all(packed.as_slice()).unwrap(), lines);
            prop_assert_eq!(checksums(&packed), [false; 9]);
            prop_assert_eq!(whole.evidence, Some(evidence));
        }
    }

    #[test]
    fn what_is_missing_altered_or_of_another_session_is_named() {
        let (messages, _) = shipped(4, b"{}");
        let without = |at: usize| [&messages[..at], &messages[at + 1..]].concat();
        assert!(matches!(rebuilt(&without(2)), Err(RebuildError::Missing { segment: 2, line: 4 })));
        let swapped = |from: &str, to: &str| {
            let mut all = messages.clone();
            all[1] = all[1].replace(from, to);
            rebuilt(&all)
        };
        assert!(matches!(swapped("\"firstLine\":1", "\"firstLine\":2"), Err(RebuildError::Altered { .. })));
        assert!(matches!(swapped("alice-1", "alice-2"), Err(RebuildError::Foreign)));
        assert!(matches!(rebuilt(&[]), Err(RebuildError::Nothing)));
    }

    #[test]
    fn a_segment_of_which_the_last_parts_are_not_there_yet_is_not_missing() {
        let (messages, _) = shipped(4, &large());
        assert!(messages.len() >= 6, "the evidence has several parts");
        let begun = rebuilt(&messages[..messages.len() - 1]).unwrap();
        assert_eq!((begun.lines, begun.evidence), (10, None));
    }
}
