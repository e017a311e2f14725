-- What the views over states ask.
create function _eventstream.fold_fingerprint(fold text) returns bytea
language c stable parallel restricted as 'MODULE_PATHNAME', 'eventstream_fold_fingerprint';
comment on function _eventstream.fold_fingerprint(text) is
'The fingerprint of a fold of the current tenant as it is now, which its snapshots must have to be used; NULL where there is no such fold. Privilege read.';

create function _eventstream.stats(
    out name text, out value bigint, out scope text, out meaning text
) returns setof record
language c volatile parallel restricted rows 40 as 'MODULE_PATHNAME', 'eventstream_stats';
comment on function _eventstream.stats() is
'Counters of this database since the server started, and of this session.';
