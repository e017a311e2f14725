-- A stream's first event; the client gives the event id.
\set n random(1, 9000000000000000000)
select es_append('new-' || :n, 'AccountCredited', :payload, metadata => :metadata, event_id => gen_random_uuid());
