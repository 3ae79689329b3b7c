//! Allow entries: the addresses that may reach an environment, until when, and for whom.

use crate::{ids::*, names::Reason, net::Range, time::Time};
use prefix_trie::joint::map::JointPrefixMap;
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

/// Whose connections an entry lets through.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    Person(UserId),
    /// Entered by a manager for everyone with a pass.
    Shared,
}

#[derive(Clone, Debug)]
pub struct AllowEntry {
    pub id: AllowId,
    pub environment: EnvironmentId,
    pub owner: Owner,
    pub ranges: Vec<Range>,
    pub note: Option<Reason>,
    pub added_at: Time,
    pub ends_at: Time,
    pub epoch: u32,
    pub removed_at: Option<Time>,
}

impl AllowEntry {
    /// Whether the entry counts, given the environment's epoch.
    pub fn is_live(&self, epoch: u32, now: Time) -> bool {
        self.removed_at.is_none() && self.epoch == epoch && now < self.ends_at
    }
}

/// Entries by their ranges.
type Tree = JointPrefixMap<ipnet::IpNet, Vec<AllowId>>;

/// All entries, found by (environment, owner) and then by longest prefix. There is no "everybody": an empty list lets nobody in.
#[derive(Clone, Debug, Default)]
pub struct AllowList {
    entries: BTreeMap<AllowId, AllowEntry>,
    by_owner: HashMap<(EnvironmentId, Owner), Tree>,
}

impl AllowList {
    pub fn add(&mut self, entry: AllowEntry) {
        let tree = self.by_owner.entry((entry.environment, entry.owner)).or_default();
        for block in entry.ranges.iter().flat_map(Range::blocks) {
            tree.entry(block).or_default().push(entry.id);
        }
        self.entries.insert(entry.id, entry);
    }

    /// Lets an entry last longer; it is never shortened.
    pub fn renew(&mut self, id: AllowId, ends_at: Time) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        entry.ends_at = entry.ends_at.max(ends_at);
        true
    }

    /// The live entry of just these addresses for this owner.
    pub fn same(&self, environment: EnvironmentId, owner: Owner, ranges: &[Range], epoch: u32, now: Time) -> Option<&AllowEntry> {
        self.entries.values().find(|entry| entry.environment == environment && entry.owner == owner && entry.ranges == ranges && entry.is_live(epoch, now))
    }

    /// Takes an entry out of the lookup; the record of it stays.
    pub fn remove(&mut self, id: AllowId, at: Time) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        entry.removed_at = Some(at);
        if let Some(tree) = self.by_owner.get_mut(&(entry.environment, entry.owner)) {
            for block in entry.ranges.iter().flat_map(Range::blocks) {
                if let Some(ids) = tree.get_mut(&block) {
                    ids.retain(|other| *other != id);
                }
            }
        }
        true
    }

    /// Until when this person may come from this address, if at all: the latest end of the entries that cover it.
    pub fn until(&self, environment: EnvironmentId, person: UserId, address: IpAddr, epoch: u32, now: Time) -> Option<Time> {
        let owners = [Owner::Person(person), Owner::Shared].into_iter();
        let trees = owners.filter_map(|owner| self.by_owner.get(&(environment, owner)));
        self.covering(trees, address, epoch, now).map(|entry| entry.ends_at).max()
    }

    /// Whether anybody may come from this address.
    pub fn lets_somebody_in(&self, environment: EnvironmentId, address: IpAddr, epoch: u32, now: Time) -> bool {
        let trees = self.by_owner.iter().filter(|((place, _), _)| *place == environment).map(|(_, tree)| tree);
        self.covering(trees, address, epoch, now).next().is_some()
    }

    /// The live entries of these that cover an address.
    fn covering<'a>(&'a self, trees: impl Iterator<Item = &'a Tree>, address: IpAddr, epoch: u32, now: Time) -> impl Iterator<Item = &'a AllowEntry> {
        let host = ipnet::IpNet::from(address.to_canonical());
        let ids = trees.flat_map(move |tree| tree.cover_values(&host).collect::<Vec<_>>()).flatten();
        ids.filter_map(|id| self.entries.get(id)).filter(move |entry| entry.is_live(epoch, now))
    }

    pub fn get(&self, id: AllowId) -> Option<&AllowEntry> {
        self.entries.get(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &AllowEntry> {
        self.entries.values()
    }
}
