//! What a download is called and what it is: its `Content-Type` and `Content-Disposition`, both by the file's name.

use axum::http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use unicode_normalization::UnicodeNormalization as _;

/// Ends of names that MLflow's server shows as plain text, and whole names of files that have none.
const TEXT: &str = "txt log err cfg conf cnf cf ini properties prop hocon toml yaml yml xml json js py py3 csv tsv md rst ipynb \
                    MLmodel mlproject";

/// What bytes are of which nothing is known.
const BYTES: &str = "application/octet-stream";

/// Types by the ends of names, as Python's `mimetypes` knows them, and fonts, documents and sounds that it knows from its
/// system.
const TYPES: &[(&str, &str)] = &[
    ("application/javascript", "js mjs"),
    ("application/json", "json"),
    ("application/manifest+json", "webmanifest"),
    ("application/msword", "doc dot wiz"),
    ("application/n-quads", "nq"),
    ("application/n-triples", "nt"),
    ("application/oda", "oda"),
    ("application/pdf", "pdf"),
    ("application/pkcs7-mime", "p7c"),
    ("application/postscript", "ai eps ps"),
    ("application/rtf", "rtf"),
    ("application/trig", "trig"),
    ("application/vnd.apple.mpegurl", "m3u m3u8"),
    ("application/vnd.ms-excel", "xlb xls"),
    ("application/vnd.ms-powerpoint", "pot ppa pps ppt pwz"),
    ("application/vnd.openxmlformats-officedocument.presentationml.presentation", "pptx"),
    ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "xlsx"),
    ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", "docx"),
    ("application/wasm", "wasm"),
    ("application/x-bcpio", "bcpio"),
    ("application/x-cpio", "cpio"),
    ("application/x-csh", "csh"),
    ("application/x-dvi", "dvi"),
    ("application/x-gtar", "gtar"),
    ("application/x-hdf", "hdf"),
    ("application/x-hdf5", "h5"),
    ("application/x-latex", "latex"),
    ("application/x-mif", "mif"),
    ("application/x-netcdf", "cdf nc"),
    ("application/x-pkcs12", "p12 pfx"),
    ("application/x-pn-realaudio", "ram"),
    ("application/x-python-code", "pyc pyo"),
    ("application/x-sh", "sh"),
    ("application/x-shar", "shar"),
    ("application/x-shockwave-flash", "swf"),
    ("application/x-sv4cpio", "sv4cpio"),
    ("application/x-sv4crc", "sv4crc"),
    ("application/x-tar", "tar"),
    ("application/x-tcl", "tcl"),
    ("application/x-tex", "tex"),
    ("application/x-texinfo", "texi texinfo"),
    ("application/x-troff", "roff t tr"),
    ("application/x-troff-man", "man"),
    ("application/x-troff-me", "me"),
    ("application/x-troff-ms", "ms"),
    ("application/x-ustar", "ustar"),
    ("application/x-wais-source", "src"),
    ("application/xml", "rdf wsdl xpdl xsl"),
    ("application/zip", "zip"),
    ("audio/3gpp", "3gp 3gpp"),
    ("audio/3gpp2", "3g2 3gpp2"),
    ("audio/aac", "aac adts ass loas"),
    ("audio/basic", "au snd"),
    ("audio/flac", "flac"),
    ("audio/mp4", "m4a"),
    ("audio/mpeg", "mp2 mp3"),
    ("audio/ogg", "oga ogg"),
    ("audio/opus", "opus"),
    ("audio/x-aiff", "aif aifc aiff"),
    ("audio/x-pn-realaudio", "ra"),
    ("audio/x-wav", "wav"),
    ("font/otf", "otf"),
    ("font/ttf", "ttf"),
    ("font/woff", "woff"),
    ("font/woff2", "woff2"),
    ("image/avif", "avif"),
    ("image/bmp", "bmp"),
    ("image/gif", "gif"),
    ("image/heic", "heic"),
    ("image/heif", "heif"),
    ("image/ief", "ief"),
    ("image/jpeg", "jpe jpeg jpg"),
    ("image/png", "png"),
    ("image/svg+xml", "svg"),
    ("image/tiff", "tif tiff"),
    ("image/vnd.microsoft.icon", "ico"),
    ("image/webp", "webp"),
    ("image/x-cmu-raster", "ras"),
    ("image/x-portable-anymap", "pnm"),
    ("image/x-portable-bitmap", "pbm"),
    ("image/x-portable-graymap", "pgm"),
    ("image/x-portable-pixmap", "ppm"),
    ("image/x-rgb", "rgb"),
    ("image/x-xbitmap", "xbm"),
    ("image/x-xpixmap", "xpm"),
    ("image/x-xwindowdump", "xwd"),
    ("message/rfc822", "eml mht mhtml nws"),
    ("text/css", "css"),
    ("text/csv", "csv"),
    ("text/html", "htm html"),
    ("text/n3", "n3"),
    ("text/plain", "bat c h ksh pl srt txt"),
    ("text/richtext", "rtx"),
    ("text/tab-separated-values", "tsv"),
    ("text/vtt", "vtt"),
    ("text/x-python", "py"),
    ("text/x-setext", "etx"),
    ("text/x-sgml", "sgm sgml"),
    ("text/x-vcard", "vcf"),
    ("text/xml", "xml"),
    ("video/mp4", "mp4"),
    ("video/mpeg", "m1v mpa mpe mpeg mpg"),
    ("video/ogg", "ogv"),
    ("video/quicktime", "mov qt"),
    ("video/webm", "webm"),
    ("video/x-msvideo", "avi"),
    ("video/x-sgi-movie", "movie"),
];

