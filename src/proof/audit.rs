//! Whether what administers the log is what its acts made it. The acts on each definition are gone through from the first: each must have met what the
//! one before it left, and the last one must have left the row that there is. Trusts neither: the acts' own chain is verified first, and a row that no
//! act gave was written by hand, also where a later act corrected it. Where the log is at home decides what a role is: each act says where that was, and
//! all of them, and the row that there is, must say the same; es_activate adds a place, and changes none.
use super::verify::{self, problem::Report};
use crate::log::whole;
use crate::pg::error::failure::Result;
use crate::pg::process::session::Planning;
use crate::pg::query::columns::columns;
use crate::pg::query::plan::{Plan, View};
use crate::pg::query::row::Row;
use crate::pg::value::datum::{int8_array_of, text_array_of};
use crate::proof::verify::problem::Problem;
use crate::shared::session::as_owner;
use eventstream_core::audit::{Kind, reserved_of};
use eventstream_core::name::StreamName;
use eventstream_core::shown;
use pgrx::pg_sys::{Datum, INT8ARRAYOID, INT8OID, Oid, TEXTARRAYOID};

/// The tenant `default` is made by CREATE EXTENSION, which is no act, but says what it makes; in its stream stand the acts of the log itself, too.
const FIRST: i64 = 1;

/// Of whom there are acts or definitions.
struct Administered {
    tenant_id: i64,
    /// None: there is no such tenant any more, or never was.
    name: Option<String>,
    /// The stream of its acts.
    stream: Option<String>,
}

/// A definition that is not what its acts made it.
pub struct Difference {
    pub kind: String,
    /// Which one, as JSON.
    pub key: String,
    /// Of the last act on it, or of the one that met something else than what the one before it left.
    pub global_position: Option<i64>,
    pub problem: String,
}

columns! {
    mod of, selected;
    TENANT = "f.tenant_id",
    KIND = "f.kind",
    KEY = "f.key::text",
    POSITION = "f.global_position",
    FOUND = "f.found",
    IS_GIVEN = "f.given is not null",
    IS_THERE = "f.there is not null",
    OTHER_MEMBERS = "array(select k from jsonb_object_keys(f.given || f.there) k \
                           where (f.given -> k)::text is distinct from (f.there -> k)::text order by k)",
}

const MET: &str = "met";
const OLDER: &str = "older";
const STANDS: &str = "stands";
const AT_HOME: &str = "at home";

/// Of which tenants, the streams of their acts, [`FIRST`], and the one tenant where only one is asked for.
const ASKED: &[Oid] = &[INT8ARRAYOID, TEXTARRAYOID, INT8OID, INT8OID];

