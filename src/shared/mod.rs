//! What the sessions and workers of a database share, and what each keeps of it: settings, the catalog of our relations, shared memory (open
//! appends, the board by which processes wake one another, counters, tasks, marks), the ends of transactions. Knows the log only as tenants,
//! positions and moments; reads no table.
pub mod alone;
pub mod board;
pub mod catalog;
pub mod counters;
pub mod evict;
pub mod failing;
pub mod high_water;
pub mod kept_answers;
pub mod known;
pub mod live_settings;
pub mod meant;
pub mod notes;
pub mod open_appends;
pub mod portions;
pub mod requests;
pub mod server_run;
pub mod session;
pub mod settings;
pub mod tasks;
pub mod token;
pub mod transaction;
pub mod trial;
pub mod within;

use crate::pg::process::xact;
use crate::pg::shmem::{self, Part};
use crate::pg::utility;

static MEMORY: [&dyn Part; 13] = [
    &open_appends::ENTRIES,
    &counters::BLOCKS,
    &tasks::ENTRIES,
    &board::hall::HALL,
    &board::database::AREA,
    &board::database::TAKING,
    &board::database::TAKEN,
    &board::runner::AREA,
    &board::waiter::AREA,
    &high_water::AREA,
    &server_run::AREA,
    &requests::AREA,
    &kept_answers::AREA,
];

/// Once a process, from _PG_init.
pub fn init() {
    settings::init();
    shmem::init(&MEMORY);
    xact::init(transaction::note);
    catalog::init();
    utility::init(&evict::LISTENER);
}
