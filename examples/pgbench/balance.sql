-- One transaction of pgbench: the caller's own table and the event change together, or neither does.
-- One in ten is rolled back whole; one in ten takes a step back to a savepoint and goes on. Run by run.sh.
\set aid random(1, :accounts)
\set delta random(-5000, 5000)
\set regretted random(-5000, 5000)
\set fate random(1, 10)
begin;
update pgbench_accounts set abalance = abalance + :delta where aid = :aid;
select es_append('pgbench-' || :aid, 'BalanceChanged', jsonb_build_object('delta', :delta::int));
\if :fate = 1
rollback;
\elif :fate = 2
savepoint before;
update pgbench_accounts set abalance = abalance + :regretted where aid = :aid;
select es_append('pgbench-' || :aid, 'BalanceChanged', jsonb_build_object('delta', :regretted::int));
rollback to savepoint before;
commit;
\else
commit;
\endif
