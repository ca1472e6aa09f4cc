//! Releases: made from a registered model version, its code and its data; found by their digest.

use crate::Control;
use crate::error::ControlError;
use crate::flavor::{describe, schema_of_served};
use crate::people::{Names, named};
use crate::projection::{ReleaseState, State};
use crate::states::{self, Act};
use crate::tracking::ModelVersionInfo;
use crate::view::{NewGraph, NewRelease, ReleaseView};
use lockgate_config::Project;
use lockgate_core::access::{Action, Target, authorize};
use lockgate_core::actor::{Actor, ActorKind, Via};
use lockgate_core::digest::Digest;
use lockgate_core::entry::{Resource, ResourceKind};
use lockgate_core::event::Event;
use lockgate_core::id::ModelName;
use lockgate_core::promotion::Promotion;
use lockgate_core::release::{File, MANIFEST_VERSION, Manifest, Runtime, is_safe_path};
use std::collections::{BTreeMap, BTreeSet};

/// Where a model keeps its recorded rows with their offline predictions, by convention.
const GOLDEN: &str = "golden.json";

/// The golden set among a model's files: at its root, or where `log_model` puts it that is given `extra_files` or `artifacts`.
fn golden(files: &[File]) -> Option<String> {
    let at = |path: &str| files.iter().find(|f| f.path == path).map(|f| f.path.clone());
    at(GOLDEN).or_else(|| ["extra_files", "artifacts"].iter().find_map(|dir| at(&format!("{dir}/{GOLDEN}"))))
}

/// Where a graph lies that was made from a release's model.
const GRAPH: &str = "optimised/model.onnx";

/// The largest `MLmodel` file that is read.
const MLMODEL_LIMIT: u64 = 1 << 20;

/// How two manifests differ, one sentence a difference.
pub(crate) fn differences(old: &Manifest, new: &Manifest) -> Vec<String> {
    let mut found = Vec::new();
    if old.model_version != new.model_version {
        found.push(format!("model version {} → {}", old.model_version, new.model_version));
    }
    let hashes = |m: &Manifest| -> BTreeMap<String, Digest> {
        m.files.iter().map(|f| (f.path.clone(), f.sha256)).collect()
    };
    found.extend(map_differences("file", &hashes(old), &hashes(new), |d| d.short()));
    let data = |m: &Manifest| -> BTreeMap<String, Digest> {
        m.data.iter().map(|d| (d.name.clone(), d.sha256)).collect()
    };
    found.extend(map_differences("data", &data(old), &data(new), |d| d.short()));
    found.extend(map_differences("parameter", &old.params, &new.params, Clone::clone));
    let commit = |m: &Manifest| m.code.as_ref().map(|c| c.commit.chars().take(12).collect::<String>());
    if commit(old) != commit(new) {
        let word = |c: Option<String>| c.unwrap_or_else(|| "none".to_owned());
        found.push(format!("code {} → {}", word(commit(old)), word(commit(new))));
    }
    let patch = |m: &Manifest| m.code.as_ref().and_then(|c| c.patch);
    if patch(old) != patch(new) {
        found.push("the uncommitted changes differ".to_owned());
    }
    found.extend(old.feature_schema.differences(&new.feature_schema));
    found.extend(crate::served::difference(&old.runtime, &new.runtime));
    found
}

fn map_differences<V: PartialEq>(
    what: &str,
    old: &BTreeMap<String, V>,
    new: &BTreeMap<String, V>,
    show: impl Fn(&V) -> String,
) -> Vec<String> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    names
        .into_iter()
        .filter_map(|name| match (old.get(name), new.get(name)) {
            (Some(a), Some(b)) if a == b => None,
            (Some(a), Some(b)) => Some(format!("{what} {name}: {} → {}", show(a), show(b))),
            (Some(_), None) => Some(format!("{what} {name} is gone")),
            (None, _) => Some(format!("{what} {name} is new")),
        })
        .collect()
}

