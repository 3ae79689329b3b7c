//! SQL Server's protocol, TDS 7.4 and 8.0 ([MS-TDS], sections named where they are used; sessions inside one connection: [MC-SMP]).

pub mod browser;
pub mod collation;
pub mod login7;
pub mod observe;
pub mod packet;
pub mod prelogin;
pub mod refuse;
pub mod request;
pub mod smp;
pub mod startup;
pub mod token;
pub mod types;
pub mod upstream;
