//! A fence inside the agent's own: what comes with a release runs there, and reads neither the agent's key nor its token.
//!
//! Landlock holds for a thread and what it starts. So a thread of its own is confined, starts the program and ends; the agent's
//! other threads stay as they are. What a program in there may not do either: look into the agent's memory (Landlock forbids it
//! to trace what is outside), and send it signals. Root's ways around file rights (raw disks, the kernel's own memory, other
//! processes' environments) are closed too: of its capabilities it keeps those that ordinary programs need.

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, NetPort, PathBeneath,
    PathFd, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope, make_bitflags,
};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use tokio::process::{Child, Command};

/// The version of Landlock that is asked for; on an older kernel what it knows of it is used.
const WANTED: ABI = ABI::V6;

/// Where a system keeps what its programs read.
const SYSTEM: [&str; 17] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc",
    "/opt",
    "/nix/store",
    "/gnu/store",
    "/proc",
    "/sys",
    "/run/current-system",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/nscd",
];

/// Where every program may write.
const SHARED: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// Devices that can do no harm, and those that compute.
const DEVICES: [&str; 10] = ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "dri", "kfd"];

/// Variables of the agent that a program inherits. So do `LC_…`, and `PIP_…` and `UV_…` that hold no secret.
const INHERITED: [&str; 8] = [
    "PATH",
    "LANG",
    "LANGUAGE",
    "TZ",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
];

/// What root may still do: give files away, become somebody else, take a low port.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::NET_BIND_SERVICE);

/// How far the kernel holds a program in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    Whole,
    Partly,
    Not,
}

impl From<RulesetStatus> for Held {
    fn from(status: RulesetStatus) -> Self {
        match status {
            RulesetStatus::FullyEnforced => Self::Whole,
            RulesetStatus::PartiallyEnforced => Self::Partly,
            RulesetStatus::NotEnforced => Self::Not,
        }
    }
}

impl Held {
    /// What a gate's log has to say of it.
    pub(crate) fn remark(self) -> &'static str {
        match self {
            Self::Whole => "",
            Self::Partly => "(this kernel's Landlock is an old one: it held this program in only in part)\n",
            Self::Not => {
                "(this kernel has no Landlock: this program could read whatever its agent can, its key too)\n"
            }
        }
    }
}

/// What a program may reach, beside what every program needs of the system.
#[derive(Debug, Clone)]
pub(crate) struct Confinement {
    hidden: Vec<PathBuf>,
    tools: Vec<PathBuf>,
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
    tmp: Option<PathBuf>,
    /// The ports on which it may listen, where it may do nothing else over TCP.
    ports: Option<Vec<u16>>,
}

