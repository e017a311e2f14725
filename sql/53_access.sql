-- Tenants, grants and upkeep.
create function es_create_tenant(tenant text, if_not_exists bool default false) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_create_tenant';
comment on function es_create_tenant(text, bool) is
$$Creates a tenant (1 to 255 bytes, no control characters) and returns its name. if_not_exists: one that is there already is left alone, with a NOTICE. Superusers, the owner, and roles with admin on the current tenant, which get admin on the new one.
Example: select es_create_tenant('acme');$$;

create function es_use_tenant(tenant text) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_use_tenant';
comment on function es_use_tenant(text) is
$$Uses this tenant until the end of the transaction (sets eventstream.tenant locally). A role may use a tenant only where es_grant allowed it (42501).
Example: select es_use_tenant('default');$$;

create function es_grant(role name, privilege text, tenant text default null, category text default null) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_grant';
comment on function es_grant(name, text, text, text) is
$$Grants a privilege to a role (or to public): read, append, manage, audit or admin. tenant NULL = the current one; category NULL = all (only read and append can be narrowed to one). Needs admin. Returns what was granted.
Example: select es_grant('app', 'append', category => 'account');$$;

create function es_revoke(role name, privilege text, tenant text default null, category text default null) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_revoke';
comment on function es_revoke(name, text, text, text) is
$$Takes back what es_grant gave with the same arguments; open sessions notice at once. Needs admin. ES005 where there was no such grant.
Example: select es_revoke('app', 'append', category => 'account');$$;

create function es_maintain(out task text, out done bigint) returns setof record
language c volatile parallel unsafe rows 4 as 'MODULE_PATHNAME', 'eventstream_maintain';
comment on function es_maintain() is
$$Upkeep in bounded steps of about a second, safe at any time, also from several sessions at once: makes the next partition of the log ahead of need (in a transaction of its own), takes the due snapshots (at versions that are multiples of the fold's snapshot_every), and removes those of earlier definitions, and those that eventstream.snapshot_keep and eventstream.snapshot_max_age leave no place for. One row a task, with how many were done; snapshots failed counts streams and folds that failed, each the subject of a WARNING. Call it again while snapshots are taken. Superusers and the owner do it for every tenant, roles with manage for the current one.
Example: select * from es_maintain();$$;
