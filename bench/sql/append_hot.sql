-- One event to the one stream that everybody writes to.
select es_append('hot-1', 'AccountCredited', :payload, metadata => :metadata);
