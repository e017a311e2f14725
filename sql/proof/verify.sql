-- Verification: nothing here trusts the log it reads.
create function es_verify_stream(stream text, out version bigint, out problem text) returns setof record
language c stable parallel restricted rows 1 as 'MODULE_PATHNAME', 'eventstream_verify_stream';
comment on function es_verify_stream(text) is
$$Recomputes the stream's chain: no rows = intact. A row names the event and what is wrong with it. Privilege audit. ES002 where there is no such stream.
Example: select * from es_verify_stream('account-1000');$$;

create function es_verify(
    from_position bigint default 0, to_position bigint default null,
    out stream text, out version bigint, out global_position bigint, out problem text
) returns setof record
language c stable parallel restricted rows 1 as 'MODULE_PATHNAME', 'eventstream_verify';
comment on function es_verify(bigint, bigint) is
$$Recomputes the chains of all events with from_position <= global_position <= to_position (NULL = the end) in bounded memory: no rows = intact. Finds changed, deleted, inserted, moved and swapped events, gaps, duplicate versions across partitions, and events without a stream. Superusers and the owner verify every tenant, others (privilege audit) the current one. A cut tail or a chain recomputed whole needs heads kept outside: es_chain_heads, tools/verify.py --anchor.
Example: select * from es_verify();$$;

create function es_verify_audit(
    out tenant text, out kind text, out key jsonb, out global_position bigint, out problem text
) returns setof record
language c stable parallel restricted rows 1 as 'MODULE_PATHNAME', 'eventstream_verify_audit';
comment on function es_verify_audit() is
$$Compares what administers the log (tenants, grants, folds, upcasters, projections, subscriptions, activations) with the acts that made it, which are events of the stream $audit-<uuid of the tenant>: no rows = each act met what the act before it on the same definition left, each definition is what its last act made it, and the log was made where all acts say (kind log). A row names the kind, which one (key), the position of its last act (or of the act that met what was changed by hand, which is told for ever), and what differs: written by hand, edited, or gone. tenant is NULL where the tenant itself is gone. Refused (0A000) after an act in the same transaction. Times (granted_at …), internal ids and where a projection or subscription stands are not compared. The chain of the acts is verified first. Superusers and the owner verify every tenant, others (privilege audit) the current one.
Example: select * from es_verify_audit();$$;

create function es_chain_heads(
    up_to bigint default null, out tenant text, out tenant_uuid uuid, out stream text, out version bigint, out chain_hash bytea
) returns setof record
language c stable parallel restricted rows 1000 as 'MODULE_PATHNAME', 'eventstream_chain_heads';
comment on function es_chain_heads(bigint) is
$$The newest event of every stream (at or below up_to) with its chain hash, and its tenant's uuid, by which the stream is found again when the name has changed: to keep outside of this database. Superusers and the owner see every tenant, others (privilege audit) the current one.
Example: select tenant, tenant_uuid, stream, version, encode(chain_hash, 'hex') from es_chain_heads();$$;
