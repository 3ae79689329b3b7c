//! Addresses and ranges that an allow-list takes. An IPv4 address inside IPv6 (`::ffff:a.b.c.d`) is the IPv4 address.

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{fmt, net::IpAddr, str::FromStr};

/// At most so many ranges in one `a;b;c` list: more is a network plan, not a person's address.
pub const MOST_RANGES: usize = 32;

/// One address, a CIDR block or `first-last`, of one family. Never empty, never everything, never multicast.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Range {
    first: IpAddr,
    last: IpAddr,
}

impl Range {
    /// The range of just this address.
    pub fn one(address: IpAddr) -> Result<Range, String> {
        let address = address.to_canonical();
        Range::between(address, address)
    }

    /// Reads a list such as `10.0.0.7; 10.0.0.0/24; 10.0.0.7-10.0.0.20; 2001:db8::/64`.
    pub fn list(text: &str) -> Result<Vec<Range>, String> {
        let parts: Vec<&str> = text.split(';').map(str::trim).filter(|part| !part.is_empty()).collect();
        match parts.len() {
            0 => Err("name an address, like 203.0.113.9, 203.0.113.0/28 or 203.0.113.9-203.0.113.12".to_owned()),
            n if n > MOST_RANGES => Err(format!("at most {MOST_RANGES} ranges in one list, these are {n}")),
            _ => parts.into_iter().map(str::parse).collect(),
        }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.first.is_ipv4() && self.first <= address && address <= self.last
    }

    /// Whether the range has more addresses than a CIDR block with this prefix length.
    pub fn wider_than(&self, v4_prefix: u8, v6_prefix: u8) -> bool {
        let bits = match self.first {
            IpAddr::V4(_) => 32_u32.saturating_sub(v4_prefix.into()),
            IpAddr::V6(_) => 128_u32.saturating_sub(v6_prefix.into()),
        };
        let last_offset = number(self.last) - number(self.first);
        bits < 128 && last_offset > (1_u128 << bits) - 1
    }

    /// The first and the last address.
    pub fn bounds(&self) -> (IpAddr, IpAddr) {
        (self.first, self.last)
    }

    /// The CIDR blocks that make up the range.
    pub fn blocks(&self) -> Vec<IpNet> {
        match (self.first, self.last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => Ipv4Subnets::new(first, last, 0).map(IpNet::V4).collect(),
            (IpAddr::V6(first), IpAddr::V6(last)) => Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect(),
            _ => Vec::new(),
        }
    }

    fn between(first: IpAddr, last: IpAddr) -> Result<Range, String> {
        if first.is_ipv4() != last.is_ipv4() {
            return Err(format!("{first}-{last} mixes IPv4 and IPv6"));
        }
        if first > last {
            return Err(format!("{first}-{last} runs backwards; write the lower address first"));
        }
        if first.is_unspecified() && first != last {
            return Err("a range that starts at the zero address opens the door to everybody; name the addresses you work from".to_owned());
        }
        if let Some(many) = [first, last].into_iter().find(IpAddr::is_multicast) {
            return Err(format!("{many} is a multicast address; nobody connects from one"));
        }
        if first.is_unspecified() {
            return Err(format!("{first} is no address that a connection can come from"));
        }
        Ok(Range { first, last })
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u32::from(a).into(),
        IpAddr::V6(a) => a.into(),
    }
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse::<IpAddr>()
        .map(|a| a.to_canonical())
        .map_err(|_| format!("'{}' is not an IP address; write it like 203.0.113.9 or 2001:db8::7", crate::names::shown(text)))
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some((first, last)) = text.split_once('-') {
            return Range::between(address(first.trim())?, address(last.trim())?);
        }
        if let Some((base, length)) = text.split_once('/') {
            let plain = base.trim().parse::<IpAddr>().is_ok_and(|a| a == a.to_canonical());
            if !plain {
                return Err(format!("'{}' is not a block of addresses; write it like 203.0.113.0/28", crate::names::shown(text)));
            }
            let net: IpNet = format!("{}/{}", base.trim(), length.trim())
                .parse()
                .map_err(|_| format!("'{}' is not a block of addresses; write it like 203.0.113.0/28", crate::names::shown(text)))?;
            // `network` and `broadcast` are the first and last address of the block, in both families
            return Range::between(net.network(), net.broadcast());
        }
        Range::one(address(text)?)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.blocks().as_slice() {
            _ if self.first == self.last => write!(f, "{}", self.first),
            [block] => write!(f, "{block}"),
            _ => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl Serialize for Range {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Range {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_may_write_an_address_in_all_the_usual_ways() {
        for (text, shown) in [
            ("203.0.113.9", "203.0.113.9"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
            ("203.0.113.0/28", "203.0.113.0/28"),
            ("203.0.113.5/28", "203.0.113.0/28"),
            ("10.0.0.7-10.0.0.20", "10.0.0.7-10.0.0.20"),
            ("10.0.0.0 - 10.0.0.255", "10.0.0.0/24"),
            ("2001:db8::7", "2001:db8::7"),
            ("2001:db8::/64", "2001:db8::/64"),
        ] {
            assert_eq!(text.parse::<Range>().unwrap().to_string(), shown, "{text}");
        }
        assert_eq!(Range::list("10.0.0.1; 10.0.0.2;192.168.1.0/24").unwrap().len(), 3);
    }

    #[test]
    fn what_opens_the_door_to_everybody_is_refused_with_the_rule() {
        for wrong in [
            "0.0.0.0/0",
            "::/0",
            "0.0.0.0",
            "0.0.0.0-255.255.255.255",
            "224.0.0.1",
            "ff02::1",
            "10.0.0.9-10.0.0.1",
            "10.0.0.1-::1",
            "127.*",
            "127.evil.test",
            "010.0.0.1",
            "0x7f.1",
            "fe80::1%eth0",
            "10.0.0.0/33",
            "::ffff:10.0.0.0/100",
            "",
            "239.0.0.0/8",
        ] {
            assert!(wrong.parse::<Range>().is_err(), "{wrong}");
        }
        assert!("0.0.0.0/0".parse::<Range>().unwrap_err().contains("everybody"));
        assert!(Range::list(" ; ").is_err());
        assert!(Range::list(&"10.0.0.1;".repeat(33)).is_err());
    }

    #[test]
    fn width_is_counted_in_addresses() {
        let range = |text: &str| text.parse::<Range>().unwrap();
        assert!(!range("10.0.0.0/24").wider_than(24, 64));
        assert!(range("10.0.0.0-10.0.1.0").wider_than(24, 64));
        assert!(!range("2001:db8::/64").wider_than(24, 64));
        assert!(range("2001:db8::/63").wider_than(24, 64));
        assert!(!range("2001:db8::/63").wider_than(24, 0));
    }
}
