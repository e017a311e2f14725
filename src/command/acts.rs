//! What acts of administration are due when their transaction commits (src/log/audit.rs), through the door.
use super::write::write;
use crate::log::audit::{self, Act};
use crate::log::event::NewEvent;
use crate::log::identity;
use crate::log::last_append;
use crate::log::request::Request;
use crate::log::target::Target;
use crate::pg::error::failure::Result;
use crate::pg::jsonb::Jsonb;
use crate::pg::process::server;
use crate::pg::query::plan::View;
use crate::shared::catalog::Catalog;
use eventstream_core::audit::{reserved_of, stream_of};
use eventstream_core::error::Error;
use eventstream_core::expected::ExpectedVersion;
use eventstream_core::name::StreamName;
use std::collections::BTreeMap;

/// Appends all of them, each to its tenant's one stream; also those that come by what that sets going, such as an event trigger of a user's. An act of a log
/// that the transaction itself has dropped went with it.
pub fn append_all() -> Result<()> {
    let mut due = audit::take(Catalog::events_if_any()?);
    if !due.is_empty() {
        server::must_be_writable(c"an act of administration")?;
    }
    while !due.is_empty() {
        append(due)?;
        due = audit::take(Catalog::events_if_any()?);
    }
    Ok(())
}

fn append(due: BTreeMap<i64, Vec<Act>>) -> Result<()> {
    for (tenant_id, acts) in due {
        let [tenant] = identity::tenants(Some(tenant_id), View::Latest)?
            .try_into()
            .map_err(|_| Error::Internal { what: format!("there is no tenant {tenant_id}") })?;
        let stream = stream_of(&tenant.uuid);
        let events = acts
            .iter()
            .map(|act| {
                let (payload, metadata) = (Jsonb::parse(&act.payload)?, Jsonb::parse(&act.metadata)?);
                NewEvent::of_act(act.event_type, payload, metadata, &act.recorded_by)
            })
            .collect::<Result<Vec<_>>>()?;
        let stream = StreamName::parse(&stream)?;
        let request = Request { stream, expected: ExpectedVersion::Any, events, must_exist: false, held: None };
        let target = Target { id: reserved_of(tenant_id), name: &tenant.name };
        // What the session has appended last stays its own.
        last_append::apart(|| write(target, &mut [request]))?;
    }
    Ok(())
}
