-- message-db, one category.
\set s random(1, :streams)
select write_message(gen_random_uuid()::text, 'account-' || :s, 'AccountCredited', :payload, :metadata);
