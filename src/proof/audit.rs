//! Whether what administers the log is what its acts made it: the last act on each definition is compared with the row that there is. Trusts
//! neither: the acts' own chain is verified first, and a row that no act gave was written by hand.
use super::verify::{self, problem::Report};
use crate::log::whole;
use crate::pg::error::failure::Result;
use crate::pg::process::session::Planning;
use crate::pg::query::columns::columns;
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::from_text;
use crate::proof::verify::problem::Problem;
use crate::shared::session::as_owner;
use eventstream_core::audit::{reserved_of, stream_of};
use eventstream_core::name::StreamName;
use eventstream_core::shown;
use pgrx::pg_sys::{Datum, INT8OID, TEXTOID};

/// The tenant `default` is made by CREATE EXTENSION, which is no act.
const FIRST: i64 = 1;

/// A definition that is not what its last act made it.
pub struct Difference {
    pub kind: String,
    /// Which one, as JSON.
    pub key: String,
    /// Of the last act on it, if there is one.
    pub global_position: Option<i64>,
    pub problem: String,
}

columns! {
    mod of, selected;
    KIND = "coalesce(a.kind, r.kind)",
    KEY = "coalesce(a.key, r.key)::text",
    POSITION = "a.global_position",
    IS_GIVEN = "a.after is not null",
    IS_THERE = "r.definition is not null",
    OTHER_MEMBERS = "array(select k from jsonb_object_keys(a.after || r.definition) k \
                           where (a.after -> k)::text is distinct from (r.definition -> k)::text order by k)",
}

thread_local! {
    // jsonb compares numbers by value; their text shows the scale, too.
    static COMPARE: Plan = const { Plan::new(
        concat!("with acts as ( \
             select distinct on (a.kind, a.key) a.kind, a.key, nullif(a.after, 'null') as after, a.global_position \
             from (select e.payload ->> 'kind' as kind, \
                          _eventstream.definition_key(e.payload ->> 'kind', coalesce(nullif(e.payload -> 'after', 'null'), e.payload -> 'before')) as key, \
                          e.payload -> 'after' as after, e.global_position, e.version \
                   from _eventstream.streams s join _eventstream.events e on e.stream_id = s.id \
                   where s.tenant_id = $2 and s.name = $3 and e.payload ? 'after') a \
             order by a.kind, a.key, a.version desc), \
         rows as (select d.kind, d.key, d.definition from _eventstream.definitions() d where d.tenant_id = $1) \
         select ", selected!(), " \
         from acts a full join rows r on r.kind = a.kind and r.key = a.key \
         where a.after::text is distinct from r.definition::text \
           and not (a.kind is null and r.kind = 'tenant' and $1 = $4) \
         order by 1, 2"),
        &[INT8OID, INT8OID, TEXTOID, INT8OID],
    ) };
}

/// The chain of the tenant's acts, and then what differs from them.
pub fn verify(tenant_id: i64, uuid: &str, report: &mut dyn FnMut(Difference) -> Result<()>) -> Result<()> {
    let name = stream_of(uuid);
    let reserved = reserved_of(tenant_id);
    let mut broken = Vec::new();
    let stream = StreamName::parse(&name)?;
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
    for found in broken {
        let version = found.version.map_or_else(String::new, |version| format!(" version {version}"));
        report(Difference {
            kind: "act".into(),
            key: format!("{{\"stream\": {}}}", serde_json::json!(name)),
            global_position: found.global_position,
            problem: format!("{}{version}: {}", shown(&name), found.problem),
        })?;
    }
    let differences = as_owner(Planning::ByCost, |db, _| {
        let args = [
            Some(Datum::from(tenant_id)),
            Some(Datum::from(reserved)),
            Some(from_text(&name)?),
            Some(Datum::from(FIRST)),
        ];
        COMPARE.with(|plan| {
            plan.rows(db, View::Caller, 0, &args, |row| {
                let (is_given, is_there) = (row.boolean(of::IS_GIVEN)?, row.boolean(of::IS_THERE)?);
                let problem = match (is_given, is_there) {
                    (true, true) => {
                        let members = row.text_array_opt(of::OTHER_MEMBERS)?.unwrap_or_default();
                        format!("is not what its last act made it: other {}", members.join(", "))
                    }
                    (true, false) => "was given by its last act, and is gone".into(),
                    (false, _) if row.int8_opt(of::POSITION).is_some() => {
                        "was taken back by its last act, and is there".into()
                    }
                    (false, _) => "was given by no act: it was written by hand".into(),
                };
                Ok(Difference {
                    kind: row.text(of::KIND)?.to_owned(),
                    key: row.text(of::KEY)?.to_owned(),
                    global_position: row.int8_opt(of::POSITION),
                    problem,
                })
            })
        })
    })?;
    differences.into_iter().try_for_each(report)
}
