-- Two-phase commit: what each writing call did is there from COMMIT PREPARED on, and not at all after ROLLBACK PREPARED.
\set VERBOSITY terse
\set SHOW_CONTEXT never
SET lock_timeout = '300 ms';
SELECT gt_handler_create('t_pq', 'queue', max_attempts => 2, retry_delay => '1 hour'), gt_handler_create('t_pq2', 'queue');
CREATE FUNCTION t.p_made(id text) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	PERFORM gt_release(gt_lease_create(id, 'prepared', cleanup => 't_pq'));
	RETURN (SELECT cleanup_id FROM gt_garbage WHERE object_id = id AND object_type = 'prepared');
END $$;
CREATE VIEW t.p_seen AS
	SELECT o.object_id, o.state, o.leases, o.attempts, o.max_attempts FROM _garbagetruck.gt_object o
	WHERE object_type = 'prepared' ORDER BY object_id COLLATE "C";

-- create, in every form, with what savepoints undo
BEGIN;
SELECT gt_lease_create('create', 'prepared') IS NOT NULL AS created;
SAVEPOINT s;
SELECT gt_lease_create('undone', 'prepared') IS NOT NULL AS created;
ROLLBACK TO s;
SAVEPOINT s2;
SELECT created FROM gt_lease_grant('grant', 'prepared', exclusive => true, request_key => 'k');
RELEASE s2;
SELECT array_length(gt_lease_create_many('{many 1,many 2}', 'prepared', cleanup => 't_pq'), 1);
SELECT n, sqlstate FROM gt_lease_grant_each('[{"object_id": "each", "object_type": "prepared"}, {"object_id": ""}]');
PREPARE TRANSACTION 'regress_p';
SELECT * FROM t.p_seen;
SELECT gid FROM pg_prepared_xacts;
-- nobody waits, but for the very rows
SELECT gt_lease_create('beside', 'prepared', cleanup => 't_pq') IS NOT NULL AS created;
SELECT n, sqlstate FROM gt_lease_grant_each('[{"object_id": "grant", "object_type": "prepared", "exclusive": true}, {"object_id": "beside 2", "object_type": "prepared"}]');
CALL gt_reclaim() \g /dev/null
COMMIT PREPARED 'regress_p';
SELECT * FROM t.p_seen;
SELECT n, sqlstate FROM gt_lease_grant_each('[{"object_id": "grant", "object_type": "prepared", "exclusive": true}]');
BEGIN;
SELECT gt_lease_create('never', 'prepared') IS NOT NULL AS created;
PREPARE TRANSACTION 'regress_p';
ROLLBACK PREPARED 'regress_p';
SELECT count(*) FROM t.p_seen WHERE object_id = 'never';

-- durations count from the calls: by the commit it is over, but does not end by itself
BEGIN;
SELECT gt_lease_create('short', 'prepared', duration => '100 ms', cleanup => 't_pq') AS id \gset
PREPARE TRANSACTION 'regress_p';
SELECT pg_sleep(0.11) \g /dev/null
COMMIT PREPARED 'regress_p';
SELECT state FROM gt_lease_get(:'id');
SELECT t.fails(format('SELECT gt_renew(%L)', :'id'));
CALL gt_reclaim() \g /dev/null
SELECT state FROM gt_garbage WHERE object_id = 'short';

-- renew, update, release, release and keep, of a parent
SELECT gt_lease_create('renew', 'prepared', duration => '1 minute') AS renew,
	gt_lease_create('update', 'prepared', duration => '1 minute') AS update,
	gt_lease_create('release', 'prepared', cleanup => 't_pq') AS release,
	gt_lease_create('keep', 'prepared', cleanup => 't_pq') AS keep,
	gt_lease_create('parent', 'prepared', cleanup => 't_pq') AS parent \gset
