//! The XML of STS, read strictly: one shape is an identity, all else is not.

use roxmltree::{Document, Node, ParsingOptions};

use super::IdentityError;

/// The namespace of every answer of STS.
const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";
/// Most XML nodes read; a real answer has about 20.
const NODES_MAX: u32 = 100;

/// Whom STS named.
pub(super) struct StsAnswer {
    pub(super) arn: String,
    pub(super) user_id: String,
    pub(super) account: String,
    pub(super) request_id: String,
}

/// Reads an answer with status 200 and type `text/xml`.
///
/// Exactly one `GetCallerIdentityResponse` with exactly one Result that has
/// exactly one each of Arn, UserId and Account. Anything besides is refused,
/// so that no other answer can be taken for this one.
pub(super) fn read(body: &[u8]) -> Result<StsAnswer, IdentityError> {
    let wrong = |why| IdentityError::StsAnswer(why);
    let text = std::str::from_utf8(body).map_err(|_| wrong("it is not UTF-8"))?;
    let options = ParsingOptions { nodes_limit: NODES_MAX, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options).map_err(|_| wrong("it is not plain XML"))?;
    if document.root().children().count() != 1 {
        return Err(wrong("it has more than its root element"));
    }
    let root = document.root_element();
    if !is_named(root, "GetCallerIdentityResponse") {
        return Err(wrong("it is not a GetCallerIdentityResponse"));
    }
    let [result] = children(root, &["GetCallerIdentityResult"], Some("ResponseMetadata"))?;
    let [arn, user_id, account] = children(result, &["Arn", "UserId", "Account"], None)?;
    Ok(StsAnswer {
        arn: text_of(arn)?,
        user_id: text_of(user_id)?,
        account: text_of(account)?,
        request_id: String::new(),
    })
}

/// The code of an error answer, as one of the words known here.
pub(super) fn error_code(body: &[u8]) -> Option<&'static str> {
    const CODES: [&str; 9] = [
        "AccessDenied",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "MissingAuthenticationToken",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "Throttling",
    ];
    let options = ParsingOptions { nodes_limit: NODES_MAX, ..ParsingOptions::default() };
    let document = Document::parse_with_options(std::str::from_utf8(body).ok()?, options).ok()?;
    let error = document.root_element().children().find(|node| node.tag_name().name() == "Error")?;
    let code = error.children().find(|node| node.tag_name().name() == "Code")?.text()?;
    CODES.into_iter().find(|known| *known == code)
}

/// The children named, once each; one more is optional, others are refused.
fn children<'a, 'i, const N: usize>(
    parent: Node<'a, 'i>,
    names: &[&str; N],
    optional: Option<&str>,
) -> Result<[Node<'a, 'i>; N], IdentityError> {
    let wrong = || IdentityError::StsAnswer("an element is missing, unknown or there twice");
    let blank = |node: &Node<'_, '_>| node.is_text() && node.text().unwrap_or_default().trim().is_empty();
    let inside: Vec<Node<'a, 'i>> = parent.children().filter(|node| !blank(node)).collect();
    let mut found = Vec::with_capacity(N);
    for name in names {
        let mut named = inside.iter().filter(|node| is_named(**node, name));
        let one = named.next().ok_or_else(wrong)?;
        if named.next().is_some() {
            return Err(wrong());
        }
        found.push(*one);
    }
    let extra = optional.map_or(0, |name| inside.iter().filter(|node| is_named(**node, name)).count());
    if extra > 1 || inside.len() != N + extra {
        return Err(wrong());
    }
    found.try_into().map_err(|_| wrong())
}

fn is_named(node: Node<'_, '_>, name: &str) -> bool {
    let tag = node.tag_name();
    let plain = node.attributes().len() == 0;
    node.is_element() && plain && tag.name() == name && tag.namespace() == Some(NAMESPACE)
}

