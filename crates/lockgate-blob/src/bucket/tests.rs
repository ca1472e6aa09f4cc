//! The store over a bucket of a real service.

use super::*;
use crate::{BlobPlace, BlobStore, Expect, FileToPlace, How, Part, UploadId, blocks};
use std::path::PathBuf;
use tempfile::TempDir;

struct Bench {
    folder: TempDir,
    service: std::net::SocketAddr,
}

impl Bench {
    async fn new() -> Self {
        // Known already where another test came first.
        let _known = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("s3/models")).unwrap();
        let service = lockgate_testkit::s3::serve(&folder.path().join("s3"), "user", "secret").await.unwrap();
        Self { folder, service }
    }

    fn connect(&self, place: &str, secret: &str) -> Bucket {
        let Ok(BlobPlace::Bucket(name)) = place.parse() else { panic!("{place}") };
        let builder = AmazonS3Builder::new()
            .with_endpoint(format!("http://{}", self.service))
            .with_access_key_id("user")
            .with_secret_access_key(secret);
        Bucket::connect(builder, &name).unwrap()
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
    let mut blocks = reader.blocks(from, length);
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
    assert!(denied.starts_with("can't write into s3://models/x/ ("), "{denied}");
    assert!(denied.contains("allow this user s3:GetObject"), "{denied}");
    for place in ["s3://no-such-bucket/", "s3://models/never-used/"] {
        let nowhere = told(place, "secret", Intent::Read).await;
        assert!(nowhere.starts_with(&format!("can't read {place} (")), "{nowhere}");
        assert!(nowhere.ends_with("create the bucket, or correct the name"), "{nowhere}");
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
