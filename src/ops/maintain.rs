//! Upkeep: partitions ahead of need, statistics of tables that have grown, counts of events, due snapshots, retention. One bounded step at a time, by
//! es_maintain and by the workers.
use crate::access;
use crate::command::{counted, operation};
use crate::log::{analyze, horizon, partition};
use crate::pg::error::failure::Result;
use crate::pg::error::report;
use crate::pg::process::session::Planning;
use crate::shared::session::as_owner;
use crate::state::due;
use crate::subscription;
use std::cell::RefCell;
use std::collections::HashSet;

/// What a step did.
pub struct Done {
    pub partitions_made: i64,
    pub tables_analyzed: i64,
    pub counted: counted::Done,
    pub answers_forgotten: i64,
    pub snapshots: due::Done,
}

/// The most messages of failures that a worker remembers.
const MOST_SAID: usize = 1_000;

thread_local! {
    static SAID: RefCell<HashSet<String>> = RefCell::default();
}

/// One step, for one tenant's events and snapshots or (None) for everybody's. `say` gets each failure.
pub fn step(tenant_id: Option<i64>, say: due::Say) -> Result<Done> {
    let (partitions_made, tables_analyzed) = as_owner(Planning::ByIndex, |db, catalog| {
        let last_position = horizon::last_position(catalog)?;
        subscription::drop_left(db)?;
        access::see_roles(db, catalog)?;
        Ok((partition::make_ahead(db, catalog, last_position)?, analyze::one(db, catalog)?))
    })?;
    let counted = counted::advance(tenant_id)?;
    let answers_forgotten = operation::forget(tenant_id)?;
    Ok(Done { partitions_made, tables_analyzed, counted, answers_forgotten, snapshots: due::run(tenant_id, say)? })
}

/// The same for a worker, which comes back again and again: a failure is told once. Whether there is more to do.
pub fn maintain() -> Result<bool> {
    let done = step(None, &mut |failed| {
        let message = failed.in_words(true);
        let is_new = SAID.with_borrow_mut(|said| {
            if said.len() >= MOST_SAID {
                said.clear();
            }
            said.insert(message.clone())
        });
        if is_new { report::warning(&message) } else { Ok(()) }
    })?;
    Ok(done.snapshots.has_more || done.counted.has_more)
}
