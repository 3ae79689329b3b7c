//! What goes over the API, in both directions: the server writes these and the CLI reads them.

mod drift;
mod managed;
mod movement;

pub use drift::*;
pub use managed::*;
pub use movement::*;

use daypass_core::{
    environment::{Enforce, Grants},
    masks::Masks,
    pass::Access,
    people::Role,
    policy::{Approvals, Extra, Masking, Policy, Reveal},
    time::Ttl,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Signing in with name and password.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    pub name: String,
    pub password: String,
    /// The six digits of the second factor, where one is set.
    #[serde(default)]
    pub code: Option<String>,
}

/// A command line that waits for its person.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct DeviceIssued {
    /// What to ask for the token with.
    pub device_code: String,
    /// What the person types on the page.
    pub code: String,
    /// The page.
    pub url: String,
    /// How long both are good for.
    pub seconds: u64,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceToken {
    pub device_code: String,
}

/// The first administrator.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FirstRequest {
    /// What stands behind `/first/` in the one-time link.
    pub code: String,
    pub name: String,
    /// 10 to 512 characters.
    pub password: String,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordChange {
    pub old: String,
    pub new: String,
    #[serde(default)]
    pub code: Option<String>,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPassword {
    pub password: String,
}

/// What an authenticator is told.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct SecondFactorKey {
    pub key: String,
    /// The same as an `otpauth:` address.
    pub address: String,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecondFactorSet {
    pub key: String,
    /// What the authenticator shows for it.
    pub code: String,
    pub password: String,
    /// A code of the second factor of before, if there was one.
    #[serde(default)]
    pub old_code: Option<String>,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecondFactorRemoved {
    pub password: String,
    #[serde(default)]
    pub code: Option<String>,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MailSet {
    /// None: no notices.
    pub mail: Option<String>,
}

/// A sign-in or a token, without what it is made of.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    pub id: String,
    pub label: String,
    /// A sign-in in a browser; it opens pages and no calls.
    pub browser: bool,
    pub added_at: String,
    pub ends_at: String,
    /// The one that this call was made with.
    pub this_one: bool,
}

/// A token: shown once, and only here.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct TokenIssued {
    pub id: String,
    pub token: String,
    pub ends_at: String,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// What it is for.
    pub label: String,
    /// Seconds, 1 to 2,592,000 (30 days).
    pub life: u64,
}

#[derive(Serialize, Deserialize, ToSchema)]
pub struct Me {
    pub name: String,
    /// The address that this request came from.
    pub address: String,
    pub roles: Vec<RoleView>,
}

/// A role and where it holds: everywhere, in a project, or on an environment.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleView {
    #[schema(value_type = String, example = "requester")]
    pub role: Role,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPerson {
    pub name: String,
    /// Without one the person signs in by token only.
    #[serde(default)]
    pub password: Option<String>,
    #[serde(default)]
    pub roles: Vec<RoleView>,
}

#[derive(Serialize, Deserialize, ToSchema)]
pub struct PersonView {
    pub name: String,
    pub roles: Vec<RoleView>,
    /// Why the person is locked, while they are.
    pub locked: Option<String>,
    /// Whether signing in takes a code as well.
    pub second_factor: bool,
    /// Where notices go.
    pub mail: Option<String>,
}

/// A reason for something that is done to somebody else.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Why {
    #[serde(default)]
    pub why: Option<String>,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewProject {
    pub name: String,
}

/// What is to change about the accounts of an environment; what is left out stays. Accounts that are there get their rights anew.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetAccounts {
    /// `granted`: rights per schema by a group role; `predefined`: PostgreSQL's own roles that read and write all data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "granted")]
    pub grants: Option<Grants>,
    /// The role that may use what accounts leave; an empty text: the owner of the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heir: Option<String>,
}

/// What a movement masks in an environment's database before anybody is let in.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MasksView {
    /// By schema, table and column: `"keep"`, `"null"`, `"hash"`, `"mail"`, `"shuffle"`, `{"constant": "text"}`, `{"partial": {"first": 0, "last": 4}}`
    /// (characters, 20 at most) or `{"shift_days": 30}` (1 to 3,650). 2,000 columns at most.
    #[schema(value_type = Object, example = json!({"public": {"people": {"mail": "mail", "born": {"shift_days": 30}}}}))]
    pub masks: Masks,
}

