//! What the registry promises, on a real database file.

use std::os::unix::fs::PermissionsExt;

use super::sessions::json;
use super::*;
use crate::session::{AuthMethod, Document, Facts, Instance, Principal, SessionId, SessionKind, Target};

struct Home {
    registry: Registry,
    folder: tempfile::TempDir,
}

impl Home {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open(&config(&folder)).await.unwrap();
        registry.add_decision(&decision("d-1", 1)).await.unwrap();
        Self { registry, folder }
    }

    async fn with(sessions: &[SessionRecord]) -> Self {
        let home = Self::new().await;
        for session in sessions {
            home.registry.add_session(session).await.unwrap();
        }
        home
    }

    async fn ids(&self, filter: &Filter) -> Vec<String> {
        let page = self.registry.sessions(filter, 200, None).await.unwrap();
        page.rows.into_iter().map(|row| row.id.to_string()).collect()
    }
}

fn config(folder: &tempfile::TempDir) -> RegistryConfig {
    RegistryConfig { url: format!("sqlite:{}", folder.path().join("registry.db").display()) }
}

fn alice() -> Principal {
    Principal {
        id: "AROAEXAMPLE:alice".into(),
        arn: "arn:aws:sts::111122223333:assumed-role/Ops/alice".into(),
        account: "111122223333".into(),
        name: "alice".into(),
        role: Some("Ops".into()),
        method: AuthMethod::StsProof,
        authenticated_at: 1_790_000_000,
        facts: Facts::default(),
    }
}

fn instance() -> Instance {
    Instance {
        target: Target::parse("i-0123456789abcdef0").unwrap(),
        account: "111122223333".into(),
        region: "us-east-1".into(),
        name: Some("web".into()),
        platform: None,
        agent_version: None,
        online: true,
        tags: [("env".to_owned(), "prod".to_owned())].into(),
    }
}

fn session(id: &str, started_ms: u64) -> SessionRecord {
    SessionRecord {
        id: SessionId::parse(id).unwrap(),
        principal: alice(),
        target: Target::parse("i-0123456789abcdef0").unwrap(),
        instance: instance(),
        document: Document::shell(),
        kind: SessionKind::Shell,
        reason: Some("Robert'); DROP TABLE sessions;--".into()),
        state: State::Connecting,
        started_ms,
        ended_ms: None,
        end_reason: None,
        upstream_id: None,
        decision_id: "d-1".into(),
        node: "node-a".into(),
        recording_sha256: None,
        bytes_in: 0,
        bytes_out: 0,
    }
}

fn decision(id: &str, at_ms: u64) -> DecisionRecord {
    DecisionRecord {
        id: id.into(),
        at_ms,
        principal: alice(),
        action: "StartShell".into(),
        target: Some(Target::parse("i-0123456789abcdef0").unwrap()),
        document: Some(Document::shell()),
        session: Some(SessionId::parse("alice-1").unwrap()),
        allowed: true,
        policies: vec!["ops-shell".into()],
        sentence: "ops-shell permits".into(),
        policy_digest: "sha256:00".into(),
        source_ip: Some("192.0.2.7".into()),
        request: Some(serde_json::json!({"action": "startShell"})),
        obligations: Some(serde_json::json!({"record": "disk"})),
        took_us: Some(42),
        node: Some("node-a".into()),
        started: None,
    }
}

#[tokio::test]
async fn a_session_is_known_to_be_encrypted_and_with_what() {
    let home = Home::with(&[session("alice-1", 1), session("alice-2", 2)]).await;
    let id = |id| SessionId::parse(id).unwrap();
    let key =
        SealedKey { kms_key_id: "alias/k".into(), challenge: Some("AAAA".into()), sealed: vec![0, 255] };
    home.registry.add_session_key(&id("alice-1"), &key).await.unwrap();
    assert_eq!(home.registry.session_key(&id("alice-1")).await.unwrap(), Some(key.clone()));
    assert_eq!(home.registry.session_key(&id("alice-2")).await.unwrap(), None);
    assert!(home.registry.add_session_key(&id("alice-1"), &key).await.is_err(), "one session, one key");
    assert!(home.registry.add_session_key(&id("nobody-1"), &key).await.is_err());
}

