//! `postern replay`: play a recording, or write it to a file.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use super::output::print_json;
use crate::recorder::{RECORDING_SUFFIX, is_sealed};
use crate::replay::{self, End, Format, Outline, Played, ReplayError, Settings, Timeline};
use crate::session::SessionId;

/// What `--from` takes.
const TIMES: &str = "it must be seconds, 1m23s, M:SS or H:MM:SS";
/// Buffer between an export and its file.
const WRITE_BYTES: usize = 64 * 1024;
/// zstd level of an exported `.zst`: a person waits for it.
const ZSTD_LEVEL: i32 = 6;

/// Play a recording in the terminal, or write it to a file.
///
/// Keys: space pauses, ← and → seek 5 s, `[` and `]` go to the previous and
/// next command or marker, + and - change the speed, . shows the next output while
/// paused, q quits. When the output is no terminal, the session's output is
/// written at once, as it was.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// A session id, `last`, or a recording's file (.cast or .cast.zst).
    #[arg(value_name = "SESSION|FILE")]
    pub recording: String,
    /// Play so many times as fast.
    #[arg(long, default_value_t = 1.0, value_parser = parse_speed, value_name = "FACTOR")]
    pub speed: f64,
    /// Shorten every pause to at most so many seconds.
    #[arg(long, value_parser = parse_seconds, value_name = "SECONDS")]
    pub idle_limit: Option<Duration>,
    /// Begin there: seconds, 1m23s, M:SS or H:MM:SS.
    #[arg(long, visible_alias = "at", value_parser = parse_time, value_name = "TIME")]
    pub from: Option<Duration>,
    /// Write a file instead of playing; `-` is the standard output.
    ///
    /// Written as .cast.zst a sealed recording stays as it is, with what
    /// `postern verify` checks.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Show what a running session shows, as it comes; `q` ends it.
    #[arg(long, short, conflicts_with_all = ["speed", "idle_limit", "from", "output", "json", "format"])]
    pub follow: bool,
    /// Print the connections of a port session as JSON.
    #[arg(long, conflicts_with_all = ["output", "format"])]
    pub json: bool,
    /// What to write; by the file's name if not given, else v2.
    #[arg(long, value_enum)]
    pub format: Option<Written>,
}

/// A recording's file and, of a long one, its outline if it is known.
pub type Found = (PathBuf, Option<Outline>);

/// What `--format` can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Written {
    /// asciicast v2 (any player)
    V2,
    /// asciicast v3 (asciinema 3)
    V3,
    /// the lines that the terminal showed, or the table of connections
    Text,
    /// the captured traffic of a port session, for Wireshark
    Pcapng,
}

/// Plays or writes the recording; `find` gets a session's recording.
pub fn run(args: &ReplayArgs, find: impl FnOnce(&SessionId) -> Result<Found>) -> Result<()> {
    let (path, outline) = locate(&args.recording, find)?;
    if let Some((target, format)) = written(args) {
        let as_it_is = args.format.is_none() && target.to_string_lossy().ends_with(RECORDING_SUFFIX);
        if as_it_is && is_sealed(&path).with_context(|| path.display().to_string())? {
            return copy_file(&path, &target);
        }
        return write_file(&path, &target, format);
    }
    if args.json {
        let mut timeline = Timeline::open(&path).with_context(|| path.display().to_string())?;
        let (table, end) = replay::flow_table(&mut timeline)?;
        print_json(&table)?;
        note(end);
        return Ok(());
    }
    let from_ms = args.from.map_or(0, |from| u64::try_from(from.as_millis()).unwrap_or(u64::MAX));
    let name = path.display();
    let mut timeline = Timeline::open(&path).with_context(|| format!("{name}"))?;
    if !io::stdout().is_terminal() || replay::holds_flows(timeline.header()) {
        let mut out = BufWriter::with_capacity(WRITE_BYTES, io::stdout().lock());
        return quiet_if_closed(replay::plain(&mut timeline, from_ms, &mut out).map(note));
    }
    drop(timeline);
    let settings = Settings { speed: args.speed, idle_limit: args.idle_limit, from_ms };
    let played = replay::play((&path, outline), settings, |line| eprintln!("postern: {line}"));
    match played.with_context(|| format!("{name}"))? {
        Played::ToTheEnd(end) => note(end),
        Played::Stopped => {}
    }
    Ok(())
}

/// A file if there is one by that name or it looks like one, else a session.
fn locate(recording: &str, find: impl FnOnce(&SessionId) -> Result<Found>) -> Result<Found> {
    let path = PathBuf::from(recording);
    let like_a_file = recording.contains('/') || recording.ends_with(".cast") || recording.ends_with(".zst");
    if like_a_file || path.is_file() {
        return Ok((path, None));
    }
    let id = SessionId::parse(recording).context("it is no file, and no session either")?;
    find(&id)
}

