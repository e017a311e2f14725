-- Tenants, grants, and who a role is.
create function es_create_tenant(tenant text, if_not_exists bool default false) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_create_tenant';
comment on function es_create_tenant(text, bool) is
$$Creates a tenant (1 to 255 bytes, no control characters) and returns its name. if_not_exists: one that is there already is left alone, with a NOTICE. Superusers, the owner, and roles with admin on the current tenant, which get admin on the new one.
Example: select es_create_tenant('acme');$$;

create function es_close_tenant(tenant text, reason text default null) returns timestamptz
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_close_tenant';
comment on function es_close_tenant(text, text) is
$$Ends a tenant, for good: from the commit on nothing is recorded in it any more (ES045), by whatever function; all of it can be read as before, and projections and subscriptions finish. Commands that are scheduled in it are unscheduled. Waits until none of its appends is open (55P03 after eventstream.gate_timeout). reason: a reference of at most 64 bytes without @, kept for ever. Returns when it was closed; again for one that is closed, with a NOTICE. Needs admin there. The tenant default is never closed.
Example: select es_close_tenant('acme', 'CHG-4711');$$;

create function es_rename_tenant(tenant text, new_name text) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_rename_tenant';
comment on function es_rename_tenant(text, text) is
$$Gives a tenant another name (1 to 255 bytes, no control characters, not *) and returns it. Nothing that is recorded or granted changes: hashes cover the tenant's uuid. The old name is unknown from the commit on: settings eventstream.tenant that have it are yours to change; those of roles and databases are named in a NOTICE. Waits until none of its appends is open (55P03 after eventstream.gate_timeout). Needs admin there. The tenant default keeps its name.
Example: select es_rename_tenant('acme', 'acme-ag');$$;

create function es_use_tenant(tenant text) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_use_tenant';
comment on function es_use_tenant(text) is
$$Uses this tenant until the end of the transaction (sets eventstream.tenant locally). A role may use a tenant only where es_grant allowed it (42501).
Example: select es_use_tenant('default');$$;

create function es_grant(role name, privilege text, tenant text default null, category text default null) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_grant';
comment on function es_grant(name, text, text, text) is
$$Grants a privilege to a role (or to public): read, append, command, consume, manage, upkeep, reveal, audit or admin. tenant NULL = the current one, '*' = every one, for a role that needs a token (es_require_token), by superusers and the owner; category NULL = all (read, append, command, consume, manage and reveal can be narrowed to one). Needs admin. Returns what was granted. A ticket is given by the transaction's metadata, which the act keeps: set local eventstream.metadata = '{"actor": "cleo", "ticket": "CHG-4711"}'.
Example: select es_grant('app', 'append', category => 'account');$$;

create function es_revoke(role name, privilege text, tenant text default null, category text default null) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_revoke';
comment on function es_revoke(name, text, text, text) is
$$Takes back what es_grant gave with the same arguments; open sessions notice at once. Needs admin. A ticket is given as with es_grant, by eventstream.metadata. ES005 where there was no such grant.
Example: select es_revoke('app', 'append', category => 'account');$$;

create function es_use_token(token text) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_use_token';
comment on function es_use_token(text) is
$$Has the rest of the transaction work in the tenant that the token names, as the person whom it names (sub becomes the actor), with what it leaves of the role's rights; returns the tenant. The token is a compact JWS, signed with Ed25519 by a key that es_add_token_key registered for that tenant: header {"alg": "EdDSA", "kid": …, "typ": "eventstream+jwt"}; members iss, aud (log_id/incarnation of es_log_info()), exp, iat, jti, tenant, sub, and privileges and categories, which narrow. Bind it as a parameter. Undone with a savepoint; over with the transaction.
Errors: ES005 where it stands in the statement's text, ES008 not preloaded, ES043 refused (the server's log says why), ES044 for a token of a second tenant.
Example: select es_use_token($1);$$;

