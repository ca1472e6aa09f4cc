//! `mlflow-artifacts/mpu/…` and `presigned/…`: large files in parts. The URLs that these answer with lead to `signed/…`,
//! where clients send and fetch bytes without signing in.

use super::files::file;
use crate::call::{Answer, Call, Caller, Scoped};
use crate::error::MlflowError;
use axum::extract::{FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use futures_util::TryStreamExt as _;
use lockgate_control::tracking::{DEFAULT_WORKSPACE, Signed, Tracking};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};

/// Where the routes of this module lie, for the URLs that clients are given.
const API: &str = "/api/2.0/mlflow-artifacts";

/// What is encoded in the path of a URL.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

pub(super) fn routes() -> Router<Tracking> {
    Router::new()
        .route("/mpu/create/{*path}", post(create))
        .route("/mpu/complete/{*path}", post(complete))
        .route("/mpu/abort/{*path}", post(abort))
        .route("/presigned/{*path}", get(presigned))
        .route("/signed/part/{*path}", put(put_part))
        .route("/signed/file/{*path}", get(get_file))
}

/// What stands behind a part's URL.
#[derive(Debug, Deserialize)]
struct PartQuery {
    upload: String,
    part: u32,
    expires: i64,
    signature: String,
}

/// What stands behind a file's URL.
#[derive(Debug, Deserialize)]
struct FileQuery {
    digest: String,
    expires: i64,
    signature: String,
}

/// The address by which the client called: URLs that it is given lead there again.
struct Base(String);

impl Base {
    fn of(tracking: &Tracking, headers: &HeaderMap, uri: &Uri) -> Result<Self, MlflowError> {
        let workspace = Some(tracking.workspace_name()).filter(|name| *name != DEFAULT_WORKSPACE);
        let prefix = workspace.map(|name| format!("/env/{name}")).unwrap_or_default();
        Self::with_prefix(&prefix, headers, uri)
    }

    fn with_prefix(prefix: &str, headers: &HeaderMap, uri: &Uri) -> Result<Self, MlflowError> {
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let host = text(header::HOST).or_else(|| uri.authority().map(|a| a.as_str()));
        let host = host.ok_or_else(|| MlflowError::bad_request("The request has no Host header"))?;
        // What ends TLS in front of this server says so.
        let scheme = match text(HeaderName::from_static("x-forwarded-proto")) {
            Some(proto) if proto.trim().eq_ignore_ascii_case("https") => "https",
            _ => "http",
        };
        Ok(Self(format!("{scheme}://{host}{prefix}{API}/signed")))
    }

    fn url(&self, kind: &str, path: &str, pairs: &str, signed: &Signed) -> String {
        let Signed { expires, signature } = signed;
        format!(
            "{}/{kind}/{}?{pairs}&expires={expires}&signature={signature}",
            self.0,
            utf8_percent_encode(path, PATH)
        )
    }
}

/// The folder that a path names. Where it leads elsewhere nothing else of the request is looked at.
struct Folder(String);

impl FromRequestParts<Tracking> for Folder {
    type Rejection = MlflowError;

    async fn from_request_parts(parts: &mut Parts, tracking: &Tracking) -> Result<Self, MlflowError> {
        Caller::from_request_parts(parts, tracking).await?;
        let Path(folder) = Path::<String>::from_request_parts(parts, tracking)
            .await
            .map_err(|e| MlflowError::invalid(format!("Invalid path: {}", e.body_text())))?;
        tracking.is_safe(&folder)?;
        Ok(Self(folder))
    }
}

async fn create(
    Folder(folder): Folder,
    headers: HeaderMap,
    uri: Uri,
    Call { tracking, actor, message }: Call,
) -> Answer {
    let base = Base::of(&tracking, &headers, &uri)?;
    let (local, count) = (message.required("path")?, message.int("num_parts")?.unwrap_or(1));
    let begun = tracking.begin_upload(&actor, &folder, &local, count).await?;
    // The signatures are over the id without its own signature.
    let upload = begun.id.rsplit_once('-').map_or(begun.id.as_str(), |(upload, _)| upload);
    let part = |(number, signed): (usize, &Signed)| {
        let url = base.url("part", &begun.path, &format!("upload={upload}&part={number}"), signed);
        json!({"url": url, "part_number": number, "headers": {}})
    };
    let credentials: Vec<Value> = (1..).zip(&begun.parts).map(part).collect();
    Ok(Json(json!({"upload_id": begun.id, "credentials": credentials})))
}

