//! The launcher: starts a scheduler for each database that is to be served, and again where one has ended. Connected to no database.
//!
//! ```text
//! server start, promotion ─▶ look ─▶ sleep ──(a database or an extension was made, a hold or a worker ended, a reload, 10 s)──▶ look
//! an append wishes for a partition, and no worker slot is free ─▶ end ─(postmaster)─▶ make it ─▶ end ─(postmaster)─▶ look
//! of each database:
//!   none ──(served, not held, perhaps has the extension)──▶ started ──(its end)──▶ none
//!   none: ended badly ─▶ pause, twice as long each time ─▶ none
//! ```
use crate::log::partition;
use crate::pg::error::failure::Result;
use crate::pg::process::databases::{self, Listed};
use crate::pg::process::life::worker_function;
use crate::pg::process::worker::{self, Arguments, Kind, Started};
use crate::pg::{error::report, process::life};
use crate::shared::board::{
    self,
    database::{self, Database},
};
use crate::shared::{counters, live_settings};
use pgrx::pg_sys::Oid;
use std::cell::Cell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

const LAUNCHER: Kind = Kind { name: c"eventstream launcher", entry: c"eventstream_launcher" };
const SCHEDULER: Kind = Kind { name: c"eventstream scheduler", entry: c"eventstream_scheduler" };

/// After the launcher's end, the postmaster starts it again.
const RESTART_SECONDS: i32 = 1;
/// How long the list of databases may take.
const LIST_PATIENCE: Duration = Duration::from_secs(5);
/// How often to look without being woken.
const SAFETY_NET: Duration = Duration::from_secs(10);
/// How often to try again where no worker slot was free.
const STARVING_PAUSE: Duration = Duration::from_secs(1);
/// The first pause after a scheduler that ended badly, and the longest.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// One that lived so long has not failed at its start.
const LONG_LIFE: Duration = Duration::from_secs(60);

/// How often to look where nothing is to be served.
const IDLE: Duration = Duration::from_secs(60);

worker_function!("eventstream_launcher", serve serve);

thread_local! {
    /// How many databases found no place, as it was told last.
    static TOLD: Cell<usize> = const { Cell::new(0) };
}

pub(super) fn init() {
    worker::start_with_server(LAUNCHER, RESTART_SECONDS);
}

/// What the launcher remembers of a database.
struct Served {
    started: Option<(Started, Instant)>,
    pause: Duration,
    not_before: Instant,
    /// A scheduler found no extension, and the database's entry on the board was given back: until it has one again.
    is_without: bool,
}

impl Served {
    fn new() -> Self {
        Self { started: None, pause: Duration::ZERO, not_before: Instant::now(), is_without: false }
    }

    /// Whether its scheduler runs, or is about to.
    fn is_under_way(&mut self, database: &Database) -> Result<bool> {
        let Some((started, since)) = &self.started else { return Ok(database.scheduler().pid().is_some()) };
        if !started.is_over()? {
            return Ok(true);
        }
        let lived = since.elapsed();
        self.pause = if database.has_ended_well() || lived >= LONG_LIFE {
            Duration::ZERO
        } else {
            (self.pause * 2).clamp(PAUSE, LONGEST_PAUSE)
        };
        self.not_before = Instant::now() + self.pause;
        self.started = None;
        Ok(database.scheduler().pid().is_some())
    }
}

fn serve(_: Oid, _: Arguments) -> Result<()> {
    life::at_exit(board::hall::launcher_leaves);
    make_partition()?;
    board::hall::launcher_enters();
    life::connect(None)?;
    let mut known = HashMap::new();
    loop {
        life::reload()?;
        if board::hall::is_partition_wished() {
            report::log(
                "eventstream launcher ends, to make a partition that an append waits for: all of max_worker_processes are taken",
            )?;
            life::exit_to_be_restarted();
        }
        let nap = look(&mut known)?;
        life::show_activity(None);
        if !life::rest(nap)? {
            life::exit_to_be_restarted();
        }
    }
}

