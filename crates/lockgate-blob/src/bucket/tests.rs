//! The store over a bucket of a real service.

use super::sending::PART;
use super::*;
use crate::{BlobPlace, BlobStore, Expect, FileToPlace, How, Part, UploadId, blocks};
use std::path::PathBuf;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;

fn reach(endpoint: &str, place: &str, secret: &str) -> Result<Bucket, BlobError> {
    // Known already where another test came first.
    let _known = rustls::crypto::ring::default_provider().install_default();
    let Ok(BlobPlace::Bucket(name)) = place.parse() else { panic!("{place}") };
    let builder = AmazonS3Builder::new().with_endpoint(endpoint);
    Bucket::connect(builder.with_access_key_id("user").with_secret_access_key(secret), &name)
}

/// Answers every request with these words, and counts them.
async fn saying(answer: String) -> (std::net::SocketAddr, Arc<std::sync::atomic::AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Arc::new(std::sync::atomic::AtomicUsize::new(0)));
    let count = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let mut request = [0; 65536];
            let _read = socket.read(&mut request).await;
            let _sent = tokio::io::AsyncWriteExt::write_all(&mut socket, answer.as_bytes()).await;
        }
    });
    (address, asked)
}

struct Bench {
    folder: TempDir,
    service: std::net::SocketAddr,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("s3/models")).unwrap();
        let service = lockgate_testkit::s3::serve(&folder.path().join("s3"), "user", "secret").await.unwrap();
        Self { folder, service }
    }

    fn connect(&self, place: &str, secret: &str) -> Bucket {
        reach(&format!("http://{}", self.service), place, secret).unwrap()
    }

    async fn store(&self) -> BlobStore {
        let bucket = self.connect("s3://models/lockgate", "secret");
        bucket.probe(Intent::Write).await.unwrap();
        bucket.probe(Intent::Read).await.unwrap();
        BlobStore::open_over(&self.scratch(), Some(bucket)).await.unwrap()
    }

    fn scratch(&self) -> PathBuf {
        self.folder.path().join("scratch")
    }

    fn object(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.folder.path().join("s3/models/lockgate/blobs").join(&hex[..2]).join(&hex[2..])
    }

    /// What is left of uploads that are over.
    fn under_way(&self) -> usize {
        std::fs::read_dir(self.scratch().join("incoming")).unwrap().count()
    }
}

async fn read(store: &BlobStore, digest: &Digest, from: u64) -> Vec<u8> {
    let (reader, mut bytes) = (store.reader(digest).await.unwrap(), Vec::new());
    let length = reader.size() - from;
    let mut blocks = reader.blocks(from, length).await.unwrap();
    while let Some(block) = blocks.try_next().await.unwrap() {
        bytes.extend_from_slice(&block);
    }
    bytes
}

#[tokio::test]
async fn bytes_rest_in_the_bucket_under_their_digest() {
    let bench = Bench::new().await;
    let store = bench.store().await;
    let blob = store.put_bytes(b"model", Expect::anything()).await.unwrap();
    assert_eq!(std::fs::read(bench.object(&blob.digest)).unwrap(), b"model");
    assert_eq!((store.size(&blob.digest).await, store.verify(&blob.digest).await), (Ok(Some(5)), Ok(5)));
    assert_eq!(store.read_verified(&blob.digest, 5).await.unwrap(), b"model");
    assert_eq!(store.read_verified(&blob.digest, 4).await, Err(BlobError::TooLarge { limit: 4 }));
    assert_eq!(
        (read(&store, &blob.digest, 0).await, read(&store, &blob.digest, 2).await),
        (b"model".into(), b"del".into())
    );
    let empty = store.put_bytes(b"", Expect::anything()).await.unwrap();
    assert_eq!(
        (store.size(&empty.digest).await, read(&store, &empty.digest, 0).await),
        (Ok(Some(0)), vec![])
    );
    assert_eq!(bench.under_way(), 0);
    // Another store over the same bucket sees them.
    assert!(bench.store().await.exists(&blob.digest).await.unwrap());
}

