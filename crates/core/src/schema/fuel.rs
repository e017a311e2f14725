//! What keeps judging a payload short. Whatever is asked of a value of the payload spends of a tank (metered.rs), and so does a keyword of our own in
//! each subschema (tank.rs); both look how much stack is in use, and now and then whether somebody wants an
//! end. Where something is used up, the work is left by unwinding, which [`fill`] catches: the library has no other way out.
use super::patterns::Weights;
use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// The most steps of a judgement, of some 50 nanoseconds each.
pub const MOST_STEPS: u64 = 10_000_000;
/// What an error costs that the library makes of a value.
pub const ERROR: u64 = 50;
/// Asked whether somebody wants an end every 2^12 steps.
const ASKED: u32 = 12;
/// The most stack that judging may use, in bytes.
const MOST_STACK: usize = 1 << 20;

thread_local! {
    /// Without end where nothing is judged.
    static LEFT: Cell<u64> = const { Cell::new(u64::MAX) };
    /// Where the stack was when judging began; 0: nothing is judged.
    static BEGIN: Cell<usize> = const { Cell::new(0) };
    static WANTS_END: Cell<fn() -> bool> = const { Cell::new(|| false) };
    static WEIGHTS: Cell<Weights> = const { Cell::new(Weights::NONE) };
}

/// Why a payload is not judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undecided {
    /// The payload is nested too deep.
    Nested,
    /// The schema tries too much.
    Steps,
    /// The schema goes too deep.
    Stack,
    /// Somebody wanted an end.
    Ended,
}

impl fmt::Display for Undecided {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Nested => f.write_str("it is nested deeper than 127 levels"),
            Self::Steps => write!(f, "its schema takes more than {MOST_STEPS} steps for it"),
            Self::Stack => f.write_str("its schema goes too deep for it"),
            Self::Ended => f.write_str("it was left"),
        }
    }
}

/// Runs `work` with a full tank.
///
/// # Errors
/// What was used up.
pub fn fill<T>(wants_end: fn() -> bool, weights: Weights, work: impl FnOnce() -> T) -> Result<T, Undecided> {
    LEFT.set(MOST_STEPS);
    BEGIN.set(stack_now());
    WANTS_END.set(wants_end);
    WEIGHTS.set(weights);
    let done = catch_unwind(AssertUnwindSafe(work));
    LEFT.set(u64::MAX);
    BEGIN.set(0);
    WANTS_END.set(|| false);
    done.map_err(|panic| match panic.downcast::<Undecided>() {
        Ok(why) => *why,
        Err(other) => resume_unwind(other),
    })
}

/// Spends so many steps.
pub fn spend(steps: u64) {
    let before = LEFT.get();
    let Some(left) = before.checked_sub(steps) else { resume_unwind(Box::new(Undecided::Steps)) };
    LEFT.set(left);
    // The stack grows downwards, on all machines that PostgreSQL runs on here.
    if BEGIN.get().saturating_sub(stack_now()) > MOST_STACK {
        resume_unwind(Box::new(Undecided::Stack));
    }
    if left >> ASKED != before >> ASKED && WANTS_END.get()() {
        resume_unwind(Box::new(Undecided::Ended));
    }
}

/// Spends what a text of so many bytes costs that the schema's patterns may be tried on.
pub fn spend_on_text(bytes: usize) {
    spend(WEIGHTS.get().text(bytes as u64));
}

/// Spends what a key of so many bytes costs that the patterns of patternProperties may be tried on.
pub fn spend_on_key(bytes: usize) {
    spend(WEIGHTS.get().key(bytes as u64));
}

/// About where the stack is now.
#[inline(never)]
fn stack_now() -> usize {
    let here = 0_u8;
    std::hint::black_box(&raw const here) as usize
}
