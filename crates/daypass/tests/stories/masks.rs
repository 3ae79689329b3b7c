//! What is masked, as whoever declares it, moves the database, and has to prove it, meets it.

use crate::house::House;
use serde_json::Value;

const MASKS: &str = "[sales.people]\nmail = \"mail\"\nborn = { shift_days = 20 }\nname = \"keep\"\n";

async fn house() -> House {
    let house = House::open().await;
    house.server.sql("postgres", "GRANT uat_owner TO daypass_admin WITH ADMIN OPTION").await.unwrap();
    let people = "SET ROLE golden_owner; CREATE TABLE sales.people (id int PRIMARY KEY, mail text, born date, name text, memo text); \
                  INSERT INTO sales.people SELECT n, 'p' || n || '@corp.example.com', DATE '1980-01-01' + n, 'Person ' || n, 'x' FROM generate_series(1, 300) n";
    house.server.sql("golden", people).await.unwrap();
    std::fs::write(house.path("masks.toml"), MASKS).unwrap();
    house
}

fn lines(found: &Value) -> String {
    found["swept"].as_array().into_iter().flatten().map(|line| format!("{}: {}\n", line["what"].as_str().unwrap(), line["done"].as_str().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn i_declare_what_is_masked_and_an_auditor_sees_that_it_was() {
    let house = house().await;
    let file = house.path("masks.toml").display().to_string();
    // before anything is declared the dry run says what looks personal
    let ahead = house.daypass("sam", &["move", "uat", "refresh", "--from", "golden", "--dry-run"]).await;
    let said = String::from_utf8_lossy(&ahead.stdout).into_owned();
    assert!(said.contains("sales.people.mail (mail address)") && said.contains("env masks uat --file masks.toml"), "{said}");
    let said = house.said("ada", &["env", "masks", "uat", "--file", &file]).await;
    assert!(said.contains("Movements of uat mask 3 columns from now on"), "{said}");
    // as it is shown it can be read again
    let shown = house.said("ada", &["env", "masks", "uat"]).await;
    assert!(shown.contains("[sales.people]\nborn = { shift_days = 20 }\nmail = \"mail\"\nname = \"keep\"\n"), "{shown}");
    std::fs::write(house.path("shown.toml"), &shown).unwrap();
    house.said("ada", &["env", "masks", "uat", "--file", &house.path("shown.toml").display().to_string()]).await;
    assert_eq!(house.said("ada", &["env", "masks", "uat"]).await, shown);
    // the one who moves it does not declare it
    assert!(!house.daypass("sam", &["env", "masks", "uat", "--file", &file]).await.status.success());
    let done = house.json("sam", &["move", "uat", "refresh", "--from", "golden"]).await;
    assert_eq!(done["status"], "Completed", "{done}");
    let report = lines(&done);
    assert!(
        report.contains("mask mail of sales.people.mail: 300 of 300 rows differ from the source, and no row has a value that stood in this column there"),
        "{report}"
    );
    assert!(report.contains("mask shift_days 20 of sales.people.born: 300 of 300 rows differ"), "{report}");
    assert_eq!(house.server.sql("uat", "SELECT count(*) FROM sales.people WHERE mail LIKE '%@masked.invalid' AND name LIKE 'Person %'").await.unwrap(), "300");
    assert_eq!(
        house.server.sql("golden", "SELECT count(*) FROM sales.people WHERE mail LIKE '%corp.example.com'").await.unwrap(),
        "300",
        "the source is as it was"
    );
    // the auditor, who moves nothing
    let proof = house.said("vera", &["move", "uat", "show", "--report"]).await;
    for said in [
        "refresh from golden",
        "mask mail of sales.people.mail: 300 of 300 rows differ",
        "ended at",
        "planned to move the database of uat",
        "daypass log verify",
    ] {
        assert!(proof.contains(said), "{said}:\n{proof}");
    }
    assert!(!proof.contains("corp.example.com"), "{proof}");
    assert!(!house.daypass("maria", &["move", "uat", "show", "--report"]).await.status.success());
    let log = house.said("vera", &["log", "find", "--env", "uat", "--kind", "settings"]).await;
    assert!(log.contains("set what movements mask in uat: sales.people.born = shift_days 20, sales.people.mail = mail"), "{log}");
    // it is part of what is exported, and what is applied
    let text = house.said("ada", &["export"]).await;
    assert!(text.contains("shift_days: 20"), "{text}");
    std::fs::write(house.path("all.yaml"), text.replace("shift_days: 20", "shift_days: 7")).unwrap();
    let all = house.path("all.yaml").display().to_string();
    let said = house.said("ada", &["apply", "-f", &all, "--yes"]).await;
    assert!(said.contains("~ movements of uat mask 3 columns"), "{said}");
    assert!(house.said("ada", &["env", "masks", "uat"]).await.contains("shift_days = 7"));
    // what is no mask changes nothing
    std::fs::write(house.path("masks.toml"), "[sales.people]\nborn = { shift_days = 0 }\n").unwrap();
    let wrong = house.daypass("ada", &["env", "masks", "uat", "--file", &file]).await;
    assert!(!wrong.status.success() && String::from_utf8_lossy(&wrong.stderr).contains("sales.people.born: shift_days is 1 to 3,650"), "{wrong:?}");
    assert!(house.said("ada", &["env", "masks", "uat"]).await.contains("shift_days = 7"));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_masking_is_required_nothing_opens_that_nobody_looked_at() {
    let house = house().await;
    let refresh = ["move", "uat", "refresh", "--from", "golden"];
    house.policy("uat", |policy| policy["masking"] = "required".into()).await;
    // it is seen before anything is done, and nobody is put out
    let hers = house.account("maria", "read", "1h").await;
    let refused = house.daypass("sam", &refresh).await;
    assert!(!refused.status.success());
    let found = house.json("sam", &["move", "uat", "status"]).await[0].clone();
    let state = found["state"].as_str().unwrap();
    assert!(found["status"] == "Failed" && state.contains("look personal and are not declared") && state.contains("in place, and open"), "{found}");
    assert_eq!(house.psql(&hers, "SELECT count(*) FROM sales.orders").await, (true, "400\n".to_owned()));
    // declared, it opens
    let file = house.path("masks.toml").display().to_string();
    house.said("ada", &["env", "masks", "uat", "--file", &file]).await;
    assert_eq!(house.json("sam", &refresh).await["status"], "Completed");
    // or with a check that looks
    std::fs::write(house.path("none.toml"), "").unwrap();
    let none = house.path("none.toml").display().to_string();
    house.said("ada", &["env", "masks", "uat", "--file", &none]).await;
    assert!(!house.daypass("sam", &refresh).await.status.success());
    let checks = house.path("data/scripts/uat/checks");
    std::fs::create_dir_all(&checks).unwrap();
    std::fs::write(checks.join("nobody.sql"), "SELECT mail FROM sales.people WHERE mail LIKE '%@elsewhere%';\n").unwrap();
    assert_eq!(house.json("sam", &refresh).await["status"], "Completed");
    // what another tool put in place is masked as well, and what cannot be masked stays closed and as it was
    house.said("ada", &["env", "masks", "uat", "--file", &file]).await;
    house.said("sam", &["move", "uat", "external", "begin"]).await;
    house.server.sql("uat", "ALTER TABLE sales.people RENAME COLUMN born TO birth").await.unwrap();
    let closed = house.daypass("sam", &["move", "uat", "external", "finish"]).await;
    assert!(!closed.status.success() && String::from_utf8_lossy(&closed.stderr).contains("sales.people.born: there is no such column"), "{closed:?}");
    assert_eq!(house.server.sql("uat", "SELECT count(*) FROM sales.people WHERE mail LIKE '%corp.example.com'").await.unwrap(), "300");
    house.server.sql("uat", "ALTER TABLE sales.people RENAME COLUMN birth TO born").await.unwrap();
    house.said("sam", &["move", "uat", "external", "finish"]).await;
    assert_eq!(house.server.sql("uat", "SELECT count(*) FROM sales.people WHERE mail LIKE '%@masked.invalid'").await.unwrap(), "300");
}
