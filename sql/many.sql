-- gt_lease_create_many and gt_lease_grant_each.
\set VERBOSITY terse
-- in input order; equal elements get the same lease
SELECT gt_lease_create_many(ARRAY['many b', 'many a', 'many b', 'many c'], 'temporary_file', 's', '1 hour', 't_clean',
	'{"p": 1}', '{"m": 1}', max_attempts => 2, retry_delay => '3 seconds') AS ids \gset
SELECT (:'ids'::uuid[])[1] = (:'ids'::uuid[])[3] AS folded, cardinality(:'ids'::uuid[]);
SELECT g.object_id, g.object_type, g.service_id, g.duration, g.cleanup, g.payload, g.metadata, g.max_attempts, g.retry_delay
FROM unnest(:'ids'::uuid[]) WITH ORDINALITY i(id, n), gt_lease_get(id) g ORDER BY n;
SELECT * FROM t.rows('many');
SELECT gt_lease_create_many('{}');

-- all or nothing
SELECT gt_lease_create('many x', exclusive => true) IS NOT NULL AS x;
SELECT t.fails($$SELECT gt_lease_create_many(ARRAY['many d', 'many x', 'many e'])$$);
SELECT t.fails($$SELECT gt_lease_create_many(ARRAY['many d', NULL])$$);
SELECT t.fails($$SELECT gt_lease_create_many(ARRAY['many d', ''])$$);
SELECT t.fails($$SELECT gt_lease_create_many(NULL)$$);
SELECT * FROM t.rows('many d');

SELECT gt_lease_create_many(ARRAY['many f', 'many g'], exclusive => true) IS NOT NULL AS exclusive;
SELECT gt_lease_create('many parent') AS p \gset
SELECT gt_lease_create_many(ARRAY['many h', 'many i'], parent => :'p') AS ids \gset
SELECT bool_and(parent = :'p') AS children FROM unnest(:'ids'::uuid[]) id, gt_lease_get(id);
SELECT cardinality(gt_lease_create_many(array_agg('many n ' || n), cleanup => 't_clean')) FROM generate_series(1, 3000) n;
SELECT gt_release_many(array_agg(lease_id)) FROM gt_leases WHERE object_id LIKE 'many n %';
CALL gt_reclaim() \g /dev/null
SELECT count(*), count(DISTINCT object_id) FROM t.cleaned;
DELETE FROM t.cleaned;

-- each is 00000 or fails by itself
SELECT n, sqlstate, t.mask(message) AS message, lease_id IS NOT NULL AS lease, fence IS NOT NULL AS fence, expires_at IS NOT NULL AS expires, created
FROM gt_lease_grant_each('[{"object_id": "each 1"},
	{"object_id": "each 2", "object_type": "temporary_file", "service_id": "s", "duration": "1 hour", "cleanup": "t_clean",
		"payload": {"a": 1}, "metadata": {"b": 2}, "exclusive": true, "request_key": "k", "max_attempts": 2, "retry_delay": "1 s"},
	{"object_id": "many x"},
	{"object_id": "each 3", "cleanup": "no such handler"},
	{"object_id": "each 4", "colour": "red"},
	{"object_type": "custom"},
	{"object_id": "each 5", "duration": "31 days"},
	{"object_id": "each 6", "duration": "not an interval"},
	{"object_id": "each 7", "parent": "not a uuid"},
	{"object_id": "each 8", "exclusive": "perhaps"},
	{"object_id": "each 2", "object_type": "temporary_file", "service_id": "s", "request_key": "k", "exclusive": true},
	{"object_id": "each 2", "object_type": "temporary_file", "service_id": "s", "request_key": "k"},
	{"object_id": "each 8", "object_type": "temporary_file", "service_id": "s", "request_key": "k", "exclusive": true},
	17,
	null,
	{"object_id": "each 9"}]');
