-- Creating a lease, and looking at it.
\set VERBOSITY terse
SET application_name = 'app';
SELECT gt_lease_create('lease 1') AS a \gset
SELECT substr(:'a', 15, 1) AS uuid_version, substr(:'a', 20, 1) IN ('8', '9', 'a', 'b') AS rfc_variant;
\x
SELECT object_id, object_type, service_id, state, duration, renewals, fence > 0 AS fence, exclusive, parent, cleanup,
	payload, metadata, attempts, max_attempts, retry_delay, lease_id = :'a' AS same,
	expires_at BETWEEN created_at + duration AND gt_clock() + duration AS expires, renewed_at = created_at AS not_renewed
FROM gt_lease_get(:'a');
SELECT gt_lease_create(object_id => 'lease 2', object_type => 'temporary_file', service_id => 'uploader', duration => '1 hour',
	cleanup => 't_clean', payload => '{"path": "/tmp/x"}', metadata => '{"who": "me"}', exclusive => true,
	request_key => 'k', max_attempts => 3, retry_delay => '5 seconds') AS b \gset
SELECT object_id, object_type, service_id, state, duration, renewals, exclusive, parent, cleanup, payload, metadata, attempts,
	max_attempts, retry_delay
FROM gt_lease_get(:'b');
\x
SELECT lease_id = :'b' AS b, object_id, state FROM gt_leases WHERE object_id LIKE 'lease _' ORDER BY object_id;

-- the service's name: application_name, else the role's
SET application_name = '';
SELECT gt_lease_create('lease 3') AS c \gset
SELECT service_id = current_user AS role FROM gt_lease_get(:'c');
RESET application_name;

-- all there is to know
SELECT lease_id IS NOT NULL AS id, fence > 0 AS fence, expires_at > gt_clock() AS ahead, ttl = '10 minutes' AS ttl, created, attempts
FROM gt_lease_grant('lease 4', duration => '10 minutes');

-- ids and fences grow
SELECT bool_and(id > before) AS ids_grow FROM (SELECT id, lag(id) OVER (ORDER BY n) AS before
	FROM (SELECT n, gt_lease_create('lease ' || n) AS id FROM generate_series(100, 150) n) s) s;
SELECT bool_and(fence > before) AS fences_grow FROM (SELECT fence, lag(fence) OVER (ORDER BY n) AS before
	FROM (SELECT n, (gt_lease_grant('lease 5')).fence FROM generate_series(1, 20) n) s) s;
SELECT max(fence) AS f FROM gt_lease_list(object_id => 'lease 5') \gset
SELECT gt_release_many(array_agg(lease_id)) FROM gt_lease_list(object_id => 'lease 5');
SELECT (gt_lease_grant('lease 5')).fence > :f AS across_re_creation;

-- bad values
SELECT c, t.fails('SELECT gt_lease_create(' || c || ')') FROM unnest(ARRAY[
	$$NULL$$,
	$$''$$,
	$$'x', NULL$$,
	$$'x', ''$$,
	$$'x', service_id => ''$$,
	$$'x', duration => '0'$$,
	$$'x', duration => '-1 s'$$,
	$$'x', duration => '31 days'$$,
	$$'x', duration => '1000000 years'$$,
	$$'x', cleanup => 'no such handler'$$,
	$$'x', cleanup => ''$$,
	$$'x', max_attempts => 0$$,
	$$'x', max_attempts => -1$$,
	$$'x', retry_delay => '-1 s'$$,
	$$'x', request_key => ''$$,
	$$'x', exclusive => NULL$$,
	$$'x', parent => '00000000-0000-7000-8000-000000000000'$$,
	$$E'with\nnewline'$$,
	$$'x', E'with\ttab'$$]) c;
SELECT * FROM t.rows('x');

