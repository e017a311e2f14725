//! Where the extension's relations are. Looked up by name in the schemas that are the extension's, kept until one of them (or
//! everything) is invalidated; also tells others when to forget what they derived.
use crate::pg::error::failure::Result;
use crate::pg::invalidation::{self, Of};
use crate::pg::query::planner::Tables;
use crate::pg::relation::{self, Schema};
use eventstream_core::error::Error;
use pgrx::pg_sys::{self, Oid};
use std::cell::Cell;
use std::ffi::CStr;

#[derive(Clone, Copy)]
pub struct Catalog {
    /// The owner of the log's tables, whose rights our own statements run with.
    pub owner: Oid,
    pub events: Oid,
    pub positions: Oid,
    pub recorded_floor: Oid,
    pub first_appends: Oid,
    pub segments: Oid,
    pub event_tags: Oid,
    pub tag_partitions: Oid,
    pub streams: Oid,
    pub grants: Oid,
    pub tenants: Oid,
    pub folds: Oid,
    pub snapshots: Oid,
    pub projections: Oid,
    pub event_types: Oid,
    pub periods: Oid,
    pub category_rules: Oid,
    pub protections: Oid,
    pub deciders: Oid,
    pub invariants: Oid,
    pub command_answers: Oid,
    pub scheduled_commands: Oid,
    /// The row type eventstream.command, and its entry among the relations.
    pub command_type: Oid,
    command_row: Oid,
    /// The views eventstream.events and eventstream.audit.
    pub views: [Oid; 2],
    /// The row type eventstream.event, and its entry among the relations.
    pub event_type: Oid,
    event_row: Oid,
}

/// The columns of eventstream.event (sql/schema/types.sql): what is made of that type is made by them.
pub const EVENT: [Oid; 17] = [
    pg_sys::INT8OID,
    pg_sys::TEXTOID,
    pg_sys::INT8OID,
    pg_sys::UUIDOID,
    pg_sys::TEXTOID,
    pg_sys::INT4OID,
    pg_sys::JSONBOID,
    pg_sys::JSONBOID,
    pg_sys::TEXTOID,
    pg_sys::TIMESTAMPTZOID,
    pg_sys::TIMESTAMPTZOID,
    pg_sys::TEXTOID,
    pg_sys::TEXTOID,
    pg_sys::TEXTOID,
    pg_sys::BYTEAOID,
    pg_sys::BYTEAOID,
    pg_sys::TEXTARRAYOID,
];

/// The columns of eventstream.command, as [`EVENT`].
pub const COMMAND: [Oid; 13] = [
    pg_sys::TEXTOID,
    pg_sys::JSONBOID,
    pg_sys::JSONBOID,
    pg_sys::TEXTOID,
    pg_sys::INT8OID,
    pg_sys::JSONBOID,
    pg_sys::TEXTOID,
    pg_sys::TIMESTAMPTZOID,
    pg_sys::TIMESTAMPTZOID,
    pg_sys::TEXTOID,
    pg_sys::TEXTOID,
    pg_sys::TEXTOID,
    pg_sys::TEXTOID,
];

thread_local! {
    static CATALOG: Cell<Option<Catalog>> = const { Cell::new(None) };
    /// Counts invalidations of the log's tables (and their partitions' parent).
    static RELATIONS_CHANGED: Cell<u64> = const { Cell::new(0) };
    /// Counts invalidations of tenants, grants, roles and memberships.
    static ACCESS_CHANGED: Cell<u64> = const { Cell::new(0) };
    /// Counts invalidations of folds, upcasters and protected fields, of functions, which they may call, and of roles.
    static FOLDS_CHANGED: Cell<u64> = const { Cell::new(0) };
    /// Counts invalidations of projections and roles.
    static PROJECTIONS_CHANGED: Cell<u64> = const { Cell::new(0) };
    /// Counts invalidations of tenants, event types, rules of categories, closed periods, protected fields and invariants.
    static RULES_CHANGED: Cell<u64> = const { Cell::new(0) };
    /// Counts invalidations of deciders and invariants, of functions, which they call, and of roles.
    static DECIDERS_CHANGED: Cell<u64> = const { Cell::new(0) };
}

