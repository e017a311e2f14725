\set SHOW_CONTEXT never
-- == 1. Stock, and who may have it for a while ==
-- A decider reserves, and schedules in the same answer that what is reserved comes back.
create schema reservation;
create function reservation.decide(state jsonb, command eventstream.command) returns jsonb stable language plpgsql as $$
declare
    order_id text := command.payload ->> 'order';
    available numeric := state ->> 'available';
    reserved jsonb := state -> 'reserved' -> order_id;
    release text := format('release-%s/%s', command.stream, order_id);
begin
    case command.command_type
    when 'Receive' then
        return jsonb_build_array(es_make_event('ItemsReceived', command.payload));
    when 'Reserve' then
        perform es_require(reserved is null, 'reserved_already', format('%s has a reservation', order_id));
        perform es_require(available >= (command.payload ->> 'quantity')::numeric, 'sold_out', format('only %s are there', available));
        return jsonb_build_object(
            'events', jsonb_build_array(es_make_event('ItemsReserved', command.payload - 'seconds')),
            'schedule', jsonb_build_array(jsonb_build_object(
                'command_type', 'Release', 'payload', jsonb_build_object('order', order_id), 'command_key', release,
                'run_at', command.decided_at + make_interval(secs => (command.payload ->> 'seconds')::float8))));
    when 'Release', 'Buy' then
        perform es_require(reserved is not null, 'not_reserved', format('nothing is reserved for %s', order_id));
        return jsonb_build_object(
            'events', jsonb_build_array(es_make_event(case command.command_type when 'Buy' then 'ItemsBought' else 'ItemsReleased' end,
                                                      jsonb_build_object('order', order_id, 'quantity', reserved))),
            'unschedule', jsonb_build_array(release));
    end case;
end
$$;
select es_register_fold('shelf', 'shelf', initial_state => '{"available": 0, "reserved": {}}', rules => '{"on": {
    "ItemsReceived": [{"add": {"/available": "/quantity"}}],
    "ItemsReserved": [{"subtract": {"/available": "/quantity"}}, {"set": {"/reserved/{/order}": "/quantity"}}],
    "ItemsReleased": [{"add": {"/available": "/quantity"}}, {"remove": "/reserved/{/order}"}],
    "ItemsBought":   [{"remove": "/reserved/{/order}"}]}}');
select es_register_decider('shelf', 'shelf', 'reservation.decide(jsonb, eventstream.command)', commands => '{
    "Receive": {"schema": {"type": "object", "required": ["quantity"], "properties": {"quantity": {"type": "integer", "minimum": 1}}}},
    "Reserve": {"schema": {"type": "object", "required": ["order", "quantity", "seconds"], "properties": {
                   "order":    {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9.-]{0,99}$"},
                   "quantity": {"type": "integer", "minimum": 1},
                   "seconds":  {"type": "number", "exclusiveMinimum": 0, "maximum": 3600}}}},
    "Release": {"schema": {"type": "object", "required": ["order"], "properties": {"order": {"type": "string"}}}},
    "Buy":     {"schema": {"type": "object", "required": ["order"], "properties": {"order": {"type": "string"}}}}}');
select es_command('shelf-pump', 'Receive', '{"quantity": 5}') ->> 'version' as version;

-- == 2. Two orders; one of them is paid ==
select es_command('shelf-pump', 'Reserve', jsonb_build_object('order', 'o-1', 'quantity', 3, 'seconds', :seconds)) ->> 'version' as version;
select es_command('shelf-pump', 'Reserve', jsonb_build_object('order', 'o-2', 'quantity', 2, 'seconds', :seconds)) ->> 'version' as version;
select es_state('shelf-pump') as nothing_is_available;
select es_command('shelf-pump', 'Buy', '{"order": "o-2"}') ->> 'version' as version;
select command_key, stage from eventstream.scheduled_commands order by 1;