/// Where to write and what, if anything.
fn written(args: &ReplayArgs) -> Option<(PathBuf, Format)> {
    let target = match (&args.output, args.format) {
        (Some(output), _) => output.clone(),
        (None, Some(_)) => PathBuf::from("-"),
        (None, None) => return None,
    };
    let by_name = target.extension().and_then(|extension| extension.to_str());
    let format = match args.format {
        Some(Written::V2) => Format::V2,
        Some(Written::V3) => Format::V3,
        Some(Written::Text) => Format::Text,
        Some(Written::Pcapng) => Format::Pcapng,
        None => match by_name {
            Some("txt") => Format::Text,
            Some("pcapng") => Format::Pcapng,
            _ => Format::V2,
        },
    };
    Some((target, format))
}

fn write_file(path: &Path, target: &Path, format: Format) -> Result<()> {
    let mut timeline = Timeline::open(path).with_context(|| path.display().to_string())?;
    if target.as_os_str() == "-" {
        let mut out = BufWriter::with_capacity(WRITE_BYTES, io::stdout().lock());
        return quiet_if_closed(replay::export(&mut timeline, format, &mut out).map(note));
    }
    let named = || target.display().to_string();
    if target.exists() && !target.is_file() {
        let mut out = File::options().write(true).open(target).with_context(named)?;
        note(replay::export(&mut timeline, format, &mut out)?);
        return Ok(());
    }
    // The old file stays as it is until the new one is complete.
    let part = Part::create(folder_of(target), target).with_context(named)?;
    let end = if target.extension().is_some_and(|extension| extension == "zst") {
        let mut zstd = zstd::Encoder::new(&part.file, ZSTD_LEVEL)?;
        let end = replay::export(&mut timeline, format, &mut zstd)?;
        zstd.finish()?;
        end
    } else {
        replay::export(&mut timeline, format, &mut BufWriter::with_capacity(WRITE_BYTES, &part.file))?
    };
    part.keep(target).with_context(named)?;
    note(end);
    Ok(())
}

/// Copies a sealed recording: made anew it would prove nothing any more.
fn copy_file(path: &Path, target: &Path) -> Result<()> {
    let named = || target.display().to_string();
    let mut from = File::open(path).with_context(|| path.display().to_string())?;
    if target.exists() && !target.is_file() {
        let mut out = File::options().write(true).open(target).with_context(named)?;
        return io::copy(&mut from, &mut out).map(drop).with_context(named);
    }
    let part = Part::create(folder_of(target), target).with_context(named)?;
    io::copy(&mut from, &mut &part.file).with_context(named)?;
    part.keep(target).with_context(named)
}