#[tokio::test]
async fn a_session_reads_back_as_it_was_written() {
    let written = SessionRecord {
        ended_ms: Some(9),
        end_reason: Some("exit".into()),
        upstream_id: Some("alice-up".into()),
        recording_sha256: Some("ab".into()),
        bytes_in: 3,
        bytes_out: 4,
        state: State::Terminated,
        kind: SessionKind::PortToHost,
        ..session("alice-1", 5)
    };
    let home = Home::with(std::slice::from_ref(&written)).await;
    assert_eq!(home.registry.session(&written.id).await.unwrap(), Some(written));
    assert_eq!(home.registry.session(&SessionId::parse("nobody-1").unwrap()).await.unwrap(), None);
}

#[tokio::test]
async fn a_session_without_a_recorded_decision_is_refused() {
    let home = Home::new().await;
    let orphan = SessionRecord { decision_id: "d-unknown".into(), ..session("alice-1", 1) };
    assert!(matches!(home.registry.add_session(&orphan).await, Err(RegistryError::Database(_))));
}

#[tokio::test]
async fn a_session_id_is_recorded_once() {
    let home = Home::with(&[session("alice-1", 1)]).await;
    assert!(home.registry.add_session(&session("alice-1", 2)).await.is_err());
}

#[tokio::test]
async fn a_session_that_is_over_stays_over() {
    let home = Home::with(&[session("alice-1", 1)]).await;
    let id = SessionId::parse("alice-1").unwrap();
    let set = |state, at, reason| home.registry.set_state(&id, state, at, reason);
    assert!(set(State::Connected, 2, None).await.unwrap());
    assert!(set(State::Disconnected, 3, Some("client went away")).await.unwrap());
    assert!(set(State::Terminating, 4, Some("policy changed")).await.unwrap());
    assert!(set(State::Terminated, 5, Some("channel closed")).await.unwrap());
    assert!(!set(State::Connected, 6, None).await.unwrap());
    let found = home.registry.session(&id).await.unwrap().unwrap();
    assert_eq!((found.state, found.ended_ms), (State::Terminated, Some(5)));
    assert_eq!(found.end_reason.as_deref(), Some("policy changed"));
}

#[tokio::test]
async fn moving_an_unknown_session_says_so() {
    let home = Home::new().await;
    let id = SessionId::parse("nobody-1").unwrap();
    assert!(!home.registry.set_state(&id, State::Connected, 1, None).await.unwrap());
    assert!(!home.registry.set_upstream(&id, "up").await.unwrap());
}

#[tokio::test]
async fn upstream_id_and_traffic_are_kept() {
    let home = Home::with(&[session("alice-1", 1)]).await;
    let id = SessionId::parse("alice-1").unwrap();
    let traffic = Traffic { recording_sha256: Some("ff".into()), bytes_in: 7, bytes_out: u64::MAX };
    assert!(home.registry.set_upstream(&id, "alice-0abc").await.unwrap());
    assert!(home.registry.set_traffic(&id, &traffic).await.unwrap());
    let found = home.registry.session(&id).await.unwrap().unwrap();
    assert_eq!(found.upstream_id.as_deref(), Some("alice-0abc"));
    assert_eq!((found.bytes_in, found.bytes_out), (7, i64::MAX as u64));
    assert_eq!(found.recording_sha256.as_deref(), Some("ff"));
}

