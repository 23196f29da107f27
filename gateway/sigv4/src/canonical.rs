//! The canonical request and the string that is signed.

use ring::{digest, hmac};

use crate::{ALGORITHM, Request};

/// Parts of a query pair that a presigned URL adds after signing.
const SIGNATURE_KEY: &str = "X-Amz-Signature";

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().map_or('0', char::from);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The canonical request; `signed` in the order of `SignedHeaders`.
pub(crate) fn canonical_request(request: &Request<'_>, signed: &[String]) -> String {
    let mut text = String::with_capacity(512);
    text.push_str(request.method);
    text.push('\n');
    text.push_str(&canonical_path(request.path));
    text.push('\n');
    text.push_str(&canonical_query(request.query));
    text.push('\n');
    for name in signed {
        text.push_str(name);
        text.push(':');
        for (at, value) in request.values(name).enumerate() {
            if at > 0 {
                text.push(',');
            }
            push_value(&mut text, value);
        }
        text.push('\n');
    }
    text.push('\n');
    text.push_str(&signed.join(";"));
    text.push('\n');
    text.push_str(&hex(digest::digest(&digest::SHA256, request.body).as_ref()));
    text
}

/// What is signed: algorithm, date, scope and the canonical request's hash.
pub(crate) fn string_to_sign(amz_date: &str, scope: &str, canonical: &str) -> String {
    let hash = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    format!("{ALGORITHM}\n{amz_date}\n{scope}\n{hash}")
}

/// The key of one day, region and service.
pub(crate) fn signing_key(secret: &str, date: &str, region: &str, service: &str) -> hmac::Key {
    let first = hmac::Key::new(hmac::HMAC_SHA256, format!("AWS4{secret}").as_bytes());
    [date, region, service, "aws4_request"].iter().fold(first, |key, word| {
        hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, word.as_bytes()).as_ref())
    })
}

/// Trims the value and makes each run of blanks one space.
fn push_value(text: &mut String, value: &[u8]) {
    let words = value.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    for (at, word) in words.enumerate() {
        if at > 0 {
            text.push(' ');
        }
        text.push_str(&String::from_utf8_lossy(word));
    }
}

/// Normalises the raw path and encodes it once more.
///
/// The path on the wire is already encoded, so this is the "double encoding"
/// of AWS's text; `%2F` stays `%252F` and is never a separator.
fn canonical_path(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            other => kept.push(other),
        }
    }
    let directory = matches!(path.rsplit('/').next(), Some("" | "." | ".."));
    let mut text = String::with_capacity(path.len() + 8);
    for segment in &kept {
        text.push('/');
        push_encoded(&mut text, segment.as_bytes());
    }
    if kept.is_empty() || directory {
        text.push('/');
    }
    text
}

/// Decodes and encodes each pair, sorts by encoded key, then value.
fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (reencoded(key), reencoded(value))
        })
        .filter(|(key, _)| key != SIGNATURE_KEY)
        .collect();
    pairs.sort_unstable();
    let joined: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    joined.join("&")
}

fn reencoded(word: &str) -> String {
    let mut text = String::with_capacity(word.len() + 8);
    push_encoded(&mut text, &percent_decoded(word));
    text
}

/// Decodes `%XX`; `+` is a plus, and a broken escape stays as it is.
pub(crate) fn percent_decoded(word: &str) -> Vec<u8> {
    let mut bytes = word.bytes();
    let mut decoded = Vec::with_capacity(word.len());
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        let escape = match (byte, ahead.next().and_then(nibble), ahead.next().and_then(nibble)) {
            (b'%', Some(high), Some(low)) => Some(high * 16 + low),
            _ => None,
        };
        if escape.is_some() {
            bytes = ahead;
        }
        decoded.push(escape.unwrap_or(byte));
    }
    decoded
}

pub(crate) fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

fn push_encoded(text: &mut String, bytes: &[u8]) {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            text.push(char::from(byte));
        } else {
            text.push('%');
            text.push_str(&hex(&[byte]).to_ascii_uppercase());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_normalised_and_encoded_once_more() {
        for (raw, canonical) in [
            ("", "/"),
            ("/", "/"),
            ("//a//b/", "/a/b/"),
            ("/a/../../b/.", "/b/"),
            ("/a%2Fb", "/a%252Fb"),
            ("/a/%2e%2e/b", "/a/%252e%252e/b"),
        ] {
            assert_eq!(canonical_path(raw), canonical, "{raw:?}");
        }
    }

    #[test]
    fn a_query_is_sorted_by_key_then_value_and_plus_is_no_space() {
        assert_eq!(canonical_query("b=2&a=z&a=b&c"), "a=b&a=z&b=2&c=");
        assert_eq!(canonical_query("x=a+b%20c"), "x=a%2Bb%20c");
        assert_eq!(canonical_query("x=%zz&Param-3=1&Param=2"), "Param=2&Param-3=1&x=%25zz");
    }

    #[test]
    fn a_header_value_is_trimmed_and_its_blanks_collapse() {
        let mut text = String::new();
        push_value(&mut text, b"  \"a   b\t c\" ");
        assert_eq!(text, "\"a b c\"");
    }
}