-- an id that is not there
SELECT count(*) FROM gt_lease_get('00000000-0000-7000-8000-000000000000');
SELECT count(*) FROM gt_lease_get(NULL);
SELECT t.fails($$SELECT gt_renew('00000000-0000-7000-8000-000000000000')$$);
SELECT t.fails($$SELECT gt_renew(NULL)$$);
SELECT t.fails($$SELECT gt_fence('00000000-0000-7000-8000-000000000000')$$);
SELECT t.fails($$SELECT gt_fence(NULL)$$);
SELECT t.fails($$SELECT gt_lease_update('00000000-0000-7000-8000-000000000000', '{}')$$);
SELECT t.fails($$SELECT gt_lease_update(NULL, '{}')$$);
SELECT gt_release('00000000-0000-7000-8000-000000000000'), gt_release(NULL);

-- progress notes: what is given is replaced, NULL leaves as it is
SELECT gt_lease_update(:'b', metadata => '{"step": 2}');
SELECT payload, metadata FROM gt_lease_get(:'b');
SELECT gt_lease_update(:'b', payload => '{"path": "/tmp/y"}');
SELECT payload, metadata FROM gt_lease_get(:'b');
SELECT t.fails(format('SELECT gt_lease_update(%L, %L, service_id => %L)', :'b', '{}', 'another'));

-- pages, by id
SELECT gt_lease_create('page ' || n, 'page', service_id => 's' || n % 2) FROM generate_series(1, 25) n \g /dev/null
SELECT count(*), bool_and(state = 'active') FROM gt_lease_list(object_type => 'page', max_rows => 1000);
SELECT count(*) FROM gt_lease_list(service_id => 's1', object_type => 'page');
SELECT count(*) FROM gt_lease_list(object_type => 'page', object_id => 'page 7');
SELECT count(*) FROM gt_lease_list(object_type => 'page', state => 'expired');
WITH RECURSIVE pages AS (
	SELECT 1 AS page, array_agg(lease_id ORDER BY lease_id) AS ids FROM gt_lease_list(object_type => 'page', max_rows => 10)
	UNION ALL
	SELECT page + 1, (SELECT array_agg(lease_id ORDER BY lease_id)
		FROM gt_lease_list(object_type => 'page', max_rows => 10, after => ids[array_upper(ids, 1)]))
	FROM pages WHERE ids IS NOT NULL)
SELECT page, cardinality(ids) FROM pages;
SELECT t.state($$SELECT gt_lease_list(state => 'dead')$$), t.state($$SELECT gt_lease_list(max_rows => -1)$$);

-- past its deadline it is over at once, whether or not a worker has come by
SELECT gt_lease_create('lease 6', duration => '100 ms', cleanup => 't_clean') AS e \gset
SELECT t.until_over(:'e');
SELECT t.fails(format('SELECT gt_renew(%L)', :'e'));
SELECT t.fails(format('SELECT gt_fence(%L)', :'e'));
SELECT count(*) FROM gt_lease_list(object_id => 'lease 6', state => 'active');
SELECT count(*) FROM gt_lease_list(object_id => 'lease 6', state => 'expired');
CALL gt_reclaim() \g /dev/null
SELECT t.cleaned();
SELECT t.fails(format('SELECT gt_renew(%L)', :'e'));
SELECT t.until_over(:'e');
SELECT * FROM t.rows('lease 6');

-- to the transaction that creates it, a lease is not over before the commit, and then it has its duration
BEGIN;
SELECT gt_lease_create('lease 7', duration => '120 ms') AS e \gset
SELECT pg_sleep(0.13);
SELECT state FROM gt_lease_get(:'e');
SELECT gt_fence(:'e') > 0 AS fence;
COMMIT;
SELECT t.until_over(:'e');
SELECT expires_at - created_at >= '250 ms' AS stamped_anew FROM gt_lease_get(:'e');

-- read-only transactions: writers fail, readers work
BEGIN READ ONLY;
SELECT state FROM gt_lease_get(:'a');
SAVEPOINT s;
SELECT gt_lease_create('read only');
ROLLBACK TO s;
SELECT gt_renew(:'a');
ROLLBACK TO s;
SELECT gt_release(:'a');
ROLLBACK TO s;
SELECT gt_lease_update(:'a', '{}');
ROLLBACK;
SELECT t.state('SET TRANSACTION READ ONLY; SELECT gt_lease_create(''x'')');

