//! The loop that accepts connections, and the way it ends.

use super::answer::Reply;
use super::model::Model;
use super::route;
use super::{WorkerError, WorkerOptions};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use lockgate_core::route::WorkerAddress;
use std::convert::Infallible;
use std::io::Read as _;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::spawn_local;

/// Connections that may be open at the same time; more wait in the listener's own queue.
const MAX_CONNECTIONS: usize = 1024;

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// Serves until told to stop, then lets requests in flight finish.
pub(super) async fn serve(model: Model, options: &WorkerOptions) -> Result<(), WorkerError> {
    let listener = listen(&options.listen).await?;
    let mut stop = stop_signal(options.stop_with_stdin)?;
    let (stopping, stopped) = watch::channel(false);
    // Every connection holds one end of this channel: when all are gone, the other end hears it.
    let (alive, mut all_done) = mpsc::channel::<()>(1);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let model = Rc::new(model);
    loop {
        let accept = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, accept(&listener).await)
        };
        let (place, stream) = tokio::select! {
            biased;
            _ = stop.recv() => break,
            // What is in flight breaks off, which lets the gateway ask elsewhere.
            why = model.pool.lost() => return Err(WorkerError::Lost(why)),
            accepted = accept => accepted,
        };
        let guard = (place, alive.clone());
        match stream {
            Ok(Stream::Unix(io)) => drop(spawn_local(connection(
                TokioIo::new(io),
                false,
                Rc::clone(&model),
                stopped.clone(),
                guard,
            ))),
            Ok(Stream::Tcp(io)) => drop(spawn_local(connection(
                TokioIo::new(io),
                true,
                Rc::clone(&model),
                stopped.clone(),
                guard,
            ))),
            Err(error) => {
                // Out of file descriptors, or the peer has gone already: neither is a reason to stop serving.
                tracing::warn!(%error, "can't accept a connection");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    drop(listener);
    if let WorkerAddress::Unix(path) = &options.listen {
        remove_socket(Path::new(path));
    }
    let _ = stopping.send(true);
    drop(alive);
    if tokio::time::timeout(options.grace, all_done.recv()).await.is_err() {
        tracing::warn!(
            grace_ms = options.grace.as_millis(),
            "requests were still running at the end of the grace time"
        );
    }
    Ok(())
}

enum Stream {
    Unix(tokio::net::UnixStream),
    Tcp(tokio::net::TcpStream),
}

async fn accept(listener: &Listener) -> std::io::Result<Stream> {
    match listener {
        Listener::Unix(listener) => listener.accept().await.map(|(io, _)| Stream::Unix(io)),
        Listener::Tcp(listener) => {
            let (io, _) = listener.accept().await?;
            io.set_nodelay(true)?;
            Ok(Stream::Tcp(io))
        }
    }
}

async fn listen(address: &WorkerAddress) -> Result<Listener, WorkerError> {
    match address {
        WorkerAddress::Unix(text) => {
            let path = Path::new(text);
            remove_socket(path);
            let listener = UnixListener::bind(path);
            listener
                .map(Listener::Unix)
                .map_err(WorkerError::io(format!("can't listen at {}", path.display())))
        }
        WorkerAddress::Tcp(text) => {
            let listener = TcpListener::bind(text).await;
            listener.map(Listener::Tcp).map_err(WorkerError::io(format!("can't listen at {text}")))
        }
    }
}

/// Removes a socket file. Anything else at the path stays, and binding then says that the address is in use.
fn remove_socket(path: &Path) {
    use std::os::unix::fs::FileTypeExt as _;
    if std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket()) {
        let _ = std::fs::remove_file(path);
    }
}

/// A channel that gets a message when the worker has to stop.
fn stop_signal(with_stdin: bool) -> Result<mpsc::Receiver<()>, WorkerError> {
    let (stop, told) = mpsc::channel(3);
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind).map_err(WorkerError::io("can't listen for signals"))?;
        let stop = stop.clone();
        spawn_local(async move {
            signals.recv().await;
            let _ = stop.send(()).await;
            // Held for as long as the worker runs, so that the channel stays open.
            std::future::pending::<()>().await;
        });
    }
    if with_stdin {
        let wait = move || {
            let mut buffer = [0; 256];
            while matches!(std::io::stdin().read(&mut buffer), Ok(1..)) {}
            let _ = stop.blocking_send(());
        };
        let thread = std::thread::Builder::new().name("parent-watch".to_owned()).spawn(wait);
        thread.map_err(WorkerError::io("can't start a thread"))?;
    }
    Ok(told)
}

/// Serves one connection. `guard` is held until it ends.
async fn connection<I, G>(
    io: TokioIo<I>,
    from_network: bool,
    model: Rc<Model>,
    mut stopped: watch::Receiver<bool>,
    guard: G,
) where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let ready = stopped.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (model, ready) = (Rc::clone(&model), !*ready.borrow());
        async move { Ok::<Reply, Infallible>(route::answer(&model, ready, request).await) }
    });
    let mut http = http1::Builder::new();
    http.auto_date_header(false).half_close(false);
    if from_network {
        // Peers on the Unix socket are our own gateway, whose idle connections must stay open.
        http.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(120));
    }
    let mut connection = std::pin::pin!(http.serve_connection(io, service));
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Half a request, or a peer that went away: its own matter.
        tracing::debug!(%error, "a connection ended early");
    }
    drop(guard);
}
