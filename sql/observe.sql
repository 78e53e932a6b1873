-- What is seen: metrics, health, forecast, history, and by whom.
\set VERBOSITY terse
CREATE ROLE o_app;
CREATE ROLE o_owner;
CREATE ROLE o_stranger;
CREATE ROLE o_monitor;
GRANT pg_monitor TO o_monitor;
SELECT gt_allow('o_app'), gt_allow('o_owner', 'handler'), gt_allow('o_stranger', 'handler');
SET ROLE o_owner;
SELECT gt_handler_create('o_queue', 'queue', 'command', max_attempts => 1);
SELECT gt_handler_grant('o_queue', 'o_app');
SET ROLE o_app;
SELECT gt_lease_create('seen ' || n, cleanup => 'o_queue', payload => '{"p": 1}', metadata => '{"m": 1}', duration => '1 day') IS NOT NULL
FROM generate_series(1, 3) n;
SELECT gt_release(lease_id) FROM gt_leases WHERE object_id IN ('seen 1', 'seen 2') ORDER BY object_id;
SET ROLE o_owner;
SELECT gt_nack(cleanup_id, attempt, 'error text') FROM gt_claim(max_items => 1);
RESET ROLE;

-- each sees what is his; monitors see all, without commands, payloads, metadata and error texts
PREPARE seen AS SELECT CASE current_user WHEN session_user THEN 'superuser' ELSE current_user END AS who,
	(SELECT count(*) FROM gt_leases WHERE object_id LIKE 'seen%') AS leases, (SELECT bool_or(payload IS NOT NULL OR metadata IS NOT NULL) FROM gt_leases) AS inside,
	(SELECT count(*) FROM gt_garbage) AS garbage, (SELECT count(*) FROM gt_dead) AS dead,
	(SELECT bool_or(payload IS NOT NULL) FROM gt_garbage) AS payload, (SELECT max(error) FROM gt_dead) AS error,
	(SELECT command FROM gt_handlers WHERE name = 'o_queue') AS command, (SELECT last_error FROM gt_handlers WHERE name = 'o_queue') AS last_error,
	(SELECT count(*) FROM gt_history WHERE object_id LIKE 'seen%') AS events, (SELECT max(error) FROM gt_history WHERE object_id LIKE 'seen%') AS event_error,
	t.state('SELECT * FROM gt_workers') AS workers, t.state('SELECT * FROM gt_metrics()') AS metrics, t.state('SELECT * FROM gt_forecast()') AS forecast;
GRANT USAGE ON SCHEMA t TO PUBLIC;
SET ROLE o_app; EXECUTE seen;
SET ROLE o_owner; EXECUTE seen;
SET ROLE o_stranger; EXECUTE seen;
SET ROLE o_monitor; EXECUTE seen;
RESET ROLE; EXECUTE seen;

-- forecast: one's own, or all
SET ROLE o_app;
SELECT object_type, handler, leases, minute = date_trunc('minute', minute) AS whole, minute - gt_clock() BETWEEN '23 hours' AND '24 hours' AS at
FROM gt_forecast('2 days');
SELECT count(*) FROM gt_forecast('1 hour');
SELECT t.fails($$SELECT * FROM gt_forecast('-1 s')$$), t.state('SELECT * FROM gt_forecast(NULL)');
RESET ROLE;

-- health: always these rows; what is wrong has a remedy
SELECT check_name FROM gt_health() WITH ORDINALITY AS h(check_name, ok, detail, remedy, n) GROUP BY 1 ORDER BY min(n);
SELECT count(*) FROM gt_health() WHERE ok IS NULL OR detail IS NULL OR ok <> (remedy IS NULL);
SELECT check_name, detail, remedy FROM gt_health() WHERE NOT ok AND check_name IN ('dead', 'paused', 'suspended', 'place', 'slots', 'history');
SELECT gt_pause('o_queue');
SET ROLE o_owner;
SELECT check_name, detail, remedy FROM gt_health() WHERE NOT ok AND check_name IN ('dead', 'paused');
SET ROLE o_stranger;
SELECT check_name, detail FROM gt_health() WHERE NOT ok AND check_name IN ('dead', 'paused');
RESET ROLE;
SELECT gt_resume('o_queue');
SELECT gt_pause();
SELECT check_name, replace(regexp_replace(detail, ' at .*', ''), '"' || session_user || '"', '(superuser)') AS detail, remedy FROM gt_health() WHERE NOT ok AND check_name = 'paused';
SELECT gt_resume();

-- a create that is refused leaves the gauges as they were
SELECT value AS garbage FROM gt_metrics() WHERE name = 'garbagetruck_garbage' \gset
SELECT gt_release(gt_lease_create('gauged', cleanup => 'o_queue'));
SELECT sqlstate FROM gt_lease_grant_each('[{"object_id": "gauged", "parent": "00000000-0000-7000-8000-000000000000"}]');
SELECT value - :garbage AS more FROM gt_metrics() WHERE name = 'garbagetruck_garbage';

