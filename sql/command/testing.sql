-- What is declared, to be compared.
create function es_definitions(category text default null, out kind text, out name text, out definition jsonb) returns setof record
language c stable parallel restricted rows 20 as 'MODULE_PATHNAME', 'eventstream_definitions';
comment on function es_definitions(text) is
$$What is declared in the tenant and decides what events mean and which may be recorded, sorted: folds, upcasters, event types, rules of categories, deciders, invariants, projections and subscriptions, each with the functions that it calls as they are now (source); no ids, oids, positions or times. The same declarations give the same rows in every database: for a code review, and to see where two environments differ. category: those of one category, with projections and subscriptions that take all; event types and upcasters are of none. What belongs to a place is not among them: tenants, grants, closed periods. Only categories that the role may read. Privilege read.
Example: select kind, name, definition from es_definitions('account');$$;
