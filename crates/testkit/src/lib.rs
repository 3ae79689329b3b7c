//! What tests and the demo need around Daypass: throw-away servers and a network that misbehaves on order.

pub mod certificates;
pub mod faulty;
pub mod postgres;
pub mod sqlserver;
