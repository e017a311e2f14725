//! What is tried again. Only what rolled back whole, or what a key or event ids let the database recognise: an append without ids whose connection failed may have been recorded.
use crate::error::{Error, Kind, Result};
use std::time::Duration;

/// How often something is tried, and how long the pauses between are: they double, and each is between a half of itself and the whole.
#[derive(Debug, Clone, Copy)]
pub struct Again {
    pub attempts: u32,
    pub first_pause: Duration,
    pub longest_pause: Duration,
}

impl Default for Again {
    fn default() -> Self {
        Self { attempts: 5, first_pause: Duration::from_millis(10), longest_pause: Duration::from_secs(2) }
    }
}

/// Why something may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It rolled back whole because of another transaction: 40001, 40P01, 55P03.
    Contention,
    /// The connection failed, or the server went down: whether it was executed is not known.
    Connection,
    /// The stream had moved on: only a new decision can succeed.
    Conflict,
}

impl Reason {
    /// None where the same again would fail again.
    pub fn of(error: &Error) -> Option<Self> {
        if error.is_of_connection() {
            return Some(Self::Connection);
        }
        match error.kind()? {
            Kind::Contention => Some(Self::Contention),
            Kind::VersionConflict | Kind::ConditionFailed => Some(Self::Conflict),
            _ => None,
        }
    }
}

impl Again {
    /// The pause after `attempt` (from 1); None where it was the last one.
    pub fn pause(&self, attempt: u32) -> Option<Duration> {
        let doubled = self.first_pause.saturating_mul(1u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX));
        let pause = doubled.min(self.longest_pause);
        (attempt < self.attempts).then(|| pause.mul_f64(0.5 + fastrand::f64() / 2.0))
    }

    /// Tries until it succeeds, fails for a reason that `allows` does not name, or was tried often enough; then the last failure.
    pub async fn run<T>(&self, allows: &[Reason], mut operation: impl AsyncFnMut(u32) -> Result<T>) -> Result<T> {
        let mut attempt = 1;
        loop {
            let failure = match operation(attempt).await {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            let pause = Reason::of(&failure).filter(|reason| allows.contains(reason)).and(self.pause(attempt));
            let Some(pause) = pause else { return Err(failure) };
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }
}
