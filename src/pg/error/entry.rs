//! The way in: whatever of ours PostgreSQL calls by a pointer (a function, a hook, a callback) goes through one of the functions here; tests/tidy
//! refuses one that does not. A panic, which is a mistake of ours, ends here: PostgreSQL's own frames know nothing of unwinding, so a panic that came as far
//! as them would leave what they hold, or end the server. What is raised is raised when all of ours has returned, as the last thing.
use super::failure::{Failure, Result, log, raise};
use crate::pg::process::test_point::panic_point;
use eventstream_core::error::Error;
use pgrx::pg_sys::panic::{CaughtError, ErrorReportWithLevel, pgrx_extern_c_guard};
use std::any::Any;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe, catch_unwind, resume_unwind};

type Payload = Box<dyn Any + Send>;

thread_local! {
    /// Where the last panic began.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Notes from now on where panics begin, once a process.
pub fn init() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(|place| format!("{}:{}", place.file(), place.line())).unwrap_or_default();
        // Not while that is lent out, nor in a thread that ends.
        let _ = PLACE.try_with(|at| at.try_borrow_mut().map(|mut at| *at = place));
        before(panic);
    }));
}

/// Where an error may be raised: runs `work`, and raises what it fails with; a panic as an error of ours. To be called as the only thing that a function
/// called by PostgreSQL does, or between calls of PostgreSQL's.
pub fn raising<T>(name: &'static str, work: impl FnOnce() -> Result<T>) -> T {
    let failure = match guarded(name, work) {
        Ok(Ok(made)) => return made,
        Ok(Err(failure)) => failure,
        Err(payload) => match words(name, payload) {
            Ok(failure) => failure,
            // SAFETY: nothing is alive in this frame, which an error jumps over.
            Err(payload) => unsafe { pgrx_extern_c_guard(|| resume_unwind(payload)) },
        },
    };
    raise(failure)
}

/// Where nothing may be raised any more (after a commit, at the end of the process): what `work` fails with, and a panic, is a line in the server's log.
pub fn logging(name: &'static str, work: impl FnOnce() -> Result<()>) {
    let failure = match guarded(name, work) {
        Ok(Ok(())) => return,
        Ok(Err(failure)) => failure,
        Err(payload) => words(name, payload).unwrap_or_else(|payload| {
            let what = match payload.downcast::<CaughtError>().map(|caught| *caught) {
                Ok(CaughtError::PostgresError(report) | CaughtError::ErrorReport(report)) => {
                    report.message().to_owned()
                }
                _ => format!("an error in {name}"),
            };
            Error::Internal { what }.into()
        }),
    };
    // Where not even that is possible, there is nothing left to do.
    let _ = catch_unwind(AssertUnwindSafe(|| log(&failure, "eventstream goes on after a mistake of its own")));
}

/// Where nothing may be raised nor written, since an error is being written: a panic leaves `otherwise`.
pub fn silent<T>(name: &'static str, otherwise: T, work: impl FnOnce() -> T) -> T {
    guarded(name, work).unwrap_or(otherwise)
}

fn guarded<T>(name: &'static str, work: impl FnOnce() -> T) -> Result<T, Payload> {
    // What a panic leaves half done is put back by Drop, or ends with the transaction, as after any error.
    catch_unwind(AssertUnwindSafe(|| {
        panic_point(name);
        work()
    }))
}

/// A panic as an error of ours; what pgrx made a panic of, an error of PostgreSQL's, is pgrx's to raise.
fn words(name: &str, payload: Payload) -> Result<Failure, Payload> {
    if payload.is::<CaughtError>() || payload.is::<ErrorReportWithLevel>() {
        return Err(payload);
    }
    let message = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(&message), _) => message,
        (_, Some(message)) => message,
        _ => "without a word",
    };
    let place = PLACE.try_with(|at| at.try_borrow().map(|at| at.clone()).unwrap_or_default()).unwrap_or_default();
    Ok(Error::Internal { what: format!("a panic in {name}, at {place}: {message}") }.into())
}