fn text_of(node: Node<'_, '_>) -> Result<String, IdentityError> {
    let mut inside = node.children();
    let text = inside.next().filter(Node::is_text).and_then(|text| text.text());
    match (text, inside.next()) {
        (Some(text), None) => Ok(text.to_owned()),
        _ => Err(IdentityError::StsAnswer("an element holds something else than text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <GetCallerIdentityResult>
    <Arn>arn:aws:iam::111122223333:user/alice</Arn>
    <UserId>AIDAEXAMPLE</UserId>
    <Account>111122223333</Account>
  </GetCallerIdentityResult>
  <ResponseMetadata>
    <RequestId>01234567-89ab-cdef-0123-456789abcdef</RequestId>
  </ResponseMetadata>
</GetCallerIdentityResponse>
"#;

    #[test]
    fn the_answer_of_sts_is_read() {
        for text in [GOOD.to_owned(), format!("<?xml version=\"1.0\"?>\n{GOOD}")] {
            let answer = read(text.as_bytes()).unwrap();
            assert_eq!(answer.arn, "arn:aws:iam::111122223333:user/alice");
            assert_eq!((answer.user_id.as_str(), answer.account.as_str()), ("AIDAEXAMPLE", "111122223333"));
        }
    }

    #[test]
    fn anything_but_that_one_shape_is_refused() {
        let arn = "<Arn>arn:aws:iam::111122223333:user/alice</Arn>";
        let (head, tail) = GOOD.split_at(GOOD.find("  <GetCallerIdentityResult>").unwrap());
        let (result, rest) = tail.split_at(tail.find("  <ResponseMetadata>").unwrap());
        let bad = [
            String::new(),
            r#"{"GetCallerIdentityResponse":{}}"#.to_owned(),
            GOOD.replace("2011-06-15", "2012-06-15"),
            GOOD.replace(" xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"", ""),
            GOOD.replace("GetCallerIdentityResponse", "GetFederationTokenResponse"),
            format!("<Wrap>{GOOD}</Wrap>"),
            format!("{GOOD}{GOOD}"),
            format!("{GOOD}trailing"),
            format!("{GOOD}<!-- trailing -->"),
            format!("<!-- leading -->{GOOD}"),
            format!("<!DOCTYPE x [<!ENTITY a \"b\">]>{GOOD}"),
            format!("{head}{result}{result}{rest}"),
            format!("{head}{rest}"),
            GOOD.replace(arn, ""),
            GOOD.replace(arn, &format!("{arn}{arn}")),
            GOOD.replace(arn, &format!("{arn}<More/>")),
            GOOD.replace(arn, &format!("{arn}text")),
            GOOD.replace(arn, "<Arn>arn:aws:iam::1:user/<b>alice</b></Arn>"),
            GOOD.replace(arn, "<Arn>arn:aws<!-- split -->:iam::1:user/alice</Arn>"),
            GOOD.replace(arn, "<Arn/>"),
            GOOD.replace("<Arn>", "<Arn xmlns=\"urn:other\">"),
            GOOD.replace("<Arn>", "<Arn nil=\"true\">"),
            GOOD.replace("</ResponseMetadata>", &format!("</ResponseMetadata>{}", "<a/>".repeat(200))),
        ];
        for text in bad {
            assert!(read(text.as_bytes()).is_err(), "accepted: {text}");
        }
        assert!(read(b"\xff\xfe").is_err());
    }

    #[test]
    fn an_error_code_is_one_of_a_few_words() {
        let error = |code: &str| {
            format!(
                "<ErrorResponse xmlns=\"{NAMESPACE}\"><Error><Type>Sender</Type><Code>{code}</Code></Error></ErrorResponse>"
            )
        };
        assert_eq!(error_code(error("SignatureDoesNotMatch").as_bytes()), Some("SignatureDoesNotMatch"));
        assert_eq!(error_code(error("\u{9b}2J").as_bytes()), None);
        assert_eq!(error_code(b"<html>"), None);
    }
}
