//! The room of decisions: what is appended comes in here, whoever appends it.
pub mod acts;
pub mod agreement;
pub mod answers;
mod bounds;
pub mod category;
pub mod closed;
pub mod commanded;
pub mod compared;
pub mod condition;
pub mod counted;
pub mod covered;
mod decide;
pub mod decider;
pub mod deciders;
mod deciding;
pub mod declared;
pub mod ended;
pub mod event_type;
pub mod execute;
pub mod foldable;
pub mod invariant;
mod invariants;
mod judged;
mod later;
pub mod operation;
pub mod period;
pub mod protect;
mod queried;
pub mod rehearse;
pub mod reported;
mod required;
pub mod reveal;
pub mod ruling;
pub mod scheduled;
pub mod schemas;
mod settle;
pub mod stored_types;
pub mod tested;
pub mod tried;
mod uncovered;
pub mod write;

/// What is done before commits; once a process, from _PG_init.
pub fn init() {
    crate::log::audit::init(acts::append_all);
    crate::log::noted::init(judged::judge);
}
