//! es_query.
use super::{asks, target};
use crate::access::page::{self, Asked as OfPage};
use crate::access::{Scope, authorize_reading_log};
use crate::pg::error::failure::Result;
use crate::pg::function::{Args, Returned};
use crate::pg::query::store::Store;
use crate::present::query::{Asked, Window};
use eventstream_core::error::Error;
use eventstream_core::privilege::Privilege;
use eventstream_core::query::page::{Sealer, open};

asks!(Read, "eventstream_query", "jsonb, integer, text, bigint", query);

fn query(args: &Args) -> Returned {
    let asked = Asked::read(args.jsonb(0, "criteria")?)?;
    let mut window = Window { after: None, max_count: args.int4(1, "max_count")?.into(), skip: args.int8(3, "skip")? };
    window.check()?;
    let page = args.text_opt(2)?;
    let (access, categories) =
        authorize_reading_log(asked.categories()).map_err(|failure| failure.within(|| "criteria".into()))?;
    let scope = match access.scope(Privilege::Read) {
        Some(Scope::Categories(mut categories)) => {
            categories.sort_unstable();
            categories.dedup();
            Some(categories)
        }
        _ => None,
    };
    let sealers = page::sealers(&OfPage {
        tenant_id: access.tenant_id,
        scope: scope.as_deref(),
        criteria: &asked.meaning,
        times: &asked.times(),
        is_backward: asked.is_backward(),
    })?;
    window.after = page.map(|page| opened(page, &sealers)).transpose()?;
    let sealer = sealers.first().ok_or_else(|| Error::Internal { what: "no key seals pages".into() })?;
    asked.answer(target(&access), categories, &window, sealer, &Store::begin(args)?)?;
    Ok(None)
}

fn opened(page: &str, sealers: &[Sealer]) -> Result<i64> {
    open(page, sealers).ok_or_else(|| Error::PageRefused.into())
}
