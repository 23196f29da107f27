//! The one `GetCallerIdentity` request: clients sign it, the gateway rebuilds it.
//!
//! Client and gateway make the same request from the same few words. Only
//! those words and the signature travel; every header name, the host, the path
//! and the body are written here and nowhere else.

use crate::presented::{is_access_key_id, is_signature};
use crate::sign::{Scope, authorization, signature};
use crate::{Request, SignatureError, parse_amz_date};

/// The body of the request, to the byte.
pub const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";
/// The path of the request.
pub const PATH: &str = "/";
/// The content type of the request.
pub const CONTENT_TYPE: &str = "application/x-www-form-urlencoded; charset=utf-8";
/// The header that binds the request to one challenge.
pub const CHALLENGE_HEADER: &str = "x-postern-challenge";
/// The header that binds the request to one gateway.
pub const SERVER_HEADER: &str = "x-postern-server";

/// Length of a challenge: 32 bytes in base64url without padding.
const CHALLENGE_LENGTH: usize = 43;
/// Longest gateway URL, characters; a DNS name has at most 253.
const SERVER_MAX: usize = 300;
/// Longest session token of STS taken, bytes; real ones are 400 to 2500.
const TOKEN_MAX: usize = 8192;

/// Partition, DNS suffix and regions, from the SDKs' `partitions.json`.
const PARTITIONS: &[(&str, &str, &[&str])] = &[
    (
        "aws",
        "amazonaws.com",
        &[
            "af-south-1",
            "ap-east-1",
            "ap-east-2",
            "ap-northeast-1",
            "ap-northeast-2",
            "ap-northeast-3",
            "ap-south-1",
            "ap-south-2",
            "ap-southeast-1",
            "ap-southeast-2",
            "ap-southeast-3",
            "ap-southeast-4",
            "ap-southeast-5",
            "ap-southeast-6",
            "ap-southeast-7",
            "ca-central-1",
            "ca-west-1",
            "eu-central-1",
            "eu-central-2",
            "eu-north-1",
            "eu-south-1",
            "eu-south-2",
            "eu-west-1",
            "eu-west-2",
            "eu-west-3",
            "il-central-1",
            "me-central-1",
            "me-south-1",
            "mx-central-1",
            "sa-east-1",
            "us-east-1",
            "us-east-2",
            "us-west-1",
            "us-west-2",
        ],
    ),
    ("aws-cn", "amazonaws.com.cn", &["cn-north-1", "cn-northwest-1"]),
    ("aws-us-gov", "amazonaws.com", &["us-gov-east-1", "us-gov-west-1"]),
    ("aws-eusc", "amazonaws.eu", &["eusc-de-east-1"]),
    ("aws-iso", "c2s.ic.gov", &["us-iso-east-1", "us-iso-west-1"]),
    ("aws-iso-b", "sc2s.sgov.gov", &["us-isob-east-1", "us-isob-west-1"]),
    ("aws-iso-e", "cloud.adc-e.uk", &["eu-isoe-west-1"]),
    ("aws-iso-f", "csp.hci.ic.gov", &["us-isof-east-1", "us-isof-south-1"]),
];

/// The regional STS endpoint of a known region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The region, from the compiled-in table.
    pub region: &'static str,
    /// The partition, as ARNs name it.
    pub partition: &'static str,
    /// The host, `sts.<region>.<suffix>`.
    pub host: String,
}

/// Looks a region up in the compiled-in table; never the global endpoint.
pub fn endpoint(region: &str) -> Option<Endpoint> {
    PARTITIONS.iter().find_map(|(partition, suffix, regions)| {
        let region = regions.iter().find(|known| **known == region)?;
        Some(Endpoint { region, partition, host: format!("sts.{region}.{suffix}") })
    })
}

/// The canonical request that proves an identity.
#[derive(Clone)]
pub struct CallerIdentity {
    endpoint: Endpoint,
    amz_date: String,
    headers: Vec<(&'static str, String)>,
}

/// Builds the request from the words that may differ, each checked.
///
/// The signed headers are exactly `content-type;host;x-amz-date;
/// [x-amz-security-token;]x-postern-challenge;x-postern-server`.
pub fn caller_identity_request(
    region: &str,
    server: &str,
    challenge: &str,
    amz_date: &str,
    session_token: Option<&str>,
) -> Result<CallerIdentity, SignatureError> {
    let endpoint = endpoint(region).ok_or(SignatureError::InvalidWord("the region"))?;
    let base64url = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if challenge.len() != CHALLENGE_LENGTH || !challenge.bytes().all(base64url) {
        return Err(SignatureError::InvalidWord("the challenge"));
    }
    if server.is_empty() || server.len() > SERVER_MAX || !server.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(SignatureError::InvalidWord("the server"));
    }
    if parse_amz_date(amz_date).is_none() {
        return Err(SignatureError::InvalidWord("the date"));
    }
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=-_.".contains(&byte);
    let fits = |token: &str| !token.is_empty() && token.len() <= TOKEN_MAX && token.bytes().all(base64);
    if !session_token.is_none_or(fits) {
        return Err(SignatureError::InvalidWord("the session token"));
    }
    let mut headers = vec![
        ("content-type", CONTENT_TYPE.to_owned()),
        ("host", endpoint.host.clone()),
        ("x-amz-date", amz_date.to_owned()),
    ];
    headers.extend(session_token.map(|token| ("x-amz-security-token", token.to_owned())));
    headers.push((CHALLENGE_HEADER, challenge.to_owned()));
    headers.push((SERVER_HEADER, server.to_owned()));
    Ok(CallerIdentity { endpoint, amz_date: amz_date.to_owned(), headers })
}

