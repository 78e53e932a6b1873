-- The columns of the views (more may follow these), the settings with their defaults, the metrics' names, the checks' names.
BEGIN;
SELECT * FROM no_plan();

SELECT is((SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'gt_leases'::regclass AND attnum BETWEEN 1 AND 19), string_to_array('lease_id object_id object_type service_id state created_at renewed_at expires_at duration renewals fence exclusive parent cleanup payload metadata attempts max_attempts retry_delay', ' '), 'gt_leases: columns');
SELECT ok(NOT has_table_privilege('public', 'gt_leases', 'SELECT'), 'gt_leases: not for PUBLIC');
SELECT is((SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'gt_garbage'::regclass AND attnum BETWEEN 1 AND 14), string_to_array('cleanup_id object_type object_id owner handler kind state attempts max_attempts since next_attempt_at claimed_until error payload', ' '), 'gt_garbage: columns');
SELECT ok(NOT has_table_privilege('public', 'gt_garbage', 'SELECT'), 'gt_garbage: not for PUBLIC');
SELECT is((SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'gt_dead'::regclass AND attnum BETWEEN 1 AND 14), string_to_array('cleanup_id object_type object_id owner handler kind state attempts max_attempts since next_attempt_at claimed_until error payload', ' '), 'gt_dead: columns');
SELECT ok(NOT has_table_privilege('public', 'gt_dead', 'SELECT'), 'gt_dead: not for PUBLIC');
SELECT is((SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'gt_handlers'::regclass AND attnum BETWEEN 1 AND 17), string_to_array('name kind command owner run_as max_attempts retry_delay timeout concurrency rate_limit grace paused paused_reason runs failures last_run_at last_error', ' '), 'gt_handlers: columns');
SELECT ok(NOT has_table_privilege('public', 'gt_handlers', 'SELECT'), 'gt_handlers: not for PUBLIC');
SELECT is((SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'gt_history'::regclass AND attnum BETWEEN 1 AND 12), string_to_array('at event object_type object_id cleanup_id attempt handler lease_id service_id lag took error', ' '), 'gt_history: columns');
SELECT ok(NOT has_table_privilege('public', 'gt_history', 'SELECT'), 'gt_history: not for PUBLIC');
SELECT is((SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'gt_workers'::regclass AND attnum BETWEEN 1 AND 8), string_to_array('pid role database state handler since next_due_at crashes', ' '), 'gt_workers: columns');
SELECT ok(NOT has_table_privilege('public', 'gt_workers', 'SELECT'), 'gt_workers: not for PUBLIC');
SELECT ok(NOT has_table_privilege('pg_monitor', c, p), c || ': no ' || p || ' for others') FROM unnest(ARRAY['_garbagetruck.gt_object', '_garbagetruck.gt_lease']) c, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) p;