-- metrics: names, kinds and labels are fixed
SELECT name, kind, array(SELECT jsonb_object_keys(labels) ORDER BY 1) AS labels, count(DISTINCT help)
FROM gt_metrics() WHERE name <> 'garbagetruck_renewal_margin_ratio' GROUP BY 1, 2, 3 ORDER BY min(name) COLLATE "C", 2, 3;
SELECT labels ->> 'result' AS result, value FROM gt_metrics() WHERE name = 'garbagetruck_cleanups_total' AND labels ->> 'handler' = 'o_queue' ORDER BY 1;
-- histograms are cumulative and end with what they count
SELECT bool_and(value >= before) AS grows FROM (SELECT value, lag(value, 1, 0::float8) OVER (PARTITION BY labels ->> 'handler' ORDER BY (labels ->> 'le')::float8) AS before
	FROM gt_metrics() WHERE name LIKE '%_bucket') m;
SELECT (SELECT value FROM gt_metrics() WHERE name = 'garbagetruck_reclaim_lag_seconds_bucket' AND labels ->> 'le' = '+Inf') =
	(SELECT value FROM gt_metrics() WHERE name = 'garbagetruck_reclaim_lag_seconds_count') AS whole;
-- the gauges follow commits, not savepoints
SELECT value AS g FROM gt_metrics() WHERE name = 'garbagetruck_garbage' \gset
SELECT value AS l FROM gt_metrics() WHERE name = 'garbagetruck_leases' \gset
SELECT (SELECT count(*) FROM gt_leases) = :l AS leases, (SELECT count(*) FROM gt_garbage) = :g AS garbage;
BEGIN;
SELECT gt_release(gt_lease_create('gauge 1', cleanup => 'o_queue'));
SAVEPOINT s;
SELECT gt_release(gt_lease_create('gauge 2', cleanup => 'o_queue'));
ROLLBACK TO s;
SELECT gt_lease_create('gauge 3') IS NOT NULL;
RELEASE s;
COMMIT;
SELECT name, value - CASE WHEN name ~ 'leases' THEN :l ELSE :g END AS more FROM gt_metrics() WHERE name IN ('garbagetruck_leases', 'garbagetruck_garbage') ORDER BY 1;
-- and so do the counters
CREATE VIEW t.counters AS SELECT name, value FROM gt_metrics() WHERE name ~ '_leases_(created|renewed|released)_total' OR name = 'garbagetruck_reclaim_lag_seconds_count'
	OR name = 'garbagetruck_cleanups_total' AND labels ->> 'handler' = 'o_queue' AND labels ->> 'result' = 'cleaned';
SELECT jsonb_object_agg(name, value) AS before FROM t.counters \gset
BEGIN;
SAVEPOINT s;
SELECT count(gt_release(gt_lease_create('counted ' || n, cleanup => 'o_queue'))), count(gt_renew(gt_lease_create('counted'))) FROM generate_series(1, 5) n;
SELECT count(gt_ack(cleanup_id, attempt)) FROM gt_claim(ARRAY['o_queue'], 3);
ROLLBACK TO s;
SELECT gt_release(gt_lease_create('counted', cleanup => 'o_queue'));
SAVEPOINT t;
SELECT gt_renew(gt_lease_create('counted 2')) IS NOT NULL AS renewed;
SAVEPOINT u;
SELECT count(gt_ack(cleanup_id, attempt)) FROM gt_claim(cleanup_ids => ARRAY(SELECT cleanup_id FROM gt_garbage WHERE object_id = 'counted'));
RELEASE t;
COMMIT;
SELECT name, value - (:'before'::jsonb ->> name)::float8 AS more FROM t.counters ORDER BY 1;
DROP VIEW t.counters;

-- the smallest margin of a service
SELECT gt_renew(gt_lease_create('margin', service_id => 'o_service', duration => '1 hour')) IS NOT NULL;
SELECT labels, value > 0.9 AND value <= 1 AS fresh FROM gt_metrics() WHERE name = 'garbagetruck_renewal_margin_ratio' AND labels ->> 'service_id' = 'o_service';

-- history: what went wrong and what was done about it
SELECT gt_redrive(handler => 'o_queue');
SELECT gt_nack(cleanup_id, attempt, 'wrong again') FROM gt_claim(ARRAY['o_queue'], cleanup_ids => ARRAY(SELECT cleanup_id FROM gt_garbage WHERE error = 'error text'));
SELECT gt_ack(cleanup_id, attempts) FROM gt_dead WHERE handler = 'o_queue';
SELECT event, object_id, attempt, handler, error FROM gt_history WHERE handler = 'o_queue' ORDER BY at;

DO $$
BEGIN
	PERFORM gt_release(lease_id, keep => true) FROM gt_leases WHERE object_id ~ '^(seen|gauge|margin|counted)';
	PERFORM gt_ack(cleanup_id, attempt) FROM gt_claim(ARRAY['o_queue'], 100);
END $$;
SELECT gt_handler_drop('o_queue');
SELECT gt_disallow('o_app'), gt_disallow('o_owner', 'handler'), gt_disallow('o_stranger', 'handler');
REVOKE USAGE ON SCHEMA t FROM PUBLIC;
DROP ROLE o_app, o_owner, o_stranger, o_monitor;
