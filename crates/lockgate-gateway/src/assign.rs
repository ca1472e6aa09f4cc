//! Which side of a rollout a unit belongs to: a pure function of salt, unit and weight, so that all gateways agree, before
//! and after a restart, and a larger weight only ever moves units from the baseline to the candidate.

use lockgate_core::route::WHOLE;
use xxhash_rust::xxh3::xxh3_64;

/// Salts and units up to this length together need no allocation.
const SMALL: usize = 192;

/// The unit's place in `0..WHOLE` for this salt: `xxh3_64(salt, 0x00, unit) mod 10000`.
#[must_use]
pub fn bucket(salt: &[u8], unit: &[u8]) -> u32 {
    let length = salt.len() + 1 + unit.len();
    let hash = if length <= SMALL {
        let mut buffer = [0_u8; SMALL];
        buffer[..salt.len()].copy_from_slice(salt);
        buffer[salt.len() + 1..length].copy_from_slice(unit);
        xxh3_64(&buffer[..length])
    } else {
        let mut buffer = Vec::with_capacity(length);
        buffer.extend_from_slice(salt);
        buffer.push(0);
        buffer.extend_from_slice(unit);
        xxh3_64(&buffer)
    };
    (hash % u64::from(WHOLE)) as u32
}

/// Whether a unit gets the candidate at this weight (in parts of [`WHOLE`]).
#[must_use]
pub fn is_candidate(salt: &[u8], unit: &[u8], weight: u32) -> bool {
    bucket(salt, unit) < weight
}

/// What statistics know a unit by. No salt: a unit keeps its hash over rollouts.
pub(crate) fn unit_hash(unit: &[u8]) -> u64 {
    xxh3_64(unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bucket_is_a_published_function() {
        // Fixed for good: a change would reshuffle all units of running rollouts.
        let pinned = |salt: &[u8], unit: &[u8]| {
            let text: Vec<u8> = [salt, &[0], unit].concat();
            (xxh3_64(&text) % 10_000) as u32
        };
        let long = [b'u'; 400];
        for (salt, unit) in [(&b"pr_1"[..], &b"alice"[..]), (b"", b""), (b"pr_1", &long)] {
            assert_eq!(bucket(salt, unit), pinned(salt, unit));
        }
        // python3: xxhash.xxh3_64_intdigest(b"") == 0x2d06800538d394c2; one zero byte is 0xc44bdff4074eecdb
        assert_eq!(bucket(b"", b""), (0xc44b_dff4_074e_ecdb_u64 % 10_000) as u32);
    }

    #[test]
    fn shares_hold_within_three_sigma_and_a_new_salt_draws_anew() {
        let units = 100_000_u32;
        for weight in [1, 100, 500, 2500, 5000, 9999] {
            let p = f64::from(weight) / f64::from(WHOLE);
            let sigma = (f64::from(units) * p * (1.0 - p)).sqrt();
            let in_salt = |salt: &[u8]| -> Vec<bool> {
                (0..units).map(|u| is_candidate(salt, &u.to_le_bytes(), weight)).collect()
            };
            let (first, second) = (in_salt(b"pr_a"), in_salt(b"pr_b"));
            let count = |v: &[bool]| v.iter().filter(|x| **x).count() as f64;
            for drawn in [&first, &second] {
                let off = (count(drawn) - f64::from(units) * p).abs();
                assert!(off <= 3.0 * sigma.max(1.0), "weight {weight}: off by {off}, sigma {sigma}");
            }
            let both = first.iter().zip(&second).filter(|(a, b)| **a && **b).count() as f64;
            let expected = f64::from(units) * p * p;
            assert!((both - expected).abs() <= 4.0 * expected.sqrt().max(1.0), "salts are independent");
        }
    }

    proptest! {
        #[test]
        fn a_larger_weight_never_takes_a_unit_back(salt in ".{0,40}", unit in ".{0,300}", a in 0..=WHOLE, b in 0..=WHOLE) {
            let (low, high) = (a.min(b), a.max(b));
            if is_candidate(salt.as_bytes(), unit.as_bytes(), low) {
                prop_assert!(is_candidate(salt.as_bytes(), unit.as_bytes(), high));
            }
        }

        #[test]
        fn nobody_gets_weight_zero_and_everybody_the_whole(salt in ".{0,40}", unit in ".{0,300}") {
            prop_assert!(!is_candidate(salt.as_bytes(), unit.as_bytes(), 0));
            prop_assert!(is_candidate(salt.as_bytes(), unit.as_bytes(), WHOLE));
        }
    }
}
