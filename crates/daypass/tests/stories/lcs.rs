//! The Database Movement API of Lifecycle Services, as scripts call it.

use crate::house::House;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_script_of_lifecycle_services_refreshes_exports_and_polls() {
    // this script polls as fast as it can
    let house = House::with("[limits]\nrequests = 100000\n", None).await;
    house.server.sql("golden", "DELETE FROM sales.orders WHERE id > 7").await.unwrap();
    let token = String::from_utf8(house.daypass("sam", &["token", "add", "pipeline", "--life", "1h"]).await.stdout).unwrap().trim().to_owned();
    let ca = reqwest::Certificate::from_pem(&std::fs::read(house.path("data/ca.pem")).unwrap()).unwrap();
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([ca]).build().unwrap();
    let base = format!("https://localhost:{}/databasemovement/v1", house.api.port());
    let send = async |request: reqwest::RequestBuilder| {
        // what its scripts send
        let answer = request.bearer_auth(&token).header("x-ms-version", "2017-09-15").send().await.unwrap();
        assert_eq!(answer.status(), 200, "whoever is signed in gets 200");
        answer.json::<Value>().await.unwrap()
    };
    let unknown = http.post(format!("{base}/refresh/project/main/source/golden/target/uat")).send().await.unwrap();
    assert_eq!(unknown.status(), 401);

    let started = send(http.post(format!("{base}/refresh/project/main/source/golden/target/uat"))).await;
    assert_eq!(
        (started["IsSuccess"].clone(), started["ErrorMessage"].clone(), started["VersionEOL"].clone()),
        (json!(true), Value::Null, json!("9999-12-31T23:59:59.9999999"))
    );
    let activity = started["OperationActivityId"].as_str().unwrap().to_owned();
    let deadline = std::time::Instant::now() + crate::house::PATIENCE;
    let done = loop {
        let status = send(http.get(format!("{base}/fetchstatus/project/main/environment/uat/operationactivity/{activity}"))).await;
        match status["OperationStatus"].as_str().unwrap() {
            "NotStarted" | "InProgress" => assert!(std::time::Instant::now() < deadline, "{status}"),
            _ => break status,
        }
    };
    assert_eq!((done["IsSuccess"].clone(), done["OperationStatus"].clone(), done["ActivityId"].clone()), (json!(true), json!("Completed"), json!(activity)));
    assert!(done["CompletionDate"].is_string());
    assert_eq!(house.server.sql("uat", "SELECT count(*) FROM sales.orders").await.unwrap(), "7");

    let exported = send(http.post(format!("{base}/export/project/main/environment/uat/backupName/night"))).await;
    assert_eq!(exported["IsSuccess"], true, "{exported}");
    house.until_json("sam", &["files"], |files| files[0]["name"] == "night").await;
    house.until_json("sam", &["move", "uat", "status"], |found| found[0]["status"] == "Completed").await;
    let databases = send(http.get(format!("{base}/databases/project/main"))).await;
    let asset = &databases["DatabaseAssets"][0];
    assert_eq!((databases["IsSuccess"].clone(), asset["FileName"].clone()), (json!(true), json!("night")));
    let place = asset["FileLocation"].as_str().unwrap();
    let dump = http.get(place).bearer_auth(&token).send().await.unwrap().bytes().await.unwrap();
    assert!(dump.starts_with(b"PGDMP"));
    assert_eq!(http.get(place).send().await.unwrap().status(), 401);

    // what is refused is said, with status 200
    let again = send(http.post(format!("{base}/export/project/main/environment/uat/backupName/night"))).await;
    assert_eq!((again["IsSuccess"].clone(), again["OperationActivityId"].clone()), (json!(false), json!("00000000-0000-0000-0000-000000000000")));
    house.policy("uat", |policy| policy["movements_per_day"] = 2.into()).await;
    let throttled = send(http.post(format!("{base}/refresh/project/main/source/golden/target/uat"))).await;
    assert!(throttled["ErrorMessage"].as_str().unwrap().starts_with("Maximum allowed API operations are 2 from "), "{throttled}");
    let nowhere = send(http.get(format!("{base}/fetchstatus/project/other/environment/uat/operationactivity/{activity}"))).await;
    assert_eq!((nowhere["IsSuccess"].clone(), nowhere["OperationStatus"].clone()), (json!(false), Value::Null));
}