SELECT object_id, object_type, service_id, duration, cleanup, payload, metadata, exclusive, max_attempts, retry_delay
FROM gt_leases WHERE object_id LIKE 'each%' ORDER BY 1;
SELECT count(*) FROM gt_lease_grant_each('[]');
SELECT t.fails($$SELECT gt_lease_grant_each('{}')$$);
SELECT t.fails($$SELECT gt_lease_grant_each(NULL)$$);
SELECT t.fails($$SELECT gt_lease_grant_each((SELECT jsonb_agg(jsonb_build_object('object_id', 'z' || n)) FROM generate_series(1, 1001) n))$$);
SELECT count(*), count(DISTINCT lease_id), min(n), max(n), bool_and(sqlstate = '00000') AS fine
FROM gt_lease_grant_each((SELECT jsonb_agg(jsonb_build_object('object_id', 'z' || n)) FROM generate_series(1, 1000) n));
-- of the same object the first is served first; null is NULL; what is wrong is named
SELECT n, sqlstate, message FROM gt_lease_grant_each((SELECT jsonb_agg(jsonb_build_object('object_id', 'first', 'exclusive', true, 'metadata', n) ORDER BY n)
	FROM generate_series(1, 20) n)) WHERE n < 3;
SELECT metadata FROM gt_leases WHERE object_id = 'first';
SELECT n, sqlstate, message FROM gt_lease_grant_each('[{"object_id": "null", "object_type": null},
	{"object_id": "null", "exclusive": null},
	{"object_id": "null", "service_id": null, "duration": null, "cleanup": null, "payload": null, "metadata": null, "parent": null,
		"request_key": null, "max_attempts": null, "retry_delay": null},
	{"object_id": "bad", "exclusive": "yes"},
	{"object_id": "bad", "max_attempts": 1.5},
	{"object_id": "bad", "max_attempts": "3"},
	{"object_id": "bad", "max_attempts": 99999999999},
	{"object_id": "bad", "duration": 5},
	{"object_id": ["bad"]},
	[]]');

-- who holds it and how long still, in columns; what is refused leaves no object behind
SELECT n, sqlstate, holder, retry_after BETWEEN '59 minutes' AND '1 hour' AS retry_after, created FROM gt_lease_grant_each('[
	{"object_id": "held 1", "exclusive": true, "service_id": "first", "duration": "1 hour"},
	{"object_id": "held 1", "exclusive": true, "service_id": "second"},
	{"object_id": "held 1"},
	{"object_id": "held 2", "cleanup": "t_clean", "regrant_delay": "31 days"},
	{"object_id": "held 2", "parent": "00000000-0000-7000-8000-000000000000"},
	{"object_id": "held 2", "service_id": "third"}]');
SELECT * FROM t.rows('held 2');
SELECT cleanup, service_id FROM gt_leases WHERE object_id = 'held 2';
DO $$
DECLARE
	hint text;
BEGIN
	PERFORM gt_lease_create('held 1');
EXCEPTION WHEN SQLSTATE 'GT005' THEN
	GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
	RAISE NOTICE '%', hint;
END $$;

-- a batch that names one object twice, and the one that it was refused on first
SELECT gt_lease_create('held 3', exclusive => true, duration => '100 ms') AS a \gset
SELECT gt_lease_create('held 4', exclusive => true, duration => '100 ms', request_key => 'old') AS b \gset
SELECT t.until_over(:'a'), t.until_over(:'b');
SELECT n, sqlstate, created, holder FROM gt_lease_grant_each('[
	{"object_id": "held 5", "request_key": "old"},
	{"object_id": "held 4", "service_id": "w"},
	{"object_id": "held 3", "exclusive": true, "service_id": "x"},
	{"object_id": "held 3"},
	{"object_id": "held 5", "request_key": "old"}]');
SELECT object_id, service_id = 'pg_regress/many' AS mine FROM gt_leases WHERE object_id IN ('held 3', 'held 4', 'held 5') ORDER BY 1;

-- the row of a new object is written once, before its lease, and is right at once
BEGIN;
SELECT count(*) FROM unnest(gt_lease_create_many(ARRAY['once 1', 'once 2'], 'written'));
SELECT count(*), bool_and(o.cmin::text::int < l.cmin::text::int AND o.fence = l.fence AND o.leases = 1) AS once
FROM _garbagetruck.gt_object o JOIN _garbagetruck.gt_lease l USING (object_type, object_id) WHERE object_type = 'written';
ROLLBACK;
