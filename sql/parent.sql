-- Children: one heartbeat for many objects.
\set VERBOSITY terse
SELECT gt_lease_create('parent 1', duration => '1 hour', cleanup => 't_clean') AS p \gset
SELECT gt_lease_create('parent 1 child 1', cleanup => 't_clean', parent => :'p') AS c \gset
SELECT gt_lease_create('parent 1 child 2', cleanup => 't_clean', parent => :'p') AS d \gset
SELECT c.parent = :'p' AS parent, c.state, c.duration, c.expires_at = p.expires_at AS deadline FROM gt_lease_get(:'c') c, gt_lease_get(:'p') p;
SELECT ttl > '59 minutes' AS ttl, expires_at IS NOT NULL AS expires FROM gt_lease_grant('parent 1 child 3', parent => :'p');
SELECT gt_renew(:'p', '2 hours') IS NOT NULL AS renewed;
SELECT c.expires_at = p.expires_at AS deadline FROM gt_lease_get(:'c') c, gt_lease_get(:'p') p;

SELECT t.fails(format($$SELECT gt_lease_create('x', parent => %L, duration => '1 hour')$$, :'p'));
SELECT t.fails(format($$SELECT gt_lease_create('x', parent => %L)$$, :'c'));
SELECT t.fails(format($$SELECT gt_renew(%L)$$, :'c'));

-- a child may be released alone
SELECT gt_release(:'d');
CALL gt_reclaim() \g /dev/null
SELECT t.cleaned();
-- when the parent ends, its children do
SELECT gt_release(:'p');
SELECT count(*) FROM gt_lease_list(state => 'active') WHERE object_id LIKE 'parent 1%';
SELECT t.state(format($$SELECT gt_renew(%L)$$, :'c')) IN ('GT001', 'GT002') AS over;
SELECT t.fails(format($$SELECT gt_lease_create('x', parent => %L)$$, :'p'));
CALL gt_reclaim() \g /dev/null
SELECT t.cleaned();
SELECT * FROM t.rows('parent 1');

-- by expiry: over the instant the parent is
SELECT gt_lease_create('parent 2', duration => '100 ms') AS p \gset
SELECT gt_lease_create('parent 3', duration => '1 hour') AS q \gset
BEGIN;
SELECT gt_lease_create('parent 4', duration => '130 ms', cleanup => 't_clean') AS r \gset
SELECT gt_lease_create('parent 4 child', cleanup => 't_clean', parent => :'r') AS c \gset
COMMIT;
SELECT t.until_over(:'r');
SELECT state FROM gt_lease_get(:'c');
SELECT t.fails(format($$SELECT gt_renew(%L)$$, :'c'));
SELECT t.until_over(:'p');
SELECT t.fails(format($$SELECT gt_lease_create('x', parent => %L)$$, :'p'));
CALL gt_reclaim() \g /dev/null
SELECT t.fails(format($$SELECT gt_lease_create('x', parent => %L)$$, :'p'));
SELECT t.cleaned();

-- keep of a parent keeps the parent's own object only
SELECT gt_lease_create('parent 5', cleanup => 't_clean') AS p \gset
SELECT gt_lease_create('parent 5 child', cleanup => 't_clean', parent => :'p') AS c \gset
SELECT gt_release(:'p', keep => true);
CALL gt_reclaim() \g /dev/null
SELECT t.cleaned();

-- ten thousand
SELECT gt_lease_create('parent 6') AS p \gset
SELECT cardinality(gt_lease_create_many(array_agg('parent 6 child ' || n), cleanup => 't_clean', parent => :'p')) FROM generate_series(1, 10000) n;
SELECT gt_release(:'p');
CALL gt_reclaim() \g /dev/null
SELECT count(*), count(DISTINCT object_id) FROM t.cleaned;
DELETE FROM t.cleaned;
SELECT * FROM t.rows('parent 6');

-- an object with a lease of its own outlives the child
SELECT gt_lease_create('parent 7') AS p \gset
SELECT gt_lease_create('parent 7 child', cleanup => 't_clean', parent => :'p') AS c \gset
SELECT gt_lease_create('parent 7 child', cleanup => 't_clean') AS own \gset
SELECT gt_release(:'p');
CALL gt_reclaim() \g /dev/null
SELECT t.cleaned();
SELECT gt_release(:'own');
CALL gt_reclaim() \g /dev/null
SELECT t.cleaned();

-- a child whose parent has ended, ended by somebody before the worker comes by: when its parent did, and the grace holds
SELECT gt_handler_create('t_grace', 'queue', grace => '1 hour');
SELECT gt_lease_create('parent 8') AS p \gset
SELECT gt_lease_create('parent 8 child', cleanup => 't_grace', parent => :'p', request_key => 'parent 8') IS NOT NULL AS child;
BEGIN;
SELECT gt_release(:'p');
SELECT gt_lease_create('parent 8 other', request_key => 'parent 8') IS NOT NULL AS other;
COMMIT;
SELECT object_id, since BETWEEN gt_clock() - interval '1 minute' AND gt_clock() AS since,
	next_attempt_at BETWEEN gt_clock() + interval '59 minutes' AND gt_clock() + interval '1 hour' AS due FROM gt_garbage WHERE handler = 't_grace';
-- nothing tells of its end: as of now
SELECT gt_lease_create('parent 9') AS p \gset
SELECT gt_lease_create('parent 9 child', cleanup => 't_grace', parent => :'p', request_key => 'parent 9') IS NOT NULL AS child;
SELECT gt_release(:'p');
DELETE FROM _garbagetruck.gt__orphan;
SELECT gt_lease_create('parent 9 other', request_key => 'parent 9') IS NOT NULL AS other;
SELECT object_id, since BETWEEN gt_clock() - interval '1 minute' AND gt_clock() AS since FROM gt_garbage WHERE handler = 't_grace' ORDER BY 1;
-- a parent that is kept keeps its own object only, whoever ends the child
SELECT gt_lease_create('parent 10', cleanup => 't_grace') AS p \gset
SELECT gt_lease_create('parent 10 child', cleanup => 't_grace', parent => :'p', exclusive => true) IS NOT NULL AS child;
SELECT gt_release(:'p', keep => true);
SELECT gt_lease_create('parent 10 child', exclusive => true) AS c \gset
SELECT gt_release(:'c');
SELECT object_id FROM gt_garbage WHERE object_id LIKE 'parent 10%';
SELECT count(gt_release(lease_id)) FROM gt_leases WHERE object_id LIKE 'parent 9%' OR object_id LIKE 'parent 8%';
SELECT count(gt_ack(cleanup_id, attempt)) FROM gt_claim(ARRAY['t_grace'], cleanup_ids => ARRAY(SELECT cleanup_id FROM gt_garbage WHERE handler = 't_grace'));
SELECT gt_handler_drop('t_grace');
