//! Testers: a request that says which side is to answer it gets that side, or an error; never silently another one.
//!
//! Such a request is nobody's evidence: it is not drawn, not mirrored, in no count that decides anything, and it neither clears
//! nor spoils what live traffic knows of a worker. The prediction log says who forced it.
//!
//! A preview token comes in a header, in a cookie, or in front of the path, as `/preview/TOKEN/…`: clients that can do no more than
//! be given an address need no more.

use crate::reactor::Reactor;
use crate::table::{Route, Side};
use hyper::header::{COOKIE, HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::{PathAndQuery, Uri};
use hyper::{Request, StatusCode};
use lockgate_core::digest::Digest;
use lockgate_core::plan::Testers;
use lockgate_core::preview::Claims;
use lockgate_core::route::Role;
use lockgate_wire::tensor::shown;
use std::sync::Arc;

/// Says which side is to answer: `candidate`, `baseline`, or the beginning of a release's digest.
const RELEASE: HeaderName = HeaderName::from_static("x-lockgate-release");

/// Carries a preview token.
const TOKEN: HeaderName = HeaderName::from_static("x-lockgate-preview");

/// The same for browsers.
const TOKEN_COOKIE: &str = "lockgate-preview";

/// What stands before a path, with the token behind it.
const PREFIX: &str = "/preview/";

/// So much of a digest at least: fewer characters could mean the wrong release before long.
const DIGITS: usize = 6;

/// A request that a tester sent to one side.
#[derive(Debug)]
pub(crate) struct Forced {
    pub(crate) side: Arc<Side>,
    /// Whose request it is, for the log.
    pub(crate) by: String,
}

/// What a tester's question is about that names no model.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) route: Arc<Route>,
    /// It has workers.
    pub(crate) side: Arc<Side>,
}

/// Why a request can't have the side that it asks for.
pub(crate) type Refused = (StatusCode, String);

/// Takes the token out of a path that begins with one.
pub(crate) fn unwrap<B>(request: &mut Request<B>) {
    let Some(whole) = request.uri().path_and_query().and_then(|p| p.as_str().strip_prefix(PREFIX)) else {
        return;
    };
    let (token, rest) = whole.find(['/', '?']).map_or((whole, "/"), |at| whole.split_at(at));
    let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
    let (Ok(token), Ok(rest)) = (HeaderValue::from_str(token), PathAndQuery::try_from(rest)) else { return };
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = Some(rest);
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
        request.headers_mut().insert(TOKEN, token);
    }
}

/// The side that a request asks for, where it asks for one.
///
/// # Errors
/// Where it may not, or that side isn't there.
pub(crate) fn asked(
    reactor: &Reactor,
    route: &Route,
    headers: &HeaderMap,
    version: Option<u64>,
) -> Result<Option<Forced>, Refused> {
    let (token, wanted) = (token(headers), headers.get(RELEASE));
    if token.is_none() && wanted.is_none() {
        return Ok(None);
    }
    let claims = token.map(|token| verified(reactor, route, token)).transpose()?;
    permitted(reactor, route, claims.as_ref())?;
    if wanted.is_some() && claims.as_ref().is_some_and(|claims| claims.by.is_none()) {
        let message = "a smoke test's token is for the release that it tests, and for no other one";
        return Err((StatusCode::FORBIDDEN, message.to_owned()));
    }
    let wanted = match (wanted.map(HeaderValue::to_str), &claims) {
        (Some(Ok(text)), _) => text.trim(),
        (Some(Err(_)), _) => return Err(unclear("x-lockgate-release is no text")),
        (None, Some(claims)) => claims.side.as_str(),
        (None, None) => "candidate",
    };
    let side = find(route, wanted)?;
    if let Some(version) = version.filter(|version| *version != side.model_version) {
        let message =
            format!("the request asks for version {version}, but {wanted} is version {}", side.model_version);
        return Err((StatusCode::NOT_FOUND, message));
    }
    if side.workers.is_empty() {
        let message = format!("{wanted} of model `{}` has no worker that is ready", route.model);
        return Err((StatusCode::SERVICE_UNAVAILABLE, message));
    }
    let by = match claims {
        None => "anybody".to_owned(),
        Some(Claims { by: None, .. }) => "smoke test".to_owned(),
        Some(Claims { by: Some(by), .. }) => format!("tester {by}"),
    };
    Ok(Some(Forced { side: Arc::clone(side), by }))
}

