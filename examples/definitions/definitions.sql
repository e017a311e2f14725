-- What is declared, in rows that are the same wherever the same is declared: to review, and to see what differs
--
-- Needs a database in which `create extension eventstream` has been run and this example has not.
-- Paste it into psql piece by piece, or run the whole:  psql -X -a -f examples/definitions/definitions.sql
\set ON_ERROR_STOP on
\pset footer off

-- == 1. What is declared of a category ==
select es_register_fold('parcel', 'parcel', initial_state => '{"weight": 0}', rules => '{"on": {"Packed": [{"add": {"/weight": "/weight"}}]}}') as fold;
select es_alter_category('parcel', '{"event_types": "declared", "expected_version": "required"}') as category;
select kind, name, definition from es_definitions('parcel');

-- == 2. As it was reviewed; then somebody changes a rule ==
create schema definitions;
create table definitions.reviewed as select * from es_definitions('parcel');
select es_alter_category('parcel', '{"expected_version": "optional"}') as category;

-- == 3. What differs: the rows that are not as they were ==
select kind, name, d.definition -> 'settings' as now, r.definition -> 'settings' as reviewed
from es_definitions('parcel') d full join definitions.reviewed r using (kind, name)
where d.definition is distinct from r.definition;
