//! What an operator should look at: one check a row, what it found with numbers, and the statements that mend it, to be pasted into
//! psql as they are. Cheap: no check reads more of the log than the first event that somebody has not seen.
mod categories;
pub mod check;
pub mod commands;
mod damaged;
mod database;
mod deciders;
pub mod event_types;
mod folds;
mod guards;
mod invariants;
mod logged;
mod protected;
pub mod scheduled;
mod stale;
mod subscriptions;
mod tokens;
mod upcasters;
use super::overview::{self, Missing, Moment, Projection};
use crate::access;
use crate::pg::error::failure::Result;
use crate::pg::process::server;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::{Plan, View};
use crate::projection::progress::HIDDEN;
use crate::shared::session::as_owner;
use crate::shared::{live_settings, open_appends};
use crate::usercode::registrant_of;
use check::{Check, Level, Writing, dead_letters, seconds};
use eventstream_core::word::Standing;
use eventstream_core::{counted, quote_literal};
use pgrx::pg_sys::{Datum, INT8OID};

thread_local! {
    static DEAD_GRANTS: Plan = const { Plan::new(
        "select t.name, count(*), left(string_agg(distinct g.role, ', '), 200) \
         from _eventstream.grants g join _eventstream.tenants t on t.id = g.tenant_id \
         left join pg_roles r on r.oid = _eventstream.role_of(g.role, g.role_oid, (select _eventstream.is_home())) \
         where g.role_oid is distinct from 0 and r.oid is null and ($1 is null or g.tenant_id = $1) \
         group by t.name order by t.name collate \"C\"",
        &[INT8OID],
    ) };
    static BROKEN_FOLDS: Plan = const { Plan::new(
        concat!(
            "select t.name, f.name, f.handler, f.registrant, \
                r.oid is not null \
         from _eventstream.folds f join _eventstream.tenants t on t.id = f.tenant_id",
            registrant_of!("f"),
            "where f.handler is not null and ($1 is null or f.tenant_id = $1) \
           and (to_regprocedure(f.handler || '(jsonb, eventstream.event)') is null \
                or r.oid is null) \
         order by t.name collate \"C\", f.name collate \"C\""
        ),
        &[INT8OID],
    ) };
}

/// All checks of a tenant, or (None) of every one, and those of the database and the server, which count all tenants' appends: not for who is held to one by a token.
pub fn look(tenant_id: Option<i64>) -> Result<Vec<Check>> {
    let moment = Moment::look()?;
    let writing = Writing::look()?;
    let projections = overview::projections(&moment, tenant_id)?;
    let mut checks = Vec::new();
    if !access::is_held_to_one()? {
        checks.extend([database::preload()?, database::log(&writing)?, guards::check()?]);
        checks.extend(stale::refused_tokens(&moment));
        checks.extend(stale::mismatches(&moment));
        if open_appends::are_there() && !server::is_standby() {
            let has_followers = projections.iter().any(|projection| !projection.is_inline);
            checks.extend(database::checks(&moment, &writing, has_followers)?);
            checks.extend(stale::of_database(&moment)?);
        }
    }
    for projection in &projections {
        let is_shown = access::shown_in(Some(&projection.tenant))?.covers(projection.categories.as_deref());
        checks.push(of_projection(projection, &moment, &writing, is_shown));
        if projection.dead_letters > 0 {
            let (tenant, name, count) = (&projection.tenant, &projection.name, projection.dead_letters);
            checks.push(if projection.is_table {
                left_out(tenant, name, count, projection.last_dead.as_deref(), &writing)
            } else {
                dead_letters("projection", tenant, name, count, &writing)
            });
        }
    }
    checks.extend(subscriptions::checks(&moment, &writing, tenant_id)?);
    checks.extend(stale::of_subscriptions(&writing, tenant_id)?);
    checks.extend(broken_folds(tenant_id, &writing)?);
    checks.extend(folds::failing(tenant_id, &writing)?);
    if !server::is_standby() {
        checks.extend(damaged::snapshots(tenant_id, &writing)?);
    }
    checks.extend(upcasters::failing(tenant_id, &writing)?);
    checks.extend(event_types::checks(tenant_id, &writing)?);
    checks.extend(categories::checks(tenant_id, &writing)?);
    checks.extend(commands::checks(tenant_id, &writing)?);
    checks.extend(scheduled::checks(tenant_id, &writing)?);
    checks.extend(deciders::checks(tenant_id, &writing)?);
    checks.extend(invariants::checks(tenant_id, &writing)?);
    checks.extend(protected::checks(tenant_id)?);
    checks.extend(dead_grants(tenant_id, &writing)?);
    // Of every tenant's.
    if tenant_id.is_none() {
        checks.extend(tokens::checks()?);
    }
    Ok(checks)
}

