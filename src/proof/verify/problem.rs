//! What verification finds, and how it tells.
use crate::pg::error::failure::Result;

/// Something that does not fit.
#[derive(Debug)]
pub struct Problem {
    /// None: an event of no stream.
    pub stream: Option<String>,
    pub version: Option<i64>,
    pub global_position: Option<i64>,
    pub problem: String,
}

/// Takes problems as they are found.
pub type Report<'a> = &'a mut dyn FnMut(Problem) -> Result<()>;

/// How far ahead of the clock recorded_at may lie: a clock that was set back by less is no tampering.
pub const SLACK: i64 = 86_400_000_000;