#[tokio::test]
async fn what_is_missing_or_damaged_is_told() {
    let bench = Bench::new().await;
    let store = bench.store().await;
    let missing = Digest::of(b"missing");
    assert_eq!(store.size(&missing).await, Ok(None));
    assert_eq!(store.verify(&missing).await, Err(BlobError::NotFound(missing)));
    assert!(matches!(store.reader(&missing).await, Err(BlobError::NotFound(_))));
    let digest = store.put_bytes(b"model", Expect::anything()).await.unwrap().digest;
    std::fs::write(bench.object(&digest), b"mogel").unwrap();
    let damaged = BlobError::Damaged { digest, found: Digest::of(b"mogel") };
    assert_eq!(store.verify(&digest).await, Err(damaged.clone()));
    assert_eq!(store.read_verified(&digest, 9).await, Err(damaged));
    // The same bytes again heal it.
    store.put_bytes(b"model", Expect::anything()).await.unwrap();
    assert_eq!(store.verify(&digest).await, Ok(5));
}

#[tokio::test]
async fn large_bytes_go_in_parts() {
    let bench = Bench::new().await;
    let store = bench.store().await;
    for size in [PART, PART + 1, 3 * PART + 7, 6 * PART] {
        let bytes: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        let blob = store.put_bytes(&bytes, Expect::anything()).await.unwrap();
        assert_eq!((blob.size, store.verify(&blob.digest).await), (size, Ok(size)));
        assert_eq!(read(&store, &blob.digest, size - 3).await, bytes[bytes.len() - 3..]);
    }
    assert_eq!(bench.under_way(), 0);
}

#[tokio::test]
async fn uploads_in_parts_end_in_the_bucket() {
    let bench = Bench::new().await;
    let store = bench.store().await;
    let id = UploadId::new(1, 2, [7; 16]);
    store.begin_upload(&id).await.unwrap();
    let mut parts: Vec<Part> = Vec::new();
    for (number, bytes) in [(1, &b"mo"[..]), (2, b"del")] {
        parts.push(store.put_part(&id, number, blocks(bytes)).await.unwrap());
    }
    let blob = store.join_parts(&id, parts.clone()).await.unwrap();
    assert_eq!(std::fs::read(bench.object(&blob.digest)).unwrap(), b"model");
    assert_eq!(store.join_parts(&id, parts).await, Ok(blob));
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let bench = Bench::new().await;
    let told = async |place: &str, secret: &str, intent| {
        bench.connect(place, secret).probe(intent).await.unwrap_err().to_string()
    };
    let denied = told("s3://models/x", "wrong", Intent::Write).await;
    assert!(denied.starts_with("can't read s3://models/x/ ("), "{denied}");
    assert!(denied.contains("credentials are wrong or have expired"), "{denied}");
    for place in ["s3://no-such-bucket/", "s3://models/never-used/"] {
        let nowhere = told(place, "secret", Intent::Read).await;
        assert!(nowhere.starts_with(&format!("can't read {place} (")), "{nowhere}");
        assert!(nowhere.ends_with("create the bucket, or correct the name"), "{nowhere}");
    }
}

#[tokio::test]
async fn a_size_that_changed_is_told_before_a_byte_is_given() {
    let bench = Bench::new().await;
    let store = bench.store().await;
    let digest = store.put_bytes(b"model", Expect::anything()).await.unwrap().digest;
    let reader = store.reader(&digest).await.unwrap();
    std::fs::write(bench.object(&digest), b"mod").unwrap();
    let wrong = BlobError::WrongSize { digest, expected: 5, found: 3 };
    assert_eq!(reader.blocks(0, 5).await.err(), Some(wrong));
}

#[tokio::test]
async fn somebody_else_s_object_is_left_alone() {
    let bench = Bench::new().await;
    let theirs = bench.folder.path().join("s3/models/lockgate");
    std::fs::write(&theirs, "a program").unwrap();
    let refused = bench.connect("s3://models", "secret").probe(Intent::Write).await;
    assert_eq!(refused, Err(BlobError::Foreign { object: "s3://models/lockgate".to_owned() }));
    assert_eq!(std::fs::read(&theirs).unwrap(), b"a program");
}

