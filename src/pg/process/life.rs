//! A background worker's own life: its start, its connection, its transactions, its timeouts, and its sleep. A waiting session sleeps
//! the same way.
use super::worker::{Arguments, Order};
use super::{databases, deadline, memory};
use crate::pg::compat::{self, TIMEOUTS, handle_signal};
use crate::pg::error::entry::logging;
use crate::pg::error::failure::{Caught, Failure, Result, catch, keeping_errors_in, log};
use crate::pg::ffi;
use pgrx::pg_sys::{self, Oid};
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_int, c_long};
use std::ptr;
use std::thread;
use std::time::{Duration, Instant};

const SIGHUP: i32 = pg_sys::SIGHUP as i32;
const SIGINT: i32 = pg_sys::SIGINT as i32;
const SIGTERM: i32 = pg_sys::SIGTERM as i32;
/// A handler that catches its cancel is cancelled again so often.
const CANCEL_AGAIN: Duration = Duration::from_secs(1);
/// How long one may go on after its timeout where nobody else would end it.
const GRACE: Duration = Duration::from_secs(5);
const USER_LOCKMETHOD: u16 = pg_sys::USER_LOCKMETHOD as u16;
/// How long a worker that makes something for others waits for a lock, unseen by deadlock detection.
const LOCK_TIMEOUT: &CStr = c"2s";

/// How long one that serves others meanwhile waits for a lock.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// What holds whatever the database's own settings say.
const SETTINGS: [(&CStr, &CStr); 6] = [
    (c"role", c"none"),
    (c"session_replication_role", c"origin"),
    (c"default_transaction_isolation", c"read committed"),
    (c"default_transaction_read_only", c"off"),
    (c"default_transaction_deferrable", c"off"),
    // What a worker commits can be made again from the log; an append makes its transaction durable by itself.
    (c"synchronous_commit", c"off"),
];

/// A worker with little to do rests so long after it worked so long: it leaves the processors to those whom somebody waits for, also where
/// the system would let it work on for milliseconds. What takes longer than `GENTLE` is not little.
const WORK: Duration = Duration::from_micros(100);
const BREATH: Duration = Duration::from_micros(100);
const GENTLE: Duration = Duration::from_millis(10);

thread_local! {
    /// Since when this worker has worked without a rest, and until when it is to rest.
    static WORKING: Cell<Option<(Instant, Instant)>> = const { Cell::new(None) };
    /// Of one round of a worker's loop.
    static ROUND: Cell<pg_sys::MemoryContext> = const { Cell::new(ptr::null_mut()) };
    /// Of the database; empty where it is none.
    static NAME: RefCell<String> = const { RefCell::new(String::new()) };
    static TRANSACTIONS: Cell<u64> = const { Cell::new(0) };
    /// The timeout that runs, if one does.
    static TIMEOUT: Cell<Option<Duration>> = const { Cell::new(None) };
    /// Nobody else would end this process.
    static WATCHES_ITSELF: Cell<bool> = const { Cell::new(false) };
}

/// A short-lived worker: connects to the caller's database as the superuser and runs `work` in one transaction. An error ends the
/// worker, which the log tells and the caller notices.
pub fn once(work: fn(Arguments) -> Result<()>) -> Result<()> {
    let order = Order::of_this_process();
    catch(|| {
        // SAFETY: the order that bgworker.c prescribes; the process exits on any error. SIGTERM ends it at the next check for interrupts:
        // what a background worker has otherwise ends it at once, which within a critical section is a PANIC of the whole server.
        unsafe {
            handle_signal(SIGTERM, ffi::die);
            ffi::BackgroundWorkerUnblockSignals();
            ffi::BackgroundWorkerInitializeConnectionByOid(order.database.into(), pg_sys::InvalidOid, 0);
            for (name, value) in SETTINGS {
                set_config(name, value);
            }
            set_config(c"lock_timeout", LOCK_TIMEOUT);
        }
    })?;
    begin()?;
    work(order.arguments)?;
    commit()
}

/// Begins a transaction; none is open.
fn begin() -> Result<()> {
    // SAFETY: as the caller says.
    catch(|| unsafe {
        ffi::SetCurrentStatementStartTimestamp();
        ffi::StartTransactionCommand();
        ffi::PushActiveSnapshot(ffi::GetTransactionSnapshot());
    })
}

/// Commits what [`begin`] began, with no subtransaction and no snapshot besides.
fn commit() -> Result<()> {
    // SAFETY: as the caller says.
    catch(|| unsafe {
        ffi::PopActiveSnapshot();
        ffi::CommitTransactionCommand();
    })
}

