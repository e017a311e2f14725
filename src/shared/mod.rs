//! TODO shared
#![allow(unsafe_code)]
pub mod board;
pub mod catalog;
pub mod counters;
pub mod failing;
pub mod high_water;
pub mod live_settings;
pub mod open_appends;
pub mod settings;
pub mod tasks;
