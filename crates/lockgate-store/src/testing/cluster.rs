//! A PostgreSQL cluster for tests, shared by all test processes that run at the same time.
//!
//! nextest gives every test a process of its own. The first one that needs PostgreSQL starts a cluster below the
//! system's temporary folder; each holds a shared lock while it lives; a watchdog stops the cluster and deletes it
//! when nobody has held the lock for two seconds, however the tests ended.

use crate::place::Place;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// Held by this process for as long as it lives.
static USING: Mutex<Option<File>> = Mutex::new(None);

const START: &str = r#"
set -eu
dir=$1 bin=$2
as() { if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }
rm -rf "$dir/pg"
mkdir "$dir/pg"
[ "$(id -u)" != 0 ] || chown postgres "$dir/pg"
cd "$dir/pg"
as "$bin/initdb" -D "$dir/pg/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync
as "$bin/pg_ctl" start -D "$dir/pg/data" -w -t 60 -l "$dir/pg/log" \
  -o "-c listen_addresses='' -k $dir/pg -c fsync=off -c max_connections=300 -c shared_buffers=32MB"
"#;

const LAUNCH: &str = r#"sh -c "$3" cluster "$1" "$2" &"#;

const WATCH: &str = r#"
dir=$1 bin=$2 idle=0
as() { if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }
cd "$dir"
while sleep 1; do
  exec 9>>"$dir/start.lock"
  flock 9
  exec 8>>"$dir/users.lock"
  if flock -n -x 8; then idle=$((idle + 1)); else idle=0; fi
  if [ "$idle" -ge 2 ]; then
    as "$bin/pg_ctl" stop -D "$dir/pg/data" -m immediate
    rm -rf "$dir/pg"
    exit
  fi
  exec 8>&- 9>&-
done
"#;

fn lock_file(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).unwrap()
}

/// The folder with the server's programs.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        versions.map(|v| v.path().join("bin")).filter(|b| b.join("initdb").exists()).collect();
    found.sort();
    found.pop().expect("these tests need PostgreSQL's server programs: run `apt-get install postgresql`")
}

fn script(text: &str, folder: &Path, programs: &Path) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(text).arg("cluster").arg(folder).arg(programs);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn url(folder: &Path, database: &str) -> String {
    let socket = folder.join("pg").display().to_string().replace('/', "%2F");
    format!("postgres://postgres@{socket}/{database}")
}

async fn connect(folder: &Path) -> Result<PgConnection, sqlx::Error> {
    PgConnection::connect(&Place::parse(&url(folder, "postgres")).unwrap().url).await
}

async fn running() -> (PathBuf, PgConnection) {
    let user = std::fs::metadata("/proc/self").map_or(0, |m| std::os::unix::fs::MetadataExt::uid(&m));
    let folder = std::env::temp_dir().join(format!("lockgate-pg-{user}"));
    std::fs::create_dir_all(&folder).unwrap();
    let starting = lock_file(&folder.join("start.lock"));
    starting.lock().unwrap();
    let users = lock_file(&folder.join("users.lock"));
    users.lock_shared().unwrap();
    USING.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(users);
    if let Ok(connection) = connect(&folder).await {
        return (folder, connection);
    }
    let programs = programs();
    let log = folder.join("start.log");
    let status = script(START, &folder, &programs).stderr(File::create(&log).unwrap()).status().unwrap();
    assert!(
        status.success(),
        "PostgreSQL did not start: {}",
        std::fs::read_to_string(log).unwrap_or_default()
    );
    // The watchdog outlives this process, and is in no process group that a test runner ends.
    let watching = script(LAUNCH, &folder, &programs).arg(WATCH).process_group(0).status().unwrap();
    assert!(watching.success());
    let connection = connect(&folder).await.unwrap();
    (folder, connection)
}

/// A new empty database.
pub(super) async fn fresh_database() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let (folder, mut connection) = running().await;
    let name = format!("t_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    for sql in
        [format!("DROP DATABASE IF EXISTS {name}"), format!("CREATE DATABASE {name} TEMPLATE template0")]
    {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();
    url(&folder, &name)
}