impl MasksView {
    /// In the form of masks.toml.
    pub fn read(text: &str) -> Result<MasksView, String> {
        toml::from_str(text).map(|masks| MasksView { masks }).map_err(|e| e.to_string())
    }

    /// In the form that is read: a table a header, a column a line.
    pub fn text(&self) -> String {
        let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let key = |name: &str| if name.chars().all(bare) { name.to_owned() } else { toml::Value::from(name).to_string() };
        let (mut text, mut table) = (String::new(), None);
        for (column, mask) in self.masks.iter() {
            let place = (&column.schema, &column.table);
            if table != Some(place) {
                let space = if text.is_empty() { "" } else { "\n" };
                text += &format!("{space}[{}.{}]\n", key(&column.schema), key(&column.table));
                table = Some(place);
            }
            let mask = toml::Value::try_from(mask).map(|value| value.to_string()).unwrap_or_default();
            text += &format!("{} = {mask}\n", key(&column.name));
        }
        text
    }
}

/// What is to change about how an environment's server is reached; what is left out stays. It is tried before it is stored.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetTarget {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The administrator role, and its password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// `verify_full`, `strict` (SQL Server) or, in plain words, `off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// The CA that signed the server's certificate (PEM); an empty text: the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewEnvironment {
    pub name: String,
    pub project: String,
    /// `postgres` or `sqlserver`
    pub engine: String,
    pub host: String,
    pub port: u16,
    pub database: String,
    /// The administrator role on the target, and its password.
    pub admin: String,
    pub password: String,
    /// The CA that signed the target's certificate (PEM); none: the system's.
    #[serde(default)]
    pub ca: Option<String>,
    /// In plain words: no TLS to this target.
    #[serde(default)]
    pub without_tls: bool,
    /// TLS before everything else (TDS 8.0): SQL Server 2022 and later, Azure SQL.
    #[serde(default)]
    pub strict_tls: bool,
    /// `gateway`, or `azure_sql_firewall`: no gateway in between, Daypass keeps Azure's own rules.
    #[serde(default)]
    #[schema(value_type = String, example = "gateway")]
    pub enforce: Enforce,
    #[serde(default)]
    #[schema(value_type = String, example = "granted")]
    pub grants: Grants,
    /// The role that may use what accounts leave (it becomes a member of the role that gets it); none: the owner of the database.
    #[serde(default)]
    pub heir: Option<String>,
    /// `self-service`, or `managed`: it may have standing accounts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// It is stored although it could not be tried, or the trial failed: a server that is away for now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub untried: bool,
}

