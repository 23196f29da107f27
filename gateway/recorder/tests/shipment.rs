//! Whoever follows gets every line once, or reads it from the spool.

use super::*;
use crate::recorder::shipment::QUEUE_BYTES_MAX;

/// Puts together what a follower got, as one that stores it would.
#[derive(Default)]
struct Stored {
    lines: Vec<u8>,
    done: u64,
    chain: Option<Head>,
    behind: usize,
    sealed: Option<Arc<Evidence>>,
}

impl Stored {
    fn take(&mut self, batch: Batch) {
        assert!(batch.first_line <= self.done, "a gap before line {}", batch.first_line);
        let Some(batch) = batch.after(self.done) else { return };
        self.lines.extend_from_slice(&batch.lines);
        (self.done, self.chain) = (batch.next_line(), Some(batch.chain));
    }

    fn pull(&mut self, feed: &Feed, id: &SessionId) {
        let mut backlog = feed.lines_from(id, self.done).unwrap().unwrap();
        while let Some(batch) = backlog.next(1000).unwrap() {
            assert_eq!(batch.first_line, self.done);
            self.take(batch);
        }
    }

    /// Follows until the recording is sealed and everything is there.
    async fn follow(&mut self, feed: &Feed, follower: &mut Follower) {
        while let Some(shipment) = follower.next().await {
            match shipment {
                Shipment::Begun { .. } | Shipment::Checkpoint { .. } => {}
                Shipment::Lines { session, batch } => {
                    if batch.first_line > self.done {
                        self.pull(feed, &session);
                    }
                    self.take(batch);
                }
                Shipment::Behind { session } => {
                    self.behind += 1;
                    self.pull(feed, &session);
                    self.sealed = feed.evidence(&session).unwrap().map(Arc::new);
                }
                Shipment::Sealed { session, evidence } => {
                    self.pull(feed, &session);
                    self.sealed = Some(evidence);
                }
            }
            if self.sealed.is_some() {
                return;
            }
        }
    }

    fn assert_is(&self, path: &Path) {
        let evidence = self.sealed.as_ref().unwrap();
        assert_eq!(self.lines, lines(path).concat().into_bytes());
        assert_eq!(self.done, evidence.totals.lines);
        assert_eq!(self.chain.unwrap().to_string(), evidence.segments.last().unwrap().hash);
    }
}

#[tokio::test]
async fn a_follower_gets_every_line_once_with_the_chain_of_the_evidence() {
    let rig = Rig::new();
    let feed = rig.recorder().feed();
    let mut follower = feed.follow();
    let mut recording = rig.begin("a-1");
    let writing = async {
        for sequence in 0..2000 {
            let bytes = noise(sequence, 300);
            let position = recording.output(sequence, sequence as i64, Stream::Output, &bytes).unwrap();
            if sequence % 50 == 0 {
                recorded(&mut recording, position).await;
            }
        }
        recording.seal(2000, &End::new("done")).await.unwrap()
    };
    let mut stored = Stored::default();
    let (sealed, ()) = tokio::join!(writing, stored.follow(&feed, &mut follower));
    stored.assert_is(&sealed.path);
    assert_eq!(stored.behind, 0);
}

#[tokio::test]
async fn lines_are_read_on_while_they_move_from_the_journal_to_the_file() {
    let rig = Rig::new();
    let feed = rig.recorder().feed();
    let mut recording = rig.begin("a-1");
    let lines = recording.lines_for_test();
    let mut stored = Stored::default();
    let mut backlog = feed.lines_from(&session("a-1"), 0).unwrap().unwrap();
    for sequence in 0..400 {
        let bytes = noise(sequence, 300);
        let position = recording.output(sequence, sequence as i64, Stream::Output, &bytes).unwrap();
        recorded(&mut recording, position).await;
        if sequence % 200 == 100 {
            while lines.compressed() < position.0 {
                tokio::task::yield_now().await;
            }
        }
        while let Some(batch) = backlog.next(1).unwrap() {
            stored.take(batch);
        }
        // The header, a mark, and an event for each message.
        assert_eq!(stored.done, sequence + 3);
    }
    let sealed = recording.seal(2000, &End::new("done")).await.unwrap();
    while let Some(batch) = backlog.next(1).unwrap() {
        stored.take(batch);
    }
    stored.sealed = feed.evidence(&session("a-1")).unwrap().map(Arc::new);
    stored.assert_is(&sealed.path);
}

