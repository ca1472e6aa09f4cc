//! The release: an immutable bundle whose identity is the digest of its manifest.

use crate::digest::{Digest, NotCanonical};
use crate::id::{ModelName, ProjectName};
use crate::schema::FeatureSchema;
use crate::server::{HttpServer, ProcessServer, Server};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of the manifest's form that this program writes.
pub const MANIFEST_VERSION: u32 = 1;

/// The file in which MLflow writes down by which run, when and under which id a model was logged.
const RUN_RECORD: &str = "MLmodel";

/// One file of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Path below the model's folder, with `/`, never absolute, without `..`.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of the content.
    pub sha256: Digest,
}

/// The code that made a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Code {
    /// The Git commit (40 or 64 hexadecimal digits).
    pub commit: String,
    /// SHA-256 of `git diff HEAD` where the tree was dirty.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub patch: Option<Digest>,
    /// SHA-256 of the archive of the tree (tar), from which gates run.
    pub archive: Digest,
}

/// One dataset version that went into a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dataset {
    /// Its name; for a plain file its path in the project.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of the content.
    pub sha256: Digest,
}

/// What runs a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Runtime {
    /// ONNX Runtime; `entry` is the path of the graph among the release's files.
    Onnx {
        /// Path of the `.onnx` file.
        entry: String,
    },
    /// A Python process that loads the release's folder with `mlflow.pyfunc.load_model`.
    Python {
        /// The module with which MLflow loads the model, as its `MLmodel` file says: `mlflow.sklearn`.
        loader: String,
        /// Path of the requirements file among the release's files: what its Python environment is made from.
        requirements: String,
        /// The version of Python that it was made with: `3.11.7`.
        python: String,
        /// The digest of all that `MLmodel` says about how the model is loaded and called, and of its signature.
        flavor: Digest,
    },
    /// A server that the team brings, started for each worker.
    Process(Box<ProcessServer>),
    /// A server that somebody else runs.
    Http(Box<HttpServer>),
}

impl Runtime {
    /// What a server that the team brings speaks; none where Lockgate's own worker runs the release.
    #[must_use]
    pub fn server(&self) -> Option<&Server> {
        match self {
            Self::Onnx { .. } | Self::Python { .. } => None,
            Self::Process(process) => Some(&process.server),
            Self::Http(http) => Some(&http.server),
        }
    }

    /// What serves the release, in words.
    #[must_use]
    pub fn words(&self) -> String {
        let of = |server: &Server| {
            let version = server.version.as_ref().map_or_else(String::new, |v| format!(" version {v}"));
            format!("{}, model {}{version}", server.protocol.as_str(), server.model)
        };
        match self {
            Self::Onnx { .. } => "a worker with ONNX Runtime".to_owned(),
            Self::Python { .. } => "a worker with Python".to_owned(),
            Self::Process(process) => format!("`{}` ({})", process.run, of(&process.server)),
            Self::Http(http) => format!("{} ({})", http.addresses.join(", "), of(&http.server)),
        }
    }

    /// The files that it can't do without.
    #[must_use]
    pub fn needs(&self) -> Vec<&str> {
        match self {
            Self::Onnx { entry } => vec![entry],
            Self::Python { requirements, .. } => vec![RUN_RECORD, requirements],
            Self::Process(process) => process.requirements.as_deref().into_iter().collect(),
            Self::Http(_) => Vec::new(),
        }
    }
}

/// A graph that stands in for a model which would run in Python, and what was seen of the two side by side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Optimised {
    /// What would run the model as it was logged. Its files are among the release's.
    pub original: Runtime,
    /// The largest difference that was allowed between two numbers: this much, and this much of the model's own number.
    /// Labels and texts are equal.
    pub tolerance: f64,
    /// The largest difference that was seen.
    pub largest: f64,
    /// How many rows both answered alike, by where the rows came from.
    pub rows: BTreeMap<String, u64>,
    /// How many more rows both refused.
    pub refused: u64,
    /// What the graph computes with: `as doubles`, `as 32-bit floats`.
    pub numbers: String,
    /// What rows were taken from, by its name.
    pub data: BTreeMap<String, Digest>,
    /// The versions of Python, of the model's own packages and of the converters.
    pub versions: BTreeMap<String, String>,
}

