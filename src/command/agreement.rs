//! Whether what is declared of event types agrees: examples with schemas, versions with the upcasters between them.
//!
//! Promises: whatever is declared together agrees, whichever of it came last, and whoever declared at the same time: that waits ([`begin`]). Each example
//! satisfies its own schema, and what upcasters make of it those of all declared versions that it becomes on its way; they take it, too, without what is protected of it; each declared version leads by
//! upcasters to the next one. That is judged anew whenever a schema, an example or an upcaster changes, and what breaks it is refused.
use super::declared::{self, Listed};
use super::{ruling, schemas};
use crate::log::acts;
use crate::log::event::{NewEvent, Parts};
use crate::log::target::Target;
use crate::pg::error::failure::{Failure, Result};
use crate::pg::invalidation;
use crate::pg::jsonb::Jsonb;
use crate::pg::process::lock::LockTag;
use crate::pg::process::server;
use crate::pg::process::session::Planning;
use crate::pg::process::subtransaction::attempt;
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::from_text;
use crate::present::door::Door;
use crate::present::event::{Common, StoredEvent};
use crate::present::upcast::Upcasters;
use crate::present::upcasters;
use crate::shared::catalog::Catalog;
use crate::shared::session::as_owner;
use eventstream_core::error::Error;
use eventstream_core::name::StreamName;
use eventstream_core::newest::{EventTypes, resting, way_end};
use eventstream_core::protect::Cover;
use eventstream_core::{quote_literal, shown};
use pgrx::pg_sys::{Datum, INT8OID, TEXTOID};
use std::collections::BTreeSet;
use std::ffi::CStr;
use std::rc::Rc;

thread_local! {
    static EXAMPLES: Plan = const { Plan::new(
        "with recursive older (event_type) as (select $2 collate \"C\" union select u.event_type from _eventstream.upcasters u \
                                                 join older l on u.to_event_type = l.event_type where u.tenant_id = $1) \
         select e.event_type, e.schema_version, e.example::text from older l \
         cross join lateral (select * from _eventstream.event_types t where t.tenant_id = $1 and t.event_type = l.event_type offset 0) e \
         where e.example is not null",
        &[INT8OID, TEXTOID],
    ) };
}

/// What is known of a tenant's event types.
pub struct Known {
    pub declared: Listed,
    upcasters: Rc<Upcasters>,
}

impl Known {
    pub fn of(tenant_id: i64) -> Result<Self> {
        Ok(Self { declared: declared::list(tenant_id)?, upcasters: upcasters::of(tenant_id)? })
    }
}

impl EventTypes for Known {
    fn step(&self, event_type: &str, schema_version: i32) -> Option<&str> {
        self.upcasters.step(event_type, schema_version)
    }

    fn newest(&self, event_type: &str) -> Option<i32> {
        self.declared.get(event_type)?.last().copied()
    }

    fn is_declared(&self, event_type: &str, schema_version: i32) -> bool {
        self.declared.get(event_type).is_some_and(|versions| versions.binary_search(&schema_version).is_ok())
    }
}

/// To be called before anything is judged that is declared, and behind the gate where that is closed: nobody else of the tenant declares an event type, or
/// registers an upcaster, before the transaction ends, and what others did is known. Errors: 55P03.
pub fn begin(target: Target, call: &CStr) -> Result<()> {
    server::must_be_writable(call)?;
    // Part 0 is that of who counts events (counted.rs).
    acts::lock(target, LockTag { table: Catalog::current()?.event_types, object: target.id, part: 1 })?;
    invalidation::take_in()
}

