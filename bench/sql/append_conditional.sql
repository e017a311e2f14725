-- The same under a condition on one tag, of which each client has its own: nobody conflicts.
\set s random(1, :streams)
\set t random(1, :tags / :sessions) * :sessions + :client_id
select es_append_streams(
    jsonb_build_array(jsonb_build_object('stream', 'account-' || :s, 'events', jsonb_build_array(
        jsonb_build_object('type', 'AccountCredited', 'payload', :payload::jsonb, 'metadata', :metadata::jsonb, 'tags', jsonb_build_array('seat:' || :t))))),
    condition => jsonb_build_object('after', es_horizon(), 'query', jsonb_build_object('items', jsonb_build_array(jsonb_build_object('tags', jsonb_build_array('seat:' || :t))))));