// All tenants are gone through at once: each by itself would go through what all of them define. Of one alone, only what is its own is read.
// jsonb compares numbers by value; their text shows the scale, too. What does not come along with a copy, as by logical replication, is made anew
// there: an act may miss it whose log was activated in between, at a place that was neither its home nor activated before.
macro_rules! compare {
    ($definitions:literal) => {
        concat!("with asked as (select a.id, a.stream from unnest($1, $2) a (id, stream)), \
         acts as ( \
             select a.id as tenant_id, e.payload ->> 'kind' as kind, \
                    nullif(e.payload -> 'before', 'null') as before, nullif(e.payload -> 'after', 'null') as after, e.global_position, e.version \
             from asked a join _eventstream.streams s on s.tenant_id = -a.id and s.name = a.stream \
             join _eventstream.events e on e.stream_id = s.id \
             where e.payload ? 'after' \
             union all \
             select a.id, 'tenant', null, '{\"name\": \"default\", \"uuid\": null, \"closed_at\": null, \"closed_by\": null, \"close_reason\": null}'::jsonb, null, 0 from asked a where a.id = $3), \
         keyed as (select a.*, _eventstream.definition_key(a.kind, coalesce(a.after, a.before)) as key from acts a), \
         told as ( \
             select k.*, lag(k.after) over act_by_act as left_there, lag(k.global_position) over act_by_act as left_at, \
                    lead(k.version) over act_by_act is null as is_last \
             from keyed k window act_by_act as (partition by k.tenant_id, k.kind, k.key order by k.version)), \
         moves as materialized ( \
             select m.global_position \
             from (select e.global_position, (e.payload -> 'after') - 'activated_by' as place, \
                          row_number() over (partition by (e.payload -> 'after') - 'activated_by' order by e.global_position) as nth \
                   from _eventstream.streams s join _eventstream.events e on e.stream_id = s.id \
                   where s.tenant_id = -$3 and s.category = '$audit' and e.event_type = 'LogActivated') m \
             where m.nth = 1 and m.place not in ( \
                 select e.payload -> 'home' from _eventstream.streams s join _eventstream.events e on e.stream_id = s.id \
                 where s.tenant_id < 0 and s.category = '$audit' and e.payload ? 'home')), \
         rows as (select d.tenant_id, d.kind, d.key, d.definition from _eventstream.definitions() d where ", $definitions, "), \
         made as ( \
             select d.tenant_id, 'projection' as kind, d.name, d.created_at from _eventstream.projections d where ", $definitions, " \
             union all \
             select d.tenant_id, 'subscription', d.name, d.created_at from _eventstream.subscriptions d where ", $definitions, "), \
         found as ( \
             select t.tenant_id, t.kind, t.key, t.global_position, 'met' as found, t.left_there as given, t.before as there \
             from told t \
             where t.left_there::text is distinct from t.before::text and t.global_position is not null \
               and not (t.before is null and exists ( \
                   select from moves m where m.global_position > t.left_at and m.global_position < t.global_position)) \
             union all \
             select coalesce(t.tenant_id, r.tenant_id), coalesce(t.kind, r.kind), coalesce(t.key, r.key), t.global_position, 'last', t.after, r.definition \
             from (select t.* from told t where t.is_last) t \
             full join rows r on r.tenant_id = t.tenant_id and r.kind = t.kind and r.key = t.key \
             where t.after::text is distinct from r.definition::text \
             union all \
             select m.tenant_id, m.kind, jsonb_build_object('name', m.name), null, 'older', null, null \
             from made m where m.created_at < (select l.created_at from _eventstream.this_log() l)) \
         select ", selected!(), " from found f order by f.tenant_id, f.kind, f.key, f.global_position, f.found")
    };
}

thread_local! {
    static ADMINISTERED: Plan = const { Plan::new(
        "select i.id, t.name, \
                coalesce('$audit-' || t.uuid, (select min(s.name) from _eventstream.streams s where s.tenant_id = -i.id and s.category = '$audit')) \
         from (select $2 as id union select t.id from _eventstream.tenants t \
               union select -s.tenant_id from _eventstream.streams s where s.tenant_id < 0 \
               union select d.tenant_id from _eventstream.definitions() d) i \
         left join _eventstream.tenant_uuids() t on t.id = i.id \
         where $1 is null or i.id = $1 order by i.id",
        &[INT8OID, INT8OID],
    ) };
    static COMPARE_ALL: Plan = const { Plan::new(compare!("true"), ASKED) };
    static COMPARE_ONE: Plan = const { Plan::new(compare!("d.tenant_id = $4"), ASKED) };
    static HOMES: Plan = const { Plan::new(
        concat!("with told as ( \
             select e.global_position, e.event_type, e.payload -> 'home' as home, e.payload -> 'after' as after, \
                    lag(e.global_position) over act_by_act is null as is_first, lag(e.payload -> 'home') over act_by_act as left_there, \
                    lead(e.global_position) over act_by_act is null as is_last \
             from _eventstream.streams s join _eventstream.events e on e.stream_id = s.id \
             where s.category = '$audit' and s.tenant_id < 0 and ($1 is null or s.tenant_id = -$1) \
             window act_by_act as (order by e.global_position)), \
         found as ( \
             select 'log' as kind, null::jsonb as key, t.global_position, 'met' as found, t.left_there as given, t.home as there \
             from told t where not t.is_first and t.left_there is distinct from t.home \
             union all \
             select 'log', null, t.global_position, 'stands', t.home, l.home \
             from told t, (select _eventstream.home_of_log() as home) l where t.is_last and t.home is distinct from l.home \
             union all \
             select 'activation', _eventstream.definition_key('activation', t.after), t.global_position, 'at home', null, null \
             from told t where t.event_type = 'LogActivated' and t.after - 'activated_by' in (select o.home from told o where o.home is not null)), \
         f as (select 0::bigint as tenant_id, o.kind, o.global_position, o.found, o.given, o.there, \
                      coalesce(o.key, jsonb_build_object('log_id', coalesce(o.there, o.given) -> 'log_id')) as key from found o) \
         select ", selected!(), " from f order by f.global_position, f.kind, f.found"),
        &[INT8OID],
    ) };
}

