//! The cursor: single values, objects and lists.

use super::Limits;
use crate::error::WireError;
use std::borrow::Cow;

/// A cursor over a JSON text. Every read skips the white space before it.
#[derive(Debug)]
pub struct Scanner<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
    pub(super) budget: usize,
    pub(super) limits: Limits,
    depth: usize,
}

/// An integer type that a number token can be read into.
pub trait Integer: Sized {
    /// Reads `[-]digits`; `None` where it is out of range.
    fn read(negative: bool, magnitude: u64) -> Option<Self>;
    /// The protocol's name of the type.
    const NAME: &'static str;
}

macro_rules! integers {
    ($($t:ty => $name:literal),*) => {$(
        impl Integer for $t {
            const NAME: &'static str = $name;
            fn read(negative: bool, magnitude: u64) -> Option<Self> {
                let value = i128::from(magnitude);
                Self::try_from(if negative { -value } else { value }).ok()
            }
        }
    )*};
}
integers!(u8 => "UINT8", u16 => "UINT16", u32 => "UINT32", u64 => "UINT64", i8 => "INT8", i16 => "INT16",
    i32 => "INT32", i64 => "INT64");

impl<'a> Scanner<'a> {
    /// A cursor at the beginning of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8], limits: &Limits) -> Self {
        Self { bytes, at: 0, budget: limits.max_elements, limits: *limits, depth: 0 }
    }

    /// The next byte that is not white space, without taking it.
    #[inline]
    pub fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    /// Takes `byte`, or says what else is there.
    ///
    /// # Errors
    /// Where the next byte is another one.
    pub fn expect(&mut self, byte: u8, what: &str) -> Result<(), WireError> {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        Err(self.unexpected(what))
    }

    /// Takes `byte` if it is next.
    pub fn accept(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Takes the literal `word` if it is next.
    pub fn accept_word(&mut self, word: &str) -> bool {
        let _ = self.peek();
        let found = self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(word.as_bytes()));
        if found {
            self.at += word.len();
        }
        found
    }

    /// An error that says what was expected here and what was found.
    pub fn unexpected(&mut self, expected: &str) -> WireError {
        let found = match self.peek() {
            None => return WireError::bad(format!("the body ends where {expected} was expected")),
            Some(b'"') => "a string".to_owned(),
            Some(b'[') => "an array".to_owned(),
            Some(b'{') => "an object".to_owned(),
            Some(b'-' | b'0'..=b'9') => "a number".to_owned(),
            Some(b't') => "true".to_owned(),
            Some(b'f') => "false".to_owned(),
            Some(b'n') => "null".to_owned(),
            Some(b'N') => "NaN".to_owned(),
            Some(b'I') => "Infinity".to_owned(),
            Some(byte @ 0x21..=0x7e) => format!("`{}`", char::from(byte)),
            Some(byte) => format!("the byte 0x{byte:02x}"),
        };
        WireError::bad(format!("{found} where {expected} was expected (at byte {})", self.at))
    }

    /// Counts one element against the limit.
    #[inline]
    pub(crate) fn count_one(&mut self) -> Result<(), WireError> {
        match self.budget.checked_sub(1) {
            Some(left) => {
                self.budget = left;
                Ok(())
            }
            None => Err(WireError::too_large(format!(
                "the body holds more than {} elements; send fewer rows at a time",
                self.limits.max_elements
            ))),
        }
    }

    /// The token of a JSON number.
    fn number_token(&mut self, expected: &str) -> Result<&'a [u8], WireError> {
        let _ = self.peek();
        let start = self.at;
        let digit = |i: usize| self.bytes.get(i).is_some_and(u8::is_ascii_digit);
        let digits = |mut i: usize| {
            while digit(i) {
                i += 1;
            }
            i
        };
        let mut i = start + usize::from(self.bytes.get(start) == Some(&b'-'));
        let whole = i;
        i = if self.bytes.get(i) == Some(&b'0') { i + 1 } else { digits(i) };
        let mut valid = i > whole && !digit(i);
        if self.bytes.get(i) == Some(&b'.') {
            let end = digits(i + 1);
            valid &= end > i + 1;
            i = end;
        }
        if matches!(self.bytes.get(i), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(self.bytes.get(i + 1), Some(b'+' | b'-')));
            let end = digits(i + 1 + sign);
            valid &= end > i + 1 + sign;
            i = end;
        }
        if !valid {
            return Err(self.unexpected(expected));
        }
        self.at = i;
        Ok(self.bytes.get(start..i).unwrap_or_default())
    }

    /// A floating-point number, or one of the tokens `NaN`, `Infinity`, `-Infinity`; `null` is NaN where `null_is_nan`.
    ///
    /// # Errors
    /// Where something else is there, or a finite number that is too large for the type.
    #[inline]
    pub fn float<T: fast_float2::FastFloat + FloatLimits>(
        &mut self,
        null_is_nan: bool,
    ) -> Result<T, WireError> {
        match self.peek() {
            Some(b'N') if self.accept_word("NaN") => return Ok(T::nan()),
            Some(b'I') if self.accept_word("Infinity") => return Ok(T::infinity()),
            Some(b'-') if self.bytes.get(self.at + 1) == Some(&b'I') && self.accept_word("-Infinity") => {
                return Ok(T::minus_infinity());
            }
            Some(b'n') if null_is_nan && self.accept_word("null") => return Ok(T::nan()),
            _ => {}
        }
        let token = self.number_token(T::NAME)?;
        match fast_float2::parse::<T, _>(token) {
            Ok(value) if value.finite() => Ok(value),
            _ => Err(WireError::bad(format!(
                "a number is out of the range of {} (at byte {})",
                T::NAME,
                self.at
            ))),
        }
    }

    /// An integer: digits only, without fraction or exponent.
    ///
    /// # Errors
    /// Where something else is there, or a number out of the type's range.
    pub fn integer<T: Integer>(&mut self) -> Result<T, WireError> {
        let token = self.number_token(T::NAME)?;
        let (negative, digits) = match token.split_first() {
            Some((b'-', rest)) => (true, rest),
            _ => (false, token),
        };
        let mut magnitude = Some(0u64);
        for byte in digits {
            if !byte.is_ascii_digit() {
                return Err(WireError::bad(format!(
                    "a fraction where {} was expected (before byte {})",
                    T::NAME,
                    self.at
                )));
            }
            magnitude = magnitude.and_then(|m| m.checked_mul(10)?.checked_add(u64::from(byte - b'0')));
        }
        magnitude.and_then(|m| T::read(negative, m)).ok_or_else(|| {
            WireError::bad(format!("a number is out of the range of {} (before byte {})", T::NAME, self.at))
        })
    }

    /// A number that is whole and fits 64 bits as `Ok(i64)`, any other as `Err(f64)`.
    pub(crate) fn number(&mut self) -> Result<Result<i64, f64>, WireError> {
        let start = self.at;
        let value: f64 = self.float(false)?;
        let token = self.bytes.get(start..self.at).unwrap_or_default();
        let whole = std::str::from_utf8(token).ok().and_then(|t| t.trim_start().parse::<i64>().ok());
        Ok(whole.ok_or(value))
    }

    /// `true` or `false`, or the numbers 1 and 0.
    ///
    /// # Errors
    /// Where something else is there.
    pub fn boolean(&mut self) -> Result<bool, WireError> {
        match self.peek() {
            Some(b't') if self.accept_word("true") => Ok(true),
            Some(b'f') if self.accept_word("false") => Ok(false),
            Some(b'0' | b'1') => match self.integer::<u8>()? {
                0 => Ok(false),
                1 => Ok(true),
                _ => {
                    Err(WireError::bad(format!("a number where BOOL was expected (before byte {})", self.at)))
                }
            },
            _ => Err(self.unexpected("BOOL")),
        }
    }

    /// Enters an object or list: one level deeper, within the limit.
    pub(super) fn enter(&mut self) -> Result<(), WireError> {
        self.depth += 1;
        if self.depth > self.limits.max_depth {
            return Err(WireError::bad(format!(
                "the body is nested deeper than {} levels (at byte {})",
                self.limits.max_depth, self.at
            )));
        }
        Ok(())
    }

    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Reads an object; `member` gets each key and must take its value.
    ///
    /// # Errors
    /// Where there is no object, or `member` fails.
    pub fn object(
        &mut self,
        what: &str,
        mut member: impl FnMut(&mut Self, Cow<'a, str>) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        self.expect(b'{', what)?;
        self.enter()?;
        let mut more = !self.accept(b'}');
        while more {
            let key = self.string("a key in quotes")?;
            self.expect(b':', "`:`")?;
            member(self, key)?;
            more = self.accept(b',');
            if !more {
                self.expect(b'}', "`,` or `}`")?;
            }
        }
        self.leave();
        Ok(())
    }

    /// Reads a list; `item` gets each index and must take its value.
    ///
    /// # Errors
    /// Where there is no list, or `item` fails.
    pub fn list(
        &mut self,
        what: &str,
        mut item: impl FnMut(&mut Self, usize) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        self.expect(b'[', what)?;
        self.enter()?;
        let mut more = !self.accept(b']');
        let mut index = 0;
        while more {
            item(self, index)?;
            index += 1;
            more = self.accept(b',');
            if !more {
                self.expect(b']', "`,` or `]`")?;
            }
        }
        self.leave();
        Ok(())
    }

    /// Passes over one value of any kind.
    ///
    /// # Errors
    /// Where there is no valid value.
    pub fn skip(&mut self) -> Result<(), WireError> {
        match self.peek() {
            Some(b'{') => self.object("an object", |s, _| s.skip()),
            Some(b'[') => self.list("an array", |s, _| s.skip()),
            Some(b'"') => self.string("a string").map(drop),
            Some(b't' | b'f') => self.boolean().map(drop),
            _ => self.float::<f64>(true).map(drop),
        }
    }

    /// Where the cursor is, to come back with [`Scanner::go_back`].
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }

    /// Goes back to a position taken before, at the same level of nesting.
    pub fn go_back(&mut self, position: usize) {
        self.at = position.min(self.at);
    }

    /// Goes on at a position taken before a [`Scanner::go_back`].
    pub fn go_on(&mut self, position: usize) {
        self.at = position.max(self.at);
    }

    /// Says that nothing but white space follows.
    ///
    /// # Errors
    /// Where something follows.
    pub fn end(&mut self) -> Result<(), WireError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.unexpected("the end of the body")),
        }
    }
}

