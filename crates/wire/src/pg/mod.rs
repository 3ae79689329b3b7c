//! PostgreSQL's frontend/backend protocol 3.0 and 3.2 (PostgreSQL manual, chapter "Frontend/Backend Protocol").

pub mod message;
pub mod observe;
pub mod refuse;
pub mod scan;
pub mod scram;
pub mod startup;
pub mod upstream;
