//! Signing in with a provider: a real one, and one that lies.

use crate::{
    browser::Browsers,
    house::{House, PATIENCE},
};
use daypass_testkit::certificates::Certificates;
use reqwest::{StatusCode, header};
use serde_json::Value;
use std::{path::Path, process::Stdio};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

/// Both providers, and a Daypass that knows one of them.
struct Providers {
    _node: Child,
    /// It goes on saying things; a closed pipe would end it.
    _lines: Lines<BufReader<ChildStdout>>,
    real: u64,
    hostile: u64,
}

/// A house whose people may sign in with one of two providers.
async fn house(which: &str) -> (House, Providers) {
    let mut house = House::bare("", None).await;
    let certificates = Certificates::make().unwrap();
    let (chain, key) = (house.path("provider.pem"), house.path("provider-key.pem"));
    certificates.write(&chain, &key).unwrap();
    std::fs::write(house.path("provider-ca.pem"), &certificates.ca).unwrap();
    std::fs::write(house.path("provider-secret"), "provider-secret\n").unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/provider.mjs");
    let tools = crate::clients::tools().await;
    let modules = tools.join("node_modules");
    let mut node = Command::new(tools.join("bin/node"));
    node.arg(script).args([modules.as_path(), &chain, &key]).arg(format!("https://localhost:{}", house.api.port()));
    let log = house.path("provider.log");
    node.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(std::fs::File::create(&log).unwrap()).kill_on_drop(true);
    let mut node = node.spawn().expect("Node.js of scripts/tools starts");
    let mut lines = BufReader::new(node.stdout.take().unwrap()).lines();
    let ports = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("the providers start").unwrap();
    let ports = ports.unwrap_or_else(|| panic!("oidc-provider has ended: {}", std::fs::read_to_string(&log).unwrap_or_default()));
    let ports: Value = serde_json::from_str(&ports).unwrap();
    let providers = Providers { _node: node, _lines: lines, real: ports["real"].as_u64().unwrap(), hostile: ports["hostile"].as_u64().unwrap() };
    let port = if which == "real" { providers.real } else { providers.hostile };
    house.extra_config = format!(
        "[console]\nurl = \"https://localhost:{}\"\nrecent_seconds = 10\n[oidc]\nissuer = \"https://localhost:{port}\"\nclient_id = \"daypass\"\nclient_secret_file = {:?}\nca = {:?}\n\
         label = \"Sign in with Example\"\nscopes = [\"profile\", \"groups\"]\n[[oidc.role]]\ngroup = \"dba\"\nrole = \"requester\"\nenvironment = \"uat\"\n\
         [[oidc.role]]\ngroup = \"dba-leads\"\nrole = \"approver\"\n",
        house.api.port(),
        house.path("provider-secret"),
        house.path("provider-ca.pem"),
    );
    house.start().await;
    house.settle().await;
    (house, providers)
}

