//! What `postern forward` says, to people and to programs.

use std::fmt::Display;

use serde_json::{Value, json};

use crate::cli::output::print_line;
use crate::client::ports::Notice;
use crate::client::{ClientError, Ending};
use crate::session::{Target, printable};

/// Where a forward leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Far {
    /// The host, if it is not the machine itself.
    pub host: Option<String>,
    /// The port.
    pub port: u16,
}

/// Says things on standard error, or as JSON on standard output.
#[derive(Debug, Clone)]
pub(super) struct Voice {
    /// As JSON.
    pub json: bool,
    /// The machine that all is about.
    pub target: Target,
}

impl Voice {
    pub(super) fn listening(&self, far: &Far, place: &impl Display, session: &str) {
        let words = format!("{place} is {} (session {}); Ctrl-C ends it", self.name(far), printable(session));
        self.say(
            far,
            "listening",
            &words,
            &[("address", place.to_string()), ("session", session.to_owned())],
        );
    }

    /// A SOCKS proxy has no destination of its own.
    pub(super) fn proxying(&self, place: &impl Display) {
        if self.json {
            let line = json!({"event": "listening", "address": place.to_string(), "target": self.target});
            return print(&line);
        }
        eprintln!("socks5h://{place} is the network of {}; Ctrl-C ends it", self.target);
    }

    pub(super) fn begun(&self, far: &Far, session: &str) {
        let words = format!("{} is reached in session {}", self.name(far), printable(session));
        self.say(far, "begun", &words, &[("session", session.to_owned())]);
    }

    pub(super) fn notice(&self, far: &Far, notice: &Notice) {
        match notice {
            Notice::Refused => {
                let words = format!("{} could not be reached by {}", self.name(far), self.target);
                self.say(far, "refused", &words, &[]);
            }
            Notice::Message(text) => self.say(far, "message", text, &[("text", text.clone())]),
            Notice::Lost => self.say(far, "lost", "the connection to the gateway is lost, reconnecting", &[]),
            Notice::Back => self.say(far, "back", "connected again", &[]),
            Notice::Accepted | Notice::Finished => {}
        }
    }

    pub(super) fn failed(&self, far: &Far, error: &ClientError) {
        let text = printable(&error.to_string());
        self.say(far, "failed", &format!("{}: {text}", self.name(far)), &[("text", text.clone())]);
    }

    pub(super) fn ended(&self, far: &Far, ending: &Ending) {
        let text = match ending {
            Ending::Closed { text, .. } | Ending::Unsupported(text) => text.replace('\n', " "),
            Ending::TimedOut => "timed out".to_owned(),
            Ending::Left | Ending::Open | Ending::Signal(_) => String::new(),
        };
        let words = match text.as_str() {
            "" => format!("the session to {} has ended", self.name(far)),
            text => format!("the session to {} has ended: {text}", self.name(far)),
        };
        self.say(far, "ended", &words, &[("text", text.clone())]);
    }

    fn name(&self, far: &Far) -> String {
        match &far.host {
            Some(host) if host.contains(':') => format!("[{}]:{}", printable(host), far.port),
            Some(host) => format!("{}:{}", printable(host), far.port),
            None => format!("port {} of {}", far.port, self.target),
        }
    }

    fn say(&self, far: &Far, event: &str, words: &str, more: &[(&str, String)]) {
        if !self.json {
            return eprintln!("postern: {words}");
        }
        let mut line = json!({"event": event, "target": self.target, "host": far.host, "port": far.port});
        if let Value::Object(line) = &mut line {
            line.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone().into())));
        }
        print(&line);
    }
}

fn print(line: &Value) {
    // Whoever reads it has gone; what is carried goes on.
    let _ = print_line(&line.to_string());
}
