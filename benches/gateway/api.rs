//! The way to a stream URL: sign-in and StartSession at the gateway.

use std::sync::Arc;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use sigv4::sts_proof::caller_identity_request;
use time::OffsetDateTime;

use crate::proxies::{Kind, REGION, Running, TARGET};

/// Where clients get stream URLs from.
pub enum Door {
    /// Any URL will do: the proxy hands every path to the origin.
    Open(u16),
    /// The gateway, signed in to.
    Gateway(Box<Gateway>),
}

/// What opens a data channel.
pub struct Ticket {
    /// Path and query of the stream URL.
    pub path: String,
    /// The port to dial.
    pub port: u16,
    /// What is shown in the opening message.
    pub token: String,
}

/// A gateway and the keys it gave.
pub struct Gateway {
    port: u16,
    http: reqwest::Client,
    keys: Keys,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Keys {
    access_key_id: String,
    secret_access_key: String,
    session_token: String,
}

impl Door {
    /// The door of a process; signs in if it is a gateway.
    pub async fn of(process: &Running, tls: &Arc<rustls::ClientConfig>) -> anyhow::Result<Self> {
        match process.kind {
            Kind::Postern(_) => Ok(Self::Gateway(Box::new(Gateway::sign_in(process.port, tls).await?))),
            Kind::Direct | Kind::Haproxy => Ok(Self::Open(process.port)),
        }
    }

    /// A ticket for a new session.
    pub async fn ticket(&self) -> anyhow::Result<Ticket> {
        match self {
            Self::Open(port) => Ok(Ticket {
                path: format!("/v1/data-channel/{}?role=publish_subscribe", uuid::Uuid::new_v4()),
                port: *port,
                token: "a token".to_owned(),
            }),
            Self::Gateway(gateway) => gateway.start_session().await,
        }
    }
}

impl Gateway {
    async fn sign_in(port: u16, tls: &Arc<rustls::ClientConfig>) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(rustls::ClientConfig::clone(tls))
            .http1_only()
            .no_proxy()
            // As the AWS CLI: each call is a connection of its own.
            .pool_max_idle_per_host(0)
            .build()?;
        let base = format!("https://127.0.0.1:{port}");
        let challenge: Value = read(http.get(format!("{base}/v1/login/challenge")).send().await?).await?;
        let word = |key: &str| challenge[key].as_str().map(str::to_owned).context("challenge");
        let (challenge, server) = (word("challenge")?, word("server")?);
        let amz_date = sigv4::amz_date(OffsetDateTime::now_utc());
        let proof = caller_identity_request(REGION, &server, &challenge, &amz_date, None)?;
        let body = json!({
            "region": REGION,
            "access_key_id": "AKIABENCH",
            "amz_date": amz_date,
            "signature": proof.signature("secret"),
            "challenge": challenge,
        });
        let keys = read(http.post(format!("{base}/v1/login/sts")).json(&body).send().await?).await?;
        Ok(Self { port, http, keys })
    }

    async fn start_session(&self) -> anyhow::Result<Ticket> {
        let (host, body) = (format!("127.0.0.1:{}", self.port), json!({"Target": TARGET}).to_string());
        let invocation = uuid::Uuid::new_v4().to_string();
        let headers = [
            ("host", host.as_bytes()),
            ("content-type", b"application/x-amz-json-1.1".as_slice()),
            ("x-amz-target", b"AmazonSSM.StartSession"),
            // Two calls in one second must not have one signature.
            ("amz-sdk-invocation-id", invocation.as_bytes()),
        ];
        let request =
            sigv4::Request { method: "POST", path: "/", query: "", headers: &headers, body: body.as_bytes() };
        let keys = sigv4::Keys {
            access_key_id: &self.keys.access_key_id,
            secret: &self.keys.secret_access_key,
            session_token: Some(&self.keys.session_token),
        };
        let scope = sigv4::Scope { region: REGION, service: "ssm" };
        let signed = sigv4::sign(&request, &keys, &scope, OffsetDateTime::now_utc());
        let mut call = self.http.post(format!("https://{host}/"));
        for (name, value) in headers.iter().skip(1) {
            call = call.header(*name, *value);
        }
        for (name, value) in signed.iter() {
            call = call.header(name, value);
        }
        let answer: Value = read(call.body(body).send().await?).await?;
        let url = answer["StreamUrl"].as_str().context("no StreamUrl")?;
        let path = url.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..]));
        Ok(Ticket {
            path: path.context("a StreamUrl without a path")?.to_owned(),
            port: self.port,
            token: answer["TokenValue"].as_str().context("no TokenValue")?.to_owned(),
        })
    }
}

async fn read<T: serde::de::DeserializeOwned>(answer: reqwest::Response) -> anyhow::Result<T> {
    let status = answer.status();
    let text = answer.text().await?;
    if !status.is_success() {
        bail!("the gateway answered {status}: {text}");
    }
    Ok(serde_json::from_str(&text)?)
}
