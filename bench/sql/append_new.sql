-- A stream's first event.
\set n random(1, 9000000000000000000)
select es_append('new-' || :n, 'AccountCredited', :payload, metadata => :metadata);
