//! Files of SQL Server, with Microsoft's program for them (here another in its place, before the stand-in).

use crate::house::House;
use daypass_testkit::sqlserver::{ADMIN, Options, StandIn};
use std::os::unix::fs::PermissionsExt;

/// With a copy of the program in a folder of its own, where it writes down what it was started with.
async fn house(alone: bool) -> House<StandIn> {
    let folder = std::env::temp_dir().join(format!("daypass-sqlpackage-{}-{alone}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let program = folder.join("sqlpackage");
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/sqlpackage"), &program).unwrap();
    House::sqlserver_with(Options::default(), &[], &format!("[movement]\nsqlpackage = {program:?}\nalone = {alone}\n")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_exported_into_a_file_and_comes_back_from_it() {
    let house = house(true).await;
    house.server.sql("uat", "DELETE FROM sales.orders WHERE id > 7").unwrap();
    let old = house.account("maria", "read", "1h").await;
    let done = house.json("sam", &["move", "uat", "export", "uat.bacpac"]).await;
    assert_eq!(done["status"], "Completed", "{done}\n{}", house.log());
    let file = house.path("data/files/uat.bacpac");
    assert_eq!(done["made"]["bytes"], std::fs::metadata(&file).unwrap().len());
    assert_eq!(done["made"]["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(house.tiberius(&old).await.is_ok(), "an export ends nobody's access");
    let done = house.json("sam", &["move", "uat", "import", "uat.bacpac"]).await;
    assert_eq!(done["status"], "Completed", "{done}\n{}", house.log());
    assert!(house.tiberius(&old).await.is_err(), "the old account is out");
    let fresh = house.account("maria", "read", "1h").await;
    assert_eq!(house.ask(&fresh, "SELECT count(*) FROM sales.orders WHERE customer = 'from the file'").await.as_deref(), Ok("7"));
    // what everybody on the machine could have read opens nothing any more, and was never the administrator's
    let arguments = std::fs::read_to_string(house.extra_config.split('"').nth(1).unwrap().to_owned() + ".arguments").unwrap();
    assert!(arguments.contains("daypass_in_") && !arguments.contains(ADMIN.1), "{arguments}");
    assert!(!house.server.accounts().iter().any(|name| name.contains("daypass_in_")), "{:?}", house.server.accounts());
    assert_eq!(house.json("sam", &["move", "uat", "undo"]).await["status"], "RollbackCompleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_none_and_a_program_that_fails_change_nothing() {
    let house = house(true).await;
    let files = house.path("data/files");
    std::fs::create_dir_all(&files).unwrap();
    std::fs::write(files.join("backup.bak"), "TAPE").unwrap();
    std::fs::write(files.join("damaged.bacpac"), b"PK\x03\x04 no rows").unwrap();
    for (file, words) in [("backup.bak", "is no BACPAC"), ("damaged.bacpac", "the package is damaged")] {
        let done = house.daypass("sam", &["--json", "move", "uat", "import", file]).await;
        let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(!done.status.success() && said.contains(words), "{said}");
        house.until_so("nothing is left of it", || house.server.accounts().is_empty() && house.server.databases() == ["golden", "master", "uat"]).await;
        let account = house.account("maria", "read", "1h").await;
        assert_eq!(house.ask(&account, "SELECT count(*) FROM sales.orders").await.as_deref(), Ok("400"));
        house.json("maria", &["end", &account.name]).await;
        house.until_so("she is out", || house.server.accounts().is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_others_could_read_its_password_the_program_is_not_started() {
    let house = house(false).await;
    let done = house.daypass("sam", &["--json", "move", "golden", "export", "golden.bacpac"]).await;
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    // whether this machine hides arguments is its own affair
    let hidden = std::fs::read_to_string("/proc/self/mounts").unwrap().lines().any(|line| line.starts_with("proc /proc ") && line.contains("hidepid="));
    assert_eq!(done.status.success(), hidden, "{said}");
    assert!(hidden || said.contains("hidepid=2") && said.contains("movement.alone"), "{said}");
    assert!(house.server.accounts().is_empty());
}
