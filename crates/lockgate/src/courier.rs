//! Messages to other servers: by HTTPS, and not to addresses that only look like somebody else's.
//!
//! A webhook's URL comes from a user, and this server stands where that user may not: a URL must not lead to the server's own
//! network. Its addresses are looked up once, checked, and connected to; redirections are not followed.

use crate::world;
use futures_util::future::BoxFuture;
use lockgate_control::tracking::{Answer, Courier, Parcel};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Url};
use std::error::Error;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// How long an attempt may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// How much of an answer is read.
const ANSWER: usize = 4096;

/// Brings messages to other servers.
#[derive(Debug)]
pub(crate) struct HttpCourier {
    client: Client,
    /// Whether addresses of private networks, and HTTP, are allowed.
    private: bool,
}

impl HttpCourier {
    /// # Errors
    /// Where TLS can't be set up.
    pub(crate) fn new(private: bool) -> anyhow::Result<Self> {
        world::tls();
        let client = Client::builder()
            .dns_resolver(Lookup { private })
            .redirect(reqwest::redirect::Policy::none())
            // A proxy would look addresses up itself.
            .no_proxy()
            .timeout(PATIENCE)
            .build()?;
        Ok(Self { client, private })
    }

    fn schemes(&self) -> &'static [&'static str] {
        if self.private { &["https", "http"] } else { &["https"] }
    }

    fn wrong_scheme(&self, scheme: &str) -> String {
        let allowed = self.schemes().join(", ");
        format!("Invalid webhook URL scheme: '{scheme}'. Allowed schemes are: {allowed}.")
    }

    /// The URL, where messages may go there as far as the URL tells; names are looked up when they are used.
    fn allowed(&self, url: &str) -> Result<Url, String> {
        if url.trim().is_empty() {
            return Err(format!("Webhook URL cannot be empty or just whitespace: '{url}'"));
        }
        let parsed = Url::parse(url).map_err(|e| match e.to_string().as_str() {
            "empty host" => format!("Webhook URL must include a hostname: '{url}'"),
            "relative URL without a base" => self.wrong_scheme(""),
            why => format!("Invalid webhook URL '{url}': {why}"),
        })?;
        if !self.schemes().contains(&parsed.scheme()) {
            return Err(self.wrong_scheme(parsed.scheme()));
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(
                "Webhook URL must not hold a user or a password: they would be shown to who lists webhooks"
                    .to_owned(),
            );
        }
        let host = parsed.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        match host.parse::<IpAddr>() {
            Ok(ip) if !self.private && !is_public(ip) => Err(refusal(&host, ip)),
            _ if host.is_empty() => Err(format!("Webhook URL must include a hostname: '{url}'")),
            _ => Ok(parsed),
        }
    }
}

fn refusal(host: &str, ip: IpAddr) -> String {
    format!(
        "Webhook URL must not resolve to a non-public IP address. '{host}' resolves to {ip}. A server that may reach its own network \
         starts with --webhooks-allow-private."
    )
}

fn unknown(host: &str, why: &dyn Display) -> String {
    format!("Cannot resolve Webhook URL hostname '{host}': {why}")
}

/// Looks names up, and refuses those that lead to an address that is not public.
#[derive(Debug)]
struct Lookup {
    private: bool,
}

impl Lookup {
    async fn find(host: String, private: bool) -> Result<Vec<SocketAddr>, String> {
        let found = tokio::net::lookup_host((host.as_str(), 0)).await;
        let all: Vec<SocketAddr> = found.map_err(|e| unknown(&host, &e))?.collect();
        if all.is_empty() {
            return Err(unknown(&host, &"it has no address"));
        }
        let inner = all.iter().find(|address| !is_public(address.ip()));
        if let Some(address) = inner.filter(|_| !private) {
            return Err(refusal(&host, address.ip()));
        }
        Ok(all)
    }
}

impl Resolve for Lookup {
    fn resolve(&self, name: Name) -> Resolving {
        let (host, private) = (name.as_str().to_owned(), self.private);
        Box::pin(async move {
            let all = Self::find(host, private).await.map_err(Box::<dyn Error + Send + Sync>::from)?;
            let addresses: Addrs = Box::new(all.into_iter());
            Ok(addresses)
        })
    }
}

