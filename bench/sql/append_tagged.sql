-- One event with two tags, one of which many events bear, to one of many streams of one category.
\set s random(1, :streams)
\set t random(1, :tags)
select es_append('account-' || :s, 'AccountCredited', :payload, metadata => :metadata, tags => array['order:' || :t, 'day:' || :t % 7]);