create function es_require_token(role name, required bool default true) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_require_token';
comment on function es_require_token(name, bool) is
$$Has every transaction need a token (es_use_token) in which the session's user, the role of SET ROLE or the effective role is this one: its tenant is the token's, and eventstream.tenant and es_use_tenant choose nothing. The role must be one that can leave nothing behind for who comes next: without TEMP and CREATE, objects of its own, and membership in roles that need no token (ES005). track_activities is set off for it. required => false takes that back. Superusers and the owner.
Example: select es_require_token('web');$$;

create function es_add_token_key(kid text, public_key bytea, tenant text, issuer text) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_add_token_key';
comment on function es_add_token_key(text, bytea, text, text) is
$$Registers a public key of Ed25519 (32 bytes) by which tokens of this issuer are verified that name the tenant; tenant NULL = the current one. Needs admin there. Returns kid. ES005 where the tenant has a key of that kid, or it is no key.
Example: select es_add_token_key('2026-01', '\xb62d3b729b327c3c71ea24631a6a09e71c2669676904cb8a7098e1b8da983eb0', 'default', 'https://id.example.org');$$;

create function es_revoke_token_key(kid text, tenant text default null) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_revoke_token_key';
comment on function es_revoke_token_key(text, text) is
$$Takes a key back that es_add_token_key registered: its tokens count no more, those in use with the next call. tenant NULL = the current one. Needs admin there. Returns kid. ES005 where there is no such key.
Example: select es_revoke_token_key('2026-01');$$;

create function es_rotate_page_key() returns timestamptz
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_rotate_page_key';
comment on function es_rotate_page_key() is
$$Changes the key that seals the current tenant's pages of es_query, and returns when. Pages of the key before still serve, those of the one before that are ES032. Needs admin; the act is kept, the key is not.
Example: select es_rotate_page_key();$$;

-- Who a role is. Where the log is at home its oid says it: a role that was renamed is the same, one made again under its name is another. In a copy oids mean
-- nothing, and names count until es_activate binds them.
create function _eventstream.is_home() returns bool
language c stable parallel restricted as 'MODULE_PATHNAME', 'eventstream_is_home';
comment on function _eventstream.is_home() is
'Whether this database is where its log was made, or was made its home by es_activate: roles are their oids here.';

create function _eventstream.role_of(named text, bound oid, by_oid bool) returns oid
language sql stable parallel safe
return case when bound is null then null::oid when by_oid or bound = 0 then bound
            else pg_catalog.to_regrole(pg_catalog.quote_ident(named))::oid end;
comment on function _eventstream.role_of(text, oid, bool) is
'The role that a grant or a registration is of: by_oid as is_home() says. NULL where it is gone; an oid may be gone, too.';

