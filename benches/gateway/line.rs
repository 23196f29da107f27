//! One client: a data channel that checks and acknowledges every message.

use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::Bytes;
use data_channel::{Acknowledge, Draft, Message, MessageType, OpenDataChannel, PayloadType, Uuid};
use futures_util::{FutureExt, SinkExt, StreamExt};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::api::Ticket;
use crate::measure::now_ms;
use crate::script::{EXIT, Run};

/// An open data channel as a client sees it.
pub struct Line {
    socket: WebSocketStream<TlsStream<TcpStream>>,
    next_output: i64,
    next_input: i64,
}

impl Line {
    /// TCP, TLS, upgrade, opening message.
    pub async fn dial(ticket: &Ticket, tls: &Arc<rustls::ClientConfig>) -> anyhow::Result<Self> {
        let tcp = TcpStream::connect(("127.0.0.1", ticket.port)).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from("localhost")?;
        let stream = TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await?;
        let request = format!("wss://127.0.0.1:{}{}", ticket.port, ticket.path).into_client_request()?;
        // As the real plugin: each message is written by itself, in a TLS record of its own.
        let config = WebSocketConfig::default().read_buffer_size(16 * 1024).write_buffer_size(0);
        let (mut socket, _) = client_async_with_config(request, stream, Some(config)).await?;
        let id = Uuid::new_v4().to_string();
        let open = OpenDataChannel::new(&ticket.token, &id, Some("1.2.707.0"));
        socket.send(Frame::text(open.to_text())).await?;
        Ok(Self { socket, next_output: 0, next_input: 0 })
    }

    /// Sends bytes as if they were typed.
    pub async fn type_in(&mut self, payload: &[u8]) -> anyhow::Result<()> {
        let draft = Draft {
            message_type: MessageType::InputStreamData,
            created_ms: now_ms(),
            sequence: self.next_input,
            flags: 0,
            id: Uuid::from_u64_pair(1, self.next_input.unsigned_abs()),
            payload_type: PayloadType::Output,
            payload,
        };
        self.next_input += 1;
        Ok(self.socket.send(Frame::Binary(draft.encode())).await?)
    }

    /// The next output, checked and acknowledged; `None` once it is over.
    pub async fn hear(&mut self) -> anyhow::Result<Option<Bytes>> {
        loop {
            let frame = match self.socket.next().now_or_never() {
                Some(frame) => frame,
                None => {
                    self.socket.flush().await?;
                    self.socket.next().await
                }
            };
            let raw = match frame.context("the connection broke")?? {
                Frame::Binary(raw) => raw,
                Frame::Close(_) => bail!("the connection was closed"),
                _ => continue,
            };
            let message = Message::parse(raw)?;
            match message.message_type() {
                MessageType::OutputStreamData => {
                    self.take(&message).await?;
                    return Ok(Some(message.payload_bytes()));
                }
                MessageType::ChannelClosed => return Ok(None),
                _ => {}
            }
        }
    }

    async fn take(&mut self, message: &Message) -> anyhow::Result<()> {
        if message.sequence() != self.next_output || !message.digest_matches() {
            bail!("message {} is wrong or not {}", message.sequence(), self.next_output);
        }
        let id = Uuid::from_u64_pair(2, self.next_output.unsigned_abs());
        self.next_output += 1;
        let acknowledge = Acknowledge::of(message).encode_as(id, now_ms());
        Ok(self.socket.feed(Frame::Binary(acknowledge)).await?)
    }

    /// Has the agent send output and takes all of it.
    pub async fn run(&mut self, run: Run) -> anyhow::Result<()> {
        self.type_in(run.line().as_bytes()).await?;
        for _ in 0..run.count {
            self.hear().await?.context("the session ended early")?;
        }
        Ok(self.socket.flush().await?)
    }

    /// Types one key and waits for its echo.
    pub async fn echo(&mut self) -> anyhow::Result<()> {
        self.type_in(b"k").await?;
        self.hear().await?.context("the session ended early")?;
        Ok(self.socket.flush().await?)
    }

    /// Leaves the shell, as a person does, and hangs up.
    pub async fn leave(mut self) -> anyhow::Result<()> {
        self.type_in(EXIT).await?;
        while self.hear().await?.is_some() {}
        let _ = self.socket.close(None).await;
        Ok(())
    }
}
