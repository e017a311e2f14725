//! What patterns of a schema may cost: how large they are when they are compiled, and so what a text or a key is worth that they are tried on.
use regex_automata::nfa::thompson::NFA;
use std::collections::HashMap;

/// The most bytes that a pattern may have.
pub const MOST_BYTES: usize = 2 << 10;
/// The most bytes that the compiled form of a pattern may have: what judging takes grows with it.
pub const MOST_COMPILED_BYTES: usize = 128 << 10;
/// The most different patterns in a schema, and the most bytes of all of them.
pub const MOST: usize = 200;
const MOST_BYTES_OF_ALL: usize = 32 << 10;
const MOST_COMPILED_BYTES_OF_ALL: usize = 4 << 20;
/// A step of a judgement is worth so many states of a pattern for a byte of text.
const STATES_A_STEP: u64 = 16;
/// What trying one pattern on a key costs by itself.
const TRYING: u64 = 4;

/// The patterns of a schema.
#[derive(Default)]
pub struct Patterns {
    /// How many states each has.
    known: HashMap<String, u64>,
    bytes: usize,
    compiled_bytes: usize,
    pub weights: Weights,
}

/// What texts and keys of a payload cost, in steps.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weights {
    /// States of the largest pattern.
    most_states: u64,
    /// How many patterns keys are tried by, and all of their states.
    of_keys: u64,
    states_of_keys: u64,
}

impl Weights {
    pub const NONE: Self = Self { most_states: 0, of_keys: 0, states_of_keys: 0 };

    /// Of a text that is tried by one pattern.
    pub const fn text(self, bytes: u64) -> u64 {
        1 + bytes / 64 + bytes.saturating_mul(self.most_states) / STATES_A_STEP
    }

    /// Of a key that is tried by all patterns of keys.
    pub const fn key(self, bytes: u64) -> u64 {
        1 + bytes / 64 + self.of_keys * TRYING + bytes.saturating_mul(self.states_of_keys) / STATES_A_STEP
    }
}

impl Patterns {
    /// Takes note of a pattern, of a text or (`is_of_keys`) of the keys of patternProperties. The error is what is wrong with it.
    pub fn note(&mut self, pattern: &str, is_of_keys: bool) -> Result<(), String> {
        let states = match self.known.get(pattern) {
            Some(&states) => states,
            None => self.compile(pattern)?,
        };
        self.weights.most_states = self.weights.most_states.max(states);
        if is_of_keys {
            self.weights.of_keys += 1;
            self.weights.states_of_keys += states;
        }
        Ok(())
    }

    fn compile(&mut self, pattern: &str) -> Result<u64, String> {
        let refusal = || {
            format!(
                "must be a regular expression without references back and looks around, of at most {MOST_BYTES} bytes, and {MOST_COMPILED_BYTES} bytes \
                 when it is compiled"
            )
        };
        if pattern.len() > MOST_BYTES {
            return Err(refusal());
        }
        self.bytes += pattern.len();
        let is_one_too_many = self.known.len() >= MOST || self.bytes > MOST_BYTES_OF_ALL;
        let translated = jsonschema_regex::to_rust_regex(pattern).map_err(|()| refusal())?;
        let config = NFA::config().nfa_size_limit(Some(MOST_COMPILED_BYTES));
        let compiled = NFA::compiler().configure(config).build(&translated).map_err(|_| refusal())?;
        self.compiled_bytes += compiled.memory_usage();
        if is_one_too_many || self.compiled_bytes > MOST_COMPILED_BYTES_OF_ALL {
            return Err(format!(
                "must be one of at most {MOST} patterns in a schema, of at most {MOST_BYTES_OF_ALL} bytes, and {MOST_COMPILED_BYTES_OF_ALL} bytes when \
                 they are compiled"
            ));
        }
        let states = compiled.states().len() as u64;
        self.known.insert(pattern.to_owned(), states);
        Ok(states)
    }
}