impl Optimised {
    /// The rows that somebody gave: those that have a digest. What was made from them is not counted.
    #[must_use]
    pub fn given(&self) -> u64 {
        self.rows.iter().filter(|(source, _)| self.data.contains_key(*source)).map(|(_, n)| n).sum()
    }

    /// The rule that the proof breaks.
    fn fault(&self, runtime: &Runtime) -> Option<String> {
        let number = |n: f64| n.is_finite() && n >= 0.0;
        if !matches!((runtime, &self.original), (Runtime::Onnx { .. }, Runtime::Python { .. })) {
            return Some("only a graph can stand in for a model, and only for one in Python".to_owned());
        }
        if self.given() == 0 {
            return Some("its graph was compared with the model on no row that somebody gave".to_owned());
        }
        (!number(self.tolerance) || !number(self.largest))
            .then(|| "the differences between its graph and the model are no numbers".to_owned())
    }
}

/// The release's manifest. Its canonical JSON's SHA-256 is the release's digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this form.
    pub v: u32,
    /// The project.
    pub project: ProjectName,
    /// The registered model.
    pub model: ModelName,
    /// The registered version, as MLflow counts.
    pub model_version: u64,
    /// The run that logged the model.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub run_id: Option<String>,
    /// All files, ordered by path.
    pub files: Vec<File>,
    /// The code, where the release was made in a Git repository.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub code: Option<Code>,
    /// The dataset versions, ordered by name.
    pub data: Vec<Dataset>,
    /// The run's parameters.
    pub params: BTreeMap<String, String>,
    /// Inputs and outputs.
    pub feature_schema: FeatureSchema,
    /// What it needs to run.
    pub runtime: Runtime,
    /// Path of the recorded rows with their offline predictions among the files (the parity gate's golden set).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub golden: Option<String>,
    /// What showed that the graph may stand in for the model, where the runtime is a graph that was made from it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub optimised: Option<Box<Optimised>>,
}

/// A manifest that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this release manifest is not valid: {0}")]
pub struct InvalidManifest(pub String);

impl Manifest {
    /// The release's digest.
    ///
    /// # Errors
    /// Where a range in the schema is not finite.
    pub fn digest(&self) -> Result<Digest, NotCanonical> {
        Digest::of_json(self)
    }

    /// The digest of what answers requests: files, schema, runtime and golden set, whatever they were registered as and by
    /// which run they were made. `MLmodel` is left out, for it holds the run's id and the time; what it says about the model is
    /// the schema and the runtime.
    ///
    /// # Errors
    /// Where a range in the schema is not finite.
    pub fn content(&self) -> Result<Digest, NotCanonical> {
        let files: Vec<(&str, &Digest)> = self
            .files
            .iter()
            .filter(|f| f.path != RUN_RECORD)
            .map(|f| (f.path.as_str(), &f.sha256))
            .collect();
        Digest::of_json(&(files, &self.feature_schema, &self.runtime, &self.golden))
    }

    /// Checks the manifest's own rules: version, order, safe paths, an entry that is among the files.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn validate(&self) -> Result<(), InvalidManifest> {
        let fail = |what: String| Err(InvalidManifest(what));
        if self.v != MANIFEST_VERSION {
            return fail(format!("it has version {}, this program knows version {MANIFEST_VERSION}", self.v));
        }
        // What somebody else's server answers with lies there.
        if self.files.is_empty() && !matches!(self.runtime, Runtime::Http(_)) {
            return fail("it lists no files".to_owned());
        }
        if let Some(bad) = self.files.iter().find(|f| !is_safe_path(&f.path)) {
            return fail(format!("the path `{}` is not a plain relative path", bad.path));
        }
        if let Some(pair) = self.files.windows(2).find(|w| w[0].path >= w[1].path) {
            return fail(format!("its files are not ordered by path at `{}`", pair[1].path));
        }
        if let Some(pair) = self.data.windows(2).find(|w| w[0].name >= w[1].name) {
            return fail(format!("its data are not ordered by name at `{}`", pair[1].name));
        }
        if let Some(fault) = self.optimised.as_ref().and_then(|o| o.fault(&self.runtime)) {
            return fail(fault);
        }
        let original = self.optimised.iter().flat_map(|o| o.original.needs());
        for path in self.runtime.needs().into_iter().chain(original).chain(self.golden.as_deref()) {
            if !self.files.iter().any(|f| f.path == path) {
                return fail(format!("`{path}` is not among its files"));
            }
        }
        Ok(())
    }
}

