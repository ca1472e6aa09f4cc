//! Made-up names for runs and logged models that got none: `calm-heron-417`.

use super::Tracking;

const ADJECTIVES: [&str; 32] = [
    "able", "amber", "bold", "brave", "bright", "calm", "clever", "crisp", "deep", "eager", "fair", "gentle",
    "grand", "honest", "keen", "kind", "lively", "lucky", "mellow", "merry", "neat", "nimble", "patient",
    "proud", "quick", "quiet", "smooth", "steady", "swift", "tidy", "warm", "wise",
];

const NOUNS: [&str; 32] = [
    "barge",
    "beaver",
    "bittern",
    "bridge",
    "brook",
    "canal",
    "coot",
    "crane",
    "current",
    "dam",
    "duck",
    "ferry",
    "gate",
    "heron",
    "island",
    "kayak",
    "kingfisher",
    "lock",
    "meadow",
    "mill",
    "moorhen",
    "otter",
    "oxbow",
    "perch",
    "pike",
    "reed",
    "river",
    "shoal",
    "skiff",
    "trout",
    "weir",
    "willow",
];

impl Tracking {
    /// A made-up name.
    pub(super) fn new_name(&self) -> String {
        let mut bytes = [0; 4];
        self.entropy.fill(&mut bytes);
        let [a, b, c, d] = bytes.map(usize::from);
        let number = (c * 256 + d) % 1000;
        format!("{}-{}-{number}", ADJECTIVES[a % ADJECTIVES.len()], NOUNS[b % NOUNS.len()])
    }
}
