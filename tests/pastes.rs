//! Much that is typed at once arrives, each byte once and in order.

use ring::digest::{SHA256, digest};

use crate::support::{DEV, House, Recorded, Terminal, until};

/// Megabytes that are pasted.
const MEGABYTES: usize = 50;
/// What the gateway may hold of it at once, and what else it takes.
const MEMORY_MAX: u64 = 16 << 20;

/// Bytes that do not repeat, and that no terminal in raw mode acts upon.
fn text(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    (0..len).map(|_| b"etaoin shrdlu 0123456789\n"[next() % 25]).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_huge_paste_arrives_to_the_byte_in_little_memory_though_upstream_breaks() {
    let house = House::apart().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    let memory = || house.apart.as_ref().unwrap().memory_peak();
    let before = memory();
    let upstream = alice.upstream(&terminal.session).await;
    let pasted = text(MEGABYTES << 20);

    terminal
        .type_line(&format!("stty raw -echo; echo g''o; head -c {} | sha256sum; stty sane", pasted.len()))
        .await;
    terminal.until("go\n").await;
    let (first, rest) = pasted.split_at(pasted.len() / 2);
    terminal.paste(first).await;
    house.local.drop_connections(&upstream).await;
    terminal.paste(rest).await;
    let sum = digest(&SHA256, &pasted).as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    // What is typed before the terminal is sane again has no end of line.
    terminal.until(&format!("{sum}  -\n$ ")).await;
    terminal.type_line("exit").await;
    terminal.closed().await;
    until("the end upstream", || house.local.live_sessions().is_empty()).await;
    let took = memory() - before;
    assert!(took < MEMORY_MAX, "{took} bytes for {} pasted", pasted.len());
    Recorded::of(&house, &terminal.session).await.assert_once();
}
