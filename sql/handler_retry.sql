-- Retries, dead garbage, batches and their halving, grace, pauses, dropping a handler.
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE TABLE t.bad (id text PRIMARY KEY);
CREATE TABLE t.runs (n serial, ids text[]);
CREATE FUNCTION t.run(id text, attempt int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF EXISTS (SELECT FROM t.bad b WHERE b.id = run.id) THEN
		RAISE EXCEPTION 'can not clean %', id;
	END IF;
	INSERT INTO t.cleaned (object_id, attempt) VALUES (id, attempt);
END $$;
SELECT gt_handler_create('t_retry', 'sql', 'SELECT t.run($1, $8)', max_attempts => 3, retry_delay => '1 millisecond');
RESET client_min_messages;
-- does the workers' job until nothing waits any more for one of these objects
CREATE PROCEDURE t.drain(prefix text) LANGUAGE plpgsql AS $$
DECLARE
	done bigint;
BEGIN
	FOR i IN 1 .. 10000 LOOP
		CALL gt_reclaim(NULL, done);
		EXIT WHEN NOT EXISTS (SELECT FROM gt_garbage WHERE starts_with(object_id, prefix) AND state <> 'dead');
		PERFORM pg_sleep(0.001);
	END LOOP;
END $$;

-- one culprit among good ones: only it is retried, then dead, visible with its last error
INSERT INTO t.bad VALUES ('retry 3');
SELECT gt_release_many(gt_lease_create_many(array_agg('retry ' || n), cleanup => 't_retry')) FROM generate_series(1, 5) n;
CALL t.drain('retry');
SELECT t.cleaned();
SELECT object_id, handler, kind, state, attempts, max_attempts, error FROM gt_dead WHERE object_id LIKE 'retry%';
SELECT runs, failures, last_error FROM gt_handlers WHERE name = 't_retry';
SELECT event, object_id, attempt, handler, error FROM gt_history WHERE object_id LIKE 'retry%' ORDER BY at, attempt;
-- dead stays dead until it is redriven: the limit rises, the attempts go on
CALL gt_reclaim() \g /dev/null
SELECT t.cleaned();
SELECT gt_redrive(handler => 't_retry');
SELECT state, attempts, max_attempts FROM gt_garbage WHERE object_id LIKE 'retry%';
DELETE FROM t.bad;
CALL t.drain('retry');
SELECT object_id, attempt FROM t.cleaned;
SELECT t.cleaned();
SELECT gt_redrive(handler => 't_retry'), gt_redrive('{}'), gt_redrive(ARRAY[-1]);

-- gt_ack on dead garbage discards it
INSERT INTO t.bad VALUES ('discard');
SELECT gt_release(gt_lease_create('discard', cleanup => 't_retry', max_attempts => 1));
CALL gt_reclaim() \g /dev/null
SELECT object_id, attempts, max_attempts FROM gt_dead;
SELECT gt_ack(cleanup_id, attempts + 1), gt_ack(cleanup_id, attempts), gt_ack(cleanup_id, attempts) FROM gt_dead;
SELECT * FROM t.rows('discard');

-- a create takes dead garbage back to life, and learns of the attempts
SELECT gt_release(gt_lease_create('discard', cleanup => 't_retry', max_attempts => 1));
CALL gt_reclaim() \g /dev/null
SELECT count(*) FROM gt_dead;
SELECT attempts > 0 AS tried, lease_id AS a FROM gt_lease_grant('discard') \gset
SELECT :'tried' AS tried;
SELECT count(*) FROM gt_dead;
SELECT cleanup, attempts FROM gt_lease_get(:'a');
SELECT gt_release(:'a', keep => true);

-- a batch that fails is halved until the culprit is alone
SET client_min_messages = warning;
CREATE FUNCTION t.run_batch(ids text[], types text[], payloads jsonb[], metadatas jsonb[], leases uuid[], services text[], fences bigint[],
	attempts int[], cleanups bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF EXISTS (SELECT FROM t.bad b WHERE b.id = ANY (ids)) THEN
		RAISE EXCEPTION 'can not clean these';
	END IF;
	INSERT INTO t.runs (ids) VALUES (ids);
	INSERT INTO t.cleaned (object_id, object_type, payload, service_id, attempt)
	SELECT * FROM unnest(ids, types, payloads, services, attempts);
END $$;
SELECT gt_handler_create('t_batch', 'sql_batch', 'SELECT t.run_batch($1, $2, $3, $4, $5, $6, $7, $8, $9)', max_attempts => 2, retry_delay => '1 millisecond');
RESET client_min_messages;
SELECT gt_release_many(gt_lease_create_many(array_agg('batch ' || n), 'temporary_file', 's', cleanup => 't_batch', payload => '{"a": 1}')) FROM generate_series(1, 20) n;
CALL gt_reclaim() \g /dev/null
SELECT count(*) AS runs, sum(cardinality(ids)) AS objects FROM t.runs;
SELECT count(*), min(payload::text), min(service_id), min(object_type), min(attempt), max(attempt) FROM t.cleaned;
DELETE FROM t.cleaned;
INSERT INTO t.bad VALUES ('batch 7');
SELECT gt_release_many(gt_lease_create_many(array_agg('batch ' || n), cleanup => 't_batch')) FROM generate_series(1, 20) n;
CALL t.drain('batch');
SELECT count(*), count(DISTINCT object_id), bool_or(object_id = 'batch 7') AS culprit FROM t.cleaned;
SELECT object_id, attempts, error FROM gt_dead;
SELECT gt_ack(cleanup_id, attempts) FROM gt_dead;
DELETE FROM t.cleaned;

-- grace: time in which the object can be taken back
SET client_min_messages = warning;
SELECT gt_handler_create('t_grace', 'sql', 'SELECT t.run($1, $8)', grace => '1 hour');
RESET client_min_messages;
SELECT gt_release(gt_lease_create('grace', cleanup => 't_grace'));
CALL gt_reclaim() \g /dev/null
SELECT t.cleaned();
SELECT next_attempt_at - since = '1 hour' AS an_hour, state FROM gt_garbage WHERE object_id = 'grace';
SELECT attempts, lease_id AS a FROM gt_lease_grant('grace') \gset
SELECT :attempts AS attempts, gt_release(:'a', keep => true);

-- inside a transaction block it is one pass without a commit
SELECT gt_release_many(gt_lease_create_many(array_agg('block ' || n), cleanup => 't_clean')) FROM generate_series(1, 3) n;
BEGIN;
CALL gt_reclaim() \g /dev/null
SELECT count(*) FROM t.cleaned;
ROLLBACK;
SELECT t.cleaned();
CALL t.drain('block');
SELECT t.cleaned();
SELECT t.state('CALL gt_reclaim(-1)');

-- paused: expiry goes on, no attempt starts
SELECT gt_pause('t_retry');
SELECT gt_release(gt_lease_create('pause 1', cleanup => 't_retry'));
SELECT gt_lease_create('pause 2', cleanup => 't_retry', duration => '100 ms') AS a \gset
SELECT t.until_over(:'a');
CALL gt_reclaim() \g /dev/null
SELECT t.cleaned();
SELECT object_id, state, attempts FROM gt_garbage WHERE object_id LIKE 'pause%' ORDER BY 1;
SELECT paused FROM gt_handlers WHERE name = 't_retry';
SELECT gt_resume('t_retry');
CALL t.drain('pause');
SELECT t.cleaned();
-- the whole database; the slow start after it lets a few begin at once
SELECT gt_pause();
SELECT gt_release(gt_lease_create('pause ' || n, cleanup => 't_retry')) FROM generate_series(3, 9) n;
CALL gt_reclaim() \g /dev/null
SELECT t.cleaned();
SELECT gt_resume();
CALL gt_reclaim() \g /dev/null
SELECT t.cleaned();
SELECT t.fails($$SELECT gt_pause('no such handler')$$), t.fails($$SELECT gt_resume('no such handler')$$);

-- a handler in use can not go, nor become another kind
SELECT gt_lease_create('use 1', cleanup => 't_retry') AS a \gset
SELECT t.state($$SELECT gt_handler_drop('t_retry')$$);
SELECT t.state($$SELECT gt_handler_create('t_retry', 'queue')$$);
SELECT gt_release(:'a');
SELECT t.state($$SELECT gt_handler_drop('t_retry')$$);
CALL t.drain('use');
SELECT t.cleaned();
SELECT gt_handler_drop('t_retry'), gt_handler_drop('t_retry');
SELECT gt_handler_drop('t_batch'), gt_handler_drop('t_grace');
