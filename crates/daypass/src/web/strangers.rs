//! Whose connections give their places up. When there is none left, one on which nobody has signed in gives its own to whoever comes: of the
//! address that has most of them, the oldest; or, where a person has more than that, the oldest of theirs. So whoever holds many keeps nobody out
//! who signs in at once.

use super::guard::SignedIn;
use daypass_gateway::{
    places::network,
    ranked::{Held, Rank, Ranked},
};
use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};
use tokio::sync::Notify;

/// So many connections a person keeps, whoever comes.
const OF_PERSON: usize = 16;

pub struct Strangers(Ranked<Known>);

#[derive(Default)]
struct Known {
    next: u64,
    connections: BTreeMap<u64, Connection>,
}

struct Connection {
    address: IpAddr,
    signed_in: SignedIn,
    out: Arc<Out>,
}

#[derive(Default)]
struct Out {
    told: Notify,
    /// Also somebody who has signed in.
    whoever: AtomicBool,
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
    out: Arc<Out>,
}

impl Strangers {
    pub fn note(self: &Arc<Self>, address: IpAddr) -> Stranger {
        let (address, signed_in, out) = (network(address), SignedIn::default(), Arc::new(Out::default()));
        let mut known = self.lock();
        let number = known.next;
        known.next += 1;
        known.connections.insert(number, Connection { address, signed_in: signed_in.clone(), out: out.clone() });
        drop(known);
        Stranger { all: self.clone(), number, address, signed_in, out }
    }

    /// Puts one out for another; false when nobody has more than their own. Whose address has its share already gets the place of one of its own.
    pub fn make_room(&self, newcomer: &Stranger, share: usize) -> bool {
        let mut known = self.lock();
        let all_of_mine = known.connections.values().filter(|one| one.address == newcomer.address).count();
        let of_mine = |one: &Connection| all_of_mine <= share || one.address == newcomer.address;
        let others = || known.connections.iter().filter(|(number, one)| **number != newcomer.number && of_mine(one));
        let strangers = most(others().filter(|(_, one)| one.signed_in.who().is_none()).map(|(_, one)| one.address));
        let people = most(others().filter_map(|(_, one)| one.signed_in.who())).filter(|(_, count)| *count > OF_PERSON);
        let one = match (strangers, people) {
            // a stranger may be about to sign in, and is not to give way to the next connection of who has most
            (Some((_, few)), Some((user, many))) if many > few => others().find(|(_, one)| one.signed_in.who() == Some(user)),
            (Some((address, _)), _) => others().find(|(_, one)| one.signed_in.who().is_none() && one.address == address),
            (None, Some((user, _))) => others().find(|(_, one)| one.signed_in.who() == Some(user)),
            (None, None) => None,
        };
        let Some(number) = one.map(|(number, _)| *number) else { return false };
        // the next one that comes gets the place of another
        known.connections.remove(&number).inspect(|one| {
            one.out.whoever.store(one.signed_in.who().is_some(), Relaxed);
            one.out.told.notify_one();
        });
        true
    }

    fn lock(&self) -> Held<'_, Known> {
        self.0.lock()
    }
}

/// What there is most of, and how many.
fn most<K: Hash + Eq>(all: impl Iterator<Item = K>) -> Option<(K, usize)> {
    let mut of = HashMap::<K, usize>::new();
    all.for_each(|one| *of.entry(one).or_default() += 1);
    of.into_iter().max_by_key(|(_, count)| *count)
}

impl Stranger {
    pub fn signed_in(&self) -> SignedIn {
        self.signed_in.clone()
    }

    /// Until its place is somebody else's.
    pub async fn put_out(&self) {
        self.out.told.notified().await;
        // who signed in at that very moment stays
        if self.signed_in.who().is_some() && !self.out.whoever.load(Relaxed) {
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
    use daypass_core::ids::UserId;
    use futures_util::FutureExt;

    #[test]
    fn whoever_has_most_and_signs_nobody_in_gives_a_place_to_whoever_comes() {
        let all = Arc::new(Strangers::default());
        let from = |text: &str| all.note(text.parse().unwrap());
        let (few, many) = (from("192.0.2.1"), [from("198.51.100.1"), from("198.51.100.1"), from("198.51.100.1")]);
        let person = |n: u128| UserId::new(uuid::Uuid::from_u128(n));
        many[0].signed_in().is(person(1));
        let comes = from("203.0.113.1");
        assert!(all.make_room(&comes, 10));
        let out = |one: &Stranger| one.put_out().now_or_never().is_some();
        assert!(!out(&few) && !out(&many[0]) && out(&many[1]) && !out(&many[2]), "the oldest of the address with most, who has not signed in");
        // one whose address has its share gets a place of its own address, whoever has more
        let mine = from("192.0.2.1");
        assert!(all.make_room(&mine, 1) && out(&few));
        for one in [&many[0], &many[1], &many[2], &few, &mine] {
            one.signed_in().is(person(2));
        }
        assert!(!all.make_room(&comes, 10), "all are signed in, and nobody has many");
        let hoard: Vec<Stranger> = (0..40).map(|n| from(if n % 2 == 0 { "192.0.2.7" } else { "198.51.100.7" })).collect();
        hoard.iter().for_each(|one| one.signed_in().is(person(3)));
        let signs_in = from("203.0.113.9");
        for oldest in &hoard[..40 - OF_PERSON] {
            assert!(all.make_room(&comes, 100) && out(oldest), "the oldest of who has most");
        }
        assert!(!out(&signs_in), "who is about to sign in is not put out for who has many");
        assert!(all.make_room(&comes, 100) && out(&signs_in) && !all.make_room(&comes, 100), "the rest is theirs");
    }
}
