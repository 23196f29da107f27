//! The relay between two stock programs, in any weather and simulated time.

mod agent;
mod carried;
mod echo;
mod keep_alive;
mod link;
mod notices;
mod played;
mod plugin;
mod ports;
mod rig;
mod weather;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::DataKeys;
use weather::Weather;
use world::{BANNER, Outcome, live};

/// Sessions that every run lives through; `POSTERN_SEEDS=5000` for more.
const SEEDS: u64 = 300;

/// The targets of these tests encrypt nothing.
fn no_keys() -> DataKeys {
    Box::new(|_| Box::pin(async { Err("there are no keys".to_owned()) }))
}

#[test]
fn whatever_the_weather_nothing_is_lost_repeated_or_jammed() {
    each_seed(|seed| {
        let (weather, outcome) = live(seed);
        judge(&weather, &outcome);
    });
}

/// Lives through every seed, and tells which failed.
fn each_seed(live_through: impl Fn(u64)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("POSTERN_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("POSTERN_SEEDS").unwrap_or(SEEDS),
    };
    let mut failed = Vec::new();
    for seed in seeds {
        if catch_unwind(AssertUnwindSafe(|| live_through(seed))).is_err() {
            eprintln!("that was seed {seed}");
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "try POSTERN_SEED={}; all that failed: {failed:?}", failed[0]);
}

fn judge(weather: &Weather, outcome: &Outcome) {
    let Outcome { ended, agent, plugin, hand, typed } = outcome;
    let said: Vec<u8> = agent.said.iter().flat_map(|(_, payload)| payload.clone()).collect();
    let state = || format!("{}; {}; {weather:?}", agent.state(), plugin.state());
    assert_eq!(ended.reason(), "target_closed", "{}", state());

    let banner = if weather.banner { format!("{BANNER}\r\n") } else { String::new() };
    let printed = plugin.printed.strip_prefix(banner.as_bytes()).expect("the banner is not printed first");
    assert!(printed == said, "printed {} bytes of {}: {weather:?}", printed.len(), said.len());
    assert!(agent.heard == *typed, "heard {} bytes of {}: {weather:?}", agent.heard.len(), typed.len());

    let hand = hand.lock().unwrap();
    let recorded: Vec<(i64, Vec<u8>)> =
        hand.output.iter().filter_map(|event| Some((event.sequence?, event.content.clone()))).collect();
    let numbers =
        |messages: &[(i64, Vec<u8>)]| messages.iter().map(|(number, _)| *number).collect::<Vec<_>>();
    assert_eq!(numbers(&recorded), numbers(&agent.said), "{weather:?}");
    let bytes: Vec<u8> = recorded.into_iter().flat_map(|(_, payload)| payload).collect();
    assert!(bytes == said, "recorded {} bytes of {}: {weather:?}", bytes.len(), said.len());
    let mut keys = hand.typed.clone();
    keys.sort_by_key(|(number, _)| *number);
    let keys: Vec<u8> = keys.into_iter().flat_map(|(_, keys)| keys).collect();
    assert!(keys == *typed, "{} bytes of {} keys are recorded: {weather:?}", keys.len(), typed.len());
    let own: Vec<String> = hand
        .output
        .iter()
        .filter(|event| event.sequence.is_none())
        .filter_map(|event| String::from_utf8(event.content.clone()).ok())
        // What is shown of a rune that never ended is nobody's message either.
        .filter(|text| !text.is_empty())
        .collect();
    let mut shown = if weather.banner { vec![banner] } else { Vec::new() };
    shown.extend(plugin.notices.iter().map(|(_, sentence)| format!("\r\n*** postern: {sentence} ***\r\n")));
    assert_eq!(own, shown, "{weather:?}");
}
