//! What people and the keeper ask of the ledger. Ids, random salts and hashes come from the shell that builds the command.

use crate::{
    drift::{Finding, Verdict},
    environment::*,
    ids::*,
    masks::Masks,
    movement::{Kept, Made, MovementKind, Phase, Swept},
    names::*,
    net::Range,
    pass::{Digest, Wish},
    people::*,
    policy::Policy,
    secret::TokenHash,
    time::*,
};

#[derive(Clone, Debug)]
pub enum Command {
    AddUser {
        user: UserId,
        name: UserName,
        roles: Vec<(Role, Scope)>,
    },
    /// The administrator with whom everything begins. Only while there is nobody.
    AddFirstUser {
        user: UserId,
        name: UserName,
    },
    LockUser {
        user: UserId,
        why: Reason,
    },
    UnlockUser {
        user: UserId,
    },
    /// A provider says who somebody is. Who is not known yet becomes a person, with the id and the name given here.
    SignInFrom {
        user: UserId,
        name: UserName,
        issuer: String,
        subject: String,
        roles: Vec<(Role, Scope)>,
    },
    /// Where one's notices go; an administrator sets it for others.
    SetMail {
        user: UserId,
        mail: Option<Mail>,
    },
    /// A new password for oneself, or (administrators) for somebody else.
    ChangePassword {
        user: UserId,
    },
    SetSecondFactor {
        user: UserId,
    },
    /// By the person, or by an administrator when the device is lost.
    RemoveSecondFactor {
        user: UserId,
    },
    GiveRole {
        user: UserId,
        role: Role,
        scope: Scope,
    },
    TakeRole {
        user: UserId,
        role: Role,
        scope: Scope,
    },
    AddToken {
        token: TokenId,
        user: UserId,
        label: String,
        hash: TokenHash,
        life: Ttl,
        kind: TokenKind,
        /// Its person has just proved who they are.
        proved: bool,
    },
    RemoveToken {
        token: TokenId,
    },

    AddProject {
        project: ProjectId,
        name: Name,
    },
    SetPolicy {
        scope: Scope,
        policy: Policy,
    },
    /// Changes where the server of an environment is and how it is reached; whoever asks has tried it.
    SetTarget {
        environment: EnvironmentId,
        spec: TargetSpec,
    },
    /// `target` is used when no known target has the same engine, host and port.
    AddEnvironment {
        environment: EnvironmentId,
        project: ProjectId,
        target: TargetId,
        target_spec: TargetSpec,
        spec: EnvironmentSpec,
    },
    RemoveEnvironment {
        environment: EnvironmentId,
    },
    /// Changes how accounts of an environment get their rights, and who may use what they leave.
    SetAccounts {
        environment: EnvironmentId,
        grants: Grants,
        heir: Option<String>,
    },
    /// Changes what movements mask in its database.
    SetMasks {
        environment: EnvironmentId,
        masks: Masks,
    },

    SetKind {
        environment: EnvironmentId,
        kind: Kind,
    },
    AddStanding {
        standing: StandingId,
        environment: EnvironmentId,
        name: RoleName,
        note: Option<Reason>,
    },
    RemoveStanding {
        standing: StandingId,
    },
    RevealStanding {
        standing: StandingId,
        why: Reason,
    },
    RotateStanding {
        standing: StandingId,
    },
    /// Turning it off removes the machine credentials.
    SetRemoteDesktop {
        environment: EnvironmentId,
        on: bool,
    },
    AddMachine {
        machine: MachineId,
        environment: EnvironmentId,
        host: Host,
        user: String,
        note: Option<Reason>,
    },
    RemoveMachine {
        machine: MachineId,
    },
    RevealMachine {
        machine: MachineId,
        why: Reason,
    },

    /// Somebody fetches a dump; of which environment it is, when an export made it.
    FetchFile {
        file: FileName,
        environment: Option<EnvironmentId>,
    },

    /// What somebody says about something that others made on a target.
    JudgeDrift {
        target: TargetId,
        finding: Finding,
        verdict: Verdict,
    },

