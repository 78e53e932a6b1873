-- Announcements: their tokens, and that sending them is no attempt. The notifications themselves: test/t.
\set VERBOSITY terse
SELECT gt_handler_create('t_hint', 'notify', 'hints', max_attempts => 2, retry_delay => '1 hour');
SELECT gt_handler_create('t_once', 'notify_only', 'hints');
SELECT gt_release_many(gt_lease_create_many(ARRAY['hint 1', 'hint 2', 'hint 3', 'hint 4'], cleanup => 't_hint'));
SELECT gt_release(gt_lease_create('once', cleanup => 't_once'));
CALL gt_reclaim() \g /dev/null
CALL gt_reclaim() \g /dev/null
SELECT * FROM t.rows('once');
SELECT object_id, state, attempts, max_attempts, next_attempt_at - gt_clock() BETWEEN '59 minutes' AND '60 minutes' AS again
FROM gt_garbage WHERE handler = 't_hint' ORDER BY 1;
SELECT cleanup_id AS c1 FROM gt_garbage WHERE object_id = 'hint 1' \gset
SELECT cleanup_id AS c2 FROM gt_garbage WHERE object_id = 'hint 2' \gset
SELECT cleanup_id AS c3 FROM gt_garbage WHERE object_id = 'hint 3' \gset
-- the announced token is good while nobody has claimed
SELECT gt_ack(:c1, 0) AS past, gt_ack(:c1, 2) AS future, gt_ack(:c1, 1) AS announced, gt_ack(:c1, 1) AS again;
-- a nack makes the next one current
SELECT gt_nack(:c2, 1, 'not yet', '0'), gt_nack(:c2, 1, 'again');
SELECT attempts, error FROM gt_garbage WHERE cleanup_id = :c2;
-- so does a claim, which is no second attempt
SELECT attempt, claimed_until IS NOT NULL AS until FROM gt_claim(cleanup_ids => ARRAY[:c3]);
SELECT gt_ack(:c3, 1) AS announced, gt_nack(:c3, 2, 'first failure', '0') AS claimed;
SELECT state, attempts FROM gt_garbage WHERE cleanup_id = :c3;
-- who comes late drains what was announced while he was away, without waiting for the next time
SELECT gt_redrive(handler => 't_hint', cleanup_ids => ARRAY[:c2, :c3]);
SELECT object_id, attempt FROM gt_claim(ARRAY['t_hint']) ORDER BY 1;
SELECT gt_ack_many(array_agg(cleanup_id), array_agg(attempts)) FROM gt_garbage WHERE handler = 't_hint';
SELECT count(*) FROM gt_claim(ARRAY['t_hint']);
SELECT t.state($$SELECT gt_claim(ARRAY['t_once'])$$);
SELECT name, runs, failures, last_error FROM gt_handlers WHERE name IN ('t_hint', 't_once') ORDER BY 1;
SELECT gt_handler_drop('t_hint'), gt_handler_drop('t_once');

-- a nack may make it dead; after gt_redrive the next token is announced
SELECT gt_handler_create('t_hint', 'notify', 'hints', max_attempts => 1, retry_delay => '1 hour');
SELECT gt_release(gt_lease_create('hint', cleanup => 't_hint'));
CALL gt_reclaim() \g /dev/null
SELECT cleanup_id AS c FROM gt_garbage WHERE object_id = 'hint' \gset
SELECT gt_nack(:c, 1, 'never');
SELECT state, attempts FROM gt_dead WHERE cleanup_id = :c;
SELECT gt_redrive(ARRAY[:c]);
CALL gt_reclaim() \g /dev/null
SELECT state, attempts, max_attempts FROM gt_garbage WHERE cleanup_id = :c;
SELECT gt_ack(:c, 1) AS past, gt_ack(:c, 3) AS future, gt_ack(:c, 2) AS announced;
SELECT gt_handler_drop('t_hint');

-- a token that was announced while an earlier claim was open is nobody else's
SELECT gt_handler_create('t_hint', 'notify', 'hints', max_attempts => 5, retry_delay => '1 hour');
SELECT gt_release(gt_lease_create('hint ' || n, cleanup => 't_hint')) FROM generate_series(5, 6) n;
SELECT count(*) FROM gt_claim(ARRAY['t_hint'], visibility => '1 ms');
SELECT pg_sleep(0.002);
CALL gt_reclaim() \g /dev/null
SELECT cleanup_id AS c5 FROM gt_garbage WHERE object_id = 'hint 5' \gset
SELECT cleanup_id AS c6 FROM gt_garbage WHERE object_id = 'hint 6' \gset
SELECT object_id, state, attempts FROM gt_garbage WHERE handler = 't_hint' ORDER BY 1;
-- a late nack passes it over
SELECT gt_nack(:c5, 1, 'late', '0'), gt_ack(:c5, 2) AS announced;
SELECT attempts, max_attempts FROM gt_garbage WHERE cleanup_id = :c5;
-- a late extension leaves it good for nobody, and the next claim has the one after it
SELECT gt_extend(:c6, 1, '1 ms'), gt_ack(:c6, 2) AS announced;
SELECT pg_sleep(0.002);
SELECT object_id, attempt FROM gt_claim(cleanup_ids => ARRAY[:c5, :c6]) ORDER BY 1;
SELECT gt_ack_many(ARRAY[:c5, :c6, :c5, :c6], ARRAY[2, 2, 3, 3]);
SELECT gt_handler_drop('t_hint');