async fn put_part(
    Scoped(tracking): Scoped,
    Path(path): Path<String>,
    Query(query): Query<PartQuery>,
    request: Request,
) -> Result<Response, MlflowError> {
    let PartQuery { upload, part, expires, signature } = query;
    let bytes = request.into_body().into_data_stream().map_err(std::io::Error::other);
    let signed = Signed { expires, signature };
    let digest = tracking.put_part(&path, &upload, part, &signed, bytes).await?;
    let etag = HeaderValue::try_from(format!("\"{}\"", digest.hex()));
    let etag = etag.map_err(|e| MlflowError::internal(e.to_string()))?;
    Ok((StatusCode::OK, [(header::ETAG, etag)]).into_response())
}

async fn complete(Folder(folder): Folder, Call { tracking, actor, message }: Call) -> Answer {
    let (local, upload) = (message.required("path")?, message.required("upload_id")?);
    let mut parts = Vec::new();
    for part in message.messages("parts")? {
        let number = part.int("part_number")?.ok_or_else(|| part.missing("part_number"))?;
        parts.push((number, part.required("etag")?));
    }
    tracking.complete_upload(&actor, &folder, &local, &upload, &parts).await?;
    Ok(Json(json!({})))
}

async fn abort(Folder(folder): Folder, Call { tracking, actor, message }: Call) -> Answer {
    let (local, upload) = (message.required("path")?, message.required("upload_id")?);
    tracking.abort_upload(&actor, &folder, &local, &upload).await?;
    Ok(Json(json!({})))
}

async fn presigned(
    Scoped(tracking): Scoped,
    Path(path): Path<String>,
    Caller(actor): Caller,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, MlflowError> {
    let base = Base::of(&tracking, &headers, &uri)?;
    let found = tracking.sign_download(&actor, &path).await?;
    let url = base.url("file", &found.path, &format!("digest={}", found.digest), &found.signed);
    let answer = Json(json!({"url": url, "headers": {}, "file_size": found.size}));
    Ok(([(header::CACHE_CONTROL, "no-store")], answer).into_response())
}

async fn get_file(
    Scoped(tracking): Scoped,
    Path(path): Path<String>,
    Query(query): Query<FileQuery>,
    headers: HeaderMap,
) -> Result<Response, MlflowError> {
    let FileQuery { digest, expires, signature } = query;
    let opened = tracking.open_signed(&path, &digest, &Signed { expires, signature }).await?;
    file(opened, &headers).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lead_to_where_the_client_called() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            let pair = |(name, value): &(&'static str, &'static str)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            pairs.iter().map(pair).collect::<HeaderMap>()
        };
        let uri = Uri::from_static("/x");
        let base = |pairs: &[(&'static str, &'static str)]| {
            Base::with_prefix("", &headers(pairs), &uri).map(|base| base.0)
        };
        assert_eq!(base(&[("host", "h:7600")]).unwrap(), "http://h:7600/api/2.0/mlflow-artifacts/signed");
        let behind = base(&[("host", "models.example"), ("x-forwarded-proto", "https")]).unwrap();
        assert_eq!(behind, "https://models.example/api/2.0/mlflow-artifacts/signed");
        assert!(base(&[]).is_err());
        let signed = Signed { expires: 5, signature: "ab".to_owned() };
        assert_eq!(
            Base("http://h/s".to_owned()).url("part", "0/r/a b?ü#.bin", "part=1", &signed),
            "http://h/s/part/0/r/a%20b%3F%C3%BC%23.bin?part=1&expires=5&signature=ab"
        );
    }
}
