//! Any byte that is not as it was sealed is found.

use std::sync::OnceLock;

use proptest::prelude::*;

use super::*;

/// A small sealed file, the one of another session, and the key.
struct Files {
    one: Vec<u8>,
    other: Vec<u8>,
    keys: [PublicKey; 1],
}

fn files() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(|| {
        let rig = Rig::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let sealed = |id: &str, seed| {
            let mut recording = rig.begin(id);
            for sequence in 0..3 {
                let message = noise(seed + sequence, 300);
                recording.output(sequence * 500, sequence as i64, Stream::Output, &message).unwrap();
            }
            fs::read(runtime.block_on(recording.seal(2000, &End::new("done"))).unwrap().path).unwrap()
        };
        Files { one: sealed("a-1", 1), other: sealed("b-2", 100), keys: rig.keys() }
    })
}

fn check(bytes: &[u8], keys: &[PublicKey]) -> Result<Report, Damage> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    verify(file.path(), keys)
}

/// Whether verification says that the bytes are a sealed, whole recording.
fn passes(bytes: &[u8]) -> bool {
    check(bytes, &files().keys).is_ok()
}

#[test]
fn every_flipped_byte_is_found_near_its_place() {
    let files = files();
    assert!(passes(&files.one));
    for at in 0..files.one.len() {
        for flip in [1u8, 0x80, 0xff] {
            let mut bytes = files.one.clone();
            bytes[at] ^= flip;
            match check(&bytes, &files.keys) {
                Ok(report) => panic!("byte {at} ^ {flip}: {report:?}"),
                Err(damage) => assert!(
                    damage.bytes.contains(&(at as u64)),
                    "byte {at} ^ {flip} was reported elsewhere: {damage}"
                ),
            }
        }
    }
}

#[test]
fn every_cut_is_found() {
    for end in 0..files().one.len() {
        assert!(!passes(&files().one[..end]), "cut at {end}");
    }
}

#[test]
fn the_key_must_be_trusted() {
    let damage = check(&files().one, &[]).unwrap_err();
    assert!(damage.what.contains("not trusted"), "{damage}");
}

#[test]
fn damage_in_lines_says_which_lines_and_when() {
    let rig = Rig::new();
    rig.recorder().hurry();
    let mut recording = rig.begin("a-1");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for sequence in 0..9000 {
        while !recording.has_room() {
            std::thread::yield_now();
        }
        recording.output(sequence, sequence as i64, Stream::Output, &noise(sequence, 1024)).unwrap();
    }
    let sealed = runtime.block_on(recording.seal(9000, &End::new("done"))).unwrap();
    let mut bytes = fs::read(&sealed.path).unwrap();
    assert!(matches!(check(&bytes, &rig.keys()), Ok(Report::Sealed(_))));
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damage = check(&bytes, &rig.keys()).unwrap_err();
    let (lines, times) = (damage.lines.clone().unwrap(), damage.times_ms.clone().unwrap());
    assert!(damage.bytes.contains(&(middle as u64)), "{damage}");
    assert!(lines.start > 2 && lines.end < 9000 && lines.contains(&4500), "{damage}");
    assert!(times.start > 0 && times.contains(&4500) && times.end < 8999, "{damage}");
}

#[test]
fn an_open_recording_proves_nothing_and_says_so() {
    let rig = Rig::new();
    let _recording = rig.begin("a-1");
    assert!(matches!(rig.verify("a-1"), Ok(Report::Unsealed { lines: 1, duration_ms: 0, proved: None })));
    assert!(check(b"hello", &files().keys).is_err());
    assert!(check(b"", &files().keys).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_piece_cut_out_is_found(from in 0usize..2000, len in 1usize..2000) {
        let one = &files().one;
        let from = from % one.len();
        let to = (from + len).min(one.len());
        prop_assert!(!passes(&[&one[..from], &one[to..]].concat()));
    }

    #[test]
    fn every_splice_is_found(at in 0usize..2000, from in 0usize..2000, len in 1usize..2000) {
        let Files { one, other, .. } = files();
        let (at, from) = (at % (one.len() + 1), from % other.len());
        let piece = &other[from..(from + len).min(other.len())];
        let inserted = [&one[..at], piece, &one[at..]].concat();
        prop_assert!(!passes(&inserted));
        let after = one.get(at + piece.len()..).unwrap_or_default();
        let replaced = [&one[..at], piece, after].concat();
        prop_assert!(replaced == *one || replaced == *other || !passes(&replaced));
    }

    #[test]
    fn every_repeated_or_moved_piece_is_found(from in 0usize..2000, len in 1usize..500, to in 0usize..2000) {
        let one = &files().one;
        let from = from % one.len();
        let piece = &one[from..(from + len).min(one.len())];
        let to = to % (one.len() + 1);
        prop_assert!(!passes(&[&one[..to], piece, &one[to..]].concat()));
        let rest = [&one[..from], &one[from + piece.len()..]].concat();
        let to = to % (rest.len() + 1);
        let moved = [&rest[..to], piece, &rest[to..]].concat();
        prop_assert!(moved == *one || !passes(&moved));
    }

    #[test]
    fn garbage_is_never_a_recording(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(!passes(&bytes));
        let mut reader = LineReader::new(bytes.as_slice());
        while let Ok(Some(_)) = reader.next_line() {}
    }
}
