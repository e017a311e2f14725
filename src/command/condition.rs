//! Conditions as callers give them: read, the types of their queries as readers name them, and what is told of an event that broke one.
use crate::access::{Access, Scope};
use crate::access::{authorize_all, authorize_tenant, shown_categories};
use crate::log::condition::{self, Condition, Place, Query, Taken};
use crate::log::target::Target;
use crate::pg::error::failure::{Failure, Result, invalid};
use crate::pg::jsonb::{Jsonb, Value};
use crate::present::upcasters;
use eventstream_core::command::condition as core;
use eventstream_core::digest::Digest;
use eventstream_core::error::Error;
use eventstream_core::options::{ConditionElement, QueryElement};
use eventstream_core::privilege::Privilege;
use std::rc::Rc;

/// More than a uuid has, and two numbers.
const MOST_BYTES: usize = 64;

/// A condition that was read, before the tenant's gate is entered.
pub struct Given {
    query: core::Query,
    after: i64,
    seen: Option<Digest>,
    taken: Option<Place>,
}

impl Given {
    /// Errors: ES005; 42501 where it depends on events that the role may not append to everywhere.
    pub fn read(given: Jsonb) -> Result<Self> {
        let given: ConditionElement = object("condition", given)?.read().map_err(in_condition)?;
        let query = core::Query::read(&given.query).map_err(|error| in_condition(error.within("query").into()))?;
        authorize(&query)?;
        if given.after < 0 {
            return Err(invalid("condition.after", format!("must be 0 or more, not {}", given.after)));
        }
        let seen = given.seen.map(|seen| {
            let count = u64::try_from(seen.count)
                .map_err(|_| invalid("condition.seen.count", format!("must be 0 or more, not {}", seen.count)))?;
            Digest::of(count, seen.digest).ok_or_else(|| {
                invalid("condition.seen.digest", "must be 64 hexadecimal digits, as es_condition gave them")
            })
        });
        let taken = given.log.map(|log| -> Result<Place> {
            Ok(Place {
                log_id: short("id", log.id)?,
                tenant: short("tenant", log.tenant)?,
                timeline: log.timeline,
                place: short("place", log.place)?,
            })
        });
        Ok(Self { query, after: given.after, seen: seen.transpose()?, taken: taken.transpose()? })
    }

    /// Whether it holds only while no other append of the tenant is open.
    pub fn needs_the_gate(&self) -> bool {
        self.query.is_of_any_tags()
    }

    /// As it is judged. To be asked for behind the tenant's gate: types are what upcasters that are registered by then make of them.
    pub fn complete(self, tenant_id: i64) -> Result<Condition> {
        let Self { query, after, seen, taken } = self;
        Ok(Condition { query: following(tenant_id, query)?, after, seen, taken })
    }
}

/// What has been seen of a query from now on, and the query. Errors: ES005, ES008, ES009, 42501, 40001.
pub fn take(query: Jsonb) -> Result<Taken> {
    let given: QueryElement =
        object("query", query)?.read().map_err(|failure: Failure| failure.within(|| "query".into()))?;
    let query = core::Query::read(&given).map_err(|error| error.within("query"))?;
    let access = authorize(&query)?;
    let target = Target { id: access.tenant_id, name: &access.tenant };
    condition::take(target, &following(access.tenant_id, query)?)
}

/// What is told of an event that broke a condition to who may not read its category.
pub fn veiled(failure: Failure) -> Failure {
    match failure {
        Failure::Rule(Error::ConditionFailed { after, seen, matches, first }) => {
            let scope = shown_categories().unwrap_or(Scope::Categories(Vec::new()));
            let first = first.filter(|first| scope.covers(Some(std::slice::from_ref(&first.category))));
            Error::ConditionFailed { after, seen, matches, first }.into()
        }
        other => other,
    }
}

/// Whoever depends on events keeps others from appending such: he must be one who may append, and everywhere where he keeps all of them.
fn authorize(query: &core::Query) -> Result<Rc<Access>> {
    if query.is_of_any_tags() {
        authorize_all(Privilege::Append, None)
    } else {
        authorize_tenant(None, Privilege::Append).map(|(access, _)| access)
    }
}

/// With the types of what upcasters make of others.
pub fn following(tenant_id: i64, query: core::Query) -> Result<Query> {
    Query::new(query, |filter| upcasters::following(tenant_id, filter))
}

/// A part of where a condition was taken, which is shown where it is another place.
fn short(key: &str, text: &str) -> Result<String> {
    if text.len() > MOST_BYTES {
        let reason = format!("must be as es_condition gave it, of at most {MOST_BYTES} bytes, not {}", text.len());
        return Err(invalid(format!("condition.log.{key}"), reason));
    }
    Ok(text.to_owned())
}

fn object<'a>(argument: &str, given: Jsonb<'a>) -> Result<Value<'a>> {
    if given.is_object() { Ok(Value::Object(given)) } else { Err(invalid(argument, "must be a JSON object")) }
}

fn in_condition(failure: Failure) -> Failure {
    failure.within(|| "condition".into())
}
