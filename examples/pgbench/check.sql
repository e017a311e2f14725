-- For every account, the sum of its events must be its balance. Run by run.sh; fails (psql's exit status 3) if one differs.
\set ON_ERROR_STOP on
\pset footer off

create temp table differences as
select a.aid, a.abalance, coalesce(e.balance, 0) as sum_of_events, coalesce(e.events, 0) as events
from pgbench_accounts a
full join (
    select split_part(stream, '-', 2)::int as aid, sum((payload ->> 'delta')::bigint) as balance, count(*) as events
    from eventstream.events
    where category = 'pgbench' and event_type = 'BalanceChanged'
    group by stream
) e using (aid)
where a.abalance is distinct from coalesce(e.balance, 0);

select (select count(*) from pgbench_accounts) as accounts,
       (select count(*) from eventstream.events where category = 'pgbench') as events,
       (select count(*) from eventstream.streams where category = 'pgbench') as streams,
       (select count(*) from differences) as differences;
select * from differences order by aid limit 10;

do $$
declare
    differing bigint := (select count(*) from differences);
    problems bigint := (select count(*) from es_verify());
begin
    if differing > 0 then
        raise exception '% accounts have a balance that is not the sum of their events', differing;
    end if;
    if problems > 0 then
        raise exception 'es_verify() found % problems', problems;
    end if;
    if not exists (select from eventstream.events where category = 'pgbench') then
        raise exception 'there is no event to check';
    end if;
end
$$;
