//! es_snapshot, es_snapshot_state, es_verify_snapshots, es_prune_snapshots.
use super::state::Asked;
use super::{asks, asks_outside_of_tests, veiled};
use crate::access::{Scope, authorize, authorize_tenant, shown_categories};
use crate::log::scan::Opened;

use crate::log::target::Target;
use crate::log::whole;
use crate::pg::error::failure::Result;
use crate::pg::error::failure::invalid;
use crate::pg::function::{Args, Returned};
use crate::pg::jsonb::Stored;
use crate::pg::process::server;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::View;
use crate::pg::query::store::Store;
use crate::pg::value::datum::from_text;
use crate::shared::counters::{self, Counter};
use crate::shared::session::as_owner;
use crate::state::answer;
use crate::state::folding::Folding;
use crate::state::folds;
use crate::state::moment::Moment;
use crate::state::retention::{self, Retention};
use crate::state::snapshot::{self, Judged, Of};
use crate::state::snapshot_check;
use eventstream_core::error::Error;
use eventstream_core::name::StreamName;
use eventstream_core::privilege::Privilege;
use pgrx::pg_sys::Datum;

asks!(Manage, "eventstream_snapshot", "text, text", take);
asks!(Read, "eventstream_snapshot_state", "text, bigint, text", snapshot_state);
asks_outside_of_tests!("es_verify_snapshots", Audit, "eventstream_verify_snapshots", "text, boolean", verify);
asks_outside_of_tests!("es_prune_snapshots", Upkeep, "eventstream_prune_snapshots", "bigint, interval", prune);

fn take(args: &Args) -> Returned {
    server::must_be_writable(c"es_snapshot")?;
    let name = StreamName::parse(args.text(0, "stream")?)?;
    let access = authorize(Privilege::Manage, name.category())?;
    // The fold is run for the caller, who is told what it says.
    authorize(Privilege::Read, name.category())?;
    let target = Target { id: access.tenant_id, name: &access.tenant };
    let fold = folds::of(target.id, name.category(), args.text_opt(1)?)?;
    let found = as_owner(Planning::ByIndex, |db, catalog| whole::look_up(db, catalog, View::Latest, target.id, &name))?;
    let found = found.ok_or_else(|| Error::StreamNotFound { stream: name.as_str().into() })?;
    if !snapshot::share(target, &fold.name)? {
        return Err(Error::FoldNotFound { fold: Some(fold.name.clone()), category: None }.into());
    }
    let mut folding = Folding::new(target, &fold)?;
    let answer = answer::of_stream(&mut folding, name.as_str(), found, Moment::NOW, View::Latest)?;
    counters::add(Counter::SnapshotsTaken, 1);
    snapshot::keep(Of { target, stream: name.as_str(), fold: &fold }, found, &answer, View::Latest)?;
    Ok(Some(Datum::from(answer.version)))
}

fn snapshot_state(args: &Args) -> Returned {
    let version = args.int8_opt(1);
    if let Some(version) = version.filter(|&version| version < 1) {
        return Err(invalid("version", format!("must be 1 or more, not {version}")));
    }
    let asked = Asked::read(args, 0, 2)?;
    let (target, name) = (asked.target(), asked.name.as_str());
    let of = Of { target, stream: name, fold: &asked.fold };
    let state = as_owner(Planning::ByIndex, |db, catalog| {
        let found = whole::look_up(db, catalog, View::Latest, target.id, &asked.name)?;
        let opened = Opened::open(db, catalog, found.ok_or_else(|| asked.not_found())?, View::Latest)?;
        match version {
            None => {
                let newest = snapshot::newest_up_to(db, catalog, of, &opened, View::Latest, i64::MAX, &mut Vec::new())?;
                newest.map(|found| found.state).ok_or_else(|| not_found(of, None, None))
            }
            Some(version) => one(snapshot::at(db, catalog, of, &opened, View::Latest, version)?)
                .map_err(|reason| not_found(of, Some(version), reason)),
        }
    })?;
    state.datum().map(Some)
}

/// Why it is not to be had, if one is there.
fn one(judged: Option<Judged>) -> std::result::Result<Stored, Option<&'static str>> {
    match judged {
        Some(Judged::Serves(state)) => Ok(state),
        Some(Judged::OfEarlierDefinition) => {
            Err(Some("the one there was taken with an earlier definition of the fold"))
        }
        Some(Judged::Broken(problem)) => Err(Some(problem)),
        None => Err(None),
    }
}

fn not_found(of: Of, version: Option<i64>, reason: Option<&str>) -> crate::pg::error::failure::Failure {
    Error::SnapshotNotFound {
        stream: of.stream.into(),
        fold: of.fold.name.clone(),
        version,
        reason: reason.map(ToOwned::to_owned),
    }
    .into()
}

fn verify(args: &Args) -> Returned {
    let fold = args.text_opt(0)?;
    let thorough = args.boolean(1, "thorough")?;
    let (access, _) = authorize_tenant(None, Privilege::Audit)?;
    if let Some(name) = fold
        && folds::named(access.tenant_id, name)?.is_none()
    {
        return Err(Error::FoldNotFound { fold: Some(name.into()), category: None }.into());
    }
    let store = Store::begin(args)?;
    let target = Target { id: access.tenant_id, name: &access.tenant };
    let scope = shown_categories()?;
    let is_shown = |category: &str| Ok(scope.covers(Some(&[category.to_owned()])));
    veiled(scope == Scope::All, || {
        snapshot_check::verify(target, fold, thorough, &is_shown, &mut |found| {
            store.put(&[
                Some(from_text(found.stream)?),
                Some(from_text(found.fold)?),
                Some(Datum::from(found.version)),
                Some(from_text(&found.problem)?),
            ])
        })
    })?;
    Ok(None)
}

fn prune(args: &Args) -> Returned {
    let keep = args.int8(0, "keep")?;
    if keep < 0 {
        return Err(invalid("keep", format!("must be 0 or more, not {keep}")));
    }
    server::must_be_writable(c"es_prune_snapshots")?;
    let (access, _) = authorize_tenant(None, Privilege::Upkeep)?;
    let cutoff = args.interval_opt(1).map(older_than).transpose()?;
    let target = Target { id: access.tenant_id, name: &access.tenant };
    let removed = retention::prune(target, Retention { keep: Some(keep), cutoff })?;
    Ok(Some(Datum::from(removed as i64)))
}

/// The moment that lies so long ago. Errors: ES005 where it lies ahead.
fn older_than(interval: Datum) -> Result<i64> {
    let now = server::clock();
    let cutoff = server::before(now, interval)?;
    if cutoff > now {
        return Err(invalid("older_than", "must not be negative".to_owned()));
    }
    Ok(cutoff)
}
