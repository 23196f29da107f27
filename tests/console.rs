//! The console's calls: who is let in by them, to what, and who is not.

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::support::{
    BRIEF, Browser, Call, DEV, House, PROD, Terminal, auditors_administer, code_of, enter, origin,
    until_some, within,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_signs_one_browser_in_once_as_who_was_proved() {
    let house = House::start().await;
    let alice = house.alice().await;
    let browser = Browser::of(&house, &alice).await;
    let me = browser.get("/me").await.ok();
    assert_eq!(me["arn"], "arn:aws:iam::111122223333:user/alice");
    // It ends with the keys that asked for it, which live for an hour.
    let lives = me["until_ms"].as_u64().unwrap() - me["now_ms"].as_u64().unwrap();
    assert!((3500..=3600).contains(&(lives / 1000)), "{lives}");

    let code = code_of(&alice).await;
    // Whoever opens a link is asked first, which uses nothing up.
    let whose = Call::post("/console/api/whose", &json!({ "code": code })).with("origin", &origin(&house));
    assert_eq!(whose.send(&house.door).await.ok()["name"], "alice");
    enter(&house, &json!({ "code": code })).await.ok();
    assert_eq!(whose.send(&house.door).await.status, 403);
    for wrong in [
        json!({ "code": code }),
        json!({ "begun": code }),
        json!({"code": "guess"}),
        json!({"key": "", "name": "alice"}),
    ] {
        let answer = enter(&house, &wrong).await;
        assert_eq!((answer.status, answer.cookies.len()), (403, 0), "{}", answer.text());
    }
    assert_eq!(Call::get("/console/api/ways").send(&house.door).await.ok(), json!({"provider": false}));
    let unsigned = Call::post("/v1/login/browser", &json!({})).send(&house.door).await;
    assert_eq!(unsigned.status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signing_out_ends_this_browser_or_all_of_them() {
    let house = House::start().await;
    let alice = house.alice().await;
    let (one, two, three) = (
        Browser::of(&house, &alice).await,
        Browser::of(&house, &alice).await,
        Browser::of(&house, &alice).await,
    );
    one.post("/sign-out", &json!({})).await.ok();
    assert_eq!((one.get("/me").await.status, two.get("/me").await.status), (401, 200));
    two.post("/sign-out", &json!({"everywhere": true})).await.ok();
    assert_eq!((two.get("/me").await.status, three.get("/me").await.status), (401, 401));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signing_out_everywhere_hangs_up_the_shells_of_other_browsers() {
    let house = House::start().await;
    let alice = house.alice().await;
    let (lost, mine) = (Browser::of(&house, &alice).await, Browser::of(&house, &alice).await);
    let mut open = lost.shell(&house).await;
    let unused = lost.ticket().await;
    mine.post("/sign-out", &json!({"everywhere": true})).await.ok();
    open.gone().await;
    // What it still has opens nothing.
    let mut late = Terminal::open(&house.door, &unused).await;
    assert!(late.closed().await.contains("this browser is signed out"));
    // The session is still its person's.
    open.resume(&alice).await;
    open.type_line("echo still-$((40 + 2))").await;
    open.until("still-42").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_revoked_is_signed_out_of_every_browser() {
    let house = House::with(auditors_administer).await;
    let (alice, carol) = (house.alice().await, house.sign_in("carol").await);
    let browser = Browser::of(&house, &alice).await;
    let code = code_of(&alice).await;
    let body = json!({"what": "principal", "which": "arn:aws:iam::111122223333:user/alice"});
    carol.call(Call::post("/v1/revocations", &body)).await.ok();
    assert_eq!(browser.get("/me").await.status, 401);
    assert_eq!(enter(&house, &json!({ "code": code })).await.status, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_of_another_site_changes_nothing() {
    let house = House::start().await;
    let alice = house.alice().await;
    let browser = Browser::of(&house, &alice).await;
    let call =
        || Call::post("/console/api/sessions", &json!({"Target": DEV})).with("cookie", &browser.cookie);
    let ours = origin(&house);
    for foreign in [
        call(),
        call().with("x-postern-token", &browser.token),
        call().with("origin", &ours),
        call().with("origin", &ours).with("x-postern-token", "guess"),
        call().with("origin", "https://evil.example").with("x-postern-token", &browser.token),
        call()
            .with("origin", &ours)
            .with("x-postern-token", &browser.token)
            .with("sec-fetch-site", "same-site"),
    ] {
        assert_eq!(foreign.send(&house.door).await.status, 403);
    }
    assert_eq!(browser.get("/sessions").await.ok()["sessions"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_another_site_dials_no_stream() {
    let house = House::start().await;
    let call = Call::get("/v1/data-channel/x")
        .with("upgrade", "websocket")
        .with("sec-websocket-version", "13")
        .with("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let mut raw = call.clone().with("origin", "https://evil.example").bytes(&house.door);
    raw = String::from_utf8(raw)
        .unwrap()
        .replace("connection: close", "connection: close, Upgrade")
        .into_bytes();
    assert_eq!(house.door.exchange(&raw).await.status, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_may_what_its_person_may_and_is_told_why_not() {
    let house = House::start().await;
    let (alice, bob) = (house.alice().await, house.sign_in("bob").await);
    let (hers, his) = (Browser::of(&house, &alice).await, Browser::of(&house, &bob).await);
    let denied = hers.post("/sessions", &json!({"Target": PROD})).await;
    assert_eq!(denied.status, 403);
    assert!(denied.message().contains("production wants to know why"), "{}", denied.text());

    let ticket = hers.post("/sessions", &json!({"Target": DEV})).await.ok();
    let session = ticket["session"].as_str().unwrap();
    for path in
        ["", "/chain", "/screen?before=1", "/watch", "/replay", "/verify", "/find?text=a", "/download/zst"]
    {
        let answer = his.get(&format!("/sessions/{session}{path}")).await;
        assert!(matches!(answer.status, 403 | 404), "{path}: {} {}", answer.status, answer.text());
    }
    assert_eq!(his.post(&format!("/sessions/{session}/end"), &json!({})).await.status, 403);
    assert_eq!(
        his.post(&format!("/sessions/{session}/resume"), &json!({})).await.ok()["session"],
        Value::Null
    );

    let rows = hers.get(&format!("/decisions?allowed=false&target={PROD}")).await.ok();
    assert_eq!(rows["decisions"][0]["policies"], json!(["developers-prod"]), "{rows}");
    let other = his.get("/decisions?owner=arn:aws:iam::111122223333:user/alice").await.ok();
    assert_eq!(other["decisions"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_is_shown_in_scenes_found_in_and_verified() {
    let house = House::start().await;
    let alice = house.alice().await;
    let browser = Browser::of(&house, &alice).await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    let session = terminal.session.clone();
    terminal.type_line("echo nee''dle").await;
    terminal.until("needle\r\n$ ").await;
    terminal.type_line("exit").await;
    terminal.closed().await;
    let path = format!("/sessions/{session}");
    until_some("the seal", || async {
        (browser.get(&path).await.ok()["recording_sha256"] != Value::Null).then_some(())
    })
    .await;

    let index = browser.get(&format!("{path}/replay?idle=1")).await.ok();
    assert_eq!((index["version"].as_u64(), index["sealed"].as_bool()), (Some(1), Some(true)));
    assert_eq!(index["segments"][0]["url"], format!("/console/api{path}/replay/0?idle=1"));
    let scene = browser.get(&format!("{path}/replay/0?idle=1")).await.ok();
    let events = scene["events"].as_array().unwrap();
    let shown: String =
        events.iter().filter(|event| event[1] == "o").filter_map(|event| event[2].as_str()).collect();
    assert!(shown.contains("needle\r\n"), "{shown}");
    assert_eq!(events.last().unwrap()[0], index["duration"]);
    assert_eq!(browser.get(&format!("{path}/replay/9")).await.status, 404);

    let found = browser.get(&format!("{path}/find?text=NEEDLE")).await.ok();
    assert!(found["lines"].as_array().unwrap().iter().any(|line| line["text"] == "needle"), "{found}");
    assert_eq!(browser.get(&format!("{path}/verify")).await.ok()["result"], "sealed");
    assert!(browser.get(&format!("{path}/download/txt")).await.text().contains("\nneedle\n"));
    let chain = browser.get(&format!("{path}/chain")).await.ok();
    assert_eq!(chain["decision"]["session"], Value::Null, "it came before the session");
    assert_eq!(chain["decision"]["allowed"], true);
}

/// A policy with things to hide: a network, a tag and a machine.
const SECRETIVE: &str = r#"
@id("office-only")
@message("brief machines are opened from the office")
forbid (principal, action == Postern::Action::"startShell", resource is Postern::Instance)
when { resource.hasTag("env") && resource.getTag("env") == "brief" }
unless { context has sourceIp && context.sourceIp.isInRange(ip("198.51.100.0/24")) };

@id("not-shown")
forbid (principal in Postern::Group::"developers", action == Postern::Action::"listTargets", resource is Postern::Instance)
when { resource.hasTag("env") && resource.getTag("env") == "prod" };

@id("admins")
permit (principal in Postern::Group::"auditors", action == Postern::Action::"administer", resource);
"#;

async fn secretive_house() -> House {
    House::with(|config| {
        std::fs::write(config.policy.directory.join("secretive.cedar"), SECRETIVE).unwrap();
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_why_is_told_nothing_that_an_earnest_question_would_not_tell() {
    let house = secretive_house().await;
    let alice = house.alice().await;
    let browser = Browser::of(&house, &alice).await;
    let ask = async |form: Value| browser.post("/explain", &form).await;
    let denied = ask(json!({"action": "startShell", "resource": BRIEF})).await;
    let told = denied.ok();
    assert_eq!((&told["allowed"], &told["hints"]), (&json!(false), &json!(["ask from another network"])));
    assert_eq!(browser.post("/access", &json!({"Target": BRIEF})).await.ok()["hints"], told["hints"]);
    let keys: Vec<_> = told.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["allowed", "sentence", "policies", "obligations", "hints"]);
    for secret in ["198.51", "getTag", "hasTag", "developers\"", ".cedar", "when"] {
        assert!(!denied.text().contains(secret), "{secret} in {}", denied.text());
    }
    // Under other circumstances the answers would tell what policies say of those.
    for made_up in [
        json!({"source_ip": "198.51.100.7"}),
        json!({"at": "2026-11-30T08:00:00Z"}),
        json!({"mfa": true}),
        json!({"who": "arn:aws:iam::111122223333:user/bob"}),
        json!({"who": "group:auditors"}),
    ] {
        let mut form = json!({"action": "startShell", "resource": BRIEF});
        form.as_object_mut().unwrap().extend(made_up.as_object().unwrap().clone());
        let answer = ask(form).await;
        assert_eq!(answer.status, 403, "{made_up}: {}", answer.text());
    }
    let own = json!({"who": "arn:aws:iam::111122223333:user/alice", "action": "startShell", "resource": DEV});
    assert_eq!(ask(own).await.ok()["allowed"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_shown_is_explained_as_if_it_were_not_there() {
    let house = secretive_house().await;
    let (alice, bob) = (house.alice().await, house.sign_in("bob").await);
    let (hers, his) = (Browser::of(&house, &alice).await, Browser::of(&house, &bob).await);
    let message = async |resource: &str| {
        let answer = hers.post("/explain", &json!({"action": "startShell", "resource": resource})).await;
        assert_eq!(answer.status, 404, "{}", answer.text());
        answer.message().replace(resource, "X")
    };
    assert_eq!(message(PROD).await, message("mi-0fffffffffffffff0").await);
    assert_eq!(message("machine-prod").await, message("machine-none").await);
    // Nor does it get hints by the way of starting a session there.
    let access = hers.post("/access", &json!({"Target": PROD})).await.ok();
    assert_eq!((&access["allowed"], &access["hints"]), (&json!(false), &json!([])));

    let session = hers.post("/sessions", &json!({"Target": DEV})).await.ok()["session"].clone();
    let end = json!({"action": "terminateSession", "resource": session});
    assert_eq!(hers.post("/explain", &end).await.ok()["allowed"], true);
    assert_eq!(his.post("/explain", &end).await.status, 404);
    let replay = json!({"action": "replayRecording", "resource": session});
    assert_eq!(his.post("/explain", &replay).await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_administers_is_told_everything_of_anybody_and_is_on_record() {
    let house = secretive_house().await;
    let (alice, carol) = (house.alice().await, house.sign_in("carol").await);
    Browser::of(&house, &alice).await.post("/sessions", &json!({"Target": DEV})).await.ok();
    let browser = Browser::of(&house, &carol).await;
    let ask = async |who: &str, more: Value| {
        let mut form = json!({"who": who, "action": "startShell", "resource": BRIEF});
        form.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        browser.post("/explain", &form).await
    };
    let her_arn = "arn:aws:iam::111122223333:user/alice";
    let told = ask(her_arn, json!({})).await.ok();
    assert_eq!(told["known"], "as they were when they last asked for anything");
    let by = &told["whole"]["decided_by"][0];
    assert_eq!(
        (&by["id"], &by["file"], &by["line"]),
        (&json!("office-only"), &json!("secretive.cedar"), &json!(2))
    );
    assert!(by["needs"].as_array().unwrap().iter().any(|need| need["holds"] == true), "{by}");
    assert_eq!(told["whole"]["changes"][0], json!(["ask from 198.51.100.0/24"]));
    let office = ask(her_arn, json!({"source_ip": "198.51.100.7"})).await.ok();
    assert_eq!(office["whole"]["allowed"], true, "{office}");
    // Somebody who has never asked, a group, and nobody at all.
    let stranger = ask("zoe@example.com", json!({"resource": DEV})).await.ok();
    assert_eq!(
        (&stranger["whole"]["allowed"], &stranger["whole"]["nearest"][0]["needs"][0]["holds"]),
        (&json!(false), &json!(false))
    );
    let group = ask("group:developers", json!({"resource": DEV})).await.ok();
    assert_eq!(group["whole"]["allowed"], true, "{group}");
    for (refused, why) in [
        (ask("group:nowhere", json!({"resource": DEV})).await, "there is no group \"nowhere\""),
        (ask("zoe", json!({})).await, "ARN or e-mail address"),
        (ask(her_arn, json!({"document": "AWS-StartSSHSession"})).await, "is for startSsh"),
    ] {
        assert_eq!(refused.status, 400, "{}", refused.text());
        assert!(refused.message().contains(why), "{}", refused.text());
    }
    // Who is revoked is out whatever policy says.
    let body = json!({"what": "principal", "which": her_arn});
    carol.call(Call::post("/v1/revocations", &body)).await.ok();
    let out = ask(her_arn, json!({"resource": DEV})).await.ok();
    assert!(out["shut_out"].as_str().unwrap().contains("revoked"), "{out}");
    let asked =
        browser.get("/decisions?owner=arn:aws:sts::111122223333:assumed-role/Auditor/carol").await.ok();
    assert!(
        asked["decisions"].as_array().unwrap().iter().any(|row| row["action"] == "administer"),
        "{asked}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_of_sessions_comes_by_itself_until_somebody_signs_out() {
    let house = House::start().await;
    let alice = house.alice().await;
    let (watching, other) = (Browser::of(&house, &alice).await, Browser::of(&house, &alice).await);
    let mut list = house.door.connect().await;
    let call = Call::get("/console/api/session-list?state=active").with("cookie", &watching.cookie);
    list.write_all(&call.bytes(&house.door)).await.unwrap();
    let mut heard = String::new();
    until_heard(&mut list, &mut heard, "\"sessions\":[]").await;
    let session = other.post("/sessions", &json!({"Target": DEV})).await.ok()["session"].clone();
    let id = session.as_str().unwrap();
    until_heard(&mut list, &mut heard, &format!("\"id\":\"{id}\"")).await;
    other.post(&format!("/sessions/{id}/end"), &json!({})).await.ok();
    until_heard(&mut list, &mut heard, "\"sessions\":[]").await;
    other.post("/sign-out", &json!({"everywhere": true})).await.ok();
    let mut rest = Vec::new();
    within("the end of the list", list.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&rest));
}

/// Reads until what came last says so, and forgets it.
async fn until_heard(list: &mut (impl AsyncRead + Unpin), heard: &mut String, what: &str) {
    heard.clear();
    while !heard.contains(what) {
        let mut bytes = [0; 4096];
        let count = within(what, list.read(&mut bytes)).await.unwrap();
        assert!(count > 0, "the list ended before it said {what}: {heard}");
        heard.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_output_lies_is_told_to_who_may_replay_it() {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().display().to_string();
    let house = House::with(|config| config.archive.location = Some(archive.clone())).await;
    let (alice, bob) = (house.alice().await, house.sign_in("bob").await);
    let (hers, his) = (Browser::of(&house, &alice).await, Browser::of(&house, &bob).await);
    let mut terminal = Terminal::shell(&alice, DEV).await;
    terminal.type_line("exit").await;
    terminal.closed().await;
    let path = format!("/sessions/{}/places", terminal.session);
    let location = until_some("the archived recording", || async {
        hers.get(&path).await.ok()["archive"]["location"].as_str().map(str::to_owned)
    })
    .await;
    assert_eq!(location, format!("{archive}/recordings/{}.cast.zst", terminal.session));
    assert!(std::fs::exists(&location).unwrap());
    assert_eq!(hers.get(&path).await.ok()["log"], Value::Null, "nothing is shipped");
    for refused in [his.get(&path).await, hers.get("/sessions/nobody-abc/places").await] {
        assert_eq!(refused.status, 403, "{}", refused.text());
        assert!(!refused.text().contains(&archive));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_else_opened_is_looked_at_only_with_a_decision_on_record() {
    let house = House::start().await;
    let (alice, carol, bob) = (house.alice().await, house.sign_in("carol").await, house.sign_in("bob").await);
    let mut terminal = Terminal::shell(&alice, DEV).await;
    let path = format!("/sessions/{}", terminal.session);
    terminal.type_line("exit").await;
    terminal.closed().await;
    let (hers, carols) = (Browser::of(&house, &alice).await, Browser::of(&house, &carol).await);
    until_some("the seal", || async {
        (hers.get(&path).await.ok()["recording_sha256"] != Value::Null).then_some(())
    })
    .await;
    hers.get(&format!("{path}/replay")).await.ok();

    // Straight to a scene, without the index that asks.
    for _ in 0..3 {
        carols.get(&format!("{path}/replay/0")).await.ok();
    }
    let decisions = carols.get("/decisions").await.ok();
    let looks = decisions["decisions"].as_array().unwrap().iter();
    let looks =
        looks.filter(|decision| decision["action"] == "replayRecording" && decision["name"] == "carol");
    assert_eq!(looks.count(), 1, "{decisions}");
    let his = Browser::of(&house, &bob).await;
    assert_eq!(his.get(&format!("{path}/replay/0")).await.status, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_token_names_no_row_and_is_good_for_one_person_and_list() {
    let house = House::start().await;
    let (alice, carol) = (house.alice().await, house.sign_in("carol").await);
    let (hers, carols) = (Browser::of(&house, &alice).await, Browser::of(&house, &carol).await);
    let (first, second) = (Terminal::shell(&alice, DEV).await, Terminal::shell(&alice, DEV).await);
    let page = hers.get("/sessions?limit=1").await.ok();
    assert_eq!(page["sessions"][0]["id"], second.session);
    let next = page["next"].as_str().unwrap();
    let plain = data_encoding::BASE64URL_NOPAD.decode(next.as_bytes()).unwrap();
    assert!(!String::from_utf8_lossy(&plain).contains(second.session.as_str()));
    let rest = hers.get(&format!("/sessions?limit=1&token={next}")).await.ok();
    assert_eq!(rest["sessions"][0]["id"], first.session);
    let made_up = data_encoding::BASE64URL_NOPAD.encode(format!("9:{}", first.session).as_bytes());
    for answer in [
        carols.get(&format!("/sessions?limit=1&token={next}")).await,
        hers.get(&format!("/decisions?limit=1&token={next}")).await,
        hers.get(&format!("/sessions?limit=1&token={made_up}")).await,
    ] {
        assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("InvalidNextToken")));
    }
}
