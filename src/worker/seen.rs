//! What a look of the scheduler finds.
use crate::log::horizon::{Horizons, horizons};
use crate::pg::error::failure::Result;
use crate::pg::process::databases;
use crate::projection::schedule::{self, Entry};
use crate::shared::board::database::Database;
use crate::shared::catalog::{self, Catalog};
use crate::shared::live_settings;

/// Of the list of projections, and of the number of tenants: by invalidation messages, and by the board.
pub type Generation = (u64, u64, u32);

/// What a look found.
pub struct Seen {
    pub horizons: Horizons,
    pub generation: Generation,
    /// Where they may have changed: the projections, and how many tenants there are.
    pub entries: Option<(Vec<Entry>, usize)>,
}

/// In a transaction; None where there is nothing to serve. `known` is the generation of the list that is known.
pub fn see(database: &Database, known: Option<Generation>) -> Result<Option<Seen>> {
    if known.is_none() {
        // In this order: an extension that is created after the look-up is not overlooked.
        database.looks_for_extension();
        if databases::has_extension()? {
            database.note_extension();
        } else {
            database.note_no_extension();
            return Ok(None);
        }
        if !live_settings::is_database_served(&databases::own_name()?) {
            return Ok(None);
        }
    }
    let horizons = horizons(&Catalog::current()?)?;
    let generation = (catalog::projections_generation(), catalog::access_generation(), database.changes());
    let is_known = known == Some(generation);
    let entries = if is_known { None } else { Some((schedule::entries()?, schedule::tenants()?)) };
    Ok(Some(Seen { horizons, generation, entries }))
}
