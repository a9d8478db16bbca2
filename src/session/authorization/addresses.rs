//! Where an MCP server may send this client for authorisation: what is reached over the internet names nothing in this network, and nothing
//! but what runs on this machine names something on it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Who can reach an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Everybody,
    ThisNetwork,
    ThisMachine,
    /// No server is there, but perhaps what a cloud tells its machines.
    Nobody,
}

fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(address) => match address.octets() {
            [127, ..] => Reach::ThisMachine,
            [0 | 224..=255, ..] | [169, 254, ..] => Reach::Nobody,
            [100, 64..=127, ..] => Reach::ThisNetwork,
            _ if address.is_private() => Reach::ThisNetwork,
            _ => Reach::Everybody,
        },
        IpAddr::V6(address) => match address.segments() {
            [0, 0, 0, 0, 0, 0, 0, 1] => Reach::ThisMachine,
            // An address of the older protocol in one of this.
            [0, 0, 0, 0, 0, 0xffff | 0, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                reach(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)).into())
            }
            [0xfc00..=0xfdff, ..] => Reach::ThisNetwork,
            [0xfe80..=0xfebf | 0xff00..=0xffff, ..] => Reach::Nobody,
            _ => Reach::Everybody,
        },
    }
}

/// Decides by the address of an MCP server where it may send this client.
#[derive(Clone)]
pub(super) struct Guard {
    server: Arc<str>,
    /// Hosts that the user has named, which may be anywhere.
    trusted: Arc<[String]>,
}

impl Guard {
    /// `trusted` are addresses that the user has named.
    pub(super) fn new<'a>(server: &Url, trusted: impl Iterator<Item = &'a str>) -> Self {
        let host = |url: Url| url.host_str().map(String::from);
        let trusted = trusted.filter_map(|url| host(Url::parse(url).ok()?)).collect();
        Self { server: server.host_str().unwrap_or_default().into(), trusted }
    }

    /// Whether a request may go to a URL, whose host is looked up later if it is a name.
    pub(super) async fn allows(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default();
        match literal(host) {
            Some(address) => !self.filtered(host, vec![SocketAddr::new(address, 0)]).await.is_empty(),
            None => true,
        }
    }

    /// Those of a host's addresses that may be used.
    async fn filtered(&self, host: &str, mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
        let everybody = addresses.iter().all(|address| reach(address.ip()) == Reach::Everybody);
        if everybody || host == &*self.server || self.trusted.iter().any(|trusted| trusted == host) {
            return addresses;
        }
        let own = lookup(&self.server).await.unwrap_or_default();
        let own = own.iter().map(|address| reach(address.ip())).max().unwrap_or(Reach::Everybody);
        addresses.retain(|address| reach(address.ip()) <= own.min(Reach::ThisMachine));
        addresses
    }
}

fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

async fn lookup(host: &str) -> io::Result<Vec<SocketAddr>> {
    match literal(host) {
        Some(address) => Ok(vec![SocketAddr::new(address, 0)]),
        None => Ok(tokio::net::lookup_host((host, 0)).await?.collect()),
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let addresses = guard.filtered(name.as_str(), lookup(name.as_str()).await?).await;
            if addresses.is_empty() {
                return Err("it is in a network that the MCP server is not in".into());
            }
            let addresses: Addrs = Box::new(addresses.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_their_reach() {
        for (address, expected) in [
            ("93.184.216.34", Reach::Everybody),
            ("10.0.0.9", Reach::ThisNetwork),
            ("100.64.0.1", Reach::ThisNetwork),
            ("192.168.1.1", Reach::ThisNetwork),
            ("127.0.0.53", Reach::ThisMachine),
            ("169.254.169.254", Reach::Nobody),
            ("0.0.0.0", Reach::Nobody),
            ("2606:2800:220:1::1", Reach::Everybody),
            ("fd00::1", Reach::ThisNetwork),
            ("::1", Reach::ThisMachine),
            ("fe80::1", Reach::Nobody),
            ("::ffff:169.254.169.254", Reach::Nobody),
            ("64:ff9b::10.0.0.9", Reach::ThisNetwork),
        ] {
            assert_eq!(reach(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[tokio::test]
    async fn a_server_sends_nobody_where_it_is_not_itself() {
        for (server, url, allowed) in [
            ("https://93.184.216.34/mcp", "https://93.184.216.35/token", true),
            ("https://93.184.216.34/mcp", "https://10.0.0.9/token", false),
            ("https://93.184.216.34/mcp", "http://127.0.0.1/token", false),
            ("https://93.184.216.34/mcp", "https://10.0.0.1/token", true),
            ("https://10.0.0.9/mcp", "https://10.0.0.8/token", true),
            ("https://10.0.0.9/mcp", "http://[::1]/token", false),
            ("http://127.0.0.1/mcp", "https://10.0.0.8/token", true),
            ("http://127.0.0.1/mcp", "http://169.254.169.254/token", false),
        ] {
            let guard = Guard::new(&Url::parse(server).unwrap(), ["https://10.0.0.1/named-by-the-user"].into_iter());
            assert_eq!(guard.allows(&Url::parse(url).unwrap()).await, allowed, "{server} {url}");
        }
    }
}