/// A worker that lives until it is told to stop. `work` connects, and looks at [`must_stop`] wherever it sleeps; while it works, SIGTERM
/// ends it at the next check for interrupts.
pub fn serve(work: fn(Oid, Arguments) -> Result<()>) -> Result<()> {
    // SAFETY: the order that bgworker.c prescribes; both handlers are PostgreSQL's own.
    unsafe {
        handle_signal(SIGTERM, ffi::die);
        handle_signal(SIGHUP, ffi::SignalHandlerForConfigReload);
        ffi::BackgroundWorkerUnblockSignals();
    }
    let order = Order::of_this_process();
    work(order.database.into(), order.arguments)
}

/// Connects this worker to the database as the bootstrap superuser; None: to none, so that only what all databases share is seen.
pub fn connect(database: Option<Oid>) -> Result<()> {
    catch(|| {
        // SAFETY: once in the life of a worker; a failure ends the process.
        unsafe {
            match database {
                Some(database) => ffi::BackgroundWorkerInitializeConnectionByOid(database, pg_sys::InvalidOid, 0),
                None => ffi::BackgroundWorkerInitializeConnection(ptr::null(), ptr::null(), 0),
            }
        }
    })?;
    for (name, value) in SETTINGS.into_iter().chain(TIMEOUTS.iter().map(|name| (*name, c"0"))) {
        // SAFETY: settings that exist.
        catch(|| unsafe { set_config(name, value) })?;
    }
    ROUND.set(memory::lasting(c"eventstream worker's round")?);
    if database.is_some()
        && let Ok(name) = transaction("eventstream worker", databases::own_name)?
    {
        // In messages, whatever log_line_prefix is, and in the process's title.
        let title = CString::new(name.as_str()).unwrap_or_default();
        catch(|| compat::show_in_title(&title))?;
        NAME.set(name);
    }
    Ok(())
}

/// # Safety
/// May raise.
unsafe fn set_config(name: &CStr, value: &CStr) {
    let (context, source) = (pg_sys::GucContext::PGC_SUSET, pg_sys::GucSource::PGC_S_OVERRIDE);
    // SAFETY: as the caller says.
    unsafe { ffi::SetConfigOption(name.as_ptr(), value.as_ptr(), context, source) }
}

/// Runs `work` in a transaction of its own. What it failed with is written to the log, after "`what`: ", and everything it did is undone.
/// An error of the abort itself ends the process.
pub fn transaction<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<std::result::Result<T, Caught>> {
    let round = ROUND.get();
    TRANSACTIONS.set(TRANSACTIONS.get() + 1);
    keeping_errors_in(round, || {
        let outcome = begin().and_then(|()| work()).and_then(|made| commit().map(|()| made));
        let done = match outcome {
            Ok(made) => Ok(made),
            Err(failure) => Err(abort(what, failure)?),
        };
        // SAFETY: whatever was made in the round's memory is not used any more.
        catch(|| unsafe { ffi::MemoryContextReset(round) })?;
        Ok(done)
    })
}

/// As [`transaction`], for those who serve others meanwhile: it waits for no lock longer than [`LOCK_PATIENCE`], and is cancelled after
/// `most`.
pub fn bounded<T>(
    what: &str,
    most: Duration,
    work: impl FnOnce() -> Result<T>,
) -> Result<std::result::Result<T, Caught>> {
    // SAFETY: a plain variable of this process (lock_timeout, in milliseconds), which is put back below.
    let before = unsafe {
        let before = pg_sys::LockTimeout;
        pg_sys::LockTimeout = LOCK_PATIENCE.as_millis() as c_int;
        before
    };
    begin_timeout(Some(most));
    let done = transaction(what, work);
    end_timeout();
    // SAFETY: as above.
    unsafe { pg_sys::LockTimeout = before };
    done
}

/// How many [`transaction`]s this process has begun. One that waits for a lock takes in the latch: after it, look for what there is to do
/// before you sleep.
pub fn transactions() -> u64 {
    TRANSACTIONS.get()
}

/// " in database "x"", for messages of a worker that is connected to one.
pub fn in_database() -> String {
    NAME.with_borrow(|name| if name.is_empty() { String::new() } else { format!(" in database \"{name}\"") })
}

