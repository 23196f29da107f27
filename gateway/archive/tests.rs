//! Tests of the directory; S3 is tested end to end.

use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::asciicast::Header;
use crate::metrics::Metrics;
use crate::recorder::{End, PublicKey, Recorder, RecorderConfig, SigningKey};
use crate::session::Durability;

/// A recorder whose recordings are archived in a directory.
struct House {
    recorder: Recorder,
    archive: Archive,
    folder: TempDir,
}

impl House {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = SigningKey::open(&folder.path().join("recording.key")).unwrap();
        let config = RecorderConfig { spool: folder.path().join("spool") };
        let recorder = Recorder::open(config, key, Arc::new(Metrics::new().unwrap())).unwrap();
        let location = Some(folder.path().join("archive").display().to_string());
        let archive = Archive::open(&ArchiveConfig { location, ..ArchiveConfig::default() }, None).unwrap();
        Self { recorder, archive, folder }
    }

    /// Records a session and seals it.
    async fn sealed(&self, id: &str) -> (SessionId, PathBuf) {
        let session = SessionId::parse(id).unwrap();
        let recording = self.recorder.begin(&session, Header::new(7), Durability::Process).unwrap();
        let sealed = recording.seal(1500, &End::new("terminated")).await.unwrap();
        (session, sealed.path)
    }

    async fn keep(&self, session: &SessionId, path: &Path) -> Result<Manifest, ArchiveError> {
        let origin = Origin {
            session: session.clone(),
            principal: "arn:aws:iam::111122223333:user/alice".into(),
            target: "i-0123456789abcdef0".into(),
            durability: Some("process".into()),
            started_ms: 7000,
            node: "test".into(),
            archived_ms: 10_000,
        };
        let sign = |json: &[u8]| self.recorder.sign(json);
        self.archive.keep(path, origin, (self.recorder.public_key().id(), sign)).await
    }

    async fn read(&self, session: &SessionId) -> Result<Option<Reading>, ArchiveError> {
        self.archive.read(session, &self.recorder.known_keys()).await
    }

    /// Why a recording is not given out; and how much of it was until then.
    async fn refused(&self, session: &SessionId) -> (String, usize) {
        let mut given = Vec::new();
        let why = match self.read(session).await {
            Ok(reading) => reading.unwrap().copy(&mut given).await.unwrap_err(),
            Err(why) => why,
        };
        (why.to_string(), given.len())
    }

    async fn check(&self, session: &SessionId) -> Finding {
        self.check_by(session, self.recorder.public_key()).await
    }

    async fn check_by(&self, session: &SessionId, key: PublicKey) -> Finding {
        self.archive.check(session, &[key], self.folder.path()).await.unwrap()
    }

    fn object(&self, name: &str) -> PathBuf {
        self.folder.path().join("archive").join("recordings").join(name)
    }
}

fn wrong(finding: Finding) -> String {
    let Finding::Wrong(what) = finding else { panic!("{finding:?} is not wrong") };
    what
}

#[tokio::test]
async fn what_is_kept_is_what_was_sealed_and_says_so() {
    let house = House::new();
    let (session, path) = house.sealed("alice-1").await;
    let manifest = house.keep(&session, &path).await.unwrap();
    let file = std::fs::read(&path).unwrap();
    assert_eq!((manifest.bytes, manifest.ended_ms), (file.len() as u64, 8500));
    assert_eq!((manifest.end.as_str(), manifest.version), ("terminated", 1));
    let mut copy = Vec::new();
    house.read(&session).await.unwrap().unwrap().copy(&mut copy).await.unwrap();
    assert_eq!(copy, file);
    assert_eq!(house.archive.sessions().await.unwrap(), std::slice::from_ref(&session));
    assert!(house.archive.holds(&session, manifest.bytes).await.unwrap());
    assert_eq!(house.check(&session).await, Finding::Whole(Box::new(manifest), Vec::new()));

    house.archive.remove(&session).await.unwrap();
    house.archive.remove(&session).await.unwrap();
    assert!(house.read(&session).await.unwrap().is_none());
    assert_eq!(house.archive.sessions().await.unwrap(), []);
}