/// Whether the declared versions of an event type, and of those that upcasters turn into it, lead by upcasters from each to the next: whoever reads the events of
/// one as those of the next needs to know how. Errors: ES005 for `argument`.
pub fn must_lead(target: Target, event_type: &str, argument: &str) -> Result<()> {
    let upcasters = upcasters::of(target.id)?;
    let older = upcasters.older(&[event_type.to_owned()]);
    let event_types: BTreeSet<_> =
        older.iter().map(|(event_type, _)| event_type.as_str()).chain([event_type]).collect();
    let known = Known { declared: Listed::new(), upcasters };
    for event_type in event_types {
        let versions: Vec<_> = schemas::versions(target.id, event_type)?.keys().copied().collect();
        for (&below, &above) in versions.iter().zip(versions.iter().skip(1)) {
            if way_end(&known, event_type, below, above) != (event_type, above) {
                return Err(no_way(&known, event_type, (below, above), argument).into());
            }
        }
    }
    Ok(())
}

fn no_way(known: &Known, event_type: &str, (below, above): (i32, i32), argument: &str) -> Error {
    let event_type_shown = shown(event_type);
    // The step that is missing, or that leads elsewhere.
    let (of, from) = way_end(known, event_type, below, above - 1);
    let to = if from == above - 1 && (of != event_type || known.step(of, from).is_some()) {
        format!(", to_event_type => {}", quote_literal(event_type))
    } else {
        String::new()
    };
    Error::InvalidArgument {
        argument: argument.into(),
        reason: format!(
            "must have an upcaster: version {below} of {event_type_shown} is declared, and nothing turns its payloads into those of version {above}, \
             which is declared, too"
        ),
        hint: Some(format!(
            "Register it first: select es_register_upcaster({}, {from}, 'your_function(jsonb, jsonb)'{to});",
            quote_literal(of)
        )),
    }
}

/// Whether no declared version rests on the step from that schema version of an event type. Errors: ES005.
pub fn must_not_rest(tenant_id: i64, event_type: &str, from_schema_version: i32) -> Result<()> {
    let known = Known::of(tenant_id)?;
    let all =
        known.declared.iter().flat_map(|(of, versions)| versions.iter().map(move |&version| (of.as_str(), version)));
    let Some((from, to)) = resting(&known, (event_type, from_schema_version), all) else { return Ok(()) };
    Err(Error::InvalidArgument {
        argument: "from_schema_version".into(),
        reason: format!(
            "must be that of a step on which no declared version rests: it leads version {} of {} to version {} of {}, and both are declared",
            from.1,
            shown(from.0),
            to.1,
            shown(to.0)
        ),
        hint: Some(format!(
            "Register another function for the step. Or take back the declaration, after which stored events of that version are of one that nobody has declared: \
             select es_drop_event_type({}, {});",
            quote_literal(to.0),
            to.1
        )),
    }
    .into())
}

/// An example: of which event type and version, JSON as text.
pub struct Example(pub String, pub i32, pub String);

/// Those of an event type, and of all that upcasters turn into it.
pub fn examples(target: Target, event_type: &str) -> Result<Vec<Example>> {
    as_owner(Planning::ByIndex, |db, _| {
        EXAMPLES.with(|plan| {
            plan.rows(db, View::Latest, 0, &[Some(Datum::from(target.id)), Some(from_text(event_type)?)], |row| {
                Ok(Example(row.text(0)?.to_owned(), row.int4(1)?, row.text(2)?.to_owned()))
            })
        })
    })
}

/// Whether the examples of an event type, and of all that upcasters turn into it, satisfy their schemas, and after each step of upcasting that of what they have
/// become. Errors: ES016, and what upcasters raise.
pub fn must_agree(target: Target, event_type: &str) -> Result<()> {
    let examples = examples(target, event_type)?;
    must_take_residuals(target, event_type, &examples)?;
    if examples.is_empty() {
        return Ok(());
    }
    let (ruling, upcasters) = (ruling::of(target.id)?, upcasters::of(target.id)?);
    let declared = &ruling.declared;
    for Example(event_type, version, example) in examples {
        let what = || "the example".to_owned();
        declared.check_payload(&what, &event_type, version, example.as_bytes()).map_err(of_example)?;
        if !upcasters.has(&event_type, version) {
            continue;
        }
        let what = || format!("what upcasters make of the example of {} version {version}", shown(&event_type));
        Door::of_examples(&upcasters)?.show_steps(
            imagined(target, "example-1", &event_type, version, &example)?,
            &mut |became| {
                let Some(payload) = became.payload()? else { return Ok(()) };
                declared
                    .check_payload(&what, became.event_type()?, became.schema_version(), payload.text()?)
                    .map_err(of_example)
            },
        )?;
    }
    Ok(())
}

