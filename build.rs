//! Names the differences between PostgreSQL's major versions for `cfg`: `pre_pg17` is true of every version before 17. A version that comes later takes
//! the newest branch, and fails to build where that one does not fit it, instead of taking an old one in silence.
use std::env;

/// The oldest version that is supported, and the newest one that anything differs since.
const OLDEST: u32 = 15;
const NEWEST: u32 = 18;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let has_feature = |major: &u32| env::var_os(format!("CARGO_FEATURE_PG{major}")).is_some();
    let oldest = (OLDEST..NEWEST).find(has_feature);
    for major in OLDEST + 1..=NEWEST {
        println!("cargo::rustc-check-cfg=cfg(pre_pg{major})");
        if oldest.is_some_and(|oldest| oldest < major) {
            println!("cargo::rustc-cfg=pre_pg{major}");
        }
    }
}
