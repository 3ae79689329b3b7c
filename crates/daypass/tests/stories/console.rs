//! The console in a real Chromium: what people see, click and type.

use crate::{
    browser::{Browser, Browsers},
    house::{Account, House},
};

const PASSWORD: &str = "a-long-password";

async fn visitor<S>(house: &House<S>, browsers: &Browsers, who: &str) -> Browser {
    let browser = browsers.open(&format!("https://localhost:{}", house.api.port()), who, true).await;
    browser.sign_in(PASSWORD).await;
    browser
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requester_an_approver_and_a_manager_do_the_whole_story_by_clicking() {
    let (house, browsers) = (House::open().await, Browsers::start().await);
    house.person("amy", "approver").await;
    house.policy("uat", |policy| policy["approval"] = serde_json::json!({"read_write": "one"})).await;

    let maria = visitor(&house, &browsers, "maria").await;
    maria.click("uat").await;
    maria.sees("Database accounts").await;
    maria.click("Maintain").await;
    maria.click("Enable access").await;
    assert_eq!(maria.value("Address").await, "127.0.0.1", "the address is there already, as the gateway sees it");
    maria.click_in("dialog", "Enable access").await;
    maria.sees("The address is allowed.").await;

    maria.choose("Access", "Read and write (somebody approves it first)").await;
    maria.fill("Details", "OPS-17: totals look wrong").await;
    maria.click("Request access").await;
    maria.sees("waits for approval").await;

    let amy = visitor(&house, &browsers, "amy").await;
    amy.click("Requests 1 waiting for you").await;
    amy.click("Look at it").await;
    amy.sees("OPS-17: totals look wrong").await;
    amy.fill("A word", "be quick").await;
    amy.click("Approve").await;
    amy.sees("Approved.").await;

    // the account appears by itself
    maria.sees("ready").await;
    maria.click("Show").await;
    let account = Account { name: maria.part("#way-account").await, password: maria.part("#way-password").await, ends_at: String::new() };
    let (ok, said) = house.psql(&account, "SELECT 41 + 1").await;
    assert!(ok && said.contains("42"), "{said}");
    maria.click("Done").await;

    // the manager sees who is in, and ends it
    let mut busy = house.psql_command(&account, "uat", "", "SELECT pg_sleep(60)").spawn().unwrap();
    let sam = visitor(&house, &browsers, "sam").await;
    sam.click("uat").await;
    sam.sees("psql").await;
    sam.click("Revoke").await;
    sam.fill("Why", "that is enough").await;
    sam.click("Revoke it now").await;
    sam.sees("The access has ended.").await;
    assert!(!busy.wait().await.unwrap().success(), "the session was cut");
    maria.sees("There is no account").await;
    sam.sees("revoked jit_maria").await;
    for browser in [maria, amy, sam] {
        browser.close().await;
    }
}

/// Two people with things to look at: accounts, addresses, a session with statements, a request that waits, a movement that is over.
async fn furnished(house: &House) -> (Account, tokio_postgres::Client) {
    house.person("amy", "approver").await;
    house.policy("golden", |policy| policy["approval"] = serde_json::json!({"read": "one", "read_write": "two"})).await;
    let account = house.account("maria", "read", "8h").await;
    let (client, _) = house.client(&account).await.unwrap();
    client.batch_execute("SELECT count(*) FROM sales.orders").await.unwrap();
    assert!(client.batch_execute("SELECT nonsense").await.is_err());
    house.json("ben", &["allow", "uat", "10.1.2.0/24", "--note", "the office in Graz"]).await;
    house.json("ben", &["request", "uat", "--access", "read_write", "--life", "2h", "--reason", "CHG-4: mend totals after the upgrade"]).await;
    house.json("ben", &["request", "golden", "--no-wait", "--reason", "OPS-18: compare with production"]).await;
    house.json("sam", &["move", "golden", "external", "begin", "--reason", "refresh from production"]).await;
    house.json("sam", &["move", "golden", "external", "finish"]).await;
    house.json("ben", &["request", "golden", "--no-wait", "--reason", "OPS-18: compare with production"]).await;
    (account, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_for_everybody_in_light_and_dark_wide_and_narrow() {
    let (house, browsers) = (House::open().await, Browsers::start().await);
    let (_account, _client) = furnished(&house).await;
    let axe = std::fs::read_to_string(crate::clients::tools().await.join("node_modules/axe-core/axe.min.js")).unwrap();
    let pictures = std::env::var_os("DAYPASS_SCREENSHOTS").map(std::path::PathBuf::from);
    let session = house.json("maria", &["sessions", "ls"]).await[0]["id"].as_str().unwrap().to_owned();
    let waiting = house.json("ben", &["requests"]).await[0]["id"].as_str().unwrap().to_owned();
    let (session, request) = (format!("/sessions/{session}"), format!("/requests/{waiting}"));
    let nobody = browsers.open(&format!("https://localhost:{}", house.api.port()), "nobody", true).await;
    let [maria, amy, sam, ada] = [
        visitor(&house, &browsers, "maria").await,
        visitor(&house, &browsers, "amy").await,
        visitor(&house, &browsers, "sam").await,
        visitor(&house, &browsers, "ada").await,
    ];
    let mine = house.json("maria", &["passes", "--env", "uat"]).await[0]["id"].as_str().unwrap().to_owned();
    let (extend, end, revoke) = (format!("/passes/{mine}/extend"), format!("/passes/{mine}/end"), format!("/passes/{mine}/end"));
    // a managed environment, and something that others made
    house.server.sql("postgres", "CREATE ROLE backdoor LOGIN PASSWORD 'canary-secret'; GRANT CONNECT ON DATABASE uat TO backdoor").await.unwrap();
    assert!(house.daypass("ada", &["env", "kind", "uat", "managed"]).await.status.success());
    assert!(house.daypass("ada", &["env", "remote-desktop", "uat", "on"]).await.status.success());
    for add in [&["standing", "add", "uat", "backdoor", "--note", "db_owner"][..], &["machine", "add", "uat", "aos-1.example.com", "--user", "Administrator"]] {
        assert!(house.daypass_with("ada", &[add, &["--password-stdin"]].concat(), "canary-secret").await.status.success());
    }
    let standing = house.json("ada", &["standing", "ls", "uat"]).await[0]["id"].as_str().unwrap().to_owned();
    let reveal = format!("/environments/uat/standing/{standing}/reveal");
    let machine = house.json("ada", &["machine", "ls", "uat"]).await[0]["id"].as_str().unwrap().to_owned();
    let machine = format!("/environments/uat/machines/{machine}/reveal");
    let pages: [(&Browser, &str, &str); 47] = [
        (&sam, "machine-show", &machine),
        (&ada, "new-password", "/people/maria/password"),
        (&sam, "move-begin", "/environments/uat/move/begin"),
        (&ada, "standing-add", "/environments/uat/standing/add"),
        (&sam, "standing-show", &reveal),
        (&ada, "machine-add", "/environments/uat/machines/add"),
        (&maria, "standing-use", "/environments/uat/request?standing=backdoor"),
        (&nobody, "sign-in", "/sign-in"),
        (&maria, "environments", "/environments"),
        (&maria, "environment-requester", "/environments/uat"),
        (&maria, "enable-access", "/environments/uat/enable"),
        (&maria, "request-access", "/environments/uat/request"),
        (&maria, "requests-mine", "/requests"),
        (&maria, "account", "/account"),
        (&maria, "second-factor", "/account/second-factor"),
        (&maria, "change-password", "/account/password"),
        (&maria, "session", &session),
        (&maria, "extend", &extend),
        (&maria, "give-back", &end),
        (&maria, "mail", "/account/mail"),
        (&maria, "command-line", "/device"),
        (&sam, "revoke", &revoke),
        (&sam, "who-was-in", "/report?at=2026-11-25T00:00"),
        (&ada, "add-project", "/projects/add"),
        (&maria, "not-there", "/environments/nowhere"),
        (&amy, "requests-waiting", "/requests"),
        (&amy, "request", &request),
        (&sam, "environment-manager", "/environments/uat"),
        (&sam, "move-database", "/environments/uat/move"),
        (&sam, "sessions", "/sessions"),
        (&sam, "report", "/report?environment=uat"),
        (&ada, "log", "/log"),
        (&ada, "administration", "/administration"),
        (&ada, "people", "/people"),
        (&ada, "person", "/people/maria"),
        (&ada, "add-person", "/people/add"),
        (&ada, "lock-person", "/people/maria/lock"),
        (&ada, "give-role", "/people/maria/roles"),
        (&ada, "add-environment", "/environments/add"),
        (&ada, "remove-environment", "/environments/uat/remove"),
        (&ada, "policy", "/environments/uat/policy"),
        (&ada, "change-policy", "/environments/uat/policy/set"),
        (&ada, "masks", "/environments/uat/masks"),
        (&ada, "project-policy", "/projects/main/policy"),
        (&ada, "recipe", "/environments/uat/recipe"),
        (&ada, "token", "/account/tokens"),
        (&sam, "movement", "/environments/golden/move"),
    ];
    let mut found = Vec::new();
    for (browser, name, path) in pages {
        if name == "movement" {
            // from here on the request that waits has lapsed
            house.json("sam", &["move", "golden", "external", "begin", "--reason", "another refresh"]).await;
        }
        for (dark, width) in [(false, 1280), (true, 1280), (false, 360)] {
            browser.dress(dark, width).await;
            browser.go(path).await;
            browser.sees("Daypass").await;
            let how = format!("{name}, {}, {width}", if dark { "dark" } else { "light" });
            found.extend(browser.hurdles(&axe).await.into_iter().map(|hurdle| format!("{how}: {hurdle}")));
            let out = browser.sticks_out().await;
            if !out.is_empty() {
                found.push(format!("{how}: one has to scroll {out}"));
            }
            if let Some(folder) = pictures.as_ref().filter(|_| width > 360 || ["environments", "environment-requester", "report"].contains(&name)) {
                let suffix = match (dark, width) {
                    (true, _) => "-dark",
                    (false, 360) => "-narrow",
                    (false, _) => "",
                };
                browser.screenshot(&folder.join(format!("{name}{suffix}.png"))).await;
            }
        }
        // 404 is what the page that is not there is about
        let complaints = browser.complaints().await.into_iter().filter(|line| !(name == "not-there" && line.contains("404")));
        found.extend(complaints.map(|line| format!("{name}: {line}")));
    }
    // what answers a form, and what stands in a dialog
    for browser in [&maria, &ada, &sam] {
        browser.dress(false, 1280).await;
    }
    maria.go("/environments/uat").await;
    maria.click("Show").await;
    maria.part("#way-password").await;
    found.extend(maria.hurdles(&axe).await.into_iter().map(|hurdle| format!("an account in a dialog: {hurdle}")));
    sam.go(&reveal).await;
    sam.fill("Why", "a look").await;
    sam.click("Show it").await;
    sam.sees("canary-secret").await;
    found.extend(sam.hurdles(&axe).await.into_iter().map(|hurdle| format!("a password that is shown: {hurdle}")));
    maria.go("/environments/uat/enable").await;
    maria.fill("Address", "10.0.0.0/8").await;
    maria.click_in("#form", "Enable access").await;
    maria.sees("wider than policy").await;
    found.extend(maria.hurdles(&axe).await.into_iter().map(|hurdle| format!("a form that was refused: {hurdle}")));
    ada.go("/log").await;
    ada.click("Verify").await;
    ada.sees("follow from each other").await;
    found.extend(ada.hurdles(&axe).await.into_iter().map(|hurdle| format!("a verified log: {hurdle}")));
    ada.go("/environments/uat").await;
    ada.click("Maintain").await;
    ada.click("Test the target").await;
    ada.sees("Test of the target of uat").await;
    found.extend(ada.hurdles(&axe).await.into_iter().map(|hurdle| format!("a tested target: {hurdle}")));
    ada.go("/environments/uat/policy").await;
    ada.choose("If this person asks", "maria").await;
    ada.click("Try it").await;
    ada.sees("maria gets in at once").await;
    found.extend(ada.hurdles(&axe).await.into_iter().map(|hurdle| format!("a preview: {hurdle}")));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_it_works_without_script() {
    let (house, browsers) = (House::open().await, Browsers::start().await);
    let ben = browsers.open(&format!("https://localhost:{}", house.api.port()), "ben", false).await;
    ben.sign_in(PASSWORD).await;
    ben.click("uat").await;
    ben.click("Maintain").await;
    ben.click("Enable access").await;
    ben.fill("Address", "10.0.0.0/8").await;
    ben.click_in("main", "Enable access").await;
    ben.sees("wider than policy 'default' allows").await;
    assert_eq!(ben.value("Address").await, "10.0.0.0/8", "what was typed is not lost");
    ben.fill("Address", "127.0.0.1").await;
    ben.click_in("main", "Enable access").await;
    ben.sees("The address is allowed.").await;
    ben.fill("Details", "a look without script").await;
    ben.click("Request access").await;
    ben.sees("Your request is in.").await;
    house.until_json("ben", &["passes"], |passes| passes[0]["state"] == "ready").await;
    ben.go("/environments/uat").await;
    ben.click("Show").await;
    let account = Account { name: ben.part("#way-account").await, password: ben.part("#way-password").await, ends_at: String::new() };
    assert!(house.psql(&account, "SELECT 1").await.0);
    ben.click("Done").await;
    ben.click("End now").await;
    ben.sees("Give jit_ben").await;
    ben.click("End it now").await;
    ben.sees("The access has ended.").await;
    ben.click("Sign out").await;
    ben.sees("Sign in").await;
    ben.close().await;

    // somebody is hired, given a role, and approves; a policy is set; somebody is locked
    let ada = browsers.open(&format!("https://localhost:{}", house.api.port()), "ada", false).await;
    ada.sign_in(PASSWORD).await;
    ada.go("/environments/uat/policy/set").await;
    ada.choose("Who approves read access", "One other person").await;
    ada.click("Save the policy").await;
    ada.sees("Saved.").await;
    // what is no mask changes nothing, and is named where it stands
    ada.go("/environments/uat").await;
    ada.click("Maintain").await;
    ada.click("Masks").await;
    ada.fill("Masks", "[sales.orders]\ncustomer = \"hush\"\n").await;
    ada.click("Mask so from now on").await;
    ada.sees("These are no masks").await;
    ada.fill("Masks", "[sales.orders]\ncustomer = \"hash\"\n").await;
    ada.click("Mask so from now on").await;
    ada.sees("Changed.").await;
    let masks = house.json("ada", &["env", "masks", "uat"]).await;
    assert_eq!(masks["masks"]["sales"]["orders"]["customer"], "hash");
    ada.go("/people/add").await;
    ada.fill("Name to sign in with", "amy").await;
    ada.fill("First password", PASSWORD).await;
    ada.choose("Role", "Requester: asks for access").await;
    ada.click_in("main", "Add the person").await;
    ada.sees("Added.").await;
    ada.go("/people/amy").await;
    ada.click("Give a role").await;
    ada.choose("Role", "Approver: agrees to requests of others").await;
    ada.click_in("main", "Give the role").await;
    ada.sees("Saved.").await;
    house.json("ben", &["request", "uat", "--no-wait", "--reason", "once more"]).await;
    let waiting = house.json("ben", &["requests"]).await[0]["id"].as_str().unwrap().to_owned();
    let amy = browsers.open(&format!("https://localhost:{}", house.api.port()), "amy", false).await;
    amy.sign_in(PASSWORD).await;
    amy.go(&format!("/requests/{waiting}")).await;
    amy.fill("A word", "go on").await;
    amy.click("Approve").await;
    amy.sees("Approved.").await;
    house.until_json("ben", &["passes", "--env", "uat"], |passes| passes[0]["state"] == "ready").await;
    ada.go("/people/ben/lock").await;
    ada.fill("Why", "a lost laptop").await;
    ada.click("Lock this person").await;
    ada.sees("Locked: a lost laptop").await;
    house.until_no_accounts().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_countdown_reaches_zero_the_session_is_over() {
    let (house, browsers) = (House::open().await, Browsers::start().await);
    let maria = visitor(&house, &browsers, "maria").await;
    house.json("maria", &["allow", "uat"]).await;
    maria.go("/environments/uat").await;
    maria.fill("Details", "a short look").await;
    maria.fill("How long", "25s").await;
    maria.click("Request access").await;
    maria.click("Show").await;
    let account = Account { name: maria.part("#way-account").await, password: maria.part("#way-password").await, ends_at: String::new() };
    maria.click("Done").await;
    let slow = house.psql(&account, "SELECT pg_sleep(60)").await;
    assert!(!slow.0 && slow.1.contains("has expired"), "{slow:?}");
    maria.sees("There is no account of yours.").await;
    maria.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_moves_a_database_watches_it_and_goes_back() {
    let (house, browsers) = (House::open().await, Browsers::start().await);
    house.server.sql("golden", "DELETE FROM sales.orders WHERE id > 7").await.unwrap();
    let account = house.account("maria", "read", "1h").await;
    let sam = visitor(&house, &browsers, "sam").await;
    sam.go("/environments/uat").await;
    sam.click("Maintain").await;
    sam.click("Move database").await;
    sam.sees("never moved").await;
    sam.click_in("main .acts", "Move database").await;
    sam.choose("What is done", "Refresh from another environment").await;
    sam.choose("From (refresh)", "golden").await;
    sam.click("Look at what will end").await;
    sam.fill("Why", "CHG-8: test data of this week").await;
    sam.click("Look at what will end").await;
    sam.sees(&format!("Ends: account {} of maria", account.name)).await;
    assert!(house.psql(&account, "SELECT 1").await.0, "nothing has happened yet");
    sam.click("Begin the movement").await;
    sam.sees("refresh from golden: Completed").await;
    assert!(!house.psql(&account, "SELECT 1").await.0);
    assert_eq!(house.server.sql("uat", "SELECT count(*) FROM sales.orders").await.unwrap(), "7");
    // what does not work says so in the form
    sam.click_in("main .acts", "Move database").await;
    sam.choose("What is done", "Import a dump").await;
    sam.fill("File (import, export)", "../../etc/passwd").await;
    sam.fill("Why", "a try").await;
    sam.click("Look at what will end").await;
    sam.sees("is not the name of a file here").await;
    sam.choose("What is done", "Go back to the database of before").await;
    sam.click("Look at what will end").await;
    sam.sees("Nobody holds access now").await;
    sam.click("Begin the movement").await;
    sam.sees("back to the database of before: RollbackCompleted").await;
    assert_eq!(house.server.sql("uat", "SELECT count(*) FROM sales.orders").await.unwrap(), "400");
    sam.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standing_account_is_used_and_shown_in_the_browser() {
    let (house, browsers) = (House::open().await, Browsers::start().await);
    house.server.sql("uat", "CREATE ROLE erp_owner LOGIN PASSWORD 'canary-secret'; GRANT CONNECT ON DATABASE uat TO erp_owner").await.unwrap();
    let ada = visitor(&house, &browsers, "ada").await;
    ada.go("/environments/uat").await;
    ada.sees_no("Standing accounts").await;
    assert!(house.daypass("ada", &["env", "kind", "uat", "managed"]).await.status.success());
    ada.sees("Standing accounts").await;
    ada.sees_no("Machine credentials").await;
    ada.click_in("section[aria-labelledby=standing]", "Add").await;
    ada.fill("Account", "erp_owner").await;
    ada.fill("Its password", "canary-secret").await;
    ada.click("Keep it").await;
    ada.sees("erp_owner").await;
    ada.click("Turn remote desktop on").await;
    ada.sees("Machine credentials").await;

    let maria = visitor(&house, &browsers, "maria").await;
    house.json("maria", &["allow", "uat"]).await;
    maria.go("/environments/uat").await;
    maria.click("Use").await;
    maria.sees("Nobody sees its password").await;
    maria.fill("Details", "a repair").await;
    maria.click("Request access").await;
    maria.sees("as erp_owner").await;
    maria.click("Show").await;
    let account = Account { name: maria.part("#way-account").await, password: maria.part("#way-password").await, ends_at: String::new() };
    assert_eq!(house.psql(&account, "SELECT current_user").await, (true, "erp_owner\n".to_owned()));

    let sam = visitor(&house, &browsers, "sam").await;
    sam.go("/environments/uat").await;
    sam.click_in("section[aria-labelledby=standing]", "Show").await;
    sam.fill("Why", "the upgrade tool wants it").await;
    sam.click("Show it").await;
    assert_eq!(sam.part("#way-password").await, "canary-secret");
    for browser in [ada, maria, sam] {
        browser.close().await;
    }
}

/// The code that an authenticator shows for this key at this moment, `steps` of 30 seconds from now.
fn code(key: &str, steps: i64) -> String {
    let secret = totp_rs::Secret::try_from_base32(key).unwrap();
    let totp = totp_rs::Builder::new().with_secret(secret).with_account_name("x").build().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    totp.generate(now.saturating_add_signed(steps * 30)).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_one_time_link_makes_the_first_administrator_once() {
    let mut house = House::bare("", None).await;
    house.start().await;
    let browsers = Browsers::start().await;
    let link = std::fs::read_to_string(house.path("data/first-link")).unwrap().trim().to_owned();
    assert!(!house.log().contains(link.rsplit('/').next().unwrap()), "the link stands in no log");
    let path = link.split_once(&house.api.port().to_string()).unwrap().1;
    let ada = browsers.open(&format!("https://localhost:{}", house.api.port()), "ada", true).await;
    ada.go("/first/guess").await;
    ada.fill("Password", PASSWORD).await;
    ada.click("Begin").await;
    ada.sees("not the right one").await;
    ada.go(path).await;
    ada.fill("Name", "ada").await;
    ada.fill("Password", "short").await;
    ada.click("Begin").await;
    ada.sees("at least 10 characters").await;
    ada.fill("Password", PASSWORD).await;
    ada.click("Begin").await;
    ada.sees("Administration").await;
    ada.sees("Nothing waits").await;
    assert!(!house.path("data/first-link").exists());
    ada.click("Sign out").await;
    ada.sees("Sign in").await;
    ada.go(path).await;
    ada.sees("Sign in").await;
    assert!(ada.field("Password").await.is_some(), "the link leads to the usual sign-in now");
    ada.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_factor_is_set_asked_for_and_a_code_counts_once() {
    let (house, browsers) = (House::open().await, Browsers::start().await);
    let maria = visitor(&house, &browsers, "maria").await;
    maria.go("/account/second-factor").await;
    let key = maria.part("#key").await;
    maria.fill("Code", "000000").await;
    maria.click("Set it").await;
    maria.sees("The code does not fit").await;
    assert_eq!(maria.part("#key").await, key, "the key stays the same while one tries");
    let first = code(&key, 0);
    maria.fill("Code", &first).await;
    maria.click("Set it").await;
    maria.sees("From now on signing in takes a code").await;
    maria.click("Sign out").await;

    maria.fill("Name", "maria").await;
    maria.fill("Password", PASSWORD).await;
    maria.click("Sign in").await;
    maria.sees("a code is needed as well").await;
    maria.fill("Password", PASSWORD).await;
    maria.fill("Code of your authenticator", &first).await;
    maria.click("Sign in").await;
    maria.sees("was used before").await;
    maria.fill("Password", PASSWORD).await;
    maria.fill("Code of your authenticator", &code(&key, 1)).await;
    maria.click("Sign in").await;
    maria.sees("Sign out").await;
    // the command line asks for it as well
    let server = format!("https://{}", house.api);
    let ca = house.path("data/ca.pem").display().to_string();
    let login = ["login", "--server", &server, "--ca", &ca, "--name", "maria", "--password-stdin"];
    let without = house.daypass_with("elsewhere", &login, PASSWORD).await;
    assert!(!without.status.success() && String::from_utf8_lossy(&without.stderr).contains("code is"), "{without:?}");
    // a lost device: an administrator takes the factor away
    let ada = visitor(&house, &browsers, "ada").await;
    ada.go("/people/maria").await;
    ada.click("Remove the second factor").await;
    ada.sees("The second factor is removed.").await;
    assert!(house.daypass_with("elsewhere", &login, PASSWORD).await.status.success());
    for browser in [maria, ada] {
        browser.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_that_is_taken_back_opens_nothing_any_more() {
    let (house, browsers) = (House::open().await, Browsers::start().await);
    let (one, other) =
        (visitor(&house, &browsers, "maria").await, browsers.open(&format!("https://localhost:{}", house.api.port()), "maria-elsewhere", true).await);
    other.go("/sign-in").await;
    other.fill("Name", "maria").await;
    other.fill("Password", PASSWORD).await;
    other.click("Sign in").await;
    other.sees("Sign out").await;
    let sign_ins = async || house.json("maria", &["token", "ls"]).await.as_array().unwrap().iter().filter(|token| token["browser"] == true).count();
    assert_eq!(sign_ins().await, 2);
    // a new password ends all others
    one.go("/account/password").await;
    one.fill("Old password", PASSWORD).await;
    one.fill("New password", "another-long-password").await;
    one.click("Change the password").await;
    one.sees("The new password holds.").await;
    other.go("/environments").await;
    other.sees("Password").await;
    assert_eq!(house.refused("maria", &["passes"]).await.0, 4, "the command line is signed out as well");

    // locking somebody shows them out of the page that they look at
    let ben = visitor(&house, &browsers, "ben").await;
    ben.go("/environments/uat").await;
    house.json("ada", &["people", "lock", "ben", "--reason", "left"]).await;
    ben.sees("Password").await;
    for browser in [one, other, ben] {
        browser.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_and_approvals_take_a_recent_sign_in() {
    // fifteen minutes are a second here
    let (house, browsers) = (House::with("[console]\nrecent_seconds = 1\n", None).await, Browsers::start().await);
    let maria = visitor(&house, &browsers, "maria").await;
    let account = house.account("maria", "read", "1h").await;
    // until the sign-in is no longer recent
    house
        .until_json("maria", &["token", "ls"], |tokens| {
            let browser = tokens.as_array().unwrap().iter().find(|token| token["browser"] == true).unwrap();
            let since: jiff::Timestamp = browser["added_at"].as_str().unwrap().parse().unwrap();
            jiff::Timestamp::now().duration_since(since).as_millis() > 1_000
        })
        .await;
    maria.go("/environments/uat").await;
    maria.click("Show").await;
    maria.sees("Confirm that it is you").await;
    maria.sees_no(&account.password).await;
    let axe = std::fs::read_to_string(crate::clients::tools().await.join("node_modules/axe-core/axe.min.js")).unwrap();
    assert_eq!(maria.hurdles(&axe).await, [""; 0], "the question who it is");
    maria.fill("Your password", "wrong-password").await;
    maria.click("Show the account").await;
    maria.sees("The name or the password is wrong").await;
    maria.fill("Your password", PASSWORD).await;
    maria.click("Show the account").await;
    maria.sees(&account.password).await;
    maria.close().await;

    // letting somebody in takes it too, on the page and on the command line
    house.person("amy", "approver").await;
    house.policy("uat", |policy| policy["approval"] = serde_json::json!({"read_write": "one"})).await;
    let amy = visitor(&house, &browsers, "amy").await;
    house.json("maria", &["request", "uat", "--no-wait", "--access", "read_write", "--reason", "a story"]).await;
    let waiting = house.json("amy", &["requests"]).await[0].clone();
    let (waiting, path) = (waiting["account"].as_str().unwrap().to_owned(), format!("/requests/{}", waiting["id"].as_str().unwrap()));
    let stale = |tokens: &serde_json::Value| {
        let old = |token: &serde_json::Value| {
            let since: jiff::Timestamp = token["added_at"].as_str().unwrap().parse().unwrap();
            jiff::Timestamp::now().duration_since(since).as_millis() > 1_000
        };
        tokens.as_array().unwrap().iter().all(old)
    };
    house.until_json("amy", &["token", "ls"], stale).await;
    let (_, said) = house.refused("amy", &["approve", &waiting]).await;
    assert!(said.contains("takes a sign-in of the last") && said.contains("daypass login"), "{said}");
    amy.go(&path).await;
    amy.click("Approve").await;
    amy.sees("Confirm that it is you").await;
    assert_eq!(house.json("amy", &["requests"]).await.as_array().unwrap().len(), 1, "nothing was approved by the first click");
    amy.fill("Your password", PASSWORD).await;
    amy.click("Approve").await;
    amy.sees("Approved").await;
    amy.close().await;
}

/// Three hundred texts that would run if any page took them for markup: each marks the window.
fn payloads() -> Vec<String> {
    let run = "window.ran=1";
    let vectors = [
        "<script>RUN</script>",
        "<img src=x onerror=RUN>",
        "<svg onload=RUN>",
        "<svg><script>RUN</script></svg>",
        "<body onload=RUN>",
        "<iframe srcdoc='<script>parent.RUN</script>'></iframe>",
        "<a href=javascript:RUN autofocus onfocus=RUN>x</a>",
        "<input autofocus onfocus=RUN>",
        "<details open ontoggle=RUN>",
        "<video><source onerror=RUN></video>",
        "<math><mtext></mtext><script>RUN</script></math>",
        "<template><script>RUN</script></template>",
        "<style>@import 'javascript:RUN'</style><img src=x onerror=RUN>",
        "<link rel=stylesheet href=javascript:RUN><img src=x onerror=RUN>",
        "<meta http-equiv=refresh content='0;url=javascript:RUN'>",
        "<form action=javascript:RUN><button autofocus onfocus=RUN>x</button></form>",
        "<object data=javascript:RUN></object><img src=x onerror=RUN>",
        "<embed src=javascript:RUN><img src=x onerror=RUN>",
        "<div hx-on:load='RUN' hx-get='/environments' hx-trigger='load'></div><img src=x onerror=RUN>",
        "<div hx-trigger='load[RUN]' hx-get='/environments'></div><img src=x onerror=RUN>",
        "{{RUN}}<img src=x onerror=RUN>",
        "${RUN}<img src=x onerror=RUN>",
        "&lt;script&gt;RUN&lt;/script&gt;<img src=x onerror=RUN>",
        "<scr<script>ipt>RUN</script>",
        "<ScRiPt >RUN</sCrIpT >",
        "<img/src=x/onerror=RUN//",
        "<x onpointerrawupdate=RUN style=animation-name:x onanimationstart=RUN>",
        "<base href=javascript:RUN//><img src=x onerror=RUN>",
        "<noscript><p title='</noscript><img src=x onerror=RUN>'>",
        "<textarea></textarea><img src=x onerror=RUN>",
    ];
    let breakouts =
        ["", "\">", "'>", "\" onmouseover=RUN autofocus onfocus=RUN x=\"", "</td></table>", "</textarea>", "</title>", "--><!-- -->", "]]>", "</script>"];
    let all = breakouts.iter().flat_map(|out| vectors.iter().map(move |vector| format!("{out}{vector}").replace("RUN", run)));
    all.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_somebody_wrote_runs_in_a_browser() {
    // one person writes all of it, as fast as it goes
    let (house, browsers) = (House::with("[limits]\nrequests = 100000\nchanges = 100000\n", None).await, Browsers::start().await);
    let payloads = payloads();
    assert_eq!(payloads.len(), 300);
    let kinds: Vec<String> = payloads.iter().filter(|text| text.chars().count() <= 60).take(50).cloned().collect();
    house
        .policy("uat", |policy| {
            policy["live_passes"] = serde_json::json!(400);
            policy["sessions_per_pass"] = serde_json::json!(100);
            policy["categories"] = serde_json::json!(kinds);
        })
        .await;
    let token = house.json("maria", &["token", "add", &payloads[1]]).await["token"].as_str().unwrap().to_owned();
    let call = async |path: &str, body: serde_json::Value| {
        let http = reqwest::Client::builder().tls_backend_preconfigured(crate::house::tls(&house.path("data/ca.pem"))).no_proxy().build().unwrap();
        let answer = http.post(format!("https://localhost:{}/api/v1/{path}", house.api.port())).bearer_auth(&token).json(&body).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path} {body}: {text}");
        serde_json::from_str::<serde_json::Value>(&text).unwrap_or_default()
    };
    for (n, text) in payloads.iter().enumerate() {
        let ticket: String = text.chars().take(100).collect();
        let body = serde_json::json!({ "access": "read", "reason": text, "ticket": ticket, "category": kinds[n % kinds.len()] });
        call("environments/uat/passes", body).await;
        if n < 60 {
            let note = &payloads[n * 5];
            call("environments/uat/allow", serde_json::json!({ "addresses": format!("10.0.0.{n}"), "note": note })).await;
        }
    }
    call("environments/uat/allow", serde_json::json!({ "addresses": "127.0.0.1" })).await;
    let passes = house.until_json("maria", &["passes"], |passes| passes.as_array().unwrap().iter().any(|pass| pass["state"] == "ready")).await;
    let ready = passes.as_array().unwrap().iter().find(|pass| pass["state"] == "ready").unwrap()["id"].as_str().unwrap().to_owned();
    let way = call(&format!("passes/{ready}/reveal"), serde_json::json!({})).await;
    let text = |key: &str| way[key].as_str().unwrap().to_owned();
    let account = Account { name: text("account"), password: text("password"), ends_at: String::new() };
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(house.gateway.port()).user(&account.name).password(&account.password).dbname("uat");
    config.ssl_mode(tokio_postgres::config::SslMode::Require);
    let mut clients = Vec::new();
    for name in payloads.iter().step_by(10) {
        let (client, connection) =
            config.application_name(name.chars().filter(char::is_ascii).take(60).collect::<String>()).connect(house.tls()).await.unwrap();
        tokio::spawn(connection);
        clients.push(client);
    }
    for statement in &payloads {
        let _ = clients[0].batch_execute(&format!("SELECT '{}'", statement.replace('\'', "''"))).await;
    }
    house.json("sam", &["move", "golden", "external", "begin", "--reason", &payloads[0]]).await;
    house.json("sam", &["move", "golden", "external", "fail", "--reason", &payloads[2]]).await;
    house.json("ada", &["people", "lock", "ben", "--reason", &payloads[4]]).await;
    // what people say when they judge and end
    house.person("amy", "approver").await;
    house.policy("golden", |policy| policy["approval"] = serde_json::json!({"read": "one"})).await;
    house.json("sam", &["move", "golden", "finish"]).await;
    for (n, verb) in ["approve", "deny"].into_iter().enumerate() {
        call("environments/golden/passes", serde_json::json!({ "access": "read", "reason": "a look" })).await;
        let waiting = house.json("amy", &["requests"]).await[0]["account"].as_str().unwrap().to_owned();
        let word = if verb == "deny" { "--reason" } else { "--word" };
        house.json("amy", &[verb, &waiting, word, &payloads[n + 6]]).await;
    }
    let passes_of_golden = house.json("maria", &["passes", "--env", "golden", "--all"]).await;
    house.json("sam", &["end", passes_of_golden[0]["account"].as_str().unwrap(), "--reason", &payloads[8]]).await;
    assert!(house.daypass("ada", &["env", "kind", "golden", "managed"]).await.status.success());
    assert!(house.daypass("ada", &["env", "remote-desktop", "golden", "on"]).await.status.success());
    let machine = ["machine", "add", "golden", "aos-1.example.com", "--user", "Administrator", "--note", &payloads[3], "--password-stdin"];
    assert!(house.daypass_with("ada", &machine, "secret").await.status.success());
    let busiest = house.until_json("maria", &["sessions", "ls"], |sessions| sessions.as_array().unwrap().len() == 30).await;
    let maria = visitor(&house, &browsers, "maria").await;
    let ada = visitor(&house, &browsers, "ada").await;
    let sam = visitor(&house, &browsers, "sam").await;
    let mut pages: Vec<(&Browser, String)> = ["/environments", "/environments/uat", "/environments/uat/request", "/requests", "/sessions", "/account"]
        .map(|path| (&maria, path.to_owned()))
        .to_vec();
    pages.extend(["/environments/golden/move", "/environments/uat"].map(|path| (&sam, path.to_owned())));
    pages.extend(
        [
            "/log",
            "/log?environment=uat",
            "/report",
            "/people",
            "/people/ben",
            "/administration",
            "/environments/uat/policy",
            "/environments/uat/policy/set",
            "/environments/uat/masks",
        ]
        .map(|path| (&ada, path.to_owned())),
    );
    pages.push((&ada, "/log?person=%22%3E%3Cimg%20src%3Dx%20onerror%3Dwindow.ran%3D1%3E&from=%22%3E%3Csvg%20onload%3Dwindow.ran%3D1%3E".to_owned()));
    pages.push((&maria, "/sign-in?to=%22%3E%3Cscript%3Ewindow.ran%3D1%3C%2Fscript%3E".to_owned()));
    for session in busiest.as_array().unwrap() {
        pages.push((&maria, format!("/sessions/{}", session["id"].as_str().unwrap())));
    }
    for waiting in passes.as_array().unwrap().iter().step_by(30) {
        pages.push((&sam, format!("/requests/{}", waiting["id"].as_str().unwrap())));
    }
    let mut seen = 0;
    for (browser, path) in &pages {
        browser.go(path).await;
        browser.sees("Daypass").await;
        seen += browser.run("return (document.body.textContent.match(/window\\.ran=1/g) || []).length").await.as_u64().unwrap();
        assert_eq!(browser.run("return window.ran === undefined && document.querySelectorAll('main script, main img, main iframe, main [onerror], main [onload], main [onfocus]').length === 0").await, true, "{path}");
    }
    assert!(seen > 1_000, "the texts are on the pages, as texts: {seen}");
    for browser in [&maria, &ada, &sam] {
        let complaints: Vec<String> = browser.complaints().await.into_iter().filter(|line| !line.contains("does not conform to the required format")).collect();
        assert!(complaints.is_empty(), "nothing was even tried: {complaints:?}");
    }
    for browser in [maria, ada, sam] {
        browser.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_asks_nothing_is_closed() {
    use tokio::io::AsyncReadExt;
    let house = House::open().await;
    for protocol in ["h2", "http/1.1"] {
        let mut tls = crate::house::tls(&house.path("data/ca.pem"));
        tls.alpn_protocols = vec![protocol.into()];
        let tcp = tokio::net::TcpStream::connect(house.api).await.unwrap();
        let mut stream = tokio_rustls::TlsConnector::from(std::sync::Arc::new(tls)).connect("localhost".try_into().unwrap(), tcp).await.unwrap();
        let closed = async { while stream.read(&mut [0; 1024]).await.is_ok_and(|n| n > 0) {} };
        tokio::time::timeout(crate::house::PATIENCE, closed).await.unwrap_or_else(|_| panic!("{protocol}: it keeps its place for good"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_signs_in_by_browser() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let (house, browsers) = (House::open().await, Browsers::start().await);
    let (server, ca) = (format!("https://{}", house.api), house.path("data/ca.pem").display().to_string());
    let mut command = house.command("laptop", &["login", "--sso", "--server", &server, "--ca", &ca]);
    let mut login = command.stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(login.stderr.take().unwrap()).lines();
    let code = loop {
        let line = lines.next_line().await.unwrap().expect("a code is shown");
        if line.trim().len() == 9 && line.contains('-') {
            break line.trim().to_owned();
        }
    };
    let maria = visitor(&house, &browsers, "maria").await;
    maria.go("/device").await;
    maria.fill("Code", "BBBB-BBBB").await;
    maria.click("Sign it in").await;
    maria.sees("No command line waits with this code").await;
    maria.fill("Code", &code.to_lowercase()).await;
    maria.click("Sign it in").await;
    maria.sees("It runs at 127.0.0.1").await;
    maria.click("Yes, sign it in").await;
    maria.sees("The command line is signed in.").await;
    let done = tokio::time::timeout(crate::house::PATIENCE, login.wait_with_output()).await.expect("the command line goes on").unwrap();
    assert!(done.status.success() && String::from_utf8_lossy(&done.stdout).contains("Signed in as maria"), "{done:?}");
    assert_eq!(house.json("laptop", &["whoami"]).await["name"], "maria");
    maria.go("/device").await;
    maria.fill("Code", &code).await;
    maria.click("Sign it in").await;
    maria.sees("No command line waits with this code").await;
    maria.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_sql_server_connects_with_what_the_page_shows() {
    let house = House::sqlserver(daypass_testkit::sqlserver::Options::default(), &[]).await;
    let browsers = Browsers::start().await;
    let maria = visitor(&house, &browsers, "maria").await;
    maria.click("uat").await;
    maria.sees("SQL Server").await;
    maria.click_in("section[aria-labelledby=addresses]", "Enable access").await;
    maria.click_in("dialog", "Enable access").await;
    maria.sees("The address is allowed.").await;
    maria.fill("Details", "OPS-18: orders look wrong").await;
    maria.click("Request access").await;
    maria.click("Show").await;
    assert_eq!(maria.part("#way-server-database").await, "localhost\\uat", "as people know it");
    assert!(maria.part("#setting-ssms").await.contains("Connect to database: uat"));
    let account = Account { name: maria.part("#way-account").await, password: maria.part("#way-password").await, ends_at: String::new() };
    let orders: u64 = house.ask(&account, "SELECT COUNT(*) FROM sales.orders").await.unwrap().parse().unwrap();
    assert!(orders > 0);
    maria.click("Done").await;
    maria.click("End now").await;
    maria.click("End it now").await;
    maria.sees("The access has ended.").await;
    assert!(house.ask(&account, "SELECT 1").await.unwrap_err().contains("was given back"));
    maria.close().await;
}
