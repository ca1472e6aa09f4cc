//! Requests that come back: a server that a team brings may be a gateway, and in the end this one.
//!
//! Each gateway signs what it sends to such a server in the header `Via` (RFC 9110, 7.6.3), and refuses what carries its own name.

use hyper::header::{HeaderMap, HeaderValue, VIA};

/// How gateways are called there.
const PREFIX: &str = "lockgate-";

/// How many gateways a request may have passed. Replicas have different names, so a circle of them would be a long one.
const MOST: usize = 4;

/// A gateway's name in `Via`.
#[derive(Debug)]
pub(crate) struct Name {
    /// `1.1 NAME`.
    via: HeaderValue,
    own: String,
}

impl Name {
    /// A name that no other gateway has.
    pub(crate) fn new(drawn: u64) -> Self {
        let own = format!("{PREFIX}{drawn:016x}");
        let via = HeaderValue::from_str(&format!("1.1 {own}"));
        Self { via: via.unwrap_or_else(|_| HeaderValue::from_static("1.1 lockgate-")), own }
    }

    /// Whether a request was here before, or has passed too many gateways.
    pub(crate) fn is_loop(&self, headers: &HeaderMap) -> bool {
        let passed = headers.get_all(VIA).iter().filter_map(|value| value.to_str().ok());
        let passed = passed.flat_map(|text| text.split(','));
        let names = passed.filter_map(|by| by.split_whitespace().nth(1)).filter(|n| n.starts_with(PREFIX));
        let (mut count, mut own) = (0, false);
        for name in names {
            count += 1;
            own |= name == self.own;
        }
        own || count >= MOST
    }

    /// Signs a request.
    pub(crate) fn sign(&self, headers: &mut HeaderMap) {
        headers.append(VIA, self.via.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_known_again_and_a_long_way_is_a_circle() {
        let [own, other] = [Name::new(1), Name::new(2)];
        let mut headers = HeaderMap::new();
        assert!(!own.is_loop(&headers));
        headers.append(VIA, HeaderValue::from_static("1.1 proxy, 1.0 lockgate (a remark)"));
        other.sign(&mut headers);
        assert!(!own.is_loop(&headers) && other.is_loop(&headers));
        own.sign(&mut headers);
        assert!(own.is_loop(&headers));
        let passed = |count: u64| {
            let mut headers = HeaderMap::new();
            (0..count).for_each(|number| Name::new(100 + number).sign(&mut headers));
            headers
        };
        assert!(!own.is_loop(&passed(3)) && own.is_loop(&passed(4)));
        // Proxies may put all of them into one line.
        let line = HeaderValue::from_str(&format!("1.1 x, 1.1 {}", own.own)).unwrap();
        assert!(own.is_loop(&HeaderMap::from_iter([(VIA, line)])));
    }
}
