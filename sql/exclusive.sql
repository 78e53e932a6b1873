-- Exclusive leases and fences.
\set VERBOSITY terse
SELECT gt_lease_create('lock 1', exclusive => true, service_id => 'holder') AS a \gset
SELECT t.fails($$SELECT gt_lease_create('lock 1', exclusive => true)$$);
SELECT t.fails($$SELECT gt_lease_create('lock 1')$$);
-- DETAIL names the holder's service and the time to retry
DO $$
DECLARE
	detail text;
BEGIN
	PERFORM gt_lease_create('lock 1');
EXCEPTION WHEN SQLSTATE 'GT005' THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RAISE NOTICE 'holder %, time %', detail ~ 'holder', detail ~ '\d\d:\d\d:\d\d';
END $$;
SELECT gt_release(:'a');
SELECT gt_lease_create('lock 1') AS a \gset
SELECT t.fails($$SELECT gt_lease_create('lock 1', exclusive => true)$$);
SELECT gt_lease_create('lock 1') IS NOT NULL AS shared;

-- the fence of the holder, and who is out
SELECT lease_id AS a, fence AS f FROM gt_lease_grant('lock 2', exclusive => true, duration => '100 ms') \gset
SELECT t.until_over(:'a');
SELECT gt_fence_check('lock 2', 'custom', :f) AS over;
SELECT lease_id AS b, fence AS g FROM gt_lease_grant('lock 2', exclusive => true) \gset
SELECT :g > :f AS grows, gt_fence_check('lock 2', 'custom', :f) AS old, gt_fence_check('lock 2', 'custom', :g) AS new,
	gt_fence_check('lock 2', 'custom', :g + 1) AS future, gt_fence_check('lock 2', 'blob_storage', :g) AS other_type;
SELECT gt_fence(:'b') = :g AS same;
SELECT gt_fence_check('no such object', 'custom', 1);
SELECT t.fails($$SELECT gt_fence_check(NULL, 'custom', 1)$$), t.fails($$SELECT gt_fence_check('lock 2', 'custom', NULL)$$);
-- who passes over an expired lease ends it: the old holder learns it
SELECT t.fails(format('SELECT gt_renew(%L)', :'a'));
SELECT gt_release(:'a');
SELECT gt_release(:'b');
SELECT gt_fence_check('lock 2', 'custom', :g) AS released;

-- a plain create passes over an expired exclusive lease as well
SELECT gt_lease_create('lock 3', exclusive => true, duration => '100 ms') AS a \gset
SELECT t.until_over(:'a');
SELECT gt_lease_create('lock 3') IS NOT NULL AS created;
SELECT t.fails(format('SELECT gt_renew(%L)', :'a'));
-- and the expiry is durable in the same transaction, or not at all
SELECT gt_lease_create('lock 4', exclusive => true, duration => '100 ms') AS a \gset
SELECT t.until_over(:'a');
BEGIN;
SELECT gt_lease_create('lock 4') IS NOT NULL AS created;
ROLLBACK;
SELECT t.fails(format('SELECT gt_renew(%L)', :'a'));

-- an expired plain lease does not stop an exclusive one
SELECT gt_lease_create('lock 5', duration => '100 ms') AS a \gset
SELECT t.until_over(:'a');
SELECT gt_lease_create('lock 5', exclusive => true) IS NOT NULL AS created;

-- the form that tries without an error
SELECT n, sqlstate FROM gt_lease_grant_each('[{"object_id": "lock 5", "exclusive": true}, {"object_id": "lock 8", "exclusive": true}]');

-- after an expiry a lease keeps exclusive ones from the object for its own time, or that of the setting
SELECT gt_lease_create('lock 9', exclusive => true, duration => '100 ms', regrant_delay => '1 hour', service_id => 'late') AS a \gset
SELECT t.until_over(:'a');
SELECT n, sqlstate, message, holder, retry_after BETWEEN '59 minutes' AND '1 hour' AS retry_after
FROM gt_lease_grant_each('[{"object_id": "lock 9", "exclusive": true}]');
SELECT t.fails($$SELECT gt_lease_create('lock 9', exclusive => true)$$);
SELECT gt_lease_create('lock 9') IS NOT NULL AS shared;
-- of a plain lease, too; the later time wins; nothing after a release
SELECT lease_id AS a FROM gt_lease_grant('lock 10', duration => '100 ms', regrant_delay => '1 hour') \gset
SELECT lease_id AS b FROM gt_lease_grant('lock 10', duration => '100 ms', regrant_delay => '1 minute') \gset
SELECT t.until_over(:'a'), t.until_over(:'b');
CALL gt_reclaim() \g /dev/null
SELECT retry_after > '59 minutes' AS later FROM gt_lease_grant_each('[{"object_id": "lock 10", "exclusive": true}]');
SELECT gt_release(gt_lease_create('lock 11', exclusive => true, regrant_delay => '1 hour')), gt_lease_create('lock 11', exclusive => true) IS NOT NULL AS created;
SELECT t.fails(format('SELECT gt_lease_create(%L, regrant_delay => %L)', 'lock 14', d)) FROM unnest(ARRAY['-1 s', '31 days']) d;
SELECT gt_lease_create_many(ARRAY['lock 14', 'lock 15'], duration => '100 ms', regrant_delay => '1 hour') AS ids \gset
SELECT t.until_over(id) FROM unnest(:'ids'::uuid[]) id;
SELECT n, sqlstate FROM gt_lease_grant_each('[{"object_id": "lock 14", "exclusive": true}, {"object_id": "lock 15", "exclusive": true}]');
-- of a child whose parent expired, whether or not that has been acted upon; of one whose parent was released nothing
SELECT gt_lease_create('lock 17') AS q \gset
BEGIN;
SELECT gt_lease_create('lock 18', duration => '120 ms') AS r \gset
SELECT gt_lease_create('lock 18 child', parent => :'r', regrant_delay => '1 hour', exclusive => true) IS NOT NULL AS child;
COMMIT;
SELECT gt_lease_create('lock 17 child', parent => :'q', regrant_delay => '1 hour', exclusive => true) IS NOT NULL AS child;
SELECT t.until_over(:'r');
SELECT gt_release(:'q');
BEGIN;
SELECT n, sqlstate FROM gt_lease_grant_each('[{"object_id": "lock 18 child", "exclusive": true}, {"object_id": "lock 17 child", "exclusive": true}]');
ROLLBACK;
SELECT gt_lease_create('lock 18', exclusive => true) IS NOT NULL AS parent_ended;
SELECT n, sqlstate FROM gt_lease_grant_each('[{"object_id": "lock 18 child", "exclusive": true}, {"object_id": "lock 17 child", "exclusive": true}]');
