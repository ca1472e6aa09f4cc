//! What promotions need is not taken away, whatever was deleted.

use super::{Agent, Bench, NOON, manifest};
use crate::ControlError;
use crate::tracking::gc::{GRACE, Report, Request, claim, collect};
use lockgate_blob::Expect;
use lockgate_core::digest::Digest;
use lockgate_store::tracking::{Lifecycle, Run};

const RUN: &str = "0123456789abcdef0123456789abcdef";

/// All that is deleted and named by nothing goes at once, however young.
async fn everything(bench: &Bench) -> Result<Report, ControlError> {
    let request = Request { older_than: Some(0), ..Request::default() };
    // A year later by the clock of whoever says it.
    collect(&bench.store, bench.control.blobs(), &request, NOON + 365 * GRACE).await
}

async fn claimed(bench: &Bench) {
    claim(&bench.store, bench.control.blobs(), &*bench.control.entropy).await.unwrap();
}

async fn put(bench: &Bench, text: &str) -> Digest {
    bench.control.blobs().put_bytes(text.as_bytes(), Expect::anything()).await.unwrap().digest
}

async fn deleted_run(bench: &Bench, id: &str) {
    let run = Run {
        run_id: id.to_owned(),
        experiment_id: 0,
        name: "n".to_owned(),
        user_id: String::new(),
        created_by: String::new(),
        status: "FINISHED".to_owned(),
        start_time: NOON,
        end_time: None,
        artifact_uri: format!("mlflow-artifacts:/0/{id}/artifacts"),
        lifecycle: Lifecycle::Deleted,
        metrics: vec![],
        params: vec![],
        tags: vec![],
        datasets: vec![],
        model_inputs: vec![],
        model_outputs: vec![],
    };
    let stored = bench
        .store
        .write(move |tx| Box::pin(async move { Ok::<_, ControlError>(tx.insert_run(&run).await?) }));
    stored.await.unwrap();
}

#[tokio::test]
async fn the_files_and_the_run_of_a_release_stay_and_it_is_still_deployed() {
    let bench = Bench::new(true).await;
    claimed(&bench).await;
    let made = manifest(1, RUN, "weights");
    let mut needed = vec![put(&bench, RUN).await, put(&bench, "weights").await];
    for text in ["rules"] {
        needed.push(put(&bench, text).await);
    }
    let idle = put(&bench, "nobody's").await;
    let release = bench.release(&made).await;
    deleted_run(&bench, RUN).await;
    deleted_run(&bench, &RUN.replace('0', "f")).await;
    let report = everything(&bench).await.unwrap();
    assert_eq!((report.runs, report.blobs, report.bytes), (1, 1, 8));
    assert_eq!(report.kept[0].what, format!("run {RUN}"));
    assert!(report.kept[0].why.contains("release"), "{:?}", report.kept);
    assert!(!bench.control.blobs().exists(&idle).await.unwrap());
    for digest in needed {
        bench.control.blobs().verify(&digest).await.unwrap();
    }
    Agent::new(&bench, "staging").await.confirm(&release).await;
    assert_eq!(bench.serves("staging").await, Some(release));
    bench.is_proven().await;
    assert_eq!(everything(&bench).await.unwrap().blobs, 0);
}

#[tokio::test]
async fn nothing_goes_before_the_place_is_claimed_or_where_another_has_claimed_it() {
    let bench = Bench::new(false).await;
    let idle = put(&bench, "nobody's").await;
    assert!(matches!(everything(&bench).await, Err(ControlError::Conflict { .. })));
    claimed(&bench).await;
    bench.control.blobs().claim("other", "x").await.unwrap();
    let refused = everything(&bench).await.unwrap_err();
    assert!(refused.to_string().contains("owners/other"), "{refused}");
    assert!(bench.control.blobs().exists(&idle).await.unwrap());
}

#[tokio::test]
async fn what_an_upload_became_stays_until_the_upload_ends() {
    let bench = Bench::new(false).await;
    claimed(&bench).await;
    let upload = lockgate_blob::UploadId::new(NOON, 1, [7; 16]);
    let blobs = bench.control.blobs();
    blobs.begin_upload(&upload).await.unwrap();
    let part = blobs.put_part(&upload, 1, lockgate_blob::blocks(&b"joined"[..])).await.unwrap();
    let joined = blobs.join_parts(&upload, vec![part]).await.unwrap();
    assert_eq!(everything(&bench).await.unwrap().blobs, 0);
    blobs.drop_upload(&upload).await.unwrap();
    assert_eq!(everything(&bench).await.unwrap().blobs, 1);
    assert!(!blobs.exists(&joined.digest).await.unwrap());
}
