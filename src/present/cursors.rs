//! What a statement that gives its rows in portions may still give: PostgreSQL, or a function's page, may have read ahead of that, under rules which count no more.
//!
//! ```text
//! the first portion, or it has read nothing ─▶ goes on
//! what is protected in a tenant of which something was shown in this transaction is another than when it began to read ─▶ 40001
//! its role needs a token since (src/access/fixed.rs), or the one that it read under counts no more ─▶ ES042
//! ```
//! Promises: a statement that gives its rows at once is asked nothing; one that has read nothing of events goes on whatever changes.
use super::protected;
use crate::access;
use crate::pg::error::failure::Result;
use crate::pg::function::call;
use crate::pg::query::fetch::{self, Listener, Mark, Portion};
use crate::shared::{portions, token};
use eventstream_core::error::Error;
use eventstream_core::withheld::Withheld;

/// Once a process, from _PG_init.
pub fn init() {
    fetch::init(Listener { is_asked, may_go_on, gave });
}

/// Folds and upcasters read nothing of ours: what they are made of goes on, also where this session hears just now that rules have changed, which may not be looked up in them.
fn is_asked(portion: &Portion) -> bool {
    !call::is_in_user_code() && (token::has_had() || !(portion.is_first && portion.is_last))
}

fn may_go_on(portion: &Portion) -> Result<Mark> {
    if portion.is_first {
        portions::note_begin(portion.statement);
    }
    access::may_go_on(portion)?;
    let under = portions::read(portion.statement).under;
    // Also at the first portion: rules of before it began are none that changed since.
    if (under.is_some() || portion.is_first && !portion.is_last)
        && let changes = protected::changes()?
        && under.is_some_and(|under| under != changes)
    {
        return Err(Error::Withheld(Box::new(Withheld::RulesChanged)).into());
    }
    Ok(portions::mark())
}

fn gave(portion: &Portion, mark: Mark) {
    portions::note_given(portion.statement, mark);
}
