//! What a decision costs: 100 to 10,000 policies, all sessions, loading.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "a bench that cannot set up has nothing to measure"
)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group};
use postern::policy::{Action, Asked, Policy, Question, Resource};
use postern::session::{AuthMethod, Facts, Instance, Principal, Target};
use tempfile::TempDir;
use time::OffsetDateTime;

/// Policies of one file.
const FILE_POLICIES: usize = 1000;

/// Whose heads name somebody.
#[derive(Clone, Copy, PartialEq)]
enum Heads {
    /// Each of them.
    All,
    /// Nine of ten; the others say in their conditions whom they are about.
    NineOfTen,
}

/// A policy for everybody and everything, with conditions as people write them.
fn headless(n: usize) -> String {
    let (team, kind) = (n / 3, n / 10 % 5);
    let condition = match kind {
        0 => format!("principal in Postern::Group::\"team-{team}\" && resource.hasTag(\"env\")"),
        1 => format!("context has reason && context.reason == \"OPS-{n}\""),
        2 => format!("resource.hasTag(\"team\") && resource.getTag(\"team\") == \"x{team}\""),
        3 => format!("context has sourceIp && context.sourceIp.isInRange(ip(\"10.{}.0.0/16\"))", n % 250),
        _ => format!("resource in Postern::Account::\"{n:012}\" && context.weekday > 5"),
    };
    format!(
        "@id(\"any-{n}\") forbid (principal is Postern::User, action in Postern::Action::\"startSession\", \
         resource is Postern::Instance) when {{ {condition} }};\n"
    )
}

/// Teams with a permit, a port forward and a forbid each, as sets grow.
fn folder(policies: usize, heads: Heads) -> TempDir {
    let dir = TempDir::new().expect("a temporary folder");
    let mut cedar = String::new();
    let mut groups = String::from("[groups]\n");
    for n in 0..policies {
        let team = n / 3;
        // A file may have 1 MB.
        if n % FILE_POLICIES == 0 {
            write(&dir, n, &mut cedar);
        }
        let _ = match n % 3 {
            _ if heads == Heads::NineOfTen && n % 10 == 9 => write!(cedar, "{}", headless(n)),
            0 => writeln!(
                cedar,
                "@id(\"shell-{n}\") @record(\"disk\") @idle_timeout(\"15m\") permit (principal in \
                 Postern::Group::\"team-{team}\", action in Postern::Action::\"startSession\", resource is \
                 Postern::Instance) when {{ resource.hasTag(\"team\") && resource.getTag(\"team\") == \"{team}\" }};"
            ),
            1 => writeln!(
                cedar,
                "@id(\"port-{n}\") permit (principal in Postern::Group::\"team-{team}\", action == \
                 Postern::Action::\"forwardPort\", resource is Postern::Instance) when {{ context.port == 5432 }};"
            ),
            _ => writeln!(
                cedar,
                "@id(\"prod-{n}\") @message(\"not there\") forbid (principal in Postern::Group::\"team-{team}\", \
                 action, resource is Postern::Instance) when {{ resource.hasTag(\"env\") && \
                 resource.getTag(\"env\") == \"prod-{team}\" }};"
            ),
        };
        if n % 3 == 0 {
            let _ =
                writeln!(groups, "team-{team} = [\"arn:aws:sts::000000000000:assumed-role/Team{team}/*\"]");
        }
    }
    write(&dir, policies, &mut cedar);
    std::fs::write(dir.path().join("groups.toml"), groups).expect("groups are written");
    dir
}

fn write(dir: &TempDir, until: usize, cedar: &mut String) {
    let path = dir.path().join(format!("teams-{until}.cedar"));
    std::fs::write(path, std::mem::take(cedar)).expect("policies are written");
}

fn principal() -> Principal {
    Principal {
        id: "AROATEAM:alice".into(),
        arn: "arn:aws:sts::000000000000:assumed-role/Team0/alice".into(),
        account: "000000000000".into(),
        name: "alice".into(),
        role: Some("Team0".into()),
        method: AuthMethod::StsProof,
        authenticated_at: 0,
        facts: Facts::default(),
    }
}

fn instance() -> Instance {
    let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    Instance {
        target: Target::parse("i-0123456789abcdef0").expect("a target"),
        account: "000000000000".into(),
        region: "us-east-1".into(),
        name: Some("web-1".into()),
        platform: Some("Linux".into()),
        agent_version: Some("3.3.0.0".into()),
        online: true,
        tags: BTreeMap::from([tag("team", "0"), tag("env", "dev"), tag("Name", "web-1"), tag("cost", "42")]),
    }
}

