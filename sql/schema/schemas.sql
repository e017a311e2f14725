-- The two schemas: `eventstream` is what people read, `_eventstream` is what only the owner touches.
--
-- PostgreSQL runs this script with the extension's schema on the path, and takes the function or operator that fits best, whatever schema it is
-- in: who may create there could have planted one, and would run as the superuser who installs. So names mean pg_catalog's.
set local search_path = pg_catalog, pg_temp;

do $$
begin
    if pg_catalog.getdatabaseencoding() <> 'UTF8' then
        raise exception using
            errcode = 'feature_not_supported',
            message = pg_catalog.format('eventstream needs a database with encoding UTF8, this one has %s',
                                        pg_catalog.getdatabaseencoding()),
            detail = 'Chain hashes cover the UTF-8 text of every event.',
            hint = 'create database ... encoding ''UTF8'' template template0';
    end if;
end
$$;

create schema eventstream;
comment on schema eventstream is 'eventstream: the views and types that people may read';

create schema _eventstream;
comment on schema _eventstream is 'eventstream: tables and internal functions; only the owner has any privilege here';

create schema eventstream_pinned;
comment on schema eventstream_pinned is
'eventstream: always empty; while folds and handlers run it ends their search path, so that no plan is used that the session has made under settings of its own';

-- What is made without a schema from here on is made in one of ours, where nobody else can have planted anything. access/privileges.sql moves the es_* functions to
-- the extension's schema.
set local search_path = eventstream, pg_temp;
