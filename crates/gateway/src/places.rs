//! Places for connections: so many in all, and so many of one address, so that nobody alone takes them all.

use crate::ranked::{Held, Rank, Ranked};
use std::{collections::HashMap, net::IpAddr, sync::Arc};
use tokio::sync::Notify;

pub struct Places {
    in_all: usize,
    per_address: usize,
    taken: Ranked<HashMap<IpAddr, usize>>,
    freed: Notify,
}

/// One of them; free again when this is dropped.
pub struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Places {
    pub fn new(in_all: usize, per_address: usize) -> Arc<Places> {
        Arc::new(Places { in_all, per_address, taken: Ranked::new(Rank::Places, HashMap::new()), freed: Notify::new() })
    }

    /// None when there is none for this address.
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = network(address);
        let mut taken = self.lock();
        if taken.values().sum::<usize>() >= self.in_all || taken.get(&address).is_some_and(|count| *count >= self.per_address) {
            return None;
        }
        *taken.entry(address).or_default() += 1;
        Some(Place { places: self.clone(), address })
    }

    /// Waits until there is one. Whoever calls this sets a limit to it, and to how many wait.
    pub async fn wait(self: &Arc<Self>, address: IpAddr) -> Place {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // from here on a place that is freed wakes us, also before we wait
            freed.as_mut().enable();
            if let Some(place) = self.take(address) {
                return place;
            }
            freed.await;
        }
    }

    fn lock(&self) -> Held<'_, HashMap<IpAddr, usize>> {
        self.taken.lock()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
        drop(taken);
        self.places.freed.notify_waiters();
    }
}

/// What counts as one caller: whoever has an address of IPv6 has the 2^64 of its network (RFC 6177 section 2).
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => IpAddr::V6((six.to_bits() & !u128::from(u64::MAX)).into()),
        four => four,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_leaves_places_for_others_and_a_network_of_ipv6_is_one_address() {
        let places = Places::new(3, 2);
        let of = |text: &str| places.take(text.parse().unwrap());
        let (first, second) = (of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert!(first.is_some() && second.is_some());
        assert!(of("2001:db8::2").is_none(), "its network has its share");
        let other = of("192.0.2.1");
        assert!(other.is_some() && of("::ffff:192.0.2.2").is_none(), "all are taken");
        drop(first);
        assert!(of("2001:db8::3").is_some(), "and one is free again");
    }
}
