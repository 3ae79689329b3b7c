//! Calls to addresses that an operator wrote down: no redirects, no surprises. An address within our own network is refused when the
//! connection is made, whatever its name resolved to a moment before.

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

/// Whether an address is one of the wide world.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let special = a == 0 || a >= 224 || (a == 198 && (18..20).contains(&b)) || (a == 192 && b == 0);
            !(v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_documentation() || shared || special)
        }
        IpAddr::V6(v6) => {
            let [first, second, ..] = v6.segments();
            let local = (first & 0xfe00) == 0xfc00 || (first & 0xffc0) == 0xfe80;
            // 6to4 and NAT64 carry an IPv4 address that may be anything
            let carries = first == 0x2002 || (first == 0x64 && second == 0xff9b);
            !(v6.is_loopback() || v6.is_unspecified() || v6.is_multicast() || local || carries)
        }
    }
}

/// Resolves names to public addresses only.
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.filter(|address| is_public(address.ip())).collect();
            if found.is_empty() {
                return Err("the name leads to no public address; set allow_private if that is meant".into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// A client for one address. An address literal never passes the resolver, so it is looked at here.
pub fn client(url: &reqwest::Url, allow_private: bool, tls: rustls::ClientConfig) -> anyhow::Result<reqwest::Client> {
    let builder = reqwest::Client::builder().tls_backend_preconfigured(tls).redirect(reqwest::redirect::Policy::none()).no_proxy();
    let builder = builder.timeout(Duration::from_secs(10)).connect_timeout(Duration::from_secs(5));
    if allow_private {
        return Ok(builder.build()?);
    }
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    anyhow::ensure!(url.scheme() == "https", "it begins with https://");
    anyhow::ensure!(
        host.parse::<IpAddr>().is_ok_and(is_public) || host.parse::<IpAddr>().is_err(),
        "it is an address of a network of your own; set allow_private if that is meant"
    );
    Ok(builder.https_only(true).dns_resolver(Arc::new(PublicOnly)).build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_ones_own_network_and_of_clouds_are_not_public() {
        let inside = "127.0.0.1 127.9.9.9 0.0.0.0 0.1.2.3 10.1.2.3 172.16.0.1 172.31.255.255 192.168.1.1 169.254.169.254 100.64.0.1 224.0.0.1 255.255.255.255 192.0.0.192 \
                      198.18.0.1 ::1 :: fe80::1 fc00::1 fd00:ec2::254 ff02::1 ::ffff:127.0.0.1 ::ffff:169.254.169.254 2002:7f00:1:: 64:ff9b::7f00:1";
        for text in inside.split_whitespace() {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "203.0.114.1"] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_and_an_address_inside_are_refused() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let tls = || crate::node::client_tls(rustls::DEFAULT_VERSIONS, None);
        for url in [
            "https://127.0.0.1/x",
            "https://169.254.169.254/latest/meta-data",
            "https://[::1]/x",
            "http://hooks.example.com/x",
            "https://2130706433/x",
            "https://0x7f.1/x",
        ] {
            assert!(client(&url.parse().unwrap(), false, tls()).is_err(), "{url}");
        }
        let url: reqwest::Url = "https://localhost:1/x".parse().unwrap();
        let error = client(&url, false, tls()).unwrap().get(url).send().await.unwrap_err();
        assert!(format!("{error:?}").contains("no public address"), "{error:?}");
    }
}
