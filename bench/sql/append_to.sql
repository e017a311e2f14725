-- One event to one of many streams of a category.
\set s random(1, :streams)
select es_append(:category || '-' || :s, 'AccountCredited', :payload, metadata => :metadata, occurred_at => now());
