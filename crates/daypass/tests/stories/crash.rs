//! kill -9 at any moment: after the next start nothing is orphaned, and nobody is in who should be out.

use crate::house::House;
use std::time::Duration;

const CYCLES: u32 = 100;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_crashes_orphan_nothing() {
    let mut house = House::open().await;
    house.json("maria", &["allow", "uat"]).await;
    let mut seed = 0x2545_f491_u32;
    for cycle in 0..CYCLES {
        // a request and an end are on their way when the power goes, each time at another moment
        let mut ask = house.command("maria", &["request", "uat", "--life", "1h", "--reason", "crash", "--no-wait"]);
        let mut end = house.command("ben", &["request", "uat", "--life", "1s", "--reason", "crash", "--no-wait"]);
        let (mut ask, mut end) = (
            ask.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap(),
            end.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap(),
        );
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let moment = Duration::from_millis(u64::from(seed >> 16) % 250);
        // the moment of the crash is what varies: nothing is awaited here
        let _ = tokio::time::timeout(moment, async { (ask.wait().await, end.wait().await) }).await;
        house.crash().await;
        let _ = (ask.kill().await, end.kill().await);
        house.start().await;
        if cycle % 10 == 9 {
            for pass in house.json("maria", &["passes"]).await.as_array().unwrap() {
                let _ = house.daypass("maria", &["end", pass["account"].as_str().unwrap()]).await;
            }
        }
    }
    // quiet: the accounts on the server are the ready passes, no more and no less
    let deadline = std::time::Instant::now() + crate::house::PATIENCE;
    loop {
        let passes = house.json("sam", &["passes"]).await;
        let settled = passes.as_array().unwrap().iter().all(|pass| pass["state"] == "ready");
        let mut wanted: Vec<String> = passes.as_array().unwrap().iter().map(|pass| pass["account"].as_str().unwrap().to_owned()).collect();
        wanted.sort();
        if settled && wanted == house.accounts().await {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{passes:#}\n{:?}", house.accounts().await);
    }
    let export = house.daypass("vera", &["log", "export"]).await;
    assert!(house.daypass_with("vera", &["log", "verify", "-"], &String::from_utf8(export.stdout).unwrap()).await.status.success());
    for pass in house.json("sam", &["passes"]).await.as_array().unwrap() {
        house.json("sam", &["end", pass["account"].as_str().unwrap(), "--reason", "done"]).await;
    }
    house.until_no_accounts().await;
}
