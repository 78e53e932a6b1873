-- The queue: claim, acknowledge, reject, extend, tokens.
\set VERBOSITY terse
SELECT gt_handler_create('t_queue', 'queue', 'free text', max_attempts => 2, retry_delay => '1 hour');
SELECT gt_release_many(gt_lease_create_many(array_agg('claim ' || n), 'blob_storage', 's', cleanup => 't_queue', payload => '{"a": 1}', metadata => '{"b": 2}'))
FROM generate_series(1, 4) n;
CALL gt_reclaim() \g /dev/null
SELECT object_id, attempt, object_type, handler, kind, command, payload, metadata, lease_id IS NOT NULL AS lease, service_id, fence > 0 AS fence,
	claimed_until - gt_clock() BETWEEN '59 s' AND '60 s' AS until
FROM gt_claim(ARRAY['t_queue'], 2) ORDER BY object_id COLLATE "C";
SELECT object_id, state, attempts, claimed_until IS NOT NULL AS until FROM gt_garbage WHERE handler = 't_queue' ORDER BY object_id COLLATE "C";
SELECT count(*) FROM gt_claim(ARRAY['t_queue'], 100);
SELECT count(*) FROM gt_claim(ARRAY['t_queue'], 100);

-- the token
SELECT cleanup_id AS c1 FROM gt_garbage WHERE object_id = 'claim 1' \gset
SELECT cleanup_id AS c2 FROM gt_garbage WHERE object_id = 'claim 2' \gset
SELECT cleanup_id AS c3 FROM gt_garbage WHERE object_id = 'claim 3' \gset
SELECT cleanup_id AS c4 FROM gt_garbage WHERE object_id = 'claim 4' \gset
SELECT gt_ack(:c1, 2) AS future, gt_ack(:c1, 0) AS past, gt_ack(-1, 1) AS unknown;
SELECT t.state('SELECT gt_ack(NULL, 1)'), t.state('SELECT gt_ack(1, NULL)');
SELECT gt_extend(:c1, 1, '1 hour'), gt_extend(:c1, 2, '1 hour');
SELECT claimed_until > gt_clock() + interval '59 minutes' AS extended FROM gt_garbage WHERE cleanup_id = :c1;
SELECT gt_ack(:c1, 1);
SELECT gt_ack(:c1, 1);
SELECT gt_ack_many(ARRAY[:c2, :c3, :c4], ARRAY[1, 7, 1]);
SELECT object_id, state FROM gt_garbage WHERE handler = 't_queue';

-- rejected: the next attempt has another token, and comes after its delay unless asked for by id
SELECT gt_nack(:c3, 1, 'not today'), gt_nack(:c3, 1, 'again');
SELECT state, attempts, error, next_attempt_at > gt_clock() + interval '29 minutes' AS later FROM gt_garbage WHERE cleanup_id = :c3;
SELECT count(*) FROM gt_claim(ARRAY['t_queue']);
SELECT attempt FROM gt_claim(cleanup_ids => ARRAY[:c3]);
SELECT gt_ack(:c3, 1) AS stale;
-- create meanwhile: GT004, with the token to acknowledge
SELECT t.fails($$SELECT gt_lease_create('claim 3', 'blob_storage')$$);
DO $$
DECLARE
	detail text;
	hint text;
BEGIN
	PERFORM gt_lease_create('claim 3', 'blob_storage');
EXCEPTION WHEN SQLSTATE 'GT004' THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RAISE NOTICE 'time %, token %', detail ~ '\d\d:\d\d:\d\d', hint ~ (SELECT format('%s, %s', cleanup_id, attempts) FROM gt_garbage WHERE object_id = 'claim 3');
END $$;
-- used up: dead
SELECT gt_nack(:c3, 2, 'never');
SELECT state, attempts, max_attempts, error FROM gt_dead WHERE cleanup_id = :c3;
SELECT gt_redrive(ARRAY[:c3]);
SELECT attempt FROM gt_claim(ARRAY['t_queue']);
SELECT gt_nack(:c3, 3, 'soon', '0');
SELECT gt_redrive(ARRAY[:c3]);
SELECT attempt FROM gt_claim(ARRAY['t_queue']);
SELECT gt_ack(:c3, 4);
SELECT * FROM t.rows('claim');

-- a claim that lapses is due again at once; the old token is stale once another claim was made
SELECT gt_release(gt_lease_create('lapse', cleanup => 't_queue'));
SELECT cleanup_id AS c, attempt FROM gt_claim(ARRAY['t_queue'], visibility => '1 millisecond') \gset
SELECT pg_sleep(0.002);
SELECT attempt FROM gt_claim(ARRAY['t_queue']);
SELECT gt_ack(:c, 1) AS stale, gt_ack(:c, 2) AS current;
-- a lapsed last attempt makes it dead, and its late ack still counts
SELECT gt_release(gt_lease_create('lapse', cleanup => 't_queue', max_attempts => 1));
SELECT cleanup_id AS c, attempt FROM gt_claim(ARRAY['t_queue'], visibility => '1 millisecond') \gset
SELECT pg_sleep(0.002);
SELECT count(*) FROM gt_claim(ARRAY['t_queue']);
SELECT object_id, attempts FROM gt_dead WHERE cleanup_id = :c;
SELECT gt_ack(:c, 1);
SELECT * FROM t.rows('lapse');

-- what SQL handlers clean is not claimed
SELECT t.fails($$SELECT gt_claim(ARRAY['t_clean'])$$), t.fails($$SELECT gt_claim(ARRAY['no such handler'])$$);
SELECT t.state($$SELECT gt_claim(max_items => 0)$$), t.state($$SELECT gt_claim(visibility => '-1 s')$$), t.state($$SELECT gt_nack(1, 1, NULL, final => true)$$);
SELECT t.state($$SELECT gt_ack_many(ARRAY[1, 2], ARRAY[1])$$);
-- the two that are there from the start
SELECT name, kind, command FROM gt_handlers WHERE name LIKE '%endpoint' ORDER BY 1;
-- paused: no rows
SELECT gt_pause('t_queue');
SELECT gt_release(gt_lease_create('paused', cleanup => 't_queue'));
SELECT count(*) FROM gt_claim(ARRAY['t_queue']);
SELECT gt_resume('t_queue');
SELECT gt_ack(cleanup_id, attempt) FROM gt_claim(ARRAY['t_queue']);
SELECT gt_handler_drop('t_queue');
