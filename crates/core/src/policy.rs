//! What an environment allows, and who must agree. One policy per project, with an override per environment.

use crate::{
    names::{Category, Name, Reason},
    net::Range,
    pass::{Access, Pass, Wish},
    people::Role,
    refusal::Refusal,
    time::{Time, Ttl},
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The rules for passes and allow entries. Every limit is a number one can name in a refusal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Shown as the approver of passes that need no person's approval.
    pub name: Name,
    /// The access levels that may be asked for.
    pub access: BTreeSet<Access>,
    /// The access levels that others have to approve first, and how many of them; a level that is not named needs nobody.
    #[serde(default)]
    pub approval: BTreeMap<Access, Approvals>,
    /// Roles whose holders may get in at once without those approvals; somebody else reviews it afterwards.
    #[serde(default)]
    pub break_glass: BTreeSet<Role>,
    /// The lifetime of a pass or entry when none is asked for (seconds).
    pub default_life: Ttl,
    /// The longest lifetime one may ask for (seconds).
    pub longest_life: Ttl,
    /// The longest lifetime with all extensions together (seconds).
    pub longest_total: Ttl,
    /// The least number of characters in a reason, 1 to 1,000.
    pub reason_least: u16,
    /// A pattern that a reason must match somewhere, for example a ticket number.
    pub reason_pattern: Option<Pattern>,
    /// The kinds of reason to choose from; none: no choice is asked for.
    #[serde(default)]
    pub categories: BTreeSet<Category>,
    /// A pattern for the number of a ticket; none: no ticket is asked for.
    #[serde(default)]
    pub ticket_pattern: Option<Pattern>,
    /// Whether the password can be shown again.
    #[serde(default)]
    pub reveal: Reveal,
    /// A session in which nothing happens for so long ends (seconds); none: it may be idle until its pass ends.
    #[serde(default)]
    pub idle: Option<Ttl>,
    /// Whether statements are put on record. Sessions always are.
    #[serde(default = "yes")]
    pub record: bool,
    /// Live passes that one person may hold on one environment.
    pub live_passes: u16,
    /// Sessions at once on one pass. Tools open several: SSMS and DBeaver take about ten.
    pub sessions_per_pass: u16,
    /// The widest IPv4 range, as a prefix length: 24 allows 256 addresses.
    pub widest_v4: u8,
    /// The widest IPv6 range, as a prefix length.
    pub widest_v6: u8,
    /// How many movements may be started on one environment within 24 hours; none: as many as one likes.
    #[serde(default)]
    pub movements_per_day: Option<u16>,
    /// How many days the database that a movement replaced is kept as a way back; 0: it goes at once.
    #[serde(default = "Policy::usual_keep")]
    pub keep_days: u16,
    /// A standing account gets a new password after so many days; none: only when something happens.
    #[serde(default)]
    pub rotate_days: Option<u16>,
    /// And so long after somebody was shown the old one, which is the time to use it in (seconds); none: not for that.
    #[serde(default)]
    pub rotate_after_reveal: Option<Ttl>,
    /// Whether what an account owns when it ends is dropped; else it is given to the environment's heir.
    #[serde(default)]
    pub drop_leftovers: bool,
    /// What an account gets besides reading or writing rows, where the engine has such a right.
    #[serde(default = "Extra::usual")]
    pub extras: BTreeSet<Extra>,
    /// Whether what comes from elsewhere opens only when it was looked through for what is personal.
    #[serde(default)]
    pub masking: Masking,
}

/// What a refresh, an import or another tool has to show before the environment opens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Masking {
    /// Nothing: what is declared is masked.
    #[default]
    Optional,
    /// Each column that looks personal is declared, or there are checks that look at the copy.
    Required,
}

fn yes() -> bool {
    true
}

/// How many others approve.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Approvals {
    One,
    Two,
}

/// How often the password of an account is shown to its holder.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reveal {
    Once,
    #[default]
    WhileValid,
}

/// How far ahead a pass may be asked for.
pub const FURTHEST_START: Ttl = Ttl::hours(14 * 24);

/// A right of SQL Server that is neither reading nor writing rows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extra {
    /// Running procedures and functions: they may write whatever their owner may, also for `read`.
    Execute,
    /// Seeing the text of views and procedures.
    ViewDefinition,
    /// Asking for execution plans.
    Showplan,
}

impl Extra {
    pub const ALL: [Extra; 3] = [Extra::Execute, Extra::ViewDefinition, Extra::Showplan];