impl Control {
    /// Makes a release of a registered model version. Making it again gives the same release.
    ///
    /// # Errors
    /// Where the version can't be found or can't be served, or a file or the code's archive is missing.
    pub async fn create_release(&self, actor: &Actor, new: NewRelease) -> Result<ReleaseView, ControlError> {
        authorize(actor, Action::ReleaseCreate, Target::Server)?;
        let project = self.project().await?;
        let info = self.model_version(&new.model, &new.version).await?;
        let manifest = self.manifest(&project, &info, &new).await?;
        let manifest = match new.graph.clone() {
            Some(graph) => self.with_graph(manifest, graph).await?,
            None => manifest,
        };
        manifest.validate().map_err(|e| ControlError::invalid(e.to_string()))?;
        let digest = manifest.digest()?;
        if new.preview {
            let created = self.clock.now_ms();
            let release = ReleaseState { digest, manifest, authors: BTreeSet::new(), created };
            return Ok(ReleaseView {
                existed: false,
                ..self.view_release(release, &[], &self.names().await?)
            });
        }
        let mut authors = BTreeSet::from([actor.id.clone()]);
        for name in new.authors.iter().chain(&info.user) {
            authors.insert(self.actor(ActorKind::User, name, Via::Internal).await?.id);
        }
        let (control, actor, reason) = (self.clone(), actor.clone(), new.reason);
        let existed = self
            .write(move |tx| {
                Box::pin(async move {
                    if tx.load_state("Release", &digest.to_string()).await?.is_some() {
                        return Ok(true);
                    }
                    let resource = Resource {
                        kind: ResourceKind::Release,
                        id: digest.to_string(),
                        project: Some(manifest.project.clone()),
                        environment: None,
                    };
                    let event = Event::ReleaseCreated { digest, manifest: Box::new(manifest), authors };
                    let act =
                        Act { actor, action: Action::ReleaseCreate, resource, event, reason, source: None };
                    control.record(tx, act).await?;
                    Ok(false)
                })
            })
            .await?;
        let release = self.find_release(&digest.to_string()).await?;
        let mut view = self.view_release(release, &self.promotions().await?, &self.names().await?);
        view.existed = existed;
        Ok(view)
    }

    /// The same release, served by a graph that was made from its model.
    async fn with_graph(&self, manifest: Manifest, graph: NewGraph) -> Result<Manifest, ControlError> {
        let Manifest { mut files, runtime, .. } = manifest;
        if runtime != graph.proof.original {
            return Err(ControlError::conflict("the graph was made from another model than this version's")
                .with_hint("somebody changed the version meanwhile; make the release again"));
        }
        if !self.blobs.exists(&graph.sha256).await? {
            return Err(ControlError::conflict("the graph's bytes were not uploaded"));
        }
        if files.iter().any(|f| f.path == GRAPH) {
            return Err(ControlError::conflict(format!("the model has a file `{GRAPH}` of its own")));
        }
        files.push(File { path: GRAPH.to_owned(), size: graph.size, sha256: graph.sha256 });
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let runtime = Runtime::Onnx { entry: GRAPH.to_owned() };
        Ok(Manifest { files, runtime, optimised: Some(Box::new(graph.proof)), ..manifest })
    }