impl Confinement {
    /// The system's folders and the tools on the path, but nothing in `hidden`, wherever it lies.
    pub(crate) fn new(hidden: &[PathBuf]) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut tools: Vec<PathBuf> = std::env::split_paths(&path).flat_map(|dir| tool(&dir)).collect();
        let certificates = ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];
        tools.extend(certificates.iter().filter_map(std::env::var_os).map(PathBuf::from));
        let hidden = hidden.iter().map(|p| p.canonicalize().unwrap_or_else(|_| p.clone())).collect();
        Self { hidden, tools, read: Vec::new(), write: Vec::new(), tmp: None, ports: None }
    }

    /// The same, and this may be read.
    pub(crate) fn read(mut self, path: &Path) -> Self {
        self.read.push(path.to_owned());
        self
    }

    /// The same, and this may be read and written.
    pub(crate) fn write(mut self, path: &Path) -> Self {
        self.write.push(path.to_owned());
        self
    }

    /// The same, and this is where programs put what they need for a moment.
    pub(crate) fn tmp(mut self, path: &Path) -> Self {
        self.tmp = Some(path.to_owned());
        self.write(path)
    }

    /// The same, without connections over TCP, in or out: this machine's own servers may believe whoever reaches them.
    pub(crate) fn without_tcp(self) -> Self {
        self.listening(Vec::new())
    }

    /// The same, and over TCP it may listen on these ports alone.
    pub(crate) fn listening(mut self, ports: Vec<u16>) -> Self {
        self.ports = Some(ports);
        self
    }

    /// The same, and this program may be used with what lies beside it.
    pub(crate) fn program(mut self, program: &Path) -> Self {
        self.tools.extend(program.parent().into_iter().flat_map(tool));
        self
    }

    /// The same, and the interpreter that `python` leads to may be used.
    pub(crate) fn python(mut self, python: &Path) -> Self {
        self.tools.extend(interpreter(python));
        self
    }

    /// Starts a program in here.
    ///
    /// # Errors
    /// Where it can't be started, or the kernel has Landlock and refuses the rules.
    pub(crate) async fn spawn(&self, mut command: Command) -> std::io::Result<(Child, Held)> {
        let (rules, ports) = (self.rules(), self.ports.clone());
        if let Some(tmp) = &self.tmp {
            command.env("TMPDIR", tmp);
        }
        let runtime = tokio::runtime::Handle::current();
        let (tell, told) = tokio::sync::oneshot::channel();
        std::thread::Builder::new().name("confine".to_owned()).spawn(move || {
            let _inside = runtime.enter();
            let started = restrict(rules, ports.as_deref()).and_then(|held| Ok((command.spawn()?, held)));
            // Whoever waited may have gone: the child is killed as it is dropped.
            let _ = tell.send(started);
        })?;
        told.await.map_err(|_| std::io::Error::other("its thread has ended"))?
    }

    fn rules(&self) -> Vec<(PathBuf, BitFlags<AccessFs>)> {
        let read = AccessFs::from_read(WANTED);
        // A device that a program makes is the device, wherever it lies.
        let all = AccessFs::from_all(WANTED) & !make_bitflags!(AccessFs::{MakeBlock | MakeChar});
        let mut rules = Vec::new();
        let roots = SYSTEM.iter().map(|p| (PathBuf::from(p), read));
        let roots = roots.chain(SHARED.iter().map(|p| (PathBuf::from(p), all)));
        for (root, access) in roots.chain(self.tools.iter().map(|p| (p.clone(), read))) {
            let Ok(root) = root.canonicalize() else { continue };
            around(&root, &self.hidden, &mut |path| rules.push((path, access)));
        }
        let device = read | make_bitflags!(AccessFs::{WriteFile | IoctlDev});
        rules.extend(devices().into_iter().map(|path| (path, device)));
        rules.extend(self.read.iter().map(|path| (path.clone(), read)));
        rules.extend(self.write.iter().map(|path| (path.clone(), all)));
        rules
    }
}

/// Whether this kernel can hold programs in, in words.
pub(crate) fn words() -> &'static str {
    let known = |abi| {
        Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(abi))
            .and_then(Ruleset::create)
            .is_ok()
    };
    if known(ABI::V5) {
        "gates' commands and models in Python can't read its key, token and database (Landlock)"
    } else if known(ABI::V1) {
        "gates' commands and models in Python can't read its key, token and database (an old Landlock, which holds them in \
         only in part)"
    } else {
        "gates' commands and models in Python can read all that it can"
    }
}

/// The variables that a program inherits from the agent.
pub(crate) fn inherited() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_inherited))
}

/// The same for an installer, which has to know where packages come from, and who it is there.
pub(crate) fn inherited_by_installer() -> impl Iterator<Item = (OsString, OsString)> {
    let more =
        ["HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"];
    std::env::vars_os().filter(move |(name, _)| {
        name.to_str().is_some_and(|n| {
            is_inherited(n) || n.starts_with("UV_") || more.iter().any(|m| m.eq_ignore_ascii_case(n))
        })
    })
}

fn is_inherited(name: &str) -> bool {
    let secret = ["PASSWORD", "USERNAME", "TOKEN", "SECRET", "KEY", "INDEX", "FIND_LINKS", "PROXY"];
    let installer = name.starts_with("PIP_") || name.starts_with("UV_");
    INHERITED.contains(&name)
        || name.starts_with("LC_")
        || (installer && !secret.iter().any(|s| name.contains(s)))
}

