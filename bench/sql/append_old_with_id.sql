-- A stream whose newest event lies anywhere in the log; the client gives the event id.
\set s random(1, :streams)
select es_append('old-' || :s, 'AccountCredited', :payload, metadata => :metadata, event_id => gen_random_uuid());
