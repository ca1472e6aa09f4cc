//! `Content-Encoding`: bodies that are packed with gzip or deflate, unpacked within a limit.

use crate::error::WireError;
use crate::tensor::shown;
use flate2::Compression;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use std::io::{Read, Write as _};

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// gzip (RFC 1952).
    Gzip,
    /// deflate within zlib (RFC 1950), as HTTP means it. Bare deflate is read too.
    Deflate,
}

impl Encoding {
    /// The word for headers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// Reads `Content-Encoding` (or gRPC's `grpc-encoding`); none where the body is not packed.
    ///
    /// # Errors
    /// With status 415 where it is packed in another way, or more than once.
    pub fn parse(header: &[u8]) -> Result<Option<Self>, WireError> {
        let text = String::from_utf8_lossy(header);
        match text.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(None),
            "gzip" | "x-gzip" => Ok(Some(Self::Gzip)),
            "deflate" => Ok(Some(Self::Deflate)),
            _ => Err(WireError::unsupported(format!(
                "the Content-Encoding is `{}`; expected gzip, deflate or identity",
                shown(text.trim())
            ))),
        }
    }

    /// The encoding that `Accept-Encoding` likes best of ours; none where it names none of them.
    #[must_use]
    pub fn accepted(header: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(header).ok()?;
        let best = |wanted: &str| {
            let weights = text.split(',').filter_map(|part| {
                let mut pieces = part.split(';').map(str::trim);
                let named = pieces.next().is_some_and(|name| name.eq_ignore_ascii_case(wanted));
                let q = pieces.find_map(|p| p.strip_prefix("q=")).map_or(1.0, |q| q.parse().unwrap_or(0.0));
                named.then_some(q)
            });
            weights.fold(0.0_f32, f32::max)
        };
        let (gzip, deflate) = (best("gzip"), best("deflate"));
        if gzip > 0.0 && gzip >= deflate {
            Some(Self::Gzip)
        } else {
            (deflate > 0.0).then_some(Self::Deflate)
        }
    }

    /// Unpacks a body that may be `limit` bytes large.
    ///
    /// # Errors
    /// With status 413 where it is larger, and 400 where it is damaged.
    pub fn unpack(self, bytes: &[u8], limit: usize) -> Result<Vec<u8>, WireError> {
        match self {
            Self::Gzip => self.read(MultiGzDecoder::new(bytes), limit),
            Self::Deflate if is_zlib(bytes) => self.read(ZlibDecoder::new(bytes), limit),
            Self::Deflate => self.read(DeflateDecoder::new(bytes), limit),
        }
    }

    fn read(self, from: impl Read, limit: usize) -> Result<Vec<u8>, WireError> {
        let mut out = Vec::new();
        let read = from.take((limit as u64).saturating_add(1)).read_to_end(&mut out);
        if out.len() > limit {
            return Err(WireError::too_large(format!(
                "the body is larger than {limit} bytes once it is unpacked"
            )));
        }
        read.map_err(|e| WireError::bad(format!("the body can't be unpacked as {}: {e}", self.as_str())))?;
        Ok(out)
    }

    /// Packs a body, quickly rather than tightly. None where that failed, which memory alone can do.
    #[must_use]
    pub fn pack(self, bytes: &[u8]) -> Option<Vec<u8>> {
        let out = Vec::with_capacity(bytes.len() / 2);
        match self {
            Self::Gzip => {
                let mut packer = GzEncoder::new(out, Compression::fast());
                packer.write_all(bytes).ok()?;
                packer.finish().ok()
            }
            Self::Deflate => {
                let mut packer = ZlibEncoder::new(out, Compression::fast());
                packer.write_all(bytes).ok()?;
                packer.finish().ok()
            }
        }
    }
}

/// Whether bytes begin as zlib's do: a method and a checksum over the first two.
fn is_zlib(bytes: &[u8]) -> bool {
    bytes.first_chunk::<2>().is_some_and(|head| head[0] & 15 == 8 && u16::from_be_bytes(*head) % 31 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_unpacks_within_the_limit_only() {
        let body = vec![b'7'; 100_000];
        for encoding in [Encoding::Gzip, Encoding::Deflate] {
            let packed = encoding.pack(&body).unwrap();
            assert!(packed.len() < 2000, "{}", packed.len());
            assert_eq!(encoding.unpack(&packed, 100_000).unwrap(), body);
            assert_eq!(encoding.unpack(&packed, 99_999).unwrap_err().status, 413);
            assert_eq!(encoding.unpack(&packed[..packed.len() / 2], 100_000).unwrap_err().status, 400);
            assert_eq!(encoding.unpack(&[0xff; 8], 100).unwrap_err().status, 400);
        }
        let mut bare = flate2::write::DeflateEncoder::new(Vec::new(), Compression::fast());
        bare.write_all(b"text").unwrap();
        assert_eq!(Encoding::Deflate.unpack(&bare.finish().unwrap(), 10).unwrap(), b"text");
    }

    #[test]
    fn headers_are_read_as_http_means_them() {
        assert_eq!(Encoding::parse(b" GZip ").unwrap(), Some(Encoding::Gzip));
        assert_eq!(Encoding::parse(b"identity").unwrap(), None);
        assert_eq!(Encoding::parse(b"br").unwrap_err().status, 415);
        assert_eq!(Encoding::parse(b"gzip, gzip").unwrap_err().status, 415);
        for (header, want) in [
            ("gzip, deflate", Some(Encoding::Gzip)),
            ("deflate", Some(Encoding::Deflate)),
            ("gzip;q=0, deflate;q=0.5", Some(Encoding::Deflate)),
            ("gzip;q=0.2, deflate", Some(Encoding::Deflate)),
            ("br, identity", None),
            ("gzip;q=0", None),
            ("", None),
        ] {
            assert_eq!(Encoding::accepted(header.as_bytes()), want, "{header}");
        }
    }
}
