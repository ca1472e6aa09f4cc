//! Taking bytes away.

use super::*;
use crate::{Expect, Resting};
use lockgate_core::digest::Digest;
use std::fs::FileTimes;
use std::time::{Duration, UNIX_EPOCH};

/// Between a file's made-up age and the present.
const LIMIT: i64 = 2_000_000;

fn age(store: &BlobStore, digest: &Digest) {
    let file = std::fs::File::open(store.path(digest)).unwrap();
    file.set_times(FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(1000))).unwrap();
}

async fn all(store: &BlobStore) -> Vec<Resting> {
    let mut found = Vec::new();
    for begins in 0..=u8::MAX {
        found.extend(store.resting(begins).await.unwrap());
    }
    found
}

#[tokio::test]
async fn what_is_old_goes_and_what_was_put_again_stays() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path().join("blobs")).await.unwrap();
    let mut digests = Vec::new();
    for text in ["old", "again", "young"] {
        digests.push(store.put_bytes(text.as_bytes(), Expect::anything()).await.unwrap().digest);
    }
    std::fs::write(store.root().join("aa-note"), "not ours").unwrap();
    std::fs::create_dir_all(store.root().join("ab")).unwrap();
    std::fs::write(store.root().join("ab/note"), "not ours").unwrap();
    age(&store, &digests[0]);
    age(&store, &digests[1]);
    assert_eq!(all(&store).await.len(), 3);
    store.put_bytes(b"again", Expect::anything()).await.unwrap();
    let gone = store.take_away(digests.clone(), LIMIT).await.unwrap();
    assert_eq!(gone.iter().map(|one| (one.digest, one.size)).collect::<Vec<_>>(), [(digests[0], 3)]);
    assert_eq!(store.take_away(digests.clone(), LIMIT).await.unwrap(), []);
    assert!(!store.exists(&digests[0]).await.unwrap() && store.exists(&digests[1]).await.unwrap());
    assert!(store.root().join("ab/note").exists());
}

#[tokio::test]
async fn a_put_waits_for_a_look_and_one_at_a_time_takes_away() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path().join("blobs")).await.unwrap();
    let closed = store.gate().close().unwrap();
    let other = store.clone();
    let putting = tokio::spawn(async move { other.put_bytes(b"x", Expect::anything()).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!putting.is_finished());
    drop(closed);
    putting.await.unwrap().unwrap();
    let alone = store.alone().await.unwrap();
    assert!(alone.is_held());
    assert!(matches!(store.alone().await, Err(BlobError::InHand { .. })));
    drop(alone);
    store.alone().await.unwrap();
}

#[tokio::test]
async fn marks_tell_whose_bytes_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path().join("blobs")).await.unwrap();
    assert!(store.owners().await.unwrap().is_empty());
    for owner in ["b", "a", "b"] {
        store.claim(owner, "mine").await.unwrap();
    }
    assert_eq!(store.owners().await.unwrap(), ["a", "b"]);
    assert_eq!(std::fs::read_to_string(store.mark_of("a")).unwrap(), "mine");
}
