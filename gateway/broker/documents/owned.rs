//! The documents of AWS, which nobody has to be asked for.
//!
//! Their contents are AWS's; here is what both stock programs rely on, with
//! the parameters of AWS's documentation. A parameter that is not here is
//! refused, since no policy could decide on it.

use super::content::{ContentError, SessionDocument};
use crate::session::Document;

const PORT: &str = r#"{"type": "String", "allowedPattern": "^[0-9]{1,5}$", "default": "#;
const COMMANDS: &str = r#"
    "linux": {"commands": "{{command}}"}, "macos": {"commands": "{{command}}"},
    "windows": {"commands": "{{command}}"}"#;

/// The content of a document that is known by its name.
///
/// Names that begin with `AWS-` are AWS's alone. The account's shell
/// document may be changed, but not what kind of session it opens.
pub(super) fn content(document: &Document) -> Option<Result<SessionDocument, ContentError>> {
    let text = match document.owned_name()? {
        Document::SHELL => r#"{"sessionType": "Standard_Stream"}"#.to_owned(),
        "AWS-StartInteractiveCommand" => format!(
            r#"{{"sessionType": "InteractiveCommands", "parameters": {{"command": {{"type": "String"}}}},
                "properties": {{{COMMANDS}}}}}"#
        ),
        "AWS-StartNonInteractiveCommand" => format!(
            r#"{{"sessionType": "NonInteractiveCommands", "parameters": {{
                "command": {{"type": "String"}},
                "separateOutputStream": {{"type": "String", "default": ""}},
                "stdOutSeparatorPrefix": {{"type": "String", "default": ""}},
                "stdErrSeparatorPrefix": {{"type": "String", "default": ""}}}},
                "properties": {{{COMMANDS}}}}}"#
        ),
        "AWS-StartSSHSession" => format!(
            r#"{{"sessionType": "Port", "parameters": {{"portNumber": {PORT}"22"}}}},
                "properties": {{"portNumber": "{{{{portNumber}}}}"}}}}"#
        ),
        "AWS-StartPortForwardingSession" => forwarding("", ""),
        "AWS-StartPortForwardingSessionToRemoteHost" => forwarding(
            r#""host": {"type": "String", "allowedPattern": "^[^,$^&()!;'\"<>`{}\\[\\]\\|#=\\s]{3,}$"},"#,
            r#""host": "{{host}}","#,
        ),
        _ => return None,
    };
    Some(SessionDocument::parse(&text))
}

fn forwarding(host_parameter: &str, host: &str) -> String {
    format!(
        r#"{{"sessionType": "Port", "parameters": {{{host_parameter}
            "portNumber": {PORT}"80"}}, "localPortNumber": {PORT}"0"}},
            "localUnixSocket": {{"type": "String", "default": ""}},
            "localConnectionType": {{"type": "String", "default": "", "allowedValues": ["", "unix"]}}}},
            "properties": {{{host} "portNumber": "{{{{portNumber}}}}", "type": "LocalPortForwarding"}}}}"#
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::session::SessionKind;

    #[test]
    fn each_document_of_aws_opens_its_kind_with_its_defaults() {
        let one = |name: &str, value: &str| (name.to_owned(), vec![value.to_owned()]);
        for (name, given, kind, plan) in [
            (Document::SHELL, vec![], SessionKind::Shell, vec![]),
            (
                "AWS-StartInteractiveCommand",
                vec![one("command", "top")],
                SessionKind::InteractiveCommand,
                vec![one("command", "top")],
            ),
            (
                "AWS-StartNonInteractiveCommand",
                vec![one("command", "id")],
                SessionKind::NonInteractiveCommand,
                vec![one("command", "id")],
            ),
            ("AWS-StartSSHSession", vec![], SessionKind::Ssh, vec![one("portNumber", "22")]),
            (
                "AWS-StartPortForwardingSession",
                vec![one("localPortNumber", "9")],
                SessionKind::Port,
                vec![one("portNumber", "80")],
            ),
            (
                "AWS-StartPortForwardingSessionToRemoteHost",
                vec![one("host", "db-1.internal"), one("portNumber", "5432")],
                SessionKind::PortToHost,
                vec![one("host", "db-1.internal"), one("portNumber", "5432")],
            ),
        ] {
            let document = content(&Document::parse(name).unwrap()).unwrap().unwrap();
            let planned = document.plan(&BTreeMap::from_iter(given), None).unwrap();
            assert_eq!(planned, (kind, BTreeMap::from_iter(plan)), "{name}");
        }
    }

    #[test]
    fn only_names_that_are_aws_s_own_are_known() {
        for known in ["AWS-StartSSHSession", "arn:aws:ssm:eu-west-1::document/AWS-StartSSHSession"] {
            assert!(content(&Document::parse(known).unwrap()).is_some(), "{known}");
        }
        for other in [
            "My-Shell",
            "AWS-Unknown",
            "arn:aws:ssm:eu-west-1:999999999999:document/SSM-SessionManagerRunShell",
        ] {
            assert!(content(&Document::parse(other).unwrap()).is_none(), "{other}");
        }
    }
}
