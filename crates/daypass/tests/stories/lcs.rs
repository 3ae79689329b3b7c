//! The Database Movement API of Lifecycle Services, as scripts call it.

use crate::house::House;
use reqwest::Method;
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

/// The shapes of the public cmdlets (d365fo.tools: Get-D365LcsEnvironmentMetadata, Get-D365LcsEnvironmentHistory, Invoke-D365LcsDatabaseRefresh;
/// d365bap.tools: Get-UdeDbJit), whose projects are numbers.
#[tokio::test(flavor = "multi_thread")]
async fn the_cmdlets_that_people_have_find_what_they_call() {
    let house = House::with("[limits]\nrequests = 100000\n", None).await;
    house.server.database("third").await.unwrap();
    house.json("ada", &["project", "add", "123456789"]).await;
    let (port, ca) = (house.server.port.to_string(), house.path("server-ca.pem").display().to_string());
    let add = ["env", "add", "third", "--project", "123456789", "--host", "localhost", "--port", &port, "--database", "third", "--ca", &ca, "--password-stdin"];
    let added = house.daypass_with("ada", &add, "admin-secret").await;
    assert!(added.status.success(), "{added:?}");
    let named = [&["env", "add", "4you"], &add[3..]].concat();
    let refused = house.daypass_with("ada", &named, "admin-secret").await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("starts with a letter"), "{refused:?}");
    let token = String::from_utf8(house.daypass("sam", &["token", "add", "pipeline", "--life", "1h"]).await.stdout).unwrap().trim().to_owned();
    let trusted = reqwest::Certificate::from_pem(&std::fs::read(house.path("data/ca.pem")).unwrap()).unwrap();
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([trusted]).build().unwrap();
    let base = format!("https://localhost:{}", house.api.port());
    let get = async |path: &str| {
        let answer = http.get(format!("{base}{path}")).bearer_auth(&token).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.json::<Value>().await.unwrap()
    };
    let all = get("/environmentinfo/v1/detail/project/123456789").await;
    let row = &all["Data"][0];
    assert_eq!(
        (&all["IsSuccess"], &all["ResultPageCurrent"], &all["ResultHasMorePages"], &row["EnvironmentName"], &row["ProjectId"], &row["DeploymentState"]),
        (&json!(true), &json!(1), &json!(false), &json!("third"), &json!(123_456_789), &json!("Finished")),
        "{all}"
    );
    let id = row["EnvironmentId"].as_str().unwrap();
    for path in [
        "/environmentinfo/v1/detail/project/123456789/?page=1".to_owned(),
        "//environmentinfo/v1/detail/project/123456789/".to_owned(),
        format!("/environmentinfo/v1/detail/project/123456789/?environmentId={id}"),
        "/environmentinfo/v1/detail/project/123456789/?environmentName=third".to_owned(),
    ] {
        assert_eq!(get(&path).await["Data"], all["Data"], "{path}");
    }
    let send = async |path: &str| http.post(format!("{base}{path}")).bearer_auth(&token).send().await.unwrap().json::<Value>().await.unwrap();
    let wrong = send("//databasemovement/v1/refresh/project/987654321/source/golden/target/third/").await;
    assert!(wrong["ErrorMessage"].as_str().unwrap().contains("There is no project '987654321'"), "{wrong}");
    let wrong = send("/databasemovement/v1/refresh/project/123456789/source/third/target/fourth").await;
    assert!(wrong["ErrorMessage"].as_str().unwrap().contains("There is no environment 'fourth'"), "{wrong}");
    let started = send(&format!("/databasemovement/v1/export/project/123456789/environment/{id}/backupName/night/")).await;
    assert_eq!(started["IsSuccess"], true, "{started}");
    house.until_json("sam", &["move", "third", "status"], |found| found[0]["status"] == "Completed").await;
    let history = get(&format!("/environmentinfo/v1/history/project/123456789/environment/{id}/?page=1")).await;
    let row = &history["Data"][0];
    assert_eq!((&row["Status"], &row["ActivityId"], &row["Type"]), (&json!("Completed"), &started["OperationActivityId"], &json!("export")), "{history}");
    assert!(row["StartDateTimeUtc"].is_string() && row["EndDateTimeUtc"].is_string(), "{history}");
    assert_eq!(http.get(format!("{base}//environments/")).bearer_auth(&token).send().await.unwrap().status(), 404, "nobody else's path is put right");
}

