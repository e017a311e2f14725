-- What the views ask. They run with the rights of whoever reads the view, and check that role themselves.
create function _eventstream.readable_tenant(privilege text) returns bigint
language c stable parallel restricted as 'MODULE_PATHNAME', 'eventstream_readable_tenant';
comment on function _eventstream.readable_tenant(text) is
'Id of the current tenant, where the current role has the privilege there; 42501 otherwise.';

create function _eventstream.administered_tenant() returns bigint
language c stable parallel restricted as 'MODULE_PATHNAME', 'eventstream_administered_tenant';
comment on function _eventstream.administered_tenant() is
'Under which id the acts of the current tenant stand, where the current role has audit there; 42501 otherwise.';

create function _eventstream.readable_categories() returns text[]
language c stable parallel restricted as 'MODULE_PATHNAME', 'eventstream_readable_categories';
comment on function _eventstream.readable_categories() is
'The categories of the current tenant that the current role may read; NULL = all.';

create function _eventstream.horizon_holders(
    out pid int, out since timestamptz, out global_position bigint, out tenant_id bigint
) returns setof record
language c volatile parallel unsafe rows 10 as 'MODULE_PATHNAME', 'eventstream_horizon_holders';
comment on function _eventstream.horizon_holders() is
'The open transactions of this database that have appended, a row for each tenant; NULL: all others.';
