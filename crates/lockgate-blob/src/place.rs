//! Where bytes rest: a folder, or a bucket of a service that speaks S3.

use std::fmt::{self, Display};
use std::path::PathBuf;
use std::str::FromStr;

/// Where bytes rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobPlace {
    /// A folder.
    Folder(PathBuf),
    /// A bucket.
    Bucket(BucketName),
}

/// `s3://BUCKET/PREFIX`, with or without a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketName {
    pub(crate) bucket: String,
    /// What all keys begin with: nothing, or parts that each end with a slash.
    pub(crate) prefix: String,
}

/// The text names no place for bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// Another service than S3's kind.
    #[error("`{0}` is no place for artifacts: give a folder or s3://BUCKET/PREFIX")]
    Scheme(String),
    /// No name that a bucket can have.
    #[error(
        "`{0}` is no bucket's name: 3 to 63 lower-case letters, digits, dots and hyphens, as in s3://my-models/lockgate"
    )]
    Bucket(String),
    /// No prefix that keys can have.
    #[error(
        "`{0}` can't be the beginning of names in a bucket: letters, digits and any of `-_.` between single slashes"
    )]
    Prefix(String),
}

impl FromStr for BlobPlace {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        match text.split_once("://") {
            // Slips of the pen, not folders.
            None if text.starts_with("s3:") || text.starts_with("arn:") => {
                Err(NoPlace::Scheme(text.to_owned()))
            }
            None => Ok(Self::Folder(text.into())),
            Some(("s3", rest)) => bucket(rest).map(Self::Bucket),
            Some(_) => Err(NoPlace::Scheme(text.to_owned())),
        }
    }
}

fn bucket(text: &str) -> Result<BucketName, NoPlace> {
    let (bucket, prefix) = text.split_once('/').unwrap_or((text, ""));
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-');
    if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(plain) {
        return Err(NoPlace::Bucket(bucket.to_owned()));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let good = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(plain);
    if prefix.is_empty() {
        return Ok(BucketName { bucket: bucket.to_owned(), prefix: String::new() });
    }
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    match prefix.split('/').all(good) && prefix.len() <= 512 {
        true => Ok(BucketName { bucket: bucket.to_owned(), prefix: format!("{prefix}/") }),
        false => Err(NoPlace::Prefix(prefix.to_owned())),
    }
}

impl Display for BlobPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "{}", folder.display()),
            Self::Bucket(name) => write!(f, "{name}"),
        }
    }
}

impl Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_apart() {
        let read = |text: &str| text.parse::<BlobPlace>();
        assert_eq!(read("/var/blobs"), Ok(BlobPlace::Folder("/var/blobs".into())));
        assert_eq!(read("s3").unwrap(), BlobPlace::Folder("s3".into()));
        for (text, shown) in [
            ("s3://my-models", "s3://my-models/"),
            ("s3://my-models/", "s3://my-models/"),
            ("s3://my-models/a/b", "s3://my-models/a/b/"),
            ("s3://my-models/a/b/", "s3://my-models/a/b/"),
        ] {
            assert_eq!(read(text).unwrap().to_string(), shown);
        }
        for text in ["gs://models/x", "s3:/models/x", "s3:models", "arn:aws:s3:::models"] {
            assert!(matches!(read(text), Err(NoPlace::Scheme(_))), "{text}");
        }
        for text in ["s3://", "s3://ab", "s3://My-models", "s3://a b c", "s3:///x", "s3://key:secret@host/x"]
        {
            assert!(matches!(read(text), Err(NoPlace::Bucket(_))), "{text}");
        }
        for text in
            ["s3://models//", "s3://models/a//b", "s3://models/../x", "s3://models/ü", "s3://models/a?b"]
        {
            assert!(matches!(read(text), Err(NoPlace::Prefix(_))), "{text}");
        }
    }
}