#[tokio::test]
async fn a_follower_that_was_away_reads_what_it_missed_over_a_restart() {
    let mut rig = Rig::new();
    let mut recording = rig.begin("a-1");
    for sequence in 0..100 {
        recording.output(sequence, sequence as i64, Stream::Output, &noise(sequence, 300)).unwrap();
    }
    let position = recording.position();
    recorded(&mut recording, position).await;
    let mut stored = Stored::default();
    stored.pull(&rig.recorder().feed(), &session("a-1"));
    assert_eq!(stored.done, 102);
    recording.output(100, 100, Stream::Output, b"nobody follows").unwrap();
    recording.leave();
    rig.start_again();
    let feed = rig.recorder().feed();
    assert_eq!(feed.recordings().unwrap(), [session("a-1")]);
    let mut follower = feed.follow();
    let (mut recording, _) = rig.recorder().reopen(&session("a-1")).unwrap().unwrap();
    let Some(Shipment::Begun { header, .. }) = follower.next().await else { panic!("nothing began") };
    assert_eq!(*header, super::header("a-1"));
    recording.output(101, 101, Stream::Output, b"somebody does").unwrap();
    let (sealed, ()) = tokio::join!(
        async { recording.seal(200, &End::new("done")).await.unwrap() },
        stored.follow(&feed, &mut follower)
    );
    stored.assert_is(&sealed.path);
}

#[tokio::test]
async fn a_follower_that_sleeps_costs_a_bounded_queue_and_is_told_to_pull() {
    let rig = Rig::new();
    rig.recorder().hurry();
    let feed = rig.recorder().feed();
    let mut follower = feed.follow();
    let mut recording = rig.begin("a-1");
    let (mut sent, mut sequence) = (0, 0);
    while sent < QUEUE_BYTES_MAX + (1 << 20) {
        let bytes = noise(sequence, 60_000);
        sent += bytes.len();
        let position = recording.output(sequence, sequence as i64, Stream::Output, &bytes).unwrap();
        recorded(&mut recording, position).await;
        sequence += 1;
    }
    let sealed = recording.seal(sequence, &End::new("done")).await.unwrap();
    let mut stored = Stored::default();
    stored.follow(&feed, &mut follower).await;
    assert_eq!(stored.behind, 1);
    stored.assert_is(&sealed.path);
}

#[tokio::test]
async fn what_must_be_stored_elsewhere_counts_once_it_is_accepted() {
    let mut rig = Rig::new();
    assert!(!rig.recorder().keeps(Durability::Remote));
    let feed = rig.recorder().feed();
    let follower = feed.follow_and_store();
    assert!(rig.recorder().keeps(Durability::Remote));
    let id = session("a-1");
    let mut recording = rig.recorder().begin(&id, header("a-1"), Durability::Remote).unwrap();
    let first = recording.output(1, 0, Stream::Output, b"first").unwrap();
    let in_journal = recording.lines_for_test();
    while in_journal.journaled() < first.0 {
        tokio::task::yield_now().await;
    }
    let second = recording.output(2, 1, Stream::Output, b"second").unwrap();
    while in_journal.journaled() < second.0 {
        tokio::task::yield_now().await;
    }
    feed.accepted(&id, 2);
    assert!(recording.recorded() < first, "the event itself is line 2");
    feed.accepted(&id, 3);
    recorded(&mut recording, first).await;
    assert!(recording.recorded() < second);
    recording.leave();
    drop(follower);
    rig.start_again();
    let feed = rig.recorder().feed();
    let (mut recording, _) = rig.recorder().reopen(&id).unwrap().unwrap();
    recording.require(Durability::Remote);
    let position = recording.position();
    assert_eq!(position, second);
    assert!(recording.recorded() < position, "nobody has said that it is elsewhere");
    feed.accepted(&id, 4);
    recorded(&mut recording, position).await;
}
