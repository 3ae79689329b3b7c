//! People and their roles: for administrators.

use super::{
    account::roles,
    client::{Client, Failure, NOTHING},
    password,
    show::Show,
};
use crate::web::dto::{NewPassword, NewPerson, PersonView, RoleView, Why};
use clap::Subcommand;
use reqwest::Method;

#[derive(Subcommand)]
pub enum Verb {
    /// People and their roles
    #[command(subcommand)]
    People(People),
    /// Who has which role, and where
    Roles,
}

#[derive(Subcommand)]
pub enum People {
    /// Add a person; the password is asked for
    Add {
        name: String,
        /// admin, manager, approver, requester or auditor; everywhere, or like requester@env:uat, manager@project:main
        #[arg(long = "role", value_parser = role)]
        roles: Vec<RoleView>,
        /// Read the password from standard input
        #[arg(long)]
        password_stdin: bool,
    },
    /// List people
    Ls,
    /// Set a new password for somebody; all their sign-ins end
    Password {
        name: String,
        /// Read the password from standard input
        #[arg(long)]
        password_stdin: bool,
    },
    /// Lock a person: sign-ins, passes and sessions end at once
    Lock {
        name: String,
        #[arg(long)]
        reason: String,
    },
    /// Unlock a person; what the lock ended stays ended
    Unlock { name: String },
    /// Give a role
    Give {
        name: String,
        #[arg(value_parser = role)]
        role: RoleView,
    },
    /// Take a role; passes that it alone allowed end at once
    Take {
        name: String,
        #[arg(value_parser = role)]
        role: RoleView,
    },
}

/// `requester`, `requester@env:uat`, `manager@project:main`.
pub fn role(text: &str) -> Result<RoleView, String> {
    let (word, place) = text.split_once('@').map_or((text, None), |(word, place)| (word, Some(place)));
    let role = serde_json::from_value(serde_json::Value::String(word.to_owned()))
        .map_err(|_| "a role is admin, manager, approver, requester or auditor".to_owned())?;
    let (project, environment) = match place.map(|place| place.split_once(':')) {
        None => (None, None),
        Some(Some(("project", name))) => (Some(name.to_owned()), None),
        Some(Some(("env", name))) => (None, Some(name.to_owned())),
        Some(_) => return Err(format!("'{text}': after the @ stands project:NAME or env:NAME")),
    };
    Ok(RoleView { role, project, environment })
}

pub async fn run(verb: Verb, client: &Client, show: Show) -> Result<(), Failure> {
    let verb = match verb {
        Verb::People(verb) => verb,
        Verb::Roles => {
            let people: Vec<PersonView> = client.get(&["people"], &[]).await?;
            let rows: Vec<(String, RoleView)> = people.iter().flat_map(|person| person.roles.iter().map(|role| (person.name.clone(), role.clone()))).collect();
            show.list(&rows, &["person", "role"], "Nobody has a role.", |(name, role)| vec![name.clone(), roles(std::slice::from_ref(role))]);
            return Ok(());
        }
    };
    match verb {
        People::Add { name, roles, password_stdin } => {
            let password = Some(password(&format!("Password for {name}: "), password_stdin)?).filter(|password| !password.is_empty());
            client.tell(Method::POST, &["people"], Some(&NewPerson { name: name.clone(), password, roles })).await?;
            show.done(&format!("{name} is added."));
        }
        People::Ls => {
            let people: Vec<PersonView> = client.get(&["people"], &[]).await?;
            show.list(&people, &["name", "roles", "locked"], "Nobody.", |person| {
                vec![person.name.clone(), roles(&person.roles), person.locked.clone().unwrap_or_default()]
            });
        }
        People::Password { name, password_stdin } => {
            let password = password(&format!("New password for {name}: "), password_stdin)?;
            client.tell(Method::POST, &["people", &name, "password"], Some(&NewPassword { password })).await?;
            show.done(&format!("{name} has a new password; all their sign-ins have ended."));
        }
        People::Lock { name, reason } => {
            client.tell(Method::POST, &["people", &name, "lock"], Some(&Why { why: Some(reason) })).await?;
            show.done(&format!("{name} is locked."));
        }
        People::Unlock { name } => {
            client.tell(Method::POST, &["people", &name, "unlock"], NOTHING).await?;
            show.done(&format!("{name} is unlocked."));
        }
        People::Give { name, role } => {
            client.tell(Method::POST, &["people", &name, "roles"], Some(&role)).await?;
            show.done(&format!("{name} has the role {}.", roles(&[role])));
        }
        People::Take { name, role } => {
            client.tell(Method::POST, &["people", &name, "roles", "take"], Some(&role)).await?;
            show.done(&format!("{name} has the role {} no more.", roles(&[role])));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::role;

    #[test]
    fn roles_are_written_with_their_place() {
        assert_eq!(role("requester@env:uat").unwrap().environment.as_deref(), Some("uat"));
        assert_eq!(role("manager@project:main").unwrap().project.as_deref(), Some("main"));
        assert!(role("auditor").unwrap().project.is_none());
        assert!(role("king").is_err() && role("admin@uat").is_err());
    }
}
