//! The blob store as a whole.

use crate::{Blob, BlobError, BlobStore, Expect, FileToPlace, How, UploadId, blocks};
use futures_util::TryStreamExt as _;
use lockgate_core::digest::Digest;
use proptest::prelude::*;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

mod parts;
mod sweep;

struct Bench {
    folder: tempfile::TempDir,
    store: BlobStore,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = BlobStore::open(folder.path().join("deep/store")).await.unwrap();
        Self { folder, store }
    }

    async fn put(&self, bytes: &[u8]) -> Digest {
        self.store.put_bytes(bytes, Expect::anything()).await.unwrap().digest
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Every file below the store's folder, but for the lock.
    fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut waiting = vec![self.path("deep/store")];
        while let Some(folder) = waiting.pop() {
            for item in std::fs::read_dir(folder).unwrap().map(|item| item.unwrap().path()) {
                if item.is_dir() { waiting.push(item) } else { found.push(item) }
            }
        }
        found.retain(|path| path != &self.path("deep/store/put.lock"));
        found
    }

    fn damage(&self, digest: &Digest) {
        let path = self.store.path(digest);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "damaged").unwrap();
    }
}

async fn read(store: &BlobStore, digest: &Digest, from: u64, length: u64) -> io::Result<Vec<u8>> {
    let blocks = store.reader(digest).await.unwrap().blocks(from, length).await.unwrap();
    Ok(blocks.try_collect::<Vec<_>>().await?.concat())
}

#[tokio::test]
async fn large_bytes_come_and_go_in_blocks() {
    let bench = Bench::new().await;
    let bytes: Vec<u8> = (0..70_000_003_u64).map(|n| (n % 251) as u8).collect();
    let digest = bench.put(&bytes).await;
    for (from, length) in [(0, bytes.len()), (524_287, 2), (1, 1_048_576), (69_999_999, 4)] {
        let read = read(&bench.store, &digest, from as u64, length as u64).await.unwrap();
        assert!(read == bytes[from..from + length], "{length} bytes from {from}");
    }
}

#[tokio::test]
async fn many_small_pieces_are_put_together() {
    let bench = Bench::new().await;
    let bytes: Vec<u8> = (0..20_000_u64).map(|n| (n % 251) as u8).collect();
    let pieces = bytes.iter().map(|byte| Ok(vec![*byte].into()));
    let blob = bench.store.put_stream(futures_util::stream::iter(pieces), Expect::anything()).await.unwrap();
    assert_eq!(blob, Blob { digest: Digest::of(&bytes), size: 20_000 });
    assert_eq!(read(&bench.store, &blob.digest, 0, 20_000).await.unwrap(), bytes);
}

/// Gives some bytes, then breaks.
struct Breaking(usize);

impl AsyncRead for Breaking {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.0 == 0 {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, "the sender went away")));
        }
        self.0 -= 1;
        buf.put_slice(b"some bytes");
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn bytes_are_kept_once_under_their_digest() {
    let bench = Bench::new().await;
    let blob =
        bench.store.put_bytes(b"model", Expect::digest(Digest::of(b"model")).at_most(5)).await.unwrap();
    assert_eq!(blob, Blob { digest: Digest::of(b"model"), size: 5 });
    assert_eq!(bench.store.put_stream(blocks(&b"model"[..]), Expect::anything()).await.unwrap(), blob);
    let hex = blob.digest.hex();
    let file = bench.path("deep/store/blobs").join(&hex[..2]).join(&hex[2..]);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o444);
    assert_eq!(bench.files(), [file]);
    assert!(bench.store.exists(&blob.digest).await.unwrap());
    assert_eq!(bench.store.size(&blob.digest).await.unwrap(), Some(5));
    assert_eq!(read(&bench.store, &blob.digest, 0, 5).await.unwrap(), b"model");
    assert_eq!(read(&bench.store, &blob.digest, 1, 3).await.unwrap(), b"ode");
    assert_eq!(read(&bench.store, &blob.digest, 5, 0).await.unwrap(), b"");
    // Fewer bytes than were asked for are an error, never an end.
    let short = read(&bench.store, &blob.digest, 3, 3).await.unwrap_err();
    assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
    let empty = bench.put(b"").await;
    assert_eq!(bench.store.read_verified(&empty, 0).await.unwrap(), b"");
}

