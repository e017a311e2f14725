//! Queries by criteria (es_query): what may be asked for, how a payload is compared, and the pages on which an answer goes on. Owns the meaning of
//! criteria that need no database; which events there are is found out by who has the log.
pub mod criteria;
pub mod page;
pub mod payload;
