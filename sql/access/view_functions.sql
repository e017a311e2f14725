-- What the views ask of the role that reads them: they run with its rights, and check it themselves.
create function _eventstream.readable_tenant(privilege text) returns bigint
language c stable parallel restricted as 'MODULE_PATHNAME', 'eventstream_readable_tenant';
comment on function _eventstream.readable_tenant(text) is
'Id of the current tenant, where the current role has the privilege there, or one of several ("read or audit"); 42501 otherwise.';

create function _eventstream.administered_tenant() returns bigint
language c stable parallel restricted as 'MODULE_PATHNAME', 'eventstream_administered_tenant';
comment on function _eventstream.administered_tenant() is
'Under which id the acts of the current tenant stand, where the current role has audit there; 42501 otherwise.';

create function _eventstream.readable_categories() returns text[]
language c stable parallel restricted as 'MODULE_PATHNAME', 'eventstream_readable_categories';
comment on function _eventstream.readable_categories() is
'The categories of the current tenant that the current role may read; NULL = all.';
