//! A real Chromium, driven over WebDriver: people who look at pages, click and type.

use crate::house::PATIENCE;
use daypass_testkit::postgres::free_port;
use serde_json::{Value, json};
use std::{
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};
use thirtyfour::prelude::*;
use tokio::process::{Child, Command};

/// The driver, and where its browsers keep their things.
pub struct Browsers {
    _driver: Child,
    address: String,
    directory: PathBuf,
}

impl Browsers {
    pub async fn start() -> Browsers {
        let port = free_port().unwrap();
        let directory = std::env::temp_dir().join(format!("daypass-browsers-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut command = Command::new("chromedriver");
        command.args([format!("--port={port}"), "--allowed-ips=127.0.0.1".to_owned()]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let driver = command.kill_on_drop(true).spawn().expect("chromedriver is installed (scripts/need browser)");
        let deadline = Instant::now() + PATIENCE;
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(Instant::now() < deadline, "chromedriver does not answer");
            tokio::task::yield_now().await;
        }
        Browsers { _driver: driver, address: format!("http://127.0.0.1:{port}"), directory }
    }

    /// A browser of somebody's own at `server`. `script` off is a browser that runs none.
    pub async fn open(&self, server: &str, who: &str, script: bool) -> Browser {
        let mut wishes = DesiredCapabilities::chrome();
        wishes.accept_insecure_certs(true).unwrap();
        let profile = format!("--user-data-dir={}", self.directory.join(who).display());
        for argument in [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--force-device-scale-factor=1",
            "--window-size=1280,900",
            &profile,
        ] {
            wishes.add_arg(argument).unwrap();
        }
        if !script {
            wishes.add_experimental_option("prefs", json!({ "profile.managed_default_content_settings.javascript": 2 })).unwrap();
        }
        wishes.set("goog:loggingPrefs", json!({ "browser": "ALL" })).unwrap();
        let driver = WebDriver::new(&self.address, wishes).await.unwrap();
        Browser { driver, server: server.to_owned(), who: who.to_owned(), driver_address: self.address.clone() }
    }
}

impl Drop for Browsers {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

pub struct Browser {
    pub driver: WebDriver,
    server: String,
    who: String,
    driver_address: String,
}

/// Asks until there is an answer.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}");
        tokio::task::yield_now().await;
    }
}

impl Browser {
    pub async fn go(&self, path: &str) {
        self.driver.goto(format!("{}{path}", self.server)).await.unwrap();
    }

    pub async fn sign_in(&self, password: &str) {
        self.go("/environments").await;
        self.fill("Name", &self.who).await;
        self.fill("Password", password).await;
        self.click("Sign in").await;
        self.sees("Sign out").await;
    }

    /// All text on the page, in the order of the page.
    pub async fn text(&self) -> String {
        match self.driver.find(By::Tag("body")).await {
            Ok(body) => body.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    /// The text comes to stand on the page, by itself.
    pub async fn sees(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let page = self.text().await;
            if page.contains(text) {
                return;
            }
            assert!(Instant::now() < deadline, "{} does not see '{text}' but:\n{page}\nat {:?}", self.who, self.driver.current_url().await);
        }
    }

    pub async fn sees_no(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let page = self.text().await;
            if !page.contains(text) {
                return;
            }
            assert!(Instant::now() < deadline, "{} still sees '{text}':\n{page}", self.who);
        }
    }

    /// The first link or button with this text that can be seen.
    async fn clickable(&self, label: &str) -> Option<WebElement> {
        let xpath = format!("//*[self::a or self::button or self::summary][normalize-space(.)='{label}']");
        for element in self.driver.find_all(By::XPath(xpath)).await.ok()? {
            if element.is_displayed().await.unwrap_or(false) {
                return Some(element);
            }
        }
        None
    }

    /// Clicks on a link or button by its text.
    pub async fn click(&self, label: &str) {
        let what = format!("{} finds nothing to click that says '{label}'", self.who);
        until(&what, async || self.clickable(label).await?.click().await.ok()).await;
    }

    /// The same within a part of the page.
    pub async fn click_in(&self, part: &str, label: &str) {
        let what = format!("{} finds nothing to click in {part} that says '{label}'", self.who);
        until(&what, async || {
            let within = self.driver.find(By::Css(part)).await.ok()?;
            let xpath = format!(".//*[self::a or self::button][normalize-space(.)='{label}']");
            within.find(By::XPath(xpath)).await.ok()?.click().await.ok()
        })
        .await;
    }

