//! The company's identity provider says who people are, and nobody else does.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postern::identity::OidcConfig;
use serde_json::{Value, json};

use crate::support::{Answer, CLIENT, Call, DEV, House, Person, Provider, Signer, Terminal, unsigned};

/// A house whose people sign in at the provider; `idp:platform` develops.
async fn house(provider: &Provider, change: impl FnOnce(&mut OidcConfig)) -> House {
    let mut oidc = OidcConfig::new(&provider.url, CLIENT.0);
    change(&mut oidc);
    House::with(|config| {
        config.identity.oidc = Some(oidc);
        let groups = "[groups]\ndevelopers = [\"idp:platform\"]\n";
        std::fs::create_dir_all(config.policy.directory.join("idp")).unwrap();
        std::fs::write(config.policy.directory.join("idp/groups.toml"), groups).unwrap();
    })
    .await
}

/// A browser that has begun: where it is sent, and its cookie.
struct Browser {
    location: String,
    cookie: String,
}

impl Browser {
    async fn begin(house: &House) -> Self {
        Self::to(house, "/console").await
    }

    /// The same, on the way to a page.
    async fn to(house: &House, page: &str) -> Self {
        let answer = Call::get(&format!("/v1/login/oidc?return_to={page}")).send(&house.door).await;
        assert_eq!(answer.status, 303, "{}", answer.text());
        let raw = |name: &str| raw_header(&answer, name);
        Self { location: raw("location"), cookie: raw("set-cookie").split(';').next().unwrap().to_owned() }
    }

    async fn back(&self, house: &House, query: &str) -> Answer {
        let path = format!("/v1/login/oidc/callback?{query}");
        Call::get(&path).with("cookie", &self.cookie).send(&house.door).await
    }
}

/// Headers of an answer are kept in lower case; these tell case apart.
fn raw_header(answer: &Answer, name: &str) -> String {
    let line =
        answer.raw_headers.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")));
    line.unwrap().split_once(':').unwrap().1.trim().to_owned()
}

fn is_signed_in(answer: &Answer) -> bool {
    let text = answer.text();
    assert_ne!(answer.status == 303, text.contains("You are not signed in"), "{} {text}", answer.status);
    answer.status == 303
}

/// The code that a browser is sent on with, as its page uses it.
fn begun(house: &House, answer: &Answer) -> Value {
    let entered = raw_header(answer, "location");
    let code = entered.strip_prefix(&format!("{}/console/enter#begun=", house.url())).unwrap();
    json!({ "begun": code })
}

