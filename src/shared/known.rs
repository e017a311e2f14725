//! What a session has derived from tables of ours and from catalogs: kept until something that it depends on has changed, as
//! [`super::catalog`] counts.
use crate::pg::error::failure::Result;
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;
use std::thread::LocalKey;

/// So many values are kept; where there would be more, all are read anew.
const MOST: usize = 1_000;

pub struct Known<K, V> {
    generation: u64,
    values: HashMap<K, V>,
}

impl<K, V> Default for Known<K, V> {
    fn default() -> Self {
        Self { generation: 0, values: HashMap::new() }
    }
}

impl<K: Eq + Hash, V: Clone> Known<K, V> {
    /// The value of that key: as it is known, where `generation` says the same as then, or as `load` reads it. What is read is not kept where
    /// something changed meanwhile: a statement's snapshot is older than the invalidations that its locks take in, so it may be what was there
    /// before a change that counts as known already.
    pub fn of(
        known: &'static LocalKey<RefCell<Self>>,
        generation: fn() -> u64,
        key: K,
        load: impl FnOnce() -> Result<V>,
    ) -> Result<V> {
        let before = generation();
        let found = known.with_borrow_mut(|known| {
            if known.generation != before {
                *known = Self { generation: before, values: HashMap::new() };
            }
            known.values.get(&key).cloned()
        });
        if let Some(found) = found {
            return Ok(found);
        }
        let found = load()?;
        if generation() == before {
            known.with_borrow_mut(|known| {
                // Another generation's where the loading has asked for something meanwhile.
                if known.generation == before {
                    if known.values.len() >= MOST {
                        known.values.clear();
                    }
                    known.values.insert(key, found.clone());
                }
            });
        }
        Ok(found)
    }
}