    /// For oneself, for somebody else, or shared.
    AddAllow {
        entry: AllowId,
        environment: EnvironmentId,
        owner: AllowFor,
        ranges: Vec<Range>,
        note: Option<Reason>,
        life: Option<Ttl>,
    },
    RemoveAllow {
        entry: AllowId,
    },

    RequestPass {
        pass: PassId,
        environment: EnvironmentId,
        wish: Wish,
        life: Option<Ttl>,
        salt: u64,
    },
    /// `digest` is that of the request as the approver saw it.
    ApprovePass {
        pass: PassId,
        digest: Digest,
        word: Option<Reason>,
    },
    /// The holder is about to be shown the password.
    RevealPass {
        pass: PassId,
    },
    /// Closes the review of a pass that was taken by breaking the glass.
    ReviewPass {
        pass: PassId,
        word: Reason,
    },
    DenyPass {
        pass: PassId,
        why: Reason,
    },
    /// By the holder: given back or withdrawn. By somebody else: revoked, which needs a reason.
    EndPass {
        pass: PassId,
        why: Option<Reason>,
    },
    ExtendPass {
        pass: PassId,
        by: Ttl,
    },

    /// `notice`: how long before the cut holders are told at least; none: access ends when the new database is ready.
    BeginMovement {
        movement: MovementId,
        environment: EnvironmentId,
        kind: MovementKind,
        why: Reason,
        notice: Option<Ttl>,
        /// Access ends at this time, neither before, nor long after it when all is ready.
        swap_at: Option<Time>,
        /// When it fails after access has ended, nobody gets in until a person says so.
        stay_closed: bool,
    },
    /// Before it began: it does not. While it runs: it stops, and the database of before opens again.
    CancelMovement {
        movement: MovementId,
        why: Reason,
    },
    FailMovement {
        movement: MovementId,
        why: Reason,
    },
    /// A failed one of ours, once more.
    RetryMovement {
        movement: MovementId,
    },
    /// Another tool's movement is done, or a failed one is to keep the environment closed no longer.
    FinishMovement {
        movement: MovementId,
    },

    /// Its server may go over to a replica within this time, which may lack the last moments: that is no replacement.
    ExpectFailover {
        environment: EnvironmentId,
        within: Ttl,
    },

    /// The keeper's reports of what it observed. Only [`crate::event::Actor::System`] may make them.
    Observed(Observed),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AllowFor {
    Myself,
    Person(UserId),
    Everyone,
}

#[derive(Clone, Debug)]
pub enum Observed {
    Identity {
        environment: EnvironmentId,
        identity: Identity,
    },
    /// The same database, but its server was put back to an earlier moment.
    SetBack {
        environment: EnvironmentId,
        identity: Identity,
    },
    LoginWorks {
        pass: PassId,
    },
    /// The account is gone and no backend of it is left.
    Gone {
        pass: PassId,
    },
    /// The pass waits for an approval that will not come any more.
    Lapse {
        pass: PassId,
    },
    /// The account could not be made in the time that there is for it, and why.
    NotMade {
        pass: PassId,
        why: String,
    },
    /// How long the pass has been open cannot be said: the clock was wrong.
    ClockDoubted {
        pass: PassId,
    },
    /// What the account of a pass leaves behind.
    Left {
        pass: PassId,
        left: Vec<String>,
        dropped: bool,
    },
    /// What of other environments was found in this one's database and lost its rights there.
    DatabaseSwept {
        environment: EnvironmentId,
        swept: Vec<Swept>,
    },
    /// All that others made on a target, at this look.
    Drift {
        target: TargetId,
        found: Vec<Finding>,
    },
    /// A new password for a standing account lies sealed.
    Rotating {
        standing: StandingId,
    },
    Rotated {
        standing: StandingId,
    },
    /// The time that holders were given is over, or nobody has access any more.
    Due {
        movement: MovementId,
    },
    Reached {
        movement: MovementId,
        phase: Phase,
    },
    Swept {
        movement: MovementId,
        swept: Vec<Swept>,
    },
    Moved {
        movement: MovementId,
        kept: Option<Kept>,
        made: Option<Made>,
    },
    KeptGone {
        movement: MovementId,
    },
}
