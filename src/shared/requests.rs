//! What a session asks a worker of its own to do, in more words than a worker can be started with: a place a backend.
//!
//! ```text
//! free ──ask──▶ asked, with a ticket ──(the worker takes it, does it, and answers)──▶ answered ──drop──▶ free
//!                 └──drop (an error, a cancel): the ticket is none any more, and a worker that comes later finds nothing to do
//! ```
//! Promises: an answer is of the very request that it was given for: tickets of a place are never used again; whoever stops waiting leaves nothing behind.
use crate::pg::compat::{backend_number, backend_slots};
use crate::pg::process::worker::Arguments;
use crate::pg::shmem::Area;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicUsize};

/// The longest request.
pub const MOST_BYTES: usize = 4096;

#[repr(C)]
pub struct Place {
    /// The last one that was given out.
    issued: AtomicI64,
    /// Of the request that stands here; 0: none.
    ticket: AtomicI64,
    answered: AtomicI64,
    length: AtomicUsize,
    bytes: [AtomicU8; MOST_BYTES],
}

pub static AREA: Area<Place> = Area::new(c"eventstream requests", backend_slots, || Place {
    issued: AtomicI64::new(0),
    ticket: AtomicI64::new(0),
    answered: AtomicI64::new(0),
    length: AtomicUsize::new(0),
    bytes: [const { AtomicU8::new(0) }; MOST_BYTES],
});

/// A request of this backend, until it is dropped.
pub struct Asked {
    place: &'static Place,
    number: usize,
    ticket: i64,
}

/// Asks for that, of [`MOST_BYTES`] at most; None without preload.
pub fn ask(request: &str) -> Option<Asked> {
    let number = backend_number();
    let place = AREA.get()?.get(number)?;
    place.ticket.store(0, SeqCst);
    let ticket = place.issued.fetch_add(1, SeqCst) + 1;
    for (byte, at) in request.bytes().zip(&place.bytes) {
        at.store(byte, SeqCst);
    }
    place.length.store(request.len().min(MOST_BYTES), SeqCst);
    place.ticket.store(ticket, SeqCst);
    Some(Asked { place, number, ticket })
}

impl Asked {
    /// What the worker is to be told.
    pub fn arguments(&self) -> Arguments {
        [self.number as i64, self.ticket]
    }

    pub fn is_answered(&self) -> bool {
        self.place.answered.load(SeqCst) == self.ticket
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.place.ticket.store(0, SeqCst);
    }
}

/// The request that a worker was started for; None: nobody waits for it any more.
pub fn take([number, ticket]: Arguments) -> Option<String> {
    let place = place(number)?;
    let is_it = || place.ticket.load(SeqCst) == ticket;
    if !is_it() {
        return None;
    }
    let bytes = place.bytes.iter().take(place.length.load(SeqCst)).map(|byte| byte.load(SeqCst)).collect();
    // Of one request, and not of two.
    String::from_utf8(bytes).ok().filter(|_| is_it())
}

/// It is done, for ever.
pub fn answer([number, ticket]: Arguments) {
    if let Some(place) = place(number) {
        place.answered.store(ticket, SeqCst);
    }
}

fn place(number: i64) -> Option<&'static Place> {
    AREA.get()?.get(usize::try_from(number).ok()?)
}