#[tokio::test]
async fn every_filter_narrows_the_list() {
    let bob = Principal { arn: "arn:aws:iam::111122223333:user/bob".into(), ..alice() };
    let other = Target::parse("mi-0123456789abcdef0").unwrap();
    let home = Home::with(&[
        session("alice-1", 10),
        SessionRecord { principal: bob.clone(), ..session("bob-2", 20) },
        SessionRecord { target: other.clone(), state: State::Connected, ..session("alice-3", 30) },
        SessionRecord { state: State::Failed, ..session("alice-4", 40) },
    ])
    .await;
    let all = Filter::default();
    assert_eq!(home.ids(&all).await, ["alice-4", "alice-3", "bob-2", "alice-1"]);
    let active = Filter { span: Some(Span::Active), ..all.clone() };
    assert_eq!(home.ids(&active).await, ["alice-3", "bob-2", "alice-1"]);
    assert_eq!(home.ids(&Filter { span: Some(Span::History), ..all.clone() }).await, ["alice-4"]);
    let between = Filter { invoked_after_ms: Some(20), invoked_before_ms: Some(40), ..all.clone() };
    assert_eq!(home.ids(&between).await, ["alice-3", "bob-2"]);
    assert_eq!(home.ids(&Filter { target: Some(other), ..all.clone() }).await, ["alice-3"]);
    assert_eq!(home.ids(&Filter { owner: Some(bob.arn), ..all.clone() }).await, ["bob-2"]);
    assert_eq!(home.ids(&Filter { state: Some(State::Connected), ..all.clone() }).await, ["alice-3"]);
    let one = Filter { id: Some(SessionId::parse("alice-1").unwrap()), ..active };
    assert_eq!(home.ids(&one).await, ["alice-1"]);
    assert!(home.ids(&Filter { owner: Some("' OR 1=1 --".into()), ..all }).await.is_empty());
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_repeat() {
    let home = Home::new().await;
    for number in 0..7u64 {
        // Two share each start time, so that the id has to break the tie.
        home.registry.add_session(&session(&format!("alice-{number}"), number / 2)).await.unwrap();
    }
    let (mut seen, mut token, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = home.registry.sessions(&Filter::default(), 3, token.as_deref()).await.unwrap();
        assert!(page.rows.len() <= 3);
        seen.extend(page.rows.into_iter().map(|row| row.id.to_string()));
        pages += 1;
        token = page.next;
        if token.is_none() {
            break;
        }
    }
    let expected: Vec<String> = (0..7).rev().map(|number| format!("alice-{number}")).collect();
    assert_eq!((seen, pages), (expected, 3));
}

#[tokio::test]
async fn a_forged_page_token_is_refused() {
    let home = Home::new().await;
    for bad in ["", "not base64!", "eA", &"A".repeat(300)] {
        let answer = home.registry.sessions(&Filter::default(), 1, Some(bad)).await;
        assert!(matches!(answer, Err(RegistryError::InvalidNextToken)), "{bad:?} was accepted");
    }
}

#[tokio::test]
async fn a_page_is_bounded() {
    let home = Home::new().await;
    for number in 0..205u64 {
        home.registry.add_decision(&decision(&format!("x-{number}"), number)).await.unwrap();
    }
    let page = home.registry.decisions(&DecisionFilter::default(), usize::MAX, None).await.unwrap();
    assert_eq!(page.rows.len(), 200);
    assert!(page.next.is_some());
}

#[tokio::test]
async fn decisions_read_back_and_are_found() {
    let home = Home::new().await;
    let denied = DecisionRecord {
        allowed: false,
        target: None,
        document: None,
        session: None,
        source_ip: None,
        policies: Vec::new(),
        ..decision("d-2", 2)
    };
    home.registry.add_decision(&denied).await.unwrap();
    assert_eq!(home.registry.decision("d-2").await.unwrap(), Some(denied.clone()));
    let find = |filter: DecisionFilter| {
        let registry = home.registry.clone();
        async move { registry.decisions(&filter, 10, None).await.unwrap().rows }
    };
    assert_eq!(find(DecisionFilter { allowed: Some(false), ..Default::default() }).await, [denied]);
    let session = Some(SessionId::parse("alice-1").unwrap());
    assert_eq!(find(DecisionFilter { session, ..Default::default() }).await, [decision("d-1", 1)]);
    assert_eq!(find(DecisionFilter { owner: Some(alice().arn), ..Default::default() }).await.len(), 2);
    assert_eq!(find(DecisionFilter { target: decision("", 0).target, ..Default::default() }).await.len(), 1);
}

#[tokio::test]
async fn a_later_process_finds_what_is_not_over_and_what_it_was_given() {
    let home = Home::with(&[
        SessionRecord { state: State::Terminated, ended_ms: Some(2), ..session("alice-2", 1) },
        SessionRecord { node: "node-b".into(), ..session("alice-3", 1) },
        session("alice-4", 7),
    ])
    .await;
    let given = Given {
        proved_until_ms: Some(1_795_342_500_000),
        source_ip: "192.0.2.7".into(),
        parameters: [("command".to_owned(), vec!["top".to_owned()])].into(),
        obligations: serde_json::json!({"record_input": true}),
        client_id: "c-1".into(),
        client_version: "1.2.707.0".into(),
    };
    home.registry.add_started(&session("alice-1", 5), &given).await.unwrap();
    let id = SessionId::parse("alice-1").unwrap();
    home.registry.set_state(&id, State::Disconnected, 9, None).await.unwrap();
    let found = home.registry.unfinished("node-a").await.unwrap();
    let record = SessionRecord { state: State::Disconnected, ..session("alice-1", 5) };
    let older = Unfinished { record: session("alice-4", 7), given: None, since_ms: Some(7) };
    assert_eq!(found, [Unfinished { record, given: Some(given), since_ms: Some(9) }, older]);
}

#[tokio::test]
async fn of_many_proofs_of_one_person_the_longest_counts_and_old_ones_go() {
    let home = Home::new().await;
    let person = |n: u32| Principal { id: format!("AIDA{n}"), ..alice() };
    let proof = |n, until_ms| Proof { principal: person(n), until_ms };
    for (proof, now_ms) in [(proof(1, 50), 0), (proof(1, 90), 0), (proof(1, 70), 0), (proof(2, 60), 0)] {
        home.registry.add_proof(&proof, now_ms).await.unwrap();
    }
    // More than one statement's share, most of them of nobody.
    let ids: Vec<String> = (0..1200).map(|n| person(n).id).collect();
    assert_eq!(home.registry.proofs(&ids).await.unwrap(), [proof(1, 90), proof(2, 60)]);
    let days = 3 * 24 * 60 * 60 * 1000;
    home.registry.add_proof(&proof(3, days), days).await.unwrap();
    assert_eq!(home.registry.proofs(&ids).await.unwrap(), [proof(3, days)]);
}

#[tokio::test]
async fn a_file_of_the_first_version_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let options = super::options(&folder.path().join("registry.db")).create_if_missing(true);
    let old = super::pool(1).connect_with(options).await.unwrap();
    sqlx::query("CREATE TABLE schema_version (version BIGINT NOT NULL)").execute(&old).await.unwrap();
    sqlx::query("INSERT INTO schema_version VALUES (1)").execute(&old).await.unwrap();
    for statement in schema::FIRST {
        sqlx::query(*statement).execute(&old).await.unwrap();
    }
    let principal = json(&alice());
    sqlx::query(
        "INSERT INTO decisions VALUES ('d-1', 1, $1, 'a', 'x', NULL, NULL, NULL, TRUE, '[]', '', '', NULL)",
    )
    .bind(&principal)
    .execute(&old)
    .await
    .unwrap();
    let statement = "INSERT INTO sessions VALUES ('alice-1', $1, 'a', 'i-0123456789abcdef0', $2, \
         'SSM-SessionManagerRunShell', '\"shell\"', NULL, 'Connected', 5, NULL, NULL, NULL, 'd-1', 'node-a', NULL, 0, 0)";
    sqlx::query(statement).bind(&principal).bind(json(&instance())).execute(&old).await.unwrap();
    old.close().await;
    let registry = Registry::open(&config(&folder)).await.unwrap();
    let record = SessionRecord { state: State::Connected, reason: None, ..session("alice-1", 5) };
    let found = registry.unfinished("node-a").await.unwrap();
    assert_eq!(found, [Unfinished { record, given: None, since_ms: None }]);
}