fn decisions(c: &mut Criterion) {
    let (principal, instance) = (principal(), instance());
    let now = OffsetDateTime::UNIX_EPOCH;
    let context =
        Asked { reason: Some("OPS-17"), source_ip: Some([198, 51, 100, 7].into()), ..Asked::default() };
    for policies in [10, 100, 1_000, 10_000] {
        let dir = folder(policies, Heads::All);
        let policy = Policy::load(dir.path()).unwrap_or_else(|error| panic!("{error}"));
        for (name, action) in [("shell", Action::StartShell), ("list", Action::ListTargets)] {
            let question =
                Question { principal: &principal, action, resource: Resource::Instance(&instance), context };
            assert_eq!(policy.decide(&question, now).allowed, action == Action::StartShell);
            c.bench_function(&format!("decide/{name}/{policies}"), |b| {
                b.iter(|| black_box(policy.decide(black_box(&question), now)));
            });
        }
    }
}

fn loading(c: &mut Criterion) {
    let mut group = c.benchmark_group("load");
    group.sample_size(10);
    for policies in [10, 100, 1_000] {
        let dir = folder(policies, Heads::All);
        group
            .bench_function(policies.to_string(), |b| b.iter(|| Policy::load(black_box(dir.path())).is_ok()));
    }
    group.finish();
}

/// The 99th percentile of single decisions, against what is promised.
fn percentiles() {
    let (principal, instance) = (principal(), instance());
    let now = OffsetDateTime::UNIX_EPOCH;
    let context =
        Asked { reason: Some("OPS-17"), source_ip: Some([198, 51, 100, 7].into()), ..Asked::default() };
    let sizes = [(100, 100), (1_000, 1_000), (10_000, 5_000)];
    let sets = sizes.iter().flat_map(|size| [(size, Heads::All), (size, Heads::NineOfTen)]);
    for (&(policies, promised), heads) in sets {
        let dir = folder(policies, heads);
        let policy = Policy::load(dir.path()).unwrap_or_else(|error| panic!("{error}"));
        let resource = Resource::Instance(&instance);
        let question = Question { principal: &principal, action: Action::StartShell, resource, context };
        let mut times: Vec<Duration> = (0..5_000)
            .map(|_| {
                let began = Instant::now();
                assert!(black_box(policy.decide(black_box(&question), now)).allowed);
                began.elapsed()
            })
            .collect();
        times.sort();
        let which = if heads == Heads::All { "" } else { ", one in ten for everybody and everything" };
        let at = |part: usize| times[times.len() * part / 100].as_micros();
        println!(
            "decide {policies} policies{which}: p50 {} us, p99 {} us (promised: {promised} us)",
            at(50),
            at(99)
        );
    }
}

/// All of 10,000 sessions asked about again on two threads.
fn sessions() {
    const SESSIONS: usize = 10_000;
    let dir = folder(300, Heads::All);
    let policy = Policy::load(dir.path()).unwrap_or_else(|error| panic!("{error}"));
    let now = OffsetDateTime::UNIX_EPOCH;
    let people: Vec<_> = (0..SESSIONS)
        .map(|n| {
            let (team, who) = (n % 100, format!("person-{n}"));
            let arn = format!("arn:aws:sts::000000000000:assumed-role/Team{team}/{who}");
            let role = Some(format!("Team{team}"));
            let mut machine = instance();
            machine.target = Target::parse(&format!("i-{n:017x}")).expect("a target");
            machine.tags.insert("team".into(), team.to_string());
            (Principal { id: format!("AROA{team}:{who}"), arn, name: who, role, ..principal() }, machine)
        })
        .collect();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for share in people.chunks(SESSIONS / 2) {
            let policy = &policy;
            scope.spawn(move || {
                for (principal, instance) in share {
                    let resource = Resource::Instance(instance);
                    let context = Asked { reason: Some("OPS-17"), ..Asked::default() };
                    let question = Question { principal, action: Action::StartShell, resource, context };
                    assert!(black_box(policy.decide(&question, now)).allowed);
                }
            });
        }
    });
    println!("{SESSIONS} sessions asked again in {:?} on two threads (promised: 2 s)", began.elapsed());
}

criterion_group!(benches, decisions, loading);

fn main() {
    percentiles();
    sessions();
    benches();
    Criterion::default().configure_from_args().final_summary();
}
