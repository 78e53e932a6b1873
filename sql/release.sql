-- Releasing: the last one makes garbage, keep forgets.
\set VERBOSITY terse
SELECT gt_lease_create('release 1', cleanup => 't_clean', payload => '{"n": 1}', metadata => '{"m": 1}', service_id => 's') AS a \gset
SELECT gt_lease_create('release 1', payload => '{"n": 2}', service_id => 's2') AS b \gset
SELECT gt_release(:'a');
CALL gt_reclaim() \g /dev/null
SELECT t.cleaned();
SELECT gt_release(:'b', service_id => 's2');
SELECT object_type, object_id, handler, kind, state, attempts, max_attempts, payload FROM gt_garbage WHERE object_id LIKE 'release%';
CALL gt_reclaim() \g /dev/null
-- what the handler gets is of the latest lease that named the cleanup
SELECT object_id, payload, metadata, service_id, attempt FROM t.cleaned;
SELECT t.cleaned();
SELECT * FROM t.rows('release 1');
SELECT gt_release(:'b');

-- without a cleanup the object is forgotten
SELECT gt_release(gt_lease_create('release 2'));
SELECT * FROM t.rows('release 2');

-- the lease's service
SELECT gt_lease_create('release 3', service_id => 's') AS a \gset
SELECT t.fails(format('SELECT gt_release(%L, service_id => %L)', :'a', 'another'));
SELECT gt_release(:'a', service_id => 's');

-- keep: the object is forgotten when its last lease ends, not cleaned
SELECT gt_lease_create('release 4', cleanup => 't_clean') AS a \gset
SELECT gt_lease_create('release 4', cleanup => 't_clean') AS b \gset
SELECT gt_release(:'a', keep => true);
SELECT gt_release(:'b');
SELECT * FROM t.rows('release 4');
CALL gt_reclaim() \g /dev/null
SELECT t.cleaned();
-- a create while it is held that names no cleanup does not change that, one that does does
SELECT gt_lease_create('release 5', cleanup => 't_clean') AS a \gset
SELECT gt_lease_create('release 5') AS b \gset
SELECT gt_release(:'a', keep => true);
SELECT gt_lease_create('release 5') AS c \gset
SELECT gt_release_many(ARRAY[:'b', :'c']::uuid[]);
CALL gt_reclaim() \g /dev/null
SELECT t.cleaned();
SELECT gt_lease_create('release 5', cleanup => 't_clean') AS a \gset
SELECT gt_lease_create('release 5') AS b \gset
SELECT gt_release(:'a', keep => true);
SELECT gt_lease_create('release 5', cleanup => 't_clean') AS c \gset
SELECT gt_release_many(ARRAY[:'b', :'c']::uuid[]);
CALL gt_reclaim() \g /dev/null
SELECT t.cleaned();
-- with keep, a lease that has ended must not be lost silently
SELECT t.fails(format('SELECT gt_release(%L, keep => true)', :'a'));
SELECT t.fails($$SELECT gt_release('00000000-0000-7000-8000-000000000000', keep => true)$$);
SELECT t.fails($$SELECT gt_release(NULL, keep => true)$$);

-- after the deadline a release still counts until the lease has ended
SELECT gt_lease_create('release 6', cleanup => 't_clean', duration => '100 ms') AS a \gset
SELECT t.until_over(:'a');
SELECT gt_release(:'a'), gt_release(:'a');
CALL gt_reclaim() \g /dev/null
SELECT t.cleaned();
SELECT gt_lease_create('release 7', cleanup => 't_clean', duration => '100 ms') AS a \gset
SELECT t.until_over(:'a');
SELECT gt_release(:'a', keep => true);
CALL gt_reclaim() \g /dev/null
SELECT t.cleaned();

-- in the transaction that creates it, and with savepoints
BEGIN;
SELECT gt_release(gt_lease_create('release 8', cleanup => 't_clean'));
COMMIT;
BEGIN;
SELECT gt_lease_create('release 9', cleanup => 't_clean') AS a \gset
SAVEPOINT s;
SELECT gt_release(:'a');
ROLLBACK TO s;
COMMIT;
CALL gt_reclaim() \g /dev/null
SELECT t.cleaned();
SELECT state FROM gt_lease_get(:'a');
BEGIN;
SELECT gt_release(:'a');
ROLLBACK;
SELECT state FROM gt_lease_get(:'a');

-- many: how many had not ended; unknown ones are passed over
SELECT gt_release_many(ARRAY[:'a', :'a', NULL, '00000000-0000-7000-8000-000000000000']::uuid[]);
SELECT gt_release_many('{}');
SELECT t.state('SELECT gt_release_many(NULL)');
SELECT gt_lease_create('release 10', service_id => 's') AS a \gset
SELECT t.state(format('SELECT gt_release_many(%L, service_id => %L)', ARRAY[:'a']::uuid[], 'another'));
SELECT gt_release_many(ARRAY[:'a']::uuid[]);
CALL gt_reclaim() \g /dev/null
SELECT t.cleaned();

-- back to life: a create on garbage takes it back, with the same cleanup or another
SELECT gt_release(gt_lease_create('release 11', cleanup => 't_clean'));
SELECT created, attempts FROM gt_lease_grant('release 11', cleanup => 't_clean');
CALL gt_reclaim() \g /dev/null
SELECT t.cleaned();
SELECT count(*) FROM gt_garbage WHERE object_id = 'release 11';
SELECT gt_release_many(array_agg(lease_id)) FROM gt_lease_list(object_id => 'release 11');
CALL gt_reclaim() \g /dev/null
SELECT t.cleaned();

-- the same leases twice, to be kept: each counts once, and is not lost by being there again
SELECT gt_release_many(ids || ids, keep => true) FROM (SELECT array_agg(id ORDER BY md5(id::text)) AS ids
	FROM unnest(gt_lease_create_many(ARRAY(SELECT 'release twice ' || n FROM generate_series(1, 50) n))) id) AS created;