SELECT is((SELECT context FROM pg_settings WHERE name = 'garbagetruck.databases'), 'sighup', 'databases: on reload');
SELECT is((SELECT boot_val FROM pg_settings WHERE name = 'garbagetruck.databases'), '*', 'databases: default');
SELECT is((SELECT context FROM pg_settings WHERE name = 'garbagetruck.max_workers'), 'sighup', 'max_workers: on reload');
SELECT is((SELECT boot_val FROM pg_settings WHERE name = 'garbagetruck.max_workers'), '4', 'max_workers: default');
SELECT is((SELECT context FROM pg_settings WHERE name = 'garbagetruck.naptime'), 'sighup', 'naptime: on reload');
SELECT is((SELECT (boot_val || unit)::interval FROM pg_settings WHERE name = 'garbagetruck.naptime'), interval '60 s', 'naptime: default');
SELECT is((SELECT context FROM pg_settings WHERE name = 'garbagetruck.batch_size'), 'sighup', 'batch_size: on reload');
SELECT is((SELECT boot_val FROM pg_settings WHERE name = 'garbagetruck.batch_size'), '1000', 'batch_size: default');
SELECT is((SELECT context FROM pg_settings WHERE name = 'garbagetruck.default_lease_duration'), 'sighup', 'default_lease_duration: on reload');
SELECT is((SELECT (boot_val || unit)::interval FROM pg_settings WHERE name = 'garbagetruck.default_lease_duration'), interval '5 min', 'default_lease_duration: default');
SELECT is((SELECT context FROM pg_settings WHERE name = 'garbagetruck.min_lease_duration'), 'sighup', 'min_lease_duration: on reload');
SELECT is((SELECT (boot_val || unit)::interval FROM pg_settings WHERE name = 'garbagetruck.min_lease_duration'), interval '100 ms', 'min_lease_duration: default');
SELECT is((SELECT context FROM pg_settings WHERE name = 'garbagetruck.max_lease_duration'), 'sighup', 'max_lease_duration: on reload');
SELECT is((SELECT (boot_val || unit)::interval FROM pg_settings WHERE name = 'garbagetruck.max_lease_duration'), interval '30 d', 'max_lease_duration: default');
SELECT is((SELECT context FROM pg_settings WHERE name = 'garbagetruck.regrant_delay'), 'sighup', 'regrant_delay: on reload');
SELECT is((SELECT boot_val FROM pg_settings WHERE name = 'garbagetruck.regrant_delay'), '0', 'regrant_delay: default');
SELECT is((SELECT context FROM pg_settings WHERE name = 'garbagetruck.restart_grace'), 'postmaster', 'restart_grace: on restart');
SELECT is((SELECT (boot_val || unit)::interval FROM pg_settings WHERE name = 'garbagetruck.restart_grace'), interval '10 min', 'restart_grace: default');
SELECT is((SELECT context FROM pg_settings WHERE name = 'garbagetruck.max_leases_per_service'), 'sighup', 'max_leases_per_service: on reload');
SELECT is((SELECT boot_val FROM pg_settings WHERE name = 'garbagetruck.max_leases_per_service'), '0', 'max_leases_per_service: default');
SELECT is((SELECT context FROM pg_settings WHERE name = 'garbagetruck.max_payload'), 'sighup', 'max_payload: on reload');
SELECT is((SELECT boot_val::bigint * CASE unit WHEN 'B' THEN 1 WHEN 'kB' THEN 1024 WHEN '8kB' THEN 8192 WHEN 'MB' THEN 1048576 END FROM pg_settings WHERE name = 'garbagetruck.max_payload'), 65536::bigint, 'max_payload: default');
SELECT is((SELECT context FROM pg_settings WHERE name = 'garbagetruck.history'), 'sighup', 'history: on reload');
SELECT is((SELECT boot_val FROM pg_settings WHERE name = 'garbagetruck.history'), 'errors', 'history: default');
SELECT is((SELECT context FROM pg_settings WHERE name = 'garbagetruck.history_retention'), 'sighup', 'history_retention: on reload');
SELECT is((SELECT (boot_val || unit)::interval FROM pg_settings WHERE name = 'garbagetruck.history_retention'), interval '7 d', 'history_retention: default');
SELECT is((SELECT context FROM pg_settings WHERE name = 'garbagetruck.renewals'), 'sighup', 'renewals: on reload');
SELECT ok((SELECT boot_val IN ('buffered', 'durable') FROM pg_settings WHERE name = 'garbagetruck.renewals'), 'renewals: buffered, or durable until the buffer is in');
SELECT ok((SELECT enumvals @> '{buffered,durable}' FROM pg_settings WHERE name = 'garbagetruck.renewals'), 'renewals: both words');
SELECT is((SELECT context FROM pg_settings WHERE name = 'garbagetruck.renewal_buffer_size'), 'postmaster', 'renewal_buffer_size: on restart');
SELECT is((SELECT boot_val::bigint * CASE unit WHEN 'B' THEN 1 WHEN 'kB' THEN 1024 WHEN '8kB' THEN 8192 WHEN 'MB' THEN 1048576 END FROM pg_settings WHERE name = 'garbagetruck.renewal_buffer_size'), 33554432::bigint, 'renewal_buffer_size: default');
SELECT is((SELECT context FROM pg_settings WHERE name = 'garbagetruck.identity'), 'postmaster', 'identity: on restart');
SELECT is((SELECT boot_val FROM pg_settings WHERE name = 'garbagetruck.identity'), '', 'identity: default');

SELECT ok((SELECT setting = 'off' AND context = 'internal' FROM pg_settings WHERE name = 'garbagetruck.in_cleanup') OR current_setting('garbagetruck.in_cleanup') = 'off', 'in_cleanup is off outside of a run');
SELECT ok(EXISTS (SELECT FROM gt_metrics() WHERE name IN ('garbagetruck_' || m, 'garbagetruck_' || m || '_bucket')) OR m IN ('cleanups_total', 'cleanup_seconds', 'renewal_margin_ratio'), 'metric ' || m)
FROM unnest(string_to_array('leases garbage dead leases_created_total leases_renewed_total leases_released_total leases_expired_total cleanups_total reclaim_lag_seconds cleanup_seconds oldest_overdue_seconds stalled workers worker_slots_missing_total handler_paused renewal_margin_ratio renewal_buffer_entries', ' ')) m;
SELECT is((SELECT count(*) FROM gt_metrics() WHERE name NOT LIKE 'garbagetruck\_%' OR help IS NULL OR kind NOT IN ('counter', 'gauge', 'histogram')), 0::bigint, 'each metric has its prefix, kind and help');
SELECT is((SELECT count(*) FROM gt_metrics() WHERE (kind = 'counter') <> (name LIKE '%\_total')), 0::bigint, 'counters end in _total');
SELECT set_has($$SELECT check_name FROM gt_health()$$, $$VALUES ('preloaded'), ('launcher'), ('workers'), ('overdue'), ('dead'), ('paused'), ('suspended'), ('place'), ('unclaimed'), ('slots'), ('history'), ('rights'), ('consistency'), ('capacity'), ('renewal_buffer'), ('settings'), ('errors'), ('clock'), ('snapshots')$$, 'gt_health has its checks');
SELECT is((SELECT count(*) FROM gt_health() WHERE NOT ok AND coalesce(remedy, '') = ''), 0::bigint, 'each finding comes with a remedy');
SELECT is((SELECT count(*) FROM gt_health() WHERE ok IS NULL OR detail IS NULL), 0::bigint, 'and each check with a detail');

SELECT * FROM finish();
ROLLBACK;
