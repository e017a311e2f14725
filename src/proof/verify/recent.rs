//! What verification remembers of the streams it met lately. Two generations: when the young one is full it becomes the
//! old one, and the old one is forgotten. So memory is bounded, and streams that are met often stay.
use crate::log::stream::Head;
use eventstream_core::name::StreamName;
use std::collections::HashMap;

/// A stream's row, and its last event so far.
pub struct Known {
    pub tenant_id: i64,
    pub first_position: i64,
    pub name: Box<str>,
    /// As its row says.
    pub slot: i32,
    /// How much of the name is the category; None: the row says another one.
    category_bytes: Option<u32>,
    /// None: no predecessor was found.
    pub head: Option<Head>,
}

impl Known {
    pub fn new(tenant_id: i64, first_position: i64, name: &str, category: &str, slot: i32, head: Option<Head>) -> Self {
        let fits =
            name.starts_with(category) && StreamName::parse(name).map_or(true, |name| name.category() == category);
        let category_bytes = fits.then_some(category.len() as u32);
        Self { tenant_id, first_position, name: name.into(), slot, category_bytes, head }
    }

    /// Whether an event of the stream may be of this category.
    pub fn has_category(&self, category: &str) -> bool {
        self.category_bytes.is_some_and(|bytes| &self.name[..bytes as usize] == category)
    }
}

/// Streams a generation: what a hash table of 32,768 places takes without growing.
const GENERATION: usize = 32_768 / 8 * 7;

#[derive(Default)]
pub struct Recent {
    young: HashMap<i64, Known>,
    old: HashMap<i64, Known>,
}

impl Recent {
    /// Whether the stream is remembered; if so it stays.
    pub fn has(&mut self, stream_id: i64) -> bool {
        if self.young.contains_key(&stream_id) {
            return true;
        }
        let Some(known) = self.old.remove(&stream_id) else { return false };
        self.put(stream_id, known);
        true
    }

    pub fn get(&mut self, stream_id: i64) -> Option<&mut Known> {
        self.young.get_mut(&stream_id)
    }

    pub fn put(&mut self, stream_id: i64, known: Known) {
        if self.young.len() >= GENERATION {
            // Emptied in place, and nothing is ever taken out of the young one: the tables never grow.
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(stream_id, known);
    }
}