/// What [`Scanner::float`] needs of a type beyond parsing.
pub trait FloatLimits {
    /// The protocol's name of the type.
    const NAME: &'static str;
    /// Not a number.
    fn nan() -> Self;
    /// Plus infinity.
    fn infinity() -> Self;
    /// Minus infinity.
    fn minus_infinity() -> Self;
    /// Whether it is neither.
    fn finite(&self) -> bool;
}

macro_rules! floats {
    ($($t:ident => $name:literal),*) => {$(
        impl FloatLimits for $t {
            const NAME: &'static str = $name;
            fn nan() -> Self { $t::NAN }
            fn infinity() -> Self { $t::INFINITY }
            fn minus_infinity() -> Self { $t::NEG_INFINITY }
            fn finite(&self) -> bool { self.is_finite() }
        }
    )*};
}
floats!(f32 => "FP32", f64 => "FP64");

/// A 16-bit floating-point type, which is read as the nearest value to the number that is written.
pub(crate) trait Half: Sized {
    /// The protocol's name of the type.
    const NAME: &'static str;
    /// The nearest value; none where a finite number is too large.
    fn nearest(value: f64) -> Option<Self>;
}

macro_rules! halves {
    ($($t:ty => $name:literal),*) => {$(
        impl Half for $t {
            const NAME: &'static str = $name;
            fn nearest(value: f64) -> Option<Self> {
                let nearest = <$t>::from_f64(value);
                (nearest.is_finite() || !value.is_finite()).then_some(nearest)
            }
        }
    )*};
}
halves!(half::f16 => "FP16", half::bf16 => "BF16");

