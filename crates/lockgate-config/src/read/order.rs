//! Topological order, or a cycle.

/// Orders nodes so that each one comes after those that it needs; among free ones the first written comes first.
/// `needs[i]` are the indexes that node `i` needs.
///
/// # Errors
/// One cycle, as indexes: each needs the next, the last the first.
pub(crate) fn order(needs: &[Vec<usize>]) -> Result<Vec<usize>, Vec<usize>> {
    let mut done = vec![false; needs.len()];
    let mut ordered = Vec::with_capacity(needs.len());
    while ordered.len() < needs.len() {
        let free =
            |i: &usize| !done[*i] && needs[*i].iter().all(|need| done.get(*need).copied().unwrap_or(true));
        match (0..needs.len()).find(free) {
            Some(next) => {
                done[next] = true;
                ordered.push(next);
            }
            None => return Err(cycle(needs, &done)),
        }
    }
    Ok(ordered)
}

/// Everything that isn't done needs something that isn't done: following that, a node must come twice.
fn cycle(needs: &[Vec<usize>], done: &[bool]) -> Vec<usize> {
    let mut walked: Vec<usize> = Vec::new();
    let mut next = done.iter().position(|d| !d);
    while let Some(node) = next {
        if let Some(start) = walked.iter().position(|w| *w == node) {
            walked.drain(..start);
            break;
        }
        walked.push(node);
        next = needs.get(node).and_then(|n| n.iter().copied().find(|i| done.get(*i) == Some(&false)));
    }
    walked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_comes_first_and_a_cycle_is_named() {
        assert_eq!(order(&[vec![1], vec![], vec![0, 1]]), Ok(vec![1, 0, 2]));
        assert_eq!(order(&[]), Ok(vec![]));
        assert_eq!(order(&[vec![1], vec![2], vec![1]]), Err(vec![1, 2]));
        assert_eq!(order(&[vec![0]]), Err(vec![0]));
    }
}
