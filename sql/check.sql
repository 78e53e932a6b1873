-- What an operator's mistake leaves: it stops nothing else, is told of, and can be mended.
\set VERBOSITY terse
CREATE ROLE k_user;
SELECT gt_allow('k_user');
CREATE TABLE k_seen (id text);
SET client_min_messages = warning;
SELECT gt_handler_create('k_clean', 'sql', 'INSERT INTO public.k_seen VALUES ($1)');
RESET client_min_messages;
SELECT gt_handler_create('k_queue', 'queue');
SELECT gt_handler_create('k_gone', 'queue');
SELECT * FROM gt_check();
SELECT ok FROM gt_health() WHERE check_name = 'consistency';

-- a handler that is gone: its objects are put aside, and the rest goes on
SELECT gt_release(gt_lease_create('waits', 'k', cleanup => 'k_gone'));
SELECT gt_lease_create(n, 'k', duration => '1 ms', cleanup => h) IS NOT NULL FROM (VALUES ('bad', 'k_gone'), ('good 1', 'k_clean'), ('good 2', 'k_clean')) v(n, h);
SELECT gt_lease_create('held', 'k', cleanup => 'k_gone') AS held \gset
SELECT gt_handler_grant('k_gone', 'k_user');
DELETE FROM _garbagetruck.gt__handler WHERE name = 'k_gone';
CALL gt_reclaim();
SELECT * FROM k_seen ORDER BY 1;
SELECT object_id, handler, state, error FROM gt_garbage WHERE object_type = 'k' ORDER BY object_id;
SELECT kind, object_type, object_id, mended FROM gt_check();
SELECT kind, object_type, object_id, mended FROM gt_check(repair => true);
SELECT gt_release(:'held');
SELECT object_id, state, error FROM gt_garbage WHERE object_type = 'k' ORDER BY object_id;
SELECT gt_redrive(array_agg(cleanup_id)) FROM gt_dead WHERE object_type = 'k';
SET ROLE k_user;
SELECT count(*) FROM gt_garbage WHERE object_type = 'k';
RESET ROLE;
-- the remedy discards those, and not the rows of tables that stand aside, which have no handler either
CREATE TABLE k_rows (id int PRIMARY KEY, at timestamptz);
CREATE INDEX ON k_rows (at);
CREATE TABLE k_refs (id int REFERENCES k_rows);
SELECT gt_ttl_create('k_rows', 'at', wake => false);
INSERT INTO k_rows VALUES (1, '2020-01-01');
INSERT INTO k_refs VALUES (1);
CALL gt_reclaim() \g /dev/null
UPDATE _garbagetruck.gt_object SET state = 'd', due_at = NULL WHERE object_type = 'public.k_rows';
SELECT detail, remedy FROM gt_health() WHERE check_name = 'dead';
SELECT remedy FROM gt_health() WHERE check_name = 'dead' AND detail ~ 'missing' \gexec
SELECT object_type, object_id, state FROM gt_garbage;
DROP TABLE k_refs, k_rows;
CALL gt_reclaim() \g /dev/null
SELECT * FROM gt_check();

-- leases that were deleted, and a count that is wrong
SELECT gt_lease_create('lost', 'k', cleanup => 'k_clean') IS NOT NULL, gt_lease_create('lost plain', 'k') IS NOT NULL;
SELECT gt_lease_create('two', 'k', cleanup => 'k_clean', service_id => s) IS NOT NULL FROM (VALUES ('a'), ('b')) v(s);
DELETE FROM _garbagetruck.gt_lease WHERE object_id LIKE 'lost%' OR (object_id = 'two' AND service_id = 'b');
-- of large tables gt_health looks at a part
VACUUM FULL _garbagetruck.gt_object, _garbagetruck.gt_lease;
SELECT bool_or(ok) AS ok, bool_or(detail ~ 'lost') AS names, max(remedy) AS remedy FROM gt_health() WHERE check_name = 'consistency';
SELECT kind, object_id, regexp_replace(detail, '[0-9a-f-]{36}', 'ID'), mended FROM gt_check() ORDER BY 1, 2;
SELECT kind, object_id, mended FROM gt_check(true) ORDER BY 1, 2;
SELECT * FROM gt_check();
SELECT object_id, handler, state FROM gt_garbage WHERE object_type = 'k';
SELECT gt_release(lease_id) FROM gt_leases WHERE object_id = 'two';
CALL gt_reclaim();
SELECT id, count(*) FROM k_seen GROUP BY 1 ORDER BY 1;

