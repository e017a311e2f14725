//! What a decision may do. Pure; used by the append's judge.

pub mod boundary;
pub mod category;
pub mod condition;
pub mod decided;
pub mod key;
pub mod operation;
pub mod period;
pub mod personal;
pub mod scheduled;
pub mod tags;
pub mod trial;
