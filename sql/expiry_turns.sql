-- What one role has that is over stands in front of nobody else: roles are served in turn.
CREATE ROLE t_many;
CREATE ROLE t_one;
SELECT gt_allow('t_many'), gt_allow('t_one');
CREATE VIEW t_left AS SELECT count(*) FILTER (WHERE object_id LIKE 'many%') AS many, count(*) FILTER (WHERE object_id LIKE 'one%') AS one
	FROM _garbagetruck.gt_lease WHERE object_type LIKE 't_turn%';

-- one lease between hundreds of another's
SET ROLE t_many;
SELECT cardinality(gt_lease_create_many(array_agg('many before ' || n), 't_turn', duration => '100 ms')) FROM generate_series(1, 200) n;
SET ROLE t_one;
SELECT gt_lease_create('one', 't_turn', duration => '100 ms') IS NOT NULL AS one;
SET ROLE t_many;
SELECT cardinality(gt_lease_create_many(array_agg('many after ' || n), 't_turn', duration => '100 ms')) FROM generate_series(1, 200) n;
RESET ROLE;
SELECT pg_sleep(0.2);
CALL gt_reclaim(20);
TABLE t_left;
-- of its own it is the oldest, and what ended last, of which each pass has half
SELECT object_id ~ 'before' AS before, count(*) BETWEEN 185 AND 195 AS most FROM gt_leases WHERE object_type = 't_turn' GROUP BY 1 ORDER BY 1;
CALL gt_reclaim();
TABLE t_left;

-- children
SET ROLE t_many;
SELECT gt_lease_create('many', 't_turn') AS many \gset
SELECT cardinality(gt_lease_create_many(array_agg('many child ' || n), 't_turn_child', parent => :'many')) FROM generate_series(1, 200) n;
SELECT gt_release(:'many');
SET ROLE t_one;
SELECT gt_lease_create('one', 't_turn') AS one \gset
SELECT gt_lease_create('one child', 't_turn_child', parent => :'one') IS NOT NULL AS child;
SELECT gt_release(:'one');
RESET ROLE;
CALL gt_reclaim(20);
TABLE t_left;
CALL gt_reclaim();
TABLE t_left;

-- more roles than a pass may end leases: the next one goes on with the others
SELECT count(*) FROM (SELECT set_config('role', CASE n % 2 WHEN 0 THEN 't_many' ELSE 't_one' END, true),
	gt_lease_create(CASE n % 2 WHEN 0 THEN 'many ' ELSE 'one ' END || n, 't_turn', duration => '100 ms') FROM generate_series(1, 10) n) l;
SELECT pg_sleep(0.2);
CALL gt_reclaim(1);
CALL gt_reclaim(1);
TABLE t_left;
CALL gt_reclaim();
TABLE t_left;

DROP VIEW t_left;
SELECT gt_disallow('t_many'), gt_disallow('t_one');
DROP ROLE t_many, t_one;
