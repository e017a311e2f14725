-- What pg_dump takes along although it belongs to the extension.
select pg_catalog.pg_extension_config_dump('_eventstream.log_identities', '');
select pg_catalog.pg_extension_config_dump('_eventstream.tenants', 'where id <> 1');
select pg_catalog.pg_extension_config_dump('_eventstream.grants', '');
select pg_catalog.pg_extension_config_dump('_eventstream.streams', '');
select pg_catalog.pg_extension_config_dump('_eventstream.stream_segments', '');
select pg_catalog.pg_extension_config_dump('_eventstream.folds', '');
select pg_catalog.pg_extension_config_dump('_eventstream.upcasters', '');
select pg_catalog.pg_extension_config_dump('_eventstream.snapshots', '');
select pg_catalog.pg_extension_config_dump('_eventstream.snapshot_progress', '');
select pg_catalog.pg_extension_config_dump('_eventstream.events_1', '');
select pg_catalog.pg_extension_config_dump('_eventstream.tenant_ids', '');
select pg_catalog.pg_extension_config_dump('_eventstream.stream_ids', '');
select pg_catalog.pg_extension_config_dump('_eventstream.positions', '');
select pg_catalog.pg_extension_config_dump('_eventstream.recorded_floor', '');
