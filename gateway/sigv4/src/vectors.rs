//! Both published vector suites, read from the crates that ship them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::canonical::{canonical_request, string_to_sign};
use crate::sign::authorization;
use crate::{Keys, Place, Presented, Request, Rules, Scope, SignatureError, sign, verify};

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const RULES: Rules<'static> =
    Rules { service: "service", required: &["host", "x-amz-date"], query: true, duplicates: true };

/// Vectors of the AWS suite that do not apply here, and why.
const AWS_SKIPPED: &[(&str, &str)] = &[
    ("get-relative-relative-unnormalized", S3_PATHS),
    ("get-relative-unnormalized", S3_PATHS),
    ("get-slash-dot-slash-unnormalized", S3_PATHS),
    ("get-slash-pointless-dot-unnormalized", S3_PATHS),
    ("get-slash-unnormalized", S3_PATHS),
    ("get-slashes-unnormalized", S3_PATHS),
    ("double-encode-path", "ships no secret; its canonical request is checked on its own"),
    ("double-url-encode", "ships a signature of another secret; its canonical request is checked on its own"),
];
const S3_PATHS: &str = "paths stay unnormalised only for S3, which never comes here";
/// The token is added after signing: we never accept an unsigned token.
const UNSIGNED_TOKEN: &str = "post-sts-header-after";

/// Vectors of the `.sreq` suite that do not apply here, and why.
const SREQ_SKIPPED: &[(&str, &str)] = &[
    ("get-header-value-multiline", "joins folded lines with commas; the newer AWS suite joins with a space"),
    ("post-x-www-form-urlencoded", "signs the hash of an empty body, though the request has one"),
    ("post-x-www-form-urlencoded-parameters", "signs form fields as if they were the query"),
];

/// A request read from a vector file.
struct Parsed {
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Parsed {
    /// Reads the file as an HTTP server would; folded lines become one.
    fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
        let head = head.replace("\n ", " ");
        let mut lines = head.lines();
        let request_line = lines.next().unwrap();
        let (method, rest) = request_line.split_once(' ').unwrap();
        let target = rest.strip_suffix(" HTTP/1.1").unwrap_or(rest);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let headers = lines.filter(|line| !line.is_empty()).map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_owned(), value.trim().as_bytes().to_vec())
        });
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers: headers.collect(),
            body: body.as_bytes().to_vec(),
        }
    }

    fn with<T>(&self, look: impl FnOnce(&Request<'_>) -> T) -> T {
        let headers: Vec<(&str, &[u8])> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        look(&Request {
            method: &self.method,
            path: &self.path,
            query: &self.query,
            headers: &headers,
            body: &self.body,
        })
    }

    fn without(mut self, dropped: &[&str]) -> Self {
        self.headers.retain(|(name, _)| !dropped.iter().any(|drop| drop.eq_ignore_ascii_case(name)));
        self
    }
}

/// Where cargo keeps the sources of a crate of this build.
fn sources(package: &str, version: &str) -> PathBuf {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    // What other systems need may never have been downloaded here.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--offline", "--filter-platform", &platform])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let found = packages.iter().find(|one| one["name"] == package && one["version"] == version);
    let manifest =
        found.expect("the crate with the vectors is not part of this build")["manifest_path"].as_str();
    Path::new(manifest.unwrap()).parent().unwrap().to_owned()
}

fn read(folder: &Path, file: &str) -> String {
    fs::read_to_string(folder.join(file)).unwrap_or_else(|error| panic!("{folder:?}/{file}: {error}"))
}

/// What `context.json` says of a vector.
struct Context {
    token: Option<String>,
    now: OffsetDateTime,
    omits_token: bool,
}

impl Context {
    fn read(folder: &Path) -> Self {
        let json: serde_json::Value = serde_json::from_str(&read(folder, "context.json")).unwrap();
        assert_eq!(json["credentials"]["secret_access_key"], SECRET);
        assert_eq!((json["region"].as_str(), json["service"].as_str()), (Some("us-east-1"), Some("service")));
        Self {
            token: json["credentials"]["token"].as_str().map(str::to_owned),
            now: OffsetDateTime::parse(json["timestamp"].as_str().unwrap(), &Rfc3339).unwrap(),
            omits_token: json["omit_session_token"].as_bool().unwrap_or(false),
        }
    }
}

