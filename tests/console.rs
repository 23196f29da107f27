//! The console's calls: who is let in by them, to what, and who is not.

use serde_json::{Value, json};

use crate::support::{Browser, Call, DEV, House, PROD, Terminal, code_of, enter, origin, until_some};

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
    enter(&house, &json!({ "code": code })).await.ok();
    for wrong in [json!({ "code": code }), json!({"code": "guess"}), json!({"key": "", "name": "alice"})] {
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
    let house = House::with(|config| {
        let admins = "@id(\"admins\") permit (principal in Postern::Group::\"auditors\",
            action == Postern::Action::\"administer\", resource);";
        std::fs::write(config.policy.directory.join("admins.cedar"), admins).unwrap();
    })
    .await;
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
