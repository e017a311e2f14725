-- One event to one of many streams, each of which is a category of its own.
\set s random(1, :streams)
select es_append('account' || :s || '-1', 'AccountCredited', :payload, metadata => :metadata);
