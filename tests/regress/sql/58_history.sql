-- How a state came to be, and what it would be.
set time zone 'UTC';
set datestyle = 'ISO';
create function price(state jsonb, event eventstream.event) returns jsonb language plpgsql immutable as $$
begin
    return state || jsonb_build_object('price', event.payload -> 'price', 'seen', (state ->> 'seen')::int + 1)
        || case when event.payload ? 'tag' then jsonb_build_object('tags', (state -> 'tags') || (event.payload -> 'tag')) else '{}' end;
end
$$;
select es_register_fold('as_it_came', 'price', 'price(jsonb, eventstream.event)', initial_state => '{"seen": 0, "tags": []}');
select es_register_fold('in_time', 'price', 'price(jsonb, eventstream.event)', initial_state => '{"seen": 0, "tags": []}',
                        fold_order => 'occurred_at', is_default => false);
select es_append_events('price-milk', '[
    {"type": "PriceSet", "payload": {"price": 10}, "occurred_at": "2024-01-01T00:00:00Z"},
    {"type": "PriceSet", "payload": {"price": 12, "tag": "spring"}, "occurred_at": "2024-03-01T00:00:00Z"},
    {"type": "PriceSet", "payload": {"price": 11.00, "tag": "late"}, "occurred_at": "2024-02-01T00:00:00Z"},
    {"type": "PriceSet", "payload": {"price": 11.0}, "occurred_at": "2024-03-01T00:00:00Z"}]');

-- After each version, and what it changed.
select version, event_type, occurred_at, state, changes from es_history('price-milk');
select version, state, changes from es_history('price-milk', fold => 'in_time');
select version from es_history('price-milk', from_version => 2, max_count => 2);
select count(*) from es_history('price-milk', from_version => 5);
select (es_history('price-milk', 4)).changes;

-- In valid time: a row for each moment.
select * from es_timeline('price-milk');
select * from es_timeline('price-milk', fold => 'in_time');
select valid_from, version from es_timeline('price-milk', known_at => '-infinity');
select state ->> 'price' as price from es_timeline('price-milk', fold => 'in_time')
where tstzrange(valid_from, valid_to) @> timestamptz '2024-02-15 00:00:00+00';

-- Why it is what it is.
select jsonb_pretty(jsonb_set(e #- '{left_out,occurred_later,first,0,recorded_at}' #- '{left_out,occurred_later,first,1,recorded_at}'
                              #- '{fold,fingerprint}', '{milliseconds}', '{}'))
from es_explain_state('price-milk', as_of => '2024-02-15 00:00:00+00', fold => 'in_time') e;

-- What if.
select es_simulate('price-milk', '[{"type": "PriceSet", "payload": {"price": 9}, "occurred_at": "2024-02-10T00:00:00Z"}]');
select es_simulate('price-milk', '[{"type": "PriceSet", "payload": {"price": 9}, "occurred_at": "2024-02-10T00:00:00Z"}]', 'in_time');
select es_simulate('price-bread', '[{"type": "PriceSet", "payload": {"price": 3, "tag": "new"}}]');
select es_stream_version('price-milk') as milk, es_stream_version('price-bread') as bread;
begin read only;
select es_simulate('price-milk', '[{"type": "PriceSet", "payload": {"price": 9}}]');
commit;

-- What is refused.
select * from es_history('price-none');
select * from es_history('price-milk', from_version => 0);
select * from es_history('price-milk', from_version => null);
select * from es_history('price-milk', max_count => -1);
select * from es_timeline('price-none');
select * from es_timeline('price-milk', fold => 'nope');
select * from es_explain_state('price-none');
select es_simulate('price-milk', '[]');
select es_simulate('price-milk', '[{"type": "PriceSet", "payload": {}, "occurred_at": "infinity"}]');
select es_close_stream('price-milk', 'sold out');
select es_simulate('price-milk', '[{"type": "PriceSet", "payload": {"price": 9}}]');

select es_unregister_fold('as_it_came'), es_unregister_fold('in_time');
drop function price(jsonb, eventstream.event);