impl Courier for HttpCourier {
    fn check<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let url = self.allowed(url)?;
            if self.private {
                // It may be a name that comes to be later: nothing depends on where it leads.
                return Ok(());
            }
            let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            Lookup::find(host, self.private).await.map(drop)
        })
    }

    fn post<'a>(&'a self, parcel: &'a Parcel) -> BoxFuture<'a, Result<Answer, String>> {
        Box::pin(async move {
            let url = self.allowed(&parcel.url)?;
            let mut request = self.client.post(url).body(parcel.body.clone());
            for (name, value) in &parcel.headers {
                request = request.header(*name, value);
            }
            let mut reply = request.send().await.map_err(|error| words(&error))?;
            let status = reply.status().as_u16();
            let after =
                reply.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
            let mut body = Vec::new();
            while let Ok(Some(chunk)) = reply.chunk().await {
                body.extend(chunk);
                if body.len() >= ANSWER {
                    body.truncate(ANSWER);
                    break;
                }
            }
            Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned(), retry_after: after })
        })
    }
}

/// An error with its causes; the URL is left out, for it may hold a secret.
fn words(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    let mut text = if error.is_timeout() { "no answer in time" } else { "can't be reached" }.to_owned();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}

/// Whether an address is anybody's in the internet. After the registries of special-purpose addresses of IANA (RFC 6890).
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => match embedded(ip) {
            Some(ip) => is_public_v4(ip),
            // 2000::/3 is what is given out, but for documentation, benchmarks and protocols' own.
            None => {
                let [first, second, ..] = ip.segments();
                let special = (first == 0x2001 && (second < 0x0200 || second == 0x0db8)) || first == 0x3fff;
                (0x2000..=0x3fff).contains(&first) && !special
            }
        },
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped, compatible, 6to4 or NAT64.
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = ip.segments();
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match segments {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some(join(high, low))
        }
        [0x2002, high, low, ..] => Some(join(high, low)),
        _ => None,
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let protocols = a == 192 && b == 0 && (c == 0 || c == 2);
    let relay = (a, b, c) == (192, 88, 99);
    let benchmarks = a == 198 && (b == 18 || b == 19);
    !(a == 0
        || a >= 224
        || shared
        || protocols
        || relay
        || benchmarks
        || ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_and_of_special_networks_are_not_public() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "192.88.99.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "2001:db8::1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "::127.0.0.1",
            "2001::1",
            "3fff::1",
            "fec0::1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
        for public in [
            "8.8.8.8",
            "1.1.1.1",
            "100.128.0.1",
            "172.32.0.1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "2002:808:808::",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[tokio::test]
    async fn urls_lead_to_public_addresses_by_https_only() {
        let courier = HttpCourier::new(false).unwrap();
        for (bad, words) in [
            ("  ", "Webhook URL cannot be empty or just whitespace: '  '"),
            ("https://", "Webhook URL must include a hostname: 'https://'"),
            ("nonsense", "Invalid webhook URL scheme: ''"),
            (
                "https://10.0.0.1:1",
                "must not resolve to a non-public IP address. '10.0.0.1' resolves to 10.0.0.1.",
            ),
            ("https://name.invalid/", "Cannot resolve Webhook URL hostname 'name.invalid'"),
        ] {
            let why = courier.check(bad).await.unwrap_err();
            assert!(why.contains(words), "{why}");
        }
        for bad in [
            "http://example.org",
            "https://127.0.0.1/x",
            "https://[::1]/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://localhost/hook",
            "ftp://example.org",
            "https://",
            "file:///etc/passwd",
            "nonsense",
            "https://10.0.0.1:8443",
            "https://ana:pw@8.8.8.8/",
            "https://[::ffff:192.168.0.1]/",
        ] {
            assert!(courier.check(bad).await.is_err(), "{bad}");
        }
        assert!(courier.check("https://8.8.8.8/hook").await.is_ok());
        let open = HttpCourier::new(true).unwrap();
        assert!(open.check("http://127.0.0.1:9/x").await.is_ok());
        assert!(open.check("https://name.invalid/").await.is_ok(), "looked up when it is called");
        assert!(open.check("gopher://127.0.0.1").await.is_err());
    }

    #[tokio::test]
    async fn a_message_goes_nowhere_that_it_must_not_even_where_the_check_was_long_ago() {
        let courier = HttpCourier::new(false).unwrap();
        let parcel = Parcel { url: "https://localhost:1/".to_owned(), headers: vec![], body: String::new() };
        let why = courier.post(&parcel).await.unwrap_err();
        assert!(why.contains("non-public"), "{why}");
    }
}
