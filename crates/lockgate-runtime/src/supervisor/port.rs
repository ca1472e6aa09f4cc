//! Whose port it is: a program that takes a server's port would get its requests.

use std::collections::BTreeSet;
use std::path::Path;

/// Whether somebody in the process group of `leader` listens at `address`; none where the system doesn't tell.
pub(super) fn is_of_group(address: &str, leader: u32) -> Option<bool> {
    let port = address.rsplit_once(':')?.1.parse().ok()?;
    let tables: Vec<String> =
        ["/proc/net/tcp", "/proc/net/tcp6"].iter().filter_map(|t| std::fs::read_to_string(t).ok()).collect();
    let sockets: BTreeSet<String> = tables.iter().flat_map(|t| listening(t, port)).collect();
    if sockets.is_empty() {
        return None;
    }
    let mut looked = false;
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        if group_of(&entry.path()) != Some(leader) {
            continue;
        }
        let Ok(files) = std::fs::read_dir(entry.path().join("fd")) else { continue };
        looked = true;
        if files.flatten().any(|file| is_one_of(&file.path(), &sockets)) {
            return Some(true);
        }
    }
    looked.then_some(false)
}

/// A process's group: the third field behind its name.
fn group_of(process: &Path) -> Option<u32> {
    let stat = std::fs::read_to_string(process.join("stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(2)?.parse().ok()
}

fn is_one_of(file: &Path, sockets: &BTreeSet<String>) -> bool {
    let target = std::fs::read_link(file).unwrap_or_default();
    let inode = target.to_str().and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']'));
    inode.is_some_and(|inode| sockets.contains(inode))
}

/// The sockets that listen on a port, by their inodes.
fn listening(table: &str, port: u16) -> impl Iterator<Item = String> {
    const LISTEN: &str = "0A";
    let suffix = format!(":{port:04X}");
    table.lines().filter_map(move |line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        (local.ends_with(&suffix) && *state == LISTEN).then(|| (*inode).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_that_of_the_group_that_listens_on_it() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap().to_string();
        let own = rustix::process::getpgid(None).unwrap().as_raw_nonzero().get().cast_unsigned();
        assert_eq!(is_of_group(&address, own), Some(true));
        let mut other = std::process::Command::new("sleep");
        let mut other =
            std::os::unix::process::CommandExt::process_group(&mut other, 0).arg("30").spawn().unwrap();
        assert_eq!(is_of_group(&address, other.id()), Some(false));
        other.kill().unwrap();
        other.wait().unwrap();
        drop(socket);
        assert_eq!(is_of_group(&address, own), None);
    }
}
