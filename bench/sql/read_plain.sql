-- The same columns as eventstream.event.
\set s random(1, :streams)
select global_position, 'ledger-' || :s as stream, version, event_id, event_type, schema_version, payload, metadata, subject,
    occurred_at, recorded_at, category, 'default' as tenant, recorded_by, salt, chain_hash
from plain.events
where stream_id = 1000000 + :s
order by version
limit 1000;
