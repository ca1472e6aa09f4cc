//! Servers that a team has already, in the place of workers: started and supervised here, or run by somebody else.

use super::{Fleet, FleetOptions, python};
use crate::AgentError;
use crate::gates::confine::inherited;
use crate::gates::model_path;
use crate::releases::LocalRelease;
use lockgate_core::plan::{Plan, Revision};
use lockgate_core::release::Manifest;
use lockgate_core::route::WorkerAddress;
use lockgate_core::server::{
    HttpServer, ProcessServer, Server, ServerProtocol, fill, host_and_port, places, shell_word,
};
use lockgate_runtime::supervisor::{Expect, Health, Place};
use lockgate_runtime::{Supervisor, WorkerSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// How long a server may take to say that it is well: one that works on a request may do nothing else meanwhile.
const HEALTH: Duration = Duration::from_secs(10);

/// How long somebody else's server may take to answer for the first time when a gate asks it.
const THERE: Duration = Duration::from_secs(30);

/// The ports that servers get: none that a connection of this machine might have.
const PORTS: std::ops::Range<u16> = 18_000..32_000;

/// How a server is asked whether it is well, with the model and the version that the release pins.
fn health(server: &Server) -> Health {
    let Server { protocol, model, health, .. } = server;
    if let Some(path) = health {
        return Health { path: path.clone(), expect: Expect::Ok };
    }
    let (path, expect) = match protocol {
        ServerProtocol::Oip => (format!("{}/ready", model_path("/v2/models/", server)), Expect::Ok),
        ServerProtocol::Tfs => (model_path("/v1/models/", server), Expect::Available),
        ServerProtocol::Mlflow | ServerProtocol::Sagemaker => ("/ping".to_owned(), Expect::Ok),
        ServerProtocol::Openai => ("/v1/models".to_owned(), Expect::Listed(model.clone())),
    };
    Health { path, expect }
}

fn spec(options: &FleetOptions, server: &Server, plan: &Plan, name: String) -> WorkerSpec {
    let o = options;
    let mut spec = WorkerSpec::new("/bin/sh".into(), Vec::new(), o.sockets.clone(), o.logs.clone(), name);
    spec.health = health(server);
    spec.not_at = Some(o.gateway);
    spec.health_timeout = HEALTH.max(Duration::from_millis(plan.rollout.timeout_ms));
    spec
}

/// Watches the addresses at which somebody else runs the release's server.
pub(super) fn watch(
    options: &FleetOptions,
    http: &HttpServer,
    revision: &Revision,
    plan: &Plan,
    name: String,
) -> Result<(Supervisor, Duration), AgentError> {
    let wrong =
        |address: &str, why: String| AgentError::Gate(format!("the server's address `{address}`: {why}"));
    let addresses = http.addresses.iter().map(|address| {
        let filled = fill(address, |name| revision.vars.get(name).cloned());
        let filled = filled.map_err(|name| wrong(address, format!("there is no variable {name} here")))?;
        host_and_port(&filled).map(WorkerAddress::Tcp).map_err(|why| wrong(&filled, why))
    });
    let addresses = addresses.collect::<Result<Vec<_>, _>>()?;
    let spec = spec(options, &http.server, plan, name);
    Ok((Supervisor::watch(&spec, addresses), THERE))
}

impl Fleet {
    /// What starts the release's server for each worker.
    pub(super) fn brought(
        &self,
        process: &ProcessServer,
        release: &LocalRelease,
        (revision, plan): (&Revision, &Plan),
        name: String,
        count: usize,
    ) -> Result<WorkerSpec, AgentError> {
        let options = &self.options;
        let mut spec = spec(options, &process.server, plan, name);
        spec.ready_within = Duration::from_millis(process.start_ms);
        spec.memory_limit = Some(plan.rollout.memory_bytes).filter(|bytes| *bytes > 0);
        let (own, tmp) = python::own_folder(&mut spec)?;
        // Servers write into the folder that they are started in.
        spec.current_dir = Some(own.clone());
        let mut inside = python::fence(options).read(&release.files).write(&own).tmp(&tmp);
        let mut base: Vec<(OsString, OsString)> = inherited().collect();
        base.extend([("HOME".into(), own.clone().into()), ("PYTHONDONTWRITEBYTECODE".into(), "1".into())]);
        if let Some(environment) = python::environment(options, release)? {
            inside = inside.read(&environment).python(&environment.join("bin/python"));
            inside = crate::python::cache().iter().fold(inside, |i, cache| i.read(cache));
            crate::python::activate(&environment, |name, value| base.push((name.into(), value.into())));
        }
        let first = process.run.split_whitespace().next().map(Path::new);
        inside = first.filter(|p| p.is_absolute()).into_iter().fold(inside, |i, program| i.program(program));
        base.extend(revision.vars.iter().map(|(k, v)| (k.into(), v.into())));
        let mut ports = Vec::new();
        for index in 0..count.max(1) {
            let seat =
                Seat::take(process, &release.manifest, &release.files, &own.join(format!("{index}.sock")))?;
            ports.extend(seat.ports.values());
            spec.places.push(seat.place(process, &base)?);
        }
        if !process.tcp {
            inside = inside.listening(ports);
        }
        spec.start = Some(python::fenced(inside));
        Ok(spec)
    }
}

/// What one of a release's servers gets for itself.
struct Seat {
    values: BTreeMap<String, String>,
    ports: BTreeMap<String, u16>,
    address: WorkerAddress,
}

impl Seat {
    fn take(
        process: &ProcessServer,
        manifest: &Manifest,
        files: &Path,
        socket: &Path,
    ) -> Result<Self, AgentError> {
        let texts = process.env.values().chain([&process.run]);
        let wanted: BTreeSet<&str> = texts.flat_map(|text| places(text)).collect();
        let at_socket = wanted.contains("socket");
        let mut ports = BTreeMap::new();
        let own = (!at_socket).then_some("port");
        for name in wanted.into_iter().filter(|p| p.starts_with("port")).chain(own).collect::<BTreeSet<_>>() {
            ports.insert(name.to_owned(), free_port()?);
        }
        let socket = socket.to_string_lossy().into_owned();
        let port = ports.get("port").copied().filter(|_| !at_socket);
        let mut values: BTreeMap<String, String> =
            ports.iter().map(|(k, v)| (k.clone(), v.to_string())).collect();
        values.extend([
            ("model".to_owned(), files.to_string_lossy().into_owned()),
            ("name".to_owned(), manifest.model.to_string()),
            ("host".to_owned(), "127.0.0.1".to_owned()),
            ("socket".to_owned(), socket.clone()),
        ]);
        let address = match port {
            Some(port) => WorkerAddress::Tcp(format!("127.0.0.1:{port}")),
            None => WorkerAddress::Unix(socket),
        };
        Ok(Self { values, ports, address })
    }

    fn place(self, process: &ProcessServer, base: &[(OsString, OsString)]) -> Result<Place, AgentError> {
        let unknown = |place: String| {
            AgentError::Gate(format!("there is nothing to put into `{{{place}}}` of its command"))
        };
        let run =
            fill(&process.run, |place| self.values.get(place).map(|v| shell_word(v))).map_err(unknown)?;
        let mut env = base.to_vec();
        if let Some(port) = self.ports.get("port") {
            env.push(("PORT".into(), port.to_string().into()));
        }
        for (name, text) in &process.env {
            let value = fill(text, |place| self.values.get(place).cloned()).map_err(unknown)?;
            env.push((name.into(), value.into()));
        }
        Ok(Place { address: self.address, run, env })
    }
}

/// A port that nobody listens on. Each is given once in a long while: a server needs a moment to take it.
fn free_port() -> Result<u16, AgentError> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let length = PORTS.end - PORTS.start;
    // Agents of one machine begin at different places.
    let start = (std::process::id().wrapping_mul(2_654_435_761) >> 16) as u16 % length;
    for _ in 0..length {
        let turn = NEXT.fetch_add(1, Ordering::Relaxed) % length;
        let port = PORTS.start + (u32::from(start) + u32::from(turn)) as u16 % length;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(AgentError::Worker("this machine has no free port for the release's server".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockgate_core::id::{ModelName, ProjectName};
    use lockgate_core::release::{MANIFEST_VERSION, Runtime};

    fn process(run: &str, env: &[(&str, &str)]) -> ProcessServer {
        let server = Server {
            protocol: ServerProtocol::Oip,
            model: "a b".to_owned(),
            version: Some("7".to_owned()),
            health: None,
            stream_ms: 1,
        };
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let run = run.to_owned();
        ProcessServer { server, run, requirements: None, python: None, env, start_ms: 1, tcp: false }
    }

    fn place(process: &ProcessServer) -> Place {
        let manifest = Manifest {
            v: MANIFEST_VERSION,
            project: ProjectName::new("p").unwrap(),
            model: ModelName::new("it's").unwrap(),
            model_version: 1,
            run_id: None,
            files: vec![],
            code: None,
            data: vec![],
            params: BTreeMap::new(),
            feature_schema: lockgate_core::schema::FeatureSchema::default(),
            runtime: Runtime::Process(Box::new(process.clone())),
            golden: None,
            optimised: None,
        };
        let seat = Seat::take(process, &manifest, Path::new("/re leases/x"), Path::new("/s/0.sock")).unwrap();
        seat.place(process, &[]).unwrap()
    }

    fn var<'a>(place: &'a Place, name: &str) -> Option<&'a str> {
        place.env.iter().rev().find(|(k, _)| k == name).and_then(|(_, v)| v.to_str())
    }

    #[test]
    fn a_server_gets_its_model_its_ports_and_its_name_as_words_of_its_command() {
        let given =
            place(&process("serve {model} {name} -p {port} -g {port:grpc}", &[("GRPC", "{port:grpc}")]));
        let WorkerAddress::Tcp(address) = &given.address else { panic!("{given:?}") };
        let port = address.strip_prefix("127.0.0.1:").unwrap();
        let grpc = var(&given, "GRPC").unwrap();
        assert_ne!(port, grpc);
        assert_eq!(given.run, format!(r"serve '/re leases/x' 'it'\''s' -p {port} -g {grpc}"));
        assert_eq!(var(&given, "PORT"), Some(port));
        let unsaid = place(&process("serve", &[]));
        assert!(
            matches!(&unsaid.address, WorkerAddress::Tcp(a) if a.ends_with(var(&unsaid, "PORT").unwrap()))
        );
        let socket = place(&process("serve --uds {socket}", &[]));
        assert_eq!(socket.address, WorkerAddress::Unix("/s/0.sock".to_owned()));
        assert_eq!((socket.run.as_str(), var(&socket, "PORT")), ("serve --uds /s/0.sock", None));
    }

    #[test]
    fn a_server_is_asked_for_the_model_and_the_version_that_are_pinned() {
        let at = |protocol, version: Option<&str>| {
            let version = version.map(str::to_owned);
            health(&Server { protocol, version, ..process("", &[]).server })
        };
        assert_eq!(at(ServerProtocol::Oip, Some("7")).path, "/v2/models/a%20b/versions/7/ready");
        assert_eq!(at(ServerProtocol::Tfs, None).path, "/v1/models/a%20b");
        assert_eq!(at(ServerProtocol::Tfs, None).expect, Expect::Available);
        assert_eq!(at(ServerProtocol::Openai, None).expect, Expect::Listed("a b".to_owned()));
        assert_eq!(at(ServerProtocol::Sagemaker, None).path, "/ping");
    }
}
