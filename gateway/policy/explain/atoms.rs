//! Which change would make a clause hold, or not hold?

use serde_json::{Value, json};

use super::super::situation::{Situation, uid_text};
use super::change::Change;

/// Deepest expression that is looked into.
const DEPTH_MAX: usize = 64;
/// Most values of one list that are tried.
const VALUES_MAX: usize = 8;

/// The changes that could give a clause the value that is wanted.
///
/// They are only tried: what they do is found out by asking again.
pub(super) fn changes(body: &Value, wanted: bool, situation: &Situation) -> Vec<Change> {
    let mut found = Finder { situation, found: Vec::new() };
    found.look(body, wanted, 0);
    found.found
}

struct Finder<'a> {
    situation: &'a Situation,
    found: Vec<Change>,
}

/// Something that a clause speaks of and that could be otherwise.
enum Path {
    Context(String),
    Attribute(String, String),
    Tag(String, String),
}

impl Finder<'_> {
    fn look(&mut self, expression: &Value, wanted: bool, depth: usize) {
        let Some((operator, operands)) = expression.as_object().and_then(|object| object.iter().next())
        else {
            return;
        };
        if depth > DEPTH_MAX {
            return;
        }
        let (left, right) = (operands.get("left"), operands.get("right"));
        match (operator.as_str(), left, right) {
            ("&&" | "||", Some(left), Some(right)) => {
                self.look(left, wanted, depth + 1);
                self.look(right, wanted, depth + 1);
            }
            ("!", ..) => {
                if let Some(inner) = operands.get("arg") {
                    self.look(inner, !wanted, depth + 1);
                }
            }
            ("if-then-else", ..) => {
                for part in ["if", "then", "else"].iter().filter_map(|part| operands.get(part)) {
                    self.look(part, wanted, depth + 1);
                }
            }
            ("==", Some(left), Some(right)) => self.equal(left, right, wanted),
            ("!=", Some(left), Some(right)) => self.equal(left, right, !wanted),
            ("<" | "<=" | ">" | ">=", Some(left), Some(right)) => self.compared(left, right),
            ("in", Some(left), Some(right)) => self.member(left, right, wanted),
            ("contains", Some(set), Some(item)) if wanted => self.one_of(set, item),
            ("hasTag", Some(of), Some(key)) => {
                if let (Some(of), Some(key)) = (self.entity(of), text(key)) {
                    let value = wanted.then(|| "true".to_owned());
                    self.found.push(Change::Tag { of, key: key.to_owned(), value });
                }
            }
            ("has", Some(_), _) => self.present(operands, wanted),
            ("like", Some(left), _) if wanted => {
                if let Some(path) = self.path(left) {
                    self.set(path, json!(sample(operands.get("pattern"))));
                }
            }
            ("isInRange", ..) if wanted => self.in_range(operands),
            (".", ..) => {
                if let Some(path) = self.path(expression) {
                    self.set(path, wanted.into());
                }
            }
            _ => {}
        }
    }

    fn equal(&mut self, left: &Value, right: &Value, wanted: bool) {
        for (path, other) in [(left, right), (right, left)] {
            let Some(path) = self.path(path) else { continue };
            match (self.value(other), wanted) {
                (Some(value), true) => self.set(path, value),
                (Some(_), false) => {
                    if let Path::Tag(of, key) = path {
                        self.found.push(Change::Tag { of, key, value: None });
                    }
                }
                (None, _) => {}
            }
        }
    }

    /// On the border and on both sides of it: one of them is right.
    fn compared(&mut self, left: &Value, right: &Value) {
        for (path, border) in [(left, right), (right, left)] {
            let (Some(path), Some(border)) = (self.path(path), self.value(border).and_then(|v| v.as_i64()))
            else {
                continue;
            };
            if let Path::Context(name) = path {
                for value in [border, border.saturating_add(1), border.saturating_sub(1)] {
                    self.set(Path::Context(name.clone()), value.into());
                }
            }
        }
    }

    fn member(&mut self, left: &Value, right: &Value, wanted: bool) {
        let places =
            right.get("Set").and_then(Value::as_array).cloned().unwrap_or_else(|| vec![right.clone()]);
        let Some(who) = self.entity(left) else { return };
        for what in places.iter().filter_map(literal_uid).take(VALUES_MAX) {
            let who = who.clone();
            self.found.push(if wanted { Change::Join { who, what } } else { Change::Leave { who, what } });
        }
    }

    fn one_of(&mut self, set: &Value, item: &Value) {
        let literals = set.get("Set").and_then(Value::as_array).cloned().unwrap_or_default();
        for literal in literals.iter().take(VALUES_MAX) {
            if let (Some(path), Some(value)) = (self.path(item), self.value(literal)) {
                self.set(path, value);
            }
        }
    }

    /// Only what can be given at once is given because it is asked for.
    fn present(&mut self, operands: &Value, wanted: bool) {
        match operands.get("attr").and_then(Value::as_str) {
            Some("reason") if wanted => self.found.push(Change::Reason { text: String::new() }),
            Some("mfa") if wanted => self.found.push(Change::Mfa),
            _ => {}
        }
    }

    fn in_range(&mut self, operands: &Value) {
        let network = operands.get(1).and_then(|range| text(range.get("ip")?.get(0)?));
        if let (Some(network), Some(Path::Context(_))) =
            (network, operands.get(0).and_then(|of| self.path(of)))
        {
            self.found.push(Change::Network { network: network.to_owned() });
        }
    }

    fn set(&mut self, path: Path, value: Value) {
        let change = match path {
            Path::Context(name) => match (name.as_str(), value) {
                ("reason", Value::String(text)) => Change::Reason { text },
                ("mfa", Value::Bool(true)) => Change::Mfa,
                ("sourceIp", value) => {
                    match value.get("__extn").and_then(|extension| extension.get("arg")?.as_str()) {
                        Some(network) => Change::Network { network: network.to_owned() },
                        None => return,
                    }
                }
                ("document" | "port" | "host" | "command", value) => Change::Circumstance { name, value },
                _ => return,
            },
            Path::Attribute(of, name) if name == "mfa" && of == self.situation.request.principal => {
                if value != Value::Bool(true) {
                    return;
                }
                Change::Mfa
            }
            Path::Attribute(of, name) => Change::Attribute { of, name, value },
            Path::Tag(of, key) => match value {
                Value::String(value) => Change::Tag { of, key, value: Some(value) },
                _ => return,
            },
        };
        self.found.push(change);
    }

    /// What an expression speaks of, if it is a word that could change.
    fn path(&self, expression: &Value) -> Option<Path> {
        if let Some(tag) = expression.get("getTag") {
            let (of, key) = (self.entity(tag.get("left")?)?, text(tag.get("right")?)?);
            return Some(Path::Tag(of, key.to_owned()));
        }
        let access = expression.get(".")?;
        let (of, name) = (access.get("left")?, access.get("attr")?.as_str()?.to_owned());
        if of.get("Var").and_then(Value::as_str) == Some("context") {
            return Some(Path::Context(name));
        }
        Some(Path::Attribute(self.entity(of)?, name))
    }

    /// The entity that an expression stands for now.
    fn entity(&self, expression: &Value) -> Option<String> {
        match expression.get("Var").and_then(Value::as_str) {
            Some("principal") => return Some(self.situation.request.principal.clone()),
            Some("resource") => return Some(self.situation.request.resource.clone()),
            Some(_) => return None,
            None => {}
        }
        let access = expression.get(".")?;
        let of = self.situation.entity(&self.entity(access.get("left")?)?)?;
        let value = of.get("attrs")?.get(access.get("attr")?.as_str()?)?;
        let uid = value.get("__entity").unwrap_or(value);
        Some(uid_text(uid.get("type")?.as_str()?, uid.get("id")?.as_str()?))
    }

    /// The value of a literal, or of a word of the situation.
    fn value(&self, expression: &Value) -> Option<Value> {
        if let Some(literal) = expression.get("Value") {
            return Some(literal.clone());
        }
        if let Some(address) = expression.get("ip").and_then(|ip| text(ip.get(0)?)) {
            return Some(json!({"__extn": {"fn": "ip", "arg": address}}));
        }
        let of =
            |name: &str, part: &str, key: &str| self.situation.entity(name)?.get(part)?.get(key).cloned();
        match self.path(expression)? {
            Path::Context(name) => self.situation.request.context.get(&name).cloned(),
            Path::Attribute(entity, name) => of(&entity, "attrs", &name),
            Path::Tag(entity, key) => of(&entity, "tags", &key),
        }
    }
}

fn text(expression: &Value) -> Option<&str> {
    expression.get("Value")?.as_str()
}

fn literal_uid(expression: &Value) -> Option<String> {
    let uid = expression.get("Value")?.get("__entity")?;
    // A group of Identity Center is the group of that name.
    let kind = match uid.get("type")?.as_str()? {
        "AWS::IdentityStore::Group" => "Postern::Group",
        kind => kind,
    };
    Some(uid_text(kind, uid.get("id")?.as_str()?))
}

/// The shortest text of a pattern.
fn sample(pattern: Option<&Value>) -> String {
    let parts = pattern.and_then(Value::as_array).into_iter().flatten();
    parts.filter_map(|part| part.get("Literal")?.as_str()).collect()
}