SELECT gt_lease_create('child', 'prepared', cleanup => 't_pq', parent => :'parent') AS child \gset
BEGIN;
SELECT gt_renew(:'renew', '10 minutes') > gt_clock() + interval '9 minutes' AS renewed;
SELECT status FROM gt_renew_many(ARRAY[:'renew']::uuid[]);
SELECT gt_lease_update(:'update', payload => '{"n": 1}', duration => '1 hour');
SELECT gt_release(:'release');
SELECT gt_release(:'keep', keep => true);
SELECT gt_release_many(ARRAY[:'parent']::uuid[]);
PREPARE TRANSACTION 'regress_p';
SELECT object_id, duration, payload FROM gt_leases WHERE object_type = 'prepared' AND object_id IN ('renew', 'update', 'release', 'keep', 'parent', 'child') ORDER BY 1;
CALL gt_reclaim() \g /dev/null
ROLLBACK PREPARED 'regress_p';
SELECT object_id, duration, payload FROM gt_leases WHERE object_type = 'prepared' AND object_id IN ('renew', 'update', 'release', 'keep', 'parent', 'child') ORDER BY 1;
BEGIN;
SELECT gt_renew(:'renew', '10 minutes') > gt_clock() + interval '9 minutes' AS renewed;
SELECT gt_lease_update(:'update', payload => '{"n": 1}', duration => '1 hour');
SELECT gt_release(:'release');
SELECT gt_release(:'keep', keep => true);
SELECT gt_release_many(ARRAY[:'parent']::uuid[]);
PREPARE TRANSACTION 'regress_p';
COMMIT PREPARED 'regress_p';
CALL gt_reclaim() \g /dev/null
SELECT object_id, duration, payload FROM gt_leases WHERE object_type = 'prepared' AND object_id IN ('renew', 'update', 'release', 'keep', 'parent', 'child') ORDER BY 1;
SELECT object_id, state FROM gt_garbage WHERE object_id IN ('release', 'keep', 'parent', 'child') ORDER BY 1;

-- a fence that was checked holds the object
SELECT lease_id, fence FROM gt_lease_grant('fence', 'prepared', exclusive => true) \gset
BEGIN;
SELECT gt_fence_check('fence', 'prepared', :fence);
PREPARE TRANSACTION 'regress_p';
SELECT t.fails(format('SELECT gt_release(%L)', :'lease_id'));
SELECT gt_fence_check('fence', 'prepared', :fence);
COMMIT PREPARED 'regress_p';
SELECT gt_release(:'lease_id');

-- claims and what answers them
SELECT t.p_made('ack') AS ack, t.p_made('nack') AS nack, t.p_made('extend') AS extend, t.p_made('claim') AS claim, t.p_made('redrive') AS redrive,
	t.p_made('discard') AS discard, t.p_made('free') AS free \gset
SELECT count(*) FROM gt_claim(visibility => '1 minute', cleanup_ids => ARRAY[:ack, :nack, :extend]);
BEGIN;
SELECT gt_ack(:ack, 1), gt_nack(:nack, 1, 'no', '1 minute') AS nack, gt_extend(:extend, 1, '1 hour') AS extend;
SELECT cleanup_id = :claim AS claimed, attempt FROM gt_claim(cleanup_ids => ARRAY[:claim]);
SELECT gt_redrive(ARRAY[:redrive]);
SELECT gt_ack(:discard, 0) AS discarded;
PREPARE TRANSACTION 'regress_p';
SELECT object_id, state, attempts FROM t.p_seen WHERE object_id IN ('ack', 'nack', 'extend', 'claim', 'redrive', 'discard', 'free');
-- others' claims pass over its rows, and their counters are their own
SELECT cleanup_id = :free AS free, attempt FROM gt_claim('{t_pq}', 10, '1 minute', ARRAY[:claim, :redrive, :free]);
SELECT gt_ack(:free, 1);
SELECT t.fails(format('SELECT gt_ack(%s, 1)', :ack));
ROLLBACK PREPARED 'regress_p';
SELECT object_id, state, attempts FROM t.p_seen WHERE object_id IN ('ack', 'nack', 'extend', 'claim', 'redrive', 'discard', 'free');
SELECT runs, failures FROM gt_handlers WHERE name = 't_pq';
BEGIN;
SELECT gt_ack(:ack, 1), gt_nack(:nack, 1, 'no', '1 minute') AS nack, gt_extend(:extend, 1, '1 hour') AS extend;
SELECT cleanup_id = :claim AS claimed, attempt FROM gt_claim(cleanup_ids => ARRAY[:claim]);
SELECT gt_redrive(ARRAY[:redrive]);
SELECT gt_ack(:discard, 0) AS discarded;
PREPARE TRANSACTION 'regress_p';
COMMIT PREPARED 'regress_p';
SELECT object_id, state, attempts FROM t.p_seen WHERE object_id IN ('ack', 'nack', 'extend', 'claim', 'redrive', 'discard', 'free');
SELECT runs, failures FROM gt_handlers WHERE name = 't_pq';
SELECT gt_ack(:claim, 1), gt_ack(:extend, 1) AS extend;
SELECT gt_ack(cleanup_id, attempt) FROM gt_claim(cleanup_ids => ARRAY[:nack]);

