//! Servers that a team has already, in the place of a release's workers: what one speaks, and how it is asked.

use crate::gate::GateSpec;
use core::net::IpAddr;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A protocol that a gateway passes on to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerProtocol {
    /// Open Inference Protocol V2 over REST.
    Oip,
    /// MLflow's scoring server.
    Mlflow,
    /// TensorFlow Serving's REST API.
    Tfs,
    /// SageMaker's container contract.
    Sagemaker,
    /// OpenAI-compatible.
    Openai,
}

impl ServerProtocol {
    /// All protocols with their names in `lockgate.toml`.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::Oip, "oip"),
        (Self::Mlflow, "mlflow"),
        (Self::Tfs, "tfs"),
        (Self::Sagemaker, "sagemaker"),
        (Self::Openai, "openai"),
    ];

    /// The name in `lockgate.toml`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(p, _)| *p == self).map_or("oip", |(_, name)| name)
    }

    /// How people call it.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Oip => "the Open Inference Protocol",
            Self::Mlflow => "MLflow's scoring protocol",
            Self::Tfs => "TensorFlow Serving's REST API",
            Self::Sagemaker => "SageMaker's container contract",
            Self::Openai => "OpenAI's API",
        }
    }

    /// Why a gate can't be asked of a server that speaks this; none where it can.
    #[must_use]
    pub fn refuses(self, gate: &GateSpec) -> Option<String> {
        let asks = match gate {
            GateSpec::Command { .. } | GateSpec::Data { .. } => return None,
            GateSpec::Metric { .. } | GateSpec::Parity { .. } | GateSpec::Benchmark { .. } => "rows",
            GateSpec::Replay { data: Some(_), .. } if self != Self::Oip => {
                "requests of the Open Inference Protocol"
            }
            GateSpec::Replay { .. } => return None,
        };
        let what = match (self, asks) {
            (Self::Openai, "rows") => "answers texts, not rows",
            (Self::Sagemaker, "rows") => {
                "takes whatever form its container wants, so rows can't be written for it"
            }
            (_, "rows") => return None,
            _ => "doesn't take them; leave `data` out to replay what was recorded here",
        };
        let kind = gate.kind();
        Some(format!("a {kind} gate asks {asks}, and a server that speaks {} {what}", self.title()))
    }
}

/// What a server speaks, and how it is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Its protocol.
    pub protocol: ServerProtocol,
    /// The name under which it knows the model.
    pub model: String,
    /// The version that is asked for in its paths; none where whatever it has is asked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub version: Option<String>,
    /// The path that says whether it is well, where it isn't the protocol's own.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub health: Option<String>,
    /// How long an answer that is streamed may take in all, in milliseconds.
    pub stream_ms: u64,
}

/// A server that is started and supervised for each worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessServer {
    /// What it speaks.
    pub server: Server,
    /// The command line, run by `sh -c`, with places as [`fill`] fills them.
    pub run: String,
    /// Path of a requirements file among the release's files, from which its Python environment is made.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub requirements: Option<String>,
    /// The version of Python for that: `3.11`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub python: Option<String>,
    /// Environment variables for it, with places as the command line.
    pub env: BTreeMap<String, String>,
    /// How long it may take to become ready, in milliseconds.
    pub start_ms: u64,
    /// Whether it may use TCP for more than to listen on its own ports.
    pub tcp: bool,
}

/// A server that somebody else runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpServer {
    /// What it speaks.
    pub server: Server,
    /// Where it is: `http://HOST:PORT`, with places for the environment's variables.
    pub addresses: Vec<String>,
}

/// The places `{NAME}` in a text, in order. `${NAME}` is the shell's and no place.
#[must_use]
pub fn places(text: &str) -> Vec<&str> {
    pieces(text).filter_map(|(_, place)| place).collect()
}

/// Puts values into the places of a text.
///
/// # Errors
/// The first place for which there is no value.
pub fn fill(text: &str, value: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    for (before, place) in pieces(text) {
        out.push_str(before);
        if let Some(place) = place {
            out.push_str(&value(place).ok_or_else(|| place.to_owned())?);
        }
    }
    Ok(out)
}

/// A text, cut into what stands before each place, and the place.
fn pieces(text: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let now = rest?;
        for (at, _) in now.match_indices('{') {
            let (before, after) = now.split_at(at);
            let Some((name, behind)) = after.get(1..).and_then(|a| a.split_once('}')) else { break };
            if !before.ends_with('$') && is_place(name) {
                rest = Some(behind);
                return Some((before, Some(name)));
            }
        }
        rest = None;
        Some((now, None))
    })
}

