-- Lists: pages in the order of ids, whichever way they are found, and what they look at.
\set VERBOSITY terse
CREATE ROLE regress_l_many;
CREATE ROLE regress_l_few;
CREATE ROLE regress_l_both IN ROLE regress_l_many, regress_l_few;
SELECT gt_allow(r) FROM unnest('{regress_l_many,regress_l_few,regress_l_both}'::name[]) r;
-- rows of gt_lease that were fetched by an index so far
CREATE FUNCTION t.fetched() RETURNS bigint LANGUAGE sql AS
	$$SELECT coalesce(sum(idx_tup_fetch), 0)::bigint FROM pg_stat_xact_all_tables WHERE schemaname = '_garbagetruck' AND relname = 'gt_lease'$$;

SET ROLE regress_l_many;
SELECT cardinality(gt_lease_create_many(ARRAY(SELECT 'list ' || n FROM generate_series(1, 6000) n), 'list', 'bulk', '1 hour'));
SET ROLE regress_l_few;
SELECT gt_lease_create('few ' || n, 'few', CASE n % 3 WHEN 0 THEN 'a' WHEN 1 THEN 'b' ELSE 'b/c' END, '1 hour') IS NOT NULL AS made FROM generate_series(1, 7) n;
-- in the order of ids, across services, a page at a time, either way round
SELECT object_id FROM gt_lease_list();
SELECT object_id FROM gt_lease_list(max_rows => 2);
SELECT lease_id AS third FROM gt_lease_list() WHERE object_id = 'few 3' \gset
SELECT object_id FROM gt_lease_list(max_rows => 3, after => :'third');
SELECT object_id FROM gt_lease_list(service_id => 'b');
SELECT object_id FROM gt_lease_list(service_id => 'b', max_rows => 1, after => :'third');
SELECT object_id FROM gt_lease_list(service_id => 'bulk');
SELECT object_id FROM gt_lease_list(object_type => 'list');
SET garbagetruck.newest_first = on;
SELECT object_id FROM gt_lease_list(max_rows => 3);
SELECT object_id FROM gt_lease_list(max_rows => 3, after => :'third');
SELECT object_id FROM gt_lease_list(service_id => 'a');
RESET garbagetruck.newest_first;
-- of a caller that is named: its own service and those below it
SET garbagetruck.caller = 'b';
SELECT object_id FROM gt_lease_list();
SELECT object_id FROM gt_lease_list(service_id => 'b/c', max_rows => 1);
SELECT object_id FROM gt_lease_list(service_id => 'a');
RESET garbagetruck.caller;
RESET ROLE;
-- who has few does not look at those of others, nor who asks for what is rare; what is over an index has once those of earlier runs were seen
CALL gt_reclaim() \g /dev/null
BEGIN;
SELECT t.fetched() AS f \gset
SET ROLE regress_l_few;
SELECT count(*) FROM gt_lease_list();
RESET ROLE;
SELECT t.fetched() - :f < 2000 AS own;
SELECT t.fetched() AS f \gset
SET ROLE regress_l_few;
SELECT count(*) FROM gt_lease_list(object_type => 'list');
RESET ROLE;
SELECT t.fetched() - :f < 2000 AS nothing;
SELECT t.fetched() AS f \gset
SET ROLE regress_l_both;
SELECT count(*) FROM gt_lease_list(service_id => 'b');
SELECT count(*) FROM gt_lease_list(object_type => 'few');
SELECT count(*) FROM gt_lease_list(object_type => 'nothing');
SELECT count(*) FROM gt_lease_list(state => 'expired');
RESET ROLE;
SELECT t.fetched() - :f < 6000 AS rare;
COMMIT;
-- who has many: a page of them, after each other, is all of them
SET ROLE regress_l_both;
WITH RECURSIVE pages AS (SELECT NULL::uuid AS last, 0 AS n UNION ALL
	SELECT p.last, p.n FROM pages, LATERAL (SELECT (array_agg(lease_id ORDER BY lease_id DESC))[1] AS last, count(*)::int AS n
		FROM gt_lease_list(max_rows => 1000, after => pages.last)) p WHERE p.n > 0)