/// The message of its error only where it `is_shown`: users' code says payloads there.
fn of_projection(projection: &Projection, moment: &Moment, writing: &Writing, is_shown: bool) -> Check {
    let name = format!("projection {}", projection.name);
    let literal = quote_literal(&projection.name);
    let call = |function: &str| writing.call(Some(&projection.tenant), function, &literal);
    let error = projection.error.as_ref().map_or_else(String::new, |(sqlstate, message)| {
        let message = if is_shown { message.as_str() } else { HIDDEN };
        format!("{sqlstate}: {message}")
    });
    let at = projection
        .failed_position
        .map_or_else(String::new, |position| format!(" at the event at global position {position}"));
    let positions = counted(projection.lag, "position", "positions");
    let lag = format!("{positions} and {} behind", seconds(projection.lag_seconds));
    let bad = |level, problem, detail, fix| Check::bad(name.clone(), level, problem, detail, fix);
    let is_late = live_settings::lag_threshold().is_some_and(|limit| projection.lag_seconds > limit.as_secs_f64());
    let check = match (&projection.missing, projection.standing) {
        (Some(Missing::Role(role)), _) => bad(
            Level::Critical,
            "registrant gone",
            format!(
                "its registrant, role {role}, does not exist any more, and one made anew under that name has none of its rights: let a role that may read what \
                 the projection is shown give it its functions again (es_alter_projection); a state table is dropped and created anew"
            ),
            format!("select * from eventstream.projections where name = {literal};"),
        ),
        (Some(missing), standing) => {
            let detail = format!(
                "{} does not exist (the projection is {}, {lag}): make it again as it was, then {}; or drop the projection",
                missing.described(),
                standing.as_str(),
                call("es_resume_projection").replace('\n', " ").trim_end_matches(';')
            );
            let fix = format!("{}\n{}", writing.look_up("projections", &projection.name), call("es_drop_projection"));
            bad(Level::Critical, "gone", detail, fix)
        }
        (None, Standing::Stopped) => {
            let skip = projection.failed_position.map_or_else(String::new, |position| {
                format!("; or go on without the event: es_skip_event({literal}, {position}, 'CHG-4711')")
            });
            let attempts = counted(projection.attempts.into(), "attempt", "attempts");
            let detail = format!("stopped{at} after {attempts}, {lag}: {error}. Mend what is named, then resume{skip}");
            bad(Level::Critical, Standing::Stopped.as_str(), detail, call("es_resume_projection"))
        }
        (None, Standing::Waiting) => {
            let detail = format!("waits for es_activate(), {lag}");
            bad(Level::Warning, Standing::Waiting.as_str(), detail, writing.call(None, "es_activate", ""))
        }
        (None, Standing::Paused) if is_late => {
            bad(Level::Warning, Standing::Paused.as_str(), format!("paused, {lag}"), call("es_resume_projection"))
        }
        (None, Standing::Retrying) => {
            let until = projection.retry_at.map_or(0.0, |until| (until - moment.now).max(0) as f64 / 1e6);
            let attempts = counted(projection.attempts.into(), "attempt", "attempts");
            let detail = format!("{attempts} failed{at}, {lag}; the next one in {}: {error}", seconds(until));
            let level = if is_late { Level::Critical } else { Level::Warning };
            bad(level, Standing::Retrying.as_str(), detail, call("es_run_projection"))
        }
        (None, _) if is_late => bad(
            Level::Critical,
            "behind",
            format!("{lag}, more than eventstream.lag_threshold"),
            call("es_run_projection"),
        ),
        (None, standing) => Check::ok(name, format!("{}, {lag}", standing.as_str())),
    };
    check.of(&projection.tenant)
}