/// The same of a question that names no model: the token does, or there is only one. None where it is no tester's.
///
/// # Errors
/// As for a request; whoever is ignored would take what the users' side says for the candidate's.
pub(crate) fn view(reactor: &Reactor, headers: &HeaderMap) -> Result<Option<View>, Refused> {
    let names = reactor.model_names();
    let model = match (token(headers), names.as_slice()) {
        (Some(token), _) => signed(reactor, token)?.model.to_string(),
        (None, _) if !headers.contains_key(RELEASE) => return Ok(None),
        (None, [only]) => only.clone(),
        (None, _) => {
            return Err(unclear("x-lockgate-release is about one model, and the path names none"));
        }
    };
    let missing = || format!("there is no model `{model}` in this environment");
    let route = reactor.route(&model).ok_or_else(|| (StatusCode::NOT_FOUND, missing()))?;
    let forced = asked(reactor, &route, headers, None)?;
    Ok(forced.map(|Forced { side, .. }| View { route, side }))
}

/// The models that there are for whoever asks: for a tester the one that the token is for.
///
/// # Errors
/// As for [`view`].
pub(crate) fn model_names(reactor: &Reactor, headers: &HeaderMap) -> Result<Vec<String>, Refused> {
    let view = view(reactor, headers)?;
    Ok(view.map_or_else(|| reactor.model_names(), |view| vec![view.route.model.to_string()]))
}

fn unclear(message: &str) -> Refused {
    (StatusCode::BAD_REQUEST, message.to_owned())
}

/// The text of a preview token, where a request has one. What is no text is no good token either.
fn token(headers: &HeaderMap) -> Option<&str> {
    if let Some(value) = headers.get(TOKEN) {
        return Some(value.to_str().unwrap_or_default());
    }
    let cookies = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.into_iter().find(|(name, _)| *name == TOKEN_COOKIE).map(|(_, value)| value.trim_matches('"'))
}

/// What a token of this environment's agent says.
fn signed(reactor: &Reactor, token: &str) -> Result<Claims, Refused> {
    let environment = &reactor.options.environment;
    let no = |why: &str| {
        let message = format!("{why}; get one with: lockgate preview --env {environment}");
        (StatusCode::UNAUTHORIZED, message)
    };
    let Some(key) = &reactor.options.preview_key else {
        return Err(no("this gateway takes no preview tokens"));
    };
    let claims = Claims::verify(token, key, reactor.clock.now_ms()).map_err(|bad| no(&bad.to_string()))?;
    if claims.environment.as_str() != environment {
        return Err(no(&format!(
            "the preview token is for model `{}` in environment `{}`",
            claims.model, claims.environment
        )));
    }
    Ok(claims)
}

/// The same for one model.
fn verified(reactor: &Reactor, route: &Route, token: &str) -> Result<Claims, Refused> {
    let of_model = |text: String| format!("{text} --model {}", route.model);
    let claims = signed(reactor, token).map_err(|(status, text)| (status, of_model(text)))?;
    if claims.model != *route.model {
        let environment = &reactor.options.environment;
        let message = format!(
            "the preview token is for model `{}` in environment `{environment}`; get one with: lockgate preview --env {environment}",
            claims.model
        );
        return Err((StatusCode::UNAUTHORIZED, of_model(message)));
    }
    Ok(claims)
}