/// Canonical request, string to sign and signature of one signed request.
fn check_signed(folder: &Path, kind: &str, context: &Context) {
    let signed = Parsed::read(&read(folder, &format!("{kind}-signed-request.txt")));
    signed.with(|request| {
        let presented = Presented::read(request).unwrap_or_else(|error| panic!("{folder:?} {kind}: {error}"));
        assert_eq!(matches!(presented.place, Place::Query { .. }), kind == "query");
        if context.omits_token {
            // The header form is refused; in the query a token is never more than claimed.
            let refused = verify(request, &presented, SECRET, context.now, &RULES);
            assert!(refused.is_err(), "{folder:?} {kind}: an unsigned token was accepted");
            return;
        }
        let canonical = canonical_request(request, &presented.signed_headers);
        assert_eq!(canonical, read(folder, &format!("{kind}-canonical-request.txt")), "{folder:?} {kind}");
        let text = string_to_sign(&presented.amz_date, &presented.scope(), &canonical);
        assert_eq!(text, read(folder, &format!("{kind}-string-to-sign.txt")), "{folder:?} {kind}");
        assert_eq!(presented.signature, read(folder, &format!("{kind}-signature.txt")));
        assert_eq!(verify(request, &presented, SECRET, context.now, &RULES), Ok(()), "{folder:?} {kind}");
        assert_eq!(presented.security_token, context.token);
        let wrong = verify(request, &presented, "wrong", context.now, &RULES);
        assert_eq!(wrong, Err(SignatureError::Mismatch), "{folder:?} {kind}");
    });
}

/// Our signer makes the published signature.
fn check_signer(folder: &Path, context: &Context) {
    if context.omits_token {
        return;
    }
    let signed = Parsed::read(&read(folder, "header-signed-request.txt"));
    let expected = signed.with(|request| Presented::read(request).unwrap());
    let bare = signed.without(&["authorization", "x-amz-date", "x-amz-security-token"]);
    let keys = Keys { access_key_id: "AKIDEXAMPLE", secret: SECRET, session_token: context.token.as_deref() };
    let scope = Scope { region: "us-east-1", service: "service" };
    let made = bare.with(|request| sign(request, &keys, &scope, context.now));
    let signed = expected.signed_headers.join(";");
    let published = authorization("AKIDEXAMPLE", &expected.amz_date, &scope, &signed, &expected.signature);
    assert_eq!(made.authorization, published, "{folder:?}");
}

#[test]
fn every_vector_of_the_aws_suite_verifies_and_is_signed_alike() {
    let suite = sources("aws-sigv4", "1.6.4").join("aws-signing-test-suite/v4");
    let mut checked = 0;
    for entry in fs::read_dir(&suite).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        if AWS_SKIPPED.iter().any(|(skipped, _)| *skipped == name) {
            continue;
        }
        let context = Context::read(&folder);
        assert_eq!(context.omits_token, name == UNSIGNED_TOKEN);
        check_signed(&folder, "header", &context);
        check_signed(&folder, "query", &context);
        check_signer(&folder, &context);
        checked += 1;
    }
    assert_eq!(checked + AWS_SKIPPED.len(), 40, "the suite in {suite:?} is not the one known");
}

#[test]
fn paths_that_are_encoded_already_are_encoded_once_more() {
    let suite = sources("aws-sigv4", "1.6.4").join("aws-signing-test-suite/v4");
    for name in ["double-encode-path", "double-url-encode"] {
        let folder = suite.join(name);
        let expected = read(&folder, "header-canonical-request.txt");
        // The request of the first is dated otherwise than its own canonical form.
        let text = read(&folder, "request.txt").replace("20150830T123600Z", "20210511T154045Z");
        let signed = ["host".to_owned(), "x-amz-date".to_owned()];
        assert_eq!(
            Parsed::read(&text).with(|request| canonical_request(request, &signed)),
            expected,
            "{name}"
        );
    }
}

#[test]
fn every_vector_of_the_sreq_suite_verifies() {
    let suite = sources("scratchstack-aws-signature", "0.11.4").join("src/aws-sig-v4-test-suite");
    let (mut folders, mut checked) = (vec![suite.clone()], 0);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.file_stem().unwrap().to_str().unwrap();
            let skipped = SREQ_SKIPPED.iter().any(|(skipped, _)| *skipped == name);
            if path.extension().is_none_or(|kind| kind != "sreq") || skipped {
                continue;
            }
            check_sreq(&path, name);
            checked += 1;
        }
    }
    assert_eq!(checked + SREQ_SKIPPED.len(), 31, "the suite in {suite:?} is not the one known");
}

fn check_sreq(path: &Path, name: &str) {
    let text = fs::read_to_string(path).unwrap();
    Parsed::read(&text).with(|request| {
        let presented = Presented::read(request).unwrap_or_else(|error| panic!("{name}: {error}"));
        let now = presented.signed_at;
        let verdict = verify(request, &presented, SECRET, now, &RULES);
        if name == UNSIGNED_TOKEN {
            assert_eq!(verdict, Err(SignatureError::NotSigned("x-amz-security-token".into())));
            return;
        }
        assert_eq!(verdict, Ok(()), "{name}");
        let wrong = verify(request, &presented, "wrong", now, &RULES);
        assert_eq!(wrong, Err(SignatureError::Mismatch), "{name}");
    });
}