#[derive(Serialize, Deserialize, ToSchema)]
pub struct EnvironmentView {
    pub id: String,
    pub name: String,
    pub project: String,
    /// `open`, `about to be moved` (people work), `closed while its database is moved`, or what is wrong with its target.
    pub state: String,
    pub engine: String,
    /// `self-service`: passes are the only way in; `managed`: there may be standing accounts.
    pub kind: String,
    /// Whether it has machine credentials.
    pub remote_desktop: bool,
    /// As LCS writes it: `server\database`.
    pub server_and_database: String,
    pub server: String,
    pub port: u16,
    pub database: String,
    /// How often the database has been replaced.
    pub epoch: u32,
    /// Who keeps people out: `gateway` or `azure_sql_firewall`.
    pub enforce: String,
    /// Firewall rules on the target that Daypass did not make; it leaves them, but each is a way in.
    pub drift: Vec<String>,
    /// The wire to the target is not encrypted.
    pub without_tls: bool,
    /// The movement that is under way.
    pub movement: Option<MovementView>,
    /// Passes that are ready now.
    pub live_passes: usize,
    /// Sessions that are open now.
    pub live_sessions: usize,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Within {
    /// Seconds from now, at most 7 days.
    pub within: u64,
}

#[derive(Serialize, Deserialize, ToSchema)]
pub struct CheckView {
    pub what: String,
    /// `ok`; `note`: people get in, and somebody has to decide whether this is meant; `missing`: nobody gets in before it is mended.
    pub verdict: String,
    /// What to do when it is not `ok`.
    pub remedy: String,
}

#[derive(Serialize, Deserialize, ToSchema)]
pub struct Text {
    pub text: String,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAllow {
    /// Addresses, blocks or ranges, `;` between them; none: the address that this request comes from.
    #[serde(default)]
    pub addresses: Option<String>,
    /// Seconds; none: the default of the policy.
    #[serde(default)]
    pub life: Option<u64>,
    /// For everyone with a pass.
    #[serde(default)]
    pub shared: bool,
    /// For this person instead of oneself.
    #[serde(default)]
    pub person: Option<String>,
    #[serde(default)]
    pub note: Option<String>,
}

#[derive(Serialize, Deserialize, ToSchema)]
pub struct AllowView {
    pub id: String,
    pub environment: String,
    pub addresses: String,
    /// A person's name, or `everyone`.
    pub owner: String,
    pub ends_at: String,
    /// Seconds left; 0 when it is over.
    pub seconds_left: u64,
    pub note: Option<String>,
    pub live: bool,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPass {
    #[schema(value_type = String, example = "read")]
    pub access: Access,
    pub reason: String,
    /// Seconds; none: the default of the policy.
    #[serde(default)]
    pub life: Option<u64>,
    /// One of the kinds of reason that the policy offers.
    #[serde(default)]
    pub category: Option<String>,
    #[serde(default)]
    pub ticket: Option<String>,
    /// Not before this moment (RFC 3339), at most 14 days ahead; none: at once.
    #[serde(default)]
    pub starts_at: Option<String>,
    /// In at once without the approvals that the policy asks for; everyone is told, and somebody else reviews it.
    #[serde(default)]
    pub break_glass: bool,
    /// Through the gateway as this standing account of a managed environment, in place of an account of one's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<String>,
}

/// Agreeing to a request.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Approve {
    /// The digest of the request as it was shown: it is this request that is agreed to, and no other.
    pub digest: String,
    #[serde(default)]
    pub word: Option<String>,
}

#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct PassView {
    pub id: String,
    pub account: String,
    pub environment: String,
    pub holder: String,
    #[schema(value_type = String)]
    pub access: Access,
    pub reason: String,
    pub state: String,
    /// Why it is over, or what it waits for.
    pub because: Option<String>,
    pub category: Option<String>,
    pub ticket: Option<String>,
    pub requested_at: String,
    /// Where the request came from.
    pub from: Option<String>,
    /// When it is to start, if later than at once.
    pub starts_at: Option<String>,
    /// Seconds that were asked for.
    pub life: u64,
    pub approved_by: Option<String>,
    /// The people who have agreed so far.
    pub agreed: Vec<String>,
    /// How many have to agree.
    pub approvals: usize,
    /// What approvers said, or why it was denied.
    pub word: Option<String>,
    /// The standing account that it goes in as.
    pub standing: Option<String>,
    /// Taken without the approvals that the policy asks for.
    pub break_glass: bool,
    /// Of a pass that was taken so: `open`, or who closed the review and with what word.
    pub review: Option<String>,
    /// What an approval names.
    pub digest: String,
    pub ends_at: Option<String>,
    /// When the database is about to be replaced: that access ends by it, and when.
    pub ends_early: Option<String>,
    /// Seconds left; 0 when it is over.
    pub seconds_left: u64,
    /// Whether its end can be moved: what somebody approved ends when they said.
    pub extendable: bool,
    pub sessions: usize,
    /// What its account left behind when it ended.
    pub left: Vec<String>,
}

/// All that a tool needs to connect.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Connection {
    pub engine: String,
    pub account: String,
    pub password: String,
    /// The full server name.
    pub server: String,
    pub port: u16,
    pub database: String,
    /// As LCS writes it: `server\database`.
    pub server_and_database: String,
    pub ends_at: Option<String>,
    /// The CA that signed the gateway's certificate (PEM).
    pub ca: String,
    /// What to type or paste in each tool.
    pub settings: Vec<Setting>,
}

