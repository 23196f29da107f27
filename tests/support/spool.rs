//! A recorder and its shipper, without a gateway around them.

use std::path::PathBuf;
use std::sync::Arc;

use postern::broker::{BrokerConfig, Secret, StaticKeys};
use postern::metrics::Metrics;
use postern::recorder::{Recorder, RecorderConfig, SigningKey};
use postern::session::SessionId;
use postern::shipper::{Folders, Shipper, ShipperConfig, ShipperError};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{BROKER_KEY, FakeLogs, PATIENCE, REGION, until};

/// The log group of these.
pub const GROUP: &str = "/postern/weather";

/// A recorder and its shipper, without a gateway around them.
pub struct Spool {
    pub folder: TempDir,
    logs: FakeLogs,
    pub recorder: Recorder,
    pub metrics: Arc<Metrics>,
    transcript: bool,
    shipper: Option<(Runtime, Arc<Shipper>)>,
}

impl Drop for Spool {
    fn drop(&mut self) {
        if let Some((runtime, _)) = self.shipper.take() {
            runtime.shutdown_background();
        }
    }
}

impl Spool {
    pub async fn start(logs: &FakeLogs) -> Self {
        Self::of(logs, true).await
    }

    /// One that ships the recording and no transcript.
    pub async fn of_recordings(logs: &FakeLogs) -> Self {
        Self::of(logs, false).await
    }

    async fn of(logs: &FakeLogs, transcript: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = SigningKey::open(&folder.path().join("recording.key")).unwrap();
        let config = RecorderConfig { spool: folder.path().join("spool") };
        let recorder = Recorder::open(config, key, Arc::new(Metrics::new().unwrap())).unwrap();
        recorder.hurry();
        let metrics = Arc::new(Metrics::new().unwrap());
        let mut spool = Self { folder, logs: logs.clone(), recorder, metrics, transcript, shipper: None };
        spool.start_shipper().await;
        spool
    }

    /// Ends the shipper without a word, as a crash does, and starts another.
    ///
    /// The recordings stay open: only what the shipper knows is lost.
    pub async fn shipper_dies(&mut self) {
        self.shipper_is_gone();
        self.start_shipper().await;
    }

    /// Ends the shipper without a word; no other one is there yet.
    pub fn shipper_is_gone(&mut self) {
        let (runtime, shipper) = self.shipper.take().unwrap();
        tokio::task::block_in_place(|| runtime.shutdown_timeout(PATIENCE));
        drop(shipper);
    }

    /// The next shipper ships transcripts, or does not.
    pub fn ships_transcripts(&mut self, transcript: bool) {
        self.transcript = transcript;
    }

    pub async fn start_shipper(&mut self) {
        let runtime = Runtime::new().unwrap();
        let (config, broker) = settings(&self.logs, self.transcript);
        let folders =
            Folders { spool: self.folder.path().join("spool"), own: self.folder.path().join("shipper") };
        let (feed, metrics) = (self.recorder.feed(), Arc::clone(&self.metrics));
        let starting =
            runtime.spawn(async move { Shipper::start(config, &broker, feed, &folders, metrics).await });
        self.shipper = Some((runtime, Arc::new(starting.await.unwrap().unwrap())));
    }

    pub fn path(&self, id: &SessionId) -> PathBuf {
        self.folder.path().join("spool").join(format!("{id}.cast.zst"))
    }

    pub async fn shipped(&self, id: &SessionId) {
        until("the end in CloudWatch", || {
            self.folder.path().join("shipper").join(format!("{id}.shipped")).exists()
        })
        .await;
    }

    pub async fn read_back(&self, id: &SessionId) -> Result<postern::shipper::Copy, ShipperError> {
        let (runtime, shipper) = self.shipper.as_ref().unwrap();
        let (shipper, wanted, keys) = (Arc::clone(shipper), id.clone(), self.recorder.known_keys());
        runtime.spawn(async move { shipper.reader().recording(&wanted, &keys).await }).await.unwrap()
    }

    /// Asserts that the stream alone gives the sealed file.
    pub async fn assert_whole(&self, id: &SessionId) {
        let copy = self.read_back(id).await.unwrap();
        assert!(copy.sealed);
        let (copied, sealed) = (std::fs::read(&copy.path).unwrap(), std::fs::read(self.path(id)).unwrap());
        assert!(copied == sealed, "the copy of {id} differs from what was sealed");
    }
}

fn settings(logs: &FakeLogs, transcript: bool) -> (ShipperConfig, BrokerConfig) {
    let config = ShipperConfig {
        log_group: GROUP.into(),
        transcript,
        endpoint_url: Some(logs.url.clone()),
        ..ShipperConfig::default()
    };
    let keys = StaticKeys {
        access_key_id: BROKER_KEY.0.into(),
        secret_access_key: Secret::new(BROKER_KEY.1),
        session_token: None,
    };
    let broker = BrokerConfig { region: REGION.into(), static_keys: Some(keys), ..BrokerConfig::default() };
    (config, broker)
}