#[tokio::test]
async fn redirections_are_not_followed() {
    let (elsewhere, asked) =
        saying("HTTP/1.1 200 OK\r\netag: \"x\"\r\ncontent-length: 0\r\n\r\n".to_owned()).await;
    for status in ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect"] {
        let answer =
            format!("HTTP/1.1 {status}\r\nlocation: http://{elsewhere}/x\r\ncontent-length: 0\r\n\r\n");
        let (service, _) = saying(answer).await;
        let bucket = reach(&format!("http://{service}"), "s3://models", "secret").unwrap();
        assert!(bucket.probe(Intent::Write).await.is_err(), "{status}");
        assert!(bucket.size(&Digest::of(b"x")).await.is_err(), "{status}");
    }
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_a_service_says_is_told_in_few_words() {
    let body = "<?xml version=\"1.0\"?><Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message>\
                <Token-0>TOPSECRET</Token-0><HostId>internal</HostId></Error>";
    let length = body.len();
    let answer =
        format!("HTTP/1.1 400 Bad Request\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
    let (service, _) = saying(answer).await;
    let bucket = reach(&format!("http://{service}"), "s3://models", "secret").unwrap();
    let told = bucket.probe(Intent::Write).await.unwrap_err().to_string();
    assert!(told.contains("(ExpiredToken: The provided token has expired.)"), "{told}");
    assert!(told.contains("credentials are wrong or have expired"), "{told}");
    assert!(
        !told.contains("TOPSECRET") && !told.contains("127.0.0.1") && !told.contains("internal"),
        "{told}"
    );
}

#[test]
fn an_endpoint_that_is_no_address_is_told() {
    for endpoint in ["127.0.0.1:9000", "minio:9000", "", "ftp://x"] {
        let told = reach(endpoint, "s3://models", "secret").unwrap_err().to_string();
        assert!(told.contains("it must begin with https://"), "{endpoint}: {told}");
    }
}

#[tokio::test]
async fn files_are_not_to_be_had_from_a_bucket() {
    let bench = Bench::new().await;
    let store = bench.store().await;
    let digest = store.put_bytes(b"model", Expect::anything()).await.unwrap().digest;
    let files = [FileToPlace { path: "a".to_owned(), digest }];
    let not_files = BlobError::NotFiles { bucket: "s3://models/lockgate/".to_owned() };
    let folder = bench.folder.path().join("out");
    assert_eq!(store.materialise(&files, &folder, How::Copy).await, Err(not_files.clone()));
    assert_eq!(store.copy_into(&folder, false).await, Err(not_files));
}

#[tokio::test]
async fn objects_that_are_old_go_and_marks_are_listed() {
    let bench = Bench::new().await;
    let store = bench.store().await;
    let (old, young) = (put(&store, b"old").await, put(&store, b"young").await);
    let hex = old.hex();
    let file = bench.folder.path().join("s3/models/lockgate/blobs").join(&hex[..2]).join(&hex[2..]);
    let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000);
    std::fs::File::open(file).unwrap().set_times(std::fs::FileTimes::new().set_modified(then)).unwrap();
    let begins = u8::from_str_radix(&hex[..2], 16).unwrap();
    let found = store.resting(begins).await.unwrap();
    let found = found.iter().find(|one| one.digest == old).unwrap();
    assert_eq!(found.size, 3);
    let gone = store.take_away(vec![old, young, Digest::of(b"none")], found.modified + 1).await.unwrap();
    assert_eq!(gone.iter().map(|one| one.digest).collect::<Vec<_>>(), [old]);
    assert!(!store.exists(&old).await.unwrap() && store.exists(&young).await.unwrap());
    store.claim("a1", "mine").await.unwrap();
    store.claim("a1", "mine").await.unwrap();
    assert_eq!(store.owners().await.unwrap(), ["a1"]);
    assert!(!store.alone().await.unwrap().is_held());
}

async fn put(store: &BlobStore, bytes: &[u8]) -> Digest {
    store.put_bytes(bytes, Expect::anything()).await.unwrap().digest
}
