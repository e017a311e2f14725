//! Shared memory: one entry a backend, in which an open transaction that has appended says from which position on, and
//! from which recorded_at on, it may own events of a tenant: a bound for each tenant it appends to. `log::horizon` reads them; only the owner
//! of an entry writes it.
use crate::pg::compat::{backend_number, backend_slots, is_backend};
use crate::pg::error::failure::Result;
use crate::pg::process::life::{self, Signal};
use crate::pg::process::test_point::test_point;
use crate::pg::process::{exit, server};
use crate::pg::shmem::Area;
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, Ordering::SeqCst, fence};

/// No open append: larger than every position.
const FREE: i64 = i64::MAX;
/// The owner of the entry is about to store the bound.
const PENDING: i64 = i64::MIN;

/// How many bounds an entry has room for; the last one is for all tenants that have none before it.
const BOUNDS: usize = 8;
/// What stands for these: no tenant's id.
const OTHERS: i64 = 0;

#[repr(C)]
struct Bound {
    position: AtomicI64,
    recorded_at: AtomicI64,
    tenant: AtomicI64,
}

#[repr(C)]
pub struct Entry {
    /// Counts the changes of what a bound belongs to; odd in the middle of one.
    turn: AtomicU32,
    database: AtomicU32,
    pid: AtomicI32,
    since: AtomicI64,
    /// In the order in which they were taken: the first free one ends them.
    bounds: [Bound; BOUNDS],
}

/// Whose open appends are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Everybody's.
    Log,
    Tenant(i64),
}

/// What an open append holds of a tenant.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// None: of all tenants of which the transaction holds nothing else.
    pub tenant_id: Option<i64>,
    /// No position below this one is the transaction's. None: it is about to say so.
    pub position: Option<i64>,
    /// No recorded_at below is the transaction's (microseconds since 2000-01-01 UTC). None: it is about to say so.
    pub recorded_at: Option<i64>,
    /// When it began to append (the same unit).
    pub since: i64,
    pub pid: i32,
    /// The backend's, by which its entry is found.
    number: usize,
}

pub static ENTRIES: Area<Entry> = Area::new(c"eventstream open appends", backend_slots, || Entry {
    turn: AtomicU32::new(0),
    database: AtomicU32::new(0),
    pid: AtomicI32::new(0),
    since: AtomicI64::new(0),
    bounds: std::array::from_fn(|_| Bound {
        position: AtomicI64::new(FREE),
        recorded_at: AtomicI64::new(0),
        tenant: AtomicI64::new(OTHERS),
    }),
});

thread_local! {
    /// The tenants of this transaction's bounds in their order, and the recorded_at of each.
    static HELD: RefCell<Vec<(i64, i64)>> = const { RefCell::new(Vec::new()) };
    static EXIT_REGISTERED: Cell<bool> = const { Cell::new(false) };
}

/// Whether the library was preloaded, so that there is a horizon.
pub fn are_there() -> bool {
    ENTRIES.get().is_some()
}

/// Whether this transaction has a bound for that tenant.
pub fn holds(tenant_id: i64) -> bool {
    held_recorded_at(tenant_id).is_some()
}

/// The lower bound of recorded_at that this transaction holds for that tenant, if it has appended to it.
pub fn held_recorded_at(tenant_id: i64) -> Option<i64> {
    HELD.with_borrow(|held| {
        let of = |tenant: i64| held.iter().find(|(of, _)| *of == tenant).map(|&(_, recorded_at)| recorded_at);
        of(tenant_id).or_else(|| of(OTHERS))
    })
}

/// This backend's entry, and the bound that was taken last, if there is one.
fn own() -> Option<(&'static Entry, Option<&'static Bound>)> {
    let entry = &ENTRIES.get()?[backend_number()];
    let taken = HELD.with_borrow(Vec::len);
    Some((entry, taken.checked_sub(1).map(|last| &entry.bounds[last])))
}

/// Changes what a bound belongs to: whoever reads it in the meantime reads again.
fn turn(entry: &Entry, change: impl FnOnce()) {
    /// Whoever reads meanwhile waits for the end, also where a panic is it.
    struct End<'a>(&'a AtomicU32);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    entry.turn.fetch_add(1, SeqCst);
    let _end = End(&entry.turn);
    test_point("in the turn of an entry");
    change();
}

