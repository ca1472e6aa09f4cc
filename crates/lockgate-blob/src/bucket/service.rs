//! The service's client: how it is reached, how long it is waited for, and its errors in words.

use crate::error::BlobError;
use crate::place::BucketName;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::{HttpClient, HttpConnector};
use object_store::{BackoffConfig, ClientOptions, Error, RetryConfig};
use std::fmt::{self, Display};
use std::time::Duration;

/// How long an answer is waited for, retries included: whoever asked should be told before they give up themselves.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How many bytes a second a line must carry at least for what is sent.
const SLOWEST: u64 = 50_000;
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// A client that follows no redirections: they would take credentials along, and what answers there is not the bucket.
#[derive(Debug)]
struct Direct;

impl HttpConnector for Direct {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .tcp_keepalive(PATIENCE)
            .build();
        let client = client.map_err(|e| Error::Generic { store: "S3", source: Box::new(e) })?;
        Ok(HttpClient::new(client))
    }
}

pub(super) fn connect(builder: AmazonS3Builder, name: &BucketName) -> Result<AmazonS3, BlobError> {
    for key in [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint] {
        check(builder.get_config_value(&key), name)?;
    }
    let backoff = BackoffConfig { max_backoff: Duration::from_secs(4), ..BackoffConfig::default() };
    let retry = RetryConfig { backoff, max_retries: 20, retry_timeout: PATIENCE };
    builder
        .with_bucket_name(&name.bucket)
        .with_http_connector(Direct)
        // Only an address that says so itself goes without TLS.
        .with_client_options(ClientOptions::new().with_allow_http(true))
        .with_retry(retry)
        // The signature is what the service checks the bytes by.
        .with_unsigned_payload(false)
        .with_skip_signature(false)
        // One at a time, each after a look at it.
        .with_config(AmazonS3ConfigKey::DisableBulkDelete, "true")
        .build()
        .map_err(|error| failed("use", name)(error))
}

/// Anything else than an address makes the client panic.
fn check(endpoint: Option<String>, name: &BucketName) -> Result<(), BlobError> {
    let Some(endpoint) = endpoint else { return Ok(()) };
    match reqwest::Url::parse(&endpoint) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(()),
        _ => Err(BlobError::Bucket {
            what: "use",
            bucket: name.to_string(),
            detail: format!("AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL is `{endpoint}`"),
            hint: "it must begin with https:// or http://, as in https://minio.example.org:9000",
        }),
    }
}

/// Waits for the service no longer than it may take to carry so many bytes.
pub(super) async fn within<T>(
    bytes: u64,
    work: impl Future<Output = object_store::Result<T>>,
) -> object_store::Result<T> {
    let limit = PATIENCE + Duration::from_secs(bytes / SLOWEST);
    tokio::time::timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(Error::Generic { store: "S3", source: Box::new(Silent(limit)) }))
}

#[derive(Debug)]
struct Silent(Duration);

impl std::error::Error for Silent {}

impl Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer for {} s", self.0.as_secs())
    }
}

/// Translates the service's error, with what to do about it.
pub(super) fn failed(what: &'static str, name: &BucketName) -> impl Fn(Error) -> BlobError + use<> {
    let bucket = name.to_string();
    move |error| {
        let detail = told(&error);
        BlobError::Bucket { what, bucket: bucket.clone(), hint: hint(&error, &detail), detail }
    }
}

fn hint(error: &Error, detail: &str) -> &'static str {
    let code = detail.split(':').next().unwrap_or_default();
    match code {
        "ExpiredToken"
        | "InvalidAccessKeyId"
        | "InvalidToken"
        | "SignatureDoesNotMatch"
        | "TokenRefreshRequired" => {
            "the server's credentials are wrong or have expired: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, or its role"
        }
        "RequestTimeTooSkewed" => "set this machine's clock",
        "NoSuchBucket" => "create the bucket, or correct the name",
        _ => match error {
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
                "allow s3:GetObject, s3:PutObject, s3:ListBucket and s3:AbortMultipartUpload there, and s3:DeleteObject to `lockgate db gc`; its credentials come from AWS_ACCESS_KEY_ID and its like"
            }
            Error::NotFound { .. } => "nothing is kept there: create the bucket, or correct the name",
            _ => "is the service there? AWS_ENDPOINT_URL_S3 and AWS_REGION say where",
        },
    }
}

/// What happened, in a few words: what services answer and where they are can hold what is nobody else's business.
fn told(error: &Error) -> String {
    let whole = format!("{error:?}");
    let between = |from: &str, to: &str| Some(whole.split_once(from)?.1.split_once(to)?.0.to_owned());
    if let Some(code) = between("<Code>", "</Code>") {
        let message = between("<Message>", "</Message>").unwrap_or_default();
        return short(&format!("{code}: {message}"));
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    let text = cause.to_string();
    // A refusal without words still has its number.
    match text.split_once("status code: ").or_else(|| text.split_once("status ")) {
        Some((_, status)) => short(&format!("status {status}")),
        None => short(&text),
    }
}

fn short(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.split('<').next().unwrap_or_default().trim_end_matches([':', ' ']).chars().take(200).collect()
}