/// Whether whoever asks may: by the plan that the environment runs. Its own smoke test always may.
fn permitted(reactor: &Reactor, route: &Route, claims: Option<&Claims>) -> Result<(), Refused> {
    let environment = &reactor.options.environment;
    match (route.testers, claims) {
        (_, Some(Claims { by: None, .. })) | (Testers::Anybody, _) | (Testers::Token, Some(_)) => Ok(()),
        (Testers::Token, None) => {
            let message = format!(
                "to choose who answers takes a preview token (x-lockgate-preview): lockgate preview --env {environment} --model {}",
                route.model
            );
            Err((StatusCode::UNAUTHORIZED, message))
        }
        (Testers::Nobody, _) => {
            let message = format!(
                "nobody may choose who answers in environment `{environment}`: it has no testers (testers = \"token\" in [env.{environment}])"
            );
            Err((StatusCode::FORBIDDEN, message))
        }
    }
}

fn find<'a>(route: &'a Route, wanted: &str) -> Result<&'a Arc<Side>, Refused> {
    let here = || {
        let all: Vec<String> = route
            .all_sides()
            .map(|s| format!("{} v{} ({})", s.role.as_str(), s.model_version, s.release.short()))
            .collect();
        all.join(", ")
    };
    let of = |role: Role| route.all_sides().find(|side| side.role == role);
    let found = match wanted {
        "candidate" => of(Role::Candidate),
        "baseline" => of(Role::Baseline),
        text => {
            let digits = text.strip_prefix("sha256:").unwrap_or(text);
            if digits.len() < DIGITS || !digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                let message = format!(
                    "`{}` is none of `candidate`, `baseline` or at least {DIGITS} digits of a release's digest",
                    shown(text)
                );
                return Err(unclear(&message));
            }
            let fits = |digest: &Digest| digest.hex().starts_with(digits);
            let mut fit = route.all_sides().filter(|side| fits(&side.release) || fits(&side.revision));
            let first = fit.next();
            if let Some(other) = first.and_then(|first| fit.find(|other| other.revision != first.revision)) {
                let (role, release) = (other.role.as_str(), other.release.short());
                return Err(unclear(&format!(
                    "{text} fits the {role} ({release}) too: give more of it, or say `candidate` or `baseline`"
                )));
            }
            first
        }
    };
    found.ok_or_else(|| {
        let message = format!("model `{}` has no {} here now; it has {}", route.model, shown(wanted), here());
        (StatusCode::NOT_FOUND, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> (String, Option<String>) {
        let mut request = Request::new(());
        *request.uri_mut() = text.parse().unwrap();
        unwrap(&mut request);
        let token = request.headers().get(TOKEN).map(|v| v.to_str().unwrap().to_owned());
        (request.uri().to_string(), token)
    }

    #[test]
    fn a_token_before_a_path_becomes_a_header() {
        let some = |t: &str| Some(t.to_owned());
        assert_eq!(
            path("/preview/a.b-c/v2/models/m/infer?x=1"),
            ("/v2/models/m/infer?x=1".to_owned(), some("a.b-c"))
        );
        assert_eq!(path("/preview/abc"), ("/".to_owned(), some("abc")));
        assert_eq!(path("/preview/abc/"), ("/".to_owned(), some("abc")));
        assert_eq!(path("/preview/abc?x=1"), ("/?x=1".to_owned(), some("abc")));
        assert_eq!(path("/preview//v2"), ("/v2".to_owned(), some("")));
        assert_eq!(path("/v2/models/preview/infer"), ("/v2/models/preview/infer".to_owned(), None));
    }

    #[test]
    fn a_token_is_found_among_cookies() {
        let mut headers = HeaderMap::new();
        assert_eq!(token(&headers), None);
        headers.append(COOKIE, HeaderValue::from_static("a=b; lockgate-previews=no"));
        headers.append(COOKIE, HeaderValue::from_static("c=d;lockgate-preview=\"t.o-k\"; e"));
        assert_eq!(token(&headers), Some("t.o-k"));
        headers.insert(TOKEN, HeaderValue::from_static("first"));
        assert_eq!(token(&headers), Some("first"));
        headers.insert(TOKEN, HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(token(&headers), Some(""), "no good token, but one");
    }
}