fn folder_of(target: &Path) -> &Path {
    target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file that is only there under its name once it is complete.
struct Part {
    file: File,
    path: Option<PathBuf>,
}

impl Part {
    fn create(folder: &Path, target: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let path = folder.join(format!(".{name}.{}.part", std::process::id()));
        // What was on a screen is for its owner, whatever the umask says.
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { file, path: Some(path) })
    }

    fn keep(mut self, target: &Path) -> io::Result<()> {
        match self.path.take() {
            Some(path) => std::fs::rename(path, target),
            None => Ok(()),
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            // The reason why it is not kept is what matters.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Tells when a recording just stops, so that nobody takes it for complete.
fn note(end: End) {
    if end == End::Open {
        let _ = io::stdout().flush();
        eprintln!("postern: the recording has no end: it is still being written, or it was cut off");
    }
}

/// `postern replay X | head` is no error.
fn quiet_if_closed(done: Result<(), ReplayError>) -> Result<()> {
    match done {
        Err(ReplayError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

fn parse_speed(text: &str) -> Result<f64> {
    let speed: f64 = text.trim_end_matches('x').parse().context("it must be a number")?;
    if !(0.01..=1000.0).contains(&speed) {
        bail!("it must be between 0.01 and 1000");
    }
    Ok(speed)
}

fn parse_seconds(text: &str) -> Result<Duration> {
    let seconds: f64 = text.trim_end_matches('s').parse().context("it must be a number of seconds")?;
    Duration::try_from_secs_f64(seconds).context("it must be a number of seconds")
}

/// Reads `90`, `1m30s`, `1:30`, `1:02:03`, with or without a fraction.
fn parse_time(text: &str) -> Result<Duration> {
    if text.ends_with(['h', 'm', 's']) {
        return parse_units(text);
    }
    let parts: Vec<&str> = text.split(':').collect();
    let (last, before) = parts.split_last().context(TIMES)?;
    if before.len() > 2 {
        bail!(TIMES);
    }
    let mut seconds = parse_seconds(last).context(TIMES)?;
    let mut unit = 1u32;
    for part in before.iter().rev() {
        unit = unit.saturating_mul(60);
        let count: u32 = part.parse().context(TIMES)?;
        seconds = seconds.saturating_add(Duration::from_secs(u64::from(count)) * unit);
    }
    Ok(seconds)
}

/// Reads `1h2m3.5s`: units from large to small, each at most once.
fn parse_units(text: &str) -> Result<Duration> {
    let (mut rest, mut sum) = (text, Duration::ZERO);
    for (unit, seconds) in [('h', 3600), ('m', 60), ('s', 1)] {
        if let Some((count, after)) = rest.split_once(unit) {
            sum = sum.saturating_add(parse_seconds(count).context(TIMES)?.saturating_mul(seconds));
            rest = after;
        }
    }
    if !rest.is_empty() {
        bail!(TIMES);
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        replay: ReplayArgs,
    }

    fn args(line: &[&str]) -> ReplayArgs {
        <Cli as clap::Parser>::try_parse_from([&["replay"], line].concat()).unwrap().replay
    }

    const CAST: &str =
        "{\"version\":2,\"width\":80,\"height\":24}\n[0.1,\"o\",\"\\u001b[1mhi\\u001b[m\\r\\n\"]\n";

    #[test]
    fn times_are_read_as_people_write_them() {
        let seconds = |text| parse_time(text).map(|time| time.as_secs_f64()).ok();
        assert_eq!(seconds("90"), Some(90.0));
        assert_eq!(seconds("1:30.5"), Some(90.5));
        assert_eq!(seconds("1:02:03"), Some(3723.0));
        assert_eq!(seconds("1m23s"), Some(83.0));
        assert_eq!(seconds("1h2.5s"), Some(3602.5));
        assert_eq!(seconds("90s"), Some(90.0));
        for bad in ["", "-1", "a", "1:2:3:4", "x:1", "1s2m", "m", "1ms", "1e300", "NaN"] {
            assert_eq!(seconds(bad), None, "{bad:?} was read");
            assert_eq!(parse_time(bad).unwrap_err().to_string(), TIMES);
        }
    }

    #[test]
    fn a_name_is_a_file_or_a_session() {
        let found = |id: &SessionId| Ok((PathBuf::from(format!("/spool/{id}")), None));
        assert_eq!(locate("./x", found).unwrap().0, Path::new("./x"));
        assert_eq!(locate("x.cast.zst", found).unwrap().0, Path::new("x.cast.zst"));
        assert_eq!(locate("alice-0123", found).unwrap().0, Path::new("/spool/alice-0123"));
        assert!(locate("alice 0123", found).is_err());
    }

    #[test]
    fn a_name_says_what_is_written() {
        let format = |line: &[&str]| written(&args(line)).map(|(_, format)| format);
        assert_eq!(format(&["x"]), None);
        assert_eq!(format(&["x", "--output", "a.cast"]), Some(Format::V2));
        assert_eq!(format(&["x", "--output", "a.txt"]), Some(Format::Text));
        assert_eq!(format(&["x", "--output", "a.pcapng"]), Some(Format::Pcapng));
        assert_eq!(format(&["x", "--output", "a.txt", "--format", "v3"]), Some(Format::V3));
        assert_eq!(format(&["x", "--format", "text"]), Some(Format::Text));
    }

    #[test]
    fn a_file_is_complete_private_or_not_there() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(file("in.cast"), CAST).unwrap();
        let to =
            |name: &str| run(&args(&[&file("in.cast"), "--output", &file(name)]), |_| bail!("no session"));
        to("out.txt").unwrap();
        to("out.cast.zst").unwrap();
        assert_eq!(std::fs::read(file("out.txt")).unwrap(), b"hi\n");
        assert_eq!(std::fs::metadata(file("out.txt")).unwrap().permissions().mode() & 0o777, 0o600);
        let packed = std::fs::read(file("out.cast.zst")).unwrap();
        assert!(zstd::decode_all(packed.as_slice()).unwrap().ends_with(b"hi\\u001b[m\\r\\n\"]\n"));

        std::fs::write(file("in.cast"), format!("{CAST}garbage\n")).unwrap();
        assert!(to("out2.txt").is_err());
        let mut names: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["in.cast", "out.cast.zst", "out.txt"]);
    }
}