#[tokio::test]
async fn wrong_bytes_leave_nothing() {
    let bench = Bench::new().await;
    let expected = Digest::of(b"right");
    let mismatch = BlobError::Mismatch { expected, found: Digest::of(b"wrong") };
    assert_eq!(bench.store.put_bytes(b"wrong", Expect::digest(expected)).await.unwrap_err(), mismatch);
    assert_eq!(
        bench.store.put_stream(blocks(&b"wrong"[..]), Expect::digest(expected)).await.unwrap_err(),
        mismatch
    );
    let large =
        bench.store.put_stream(blocks(tokio::io::repeat(7)), Expect::anything().at_most(1_000_000)).await;
    assert_eq!(large.unwrap_err(), BlobError::TooLarge { limit: 1_000_000 });
    let large = bench.store.put_bytes(b"four", Expect::anything().at_most(3)).await;
    assert_eq!(large.unwrap_err(), BlobError::TooLarge { limit: 3 });
    let broken = bench.store.put_stream(blocks(Breaking(1000)), Expect::anything()).await.unwrap_err();
    assert!(broken.to_string().contains("the sender went away"), "{broken}");
    let mut hanging = Box::pin(bench.store.put_stream(blocks(tokio::io::repeat(7)), Expect::anything()));
    while bench.files().is_empty() {
        assert!(futures_util::poll!(&mut hanging).is_pending());
        tokio::task::yield_now().await;
    }
    drop(hanging);
    assert_eq!(bench.files(), Vec::<PathBuf>::new(), "neither blobs nor leftovers");
}

#[tokio::test]
async fn missing_and_damaged_bytes_are_told_apart() {
    let bench = Bench::new().await;
    let missing = Digest::of(b"missing");
    assert!(!bench.store.exists(&missing).await.unwrap());
    assert_eq!(bench.store.reader(&missing).await.err(), Some(BlobError::NotFound(missing)));
    assert_eq!(bench.store.verify(&missing).await.unwrap_err(), BlobError::NotFound(missing));
    let digest = bench.put(b"whole").await;
    assert_eq!(bench.store.verify(&digest).await.unwrap(), 5);
    assert_eq!(bench.store.read_verified(&digest, 4).await.unwrap_err(), BlobError::TooLarge { limit: 4 });
    bench.damage(&digest);
    let damaged = BlobError::Damaged { digest, found: Digest::of(b"damaged") };
    assert_eq!(bench.store.verify(&digest).await.unwrap_err(), damaged);
    assert_eq!(bench.store.read_verified(&digest, 99).await.unwrap_err(), damaged);
    bench.put(b"whole").await;
    assert_eq!(bench.store.verify(&digest).await.unwrap(), 5, "putting the bytes again heals");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_bytes_may_be_put_at_the_same_time() {
    let bench = Bench::new().await;
    let bytes: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (store, bytes) = (bench.store.clone(), bytes.clone());
            tokio::spawn(async move { store.put_stream(blocks(bytes.as_slice()), Expect::anything()).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap().digest, Digest::of(&bytes));
    }
    assert_eq!(bench.files().len(), 1);
    assert_eq!(bench.store.verify(&Digest::of(&bytes)).await.unwrap(), 12_000_000);
}

#[tokio::test]
async fn leftovers_of_a_crash_are_deleted_but_not_the_work_of_others() {
    let bench = Bench::new().await;
    let leftover = bench.path("deep/store/incoming/1-1");
    std::fs::write(&leftover, "half of a mod").unwrap();
    let mut under_way = Box::pin(bench.store.put_stream(blocks(tokio::io::repeat(7)), Expect::anything()));
    while bench.files().len() < 2 {
        assert!(futures_util::poll!(&mut under_way).is_pending());
        tokio::task::yield_now().await;
    }
    BlobStore::open(bench.path("deep/store")).await.unwrap();
    assert!(!leftover.exists());
    assert_eq!(bench.files().len(), 1, "the other's file is still there");
}

fn place(path: &str, digest: Digest) -> FileToPlace {
    FileToPlace { path: path.to_owned(), digest }
}

#[tokio::test]
async fn a_folder_is_made_verified_and_read_only() {
    let bench = Bench::new().await;
    let files = [
        place("MLmodel", bench.put(b"flavor").await),
        place("data/a/model.onnx", bench.put(b"weights").await),
    ];
    for (how, name) in [(How::Link, "linked"), (How::Copy, "copied")] {
        let folder = bench.path(name);
        bench.store.materialise(&files, &folder, how).await.unwrap();
        let inside = std::fs::metadata(folder.join("data/a/model.onnx")).unwrap();
        assert_eq!(std::fs::read(folder.join("data/a/model.onnx")).unwrap(), b"weights");
        assert_eq!(inside.permissions().mode() & 0o777, 0o444);
        let stored = std::fs::metadata(bench.store.path(&files[1].digest)).unwrap();
        assert_eq!(inside.ino() == stored.ino(), how == How::Link);
        // Again: nothing is touched.
        bench.store.materialise(&files, &folder, how).await.unwrap();
        assert_eq!(std::fs::metadata(folder.join("data/a/model.onnx")).unwrap().ino(), inside.ino());
        assert!(!bench.path(&format!("{name}.partial")).exists());
    }
}

#[tokio::test]
async fn a_folder_with_anything_else_in_it_is_refused_and_kept() {
    let bench = Bench::new().await;
    let files = [place("MLmodel", bench.put(b"flavor").await)];
    let folder = bench.path("folder");
    let occupied = BlobError::Occupied { folder: folder.display().to_string() };
    let spoil: [fn(&Path); 3] = [
        |folder| std::fs::write(folder.join("planted.py"), "import os").unwrap(),
        |folder| {
            std::fs::remove_file(folder.join("MLmodel")).unwrap();
            std::fs::write(folder.join("MLmodel"), "changed").unwrap();
        },
        |folder| {
            std::fs::remove_file(folder.join("MLmodel")).unwrap();
            std::os::unix::fs::symlink("/etc/hostname", folder.join("MLmodel")).unwrap();
        },
    ];
    for spoil in spoil {
        bench.store.materialise(&files, &folder, How::Copy).await.unwrap();
        spoil(&folder);
        let before = std::fs::read_dir(&folder).unwrap().count();
        assert_eq!(bench.store.materialise(&files, &folder, How::Copy).await.unwrap_err(), occupied);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), before);
        std::fs::remove_dir_all(&folder).unwrap();
    }
    std::fs::create_dir(&folder).unwrap();
    bench.store.materialise(&files, &folder, How::Copy).await.unwrap();
}

