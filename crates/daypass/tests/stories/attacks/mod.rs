//! What somebody tries who has access for an hour and wants it for good, or wants nobody to be able to take it. Each succeeded once.

mod estate;
mod records;
mod rows;
mod standing;
mod stays;
mod ways;
