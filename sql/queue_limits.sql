-- How much one gt_claim gives: max_items, handlers in turn, concurrency, rate_limit.
\set VERBOSITY terse
SELECT gt_handler_create('t_few', 'queue', concurrency => 3), gt_handler_create('t_slow', 'queue', rate_limit => 2),
	gt_handler_create('t_free', 'queue');
SELECT h, gt_release_many(gt_lease_create_many(ARRAY(SELECT h || n FROM generate_series(1, 10) n), cleanup => h))
FROM unnest(ARRAY['t_few', 't_free', 't_slow']) h;
SELECT t.fails($$SELECT gt_claim(max_items => 0)$$);
SELECT t.fails($$SELECT gt_claim(max_items => 10001)$$);
SELECT t.state($$SELECT gt_claim(max_items => NULL)$$), t.state($$SELECT gt_claim(visibility => NULL)$$),
	t.state($$SELECT gt_claim(visibility => '0')$$), t.state($$SELECT gt_claim(visibility => '31 days')$$),
	t.state($$SELECT gt_claim(ARRAY['t_free', NULL])$$);
SELECT count(*) FROM gt_claim('{}');
-- in turn
SELECT handler, count(*) FROM gt_claim(max_items => 6) GROUP BY 1 ORDER BY 1;
-- each within its limit
SELECT handler, count(*) FROM gt_claim(max_items => 100) WHERE handler <> 't_slow' GROUP BY 1 ORDER BY 1;
SELECT count(*) FROM gt_claim(ARRAY['t_few']);
-- what this transaction has acknowledged runs no longer, but for a rollback
BEGIN;
SAVEPOINT s;
SELECT gt_ack_many(array_agg(cleanup_id), array_agg(attempts)) FROM gt_garbage WHERE handler = 't_few' AND state = 'claimed';
SELECT count(*) FROM gt_claim(ARRAY['t_few'], 100);
ROLLBACK TO s;
SELECT count(*) FROM gt_claim(ARRAY['t_few'], 100);
COMMIT;
SELECT gt_ack_many(array_agg(cleanup_id), array_agg(attempts)) FROM gt_garbage WHERE handler = 't_few' AND state = 'claimed';
SELECT count(*) FROM gt_claim(ARRAY['t_few'], 100);
-- a rate counts what was started in the last second; what was not taken is given back
SELECT gt_handler_create('t_rate', 'queue', rate_limit => 5);
SELECT gt_release_many(gt_lease_create_many(ARRAY['r1', 'r2', 'r3'], cleanup => 't_rate'));
SELECT (SELECT count(*) FROM gt_claim(ARRAY['t_rate'], 2)) AS two, (SELECT count(*) FROM gt_claim(ARRAY['t_rate'], 10)) AS one,
	(SELECT gt_release_many(gt_lease_create_many(ARRAY['r4', 'r5', 'r6'], cleanup => 't_rate'))) AS three,
	(SELECT count(*) FROM gt_claim(ARRAY['t_rate'], 10)) AS two, (SELECT count(*) FROM gt_claim(ARRAY['t_rate'], 10)) AS none;
-- by id: whenever it is due, once for each, and of nobody else's
SELECT gt_nack(cleanup_id, attempts, 'later', '1 hour') FROM gt_garbage WHERE object_id = 't_free1';
SELECT cleanup_id AS c FROM gt_garbage WHERE object_id = 't_free1' \gset
SELECT count(*) FROM gt_claim(ARRAY['t_free']);
SELECT count(*) FROM gt_claim(ARRAY['t_few'], cleanup_ids => ARRAY[:c]);
SELECT object_id, attempt FROM gt_claim(cleanup_ids => ARRAY[:c, :c, -1, NULL]);
SELECT count(*) FROM gt_claim(cleanup_ids => ARRAY[:c]);
-- redrive: some, and all
SELECT count(gt_nack(cleanup_id, attempts, 'dead', '0')) FROM gt_garbage WHERE handler = 't_free' AND state = 'claimed';
SELECT t.fails($$SELECT gt_redrive(max_items => 0)$$), t.state($$SELECT gt_redrive(handler => 'no such handler')$$);
SELECT gt_handler_create('t_free', 'queue', max_attempts => 1);
SELECT gt_redrive(handler => 't_free');
SELECT count(gt_nack(cleanup_id, attempt, 'dead')) FROM gt_claim(ARRAY['t_free'], 10);
SELECT count(*) FROM gt_dead WHERE handler = 't_free';
SELECT gt_redrive(handler => 't_free', max_items => 4);
SELECT gt_redrive(cleanup_ids => ARRAY[:c, :c, -1]) IN (0, 1) AS at_most_once;
SELECT gt_redrive() > 0;
SELECT count(*) FROM gt_dead;
SELECT gt_redrive();
DO $$
BEGIN
	-- all of them go, however slowly
	WHILE EXISTS (SELECT FROM gt_garbage WHERE handler IN ('t_few', 't_slow', 't_free', 't_rate')) LOOP
		PERFORM gt_ack(cleanup_id, attempt) FROM gt_claim(ARRAY['t_few', 't_free', 't_slow', 't_rate'], 100);
		PERFORM gt_ack(cleanup_id, attempts) FROM gt_garbage WHERE handler IN ('t_few', 't_slow', 't_free', 't_rate');
	END LOOP;
END $$;
-- a rate that is no limit
SELECT gt_handler_create('t_much', 'sql', 'SELECT 1', run_as => 'pg_monitor', rate_limit => 2147483647, concurrency => 2147483647);
SELECT gt_release_many(gt_lease_create_many(ARRAY(SELECT 'm' || n FROM generate_series(1, 100) n), cleanup => 't_much'));
CALL gt_reclaim();
SELECT gt_handler_drop('t_much');
SELECT gt_handler_drop('t_few'), gt_handler_drop('t_slow'), gt_handler_drop('t_free'), gt_handler_drop('t_rate');
-- what waits for its time is not looked at to count what runs
SELECT gt_handler_create('t_wait', 'queue', concurrency => 2, grace => '1 hour');
SELECT gt_release_many(gt_lease_create_many(ARRAY(SELECT 'w' || n FROM generate_series(1, 500) n), cleanup => 't_wait'));
SELECT gt_handler_create('t_wait', 'queue', concurrency => 2);
SELECT gt_release_many(gt_lease_create_many(ARRAY['w now 1', 'w now 2', 'w now 3'], cleanup => 't_wait'));
BEGIN;
SELECT coalesce(sum(idx_tup_fetch), 0) AS f FROM pg_stat_xact_all_tables WHERE schemaname = '_garbagetruck' AND relname = 'gt_object' \gset
SELECT count(*) FROM gt_claim(ARRAY['t_wait']);
SELECT count(*) FROM gt_claim(ARRAY['t_wait']);
SELECT sum(idx_tup_fetch) - :f < 100 AS few FROM pg_stat_xact_all_tables WHERE schemaname = '_garbagetruck' AND relname = 'gt_object';
COMMIT;
SELECT count(gt_ack(cleanup_id, attempts)) FROM gt_garbage WHERE handler = 't_wait';
SELECT gt_handler_drop('t_wait');
