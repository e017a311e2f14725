//! Event ids for events that were given none.
use crate::pg::error::failure::Result;
use crate::pg::process::server;
use crate::shared::trial;
use eventstream_core::event_id::EventIds;
use eventstream_core::time::PG_EPOCH_UNIX_US;
use std::cell::RefCell;

thread_local! {
    static EVENT_IDS: RefCell<EventIds> = RefCell::new(EventIds::default());
}

/// A fresh event id, larger than this session's last one.
pub fn new_event_id() -> Result<[u8; 16]> {
    let now_unix_ms = ((trial::clock() + PG_EPOCH_UNIX_US) / 1000) as u64;
    let random = server::random_bytes()?;
    if let Some(id) = trial::new_event_id(now_unix_ms, random) {
        return Ok(id);
    }
    Ok(EVENT_IDS.with_borrow_mut(|ids| ids.next(now_unix_ms, random)))
}