/// Of a state table: it is a matter of streams. What is tried again fails again until the stream can be folded, and then the rebuild that comes by itself
/// takes it in; or until its row can be written. `last`: of the newest of them.
fn left_out(tenant: &str, name: &str, count: i64, last: Option<&str>, writing: &Writing) -> Check {
    let streams = counted(count, "stream", "streams");
    let detail = format!(
        "{streams} could not be folded, or their rows not be written, for state table {name}, and the table goes on without: register an upcaster that \
         mends such events, or a fold that takes them. That fills the table again, and what is mended leaves the dead letters. Where a row could not be \
         written, an event that sets its value right does as well, or changing what refuses it and es_retry_dead_letter(id){}",
        last.map_or_else(String::new, |last| format!(". The newest: {last}"))
    );
    let literal = quote_literal(name);
    let fix = format!(
        "{}select stream, version, event_type, reason from eventstream.dead_letters where projection = {literal} order by id;\n\
         -- then es_register_upcaster(…) or es_register_fold(…); where a function was replaced instead:\n{}",
        writing.choice(Some(tenant)),
        writing.call(None, "es_rebuild_projection", &literal)
    );
    Check::bad(format!("dead letters of {name}"), Level::Critical, "dead letters", detail, fix).of(tenant)
}

/// Grants of roles that are gone: they count for nobody, whoever has the name by now.
fn dead_grants(tenant_id: Option<i64>, writing: &Writing) -> Result<Vec<Check>> {
    as_owner(Planning::ByIndex, |db, _| {
        DEAD_GRANTS.with(|grants| {
            grants.rows(db, View::Latest, 0, &[tenant_id.map(Datum::from)], |row| {
                let (tenant, count, roles) = (row.text(0)?, row.int8(1)?, row.text(2)?);
                let grants = counted(count, "grant is", "grants are");
                let detail = format!(
                    "{grants} of roles that do not exist (any more): {roles}. That opens nothing, also for a role made anew under that name: \
                     grant again what is still wanted, and es_revoke(role, privilege) the rest"
                );
                let fix = format!(
                    "{}select role, privilege, category from eventstream.grants where not role_exists;",
                    writing.choice(Some(tenant))
                );
                Ok(Check::bad("grants", Level::Warning, "role gone", detail, fix).of(tenant))
            })
        })
    })
}

fn broken_folds(tenant_id: Option<i64>, writing: &Writing) -> Result<Vec<Check>> {
    as_owner(Planning::ByIndex, |db, _| {
        BROKEN_FOLDS.with(|folds| {
            folds.rows(db, View::Latest, 0, &[tenant_id.map(Datum::from)], |row| {
                let (tenant, fold, handler, role) = (row.text(0)?, row.text(1)?, row.text(2)?, row.text(3)?);
                let name = format!("fold {fold}");
                let check = if row.boolean(4)? {
                    let detail = format!(
                        "its handler {handler}(jsonb, eventstream.event) does not exist, and states that need it fail: make it again as it was, \
                         or unregister the fold"
                    );
                    let drop = writing.call(Some(tenant), "es_unregister_fold", &quote_literal(fold));
                    let fix = format!("{}\n{drop}", writing.look_up("folds", fold));
                    Check::bad(name, Level::Critical, "gone", detail, fix)
                } else {
                    let detail = format!(
                        "its registrant, role {role}, does not exist any more, and states that need it fail: let a role that may read its events register \
                         the fold again (es_register_fold); one made anew under that name has none of its rights"
                    );
                    let fix = format!("select * from eventstream.folds where name = {};", quote_literal(fold));
                    Check::bad(name, Level::Critical, "registrant gone", detail, fix)
                };
                Ok(check.of(tenant))
            })
        })
    })
}
