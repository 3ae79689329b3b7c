//! Notices: a mail server that is real, and a place that webhooks are written to.

use crate::house::{House, PATIENCE};
use axum::{Router, body::Bytes, extract::State, http::HeaderMap, http::StatusCode, routing::post};
use daypass_testkit::postgres::free_port;
use serde_json::Value;
use std::{
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};
use tokio::process::Command;

/// What a webhook was sent.
type Received = Arc<Mutex<Vec<(String, Value)>>>;

/// A place that refuses the first call and keeps what it is sent; at `/moved`, one that leads elsewhere. Counts who came there, and who went on.
async fn hook(received: Received, moved: Arc<[AtomicUsize; 2]>) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let first = Arc::new(Mutex::new(true));
    let take = move |State(received): State<Received>, headers: HeaderMap, body: Bytes| async move {
        if std::mem::take(&mut *first.lock().unwrap()) {
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        let signature = headers.get("x-daypass-signature").map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        // checked as a receiver would check it
        let (time, tag) = signature.strip_prefix("t=").and_then(|rest| rest.split_once(",v1=")).expect("a signature");
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"a key of the story");
        let tag: Vec<u8> = (0..tag.len()).step_by(2).map(|at| u8::from_str_radix(&tag[at..at + 2], 16).unwrap()).collect();
        let signed = [time.as_bytes(), b".", &body].concat();
        aws_lc_rs::hmac::verify(&key, &signed, &tag).expect("the signature holds");
        received.lock().unwrap().push((signature, serde_json::from_slice(&body).unwrap()));
        StatusCode::NO_CONTENT
    };
    let came = moved.clone();
    let lead = move || async move {
        came[0].fetch_add(1, Relaxed);
        axum::response::Redirect::temporary("/followed")
    };
    let follow = move || async move {
        moved[1].fetch_add(1, Relaxed);
    };
    let router = Router::new().route("/hook", post(take)).route("/moved", post(lead)).route("/followed", post(follow.clone()).get(follow));
    tokio::spawn(async move { axum::serve(listener, router.with_state(received)).await });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_told_by_mail_and_a_chat_by_a_signed_call() {
    let mut house = House::bare("", None).await;
    let tools = crate::clients::tools().await;
    let (mail_port, received) = (free_port().unwrap(), Received::default());
    let moved = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let hook_port = hook(received.clone(), moved.clone()).await;
    let mails = house.path("mails");
    let mut server = Command::new(tools.join("bin/python"));
    server.args(["-u", "-m", "aiosmtpd", "-n", "-c", "aiosmtpd.handlers.Debugging", "stdout", "-l"]).arg(format!("127.0.0.1:{mail_port}"));
    let _server = server.stdin(Stdio::null()).stdout(std::fs::File::create(&mails).unwrap()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while tokio::net::TcpStream::connect(("127.0.0.1", mail_port)).await.is_err() {
        assert!(Instant::now() < deadline, "the mail server does not answer");
        tokio::task::yield_now().await;
    }
    std::fs::write(house.path("hook-url"), format!("http://127.0.0.1:{hook_port}/hook\n")).unwrap();
    std::fs::write(house.path("moved-url"), format!("http://127.0.0.1:{hook_port}/moved\n")).unwrap();
    std::fs::write(house.path("hook-key"), "a key of the story\n").unwrap();
    house.extra_config = format!(
        "[console]\nurl = \"https://daypass.example.com\"\n[mail]\nhost = \"127.0.0.1\"\nport = {mail_port}\ntls = \"off\"\nfrom = \"Daypass <daypass@example.com>\"\n\
         [[webhook]]\nname = \"dba\"\nkind = \"generic\"\nurl_file = {:?}\nsecret_file = {:?}\nallow_private = true\nevents = [\"request_waits\", \"break_glass\", \"ended\"]\n\
         [[webhook]]\nname = \"moved\"\nkind = \"slack\"\nurl_file = {:?}\nallow_private = true\nevents = [\"denied\"]\n",
        house.path("hook-url"),
        house.path("hook-key"),
        house.path("moved-url"),
    );
    house.start().await;
    house.settle().await;
    house.person("amy", "approver").await;
    house.json("amy", &["mail", "amy@example.com"]).await;
    house.json("maria", &["mail", "maria@example.com"]).await;
    assert_eq!(house.refused("maria", &["mail", "maria@example.com\nBcc: everyone@example.com"]).await.0, 3);
    house.policy("uat", |policy| policy["approval"] = serde_json::json!({"read": "one"})).await;
    house.json("maria", &["request", "uat", "--no-wait", "--reason", "<b>OPS-17</b>: totals look wrong"]).await;
    let read = || std::fs::read_to_string(&mails).unwrap_or_default();
    house.until_so("amy is told that a request waits", || read().contains("To: amy@example.com")).await;
    house.until_so("the chat is told, at the second try", || received.lock().unwrap().iter().any(|(_, said)| said["kind"] == "request_waits")).await;
    let said = received.lock().unwrap()[0].1.clone();
    assert_eq!((said["environment"].as_str(), said["people"][0].as_str()), (Some("uat"), Some("amy")), "{said}");
    let link = said["link"].as_str().unwrap().to_owned();
    assert!(link.starts_with("https://daypass.example.com/requests/") && read().contains("Subject: maria asks for access to uat"), "{}", read());

    let waiting = house.json("amy", &["requests"]).await[0]["account"].as_str().unwrap().to_owned();
    house.json("amy", &["approve", &waiting, "--word", "go on"]).await;
    house.until_so("maria is told", || read().contains("Your request was approved: uat") && read().contains("Your access is ready: uat")).await;
    house.json("sam", &["end", &waiting, "--reason", "enough"]).await;
    house.until_so("maria is told why it ended", || read().contains("Your access was ended: uat")).await;
    house.until_so("so is the chat", || received.lock().unwrap().iter().any(|(_, said)| said["kind"] == "ended")).await;
    assert!(!received.lock().unwrap().iter().any(|(_, said)| said["kind"] == "approved"), "only what was asked for");
    // a no is told as well; and where a chat leads elsewhere, nobody goes
    house.json("maria", &["request", "uat", "--no-wait", "--reason", "one more look"]).await;
    let waiting = house.json("amy", &["requests"]).await[0]["account"].as_str().unwrap().to_owned();
    house.json("amy", &["deny", &waiting, "--reason", "not today"]).await;
    house.until_so("maria is told why not", || read().contains("not today")).await;
    house
        .until_so("the chat was called, and what it said is on record", || {
            moved[0].load(Relaxed) == 1 && house.log().contains("Slack 'moved': it answered 307")
        })
        .await;
    assert_eq!(moved[1].load(Relaxed), 0, "nobody follows");
    // a restart tells nothing twice
    let before = read().matches("Subject:").count();
    house.until_so("how far is kept", || house.path("data/told").exists()).await;
    house.crash().await;
    house.start().await;
    house.json("maria", &["request", "uat", "--no-wait", "--reason", "once more"]).await;
    house.until_so("the new request is told", || read().matches("Subject: maria asks").count() == 3).await;
    assert_eq!(read().matches("Subject:").count(), before + 1, "{}", read());
    assert!(!house.log().contains("/hook") && !house.log().contains("a key of the story"));
}