/// As PostgresMain does after an error.
fn abort(what: &str, failure: Failure) -> Result<Caught> {
    end_timeout();
    catch(|| {
        // SAFETY: the top context outlives the abort, which frees the transaction's.
        unsafe { pg_sys::CurrentMemoryContext = ROUND.get() }
    })?;
    let failure = failure.withheld()?;
    log(&failure, &format!("{what}{}", in_database()))?;
    let caught = failure.into_caught();
    catch(|| {
        // SAFETY: rights, settings, search path, SPI, portals and open scans are put back by the abort.
        unsafe {
            ffi::AbortCurrentTransaction();
            ffi::jit_reset_after_error();
            pg_sys::CurrentMemoryContext = pg_sys::TopMemoryContext;
        }
    })?;
    Ok(caught)
}

/// Cancels what runs `time` from now, and again every second until [`end_timeout`]. A process that watches itself ends where that is of no use.
pub fn begin_timeout(time: Option<Duration>) {
    TIMEOUT.set(time);
    if let Some(time) = time {
        let first = deadline::from_now(time);
        // SAFETY: the statement timeout's handler is registered since the connection.
        unsafe { ffi::enable_timeout_every(ffi::STATEMENT_TIMEOUT, first, CANCEL_AGAIN.as_millis() as c_int) }
    }
    if WATCHES_ITSELF.get() {
        deadline::end_process_in(time.map(|time| time + GRACE));
    }
}

/// A part of what runs is done, and the next one gets the whole time. Of no effect on the timeouts of a session.
pub fn renew_timeout() {
    begin_timeout(TIMEOUT.get());
}

/// Whether this process ends itself, from now on, where its work lets the cancels of its timeout pass. To be called while no timeout runs.
pub fn watch_itself(does: bool) -> Result<()> {
    WATCHES_ITSELF.set(does);
    if does { deadline::may_end_process() } else { Ok(()) }
}

/// Whether [`breathe`] rests from now on, for a while.
pub fn work_gently(is_gentle: bool) {
    let now = Instant::now();
    WORKING.set(is_gentle.then_some((now, now + GENTLE)));
}

/// To be called after each small piece of work. Of no effect in a session.
pub fn breathe() {
    let Some((since, until)) = WORKING.get() else { return };
    let now = Instant::now();
    if now >= until {
        WORKING.set(None);
    } else if now - since >= WORK {
        thread::sleep(BREATH);
        WORKING.set(Some((Instant::now(), until)));
    }
}

/// Also forgets a cancel that came too late: it must not hit the next one's work.
pub fn end_timeout() {
    TIMEOUT.set(None);
    if WATCHES_ITSELF.get() {
        deadline::end_process_in(None);
    }
    // SAFETY: as in postgres.c.
    unsafe {
        ffi::disable_timeout(ffi::STATEMENT_TIMEOUT, false);
        pg_sys::QueryCancelPending = 0;
    }
}

/// Puts away what a handler may have left in the session: advisory locks. (Everything else that outlives a transaction is refused to it:
/// it is security-restricted.)
pub fn tidy_up() -> Result<()> {
    // SAFETY: outside of transactions.
    catch(|| unsafe { ffi::LockReleaseAll(USER_LOCKMETHOD, true) })
}

/// From now on a cancel, a timeout's too, ends this process. PostgreSQL's wait for synchronous standbys takes a cancel for leave to go on and tells
/// nobody; that one was told to end stands: [`must_stop`].
pub fn let_cancels_end_it() -> Result<()> {
    // SAFETY: PostgreSQL's own handler.
    unsafe { handle_signal(SIGINT, ffi::die) };
    catch(check_for_interrupts)
}

/// Whether this process was told to end.
pub fn must_stop() -> bool {
    // SAFETY: a flag that a signal handler sets.
    unsafe { ptr::read_volatile(&raw const pg_sys::ProcDiePending) != 0 }
}

/// Reads the configuration again, if that was asked for; whether it was.
pub fn reload() -> Result<bool> {
    // SAFETY: a flag that a signal handler sets.
    unsafe {
        if ptr::read_volatile(&raw const pg_sys::ConfigReloadPending) == 0 {
            return Ok(false);
        }
        pg_sys::ConfigReloadPending = 0;
    }
    // SAFETY: outside of transactions.
    catch(|| unsafe { ffi::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) })?;
    Ok(true)
}

/// Ends this process so that the postmaster starts it again.
pub fn exit_to_be_restarted() -> ! {
    // SAFETY: nothing is held that the exit callbacks do not give back.
    unsafe { ffi::proc_exit(1) }
}

