//! Texts that name something: labels, variables, paths, people, headers, backups.

use super::Problem;
use crate::diagnostic::quoted;
use crate::project::{BackupRef, Principal};
use lockgate_core::digest::Digest;
use lockgate_core::id::{GateName, ModelName};

/// A name of our own, by the rule of all names.
pub(crate) fn label(text: &str) -> Result<(), Problem> {
    GateName::new(text)
        .map(drop)
        .map_err(|e| Problem::new(format!("{} is not a valid name", quoted(text)), e.rule))
}

/// The name of a variable. Lockgate's own can't be set by a project.
pub(crate) fn variable(text: &str) -> Result<(), Problem> {
    let first = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !first || text.len() > 200 || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(Problem::new(
            format!("{} is not a name for a variable", quoted(text)),
            "use letters, digits and `_`, starting with a letter: THRESHOLD",
        ));
    }
    if text.to_ascii_uppercase().starts_with("LOCKGATE_") {
        return Err(Problem::new(
            format!("{} is Lockgate's own", quoted(text)),
            "choose a name that doesn't begin with LOCKGATE_",
        ));
    }
    Ok(())
}

/// An alias of MLflow's registry, by its server's rule; `latest` and `v1` mean something else to it.
pub(crate) fn alias(text: &str) -> Result<(), Problem> {
    let problem = |help: &str| Problem::new(format!("{} is not an alias", quoted(text)), help);
    if text.len() > 255 || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
        return Err(problem("use letters, digits, `_` and `-`: champion"));
    }
    let number = text.strip_prefix(['v', 'V']).is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
    if number || text.eq_ignore_ascii_case("latest") {
        return Err(problem("MLflow takes it for a version: choose another name, such as champion"));
    }
    Ok(())
}

/// A path inside the project.
pub(crate) fn path(text: &str) -> Result<(), Problem> {
    let help = "write it from the folder of lockgate.toml: \"data/train.parquet\"";
    if text.starts_with(['/', '~']) || text.contains('\\') || text.get(1..3) == Some(":/") {
        return Err(Problem::new(format!("{} is not a path inside the project", quoted(text)), help));
    }
    if text.split('/').any(|part| part == "..") {
        return Err(Problem::new(format!("{} leads out of the project", quoted(text)), help));
    }
    if text.chars().any(char::is_control) || text.trim() != text || text.len() > 1000 {
        return Err(Problem::new(format!("{} is not a usable path", quoted(text)), help));
    }
    if normal_path(text).is_empty() {
        return Err(Problem::new(
            format!("{} is the project itself", quoted(text)),
            "name a file or a folder in it",
        ));
    }
    Ok(())
}

/// The path without `.` and double slashes.
pub(crate) fn normal_path(text: &str) -> String {
    text.split('/').filter(|part| !part.is_empty() && *part != ".").collect::<Vec<_>>().join("/")
}

/// A path (`None`), or a source that comes later by its scheme.
pub(crate) fn data_source(text: &str) -> Result<Option<&'static str>, Problem> {
    for scheme in ["isolated", "masked", "dvc"] {
        if let Some(rest) = text.strip_prefix(scheme).and_then(|rest| rest.strip_prefix(':')) {
            return if rest.trim().is_empty() {
                Err(Problem::new(
                    format!("{} names nothing", quoted(text)),
                    format!("write what follows: \"{scheme}:name\""),
                ))
            } else {
                Ok(Some(scheme))
            };
        }
    }
    path(text).map(|()| None)
}

/// `header:NAME`: the header's name in lower case.
pub(crate) fn unit_header(text: &str) -> Result<String, Problem> {
    let help = "name the header that tells users apart: \"header:X-User-Id\"";
    let name = text.strip_prefix("header:").ok_or_else(|| {
        Problem::new(format!("{} doesn't say where a request names its unit", quoted(text)), help)
    })?;
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || name.len() > 100 || !name.bytes().all(token) {
        return Err(Problem::new(format!("{} is not a header's name", quoted(name)), help));
    }
    Ok(name.to_ascii_lowercase())
}

