//! What acts of administration are due when their transaction commits (src/log/audit.rs), through the door.
use super::write::write;
use crate::log::audit;
use crate::log::event::NewEvent;
use crate::log::identity;
use crate::log::last_append;
use crate::log::request::Request;
use crate::log::target::Target;
use crate::pg::error::failure::Result;
use crate::pg::jsonb::Jsonb;
use crate::pg::query::plan::View;
use eventstream_core::audit::{reserved_of, stream_of};
use eventstream_core::error::Error;
use eventstream_core::expected::ExpectedVersion;
use eventstream_core::name::StreamName;

/// Appends all of them, each to its tenant's one stream.
pub fn append_all() -> Result<()> {
    for (tenant_id, acts) in audit::take() {
        let [tenant] = identity::tenants(Some(tenant_id), View::Latest)?
            .try_into()
            .map_err(|_| Error::Internal { what: format!("there is no tenant {tenant_id}") })?;
        let stream = stream_of(&tenant.uuid);
        let events = acts
            .iter()
            .map(|act| NewEvent::of_act(act.event_type, Jsonb::parse(&act.payload)?))
            .collect::<Result<Vec<_>>>()?;
        let stream = StreamName::parse(&stream)?;
        let request = Request { stream, expected: ExpectedVersion::Any, events, must_exist: false };
        let target = Target { id: reserved_of(tenant_id), name: &tenant.name };
        // What the session has appended last stays its own.
        last_append::apart(|| write(target, &[request]))?;
    }
    Ok(())
}