-- the lease and the caller's savepoints
BEGIN;
SELECT gt_lease_create('rolled 1') IS NOT NULL AS created;
SAVEPOINT s;
SELECT gt_lease_create('rolled 2') IS NOT NULL AS created;
ROLLBACK TO s;
COMMIT;
SELECT object_id FROM gt_leases WHERE object_id LIKE 'rolled%';

-- the reading functions and the views in the leader of a parallel query
CREATE TABLE t.parallel AS SELECT lease_id FROM gt_lease_list(object_type => 'page');
BEGIN;
SET LOCAL min_parallel_table_scan_size = 0;
SET LOCAL parallel_setup_cost = 0;
SET LOCAL parallel_tuple_cost = 0;
SET LOCAL enable_hashjoin = off;
EXPLAIN (COSTS OFF) SELECT count(*) FROM t.parallel p, gt_lease_get(p.lease_id) g;
SELECT count(*) FROM t.parallel p, gt_lease_get(p.lease_id) g;
SELECT count(*) FROM t.parallel p WHERE gt_fence(p.lease_id) > 0;
SELECT count(*) FROM t.parallel p JOIN gt_lease_list(object_type => 'page') g USING (lease_id);
SELECT count(*) FROM t.parallel p JOIN gt_leases g USING (lease_id);
SELECT count(*) > 0 AS forecast FROM t.parallel p, gt_forecast() f;
-- and of a role in a session that knows nothing of it yet
CREATE ROLE p_reader;
GRANT USAGE ON SCHEMA t TO p_reader;
GRANT SELECT ON t.parallel TO p_reader;
SELECT gt_allow('p_reader');
SET ROLE p_reader;
SELECT gt_lease_create('parallel') IS NOT NULL AS own;
COMMIT;
\c -
SET min_parallel_table_scan_size = 0;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET ROLE p_reader;
SELECT count(*) FROM t.parallel p, gt_leases g;
SELECT count(*) FROM t.parallel p, gt_garbage g;
SELECT gt_release(lease_id) FROM gt_leases;
RESET ROLE;
-- who says of a function of his that it is parallel safe, and writes in it
CREATE FUNCTION t.says_safe(id uuid) RETURNS boolean LANGUAGE plpgsql PARALLEL SAFE AS $$ BEGIN RETURN gt_renew(id) IS NOT NULL; END $$;
SELECT t.state('SELECT count(t.says_safe(lease_id)) FROM t.parallel');
DROP FUNCTION t.says_safe;
DROP TABLE t.parallel;
DROP OWNED BY p_reader;
DROP ROLE p_reader;

-- no predicate locks in a serializable transaction: the rows are locked
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT gt_lease_create('serial 1', cleanup => 't_clean', exclusive => true) AS a, gt_lease_create('serial 2', request_key => 'serial') AS b \gset
SELECT gt_renew(:'a') IS NOT NULL AS renewed, gt_fence_check('serial 1', 'custom', gt_fence(:'a')) AS fence;
SELECT gt_release(:'a'), gt_release_many(ARRAY[:'b']::uuid[]);
SELECT object_id FROM gt_lease_list(object_id => 'serial 1');
SELECT count(*) FROM gt_claim();
SELECT c.relname FROM pg_locks l JOIN pg_class c ON c.oid = l.relation WHERE l.mode = 'SIReadLock' AND c.relnamespace = '_garbagetruck'::regnamespace;
ROLLBACK;
-- and reads see what counts all the same
SELECT gt_lease_create('serial 3', metadata => '0') AS a \gset
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT gt_renew(:'a') IS NOT NULL AS renewed FROM generate_series(1, 3);
SELECT gt_lease_update(:'a', metadata => '1');
SELECT metadata, renewals FROM gt_lease_get(:'a');
SAVEPOINT s;
SELECT gt_release(:'a');
SELECT count(*) FROM gt_lease_get(:'a');
ROLLBACK TO s;
SELECT metadata, renewals FROM gt_lease_list(object_id => 'serial 3');
COMMIT;
