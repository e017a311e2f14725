-- What an operator calls.
create function es_activate() returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_activate';
comment on function es_activate() is
$$Says that this database is the original from now on: projections run and subscriptions are served here. Until then they wait in a database that is not where its log was made (a restored dump, a copy by CREATE DATABASE … TEMPLATE, a cluster that pg_upgrade made), because the original may still be in use. Returns the log's id; a second call changes nothing. Superusers, the owner, and roles with admin.
Example: select es_activate();$$;