/// Registers for PostgreSQL's invalidation messages; once a backend, from _PG_init.
pub fn init() {
    invalidation::on_relation(note_relation);
    invalidation::on(Of::Roles, note_role);
    invalidation::on(Of::Memberships, note_role);
    invalidation::on(Of::Functions, note_function);
}

fn note_relation(relation: Oid) {
    let Some(catalog) = CATALOG.get() else {
        // Not known which relation it is: it may be one of ours, whose list somebody has made meanwhile.
        RELATIONS_CHANGED.set(RELATIONS_CHANGED.get() + 1);
        ACCESS_CHANGED.set(ACCESS_CHANGED.get() + 1);
        FOLDS_CHANGED.set(FOLDS_CHANGED.get() + 1);
        PROJECTIONS_CHANGED.set(PROJECTIONS_CHANGED.get() + 1);
        RULES_CHANGED.set(RULES_CHANGED.get() + 1);
        DECIDERS_CHANGED.set(DECIDERS_CHANGED.get() + 1);
        return;
    };
    if relation == pg_sys::InvalidOid
        || [
            catalog.events,
            catalog.positions,
            catalog.recorded_floor,
            catalog.segments,
            catalog.event_tags,
            catalog.tag_partitions,
            catalog.streams,
            catalog.snapshots,
            catalog.event_row,
            catalog.command_row,
            catalog.command_answers,
            catalog.scheduled_commands,
        ]
        .contains(&relation)
    {
        CATALOG.set(None);
        RELATIONS_CHANGED.set(RELATIONS_CHANGED.get() + 1);
    }
    if [pg_sys::InvalidOid, catalog.grants, catalog.tenants].contains(&relation) {
        CATALOG.set(None);
        ACCESS_CHANGED.set(ACCESS_CHANGED.get() + 1);
    }
    if [pg_sys::InvalidOid, catalog.folds, catalog.protections].contains(&relation) {
        CATALOG.set(None);
        FOLDS_CHANGED.set(FOLDS_CHANGED.get() + 1);
    }
    let of_rules = [
        pg_sys::InvalidOid,
        catalog.tenants,
        catalog.event_types,
        catalog.periods,
        catalog.category_rules,
        catalog.invariants,
        catalog.protections,
    ];
    if of_rules.contains(&relation) {
        CATALOG.set(None);
        RULES_CHANGED.set(RULES_CHANGED.get() + 1);
    }
    if [pg_sys::InvalidOid, catalog.deciders, catalog.invariants].contains(&relation) {
        CATALOG.set(None);
        DECIDERS_CHANGED.set(DECIDERS_CHANGED.get() + 1);
    }
    if relation == pg_sys::InvalidOid || relation == catalog.projections {
        CATALOG.set(None);
        PROJECTIONS_CHANGED.set(PROJECTIONS_CHANGED.get() + 1);
    }
}

fn note_function() {
    FOLDS_CHANGED.set(FOLDS_CHANGED.get() + 1);
    DECIDERS_CHANGED.set(DECIDERS_CHANGED.get() + 1);
}

fn note_role() {
    ACCESS_CHANGED.set(ACCESS_CHANGED.get() + 1);
    // A registrant may be another, or none, by now.
    FOLDS_CHANGED.set(FOLDS_CHANGED.get() + 1);
    PROJECTIONS_CHANGED.set(PROJECTIONS_CHANGED.get() + 1);
    DECIDERS_CHANGED.set(DECIDERS_CHANGED.get() + 1);
}

/// A number that changes whenever partitions may have come or gone.
pub fn relations_generation() -> u64 {
    RELATIONS_CHANGED.get()
}

/// A number that changes whenever rights may have.
pub fn access_generation() -> u64 {
    ACCESS_CHANGED.get()
}