/// Calls `leave` when this process ends and nobody sees it as connected any more. To be called before [`connect`].
pub fn at_exit(leave: fn()) {
    thread_local! {
        static LEAVE: Cell<Option<fn()>> = const { Cell::new(None) };
    }
    unsafe extern "C-unwind" fn exit(_: c_int, _: pg_sys::Datum) {
        logging("the end of a worker", || {
            if let Some(leave) = LEAVE.take() {
                leave();
            }
            Ok(())
        });
    }
    LEAVE.set(Some(leave));
    // SAFETY: these callbacks run last registered first, so after the one that InitPostgres registers, which takes the process off the list of
    // those that are connected.
    unsafe { pg_sys::on_shmem_exit(Some(exit), pg_sys::Datum::null()) };
}

/// What pg_stat_activity shows: what this process does, or None: it idles.
pub fn show_activity(what: Option<&str>) {
    let what = what.and_then(|what| CString::new(what).ok());
    let (state, text) = match &what {
        Some(what) => (pg_sys::BackendState::STATE_RUNNING, what.as_ptr()),
        None => (pg_sys::BackendState::STATE_IDLE, ptr::null()),
    };
    // SAFETY: the text is copied.
    unsafe { ffi::pgstat_report_activity(state, text) }
}

/// Gives away what was counted since the last time, at most once a second. When to call it again, if something is left.
pub fn report_statistics() -> Result<Option<Duration>> {
    // SAFETY: outside of transactions.
    let milliseconds = catch(|| unsafe { ffi::pgstat_report_stat(false) })?;
    Ok(u64::try_from(milliseconds).ok().filter(|&left| left > 0).map(Duration::from_millis))
}

/// Sleeps until the latch of this process is set, or so long; None: without end. Ends the process where the postmaster is gone. Look for
/// what there is to do after this, never before: the latch is reset.
pub fn sleep(at_most: Option<Duration>) {
    let timeout = at_most.map(|time| c_long::try_from(time.as_micros().div_ceil(1000)).unwrap_or(c_long::MAX));
    let limit = if timeout.is_some() { pg_sys::WL_TIMEOUT } else { 0 };
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_EXIT_ON_PM_DEATH | limit;
    // SAFETY: the latch of this process; raises nothing but for a lack of memory or descriptors.
    unsafe {
        ffi::WaitLatch(pg_sys::MyLatch, events as i32, timeout.unwrap_or(-1), pg_sys::PG_WAIT_EXTENSION);
        ffi::ResetLatch(pg_sys::MyLatch);
    }
}

/// A worker's sleep: as [`sleep`], and it takes part in what the server asks of all its processes. False where it must stop.
pub fn rest(at_most: Option<Duration>) -> Result<bool> {
    if !must_stop() {
        catch(|| sleep(at_most))?;
    }
    if must_stop() {
        return Ok(false);
    }
    // A barrier that another process waits for, for instance.
    catch(check_for_interrupts)?;
    Ok(true)
}

/// Ends here where a cancel, a timeout or a shutdown waits: call it inside `catch`.
pub fn check_for_interrupts() {
    crate::pg::jsonb::check_for_interrupts();
}

/// What one process asks of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// To cancel its statement.
    Cancel,
    /// To end.
    Terminate,
}

/// False where there is no such process. What pg_cancel_backend and pg_terminate_backend do. Ask before whether it still is the process that is meant
/// ([`compat::is_backend`], [`super::latch::Latch::is_of`]): the number that shared memory has may be that of a stranger by now.
pub fn signal(pid: i32, signal: Signal) -> bool {
    let number = match signal {
        Signal::Cancel => SIGINT,
        Signal::Terminate => SIGTERM,
    };
    // SAFETY: a process that was one of this server's a moment ago.
    unsafe { ffi::kill(pid, number) == 0 }
}

/// Exports `$work: fn(Arguments) -> Result<()>` as a worker's main function `$symbol`: `once` in one transaction, or, as
/// `$work: fn(Oid, Arguments) -> Result<()>`, to `serve` until it is told to stop.
macro_rules! worker_function {
    ($symbol:literal, once $work:path) => {
        $crate::pg::process::life::worker_function!($symbol, $work, $crate::pg::process::life::once);
    };
    ($symbol:literal, serve $work:path) => {
        $crate::pg::process::life::worker_function!($symbol, $work, $crate::pg::process::life::serve);
    };
    ($symbol:literal, $work:path, $run:path) => {
        #[allow(unsafe_code)]
        const _: () = {
            #[unsafe(export_name = $symbol)]
            extern "C-unwind" fn exported_worker(_: pgrx::pg_sys::Datum) {
                $crate::pg::error::entry::raising($symbol, || $run($work));
            }
        };
    };
}
pub(crate) use worker_function;