-- claims of a prepared transaction count against the limit until it has ended
SELECT gt_handler_create('t_p1', 'queue', concurrency => 1);
SELECT count(gt_release(gt_lease_create('limited ' || n, 'prepared', cleanup => 't_p1'))) FROM generate_series(1, 2) n;
BEGIN;
SELECT count(*) FROM gt_claim('{t_p1}');
PREPARE TRANSACTION 'regress_p';
SELECT count(*) FROM gt_claim('{t_p1}');
ROLLBACK PREPARED 'regress_p';
-- what is undone or answered in it does not
BEGIN;
SAVEPOINT s;
SELECT count(*) FROM gt_claim('{t_p1}');
ROLLBACK TO s;
PREPARE TRANSACTION 'regress_p';
BEGIN;
SELECT count(gt_nack(cleanup_id, attempt, NULL, '0')) FROM gt_claim('{t_p1}');
PREPARE TRANSACTION 'regress_p2';
SELECT count(*) FROM gt_claim('{t_p1}');
ROLLBACK PREPARED 'regress_p';
ROLLBACK PREPARED 'regress_p2';
SELECT count(gt_ack(cleanup_id, attempts)) FROM gt_garbage WHERE handler = 't_p1';

-- handlers: made, replaced, granted, paused, dropped
BEGIN;
SELECT gt_handler_create('t_p_new', 'queue'), gt_handler_grant('t_pq2', 'pg_monitor'), gt_pause('t_pq'), gt_pause();
PREPARE TRANSACTION 'regress_p';
SELECT gt_handler_create('t_p_other', 'queue'), gt_pause('t_p_other'), gt_resume('t_p_other'), gt_resume();
SELECT gt_lease_create('named', 'prepared', cleanup => 't_pq') IS NOT NULL AS created;
SELECT t.fails($$SELECT gt_lease_create('x', 'prepared', cleanup => 't_p_new')$$);
SELECT name, paused FROM gt_handlers WHERE name LIKE 't\_p%' ORDER BY 1;
COMMIT PREPARED 'regress_p';
SELECT name, paused FROM gt_handlers WHERE name LIKE 't\_p%' ORDER BY 1;
SELECT count(*) FROM _garbagetruck.gt__paused;
BEGIN;
SELECT gt_resume(), gt_resume('t_pq'), gt_handler_drop('t_p_new') AS dropped;
PREPARE TRANSACTION 'regress_p';
SELECT t.fails($$SELECT gt_lease_create('x', 'prepared', cleanup => 't_p_new')$$);
COMMIT PREPARED 'regress_p';
SELECT t.fails($$SELECT gt_lease_create('x', 'prepared', cleanup => 't_p_new')$$);
-- one that is named in a create can not be dropped, nor its kind be changed; nobody waits for that
BEGIN;
SELECT gt_lease_create('uses it', 'prepared', cleanup => 't_p_other') IS NOT NULL AS created;
PREPARE TRANSACTION 'it''s "used"';
SELECT gt_handler_drop('t_p_other');
SELECT gt_handler_create('t_p_other', 'http', 'http://localhost/');
SELECT gt_handler_create('t_p_other', 'queue', 'replaced');
ROLLBACK PREPARED 'it''s "used"';
SELECT gt_handler_drop('t_p_other');

-- rights and shares
CREATE ROLE regress_p_role;
BEGIN;
SELECT gt_allow('regress_p_role', 'lease'), gt_share('regress_p_role', 'prepared');
PREPARE TRANSACTION 'regress_p';
SET ROLE regress_p_role;
SELECT gt_lease_create('create', 'prepared') IS NOT NULL AS created;
RESET ROLE;
COMMIT PREPARED 'regress_p';
SET ROLE regress_p_role;
SELECT gt_lease_create('create', 'prepared') IS NOT NULL AS created;
RESET ROLE;
SELECT gt_disallow('regress_p_role');
SELECT gt_unshare('regress_p_role', 'prepared');

