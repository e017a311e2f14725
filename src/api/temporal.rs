//! What temporal views ask (sql/state/temporal.sql makes them): the state of one stream at the session's moment, or at a given one.
use super::asks;
use super::state::{Asked, bound};
use crate::access::authorize;
use crate::pg::error::failure::Result;
use crate::pg::function::{Args, Returned};
use crate::pg::process::server;
use crate::pg::process::subtransaction::{attempt, attempt_but};
use crate::pg::query::plan::View;
use crate::pg::query::store::Store;
use crate::pg::value::datum::from_text;
use crate::shared::settings;
use crate::state::answer;
use crate::state::category;
use crate::state::fit::Columns;
use crate::state::folding::Folding;
use crate::state::folds;
use crate::state::moment::Moment;
use eventstream_core::argument::Argument;
use eventstream_core::error::Error;
use eventstream_core::name::Category;
use eventstream_core::privilege::Privilege;
use eventstream_core::word::Unfoldable;
use eventstream_core::{moment, shown};
use pgrx::pg_sys::Datum;
use std::cell::Cell;
use std::rc::Rc;

asks!(Manage, "eventstream_check_temporal_view", "text, text", check);
asks!(Read, "eventstream_temporal_state", "text, text, text, text", at_sessions_moment);
asks!(Read, "eventstream_temporal_state_at", "text, text, text, text, text, text, text", at_given_moment);

/// Whether the role may manage, and there is such a fold. Errors: 42501, ES005, ES010.
fn check(args: &Args) -> Returned {
    let category = args.text(0, "category")?;
    Category::parse("category", category)?;
    let access = authorize(Privilege::Manage, category)?;
    folds::of(access.tenant_id, category, args.text_opt(1)?)?;
    Ok(Some(Datum::from(true)))
}

fn at_sessions_moment(args: &Args) -> Returned {
    let moment = Moment {
        as_of: read("eventstream.as_of", settings::as_of())?,
        known_at: read("eventstream.known_at", settings::known_at())?,
        version: None,
    };
    state(args, moment, None, 2)
}

fn at_given_moment(args: &Args) -> Returned {
    let given = |place| args.text_opt(place).map(|text| text.map(str::to_owned));
    let (as_of, known_at) = (read("as_of", given(2)?)?, read("known_at", given(3)?)?);
    state(args, Moment { as_of, known_at, version: None }, Some(4), 5)
}

/// One row, or none where no event counts. `on_error`, `columns`: the arguments' places, behind which the tenant has its own; who may not read learns nothing of them.
fn state(args: &Args, moment: Moment, on_error: Option<usize>, columns: usize) -> Returned {
    let asked = Asked::read(args, 0, 1)?;
    if let Some(tenant) = args.text_opt(columns + 1)? {
        asked.access.must_be_named(tenant)?;
    }
    let on_error = match on_error {
        Some(place) => Unfoldable::parse("on_error", args.text(place, "on_error")?)?,
        None => Unfoldable::Fail,
    };
    let columns = args.text_opt(columns)?.map(Columns::of).transpose()?;
    let store = Store::begin(args)?;
    let mut folding = Folding::new(asked.target(), &asked.fold)?;
    // The state that is being cast, and whether one is: of casts the view's own have the last word, whatever they fail with.
    let (mut cast, is_folded) = (None, Cell::new(false));
    let done = attempt_but(
        |failure| !is_folded.get() && !failure.is_of_event(),
        || {
            let answer = answer::by_name(&mut folding, &asked.name, moment, View::Caller)?;
            if let (Some(answer), Some(columns)) = (&answer, &columns)
                && answer.version > 0
            {
                cast = Some((answer.version, Rc::clone(&answer.state)));
                is_folded.set(true);
                columns.take(&answer.state)?;
            }
            Ok(answer)
        },
    )?;
    let category = asked.name.category();
    match (done, cast, &columns) {
        (Ok(Some(answer)), ..) if answer.version > 0 => {
            store.put(&[Some(Datum::from(answer.version)), Some(answer.state.view().datum()), None])?;
        }
        (Ok(_), ..) => {}
        (Err(caught), Some((version, state)), Some(columns)) => {
            let misfit = attempt(|| columns.misfit(&state))?.ok().filter(|_| caught.is_of_event);
            match misfit {
                // The view's own casts say what it is.
                None => store.put(&[Some(Datum::from(version)), Some(state.view().datum()), None])?,
                Some(misfit) if on_error == Unfoldable::Fail => {
                    return Err(category::misfit(
                        &mut folding,
                        (category, asked.name.as_str()),
                        moment,
                        misfit,
                        columns,
                    )?);
                }
                Some(misfit) => {
                    let problem = format!("{}: {} ({})", misfit.what, misfit.message, misfit.sqlstate);
                    store.put(&[None, None, Some(from_text(&problem)?)])?;
                }
            }
        }
        (Err(caught), ..) if on_error == Unfoldable::Fail => {
            return Err(category::refused(&mut folding, category, moment, asked.name.as_str(), caught)?);
        }
        (Err(caught), ..) => store.put(&[None, None, Some(from_text(&category::problem(&caught))?)])?,
    }
    Ok(None)
}

/// A moment as text: an argument's, or a setting's, because not every way to set it is checked (src/shared/settings.rs).
fn read(name: &str, text: Option<String>) -> Result<Option<i64>> {
    let Some(text) = text else { return Ok(None) };
    let Some(moment) = moment::read(&text) else {
        return Err(Error::InvalidArgument {
            argument: name.into(),
            reason: format!("{}, not {}", moment::RULE, shown(&text)),
            hint: Some(settings::MOMENT_HINT.into()),
        }
        .into());
    };
    server::read_time(&moment).map(bound)
}
