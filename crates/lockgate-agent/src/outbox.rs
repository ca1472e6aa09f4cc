//! What smoke tests wrote, on its way to the server. It lies on the disk until the server has it: a test's end is on record at
//! once, and neither waits for its log nor loses it.

use crate::AgentError;
use crate::home::{Home, write_private};
use crate::server::Server;
use lockgate_core::digest::Digest;
use std::path::{Path, PathBuf};

/// A folder with one file for each, named by its digest.
#[derive(Debug)]
pub(crate) struct Outbox {
    folder: PathBuf,
}

impl Outbox {
    pub(crate) fn open(home: &Home) -> Result<Self, AgentError> {
        let folder = home.path("outbox");
        std::fs::create_dir_all(&folder).map_err(|e| AgentError::io("make the folder", &folder, e))?;
        Ok(Self { folder })
    }

    /// Keeps bytes until the server has them.
    pub(crate) fn keep(&self, bytes: &[u8]) -> Result<Digest, AgentError> {
        let digest = Digest::of(bytes);
        write_private(&self.folder.join(digest.hex()), bytes)?;
        Ok(digest)
    }

    /// What waits.
    fn waiting(&self) -> Result<Vec<(Digest, PathBuf)>, AgentError> {
        let wrong = |e| AgentError::io("look into the folder", &self.folder, e);
        let files = std::fs::read_dir(&self.folder).map_err(wrong)?;
        // What has another name was not written to its end.
        let named = |path: PathBuf| Some((digest(&path)?, path));
        Ok(files.flatten().filter_map(|file| named(file.path())).collect())
    }

    /// Hands everything over that waits. What the server will never take goes, too.
    ///
    /// # Errors
    /// Where something still waits, and trying again may help.
    pub(crate) async fn send(&self, server: &Server) -> Result<(), AgentError> {
        for (digest, path) in self.waiting()? {
            let bytes = match std::fs::read(&path) {
                // Another life of the agent was quicker.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                read => read.map_err(|e| AgentError::io("read", &path, e))?,
            };
            match server.put_log(&digest, bytes).await {
                Err(error) if error.is_passing() => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, %digest, "the server does not take what a smoke test wrote")
                }
                Ok(()) => {}
            }
            let _ = std::fs::remove_file(&path);
        }
        Ok(())
    }
}

/// The digest that a file is named by.
fn digest(path: &Path) -> Option<Digest> {
    format!("sha256:{}", path.file_name()?.to_str()?).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    /// A server that answers each request with the next of these.
    fn server(answers: Vec<&'static str>) -> (Server, std::thread::JoinHandle<Vec<String>>) {
        // What installs it elsewhere is the program.
        let _known = rustls::crypto::ring::default_provider().install_default();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let got = std::thread::spawn(move || {
            let one = |status: &str| {
                let (mut stream, _) = listener.accept().unwrap();
                let (mut request, mut piece) = (String::new(), [0; 4096]);
                while !request.ends_with("row 0 is wrong") {
                    let read = stream.read(&mut piece).unwrap();
                    request.push_str(std::str::from_utf8(&piece[..read]).unwrap());
                }
                let end = "content-length: 2\r\nconnection: close\r\n\r\n{}";
                write!(stream, "HTTP/1.1 {status}\r\n{end}").unwrap();
                request.lines().next().unwrap().to_owned()
            };
            answers.into_iter().map(one).collect()
        });
        (Server::new(&base, "secret".to_owned(), "production".parse().unwrap()).unwrap(), got)
    }

    #[tokio::test]
    async fn what_was_kept_waits_for_the_server_over_restarts_and_goes_once_it_was_taken() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(&dir.path().join("production")).unwrap();
        let digest = Outbox::open(&home).unwrap().keep(b"row 0 is wrong").unwrap();
        std::fs::write(home.path("outbox/half.new"), b"half").unwrap();
        let (server, got) = server(vec!["503 Service Unavailable", "200 OK"]);
        let outbox = Outbox::open(&home).unwrap();
        let error = outbox.send(&server).await.unwrap_err();
        assert!(error.is_passing(), "{error}");
        assert_eq!(outbox.waiting().unwrap().len(), 1);
        outbox.send(&server).await.unwrap();
        assert!(outbox.waiting().unwrap().is_empty());
        // Nothing more is sent: nobody would answer.
        outbox.send(&server).await.unwrap();
        let path = format!("PUT /agent/v1/environments/production/blobs/{digest} HTTP/1.1");
        assert_eq!(got.join().unwrap(), [path.clone(), path]);
    }

    #[tokio::test]
    async fn what_the_server_will_never_take_is_not_offered_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(&dir.path().join("production")).unwrap();
        let outbox = Outbox::open(&home).unwrap();
        outbox.keep(b"row 0 is wrong").unwrap();
        let (server, got) = server(vec!["400 Bad Request"]);
        outbox.send(&server).await.unwrap();
        assert!(outbox.waiting().unwrap().is_empty());
        assert_eq!(got.join().unwrap().len(), 1);
    }
}
