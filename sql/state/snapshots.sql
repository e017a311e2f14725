-- Snapshots.
create function es_snapshot(stream text, fold text default null) returns bigint
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_snapshot';
comment on function es_snapshot(text, text) is
$$Takes a snapshot of a stream's state now, by a fold of its category (NULL = the default one), in place of one at the same version; returns the version it is at. es_maintain takes the due ones by itself; a snapshot changes no answer, only how soon it comes. Needs the privileges manage and read for the category.
Errors: ES002 no such stream, ES010 no such fold, ES013, 42501.
Example: select es_snapshot('account-1000');$$;

create function es_snapshot_state(stream text, version bigint default null, fold text default null) returns jsonb
language c stable parallel restricted as 'MODULE_PATHNAME', 'eventstream_snapshot_state';
comment on function es_snapshot_state(text, bigint, text) is
$$The state that a snapshot holds: the one at exactly version (NULL = the newest), by a fold of the stream's category (NULL = the default one). A snapshot that is damaged, or of an earlier definition of the fold, is never returned: with version it is ES012, and says why; without, the newest that serves is returned, with a WARNING for each damaged one passed over.
Errors: ES002 no such stream, ES005, ES010 no such fold, ES012 no such snapshot, 42501.
Example: select es_snapshot_state('account-1000', version => 100);$$;

create function es_verify_snapshots(
    fold text default null, thorough bool default false,
    out stream text, out fold text, out version bigint, out problem text
) returns setof record
language c stable parallel unsafe rows 1 as 'MODULE_PATHNAME', 'eventstream_verify_snapshots';
comment on function es_verify_snapshots(text, bool) is
$$Checks the current tenant's stored snapshots (of one fold, or NULL = all): no rows = intact. A row names a snapshot and what is wrong with it: its checksum, the chain hash of its event, a version that the stream does not have, a fold that is gone. thorough: its state is also compared with what the events give when they are folded again from the first one, which finds a handler that depends on more than its arguments. One of an earlier definition of its fold is no problem: it is never used, and es_maintain removes it. Privilege audit.
Errors: ES010 no such fold, 42501.
Example: select * from es_verify_snapshots(thorough => true);$$;

create function es_prune_snapshots(keep bigint default 3, older_than interval default null) returns bigint
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_prune_snapshots';
comment on function es_prune_snapshots(bigint, interval) is
$$Removes snapshots of the current tenant and returns how many. The newest keep of each stream and fold stay, and, with older_than, also all that were taken since then: what goes is both beyond keep and older. Those of an earlier definition of their fold always go, unless that cannot be used now. keep => 0 removes all; answers stay the same. Needs the privilege upkeep.
Errors: ES005, 42501.
Example: select es_prune_snapshots(keep => 3, older_than => interval '30 days');$$;
