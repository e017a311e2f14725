-- A decision over three tags: what it depends on, what that says, the event.
\set s random(1, :streams)
\set t random(1, :tags / :sessions) * :sessions + :client_id
select es_condition(jsonb_build_object('items', jsonb_build_array(
    jsonb_build_object('tags', jsonb_build_array('a:' || :t)), jsonb_build_object('tags', jsonb_build_array('b:' || :t)),
    jsonb_build_object('tags', jsonb_build_array('c:' || :t))))) as condition \gset
select (select count(*) from es_read_backward(max_count => 10, tags => array['a:' || :t])), (select count(*) from es_read_backward(max_count => 10, tags => array['b:' || :t])),
       (select count(*) from es_read_backward(max_count => 10, tags => array['c:' || :t]));
select es_append_streams(
    jsonb_build_array(jsonb_build_object('stream', 'account-' || :s, 'events', jsonb_build_array(
        jsonb_build_object('type', 'AccountCredited', 'payload', :payload::jsonb, 'metadata', :metadata::jsonb, 'tags', jsonb_build_array('a:' || :t, 'b:' || :t, 'c:' || :t))))),
    condition => :condition::jsonb);
