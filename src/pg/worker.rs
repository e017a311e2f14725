//! A transaction of its own for DDL that must not live in a caller's long one: a short-lived background worker. The
//! caller waits for it. Needs no preload, only a free slot of max_worker_processes; the caller copes where there is none.
use super::failure::{Result, catch};
use super::ffi;
use pgrx::pg_sys;
use std::ffi::{CStr, c_char};
use std::ptr;

/// What a worker is told: the caller's settings do not reach it.
pub type Arguments = [i64; 2];

/// What fits into bgw_extra.
#[repr(C)]
#[derive(Clone, Copy)]
struct Order {
    database: u32,
    arguments: Arguments,
}

/// Runs the exported function `entry` in a background worker, with `arguments`, and waits until it has ended. False where no
/// worker could be had. Whether it did its work, the caller looks up.
pub fn run_and_wait(name: &CStr, entry: &CStr, arguments: Arguments) -> Result<bool> {
    // SAFETY: all zeroes is a valid BackgroundWorker, and every field that matters is set below.
    let mut worker: pg_sys::BackgroundWorker = unsafe { std::mem::zeroed() };
    copy(name, &mut worker.bgw_name);
    copy(name, &mut worker.bgw_type);
    copy(c"eventstream", &mut worker.bgw_library_name);
    copy(entry, &mut worker.bgw_function_name);
    worker.bgw_flags = (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION) as i32;
    worker.bgw_start_time = pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished;
    worker.bgw_restart_time = pg_sys::BGW_NEVER_RESTART;
    // SAFETY: plain variables of this backend; bgw_extra has room for the order (BGW_EXTRALEN is 128).
    unsafe {
        worker.bgw_notify_pid = pg_sys::MyProcPid;
        let order = Order { database: pg_sys::MyDatabaseId.to_u32(), arguments };
        ptr::write_unaligned(worker.bgw_extra.as_mut_ptr().cast::<Order>(), order);
    }
    let worker = &raw mut worker;
    let stopped = catch(|| {
        // SAFETY: the struct is copied into shared memory; the handle is used while it is valid.
        unsafe {
            let mut handle = ptr::null_mut();
            ffi::RegisterDynamicBackgroundWorker(worker, &mut handle)
                && ffi::WaitForBackgroundWorkerShutdown(handle) == pg_sys::BgwHandleStatus::BGWH_STOPPED
        }
    })?;
    Ok(stopped)
}

fn copy(from: &CStr, to: &mut [c_char]) {
    for (byte, place) in from.to_bytes().iter().zip(to.iter_mut()) {
        *place = *byte as c_char;
    }
}

/// Exports `$work: fn(Arguments) -> Result<()>` as a worker's main function `$symbol`.
macro_rules! worker_function {
    ($symbol:literal, $work:path) => {
        #[allow(unsafe_code)]
        const _: () = {
            #[unsafe(export_name = $symbol)]
            extern "C-unwind" fn exported_worker(_: pgrx::pg_sys::Datum) {
                // SAFETY: PostgreSQL starts the worker on its main thread; the guard turns panics into errors.
                unsafe { pgrx::pg_sys::panic::pgrx_extern_c_guard(|| $crate::pg::worker::main($work)) }
            }
        };
    };
}
pub(crate) use worker_function;

/// The worker's side: connects to the caller's database as the superuser and runs `work` in one transaction. An error
/// ends the worker, which the log tells and the caller notices.
pub fn main(work: fn(Arguments) -> Result<()>) {
    // SAFETY: the order that bgworker.c prescribes; the process exits on any error.
    unsafe {
        pg_sys::BackgroundWorkerUnblockSignals();
        let order = ptr::read_unaligned((*pg_sys::MyBgworkerEntry).bgw_extra.as_ptr().cast::<Order>());
        pg_sys::BackgroundWorkerInitializeConnectionByOid(order.database.into(), pg_sys::InvalidOid, 0);
        // A lock that somebody holds for long must not let the caller wait without end, unseen by deadlock detection.
        pg_sys::SetConfigOption(
            c"lock_timeout".as_ptr(),
            c"2s".as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
        pg_sys::StartTransactionCommand();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        match work(order.arguments) {
            Ok(()) => {
                pg_sys::PopActiveSnapshot();
                pg_sys::CommitTransactionCommand();
            }
            Err(failure) => super::failure::raise(failure),
        }
    }
}
