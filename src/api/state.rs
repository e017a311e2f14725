//! es_state and its kin: the state of a stream, or of a category, at a moment.
use super::asks;
use crate::access::{Access, authorize};
use crate::log::gate;
use crate::log::stream::{self, Absent, Hold};
use crate::log::target::Target;
use crate::pg::error::failure::Result;
use crate::pg::error::failure::invalid;
use crate::pg::function::{Args, Returned};
use crate::pg::process::server;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::View;
use crate::pg::query::probe::RowStrength;
use crate::pg::query::store::{Store, composite};
use crate::pg::value::datum::from_text;
use crate::shared::session::as_owner;
use crate::state::answer;
use crate::state::category;
use crate::state::folding::Folding;
use crate::state::folds::{self, Fold};
use crate::state::kept::Answer;
use crate::state::moment::Moment;
use eventstream_core::argument::Argument;
use eventstream_core::error::Error;
use eventstream_core::name::{Category, StreamName};
use eventstream_core::privilege::Privilege;
use eventstream_core::word::Unfoldable;
use pgrx::pg_sys::Datum;
use std::rc::Rc;

asks!(Read, "eventstream_state", "text, text", state);
asks!(Read, "eventstream_state_at", "text, timestamp with time zone, timestamp with time zone, text", state_at);
asks!(Read, "eventstream_state_at_version", "text, bigint, text", state_at_version);
asks!(Read, "eventstream_load", "text, text, boolean", load);
asks!(
    Read,
    "eventstream_category_state",
    "text, timestamp with time zone, timestamp with time zone, text, text",
    category_state
);

/// A stream that may be read, and the fold that is asked for.
pub struct Asked<'a> {
    pub name: StreamName<'a>,
    pub access: Rc<Access>,
    pub fold: Rc<Fold>,
}

impl<'a> Asked<'a> {
    /// From the arguments `stream` and `fold` at these places. Errors: ES004, ES010, 42501.
    pub fn read(args: &Args<'a>, stream: usize, fold: usize) -> Result<Self> {
        let name = StreamName::parse(args.text(stream, "stream")?)?;
        let access = authorize(Privilege::Read, name.category())?;
        let fold = folds::of(access.tenant_id, name.category(), args.text_opt(fold)?)?;
        Ok(Self { name, access, fold })
    }

    pub fn target(&self) -> Target<'_> {
        Target { id: self.access.tenant_id, name: &self.access.tenant }
    }

    /// Errors: ES002.
    pub fn not_found(&self) -> Error {
        Error::StreamNotFound { stream: self.name.as_str().into() }
    }

    fn answer(&self, moment: Moment) -> Result<Answer> {
        let mut folding = Folding::new(self.target(), &self.fold)?;
        answer::by_name(&mut folding, &self.name, moment, View::Caller)?.ok_or_else(|| self.not_found().into())
    }
}

/// No bound where the moment is infinity.
pub fn bound(moment: i64) -> Option<i64> {
    (moment != i64::MAX).then_some(moment)
}

fn state(args: &Args) -> Returned {
    let answer = Asked::read(args, 0, 1)?.answer(Moment::NOW)?;
    answer.state.datum().map(Some)
}

fn state_at(args: &Args) -> Returned {
    let as_of = args.timestamptz(1, "as_of")?;
    let known_at = args.timestamptz_opt(2);
    let moment = Moment { as_of: bound(as_of), known_at: known_at.and_then(bound), version: None };
    let answer = Asked::read(args, 0, 3)?.answer(moment)?;
    answer.state.datum().map(Some)
}

fn state_at_version(args: &Args) -> Returned {
    let version = args.int8(1, "version")?;
    if version < 0 {
        return Err(invalid("version", format!("must be 0 or more, not {version}")));
    }
    let asked = Asked::read(args, 0, 2)?;
    let answer = asked.answer(Moment { version: Some(version), ..Moment::NOW })?;
    if version > answer.head_version {
        let reason = format!(
            "must be 0 to {}, the version of stream \"{}\", not {version}",
            answer.head_version,
            asked.name.as_str()
        );
        return Err(invalid("version", reason));
    }
    answer.state.datum().map(Some)
}

fn load(args: &Args) -> Returned {
    let for_update = args.boolean(2, "for_update")?;
    let asked = Asked::read(args, 0, 1)?;
    let target = asked.target();
    if for_update {
        // Who locks a stream keeps others from appending to it.
        authorize(Privilege::Append, asked.name.category())?;
        server::must_be_writable(c"es_load with for_update")?;
        gate::enter(target.id)?;
        as_owner(Planning::ByIndex, |db, catalog| {
            let (strength, absent) = (RowStrength::Append, Absent::Leave);
            let hold = Hold { strength, absent, shares_name: false, partitions: 1, expected: 0 };
            stream::lock(db, catalog, target.id, &asked.name, &hold).map(drop)
        })?;
    }
    // What a command decides on is what its append will build on: what is committed by now, also in REPEATABLE READ.
    let mut folding = Folding::new(target, &asked.fold)?;
    let (state, version) = match answer::by_name(&mut folding, &asked.name, Moment::NOW, View::Latest)? {
        Some(answer) => (answer.state.datum()?, answer.version),
        None => (asked.fold.initial_state.datum()?, 0),
    };
    composite(args, &[Some(state), Some(Datum::from(version))]).map(Some)
}

fn category_state(args: &Args) -> Returned {
    let name = args.text(0, "category")?;
    Category::parse("category", name)?;
    let moment = Moment {
        as_of: args.timestamptz_opt(1).and_then(bound),
        known_at: args.timestamptz_opt(2).and_then(bound),
        version: None,
    };
    let access = authorize(Privilege::Read, name)?;
    let on_error = Unfoldable::parse("on_error", args.text(4, "on_error")?)?;
    let fold = folds::of(access.tenant_id, name, args.text_opt(3)?)?;
    let store = Store::begin(args)?;
    let mut folding = Folding::new(Target { id: access.tenant_id, name: &access.tenant }, &fold)?;
    category::states(&mut folding, name, moment, on_error, &mut |stream, outcome| {
        let stream = Some(from_text(stream)?);
        match outcome {
            Ok(answer) => {
                store.put(&[stream, Some(Datum::from(answer.version)), Some(answer.state.view().datum()), None])
            }
            Err(caught) => store.put(&[stream, None, None, Some(from_text(&category::problem(&caught))?)]),
        }
    })?;
    Ok(None)
}
