-- What may be recorded: event types. Only src/command writes them.
create table _eventstream.event_types (
    tenant_id bigint not null,
    event_type text collate "C" not null,
    schema_version int not null,
    json_schema jsonb,
    description text collate "C",
    example jsonb,
    appendable bool not null,
    created_at timestamptz not null default pg_catalog.clock_timestamp(),
    constraint event_types_pkey primary key (tenant_id, event_type, schema_version)
);
comment on table _eventstream.event_types is
'The schema versions of event types that are declared: what a payload of each must look like, and whether it may still be appended.';
comment on column _eventstream.event_types.json_schema is 'JSON Schema 2020-12; NULL = any payload';
comment on column _eventstream.event_types.example is 'a payload that satisfies the schema';
comment on column _eventstream.event_types.appendable is 'false: what is stored stays readable, and nothing more is appended';
comment on index _eventstream.event_types_pkey is 'a schema version of an event type';
