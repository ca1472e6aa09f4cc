//! What processes take, as the agent reads it for `/metrics`: the gateway knows addresses, not processes.

use crate::metrics::Text;
use lockgate_core::digest::Digest;
use lockgate_core::id::ModelName;

/// What a process, or a group of them, takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProcessReading {
    /// CPU time since its start, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
    /// Open file descriptors.
    pub open_files: u64,
}

/// One worker.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerReading {
    /// Whose.
    pub model: ModelName,
    /// The release that it serves.
    pub release: Digest,
    /// The release with its configuration: the same release may run under two.
    pub revision: Digest,
    /// Its number among the release's workers.
    pub worker: u32,
    /// Whether it can serve.
    pub is_ready: bool,
    /// How often it was started again.
    pub restarts: u64,
    /// What it takes; none where it isn't a process of this machine, or there is none now.
    pub process: Option<ProcessReading>,
}

/// What was read last.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Readings {
    /// The agent with its gateway.
    pub own: Option<ProcessReading>,
    /// The workers.
    pub workers: Vec<WorkerReading>,
}

type Column = (&'static str, &'static str, &'static str, fn(&ProcessReading) -> f64);

/// The agent's own, under the names that Prometheus' client libraries use.
const OWN: [Column; 3] = [
    ("process_cpu_seconds_total", "counter", "CPU time of the agent with its gateway.", |p| p.cpu_seconds),
    ("process_resident_memory_bytes", "gauge", "Resident memory of the agent with its gateway.", |p| {
        p.resident_bytes as f64
    }),
    ("process_open_fds", "gauge", "Open file descriptors of the agent with its gateway.", |p| {
        p.open_files as f64
    }),
];

const WORKERS: [Column; 3] = [
    (
        "lockgate_worker_cpu_seconds_total",
        "counter",
        "CPU time of a worker with what it has started, since its last start.",
        |p| p.cpu_seconds,
    ),
    (
        "lockgate_worker_resident_bytes",
        "gauge",
        "Resident memory of a worker with what it has started.",
        |p| p.resident_bytes as f64,
    ),
    (
        "lockgate_worker_open_fds",
        "gauge",
        "Open file descriptors of a worker with what it has started.",
        |p| p.open_files as f64,
    ),
];

/// Writes all of it.
pub(crate) fn write(out: &mut Text, readings: &Readings) {
    if let Some(own) = &readings.own {
        for (name, kind, help, value) in OWN {
            out.head(name, kind, help);
            out.line(name, &[], value(own));
        }
    }
    let each = |out: &mut Text, name: &str, value: &dyn Fn(&WorkerReading) -> Option<f64>| {
        for w in &readings.workers {
            let (release, revision, number) = (w.release.short(), w.revision.short(), w.worker.to_string());
            let labels = [
                ("model", w.model.as_str()),
                ("release", &release),
                ("revision", &revision),
                ("worker", &number),
            ];
            if let Some(value) = value(w) {
                out.line(name, &labels, value);
            }
        }
    };
    let name = "lockgate_worker_ready";
    out.head(name, "gauge", "Whether a worker can serve.");
    each(out, name, &|w| Some(f64::from(u8::from(w.is_ready))));
    let name = "lockgate_worker_restarts_total";
    out.head(name, "counter", "How often a worker was started again.");
    each(out, name, &|w| Some(w.restarts as f64));
    for (name, kind, help, value) in WORKERS {
        out.head(name, kind, help);
        each(out, name, &|w| w.process.as_ref().map(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_has_no_line() {
        let process = ProcessReading { cpu_seconds: 1.5, resident_bytes: 4096, open_files: 7 };
        let worker = |worker, process: Option<ProcessReading>| WorkerReading {
            model: "delay".parse().unwrap(),
            release: Digest::of(b"r"),
            revision: Digest::of(b"v"),
            worker,
            is_ready: process.is_some(),
            restarts: 2,
            process,
        };
        let mut out = Text::new("prod");
        let workers = vec![worker(0, Some(process)), worker(1, None)];
        write(&mut out, &Readings { own: Some(process), workers });
        let text = out.into_string();
        let (release, revision) = (Digest::of(b"r").short(), Digest::of(b"v").short());
        let labels = |n| {
            format!(
                "{{environment=\"prod\",model=\"delay\",release=\"{release}\",revision=\"{revision}\",worker=\"{n}\"}}"
            )
        };
        for line in [
            "process_cpu_seconds_total{environment=\"prod\"} 1.5".to_owned(),
            "process_open_fds{environment=\"prod\"} 7".to_owned(),
            format!("lockgate_worker_ready{} 1", labels(0)),
            format!("lockgate_worker_ready{} 0", labels(1)),
            format!("lockgate_worker_restarts_total{} 2", labels(1)),
            format!("lockgate_worker_resident_bytes{} 4096", labels(0)),
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
        assert!(!text.contains(&format!("lockgate_worker_resident_bytes{}", labels(1))));
    }
}
