-- Tenants and grants.
create role clerk;
create role auditor;
create role app_admin;

-- Without a grant, nothing.
set role clerk;
select es_append('invoice-1', 'Issued', '{}');
\echo :SQLSTATE
select es_read('invoice-1');
select count(*) from eventstream.events;
\echo :SQLSTATE
select es_verify();
select * from _eventstream.events;
reset role;

-- As the hint says.
select es_grant('clerk', 'append', tenant => 'default', category => 'invoice');
select es_grant('clerk', 'read');
select es_grant('auditor', 'audit');
set role clerk;
select es_append('invoice-1', 'Issued', '{}');
select es_append('account-1000', 'AccountCredited', '{}');
select version, event_type from es_read('invoice-1');
select * from es_verify_stream('invoice-1');
select es_grant('clerk', 'admin');
reset role;
set role auditor;
select * from es_verify_stream('invoice-1');
select stream, version, event_type, recorded_by from eventstream.audit where stream = 'invoice-1';
select es_read('invoice-1');
select role, privilege, tenant, category, role_exists, granted_by from eventstream.grants order by role, privilege;
reset role;

-- A second tenant: who may use both must say which.
select es_create_tenant('acme');
select es_create_tenant('acme');
\echo :SQLSTATE
select es_append('invoice-1', 'Issued', '{}');
\echo :SQLSTATE
set eventstream.tenant = 'acme';
select es_append('invoice-1', 'Issued', '{"of": "acme"}', 0);
select stream, version, tenant from eventstream.streams;
set eventstream.tenant = 'acne';
select es_read('invoice-1');
\echo :SQLSTATE
reset eventstream.tenant;

-- A role's only tenant needs no choice, and a choice gives nothing.
set role clerk;
select es_stream_version('invoice-1');
set eventstream.tenant = 'acme';
select es_stream_version('invoice-1');
\echo :SQLSTATE
reset eventstream.tenant;
reset role;

-- es_use_tenant lasts until the end of the transaction.
begin;
select es_use_tenant('acme');
select version, payload from es_read('invoice-1');
commit;
select es_read('invoice-1');
\echo :SQLSTATE

-- An admin of one tenant.
select es_grant('app_admin', 'admin', tenant => 'acme');
set role app_admin;
select es_grant('clerk', 'read', tenant => 'acme');
select es_grant('clerk', 'read', tenant => 'default');
reset role;
set role clerk;
select es_stream_version('invoice-1');
\echo :SQLSTATE
reset role;
select es_revoke('clerk', 'read', tenant => 'acme');
set role clerk;
select es_stream_version('invoice-1');
reset role;

-- What cannot be granted.
select es_grant('clerk', 'write', tenant => 'acme');
select es_grant('clerk', 'audit', tenant => 'acme', category => 'invoice');
select es_grant('nobody_here', 'read', tenant => 'acme');
select es_grant('clerk', 'read', tenant => 'none');
select es_revoke('clerk', 'append', tenant => 'acme');
select es_create_tenant('');
select es_create_tenant(E'two\nlines');

-- Put back.
set eventstream.tenant = 'default';
select es_revoke('clerk', 'read'), es_revoke('clerk', 'append', category => 'invoice'), es_revoke('auditor', 'audit');
select es_revoke('app_admin', 'admin', tenant => 'acme');
drop role clerk, auditor, app_admin;