impl Scanner<'_> {
    /// A 16-bit float, from the same tokens as [`Scanner::float`].
    pub(crate) fn half<T: Half>(&mut self) -> Result<T, WireError> {
        let value = self.float::<f64>(false)?;
        T::nearest(value).ok_or_else(|| {
            WireError::bad(format!("a number is out of the range of {} (at byte {})", T::NAME, self.at))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on<T>(text: &str, read: impl Fn(&mut Scanner<'_>) -> Result<T, WireError>) -> Result<T, WireError> {
        let mut scanner = Scanner::new(text.as_bytes(), &Limits::default());
        let value = read(&mut scanner)?;
        scanner.end().map(|()| value)
    }

    #[test]
    fn floats_follow_the_json_grammar_and_the_three_tokens() {
        for (text, value) in [("0", 0.0), (" -1.5e3 ", -1500.0), ("1E-2", 0.01), ("Infinity", f64::INFINITY)]
        {
            assert_eq!(on(text, |s| s.float::<f64>(false)).unwrap(), value, "{text}");
        }
        assert!(on("NaN", |s| s.float::<f32>(false)).unwrap().is_nan());
        assert!(on("null", |s| s.float::<f32>(true)).unwrap().is_nan());
        assert_eq!(on("-Infinity", |s| s.float::<f32>(false)).unwrap(), f32::NEG_INFINITY);
        for bad in [
            "", "+1", ".5", "1.", "01", "-", "1e", "0x1", "inf", "nan", "null", "\"1\"", "1 2", "1e400",
            "--1",
        ] {
            assert!(on(bad, |s| s.float::<f64>(false)).is_err(), "{bad}");
        }
        assert!(on("1e39", |s| s.float::<f32>(false)).unwrap_err().message.contains("range of FP32"));
    }

    #[test]
    fn integers_know_their_range() {
        assert_eq!(on("-128", |s| s.integer::<i8>()).unwrap(), -128);
        assert_eq!(on("18446744073709551615", |s| s.integer::<u64>()).unwrap(), u64::MAX);
        assert_eq!(on("-9223372036854775808", |s| s.integer::<i64>()).unwrap(), i64::MIN);
        for bad in ["128", "-129", "1.0", "1e2", "99999999999999999999", "NaN", "true"] {
            assert!(on(bad, |s| s.integer::<i8>()).is_err(), "{bad}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = "[".repeat(100_000);
        assert!(on(&deep, |s| s.skip()).unwrap_err().message.contains("deeper"));
        let deep = "{\"a\":".repeat(100_000);
        assert!(on(&deep, |s| s.skip()).unwrap_err().message.contains("deeper"));
    }
}