/// Ends of names that say how a file is packed, and not what is in it.
const PACKED: [&str; 5] = ["gz", "Z", "bz2", "xz", "br"];

/// Ends that stand for two.
const SHORT: [(&str, &str); 6] =
    [("svgz", "svg"), ("tgz", "tar"), ("taz", "tar"), ("tz", "tar"), ("tbz2", "tar"), ("txz", "tar")];

/// A name without its end, and the end; a dot at the beginning begins none.
fn end(name: &str) -> (&str, &str) {
    match name.rsplit_once('.') {
        Some((stem, end)) if !stem.trim_matches('.').is_empty() => (stem, end),
        _ => (name, ""),
    }
}

/// The type of a file by its name.
pub(super) fn content_type(name: &str) -> &'static str {
    let (stem, last) = end(name);
    let shown = if last.is_empty() { name } else { last };
    if TEXT.split(' ').any(|known| known == shown) {
        return "text/plain";
    }
    let inner = match SHORT.iter().find(|(short, _)| *short == last) {
        Some((_, inner)) => inner,
        None if PACKED.contains(&last) => end(stem).1,
        None => last,
    };
    let inner = inner.to_ascii_lowercase();
    let known = |(_, ends): &&(&str, &str)| !inner.is_empty() && ends.split(' ').any(|end| end == inner);
    TYPES.iter().find(known).map_or(BYTES, |(kind, _)| kind)
}

/// What RFC 5987 leaves as it is.
const ATTRIBUTE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A value of a header: as it is where it is one word, in quotes otherwise.
fn quoted(text: &str) -> String {
    if !text.is_empty() && text.bytes().all(is_token) {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Says that a file is to be kept under this name, and not to be shown.
pub(super) fn disposition(name: &str) -> HeaderValue {
    // No name has any; none may end a header.
    let name: String = name.chars().filter(|c| !c.is_control()).collect();
    let text = if name.is_ascii() {
        format!("attachment; filename={}", quoted(&name))
    } else {
        let plain: String = name.nfkd().filter(char::is_ascii).collect();
        let plain = if plain.is_empty() { "download" } else { &plain };
        let exact = utf8_percent_encode(&name, ATTRIBUTE);
        format!("attachment; filename={}; filename*=UTF-8''{exact}", quoted(plain))
    };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("attachment"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_go_by_names() {
        for (name, kind) in [
            ("a.txt", "text/plain"),
            ("A.TXT", "text/plain"),
            ("conda.yaml", "text/plain"),
            ("x.json", "text/plain"),
            ("x.js", "text/plain"),
            ("MLmodel", "text/plain"),
            ("mlproject", "text/plain"),
            ("c.png", "image/png"),
            ("C.PNG", "image/png"),
            ("d.pdf", "application/pdf"),
            ("x.html", "text/html"),
            ("x.jpeg", "image/jpeg"),
            ("x.svg", "image/svg+xml"),
            ("x.webp", "image/webp"),
            ("x.zip", "application/zip"),
            ("x.tar.gz", "application/x-tar"),
            ("x.tgz", "application/x-tar"),
            ("x.gz", "application/octet-stream"),
            ("x.bin", "application/octet-stream"),
            ("model.onnx", "application/octet-stream"),
            (".png", "application/octet-stream"),
            ("x.", "application/octet-stream"),
            ("", "application/octet-stream"),
        ] {
            assert_eq!(content_type(name), kind, "{name}");
        }
    }

    #[test]
    fn names_are_words_or_quoted() {
        for (name, said) in [
            ("dog+step+20+x.png", "attachment; filename=dog+step+20+x.png"),
            ("p%c.txt", "attachment; filename=p%c.txt"),
            ("sp ace.txt", "attachment; filename=\"sp ace.txt\""),
            ("q\"q.txt", "attachment; filename=\"q\\\"q.txt\""),
            ("b\\.txt", "attachment; filename=\"b\\\\.txt\""),
            ("ü.txt", "attachment; filename=u.txt; filename*=UTF-8''%C3%BC.txt"),
            ("日本", "attachment; filename=download; filename*=UTF-8''%E6%97%A5%E6%9C%AC"),
            ("a\r\nSet-Cookie: x", "attachment; filename=\"aSet-Cookie: x\""),
            ("", "attachment; filename=\"\""),
        ] {
            assert_eq!(disposition(name).to_str().unwrap(), said, "{name}");
        }
    }
}
