//! The agent's calls to the server. All of them may fail; the agent goes on without.

use crate::AgentError;
use lockgate_core::digest::Digest;
use lockgate_core::gate::PublicKey;
use lockgate_core::id::EnvironmentName;
use lockgate_core::release::Manifest;
use lockgate_core::wire::{Answer, Desired, Hello, Live, Mark, PROTOCOL, Report, Reported, Welcome};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// The server, as this agent may call it.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    base: String,
    token: String,
    environment: EnvironmentName,
    http: reqwest::Client,
}

impl Server {
    pub(crate) fn new(base: &str, token: String, environment: EnvironmentName) -> Result<Self, AgentError> {
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(3))
            .timeout(Duration::from_secs(60))
            .no_proxy()
            .build()
            .map_err(|e| AgentError::Server(e.to_string()))?;
        Ok(Self { base: base.trim_end_matches('/').to_owned(), token, environment, http })
    }

    fn own(&self, path: &str) -> String {
        format!("environments/{}/{path}", self.environment)
    }

    async fn call(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, AgentError> {
        let response = request
            .bearer_auth(&self.token)
            .send()
            .await
            .map_err(|e| AgentError::Server(e.without_url().to_string()))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body: serde_json::Value = response.json().await.unwrap_or_default();
        let message = body["error"]["message"].as_str().unwrap_or("no explanation");
        Err(AgentError::Refused { status: status.as_u16(), message: message.to_owned() })
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, AgentError> {
        let response = self.call(self.http.get(format!("{}/agent/v1/{path}", self.base))).await?;
        response.json().await.map_err(|e| AgentError::Server(e.without_url().to_string()))
    }

    async fn send<B: Serialize, T: DeserializeOwned>(
        &self,
        method: reqwest::Method,
        path: &str,
        body: &B,
    ) -> Result<T, AgentError> {
        let request = self.http.request(method, format!("{}/agent/v1/{path}", self.base)).json(body);
        let response = self.call(request).await?;
        response.json().await.map_err(|e| AgentError::Server(e.without_url().to_string()))
    }

    pub(crate) async fn hello(
        &self,
        key: PublicKey,
        gateway: &str,
        journal: Mark,
    ) -> Result<Welcome, AgentError> {
        let hello = Hello {
            protocol: PROTOCOL,
            environment: self.environment.clone(),
            key,
            gateway: gateway.to_owned(),
            journal,
        };
        self.send(reqwest::Method::POST, "hello", &hello).await
    }

    pub(crate) async fn desired(&self, since: u64, wait: Duration) -> Result<Desired, AgentError> {
        self.get(&self.own(&format!("desired?since={since}&wait_ms={}", wait.as_millis()))).await
    }

    pub(crate) async fn report(&self, report: &Report) -> Result<Reported, AgentError> {
        self.send(reqwest::Method::POST, &self.own("reports"), report).await
    }

    pub(crate) async fn live(&self, live: &Live) -> Result<(), AgentError> {
        self.send(reqwest::Method::PUT, &self.own("live"), live).await
    }

    pub(crate) async fn answer(&self, answer: &Answer) -> Result<(), AgentError> {
        self.send(reqwest::Method::POST, &self.own("answers"), answer).await
    }

    pub(crate) async fn manifest(&self, release: &Digest) -> Result<Manifest, AgentError> {
        self.get(&format!("releases/{release}")).await
    }

    pub(crate) async fn blob(&self, digest: &Digest) -> Result<reqwest::Response, AgentError> {
        self.call(
            self.http
                .get(format!("{}/agent/v1/blobs/{digest}", self.base))
                .timeout(Duration::from_secs(3600)),
        )
        .await
    }

    pub(crate) async fn put_log(&self, digest: &Digest, bytes: Vec<u8>) -> Result<(), AgentError> {
        let url = format!("{}/agent/v1/{}", self.base, self.own(&format!("blobs/{digest}")));
        self.call(self.http.put(url).body(bytes)).await.map(|_| ())
    }
}