fn http(house: &House) -> reqwest::Client {
    let read = |name: &str| reqwest::Certificate::from_pem(&std::fs::read(house.path(name)).unwrap()).unwrap();
    let both = [read("data/ca.pem"), read("provider-ca.pem")];
    reqwest::Client::builder().tls_certs_only(both).redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn people_sign_in_with_their_provider_and_their_groups_are_their_roles() {
    let (house, providers) = house("real").await;
    let browsers = Browsers::start().await;
    let server = format!("https://localhost:{}", house.api.port());
    let nina = browsers.open(&server, "nina", true).await;
    nina.go("/environments/uat").await;
    nina.click("Sign in with Example").await;
    nina.sees("Sign-in").await;
    nina.run(
        "document.querySelector('[name=login]').value = 'nina'; document.querySelector('[name=password]').value = 'x'; document.querySelector('form').submit()",
    )
    .await;
    nina.sees("Authorize").await;
    nina.click("Continue").await;
    nina.sees("Database accounts").await;
    nina.fill("Details", "a look from outside").await;
    nina.click("Request access").await;
    nina.sees("ready").await;

    // she has no password: when her sign-in is no longer recent, she confirms with the provider, which asks anew
    let deadline = std::time::Instant::now() + PATIENCE * 2;
    loop {
        nina.go("/environments/uat").await;
        nina.click("Show").await;
        nina.part("dialog #form h1").await;
        if nina.text().await.contains("Confirm that it is you") {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "a sign-in stays recent for ever");
    }
    nina.click_in("dialog", "Sign in with Example").await;
    nina.sees("Sign-in").await;
    nina.run(
        "document.querySelector('[name=login]').value = 'nina'; document.querySelector('[name=password]').value = 'x'; document.querySelector('form').submit()",
    )
    .await;
    nina.sees("Database accounts").await;
    nina.click("Show").await;
    assert!(nina.part("#way-account").await.starts_with("jit_nina_"));

    // somebody whose groups give no role here
    let otto = browsers.open(&server, "otto", true).await;
    otto.go("/sign-in").await;
    otto.click("Sign in with Example").await;
    otto.sees("Sign-in").await;
    otto.run(
        "document.querySelector('[name=login]').value = 'otto'; document.querySelector('[name=password]').value = 'x'; document.querySelector('form').submit()",
    )
    .await;
    otto.sees("Authorize").await;
    otto.click("Continue").await;
    otto.sees("None of your groups gives you a role here.").await;

    // she leaves the group: the next sign-in ends what rested on it
    http(&house).get(format!("https://localhost:{}/leave/nina", providers.real)).send().await.unwrap();
    nina.click("Done").await;
    nina.click("Sign out").await;
    nina.sees("You are signed out of Daypass.").await;
    nina.click("Sign in with Example").await;
    nina.sees("There is no environment that you may see.").await;
    house.until_no_accounts().await;
    let log = house.json("vera", &["log", "ls"]).await.to_string();
    assert!(log.contains("group_roles_set") && !log.contains("provider-secret"));
    for browser in [nina, otto] {
        browser.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_lies_lets_nobody_in() {
    let (house, providers) = house("hostile").await;
    let http = http(&house);
    let (server, hostile) = (format!("https://localhost:{}", house.api.port()), format!("https://localhost:{}", providers.hostile));
    let location = |answer: &reqwest::Response| answer.headers()[header::LOCATION].to_str().unwrap().to_owned();
    let cookie = |answer: &reqwest::Response| answer.headers()[header::SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
    // begins at Daypass, passes by the provider; gives the way back and what the browser brings
    let come = async |wish: &str| {
        http.get(format!("{hostile}/wish/{wish}")).send().await.unwrap();
        let begun = http.get(format!("{server}/sign-in/with?to=/requests")).send().await.unwrap();
        assert_eq!(begun.status(), StatusCode::SEE_OTHER, "{wish}");
        assert!(location(&begun).contains("code_challenge_method=S256"), "{wish}");
        let passed = http.get(location(&begun)).send().await.unwrap();
        (location(&passed), cookie(&begun))
    };
    let back = async |way: &str, brings: Option<&str>| {
        let mut request = http.get(way);
        if let Some(cookie) = brings {
            request = request.header(header::COOKIE, cookie);
        }
        let answer = request.send().await.unwrap();
        let signed_in = answer.headers().get_all(header::SET_COOKIE).iter().any(|cookie| cookie.to_str().unwrap().starts_with("__Host-daypass=dpt_"));
        (answer.status(), signed_in, answer.headers().get(header::LOCATION).map(|to| to.to_str().unwrap().to_owned()))
    };
    let lies = [
        "state",
        "nonce",
        "stale",
        "no-nonce",
        "audience",
        "two-audiences",
        "authorized-party",
        "issuer",
        "expired",
        "unsigned",
        "public-key-as-secret",
        "signature",
        "token-hash",
        "mixed-up",
        "name",
        "no-group",
        "redirect",
        "flood",
    ];
    for lie in lies {
        let (way, cookie) = come(lie).await;
        let (status, signed_in, _) = back(&way, Some(&cookie)).await;
        assert!(status.is_client_error() && !signed_in, "{lie}: {status}");
    }
    // in another browser, or twice
    let (way, cookie) = come("good").await;
    assert_eq!(back(&way, None).await.0, StatusCode::FORBIDDEN, "another browser");
    assert_eq!(back(&way, Some(&cookie)).await.0, StatusCode::FORBIDDEN, "it is used up by the first try");
    let people = house.json("ada", &["people", "ls"]).await;
    assert!(people.as_array().unwrap().iter().all(|person| person["name"] != "nina"), "nobody was made");
    // and the truth
    let (way, cookie) = come("good").await;
    assert_eq!(back(&way, Some(&cookie)).await, (StatusCode::SEE_OTHER, true, Some("/requests".to_owned())));
    assert_eq!(back(&way, Some(&cookie)).await.0, StatusCode::FORBIDDEN, "once");
    // one that never says when people proved who they are: they are let in, but it is no recent proof
    let (way, cookie) = come("no-auth-time").await;
    let answer = http.get(&way).header(header::COOKIE, &cookie).send().await.unwrap();
    let signed_in = answer.headers().get_all(header::SET_COOKIE).iter().map(|cookie| cookie.to_str().unwrap().split(';').next().unwrap().to_owned());
    let signed_in = signed_in.into_iter().find(|cookie| cookie.starts_with("__Host-daypass=dpt_")).unwrap();
    let make = http.post(format!("{server}/account/tokens")).header(header::COOKIE, signed_in).header("sec-fetch-site", "same-origin");
    let page =
        make.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").body("label=a+script&life=1h").send().await.unwrap().text().await.unwrap();
    assert!(page.contains("Confirm that it is you") && page.contains("auth_time"), "{page}");
}
