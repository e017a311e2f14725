//! What came of advancing a projection.
use crate::projection::projections::Projection;
use eventstream_core::error::Error;

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Somebody else advances it.
    Busy,
    /// There was nothing to do up to this position.
    Idle {
        position: i64,
    },
    /// The checkpoint is at `position`; `is_behind`: there is more to do at once.
    Advanced {
        position: i64,
        events: i64,
        is_behind: bool,
    },
    /// An event failed, and is to be tried again at that time (microseconds since 2000-01-01 UTC).
    Waiting {
        until: i64,
    },
    /// It is paused or stopped.
    Stopped,
    Gone,
}

pub fn unusable(projection: &Projection, reason: String) -> Error {
    Error::ProjectionStopped {
        projection: projection.name.clone(),
        position: None,
        sqlstate: "55000".into(),
        message: reason,
    }
}
