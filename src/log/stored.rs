//! What an event says, as it is stored: on its way to the door (src/present), which shows it; and for those who hash or compare it, and show it
//! to nobody. tests/tidy lists who may.
use super::statements::{column, verified};
use super::tags;
use crate::pg::error::failure::Result;
use crate::pg::jsonb::Jsonb;
use crate::pg::process::session::Db;
use crate::pg::query::plan::{Plan, View};
use crate::pg::query::row::Row;
use crate::pg::query::store::Store;
use crate::pg::value::datum::Nullable;
use std::cell::RefCell;

/// Where events are put as they are stored, by the columns of type eventstream.event. Only the door makes it: it knows whether what is put there
/// goes out at once.
pub struct StoredRows<'a>(To<'a>);

enum To<'a> {
    Store(&'a Store),
    /// The door itself, event by event, while the owner's rights are on.
    Door(RefCell<Each<'a>>),
}

type Each<'a> = &'a mut dyn FnMut(&Row) -> Result<()>;

impl<'a> StoredRows<'a> {
    pub fn of_door(store: &'a Store) -> Self {
        Self(To::Store(store))
    }

    pub fn through_door(each: Each<'a>) -> Self {
        Self(To::Door(RefCell::new(each)))
    }

    /// Puts the rows of a statement there; how many there were.
    pub(super) fn fill(&self, plan: &Plan, db: &Db, view: View, args: &[Nullable]) -> Result<u64> {
        match &self.0 {
            To::Store(store) => plan.fill(db, view, args, store),
            To::Door(each) => {
                let mut each = each.borrow_mut();
                plan.for_each(db, view, args, &mut |row| each(row))
            }
        }
    }
}

/// The documents of an event that is there to be hashed or compared.
pub struct StoredContent<'r, 'a> {
    row: &'r Row<'a>,
    payload: usize,
    metadata: usize,
}

impl<'r, 'a> StoredContent<'r, 'a> {
    /// Of a row of events.
    pub fn of_row(row: &'r Row<'a>) -> Self {
        Self { row, payload: column::PAYLOAD, metadata: column::METADATA }
    }

    /// Of a row as verification reads it.
    pub fn of_verified(row: &'r Row<'a>) -> Self {
        Self { row, payload: verified::PAYLOAD, metadata: verified::METADATA }
    }

    /// As it is; None where it is NULL (erased).
    pub fn payload_document(&self) -> Result<Option<Jsonb<'a>>> {
        self.row.jsonb_opt(self.payload)
    }

    /// As it is printed; None where it is NULL (erased).
    pub fn payload(&self) -> Result<Option<&'a [u8]>> {
        self.row.jsonb_opt(self.payload)?.map(|document| document.text()).transpose()
    }

    /// By what else than its tags it is to be found where tags are looked for.
    pub fn correlation(&self) -> Result<Option<String>> {
        self.row.jsonb_opt(self.metadata)?.map_or(Ok(None), tags::of_correlation)
    }

    /// As [`StoredContent::payload`].
    pub fn metadata(&self) -> Result<Option<&'a [u8]>> {
        self.row.jsonb_opt(self.metadata)?.map(|document| document.text()).transpose()
    }
}
