//! "Did you mean": the nearest of the names that there are.

/// The candidate that `text` was most probably meant to be, if any is near enough.
pub(crate) fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if text.chars().count() > 64 {
        return None;
    }
    let wanted = fold(text);
    candidates
        .into_iter()
        .map(|candidate| (distance(&wanted, &fold(candidate)), candidate))
        .filter(|(d, candidate)| *d <= (candidate.chars().count().max(wanted.len()) / 3).max(1))
        .min_by_key(|(d, _)| *d)
        .map(|(_, candidate)| candidate)
}

/// "did you mean `x`?", or a list of what there is.
pub(crate) fn suggest(text: &str, noun: &str, candidates: &[&str]) -> Option<String> {
    if let Some(name) = nearest(text, candidates.iter().copied()) {
        return Some(format!("did you mean `{name}`?"));
    }
    match candidates {
        [] => None,
        [one] => Some(format!("the only {noun} is `{one}`")),
        many if many.len() <= 16 => Some(format!(
            "{noun}s are {}",
            many.iter().map(|c| format!("`{c}`")).collect::<Vec<_>>().join(", ")
        )),
        _ => None,
    }
}

fn fold(text: &str) -> Vec<char> {
    text.chars().map(|c| if c == '_' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// Edits (insert, delete, replace, swap of neighbours) from `a` to `b`.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_a_far_one_is_not() {
        let names = ["gates", "guards", "rollout"];
        assert_eq!(nearest("gatez", names), Some("gates"));
        assert_eq!(nearest("rolluot", names), Some("rollout"));
        assert_eq!(nearest("GUARDS", names), Some("guards"));
        assert_eq!(nearest("x", names), None);
        assert_eq!(nearest("", names), None);
        assert_eq!(nearest(&"gates".repeat(100), names), None);
    }
}
