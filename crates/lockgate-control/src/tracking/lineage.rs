//! What a version may be registered from: MLflow's rules, which tie a source to the run or the logged model that the request
//! names. What a source means is in `sources`.

use super::places::{self, PROXY};
use super::uris::{self, Uri};
use super::{ModelVersion, TrackingError, aliases, models, python, registry, sources, versions};
use lockgate_store::Conn;

/// Schemes by which whoever reads the files connects to any host that the URI names. Nothing of this server reads them, but the
/// clients do.
const HOSTS: [&str; 9] = ["ftp", "sftp", "hdfs", "viewfs", "http", "https", "r2", "b2", "abfss"];
const OWN: &str = "mlflow-artifacts";

/// A source with the run and the logged model behind it; these may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lineage {
    pub(super) source: String,
    pub(super) run_id: String,
    pub(super) model_id: String,
}

fn refused(source: &str, why: &str) -> TrackingError {
    TrackingError::invalid(format!("Invalid model version source: '{source}'. {why}"))
}

/// The request lacks the id of what contains the source, or names another.
fn not_identified(source: &str, id: &str) -> TrackingError {
    refused(
        source,
        &format!("The {id} request parameter must identify the resource that contains the source."),
    )
}

/// The source of a prompt, which has no files.
pub(super) fn check_prompt(source: &str) -> Result<(), TrackingError> {
    if sources::PLACEHOLDERS.contains(&source) {
        return Ok(());
    }
    Err(TrackingError::invalid(format!(
        "Invalid prompt source: '{source}'. A prompt has no files: its source is one of {}.",
        sources::PLACEHOLDERS.join(", ")
    )))
}

/// A source as it is kept, and what it descends from, where it may be registered.
pub(super) async fn checked(conn: &mut Conn, asked: Lineage) -> Result<Lineage, TrackingError> {
    if asked.source.chars().any(char::is_control) {
        return Err(refused(&asked.source, "It must be a URI."));
    }
    check_host(&asked.source)?;
    let found = match Uri::of(&asked.source).scheme.as_str() {
        "models" => {
            let source = uris::with_small_scheme(&asked.source);
            of_registered(conn, Lineage { source, ..asked }).await?
        }
        "runs" => Lineage { source: uris::with_small_scheme(&asked.source), ..asked },
        _ => asked,
    };
    match found.model_id.as_str() {
        "" => check_run(conn, &found).await?,
        _ => check_model(conn, &found).await?,
    }
    with_run(conn, found).await
}

fn relative(source: &str, more: &str) -> TrackingError {
    refused(
        source,
        &format!(
            "If supplying a source as an http, https, local file path, ftp, objectstore, or mlflow-artifacts uri, an absolute \
             path must be provided without relative path references present.{more}"
        ),
    )
}

/// Refuses schemes that address any host, but for this server's own artifacts by HTTP.
fn check_host(source: &str) -> Result<(), TrackingError> {
    let uri = Uri::of(source);
    let here = match uri.scheme.as_str() {
        OWN => uri.authority.is_empty(),
        "http" | "https" => source.contains(PROXY),
        scheme => !HOSTS.contains(&scheme),
    };
    if here {
        return Ok(());
    }
    let scheme = &uri.scheme;
    let why = format!(
        "'source' cannot use the '{scheme}' scheme: it addresses a host that this server's artifacts don't lie at, and whoever \
         loads the version would connect there."
    );
    match uris::is_plain(source) {
        true => Err(TrackingError::Invalid(why)),
        false => Err(relative(source, &format!(" {why}"))),
    }
}

/// The registered version that a source of the form `models:/…` means; a logged model is left as it is.
async fn of_registered(conn: &mut Conn, asked: Lineage) -> Result<Lineage, TrackingError> {
    let source = asked.source.as_str();
    if !Uri::of(source).authority.is_empty() {
        return Err(refused(source, "Registered model sources must use the active model registry."));
    }
    let rest = source.split_once(':').map_or("", |(_, rest)| rest);
    let Some(path) = rest.strip_prefix('/').map(|path| path.trim_start_matches('/')) else {
        return Err(not_identified(source, "model_id"));
    };
    let parts: Vec<&str> = path.split('/').collect();
    let (name, version) = match (parts.as_slice(), path.rsplit_once('@')) {
        ([name, version], _) => (*name, Wanted::Version(version)),
        ([_], Some((name, alias))) => (name, Wanted::Alias(alias)),
        ([id], None) if !id.trim().is_empty() => return Ok(asked),
        _ => return Err(not_identified(source, "model_id")),
    };
    if name.trim().is_empty() || version.text().trim().is_empty() {
        return Err(not_identified(source, "model_id"));
    }
    let found = version.found(conn, name, source).await?;
    let same = |given: &str, own: &str| given.is_empty() || given == own;
    if !same(&asked.run_id, &found.run_id) || !same(&asked.model_id, &found.model_id) {
        return Err(refused(
            source,
            "The run_id and model_id request parameters must match the referenced model version.",
        ));
    }
    let source = format!("models:/{name}/{}", found.version);
    Ok(Lineage { source, run_id: found.run_id, model_id: found.model_id })
}