/// As an event of that stream.
pub fn imagined(target: Target, stream: &str, event_type: &str, version: i32, example: &str) -> Result<StoredEvent> {
    let stream = StreamName::parse(stream)?;
    let common = Common::new(target, stream.as_str())?;
    let parts = Parts {
        event_type,
        payload: Jsonb::parse(example)?,
        metadata: Some(Jsonb::parse("{}")?),
        event_id: None,
        occurred_at: None,
        schema_version: Some(version),
        subject: None,
        tags: Vec::new(),
    };
    let event = NewEvent::check(parts, "event_type")?;
    StoredEvent::imagined(&common, &stream, &event, 1, server::clock())
}

/// Whether upcasters take what the door gives them, null in the place of whatever is protected: of each version that has rules and upcasters, by its example. Errors: ES005.
fn must_take_residuals(target: Target, event_type: &str, examples: &[Example]) -> Result<()> {
    let upcasters = upcasters::of(target.id)?;
    let protections = &upcasters.protected.events;
    if protections.is_empty() {
        return Ok(());
    }
    must_cover_sources(&upcasters)?;
    let older = upcasters.older(&[event_type.to_owned()]);
    let names: BTreeSet<_> = older.iter().map(|(older, _)| older.as_str()).chain([event_type]).collect();
    for event_type in names {
        for (version, protection) in protections.versions(event_type) {
            if protection.is_empty() || !upcasters.has(event_type, version) {
                continue;
            }
            let refused = |reason: String, hint: String| -> Failure {
                Error::InvalidArgument { argument: "event_type".into(), reason, hint: Some(hint) }.into()
            };
            let Some(Example(.., example)) = examples.iter().find(|one| one.0 == event_type && one.1 == version) else {
                let reason = format!(
                    "must have an example of version {version} of {}, which upcasters turn into the next: that they take it without what is protected has to be tried",
                    shown(event_type)
                );
                let hint =
                    format!("select es_create_event_type({}, {version}, example => '…');", quote_literal(event_type));
                return Err(refused(reason, hint));
            };
            let stored = imagined(target, "example-1", event_type, version, example)?;
            if let Err(caught) = attempt(|| Door::new(&upcasters)?.show_steps(stored, &mut |_| Ok(())))? {
                let reason = format!(
                    "must have upcasters that take null where a value is protected: the example of version {version} of {} fails so, with {} ({})",
                    shown(event_type),
                    caught.message,
                    caught.sqlstate
                );
                return Err(refused(reason, "Register an upcaster that leaves null as it is.".into()));
            }
        }
    }
    Ok(())
}

/// Whether whatever upcasters turn into an event of a protected type is protected itself: it would be shown whole, as an event of that. Errors: ES005.
fn must_cover_sources(upcasters: &Upcasters) -> Result<()> {
    let protections = &upcasters.protected.events;
    let is_free = |event_type: &str, version: i32| matches!(protections.of(event_type, version), Cover::Free);
    let mut renaming = upcasters.renaming();
    let Some((from, version, to)) =
        renaming.find(|(from, version, to)| is_free(from, *version) && !is_free(to, version + 1))
    else {
        return Ok(());
    };
    Err(Error::InvalidArgument {
        argument: "event_type".into(),
        reason: format!(
            "must not leave out {}: upcasters turn version {version} of it into {}, of which fields are protected",
            shown(from),
            shown(to)
        ),
        hint: Some(format!(
            "Protect it first; where nothing of it is to be: select es_protect({}, {version}, pointers => '{{}}');",
            quote_literal(from)
        )),
    }
    .into())
}

/// That it is an example that was refused.
fn of_example(mut failure: Failure) -> Failure {
    if let Failure::Rule(Error::PayloadRefused { is_example, .. }) = &mut failure {
        *is_example = true;
    }
    failure
}
