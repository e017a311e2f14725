//! What verification remembers of the streams it met lately. Two generations: when the young one is full it becomes the
//! old one, and the old one is forgotten. So memory is bounded, and streams that are met often stay.
use super::super::stream::Head;
use std::collections::HashMap;

/// A stream's row, and its last event so far.
pub struct Known {
    pub tenant_id: i64,
    pub first_position: i64,
    pub name: String,
    pub category: String,
    /// None: no predecessor was found.
    pub head: Option<Head>,
}

/// Streams a generation; a stream takes its name, its category and a head.
const GENERATION: usize = 65_536;

#[derive(Default)]
pub struct Recent {
    young: HashMap<i64, Known>,
    old: HashMap<i64, Known>,
}

impl Recent {
    /// Takes a stream out; whoever goes on with it puts it back.
    pub fn take(&mut self, stream_id: i64) -> Option<Known> {
        self.young.remove(&stream_id).or_else(|| self.old.remove(&stream_id))
    }

    pub fn put(&mut self, stream_id: i64, known: Known) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(stream_id, known);
    }
}
