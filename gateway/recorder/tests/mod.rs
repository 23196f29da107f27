//! Tests.

mod checkpoint;
mod crash;
mod damage;
mod disk;
mod forged;
mod recording;
mod reopen;
mod sealed;
mod sealing;
mod segments;
mod shipment;

use std::fs;
use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::read::LineReader;
use super::*;
use crate::asciicast::Event;

/// A recorder on a spool that goes away with it.
struct Rig {
    recorder: Option<Recorder>,
    metrics: Arc<Metrics>,
    dir: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let recorder = Some(open(dir.path(), &metrics).unwrap());
        Self { recorder, metrics, dir }
    }

    fn recorder(&self) -> &Recorder {
        self.recorder.as_ref().unwrap()
    }

    fn begin_on_disk(&self, id: &str) -> Recording {
        self.recorder().begin(&session(id), header(id), Durability::Disk).unwrap()
    }

    fn begin(&self, id: &str) -> Recording {
        self.recorder().begin(&session(id), header(id), Durability::Process).unwrap()
    }

    fn path(&self, id: &str) -> PathBuf {
        self.recorder().spool().path(&session(id))
    }

    /// The same without a recorder.
    fn path_of(&self, id: &str) -> PathBuf {
        Spool::at(&self.dir.path().join("spool")).path(&session(id))
    }

    fn recorder_journal_bytes(&self) -> u64 {
        let journal = fs::read_dir(self.dir.path().join("spool/journal")).unwrap();
        journal.map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
    }

    fn keys(&self) -> [PublicKey; 1] {
        [PublicKey::read(&self.dir.path().join("keys/key.pub")).unwrap()]
    }

    /// A second recorder on a copy of the spool, as after a SIGKILL now.
    ///
    /// The threads go on while it is copied: what is made of something comes
    /// after it, so that nothing falls between. Journal, checkpoints, recordings.
    fn crashed(&self) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let is_recording = |path: &Path| path.to_string_lossy().ends_with(RECORDING_SUFFIX);
        for (folder, recordings) in
            [("keys", false), ("spool/journal", false), ("spool", false), ("spool", true)]
        {
            let copies = dir.path().join(folder);
            fs::create_dir_all(&copies).unwrap();
            for entry in fs::read_dir(self.dir.path().join(folder)).unwrap() {
                let from = entry.unwrap().path();
                if is_recording(&from) == recordings && from.is_file() {
                    copy_if_there(&from, &copies);
                }
            }
        }
        Self { recorder: None, metrics: Arc::new(Metrics::new().unwrap()), dir }
    }

    /// Starts again; nobody goes on with what was left.
    fn restart(&mut self) {
        self.start_again();
        let recorder = self.recorder();
        recorder.left().iter().for_each(|id| drop(recorder.seal_left(id)));
    }

    /// Starts again and leaves what was left as it is.
    fn start_again(&mut self) {
        self.recorder = None;
        self.recorder = Some(open(self.dir.path(), &self.metrics).unwrap());
    }

    fn verify(&self, id: &str) -> Result<Report, Damage> {
        verify(&self.dir.path().join("spool").join(format!("{id}.cast.zst")), &self.keys())
    }

    fn evidence(&self, id: &str) -> Evidence {
        match self.verify(id).unwrap() {
            Report::Sealed(evidence) => *evidence,
            other => panic!("{other:?}"),
        }
    }
}

/// Copies a file into a folder, unless a thread has just put it away.
fn copy_if_there(from: &Path, folder: &Path) {
    match fs::copy(from, folder.join(from.file_name().unwrap())) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        copied => drop(copied.unwrap()),
    }
}

fn open(dir: &Path, metrics: &Arc<Metrics>) -> Result<Recorder, RecorderError> {
    let key = SigningKey::open(&dir.join("keys/key"))?;
    Recorder::open(RecorderConfig { spool: dir.join("spool") }, key, metrics.clone())
}

fn session(id: &str) -> SessionId {
    SessionId::parse(id).unwrap()
}

fn header(id: &str) -> Header {
    let mut header = Header::new(1_763_800_000);
    header.postern = serde_json::json!({ "session": id }).as_object().cloned();
    header
}

/// The files in a spool whose names end so.
fn names(rig: &Rig, end: &str) -> Vec<String> {
    let names = fs::read_dir(rig.dir.path().join("spool")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(end)).collect()
}

/// Waits until the position survives the process.
async fn recorded(recording: &mut Recording, position: Position) {
    poll_fn(|context| recording.poll_recorded(context, position)).await.unwrap();
}

/// The lines of a recording as text.
fn lines(path: &Path) -> Vec<String> {
    let mut reader = LineReader::new(fs::File::open(path).unwrap());
    let mut lines = Vec::new();
    while let Some(line) = reader.next_line().unwrap() {
        lines.push(String::from_utf8(line.to_vec()).unwrap());
    }
    lines
}

/// The events of a recording, without its header.
fn events(path: &Path) -> Vec<Event> {
    lines(path).iter().skip(1).map(|line| Event::parse(line.as_bytes()).unwrap()).collect()
}

/// The bytes of a stream and the sequence numbers of its messages.
fn output(events: &[Event], stream: Stream) -> (Vec<u8>, Vec<Option<i64>>) {
    let covered = crate::asciicast::exact_output(events).filter(|covered| covered.stream == stream);
    let (bytes, sequences): (Vec<_>, Vec<_>) =
        covered.map(|covered| (covered.content.into_owned(), covered.sequence)).unzip();
    (bytes.concat(), sequences)
}

/// Bytes that look like a program's output and do not repeat.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..len).map(|_| b"etaoin shrdlu 0123456789\r\n\x1b[m"[(next() % 30) as usize % 29]).collect()
}
