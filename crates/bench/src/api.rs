//! The API as a program uses it: one connection that is kept.

use anyhow::{Context, Result, bail};
use serde_json::Value;

#[derive(Clone)]
pub struct Api {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Api {
    pub async fn sign_in(base: String, tls: rustls::ClientConfig, name: &str, password: &str) -> Result<Api> {
        Api::begin(base, tls, "login", serde_json::json!({ "name": name, "password": password })).await
    }

    /// The first administrator, by the one-time link.
    pub async fn first(base: String, tls: rustls::ClientConfig, link: &str) -> Result<Api> {
        let code = link.rsplit('/').next().unwrap_or_default();
        Api::begin(base, tls, "first", serde_json::json!({ "code": code, "name": "admin", "password": "a-long-password" })).await
    }

    async fn begin(base: String, tls: rustls::ClientConfig, path: &str, proof: Value) -> Result<Api> {
        let http = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build()?;
        let mut api = Api { http, base, token: String::new() };
        let issued = api.post(path, proof).await?;
        api.token = issued["token"].as_str().context("no token")?.to_owned();
        Ok(api)
    }

    pub async fn post(&self, path: &str, body: Value) -> Result<Value> {
        self.send(self.http.post(format!("{}/api/v1/{path}", self.base)).json(&body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Result<Value> {
        self.send(self.http.put(format!("{}/api/v1/{path}", self.base)).json(&body)).await
    }

    pub async fn get(&self, path: &str) -> Result<Value> {
        self.send(self.http.get(format!("{}/api/v1/{path}", self.base))).await
    }

    /// A question that can be sent over and over.
    pub fn asking(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.get(format!("{}/api/v1/{path}", self.base)).bearer_auth(&self.token)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Value> {
        let answer = request.bearer_auth(&self.token).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        if !status.is_success() {
            bail!("{status}: {text}");
        }
        Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
    }
}
