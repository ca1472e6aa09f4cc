//! Who is asking. Every route lies behind this; there is no anonymous one but the health checks.

use crate::{ApiError, browser};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use lockgate_control::{Accounts, Control};
use lockgate_core::actor::{Actor, ActorKind, Via};
use lockgate_core::id::EnvironmentName;
use std::net::SocketAddr;
use std::sync::Arc;

/// The header in which a loopback client claims a name.
const CLAIM: &str = "x-lockgate-user";

/// The name of somebody who claims none: MLflow's clients on a laptop, for example.
const NOBODY: &str = "local";

/// How callers prove who they are.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Tokens and their owners.
    pub accounts: Arc<Accounts>,
    /// Whether a loopback client's claim is believed: only for a server that listens on loopback.
    pub trust_loopback: bool,
    /// Where the server listens: the only names that a browser may call it by.
    pub listen: SocketAddr,
}

/// Finds out who is asking and hands the [`Actor`] on as an extension.
pub async fn identify(
    State((control, identity)): State<(Control, Identity)>,
    mut request: Request,
    next: Next,
) -> Response {
    if request.method() == Method::OPTIONS {
        return browser::preflight(&identity, request.headers());
    }
    // What clients and load balancers ask before they sign in; nothing in the answers is anybody's.
    if is_open(request.uri().path()) {
        return next.run(request).await;
    }
    match actor(&control, &identity, request.method(), request.headers()).await {
        Ok(actor) => {
            request.extensions_mut().insert(actor);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

/// Whether a path, also one below an environment's prefix, needs no sign-in.
fn is_open(path: &str) -> bool {
    let path = match path.strip_prefix("/env/").and_then(|rest| rest.find('/').map(|end| &rest[end..])) {
        Some(below) => below,
        None => path,
    };
    let info = ["/api/3.0/mlflow/server-info", "/ajax-api/3.0/mlflow/server-info"];
    // Signed URLs say themselves what they allow, and their routes check it.
    matches!(path, "/" | "/health" | "/version")
        || info.contains(&path)
        || path.starts_with("/api/2.0/mlflow-artifacts/signed/")
}

async fn actor(
    control: &Control,
    identity: &Identity,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Actor, ApiError> {
    if identity.trust_loopback {
        browser::same_site(identity.listen, method, headers)?;
    }
    if let Some(token) = bearer(headers)? {
        let (kind, name) = identity
            .accounts
            .find(&token)
            .ok_or_else(|| ApiError::unauthenticated("this token belongs to nobody"))?;
        if kind == ActorKind::Agent {
            let environment =
                EnvironmentName::new(name).map_err(|e| ApiError::unauthenticated(e.to_string()))?;
            return Ok(Actor::agent(&environment));
        }
        return Ok(control.actor(kind, name, Via::Token).await?);
    }
    if !identity.trust_loopback {
        return Err(ApiError::unauthenticated(
            "say who you are with a token: MLFLOW_TRACKING_TOKEN for MLflow's clients, Authorization: Bearer … for others",
        ));
    }
    let claimed = headers.get(CLAIM).map(|v| v.to_str().unwrap_or_default()).unwrap_or(NOBODY);
    Ok(control.actor(ActorKind::User, claimed, Via::Loopback).await?)
}

/// A bearer token, also where a client (MLflow's) sends it as the password of basic authentication.
fn bearer(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let wrong = || {
        ApiError::unauthenticated("use Authorization: Bearer TOKEN, or Basic with the token as the password")
    };
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let (scheme, rest) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(wrong)?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Some(rest.trim().to_owned()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(wrong());
    }
    let pair = BASE64_STANDARD.decode(rest.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let token =
        pair.as_deref().and_then(|pair| pair.split_once(':')).map(|(_, password)| password.to_owned());
    token.map(Some).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn token(value: &'static str) -> Result<Option<String>, ApiError> {
        bearer(&HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(value))]))
    }

    #[test]
    fn tokens_come_as_bearer_or_as_a_password() {
        assert_eq!(token("Bearer abc").unwrap().as_deref(), Some("abc"));
        // `printf 'alice:abc:d' | base64`
        assert_eq!(token("Basic YWxpY2U6YWJjOmQ=").unwrap().as_deref(), Some("abc:d"));
        assert!(bearer(&HeaderMap::new()).unwrap().is_none());
        for wrong in ["abc", "Digest abc", "Basic !!", "Basic YWJj"] {
            assert!(token(wrong).is_err(), "{wrong}");
        }
    }
}
