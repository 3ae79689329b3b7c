//! Typed ids: an id of one kind does not fit where another kind is wanted. They are made in a shell, never here.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::Uuid;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps an id that a shell made (UUID version 7, so that ids sort by time).
            pub const fn new(id: Uuid) -> Self { Self(id) }
            /// The UUID inside.
            pub const fn uuid(self) -> Uuid { self.0 }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{}({})", stringify!($name), self.0) }
        }
        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, uuid::Error> { Uuid::parse_str(text).map(Self) }
        }
    )+};
}

ids! {
    /// One store, for ever: it marks the accounts that this installation made on a target.
    StoreId,
    UserId,
    TokenId,
    ProjectId,
    EnvironmentId,
    TargetId,
    PassId,
    AllowId,
    MovementId,
    /// A standing account.
    StandingId,
    MachineId,
    SessionId,
}