/// What one tool needs, ready to paste.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Setting {
    pub tool: String,
    pub text: String,
    /// What has to be done once before it, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Extend {
    /// Seconds to add.
    pub by: u64,
}

#[derive(Serialize, Deserialize, ToSchema)]
pub struct SessionView {
    pub id: String,
    pub account: String,
    pub person: String,
    pub environment: String,
    pub address: String,
    pub application: String,
    pub opened_at: String,
    pub closed_at: Option<String>,
    pub why: Option<String>,
    pub statements: Option<u64>,
    pub bytes_to_client: Option<u64>,
}

#[derive(Serialize, Deserialize, ToSchema)]
pub struct StatementView {
    pub at: String,
    pub micros: u64,
    pub text: String,
    pub values: Vec<String>,
    pub rows: u64,
    pub bytes: u64,
    pub error: Option<String>,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    pub text: String,
}

#[derive(Serialize, Deserialize, ToSchema)]
pub struct ExplainView {
    pub cause: String,
    pub remedy: String,
}

#[derive(Serialize, Deserialize, ToSchema)]
pub struct TroubleView {
    pub what: String,
    pub since: String,
    pub why: String,
}

#[derive(Serialize, Deserialize, ToSchema)]
pub struct Doctor {
    pub now: String,
    /// The head of the log, `SEQ:HASH`: keep one elsewhere to notice a rewritten log.
    pub head: String,
    pub live_sessions: usize,
    /// Accounts that still have to be cleaned up on their targets.
    pub to_clean: Vec<String>,
    /// What the keeper does about each of them, as SQL for somebody who has to do it by hand.
    pub by_hand: Vec<String>,
    /// What others made on the targets that nobody has judged.
    pub unjudged: usize,
    pub troubles: Vec<TroubleView>,
}

/// The rules of a project or environment. See `Policy` in the documentation of the core.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyView {
    pub name: String,
    /// `read`, `read_write`
    pub access: Vec<String>,
    /// Access levels that others approve first: `one` or `two`.
    #[serde(default)]
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub approval: std::collections::BTreeMap<Access, Approvals>,
    /// Roles whose holders may get in at once without those approvals; somebody else reviews it.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub break_glass: std::collections::BTreeSet<Role>,
    pub default_life: u64,
    pub longest_life: u64,
    pub longest_total: u64,
    pub reason_least: u16,
    #[serde(default)]
    pub reason_pattern: Option<String>,
    /// Kinds of reason to choose from; none: no choice is asked for.
    #[serde(default)]
    pub categories: Vec<String>,
    /// A pattern for the number of a ticket; none: no ticket is asked for.
    #[serde(default)]
    pub ticket_pattern: Option<String>,
    /// `while_valid`, or `once`
    #[serde(default)]
    #[schema(value_type = String)]
    pub reveal: Reveal,
    /// A session in which nothing happens for so many seconds ends.
    #[serde(default)]
    pub idle: Option<u64>,
    /// Whether statements are put on record.
    #[serde(default = "yes")]
    pub record: bool,
    pub live_passes: u16,
    pub sessions_per_pass: u16,
    pub widest_v4: u8,
    pub widest_v6: u8,
    /// How many movements may be started within 24 hours; none: as many as one likes.
    #[serde(default)]
    pub movements_per_day: Option<u16>,
    /// How many days the database that a movement replaced is kept as a way back.
    #[serde(default = "three")]
    pub keep_days: u16,
    /// A standing account gets a new password after so many days.
    #[serde(default)]
    pub rotate_days: Option<u16>,
    /// And so many seconds after somebody was shown the old one.
    #[serde(default)]
    pub rotate_after_reveal: Option<u64>,
    /// Whether all that an account owns when it ends is dropped; else what runs is, and plain data goes to a role without rights.
    #[serde(default)]
    pub drop_leftovers: bool,
    /// On SQL Server, besides reading or writing rows: `execute`, `view_definition`, `showplan`.
    #[serde(default = "Extra::usual")]
    #[schema(value_type = Vec<String>)]
    pub extras: std::collections::BTreeSet<Extra>,
    /// `optional`, or `required`: a refresh or an import opens only when each column that looks personal is declared, or checks look at the copy.
    #[serde(default)]
    #[schema(value_type = String)]
    pub masking: Masking,
}

