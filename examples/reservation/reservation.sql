\set SHOW_CONTEXT never
-- == 1. Stock, and who may have it for a while ==
-- A decider reserves, and schedules in the same answer that what is reserved comes back.
create schema reservation;
create function reservation.decide(state jsonb, command eventstream.command) returns jsonb stable language plpgsql as $$
declare
    quantity int := command.payload ->> 'quantity';
    release text := 'release-' || (command.payload ->> 'order');
begin
    case command.command_type
    when 'Receive' then
        return jsonb_build_array(es_make_event('ItemsReceived', command.payload));
    when 'Reserve' then
        perform es_require((state ->> 'available')::int >= quantity, 'sold_out', format('only %s are there', state ->> 'available'));
        return jsonb_build_object(
            'events', jsonb_build_array(es_make_event('ItemsReserved', command.payload)),
            'schedule', jsonb_build_array(jsonb_build_object(
                'command_type', 'Release', 'payload', command.payload, 'command_key', release,
                'run_at', command.decided_at + (command.payload ->> 'for')::interval)));
    when 'Release' then
        return jsonb_build_array(es_make_event('ItemsReleased', command.payload));
    when 'Buy' then
        return jsonb_build_object('events', jsonb_build_array(es_make_event('ItemsBought', command.payload)), 'unschedule', jsonb_build_array(release));
    end case;
end
$$;
select es_register_fold('shelf', 'shelf', initial_state => '{"available": 0}', rules => '{"on": {
    "ItemsReceived": [{"add": {"/available": "/quantity"}}], "ItemsReserved": [{"subtract": {"/available": "/quantity"}}],
    "ItemsReleased": [{"add": {"/available": "/quantity"}}], "ItemsBought": []}}');
select es_register_decider('shelf', 'shelf', 'reservation.decide(jsonb, eventstream.command)');
select es_command('shelf-pump', 'Receive', '{"quantity": 5}') ->> 'version' as version;

-- == 2. Two orders; one of them is paid ==
select es_command('shelf-pump', 'Reserve', jsonb_build_object('order', 'o-1', 'quantity', 3, 'for', :'for')) ->> 'version' as version;
select es_command('shelf-pump', 'Reserve', jsonb_build_object('order', 'o-2', 'quantity', 2, 'for', :'for')) ->> 'version' as version;
select es_state('shelf-pump') as nothing_is_left;
select es_command('shelf-pump', 'Buy', '{"order": "o-2"}') ->> 'version' as version;
select command_key, stage from eventstream.scheduled_commands order by 1;