/// A name, or a name with another behind a colon: `port:grpc`.
fn is_place(name: &str) -> bool {
    let word = |w: &str| {
        w.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && w.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let mut words = name.splitn(2, ':');
    words.all(word) && !name.is_empty()
}

/// A text as one word of a shell's command line.
#[must_use]
pub fn shell_word(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:@%+=,".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Host and port of an address `http://HOST:PORT`.
///
/// # Errors
/// What is wrong with it, and what to write.
pub fn host_and_port(address: &str) -> Result<String, String> {
    let rest = match address.split_once("://") {
        Some(("http", rest)) => rest.strip_suffix('/').unwrap_or(rest),
        Some(("https", _)) => {
            return Err(
                "https is not spoken to servers yet; put a proxy on this machine before it".to_owned()
            );
        }
        _ => return Err("an address begins with `http://`: http://HOST:PORT".to_owned()),
    };
    if rest.contains(['/', '?', '#', '@', ' ']) {
        return Err("an address has a host and a port, and nothing else: http://HOST:PORT".to_owned());
    }
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (rest, "80"),
    };
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
    if let Some(why) = ip.and_then(refused_peer) {
        return Err(why.to_owned());
    }
    match port.parse::<u16>() {
        Ok(number) if number > 0 && !host.is_empty() => Ok(format!("{host}:{number}")),
        _ => Err("an address has a host and a port: http://HOST:PORT".to_owned()),
    }
}

/// Why nothing at this address can be a server that answers predictions; none where one may be. Whoever connects by a name asks
/// again, with the address that it led to.
#[must_use]
pub fn refused_peer(ip: IpAddr) -> Option<&'static str> {
    let link_local = match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    // Machines in clouds tell their secrets there.
    if link_local {
        return Some("link-local addresses (169.254.0.0/16, fe80::/10) are no places for servers");
    }
    let none = ip.to_canonical().is_unspecified() || ip.to_canonical().is_multicast();
    none.then_some("it is no address of one machine")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_and_what_is_the_shell_s_or_json_s_stays() {
        let text = r#"x {model} --port={port:grpc} '{"a": 1}' ${HOME} {} { port }"#;
        assert_eq!(places(text), ["model", "port:grpc"]);
        let filled = fill(text, |p| Some(p.to_uppercase())).unwrap();
        assert_eq!(filled, r#"x MODEL --port=PORT:GRPC '{"a": 1}' ${HOME} {} { port }"#);
        assert_eq!(fill("a {b}", |_| None), Err("b".to_owned()));
        assert_eq!(fill("", |_| None), Ok(String::new()));
        assert_eq!(fill("{a}{a}", |_| Some("x".to_owned())).unwrap(), "xx");
    }

    #[test]
    fn words_for_the_shell_stay_one_word() {
        assert_eq!(shell_word("/a/b-c_1.sock"), "/a/b-c_1.sock");
        assert_eq!(shell_word("a b"), "'a b'");
        assert_eq!(shell_word("it's; $(rm)"), r"'it'\''s; $(rm)'");
        assert_eq!(shell_word(""), "''");
    }

    #[test]
    fn addresses_are_hosts_with_ports() {
        assert_eq!(host_and_port("http://triton:8000").unwrap(), "triton:8000");
        assert_eq!(host_and_port("http://triton/").unwrap(), "triton:80");
        assert_eq!(host_and_port("http://[::1]:8000").unwrap(), "[::1]:8000");
        assert_eq!(host_and_port("http://[::1]").unwrap(), "[::1]:80");
        for bad in [
            "triton:8000",
            "https://x",
            "http://",
            "http://x:0",
            "http://x:99999",
            "http://x/v1",
            "http://u@x",
            "http://169.254.169.254",
            "http://[fe80::1]:8000",
            "http://[::ffff:169.254.169.254]:80",
            "http://0.0.0.0:8000",
            "http://[::]:8000",
            "http://224.0.0.1",
        ] {
            assert!(host_and_port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn gates_that_ask_rows_are_refused_where_a_server_takes_none() {
        let parity = GateSpec::Parity { atol: 1e-5 };
        let replay = |data: Option<&str>| GateSpec::Replay { data: data.map(str::to_owned), limit: 1 };
        for (protocol, _) in ServerProtocol::ALL {
            let rows = !matches!(protocol, ServerProtocol::Openai | ServerProtocol::Sagemaker);
            assert_eq!(protocol.refuses(&parity).is_none(), rows, "{protocol:?}");
            assert_eq!(protocol.refuses(&replay(None)), None);
            assert_eq!(protocol.refuses(&replay(Some("r"))).is_none(), protocol == ServerProtocol::Oip);
        }
    }
}