/// What differs in all tenants, or in that one, in their order: the tenant's name, and what it is.
pub fn verify(tenant_id: Option<i64>, report: &mut dyn FnMut(Option<&str>, Difference) -> Result<()>) -> Result<()> {
    // What is the log's stands first, in the one tenant or in the first of all.
    let mut homes = homes(tenant_id)?;
    let administered = administered(tenant_id)?;
    let mut differences = differences(tenant_id, &administered)?.into_iter().peekable();
    for of in &administered {
        let report: &mut dyn FnMut(Difference) -> Result<()> = &mut |found| report(of.name.as_deref(), found);
        std::mem::take(&mut homes).into_iter().try_for_each(&mut *report)?;
        let its_own = std::iter::from_fn(|| differences.next_if(|(tenant_id, _)| *tenant_id == of.tenant_id));
        verify_tenant(of, its_own.map(|(_, found)| found), report)?;
    }
    Ok(())
}

/// Where the log is not where its acts say that it is at home.
fn homes(tenant_id: Option<i64>) -> Result<Vec<Difference>> {
    as_owner(Planning::ByCost, |db, _| {
        HOMES.with(|plan| plan.rows(db, View::Caller, 0, &[tenant_id.map(Datum::from)], difference))
    })
}

/// All of whom there are acts or definitions, or that tenant.
fn administered(tenant_id: Option<i64>) -> Result<Vec<Administered>> {
    as_owner(Planning::ByCost, |db, _| {
        ADMINISTERED.with(|plan| {
            plan.rows(db, View::Caller, 0, &[tenant_id.map(Datum::from), Some(Datum::from(FIRST))], |row| {
                let text = |column| -> Result<Option<String>> { Ok(row.text_opt(column)?.map(str::to_owned)) };
                Ok(Administered { tenant_id: row.int8(0)?, name: text(1)?, stream: text(2)? })
            })
        })
    })
}

/// The chain of a tenant's acts, and then what differs from them.
fn verify_tenant(
    of: &Administered,
    differences: impl Iterator<Item = Difference>,
    report: &mut dyn FnMut(Difference) -> Result<()>,
) -> Result<()> {
    let id = of.tenant_id;
    let is_gone = of.name.is_none();
    if is_gone {
        report(Difference {
            kind: Kind::Tenant.as_str().into(),
            key: format!("{{\"id\": {id}}}"),
            global_position: None,
            problem: format!("there is no tenant {id}"),
        })?;
    }
    let report: &mut dyn FnMut(Difference) -> Result<()> = &mut |found| {
        let problem = if is_gone { format!("{}; there is no tenant {id}", found.problem) } else { found.problem };
        report(Difference { problem, ..found })
    };
    if let Some(stream) = &of.stream {
        verify_chain(id, stream, report)?;
    }
    differences.into_iter().try_for_each(report)
}

