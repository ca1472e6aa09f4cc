//! Arrays of elements, nested or flat, row-major.

use super::Scanner;
use crate::error::WireError;

const MAX_RANK: usize = 8;

impl Scanner<'_> {
    /// Reads an array, nested or flat; `leaf` must take each element. Gives the shape.
    ///
    /// # Errors
    /// Where it is ragged, has more than eight axes, more elements than allowed, or `leaf` fails.
    pub fn array(
        &mut self,
        mut leaf: impl FnMut(&mut Self) -> Result<(), WireError>,
    ) -> Result<Vec<usize>, WireError> {
        self.expect(b'[', "an array")?;
        let mut counts = [0usize; MAX_RANK];
        let mut dims: [Option<usize>; MAX_RANK] = [None; MAX_RANK];
        let (mut depth, mut deepest, mut leaf_depth) = (1, 1, None);
        let mut fresh = true;
        loop {
            match self.peek() {
                Some(b']') if fresh => {}
                Some(b'[') => {
                    if leaf_depth.is_some_and(|d| d <= depth) {
                        return Err(self.ragged());
                    }
                    self.at += 1;
                    *counts.get_mut(depth - 1).ok_or_else(too_deep)? += 1;
                    *counts.get_mut(depth).ok_or_else(too_deep)? = 0;
                    depth += 1;
                    deepest = deepest.max(depth);
                    fresh = true;
                    continue;
                }
                _ => {
                    if depth < deepest || leaf_depth.is_some_and(|d| d != depth) {
                        return Err(self.ragged());
                    }
                    leaf_depth = Some(depth);
                    self.count_one()?;
                    leaf(self)?;
                    *counts.get_mut(depth - 1).ok_or_else(too_deep)? += 1;
                }
            }
            loop {
                if self.accept(b',') {
                    fresh = false;
                    break;
                }
                self.expect(b']', "`,` or `]`")?;
                depth -= 1;
                let count = counts.get(depth).copied().unwrap_or(0);
                match dims.get_mut(depth) {
                    Some(Some(known)) if *known != count => return Err(self.ragged()),
                    Some(dim) => *dim = Some(count),
                    None => return Err(too_deep()),
                }
                if depth == 0 {
                    return Ok(dims.iter().take(deepest).map(|d| d.unwrap_or(0)).collect());
                }
            }
        }
    }

    /// Reads an array into a vector of elements and its shape.
    ///
    /// # Errors
    /// As [`Scanner::array`].
    pub fn elements<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, WireError>,
    ) -> Result<(Vec<T>, Vec<usize>), WireError> {
        let mut values = Vec::new();
        let shape = self.array(|s| {
            values.push(read(s)?);
            Ok(())
        })?;
        Ok((values, shape))
    }

    fn ragged(&self) -> WireError {
        WireError::bad(format!(
            "the array is ragged: its rows have different lengths or depths (at byte {})",
            self.at
        ))
    }
}

fn too_deep() -> WireError {
    WireError::bad(format!("the array has more than {MAX_RANK} axes"))
}

#[cfg(test)]
mod tests {
    use super::super::Limits;
    use super::*;

    fn read(text: &str) -> Result<(Vec<i64>, Vec<usize>), WireError> {
        let mut scanner = Scanner::new(text.as_bytes(), &Limits { max_elements: 6, ..Limits::default() });
        let found = scanner.elements(Scanner::integer)?;
        scanner.end().map(|()| found)
    }

    #[test]
    fn flat_and_nested_arrays_give_their_shape() {
        assert_eq!(read("[1, 2,3]").unwrap(), (vec![1, 2, 3], vec![3]));
        assert_eq!(read("[[1,2],[3,4],[5,6]]").unwrap(), (vec![1, 2, 3, 4, 5, 6], vec![3, 2]));
        assert_eq!(read("[[[1],[2]]]").unwrap(), (vec![1, 2], vec![1, 2, 1]));
        assert_eq!(read("[]").unwrap(), (vec![], vec![0]));
        assert_eq!(read(" [ [ ] , [ ] ] ").unwrap(), (vec![], vec![2, 0]));
    }

    #[test]
    fn ragged_broken_and_oversized_arrays_are_refused() {
        for bad in
            ["[[1],[2,3]]", "[1,[2]]", "[[1],2]", "[[],1]", "[1,[]]", "[[[]],[]]", "[[],[[]]]", "[[[1]],[1]]"]
        {
            assert!(read(bad).unwrap_err().message.contains("ragged"), "{bad}");
        }
        for bad in ["", "[", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "[1]]", "[[1]", "1", "[,]", "[[1,],[2]]"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert_eq!(read("[1,2,3,4,5,6,7]").unwrap_err().status, 413);
        assert!(read(&"[".repeat(100_000)).unwrap_err().message.contains("axes"));
    }
}
