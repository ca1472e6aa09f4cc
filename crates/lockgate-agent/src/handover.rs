//! One agent takes over from another over the same folder, for an upgrade: no connection is refused, no request is lost.
//!
//! ```text
//! successor                     predecessor
//!   connect ──────────────────▶  serves
//!           ◀── NONCE            32 random bytes
//!   SIGNED, with the agent's key ▶  a program in the same folder without the key (a model, a gate) gets no further
//!           ◀── listening socket
//!   FREEZE  ──────────────────▶  judges and journals no more, goes on serving by its last routes
//!           ◀── FROZEN           its journal is closed
//!   opens the journal, starts workers of its own, waits until they serve
//!   READY   ──────────────────▶
//!           ◀── REPLACED, breakers   says which rollouts' breakers are open, finishes its connections and ends
//!   takes connections
//! ```
//!
//! Where the successor ends before it says `READY`, or takes too long, the predecessor opens its journal again and goes on as
//! before. Both never have the journal open: its lock sees to that. A predecessor that goes on says so (`STAYS`); one that is
//! gone without a word has died, and the successor is needed.

use crate::AgentError;
use crate::descriptor;
use crate::home::Home;
use lockgate_core::clock::Entropy;
use lockgate_gateway::OpenBreaker;
use p256::ecdsa::signature::{Signer as _, Verifier as _};
use p256::ecdsa::{Signature, SigningKey};
use std::io::{Error, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

const FREEZE: u8 = b'F';
const FROZEN: u8 = b'f';
const READY: u8 = b'R';
const REPLACED: u8 = b'r';
const STAYS: u8 = b'S';

/// What is signed, before the nonce: a signature for something else is none for this.
const SUBJECT: &[u8] = b"lockgate agent hand-over 1\n";

/// How long the other one may take for each step that is waited for: it answers at once, but for an entry that is being
/// written.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// How much a predecessor may say of its breakers.
const BREAKERS: u64 = 1 << 20;

/// How long a successor may take until everything serves; workers that fail end it sooner.
pub(crate) const SERVE_WITHIN: Duration = Duration::from_secs(660);

fn place(home: &Home) -> PathBuf {
    home.path("run").join("over.sock")
}

async fn within<T>(steps: impl Future<Output = std::io::Result<T>>) -> std::io::Result<T> {
    let late = |_| Error::new(ErrorKind::TimedOut, "the other agent does not answer");
    tokio::time::timeout(ANSWER_WITHIN, steps).await.map_err(late)?
}

async fn word(stream: &mut UnixStream) -> std::io::Result<u8> {
    let mut word = [0];
    stream.read_exact(&mut word).await?;
    Ok(word[0])
}

fn subject(nonce: &[u8]) -> Vec<u8> {
    [SUBJECT, nonce].concat()
}

/// The agent that runs over the same folder, as its successor sees it.
#[derive(Debug)]
pub(crate) struct Predecessor {
    stream: UnixStream,
    listener: Option<TcpListener>,
}

impl Predecessor {
    /// Finds the agent that runs over this folder and listens at `listen`; none where none does. It stops judging and writing
    /// before this returns.
    pub(crate) async fn find(
        home: &Home,
        key: &SigningKey,
        listen: SocketAddr,
    ) -> Result<Option<Self>, AgentError> {
        let path = place(home);
        let Ok(mut stream) = UnixStream::connect(&path).await else { return Ok(None) };
        let steps = async {
            let mut nonce = [0; 32];
            stream.read_exact(&mut nonce).await?;
            let signature: Signature = key.sign(&subject(&nonce));
            stream.write_all(&signature.to_bytes()).await?;
            let listener = receive(&stream).await?;
            let theirs = listener.local_addr()?;
            if theirs != listen && listen.port() != 0 {
                return Err(Error::other(format!(
                    "it listens at {theirs}, and this one is to listen at {listen}"
                )));
            }
            stream.write_all(&[FREEZE]).await?;
            match word(&mut stream).await? {
                FROZEN => Ok(listener),
                STAYS => Err(Error::other("it has a way back to write down first (is its disk full?)")),
                _ => Err(Error::other("it answers something else than expected")),
            }
        };
        let listener =
            within(steps).await.map_err(|e| AgentError::io("take over from the agent at", &path, e))?;
        Ok(Some(Self { stream, listener: Some(listener) }))
    }

    /// Its listening socket, once.
    pub(crate) fn take_listener(&mut self) -> Option<TcpListener> {
        self.listener.take()
    }

    /// Resolves when the predecessor doesn't wait any more. Never where it died: then this agent is needed.
    pub(crate) async fn stays(&mut self) {
        if !matches!(word(&mut self.stream).await, Ok(STAYS)) {
            std::future::pending::<()>().await;
        }
    }

    /// Says that everything serves here. Where the predecessor leaves, or is gone already: which rollouts' breakers it left
    /// open. None where it stays.
    pub(crate) async fn replace(mut self) -> Option<Vec<OpenBreaker>> {
        let steps = async {
            self.stream.write_all(&[READY]).await?;
            let word = word(&mut self.stream).await?;
            let mut rest = Vec::new();
            if word == REPLACED {
                (&mut self.stream).take(BREAKERS).read_to_end(&mut rest).await?;
            }
            Ok((word, rest))
        };
        match within(steps).await {
            Ok((STAYS, _)) => None,
            // An older program says nothing of its breakers, and one that has died can't.
            Ok((_, said)) if !said.is_empty() => {
                Some(serde_json::from_slice(&said).unwrap_or_else(|error| {
                    tracing::warn!(%error, "which breakers the agent before left open can't be read");
                    Vec::new()
                }))
            }
            _ => Some(Vec::new()),
        }
    }
}

async fn receive(stream: &UnixStream) -> std::io::Result<TcpListener> {
    loop {
        stream.readable().await?;
        match stream.try_io(tokio::io::Interest::READABLE, || descriptor::receive(stream)) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
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

    /// Waits for a successor, one that has the agent's own key, and gives it the listening socket.
    pub(crate) async fn successor(
        &self,
        key: &SigningKey,
        entropy: &dyn Entropy,
        listener: impl Fn() -> std::io::Result<TcpListener>,
    ) -> Successor {
        loop {
            match self.greet(key, entropy, &listener).await {
                Ok(successor) => return successor,
                Err(error) => {
                    tracing::warn!(%error, "somebody wanted to take over and may not, or did not go on");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn greet(
        &self,
        key: &SigningKey,
        entropy: &dyn Entropy,
        listener: &impl Fn() -> std::io::Result<TcpListener>,
    ) -> std::io::Result<Successor> {
        let (mut stream, _) = self.knocks.accept().await?;
        let steps = async {
            let mut nonce = [0; 32];
            entropy.fill(&mut nonce);
            stream.write_all(&nonce).await?;
            let mut signature = [0; 64];
            stream.read_exact(&mut signature).await?;
            let signature = Signature::from_slice(&signature).map_err(Error::other)?;
            key.verifying_key().verify(&subject(&nonce), &signature).map_err(Error::other)?;
            descriptor::send(&stream, &listener()?)?;
            match word(&mut stream).await? {
                FREEZE => Ok(Successor { stream }),
                _ => Err(Error::other("it says something else than expected")),
            }
        };
        within(steps).await
    }
}

/// An agent that wants to take over.
#[derive(Debug)]
pub(crate) struct Successor {
    stream: UnixStream,
}

impl Successor {
    /// Says that this agent does not wait any more.
    pub(crate) async fn refuse(mut self) {
        // One that has gone need not be told.
        let _ = self.stream.write_all(&[STAYS]).await;
    }

    /// Says that the journal is free, and waits for the end of the hand-over: whether the successor has taken over. It is told
    /// then which breakers are `open` at that moment: it must not send anybody where this one doesn't any more.
    pub(crate) async fn takes_over(mut self, open: impl Fn() -> Vec<OpenBreaker>) -> bool {
        let said = async {
            self.stream.write_all(&[FROZEN]).await?;
            word(&mut self.stream).await
        };
        match tokio::time::timeout(SERVE_WITHIN + ANSWER_WITHIN, said).await {
            Ok(Ok(READY)) => {
                // From here on there is no way back: where the answer is lost, the successor goes on as one that is needed.
                let open = serde_json::to_vec(&open()).unwrap_or_default();
                let _ = self.stream.write_all(&[&[REPLACED], &open[..]].concat()).await;
                true
            }
            _ => {
                self.refuse().await;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;
    impl Entropy for Fixed {
        fn fill(&self, buf: &mut [u8]) {
            buf.fill(5);
        }
    }

    fn open() -> OpenBreaker {
        OpenBreaker { model: "delay".parse().unwrap(), salt: "pr_1".to_owned(), mirrored: false }
    }

    struct Place {
        _dir: tempfile::TempDir,
        home: Home,
        key: SigningKey,
        listener: TcpListener,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let home = Home::open(&dir.path().join("h")).unwrap();
            let key = home.key(&Fixed).unwrap();
            Self { _dir: dir, home, key, listener: TcpListener::bind("127.0.0.1:0").unwrap() }
        }

        async fn knock(&self) -> Result<Option<Predecessor>, AgentError> {
            Predecessor::find(&self.home, &self.key, self.listener.local_addr().unwrap()).await
        }

        async fn answer(&self, door: &Door) -> bool {
            let successor = door.successor(&self.key, &Fixed, || self.listener.try_clone()).await;
            successor.takes_over(|| vec![open()]).await
        }
    }

    #[tokio::test]
    async fn a_successor_gets_the_socket_and_the_predecessor_hears_the_end() {
        let place = Place::new();
        assert!(place.knock().await.unwrap().is_none());
        let door = Door::open(&place.home).unwrap();
        let new = async {
            let mut before = place.knock().await.unwrap().unwrap();
            let got = before.take_listener().unwrap();
            assert_eq!(before.replace().await, Some(vec![open()]), "its breakers are open still");
            got
        };
        let (replaced, got) = tokio::join!(place.answer(&door), new);
        assert!(replaced);
        assert_eq!(got.local_addr().unwrap(), place.listener.local_addr().unwrap());
    }

    #[tokio::test]
    async fn a_successor_that_gives_up_leaves_the_predecessor_in_office() {
        let place = Place::new();
        let door = Door::open(&place.home).unwrap();
        let new = async { drop(place.knock().await.unwrap().unwrap()) };
        let (replaced, ()) = tokio::join!(place.answer(&door), new);
        assert!(!replaced);
        // A door that is closed is no predecessor.
        drop(door);
        assert!(place.knock().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn one_without_the_key_gets_nothing() {
        let place = Place::new();
        let door = Door::open(&place.home).unwrap();
        let stranger = SigningKey::from_slice(&[9; 32]).unwrap();
        let at = place.listener.local_addr().unwrap();
        let refused = async { Predecessor::find(&place.home, &stranger, at).await.unwrap_err() };
        let nobody = door.successor(&place.key, &Fixed, || panic!("a stranger gets no socket"));
        tokio::select! {
            _ = nobody => panic!("a stranger is no successor"),
            _ = refused => {}
        }
        // Nor does one that only replays what somebody else signed.
        let mut replaying = UnixStream::connect(super::place(&place.home)).await.unwrap();
        let signature: Signature = place.key.sign(&subject(&[1; 32]));
        replaying.write_all(&signature.to_bytes()).await.unwrap();
        let nobody = door.successor(&place.key, &Fixed, || panic!("a replay gets no socket"));
        let mut rest = Vec::new();
        tokio::select! {
            _ = nobody => panic!("a replay is no successor"),
            read = replaying.read_to_end(&mut rest) => assert_eq!((read.unwrap_or(32), rest.len()), (32, 32)),
        }
    }

    /// One of an older program says a single word; one that says something else is replaced all the same.
    #[tokio::test]
    async fn a_predecessor_that_says_nothing_of_its_breakers_is_replaced_too() {
        let place = Place::new();
        let door = Door::open(&place.home).unwrap();
        for said in [&b"r"[..], b"rno json", b"r[{}]"] {
            let old = async {
                let mut one = door.successor(&place.key, &Fixed, || place.listener.try_clone()).await;
                one.stream.write_all(&[FROZEN]).await.unwrap();
                assert_eq!(word(&mut one.stream).await.unwrap(), READY);
                one.stream.write_all(said).await.unwrap();
            };
            let new = async { place.knock().await.unwrap().unwrap().replace().await };
            let (left, ()) = tokio::join!(new, old);
            assert_eq!(left, Some(vec![]));
        }
    }

    #[tokio::test]
    async fn a_predecessor_that_stays_is_told_from_one_that_died() {
        let place = Place::new();
        let door = Door::open(&place.home).unwrap();
        let refuse = async {
            door.successor(&place.key, &Fixed, || place.listener.try_clone()).await.refuse().await;
        };
        let (knocked, ()) = tokio::join!(place.knock(), refuse);
        assert!(knocked.unwrap_err().to_string().contains("way back"));
        let died = async {
            let mut one = door.successor(&place.key, &Fixed, || place.listener.try_clone()).await;
            one.stream.write_all(&[FROZEN]).await.unwrap();
        };
        let (knocked, ()) = tokio::join!(place.knock(), died);
        let mut before = knocked.unwrap().unwrap();
        let waited = tokio::time::timeout(Duration::from_millis(50), before.stays()).await;
        assert!(waited.is_err());
        assert_eq!(before.replace().await, Some(vec![]), "what it knew is lost");
        let elsewhere = "127.0.0.1:1".parse().unwrap();
        let other = async { Predecessor::find(&place.home, &place.key, elsewhere).await.unwrap_err() };
        tokio::select! {
            error = other => assert!(error.to_string().contains("listens at")),
            _ = door.successor(&place.key, &Fixed, || place.listener.try_clone()) => panic!("it froze"),
        }
    }
}