/// A number that changes whenever a fold, an upcaster, what is protected, or a function that they call may have.
pub fn folds_generation() -> u64 {
    FOLDS_CHANGED.get()
}

/// A number that changes whenever a projection was made, dropped, altered, paused, resumed or is to be rebuilt.
pub fn projections_generation() -> u64 {
    PROJECTIONS_CHANGED.get()
}

/// A number that changes whenever what may be recorded does: a tenant was closed, an event type was declared, altered or dropped, a category altered, a period closed or
/// reopened, an invariant registered or unregistered.
pub fn rules_generation() -> u64 {
    RULES_CHANGED.get()
}

/// Tells every session (at commit) of a row that no function of ours wrote: of a restore, or of logical replication. This session with the end of the statement
/// that writes it.
pub fn announce_foreign(table: &str) -> Result<()> {
    let catalog = Catalog::current()?;
    invalidation::announce_with_command(match table.trim_start_matches("_eventstream.") {
        "log_identities" | "activations" | "grants" | "token_keys" => catalog.grants,
        "tenants" => catalog.tenants,
        "folds" | "upcasters" => catalog.folds,
        "projections" => catalog.projections,
        "event_types" => catalog.event_types,
        "category_rules" => catalog.category_rules,
        "protections" => catalog.protections,
        "periods" => catalog.periods,
        "deciders" => catalog.deciders,
        "invariants" => catalog.invariants,
        // What nobody has derived anything from: streams, and what is read as it is.
        _ => return Ok(()),
    })
}

/// A number that changes whenever a decider, an invariant or a function that one calls may have.
pub fn deciders_generation() -> u64 {
    DECIDERS_CHANGED.get()
}

/// Tells every session (at commit) that deciders changed.
pub fn announce_decider_change(catalog: &Catalog) -> Result<()> {
    DECIDERS_CHANGED.set(DECIDERS_CHANGED.get() + 1);
    invalidation::announce(catalog.deciders)
}

/// Tells every session (at commit) that invariants changed.
pub fn announce_invariant_change(catalog: &Catalog) -> Result<()> {
    DECIDERS_CHANGED.set(DECIDERS_CHANGED.get() + 1);
    RULES_CHANGED.set(RULES_CHANGED.get() + 1);
    invalidation::announce(catalog.invariants)
}

/// Tells every session (at commit) that event types changed.
pub fn announce_event_type_change(catalog: &Catalog) -> Result<()> {
    RULES_CHANGED.set(RULES_CHANGED.get() + 1);
    invalidation::announce(catalog.event_types)
}

/// Tells every session (at commit) that periods were closed or reopened.
pub fn announce_period_change(catalog: &Catalog) -> Result<()> {
    RULES_CHANGED.set(RULES_CHANGED.get() + 1);
    invalidation::announce(catalog.periods)
}

/// Tells every session (at commit) that rules of categories changed.
pub fn announce_category_change(catalog: &Catalog) -> Result<()> {
    RULES_CHANGED.set(RULES_CHANGED.get() + 1);
    invalidation::announce(catalog.category_rules)
}

/// This session reads anew what is protected.
pub fn forget_protections() {
    FOLDS_CHANGED.set(FOLDS_CHANGED.get() + 1);
    RULES_CHANGED.set(RULES_CHANGED.get() + 1);
}

/// Tells every session (at commit) that what is protected changed.
pub fn announce_protection_change(catalog: &Catalog) -> Result<()> {
    forget_protections();
    invalidation::announce(catalog.protections)
}

/// Tells every session (at commit) that projections changed.
pub fn announce_projection_change(catalog: &Catalog) -> Result<()> {
    PROJECTIONS_CHANGED.set(PROJECTIONS_CHANGED.get() + 1);
    invalidation::announce(catalog.projections)
}

/// Tells every session (at commit) that folds or upcasters changed.
pub fn announce_fold_change(catalog: &Catalog) -> Result<()> {
    FOLDS_CHANGED.set(FOLDS_CHANGED.get() + 1);
    invalidation::announce(catalog.folds)
}

