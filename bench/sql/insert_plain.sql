-- The row that es_append would write, without what es_append does for it: version, salt and hash cost nothing here.
\set s random(1, :streams)
\set v random(1000000, 9000000000000000000)
insert into plain.events (tenant_id, stream_id, version, global_position, occurred_at, max_occurred_at, recorded_at,
    event_id, schema_version, event_type, category, recorded_by, salt, chain_hash, payload, metadata)
values (1, :s, :v, nextval('plain.positions'), now(), now(), now(),
    gen_random_uuid(), 1, 'AccountCredited', 'account', session_user, '\x00112233445566778899aabbccddeeff',
    '\x00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff', :payload, :metadata);
