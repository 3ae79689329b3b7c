//! Connections on which nobody has signed in. When there is no place left, one of them gives its own to whoever comes: of the address that has
//! most of them, the oldest. So whoever holds many keeps nobody out who signs in at once.

use super::guard::SignedIn;
use daypass_gateway::{
    places::network,
    ranked::{Held, Rank, Ranked},
};
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};
use tokio::sync::Notify;

pub struct Strangers(Ranked<Known>);

#[derive(Default)]
struct Known {
    next: u64,
    connections: BTreeMap<u64, Connection>,
}

struct Connection {
    address: IpAddr,
    signed_in: SignedIn,
    out: Arc<Notify>,
}

impl Default for Strangers {
    fn default() -> Self {
        Strangers(Ranked::new(Rank::Strangers, Known::default()))
    }
}

/// A connection, for as long as it is there.
pub struct Stranger {
    all: Arc<Strangers>,
    number: u64,
    address: IpAddr,
    signed_in: SignedIn,
    out: Arc<Notify>,
}

impl Strangers {
    pub fn note(self: &Arc<Self>, address: IpAddr) -> Stranger {
        let (address, signed_in, out) = (network(address), SignedIn::default(), Arc::new(Notify::new()));
        let mut known = self.lock();
        let number = known.next;
        known.next += 1;
        known.connections.insert(number, Connection { address, signed_in: signed_in.clone(), out: out.clone() });
        drop(known);
        Stranger { all: self.clone(), number, address, signed_in, out }
    }

    /// Puts one out for another; false when all others are signed in. Whose address has its share already gets the place of one of its own.
    pub fn make_room(&self, newcomer: &Stranger, share: usize) -> bool {
        let mut known = self.lock();
        let others = || known.connections.iter().filter(|(number, one)| **number != newcomer.number && !one.signed_in.0.load(Relaxed));
        let mut of = HashMap::<IpAddr, usize>::new();
        for (_, one) in others() {
            *of.entry(one.address).or_default() += 1;
        }
        let all_of_mine = known.connections.values().filter(|one| one.address == newcomer.address).count();
        let most = if all_of_mine > share { of.get_key_value(&newcomer.address) } else { of.iter().max_by_key(|(_, count)| **count) };
        let Some((&address, _)) = most else { return false };
        let oldest = others().find(|(_, one)| one.address == address).map(|(number, _)| *number);
        // the next one that comes gets the place of another
        oldest.and_then(|number| known.connections.remove(&number)).inspect(|one| one.out.notify_one()).is_some()
    }

    fn lock(&self) -> Held<'_, Known> {
        self.0.lock()
    }
}

impl Stranger {
    pub fn signed_in(&self) -> SignedIn {
        self.signed_in.clone()
    }

    /// Until its place is somebody else's.
    pub async fn put_out(&self) {
        self.out.notified().await;
        // who signed in at that very moment stays
        if self.signed_in.0.load(Relaxed) {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.all.lock().connections.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn whoever_has_most_and_signs_nobody_in_gives_a_place_to_whoever_comes() {
        let all = Arc::new(Strangers::default());
        let from = |text: &str| all.note(text.parse().unwrap());
        let (few, many) = (from("192.0.2.1"), [from("198.51.100.1"), from("198.51.100.1"), from("198.51.100.1")]);
        many[0].signed_in().0.store(true, Relaxed);
        let comes = from("203.0.113.1");
        assert!(all.make_room(&comes, 10));
        let out = |one: &Stranger| one.put_out().now_or_never().is_some();
        assert!(!out(&few) && !out(&many[0]) && out(&many[1]) && !out(&many[2]), "the oldest of the address with most, who has not signed in");
        // one whose address has its share gets a place of its own address, whoever has more
        let mine = from("192.0.2.1");
        assert!(all.make_room(&mine, 1) && out(&few));
        for one in [&many[0], &many[1], &many[2], &few, &mine] {
            one.signed_in().0.store(true, Relaxed);
        }
        assert!(!all.make_room(&comes, 10), "all are signed in");
    }
}
