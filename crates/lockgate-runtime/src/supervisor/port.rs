//! Whose port it is: a program that takes a server's port would get its requests.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// How a table of the system calls a socket that listens. It shows these first.
const LISTENS: &str = "0A";

/// Who listens at an address: the sockets that its next connection may go to, and the process group that must have all of them.
#[derive(Debug, Clone)]
pub(super) struct Port {
    address: SocketAddr,
    leader: u32,
    /// Sockets that were the group's when they were looked at last.
    known: BTreeSet<String>,
}

impl Port {
    /// The port of the process group of `leader`; none where an address is no port of this machine.
    pub(super) fn new(address: &str, leader: u32) -> Option<Self> {
        Some(Self { address: address.parse().ok()?, leader, known: BTreeSet::new() })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether all who listen there belong to the group; none where nobody does, or the system doesn't tell. To look again costs
    /// little while the sockets are the same.
    pub(super) fn is_its_own(&mut self) -> Option<bool> {
        let sockets = reached(self.address);
        if sockets.is_empty() {
            return None;
        }
        if sockets == self.known {
            return Some(true);
        }
        let owned = of_group(self.leader)?;
        let own = sockets.is_subset(&owned);
        self.known = if own { sockets } else { BTreeSet::new() };
        Some(own)
    }
}

/// The sockets that a connection to an address may reach, by their inodes: those that listen at this very address, and only
/// without them those that listen at all addresses.
fn reached(address: SocketAddr) -> BTreeSet<String> {
    let mut found: Vec<(u8, String)> = Vec::new();
    for path in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let Ok(table) = std::fs::File::open(path) else { continue };
        let lines = BufReader::new(table).lines().skip(1).map_while(Result::ok);
        found.extend(lines.map_while(|line| listening(&line)).filter_map(|(local, inode)| {
            (local.port() == address.port()).then_some(())?;
            Some((rank(local.ip(), address.ip())?, inode))
        }));
    }
    let best = found.iter().map(|(rank, _)| *rank).max();
    found.into_iter().filter(|(rank, _)| Some(*rank) == best).map(|(_, inode)| inode).collect()
}

/// How near a listening socket is to an address, as the system ranks them; none where it doesn't reach it.
fn rank(local: IpAddr, address: IpAddr) -> Option<u8> {
    let same_family = local.is_ipv4() == address.is_ipv4();
    if local.to_canonical() == address.to_canonical() {
        return Some(if same_family { 3 } else { 2 });
    }
    let to_all = local.is_unspecified() && (same_family || local.is_ipv6());
    to_all.then_some(u8::from(same_family))
}

/// Where a table's line says that a socket listens, and its inode; none where it doesn't listen.
fn listening(line: &str) -> Option<(SocketAddr, String)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    if *state != LISTENS {
        return None;
    }
    let (ip, port) = local.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Each four bytes as a number of this machine.
    let words: Vec<[u8; 4]> = ip
        .as_bytes()
        .chunks(8)
        .map(|digits| std::str::from_utf8(digits).ok().and_then(|d| u32::from_str_radix(d, 16).ok()))
        .map(|word| word.map(u32::to_ne_bytes))
        .collect::<Option<_>>()?;
    let ip = match words.as_slice() {
        [v4] => IpAddr::from(*v4),
        all => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(all.concat()).ok()?)),
    };
    Some((SocketAddr::new(ip, port), (*inode).to_owned()))
}

/// The sockets of a process group, by their inodes; none where the system doesn't tell.
fn of_group(leader: u32) -> Option<BTreeSet<String>> {
    let mut found = None;
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        if group_of(&entry.path()) != Some(leader) {
            continue;
        }
        let Ok(files) = std::fs::read_dir(entry.path().join("fd")) else { continue };
        found.get_or_insert_with(BTreeSet::new).extend(files.flatten().filter_map(|f| socket(&f.path())));
    }
    found
}

/// A process's group: the third field behind its name.
fn group_of(process: &Path) -> Option<u32> {
    let stat = std::fs::read_to_string(process.join("stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(2)?.parse().ok()
}

fn socket(file: &Path) -> Option<String> {
    let target = std::fs::read_link(file).ok()?;
    Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn group() -> u32 {
        rustix::process::getpgid(None).unwrap().as_raw_nonzero().get().cast_unsigned()
    }

    #[test]
    fn a_port_is_that_of_the_group_that_listens_on_it() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap().to_string();
        let mut own = Port::new(&address, group()).unwrap();
        assert_eq!(own.is_its_own(), Some(true));
        let mut other = std::process::Command::new("sleep");
        let mut other =
            std::os::unix::process::CommandExt::process_group(&mut other, 0).arg("30").spawn().unwrap();
        let mut others = Port::new(&address, other.id()).unwrap();
        assert_eq!(others.is_its_own(), Some(false));
        other.kill().unwrap();
        other.wait().unwrap();
        drop(socket);
        assert_eq!(own.is_its_own(), None);
        // Another socket at the same place is looked at anew.
        let again = TcpListener::bind(&address).unwrap();
        assert_eq!((own.is_its_own(), others.is_its_own()), (Some(true), None));
        drop(again);
    }

    #[test]
    fn a_socket_at_another_address_of_the_machine_is_another_socket() {
        let here = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = here.local_addr().unwrap().port();
        let at = |ip: &str| reached(SocketAddr::new(ip.parse().unwrap(), port));
        assert_eq!((at("127.0.0.1").len(), at("127.0.0.2").len()), (1, 0));
        let beside = TcpListener::bind(("127.0.0.2", port)).unwrap();
        assert_eq!((at("127.0.0.1").len(), at("127.0.0.2").len()), (1, 1));
        assert_ne!(at("127.0.0.1"), at("127.0.0.2"));
        drop((here, beside));
        let to_all = TcpListener::bind(("0.0.0.0", port)).unwrap();
        assert_eq!((at("127.0.0.1").len(), at("127.0.0.2").len()), (1, 1));
        drop(to_all);
    }

    #[test]
    fn the_nearest_socket_gets_a_connection() {
        let of = |local: &str, address: &str| rank(local.parse().unwrap(), address.parse().unwrap());
        let ranks = ["127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0", "::"].map(|l| of(l, "127.0.0.1").unwrap());
        assert!(ranks.is_sorted_by(|a, b| a > b), "{ranks:?}");
        assert_eq!((of("127.0.0.2", "127.0.0.1"), of("::1", "127.0.0.1")), (None, None));
        assert_eq!((of("0.0.0.0", "::1"), of("::", "::1")), (None, Some(1)));
        let line = "   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000 0 77 1";
        let (local, inode) = listening(line).unwrap();
        assert_eq!((local.port(), inode.as_str()), (8080, "77"));
        assert!(cfg!(target_endian = "big") || local.ip() == IpAddr::from([127, 0, 0, 1]));
        assert_eq!(listening(&line.replace(" 0A ", " 01 ")), None);
    }
}
