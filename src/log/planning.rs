//! What PostgreSQL's planner is told of our tables (src/pg/query): by which columns our views are read, in order, a tenant's own rows only, and how many streams
//! a category has.
use super::statements::{column, stream_column};
use crate::pg::query::columns::number;
use crate::pg::query::{estimate, own_rows, planner};
use crate::shared::catalog;
use std::ffi::CStr;

const COLUMNS: planner::Columns = planner::Columns {
    tenant_of_event: number(column::TENANT_ID),
    position: number(column::GLOBAL_POSITION),
    category_of_event: number(column::CATEGORY),
    rare: [number(column::EVENT_ID), number(column::SUBJECT)],
    tenant_of_stream: number(stream_column::TENANT_ID),
    category_of_stream: number(stream_column::CATEGORY),
};

const STREAMS: estimate::Streams = estimate::Streams {
    oid: catalog::known_streams,
    table: c"streams",
    tenant: number(stream_column::TENANT_ID),
    name: number(stream_column::NAME),
    category: number(stream_column::CATEGORY),
};

/// The columns that no view shows: of the tenant, or of a row of the tenant's.
pub const WALLS: [&CStr; 5] = [c"tenant_id", c"stream_id", c"projection_id", c"subscription_id", c"id"];

/// Sets the planner's hooks; once a process, from _PG_init.
pub fn init() {
    planner::init(catalog::tables, COLUMNS);
    estimate::init(STREAMS);
    own_rows::init(&WALLS);
}
