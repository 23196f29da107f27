//! The SOCKS proxy: a session for every host and port that is asked for.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::cannot_listen;
use super::port::TO_REMOTE_HOST;
use super::voice::{Far, Voice};
use crate::cli::stop::Stop;
use crate::client::socks::{Destination, News, Proxy};
use crate::client::start::Starter;
use crate::session::Document;

/// Serves until told to end.
pub(super) async fn serve(
    starter: Starter,
    place: SocketAddr,
    voice: Voice,
    stop: &Stop,
) -> anyhow::Result<u8> {
    let listener = cannot_listen(TcpListener::bind(place).await, &place)?;
    voice.proxying(&listener.local_addr()?);
    let document = Document::parse(TO_REMOTE_HOST)?;
    let open = move |to: Destination| {
        let (starter, document) = (starter.clone(), document.clone());
        async move {
            let parameters = BTreeMap::from([
                ("host".to_owned(), vec![to.host]),
                ("portNumber".to_owned(), vec![to.port.to_string()]),
            ]);
            starter.port(document, parameters).await
        }
    };
    let hear = move |to: &Destination, news: News| {
        let far = Far { host: Some(to.host.clone()), port: to.port };
        match news {
            News::Begun(session) => voice.begun(&far, &session),
            News::Failed(error) => voice.failed(&far, &error),
            News::Notice(notice) => voice.notice(&far, &notice),
            News::Ended(ending) => voice.ended(&far, &ending),
        }
    };
    Proxy { open, hear }.serve(listener, stop.told()).await;
    Ok(0)
}
