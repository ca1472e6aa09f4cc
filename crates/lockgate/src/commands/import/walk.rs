//! The files below a folder of this machine. Stores of others are read: a link may lead anywhere, and not everything with a
//! name is a file.

use super::places::parts_of;
use super::sources::{File, Listing, Odd};
use anyhow::{Context as _, bail};
use std::path::{Path, PathBuf};

/// A folder that is still to be read.
struct Open {
    folder: PathBuf,
    /// Its path below the place that is listed, with a slash at its end.
    prefix: String,
    /// Where the links that led here pointed, so that none is followed in a circle.
    through: Vec<PathBuf>,
}

/// What an entry of a folder is.
enum Entry {
    Folder { through: Vec<PathBuf> },
    File { size: u64 },
}

/// The files below a folder, by path; none where there is no folder. Links lead to what is in one of `roots` or in the
/// folder itself; whatever else is there is odd.
pub(super) fn files(folder: &Path, roots: &[PathBuf]) -> anyhow::Result<Listing> {
    let mut found = Listing::default();
    if !folder.is_dir() {
        return Ok(found);
    }
    let real = folder.canonicalize().with_context(|| format!("{} can't be read", folder.display()))?;
    let allowed: Vec<PathBuf> = roots.iter().cloned().chain([real.clone()]).collect();
    let mut open = vec![Open { folder: folder.to_owned(), prefix: String::new(), through: vec![real] }];
    while let Some(next) = open.pop() {
        let entries = match std::fs::read_dir(&next.folder) {
            Ok(entries) => entries,
            Err(error) => {
                found.odd.push(Odd { path: next.prefix, why: format!("the folder can't be read: {error}") });
                continue;
            }
        };
        for entry in entries {
            let entry = entry.with_context(|| format!("{} can't be read", next.folder.display()))?;
            let name = entry.file_name();
            let path = format!("{}{}", next.prefix, name.to_string_lossy());
            let looked = match name.to_str() {
                Some(_) => look(&entry.path(), &next, &allowed),
                None => Err("its name is no UTF-8".to_owned()),
            };
            match looked {
                Ok(Entry::File { size }) => found.files.push(File { path, size }),
                Ok(Entry::Folder { through }) => {
                    open.push(Open { folder: entry.path(), prefix: format!("{path}/"), through });
                }
                Err(why) => found.odd.push(Odd { path, why }),
            }
        }
    }
    found.files.sort_by(|a, b| a.path.cmp(&b.path));
    found.odd.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// What something is, through links as MLflow itself reads; or why it is not taken.
fn look(path: &Path, from: &Open, allowed: &[PathBuf]) -> Result<Entry, String> {
    let unreadable = |error: std::io::Error| format!("it can't be read: {error}");
    let own = std::fs::symlink_metadata(path).map_err(unreadable)?;
    let mut through = from.through.clone();
    let meta = if own.is_symlink() {
        let real =
            path.canonicalize().map_err(|error| format!("it is a link that leads nowhere: {error}"))?;
        if !allowed.iter().any(|root| real.starts_with(root)) {
            return Err(format!("it is a link out of the store, to {}", real.display()));
        }
        let here = from.folder.canonicalize().map_err(unreadable)?;
        if here.starts_with(&real) || through.contains(&real) {
            return Err("it is a link in a circle".to_owned());
        }
        through.push(real);
        std::fs::metadata(path).map_err(unreadable)?
    } else {
        own
    };
    if meta.is_dir() {
        return Ok(Entry::Folder { through });
    }
    if meta.is_file() {
        return Ok(Entry::File { size: meta.len() });
    }
    Err("it is no regular file".to_owned())
}

/// The files of a folder that describes something, all of which must be plain files within the folder around it.
pub(super) fn plain(folder: &Path) -> anyhow::Result<Vec<File>> {
    let around = folder.parent().and_then(|above| above.canonicalize().ok());
    if let (Some(around), Ok(real)) = (&around, folder.canonicalize())
        && !real.starts_with(around)
    {
        bail!("{} is a link out of the store", folder.display());
    }
    let found = files(folder, around.as_slice())?;
    match found.odd.first() {
        Some(odd) => bail!("{}/{}: {}", folder.display(), odd.path, odd.why),
        None => Ok(found.files),
    }
}

/// Whether a folder that is there may be read: it lies in one of the roots; or, where `owned`, it is the artifact folder of
/// a run or a logged model, wherever it is.
pub(super) fn is_within(folder: &Path, roots: &[PathBuf], owned: bool) -> bool {
    // What is not there is no secret, and is told to be missing.
    let Ok(real) = folder.canonicalize() else { return true };
    let of_owner = || real.to_str().is_some_and(|path| parts_of(path).is_some());
    roots.iter().any(|root| real.starts_with(root)) || (owned && of_owner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn names(found: &Listing) -> (Vec<&str>, Vec<&str>) {
        let files = found.files.iter().map(|file| file.path.as_str()).collect();
        (files, found.odd.iter().map(|odd| odd.path.as_str()).collect())
    }

    #[test]
    fn files_are_listed_below_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("d/é")).unwrap();
        std::fs::write(folder.path().join("d/é/x y"), "abc").unwrap();
        std::fs::write(folder.path().join("a"), "").unwrap();
        let found = files(folder.path(), &[]).unwrap();
        assert_eq!(names(&found), (vec!["a", "d/é/x y"], vec![]));
        assert_eq!(found.files[1].size, 3);
        assert_eq!(files(&folder.path().join("none"), &[]).unwrap(), Listing::default());
    }

    #[test]
    fn links_are_followed_within_the_store_only_and_never_in_a_circle() {
        let place = tempfile::tempdir().unwrap();
        let at = |path: &str| place.path().join(path);
        for folder in ["secret", "store/run/sub", "store/other"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        for file in ["secret/key", "store/other/x", "store/run/sub/y"] {
            std::fs::write(at(file), "z").unwrap();
        }
        for (to, link) in [
            ("secret", "out"),
            ("secret/key", "key"),
            ("store/other", "in"),
            ("none", "broken"),
            ("store/run/loop", "loop"),
            ("store/run", "sub/up"),
        ] {
            symlink(at(to), at("store/run").join(link)).unwrap();
        }
        drop(std::os::unix::net::UnixListener::bind(at("store/run/socket")).unwrap());
        let root = at("store").canonicalize().unwrap();
        let found = files(&at("store/run"), std::slice::from_ref(&root)).unwrap();
        let odd = vec!["broken", "key", "loop", "out", "socket", "sub/up"];
        assert_eq!(names(&found), (vec!["in/x", "sub/y"], odd));
        assert!(found.odd[1].why.contains("out of the store"), "{:?}", found.odd);
        assert!(plain(&at("store/run")).unwrap_err().to_string().contains("leads nowhere"));
        symlink(at("secret"), at("store/params")).unwrap();
        assert!(plain(&at("store/params")).unwrap_err().to_string().contains("out of the store"));
        assert_eq!(plain(&at("store/other")).unwrap().len(), 1);
    }

    #[test]
    fn folders_outside_are_read_only_where_they_are_a_runs() {
        let place = tempfile::tempdir().unwrap();
        let run = place.path().join("x/0123456789abcdef0123456789abcdef/artifacts");
        std::fs::create_dir_all(&run).unwrap();
        let secret = place.path().join("secret");
        std::fs::create_dir_all(&secret).unwrap();
        assert!(is_within(&run, &[], true) && !is_within(&run, &[], false));
        assert!(!is_within(&secret, &[], true));
        assert!(is_within(&secret, &[place.path().canonicalize().unwrap()], false));
        std::fs::remove_dir(&run).unwrap();
        symlink(&secret, &run).unwrap();
        assert!(!is_within(&run, &[], true), "what counts is where the link leads");
    }
}
