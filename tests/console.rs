//! The console's calls: who is let in by them, to what, and who is not.

use serde_json::{Value, json};

use crate::support::{Answer, Call, DEV, Door, House, PROD, Person, Terminal, until_some};

/// A browser that is signed in.
struct Browser {
    door: Door,
    origin: String,
    cookie: String,
    token: String,
}

impl Browser {
    /// Signs in with a link of a person's command line.
    async fn of(house: &House, person: &Person) -> Self {
        let code = code_of(person).await;
        let answer = enter(house, &json!({ "code": code })).await;
        answer.ok();
        let mut browser = Self {
            door: house.door.clone(),
            origin: origin(house),
            cookie: cookie(&answer),
            token: String::new(),
        };
        browser.token = browser.get("/me").await.ok()["token"].as_str().unwrap().to_owned();
        browser
    }

    async fn get(&self, path: &str) -> Answer {
        let call = Call::get(&format!("/console/api{path}"));
        call.with("cookie", &self.cookie).send(&self.door).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        let call = Call::post(&format!("/console/api{path}"), body).with("cookie", &self.cookie);
        call.with("origin", &self.origin).with("x-postern-token", &self.token).send(&self.door).await
    }
}

fn origin(house: &House) -> String {
    format!("https://{}", house.door.address)
}

async fn code_of(person: &Person) -> String {
    // Two alike in one second differ in this, which is signed with the rest.
    let nonce = data_channel::Uuid::new_v4().to_string();
    let call = Call::post("/v1/login/browser", &json!({})).with("x-postern-nonce", &nonce);
    let call = person.sign(call);
    let link = call.send(&person.door).await.ok();
    assert_eq!(call.send(&person.door).await.status, 403, "a call is good once");
    link["url"].as_str().unwrap().split_once("/console/enter#").unwrap().1.to_owned()
}

async fn enter(house: &House, body: &Value) -> Answer {
    Call::post("/console/api/sign-in", body).with("origin", &origin(house)).send(&house.door).await
}

/// The cookie that an answer sets.
fn cookie(answer: &Answer) -> String {
    let line = answer.cookies.first().unwrap();
    assert!(line.ends_with("; Secure; HttpOnly; SameSite=Strict") && line.contains("; Path=/;"), "{line}");
    line.split(';').next().unwrap().to_owned()
}

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