#[tokio::test]
async fn whatever_is_altered_in_the_archive_is_found() {
    let house = House::new();
    let (session, path) = house.sealed("alice-1").await;
    house.keep(&session, &path).await.unwrap();
    let (recording, manifest) = (house.object("alice-1.cast.zst"), house.object("alice-1.json"));
    let (whole, said) = (std::fs::read(&recording).unwrap(), std::fs::read_to_string(&manifest).unwrap());

    let mut flipped = whole.clone();
    flipped[40] ^= 1;
    std::fs::write(&recording, &flipped).unwrap();
    assert!(wrong(house.check(&session).await).contains("altered"));
    std::fs::remove_file(&recording).unwrap();
    assert!(wrong(house.check(&session).await).contains("missing"));
    std::fs::write(&recording, &whole).unwrap();

    std::fs::write(&manifest, said.replace("user/alice", "user/carol")).unwrap();
    assert!(wrong(house.check(&session).await).contains("not signed by a trusted key"));
    std::fs::write(&manifest, said.replace(',', ", ")).unwrap();
    assert!(wrong(house.check(&session).await).contains("spelt"));
    std::fs::write(&manifest, &said).unwrap();
    let other = SigningKey::open(&house.folder.path().join("other.key")).unwrap().public();
    assert!(wrong(house.check_by(&session, other).await).contains("not signed by a trusted key"));

    // A manifest of another session is not this one's, however well signed.
    let (second, path) = house.sealed("bob-1").await;
    house.keep(&second, &path).await.unwrap();
    std::fs::copy(house.object("bob-1.json"), &manifest).unwrap();
    assert!(wrong(house.check(&session).await).contains("another session"));
    // Nor is its recording, under whatever name; without a manifest the seal says so.
    std::fs::remove_file(&manifest).unwrap();
    assert!(matches!(house.check(&session).await, Finding::Unfinished { .. }));
    std::fs::copy(house.object("bob-1.cast.zst"), &recording).unwrap();
    assert!(wrong(house.check(&session).await).contains("of another session, bob-1"));
}

#[tokio::test]
async fn what_is_not_what_was_archived_is_not_given_out() {
    let house = House::new();
    let (session, path) = house.sealed("alice-1").await;
    let (other, other_path) = house.sealed("bob-1").await;
    house.keep(&session, &path).await.unwrap();
    house.keep(&other, &other_path).await.unwrap();
    let (recording, manifest) = (house.object("alice-1.cast.zst"), house.object("alice-1.json"));
    let (whole, said) = (std::fs::read(&recording).unwrap(), std::fs::read(&manifest).unwrap());

    // What is as long as it should be is found out at its end, and has none.
    let mut flipped = whole.clone();
    flipped[40] ^= 1;
    std::fs::write(&recording, &flipped).unwrap();
    let (why, given) = house.refused(&session).await;
    assert!(why.contains("its bytes are not the") && given < whole.len(), "{why}, {given}");
    std::fs::write(&recording, [&whole[..], b"x"].concat()).unwrap();
    assert!(house.refused(&session).await.0.contains("in its manifest"));
    std::fs::write(&recording, &whole).unwrap();

    std::fs::copy(house.object("bob-1.json"), &manifest).unwrap();
    assert!(house.refused(&session).await.0.contains("of another session"));
    std::fs::remove_file(&manifest).unwrap();
    assert!(house.refused(&session).await.0.contains("no manifest"));
    std::fs::write(&manifest, &said).unwrap();
    let stranger = SigningKey::open(&house.folder.path().join("other.key")).unwrap().public();
    let refused = house.archive.read(&session, &[stranger]).await.err().unwrap();
    assert!(refused.to_string().contains("not signed by a key that is known here"), "{refused}");
    std::fs::remove_file(&recording).unwrap();
    assert!(house.refused(&session).await.0.contains("a manifest of it and nothing else"));
}

#[tokio::test]
async fn only_a_sealed_recording_of_that_session_is_kept() {
    let house = House::new();
    let (session, path) = house.sealed("alice-1").await;
    let other = SessionId::parse("bob-1").unwrap();
    let refused = house.keep(&other, &path).await.unwrap_err().to_string();
    assert!(refused.contains("another session"), "{refused}");
    let cut = house.folder.path().join("cut.cast.zst");
    std::fs::write(&cut, &std::fs::read(&path).unwrap()[..60]).unwrap();
    let refused = house.keep(&session, &cut).await.unwrap_err();
    assert!(matches!(refused, ArchiveError::NotSealed { .. }), "{refused}");
    assert_eq!(house.archive.sessions().await.unwrap(), []);
}

#[tokio::test]
async fn a_large_file_goes_in_parts() {
    let house = House::new();
    let large: Vec<u8> = (0..17u32 << 20).map(|n| (n ^ n >> 8) as u8).collect();
    let path = house.folder.path().join("large");
    std::fs::write(&path, &large).unwrap();
    house.archive.place.put_file("recordings/large", &path, large.len() as u64).await.unwrap();
    assert!(std::fs::read(house.object("large")).unwrap() == large);
}

