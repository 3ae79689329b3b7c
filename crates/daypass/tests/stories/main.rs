//! Stories with a real PostgreSQL, real clients, and Daypass as a process of its own.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so by a panic")]

mod attacks;
mod bacpac;
mod browser;
mod clients;
mod clients_postgres;
mod console;
mod copies;
mod crash;
mod ends;
mod faults;
mod house;
mod lcs;
mod left;
mod main_job;
mod managed;
mod masks;
mod movement;
mod notices;
mod provider;
mod records;
mod replaced;
mod sequences;
mod servers;
mod sqlserver;
mod start;
