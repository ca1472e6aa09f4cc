//! The native API's client.

use anyhow::{Context as _, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Talks to one server as one person.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    base: String,
    user: Option<String>,
    token: Option<String>,
    password: Option<(String, String)>,
    http: reqwest::Client,
}

/// How long a file may take: files may be of any size, and a connection that breaks is noticed anyhow.
const FILE_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// The body of an error answer.
#[derive(Debug, serde::Deserialize)]
struct ErrorBody {
    error: ErrorText,
}

#[derive(Debug, serde::Deserialize)]
struct ErrorText {
    message: String,
    #[serde(default)]
    hint: Option<String>,
}

/// The server said no, with a sentence and maybe a hint.
#[derive(Debug, thiserror::Error)]
#[error("{message}{}", hint.as_ref().map(|h| format!("\n  hint: {h}")).unwrap_or_default())]
pub(crate) struct Refusal {
    /// The HTTP status.
    pub(crate) status: u16,
    /// What is wrong.
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: Option<String>,
}

/// Nobody answered, or not to the end: the server may be on its way back.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unanswered(String);

impl Client {
    /// A client for the server at `base`.
    pub(crate) fn new(base: &str, user: Option<String>, token: Option<String>) -> anyhow::Result<Self> {
        if let Some(name) =
            user.as_ref().filter(|name| !name.bytes().all(|b| b == b' ' || b.is_ascii_graphic()))
        {
            bail!(
                "`{}` can't act: a name may have letters, digits and signs of ASCII only\n  hint: --as names somebody else; without it git's user.email acts",
                name.escape_debug()
            );
        }
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(3))
            .timeout(Duration::from_secs(120))
            .no_proxy()
            .build()
            .context("can't set up the HTTP client")?;
        Ok(Self { base: base.trim_end_matches('/').to_owned(), user, token, password: None, http })
    }

    /// The same with a name and a password, for servers of others.
    pub(crate) fn with_password(self, password: Option<(String, String)>) -> Self {
        Self { password, ..self }
    }

    /// The server's address.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.request_at(method, &format!("api/v1/{path}"))
    }

    fn request_at(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let mut request = self.http.request(method, format!("{}/{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        } else if let Some((name, password)) = &self.password {
            request = request.basic_auth(name, Some(password));
        }
        if let Some(user) = &self.user {
            request = request.header("x-lockgate-user", user);
        }
        request
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> anyhow::Result<reqwest::Response> {
        let response = request.send().await.map_err(|e| {
            Unanswered(if e.is_connect() {
                format!("no server answers at {}\n  hint: start it with `lockgate up`, or name another one with --server", self.base)
            } else if e.is_timeout() {
                format!("the server at {} did not answer in time", self.base)
            } else {
                format!("the connection to {} broke: {}", self.base, e.without_url())
            })
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().await.unwrap_or_default();
        let (message, hint) = explanation(status, &text);
        Err(Refusal { status: status.as_u16(), message, hint }.into())
    }

    /// GET as JSON.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let response = self.send(self.request(reqwest::Method::GET, path)).await?;
        response.json().await.context("the server's answer can't be read; is it of another version?")
    }

    /// GET from the MLflow API, as JSON.
    pub(crate) async fn mlflow(&self, path: &str) -> anyhow::Result<serde_json::Value> {
        let path = format!("api/2.0/mlflow/{path}");
        let response = self.send(self.request_at(reqwest::Method::GET, &path)).await?;
        response.json().await.context("the server's answer can't be read; is it of another version?")
    }

    /// POST to the MLflow API, as JSON.
    pub(crate) async fn mlflow_post(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> anyhow::Result<serde_json::Value> {
        self.post_to(&format!("api/2.0/mlflow/{path}"), body).await
    }

    /// POST to a path of any of MLflow's APIs, as JSON.
    pub(crate) async fn post_to(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> anyhow::Result<serde_json::Value> {
        let response = self.send(self.request_at(reqwest::Method::POST, path).json(body)).await?;
        response.json().await.context("the server's answer can't be read; is it of another version?")
    }

    /// What lies in a folder of the MLflow API's artifacts.
    pub(crate) async fn artifacts(&self, folder: &str) -> anyhow::Result<serde_json::Value> {
        let path = format!("api/2.0/mlflow-artifacts/artifacts?path={}", crate::commands::encode(folder));
        let response = self.send(self.request_at(reqwest::Method::GET, &path)).await?;
        response.json().await.context("the server's answer can't be read; is it of another version?")
    }

    /// An artifact's bytes, by its encoded path.
    pub(crate) async fn download(&self, path: &str) -> anyhow::Result<reqwest::Response> {
        let path = format!("api/2.0/mlflow-artifacts/artifacts/{path}");
        self.send(self.request_at(reqwest::Method::GET, &path).timeout(FILE_LIMIT)).await
    }

    /// Puts an artifact's bytes under its encoded path.
    pub(crate) async fn upload(&self, path: &str, body: reqwest::Body) -> anyhow::Result<()> {
        let path = format!("api/2.0/mlflow-artifacts/artifacts/{path}");
        let request = self.request_at(reqwest::Method::PUT, &path).timeout(FILE_LIMIT).body(body);
        self.send(request).await.map(|_| ())
    }

    /// GET from one of MLflow's APIs, as text: it may be as large as a file.
    pub(crate) async fn text_of(&self, path: &str) -> anyhow::Result<String> {
        let request = self.request_at(reqwest::Method::GET, path).timeout(FILE_LIMIT);
        self.send(request).await?.text().await.context("the server's answer broke off")
    }

    /// GET as bytes: a file, of any size that fits into memory.
    pub(crate) async fn get_bytes(&self, path: &str) -> anyhow::Result<bytes::Bytes> {
        let request = self.request(reqwest::Method::GET, path).timeout(FILE_LIMIT);
        self.send(request).await?.bytes().await.context("the server's answer broke off")
    }

    /// GET as text.
    pub(crate) async fn get_text(&self, path: &str) -> anyhow::Result<String> {
        let response = self.send(self.request(reqwest::Method::GET, path)).await?;
        response.text().await.context("the server's answer broke off")
    }

    /// The same of what may not be there.
    pub(crate) async fn find_text(&self, path: &str) -> anyhow::Result<Option<String>> {
        match self.get_text(path).await {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.downcast_ref::<Refusal>().is_some_and(|r| r.status == 404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// POST JSON, answer as JSON.
    pub(crate) async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> anyhow::Result<T> {
        let response = self.send(self.request(reqwest::Method::POST, path).json(body)).await?;
        response.json().await.context("the server's answer can't be read; is it of another version?")
    }

    /// PUT JSON, answer as JSON.
    pub(crate) async fn put<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> anyhow::Result<T> {
        let response = self.send(self.request(reqwest::Method::PUT, path).json(body)).await?;
        response.json().await.context("the server's answer can't be read; is it of another version?")
    }

    /// PUT bytes.
    pub(crate) async fn put_bytes(&self, path: &str, body: Vec<u8>) -> anyhow::Result<()> {
        self.send(self.request(reqwest::Method::PUT, path).body(body)).await.map(|_| ())
    }
}

/// What a server that says no gives as the reason: our own errors, MLflow's, or the few words of whatever stands between.
fn explanation(status: reqwest::StatusCode, text: &str) -> (String, Option<String>) {
    if let Ok(body) = serde_json::from_str::<ErrorBody>(text) {
        return (body.error.message, body.error.hint);
    }
    if let Ok(body) = serde_json::from_str::<ErrorText>(text) {
        return (body.message, body.hint);
    }
    let words = text.trim();
    // A page, or a long text, explains nothing on a terminal.
    let short = !words.is_empty() && words.chars().count() <= 300 && !words.starts_with('<');
    if short && !words.chars().any(|c| c.is_control() && c != '\n') {
        return (format!("the server answered {status}: {words}"), None);
    }
    (format!("the server answered {status} without an explanation"), None)
}

#[cfg(test)]
mod tests {
    use super::explanation;
    use reqwest::StatusCode;

    #[test]
    fn whatever_explains_a_refusal_is_shown() {
        let said = |text: &str| explanation(StatusCode::BAD_GATEWAY, text);
        let ours = said("{\"error\": {\"code\": \"x\", \"message\": \"no\", \"hint\": \"do\"}}");
        assert_eq!(ours, ("no".to_owned(), Some("do".to_owned())));
        assert_eq!(said("{\"error_code\": \"X\", \"message\": \"no\"}").0, "no");
        assert_eq!(said("upstream is down\n").0, "the server answered 502 Bad Gateway: upstream is down");
        for nothing in ["", "<html>no</html>", "\u{1b}[31mred", &"long ".repeat(100)] {
            assert!(said(nothing).0.ends_with("without an explanation"), "{nothing}");
        }
    }
}