#[tokio::test]
async fn the_file_is_private_and_survives_a_restart() {
    let home = Home::with(&[session("alice-1", 1)]).await;
    for entry in std::fs::read_dir(home.folder.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?} is open to others", entry.path());
    }
    home.registry.close().await;
    let again = Registry::open(&config(&home.folder)).await.unwrap();
    assert_eq!(again.active().await.unwrap(), 1);
    again.healthy().await.unwrap();
}

#[tokio::test]
async fn a_file_from_a_newer_build_is_left_alone() {
    let home = Home::new().await;
    sqlx::query("UPDATE schema_version SET version = 99").execute(&home.registry.writer).await.unwrap();
    home.registry.close().await;
    let answer = Registry::open(&config(&home.folder)).await;
    assert!(matches!(answer, Err(RegistryError::Newer { found: 99, .. })));
}

#[tokio::test]
async fn a_damaged_row_is_named() {
    let home = Home::with(&[session("alice-1", 1)]).await;
    sqlx::query("UPDATE sessions SET state = 'Odd'").execute(&home.registry.writer).await.unwrap();
    let answer = home.registry.session(&SessionId::parse("alice-1").unwrap()).await;
    assert!(matches!(answer, Err(RegistryError::Damaged { column: "state", .. })));
}

#[tokio::test]
async fn only_a_file_url_is_taken() {
    for bad in ["", "sqlite:", "sqlite::memory:", "postgres://db/x", "registry.db"] {
        let answer = Registry::open(&RegistryConfig { url: bad.into() }).await;
        assert!(matches!(answer, Err(RegistryError::Url)), "{bad:?} was accepted");
    }
}