    /// What looking for a fault takes, and changes nothing.
    pub fn usual() -> BTreeSet<Extra> {
        [Extra::ViewDefinition, Extra::Showplan].into()
    }

    /// The permission's name in T-SQL.
    pub fn as_sql(self) -> &'static str {
        match self {
            Extra::Execute => "EXECUTE",
            Extra::ViewDefinition => "VIEW DEFINITION",
            Extra::Showplan => "SHOWPLAN",
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            name: "default".parse().unwrap_or_else(|_| unreachable!("a constant that is a name")),
            access: [Access::Read, Access::ReadWrite].into(),
            approval: BTreeMap::new(),
            break_glass: BTreeSet::new(),
            default_life: Ttl::hours(8),
            longest_life: Ttl::hours(8),
            longest_total: Ttl::hours(24),
            reason_least: 3,
            reason_pattern: None,
            categories: BTreeSet::new(),
            ticket_pattern: None,
            reveal: Reveal::default(),
            idle: None,
            record: true,
            live_passes: 5,
            sessions_per_pass: 20,
            widest_v4: 24,
            widest_v6: 64,
            movements_per_day: None,
            keep_days: Policy::usual_keep(),
            rotate_days: None,
            rotate_after_reveal: None,
            drop_leftovers: false,
            extras: Extra::usual(),
            masking: Masking::default(),
        }
    }
}

impl Policy {
    /// Three days: a weekend, and a day to notice.
    fn usual_keep() -> u16 {
        3
    }

    /// Whether the rules make sense together.
    pub fn check(&self) -> Result<(), Refusal> {
        let wrong = |why: &str| Err(Refusal::invalid(format!("Policy '{}': {why}.", self.name)));
        if self.access.is_empty() {
            return wrong("it allows no access at all; name read, read_write or both");
        }
        if self.default_life > self.longest_life || self.longest_life > self.longest_total {
            return wrong("default_life may not be over longest_life, nor longest_life over longest_total");
        }
        if !(1..=1000).contains(&self.reason_least) {
            return wrong("reason_least is between 1 and 1000");
        }
        if self.categories.len() > 50 {
            return wrong("it has at most 50 kinds of reason");
        }
        if self.live_passes == 0 || self.sessions_per_pass == 0 {
            return wrong("live_passes and sessions_per_pass are at least 1");
        }
        if !(8..=32).contains(&self.widest_v4) || !(32..=128).contains(&self.widest_v6) {
            return wrong("widest_v4 is a prefix length of 8 to 32, widest_v6 one of 32 to 128");
        }
        if self.rotate_days == Some(0) {
            return wrong("rotate_days is at least 1; leave it out for never");
        }
        Ok(())
    }

    /// Whether a pass that was given before could not be had under this policy. Who broke the glass did so where that was allowed.
    pub fn forbids(&self, pass: &Pass) -> bool {
        let excused = pass.wish.break_glass && !self.break_glass.is_empty();
        let too_long = pass.ends_at.is_some_and(|ends_at| ends_at > pass.starts_at(pass.approved_at.unwrap_or(pass.requested_at)).after(self.longest_total));
        !self.access.contains(&pass.wish.access) || (pass.agreed.len() < self.approvals(pass.wish.access) && !excused) || too_long
    }

    /// How many other people have to agree to this access.
    pub fn approvals(&self, access: Access) -> usize {
        match self.approval.get(&access) {
            None => 0,
            Some(Approvals::One) => 1,
            Some(Approvals::Two) => 2,
        }
    }

    /// Whether a request may be made as it is, but for the approvals.
    pub fn check_wish(&self, wish: &Wish, now: Time) -> Result<(), Refusal> {
        self.check_access(wish.access)?;
        self.check_reason(&wish.reason)?;
        match &wish.category {
            None if self.categories.is_empty() => {}
            Some(category) if self.categories.contains(category) => {}
            _ => {
                let offered: Vec<_> = self.categories.iter().map(Category::as_str).collect();
                let remedy = match offered.as_slice() {
                    [] => "Leave it out; say it in the reason.".to_owned(),
                    offered => format!("Choose one of: {}.", offered.join(", ")),
                };
                return Err(Refusal::policy(format!("Policy '{}' has no such kind of reason.", self.name), remedy));
            }
        }
        if let Some(pattern) = &self.ticket_pattern
            && !wish.ticket.as_ref().is_some_and(|ticket| pattern.is_match(ticket.as_str()))
        {
            return Err(Refusal::policy(format!("Policy '{}' asks for a ticket like {}.", self.name, pattern.0), "Give the number of the ticket or change."));
        }
        match wish.starts_at {
            Some(start) if start > now.after(FURTHEST_START) => {
                Err(Refusal::policy(format!("{start} is too far ahead: access can be asked for {FURTHEST_START} ahead."), "Ask nearer to the time."))
            }
            _ => Ok(()),
        }
    }