/// Says that this transaction is about to [`hold`] positions of a tenant that it [`holds`] none of, which has to follow at once. Whoever scans
/// the entries from now on waits for the bound; whoever did so before read a last position that this transaction has not read yet, so that its
/// bound lies above: the tenant's horizon never steps back.
pub fn announce(tenant_id: i64, now: i64) {
    let place = HELD.with_borrow(Vec::len);
    let tenant = if place + 1 < BOUNDS { tenant_id } else { OTHERS };
    if let Some(entries) = ENTRIES.get() {
        // After the abort of an open transaction: nothing can commit any more.
        exit::at_exit(&EXIT_REGISTERED, release);
        let entry = &entries[backend_number()];
        turn(entry, || {
            if place == 0 {
                entry.since.store(now, SeqCst);
                entry.database.store(server::database().to_u32(), SeqCst);
                entry.pid.store(server::pid(), SeqCst);
            }
            let bound = &entry.bounds[place];
            bound.tenant.store(tenant, SeqCst);
            bound.recorded_at.store(PENDING, SeqCst);
            bound.position.store(PENDING, SeqCst);
        });
        fence(SeqCst);
    }
    HELD.with_borrow_mut(|held| held.push((tenant, now)));
}

/// Stores the lower bound of this transaction's positions of the tenant, which must come from a last position that was read after [`announce`].
/// To be called before it takes the first one; [`hold_recorded_at`] has to follow at once.
pub fn hold(position: i64) {
    if let Some((_, Some(bound))) = own() {
        bound.position.store(position, SeqCst);
        fence(SeqCst);
    }
}

/// Stores the lower bound of this transaction's recorded_at there, which must come from a floor that was read after [`hold`].
pub fn hold_recorded_at(recorded_at: i64) {
    if let Some((_, Some(bound))) = own() {
        bound.recorded_at.store(recorded_at, SeqCst);
    }
    HELD.with_borrow_mut(|held| {
        if let Some((_, at)) = held.last_mut() {
            *at = recorded_at;
        }
    });
}

/// Takes back what was announced last and not held.
pub fn give_up() {
    if let Some((entry, Some(bound))) = own() {
        turn(entry, || bound.position.store(FREE, SeqCst));
    }
    HELD.with_borrow_mut(Vec::pop);
}

/// Clears this backend's entry. To be called after the transaction's end is visible to others.
pub fn release() {
    release_to(0);
}

/// How many bounds this transaction has.
pub fn count() -> usize {
    HELD.with_borrow(Vec::len)
}

/// Gives up the bounds that were taken since there were `count`, of which nothing is left that could commit.
pub fn release_to(count: usize) {
    while self::count() > count {
        give_up();
    }
}

/// What the open appends of the current database hold.
pub fn scan(whose: Whose) -> impl Iterator<Item = Held> {
    fence(SeqCst);
    let database = server::database().to_u32();
    let found = ENTRIES.all().iter().enumerate().flat_map(move |(number, entry)| {
        let bounds = entry.bounds.iter().map_while(move |bound| look(number, entry, bound));
        bounds.filter(move |(of, _)| *of == database).map(|(_, held)| held)
    });
    found.filter(move |held| match whose {
        Whose::Log => true,
        Whose::Tenant(tenant_id) => held.tenant_id.is_none_or(|of| of == tenant_id),
    })
}

/// A bound and the database it is of, all parts of the same transaction's; None: it is free.
fn look(number: usize, entry: &Entry, bound: &Bound) -> Option<(u32, Held)> {
    loop {
        let turn = entry.turn.load(SeqCst);
        let (position, tenant) = (bound.position.load(SeqCst), bound.tenant.load(SeqCst));
        let held = Held {
            tenant_id: Some(tenant).filter(|&tenant| tenant != OTHERS),
            position: Some(position).filter(|&position| position != PENDING),
            recorded_at: Some(bound.recorded_at.load(SeqCst)).filter(|&bound| bound != PENDING),
            since: entry.since.load(SeqCst),
            pid: entry.pid.load(SeqCst),
            number,
        };
        let database = entry.database.load(SeqCst);
        if turn.is_multiple_of(2) && entry.turn.load(SeqCst) == turn {
            return (position != FREE).then_some((database, held));
        }
        std::hint::spin_loop();
    }
}

/// The open transactions of the current database that have appended, each once, by the first of what it holds.
pub fn holders() -> Vec<Held> {
    let mut found: Vec<Held> = scan(Whose::Log).collect();
    found.sort_by_key(|held| (held.pid, held.position));
    found.dedup_by_key(|held| held.pid);
    found
}

/// Cancels the statement of the process that holds this. False where it holds it no longer.
pub fn cancel(held: &Held) -> Result<bool> {
    signal(held, Signal::Cancel)
}

/// Ends the session of the process that holds this. False where it holds it no longer.
pub fn terminate(held: &Held) -> Result<bool> {
    signal(held, Signal::Terminate)
}

fn signal(held: &Held, signal: Signal) -> Result<bool> {
    let holds = scan(Whose::Log).any(|other| other.pid == held.pid && other.since == held.since);
    Ok(holds && is_backend(held.pid, held.number)? && life::signal(held.pid, signal))
}
