//! A service that speaks S3 over a folder, for tests: it checks signatures, as the real ones do.

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use std::io::{Error, Result};
use std::net::SocketAddr;
use std::path::Path;
use tokio::net::TcpListener;

/// Serves the folders in `root` as buckets for one user, on a free port of this machine, for as long as the runtime lives.
///
/// # Errors
/// Where the folder can't be used or no port is free.
pub async fn serve(root: &Path, access_key: &str, secret_key: &str) -> Result<SocketAddr> {
    let files = s3s_fs::FileSystem::new(root).map_err(|error| Error::other(format!("{error:?}")))?;
    let mut service = S3ServiceBuilder::new(files);
    service.set_auth(SimpleAuth::from_single(access_key, secret_key));
    let service = service.build();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let service = service.clone();
            tokio::spawn(async move {
                // Clients that hang up are no matter.
                let _ended =
                    Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
    Ok(address)
}