/// Tells every session (at commit) that a tenant has another name, or was closed.
pub fn announce_tenant_change(catalog: &Catalog) -> Result<()> {
    ACCESS_CHANGED.set(ACCESS_CHANGED.get() + 1);
    RULES_CHANGED.set(RULES_CHANGED.get() + 1);
    invalidation::announce(catalog.tenants)?;
    // What is known of these has the tenant's name.
    announce_fold_change(catalog)?;
    announce_decider_change(catalog)?;
    announce_projection_change(catalog)
}

/// Tells every session (at commit) that grants or tenants changed.
pub fn announce_access_change(catalog: &Catalog) -> Result<()> {
    ACCESS_CHANGED.set(ACCESS_CHANGED.get() + 1);
    invalidation::announce(catalog.grants)
}

impl Catalog {
    fn look_up() -> Result<Option<Self>> {
        let (Some(hidden), Some(public)) = (Schema::own(c"_eventstream")?, Schema::own(c"eventstream")?) else {
            return Ok(None);
        };
        let relation = |name: &CStr| hidden.relation(name);
        let events = relation(c"events")?;
        if events == pg_sys::InvalidOid {
            return Ok(None);
        }
        let (event_type, event_row) = public.composite(c"event")?;
        let (command_type, command_row) = public.composite(c"command")?;
        Ok(Some(Self {
            owner: relation::owner(events)?,
            events,
            positions: relation(c"positions")?,
            recorded_floor: relation(c"recorded_floor")?,
            segments: relation(c"stream_segments")?,
            event_tags: relation(c"event_tags")?,
            tag_partitions: relation(c"tag_partitions")?,
            streams: relation(c"streams")?,
            grants: relation(c"grants")?,
            tenants: relation(c"tenants")?,
            folds: relation(c"folds")?,
            snapshots: relation(c"snapshots")?,
            first_appends: relation(c"first_appends")?,
            projections: relation(c"projections")?,
            event_types: relation(c"event_types")?,
            periods: relation(c"periods")?,
            category_rules: relation(c"category_rules")?,
            protections: relation(c"protections")?,
            deciders: relation(c"deciders")?,
            invariants: relation(c"invariants")?,
            command_answers: relation(c"command_answers")?,
            scheduled_commands: relation(c"scheduled_commands")?,
            command_type,
            command_row,
            views: [public.relation(c"events")?, public.relation(c"audit")?],
            event_type,
            event_row,
        }))
    }

    /// The table of the log's events, where the extension is installed.
    pub fn events_if_any() -> Result<Option<Oid>> {
        let known = CATALOG.get();
        Ok(if known.is_some() { known } else { Self::look_up()? }.map(|catalog| catalog.events))
    }

    pub fn current() -> Result<Self> {
        if let Some(known) = CATALOG.get() {
            return Ok(known);
        }
        let catalog = Self::look_up()?.ok_or_else(|| Error::FeatureNotSupported {
            what: "eventstream is not installed in this database".into(),
            hint: Some("create extension eventstream;".into()),
        })?;
        for (row, columns, what) in
            [(catalog.event_row, EVENT.as_slice(), "event"), (catalog.command_row, COMMAND.as_slice(), "command")]
        {
            if !relation::has_columns(row, columns)? {
                return Err(Error::FeatureNotSupported {
                    what: format!("the type eventstream.{what} has been altered: {what}s cannot be made of it"),
                    hint: Some("Dump the log's data, and restore it where the extension was created anew.".into()),
                }
                .into());
            }
        }
        CATALOG.set(Some(catalog));
        Ok(catalog)
    }
}

/// What plans of statements over our views are made by.
pub fn tables() -> Result<Tables> {
    Catalog::current().map(|catalog| Tables { events: catalog.events, streams: catalog.streams, views: catalog.views })
}

/// The table of streams, if it was looked up since something of the catalog changed.
pub fn known_streams() -> Option<Oid> {
    CATALOG.get().map(|catalog| catalog.streams)
}
