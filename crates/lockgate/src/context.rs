//! Where a command runs: the project, its state folder, the server, the person.

use crate::cli::Global;
use crate::client::Client;
use crate::lock::{self, Holder};
use crate::output::Out;
use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The name of a project's file.
pub(crate) const PROJECT_FILE: &str = "lockgate.toml";

/// Where a command outside any project looks for a server.
pub(crate) const USUAL_SERVER: &str = "http://127.0.0.1:7600";

/// What `lockgate up` writes down for the other commands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct UpFile {
    /// The process that looks after server and agents.
    pub(crate) pid: u32,
    /// The server's address.
    pub(crate) server: String,
    /// Each environment's gateway.
    pub(crate) gateways: BTreeMap<String, String>,
    /// Its last upgrade. An `up` that knows of none is older than upgrades.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) upgrade: Option<Upgrade>,
}

/// How an upgrade of what `lockgate up` runs went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Upgrade {
    /// How many there were.
    pub(crate) number: u64,
    /// Why processes were not upgraded, by their names; none where all were.
    pub(crate) failed: BTreeMap<String, String>,
}

/// Where a command runs.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) global: Global,
    pub(crate) out: Out,
}

impl Context {
    /// The options as given.
    pub(crate) fn new(global: Global) -> Self {
        let out = Out::new(global.json);
        Self { global, out }
    }

    /// The project's folder: the given one, or the nearest upwards with a `lockgate.toml`.
    pub(crate) fn project_dir(&self) -> anyhow::Result<PathBuf> {
        let start = match &self.global.project {
            Some(dir) => dir.clone(),
            None => std::env::current_dir().context("the present folder can't be found")?,
        };
        let start =
            start.canonicalize().with_context(|| format!("there is no folder {}", start.display()))?;
        let mut dir = start.as_path();
        loop {
            if dir.join(PROJECT_FILE).is_file() {
                return Ok(dir.to_owned());
            }
            match (self.global.project.is_none(), dir.parent()) {
                (true, Some(parent)) => dir = parent,
                _ => bail!(
                    "there is no {PROJECT_FILE} in {} or above\n  hint: `lockgate init` writes one",
                    start.display()
                ),
            }
        }
    }

    /// The text of the project's file and its path.
    pub(crate) fn project_text(&self) -> anyhow::Result<(String, PathBuf)> {
        let path = self.project_dir()?.join(PROJECT_FILE);
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("{} can't be read", path.display()))?;
        Ok((text, path))
    }

    /// The folder where this project's server and agents keep their state: outside the repository, so that keys and data
    /// can't be committed and an agent can be fenced off from its siblings.
    pub(crate) fn state_dir(&self) -> anyhow::Result<PathBuf> {
        if let Some(dir) = &self.global.state {
            return std::path::absolute(dir).with_context(|| format!("{} is no path", dir.display()));
        }
        let project = self.project_dir()?;
        let base = match (std::env::var_os("XDG_STATE_HOME"), std::env::var_os("HOME")) {
            (Some(dir), _) if Path::new(&dir).is_absolute() => PathBuf::from(dir),
            (_, Some(home)) => PathBuf::from(home).join(".local/state"),
            _ => bail!("neither XDG_STATE_HOME nor HOME is set\n  hint: name a folder with --state"),
        };
        let name = project.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let hash = lockgate_core::digest::Digest::of(project.as_os_str().as_encoded_bytes()).short();
        Ok(base.join("lockgate").join(format!("{name}-{}", &hash[..8])))
    }

    /// What the `lockgate up` that runs wrote down. One that was killed may have left something, which is true no longer.
    pub(crate) fn up_file(&self) -> Option<UpFile> {
        let state = self.state_dir().ok()?;
        if lock::holder(&state) == Holder::Nobody {
            return None;
        }
        let text = std::fs::read_to_string(state.join("up.json")).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Who acts, where a name is claimed.
    pub(crate) fn user(&self) -> Option<String> {
        if let Some(user) = &self.global.user {
            return Some(user.clone());
        }
        let dir =
            self.project_dir().or_else(|_| std::env::current_dir().map_err(anyhow::Error::from)).ok()?;
        crate::git::config(&dir, "user.email").or_else(|| std::env::var("USER").ok())
    }

    fn is_in_project(&self) -> bool {
        self.global.state.is_some() || self.project_dir().is_ok()
    }

    /// A client for the server.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let base = match &self.global.server {
            Some(url) => url.clone(),
            None => match self.up_file() {
                Some(up) => up.server,
                // Whatever listens at the usual address may be another project's: nobody promotes there by accident.
                None if self.is_in_project() => bail!(
                    "nothing is running for this project\n  hint: `lockgate up` starts it; for a server elsewhere, --server or LOCKGATE_SERVER says where"
                ),
                None => USUAL_SERVER.to_owned(),
            },
        };
        let user = if self.global.token.is_some() { None } else { self.user() };
        Client::new(&base, user, self.global.token.clone())
    }
}
