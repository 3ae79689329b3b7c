//! What the stand-in knows of its server: logins, databases, users, rights, sessions, firewall rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
};
use tokio::sync::Notify;
use uuid::Uuid;

#[derive(Default)]
pub struct State {
    pub logins: BTreeMap<String, Login>,
    pub databases: BTreeMap<String, Database>,
    /// By the name of the file.
    pub backups: BTreeMap<String, Database>,
    pub sessions: BTreeMap<u16, Session>,
    pub faults: Vec<(String, Fault)>,
    /// The number and the text with which accounts of Daypass are refused.
    pub refused: Option<(u32, String)>,
    /// Databases for whose one place somebody waits, who comes again each time they are shown out.
    pub waiting: BTreeSet<String>,
    /// Server-wide firewall rules; made by others only.
    pub rules: Vec<(String, String, String)>,
    pub next_database: u32,
    pub next_principal: u32,
    pub next_session: u16,
    /// What both sides of each connection said.
    pub tapes: Vec<Arc<Mutex<Vec<u8>>>>,
    /// Statements that arrived, newest last: for tests that ask what was sent.
    pub seen: Vec<String>,
    /// What Daypass itself sent, each batch once.
    pub ours: BTreeSet<String>,
    /// What Daypass itself sent, and no row documents.
    pub undocumented: BTreeSet<String>,
}

#[derive(Clone)]
pub struct Login {
    pub name: String,
    pub password: String,
    pub sid: Vec<u8>,
    pub disabled: bool,
    pub default_database: String,
    /// `*` for sysadmin.
    pub rights: BTreeSet<String>,
}

#[derive(Clone)]
pub struct Database {
    pub name: String,
    pub id: u32,
    pub created: String,
    pub broker: Uuid,
    pub guid: Uuid,
    pub fork: Uuid,
    pub principals: BTreeMap<String, Principal>,
    pub members: BTreeSet<(String, String)>,
    /// Schema and the name of its owner.
    pub schemas: BTreeMap<String, String>,
    pub properties: Vec<Property>,
    pub permissions: Vec<Permission>,
    /// Name, first and last address; none is everybody on a server that is not Azure.
    pub rules: Vec<(String, String, String)>,
    /// One session at most, and not anybody's.
    pub single_user: bool,
    /// `AUTO_UPDATE_STATISTICS_ASYNC`: what updates them takes a place as well.
    pub statistics_async: bool,
    pub offline: bool,
    pub trustworthy: bool,
    /// Columns of sys.databases that are so.
    pub marks: BTreeSet<&'static str>,
    /// On the database itself: their names, and whether they are disabled.
    pub triggers: Vec<(String, bool)>,
    pub folder: PathBuf,
}

#[derive(Clone)]
pub struct Principal {
    pub name: String,
    pub id: u32,
    pub sid: Vec<u8>,
    pub is_role: bool,
    /// Of a contained user.
    pub password: Option<String>,
    pub owner: String,
}

#[derive(Clone)]
pub struct Property {
    /// 0: the database; 4: a principal.
    pub class: u8,
    pub on: String,
    pub name: String,
    pub value: String,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Permission {
    pub name: String,
    pub grantee: String,
    pub grantor: String,
    pub denied: bool,
}

/// The program of somebody who takes the one place of a database: no connection serves them.
pub const WAITS: &str = "an application that connects again and again";

pub struct Session {
    pub login: String,
    /// Another one inside of EXECUTE AS.
    pub executes_as: String,
    pub database: String,
    pub host: String,
    pub program: String,
    pub address: IpAddr,
    pub kill: Arc<Notify>,
}

/// What goes wrong with a statement that contains a given text.
#[derive(Clone, Debug)]
pub enum Fault {
    /// No answer, until the client gives up.
    Hang,
    Error(u32, String),
    /// The connection is closed.
    Drop,
}

/// An error as SQL Server says it.
#[derive(Debug)]
pub struct Failure {
    pub number: u32,
    pub class: u8,
    pub text: String,
}

impl Failure {
    pub fn new(number: u32, text: impl Into<String>) -> Self {
        Failure { number, class: if number == 18_456 || number == 4_060 { 14 } else { 16 }, text: text.into() }
    }
}

pub fn key(name: &str) -> String {
    name.to_lowercase()
}

impl State {
    pub fn database(&mut self, name: &str) -> Result<&mut Database, Failure> {
        self.databases
            .get_mut(&key(name))
            .ok_or_else(|| Failure::new(911, format!("Database '{name}' does not exist. Make sure that the name is entered correctly.")))
    }

    pub fn principal_id(&mut self) -> u32 {
        self.next_principal += 1;
        self.next_principal
    }

    /// Whether a login has a right on the whole server.
    pub fn may(&self, login: &str, right: &str) -> bool {
        self.logins.get(&key(login)).is_some_and(|login| login.rights.contains("*") || login.rights.contains(right))
    }
}

impl Database {
    /// The user that a login, or a contained user by its own name, is in here.
    pub fn user_of(&self, login: Option<&Login>, name: &str) -> Option<&Principal> {
        match login {
            Some(login) if login.rights.contains("*") => self.principals.get("dbo"),
            // everybody may look into master, as its guest
            Some(login) if key(&self.name) == "master" => {
                self.principals.values().find(|user| !user.is_role && user.sid == login.sid).or_else(|| self.principals.get("guest"))
            }
            Some(login) => self.principals.values().find(|user| !user.is_role && user.password.is_none() && user.sid == login.sid),
            None => self.principals.get(&key(name)).filter(|user| user.password.is_some()),
        }
    }

    pub fn is_member(&self, user: &str, role: &str) -> bool {
        user == "dbo" || self.members.contains(&(role.to_owned(), key(user))) || self.members.contains(&("db_owner".to_owned(), key(user)))
    }
}