type Heads = Arc<std::sync::Mutex<Vec<(String, http::HeaderMap)>>>;

/// An S3 that takes everything and remembers what it was asked.
async fn fake_s3() -> (String, Heads) {
    let heads = Heads::default();
    let seen = Arc::clone(&heads);
    let app = axum::Router::new().fallback(move |request: axum::extract::Request| {
        let seen = Arc::clone(&seen);
        async move {
            let (parts, body) = request.into_parts();
            axum::body::to_bytes(body, 64 << 20).await.unwrap();
            let query = parts.uri.query().unwrap_or_default().to_owned();
            seen.lock().unwrap().push((format!("{} {}", parts.method, parts.uri), parts.headers));
            let answer = match query.as_str() {
                "uploads=" => "<R><UploadId>u1</UploadId></R>",
                "uploadId=u1" => "<R><ETag>x</ETag></R>",
                _ => "",
            };
            ([("etag", "x"), ("x-amz-checksum-sha256", "x")], answer)
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, heads)
}

#[tokio::test]
async fn what_goes_to_s3_is_locked_encrypted_and_signed() {
    let (url, heads) = fake_s3().await;
    let config = ArchiveConfig {
        location: Some("s3://bucket/of us".into()),
        endpoint_url: Some(url),
        kms_key_id: Some("a-key".into()),
        object_lock: Some(LockMode::Compliance),
        object_lock_days: Some(10),
        ..ArchiveConfig::default()
    };
    let keys = aws_credential_types::Credentials::new("AKIA", "secret", None, None, "test");
    let access = Access {
        http: crate::client::Trust::system().rest_http().unwrap(),
        credentials: Some(SharedCredentialsProvider::new(keys)),
        region: Some("eu-west-1".into()),
        endpoint_url: None,
    };
    let archive = Archive::open(&config, Some(&access)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, vec![1; 17 << 20]).unwrap();
    archive.place.put_file("recordings/small", &path, 3).await.unwrap();
    archive.place.put_file("recordings/large", &path, 17 << 20).await.unwrap();

    let heads = heads.lock().unwrap();
    let asked: Vec<&str> = heads.iter().map(|(line, _)| line.as_str()).collect();
    assert_eq!(asked[0], "PUT /bucket/of%20us/recordings/small");
    assert_eq!(asked[1], "POST /bucket/of%20us/recordings/large?uploads=");
    assert_eq!(asked.len(), 5, "{asked:?}");
    let value = |index: usize, name: &str| heads[index].1.get(name).map(|value| value.to_str().unwrap());
    for begins in [0, 1] {
        assert_eq!(value(begins, "x-amz-object-lock-mode"), Some("COMPLIANCE"));
        let until = value(begins, "x-amz-object-lock-retain-until-date").unwrap();
        assert!(until.ends_with('Z') && until.len() == "2026-12-06T10:00:00Z".len(), "{until}");
        assert_eq!(value(begins, "x-amz-server-side-encryption-aws-kms-key-id"), Some("a-key"));
        let signed = value(begins, "authorization").unwrap();
        assert!(signed.contains("x-amz-object-lock-mode;x-amz-object-lock-retain-until-date"), "{signed}");
    }
    // S3 refuses parts that name a lock.
    assert!((2..5).all(|index| value(index, "x-amz-object-lock-mode").is_none()));
}

#[test]
fn what_would_keep_less_than_was_meant_is_refused() {
    let check = |text: &str| toml::from_str::<ArchiveConfig>(text).unwrap().check();
    for good in [
        "",
        "location = '/a'\nkeep_local_days = 1",
        "location = 's3://bucket/a/b'\nobject_lock = 'compliance'\nobject_lock_days = 5\ndelete_after_days = 5",
    ] {
        check(good).unwrap();
    }
    for bad in [
        "keep_local_days = 1",
        "delete_after_days = 1",
        "location = '/a'\nkms_key_id = 'x'",
        "location = 's3://bucket'\nobject_lock = 'governance'",
        "location = 's3://bucket'\nobject_lock_days = 3",
        "location = 's3://bucket'\nobject_lock = 'governance'\nobject_lock_days = 0",
        "location = 's3://bucket'\nobject_lock = 'governance'\nobject_lock_days = 3\ndelete_after_days = 2",
        "location = 's3://'",
        "location = 's3://bu cket/x'",
    ] {
        assert!(check(bad).is_err(), "{bad}");
    }
}
