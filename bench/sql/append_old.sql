-- A stream whose newest event lies anywhere in the log.
\set s random(1, :streams)
select es_append('old-' || :s, 'AccountCredited', :payload, metadata => :metadata);
