//! What the views eventstream.stats and eventstream.snapshots ask.
use crate::access::{authorize_tenant, must_not_be_held};
use crate::pg::function::{Args, Returned, sql_function};
use crate::pg::query::store::Store;
use crate::pg::value::datum::{from_text, varlena};
use crate::shared::counters::{self, Counter, Histogram};
use crate::state::{cache, folds};
use eventstream_core::privilege::Privilege;
use pgrx::pg_sys::Datum;

sql_function!("eventstream_stats", "", stats);
sql_function!("eventstream_fold_fingerprint", "bigint, text", fold_fingerprint);

fn stats(args: &Args) -> Returned {
    must_not_be_held("eventstream.stats")?;
    let store = Store::begin(args)?;
    let put = |name: &str, value: u64, scope: &str, meaning: &str| {
        store.put(&[
            Some(from_text(name)?),
            Some(Datum::from(value as i64)),
            Some(from_text(scope)?),
            Some(from_text(meaning)?),
        ])
    };
    let scope = if counters::are_shared() { "database" } else { "session" };
    for counter in Counter::ALL {
        put(counter.name(), counters::get(counter), scope, counter.meaning())?;
    }
    for histogram in Histogram::ALL {
        let measured = counters::measured(histogram);
        let (name, meaning) = (histogram.name(), histogram.meaning());
        put(&format!("{name}_count"), measured.count(), scope, &format!("{meaning}: how often it was measured"))?;
        put(&format!("{name}_microseconds"), measured.microseconds, scope, &format!("{meaning}: all of it"))?;
        for (suffix, quantile) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)] {
            // Longer than the longest bucket's upper end is not known more closely.
            let bound = if measured.count() == 0 { 0 } else { measured.quantile(quantile).unwrap_or(i64::MAX as u64) };
            let part = format!("{meaning}: {} of 100 took at most so many microseconds", quantile * 100.0);
            put(&format!("{name}_{suffix}"), bound, scope, &part)?;
        }
    }
    let (entries, bytes) = cache::usage();
    put("cache_entries", entries as u64, "session", "states that this session keeps")?;
    put("cache_bytes", bytes as u64, "session", "bytes that they take; at most eventstream.state_cache_size")?;
    Ok(None)
}

fn fold_fingerprint(args: &Args) -> Returned {
    let name = args.text(1, "fold")?;
    let (access, _) = authorize_tenant(None, Privilege::Read)?;
    access.must_be(args.int8(0, "tenant_id")?)?;
    folds::named(access.tenant_id, name)?.map(|fold| varlena(&fold.fingerprint)).transpose()
}
