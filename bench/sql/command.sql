-- A command with a key: by the decider, from the state of a fold, to one of many streams.
\set s random(1, :streams)
select es_command('till-' || :s, 'Deposit', '{"amount": 12.50}', command_key => gen_random_uuid()::text);