#[tokio::test]
async fn a_folder_is_not_made_from_missing_or_damaged_bytes() {
    let bench = Bench::new().await;
    let whole = place("a", bench.put(b"whole").await);
    let missing = Digest::of(b"missing");
    let damaged = bench.put(b"to be damaged").await;
    bench.damage(&damaged);
    for how in [How::Link, How::Copy] {
        let folder = bench.path("folder");
        let error =
            bench.store.materialise(&[whole.clone(), place("b", missing)], &folder, how).await.unwrap_err();
        assert_eq!(error, BlobError::NotFound(missing));
        let error =
            bench.store.materialise(&[whole.clone(), place("b", damaged)], &folder, how).await.unwrap_err();
        assert!(matches!(error, BlobError::Damaged { .. }), "{error}");
        assert!(!folder.exists() && !bench.path("folder.partial").exists());
    }
}

#[tokio::test]
async fn no_path_leads_out_of_the_folder() {
    let bench = Bench::new().await;
    let digest = bench.put(b"x").await;
    let long = "a/".repeat(600) + "a";
    let paths = [
        "",
        "/etc/passwd",
        "../a",
        "a/../b",
        "a/..",
        "./a",
        "a/./b",
        "a//b",
        "a/",
        ".",
        "..",
        "a\0b",
        "a\nb",
        "a\\b",
        &long,
    ];
    for path in paths {
        let made = bench.store.materialise(&[place(path, digest)], bench.path("folder"), How::Link).await;
        assert!(matches!(made, Err(BlobError::Path { .. })), "{path:?}: {made:?}");
    }
    for pair in [["a", "a"], ["a", "a/b"], ["a/b/c", "a/b"]] {
        let made =
            bench.store.materialise(&pair.map(|p| place(p, digest)), bench.path("folder"), How::Link).await;
        assert!(matches!(made, Err(BlobError::Path { .. })), "{pair:?}: {made:?}");
    }
    assert!(!bench.path("folder").exists());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the path: it is refused, or the file lies at it below the folder and nothing lies beside the folder.
    #[test]
    fn any_path_stays_inside(path in "[a.\\\\/ \u{e9}\t-]{0,12}") {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let bench = Bench::new().await;
            let digest = bench.put(b"x").await;
            let made = bench.store.materialise(&[place(&path, digest)], bench.path("folder"), How::Copy).await;
            match made {
                Ok(()) => assert_eq!(std::fs::read(bench.path("folder").join(&path)).unwrap(), b"x"),
                Err(error) => assert!(matches!(error, BlobError::Path { .. }), "{error}"),
            }
            let beside: Vec<_> = std::fs::read_dir(bench.path("")).unwrap().map(|f| f.unwrap().file_name()).collect();
            assert!(beside.iter().all(|name| name == "deep" || name == "folder"), "{beside:?}");
        });
    }

    /// However the stream is cut into pieces, the digest is that of the whole.
    #[test]
    fn any_bytes_come_back(bytes in prop::collection::vec(any::<u8>(), 0..2000), piece in 1_usize..300) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let bench = Bench::new().await;
            let pieces: Vec<io::Result<bytes::Bytes>> =
                bytes.chunks(piece).map(|piece| Ok(bytes::Bytes::copy_from_slice(piece))).collect();
            let stream = futures_util::stream::iter(pieces);
            let blob = bench.store.put_stream(stream, Expect::anything()).await.unwrap();
            assert_eq!(blob, Blob { digest: Digest::of(&bytes), size: bytes.len() as u64 });
            assert_eq!(bench.store.read_verified(&blob.digest, 2000).await.unwrap(), bytes);
        });
    }
}