/// The page's call, with the cookie that came with the code.
fn entering(house: &House, answer: &Answer) -> Call {
    let call = Call::post("/console/api/sign-in", &begun(house, answer)).with("origin", &house.url());
    let cookie = answer.cookies.iter().find(|cookie| cookie.starts_with("__Host-postern-entering="));
    assert!(cookie.unwrap().ends_with("; Secure; HttpOnly; SameSite=Strict"));
    call.with("cookie", cookie.unwrap().split(';').next().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_with_somebody_elses_code_signs_nobody_in() {
    let provider = Provider::start().await;
    let house = house(&provider, |_| {}).await;
    let come_back = async || {
        let browser = Browser::begin(&house).await;
        browser.back(&house, &provider.authorize(&browser.location)).await
    };
    let (theirs, mine) = (come_back().await, come_back().await);
    let body = begun(&house, &theirs);
    let without = Call::post("/console/api/sign-in", &body).with("origin", &house.url());
    // Neither a browser that began nothing, nor one that began something else,
    // nor as if it were a code of the command line.
    let other = Call { body: body.to_string().into_bytes(), ..entering(&house, &mine) };
    let plain = Call::post("/console/api/sign-in", &json!({"code": body["begun"]}));
    for call in [without, other, plain.with("origin", &house.url())] {
        let answer = call.send(&house.door).await;
        assert_eq!((answer.status, answer.cookies.len()), (403, 0), "{}", answer.text());
    }
    entering(&house, &theirs).send(&house.door).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_signs_in_once_with_what_it_began() {
    let provider = Provider::start().await;
    let house = house(&provider, |_| {}).await;
    assert_eq!(Call::get("/console/api/ways").send(&house.door).await.ok(), json!({"provider": true}));
    let answer = Call::get("/v1/login/oidc").send(&house.door).await;
    let cookie = raw_header(&answer, "set-cookie");
    for word in ["__Host-postern-sign-in=", "; Secure", "; HttpOnly", "; SameSite=Lax", "; Path=/;"] {
        assert!(cookie.contains(word), "{cookie}");
    }
    let browser = Browser::begin(&house).await;
    let query = provider.authorize(&browser.location);
    let answer = browser.back(&house, &query).await;
    assert!(is_signed_in(&answer), "{}", answer.text());
    // From there the console takes it, with a code that is good once.
    let kept = entering(&house, &answer).send(&house.door).await;
    assert_eq!(kept.ok()["ok"], true);
    let cookie = kept.cookies[0].split(';').next().unwrap().to_owned();
    let me = Call::get("/console/api/me").with("cookie", &cookie).send(&house.door).await.ok();
    assert_eq!((&me["name"], &me["arn"]), (&json!("alice"), &json!(format!("{}|00u1alice", provider.url))));
    assert!(!is_signed_in(&browser.back(&house, &query).await), "a sign-in was good twice");
    assert_eq!(provider.set(|script| script.asked.len()), 1, "the provider was asked about a replay");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_comes_back_to_the_page_that_it_asked_for_and_to_no_other_site() {
    let provider = Provider::start().await;
    let house = house(&provider, |_| {}).await;
    for (asked, on) in [
        ("/console/sessions/a-1%3Ft=7", "?to=%2Fconsole%2Fsessions%2Fa-1%3Ft%3D7"),
        ("/console/", ""),
        ("/metrics", ""),
        ("https://evil.example/console/", ""),
        ("//evil.example/console/", ""),
        ("/%5Cevil.example", ""),
    ] {
        let browser = Browser::to(&house, asked).await;
        let answer = browser.back(&house, &provider.authorize(&browser.location)).await;
        let location = raw_header(&answer, "location");
        assert!(location.starts_with(&format!("{}/console/enter{on}#", house.url())), "{asked}: {location}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_console_a_browser_is_told_so_before_it_signs_in() {
    let provider = Provider::start().await;
    let house = House::with(|config| {
        config.identity.oidc = Some(OidcConfig::new(&provider.url, CLIENT.0));
        config.console.enabled = false;
    })
    .await;
    let answer = Call::get("/v1/login/oidc?return_to=/console/").send(&house.door).await;
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("has switched the console off"), "{}", answer.text());
    let alice = house.alice().await;
    let link = alice.call(Call::post("/v1/login/browser", &json!({}))).await;
    assert!(link.text().contains("has switched the console off"), "{}", link.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_that_began_elsewhere_is_not_signed_in() {
    let provider = Provider::start().await;
    let house = house(&provider, |_| {}).await;
    let (mine, theirs) = (Browser::begin(&house).await, Browser::begin(&house).await);
    // Somebody sends their own code to another's browser, which has begun or not.
    let query = provider.authorize(&theirs.location);
    assert!(!is_signed_in(&mine.back(&house, &query).await));
    let nobody = Call::get(&format!("/v1/login/oidc/callback?{query}")).send(&house.door).await;
    assert!(!is_signed_in(&nobody));
    for bad in [
        format!("{query}&state=x"),
        format!("{query}&code=x"),
        format!("{query}&iss=https://evil.example"),
        query.replace("state=", "stat="),
        query.replace("code=", "cod="),
        String::new(),
        "%ff=%00".to_owned(),
    ] {
        let browser = Browser::begin(&house).await;
        let state = provider.authorize(&browser.location);
        let state = state.split("state=").nth(1).unwrap().split('&').next().unwrap().to_owned();
        let old = query.split("state=").nth(1).unwrap().split('&').next().unwrap();
        let bad = bad.replace(old, &state);
        assert!(!is_signed_in(&browser.back(&house, &bad).await), "{bad}");
    }
    let mut spoilt = Browser::begin(&house).await;
    let query = provider.authorize(&spoilt.location);
    spoilt.cookie.pop();
    assert!(!is_signed_in(&spoilt.back(&house, &query).await));
    let denied = Browser::begin(&house).await;
    let state = provider.authorize(&denied.location).split("state=").nth(1).unwrap().to_owned();
    let answer = denied.back(&house, &format!("error=access_denied&state={state}")).await;
    assert!(answer.text().contains("refused the sign-in (access_denied)"), "{}", answer.text());
    let strange = Browser::begin(&house).await;
    let state = provider.authorize(&strange.location).split("state=").nth(1).unwrap().to_owned();
    let answer = strange.back(&house, &format!("error=%1b%5b2J%3cscript%3e&state={state}")).await;
    assert!(answer.text().contains("no reason that is known"), "{}", answer.text());
    assert!(provider.set(|script| script.asked.is_empty()), "the provider was asked for nothing");
}

/// Claims with one of them replaced, or left out.
fn with(claims: &Value, name: &str, value: Value) -> Value {
    let mut claims = claims.clone();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}

/// Makes a token that is wrong in one way, of claims that are right.
///
/// They are those of the sign-in that it comes back to, so nothing else is wrong.
type Forge = Box<dyn Fn(&Signer, &Value) -> String>;

/// Every forgery, with what is wrong with it.
fn forgeries(issuer: &str) -> Vec<(String, Forge)> {
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let claim = |name: &'static str, value: Value| -> (String, Forge) {
        let what = format!("{name}: {value}");
        (what, Box::new(move |signer, good| signer.sign(&with(good, name, value.clone()))))
    };
    let header = |header: Value| -> (String, Forge) {
        let what = header.to_string();
        (what, Box::new(move |signer, good| signer.sign_text(&header.to_string(), &good.to_string())))
    };
    let other = |what: &str, forge: Forge| (what.to_owned(), forge);
    vec![
        claim("aud", json!("another-client")),
        claim("aud", json!(["postern", "another-client"])),
        claim("aud", Value::Null),
        claim("iss", json!("https://evil.example")),
        claim("iss", json!(format!("{issuer}/"))),
        claim("azp", json!("another-client")),
        claim("nonce", json!("another")),
        claim("nonce", Value::Null),
        claim("exp", json!(now - 61)),
        claim("exp", json!(now + 86_500)),
        claim("exp", json!("tomorrow")),
        claim("exp", Value::Null),
        claim("iat", Value::Null),
        claim("iat", json!(now + 120)),
        claim("iat", json!(now - 600)),
        claim("nbf", json!(now + 120)),
        claim("sub", Value::Null),
        claim("sub", json!("")),
        claim("sub", json!("alice\u{1b}[2J")),
        claim("sub", json!("x".repeat(256))),
        claim("groups", json!({"platform": true})),
        claim("groups", json!(["plat\nform"])),
        claim("padding", json!("x".repeat(20_000))),
        header(json!({"alg": "none", "kid": "first"})),
        header(json!({"alg": "HS256", "kid": "first"})),
        header(json!({"alg": "ES256", "kid": "first"})),
        header(json!({"alg": "RS256", "kid": "another"})),
        header(json!({"alg": "RS256", "kid": "first", "crit": ["exp"]})),
        header(json!({"alg": "RS256", "kid": "first", "typ": "at+jwt"})),
        header(json!(["RS256"])),
        other(
            "no signature",
            Box::new(|_, good| format!("{}.", unsigned("{\"alg\":\"none\"}", &good.to_string()))),
        ),
        other("another key of the same id", Box::new(|_, good| Signer::es256("first").sign(good))),
        other(
            "a key in the header",
            Box::new(|_, good| {
                let own = Signer::es384("mine");
                let header = json!({"alg": "ES384", "kid": "mine", "jku": "http://127.0.0.1:1/", "jwk": {}});
                own.sign_text(&header.to_string(), &good.to_string())
            }),
        ),
        other(
            "claims changed after signing",
            Box::new(|signer, good| {
                let token = signer.sign(good);
                let (head, rest) = token.split_once('.').unwrap();
                let signature = rest.split_once('.').unwrap().1;
                let claims = URL_SAFE_NO_PAD.encode(with(good, "sub", json!("00u2bob")).to_string());
                format!("{head}.{claims}.{signature}")
            }),
        ),
        other(
            "a claim that is there twice",
            Box::new(|signer, good| {
                let text = good.to_string().replacen('{', "{\"sub\":\"00u2bob\",", 1);
                signer.sign_text(r#"{"alg":"RS256","kid":"first"}"#, &text)
            }),
        ),
        other("four parts", Box::new(|signer, good| format!("{}.x", signer.sign(good)))),
        other("nothing", Box::new(|_, _| String::new())),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forged_or_meant_for_others_signs_nobody_in() {
    let provider = Provider::start().await;
    let house = house(&provider, |_| {}).await;
    let signer = provider.signer();
    for (what, forge) in forgeries(&provider.url) {
        let browser = Browser::begin(&house).await;
        let query = provider.authorize(&browser.location);
        let nonce = browser.location.split("nonce=").nth(1).unwrap().split('&').next().unwrap();
        let good = with(&provider.claims(), "nonce", json!(nonce));
        provider.set(|script| script.tokens = vec![forge(&signer, &good)]);
        let answer = browser.back(&house, &query).await;
        assert!(!is_signed_in(&answer), "{what} was accepted");
        assert!(!answer.text().contains('\u{1b}'));
    }
    // The same way without a fault.
    let browser = Browser::begin(&house).await;
    assert!(is_signed_in(&browser.back(&house, &provider.authorize(&browser.location)).await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_clock_is_told_with_both_clocks() {
    let provider = Provider::start().await;
    let house = house(&provider, |_| {}).await;
    let browser = Browser::begin(&house).await;
    let query = provider.authorize(&browser.location);
    let nonce = browser.location.split("nonce=").nth(1).unwrap().split('&').next().unwrap();
    let mut claims = with(&provider.claims(), "nonce", json!(nonce));
    (claims["iat"], claims["exp"]) = (json!(1_700_000_000), json!(1_700_000_300));
    provider.set(|script| script.tokens = vec![script.signers[0].sign(&claims)]);
    let said = browser.back(&house, &query).await.text();
    let ours = time::OffsetDateTime::now_utc().date().to_string();
    assert!(said.contains("ended at 2023-11-14T22:18:20Z") && said.contains(&ours), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_may_change_its_keys() {
    let provider = Provider::start().await;
    let house = house(&provider, |_| {}).await;
    let signs_in = async || {
        let browser = Browser::begin(&house).await;
        is_signed_in(&browser.back(&house, &provider.authorize(&browser.location)).await)
    };
    assert!(signs_in().await);
    assert!(signs_in().await);
    assert_eq!(provider.set(|script| script.keys_read), 1, "the keys are kept");
    provider.set(|script| script.signers = vec![Signer::es384("second"), Signer::es256("third")]);
    assert!(signs_in().await, "the new key was not looked for");
    provider.set(|script| script.signers.rotate_left(1));
    assert!(signs_in().await, "ES256 was not accepted");
    assert_eq!(provider.set(|script| script.keys_read), 2);
    // Ids that nobody knows make the gateway ask no more than now and then.
    provider.set(|script| script.signers = vec![Signer::es256("fourth")]);
    for _ in 0..3 {
        assert!(!signs_in().await);
    }
    assert_eq!(provider.set(|script| script.keys_read), 2);
}

async fn code(house: &House) -> Value {
    Call::post("/v1/login/device", &json!({})).send(&house.door).await.ok()
}

async fn keys(house: &House, code: &Value) -> Answer {
    Call::post("/v1/login/device/keys", &json!({"handle": code["handle"]})).send(&house.door).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_without_aws_types_a_code_and_opens_a_session() {
    let provider = Provider::start().await;
    let house = house(&provider, |oidc| oidc.groups = vec!["plat*".to_owned()]).await;
    let code = code(&house).await;
    assert_eq!(code["user_code"], "WDJB-MJHT");
    assert!(!code.to_string().contains("device-code"), "the device code is the gateway's own affair");
    let pending = keys(&house, &code).await;
    assert_eq!((pending.status, pending.json()["interval"].as_u64()), (202, Some(1)));
    provider.set(|script| script.answers = vec![(400, json!({"error": "slow_down"}))]);
    assert_eq!(keys(&house, &code).await.json()["interval"], 6);
    provider.type_code();
    let issued = keys(&house, &code).await.ok();
    assert_eq!(issued["PrincipalArn"], format!("{}|00u1alice", provider.url));
    assert!(issued.get("AccountId").is_none(), "{issued}");
    provider.type_code();
    keys(&house, &code).await.refused("AccessDeniedException");

    let alice = Person::with(issued, &house.door, &house.trust);
    let mut terminal = Terminal::shell(&alice, DEV).await;
    terminal.type_line("echo it-$((40 + 2))").await;
    terminal.until("it-42").await;
    let session = alice.session(&terminal.session).await;
    assert_eq!((session["name"].as_str(), session["kind"].as_str()), (Some("alice"), Some("shell")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policy_sees_the_second_factor_and_the_address() {
    let provider = Provider::start().await;
    let house = house(&provider, |_| {}).await;
    std::fs::write(
        house.folder.path().join("policies/factor.cedar"),
        "@id(\"second-factor\") @message(\"sign in with a second factor\")
         forbid (principal, action in Postern::Action::\"startSession\", resource)
         unless { principal has mfa && principal.mfa && principal has email
                  && principal.email like \"*@example.com\" && principal.method == \"oidc\" };",
    )
    .unwrap();
    house.reload().await;
    for (claims, admitted) in [
        (provider.claims(), true),
        (with(&provider.claims(), "amr", json!(["pwd"])), false),
        (with(&provider.claims(), "amr", Value::Null), false),
        (with(&provider.claims(), "email_verified", json!(false)), false),
    ] {
        let code = code(&house).await;
        provider.type_code();
        provider.set(|script| script.tokens = vec![script.signers[0].sign(&claims)]);
        let alice = Person::with(keys(&house, &code).await.ok(), &house.door, &house.trust);
        let answer = alice.api("StartSession", &json!({"Target": DEV})).await;
        assert_eq!(answer.status == 200, admitted, "{claims}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_of_no_admitted_domain_or_group_stays_outside() {
    let provider = Provider::start().await;
    for (change, word) in [
        ((|oidc| oidc.allowed_domains = vec!["example.org".to_owned()]) as fn(&mut OidcConfig), "no domain"),
        (|oidc| oidc.allowed_groups = vec!["admins".to_owned()], "no group"),
    ] {
        let house = house(&provider, change).await;
        let browser = Browser::begin(&house).await;
        let answer = browser.back(&house, &provider.authorize(&browser.location)).await;
        assert!(!is_signed_in(&answer) && answer.text().contains(word), "{}", answer.text());
    }
    let ours = house(&provider, |oidc| {
        oidc.allowed_domains = vec!["Example.com".to_owned()];
        oidc.allowed_groups = vec!["every*".to_owned()];
    })
    .await;
    let browser = Browser::begin(&ours).await;
    assert!(is_signed_in(&browser.back(&ours, &provider.authorize(&browser.location)).await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_a_secret_shows_it() {
    let provider = Provider::start().await;
    provider.set(|script| script.secret = true);
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, format!("{}\n", CLIENT.1)).unwrap();
    let house = house(&provider, |oidc| oidc.client_secret_file = Some(secret)).await;
    let browser = Browser::begin(&house).await;
    assert!(is_signed_in(&browser.back(&house, &provider.authorize(&browser.location)).await));
    assert!(provider.set(|script| !script.asked[0].contains_key("client_secret")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_is_away_or_lies_is_told_as_such() {
    let provider = Provider::start().await;
    provider.set(|script| script.issuer = Some("https://another.example".to_owned()));
    let house = house(&provider, |_| {}).await;
    let answer = Call::get("/v1/login/oidc").send(&house.door).await;
    assert!(answer.text().contains("describes another issuer"), "{}", answer.text());
    drop(provider);
    let away = Provider::start().await;
    let url = away.url.clone();
    drop(away);
    let house = House::with(|config| config.identity.oidc = Some(OidcConfig::new(&url, CLIENT.0))).await;
    let answer = Call::get("/v1/login/oidc").send(&house.door).await;
    assert!(answer.status == 503 && answer.text().contains("cannot be reached"), "{}", answer.text());
    let none = House::start().await;
    let answer = Call::post("/v1/login/device", &json!({})).send(&none.door).await;
    assert!(answer.refused("ValidationException").contains("no identity provider"));
}