/// What each public cmdlet of d365fo.tools sends (its internal functions, version 2), and the property that it goes on with. `{p}` the project,
/// `{e}` the environment's id, `{s}` the source's, `{a}` the operation.
const CMDLETS: [(&str, Method, &str, &str); 9] = [
    ("Invoke-D365LcsDatabaseRefresh", Method::POST, "/databasemovement/v1/refresh/project/{p}/source/{s}/target/{e}", "/OperationActivityId"),
    (
        "Get-D365LcsDatabaseOperationStatus",
        Method::GET,
        "/databasemovement/v1/fetchstatus/project/{p}/environment/{e}/operationactivity/{a}",
        "/OperationStatus",
    ),
    ("Invoke-D365LcsDatabaseExport", Method::POST, "/databasemovement/v1/export/project/{p}/environment/{e}/backupName/BackupViaApi", "/OperationActivityId"),
    ("Get-D365LcsDatabaseBackups", Method::GET, "/databasemovement/v1/databases/project/{p}", "/DatabaseAssets/0/FileLocation"),
    ("Get-D365LcsEnvironmentMetadata", Method::GET, "/environmentinfo/v1/detail/project/{p}", "/Data/0/EnvironmentId"),
    ("Get-D365LcsEnvironmentMetadata -EnvironmentId", Method::GET, "/environmentinfo/v1/detail/project/{p}/?environmentId={e}", "/Data/0/EnvironmentName"),
    ("Get-D365LcsEnvironmentMetadata -EnvironmentName", Method::GET, "/environmentinfo/v1/detail/project/{p}/?environmentName=third", "/Data/0/EnvironmentId"),
    ("Get-D365LcsEnvironmentMetadata -TraverseAllPages", Method::GET, "/environmentinfo/v1/detail/project/{p}/?page=2", "/ResultHasMorePages"),
    ("Get-D365LcsEnvironmentHistory", Method::GET, "/environmentinfo/v1/history/project/{p}/environment/{e}", "/Data/0/ActivityId"),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_public_cmdlet_is_given_what_it_goes_on_with() {
    let house = House::with("[limits]\nrequests = 100000\n", None).await;
    house.json("ada", &["project", "add", "123456789"]).await;
    let (port, ca) = (house.server.port.to_string(), house.path("server-ca.pem").display().to_string());
    for name in ["third", "fourth"] {
        house.server.database(name).await.unwrap();
        let add = ["env", "add", name, "--project", "123456789", "--host", "localhost", "--port", &port, "--database", name, "--ca", &ca, "--password-stdin"];
        let added = house.daypass_with("ada", &add, "admin-secret").await;
        assert!(added.status.success(), "{added:?}");
    }
    let token = String::from_utf8(house.daypass("sam", &["token", "add", "pipeline", "--life", "1h"]).await.stdout).unwrap().trim().to_owned();
    let trusted = reqwest::Certificate::from_pem(&std::fs::read(house.path("data/ca.pem")).unwrap()).unwrap();
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([trusted]).build().unwrap();
    // Invoke-RestMethod: a base with and without a slash at its end, no body, a POST of nothing as a form
    let send = async |method: &Method, path: &str| {
        let mut asked = http.request(method.clone(), format!("https://localhost:{}{path}", house.api.port())).bearer_auth(&token);
        if method == Method::POST {
            asked = asked.header("content-type", "application/x-www-form-urlencoded").header("content-length", "0");
        }
        let answer = asked.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.json::<Value>().await.unwrap()
    };
    let ids = send(&Method::GET, "/environmentinfo/v1/detail/project/123456789").await;
    let id = |name: &str| {
        let rows = ids["Data"].as_array().unwrap();
        rows.iter().find(|row| row["EnvironmentName"] == name).unwrap()["EnvironmentId"].as_str().unwrap().to_owned()
    };
    let (third, fourth) = (id("third"), id("fourth"));
    let mut activity = String::new();
    for (cmdlet, method, path, goes_on_with) in &CMDLETS {
        let path = path.replace("{p}", "123456789").replace("{e}", &third).replace("{s}", &fourth).replace("{a}", &activity);
        for base in ["", "/"] {
            let answer = send(method, &format!("{base}{path}")).await;
            if base == "/" && method == Method::POST {
                assert_eq!(answer["IsSuccess"], false, "{cmdlet}: it is under way or its file is there, and was understood: {answer}");
                continue;
            }
            assert_eq!(answer["IsSuccess"], true, "{cmdlet}: {answer}");
            assert_eq!(answer["ErrorMessage"], Value::Null, "{cmdlet}: {answer}");
            let found = answer.pointer(goes_on_with).unwrap_or_else(|| panic!("{cmdlet} reads {goes_on_with}: {answer}"));
            assert!(!found.is_null() && found != "", "{cmdlet} reads {goes_on_with}: {answer}");
            if method == Method::POST {
                activity = found.as_str().unwrap().to_owned();
            }
        }
        if method == Method::POST {
            house.until_json("sam", &["move", "third", "status"], |found| found[0]["id"] == activity.as_str() && found[0]["status"] == "Completed").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_asks_again_and_again_gets_in_each_time() {
    let house = House::with("[limits]\nrequests = 100000\n", None).await;
    let token = String::from_utf8(house.daypass("maria", &["token", "add", "a script", "--life", "1h"]).await.stdout).unwrap().trim().to_owned();
    let trusted = reqwest::Certificate::from_pem(&std::fs::read(house.path("data/ca.pem")).unwrap()).unwrap();
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([trusted]).build().unwrap();
    // its base ends in a slash, and its path begins with one; its address is the one that a service of the internet has told it
    let address = format!("https://localhost:{}//api/data/v9.2/msprov_getfinopssqljitaccessasync", house.api.port());
    let body = json!({"sqljitclientipaddress": "85.168.174.10", "sqljitreason": "Administrative access via d365bap.tools", "sqljitrole": "Reader"});
    let mut account = None;
    for call in 0..7 {
        let answer = http.post(&address).bearer_auth(&token).header("x-daypass-environment", "uat").json(&body).send().await.unwrap();
        let (status, answer) = (answer.status(), answer.json::<Value>().await.unwrap());
        assert_eq!(status, 200, "call {call}: {answer}");
        let text = |key: &str| answer[key].as_str().unwrap().to_owned();
        account = Some(crate::house::Account { name: text("sqljitusername"), password: text("sqljitpassword"), ends_at: String::new() });
    }
    let account = account.unwrap();
    // it comes to the gateway from another address than the internet sees
    assert_eq!(house.psql(&account, "SELECT count(*) FROM sales.orders").await.1, "400\n");
    house.until_json("maria", &["passes"], |passes| passes.as_array().unwrap().len() == 1).await;
    let entries = house.json("maria", &["allowed", "uat"]).await;
    assert_eq!(entries.as_array().unwrap().len(), 1, "{entries}");
}
