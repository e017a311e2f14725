//! es_activate.
use crate::access::everything_or;
use crate::live::activation;
use crate::pg::datum::from_text;
use crate::pg::function::{Args, Returned, sql_function};
use crate::pg::server;
use eventstream_core::privilege::Privilege;

sql_function!("eventstream_activate", activate);

fn activate(_: &Args) -> Returned {
    server::must_be_writable(c"es_activate")?;
    everything_or(Privilege::Admin)?;
    from_text(&activation::activate()?).map(Some)
}
