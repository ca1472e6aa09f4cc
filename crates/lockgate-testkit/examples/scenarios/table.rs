//! Rows of the page's table.

use crate::cases::{Case, Twin};
use crate::measure::{End, Run};

const BEGIN: &str = "<!-- measured: begin; written by `cargo xtask scenarios` -->";
const END: &str = "<!-- measured: end -->";
const HEAD: &str = "| scenario | what was played | worlds | went back | came through | held | bad answers of it to users, median (p90) | first bad answer to verified revert, median (p90) | lost |
|---|---|---:|---:|---:|---:|---:|---:|---:|";

/// What was measured of one case.
pub(crate) fn row(case: &Case, runs: &[Run]) -> String {
    let share = |end: End| {
        let count = runs.iter().filter(|r| r.end == end).count();
        let share = format!("{:.1} %", count as f64 * 100.0 / runs.len().max(1) as f64);
        let wrong = count > 0
            && matches!((case.twin, end), (Twin::Good, End::RolledBack) | (Twin::Bad, End::Promoted));
        if wrong { format!("**{share}**") } else { share }
    };
    let back: Vec<&Run> = runs.iter().filter(|r| r.end == End::RolledBack).collect();
    let is_bad = case.twin == Twin::Bad;
    let bad =
        spread(back.iter().filter_map(|r| r.bad_answers).map(|n| n as f64).collect(), "").filter(|_| is_bad);
    let times = back.iter().filter_map(|r| r.reverted_ms).map(|ms| ms as f64 / 1000.0).collect();
    let times = spread(times, " s").filter(|_| is_bad);
    let lost: u64 = runs.iter().map(|r| r.lost).sum();
    let none = || "–".to_owned();
    format!(
        "| {} {} | {} | {} | {} | {} | {} | {} | {} | {lost} |",
        case.scenario,
        if is_bad { "bad" } else { "good" },
        case.what,
        runs.len(),
        share(End::RolledBack),
        share(End::Promoted),
        share(End::Held),
        bad.unwrap_or_else(none),
        times.unwrap_or_else(none),
    )
}

/// Median and 90th percentile; none of nothing.
fn spread(mut all: Vec<f64>, unit: &str) -> Option<String> {
    all.sort_by(f64::total_cmp);
    let at = |share: f64| all.get(((all.len() as f64 * share) as usize).min(all.len().saturating_sub(1)));
    let show = |x: f64| if x < 9.95 && x.fract() > 0.0 { format!("{x:.1}") } else { format!("{x:.0}") };
    Some(format!("{}{unit} ({}{unit})", show(*at(0.5)?), show(*at(0.9)?)))
}

/// The page with these rows.
pub(crate) fn put(page: &str, rows: &[String]) -> Result<String, String> {
    let (before, rest) = page.split_once(BEGIN).ok_or(format!("the page has no line `{BEGIN}`"))?;
    let (_, after) = rest.split_once(END).ok_or(format!("the page has no line `{END}`"))?;
    Ok(format!("{before}{BEGIN}\n{HEAD}\n{}\n{END}{after}", rows.join("\n")))
}