/// `group:NAME`, `person:NAME` or a person's name.
pub(crate) fn principal(text: &str) -> Result<Principal, Problem> {
    let help = "write \"group:release-managers\", or a person's name such as \"bob@example.com\"";
    if let Some(group) = text.strip_prefix("group:") {
        label(group)?;
        return Ok(Principal::Group(group.to_owned()));
    }
    if let Some(team) = text.strip_prefix("team:") {
        return Err(Problem::new(
            format!("{} is neither a group nor a person", quoted(text)),
            format!("write \"group:{team}\""),
        ));
    }
    let person = text.strip_prefix("person:").unwrap_or(text);
    if person.is_empty()
        || person.len() > 200
        || person.contains(':')
        || person.chars().any(|c| c.is_whitespace() || c.is_control())
    {
        return Err(Problem::new(format!("{} is neither a group nor a person", quoted(text)), help));
    }
    Ok(Principal::Person(person.to_owned()))
}

/// `model@alias`, `model:version` or a release's digest.
pub(crate) fn backup(text: &str) -> Result<BackupRef, Problem> {
    let wrong = || {
        Problem::new(
            format!("{} doesn't name a release", quoted(text)),
            "write model@alias (\"delay@rules\"), model:version (\"delay:3\") or a release's digest (\"sha256:…\")",
        )
    };
    if text.starts_with("sha256:") {
        return text.parse::<Digest>().map(BackupRef::Release).map_err(|_| wrong());
    }
    if let Some((model, alias)) = text.split_once('@') {
        let model = ModelName::new(model).map_err(|_| wrong())?;
        // An alias obeys the rule of model names, and holds no blank.
        let fine = ModelName::new(alias).is_ok() && !alias.contains(char::is_whitespace);
        return if fine { Ok(BackupRef::Alias { model, alias: alias.to_owned() }) } else { Err(wrong()) };
    }
    let (model, version) = text.split_once(':').ok_or_else(wrong)?;
    let model = ModelName::new(model).map_err(|_| wrong())?;
    let digits = version.bytes().all(|b| b.is_ascii_digit());
    match version.parse::<u64>() {
        Ok(version) if version > 0 && digits => Ok(BackupRef::Version { model, version }),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_inside_the_project() {
        for good in ["data/a.parquet", "./a", "a b/c", "a.."] {
            assert!(path(good).is_ok(), "{good}");
        }
        for bad in ["/etc/passwd", "../x", "a/../../x", "~/x", "C:/x", "a\\b", " a", ".", "./", "a\nb"] {
            assert!(path(bad).is_err(), "{bad}");
        }
        assert_eq!(normal_path("./a//b/./c/"), "a/b/c");
    }

    #[test]
    fn a_backup_names_a_release_in_one_of_three_ways() {
        assert!(matches!(backup("delay@rules"), Ok(BackupRef::Alias { .. })));
        assert!(matches!(backup("delay:3"), Ok(BackupRef::Version { version: 3, .. })));
        assert!(matches!(backup(&Digest::of(b"x").to_string()), Ok(BackupRef::Release(_))));
        for bad in [
            "",
            "delay",
            "delay@",
            "@x",
            "delay:",
            "delay:0",
            "delay:v3",
            "delay:+3",
            "sha256:12",
            "a/b@c",
            "a@b@c",
            "a@ b",
        ] {
            assert!(backup(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn units_and_principals_are_checked() {
        assert_eq!(unit_header("header:X-Passenger-Id").unwrap(), "x-passenger-id");
        for bad in ["X-Id", "header:", "header:a b", "header:a\r\nb", "cookie:x"] {
            assert!(unit_header(bad).is_err(), "{bad}");
        }
        assert_eq!(principal("group:a-b").unwrap(), Principal::Group("a-b".to_owned()));
        assert_eq!(principal("person:bob@x").unwrap(), principal("bob@x").unwrap());
        for bad in ["group:", "group:A", "team:x", "a b", "person:", "x:y"] {
            assert!(principal(bad).is_err(), "{bad}");
        }
    }
}