/// A process connects to one database in its life. So where an append wishes for a partition that no worker can be had for, the launcher ends,
/// makes it when it is started again, and ends once more.
fn make_partition() -> Result<()> {
    let Some((database, partition)) = board::hall::take_partition_wish() else { return Ok(()) };
    life::connect(Some(database))?;
    let _ =
        life::bounded("eventstream launcher could not make a partition", LIST_PATIENCE, || partition::make(partition))?;
    life::exit_to_be_restarted()
}

/// Starts what is to be started; how long to sleep.
fn look(known: &mut HashMap<u32, Served>) -> Result<Option<Duration>> {
    // The board first: whatever is on it and not on the list was there, and is gone.
    let on_board: Vec<&Database> = Database::all().collect();
    let counted = counters::databases();
    let Ok(listed) = life::bounded("eventstream launcher", LIST_PATIENCE, databases::list)? else {
        return Ok(Some(PAUSE));
    };
    for database in on_board {
        if !listed.iter().any(|one| one.oid == database.oid()) {
            known.remove(&database.oid().to_u32());
            database.free();
        }
    }
    let is_gone = |oid: &u32| !listed.iter().any(|one| one.oid.to_u32() == *oid);
    counters::forget(&counted.into_iter().filter(is_gone).collect::<Vec<_>>());
    known.retain(|oid, _| listed.iter().any(|one| one.oid.to_u32() == *oid));
    if live_settings::max_workers() == 0 {
        board::hall::set_starving(0);
        return Ok(Some(IDLE));
    }
    // First what others may need: who was named in eventstream.databases once, and is no more, gives its place back.
    for one in listed.iter().filter(|one| !live_settings::is_database_served(&one.name)) {
        if let Some(database) = Database::known(one.oid) {
            database.free_unserved();
        }
    }
    let (mut starving, mut without_place) = (0, 0_usize);
    let mut nap = SAFETY_NET;
    for one in listed.iter().filter(|one| one.is_open) {
        match tend(one, known.entry(one.oid.to_u32()).or_insert_with(Served::new))? {
            Tended::Well => {}
            Tended::LaterIn(pause) => nap = nap.min(pause),
            Tended::NoSlot => starving += 1,
            Tended::NoPlace => without_place += 1,
        }
    }
    tell_without_place(without_place)?;
    board::hall::set_starving(starving);
    if starving > 0 {
        Database::all().for_each(Database::rouse);
    }
    Ok(Some(if starving > 0 { nap.min(STARVING_PAUSE) } else { nap }))
}

enum Tended {
    Well,
    LaterIn(Duration),
    NoSlot,
    NoPlace,
}

/// Says it when their number changes.
fn tell_without_place(databases: usize) -> Result<()> {
    if TOLD.replace(databases) == databases {
        return Ok(());
    }
    let most = database::DATABASES;
    report::warning(&if databases == 0 {
        format!("eventstream: all databases have a place among the {most} that can be served")
    } else {
        format!(
            "eventstream: {databases} databases are not served: all {most} places are taken; name those to be served in eventstream.databases"
        )
    })
}

fn tend(listed: &Listed, served: &mut Served) -> Result<Tended> {
    let is_known = Database::known(listed.oid).is_some();
    served.is_without &= !is_known;
    if !is_known && (served.is_without || !live_settings::is_database_served(&listed.name)) {
        return Ok(Tended::Well);
    }
    let Some(database) = Database::take(listed.oid) else { return Ok(Tended::NoPlace) };
    if served.is_under_way(database)? || !live_settings::is_database_served(&listed.name) || database.is_held() {
        return Ok(Tended::Well);
    }
    if database.is_without_extension() {
        served.is_without = database.free_without_extension();
        return Ok(Tended::Well);
    }
    let wait = served.not_before.saturating_duration_since(Instant::now());
    if !wait.is_zero() {
        return Ok(Tended::LaterIn(wait));
    }
    // Until it says otherwise it ends badly: whatever makes it end at once must not make us start it without a pause.
    database.note_start();
    match worker::start(SCHEDULER, listed.oid, [0; 2])? {
        Some(started) => served.started = Some((started, Instant::now())),
        None => {
            database.set_missing(1);
            return Ok(Tended::NoSlot);
        }
    }
    Ok(Tended::Well)
}
