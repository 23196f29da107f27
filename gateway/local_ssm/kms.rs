//! KMS, for one machine: data keys for sessions, bound to their context.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use data_channel::Cipher;
use data_channel::encryption::DATA_KEY;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use sigv4::{Request, Rules};
use time::OffsetDateTime;

use super::Service;
use super::answer::{self, Answer};
use super::callers::{Caller, random};
use super::ssm::{api_error, read};

/// Largest data key, bytes, as in AWS.
const BYTES_MAX: usize = 1_024;
/// Largest encryption context, bytes of its JSON, as in AWS.
const CONTEXT_MAX: usize = 8_192;

/// What a data key is bound to.
pub(super) type Context = BTreeMap<String, String>;

/// The keys that never leave KMS.
pub(super) struct KeyService {
    prefix: String,
    keys: BTreeSet<String>,
    master: Cipher,
    failing: AtomicBool,
}

/// What is inside a sealed data key, beside the key itself.
#[derive(Serialize, Deserialize, PartialEq)]
struct Sealed {
    arn: String,
    context: Context,
    key: Vec<u8>,
}

/// Why KMS does not do it: code and sentence.
pub(super) struct Fault(&'static str, String);

impl KeyService {
    /// The keys of an account, by id or ARN.
    pub(super) fn new(account: &str, region: &str, keys: &[String]) -> Option<Self> {
        let prefix = format!("arn:aws:kms:{region}:{account}:key/");
        let keys = keys.iter().map(|key| arn(&prefix, key)).collect();
        // The halves are equal, so that what is sealed here is opened here.
        let half = random::<{ DATA_KEY / 2 }>();
        let master = Cipher::client(&[half, half].concat()).ok()?;
        Some(Self { prefix, keys, master, failing: AtomicBool::new(false) })
    }

    /// Makes every call fail from now on, or work again.
    pub(super) fn set_failing(&self, failing: bool) {
        self.failing.store(failing, Ordering::Relaxed);
    }

    /// The ARN of a key that there is.
    fn known(&self, key: &str) -> Result<String, Fault> {
        if self.failing.load(Ordering::Relaxed) {
            return Err(Fault("KMSInternalException", "The request failed.".to_owned()));
        }
        let arn = arn(&self.prefix, key);
        if self.keys.contains(&arn) {
            return Ok(arn);
        }
        Err(Fault("NotFoundException", format!("Key '{arn}' does not exist")))
    }

    /// A new data key: in clear and sealed.
    fn generate(&self, arn: &str, context: Context, len: usize) -> Result<(Vec<u8>, Vec<u8>), Fault> {
        let key = random::<BYTES_MAX>().get(..len).unwrap_or_default().to_vec();
        let sealed = Sealed { arn: arn.to_owned(), context, key };
        let text = serde_json::to_vec(&sealed).unwrap_or_default();
        let blob = self.master.encrypt(&text);
        let blob = blob.map_err(|error| Fault("KMSInternalException", error.to_string()))?;
        Ok((sealed.key, blob))
    }

    /// Opens a data key for who names its context, and its key if any.
    pub(super) fn open(
        &self,
        blob: &[u8],
        context: &Context,
        key: Option<&str>,
    ) -> Result<(String, Vec<u8>), Fault> {
        let invalid = || Fault("InvalidCiphertextException", String::new());
        let text = self.master.decrypt(blob).map_err(|_| invalid())?;
        let sealed: Sealed = serde_json::from_slice(&text).map_err(|_| invalid())?;
        let arn = self.known(&sealed.arn)?;
        if key.is_some_and(|key| self.known(key).ok().as_ref() != Some(&arn)) {
            let why = "The key ID in the request does not identify a CMK that can perform this operation.";
            return Err(Fault("IncorrectKeyException", why.to_owned()));
        }
        if sealed.context != *context {
            return Err(invalid());
        }
        Ok((arn, sealed.key))
    }
}

impl Fault {
    /// The sentence with its code.
    pub(super) fn sentence(&self) -> String {
        format!("{}: {}", self.0, self.1)
    }
}

fn arn(prefix: &str, key: &str) -> String {
    if key.starts_with("arn:") { key.to_owned() } else { format!("{prefix}{key}") }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GenerateDataKey {
    key_id: String,
    number_of_bytes: Option<usize>,
    #[serde(default)]
    encryption_context: Context,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Decrypt {
    ciphertext_blob: String,
    key_id: Option<String>,
    #[serde(default)]
    encryption_context: Context,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Key {
    key_id: String,
    plaintext: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ciphertext_blob: Option<String>,
}

impl Service {
    /// Answers one call to KMS.
    pub(super) fn kms(&self, operation: &str, request: &Request<'_>, now: OffsetDateTime) -> Answer {
        let caller = match self.callers.verify(request, &Rules::json_call("kms"), now) {
            Ok(caller) => caller,
            Err(refusal) => return answer::refusal(&api_error(&refusal)),
        };
        let result = match operation {
            "GenerateDataKey" => self.generate_data_key(&caller, request.body),
            "Decrypt" => self.decrypt(&caller, request.body),
            _ => Err(Fault("UnknownOperationException", "no such operation".to_owned())),
        };
        result.unwrap_or_else(|Fault(code, why)| {
            let status = if code == "KMSInternalException" {
                StatusCode::INTERNAL_SERVER_ERROR
            } else {
                StatusCode::BAD_REQUEST
            };
            answer::failure(status, code, &why)
        })
    }

    fn generate_data_key(&self, caller: &Caller, body: &[u8]) -> Result<Answer, Fault> {
        let input: GenerateDataKey = parsed(body)?;
        let arn = self.keys.known(&input.key_id)?;
        self.permit_key(caller, "kms:GenerateDataKey", &arn, &input.encryption_context)?;
        let len = input.number_of_bytes.filter(|len| (1..=BYTES_MAX).contains(len));
        let len = len.ok_or_else(|| validation("NumberOfBytes must be 1 to 1024"))?;
        if serde_json::to_vec(&input.encryption_context).map_or(0, |text| text.len()) > CONTEXT_MAX {
            return Err(validation("EncryptionContext is too large"));
        }
        let (key, sealed) = self.keys.generate(&arn, input.encryption_context, len)?;
        let ciphertext_blob = Some(STANDARD.encode(sealed));
        Ok(answer::json(&Key { key_id: arn, plaintext: STANDARD.encode(key), ciphertext_blob }))
    }

    fn decrypt(&self, caller: &Caller, body: &[u8]) -> Result<Answer, Fault> {
        let input: Decrypt = parsed(body)?;
        let blob = STANDARD.decode(&input.ciphertext_blob).map_err(|error| validation(&error.to_string()))?;
        let (arn, key) = self.keys.open(&blob, &input.encryption_context, input.key_id.as_deref())?;
        self.permit_key(caller, "kms:Decrypt", &arn, &input.encryption_context)?;
        Ok(answer::json(&Key { key_id: arn, plaintext: STANDARD.encode(key), ciphertext_blob: None }))
    }

    fn permit_key(&self, caller: &Caller, action: &str, arn: &str, context: &Context) -> Result<(), Fault> {
        let permitted = self.permit_in(caller, action, arn, context);
        permitted.map_err(|error| Fault("AccessDeniedException", error.message))
    }
}

fn parsed<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    read(body).map_err(|error| validation(&error.message))
}

fn validation(why: &str) -> Fault {
    Fault("ValidationException", why.to_owned())
}
