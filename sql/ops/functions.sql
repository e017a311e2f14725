-- What an operator calls.
create function es_activate() returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_activate';
comment on function es_activate() is
$$Says that this database is the original from now on: projections run and subscriptions are served here. Until then they wait in a database that is not where its log was made (a restored dump, a copy by CREATE DATABASE … TEMPLATE, a cluster that pg_upgrade made), because the original may still be in use. Returns the log's id; a second call changes nothing. For superusers and the owner: it decides for every tenant; under a token for nobody.
Example: select es_activate();$$;

create function es_metrics() returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_metrics';
comment on function es_metrics() is
$$A page in Prometheus' text exposition format: counters (…_total, since the server started), histograms of durations in seconds, where the log stands, and position, lag and status of each projection and subscription of every tenant, workers, and eventstream_health_status (0 ok, 1 warning, 2 critical) for each check of eventstream.health. An exporter asks for it and serves it as text/plain; version=0.0.4. For superusers and members of pg_monitor; under a token for nobody (42501).
Example: select es_metrics();$$;
revoke all on function es_metrics() from public;
grant execute on function es_metrics() to pg_monitor;

create function es_maintain(out task text, out done bigint) returns setof record
language c volatile parallel unsafe rows 6 as 'MODULE_PATHNAME', 'eventstream_maintain';
comment on function es_maintain() is
$$Upkeep in bounded steps of about a second, safe at any time, also from several sessions at once: makes the next partition of the log ahead of need (in a transaction of its own), analyzes a table of the log that has grown since, counts the events that have settled (for eventstream.event_types and eventstream.tenants), takes the due snapshots (at versions that are multiples of the fold's snapshot_every), and removes those of earlier definitions, and those that eventstream.snapshot_keep and eventstream.snapshot_max_age leave no place for. One row a task, with how many were done; snapshots failed counts streams and folds that failed, each the subject of a WARNING. Call it again while snapshots are taken or events counted. Superusers and the owner do it for every tenant, roles with upkeep for the current one.
Example: select * from es_maintain();$$;