impl CallerIdentity {
    /// The endpoint it is meant for.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Every header but `authorization`, in signing order.
    pub fn headers(&self) -> &[(&'static str, String)] {
        &self.headers
    }

    /// The signature that this secret makes.
    pub fn signature(&self, secret: &str) -> String {
        let headers: Vec<(&str, &[u8])> =
            self.headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let request =
            Request { method: "POST", path: PATH, query: "", headers: &headers, body: BODY.as_bytes() };
        let signed: Vec<String> = self.headers.iter().map(|(name, _)| (*name).to_owned()).collect();
        signature(&request, &signed, secret, &self.scope(), &self.amz_date)
    }

    /// The `Authorization` header for a signature made elsewhere.
    pub fn authorization(&self, access_key_id: &str, signature: &str) -> Result<String, SignatureError> {
        if !is_access_key_id(access_key_id) {
            return Err(SignatureError::InvalidWord("the access key id"));
        }
        if !is_signature(signature) {
            return Err(SignatureError::InvalidWord("the signature"));
        }
        let signed: Vec<&str> = self.headers.iter().map(|(name, _)| *name).collect();
        Ok(authorization(access_key_id, &self.amz_date, &self.scope(), &signed.join(";"), signature))
    }

    fn scope(&self) -> Scope<'static> {
        Scope { region: self.endpoint.region, service: "sts" }
    }
}

impl std::fmt::Debug for CallerIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallerIdentity")
            .field("endpoint", &self.endpoint)
            .field("amz_date", &self.amz_date)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Presented, Rules, verify};

    const CHALLENGE: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    const SERVER: &str = "https://gw.example.com:8443";
    const DATE: &str = "20261122T101500Z";

    #[test]
    fn the_rebuilt_request_verifies_like_any_other() {
        let proof = caller_identity_request("eu-west-1", SERVER, CHALLENGE, DATE, Some("dG9rZW4=")).unwrap();
        let authorization = proof.authorization("ASIAEXAMPLE", &proof.signature("secret")).unwrap();
        let mut headers: Vec<(&str, &[u8])> =
            proof.headers().iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        headers.push(("authorization", authorization.as_bytes()));
        let request =
            Request { method: "POST", path: "/", query: "", headers: &headers, body: BODY.as_bytes() };
        let presented = Presented::read(&request).unwrap();
        assert_eq!(
            presented.signed_headers.join(";"),
            "content-type;host;x-amz-date;x-amz-security-token;x-postern-challenge;x-postern-server"
        );
        let now = presented.signed_at;
        assert_eq!(verify(&request, &presented, "secret", now, &Rules::plain("sts")), Ok(()));
        let wrong = verify(&request, &presented, "other", now, &Rules::plain("sts"));
        assert_eq!(wrong, Err(SignatureError::Mismatch));
    }

    #[test]
    fn a_region_is_one_of_the_table_or_nothing() {
        assert_eq!(endpoint("eu-west-1").unwrap().host, "sts.eu-west-1.amazonaws.com");
        assert_eq!(endpoint("cn-north-1").unwrap().host, "sts.cn-north-1.amazonaws.com.cn");
        assert_eq!(endpoint("us-gov-west-1").unwrap().partition, "aws-us-gov");
        for bad in ["", "aws-global", "us-east-1.evil.example/", "US-EAST-1", "xx-nowhere-1"] {
            assert_eq!(endpoint(bad), None, "{bad:?} has an endpoint");
        }
    }

    #[test]
    fn no_word_can_add_a_header_or_a_field() {
        let bad_words = [
            (SERVER, "short", DATE, None),
            ("https://gw\r\nx: y", CHALLENGE, DATE, None),
            (SERVER, CHALLENGE, "20261122T101500", None),
            (SERVER, CHALLENGE, DATE, Some("a\nb")),
            (SERVER, CHALLENGE, DATE, Some("")),
        ];
        for (server, challenge, date, token) in bad_words {
            let built = caller_identity_request("us-east-1", server, challenge, date, token);
            assert!(built.is_err(), "{server:?} {challenge:?} {date:?} {token:?} was accepted");
        }
        let proof = caller_identity_request("us-east-1", SERVER, CHALLENGE, DATE, None).unwrap();
        let good = "0".repeat(64);
        for (key, signature) in [
            ("A/B", good.as_str()),
            ("AKIA1, X=", &good),
            ("AKIAEXAMPLE", "00"),
            ("AKIAEXAMPLE", &"Z".repeat(64)),
        ] {
            assert!(proof.authorization(key, signature).is_err(), "{key:?} {signature:?} was accepted");
        }
    }
}
