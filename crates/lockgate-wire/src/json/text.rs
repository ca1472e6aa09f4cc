//! JSON strings.

use super::Scanner;
use crate::error::WireError;
use std::borrow::Cow;

impl<'a> Scanner<'a> {
    /// A string; borrowed from the body where it has no escapes.
    ///
    /// # Errors
    /// Where there is no string, or it is not valid JSON or UTF-8.
    pub fn string(&mut self, expected: &str) -> Result<Cow<'a, str>, WireError> {
        self.expect(b'"', expected)?;
        let start = self.at;
        let plain = self.plain_run();
        if self.bytes.get(self.at) == Some(&b'"') {
            self.at += 1;
            return utf8(plain, start).map(Cow::Borrowed);
        }
        let mut text = utf8(plain, start)?.to_owned();
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(text));
                }
                Some(b'\\') => {
                    self.at += 1;
                    text.push(self.escape()?);
                }
                Some(byte) if *byte < 0x20 => {
                    return Err(WireError::bad(format!(
                        "a control character inside a string (at byte {}); write it as \\u{byte:04x}",
                        self.at
                    )));
                }
                Some(_) => {
                    let from = self.at;
                    text.push_str(utf8(self.plain_run(), from)?);
                }
                None => return Err(WireError::bad("the body ends inside a string")),
            }
        }
    }

    /// Bytes up to a quote, a backslash or a control character.
    fn plain_run(&mut self) -> &'a [u8] {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let len = rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f)).unwrap_or(rest.len());
        self.at += len;
        rest.get(..len).unwrap_or_default()
    }

    fn escape(&mut self) -> Result<char, WireError> {
        let byte = self.bytes.get(self.at).copied();
        self.at += 1;
        Ok(match byte {
            Some(c @ (b'"' | b'\\' | b'/')) => char::from(c),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => {
                return Err(WireError::bad(format!(
                    "an unknown escape in a string (before byte {})",
                    self.at
                )));
            }
        })
    }

    fn unicode(&mut self) -> Result<char, WireError> {
        let first = self.hex4()?;
        let code = if (0xd800..0xdc00).contains(&first) {
            let paired = self.bytes.get(self.at..self.at + 2) == Some(b"\\u");
            self.at += 2;
            let second = if paired { self.hex4()? } else { 0 };
            if !(0xdc00..0xe000).contains(&second) {
                return Err(self.lone_surrogate());
            }
            0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
        } else {
            first
        };
        char::from_u32(code).ok_or_else(|| self.lone_surrogate())
    }

    fn lone_surrogate(&self) -> WireError {
        WireError::bad(format!("half a surrogate pair in a string (before byte {})", self.at))
    }

    fn hex4(&mut self) -> Result<u32, WireError> {
        let digits = self.bytes.get(self.at..self.at + 4).filter(|d| d.iter().all(u8::is_ascii_hexdigit));
        let code =
            digits.and_then(|d| std::str::from_utf8(d).ok()).and_then(|d| u32::from_str_radix(d, 16).ok());
        self.at += 4;
        code.ok_or_else(|| WireError::bad("\\u in a string is not followed by four hexadecimal digits"))
    }
}

fn utf8(bytes: &[u8], at: usize) -> Result<&str, WireError> {
    std::str::from_utf8(bytes)
        .map_err(|e| WireError::bad(format!("a string is not UTF-8 (at byte {})", at + e.valid_up_to())))
}

#[cfg(test)]
mod tests {
    use super::super::Limits;
    use super::*;

    #[test]
    fn strings_agree_with_serde_json() {
        let texts = [
            r#""""#,
            r#""abc""#,
            r#""a\"b\\c\/\b\f\n\r\t""#,
            r#""\u00e9\ud83d\ude00é😀""#,
            r#""\ud83d""#,
            r#""\ude00""#,
            r#""\ud83dx""#,
            r#""\u12""#,
            r#""\x""#,
            "\"a\nb\"",
            "\"open",
            "\"\\",
            "\"\\u",
            "\"\\ud83d\\u0041\"",
            "\"a\u{7f}\"",
        ];
        for text in texts {
            let ours = Scanner::new(text.as_bytes(), &Limits::default())
                .string("a string")
                .ok()
                .map(Cow::into_owned);
            assert_eq!(ours, serde_json::from_str::<String>(text).ok(), "{text}");
        }
        assert!(Scanner::new(b"\"\xff\"", &Limits::default()).string("x").is_err());
    }
}
