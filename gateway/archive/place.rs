//! A directory or a bucket, behind the same few calls.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path as FilePath, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use bytes::BytesMut;
use futures_util::TryStreamExt;
use http::{HeaderMap, HeaderValue};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsCredential, Checksum};
use object_store::client::{HttpClient, HttpConnector};
use object_store::local::LocalFileSystem;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{
    ClientOptions, CredentialProvider, GetResult, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig,
};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::io::AsyncReadExt;

use super::config::{ArchiveConfig, LockMode, is_safe};
use super::{Access, ArchiveError};
use crate::session::printable;

/// Files up to this size go in one request, larger ones in such parts.
const PART: u64 = 16 * 1024 * 1024;
/// How long one call may be tried again; the archiver tries on its own.
const RETRY_WITHIN: Duration = Duration::from_secs(20);
/// Times that one call is tried again.
const RETRIES: usize = 3;

/// Where one object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whereabouts {
    /// A file of this machine, or of a share.
    File(PathBuf),
    /// An object in S3.
    Object {
        /// Its bucket.
        bucket: String,
        /// Its key, prefix included.
        key: String,
        /// The bucket's region.
        region: String,
        /// S3, if not at AWS's usual address.
        endpoint_url: Option<String>,
    },
}

/// Where objects are.
#[derive(Debug)]
pub(super) struct Place {
    name: String,
    prefix: Path,
    store: Store,
}

#[derive(Debug)]
enum Store {
    Directory(LocalFileSystem),
    Bucket(Box<Bucket>),
}

/// A bucket; what is put there may be locked until a day.
#[derive(Debug)]
struct Bucket {
    plain: AmazonS3,
    builder: AmazonS3Builder,
    lock: Option<(LockMode, u32)>,
}

impl Place {
    pub fn open(config: &ArchiveConfig, access: Option<&Access>) -> Result<Self, ArchiveError> {
        config.check()?;
        let name = config.location.clone().unwrap_or_default();
        if name.is_empty() {
            return Err(ArchiveError::Config("no location is set".to_owned()));
        }
        let (store, prefix) = match config.bucket()? {
            None => (Store::Directory(directory(&name)?), String::new()),
            Some(bucket) => {
                let builder = builder(config, &bucket.name, access)?;
                let plain = builder.clone().build().map_err(|error| wrong(&error))?;
                let lock = config.object_lock.zip(config.object_lock_days);
                (Store::Bucket(Box::new(Bucket { plain, builder, lock })), bucket.prefix)
            }
        };
        Ok(Self { name, prefix: Path::from(prefix), store })
    }

    /// What the operator calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where an object is, for people.
    pub fn whereabouts(&self, name: &str) -> Whereabouts {
        let said = |bucket: &Bucket, key| bucket.builder.get_config_value(&key);
        match &self.store {
            Store::Directory(_) => Whereabouts::File(FilePath::new(&self.name).join(name)),
            Store::Bucket(bucket) => Whereabouts::Object {
                bucket: said(bucket, AmazonS3ConfigKey::Bucket).unwrap_or_default(),
                key: self.path(name).to_string(),
                region: said(bucket, AmazonS3ConfigKey::Region).unwrap_or_default(),
                endpoint_url: said(bucket, AmazonS3ConfigKey::Endpoint),
            },
        }
    }

    /// The error of a call, without anything a log must not have.
    pub fn failed(&self, error: &object_store::Error) -> ArchiveError {
        ArchiveError::Store { place: self.name.clone(), why: printable(&error.to_string()) }
    }

    pub async fn put(&self, name: &str, payload: PutPayload) -> Result<(), ArchiveError> {
        let path = self.path(name);
        let put = match &self.store {
            Store::Directory(store) => store.put(&path, payload).await,
            Store::Bucket(bucket) => match bucket.locking() {
                Ok(store) => store.put(&path, payload).await,
                Err(error) => Err(error),
            },
        };
        put.map(|_| ()).map_err(|error| self.failed(&error))
    }

