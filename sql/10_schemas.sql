-- The two schemas: `eventstream` is what people read, `_eventstream` is what only the owner touches.
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