fn yes() -> bool {
    true
}

fn three() -> u16 {
    3
}

impl PolicyView {
    pub fn of(policy: &Policy) -> Option<Self> {
        serde_json::to_value(policy).and_then(serde_json::from_value).ok()
    }

    pub fn policy(&self) -> Result<Policy, String> {
        serde_json::to_value(self).and_then(serde_json::from_value).map_err(|e| e.to_string())
    }
}

/// A lifetime from seconds.
pub fn life(seconds: Option<u64>) -> Result<Option<Ttl>, String> {
    seconds.map(Ttl::seconds).transpose()
}

/// A movement, with what the log says of it, oldest first.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct MovementReport {
    pub movement: MovementView,
    /// None for who may not read the log.
    pub lines: Vec<LogLine>,
}

/// A line of the log, told.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    pub seq: u64,
    pub at: String,
    /// Who did it: a person, or Daypass itself.
    pub by: String,
    /// It goes on after the name: "asked for ...".
    pub what: String,
    /// access, addresses, movements, people or settings
    pub kind: String,
    pub environment: Option<String>,
}

/// A stretch of time in which a pass opened the door.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct HeldView {
    pub holder: String,
    pub environment: String,
    pub account: String,
    #[schema(value_type = String)]
    pub access: Access,
    pub reason: String,
    pub approved_by: String,
    pub from: String,
    pub until: String,
    /// Why it ended; none while it lasts.
    pub ended: Option<String>,
    /// Sessions that were opened with it.
    pub sessions: usize,
}

/// What a request would come to.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Preview {
    /// Who would ask.
    pub person: String,
    pub request: NewPass,
}

#[derive(Serialize, Deserialize, ToSchema)]
pub struct PreviewView {
    pub allowed: bool,
    /// What would happen, or the rule that forbids it.
    pub outcome: String,
}

/// What administrators set up, as a file can hold it. No secret stands in it: passwords lie in files of their own.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Declared {
    pub projects: std::collections::BTreeMap<String, DeclaredProject>,
    pub environments: std::collections::BTreeMap<String, DeclaredEnvironment>,
    pub people: std::collections::BTreeMap<String, DeclaredPerson>,
}

#[derive(Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeclaredProject {
    /// A policy; what it leaves out is as usual. None: the usual one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<PolicyView>)]
    pub policy: Option<serde_json::Value>,
}

#[derive(Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeclaredEnvironment {
    pub project: String,
    /// `postgres` or `sqlserver`
    pub engine: String,
    pub host: String,
    pub port: u16,
    pub database: String,
    pub admin: String,
    /// `verify`, `strict` or `off`
    #[serde(default = "verify")]
    pub tls: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    #[serde(default)]
    #[schema(value_type = String, example = "gateway")]
    pub enforce: Enforce,
    /// `self-service` or `managed`
    #[serde(default = "self_service")]
    pub kind: String,
    /// `granted` or `predefined`
    #[serde(default)]
    #[schema(value_type = String, example = "granted")]
    pub grants: Grants,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heir: Option<String>,
    /// Where the administrator's password lies: read when the environment is added, or its server is reached otherwise than before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<String>,
    /// A policy of its own; what it leaves out is as usual. None: that of its project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<PolicyView>)]
    pub policy: Option<serde_json::Value>,
    /// What movements mask, by schema, table and column. None: what is set stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub masks: Option<serde_json::Value>,
}

#[derive(Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeclaredPerson {
    /// `requester`, `requester@env:uat`, `manager@project:main`
    pub roles: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mail: Option<String>,
    /// Where the first password lies: read when the person is added. None: they sign in with a provider or a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<String>,
}

fn self_service() -> String {
    "self-service".to_owned()
}

fn verify() -> String {
    "verify".to_owned()
}
