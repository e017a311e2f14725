\set s random(1, :streams)
select * from es_read(:category || '-' || :s, 1, 1000);