-- objects that were deleted: who releases is told; the worker makes them anew
SELECT gt_lease_create('o' || n, 'k', duration => CASE n WHEN 1 THEN '1 ms' ELSE '1 hour' END::interval, cleanup => 'k_clean') IS NOT NULL FROM generate_series(1, 3) n;
SELECT lease_id AS id FROM gt_leases WHERE object_id = 'o2' \gset
DELETE FROM _garbagetruck.gt_object WHERE object_id LIKE 'o_';
\set VERBOSITY default
SELECT regexp_replace(t.fails(format('SELECT gt_release(%L)', :'id')), '[0-9a-f-]{36}', 'ID');
\set VERBOSITY terse
CALL gt_reclaim();
SELECT kind, object_id, mended FROM gt_check(true) ORDER BY 1, 2;
SELECT gt_release(lease_id) FROM gt_leases WHERE object_id ~ '^o.$' ORDER BY object_id;
CALL gt_reclaim();
SELECT id, count(*) FROM k_seen WHERE id ~ '^o.$' GROUP BY 1 ORDER BY 1;

-- a parent that was deleted, a lease that nobody looks at, ids that are taken
SELECT gt_lease_create('parent', 'k') AS parent \gset
SELECT gt_lease_create('child', 'k', parent => :'parent', cleanup => 'k_clean') IS NOT NULL;
DELETE FROM _garbagetruck.gt_lease WHERE id = :'parent';
DELETE FROM _garbagetruck.gt_object WHERE object_id = 'parent';
SELECT gt_lease_create('unseen', 'k', duration => '1 ms', cleanup => 'k_clean') IS NOT NULL;
UPDATE _garbagetruck.gt_lease SET check_at = check_at + interval '1 year' WHERE object_id = 'unseen';
SELECT gt_release(gt_lease_create('garbage', 'k', cleanup => 'k_queue'));
SELECT gt_lease_create('held', 'k', cleanup => 'k_clean') IS NOT NULL;
DELETE FROM _garbagetruck.gt_lease WHERE object_id = 'held';
-- the id of the garbage is the next; so it would be that of what is made garbage of, if that were mended before
SELECT last_value AS last FROM _garbagetruck.gt__cleanup_id \gset
SELECT setval('_garbagetruck.gt__cleanup_id', :last, false) = :last;
SELECT setval('_garbagetruck.gt__handler_id', max(id) - 1) > 0 FROM _garbagetruck.gt__handler;
SELECT kind, object_id, mended FROM gt_check(true) ORDER BY 1, 2;
SELECT * FROM gt_check();
CALL gt_reclaim();
SELECT id FROM k_seen WHERE id IN ('child', 'unseen') ORDER BY 1;
SELECT count(gt_ack(cleanup_id, attempt)) FROM gt_claim(ARRAY['k_queue']);

-- what others have locked is left as it is
BEGIN;
SELECT gt_lease_create('locked', 'k') IS NOT NULL;
COMMIT;
DELETE FROM _garbagetruck.gt_lease WHERE object_id = 'locked';
BEGIN;
SELECT object_id FROM _garbagetruck.gt_object WHERE object_id = 'locked' FOR UPDATE;
SELECT kind, object_id, mended FROM gt_check(true);
ROLLBACK;
SELECT kind, object_id, mended FROM gt_check(true);

-- neither does it wait for what the caller has locked, rows or tables, and who waits for it
INSERT INTO _garbagetruck.gt__tally VALUES (999999, 1, 0, 0);
BEGIN;
SELECT runs FROM _garbagetruck.gt__tally WHERE handler = 999999 FOR UPDATE;
SELECT kind, mended FROM gt_check(true);
ROLLBACK;
BEGIN;
LOCK TABLE _garbagetruck.gt_lease IN SHARE MODE;
SELECT t.fails('SELECT * FROM gt_check(true)');
ROLLBACK;
SELECT kind, mended FROM gt_check(true);

-- a check of gt_health that fails itself says so, and the others go on
BEGIN;
UPDATE _garbagetruck.gt__handler SET kind = 'nonsense' WHERE name = 'k_queue';
SELECT check_name, ok, detail FROM gt_health() WHERE check_name IN ('dead', 'paused', 'unclaimed', 'place', 'clock', 'settings');
ROLLBACK;

-- an update script that needs a newer library stops
SELECT t.fails($$SELECT _garbagetruck.gt__needs_library('1.0')$$), t.fails($$SELECT _garbagetruck.gt__needs_library('1.1')$$);

-- where nothing can be written it does not mend, whether there is something to mend or not
BEGIN READ ONLY;
SELECT t.state('SELECT * FROM gt_check()'), t.state('SELECT * FROM gt_check(true)');
ROLLBACK;

GRANT USAGE ON SCHEMA t TO k_user;
SET ROLE k_user;
SELECT t.state('SELECT * FROM gt_check()'), t.state('SELECT * FROM gt_check(true)');
RESET ROLE;
SELECT t.state('SELECT * FROM gt_check(NULL)');
SELECT count(*) FROM _garbagetruck.gt_object WHERE object_type = 'k';
SELECT gt_handler_drop('k_clean'), gt_handler_drop('k_queue');
SELECT gt_disallow('k_user');
REVOKE USAGE ON SCHEMA t FROM k_user;
DROP TABLE k_seen;
DROP ROLE k_user;
