//! What the operator sets about the archive.

use std::path::PathBuf;

use serde::Deserialize;

use super::ArchiveError;

/// The archive, and how long things stay where.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ArchiveConfig {
    /// A directory, or `s3://bucket/prefix`; none: nothing is archived.
    pub location: Option<String>,
    /// The bucket's region; the AWS configuration's if not set.
    pub region: Option<String>,
    /// S3, if not AWS's own; `https`, or `http` on loopback.
    pub endpoint_url: Option<String>,
    /// The KMS key that objects are encrypted with, by id or ARN.
    pub kms_key_id: Option<String>,
    /// Object Lock of each object; the bucket's own if not set.
    pub object_lock: Option<LockMode>,
    /// How long Object Lock keeps an object, days.
    pub object_lock_days: Option<u32>,
    /// A sealed recording leaves the spool so many days after its end.
    pub keep_local_days: Option<u32>,
    /// A recording is deleted so many days after its end, unless held.
    pub delete_after_days: Option<u32>,
    /// PEM file of roots trusted besides the system's.
    pub ca_bundle: Option<PathBuf>,
}

/// Who may shorten Object Lock's retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LockMode {
    /// Those with the right to bypass it.
    Governance,
    /// Nobody.
    Compliance,
}

impl LockMode {
    /// The word of the S3 API.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Governance => "GOVERNANCE",
            Self::Compliance => "COMPLIANCE",
        }
    }
}

/// Bucket and prefix of an `s3://` location.
pub(super) struct Bucket {
    pub name: String,
    pub prefix: String,
}

impl ArchiveConfig {
    /// Refuses what could only fail later, or keep less than was meant.
    pub fn check(&self) -> Result<(), ArchiveError> {
        let wrong = |why: &str| Err(ArchiveError::Config(why.to_owned()));
        let bucket = self.bucket()?;
        if self.location.is_none() && (self.keep_local_days.is_some() || self.delete_after_days.is_some()) {
            return wrong(
                "keep_local_days and delete_after_days need a location: nothing is removed without",
            );
        }
        let of_s3 = self.kms_key_id.is_some() || self.object_lock.is_some() || self.endpoint_url.is_some();
        if bucket.is_none() && of_s3 {
            return wrong("endpoint_url, kms_key_id and object_lock are for a location s3://bucket");
        }
        if self.object_lock.is_some() != self.object_lock_days.is_some_and(|days| days > 0) {
            return wrong("object_lock and object_lock_days (at least 1) are set together or not at all");
        }
        if let (Some(locked), Some(delete)) = (self.object_lock_days, self.delete_after_days)
            && delete < locked
        {
            return wrong(
                "delete_after_days is less than object_lock_days, so nothing could be deleted then",
            );
        }
        Ok(())
    }

    /// Whether it takes keys to get there; a directory needs none.
    pub fn needs_access(&self) -> bool {
        self.location.as_deref().is_some_and(|location| location.starts_with("s3://"))
    }

    /// The bucket of an `s3://` location; none: it is a directory.
    pub(super) fn bucket(&self) -> Result<Option<Bucket>, ArchiveError> {
        let Some(rest) = self.location.as_deref().and_then(|location| location.strip_prefix("s3://")) else {
            return Ok(None);
        };
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        if name.len() < 3 || !name.chars().all(plain) {
            return Err(ArchiveError::Config(format!("location s3://{rest} names no bucket")));
        }
        Ok(Some(Bucket { name: name.to_owned(), prefix: prefix.trim_matches('/').to_owned() }))
    }
}

/// Keys and recordings go over TLS, or stay on this machine.
pub(super) fn is_safe(url: &str) -> bool {
    let Ok(uri) = url.parse::<http::Uri>() else { return false };
    let host = uri.host().unwrap_or_default();
    let loopback = matches!(host, "localhost" | "[::1]") || host.starts_with("127.");
    match uri.scheme_str() {
        Some("https") => !host.is_empty(),
        Some("http") => loopback,
        _ => false,
    }
}
