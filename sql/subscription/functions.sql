-- Subscriptions for consumers outside of the database.
create function es_create_subscription(
    name text,
    categories text[] default null,
    event_types text[] default null,
    after_position bigint default 0,
    max_deliveries bigint default 10,
    if_not_exists bool default false
) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_create_subscription';
comment on function es_create_subscription(text, text[], text[], bigint, bigint, bool) is
$$Makes a place in the log for consumers outside of the database, after after_position, and returns its name. categories, event_types: only those events (NULL = all), what upcasters turn into one of the types among them. max_deliveries: how often an event is delivered before it goes to the dead letters. if_not_exists: one that is there already is left alone where it is, with a NOTICE, if it was created with the same arguments but after_position; else ES005 says what differs.
Errors: ES005 (also for a name that is taken), ES025 after_position beyond the log, 42501 without manage.
Example: select es_create_subscription('mailer', categories => '{order}');$$;

create function es_drop_subscription(name text) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_drop_subscription';
comment on function es_drop_subscription(text) is
$$Removes a subscription, with its leases and its dead letters.
Errors: ES020, 42501 without manage.
Example: select es_drop_subscription('mailer');$$;

create function es_seek_subscription(name text, after_position bigint) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_seek_subscription';
comment on function es_seek_subscription(text, bigint) is
$$Moves a subscription: what comes after after_position is delivered, again or at once. Leases end (ES024), parked streams are forgotten, dead letters stay.
Errors: ES005, ES020, ES025 after_position beyond the log, 42501 without manage.
Example: select es_seek_subscription('mailer', after_position => 0);$$;

create function es_fetch(
    subscription text,
    consumer text,
    max_count bigint default 100,
    lease interval default '30s',
    wait interval default '0'
) returns setof eventstream.delivery
language c volatile parallel unsafe rows 100 as 'MODULE_PATHNAME', 'eventstream_fetch';
comment on function es_fetch(text, text, bigint, interval, interval) is
$$Leases the next events of a subscription to a consumer: at most max_count (1 to 10000), all with one lease_id, in the order of the log. A stream's events go to one consumer at a time; each gets its fair share of the streams. A consumer that has acknowledged, given back or extended nothing in the last ten minutes gets a lease of one minute at most, as lease_until says; es_extend_lease makes it longer. What is not acknowledged (es_ack) before the lease ends is delivered again. wait (1 minute at most): how long to wait until there is something; it may return earlier with nothing. Call it in FROM, once a batch; commit before you work, or work in its transaction and acknowledge there too: then each event counts exactly once.
Errors: ES005, ES008 not preloaded, ES009 on a standby, ES020, ES025 the subscription is ahead of the log (restored copy?), ES026 in a copy, 42501 without consume and read for its categories.
Example: select lease_id, attempt, (event).stream, (event).event_type from es_fetch('mailer', consumer => 'worker-1', max_count => 10, wait => '5s');$$;

create function es_ack(lease_id uuid, up_to bigint default null) returns bigint
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_ack';
comment on function es_ack(uuid, bigint) is
$$Acknowledges the events of a lease, those up to position up_to, or all that are left (NULL): they are not delivered again. How many there were. The rest stays with the lease.
Errors: ES024 the lease has ended, or somebody else has the events, or they were all acknowledged before; 42501.
Example: select es_ack('01890a5d-ac96-774b-bcce-b302099a8057');$$;

create function es_nack(
    lease_id uuid,
    global_position bigint,
    reason text default null,
    retry_after interval default null,
    dead_letter bool default false
) returns bigint
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_nack';
comment on function es_nack(uuid, bigint, text, interval, bool) is
$$Gives back an event that could not be processed, and with it the later ones of its stream that the lease holds: how many. The stream is parked: the event is delivered again after retry_after (NULL: a pause that grows with each attempt), its later events wait for it, other streams go on. dead_letter, or max_deliveries attempts: the event goes to the dead letters, and the stream goes on behind it.
Errors: ES024 the lease has ended, ES005 it does not hold the event, 42501.
Example: select es_nack('01890a5d-ac96-774b-bcce-b302099a8057', 42, 'no answer from the mail server', retry_after => '1 minute');$$;

create function es_extend_lease(lease_id uuid, by interval) returns bigint
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_extend_lease';
comment on function es_extend_lease(uuid, interval) is
$$Makes a lease that has not ended longer, to at most an hour from now. How many events it holds.
Errors: ES005, ES024 the lease has ended, 42501.
Example: select es_extend_lease('01890a5d-ac96-774b-bcce-b302099a8057', by => '1 minute');$$;

create function es_retry_dead_letter(id bigint) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_retry_dead_letter';
comment on function es_retry_dead_letter(bigint) is
$$Takes an event out of the dead letters and gives exactly it once more to where it failed: to the projection's handler now, or to the next consumer of the subscription. A scheduled command is executed again by a runner, with all its attempts. The name of that projection or subscription, or the command's key.
Errors: ES005 there is no such dead letter, 42501 without manage; what the handler raises, and then the dead letter stays.
Example: select es_retry_dead_letter(7);$$;

create function es_drop_dead_letter(id bigint, reason text default null) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_drop_dead_letter';
comment on function es_drop_dead_letter(bigint, text) is
$$Forgets a dead letter: the event will not be processed, or the scheduled command not be executed. reason: a reference of at most 64 bytes without @, such as a ticket's number; it stands in the log of acts for ever and, with who said so, in the server's log. The name of the projection or subscription that it belonged to, or the command's key.
Errors: ES005 there is no such dead letter, or for the reason, 42501 without manage.
Example: select es_drop_dead_letter(7, 'CHG-4711');$$;
