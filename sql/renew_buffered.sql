-- Renewals in shared memory: what of a lease is judged and shown by them. The rows' deadlines are set back, as time would have it.
\set VERBOSITY terse
CREATE FUNCTION t.set_back(lease uuid) RETURNS void LANGUAGE sql AS $$
UPDATE _garbagetruck.gt_lease SET deadline = gt_clock() - interval '1 minute', check_at = gt_clock() - interval '1 minute' WHERE id = lease $$;

SELECT gt_handler_create('buffered', 'queue');
SELECT gt_lease_create('buffered 1', duration => '1 hour', cleanup => 'buffered', exclusive => true, request_key => 'buffered', service_id => 's') AS a \gset
SELECT gt_lease_create('buffered 2', parent => :'a', cleanup => 'buffered') AS child \gset
SELECT deadline AS before, xmin AS version FROM _garbagetruck.gt_lease WHERE id = :'a' \gset
SELECT gt_renew(:'a') > :'before' AS later;
SELECT gt_renew(:'a') AS until \gset
SELECT deadline = :'before' AND xmin = :'version' AS not_written, renewals FROM _garbagetruck.gt_lease WHERE id = :'a';

-- not a byte is written, by one or by a thousand
CREATE TABLE t.thousand AS SELECT array_agg(l) AS ids FROM unnest(gt_lease_create_many(ARRAY(SELECT 'thousand ' || n FROM generate_series(1, 1000) n), duration => '1 hour')) l;
SELECT count(*) FROM t.thousand, gt_renew_many(ids) WHERE status = 'renewed';
CREATE FUNCTION t.wal_of(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE plan jsonb;
BEGIN
	EXECUTE 'EXPLAIN (ANALYZE, WAL, BUFFERS, FORMAT JSON) ' || query INTO plan;
	RETURN format('%s records, %s bytes, %s pages made dirty', plan #>> '{0,Plan,WAL Records}', plan #>> '{0,Plan,WAL Bytes}', plan #>> '{0,Plan,Shared Dirtied Blocks}');
END $$;
BEGIN;
SELECT t.wal_of(format('SELECT gt_renew(%L) FROM generate_series(1, 1000)', :'a'));
SELECT t.wal_of('SELECT count(*) FROM t.thousand, gt_renew_many(ids)');
SELECT pg_current_xact_id_if_assigned() IS NULL AS no_xid;
COMMIT;
SELECT DISTINCT renewals FROM gt_leases WHERE object_id LIKE 'thousand %';

-- what the row says is over counts no more, to nobody
SELECT t.set_back(:'a');
SELECT gt_renew(:'a') AS until \gset
SELECT state, expires_at = :'until' AS until, renewals FROM gt_lease_get(:'a');
SELECT object_id, state, expires_at = :'until' AS until FROM gt_leases WHERE object_id LIKE 'buffered%' ORDER BY 1;
SELECT object_id, state, expires_at = :'until' AS until FROM gt_lease_list(service_id => 's') ORDER BY 1;
SELECT minute = date_trunc('minute', :'until'::timestamptz) AS until, handler, leases FROM gt_forecast('2 hours') WHERE handler = 'buffered';
SELECT gt_fence_check('buffered 1', 'custom', gt_fence(:'a'));
SELECT t.fails('SELECT gt_lease_create(''buffered 1'', exclusive => true)') LIKE 'GT005%' AS held;
SELECT sqlstate, retry_after > interval '59 minutes' AS an_hour FROM gt_lease_grant_each('[{"object_id": "buffered 1", "exclusive": true}]');
SELECT lease_id = :'a' AS the_same, created, expires_at = :'until' AS until FROM gt_lease_grant('buffered 1', exclusive => true, request_key => 'buffered', service_id => 's');
SELECT gt_lease_create('buffered 3', parent => :'a') IS NOT NULL AS another_child;
CALL gt_reclaim() \g /dev/null
SELECT state, renewals FROM gt_lease_get(:'a');
SELECT deadline = :'until' AND check_at = :'until' AS looked_at_then FROM _garbagetruck.gt_lease WHERE id = :'a';
SELECT count(*) FROM gt_garbage WHERE handler = 'buffered';

-- a renewal that has to be written when the worker is about to write the row does it for both
SELECT gt_lease_create('buffered 7', duration => '1 hour') AS old \gset
UPDATE _garbagetruck.gt_lease SET run = 1, check_at = gt_clock() - interval '1 minute' WHERE id = :'old';
SELECT gt_renew(:'old') AS until \gset
SELECT deadline = :'until' AND check_at = :'until' AS looked_at_then FROM _garbagetruck.gt_lease WHERE id = :'old';

-- a rollback takes nothing back, but what had to be written
SELECT gt_renew(:'a') AS until \gset
BEGIN;
SAVEPOINT s;
SELECT gt_renew(:'a') AS until \gset
ROLLBACK TO s;
SELECT gt_renew(:'a', '2 hours') IS NOT NULL AS longer;
ROLLBACK;
SELECT expires_at = :'until' AS until, duration FROM gt_lease_get(:'a');
-- nor does an ending that is undone
BEGIN;
SELECT gt_release(:'a');
ROLLBACK;
SELECT expires_at = :'until' AS until FROM gt_lease_get(:'a');
BEGIN;
SAVEPOINT s;
SELECT gt_release(:'a');
ROLLBACK TO s;
SELECT gt_renew(:'a') AS until \gset
COMMIT;
SELECT expires_at = :'until' AS until FROM gt_lease_get(:'a');
SET client_min_messages = warning;
DO $$ BEGIN DROP EXTENSION garbagetruck CASCADE; RAISE EXCEPTION USING errcode = 'UE001'; EXCEPTION WHEN SQLSTATE 'UE001' THEN END $$;
RESET client_min_messages;
SELECT expires_at = :'until' AS until FROM gt_lease_get(:'a');

-- a shorter duration counts from its commit on, whatever was acknowledged before; in its own transaction at once
BEGIN;
SELECT gt_lease_update(:'a', duration => '10 minutes');
SELECT expires_at < gt_clock() + interval '11 minutes' AS shorter FROM gt_lease_get(:'a');
SELECT gt_renew(:'a') < gt_clock() + interval '11 minutes' AS shorter;
ROLLBACK;
SELECT expires_at = :'until' AS until, duration FROM gt_lease_get(:'a');
SELECT gt_lease_update(:'a', duration => '10 minutes');
SELECT expires_at < gt_clock() + interval '11 minutes' AS shorter, duration FROM gt_lease_get(:'a');
SELECT gt_renew(:'a') < gt_clock() + interval '11 minutes' AS shorter;
-- a longer one by a renewal is written
SELECT gt_renew(:'a', '1 hour') > gt_clock() + interval '59 minutes' AS longer;
SELECT duration = 3600000000 AS written FROM _garbagetruck.gt_lease WHERE id = :'a';

-- whatever the isolation
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT count(*) FROM gt_leases WHERE lease_id = :'a';
SELECT gt_renew(:'a') AS until \gset
SELECT expires_at = :'until' AS until FROM gt_lease_get(:'a');
COMMIT;
SELECT expires_at = :'until' AS until FROM gt_lease_get(:'a');
BEGIN READ ONLY;
SELECT t.state(format('SELECT gt_renew(%L)', :'a'));
SELECT t.state(format('SELECT gt_renew_many(ARRAY[%L]::uuid[])', :'a'));
ROLLBACK;

-- nothing is acknowledged by memory alone where the table could not be written
CREATE FUNCTION t.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER theirs AFTER UPDATE ON _garbagetruck.gt_lease FOR EACH ROW EXECUTE FUNCTION t.nothing();
SELECT t.fails(format('SELECT gt_renew(%L)', :'a'));
SELECT t.state(format('SELECT gt_renew_many(ARRAY[%L]::uuid[])', :'a'));
ALTER TABLE _garbagetruck.gt_lease ENABLE REPLICA TRIGGER theirs;
SELECT gt_renew(:'a') IS NOT NULL AS renewed;
SET session_replication_role = replica;
SELECT t.fails(format('SELECT gt_renew(%L)', :'a'));
RESET session_replication_role;
DROP TRIGGER theirs ON _garbagetruck.gt_lease;
SELECT gt_renew(:'a') IS NOT NULL AS renewed;

-- a server says for whom it calls
SELECT gt_lease_create('buffered 4', service_id => 's/1', duration => '1 hour') AS covered \gset
SELECT gt_lease_create('buffered 5', service_id => 'other', duration => '1 hour') AS other \gset
SET garbagetruck.caller = 's';
SELECT count(gt_renew(:'covered')) FROM generate_series(1, 3);
SELECT t.fails(format('SELECT gt_renew(%L)', :'other'));
SET garbagetruck.caller = 'other';
SELECT count(gt_renew(:'other')) FROM generate_series(1, 3);
SELECT t.fails(format('SELECT gt_renew(%L)', :'covered'));
SELECT status FROM gt_renew_many(ARRAY[:'covered', :'other', :'covered', :'other']::uuid[]);
RESET garbagetruck.caller;
SELECT renewals FROM gt_leases WHERE object_id IN ('buffered 4', 'buffered 5') ORDER BY object_id;
SELECT count(gt_renew(:'covered', service_id => 's/1')) FROM generate_series(1, 3);
SELECT t.fails(format('SELECT gt_renew(%L, service_id => %L)', :'covered', 's'));

-- roles, with the lease in memory
CREATE ROLE regress_buffered_a;
CREATE ROLE regress_buffered_b;
CREATE ROLE regress_buffered_c IN ROLE regress_buffered_a;
SELECT gt_allow('regress_buffered_a'), gt_allow('regress_buffered_b');
GRANT USAGE ON SCHEMA t TO PUBLIC;
SET ROLE regress_buffered_a;
SELECT gt_lease_create('buffered 6', duration => '1 hour') AS r \gset
SELECT count(gt_renew(:'r')) FROM generate_series(1, 3);
SET ROLE regress_buffered_b;
SELECT t.fails(format('SELECT gt_renew(%L)', :'r'));
SELECT status FROM gt_renew_many(ARRAY[:'r']::uuid[]);
SET ROLE regress_buffered_c;
SELECT count(gt_renew(:'r')) FROM generate_series(1, 3);
RESET ROLE;
REVOKE regress_buffered_a FROM regress_buffered_c;
SELECT gt_allow('regress_buffered_c');
SET ROLE regress_buffered_c;
SELECT t.fails(format('SELECT gt_renew(%L)', :'r'));
RESET ROLE;
SELECT gt_disallow('regress_buffered_a');
SET ROLE regress_buffered_a;
SELECT t.state(format('SELECT gt_renew(%L)', :'r'));
RESET ROLE;
SELECT gt_disallow('regress_buffered_b'), gt_disallow('regress_buffered_c');
REVOKE USAGE ON SCHEMA t FROM PUBLIC;
DROP ROLE regress_buffered_a;
DROP ROLE regress_buffered_b;
DROP ROLE regress_buffered_c;
SELECT count(gt_renew(:'r')) FROM generate_series(1, 3);

-- what ends a lease ends it for who renews, and a new table is a new one
SELECT gt_release(:'r');
SELECT t.state(format('SELECT gt_renew(%L)', :'r'));
BEGIN;
TRUNCATE _garbagetruck.gt_lease, _garbagetruck.gt_object;
SELECT t.state(format('SELECT gt_renew(%L)', :'a'));
SELECT DISTINCT status FROM t.thousand, gt_renew_many(ids);
ROLLBACK;
SELECT gt_renew(:'a') IS NOT NULL AS renewed;
SELECT DISTINCT status FROM t.thousand, gt_renew_many(ids);
VACUUM FULL _garbagetruck.gt_lease;
SELECT gt_renew(:'a') AS until \gset
SELECT expires_at = :'until' AS until FROM gt_lease_get(:'a');

SELECT count(gt_release(lease_id)) FROM gt_leases WHERE object_id LIKE 'thousand %';
SELECT gt_release(:'a');
CALL gt_reclaim() \g /dev/null
SELECT gt_release_many(array_agg(lease_id)) FROM gt_leases WHERE object_id LIKE 'buffered%';
SELECT count(gt_ack(cleanup_id, attempt)) FROM gt_claim('{buffered}');
SELECT gt_handler_drop('buffered');
DROP TABLE t.thousand;
DROP FUNCTION t.set_back(uuid), t.wal_of(text), t.nothing();