    /// The lifetime that a request gets, or the rule that it breaks.
    pub fn life(&self, asked: Option<Ttl>) -> Result<Ttl, Refusal> {
        match asked {
            None => Ok(self.default_life),
            Some(life) if life <= self.longest_life => Ok(life),
            Some(life) => Err(Refusal::policy(
                format!("{life} is longer than policy '{}' allows: at most {}.", self.name, self.longest_life),
                format!("Ask for {} or less; a pass can be extended later, to {} in all.", self.longest_life, self.longest_total),
            )),
        }
    }

    pub fn check_access(&self, access: Access) -> Result<(), Refusal> {
        if self.access.contains(&access) {
            return Ok(());
        }
        let allowed: Vec<_> = self.access.iter().map(|a| a.as_str()).collect();
        Err(Refusal::policy(format!("Policy '{}' does not allow {} here.", self.name, access.as_str()), format!("Ask for: {}.", allowed.join(", "))))
    }

    pub fn check_reason(&self, reason: &Reason) -> Result<(), Refusal> {
        if reason.visible() < self.reason_least.into() {
            return Err(Refusal::policy(
                format!("The reason is too short: policy '{}' wants at least {} characters.", self.name, self.reason_least),
                "Say in a few words what you need the access for.",
            ));
        }
        match &self.reason_pattern {
            Some(pattern) if !pattern.is_match(reason.as_str()) => Err(Refusal::policy(
                format!("The reason does not contain what policy '{}' asks for: {}.", self.name, pattern.0),
                "Add it, for example the number of the ticket.",
            )),
            _ => Ok(()),
        }
    }

    pub fn check_range(&self, range: &Range) -> Result<(), Refusal> {
        if range.wider_than(self.widest_v4, self.widest_v6) {
            return Err(Refusal::policy(
                format!("{range} is wider than policy '{}' allows: at most a /{} (IPv4) or /{} (IPv6).", self.name, self.widest_v4, self.widest_v6),
                "Enter just the address that you work from; `daypass allow` without an address enters it for you.",
            ));
        }
        Ok(())
    }
}

/// A regular expression that is known to compile (at most 200 characters; matching takes linear time).
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(transparent)]
pub struct Pattern(String);

impl Pattern {
    fn is_match(&self, text: &str) -> bool {
        // compiled at each request: requests are rare, and a ledger without compiled state stays a plain value
        regex_lite::Regex::new(&self.0).is_ok_and(|pattern| pattern.is_match(text))
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Pattern {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > 200 {
            return Err("a pattern has at most 200 characters".to_owned());
        }
        regex_lite::Regex::new(text).map(|_| Pattern(text.to_owned())).map_err(|e| format!("'{text}' is not a pattern: {e}"))
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_rule_and_the_way_out() {
        let policy = Policy { reason_pattern: Some("[A-Z]+-[0-9]+".parse().unwrap()), ..Policy::default() };
        let refused = policy.life(Some(Ttl::hours(9))).unwrap_err().to_string();
        assert_eq!(refused, "9 h is longer than policy 'default' allows: at most 8 h. Ask for 8 h or less; a pass can be extended later, to 24 h in all.");
        assert!(policy.check_reason(&"a look around".parse().unwrap()).unwrap_err().message.contains("[A-Z]+"));
        assert!(policy.check_reason(&"OPS-17 a look around".parse().unwrap()).is_ok());
        assert!(policy.check_range(&"10.0.0.0/16".parse().unwrap()).unwrap_err().message.contains("/24"));
    }

    #[test]
    fn a_policy_that_contradicts_itself_is_refused() {
        assert!(Policy::default().check().is_ok());
        assert!(Policy { default_life: Ttl::hours(9), ..Policy::default() }.check().is_err());
        assert!(Policy { access: BTreeSet::new(), ..Policy::default() }.check().is_err());
        assert!(Policy { widest_v4: 0, ..Policy::default() }.check().is_err());
        assert!(serde_json::from_str::<Policy>(r#"{"name":"x","acces":[]}"#).is_err(), "an unknown key is an error");
    }
}