/// Confines the calling thread for good.
fn restrict(rules: Vec<(PathBuf, BitFlags<AccessFs>)>, ports: Option<&[u16]>) -> std::io::Result<Held> {
    let apply = || {
        let mut wanted = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(WANTED))?
            .scope(Scope::from_all(WANTED))?;
        if ports.is_some() {
            wanted = wanted.handle_access(AccessNet::from_all(WANTED))?;
        }
        let mut ruleset = wanted.create()?;
        for (path, access) in rules {
            // What isn't there needs no rule.
            let Ok(fd) = PathFd::new(&path) else { continue };
            let access = if path.is_dir() { access } else { access & AccessFs::from_file(WANTED) };
            ruleset = ruleset.add_rule(PathBeneath::new(fd, access))?;
        }
        for port in ports.unwrap_or_default() {
            ruleset = ruleset.add_rule(NetPort::new(*port, AccessNet::BindTcp))?;
        }
        ruleset.restrict_self()
    };
    let status = apply().map_err(|e: landlock::RulesetError| std::io::Error::other(e.to_string()))?;
    // A program can't get them back: Landlock has set `no_new_privs`.
    let mut kept = capabilities(None)?;
    kept.effective &= KEPT;
    kept.permitted &= KEPT;
    kept.inheritable &= KEPT;
    set_capabilities(None, kept)?;
    Ok(status.ruleset.into())
}

/// Grants `path` as a whole, or piece by piece around what is hidden in it. Links are left out: where one leads is granted by
/// its own name or not at all.
fn around(path: &Path, hidden: &[PathBuf], grant: &mut impl FnMut(PathBuf)) {
    if hidden.iter().any(|h| path.starts_with(h)) {
        return;
    }
    if !hidden.iter().any(|h| h.starts_with(path)) {
        return grant(path.to_owned());
    }
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| !t.is_symlink()) {
            around(&entry.path(), hidden, grant);
        }
    }
}

/// What belongs to a folder on the path: the folder, what lies beside it for its programs, and where its Python leads.
fn tool(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    let Some(parent) = dir.parent().filter(|_| dir.is_absolute()) else { return Vec::new() };
    match dir.file_name().and_then(|n| n.to_str()) {
        Some("bin" | "sbin") => {
            let beside = ["lib", "lib64", "libexec", "include", "pyvenv.cfg"];
            found.extend(beside.iter().map(|name| parent.join(name)));
        }
        // Version managers: the programs themselves are elsewhere below.
        Some("shims") => found.push(parent.to_owned()),
        _ => {}
    }
    found.extend(["python3", "python", "uv"].iter().flat_map(|name| interpreter(&dir.join(name))));
    found
}

/// The folder of the installation that a link to a program leads to; where it has none of its own, the program's folder.
fn interpreter(program: &Path) -> Option<PathBuf> {
    if !program.is_symlink() {
        return None;
    }
    let bin = program.canonicalize().ok()?.parent()?.to_owned();
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let own = |p: &&Path| p.join("lib").is_dir() && !home.starts_with(p) && !p.ends_with(".local");
    let whole = bin.parent().filter(|_| bin.ends_with("bin")).filter(own).map(Path::to_owned);
    whole.or(Some(bin))
}

fn devices() -> Vec<PathBuf> {
    let named = DEVICES.iter().map(|name| Path::new("/dev").join(name));
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let cards = entries.filter(|e| e.file_name().to_string_lossy().starts_with("nvidia")).map(|e| e.path());
    named.chain(cards).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_granted_by_no_folder_above_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for sub in ["state/env/production/work", "state/env/dev", "other"] {
            std::fs::create_dir_all(root.join(sub)).unwrap();
        }
        std::os::unix::fs::symlink(root.join("state"), root.join("link")).unwrap();
        let mut found = Vec::new();
        around(&root, &[root.join("state/env/production")], &mut |p| found.push(p));
        found.sort();
        assert_eq!(found, [root.join("other"), root.join("state/env/dev")]);
        around(&root.join("state/env/production/work"), &[root.join("state")], &mut |p| found.push(p));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn secrets_are_not_inherited() {
        for name in ["PATH", "LC_ALL", "TZ", "UV_PYTHON_DOWNLOADS", "PIP_CERT", "SSL_CERT_FILE"] {
            assert!(is_inherited(name), "{name}");
        }
        for name in
            ["LOCKGATE_TOKEN", "HOME", "AWS_SECRET_ACCESS_KEY", "UV_INDEX_INTERNAL_PASSWORD", "SSH_AUTH_SOCK"]
        {
            assert!(!is_inherited(name), "{name}");
        }
    }
}
