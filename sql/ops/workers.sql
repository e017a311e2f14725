-- The end of the script tells the launcher that there is something to do in this database.
create function _eventstream.announce() returns void
language c volatile as 'MODULE_PATHNAME', 'eventstream_announce';
comment on function _eventstream.announce() is
'Makes the launcher start a scheduler for this database, once this transaction has committed.';
select _eventstream.announce();