SELECT sum(n) FROM pages;
WITH RECURSIVE pages AS (SELECT NULL::uuid AS last, 0 AS n UNION ALL
	SELECT p.last, p.n FROM pages, LATERAL (SELECT (array_agg(lease_id ORDER BY lease_id DESC))[1] AS last, count(*)::int AS n
		FROM gt_lease_list(service_id => 'bulk', max_rows => 1000, after => pages.last)) p WHERE p.n > 0)
SELECT sum(n) FROM pages;
SELECT count(*), count(DISTINCT lease_id) FROM gt_lease_list(max_rows => 100000);
SELECT count(*) FROM gt_lease_list(object_type => 'list', max_rows => 7000);
SELECT count(*) FROM gt_lease_list(object_type => 'list', state => 'active', max_rows => 7000);

-- those that are over: children with their parent, whoever's it is
SELECT gt_lease_create('over', 'over', 'over', '100 ms') AS p \gset
RESET ROLE;
SELECT gt_lease_create('over child', 'over', 'over', parent => :'p') IS NOT NULL AS child;
SET ROLE regress_l_few;
SELECT gt_lease_create('over own', 'over', 'over', '100 ms') IS NOT NULL AS own;
RESET ROLE;
SELECT gt_lease_create('over not', 'over', 'over', '1 hour') IS NOT NULL AS another;
SELECT pg_sleep(0.2);
SELECT object_id FROM gt_lease_list(state => 'expired', service_id => 'over');
SELECT object_id FROM gt_lease_list(state => 'expired', service_id => 'over', after => :'p', max_rows => 1);
SELECT object_id FROM gt_lease_list(object_type => 'over');
SELECT object_id FROM gt_lease_list(object_type => 'over', state => 'active');
SET ROLE regress_l_few;
SELECT object_id FROM gt_lease_list(state => 'expired');
SELECT object_id FROM gt_lease_list(state => 'active', object_type => 'over');
RESET ROLE;
-- whose parent has ended
SELECT gt_release(:'p');
SELECT object_id FROM gt_lease_list(state => 'expired', object_type => 'over');
-- once over, and renewed in time before that: at their true deadlines
SELECT gt_lease_create('over later', 'over', 'over', '200 ms') AS l \gset
SELECT gt_renew(:'l', '1 hour') IS NOT NULL AS renewed;
SELECT pg_sleep(0.3);
SELECT object_id FROM gt_lease_list(state => 'expired', object_type => 'over');
SELECT count(*) AS released FROM gt_lease_list(object_type => 'over', max_rows => 1000) l, gt_release(l.lease_id) r WHERE r;

-- nor does a forecast: it has one's own, and what of that ends with leases of others
GRANT regress_l_many TO regress_l_few;
SET ROLE regress_l_many;
SELECT gt_lease_create('parent', 'list', 'bulk', '30 min') AS p \gset
SET ROLE regress_l_few;
SELECT gt_lease_create('few child', 'few child', 'a', parent => :'p') IS NOT NULL AS child;
RESET ROLE;
REVOKE regress_l_many FROM regress_l_few;
BEGIN;
SELECT t.fetched() AS f \gset
SET ROLE regress_l_few;
SELECT object_type, sum(leases) FROM gt_forecast('2 hours') GROUP BY 1 ORDER BY 1;
SET ROLE regress_l_both;
SELECT object_type, sum(leases) FROM gt_forecast('1 minute') GROUP BY 1 ORDER BY 1;
RESET ROLE;
SELECT t.fetched() - :f < 1000 AS few;
COMMIT;

SELECT gt_release_many(array_agg(lease_id)) FROM gt_lease_list(service_id => 'bulk', max_rows => 10000);
SELECT gt_release_many(array_agg(lease_id)) FROM gt_lease_list(object_type => 'few', max_rows => 10000);
CALL gt_reclaim() \g /dev/null
SELECT gt_disallow(r) FROM unnest('{regress_l_many,regress_l_few,regress_l_both}'::name[]) r;
DROP OWNED BY regress_l_many, regress_l_few, regress_l_both;
DROP ROLE regress_l_both, regress_l_few, regress_l_many;
