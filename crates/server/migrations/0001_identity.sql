-- Who is who: which role a request has. A claim is never the name of a role; a table says which it leads to.
create schema eventstream_server;
revoke all on schema eventstream_server from public;
comment on schema eventstream_server is 'The companion program''s own: its versions, and who may use it as which role. Made and upgraded by `eventstream migrate`.';

create table eventstream_server.versions (
    version int primary key,
    name text not null,
    applied_at timestamptz not null default pg_catalog.now()
);
comment on table eventstream_server.versions is 'The steps that `eventstream migrate` has taken.';

create table eventstream_server.identities (
    id bigint generated always as identity primary key,
    issuer text not null check (pg_catalog.octet_length(issuer) between 1 and 1024),
    claim text check (pg_catalog.octet_length(claim) between 1 and 255),
    value text check (pg_catalog.octet_length(value) between 1 and 1024),
    role name not null,
    check ((claim is null) = (value is null)),
    unique nulls not distinct (issuer, claim, value)
);
comment on table eventstream_server.identities is 'Which role a bearer of a token has: by its issuer, and by a claim where one is named. The first that fits counts, those that name a claim before those that do not.';
comment on column eventstream_server.identities.issuer is 'the token''s iss';
comment on column eventstream_server.identities.claim is 'a member of the token, e.g. groups; an array fits where it holds the value. NULL: any token of the issuer';
comment on column eventstream_server.identities.value is 'what the claim must be, or hold';
comment on column eventstream_server.identities.role is 'the role that its requests have; one that es_require_token covers';

create function eventstream_server.role_of(issuer text, claims jsonb) returns text
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    found name;
    covered bool;
begin
    select i.role into found from eventstream_server.identities i
    where i.issuer = role_of.issuer
      and (i.claim is null or claims -> i.claim = to_jsonb(i.value)
           or jsonb_typeof(claims -> i.claim) = 'array' and claims -> i.claim @> to_jsonb(i.value))
    order by i.claim is null, i.id limit 1;
    if found is null then
        raise exception using errcode = 'ES043', message = 'the token was refused',
            hint = 'An admin of the server can add its issuer: insert into eventstream_server.identities (issuer, role) values (…).';
    end if;
    return found;
end $$;
comment on function eventstream_server.role_of(text, jsonb) is 'The role of a bearer of a token: it is asked before the token is verified, which es_use_token does in the same transaction. ES043 where no row of eventstream_server.identities fits.';
revoke all on function eventstream_server.role_of(text, jsonb) from public;

do $$
begin
    if pg_catalog.to_regrole('eventstream_web') is null then
        create role eventstream_web login noinherit;
    end if;
end $$;
grant usage on schema eventstream_server to eventstream_web;
grant select on eventstream_server.versions to eventstream_web;
grant execute on function eventstream_server.role_of(text, jsonb) to eventstream_web;
