\set s random(1, :streams)
select * from es_read('ledger-' || :s, 1, 1000);
