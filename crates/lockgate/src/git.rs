//! What Lockgate asks of Git, through the `git` that is there.

use anyhow::{Context as _, bail};
use std::collections::BTreeSet;
use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

/// The most that files which Git doesn't track may add to a release's code. What is larger is data, and has its own place.
const UNTRACKED_LIMIT: u64 = 64 << 20;

/// The most authors that are collected: beyond that a list says nothing.
const AUTHORS_LIMIT: usize = 20_000;

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(dir).args(args);
    command
}

const MISSING: &str = "`git` can't be started\n  hint: install it, for example with `apt-get install git`";

fn git(dir: &Path, args: &[&str]) -> anyhow::Result<Vec<u8>> {
    finish(command(dir, args), dir, args)
}

fn finish(mut command: Command, dir: &Path, args: &[&str]) -> anyhow::Result<Vec<u8>> {
    let output = command.output().context(MISSING)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`git {}` failed in {}: {}", args.join(" "), dir.display(), said.trim());
    }
    Ok(output.stdout)
}

fn text(dir: &Path, args: &[&str]) -> anyhow::Result<String> {
    git(dir, args).map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// One value of Git's configuration.
pub(crate) fn config(dir: &Path, key: &str) -> Option<String> {
    text(dir, &["config", "--get", key]).ok().filter(|value| !value.is_empty())
}

/// Whether `dir` is in a Git repository with at least one commit.
pub(crate) fn is_repository(dir: &Path) -> bool {
    text(dir, &["rev-parse", "--verify", "HEAD"]).is_ok()
}

/// Whether the repository has this commit.
pub(crate) fn has_commit(dir: &Path, commit: &str) -> bool {
    is_commit_name(commit) && text(dir, &["cat-file", "-e", &format!("{commit}^{{commit}}")]).is_ok()
}

/// A commit's name comes from outside: nothing else may reach Git's command line.
fn is_commit_name(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whether a part of the history is missing here.
pub(crate) fn is_shallow(dir: &Path) -> bool {
    text(dir, &["rev-parse", "--is-shallow-repository"]).is_ok_and(|said| said == "true")
}

/// Whether the files that Git tracks among `paths` are as they were at `commit`.
pub(crate) fn are_as_at(dir: &Path, commit: &str, paths: &[String]) -> bool {
    if !has_commit(dir, commit) || paths.is_empty() {
        return false;
    }
    let mut command =
        command(dir, &["--literal-pathspecs", "diff", "--quiet", "--no-ext-diff", commit, "--"]);
    command
        .args(paths)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The state of a repository's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tree {
    /// The commit.
    pub(crate) commit: String,
    /// What differs from it, where something does.
    pub(crate) patch: Option<Vec<u8>>,
    /// The files as they are, as a tar archive.
    pub(crate) archive: Vec<u8>,
    /// The files in it that Git neither tracks nor ignores.
    pub(crate) untracked: Vec<String>,
}

/// Reads the tree at `dir` as it is: what Git tracks, and what it neither tracks nor ignores, but for what the pipeline
/// writes (`outs`). Neither the files nor Git's own index are touched.
///
/// The same state gives the same bytes, so that a release made again is the same release.
pub(crate) fn tree(dir: &Path, outs: &[&str]) -> anyhow::Result<Tree> {
    let commit = text(dir, &["rev-parse", "HEAD"])?;
    let untracked = untracked(dir, outs)?;
    let committed = text(dir, &["rev-parse", "HEAD^{tree}"])?;
    let now = snapshot(dir, &commit, &untracked)?;
    if now == committed {
        let archive = git(dir, &["archive", "--format=tar", &commit])?;
        return Ok(Tree { commit, patch: None, archive, untracked });
    }
    let patch = git(
        dir,
        &[
            "diff-tree",
            "-r",
            "-p",
            "--binary",
            "--full-index",
            "--no-ext-diff",
            "--no-textconv",
            &committed,
            &now,
        ],
    )?;
    // An archive of a bare tree carries the present time; one of a commit carries the commit's.
    let at = format!("@{} +0000", text(dir, &["show", "-s", "--format=%ct", &commit])?);
    let args = ["commit-tree", "--no-gpg-sign", "-p", &commit, "-m", "The files as they are", &now];
    let mut make = command(dir, &args);
    for who in ["AUTHOR", "COMMITTER"] {
        make.env(format!("GIT_{who}_NAME"), "lockgate")
            .env(format!("GIT_{who}_EMAIL"), "lockgate@localhost")
            .env(format!("GIT_{who}_DATE"), &at);
    }
    let made = String::from_utf8_lossy(&finish(make, dir, &args)?).trim().to_owned();
    let archive = git(dir, &["archive", "--format=tar", &made])?;
    Ok(Tree { commit, patch: Some(patch), archive, untracked })
}

/// The files below `dir` that Git neither tracks nor ignores, and that no stage of the pipeline writes.
fn untracked(dir: &Path, outs: &[&str]) -> anyhow::Result<Vec<String>> {
    let listed = git(dir, &["ls-files", "-z", "--others", "--exclude-standard"])?;
    let is_out = |path: &str| {
        outs.iter().any(|out| {
            let out = out.trim_start_matches("./").trim_end_matches('/');
            path.strip_prefix(out).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    let files: Vec<String> = String::from_utf8(listed)
        .context("a file that Git doesn't track has a name that is no text\n  hint: rename it, or ignore it in .gitignore")?
        .split('\0')
        // A folder's name is a repository inside this one.
        .filter(|path| !path.is_empty() && !path.ends_with('/') && !is_out(path))
        .map(str::to_owned)
        .collect();
    if let Some(secret) = files.iter().find(|path| may_be_secret(path)) {
        bail!(
            "{secret} may hold a secret, and Git neither tracks nor ignores it, so it would become part of the release\n  hint: ignore it in .gitignore"
        );
    }
    let size = |path: &String| dir.join(path).symlink_metadata().map_or(0, |about| about.len());
    let total: u64 = files.iter().map(size).sum();
    if total > UNTRACKED_LIMIT {
        let largest = files.iter().max_by_key(|path| size(path)).map_or("", String::as_str);
        bail!(
            "{} files that Git neither tracks nor ignores hold {} MB, the largest is {largest}\n  hint: ignore what is no code in .gitignore",
            files.len(),
            total >> 20
        );
    }
    Ok(files)
}

/// Files that are made to hold keys and passwords.
fn may_be_secret(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path).to_lowercase();
    let ends = [".pem", ".key", ".p12", ".pfx", ".keystore"];
    let names = [".env", ".netrc", ".pgpass", ".pypirc", "credentials", "id_rsa", "id_ed25519", "id_ecdsa"];
    names.contains(&name.as_str())
        || ends.iter().any(|end| name.ends_with(end))
        || name.starts_with(".env.") && !["example", "sample", "template"].iter().any(|e| name.ends_with(e))
}

/// Git's name for the tree of the present files, by an index of its own.
fn snapshot(dir: &Path, commit: &str, untracked: &[String]) -> anyhow::Result<String> {
    let folder = tempfile::tempdir().context("can't make a temporary folder")?;
    let index = folder.path().join("index");
    let with = |args: &[&str], input: Option<&[u8]>| -> anyhow::Result<String> {
        let mut command = command(dir, args);
        command.env("GIT_INDEX_FILE", &index);
        let Some(input) = input else {
            return Ok(String::from_utf8_lossy(&finish(command, dir, args)?).trim().to_owned());
        };
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context(MISSING)?;
        let sent = child.stdin.take().map(|mut pipe| pipe.write_all(input)).transpose();
        let output = child.wait_with_output().context(MISSING)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("`git {}` failed in {}: {}", args.join(" "), dir.display(), said.trim());
        }
        sent.context("Git did not take the list of files")?;
        Ok(String::new())
    };
    // The present index knows which files need not be read again.
    let own = dir.join(text(dir, &["rev-parse", "--git-path", "index"])?);
    if copy_with_time(&own, &index).is_err() {
        with(&["read-tree", commit], None)?;
    }
    with(&["add", "-u", ":/"], None)?;
    if !untracked.is_empty() {
        with(&["update-index", "--add", "-z", "--stdin"], Some(untracked.join("\0").as_bytes()))?;
    }
    with(&["write-tree"], None)
}

/// Copies an index with its time. Git takes a file for unchanged whose time is before the index's, so a copy that looks newer
/// would hide what was changed right after the last `git add`.
fn copy_with_time(from: &Path, to: &Path) -> std::io::Result<()> {
    let modified = std::fs::metadata(from)?.modified()?;
    std::fs::copy(from, to)?;
    std::fs::File::options().write(true).open(to)?.set_modified(modified)
}

/// The e-mail addresses, in lower case, of everybody who wrote or co-wrote HEAD, or a commit that one of `since` doesn't have
/// yet; of the whole history where `since` names none.
pub(crate) fn authors(dir: &Path, since: &[String]) -> anyhow::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    collect_authors(dir, &["-n", "1", "HEAD"], &mut found)?;
    if since.is_empty() {
        collect_authors(dir, &["HEAD"], &mut found)?;
    }
    for base in since {
        if !has_commit(dir, base) {
            bail!("the repository has no commit {base}");
        }
        collect_authors(dir, &[&format!("{base}..HEAD")], &mut found)?;
    }
    Ok(found)
}

fn collect_authors(dir: &Path, range: &[&str], found: &mut BTreeSet<String>) -> anyhow::Result<()> {
    let mut child = command(dir, &["log", "--format=%ae%n%(trailers:key=Co-authored-by,valueonly)"])
        .args(range)
        .arg("--")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context(MISSING)?;
    let lines = std::io::BufReader::new(child.stdout.take().context("Git's answer can't be read")?);
    for line in lines.split(b'\n') {
        let line = line.context("Git's answer can't be read")?;
        found.extend(address(&String::from_utf8_lossy(&line)));
        if found.len() > AUTHORS_LIMIT {
            let _ = child.kill();
            let _ = child.wait();
            bail!("this history has more than {AUTHORS_LIMIT} authors, too many for a release to name");
        }
    }
    let status = child.wait().context("Git can't be waited for")?;
    if !status.success() {
        bail!("`git log {}` failed in {}: {status}", range.join(" "), dir.display());
    }
    Ok(())
}

/// The address in `Name <address>`, or the text itself.
fn address(line: &str) -> Option<String> {
    let line = line.trim();
    let inner = line.rsplit_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(mail, _)| mail);
    Some(inner.unwrap_or(line).trim().to_lowercase()).filter(|mail| !mail.is_empty())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::fs;

    /// A repository with one commit by Alice.
    pub(crate) fn repository() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        git(dir.path(), &["init", "--quiet", "--initial-branch=main"]).unwrap();
        fs::write(dir.path().join("train.py"), "print(1)\n").unwrap();
        fs::write(dir.path().join(".gitignore"), "/data\n").unwrap();
        commit(dir.path(), "Alice@example.com", "First");
        dir
    }

    pub(crate) fn commit(dir: &Path, mail: &str, message: &str) -> String {
        git(dir, &["add", "--all"]).unwrap();
        let (mail, name) = (format!("user.email={mail}"), "user.name=Somebody");
        git(dir, &["-c", &mail, "-c", name, "commit", "--quiet", "--allow-empty", "-m", message]).unwrap();
        text(dir, &["rev-parse", "HEAD"]).unwrap()
    }

    fn listed(archive: &[u8]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        fs::write(&path, archive).unwrap();
        let output = Command::new("tar").arg("-tf").arg(&path).output().unwrap();
        let mut names: Vec<String> =
            String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
        names.sort();
        names
    }

    #[test]
    fn a_clean_tree_has_no_patch_whatever_is_ignored_or_written_by_a_stage() {
        let dir = repository();
        for folder in ["data", "models"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
            fs::write(dir.path().join(folder).join("x.parquet"), "rows").unwrap();
        }
        fs::write(dir.path().join("metrics.json"), "{}").unwrap();
        let tree = tree(dir.path(), &["models/", "./metrics.json"]).unwrap();
        assert_eq!(tree.patch, None);
        assert_eq!(listed(&tree.archive), [".gitignore", "train.py"]);
    }

    #[test]
    fn a_file_that_git_does_not_know_is_part_of_the_code_and_of_the_patch() {
        let dir = repository();
        fs::write(dir.path().join("helper.py"), "x = 1\n").unwrap();
        let before = text(dir.path(), &["status", "--porcelain"]).unwrap();
        let first = tree(dir.path(), &[]).unwrap();
        assert_eq!(first.untracked, ["helper.py"]);
        assert!(String::from_utf8_lossy(first.patch.as_ref().unwrap()).contains("+x = 1"));
        assert_eq!(listed(&first.archive), [".gitignore", "helper.py", "train.py"]);
        assert_eq!(text(dir.path(), &["status", "--porcelain"]).unwrap(), before);
        fs::write(dir.path().join("helper.py"), "x = 2\n").unwrap();
        assert_ne!(tree(dir.path(), &[]).unwrap().patch, first.patch);
    }

    #[test]
    fn the_same_dirty_state_gives_the_same_bytes_at_any_time() {
        let dir = repository();
        fs::write(dir.path().join("train.py"), "print(2)\n").unwrap();
        let first = tree(dir.path(), &[]).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1100));
        assert!(first.patch.is_some());
        assert!(tree(dir.path(), &[]).unwrap() == first, "the bytes differ");
    }

    #[test]
    fn a_project_in_a_folder_of_a_repository_is_archived_by_itself() {
        let dir = repository();
        let project = dir.path().join("models/toy");
        fs::create_dir_all(&project).unwrap();
        fs::write(project.join("train.py"), "print(1)\n").unwrap();
        commit(dir.path(), "alice@example.com", "Toy");
        fs::write(project.join("new.py"), "").unwrap();
        fs::write(dir.path().join("elsewhere.py"), "").unwrap();
        let tree = tree(&project, &[]).unwrap();
        assert_eq!(tree.untracked, ["new.py"]);
        assert_eq!(listed(&tree.archive), ["new.py", "train.py"]);
    }

    #[test]
    fn what_may_be_a_secret_is_never_taken_along() {
        let dir = repository();
        for name in [".env", "key.pem", ".env.local"] {
            fs::write(dir.path().join(name), "PASSWORD=x").unwrap();
            let error = tree(dir.path(), &[]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(".gitignore"), "{error}");
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        assert!(!may_be_secret(".env.example"));
        assert!(!may_be_secret("src/environment.py"));
    }

    #[test]
    fn everybody_who_wrote_something_since_is_an_author() {
        let dir = repository();
        let base = text(dir.path(), &["rev-parse", "HEAD"]).unwrap();
        commit(dir.path(), "bob@example.com", "Second\n\nCo-authored-by: Carol <Carol@Example.com>\n");
        commit(dir.path(), "dave@example.com", "Third");
        let all = |found: BTreeSet<String>| found.into_iter().collect::<Vec<_>>();
        let since = all(authors(dir.path(), std::slice::from_ref(&base)).unwrap());
        assert_eq!(since, ["bob@example.com", "carol@example.com", "dave@example.com"]);
        let ever = all(authors(dir.path(), &[]).unwrap());
        assert_eq!(ever, ["alice@example.com", "bob@example.com", "carol@example.com", "dave@example.com"]);
        let head = text(dir.path(), &["rev-parse", "HEAD"]).unwrap();
        assert_eq!(all(authors(dir.path(), std::slice::from_ref(&head)).unwrap()), ["dave@example.com"]);
        // Two environments at different commits: whoever is new to either counts.
        assert_eq!(all(authors(dir.path(), &[head, base]).unwrap()), since);
        assert!(authors(dir.path(), &["0123456789abcdef".to_owned()]).is_err());
    }

    #[test]
    fn files_are_compared_with_those_of_a_commit() {
        let dir = repository();
        let base = text(dir.path(), &["rev-parse", "HEAD"]).unwrap();
        fs::write(dir.path().join("README.md"), "words\n").unwrap();
        commit(dir.path(), "bob@example.com", "Words");
        let paths = ["train.py".to_owned()];
        assert!(are_as_at(dir.path(), &base, &paths));
        fs::write(dir.path().join("train.py"), "print(2)\n").unwrap();
        assert!(!are_as_at(dir.path(), &base, &paths));
        assert!(!are_as_at(dir.path(), "--output=x", &paths));
        assert!(!are_as_at(dir.path(), &base, &[]));
    }
}
