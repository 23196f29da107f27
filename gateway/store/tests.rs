//! Tests.

use super::*;

fn recording(dir: &Path, name: &str, bytes: &[u8]) {
    fs::write(dir.join(name), bytes).unwrap();
}

#[test]
fn finds_open_recordings_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let line = b"{\"version\":2,\"width\":80,\"height\":24}\n";
    recording(dir.path(), "a-1.cast.zst", &zstd::encode_all(line.as_slice(), 1).unwrap());
    recording(dir.path(), "b-2.cast.zst.sealing", b"");
    recording(dir.path(), "c-3.cast.zst.broken", b"x");
    recording(dir.path(), ".d.cast.zst", b"");
    let store = Store::new(dir.path());
    let all = store.list().unwrap();
    assert_eq!(all.iter().map(|found| found.id.as_str()).collect::<Vec<_>>(), ["a-1"]);
    let found = store.find(&SessionId::parse("a-1").unwrap()).unwrap().unwrap();
    assert!(!found.sealed);
    assert_eq!(found.header().unwrap().width, 80);
    assert_eq!(store.find(&SessionId::parse("zz").unwrap()).unwrap(), None);
}

#[test]
fn an_absent_spool_is_an_empty_store() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Store::new(&dir.path().join("none")).list().unwrap().is_empty());
}
