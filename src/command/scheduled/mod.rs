//! Commands for later. Sole owner of the table scheduled_commands, and of when one is over; the rules are crates/core's, command/scheduled.rs.
//!
//! ```text
//! es_schedule_command, a decider's answer ─▶ a row, pending ─▶ commit ─▶ the scheduler knows the earliest (shared memory wakes, and never remembers)
//!   ─▶ its time ─▶ a runner: claimed ─▶ as who scheduled it: execute.rs ─▶ the row's end, in the same transaction ─▶ commit
//! ```
//! Promises: each is executed once, not before its time, with the rights that the role has then, and as no other role; what was executed is over with the commit of its events,
//! and what was not is there after whatever death; who unschedules one is told whether it was executed, and it is not executed any more; one whose key
//! is sent is over with that. No two of them wait for each other in a circle: what a command locks is locked first, and its row last, by a runner without waiting.
pub mod ends;
pub mod kept;
pub mod letters;
pub mod run;
pub mod unwanted;
pub mod wanted;
