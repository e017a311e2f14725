-- What the views ask of the role that reads them: they run with its rights, and check it themselves. A view asks once: tenant and categories that were
-- found at two moments may be of two tenants, or of two roles, where a statement sets another one in between. What else it asks names that tenant.
create function _eventstream.readable(privilege text, out tenant_id bigint, out categories text[], out administered_id bigint, out tenant text) returns record
language c stable parallel restricted as 'MODULE_PATHNAME', 'eventstream_readable';
comment on function _eventstream.readable(text) is
'The current tenant, where the current role has the privilege there, or one of several ("read or audit"); 42501 otherwise. categories: those that the privilege covers; NULL = all. administered_id: under which id the acts of the tenant stand, for the privilege audit.';