-- reclaim in a block
SELECT gt_release(gt_lease_create('in a block', 'prepared', cleanup => 't_clean'));
BEGIN;
CALL gt_reclaim() \g /dev/null
PREPARE TRANSACTION 'regress_p';
SELECT t.cleaned();
COMMIT PREPARED 'regress_p';
SELECT t.cleaned();

-- a PREPARE that fails undoes what was done, as the server does it
BEGIN;
SELECT gt_lease_create('temporary', 'prepared') IS NOT NULL AS created;
CREATE TEMPORARY TABLE p (n int);
PREPARE TRANSACTION 'regress_p';
BEGIN;
SELECT gt_lease_create('notifies', 'prepared') IS NOT NULL AS created;
NOTIFY regress_p;
PREPARE TRANSACTION 'regress_p';
BEGIN;
SELECT gt_lease_create('one', 'prepared') IS NOT NULL AS created;
PREPARE TRANSACTION 'regress_p';
BEGIN;
SELECT gt_lease_create('two', 'prepared') IS NOT NULL AS created;
PREPARE TRANSACTION 'regress_p';
COMMIT PREPARED 'regress_p';
SELECT object_id FROM t.p_seen WHERE object_id IN ('temporary', 'notifies', 'one', 'two');
-- and so does one of a transaction that has failed
BEGIN;
SELECT gt_lease_create('failed', 'prepared') IS NOT NULL AS created;
SELECT 1 / 0;
PREPARE TRANSACTION 'regress_p';
COMMIT PREPARED 'regress_p';

-- numbers are those of what has committed
SELECT object_id, state FROM t.p_seen WHERE state NOT IN ('h');
SELECT (SELECT value FROM gt_metrics() WHERE name = 'garbagetruck_leases') = (SELECT count(*) FROM _garbagetruck.gt_lease) AS leases,
	(SELECT value FROM gt_metrics() WHERE name = 'garbagetruck_garbage') = (SELECT count(*) FROM gt_garbage) AS garbage;
SELECT value AS created FROM gt_metrics() WHERE name = 'garbagetruck_leases_created_total' \gset
BEGIN;
SELECT count(gt_lease_create('counted ' || n, 'prepared', cleanup => 't_pq')) FROM generate_series(1, 3) n;
PREPARE TRANSACTION 'regress_p';
BEGIN;
SELECT count(gt_lease_create('not counted ' || n, 'prepared', cleanup => 't_pq')) FROM generate_series(1, 3) n;
PREPARE TRANSACTION 'regress_p2';
SELECT value - :created AS more FROM gt_metrics() WHERE name = 'garbagetruck_leases_created_total';
COMMIT PREPARED 'regress_p';
ROLLBACK PREPARED 'regress_p2';
SELECT value - :created AS more FROM gt_metrics() WHERE name = 'garbagetruck_leases_created_total';
SELECT (SELECT value FROM gt_metrics() WHERE name = 'garbagetruck_leases') = (SELECT count(*) FROM _garbagetruck.gt_lease) AS leases;
SELECT check_name, ok FROM gt_health() WHERE check_name IN ('prepared', 'consistency');

-- the extension made and dropped by prepared transactions
BEGIN;
SELECT gt_lease_create('with the extension', 'prepared') IS NOT NULL AS created;
SET LOCAL client_min_messages = warning;
DROP EXTENSION garbagetruck CASCADE;
PREPARE TRANSACTION 'regress_p';
ROLLBACK PREPARED 'regress_p';
SELECT count(*) FROM t.p_seen WHERE object_id = 'with the extension';
SELECT count(gt_release(lease_id)) > 0 AS released FROM gt_leases WHERE object_type = 'prepared';
SELECT count(gt_ack(cleanup_id, attempts)) > 0 AS gone FROM gt_garbage WHERE object_type = 'prepared';
SELECT count(gt_handler_drop(name)) FROM gt_handlers WHERE name LIKE 't\_p%';
UPDATE _garbagetruck.gt__handler SET resumed_at = NULL;	-- or what comes after this begins slowly
DROP ROLE regress_p_role;
DROP VIEW t.p_seen;
RESET lock_timeout;
