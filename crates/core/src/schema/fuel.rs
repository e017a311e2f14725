//! What keeps judging a payload short. A keyword of our own stands in each subschema (places.rs) and is asked whenever that one is tried: it counts,
//! and looks how much stack is in use. Where either is used up, the judgement is left by unwinding, which `Schema::breach` catches: the library has
//! no other way out.
use jsonschema::paths::Location;
use jsonschema::{Keyword, ValidationError};
use serde_json::{Map, Value};
use std::cell::Cell;
use std::fmt;
use std::panic::resume_unwind;

/// The keyword; a schema that has it by itself has it replaced.
pub const KEYWORD: &str = "$eventstream";
/// The most subschemas that are tried for a payload: a tenth of a second or so.
pub const MOST_STEPS: u64 = 1_000_000;
/// The most stack that judging may use, in bytes.
const MOST_STACK: usize = 1 << 20;

thread_local! {
    static LEFT: Cell<u64> = const { Cell::new(0) };
    /// Where the stack was when judging began; 0: nothing is judged.
    static BEGIN: Cell<usize> = const { Cell::new(0) };
}

/// What was used up.
#[derive(Debug)]
pub enum Spent {
    /// The schema tries too much.
    Steps,
    /// The schema goes too deep.
    Stack,
}

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Steps => write!(f, "its schema takes more than {MOST_STEPS} steps for it"),
            Self::Stack => f.write_str("its schema goes too deep for it"),
        }
    }
}

/// Runs a judgement with a full tank.
pub fn fill<T>(judge: impl FnOnce() -> T) -> T {
    LEFT.set(MOST_STEPS);
    BEGIN.set(stack_now());
    judge()
}

/// Makes the keyword of a subschema.
#[allow(clippy::unnecessary_wraps, clippy::needless_pass_by_value)] // as the library calls it
pub fn tank<'a>(
    _: &'a Map<String, Value>,
    _: &'a Value,
    _: Location,
) -> Result<Box<dyn for<'i> Keyword<'i>>, ValidationError<'a>> {
    Ok(Box::new(Tank))
}

struct Tank;

impl<'i> Keyword<'i> for Tank {
    fn validate(&self, _: &'i Value) -> Result<(), ValidationError<'i>> {
        spend();
        Ok(())
    }

    fn is_valid(&self, _: &'i Value) -> bool {
        spend();
        true
    }
}

fn spend() {
    let left = LEFT.get();
    if left == 0 {
        resume_unwind(Box::new(Spent::Steps));
    }
    LEFT.set(left - 1);
    // The stack grows downwards, on all machines that PostgreSQL runs on here.
    if BEGIN.get().saturating_sub(stack_now()) > MOST_STACK {
        resume_unwind(Box::new(Spent::Stack));
    }
}

/// About where the stack is now.
#[inline(never)]
fn stack_now() -> usize {
    let here = 0_u8;
    std::hint::black_box(&raw const here) as usize
}