    /// Puts a file of that size, a part at a time if it is large.
    pub async fn put_file(&self, name: &str, file: &FilePath, bytes: u64) -> Result<(), ArchiveError> {
        let unreadable = |why| ArchiveError::File { path: file.display().to_string(), why };
        if bytes <= PART {
            let content = tokio::fs::read(file).await.map_err(unreadable)?;
            return self.put(name, content.into()).await;
        }
        let mut file = tokio::fs::File::open(file).await.map_err(unreadable)?;
        let path = self.path(name);
        let put = match &self.store {
            Store::Directory(store) => in_parts(store, &path, &mut file).await,
            Store::Bucket(bucket) => bucket.in_parts(&path, &mut file).await,
        };
        put.map_err(|error| self.failed(&error))
    }

    /// An object, if it is there.
    pub async fn get(&self, name: &str) -> Result<Option<GetResult>, ArchiveError> {
        self.there(self.store().get(&self.path(name)).await)
    }

    /// The size of an object, if it is there.
    pub async fn size(&self, name: &str) -> Result<Option<u64>, ArchiveError> {
        Ok(self.there(self.store().head(&self.path(name)).await)?.map(|meta| meta.size))
    }

    /// Removes an object; it may be gone already.
    pub async fn delete(&self, name: &str) -> Result<(), ArchiveError> {
        self.there(self.store().delete(&self.path(name)).await).map(|_| ())
    }

    /// The file names of the objects in a folder.
    pub async fn names(&self, folder: &str) -> Result<Vec<String>, ArchiveError> {
        let folder = self.path(folder);
        let listed = self.store().list(Some(&folder));
        let names =
            listed.try_filter_map(|meta| async move { Ok(meta.location.filename().map(str::to_owned)) });
        names.try_collect().await.map_err(|error| self.failed(&error))
    }