fn alert(id: &str, at_ms: u64) -> WaitingAlert {
    WaitingAlert { id: id.into(), at_ms, subject: "Postern alert".into(), body: "{}".into() }
}

#[tokio::test]
async fn an_alert_waits_until_it_is_published_and_is_kept_once() {
    let home = Home::new().await;
    let (first, second) = (alert("a", 10), alert("b", 20));
    assert_eq!(home.registry.keep_alerts("here", &[second.clone(), first.clone()]).await.unwrap(), 0);
    assert_eq!(home.registry.keep_alerts("here", std::slice::from_ref(&first)).await.unwrap(), 0);
    assert_eq!(home.registry.alerts_waiting().await.unwrap(), 2);
    // Another node leaves them alone until they were left.
    assert_eq!(home.registry.next_alert("there", 10).await.unwrap(), None);
    assert_eq!(home.registry.next_alert("there", 11).await.unwrap(), Some(first.clone()));
    assert_eq!(home.registry.next_alert("here", 0).await.unwrap(), Some(first.clone()));
    home.registry.alert_tried("a").await.unwrap();
    assert_eq!(home.registry.next_alert("here", 0).await.unwrap(), Some(second));
    home.registry.alert_published("b").await.unwrap();
    let again = Registry::open(&config(&home.folder)).await.unwrap();
    assert_eq!(again.next_alert("here", 0).await.unwrap(), Some(first));
    assert_eq!(again.expire_alerts(10).await.unwrap(), 0);
    assert_eq!(again.expire_alerts(11).await.unwrap(), 1);
    assert_eq!(again.alerts_waiting().await.unwrap(), 0);
}

#[tokio::test]
async fn alerts_beyond_the_bound_are_refused_and_the_first_ones_stay() {
    let home = Home::new().await;
    let most = u64::from(ALERTS_MAX);
    let many: Vec<WaitingAlert> = (0..most).map(|number| alert(&format!("a-{number}"), number)).collect();
    assert_eq!(home.registry.keep_alerts("here", &many).await.unwrap(), 0);
    let late = [alert("late-1", most), alert("late-2", most)];
    assert_eq!(home.registry.keep_alerts("here", &late).await.unwrap(), 2);
    assert_eq!(home.registry.alerts_waiting().await.unwrap(), most);
    home.registry.alert_published("a-7").await.unwrap();
    assert_eq!(home.registry.keep_alerts("here", &late).await.unwrap(), 1);
    assert_eq!(home.registry.next_alert("here", 0).await.unwrap().unwrap().id, "a-0");
}
