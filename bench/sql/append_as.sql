-- One event of a type to one of many streams of one category.
\set s random(1, :streams)
select es_append('account-' || :s, :type, :payload, metadata => :metadata);
