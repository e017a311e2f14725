-- One event to one of many streams of a category, in the tenant that a token names: one round trip, as a driver's pipeline sends it.
\set s random(1, :streams)
\startpipeline
select es_use_token(:token);
select es_append(:category || '-' || :s, 'AccountCredited', :payload, metadata => :metadata, occurred_at => now());
\endpipeline
