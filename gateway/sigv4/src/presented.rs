//! What a request claims: whose key signed what, and when.

use time::OffsetDateTime;

use crate::canonical::percent_decoded;
use crate::date::parse_amz_date;
use crate::{ALGORITHM, Request, SignatureError};

/// Longest Authorization header read, bytes; real ones are under 400.
const AUTHORIZATION_MAX: usize = 4096;
/// Most headers in `SignedHeaders`; real requests have under 10.
const SIGNED_HEADERS_MAX: usize = 64;
/// Longest access key id of the IAM model, characters.
const ACCESS_KEY_ID_MAX: usize = 128;
/// Longest region or service, characters; real ones are under 20.
const SCOPE_WORD_MAX: usize = 64;
/// Longest validity of a presigned URL, seconds: one week, as AWS has it.
const EXPIRES_MAX: u32 = 604_800;

/// Where a signature is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the `Authorization` header.
    Header,
    /// In the query, valid for so many seconds.
    Query {
        /// Seconds from the request's date.
        expires: u32,
    },
}

/// What a request presents; nothing in it is verified yet.
#[derive(Clone, PartialEq, Eq)]
pub struct Presented {
    /// The id of the key that is said to have signed.
    pub access_key_id: String,
    /// The scope's region.
    pub region: String,
    /// The scope's service.
    pub service: String,
    /// The scope's day, `20150830`.
    pub date: String,
    /// The request's moment, `20150830T123600Z`.
    pub amz_date: String,
    /// The same moment, read.
    pub signed_at: OffsetDateTime,
    /// The names of the signed headers, lower case, sorted.
    pub signed_headers: Vec<String>,
    /// The signature, 64 lower-case hex digits.
    pub signature: String,
    /// The session token, if there is one.
    pub security_token: Option<String>,
    /// Where it was found.
    pub place: Place,
}

impl std::fmt::Debug for Presented {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Presented")
            .field("access_key_id", &self.access_key_id)
            .field("scope", &self.scope())
            .field("amz_date", &self.amz_date)
            .field("signed_headers", &self.signed_headers)
            .finish_non_exhaustive()
    }
}

impl Presented {
    /// Reads a signature from the header or the query, never from both.
    pub fn read(request: &Request<'_>) -> Result<Self, SignatureError> {
        let mut authorizations = request.values("authorization");
        let authorization = authorizations.next();
        let in_query = is_signed_query(request.query);
        match (authorization, in_query) {
            (None, false) => Err(SignatureError::Unsigned),
            (Some(_), true) => Err(SignatureError::SignedTwice),
            (Some(_), false) if authorizations.next().is_some() => Err(SignatureError::SignedTwice),
            (Some(value), false) => Self::from_header(request, value),
            (None, true) => Self::from_query(request.query),
        }
    }

    /// Whether this header, lower case, is covered by the signature.
    pub fn signs(&self, name: &str) -> bool {
        self.signed_headers.iter().any(|signed| signed == name)
    }

    /// The scope: `date/region/service/aws4_request`.
    pub(crate) fn scope(&self) -> String {
        format!("{}/{}/{}/aws4_request", self.date, self.region, self.service)
    }

    fn from_header(request: &Request<'_>, value: &[u8]) -> Result<Self, SignatureError> {
        let text =
            text(value, AUTHORIZATION_MAX).ok_or(SignatureError::Malformed("its Authorization header"))?;
        let fields = text
            .strip_prefix(ALGORITHM)
            .filter(|rest| rest.starts_with(' '))
            .ok_or(SignatureError::Malformed("only AWS4-HMAC-SHA256 is known"))?;
        let (mut credential, mut signed, mut signature) = (None, None, None);
        for field in fields.split(',') {
            let (name, value) =
                field.trim().split_once('=').ok_or(SignatureError::Malformed("a field has no value"))?;
            let slot = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed,
                "Signature" => &mut signature,
                _ => return Err(SignatureError::Malformed("it has a field that is not known")),
            };
            if slot.replace(value).is_some() {
                return Err(SignatureError::Malformed("a field is there twice"));
            }
        }
        let (Some(credential), Some(signed), Some(signature)) = (credential, signed, signature) else {
            return Err(SignatureError::Malformed("Credential, SignedHeaders or Signature is missing"));
        };
        let amz_date =
            single(request, "x-amz-date")?.ok_or_else(|| SignatureError::NotSigned("x-amz-date".into()))?;
        let security_token = single(request, "x-amz-security-token")?;
        Fields { credential, amz_date, signed, signature, security_token, place: Place::Header }.read()
    }

    fn from_query(query: &str) -> Result<Self, SignatureError> {
        if query_value(query, "X-Amz-Algorithm")?.as_deref() != Some(ALGORITHM) {
            return Err(SignatureError::Malformed("only AWS4-HMAC-SHA256 is known"));
        }
        let need =
            |key| query_value(query, key)?.ok_or(SignatureError::Malformed("a query field is missing"));
        let expires = need("X-Amz-Expires")?
            .parse()
            .ok()
            .filter(|seconds| (1..=EXPIRES_MAX).contains(seconds))
            .ok_or(SignatureError::Malformed("X-Amz-Expires must be 1 to 604800"))?;
        Fields {
            credential: &need("X-Amz-Credential")?,
            amz_date: need("X-Amz-Date")?,
            signed: &need("X-Amz-SignedHeaders")?,
            signature: &need("X-Amz-Signature")?,
            security_token: query_value(query, "X-Amz-Security-Token")?,
            place: Place::Query { expires },
        }
        .read()
    }
}

