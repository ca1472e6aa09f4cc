//! One agent takes over from another over the same folder, for an upgrade: no connection is refused, no request is lost.
//!
//! ```text
//! successor                     predecessor
//!   connect ──────────────────▶  serves
//!           ◀── listening socket
//!   FREEZE  ──────────────────▶  judges and journals no more, goes on serving by its last routes
//!           ◀── FROZEN           its journal is closed
//!   opens the journal, starts workers of its own, waits until they serve
//!   takes connections
//!   REPLACED ─────────────────▶  finishes its connections and ends
//! ```
//!
//! Where the successor ends before it says `REPLACED`, the predecessor opens its journal again and goes on as before. Both never
//! have the journal open: its lock sees to that.

use crate::AgentError;
use crate::descriptor;
use crate::home::Home;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

const FREEZE: u8 = b'F';
const FROZEN: u8 = b'f';
const REPLACED: u8 = b'R';

/// How long the predecessor may take for each step that a successor waits for: it answers at once, but for an entry that is
/// being written.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

fn place(home: &Home) -> PathBuf {
    home.path("run").join("over.sock")
}

/// The agent that runs over the same folder, as its successor sees it.
#[derive(Debug)]
pub(crate) struct Predecessor {
    stream: UnixStream,
    listener: Option<TcpListener>,
}

impl Predecessor {
    /// Finds the agent that runs over this folder; none where none does. It stops judging and writing before this returns.
    pub(crate) async fn find(home: &Home) -> Result<Option<Self>, AgentError> {
        let path = place(home);
        let Ok(stream) = UnixStream::connect(&path).await else { return Ok(None) };
        let broken = |e| AgentError::io("take over by", &path, e);
        let steps = async {
            let listener = receive(&stream).await?;
            let mut stream = stream;
            stream.write_all(&[FREEZE]).await?;
            let mut answer = [0];
            stream.read_exact(&mut answer).await?;
            if answer != [FROZEN] {
                return Err(std::io::Error::other(
                    "the agent that runs answers something else than expected",
                ));
            }
            Ok(Self { stream, listener: Some(listener) })
        };
        let late =
            || std::io::Error::new(std::io::ErrorKind::TimedOut, "the agent that runs does not answer");
        tokio::time::timeout(ANSWER_WITHIN, steps)
            .await
            .unwrap_or_else(|_| Err(late()))
            .map(Some)
            .map_err(broken)
    }

    /// Its listening socket, once.
    pub(crate) fn take_listener(&mut self) -> Option<TcpListener> {
        self.listener.take()
    }

    /// Says that connections are taken here from now on.
    pub(crate) async fn replaced(mut self) {
        if let Err(error) = self.stream.write_all(&[REPLACED]).await {
            tracing::warn!(%error, "the agent that this one replaces is gone already");
        }
    }
}

async fn receive(stream: &UnixStream) -> std::io::Result<TcpListener> {
    loop {
        stream.readable().await?;
        match stream.try_io(tokio::io::Interest::READABLE, || descriptor::receive(stream)) {
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            received => return received,
        }
    }
}

/// Where a successor knocks. What is left of it when the agent ends leads nowhere; by then the place may be the successor's.
#[derive(Debug)]
pub(crate) struct Door {
    knocks: UnixListener,
}

impl Door {
    /// Opens the door. Whoever holds the journal may: a knocker that another agent left there leads nowhere.
    pub(crate) fn open(home: &Home) -> Result<Self, AgentError> {
        let path = place(home);
        let _ = std::fs::remove_file(&path);
        let knocks = UnixListener::bind(&path).map_err(|e| AgentError::io("listen at", &path, e))?;
        Ok(Self { knocks })
    }

    /// Waits for a successor, and gives it the listening socket.
    pub(crate) async fn successor(&self, listener: &TcpListener) -> Successor {
        loop {
            match self.greet(listener).await {
                Ok(successor) => return successor,
                Err(error) => {
                    tracing::warn!(%error, "somebody wanted to take over and did not go on");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn greet(&self, listener: &TcpListener) -> std::io::Result<Successor> {
        let (mut stream, _) = self.knocks.accept().await?;
        descriptor::send(&stream, listener)?;
        let mut word = [0];
        let read = tokio::time::timeout(ANSWER_WITHIN, stream.read_exact(&mut word));
        read.await.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
        if word != [FREEZE] {
            return Err(std::io::Error::other("it says something else than expected"));
        }
        Ok(Successor { stream })
    }
}

/// An agent that wants to take over.
#[derive(Debug)]
pub(crate) struct Successor {
    stream: UnixStream,
}

impl Successor {
    /// Says that the journal is free, and waits for the end of the hand-over: whether the successor has taken over.
    pub(crate) async fn takes_over(mut self) -> bool {
        let mut word = [0];
        let said = async {
            self.stream.write_all(&[FROZEN]).await?;
            self.stream.read_exact(&mut word).await
        };
        said.await.is_ok() && word == [REPLACED]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(dir: &std::path::Path) -> Home {
        Home::open(&dir.join("h")).unwrap()
    }

    #[tokio::test]
    async fn a_successor_gets_the_socket_and_the_predecessor_hears_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let home = home(dir.path());
        assert!(Predecessor::find(&home).await.unwrap().is_none());
        let door = Door::open(&home).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let old = async { door.successor(&listener).await.takes_over().await };
        let new = async {
            let mut before = Predecessor::find(&home).await.unwrap().unwrap();
            let got = before.take_listener().unwrap();
            before.replaced().await;
            got
        };
        let (replaced, got) = tokio::join!(old, new);
        assert!(replaced);
        assert_eq!(got.local_addr().unwrap(), listener.local_addr().unwrap());
    }

    #[tokio::test]
    async fn a_successor_that_gives_up_leaves_the_predecessor_in_office() {
        let dir = tempfile::tempdir().unwrap();
        let home = home(dir.path());
        let door = Door::open(&home).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let old = async { door.successor(&listener).await.takes_over().await };
        let new = async { drop(Predecessor::find(&home).await.unwrap().unwrap()) };
        let (replaced, ()) = tokio::join!(old, new);
        assert!(!replaced);
        // A door that is closed is no predecessor.
        drop(door);
        assert!(Predecessor::find(&home).await.unwrap().is_none());
    }
}
