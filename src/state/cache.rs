//! States kept in the backend: the newest one of each stream and fold that was asked for, least recently used ones dropped first
//! beyond `eventstream.state_cache_size`. An entry is only a claim: whoever uses it checks that the stream has, in its own
//! view, an event of that version with that chain hash, so a rollback or another session's append cannot make it lie.
use crate::pg::jsonb::Stored;
use crate::shared::settings;
use eventstream_core::hash::Hash;
use lru::LruCache;
use std::cell::RefCell;
use std::rc::Rc;

#[derive(Clone)]
pub struct Entry {
    pub version: i64,
    pub chain_hash: Hash,
    pub fingerprint: Hash,
    pub state: Rc<Stored>,
    /// Whether the event it was made at was settled: then nothing can take its place, and the check may be left out.
    pub is_settled: bool,
}

/// A stream's id and a fold's name.
type Key = (i64, String);

struct Cache {
    entries: LruCache<Key, Entry>,
    bytes: usize,
}

/// What an entry takes besides its state, roughly.
const OVERHEAD: usize = 256;

thread_local! {
    static CACHE: RefCell<Cache> = RefCell::new(Cache { entries: LruCache::unbounded(), bytes: 0 });
}

fn size(key: &Key, entry: &Entry) -> usize {
    OVERHEAD + key.1.len() + entry.state.size()
}

impl Cache {
    /// Drops what was not used for longest, until `most` bytes are left; the setting may have been lowered.
    fn trim(&mut self, most: usize) {
        while self.bytes > most
            && let Some((key, oldest)) = self.entries.pop_lru()
        {
            self.bytes -= size(&key, &oldest);
        }
    }
}

/// What is kept for the stream and fold, if it was made by the fold as it is now.
pub fn get(stream_id: i64, fold: &str, fingerprint: &Hash) -> Option<Entry> {
    CACHE.with_borrow_mut(|cache| {
        cache.trim(settings::state_cache_bytes());
        cache.entries.get(&(stream_id, fold.to_owned())).filter(|entry| entry.fingerprint == *fingerprint).cloned()
    })
}

pub fn put(stream_id: i64, fold: &str, entry: Entry) {
    let most = settings::state_cache_bytes();
    CACHE.with_borrow_mut(|cache| {
        let key = (stream_id, fold.to_owned());
        let added = size(&key, &entry);
        if let Some(before) = cache.entries.pop(&key) {
            cache.bytes -= size(&key, &before);
        }
        if added <= most {
            cache.bytes += added;
            cache.entries.put(key, entry);
        }
        cache.trim(most);
    });
}

/// How many states are kept, and their bytes.
pub fn usage() -> (usize, usize) {
    CACHE.with_borrow(|cache| (cache.entries.len(), cache.bytes))
}
