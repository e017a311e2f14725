-- What a decision reads and appends, without a condition.
\set s random(1, :streams)
\set t random(1, :tags / :sessions) * :sessions + :client_id
select (select count(*) from es_read_backward(max_count => 10, tags => array['d:' || :t])), (select count(*) from es_read_backward(max_count => 10, tags => array['e:' || :t])),
       (select count(*) from es_read_backward(max_count => 10, tags => array['f:' || :t]));
select es_append('account-' || :s, 'AccountCredited', :payload, metadata => :metadata, tags => array['d:' || :t, 'e:' || :t, 'f:' || :t]);
