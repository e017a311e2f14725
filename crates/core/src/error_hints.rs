//! What to do about errors, where that does not depend on their values. Only `advice` uses it, and the words of `error`.

pub const STREAM_NOT_FOUND: &str =
    "A stream exists from its first event on, within its tenant: check the name and eventstream.tenant.";

pub const STREAM_CLOSED: &str = "A closed stream can be read but takes no more events: append to another stream.";

pub const INVALID_STREAM_NAME: &str =
    "A stream name is category-id, for example account-1000; es_stream_name(category, id) makes one.";

pub const EVENT_ID_REUSED: &str =
    "Retry with exactly the events of the first attempt, or give other events new ids (es_new_event_id()).";

pub const FUTURE_SKEW: &str = "The limit keeps wrong clocks out of valid time. Where value dates lie further ahead, a superuser says how far: alter database … set \
     eventstream.max_future_skew = '400d'; or record the event when it happens, with the day from which it counts in its payload.";

pub const IN_CLEAR_ON_DISK: &str = "They would lie in a temporary file in clear. Reveal fewer at once (max_count => 100), say select es_reveal(…), which goes page by page, \
     or set work_mem higher.";

pub const PRELOAD_REQUIRED: &str = "Put this line into postgresql.conf (append eventstream to the list if it names other libraries) and \
     restart the server: shared_preload_libraries = 'eventstream'";

pub const PRIMARY_REQUIRED: &str = "Connect to the primary; reading streams (es_read) works here as well.";

pub const FOLD_NOT_FOUND: &str =
    "The view eventstream.folds shows what is registered; es_register_fold() registers a fold for a category.";

pub const INVALID_RULES: &str = "docs/rules.md has the language, with an example of each operation and condition.";

pub const SNAPSHOT_NOT_FOUND: &str = "The view eventstream.snapshots shows what there is; es_snapshot() takes one now.";

pub const FOLD_UNUSABLE: &str = "Mend what is named, or register the fold again with es_register_fold().";

pub const PROJECTION_NOT_FOUND: &str = "The view eventstream.projections shows what there is.";

pub const SUBSCRIPTION_NOT_FOUND: &str = "The view eventstream.subscriptions shows what there is.";

pub const REBUILD_IN_PROGRESS: &str = "The view eventstream.progress shows how far it is.";

pub const WAIT_TIMEOUT: &str = "The views eventstream.projections and eventstream.health show what it does; es_run_projection() advances it \
     where no workers run.";

pub const LEASE_LOST: &str = "Fetch again: what this lease held is delivered again, to whoever fetches it; make its processing idempotent, and \
     leases longer where it takes longer: a consumer that has acknowledged nothing lately gets a minute at most, and \
     makes it longer with es_extend_lease.";

pub const COMMAND_KEY_REUSED: &str =
    "A key is the name of one intention: send the first request again as it was, or give another one a key of its own.";

pub const COMMAND_KEY_HIDDEN: &str = "It was not executed again. Look what came of it the first time (es_query by the metadata {\"command\": {\"key\": …}}, eventstream.commands, eventstream.scheduled_commands). \
     What is meant as another request is given a key of its own.";

pub const ATTEMPT_LOST: &str = "Begin again with the same key: es_begin_command says what has become of it, and whether it is to be executed. What this attempt \
     did outside may have been done twice: ask the other side.";

pub const NOT_ACTIVATED: &str =
    "If the original is no longer in use, make this one the original: select es_activate();";

pub const POSITION_AHEAD: &str = "The database may have been restored to an earlier point, or this is another one: compare es_log_info() \
     with what was stored beside the position.";

pub const POSITION_OF_ANOTHER: &str = "Connect to the database that the position was stored for; for this one begin at 0, or where its own consumers are: \
     what lies between would be skipped without a word.";

pub const NOT_IN_SNAPSHOT: &str = "Others appended to it since the snapshot was taken, and this transaction after them. Roll back and run the transaction \
     again; in READ COMMITTED this does not happen, and es_load() reads what is committed by now at every level.";

pub const CONDITION: &str =
    "Take another condition with es_condition(query), read afterwards, and decide again on what was read.";

pub const PAGE_REFUSED: &str = "A page goes on with the query that gave it: the same criteria, tenant, database, and categories that the role may read. Ask \
     without a page for the first events.";

pub const MATCHES_NOT_IN_SNAPSHOT: &str = "Roll back, take the condition before the transaction begins, and read in it. In READ COMMITTED this does not happen.";

pub const TENANT_NOT_FOUND: &str = "Check the name: one that was renamed goes by its new one. Which there are: select tenant, status from eventstream.tenants;";

pub const IMMUTABLE: &str = "Append an event that corrects the earlier one; what was recorded stays.";

pub const FOREIGN: &str = "Call the es_* function that does it. A dump is restored into a database without a log: one that has never \
     appended.";

pub const GUARDED: &str =
    "If that is what you want, and there is a dump: set eventstream.allow_drop = on; (superusers) and say it again.";

pub const NO_FOLD_OF_QUERY: &str = "Register a fold of no category, and name it to the decider: es_register_fold('places', null, rules => …), \
     es_register_decider(…, fold => 'places').";

pub const INTERNAL: &str = "This is a mistake in eventstream: please report it with the server's log.";
