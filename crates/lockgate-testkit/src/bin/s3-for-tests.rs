//! `s3-for-tests ROOT ACCESS_KEY SECRET_KEY`: an S3 service over a folder, until its standard input ends. Says its address
//! in one line.

use std::io::{Error, Write};
use tokio::io::AsyncReadExt;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [root, access_key, secret_key] = &args[..] else {
        return Err(Error::other("usage: s3-for-tests ROOT ACCESS_KEY SECRET_KEY"));
    };
    let address = lockgate_testkit::s3::serve(root.as_ref(), access_key, secret_key).await?;
    writeln!(std::io::stdout(), "http://{address}")?;
    std::io::stdout().flush()?;
    tokio::io::stdin().read_to_end(&mut Vec::new()).await.map(drop)
}