/// Each with its tenant, in their order.
fn differences(tenant_id: Option<i64>, of: &[Administered]) -> Result<Vec<(i64, Difference)>> {
    let ids: Vec<i64> = of.iter().map(|of| of.tenant_id).collect();
    // No stream has an empty name.
    let streams: Vec<&str> = of.iter().map(|of| of.stream.as_deref().unwrap_or_default()).collect();
    let args = [
        Some(int8_array_of(&ids)?),
        Some(text_array_of(&streams)?),
        Some(Datum::from(FIRST)),
        tenant_id.map(Datum::from),
    ];
    let compare = if tenant_id.is_some() { &COMPARE_ONE } else { &COMPARE_ALL };
    as_owner(Planning::ByCost, |db, _| {
        compare.with(|plan| plan.rows(db, View::Caller, 0, &args, |row| Ok((row.int8(of::TENANT)?, difference(row)?))))
    })
}

fn difference(row: &Row) -> Result<Difference> {
    Ok(Difference {
        kind: row.text(of::KIND)?.to_owned(),
        key: row.text(of::KEY)?.to_owned(),
        global_position: row.int8_opt(of::POSITION),
        problem: problem(row)?,
    })
}

fn problem(row: &Row) -> Result<String> {
    let found = row.text(of::FOUND)?;
    let (is_given, is_there) = (row.boolean(of::IS_GIVEN)?, row.boolean(of::IS_THERE)?);
    let others = || -> Result<String> { Ok(row.text_array_opt(of::OTHER_MEMBERS)?.unwrap_or_default().join(", ")) };
    if found == OLDER {
        return Ok("is older than the log: created_at was set back by hand".into());
    }
    if found == STANDS {
        return Ok(if is_there {
            format!("is not what the last act met: other {}: changed by hand", others()?)
        } else {
            "is gone, and the last act had met it: taken away by hand".into()
        });
    }
    if found == AT_HOME {
        return Ok("the log was at home there already: where that was had been changed by hand".into());
    }
    if found == MET {
        let what = match (is_given, is_there) {
            (true, true) => format!("other {}", others()?),
            (true, false) => "it was gone, and no act had taken it back".into(),
            (false, _) => "it was there, and no act had given it".into(),
        };
        return Ok(format!("was changed by hand before this act: {what}"));
    }
    let by = if row.int8_opt(of::POSITION).is_some() { "its last act" } else { "CREATE EXTENSION" };
    Ok(match (is_given, is_there) {
        (true, true) => format!("is not what {by} made it: other {}", others()?),
        (true, false) => format!("was given by {by}, and is gone"),
        (false, _) if row.int8_opt(of::POSITION).is_some() => format!("was taken back by {by}, and is there"),
        (false, _) => "was given by no act: it was written by hand".into(),
    })
}

fn verify_chain(tenant_id: i64, name: &str, report: &mut dyn FnMut(Difference) -> Result<()>) -> Result<()> {
    let reserved = reserved_of(tenant_id);
    let mut broken = Vec::new();
    let stream = StreamName::parse(name)?;
    let is_there = as_owner(Planning::ByIndex, |db, catalog| {
        whole::must_be_shown(db, catalog, Some(reserved))?;
        Ok(whole::look_up(db, catalog, View::Caller, reserved, &stream)?.is_some())
    })?;
    let note: Report = &mut |found: Problem| {
        broken.push(found);
        Ok(())
    };
    if is_there {
        verify::verify_stream(reserved, &stream, note)?;
    }
    broken.into_iter().try_for_each(|found| {
        let version = found.version.map_or_else(String::new, |version| format!(" version {version}"));
        report(Difference {
            kind: "act".into(),
            key: format!("{{\"stream\": {}}}", serde_json::json!(name)),
            global_position: found.global_position,
            problem: format!("{}{version}: {}", shown(name), found.problem),
        })
    })
}
