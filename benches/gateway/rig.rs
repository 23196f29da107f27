//! What every load needs: origin, proxies, many clients at once.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use tokio::task::JoinSet;

use crate::api::Door;
use crate::line::Line;
use crate::measure::{Watch, quiet};
use crate::options::Options;
use crate::proxies::{Kind, Running, Site};

/// Connections opened at the same time.
const AT_ONCE: usize = 8;
/// The longest that one load of one proxy may take.
const LOAD_WITHIN: Duration = Duration::from_secs(180);
/// Time for the gateway to seal what a load recorded.
pub const SEALED_WITHIN: Duration = Duration::from_secs(60);

/// The rig.
pub struct Rig {
    pub site: Site,
    pub options: Options,
    pub origin: Running,
    pub tls: Arc<rustls::ClientConfig>,
}

impl Rig {
    /// Starts a proxy before the origin.
    pub fn proxy(&self, kind: Kind) -> anyhow::Result<Running> {
        self.site.proxy(kind, self.origin.port)
    }

    /// The proxies of a load, in the order of a round.
    pub fn proxies(&self, workers: &[usize]) -> anyhow::Result<Vec<Running>> {
        let anchor = self.options.anchored.then_some(Kind::Haproxy);
        let gateways = workers.iter().filter(|workers| **workers > 0).map(|workers| Kind::Postern(*workers));
        anchor.into_iter().chain(gateways).map(|kind| self.proxy(kind)).collect()
    }

    /// The door of a process.
    pub async fn door(&self, process: &Running) -> anyhow::Result<Door> {
        Door::of(process, &self.tls).await
    }

    /// Opens many sessions, a few at a time.
    pub async fn open(&self, door: &Door, count: usize) -> anyhow::Result<Vec<Line>> {
        let opening = (0..count).map(|_| async { Line::dial(&door.ticket().await?, &self.tls).await });
        futures_util::stream::iter(opening).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Starts a stop watch on a proxy.
    pub fn watch(&self, proxy: &Running) -> anyhow::Result<Watch> {
        Watch::start(proxy.pid(), &[self.origin.pid()])
    }

    /// Ends sessions as people do, and waits for the proxy to settle.
    pub async fn leave(&self, lines: Vec<Line>, proxy: &Running) -> anyhow::Result<()> {
        together(lines, |line| async move { line.leave().await }).await?;
        quiet(proxy.pid(), SEALED_WITHIN).await
    }
}

/// Does the same with all lines at once.
pub async fn together<T, F>(lines: Vec<Line>, work: impl Fn(Line) -> F) -> anyhow::Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for line in lines {
        tasks.spawn(work(line));
    }
    let all = async {
        let mut done = Vec::new();
        while let Some(one) = tasks.join_next().await {
            done.push(one??);
        }
        Ok(done)
    };
    tokio::time::timeout(LOAD_WITHIN, all).await?
}
