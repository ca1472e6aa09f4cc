//! Where a model version's files come from: `models:/m-…`, `models:/NAME/VERSION`, `runs:/RUN/path`,
//! `mlflow-artifacts:/…`, or a place elsewhere.

use super::places::{self, Owner, PROXY};
use super::{
    Clause, Comparator, Field, KeyValue, ModelVersion, Operand, Page, Search, TrackingError, aliases, models,
    runs, uris,
};
use lockgate_store::Conn;

/// The tag of a version that holds a prompt.
pub(super) const PROMPT_TEXT: &str = "mlflow.prompt.text";
/// What MLflow's clients write where a prompt has no source.
pub(super) const PLACEHOLDERS: [&str; 2] = ["dummy-source", "prompt-template"];

/// Where a version's files lie and what they descend from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    /// Where the files lie.
    pub(super) uri: String,
    /// The run behind them; may be empty.
    pub(super) run_id: String,
    /// The logged model behind them; may be empty.
    pub(super) model_id: String,
}

fn refused(source: &str, why: &str) -> TrackingError {
    TrackingError::invalid(format!("Invalid model version source: '{source}'. {why}"))
}

/// Whether a source's own id agrees with the one that the request names.
fn agrees(source: &str, what: &str, given: &str, own: &str) -> Result<(), TrackingError> {
    if given.is_empty() || given == own {
        return Ok(());
    }
    Err(refused(source, &format!("It belongs to {what} '{own}', but the request names '{given}'.")))
}

/// What a source means.
pub(super) async fn origin(
    conn: &mut Conn,
    source: &str,
    run_id: &str,
    model_id: &str,
) -> Result<Origin, TrackingError> {
    let given = Origin { uri: source.to_owned(), run_id: run_id.to_owned(), model_id: model_id.to_owned() };
    if source.is_empty() || source.chars().any(char::is_control) {
        return Err(refused(source, "It must be a URI."));
    }
    let source = uris::with_small_scheme(source);
    let source = source.as_str();
    if let Some(rest) = source.strip_prefix("models:/") {
        return of_model(conn, rest.trim_start_matches('/'), given).await;
    }
    if let Some(rest) = source.strip_prefix("runs:/") {
        return of_run(conn, rest.trim_start_matches('/'), given).await;
    }
    if let Some(path) = places::root_of(source) {
        return of_proxy(conn, path, given).await;
    }
    let Some((scheme, rest)) = source.split_once(':') else { return Err(local(source)) };
    match scheme.to_ascii_lowercase().as_str() {
        "http" | "https" => match rest.split_once(PROXY) {
            Some((_, path)) => of_proxy(conn, path, given).await,
            None => Err(refused(source, "It is no artifact of this server.")),
        },
        "file" => Err(local(source)),
        // One letter is a drive of Windows.
        scheme if scheme.len() < 2 => Err(local(source)),
        _ if rest.split(['/', '\\']).any(|part| part == "..") => {
            Err(refused(source, "It must not contain '..'."))
        }
        _ => Ok(given),
    }
}

fn local(source: &str) -> TrackingError {
    refused(source, "A local path means nothing to a server: log the model, then register it from its run.")
}

async fn of_model(conn: &mut Conn, rest: &str, given: Origin) -> Result<Origin, TrackingError> {
    let (first, below) = rest.split_once('/').unwrap_or((rest, ""));
    if places::is_model_id(first) {
        agrees(&given.uri, "logged model", &given.model_id, first)?;
        let model = models::found(conn, first).await?;
        let uri = below_uri(&model.artifact_uri, places::checked(below)?);
        let run_id = if given.run_id.is_empty() { model.source_run_id } else { given.run_id };
        return Ok(Origin { uri, run_id, model_id: model.model_id });
    }
    let version = match (rest.split_once('/'), rest.rsplit_once('@')) {
        (Some((name, version)), _) => aliases::version(conn, name, version).await?,
        (None, Some((name, alias))) => aliases::pointed_to(conn, name, alias).await?,
        (None, None) => {
            return Err(refused(
                &given.uri,
                "Use models:/NAME/VERSION, models:/NAME@ALIAS or models:/MODEL_ID.",
            ));
        }
    };
    if is_prompt(&version) {
        return Err(refused(&given.uri, "It is a prompt, not a model."));
    }
    let run_id = if given.run_id.is_empty() { version.run_id } else { given.run_id };
    let model_id = if given.model_id.is_empty() { version.model_id } else { given.model_id };
    Ok(Origin { uri: version.storage_location, run_id, model_id })
}