/// The fields of a signature as they were found, not yet checked.
struct Fields<'a> {
    credential: &'a str,
    amz_date: String,
    signed: &'a str,
    signature: &'a str,
    security_token: Option<String>,
    place: Place,
}

impl Fields<'_> {
    fn read(self) -> Result<Presented, SignatureError> {
        let parts: Vec<&str> = self.credential.split('/').collect();
        let [access_key_id, date, region, service, "aws4_request"] = parts.as_slice() else {
            return Err(SignatureError::Malformed("Credential must be key/date/region/service/aws4_request"));
        };
        let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !is_access_key_id(access_key_id) {
            return Err(SignatureError::Malformed("its access key id"));
        }
        let day = date.len() == 8 && date.bytes().all(|byte| byte.is_ascii_digit());
        if !day || !made_of(region, SCOPE_WORD_MAX, word) || !made_of(service, SCOPE_WORD_MAX, word) {
            return Err(SignatureError::Malformed("its credential scope"));
        }
        let signed_at = parse_amz_date(&self.amz_date)
            .ok_or(SignatureError::Malformed("X-Amz-Date must look like 20150830T123600Z"))?;
        if !is_signature(self.signature) {
            return Err(SignatureError::Malformed("Signature must be 64 lower-case hex digits"));
        }
        Ok(Presented {
            access_key_id: (*access_key_id).to_owned(),
            region: (*region).to_owned(),
            service: (*service).to_owned(),
            date: (*date).to_owned(),
            amz_date: self.amz_date,
            signed_at,
            signed_headers: signed_headers(self.signed)?,
            signature: self.signature.to_owned(),
            security_token: self.security_token,
            place: self.place,
        })
    }
}

/// Whether the text is an access key id: `A-Z a-z 0-9 _`, 3 to 128.
pub(crate) fn is_access_key_id(text: &str) -> bool {
    text.len() >= 3 && made_of(text, ACCESS_KEY_ID_MAX, |byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Whether the text is a signature: 64 lower-case hex digits.
pub(crate) fn is_signature(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn signed_headers(list: &str) -> Result<Vec<String>, SignatureError> {
    let names: Vec<String> = list.split(';').map(str::to_owned).collect();
    let token =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let sorted = names.is_sorted_by(|one, next| one < next);
    if names.len() > SIGNED_HEADERS_MAX || !sorted || !names.iter().all(|name| made_of(name, 128, token)) {
        return Err(SignatureError::Malformed(
            "SignedHeaders must be lower case, sorted and without repeats",
        ));
    }
    Ok(names)
}

fn made_of(text: &str, longest: usize, fits: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.len() <= longest && text.bytes().all(fits)
}

fn text(value: &[u8], longest: usize) -> Option<&str> {
    let plain = value.len() <= longest && value.iter().all(|byte| matches!(byte, b' '..=b'~'));
    if plain { std::str::from_utf8(value).ok() } else { None }
}

/// The one value of a header, trimmed; two are an error.
fn single(request: &Request<'_>, name: &str) -> Result<Option<String>, SignatureError> {
    let mut values = request.values(name);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(SignatureError::Duplicate(name.to_owned()));
    }
    let text = text(value, usize::MAX).ok_or_else(|| SignatureError::NotAscii(name.to_owned()))?;
    Ok(Some(text.trim().to_owned()))
}

/// Whether any key of the query belongs to a presigned URL's signature.
///
/// Keys are compared in any case and decoded, so that nothing a looser parser
/// might read as a signature slips through beside the header.
fn is_signed_query(query: &str) -> bool {
    const KEYS: [&str; 3] = ["X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature"];
    query.split('&').any(|pair| {
        let key = percent_decoded(pair.split('=').next().unwrap_or(pair));
        KEYS.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(&key))
    })
}

fn query_value(query: &str, key: &str) -> Result<Option<String>, SignatureError> {
    let mut found = None;
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if name != key {
            continue;
        }
        let decoded = String::from_utf8(percent_decoded(value));
        let value = decoded.map_err(|_| SignatureError::Malformed("a query field is not text"))?;
        if found.replace(value).is_some() {
            return Err(SignatureError::Duplicate(key.to_owned()));
        }
    }
    Ok(found)
}
