//! A browser at the console's calls, signed in as one person.

use serde_json::{Value, json};

use super::channel::Terminal;
use super::house::{DEV, House};
use super::person::{Person, Ticket};
use super::web::{Answer, Call, Door};

/// A browser that is signed in.
pub struct Browser {
    pub door: Door,
    origin: String,
    pub cookie: String,
    pub token: String,
}

impl Browser {
    /// Signs in with a link of a person's command line.
    pub async fn of(house: &House, person: &Person) -> Self {
        let code = code_of(person).await;
        let answer = enter(house, &json!({ "code": code })).await;
        answer.ok();
        Self::with(house, cookie(&answer)).await
    }

    /// The browser that keeps this cookie.
    pub async fn with(house: &House, cookie: String) -> Self {
        let mut browser =
            Self { door: house.door.clone(), origin: origin(house), cookie, token: String::new() };
        browser.token = browser.get("/me").await.ok()["token"].as_str().unwrap().to_owned();
        browser
    }

    pub async fn get(&self, path: &str) -> Answer {
        let call = Call::get(&format!("/console/api{path}"));
        call.with("cookie", &self.cookie).send(&self.door).await
    }

    /// A shell of this browser, with its prompt.
    pub async fn shell(&self, house: &House) -> Terminal {
        let mut terminal = Terminal::open(&house.door, &self.ticket().await).await;
        terminal.until("$ ").await;
        terminal
    }

    /// What opens a shell's stream.
    pub async fn ticket(&self) -> Ticket {
        let answer = self.post("/sessions", &json!({"Target": DEV})).await.ok();
        let text = |key: &str| answer[key].as_str().unwrap().to_owned();
        Ticket { session: text("session"), url: text("stream_url"), token: text("token") }
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        let call = Call::post(&format!("/console/api{path}"), body).with("cookie", &self.cookie);
        call.with("origin", &self.origin).with("x-postern-token", &self.token).send(&self.door).await
    }
}

pub fn origin(house: &House) -> String {
    format!("https://{}", house.door.address)
}

pub async fn code_of(person: &Person) -> String {
    // Two alike in one second differ in this, which is signed with the rest.
    let nonce = data_channel::Uuid::new_v4().to_string();
    let call = Call::post("/v1/login/browser", &json!({})).with("x-postern-nonce", &nonce);
    let call = person.sign(call);
    let link = call.send(&person.door).await.ok();
    assert_eq!(call.send(&person.door).await.status, 403, "a call is good once");
    link["url"].as_str().unwrap().split_once("/console/enter#").unwrap().1.to_owned()
}

pub async fn enter(house: &House, body: &Value) -> Answer {
    Call::post("/console/api/sign-in", body).with("origin", &origin(house)).send(&house.door).await
}

/// The cookie that an answer sets.
fn cookie(answer: &Answer) -> String {
    let line = answer.cookies.first().unwrap();
    assert!(line.ends_with("; Secure; HttpOnly; SameSite=Strict") && line.contains("; Path=/;"), "{line}");
    line.split(';').next().unwrap().to_owned()
}
