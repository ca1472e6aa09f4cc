//! The only place that prints: data to standard output, everything else to standard error.
#![expect(clippy::print_stderr, reason = "this module is the terminal")]

use serde::Serialize;
use std::io::{IsTerminal as _, Write as _};

/// How to print.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Out {
    json: bool,
    colour: bool,
    live: bool,
}

/// What a piece of text means; colour only repeats what the words say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// A heading or a name.
    Strong,
    /// Good news.
    Good,
    /// Bad news.
    Bad,
    /// Take care.
    Warn,
    /// Less important.
    Faint,
}

impl Out {
    /// Looks at the terminal.
    pub(crate) fn new(json: bool) -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { json, colour, live: std::io::stdout().is_terminal() && !json }
    }

    /// Whether programs read the output.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Whether a person watches, so that lines may be redrawn.
    pub(crate) fn is_live(self) -> bool {
        self.live
    }

    /// Prints `value` as JSON, or `text` for people.
    pub(crate) fn show<T: Serialize>(self, value: &T, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        let text = if self.json { serde_json::to_string_pretty(value)? } else { text() };
        self.print(&text);
        Ok(())
    }

    /// Prints data. A closed pipe is no error.
    pub(crate) fn print(self, text: &str) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{}", text.trim_end_matches('\n')).and_then(|()| out.flush());
    }

    /// Says something to a person beside the data.
    pub(crate) fn say(self, text: &str) {
        if self.json {
            eprintln!("{text}");
        } else {
            self.print(text);
        }
    }

    /// Says something about the data, so that a program that reads the data doesn't get it.
    pub(crate) fn aside(self, text: &str) {
        eprintln!("{text}");
    }

    /// Draws `text` over what was drawn before (`lines` of it) and returns how many lines it has now.
    pub(crate) fn redraw(self, before: usize, text: &str) -> usize {
        let width =
            rustix::termios::tcgetwinsize(std::io::stdout()).map_or(0, |size| usize::from(size.ws_col));
        // A line that the terminal breaks is two lines there, and the next drawing would begin too low.
        let text: String = text.lines().map(|line| clipped(line, width) + "\n").collect();
        let mut out = std::io::stdout().lock();
        let up = if before > 0 { format!("\x1b[{before}A\x1b[J") } else { String::new() };
        let _ = writeln!(out, "{up}{}", text.trim_end_matches('\n')).and_then(|()| out.flush());
        text.trim_end_matches('\n').lines().count()
    }

    /// Marks `text`.
    pub(crate) fn mark(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Strong => "1",
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Warn => "33",
            Tone::Faint => "2",
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// As much of a line as `width` columns hold; colours take none. 0 is a terminal that doesn't tell.
fn clipped(line: &str, width: usize) -> String {
    let (mut left, mut escape, mut kept) = (width, false, String::with_capacity(line.len()));
    for c in line.chars() {
        escape |= c == '\x1b';
        if escape {
            escape = c != 'm';
            kept.push(c);
        } else if width == 0 || left > 0 {
            left = left.saturating_sub(1);
            kept.push(c);
        }
    }
    kept
}

/// Prints an error with its causes and hints to standard error.
pub(crate) fn error(error: &anyhow::Error) {
    let mut lines = vec![format!("error: {error}")];
    lines.extend(error.chain().skip(1).map(|cause| format!("  caused by: {cause}")));
    eprintln!("{}", lines.join("\n"));
}

/// Lays out rows in columns, two blanks apart; the last column isn't padded.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|c| rows.iter().filter_map(|r| r.get(c)).map(|cell| width(cell)).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for row in rows {
        for (i, cell) in row.iter().enumerate() {
            out.push_str(cell);
            if i + 1 < row.len() {
                out.push_str(&" ".repeat(widths[i].saturating_sub(width(cell)) + 2));
            }
        }
        out.push('\n');
    }
    out
}

/// How many columns `text` takes on a terminal, without colour codes.
fn width(text: &str) -> usize {
    let mut count = 0;
    let mut escape = false;
    for c in text.chars() {
        match (escape, c) {
            (false, '\x1b') => escape = true,
            (true, 'm') => escape = false,
            (true, _) => {}
            (false, _) => count += 1,
        }
    }
    count
}

/// A time of day, UTC, for people.
pub(crate) fn clock(ms: i64) -> String {
    let text = lockgate_core::clock::rfc3339(ms);
    format!("{} {}", &text[..10], &text[11..19])
}

/// A span of time for people.
pub(crate) fn span(seconds: f64) -> String {
    match seconds {
        s if !s.is_finite() => "unknown".to_owned(),
        s if s < 0.001 => format!("{:.0} us", s * 1e6),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

/// A share for people.
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent.fract().abs() < 1e-9 { format!("{percent:.0}%") } else { format!("{percent:.2}%") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_clipped_by_what_is_seen() {
        assert_eq!(clipped("abcdef", 3), "abc");
        assert_eq!(clipped("a\x1b[31mbcd\x1b[0me", 3), "a\x1b[31mbc\x1b[0m");
        assert_eq!(clipped("abc", 0), "abc");
    }

    #[test]
    fn columns_line_up_with_and_without_colour() {
        let rows = vec![
            vec!["a".to_owned(), "b".to_owned()],
            vec!["\x1b[1mlonger\x1b[0m".to_owned(), "c".to_owned()],
        ];
        assert_eq!(table(&rows), "a       b\n\x1b[1mlonger\x1b[0m  c\n");
    }

    #[test]
    fn spans_and_shares_read_well() {
        assert_eq!(
            [span(0.0123), span(12.0), span(600.0), span(7200.0)],
            ["12 ms", "12 s", "10 min", "2.0 h"]
        );
        assert_eq!([percent(0.25), percent(0.0125)], ["25%", "1.25%"]);
    }
}
