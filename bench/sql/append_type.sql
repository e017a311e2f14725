-- One event of that type to one of many streams.
\set s random(1, :streams)
select es_append('account-' || :s, :event_type, :payload, metadata => :metadata, occurred_at => now());
