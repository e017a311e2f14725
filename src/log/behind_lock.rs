//! What a transaction knows of a stream behind its lock: it is found or written once, and told to whoever goes on from there.
use super::stream::{Head, Stream};

/// A stream that this transaction has locked, and where it stands: nobody else appends to it.
#[derive(Debug, Clone)]
pub struct Known {
    pub stream: Stream,
    pub head: Head,
}
