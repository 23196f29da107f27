//! A gateway whose name only a proxy knows, used as people use it.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use crate::support::{DEV, House, within};

/// What only the proxy resolves.
const NAME: &str = "gateway.test";
/// `Basic` of `engineer:p@ss`.
const AUTHORIZATION: &str = "Proxy-Authorization: Basic ZW5naW5lZXI6cEBzcw==";

/// An HTTP proxy that wants a password and leads one name to one address.
struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let heard = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(Self::serve(near, to, Arc::clone(&heard)));
            }
        });
        Self { address, asked }
    }

    async fn serve(near: TcpStream, to: SocketAddr, heard: Arc<Mutex<Vec<String>>>) -> std::io::Result<()> {
        let mut near = BufReader::new(near);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            near.read_line(&mut line).await?;
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let asked = head.first().cloned().unwrap_or_default();
        let knows = head.iter().any(|line| line.eq_ignore_ascii_case(AUTHORIZATION));
        heard.lock().unwrap().push(asked.clone());
        if !knows {
            return near.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
        }
        if asked != format!("CONNECT {NAME}:443 HTTP/1.1") {
            return near.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await;
        }
        let mut far = TcpStream::connect(to).await?;
        near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
        copy_bidirectional(&mut near, &mut far).await.map(|_| ())
    }

    /// How often a tunnel was asked for since the last time.
    fn tunnels(&self) -> usize {
        let asked = std::mem::take(&mut *self.asked.lock().unwrap());
        assert!(asked.iter().all(|line| line.contains(NAME)), "{asked:?}");
        asked.len()
    }
}

/// A gateway that its clients call by the name.
async fn house() -> House {
    House::with(|config| {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let folder = config.listen.certificate.parent().unwrap().to_owned();
        config.listen.certificate = folder.join("named.pem");
        config.listen.key = folder.join("named.key");
        config.listen.public_url = Some(format!("https://{NAME}"));
        std::fs::write(&config.listen.certificate, made.cert.pem()).unwrap();
        std::fs::write(&config.listen.key, made.signing_key.serialize_pem()).unwrap();
    })
    .await
}

/// The program with alice's keys and this proxy; what it said and exited with.
async fn postern(house: &House, proxy: &str, words: &[&str]) -> (Option<i32>, String) {
    let bundle = house.folder.path().join("named.pem");
    let program = env!("CARGO_BIN_EXE_postern");
    let mut command = Command::new(program);
    command
        .args(words)
        .env_clear()
        .env("HOME", house.folder.path())
        // The shell that runs `credential_process` is there.
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("POSTERN_CACHE_DIR", house.folder.path().join("cache"))
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_CA_BUNDLE", bundle)
        .env("https_proxy", proxy)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let done = within("the program", command.output()).await.unwrap();
    let text = [done.stdout, done.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (done.status.code(), text)
}

/// Alice's keys and a profile that leads to the gateway, as people write it.
async fn profile(house: &House) {
    let aws = house.folder.path().join(".aws");
    std::fs::create_dir_all(&aws).unwrap();
    let keys = "[home]\naws_access_key_id = AKIAALICE\naws_secret_access_key = the-secret-of-alice\n";
    std::fs::write(aws.join("credentials"), keys).unwrap();
    let url = format!("https://{NAME}");
    let words = ["configure", "--gateway", &url, "--profile", "gw", "--source-profile", "home"];
    let (code, said) = postern(house, "", &[&words[..], &["--region", "eu-west-1"]].concat()).await;
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_goes_through_the_proxy_of_the_environment() {
    let house = house().await;
    let proxy = Proxy::start(house.door.address).await;
    let url = format!("http://engineer:p%40ss@{}", proxy.address);
    profile(&house).await;

    let exec = ["exec", "--profile", "gw", DEV, "--", "echo", "it came through"];
    let (code, said) = postern(&house, &url, &exec).await;
    assert_eq!((code, said.as_str()), (Some(0), "it came through\n"));
    // The sign-in, the calls and the data channel: nothing found the name otherwise.
    assert!(proxy.tunnels() >= 3);

    let (code, said) = postern(&house, &url, &["doctor", "--profile", "gw", "--target", DEV]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains(&format!("ok    proxy        {} (from https_proxy) leads", proxy.address)),
        "{said}"
    );
    assert!(!said.contains("p%40ss") && !said.contains("p@ss"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_says_no_is_named_with_its_answer() {
    let house = house().await;
    let proxy = Proxy::start(house.door.address).await;
    let url = format!("http://engineer:wrong-secret@{}", proxy.address);
    profile(&house).await;

    let (code, said) = postern(&house, &url, &["doctor", "--profile", "gw"]).await;
    assert_eq!(code, Some(1), "{said}");
    let told = format!("the proxy {} (from https_proxy) opened no way to {NAME}:443", proxy.address);
    assert!(said.contains(&told) && said.contains("407 Proxy Authentication Required"), "{said}");
    let (code, said) = postern(&house, &url, &["exec", "--profile", "gw", DEV, "--", "true"]).await;
    assert_eq!(code, Some(255), "{said}");
    assert!(said.contains(&format!("through the proxy {}", proxy.address)), "{said}");
    assert!(!said.contains("wrong-secret"), "{said}");
    assert!(proxy.tunnels() >= 2);
}
