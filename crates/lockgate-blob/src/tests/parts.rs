//! Uploads in parts.

use super::*;

fn upload(began: i64, parts: u32) -> UploadId {
    UploadId::new(began, parts, [7; 16])
}

#[tokio::test]
async fn parts_are_joined_in_their_order_whatever_order_they_came_in() {
    let bench = Bench::new().await;
    let id = upload(1, 3);
    bench.store.begin_upload(&id).await.unwrap();
    let third = bench.store.put_part(&id, 3, blocks(&b"ccc"[..])).await.unwrap();
    let wrong = bench.store.put_part(&id, 1, blocks(&b"wrong"[..])).await.unwrap();
    let second = bench.store.put_part(&id, 2, blocks(&b"bb"[..])).await.unwrap();
    let first = bench.store.put_part(&id, 1, blocks(&b"a"[..])).await.unwrap();
    // A restart keeps what arrived.
    let store = BlobStore::open(bench.path("deep/store")).await.unwrap();
    let replaced = store.join_parts(&id, vec![wrong, second, third]).await;
    assert_eq!(replaced.unwrap_err(), BlobError::NoPart { number: 1 });
    let blob = store.join_parts(&id, vec![first, second, third]).await.unwrap();
    assert_eq!((blob.digest, blob.size), (Digest::of(b"abbccc"), 6));
    assert_eq!(store.verify(&blob.digest).await.unwrap(), 6);
    // Asked again it is the same; other parts it is not; and no part comes in any more.
    assert_eq!(store.join_parts(&id, vec![first, second, third]).await.unwrap(), blob);
    assert_eq!(store.join_parts(&id, vec![first]).await.unwrap_err(), BlobError::NoUpload);
    assert_eq!(store.put_part(&id, 1, blocks(&b"late"[..])).await.unwrap_err(), BlobError::NoUpload);
    let parts =
        bench.files().iter().filter(|path| path.ends_with(format!("1-{}", first.digest.hex()))).count();
    assert_eq!(parts, 0, "joined parts are deleted");
}

#[tokio::test]
async fn a_part_that_was_damaged_must_be_sent_again() {
    let bench = Bench::new().await;
    let id = upload(1, 2);
    bench.store.begin_upload(&id).await.unwrap();
    let first = bench.store.put_part(&id, 1, blocks(&vec![1; 3 << 20][..])).await.unwrap();
    let second = bench.store.put_part(&id, 2, blocks(&b"second"[..])).await.unwrap();
    let name = format!("1-{}", first.digest.hex());
    let file = bench.files().into_iter().find(|path| path.ends_with(&name)).unwrap();
    std::fs::write(&file, vec![0; 3 << 20]).unwrap();
    for _ in 0..2 {
        let damaged = bench.store.join_parts(&id, vec![first, second]).await;
        assert_eq!(damaged.unwrap_err(), BlobError::NoPart { number: 1 });
    }
    assert_eq!(bench.files().len(), 2, "the good part and the lock: {:?}", bench.files());
    let again = bench.store.put_part(&id, 1, blocks(&vec![1; 3 << 20][..])).await.unwrap();
    let blob = bench.store.join_parts(&id, vec![again, second]).await.unwrap();
    assert_eq!(blob.size, (3 << 20) + 6);
}

#[tokio::test]
async fn an_aborted_or_old_upload_leaves_nothing() {
    let bench = Bench::new().await;
    let (old, new) = (upload(1, 1), upload(100, 1));
    for id in [&old, &new] {
        bench.store.begin_upload(id).await.unwrap();
        bench.store.put_part(id, 1, blocks(&b"part"[..])).await.unwrap();
    }
    assert_eq!(bench.store.sweep_uploads(100).await.unwrap(), 1);
    assert_eq!(bench.files().len(), 2, "the part and the lock: {:?}", bench.files());
    bench.store.drop_upload(&new).await.unwrap();
    bench.store.drop_upload(&new).await.unwrap();
    assert!(bench.files().is_empty(), "{:?}", bench.files());
    assert_eq!(bench.store.put_part(&new, 1, blocks(&b"part"[..])).await.unwrap_err(), BlobError::NoUpload);
    assert_eq!(bench.store.join_parts(&new, Vec::new()).await.unwrap_err(), BlobError::NoUpload);
    assert_eq!(bench.store.sweep_uploads(1000).await.unwrap(), 0);
}

#[tokio::test]
async fn a_part_that_breaks_off_or_has_no_place_is_not_kept() {
    let bench = Bench::new().await;
    let id = upload(1, 2);
    bench.store.begin_upload(&id).await.unwrap();
    assert!(matches!(bench.store.put_part(&id, 1, blocks(Breaking(3))).await, Err(BlobError::Source { .. })));
    for number in [0, 3] {
        assert_eq!(
            bench.store.put_part(&id, number, blocks(&b"x"[..])).await.unwrap_err(),
            BlobError::NoUpload
        );
    }
    assert!(bench.files().is_empty(), "{:?}", bench.files());
}

#[test]
fn names_of_uploads_are_read_back_and_lead_nowhere_else() {
    let id = upload(12, 3);
    assert_eq!(id.to_string().parse::<UploadId>().unwrap(), id);
    for bad in [
        "",
        "1-2",
        "1-2-../x",
        "1-2-ABCDEF0123456789abcdef0123456789",
        "x-2-0123456789abcdef0123456789abcdef",
    ] {
        assert!(bad.parse::<UploadId>().is_err(), "{bad}");
    }
}