    async fn manifest(
        &self,
        project: &Project,
        info: &ModelVersionInfo,
        new: &NewRelease,
    ) -> Result<Manifest, ControlError> {
        let mut files: Vec<File> = Vec::new();
        for (path, digest, size) in &info.files {
            if !is_safe_path(path) {
                return Err(ControlError::invalid(format!(
                    "the model has a file `{path}`, whose path is not safe"
                )));
            }
            if !self.blobs.exists(digest).await? {
                return Err(ControlError::conflict(format!(
                    "the bytes of the model's file `{path}` are missing"
                ))
                .with_hint("log the model again"));
            }
            files.push(File { path: path.clone(), size: *size, sha256: *digest });
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let serve = project.models.get(&new.model).and_then(|model| model.serve.clone());
        let mlmodel = files.iter().find(|f| f.path == "MLmodel" && f.size <= MLMODEL_LIMIT);
        let text = match mlmodel {
            Some(file) => Some(self.blobs.read_verified(&file.sha256, MLMODEL_LIMIT).await?),
            None => None,
        };
        let text = text.as_deref().map(String::from_utf8_lossy);
        let (feature_schema, runtime) = match (serve, text) {
            (Some(runtime), text) => (schema_of_served(text.as_deref())?, runtime),
            (None, Some(text)) => describe(&text, &files)?,
            (None, None) => {
                return Err(ControlError::invalid(format!(
                    "version {} of `{}` has no MLmodel file",
                    info.version, info.name
                )));
            }
        };
        if let Some(code) = &new.code
            && !self.blobs.exists(&code.archive).await?
        {
            return Err(ControlError::conflict("the code's archive was not uploaded"));
        }
        let mut data = new.data.clone();
        data.sort_by(|a, b| a.name.cmp(&b.name));
        data.dedup_by(|a, b| a.name == b.name);
        let golden = golden(&files);
        Ok(Manifest {
            v: MANIFEST_VERSION,
            project: project.name.clone(),
            model: new.model.clone(),
            model_version: info.version,
            run_id: info.run_id.clone(),
            files,
            code: new.code.clone(),
            data,
            params: info.params.clone(),
            feature_schema,
            runtime,
            golden,
            optimised: None,
        })
    }

    /// The registered version behind a number, an alias or `latest`.
    pub(crate) async fn model_version(
        &self,
        model: &ModelName,
        version: &str,
    ) -> Result<ModelVersionInfo, ControlError> {
        self.tracking.resolve_model(model.as_str(), version).await
    }

    pub(crate) async fn resolve_version(
        &self,
        model: &ModelName,
        version: &str,
    ) -> Result<u64, ControlError> {
        Ok(self.model_version(model, version).await?.version)
    }

    /// All releases.
    pub(crate) async fn releases(&self) -> Result<Vec<ReleaseState>, ControlError> {
        let rows = self.rows("Release").await?;
        rows.iter()
            .map(|row| match states::read("Release", &row.state)? {
                State::Release(state) => Ok(*state),
                _ => Err(ControlError::Internal("a release's state is of another kind".to_owned())),
            })
            .collect()
    }

    /// The release behind a digest, the beginning of one, or `latest`.
    pub(crate) async fn find_release(&self, text: &str) -> Result<ReleaseState, ControlError> {
        let mut all = self.releases().await?;
        all.sort_by_key(|r| r.created);
        let hint = "`lockgate release list` shows them";
        if text == "latest" {
            return all.pop().ok_or_else(|| {
                ControlError::not_found("there is no release yet").with_hint("lockgate release create MODEL")
            });
        }
        let wanted = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
        if wanted.len() < 6 || !wanted.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ControlError::invalid(format!(
                "`{text}` is no release: give at least six digits of its digest"
            ))
            .with_hint(hint));
        }
        let mut found = all.into_iter().filter(|r| r.digest.hex().starts_with(&wanted));
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one),
            (None, _) => Err(ControlError::not_found(format!("there is no release {text}")).with_hint(hint)),
            (Some(_), Some(_)) => Err(ControlError::invalid(format!("several releases begin with {text}"))
                .with_hint("give more digits")),
        }
    }

    /// One release.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn release(&self, actor: &Actor, text: &str) -> Result<ReleaseView, ControlError> {
        authorize(actor, Action::Read, Target::Server)?;
        let release = self.find_release(text).await?;
        Ok(self.view_release(release, &self.promotions().await?, &self.names().await?))
    }

    /// All releases, newest first.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn list_releases(&self, actor: &Actor) -> Result<Vec<ReleaseView>, ControlError> {
        authorize(actor, Action::Read, Target::Server)?;
        let (promotions, names) = (self.promotions().await?, self.names().await?);
        let mut all = self.releases().await?;
        all.sort_by_key(|r| std::cmp::Reverse(r.created));
        Ok(all.into_iter().map(|r| self.view_release(r, &promotions, &names)).collect())
    }

    /// How two releases differ.
    ///
    /// # Errors
    /// Where one of them can't be found.
    pub async fn diff_releases(
        &self,
        actor: &Actor,
        old: &str,
        new: &str,
    ) -> Result<Vec<String>, ControlError> {
        authorize(actor, Action::Read, Target::Server)?;
        Ok(differences(&self.find_release(old).await?.manifest, &self.find_release(new).await?.manifest))
    }

    pub(crate) fn view_release(
        &self,
        release: ReleaseState,
        promotions: &[Promotion],
        names: &Names,
    ) -> ReleaseView {
        let mut latest: BTreeMap<_, &Promotion> = BTreeMap::new();
        for p in promotions.iter().filter(|p| p.plan.revision.release == release.digest) {
            let slot = latest.entry(p.plan.environment.clone()).or_insert(p);
            if p.created >= slot.created {
                *slot = p;
            }
        }
        ReleaseView {
            digest: release.digest,
            authors: release.authors.iter().map(|id| named(names, id)).collect(),
            manifest: release.manifest,
            created: release.created,
            environments: latest.into_iter().map(|(e, p)| (e, p.stage.name().to_owned())).collect(),
            existed: true,
        }
    }
}
