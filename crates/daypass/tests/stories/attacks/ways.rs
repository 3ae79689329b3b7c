//! "I keep everybody so busy that nobody gets to end my access."

use crate::house::{House, PATIENCE};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn asking_who_was_in_two_hundred_times_at_once_delays_no_end() {
    let house = House::open().await;
    house.person("eve", "requester").await;
    let account = house.account("maria", "read", "1h").await;
    let (_client, connection) = house.client(&account).await.unwrap();
    let asking: Vec<_> = (0..60)
        .map(|_| {
            house
                .command("eve", &["--json", "passes", "--at", "2026-11-27T00:00:00Z"])
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    let began = Instant::now();
    house.json("sam", &["end", &account.name, "--reason", "enough"]).await;
    let ended = tokio::time::timeout(PATIENCE, connection).await.expect("it is cut").unwrap();
    assert!(ended.is_err());
    // the command itself shares two cores with sixty others; on a quiet machine the cut takes milliseconds
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    for mut one in asking {
        let _ = one.kill().await;
    }
    house.until_no_accounts().await;
}