/// Which of a registered model's versions is meant.
enum Wanted<'a> {
    Version(&'a str),
    Alias(&'a str),
}

impl Wanted<'_> {
    fn text(&self) -> &str {
        match self {
            Self::Version(text) | Self::Alias(text) => text,
        }
    }

    async fn found(&self, conn: &mut Conn, name: &str, source: &str) -> Result<ModelVersion, TrackingError> {
        let model = registry::found(conn, name).await?;
        let prompt = || refused(source, "Prompt versions cannot be used as model version sources.");
        if sources::is_prompt_tagged(&model.tags) {
            return Err(prompt());
        }
        let version = match self {
            Self::Alias(alias) => aliases::pointed_to(conn, name, alias).await?,
            Self::Version(text) if text.bytes().all(|b| b.is_ascii_digit()) => {
                versions::found(conn, name, versions::number(text)?).await?
            }
            Self::Version(text) if text.eq_ignore_ascii_case("latest") => {
                aliases::version(conn, name, "latest").await?
            }
            Self::Version(stage) => {
                let newest = model.latest.iter().find(|version| version.stage.eq_ignore_ascii_case(stage));
                let none = format!("No versions of model with name '{name}' and stage '{stage}' found");
                versions::found(conn, name, newest.ok_or(TrackingError::Invalid(none))?.version).await?
            }
        };
        if sources::is_prompt(&version) { Err(prompt()) } else { Ok(version) }
    }
}

/// A source that belongs to nothing else must belong to the run that the request names.
async fn check_run(conn: &mut Conn, asked: &Lineage) -> Result<(), TrackingError> {
    let (source, run) = (asked.source.as_str(), asked.run_id.as_str());
    let uri = Uri::of(source);
    let location = if run.is_empty() { None } else { conn.run_row(run).await?.map(|run| run.artifact_uri) };
    if uris::is_local(&uri) {
        // Where a run is named that is not there, nothing identifies the folder.
        return match location {
            None if !run.is_empty() => Err(not_identified(source, "run_id")),
            location => check_local(&uri, source, "run_id", location.as_deref()),
        };
    }
    if !uris::is_plain(source) {
        return Err(relative(source, ""));
    }
    let identified = match uri.scheme.as_str() {
        "runs" => {
            let id = uri.path.strip_prefix('/').and_then(|path| path.split('/').next());
            uri.authority.is_empty() && !run.is_empty() && id == Some(run)
        }
        "models" if is_logged_model(&uri) => return Err(not_identified(source, "model_id")),
        _ => match own_path(source) {
            Some(path) => location.is_some_and(|root| is_within(&path, &root)),
            None => true,
        },
    };
    if identified { Ok(()) } else { Err(not_identified(source, "run_id")) }
}

/// The same for a logged model.
async fn check_model(conn: &mut Conn, asked: &Lineage) -> Result<(), TrackingError> {
    let (source, id) = (asked.source.as_str(), asked.model_id.as_str());
    let uri = Uri::of(source);
    let location = conn.logged_model(id).await?.map(|model| model.artifact_uri);
    if uris::is_local(&uri) {
        return match location {
            None => Err(not_identified(source, "model_id")),
            location => check_local(&uri, source, "model_id", location.as_deref()),
        };
    }
    if !uris::is_plain(source) {
        return Err(relative(source, ""));
    }
    let identified = match uri.scheme.as_str() {
        "runs" => false,
        "models" if is_logged_model(&uri) => uri.path.trim_start_matches('/') == id,
        _ => match own_path(source) {
            Some(path) => location.is_some_and(|root| is_within(&path, &root)),
            None => true,
        },
    };
    if identified { Ok(()) } else { Err(not_identified(source, "model_id")) }
}

/// `models:/ID`: versions have been made `models:/NAME/NUMBER` before.
fn is_logged_model(uri: &Uri<'_>) -> bool {
    !uri.path.trim_start_matches('/').contains('/')
}

/// A local path is good where it lies in the folder of the run or the model that the request names.
fn check_local(uri: &Uri<'_>, source: &str, id: &str, folder: Option<&str>) -> Result<(), TrackingError> {
    let host = uri.host();
    let here =
        host.is_empty() || host == "." || host.starts_with("localhost") || host.starts_with("127.0.0.1");
    if !here {
        return Err(refused(source, &format!("{} is not a valid remote uri.", python::text(source))));
    }
    if folder.is_some_and(|folder| uris::is_local_within(source, folder)) {
        return Ok(());
    }
    Err(refused(
        source,
        &format!(
            "To use a local path as a model version source, the {id} request parameter has to be specified and the local path has \
             to be contained within the artifact directory of the run specified by the {id}."
        ),
    ))
}

/// The path below this server's artifacts that a URI means, where it is such a URI.
fn own_path(source: &str) -> Option<String> {
    let source = uris::with_small_scheme(source);
    let http = source.starts_with("http:") || source.starts_with("https:");
    match source.split_once(PROXY) {
        Some((_, path)) if http => Some(path.to_owned()),
        _ => Uri::of(&source).scheme.eq(OWN).then(|| places::root_of(&source).unwrap_or_default().to_owned()),
    }
}

fn is_within(path: &str, root: &str) -> bool {
    let parts =
        |path: &str| path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let root = places::root_of(root).map(parts).unwrap_or_default();
    !root.is_empty() && parts(path).starts_with(&root)
}

/// A version of a logged model is one of the run that made it, unless the request says another.
async fn with_run(conn: &mut Conn, found: Lineage) -> Result<Lineage, TrackingError> {
    let uri = Uri::of(&found.source);
    let of_model = uri.scheme == "models" && is_logged_model(&uri);
    if found.model_id.is_empty() || (uri.scheme == "models" && !of_model) {
        return Ok(found);
    }
    let model = models::found(conn, &found.model_id).await.map_err(|error| match error {
        // MLflow's own server fails here, which its client takes for a reason to try again.
        TrackingError::Missing(text) if of_model => TrackingError::invalid(format!(
            "Unable to fetch model from model URI source artifact location '{}'. {text}",
            found.source
        )),
        error => error,
    })?;
    let run_id = if found.run_id.is_empty() { model.source_run_id } else { found.run_id };
    Ok(Lineage { run_id, ..found })
}