    /// Types into the field with this label, which is emptied first.
    pub async fn fill(&self, label: &str, text: &str) {
        let what = format!("{} finds no field '{label}'", self.who);
        let element = until(&what, async || self.field(label).await).await;
        let _ = element.clear().await;
        element.send_keys(text).await.unwrap();
    }

    pub async fn field(&self, label: &str) -> Option<WebElement> {
        let xpath = format!("//label[normalize-space(.)='{label}']");
        for found in self.driver.find_all(By::XPath(xpath)).await.ok()? {
            if !found.is_displayed().await.unwrap_or(false) {
                continue;
            }
            let id = found.attr("for").await.ok()??;
            return self.driver.find(By::Id(id)).await.ok();
        }
        None
    }

    pub async fn value(&self, label: &str) -> String {
        let what = format!("{} finds no field '{label}'", self.who);
        until(&what, async || self.field(label).await).await.prop("value").await.unwrap().unwrap_or_default()
    }

    /// Chooses from a list, by the text of the choice.
    pub async fn choose(&self, label: &str, choice: &str) {
        let what = format!("{} cannot choose '{choice}' in '{label}'", self.who);
        until(&what, async || {
            let field = self.field(label).await?;
            for option in field.find_all(By::Tag("option")).await.ok()? {
                if option.text().await.ok()?.trim() == choice {
                    return option.click().await.ok();
                }
            }
            None
        })
        .await;
    }

    /// The text of an element, once it is there.
    pub async fn part(&self, css: &str) -> String {
        let what = format!("{} finds no {css}", self.who);
        until(&what, async || {
            let text = self.driver.find(By::Css(css)).await.ok()?.text().await.ok()?;
            (!text.is_empty()).then_some(text)
        })
        .await
    }

    pub async fn run(&self, script: &str) -> Value {
        self.driver.execute(script, Vec::new()).await.unwrap().json().clone()
    }

    /// What the browser complained about: a script that was refused, an address that is not there.
    pub async fn complaints(&self) -> Vec<String> {
        let address = format!("{}/session/{}/se/log", self.driver_address, self.driver.session_id());
        let answer = reqwest::Client::builder().no_proxy().build().unwrap().post(address).json(&json!({ "type": "browser" })).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        let lines = answer["value"].as_array().cloned().unwrap_or_default();
        lines.iter().filter_map(|line| line["message"].as_str().map(str::to_owned)).collect()
    }

    /// The page in dark or light, as wide as a phone or a screen.
    pub async fn dress(&self, dark: bool, width: u32) {
        let tools = self.driver.cdp();
        let scheme = if dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        tools.send_raw("Emulation.setEmulatedMedia", media).await.unwrap();
        let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        tools.send_raw("Emulation.setDeviceMetricsOverride", size).await.unwrap();
    }

    /// What axe-core finds that keeps people from using the page.
    pub async fn hurdles(&self, axe: &str) -> Vec<String> {
        let script = format!(
            // what is still fading in has no contrast yet
            "{axe}; const done = arguments[arguments.length - 1]; Promise.allSettled(document.getAnimations().map((a) => a.finished)).then(() => axe.run(document, {{ resultTypes: ['violations'] }})).then((r) => done(r.violations.map((v) => v.id + ': ' + v.help + ' ' + v.nodes.map((n) => n.html.slice(0, 160)).join(' | '))), (e) => done([String(e)]))"
        );
        let found = self.driver.execute_async(&script, Vec::new()).await.unwrap().json().clone();
        found.as_array().map(|all| all.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect()).unwrap_or_default()
    }

    /// What sticks out to the right, so that one has to scroll sideways; empty: nothing does.
    pub async fn sticks_out(&self) -> String {
        let script = "if (document.documentElement.scrollWidth <= window.innerWidth + 1) return '';
            const out = [...document.body.querySelectorAll('*')].filter(part => part.getBoundingClientRect().right > window.innerWidth + 1);
            return 'sideways: ' + out.map(part => part.outerHTML.slice(0, 80)).join(' | ')";
        self.run(script).await.as_str().unwrap_or_default().to_owned()
    }

    pub async fn screenshot(&self, path: &std::path::Path) {
        std::fs::write(path, self.driver.screenshot_as_png().await.unwrap()).unwrap();
    }

    pub async fn close(self) {
        let _ = tokio::time::timeout(Duration::from_secs(10), self.driver.quit()).await;
    }
}
