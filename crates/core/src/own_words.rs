//! Which of the server's words are PostgreSQL's own: of relations, blocks, files, locks, memory and transactions, as the parts of it say them that know nothing of what a statement is about.
//! Who looks after a server needs them where the words of users' code are withheld. What is not known to be its own is not: any language, and any foreign server, may raise any SQLSTATE.

/// What says so in errors, and in lines without one: beginnings of names of PostgreSQL's source files.
const STORAGE: [&str; 44] = [
    "bufmgr.c",
    "bufpage.c",
    "localbuf.c",
    "freelist.c",
    "md.c",
    "smgr.c",
    "fd.c",
    "buffile.c",
    "logtape.c",
    "aio",
    "method_io_uring.c",
    "freespace.c",
    "fsmpage.c",
    "visibilitymap.c",
    "heapam",
    "hio.c",
    "rewriteheap.c",
    "pruneheap.c",
    "heaptoast.c",
    "detoast.c",
    "toast_internals.c",
    "toast_compression.c",
    "tableam.c",
    "indexam.c",
    "genam.c",
    "nbt",
    "gin",
    "gist",
    "brin",
    "spg",
    "hashpage.c",
    "hashovfl.c",
    "hashutil.c",
    "slru.c",
    "clog.c",
    "subtrans.c",
    "multixact.c",
    "varsup.c",
    "xlog",
    "deadlock.c",
    "proc.c",
    "lock.c",
    "lmgr.c",
    "predicate.c",
];

/// And these in errors alone: what they write without one may be a statement, or what was given to it.
const ERRORS: [&str; 21] = [
    "postgres.c",
    "mcxt.c",
    "aset.c",
    "generation.c",
    "slab.c",
    "bump.c",
    "stringinfo.c",
    "stack_depth.c",
    "dynahash.c",
    "tuplesort",
    "tuplestore.c",
    "namespace.c",
    "trigger.c",
    "nodeModifyTable.c",
    "nodeLockRows.c",
    "relcache.c",
    "catcache.c",
    "syscache.c",
    "xact.c",
    "dsm",
    "procarray.c",
];

/// What it may say of itself: corruption and its own mistakes, resources, limits, what an operator stopped, the system, transactions.
const CLASSES: [&str; 6] = ["XX", "53", "54", "57", "58", "40"];
const NO_LOCK: &str = "55P03";

/// Of an error with that SQLSTATE that was raised in that file.
#[must_use]
pub fn is_of_error(sqlstate: &str, file: &str) -> bool {
    let is_its = sqlstate == NO_LOCK || CLASSES.iter().any(|class| sqlstate.starts_with(class));
    is_its && (begins(&STORAGE, file) || begins(&ERRORS, file))
}

/// Of a line that is no error: who waits for a lock, a temporary file, a page that cannot be verified.
#[must_use]
pub fn is_of_line(file: &str) -> bool {
    begins(&STORAGE, file)
}

fn begins(names: &[&str], file: &str) -> bool {
    file.ends_with(".c") && names.iter().any(|name| file.starts_with(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_its_own_by_where_they_are_said_and_under_which_sqlstate() {
        for (sqlstate, file) in [
            ("XX001", "bufmgr.c"),
            ("XX002", "nbtpage.c"),
            ("57014", "postgres.c"),
            ("55P03", "postgres.c"),
            ("40P01", "deadlock.c"),
            ("40001", "heapam.c"),
            ("53100", "md.c"),
            ("54001", "postgres.c"),
            ("58030", "fd.c"),
        ] {
            assert!(is_of_error(sqlstate, file), "{sqlstate} {file}");
        }
        for (sqlstate, file) in [
            // RAISE, other languages, foreign servers, a file that is named with a value; data.
            ("XX001", "pl_exec.c"),
            ("57014", "plpy_elog.c"),
            ("40001", "dblink.c"),
            ("XX000", "connection.c"),
            ("58P01", "genfile.c"),
            ("22P02", "heapam.c"),
            ("55000", "postgres.c"),
            ("XX000", "gin"),
            ("XX000", ""),
        ] {
            assert!(!is_of_error(sqlstate, file), "{sqlstate} {file}");
        }
        assert!(is_of_line("proc.c") && is_of_line("fd.c") && is_of_line("bufpage.c"));
        assert!(!is_of_line("postgres.c") && !is_of_line("pl_exec.c") && !is_of_line("auto_explain.c"));
    }
}