    fn there<T>(&self, found: object_store::Result<T>) -> Result<Option<T>, ArchiveError> {
        match found {
            Ok(found) => Ok(Some(found)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn store(&self) -> &dyn ObjectStore {
        match &self.store {
            Store::Directory(store) => store,
            Store::Bucket(bucket) => &bucket.plain,
        }
    }

    fn path(&self, name: &str) -> Path {
        self.prefix.parts().chain(Path::from(name).parts()).collect()
    }
}

impl Bucket {
    /// The store that new objects go through: it locks them, if it should.
    fn locking(&self) -> object_store::Result<AmazonS3> {
        let Some((mode, days)) = self.lock else { return Ok(self.plain.clone()) };
        let until = OffsetDateTime::now_utc() + time::Duration::days(i64::from(days));
        let until = until.replace_nanosecond(0).unwrap_or(until).format(&Rfc3339).unwrap_or_default();
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-object-lock-mode", HeaderValue::from_static(mode.as_str()));
        if let Ok(until) = HeaderValue::from_str(&until) {
            headers.insert("x-amz-object-lock-retain-until-date", until);
        }
        let options = options().with_default_headers(headers);
        self.builder.clone().with_client_options(options).build()
    }

    /// Only the first call may name the lock, so the parts go without it.
    async fn in_parts(&self, path: &Path, file: &mut tokio::fs::File) -> object_store::Result<()> {
        let id = self.locking()?.create_multipart(path).await?;
        let put = async {
            let mut parts = Vec::new();
            while let Some(part) = next_part(file).await? {
                parts.push(self.plain.put_part(path, &id, parts.len(), part).await?);
            }
            self.plain.complete_multipart(path, &id, parts).await.map(|_| ())
        };
        let put = put.await;
        if put.is_err() {
            // Else the bucket's rules remove it.
            let _ = self.plain.abort_multipart(path, &id).await;
        }
        put
    }
}

async fn in_parts(
    store: &LocalFileSystem,
    path: &Path,
    file: &mut tokio::fs::File,
) -> object_store::Result<()> {
    let mut upload = store.put_multipart(path).await?;
    let put = async {
        while let Some(part) = next_part(file).await? {
            upload.put_part(part).await?;
        }
        upload.complete().await.map(|_| ())
    };
    let put = put.await;
    if put.is_err() {
        let _ = upload.abort().await;
    }
    put
}

async fn next_part(file: &mut tokio::fs::File) -> object_store::Result<Option<PutPayload>> {
    let unreadable = |error| object_store::Error::Generic { store: "spool", source: Box::new(error) };
    let mut part = BytesMut::with_capacity(usize::try_from(PART).unwrap_or(usize::MAX));
    while (part.len() as u64) < PART {
        let mut rest = (&mut *file).take(PART - part.len() as u64);
        if rest.read_buf(&mut part).await.map_err(unreadable)? == 0 {
            break;
        }
    }
    Ok((!part.is_empty()).then(|| part.freeze().into()))
}

fn directory(path: &str) -> Result<LocalFileSystem, ArchiveError> {
    let failed = |why: String| ArchiveError::Config(format!("the directory {path} cannot be used: {why}"));
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| failed(error.to_string()))?;
    let store = LocalFileSystem::new_with_prefix(path).map_err(|error| failed(error.to_string()))?;
    Ok(store.with_fsync(true))
}

fn builder(
    config: &ArchiveConfig,
    bucket: &str,
    access: Option<&Access>,
) -> Result<AmazonS3Builder, ArchiveError> {
    let missing = |what: &str| ArchiveError::Config(format!("S3 cannot be used: {what}"));
    let access = access.ok_or_else(|| missing("no AWS configuration"))?;
    let credentials = access.credentials.clone().ok_or_else(|| missing("no source of keys"))?;
    let region =
        config.region.clone().or_else(|| access.region.clone()).ok_or_else(|| missing("no region"))?;
    let retry = RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_WITHIN, ..RetryConfig::default() };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(region)
        .with_credentials(Arc::new(Keys(credentials)))
        .with_checksum_algorithm(Checksum::SHA256)
        .with_http_connector(Connector(access.http.clone()))
        .with_client_options(options())
        .with_retry(retry);
    if let Some(url) = config.endpoint_url.as_ref().or(access.endpoint_url.as_ref()) {
        if !is_safe(url) {
            return Err(ArchiveError::Config(format!("{url} must be https://…, or http://… on loopback")));
        }
        builder =
            builder.with_endpoint(url.trim_end_matches('/')).with_allow_http(url.starts_with("http://"));
    }
    if let Some(key) = &config.kms_key_id {
        builder = builder.with_sse_kms_encryption(key);
    }
    Ok(builder)
}

fn options() -> ClientOptions {
    // Addresses were checked: plain HTTP stays on this machine.
    ClientOptions::new().with_allow_http(true)
}

fn wrong(error: &object_store::Error) -> ArchiveError {
    ArchiveError::Config(printable(&error.to_string()))
}

/// The client that trusts what the operator says.
#[derive(Debug)]
struct Connector(reqwest::Client);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

/// The keys of the AWS configuration, as the store asks for them.
#[derive(Debug)]
struct Keys(SharedCredentialsProvider);

type Given<'a> = Pin<Box<dyn Future<Output = object_store::Result<Arc<AwsCredential>>> + Send + 'a>>;

impl CredentialProvider for Keys {
    type Credential = AwsCredential;

    // What `async_trait` makes of it.
    fn get_credential<'life0, 'async_trait>(&'life0 self) -> Given<'async_trait>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            let given = self.0.provide_credentials().await;
            let keys = given
                .map_err(|error| object_store::Error::Generic { store: "S3", source: Box::new(error) })?;
            Ok(Arc::new(AwsCredential {
                key_id: keys.access_key_id().to_owned(),
                secret_key: keys.secret_access_key().to_owned(),
                token: keys.session_token().map(str::to_owned),
            }))
        })
    }
}
