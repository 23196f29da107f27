//! `postern login` and `postern credentials --web-identity`, as people run them.

use std::process::Stdio;

use postern::identity::OidcConfig;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

use crate::support::{ACCOUNT, CLIENT, DEV, House, Person, Provider, Terminal, within};

/// The program, with nothing of this machine's AWS configuration.
fn postern(house: &House) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
    command
        .env_clear()
        .env("HOME", house.folder.path())
        .env("POSTERN_CACHE_DIR", house.folder.path().join("cache"))
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

fn at(house: &House) -> [String; 4] {
    let ca = house.folder.path().join("tls.pem").display().to_string();
    ["--gateway".to_owned(), house.url(), "--ca-bundle".to_owned(), ca]
}

async fn output(mut command: Command) -> (bool, String, String) {
    let done = within("the program", command.output()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (done.status.success(), text(done.stdout), text(done.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn login_shows_a_code_and_keeps_the_keys_for_the_aws_cli() {
    let provider = Provider::start().await;
    let house = House::with(|config| {
        config.identity.oidc = Some(OidcConfig::new(&provider.url, CLIENT.0));
        let groups = "[groups]\ndevelopers = [\"email:alice@example.com\"]\n";
        std::fs::create_dir_all(config.policy.directory.join("idp")).unwrap();
        std::fs::write(config.policy.directory.join("idp/groups.toml"), groups).unwrap();
    })
    .await;
    let mut credentials = postern(&house);
    credentials.args(["credentials", "--login"]).args(at(&house));
    let (well, out, err) = output(credentials).await;
    assert!(!well && out.is_empty() && err.contains("run `postern login --gateway"), "{err}");

    let mut login = postern(&house);
    let mut running = login.arg("login").args(at(&house)).spawn().unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
    let mut said = Vec::new();
    while !said.iter().any(|line: &String| line.contains("WDJB-MJHT")) {
        said.push(within("the code", lines.next_line()).await.unwrap().expect("no code was shown"));
    }
    assert!(said.concat().contains(&format!("{}/type", provider.url)), "{said:?}");
    provider.type_code();
    let mut rest = String::new();
    within("the end", lines.into_inner().read_to_string(&mut rest)).await.unwrap();
    assert!(within("the end", running.wait()).await.unwrap().success(), "{rest}");
    assert!(rest.contains("Signed in to"), "{rest}");

    let mut credentials = postern(&house);
    credentials.args(["credentials", "--login"]).args(at(&house));
    let (well, out, err) = output(credentials).await;
    assert!(well && err.is_empty(), "{err}");
    let keys: Value = serde_json::from_str(&out).unwrap();
    let alice = Person::with(keys, &house.door, &house.trust);
    let mut terminal = Terminal::shell(&alice, DEV).await;
    terminal.type_line("echo it-$((40 + 2))").await;
    terminal.until("it-42").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_prove_an_identity_with_a_token_of_sts() {
    let house = House::with(|config| {
        let sts = config.broker.sts_endpoint_url.clone().unwrap();
        config.identity.web_identity.issuers.insert(ACCOUNT.to_owned(), sts);
    })
    .await;
    let mut credentials = postern(&house);
    credentials
        .args(["credentials", "--web-identity", "--region", "eu-west-1"])
        .args(at(&house))
        .env("AWS_ACCESS_KEY_ID", "AKIAALICE")
        .env("AWS_SECRET_ACCESS_KEY", "the-secret-of-alice")
        .env("AWS_ENDPOINT_URL_STS", house.local.url());
    let (well, out, err) = output(credentials).await;
    assert!(well && err.is_empty(), "{err}");
    let keys: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(keys["AccountId"], ACCOUNT);
    let alice = Person::with(keys, &house.door, &house.trust);
    let mut terminal = Terminal::shell(&alice, DEV).await;
    terminal.type_line("echo it-$((40 + 2))").await;
    terminal.until("it-42").await;
}
