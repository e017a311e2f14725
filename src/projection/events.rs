//! Events of the log in memory, to be handled when the owner's rights are off.
use crate::log::read::{Filter, each_of_log};
use crate::log::target::Target;
use crate::pg::error::failure::Result;
use crate::pg::process::life;
use crate::pg::process::memory::Scratch;
use crate::pg::process::session::Planning;
use crate::present::event::StoredEvent;
use crate::shared::session::as_owner;
use std::ops::ControlFlow;

/// Which events: of the tenant, in (after, to], at most so many, that the filter lets through.
pub struct Wanted<'a> {
    pub target: Target<'a>,
    pub after: i64,
    pub to: i64,
    pub most: i64,
    pub filter: &'a Filter,
}

/// Copies the events into `memory`; `takes` is shown each, and says whether it is taken and whether others are wanted.
pub fn read(
    wanted: &Wanted,
    memory: &Scratch,
    mut takes: impl FnMut(&StoredEvent) -> (bool, ControlFlow<()>),
) -> Result<Vec<StoredEvent>> {
    let mut events = Vec::new();
    as_owner(Planning::ByIndex, |db, catalog| {
        let range = (wanted.after, wanted.to);
        each_of_log(db, catalog, wanted.target, range, wanted.most, wanted.filter, &mut |row| {
            life::breathe();
            let event = memory.inside(|| StoredEvent::copy_of_composite(row))?;
            let (is_taken, flow) = takes(&event);
            if is_taken {
                events.push(event);
            }
            Ok(flow)
        })
    })?;
    Ok(events)
}

/// All that are wanted.
pub fn read_all(wanted: &Wanted, memory: &Scratch) -> Result<Vec<StoredEvent>> {
    read(wanted, memory, |_| (true, ControlFlow::Continue(())))
}

/// A batch takes no more than so many bytes of events.
pub const MOST_BYTES: usize = 4 << 20;
