//! Requests that are too big, too odd or too clever.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Call, House, refusal, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_megabytes_of_headers_are_hung_up_on() {
    let house = House::apart().await;
    let alice = house.alice().await;
    let heads = [
        format!("GET /v1/sessions HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "a".repeat(10 << 20)),
        format!("GET /v1/sessions HTTP/1.1\r\nhost: x\r\n{}\r\n", "x-many: a\r\n".repeat(1 << 20)),
        format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(10 << 20)),
        "a".repeat(10 << 20),
    ];
    for head in heads {
        let mut stream = house.door.connect().await;
        // It may well close while we are still talking.
        let _ = within("the hang-up", stream.write_all(head.as_bytes())).await;
        let mut answer = Vec::new();
        let _ = within("the answer", stream.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    let body = Call::post("/", &json!({"x": "a".repeat(10 << 20)}));
    let answer = alice.call(body).await;
    assert!([0, 400, 413].contains(&answer.status), "{}", answer.status);
    alice.api("DescribeSessions", &json!({"State": "Active"})).await.ok();
    let gateway = house.apart.as_ref().unwrap();
    assert!(!gateway.said("panicked"), "{}", gateway.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_id_is_never_a_path() {
    let house = House::apart().await;
    let alice = house.alice().await;
    let long = "a".repeat(1000);
    let tricks = [
        "..",
        ".",
        "../../keys/ring.key",
        "..%2f..%2fkeys%2fring.key",
        "%2e%2e%2fkeys",
        "%2e%2e",
        "..%5c..%5ckeys",
        "%00",
        "alice%00.cast",
        "alice%0d%0aset-cookie:%20x",
        "%ff%fe",
        "%c0%ae%c0%ae",
        "%",
        "%zz",
        "journal",
        ".lock",
        "alice%20x",
        "alice/recording",
        long.as_str(),
    ];
    for trick in tricks {
        for path in ["", "/recording"] {
            let path = format!("/v1/sessions/{trick}{path}");
            let answer = alice.call(Call::get(&path)).await;
            assert!((400..=404).contains(&answer.status), "{path}: {} {}", answer.status, answer.text());
            assert!(!answer.headers.contains("set-cookie"), "{path}");
        }
        let url = format!("wss://{}/v1/data-channel/{trick}?role=publish_subscribe", house.door.address);
        let upgrade = Call::get(&url[url.find("/v1").unwrap()..])
            .with("connection", "Upgrade")
            .with("upgrade", "websocket")
            .with("sec-websocket-version", "13")
            .with("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let bytes = String::from_utf8(upgrade.bytes(&house.door)).unwrap();
        let status = upgraded(&house, &bytes.replace("connection: close\r\n", "")).await;
        assert!([101, 400, 404].contains(&status), "{url}: {status}");
    }
    let ids = ["..", "../x", "a/b", "", "a\0b", ".hidden", "a b", "ü", long.as_str()];
    for id in ids {
        for operation in ["TerminateSession", "ResumeSession"] {
            let answer = alice.api(operation, &json!({"SessionId": id})).await;
            answer.refused("ValidationException");
        }
        alice.api("StartSession", &json!({"Target": id})).await.refused("ValidationException");
        let document = json!({"Target": crate::support::DEV, "DocumentName": format!("{id}/../x y")});
        let answer = alice.api("StartSession", &document).await;
        assert_ne!(answer.status, 200, "{id:?}");
    }
    let gateway = house.apart.as_ref().unwrap();
    assert!(!gateway.said("panicked"), "{}", gateway.log());
}

/// The status of the answer to an upgrade; then hangs up.
async fn upgraded(house: &House, request: &str) -> u16 {
    let mut stream = house.door.connect().await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = vec![0; 12];
    within("a status line", stream.read_exact(&mut head)).await.unwrap();
    String::from_utf8_lossy(&head[9..]).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_no_session_is_refused_in_words() {
    let house = House::start().await;
    let url = format!("wss://{}/v1/data-channel/%2e%2e%2fx?role=publish_subscribe", house.door.address);
    let opening = data_channel::OpenDataChannel::new("token", "client", None).to_text();
    assert_eq!(refusal(&house.door, &url, &[], &opening).await, "there is no such session");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_none_gets_an_aws_error() {
    let house = House::start().await;
    let alice = house.alice().await;
    alice.api("DeleteEverything", &json!({})).await.refused("UnknownOperationException");
    let mut call = Call::ssm("StartSession", &json!({}));
    for body in ["", "{}"] {
        call.body = body.as_bytes().to_vec();
        let told = alice.call(call.clone()).await.refused("ValidationException");
        assert!(told.contains("missing field `Target`"), "{told}");
    }
    let odd = "{\"Target\":\"x\",\"Parameters\":[]}";
    for body in ["{", "[]", " [{}]", "null", "{\"Target\":1}", odd, "\u{0}", &"[".repeat(20_000)] {
        call.body = body.as_bytes().to_vec();
        let told = alice.call(call.clone()).await.refused("SerializationException");
        assert!(!told.contains("struct") && !told.contains("StartSession"), "{told}");
    }
    let missing = Call::get("/nothing/here").send(&house.door).await;
    assert_eq!((missing.status, missing.code().as_str()), (404, "UnknownOperationException"));
    let plain = Call::get("/v1/data-channel/alice-x").send(&house.door).await;
    assert_eq!(plain.status, 426);
}