/// Whether `path` is relative, uses `/` and names no parent, no empty part and no control character.
#[must_use]
pub fn is_safe_path(path: &str) -> bool {
    !path.is_empty()
        && path.len() <= 1024
        && !path.chars().any(|c| c.is_control() || c == '\\')
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            v: 1,
            project: ProjectName::new("demo").unwrap(),
            model: ModelName::new("m").unwrap(),
            model_version: 1,
            run_id: None,
            files: vec![File { path: "model.onnx".to_owned(), size: 3, sha256: Digest::of(b"abc") }],
            code: None,
            data: vec![],
            params: BTreeMap::new(),
            feature_schema: FeatureSchema::default(),
            runtime: Runtime::Onnx { entry: "model.onnx".to_owned() },
            golden: None,
            optimised: None,
        }
    }

    #[test]
    fn the_digest_is_of_the_canonical_manifest_and_changes_with_any_byte() {
        let mut m = manifest();
        let before = m.digest().unwrap();
        assert_eq!(before, manifest().digest().unwrap());
        m.files[0].sha256 = Digest::of(b"abd");
        assert_ne!(before, m.digest().unwrap());
    }

    #[test]
    fn the_content_is_the_same_whatever_version_and_run_it_was_registered_by() {
        let file = |path: &str, bytes: &[u8]| File {
            path: path.to_owned(),
            size: bytes.len() as u64,
            sha256: Digest::of(bytes),
        };
        let made = |run: &str, version, bytes: &[u8]| Manifest {
            model_version: version,
            run_id: Some(run.to_owned()),
            files: vec![file("MLmodel", run.as_bytes()), file("model.onnx", bytes)],
            params: [("night".to_owned(), run.to_owned())].into(),
            ..manifest()
        };
        let first = made("monday", 1, b"abc");
        let again = made("tuesday", 2, b"abc");
        assert_ne!(first.digest().unwrap(), again.digest().unwrap());
        assert_eq!(first.content().unwrap(), again.content().unwrap());
        assert_ne!(first.content().unwrap(), made("wednesday", 3, b"abd").content().unwrap());
        let other = Manifest { golden: Some("model.onnx".to_owned()), ..made("monday", 1, b"abc") };
        assert_ne!(first.content().unwrap(), other.content().unwrap());
    }

    #[test]
    fn unsafe_paths_and_missing_entries_are_refused() {
        for bad in ["/etc/passwd", "../x", "a//b", "a/./b", "a\\b", ""] {
            let mut m = manifest();
            m.files[0].path = bad.to_owned();
            assert!(m.validate().is_err(), "{bad}");
        }
        let mut m = manifest();
        m.golden = Some("golden.json".to_owned());
        assert!(m.validate().unwrap_err().to_string().contains("golden.json"));
        assert_eq!(manifest().validate(), Ok(()));
    }

    #[test]
    fn a_server_is_part_of_the_digest_and_only_one_that_is_elsewhere_needs_no_files() {
        let server = |version: &str| Server {
            protocol: crate::server::ServerProtocol::Oip,
            model: "m".to_owned(),
            version: Some(version.to_owned()),
            health: None,
            stream_ms: 600_000,
        };
        let at = |version: &str| {
            let http = HttpServer { server: server(version), addresses: vec!["http://x:1".to_owned()] };
            Manifest { runtime: Runtime::Http(Box::new(http)), files: vec![], ..manifest() }
        };
        assert_eq!(at("7").validate(), Ok(()));
        assert_ne!(at("7").content().unwrap(), at("8").content().unwrap());
        let json = serde_json::to_value(&at("7").runtime).unwrap();
        assert_eq!(json["kind"], "http");
        assert_eq!(serde_json::from_value::<Runtime>(json).unwrap(), at("7").runtime);
        let process = ProcessServer {
            server: server("7"),
            run: "serve {model}".to_owned(),
            requirements: Some("requirements.txt".to_owned()),
            python: Some("3.11".to_owned()),
            env: BTreeMap::new(),
            start_ms: 1,
            tcp: false,
        };
        let started = Manifest { runtime: Runtime::Process(Box::new(process)), ..manifest() };
        assert!(started.validate().unwrap_err().to_string().contains("requirements.txt"));
        assert!(Manifest { files: vec![], ..started }.validate().is_err());
    }

    #[test]
    fn a_graph_stands_in_for_a_model_only_after_rows_that_somebody_gave() {
        let file = |path: &str| File { path: path.to_owned(), size: 1, sha256: Digest::of(b"y") };
        let optimised = Optimised {
            original: Runtime::Python {
                loader: "mlflow.sklearn".to_owned(),
                requirements: "requirements.txt".to_owned(),
                python: "3.11.7".to_owned(),
                flavor: Digest::of(b"x"),
            },
            tolerance: 1e-5,
            largest: 0.0,
            rows: [("golden set".to_owned(), 40), ("neighbours".to_owned(), 400)].into(),
            refused: 3,
            numbers: "as doubles".to_owned(),
            data: [("golden set".to_owned(), Digest::of(b"rows"))].into(),
            versions: BTreeMap::new(),
        };
        let of = |optimised: &Optimised, files: &[&str]| Manifest {
            files: files.iter().map(|path| file(path)).collect(),
            optimised: Some(Box::new(optimised.clone())),
            ..manifest()
        };
        let all = ["MLmodel", "model.onnx", "requirements.txt"];
        assert_eq!(of(&optimised, &all).validate(), Ok(()));
        assert_eq!(optimised.given(), 40);
        let refused = |m: Manifest| m.validate().unwrap_err().to_string();
        assert!(refused(of(&optimised, &all[..2])).contains("requirements.txt"));
        let unproven = Optimised { data: BTreeMap::new(), ..optimised.clone() };
        assert!(refused(of(&unproven, &all)).contains("no row that somebody gave"));
        let odd = Optimised { largest: f64::NAN, ..optimised.clone() };
        assert!(refused(of(&odd, &all)).contains("no numbers"));
        let twice = Optimised { original: Runtime::Onnx { entry: "model.onnx".to_owned() }, ..optimised };
        assert!(refused(of(&twice, &all)).contains("only for one in Python"));
        assert!(!serde_json::to_string(&manifest()).unwrap().contains("optimised"));
    }

    #[test]
    fn a_python_release_needs_its_requirements_and_an_onnx_manifest_reads_as_ever() {
        let text = r#"{"kind":"onnx","entry":"model.onnx"}"#;
        assert_eq!(serde_json::to_string(&manifest().runtime).unwrap(), text);
        let runtime = Runtime::Python {
            loader: "mlflow.sklearn".to_owned(),
            requirements: "requirements.txt".to_owned(),
            python: "3.11.7".to_owned(),
            flavor: Digest::of(b"x"),
        };
        let json = serde_json::to_value(&runtime).unwrap();
        assert_eq!(json["kind"], "python");
        assert_eq!(serde_json::from_value::<Runtime>(json).unwrap(), runtime);
        let mut m = Manifest { runtime, ..manifest() };
        assert!(m.validate().unwrap_err().to_string().contains("MLmodel"));
        let file = |path: &str| File { path: path.to_owned(), size: 1, sha256: Digest::of(b"y") };
        m.files = vec![file("MLmodel")];
        assert!(m.validate().unwrap_err().to_string().contains("requirements.txt"));
        m.files = vec![file("MLmodel"), file("requirements.txt")];
        assert_eq!(m.validate(), Ok(()));
    }
}
