//! Starting background workers: the launcher with the server, schedulers and runners by other workers, and a short-lived one that does
//! what must not live in a caller's long transaction. What a worker does then stands in [`super::life`].
use crate::pg::error::failure::{Result, catch};
use crate::pg::ffi;
use pgrx::pg_sys::{self, Oid};
use std::ffi::{CStr, c_char};
use std::ptr;

/// What a worker is told besides its database: the caller's settings do not reach it.
pub type Arguments = [i64; 2];

/// What fits into bgw_extra.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Order {
    pub database: u32,
    pub arguments: Arguments,
}

impl Order {
    /// What this process was told when it was started.
    pub fn of_this_process() -> Self {
        // SAFETY: `describe` wrote it, and bgworker.c copied it.
        unsafe { ptr::read_unaligned((*pg_sys::MyBgworkerEntry).bgw_extra.as_ptr().cast::<Order>()) }
    }
}

/// A kind of worker.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// As pg_stat_activity shows it.
    pub name: &'static CStr,
    /// The exported function that it runs.
    pub entry: &'static CStr,
}

/// A worker that was started.
pub struct Started(*mut pg_sys::BackgroundWorkerHandle);

impl Started {
    /// Whether it has ended, or never will begin.
    pub fn is_over(&self) -> Result<bool> {
        let handle = self.0;
        catch(|| {
            let mut pid = 0;
            // SAFETY: a handle of RegisterDynamicBackgroundWorker, valid until dropped.
            let status = unsafe { ffi::GetBackgroundWorkerPid(handle, &mut pid) };
            matches!(status, pg_sys::BgwHandleStatus::BGWH_STOPPED | pg_sys::BgwHandleStatus::BGWH_POSTMASTER_DIED)
        })
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: made by RegisterDynamicBackgroundWorker in a context that lives as long as the process.
            unsafe { ffi::pfree(self.0.cast()) }
        }
    }
}

fn describe(kind: Kind, order: Order) -> pg_sys::BackgroundWorker {
    // SAFETY: all zeroes is a valid BackgroundWorker, and every field that matters is set below.
    let mut worker: pg_sys::BackgroundWorker = unsafe { std::mem::zeroed() };
    copy(kind.name, &mut worker.bgw_name);
    copy(kind.name, &mut worker.bgw_type);
    copy(c"eventstream", &mut worker.bgw_library_name);
    copy(kind.entry, &mut worker.bgw_function_name);
    worker.bgw_flags = (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION) as i32;
    // A standby starts them when it is promoted.
    worker.bgw_start_time = pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished;
    worker.bgw_restart_time = pg_sys::BGW_NEVER_RESTART;
    // SAFETY: bgw_extra has room for the order (BGW_EXTRALEN is 128).
    unsafe { ptr::write_unaligned(worker.bgw_extra.as_mut_ptr().cast::<Order>(), order) };
    worker
}

/// Starts a worker with the server, and again `restart_seconds` after it ended; only while shared_preload_libraries is processed.
pub fn start_with_server(kind: Kind, restart_seconds: i32) {
    // SAFETY: as bgworker.c asks for; in a binary upgrade nobody but pg_upgrade touches the databases.
    unsafe {
        if pg_sys::process_shared_preload_libraries_in_progress && !pg_sys::IsBinaryUpgrade {
            let mut worker = describe(kind, Order { database: 0, arguments: [0; 2] });
            worker.bgw_restart_time = restart_seconds;
            ffi::RegisterBackgroundWorker(&mut worker);
        }
    }
}

/// Starts a worker for that database; this process is woken when it begins and when it ends. None where all of
/// max_worker_processes are taken.
pub fn start(kind: Kind, database: Oid, arguments: Arguments) -> Result<Option<Started>> {
    let mut worker = describe(kind, Order { database: database.to_u32(), arguments });
    // SAFETY: a plain variable of this process.
    worker.bgw_notify_pid = unsafe { pg_sys::MyProcPid };
    let worker = &raw mut worker;
    let handle = catch(|| {
        // SAFETY: the struct is copied into shared memory; the handle lives as long as the process, unless it is dropped.
        unsafe {
            let before = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = pg_sys::TopMemoryContext;
            let mut handle = ptr::null_mut();
            let is_started = ffi::RegisterDynamicBackgroundWorker(worker, &mut handle);
            pg_sys::CurrentMemoryContext = before;
            is_started.then_some(handle)
        }
    })?;
    Ok(handle.map(Started))
}

/// Runs a worker in this database and waits until it has ended. False where none could be had. Whether it did its work, the
/// caller looks up. Needs no preload.
pub fn run_and_wait(kind: Kind, arguments: Arguments) -> Result<bool> {
    // SAFETY: a plain variable of this backend.
    let Some(started) = start(kind, unsafe { pg_sys::MyDatabaseId }, arguments)? else { return Ok(false) };
    let handle = started.0;
    catch(|| {
        // SAFETY: the handle is valid until dropped.
        unsafe { ffi::WaitForBackgroundWorkerShutdown(handle) == pg_sys::BgwHandleStatus::BGWH_STOPPED }
    })
}

fn copy(from: &CStr, to: &mut [c_char]) {
    for (byte, place) in from.to_bytes().iter().zip(to.iter_mut()) {
        *place = *byte as c_char;
    }
}
