//! The key that signs recordings is rotated; what the old one signed stays proved.

use std::process::Command;

use crate::support::{Call, DEV, House, Terminal, until};
use postern::recorder::{PublicKey, Report, is_sealed, verify};

fn postern(house: &House, args: &[&str]) -> (bool, String) {
    let config = house.folder.path().join("postern.toml");
    let ran =
        Command::new(env!("CARGO_BIN_EXE_postern")).args(args).arg("--config").arg(config).output().unwrap();
    let said = [ran.stdout, ran.stderr].concat();
    (ran.status.success(), String::from_utf8(said).unwrap())
}

/// A short session; the key that sealed its recording, and the recording.
async fn sealed_by(house: &House, known: &[PublicKey]) -> (String, std::path::PathBuf) {
    let mut terminal = Terminal::shell(&house.alice().await, DEV).await;
    terminal.type_line("exit").await;
    terminal.closed().await;
    let path = house.spool.join(format!("{}.cast.zst", terminal.session));
    until("the seal", || is_sealed(&path).unwrap_or(false)).await;
    let Report::Sealed(evidence) = verify(&path, known).unwrap() else { panic!("not sealed") };
    (evidence.key_id, path)
}

/// The keys that the gateway publishes; the first one signs.
async fn known(house: &House) -> Vec<PublicKey> {
    let keys = Call::get("/v1/recording-keys").send(&house.door).await.ok();
    let keys = keys.as_array().unwrap().clone();
    assert!(keys.iter().enumerate().all(|(place, key)| key["signs"] == (place == 0)), "{keys:?}");
    keys.iter().map(|key| PublicKey::from_pem(key["pem"].as_str().unwrap()).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_key_signs_and_the_one_before_still_proves() {
    let mut house = House::apart().await;
    let before = known(&house).await;
    let (old, first) = sealed_by(&house, &before).await;
    assert_eq!(old, before[0].id());

    let (well, said) = postern(&house, &["keys", "rotate"]);
    assert!(well && said.contains(&format!("takes the place of {old}")), "{said}");
    assert_eq!(house.apart.take().unwrap().terminate().await, Some(0));
    house.again().await;

    let after = known(&house).await;
    assert_eq!(after[1..], before);
    let (new, second) = sealed_by(&house, &after).await;
    assert_eq!(new, after[0].id());
    assert!(matches!(verify(&first, &after), Ok(Report::Sealed(_))));
    assert!(verify(&second, &before).is_err());

    let (well, said) = postern(&house, &["keys", "list"]);
    let lines: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(well, "{said}");
    assert_eq!(lines[1..], [vec![new.as_str(), "signs"], vec![old.as_str(), "retired"]], "{said}");
}