create function _eventstream.token_role_faults(role_oid oid, by_oid bool) returns table (what text, statement text)
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set quote_all_identifiers = off
set transform_null_equals = off
set array_nulls = on
as $$
    with it as (
        select r.oid, r.rolname, r.rolsuper, r.rolcreaterole, r.rolcreatedb, r.rolreplication, r.rolbypassrls, d.oid as database_oid, d.datname
        from pg_roles r, pg_database d
        where r.oid = role_oid and d.datname = current_database()
    ), faults (place, what, statement) as (
        select 1, 'is a superuser', format('alter role %I nosuperuser', it.rolname) from it where it.rolsuper
        union all
        select 2, 'has ' || upper(a.attribute), format('alter role %I no%s', it.rolname, a.attribute) from it
        cross join lateral (values ('createrole', it.rolcreaterole), ('createdb', it.rolcreatedb), ('replication', it.rolreplication),
                                   ('bypassrls', it.rolbypassrls)) a (attribute, has_it)
        where a.has_it
        union all
        select 3, format('has %s on database %I', upper(p.privilege), it.datname),
               format('revoke %s on database %I from public, %I', p.privilege, it.datname, it.rolname)
        from it, unnest('{temp,create}'::text[]) p (privilege)
        where has_database_privilege(it.oid, it.database_oid, p.privilege)
        union all
        select 4, format('has CREATE on schema %I', n.nspname), format('revoke create on schema %I from public, %I', n.nspname, it.rolname)
        from it, pg_namespace n
        where n.nspname !~ '^pg_(toast_)?temp_' and has_schema_privilege(it.oid, n.oid, 'create')
        union all
        select 5, format('has CREATE on tablespace %I', t.spcname), format('revoke create on tablespace %I from public, %I', t.spcname, it.rolname)
        from it, pg_tablespace t where has_tablespace_privilege(it.oid, t.oid, 'create')
        union all
        select 6, 'owns ' || case when s.dbid in (0, it.database_oid) then pg_describe_object(s.classid, s.objid, s.objsubid)
                                  else format('objects in database %I', d.datname) end,
               case when s.dbid in (0, it.database_oid) then '' else format(E'-- in a session of database %I:\n', d.datname) end
               || format('reassign owned by %I to current_user', it.rolname)
        from it join pg_shdepend s on s.refclassid = 'pg_authid'::regclass and s.refobjid = it.oid and s.deptype = 'o'
        left join pg_database d on d.oid = s.dbid
        where s.classid <> 'pg_default_acl'::regclass
        union all
        select 7, format('is a member of %I, which needs no token', g.rolname), format('revoke %I from %I', g.rolname, it.rolname)
        from it join pg_auth_members m on m.member = it.oid join pg_roles g on g.oid = m.roleid
        where not exists (
            select from _eventstream.grants n
            where n.tenant_id = 0 and n.privilege = 'token' and _eventstream.role_of(n.role, n.role_oid, by_oid) = g.oid
        )
        union all
        select 8, format('may %s parameter %I', case p.privilege when 'set' then 'SET' else 'ALTER SYSTEM SET' end, a.parname),
               format('revoke %s on parameter %I from public, %I', p.privilege, a.parname, it.rolname)
        from it, pg_parameter_acl a, unnest(array['set', 'alter system']) p (privilege)
        where has_parameter_privilege(it.oid, a.parname, p.privilege)
    )
    select f.what, f.statement
    from (select distinct f.place, f.what, f.statement from faults f
          where f.place = 1 or not exists (select from faults s where s.place = 1) order by 1, 2 limit 10) f
$$;
comment on function _eventstream.token_role_faults(oid, bool) is
'What a role has, ten at most, with which it could leave something behind for the next transaction, or get around its token, and the statement that takes it away: part of es_require_token and of health. by_oid as is_home() says.';

create function _eventstream.show_activities(role text, shown bool) returns void
language plpgsql volatile parallel unsafe
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set quote_all_identifiers = off
set transform_null_equals = off
set array_nulls = on
set plpgsql.extra_errors = none
as $$
#variable_conflict error
begin
    execute format(case when shown then 'alter role %I reset track_activities' else 'alter role %I set track_activities = off' end, role);
end
$$;
comment on function _eventstream.show_activities(text, bool) is
'Part of es_require_token: whether pg_stat_activity shows what sessions of the role do, to others of the same role.';

create function _eventstream.see_roles(begins bool) returns bool
language plpgsql volatile parallel unsafe
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set quote_all_identifiers = off
set transform_null_equals = off
set array_nulls = on
set plpgsql.extra_errors = none
as $$
#variable_conflict error
declare
    registrations text;
    seen oid := 0;
    named text;
    changed bigint;
    all_changed bigint := 0;
