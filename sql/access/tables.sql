-- Tenants and grants. Only src/access writes them, and sql/access/functions.sql, which notes what roles are called by now.
create sequence _eventstream.tenant_ids as bigint start 2;
comment on sequence _eventstream.tenant_ids is 'ids of tenants; 1 is the tenant default';

create table _eventstream.tenants (
    id bigint not null,
    name text collate "C" not null,
    created_at timestamptz not null default pg_catalog.clock_timestamp(),
    uuid uuid,
    closed_at timestamptz,
    closed_by text collate "C",
    close_reason text collate "C",
    constraint tenants_pkey primary key (id),
    constraint tenants_name_key unique (name),
    constraint tenants_uuid_key unique (uuid),
    constraint tenants_uuid_check check ((uuid is null) = (id = 1)),
    constraint tenants_closed check ((closed_at is null) = (closed_by is null) and (closed_at is null) = (close_reason is null) and (closed_at is null or id <> 1))
);
comment on table _eventstream.tenants is 'Tenants: walls between streams. What outlives this database goes by their uuids (tenant_uuids).';
comment on column _eventstream.tenants.uuid is 'random; NULL for the tenant default, whose row each CREATE EXTENSION makes and no dump has';
comment on index _eventstream.tenants_pkey is 'a tenant by id';
comment on index _eventstream.tenants_name_key is 'a tenant by name';
comment on index _eventstream.tenants_uuid_key is 'no two tenants have one uuid';
comment on constraint tenants_uuid_check on _eventstream.tenants is 'the uuid of the tenant default is the log''s id';
comment on column _eventstream.tenants.closed_at is 'since when nothing is recorded in it any more; NULL: it is open';
comment on column _eventstream.tenants.close_reason is 'a reference, as es_close_tenant was given it';
comment on constraint tenants_closed on _eventstream.tenants is 'who closes it says why; the tenant default is never closed';
insert into _eventstream.tenants (id, name) values (1, 'default');

create function _eventstream.tenant_uuids() returns table (id bigint, name text, uuid uuid)
language sql stable parallel safe
begin atomic
    select t.id, t.name, coalesce(t.uuid, l.log_id)
    from _eventstream.tenants t
    cross join _eventstream.this_log() l;
end;
comment on function _eventstream.tenant_uuids() is
'What chain hashes cover of a tenant: its uuid, which never changes. That of the tenant default is the log''s id: the same in a copy, another in another log.';

create table _eventstream.grants (
    role text collate "C" not null,
    role_oid oid,
    privilege text collate "C" not null,
    tenant_id bigint not null,
    category text collate "C",
    granted_by text collate "C" not null,
    granted_at timestamptz not null default pg_catalog.clock_timestamp(),
    constraint grants_privilege_check check (privilege in ('read', 'append', 'command', 'consume', 'manage', 'upkeep', 'reveal', 'audit', 'admin') or privilege = 'token' and tenant_id = 0)
);
comment on table _eventstream.grants is
'What es_grant allowed, and (privilege token) of which roles es_require_token demands a token. Where the log is at home a role is its oid; in a copy, where oids are others, its name, until es_activate binds it. category NULL = every category.';
comment on column _eventstream.grants.role is 'its name when it was last seen, or public';
comment on column _eventstream.grants.tenant_id is '0 = every tenant, for a role that needs a token';
comment on column _eventstream.grants.role_oid is '0 = public; NULL = the role is gone, and the grant with it, whoever has the name now';
create unique index grants_key on _eventstream.grants (role, role_oid, privilege, tenant_id, category)
    nulls not distinct where role_oid is not null;
comment on index _eventstream.grants_key is 'one row a role, privilege, tenant and category';
create index grants_tenant_idx on _eventstream.grants (tenant_id);
comment on index _eventstream.grants_tenant_idx is 'the grants of a tenant';
comment on constraint grants_privilege_check on _eventstream.grants is 'the nine privileges, and that a token is needed';

create table _eventstream.token_keys (
    tenant_id bigint not null,
    kid text collate "C" not null,
    public_key bytea not null,
    issuer text collate "C" not null,
    added_by text collate "C" not null,
    added_at timestamptz not null default pg_catalog.clock_timestamp(),
    constraint token_keys_pkey primary key (tenant_id, kid),
    constraint token_keys_public_key_check check (pg_catalog.octet_length(public_key) = 32)
);
comment on table _eventstream.token_keys is
'The public keys by which es_use_token verifies the tokens of a tenant: none of them speaks for another.';
comment on column _eventstream.token_keys.kid is 'what a token''s header calls the key';
comment on column _eventstream.token_keys.issuer is 'what a token must have as iss';
comment on index _eventstream.token_keys_pkey is 'a key by tenant and name';
comment on constraint token_keys_public_key_check on _eventstream.token_keys is '32 bytes, as Ed25519 has them';

create table _eventstream.page_keys (
    tenant_id bigint not null,
    key bytea not null,
    previous bytea,
    changed_at timestamptz not null default pg_catalog.clock_timestamp(),
    constraint page_keys_pkey primary key (tenant_id),
    constraint page_keys_key_check check (pg_catalog.octet_length(key) = 32 and pg_catalog.octet_length(previous) = 32)
);
comment on table _eventstream.page_keys is
'The keys that seal the pages of es_query: row 0 is the database''s, from which a tenant''s comes until it is changed. No dump carries them: each CREATE EXTENSION makes its own.';
comment on column _eventstream.page_keys.previous is 'the tenant''s key before: its pages still serve';
comment on index _eventstream.page_keys_pkey is 'one row a tenant';
comment on constraint page_keys_key_check on _eventstream.page_keys is '32 bytes, as SHA-256 gives them';
-- Members of pg_read_all_data pass privileges, and not row security; statistics would hold values.
alter table _eventstream.page_keys enable row level security;
alter table _eventstream.page_keys alter column key set statistics 0, alter column previous set statistics 0;
insert into _eventstream.page_keys (tenant_id, key)
select 0, pg_catalog.sha256(pg_catalog.string_agg(pg_catalog.uuid_send(pg_catalog.gen_random_uuid()), ''))
from pg_catalog.generate_series(1, 4);
