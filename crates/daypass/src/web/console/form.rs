//! A form as a page shows it: what it is about, its fields, and what was wrong with the last try.

use super::super::Problem;
use axum::{
    extract::{FromRequest, Request},
    response::{IntoResponse, Response},
};

/// What was sent, in order.
pub struct Fields(pub Vec<(String, String)>);

impl Fields {
    /// The value of a field, unless it is empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str()).filter(|value| !value.trim().is_empty())
    }

    pub fn text(&self, name: &str) -> String {
        self.get(name).unwrap_or_default().to_owned()
    }

    pub fn owned(&self, name: &str) -> Option<String> {
        self.get(name).map(|value| value.trim().to_owned())
    }

    pub fn ticked(&self, name: &str) -> bool {
        self.get(name).is_some()
    }
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        axum::Form::from_request(request, state).await.map(|axum::Form(pairs)| Fields(pairs)).map_err(IntoResponse::into_response)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Password,
    Area,
    Select,
    Tick,
    Hidden,
    Moment,
}

pub struct Choice {
    pub value: String,
    pub label: String,
    pub chosen: bool,
}

pub struct Field {
    pub name: String,
    pub label: String,
    pub kind: Kind,
    pub value: String,
    /// The rule for it, beside it.
    pub hint: String,
    pub required: bool,
    pub choices: Vec<Choice>,
    pub autocomplete: &'static str,
}

impl Field {
    fn new(kind: Kind, name: &str, label: &str) -> Field {
        Field {
            name: name.to_owned(),
            label: label.to_owned(),
            kind,
            value: String::new(),
            hint: String::new(),
            required: false,
            choices: Vec::new(),
            autocomplete: "off",
        }
    }

    pub fn text(name: &str, label: &str) -> Field {
        Field::new(Kind::Text, name, label)
    }

    pub fn area(name: &str, label: &str) -> Field {
        Field::new(Kind::Area, name, label)
    }

    pub fn password(name: &str, label: &str, autocomplete: &'static str) -> Field {
        Field { autocomplete, ..Field::new(Kind::Password, name, label).required() }
    }

    pub fn moment(name: &str, label: &str) -> Field {
        Field::new(Kind::Moment, name, label)
    }

    pub fn tick(name: &str, label: &str, ticked: bool) -> Field {
        Field { value: if ticked { "yes".to_owned() } else { String::new() }, ..Field::new(Kind::Tick, name, label) }
    }

    pub fn hidden(name: &str, value: &str) -> Field {
        Field { value: value.to_owned(), ..Field::new(Kind::Hidden, name, "") }
    }

    /// One of several, each a value and its label.
    pub fn select(name: &str, label: &str, choices: impl IntoIterator<Item = (String, String)>) -> Field {
        let choices = choices.into_iter().map(|(value, label)| Choice { value, label, chosen: false }).collect();
        Field { choices, ..Field::new(Kind::Select, name, label) }
    }

    pub fn value(mut self, value: &str) -> Field {
        self.value = value.to_owned();
        self.choices.iter_mut().for_each(|choice| choice.chosen = choice.value == value);
        self
    }

    pub fn hint(self, hint: impl Into<String>) -> Field {
        Field { hint: hint.into(), ..self }
    }

    pub fn required(self) -> Field {
        Field { required: true, ..self }
    }

    /// The id of the element, for its label. A page and the dialog before it may both have a field of this name.
    pub fn id(&self, form: &str) -> String {
        format!("{form}-{}", self.name)
    }

    pub fn is(&self, kind: &str) -> bool {
        let own = match self.kind {
            Kind::Text => "text",
            Kind::Password => "password",
            Kind::Area => "area",
            Kind::Select => "select",
            Kind::Tick => "tick",
            Kind::Hidden => "hidden",
            Kind::Moment => "moment",
        };
        own == kind
    }
}

pub struct Form {
    pub title: String,
    /// What it is about, before the fields.
    pub lines: Vec<String>,
    /// A list of facts: what will happen, and to whom.
    pub facts: Vec<String>,
    pub action: String,
    pub fields: Vec<Field>,
    pub submit: String,
    /// What it does cannot be taken back.
    pub danger: bool,
    pub problem: Option<Problem>,
    /// A way to take in place of sending the form: its words and its address.
    pub link: Option<(String, String)>,
    pub back: String,
}

impl Form {
    pub fn new(title: &str, action: &str, submit: &str) -> Form {
        Form {
            title: title.to_owned(),
            lines: Vec::new(),
            facts: Vec::new(),
            action: action.to_owned(),
            fields: Vec::new(),
            submit: submit.to_owned(),
            danger: false,
            problem: None,
            link: None,
            back: "/environments".to_owned(),
        }
    }

    pub fn line(mut self, line: impl Into<String>) -> Form {
        self.lines.push(line.into());
        self
    }

    pub fn fact(mut self, fact: impl Into<String>) -> Form {
        self.facts.push(fact.into());
        self
    }

    pub fn with(mut self, field: Field) -> Form {
        self.fields.push(field);
        self
    }

    pub fn link(self, label: &str, to: &str) -> Form {
        Form { link: Some((label.to_owned(), to.to_owned())), ..self }
    }

    pub fn danger(self) -> Form {
        Form { danger: true, ..self }
    }

    pub fn back(self, to: impl Into<String>) -> Form {
        Form { back: to.into(), ..self }
    }

    /// What the ids of its fields begin with.
    pub fn slug(&self) -> String {
        format!("f{}", self.action.replace(|c: char| !c.is_ascii_alphanumeric(), "-"))
    }

    /// A password manager then wants to know whose it is.
    pub fn has_password(&self) -> bool {
        self.fields.iter().any(|field| field.kind == Kind::Password)
    }

    /// With what was typed, but for passwords.
    pub fn filled(mut self, sent: &Fields) -> Form {
        for field in &mut self.fields {
            match field.kind {
                Kind::Password | Kind::Hidden => {}
                Kind::Tick => field.value = sent.text(&field.name),
                Kind::Text | Kind::Area | Kind::Moment => {
                    field.value = sent.0.iter().find(|(name, _)| *name == field.name).map(|(_, v)| v.clone()).unwrap_or_default()
                }
                Kind::Select => {
                    let chosen = sent.text(&field.name);
                    field.choices.iter_mut().for_each(|choice| choice.chosen = choice.value == chosen);
                }
            }
        }
        self
    }
}
