//! Port sessions whose connections to the client are cut.

use data_channel::smux::Command;

use super::support::*;
use super::tunnel::*;
use crate::local_ssm::LocalSsm;

/// Bytes of each direction: a few thousand messages.
const LENGTH: usize = 2 << 20;

#[tokio::test]
async fn a_transfer_goes_on_after_a_cut_without_losing_or_repeating_a_byte() {
    let mut config = config();
    config.targets[0].ports.insert(80, echo().await);
    let running = LocalSsm::start(config).await.unwrap();
    let mut tunnel = Tunnel::open(&running).await;
    let sent = [pattern(LENGTH, 1), pattern(LENGTH, 2)];
    for stream in [3, 5] {
        tunnel.say(Command::Open, stream).await;
    }
    for (n, (one, two)) in sent[0].chunks(LENGTH / 8).zip(sent[1].chunks(LENGTH / 8)).enumerate() {
        tunnel.write(3, one).await;
        tunnel.write(5, two).await;
        if n % 3 == 1 {
            // The resume before may not have been through.
            while !running.drop_connections(&tunnel.client.session).await {}
            tunnel.client.gone().await;
            tunnel.client.resume(&running).await;
        }
        while tunnel.client.unacknowledged() > 200 {
            tunnel.next().await;
        }
    }
    for (stream, data) in [3, 5].into_iter().zip(&sent) {
        tunnel.until(stream, data).await;
        tunnel.say(Command::Close, stream).await;
        tunnel.until_ended(stream).await;
    }
    assert_eq!(tunnel.client.output(), running.sent(&tunnel.client.session));
    assert_eq!(running.counts(&tunnel.client.session).unwrap().connections, 4);
    running.stop().await;
}