const CHILD: &str = "LOCKGATE_BLOB_TEST_FOLDER";

/// Runs the ignored test `name` in a process of its own that may write files of at most `kib` KiB.
fn child(name: &str, folder: &Path, kib: u32) -> Command {
    let mut command = Command::new("sh");
    let limit = format!("trap '' XFSZ; [ {kib} = 0 ] || ulimit -S -f {}; exec \"$@\"", kib * 2);
    command.arg("-c").arg(limit).arg("child").arg(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--ignored", "--nocapture"]).env(CHILD, folder).stdin(Stdio::null());
    command
}

#[tokio::test]
#[ignore = "the test of full disks starts it as a process of its own"]
async fn child_that_meets_a_full_disk() {
    let folder = std::env::var(CHILD).expect("started by its test, which says where the store is");
    let store = BlobStore::open(folder).await.unwrap();
    let small = store.put_bytes(b"small", Expect::anything()).await.unwrap();
    let error =
        store.put_stream(blocks(tokio::io::repeat(7).take(4_000_000)), Expect::anything()).await.unwrap_err();
    assert!(matches!(error, BlobError::DiskFull { .. }), "{error}");
    assert!(error.to_string().contains("free some space"), "{error}");
    assert_eq!(store.verify(&small.digest).await.unwrap(), 5);
    store.put_bytes(b"small again", Expect::anything()).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_is_named_and_leaves_no_half_of_a_blob() {
    let bench = Bench::new().await;
    let status =
        child("tests::child_that_meets_a_full_disk", &bench.path("deep/store"), 1000).status().unwrap();
    assert!(status.success());
    assert_eq!(bench.files().len(), 2, "the two small ones");
}

#[tokio::test]
#[ignore = "the test of crashes starts it as a process of its own"]
async fn child_that_is_killed() {
    let folder = std::env::var(CHILD).expect("started by its test, which says where the store is");
    let store = BlobStore::open(folder).await.unwrap();
    store.put_stream(blocks(tokio::io::repeat(7)), Expect::anything()).await.unwrap();
}

#[tokio::test]
async fn a_killed_process_leaves_nothing_after_the_next_start() {
    let bench = Bench::new().await;
    let mut process = child("tests::child_that_is_killed", &bench.path("deep/store"), 0).spawn().unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while bench.files().iter().all(|file| std::fs::metadata(file).map_or(0, |m| m.len()) < 1_000_000) {
        assert!(std::time::Instant::now() < deadline, "the child does not write");
        tokio::task::yield_now().await;
    }
    process.kill().unwrap();
    process.wait().unwrap();
    assert_eq!(bench.files().len(), 1);
    BlobStore::open(bench.path("deep/store")).await.unwrap();
    assert_eq!(bench.files(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let error = BlobStore::open("/proc/nothing/store").await.unwrap_err();
    assert!(error.to_string().contains("/proc/nothing"), "{error}");
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = BlobStore::open(file.path()).await.unwrap_err();
    assert!(error.to_string().contains("can't create the folder"), "{error}");
}

#[tokio::test]
async fn all_blobs_are_taken_into_another_store_and_damage_is_healed_from_it() {
    let bench = Bench::new().await;
    let (one, two) = (bench.put(b"one").await, bench.put(b"two").await);
    let backup = bench.path("backup");
    let copied = bench.store.copy_into(&backup, true).await.unwrap();
    assert_eq!((copied.blobs, copied.new, copied.bytes), (2, 2, 6));
    assert_eq!(bench.store.copy_into(&backup, false).await.unwrap().new, 0);
    let copy = BlobStore::existing(&backup).await.unwrap().unwrap();
    assert_eq!(copy.verify(&one).await.unwrap(), 3);

    bench.damage(&two);
    assert!(matches!(bench.store.copy_into(&backup, true).await, Err(BlobError::Damaged { .. })));
    let healed = copy.copy_into(bench.path("deep/store"), true).await.unwrap();
    assert_eq!((healed.blobs, healed.new), (2, 1));
    assert_eq!(bench.store.verify(&two).await.unwrap(), 3);
    assert!(BlobStore::existing(bench.path("nothing")).await.unwrap().is_none());
    assert!(!bench.path("nothing").exists(), "looking makes nothing");
}