begin
    -- What is there before the log has begun is being restored: whether it is at home is not known yet, and what is noted is an act, which would begin it,
    -- unless this transaction begins it anyhow.
    if not _eventstream.is_home() or not (begins or exists (select from _eventstream.first_appends)) then
        return false;
    end if;
    if exists (select from _eventstream.grants g join pg_roles r on r.oid = g.role_oid where g.role <> r.rolname) then
        -- One that was granted again under a newer name before the old one was seen to have changed.
        delete from _eventstream.grants g
        using pg_roles r, _eventstream.grants o
        where r.oid = g.role_oid and g.role <> r.rolname and o.role_oid = g.role_oid and (o.role = r.rolname or o.ctid < g.ctid)
          and o.privilege = g.privilege and o.tenant_id = g.tenant_id and o.category is not distinct from g.category;
        update _eventstream.grants g set role = r.rolname from pg_roles r where r.oid = g.role_oid and g.role <> r.rolname;
        get diagnostics all_changed = row_count;
    end if;
    if exists (select from _eventstream.grants g where g.role_oid <> 0 and not exists (select from pg_roles r where r.oid = g.role_oid)) then
        -- Of several that had one name and are gone, the one that was seen to be gone first stands for all; where all are seen now, one of them.
        delete from _eventstream.grants g
        using _eventstream.grants o
        where g.role_oid <> 0 and not exists (select from pg_roles r where r.oid = g.role_oid) and o.role = g.role
          and (o.role_oid is null or o.ctid < g.ctid and o.role_oid <> 0 and not exists (select from pg_roles r where r.oid = o.role_oid))
          and o.privilege = g.privilege and o.tenant_id = g.tenant_id and o.category is not distinct from g.category;
        get diagnostics changed = row_count;
        all_changed := all_changed + changed;
        update _eventstream.grants g set role_oid = null
        where g.role_oid <> 0 and not exists (select from pg_roles r where r.oid = g.role_oid);
        get diagnostics changed = row_count;
        all_changed := all_changed + changed;
    end if;
    foreach registrations in array '{folds,upcasters,deciders,invariants,projections}'::text[] loop
        execute format('update _eventstream.%I x set registrant = r.rolname from pg_roles r '
                       'where r.oid = x.registrant_oid and x.registrant <> r.rolname', registrations);
        get diagnostics changed = row_count;
        all_changed := all_changed + changed;
        execute format('update _eventstream.%I x set registrant_oid = null '
                       'where x.registrant_oid is not null and not exists (select from pg_roles r where r.oid = x.registrant_oid)', registrations);
        get diagnostics changed = row_count;
        all_changed := all_changed + changed;
    end loop;
    -- Of commands that may still run, however many, by one role after the other.
    loop
        select min(s.registrant_oid) into seen from _eventstream.scheduled_commands s where s.finished_at is null and s.registrant_oid > seen;
        exit when seen is null;
        select r.rolname into named from pg_roles r where r.oid = seen;
        update _eventstream.scheduled_commands s set registrant = coalesce(named, s.registrant), registrant_oid = case when named is not null then seen end
        where s.finished_at is null and s.registrant_oid = seen and s.registrant is distinct from named;
    end loop;
    return all_changed > 0;
end
$$;
comment on function _eventstream.see_roles(bool) is
'Where the log is at home: notes what roles are called by now, and which are gone for good, so that no role of their name takes their place, here or in a copy. begins: acts of this transaction will begin the log. Whether anything had changed.';

create function _eventstream.bind_roles() returns void
language plpgsql volatile parallel unsafe
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set quote_all_identifiers = off
set transform_null_equals = off
set array_nulls = on
set plpgsql.extra_errors = none
as $$
#variable_conflict error
declare
    registrations text;
begin
    delete from _eventstream.grants g
    using _eventstream.grants o
    where g.ctid > o.ctid and g.role = o.role and g.role_oid is not null and o.role_oid is not null
      and o.privilege = g.privilege and o.tenant_id = g.tenant_id and o.category is not distinct from g.category;
    delete from _eventstream.grants g
    using _eventstream.grants o
    where g.role_oid is not null and _eventstream.role_of(g.role, g.role_oid, false) is null and o.role_oid is null and o.role = g.role
      and o.privilege = g.privilege and o.tenant_id = g.tenant_id and o.category is not distinct from g.category;
    update _eventstream.grants set role_oid = _eventstream.role_of(role, role_oid, false) where role_oid is not null;
    foreach registrations in array '{folds,upcasters,deciders,invariants,projections}'::text[] loop
        execute format('update _eventstream.%I set registrant_oid = _eventstream.role_of(registrant, registrant_oid, false) '
                       'where registrant_oid is not null', registrations);
    end loop;
    update _eventstream.scheduled_commands set registrant_oid = _eventstream.role_of(registrant, registrant_oid, false)
    where finished_at is null and registrant_oid is not null;
end
$$;
comment on function _eventstream.bind_roles() is
'Part of es_activate: from now on the roles are those that have the names now.';