/// Whether a version is one of MLflow's prompts.
pub(super) fn is_prompt(version: &ModelVersion) -> bool {
    is_prompt_tagged(&version.tags)
}

/// Whether tags say that their model or version is a prompt.
pub(super) fn is_prompt_tagged(tags: &[KeyValue]) -> bool {
    tags.iter().any(|tag| tag.key == "mlflow.prompt.is_prompt" && tag.value.eq_ignore_ascii_case("true"))
}

async fn of_run(conn: &mut Conn, rest: &str, given: Origin) -> Result<Origin, TrackingError> {
    let (id, below) = rest.split_once('/').unwrap_or((rest, ""));
    agrees(&given.uri, "run", &given.run_id, id)?;
    let run = runs::row(conn, id).await?;
    let below = places::checked(below)?;
    let uri = below_uri(&run.artifact_uri, below);
    let of_run = Origin { uri, run_id: run.run_id.clone(), model_id: given.model_id };
    if has_files(conn, &of_run.uri).await? {
        return Ok(of_run);
    }
    // Since MLflow 3 a model's files lie with the logged model of that name.
    Ok(match logged_by(conn, run.experiment_id, id, below).await? {
        Some(model) => Origin { uri: model.artifact_uri, model_id: model.model_id, run_id: run.run_id },
        None => of_run,
    })
}

/// The newest logged model of this name that a run made.
async fn logged_by(
    conn: &mut Conn,
    experiment: i64,
    run: &str,
    name: &str,
) -> Result<Option<super::LoggedModel>, TrackingError> {
    let is = |name, operand| Clause { field: Field::Attribute(name), comparator: Comparator::Eq, operand };
    let clauses = vec![
        is("experiment_id", Operand::Int(experiment)),
        is("source_run_id", Operand::Text(run.to_owned())),
        is("name", Operand::Text(name.to_owned())),
    ];
    let search = Search { clauses, order: vec![], datasets: vec![], page: Page { limit: 1, offset: 0 } };
    Ok(conn.search_logged_models(&search).await?.pop())
}

async fn of_proxy(conn: &mut Conn, path: &str, given: Origin) -> Result<Origin, TrackingError> {
    let path = places::checked(path)?;
    let place = places::split(path)
        .ok_or_else(|| refused(&given.uri, "It belongs to no run and no logged model."))?;
    let uri = places::uri(path);
    match place.owner {
        Owner::Run(id) => {
            agrees(&given.uri, "run", &given.run_id, &id)?;
            runs::row(conn, &id).await?;
            Ok(Origin { uri, run_id: id, model_id: given.model_id })
        }
        Owner::Model(id) => {
            agrees(&given.uri, "logged model", &given.model_id, &id)?;
            let model = models::found(conn, &id).await?;
            let run_id = if given.run_id.is_empty() { model.source_run_id } else { given.run_id };
            Ok(Origin { uri, run_id, model_id: id })
        }
        Owner::Trace(_) => Err(refused(&given.uri, "It belongs to a trace.")),
        Owner::Version => Ok(Origin { uri, ..given }),
    }
}

fn below_uri(uri: &str, below: &str) -> String {
    if below.is_empty() { uri.to_owned() } else { places::below(uri, below) }
}

/// The files at a URI of this server, their paths relative to it; none where it is another's.
pub(super) async fn files(conn: &mut Conn, uri: &str) -> Result<Vec<super::Artifact>, TrackingError> {
    let Some(place) = places::root_of(uri).and_then(places::split) else { return Ok(Vec::new()) };
    let prefix = place.prefix();
    let mut found = conn.artifacts(&place.root, &prefix).await?;
    for file in &mut found {
        file.path = file.path.split_off(prefix.len());
    }
    Ok(found)
}

async fn has_files(conn: &mut Conn, uri: &str) -> Result<bool, TrackingError> {
    Ok(!files(conn, uri).await?.is_empty())
}
