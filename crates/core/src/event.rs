//! The events of the log. An event says what became true; it holds no secret and nothing that grows with traffic.

use crate::{
    allow::Owner,
    drift::{Finding, Verdict},
    environment::*,
    ids::*,
    masks::Masks,
    movement::{Kept, Made, MovementKind, Phase, Swept},
    names::*,
    net::Range,
    pass::*,
    people::*,
    policy::Policy,
    secret::TokenHash,
    time::*,
};
use serde::{Deserialize, Serialize};

/// On whose behalf something happened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    User(UserId),
    /// Daypass itself: the keeper, or the first start.
    System,
}

/// One event with its place in the log.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// 1 for the first, without gaps.
    pub seq: u64,
    pub at: Time,
    pub by: Actor,
    pub event: Event,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    StoreCreated {
        store: StoreId,
    },

    UserAdded {
        user: UserId,
        name: UserName,
    },
    UserLocked {
        user: UserId,
        why: Reason,
    },
    UserUnlocked {
        user: UserId,
    },
    /// The new hash lies sealed beside the log.
    PasswordChanged {
        user: UserId,
    },
    /// From now on a password alone signs this person in no more.
    SecondFactorSet {
        user: UserId,
    },
    SecondFactorRemoved {
        user: UserId,
    },
    /// A person signs in with a provider, as this subject of this issuer.
    UserLinked {
        user: UserId,
        issuer: String,
        subject: String,
    },
    /// Where notices go; none: nowhere.
    MailSet {
        user: UserId,
        mail: Option<Mail>,
    },
    /// The roles that follow from the groups that the provider named; they take the place of those of the last time.
    GroupRolesSet {
        user: UserId,
        roles: Vec<(Role, Scope)>,
    },
    RoleGiven {
        user: UserId,
        role: Role,
        scope: Scope,
    },
    RoleTaken {
        user: UserId,
        role: Role,
        scope: Scope,
    },
    TokenAdded {
        token: TokenId,
        user: UserId,
        label: String,
        hash: TokenHash,
        ends_at: Time,
        #[serde(default)]
        kind: TokenKind,
        /// Its person has just proved who they are; not so for one that a script made with another.
        #[serde(default)]
        proved: bool,
    },
    TokenRemoved {
        token: TokenId,
    },

    ProjectAdded {
        project: ProjectId,
        name: Name,
    },
    PolicySet {
        scope: Scope,
        policy: Policy,
    },
    TargetAdded {
        target: TargetId,
        spec: TargetSpec,
    },
    TargetChanged {
        target: TargetId,
        spec: TargetSpec,
    },
    EnvironmentAdded {
        environment: EnvironmentId,
        project: ProjectId,
        target: TargetId,
        spec: EnvironmentSpec,
    },
    EnvironmentRemoved {
        environment: EnvironmentId,
    },
    AccountsSet {
        environment: EnvironmentId,
        grants: Grants,
        heir: Option<String>,
    },
    /// What movements mask in the database from now on.
    MasksSet {
        environment: EnvironmentId,
        masks: Masks,
    },
    /// The first look at the database of this epoch.
    DatabaseIdentified {
        environment: EnvironmentId,
        identity: Identity,
    },
    /// The identity is another one, and no movement was running. Ends the epoch.
    DatabaseReplaced {
        environment: EnvironmentId,
        identity: Identity,
    },

    /// Said beforehand: until then, a server that lacks its last moments is a replica that took over, and no replacement.
    FailoverExpected {
        environment: EnvironmentId,
        until: Time,
    },

    KindSet {
        environment: EnvironmentId,
        kind: Kind,
    },
    /// Its password lies sealed beside the log.
    StandingAdded {
        standing: StandingId,
        environment: EnvironmentId,
        name: RoleName,
        note: Option<Reason>,
    },
    StandingRemoved {
        standing: StandingId,
        environment: EnvironmentId,
        name: RoleName,
    },
    StandingRevealed {
        standing: StandingId,
        why: Reason,
    },
    StandingRotationAsked {
        standing: StandingId,
    },
    /// A new password lies sealed, and the target is about to be given it.
    StandingRotating {
        standing: StandingId,
    },
    /// A real login with the new password succeeded.
    StandingRotated {
        standing: StandingId,
    },
    RemoteDesktopSet {
        environment: EnvironmentId,
        on: bool,
    },
    MachineAdded {
        machine: MachineId,
        environment: EnvironmentId,
        host: Host,
        user: String,
        note: Option<Reason>,
    },
    MachineRemoved {
        machine: MachineId,
        environment: EnvironmentId,
        host: Host,
    },
    MachineRevealed {
        machine: MachineId,
        why: Reason,
    },

    DriftFound {
        target: TargetId,
        finding: Finding,
    },
    /// It is not there any more.
    DriftGone {
        target: TargetId,
        finding: Finding,
    },
    /// A dump was fetched: whoever did so has the database, as it was.
    FileFetched {
        file: FileName,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        environment: Option<EnvironmentId>,
    },
    DriftJudged {
        target: TargetId,
        finding: Finding,
        verdict: Verdict,
    },

    /// What bears our mark and belongs to other environments was found in the database, and lost its rights there.
    DatabaseSwept {
        environment: EnvironmentId,
        swept: Vec<Swept>,
    },

    AllowAdded {
        entry: AllowId,
        environment: EnvironmentId,
        owner: Owner,
        ranges: Vec<Range>,
        note: Option<Reason>,
        ends_at: Time,
    },
    /// It lasts longer: it was entered again, or the pass that it goes with was extended.
    AllowRenewed {
        entry: AllowId,
        ends_at: Time,
    },
    AllowRemoved {
        entry: AllowId,
    },

    PassRequested {
        pass: PassId,
        environment: EnvironmentId,
        holder: UserId,
        account: AccountName,
        wish: Wish,
        life: Ttl,
    },
    /// One of several approvals that the policy asks for.
    PassAgreed {
        pass: PassId,
        by: UserId,
        digest: Digest,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        word: Option<Reason>,
    },
    PassApproved {
        pass: PassId,
        approver: Approver,
        ends_at: Time,
        /// What a person agreed to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        digest: Option<Digest>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        word: Option<Reason>,
    },
    PassDenied {
        pass: PassId,
        why: Reason,
    },
    PassWithdrawn {
        pass: PassId,
    },
    PassLapsed {
        pass: PassId,
    },
    /// The account exists and a real login with it succeeded.
    PassReady {
        pass: PassId,
    },
    /// Its holder was shown the password.
    PassRevealed {
        pass: PassId,
    },
    /// Somebody else looked at a pass that was taken by breaking the glass.
    PassReviewed {
        pass: PassId,
        word: Reason,
    },
    PassExtended {
        pass: PassId,
        ends_at: Time,
    },
    /// What its account owned when it ended, or had prepared; seen before anything of it was touched.
    PassLeft {
        pass: PassId,
        left: Vec<String>,
        /// Whether the policy has it dropped; else it is given away.
        dropped: bool,
    },
    PassEnding {
        pass: PassId,
        cause: Cause,
    },
    /// An observation of the target showed no account and no backend.
    PassEnded {
        pass: PassId,
        cause: Cause,
    },

    /// Holders are told, and the new database is made beside the old one. Access ends when it is ready and it is `cuts_at`, or when nobody
    /// has any more.
    MovementPlanned {
        movement: MovementId,
        environment: EnvironmentId,
        kind: MovementKind,
        why: Reason,
        cuts_at: Time,
        /// Not before `cuts_at` either when nobody has access.
        #[serde(default, skip_serializing_if = "is_no")]
        exactly: bool,
        /// When it fails after access has ended, nobody gets in until a person says so. Always, before this was written.
        #[serde(default = "yes", skip_serializing_if = "is_yes")]
        stay_closed: bool,
    },
    /// Given up before it began.
    MovementWithdrawn {
        movement: MovementId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<Reason>,
    },
    /// Ends the epoch and freezes the environment, unless it only copies.
    MovementBegun {
        movement: MovementId,
        environment: EnvironmentId,
        kind: MovementKind,
        why: Reason,
        /// As in `MovementPlanned`, which goes before.
        #[serde(default = "yes", skip_serializing_if = "is_yes")]
        stay_closed: bool,
    },
    MovementReached {
        movement: MovementId,
        phase: Phase,
    },
    /// What came inside the copy, and what was done about it.
    MovementSwept {
        movement: MovementId,
        swept: Vec<Swept>,
    },
    MovementFailed {
        movement: MovementId,
        why: Reason,
    },
    /// It failed, and runs once more from the beginning.
    MovementRetried {
        movement: MovementId,
    },
    /// The environment is open again.
    MovementFinished {
        movement: MovementId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kept: Option<Kept>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        made: Option<Made>,
    },
    /// The database that was put aside is gone: its time was over, or it was brought back.
    MovementKeptGone {
        movement: MovementId,
    },
}

impl Event {
    /// The movement that it is about.
    pub fn movement(&self) -> Option<MovementId> {
        match self {
            Event::MovementPlanned { movement, .. }
            | Event::MovementWithdrawn { movement, .. }
            | Event::MovementBegun { movement, .. }
            | Event::MovementReached { movement, .. }
            | Event::MovementSwept { movement, .. }
            | Event::MovementFailed { movement, .. }
            | Event::MovementRetried { movement }
            | Event::MovementFinished { movement, .. }
            | Event::MovementKeptGone { movement } => Some(*movement),
            _ => None,
        }
    }
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_yes(value: &bool) -> bool {
    *value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_no(value: &bool) -> bool {
    !*value
}
