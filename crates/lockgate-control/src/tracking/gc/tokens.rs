//! Digests and ids in texts. What might be one is taken for one: it keeps something that could have gone, and no more.

use lockgate_core::digest::Digest;

const ID: usize = 32;
const DIGEST: usize = 64;

/// Tells of every 64 and every 32 hexadecimal digits in a text. The digits of a digest are no ids.
pub(super) fn each(text: &str, mut digest: impl FnMut([u8; 32]), mut id: impl FnMut(&str)) {
    for run in text.split(|c: char| !matches!(c, '0'..='9' | 'a'..='f')) {
        for at in 0..(run.len() + 1).saturating_sub(DIGEST) {
            if let Some(found) = raw(&run[at..at + DIGEST]) {
                digest(found);
            }
        }
        if run.len() != DIGEST {
            for at in 0..(run.len() + 1).saturating_sub(ID) {
                id(&run[at..at + ID]);
            }
        }
    }
}

fn raw(text: &str) -> Option<[u8; 32]> {
    hex::decode(text).ok()?.try_into().ok()
}

/// A digest's bytes.
pub(super) fn bytes(digest: &Digest) -> Option<[u8; 32]> {
    raw(&digest.hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_and_ids_are_found_wherever_they_stand() {
        let (id, digest) = ("0123456789abcdef0123456789abcdef", Digest::of(b"x"));
        let text = format!("{{\"a\":\"m-{id}\",\"b\":\"{digest}\"}} f{id}");
        let (mut digests, mut ids) = (Vec::new(), Vec::new());
        each(&text, |found| digests.push(found), |found| ids.push(found.to_owned()));
        assert_eq!(digests, [bytes(&digest).unwrap()]);
        // With a letter before it either may be meant.
        assert_eq!(ids, [id, &format!("f{}", &id[..31]), id]);
        each("0123 é", |_| panic!(), |_| panic!());
    }
}
