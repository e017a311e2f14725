-- message-db, every stream a category of its own.
\set s random(1, :streams)
select write_message(gen_random_uuid()::text, 'account' || :s || '-1', 'AccountCredited', :payload, :metadata);
