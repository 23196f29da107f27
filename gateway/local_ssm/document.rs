//! Which documents there are and what work each one is.

use std::collections::BTreeMap;

use crate::error::{ApiError, Code};
use crate::session::{Document, SessionKind};

/// Longest command line of a command document, in bytes.
const COMMAND_MAX: usize = 64 * 1024;

/// What the agent runs for a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Work {
    /// The target's shell on a terminal; no handshake.
    Shell,
    /// `sh -c COMMAND` on a terminal; no handshake.
    InteractiveCommand(String),
    /// A program without terminal or input; always a handshake.
    NonInteractiveCommand {
        /// The program and its arguments; no shell reads them.
        argv: Vec<String>,
        /// Standard error and the exit code as payload types of their own.
        separate: bool,
    },
}

impl Work {
    /// What a document asks for; an error if it or a parameter is unknown.
    pub(super) fn of(document: &Document, given: &BTreeMap<String, Vec<String>>) -> Result<Self, ApiError> {
        let mut given = Parameters::read(given)?;
        let work = match document.kind() {
            SessionKind::Shell if is_shell(document) => Self::Shell,
            SessionKind::InteractiveCommand => Self::InteractiveCommand(given.command()?),
            SessionKind::NonInteractiveCommand => {
                let argv =
                    words(&given.command()?).ok_or_else(|| invalid("the command has an open quote"))?;
                Self::NonInteractiveCommand { argv, separate: given.flag("separateOutputStream", true)? }
            }
            SessionKind::Port | SessionKind::PortToHost | SessionKind::Ssh => {
                return Err(invalid("this machine has no port sessions yet"));
            }
            SessionKind::Shell => {
                return Err(invalid(&format!("Document with name {} does not exist.", document.as_str())));
            }
        };
        given.nothing_left()?;
        Ok(work)
    }

    /// The session type, as handshakes name it.
    pub(super) fn session_type(&self) -> &'static str {
        match self {
            Self::Shell => "Standard_Stream",
            Self::InteractiveCommand(_) => "InteractiveCommands",
            Self::NonInteractiveCommand { .. } => "NonInteractiveCommands",
        }
    }

    /// Whether the agent starts with a handshake.
    pub(super) fn has_handshake(&self) -> bool {
        matches!(self, Self::NonInteractiveCommand { .. })
    }
}

fn is_shell(document: &Document) -> bool {
    document.as_str().rsplit('/').next() == Some(Document::SHELL)
}

fn invalid(why: &str) -> ApiError {
    ApiError::client(Code::InvalidDocument, why)
}

/// Parameters of type `String`: each a list of exactly one.
struct Parameters<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Parameters<'a> {
    fn read(given: &'a BTreeMap<String, Vec<String>>) -> Result<Self, ApiError> {
        let one = |(name, values): (&'a String, &'a Vec<String>)| match values.as_slice() {
            [value] => Ok((name.as_str(), value.as_str())),
            _ => Err(invalid(&format!("parameter {name} must have exactly one value"))),
        };
        given.iter().map(one).collect::<Result<_, _>>().map(Self)
    }

    fn command(&mut self) -> Result<String, ApiError> {
        match self.0.remove("command") {
            Some(command) if command.trim().is_empty() => Err(invalid("parameter command is empty")),
            Some(command) if command.len() > COMMAND_MAX => Err(invalid("parameter command is too long")),
            Some(command) if command.contains('\0') => Err(invalid("parameter command holds a NUL")),
            Some(command) => Ok(command.to_owned()),
            None => Err(invalid("parameter command is missing")),
        }
    }

    fn flag(&mut self, name: &str, default: bool) -> Result<bool, ApiError> {
        match self.0.remove(name) {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(_) => Err(invalid(&format!("parameter {name} must be true or false"))),
        }
    }

    fn nothing_left(&self) -> Result<(), ApiError> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(invalid(&format!("the document has no parameter {name}"))),
        }
    }
}

/// Splits a command line as the agent does: POSIX quotes, nothing else.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match c {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next()? {
                        '\'' => break,
                        quoted => word.push(quoted),
                    }
                }
            }
            '"' => double_quoted(&mut characters, word.get_or_insert_default())?,
            '\\' => word.get_or_insert_default().push(characters.next()?),
            plain => word.get_or_insert_default().push(plain),
        }
    }
    words.extend(word);
    Some(words)
}

fn double_quoted(characters: &mut std::str::Chars<'_>, word: &mut String) -> Option<()> {
    loop {
        match characters.next()? {
            '"' => return Some(()),
            '\\' => match characters.next()? {
                special @ ('"' | '\\' | '$' | '`') => word.push(special),
                other => word.extend(['\\', other]),
            },
            quoted => word.push(quoted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(document: &str, given: &[(&str, &[&str])]) -> Result<Work, ApiError> {
        let list = |values: &[&str]| values.iter().map(|v| (*v).to_owned()).collect();
        let given = given.iter().map(|(name, values)| ((*name).to_owned(), list(values))).collect();
        Work::of(&Document::parse(document).unwrap(), &given)
    }

    #[test]
    fn a_document_is_found_by_name_or_arn() {
        for name in
            [Document::SHELL, "arn:aws:ssm:eu-west-1:111122223333:document/SSM-SessionManagerRunShell"]
        {
            assert_eq!(work(name, &[]), Ok(Work::Shell));
        }
    }

    #[test]
    fn unknown_documents_and_parameters_are_refused() {
        let command: &[(&str, &[&str])] = &[("command", &["id"])];
        for (document, given) in [
            ("Custom-Shell", &[][..]),
            ("AWS-StartSSHSession", &[]),
            ("AWS-StartInteractiveCommand", &[]),
            (Document::SHELL, command),
            ("AWS-StartInteractiveCommand", &[("command", &["a", "b"][..])]),
            ("AWS-StartNonInteractiveCommand", &[("command", &["echo 'open"][..])]),
            ("AWS-StartInteractiveCommand", &[("command", &["id"][..]), ("user", &["root"][..])]),
        ] {
            let error = work(document, given).expect_err(document);
            assert_eq!(error.code, Code::InvalidDocument, "{document}");
        }
    }

    #[test]
    fn a_command_line_is_split_without_a_shell() {
        let argv = |line| words(line).unwrap();
        assert_eq!(argv("echo  a 'b c' \"d $e\" f\\ g ''"), ["echo", "a", "b c", "d $e", "f g", ""]);
        assert_eq!(argv("sh -c \"echo \\\"x\\\" \\n\""), ["sh", "-c", "echo \"x\" \\n"]);
        assert_eq!(words("echo \"open"), None);
    }
}
