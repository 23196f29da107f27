//! Where the connections of a port session go, and where they may not.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::local_ssm::document::PortWork;
use crate::local_ssm::settings::LocalTarget;

/// How long a name's lookup, or one address's connection, may take: the
/// agent leaves it to the system, which gives up after about two minutes.
const WAIT: Duration = Duration::from_secs(30);
/// Most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;
/// Hosts that the agent never forwards to: metadata, DNS, time and licences
/// of AWS. Source: the agent's `DefaultDeniedPortForwardingRemoteIPs`.
const DENIED: [IpAddr; 9] =
    [v4(254), v4(253), v4(123), v4(250), v4(251), v6(0x254), v6(0x253), v6(0x123), v6(0x240)];

const fn v4(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, last))
}

const fn v6(last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, last))
}

/// The addresses that are tried for every connection, in order.
#[derive(Debug, Clone)]
pub(super) struct Destination(Vec<SocketAddr>);

/// A connection on its way.
pub(super) type Dial = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

impl Destination {
    /// Looks a host up, once for the session as the agent does; an error is
    /// what the user is told.
    ///
    /// A name that nobody knows has no addresses: then every dial fails.
    pub(super) async fn resolve(work: &PortWork, target: &LocalTarget) -> Result<Self, String> {
        let mapped = match &work.host {
            None => target.ports.get(&work.port),
            Some(host) => target.hosts.get(&(host.clone(), work.port)),
        };
        if let Some(address) = mapped {
            return Ok(Self(vec![*address]));
        }
        let Some(host) = work.host.as_deref() else {
            // Not looked up, so that the session takes its first connection
            // at once: what is sent too early waits for a repetition.
            let local = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
            return Ok(Self(local.map(|address| SocketAddr::new(address, work.port)).to_vec()));
        };
        let mut addresses = Vec::new();
        if let Ok(Ok(found)) = timeout(WAIT, lookup_host((host, work.port))).await {
            addresses.extend(found.take(ADDRESSES_MAX));
        }
        let denied = |address: &SocketAddr| DENIED.contains(&address.ip().to_canonical());
        if addresses.iter().any(denied) {
            return Err(format!("Forwarding to IP address {host} is forbidden."));
        }
        Ok(Self(addresses))
    }

    /// Nowhere, for tests.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    /// Connects to the first address that takes it; else the first error.
    pub(super) fn dial(&self) -> Dial {
        let addresses = self.0.clone();
        Box::pin(async move {
            let mut first = None;
            for address in addresses {
                let dialled = timeout(WAIT, TcpStream::connect(address)).await;
                match dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                    Ok(connection) => {
                        // Small answers must not wait for company.
                        let _ = connection.set_nodelay(true);
                        return Ok(connection);
                    }
                    Err(error) => {
                        let told = io::Error::new(error.kind(), format!("dial tcp {address}: {error}"));
                        first.get_or_insert(told);
                    }
                }
            }
            Err(first.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "missing address")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(host: &str) -> PortWork {
        PortWork {
            properties: serde_json::Value::Null,
            host: Some(host.to_owned()),
            port: 80,
            forwards: true,
        }
    }

    #[tokio::test]
    async fn the_metadata_of_aws_is_never_forwarded_however_it_is_written() {
        let target = LocalTarget::new("i-0", "web");
        for host in ["169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254", "169.254.169.123"] {
            let refused = Destination::resolve(&to(host), &target).await.unwrap_err();
            assert_eq!(refused, format!("Forwarding to IP address {host} is forbidden."));
        }
        for host in ["169.254.169.1", "127.0.0.1"] {
            assert!(Destination::resolve(&to(host), &target).await.is_ok(), "{host}");
        }
    }

    #[tokio::test]
    async fn a_host_that_nobody_knows_has_no_address() {
        let target = LocalTarget::new("i-0", "web");
        let nowhere = Destination::resolve(&to("no-such-host.invalid"), &target).await.unwrap();
        assert_eq!(nowhere.dial().await.unwrap_err().to_string(), "missing address");
    }
}
