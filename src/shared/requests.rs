//! What a session asks a worker of its own to do, in more words than a worker can be started with: a place a backend.
//!
//! ```text
//! free ──ask──▶ asked, with a ticket ──(the worker takes it, does it, and answers)──▶ answered ──drop──▶ free
//!                 └──drop (an error, a cancel): the ticket is none any more, and a worker that comes later finds nothing to do
//! ```
//! The worker attends the place for a moment after it has answered: what is asked there next, of the same database, needs no other one.
//!
//! Promises: an answer is of the very request that it was given for: tickets of a place are never used again; one worker begins with each; whoever stops waiting leaves nothing behind; no worker takes what is of another database.
use crate::pg::compat::{backend_number, backend_slots};
use crate::pg::error::failure::Result;
use crate::pg::process::latch::Latch;
use crate::pg::process::worker::Arguments;
use crate::pg::process::{life, server};
use crate::pg::shmem::Area;
use pgrx::pg_sys::Oid;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU8, AtomicU32, AtomicUsize};
use std::time::{Duration, Instant};

/// The longest request.
pub const MOST_BYTES: usize = 4096;

#[repr(C)]
pub struct Place {
    /// The last one that was given out.
    issued: AtomicI64,
    /// Of the request that stands here; 0: none.
    ticket: AtomicI64,
    /// What a worker has begun with.
    taken: AtomicI64,
    answered: AtomicI64,
    /// What no worker can do.
    refused: AtomicI64,
    /// Whose request it is, and whom its answer wakes.
    database: AtomicU32,
    latch: Latch,
    /// The worker that attends (0: none), and its latch. One that was ended may have left its number.
    attendant: AtomicI32,
    attendants_latch: Latch,
    length: AtomicUsize,
    bytes: [AtomicU8; MOST_BYTES],
}

pub static AREA: Area<Place> = Area::new(c"eventstream requests", backend_slots, || Place {
    issued: AtomicI64::new(0),
    ticket: AtomicI64::new(0),
    taken: AtomicI64::new(0),
    answered: AtomicI64::new(0),
    refused: AtomicI64::new(0),
    database: AtomicU32::new(0),
    latch: Latch::none(),
    attendant: AtomicI32::new(0),
    attendants_latch: Latch::none(),
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
    for (byte, at) in request.bytes().zip(&place.bytes) {
        at.store(byte, SeqCst);
    }
    place.length.store(request.len().min(MOST_BYTES), SeqCst);
    place.database.store(server::database().to_u32(), SeqCst);
    place.latch.become_mine();
    let mut asked = Asked { place, number, ticket: 0 };
    asked.again();
    Some(asked)
}

impl Asked {
    /// Whoever has not begun with it by now finds nothing to do: another one is asked.
    pub fn again(&mut self) {
        self.ticket = self.place.issued.fetch_add(1, SeqCst) + 1;
        self.place.ticket.store(self.ticket, SeqCst);
    }

    /// What the worker is to be told.
    pub fn arguments(&self) -> Arguments {
        [self.number as i64, self.ticket]
    }

    pub fn is_answered(&self) -> bool {
        self.place.answered.load(SeqCst) == self.ticket
    }

    pub fn is_over(&self) -> bool {
        self.is_answered() || self.is_refused()
    }

    /// Whether a worker has found that none can do it.
    pub fn is_refused(&self) -> bool {
        self.place.refused.load(SeqCst) == self.ticket
    }

    /// Whether a worker has begun with it.
    pub fn is_taken(&self) -> bool {
        self.place.taken.load(SeqCst) == self.ticket
    }

    /// Tells the worker that attends, if one does; its pid.
    pub fn wake_attendant(&self) -> Option<i32> {
        let pid = self.place.attendant.swap(0, SeqCst);
        if pid == 0 {
            return None;
        }
        self.place.attendants_latch.set();
        Some(pid)
    }

    /// Whether it may yet answer.
    pub fn is_there(&self, attendant: i32) -> bool {
        self.place.attendants_latch.is_of(attendant)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.place.ticket.store(0, SeqCst);
    }
}

/// The request that a worker was started for; None: nobody waits for it any more, or another one has begun with it.
pub fn take([number, ticket]: Arguments) -> Option<String> {
    let place = place(number)?;
    let is_it = || place.ticket.load(SeqCst) == ticket;
    if !is_it() || place.taken.swap(ticket, SeqCst) == ticket {
        return None;
    }
    let bytes = place.bytes.iter().take(place.length.load(SeqCst)).map(|byte| byte.load(SeqCst)).collect();
    // Of one request, and not of two.
    String::from_utf8(bytes).ok().filter(|_| is_it())
}

/// It is done, for ever; whoever waits for it is woken.
pub fn answer([number, ticket]: Arguments) {
    if let Some(place) = place(number) {
        place.answered.fetch_max(ticket, SeqCst);
        place.latch.set();
    }
}

/// It cannot be done.
pub fn refuse([number, ticket]: Arguments) {
    if let Some(place) = place(number) {
        place.refused.fetch_max(ticket, SeqCst);
        place.latch.set();
    }
}

/// What is asked next by whoever was answered, in the database of this worker, if it comes within that time.
pub fn next([number, answered]: Arguments, database: Oid, time: Duration) -> Result<Option<Arguments>> {
    let Some(place) = place(number) else { return Ok(None) };
    let asked = || {
        let ticket = place.ticket.load(SeqCst);
        let is_another = ticket != 0 && ticket != answered && place.taken.load(SeqCst) != ticket;
        (is_another && place.database.load(SeqCst) == database.to_u32()).then_some([number, ticket])
    };
    let until = Instant::now() + time;
    place.attendants_latch.become_mine();
    place.attendant.store(server::pid(), SeqCst);
    while asked().is_none() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || !life::rest(Some(left))? {
            break;
        }
    }
    place.attendant.store(0, SeqCst);
    // Also what came in the last moment: whoever asked has seen that somebody attends.
    Ok(asked())
}

fn place(number: i64) -> Option<&'static Place> {
    AREA.get()?.get(usize::try_from(number).ok()?)
}
