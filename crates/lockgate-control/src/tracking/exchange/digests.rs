//! Digests over canonical forms: equal exactly if two stores hold the same, however they sort or write it.

use super::{ModelPoint, Point, RunRecord};
use lockgate_core::clock::Millis;
use lockgate_core::digest::Digest;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;

/// The digests of one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunDigests {
    /// Name, user, status, times, lifecycle, datasets and models.
    pub row: Digest,
    /// Its params.
    pub params: Digest,
    /// Its tags.
    pub tags: Digest,
    /// The newest point of each metric.
    pub latest: Digest,
    /// All points.
    pub history: Digest,
    /// How many points.
    pub points: u64,
}

impl RunDigests {
    /// The digests of a run with its history.
    #[must_use]
    pub fn of(run: &RunRecord, history: History) -> Self {
        let mut datasets = run.datasets.clone();
        datasets.sort();
        let row = json!([
            run.experiment_id,
            run.name,
            run.user_id,
            run.status,
            run.start_time,
            run.end_time,
            run.lifecycle,
            datasets,
            run.model_inputs,
            run.model_outputs,
        ]);
        let mut latest = History::default();
        latest.add(&run.latest);
        let (history, points) = history.finish();
        Self {
            row: of_text(&row),
            params: of_text(&json!(run.params)),
            tags: of_text(&json!(run.tags)),
            latest: latest.finish().0,
            history,
            points,
        }
    }

    /// The names of what differs.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let pairs = [
            ("row", self.row == other.row),
            ("params", self.params == other.params),
            ("tags", self.tags == other.tags),
            ("latest metrics", self.latest == other.latest),
            ("metric history", self.history == other.history),
        ];
        pairs.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
    }

    /// One digest over all of them.
    #[must_use]
    pub fn whole(&self) -> Digest {
        let parts = [&self.row, &self.params, &self.tags, &self.latest, &self.history];
        Digest::of_parts(&parts.map(|part| part.as_bytes().as_slice()))
    }
}

/// A value's text: maps are sorted, and numbers are whole.
fn of_text(value: &serde_json::Value) -> Digest {
    Digest::of(value.to_string().as_bytes())
}

/// A number as stores keep it: infinities as the largest finite numbers, one zero, one NaN.
fn bits(value: f64) -> u64 {
    match value {
        v if v.is_nan() => u64::MAX,
        0.0 => 0,
        v => v.clamp(f64::MIN, f64::MAX).to_bits(),
    }
}

pub(super) fn sort_model_points(points: &mut [ModelPoint]) {
    points.sort_by(|a, b| {
        let rank = |p: &ModelPoint| (p.point.step, p.point.at, bits(p.point.value));
        (&a.point.key, &a.run_id, &a.dataset, rank(a)).cmp(&(&b.point.key, &b.run_id, &b.dataset, rank(b)))
    });
}

fn same_model_point(a: &ModelPoint, b: &ModelPoint) -> bool {
    let number = |p: &ModelPoint| (p.point.at, p.point.step, bits(p.point.value));
    (&a.point.key, &a.run_id, &a.dataset, number(a)) == (&b.point.key, &b.run_id, &b.dataset, number(b))
}

/// Leaves one of equal neighbours.
pub(super) fn dedup_model_points(points: &mut Vec<ModelPoint>) {
    points.dedup_by(|a, b| same_model_point(a, b));
}

/// Whether two sorted lists of points say the same.
pub(super) fn same_model_points(a: &[ModelPoint], b: &[ModelPoint]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_model_point(a, b))
}

/// The points of one run, in any order. It takes 32 bytes a point.
#[derive(Debug, Default)]
pub struct History {
    keys: HashMap<String, u32>,
    names: Vec<String>,
    points: Vec<(u32, Millis, i64, u64)>,
}

impl History {
    /// Adds points.
    pub fn add(&mut self, points: &[Point]) {
        for point in points {
            let place = match self.keys.get(&point.key) {
                Some(place) => *place,
                None => {
                    let place = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
                    self.keys.insert(point.key.clone(), place);
                    self.names.push(point.key.clone());
                    place
                }
            };
            self.points.push((place, point.at, point.step, bits(point.value)));
        }
    }

    /// The digest, and how many points there are; the same point twice is one.
    #[must_use]
    pub fn finish(self) -> (Digest, u64) {
        let Self { names, mut points, .. } = self;
        points.sort_unstable();
        points.dedup();
        let mut order: Vec<usize> = (0..names.len()).collect();
        order.sort_by(|a, b| names[*a].cmp(&names[*b]));
        let mut hasher = Sha256::new();
        for place in order {
            let number = u32::try_from(place).unwrap_or(u32::MAX);
            let begin = points.partition_point(|point| point.0 < number);
            let end = points.partition_point(|point| point.0 <= number);
            hasher.update((names[place].len() as u64).to_be_bytes());
            hasher.update(names[place].as_bytes());
            hasher.update(((end - begin) as u64).to_be_bytes());
            for (_, at, step, bits) in &points[begin..end] {
                hasher.update(at.to_be_bytes());
                hasher.update(step.to_be_bytes());
                hasher.update(bits.to_be_bytes());
            }
        }
        (Digest::from_bytes(hasher.finalize().into()), points.len() as u64)
    }
}

/// One digest over many things that are added in an order that both sides share.
#[derive(Debug, Clone, Default)]
pub struct WholeDigest(Sha256);

impl WholeDigest {
    /// Adds one thing by its name and digest.
    pub fn add(&mut self, name: &str, digest: Option<&Digest>) {
        self.0.update((name.len() as u64).to_be_bytes());
        self.0.update(name.as_bytes());
        self.0.update(digest.map_or([0; 32], |digest| *digest.as_bytes()));
    }

    /// The digest.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest::from_bytes(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(key: &str, value: f64, step: i64) -> Point {
        Point { key: key.to_owned(), value, at: 7, step }
    }

    fn digest(points: &[Point]) -> (Digest, u64) {
        let mut history = History::default();
        points.iter().for_each(|one| history.add(std::slice::from_ref(one)));
        history.finish()
    }

    #[test]
    fn a_history_is_the_same_in_any_order_and_with_repeats() {
        let (a, b, c) = (point("b", 1.0, 1), point("a", f64::NAN, 2), point("b", f64::INFINITY, 0));
        let one = digest(&[a.clone(), b.clone(), c.clone()]);
        assert_eq!(one, digest(&[c.clone(), point("b", f64::MAX, 0), b.clone(), a.clone(), b.clone()]));
        assert_eq!(one.1, 3);
        assert_ne!(one.0, digest(&[a.clone(), b.clone()]).0);
        assert_ne!(digest(&[point("ab", 1.0, 1)]).0, digest(&[point("a", 1.0, 1)]).0);
        assert_ne!(digest(&[point("a", 0.0, 1)]).0, digest(&[point("a", f64::NAN, 1)]).0);
        assert_eq!(digest(&[point("a", 0.0, 1)]).0, digest(&[point("a", -0.0, 1)]).0);
    }

    #[test]
    fn numbers_that_are_not_finite_survive_json() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e-320, 0.1] {
            let text = serde_json::to_string(&point("a", value, 1)).unwrap();
            let back: Point = serde_json::from_str(&text).unwrap();
            assert_eq!(back.value.to_bits(), value.to_bits(), "{text}");
        }
        let model = ModelPoint { point: point("a", f64::NAN, 1), run_id: String::new(), dataset: None };
        let back: ModelPoint = serde_json::from_str(&serde_json::to_string(&model).unwrap()).unwrap();
        assert!(same_model_points(&[back], &[model]));
    }
}
