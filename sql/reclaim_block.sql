-- gt_reclaim(): by itself it wants a session with nothing else open; in a block, a function or a DO it does what is one's own.
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS garbagetruck;
CREATE ROLE regress_b_app;
CREATE ROLE regress_b_other;
CREATE ROLE regress_b_lease;
CREATE SCHEMA rb;
GRANT USAGE ON SCHEMA rb TO PUBLIC;
SELECT gt_allow(r), gt_allow(r, 'handler') FROM unnest('{regress_b_app,regress_b_other}'::name[]) r;
SELECT gt_allow('regress_b_lease');
CREATE TABLE rb.ran (n serial, what text);
GRANT INSERT, SELECT ON rb.ran TO PUBLIC;
GRANT USAGE ON SEQUENCE rb.ran_n_seq TO PUBLIC;
CREATE FUNCTION rb.run(id text) RETURNS void LANGUAGE sql AS
	$$INSERT INTO rb.ran (what) VALUES (format('%s: %s, %s, %s', id, current_user, session_user, current_setting('is_superuser')))$$;
CREATE FUNCTION rb.ran(OUT what text) RETURNS SETOF text SECURITY DEFINER LANGUAGE sql AS
	$$WITH d AS (DELETE FROM rb.ran RETURNING n, what) SELECT what FROM d ORDER BY what COLLATE "C"$$;
CREATE FUNCTION rb.until_over(id uuid) RETURNS void LANGUAGE plpgsql AS
	$$BEGIN WHILE (SELECT expires_at FROM gt_lease_get(id)) > gt_clock() LOOP PERFORM pg_sleep(0.005); END LOOP; END$$;
SET ROLE regress_b_app;
SELECT gt_handler_create('b_app', 'sql', 'SELECT rb.run($1)');
SELECT gt_handler_grant('b_app', 'regress_b_lease');
SET ROLE regress_b_other;
SELECT gt_handler_create('b_other', 'sql', 'SELECT rb.run($1)');
SELECT gt_handler_grant('b_other', 'regress_b_app');
RESET ROLE;
SELECT gt_handler_create('b_super', 'sql', 'SELECT rb.run($1)');
SELECT gt_handler_create('b_as', 'sql', 'SELECT rb.run($1)', run_as => 'regress_b_app');
SELECT gt_handler_grant('b_as', 'regress_b_app');
RESET client_min_messages;

-- what is due: garbage of each, and leases that have run out
SET ROLE regress_b_app;
SELECT count(gt_release(gt_lease_create('app, own', 'rb', cleanup => 'b_app')));
SELECT count(gt_release(gt_lease_create('app, handler of other', 'rb', cleanup => 'b_other')));
SELECT count(gt_release(gt_lease_create('app, handler of a superuser', 'rb', cleanup => 'b_as')));
SELECT gt_lease_create('app, run out', 'rb', cleanup => 'b_app', duration => '100 ms') AS app \gset
SET ROLE regress_b_other;
SELECT count(gt_release(gt_lease_create('other, own', 'rb', cleanup => 'b_other')));
SELECT gt_lease_create('other, run out', 'rb', cleanup => 'b_other', duration => '100 ms') AS other \gset
SELECT rb.until_over(:'other');
SET ROLE regress_b_app;
SELECT rb.until_over(:'app');
BEGIN;
CALL gt_reclaim();
SELECT * FROM rb.ran();
RESET ROLE;
SELECT object_id, 'lease' AS what FROM gt_leases WHERE object_type = 'rb' UNION ALL SELECT object_id, 'garbage' FROM gt_garbage WHERE object_type = 'rb' ORDER BY 1;
ROLLBACK;
-- the same in a DO and in a function, and in a test that makes its own and rolls back
SET ROLE regress_b_app;
DO $$ DECLARE done bigint; BEGIN CALL gt_reclaim(NULL, done); RAISE NOTICE 'done %', done; RAISE NOTICE '%', (SELECT string_agg(what, '; ' ORDER BY n) FROM rb.ran); RAISE 'undo it'; END $$;
BEGIN;
SELECT gt_lease_create('test', 'rb', cleanup => 'b_app', duration => '100 ms') AS test \gset
SELECT rb.until_over(:'test');
SAVEPOINT s;
CALL gt_reclaim(1);
ROLLBACK TO s;
CALL gt_reclaim();
SELECT * FROM rb.ran();
ROLLBACK;
-- who may: 'handler' in a block only, 'lease' never
CALL gt_reclaim();
SET ROLE regress_b_lease;
CALL gt_reclaim();
BEGIN;
CALL gt_reclaim();
ROLLBACK;
RESET ROLE;
-- not as somebody else than the caller
CREATE FUNCTION rb.wrapper() RETURNS void SECURITY DEFINER LANGUAGE plpgsql AS $$ DECLARE done bigint; BEGIN CALL gt_reclaim(NULL, done); END $$;
SET ROLE regress_b_other;
SELECT rb.wrapper();
RESET ROLE;

-- an error that the caller catches leaves nothing behind: what was chosen is there for the next
SET client_min_messages = warning;
SELECT gt_handler_create('b_slow', 'sql', 'SELECT pg_sleep(CASE WHEN current_setting(''statement_timeout'') = ''0'' THEN 0 ELSE 60 END)', timeout => '2 minutes');
RESET client_min_messages;
SELECT gt_release(gt_lease_create('slow', 'rb', cleanup => 'b_slow'));
SET statement_timeout = '200ms';
DO $$ DECLARE done bigint; BEGIN BEGIN CALL gt_reclaim(NULL, done); EXCEPTION WHEN query_canceled THEN RAISE NOTICE 'caught'; END; END $$;
RESET statement_timeout;
SELECT object_id, state, attempts FROM gt_garbage WHERE handler = 'b_slow';

-- by itself: nothing may be open
PREPARE look AS SELECT * FROM gt_garbage;
CREATE TEMPORARY TABLE mine (id int);
CALL gt_reclaim();
DROP TABLE mine;
BEGIN;
DECLARE mine CURSOR WITH HOLD FOR SELECT 1;
COMMIT;
CALL gt_reclaim();
CLOSE mine;
SELECT pg_advisory_lock(4711);
CALL gt_reclaim();
SELECT pg_advisory_unlock(4711);
SET ROLE regress_b_app;
SELECT setseed(0.5);
RESET ROLE;
CALL gt_reclaim();
SELECT replace(what, ' ' || session_user || ',', ' (superuser),') AS what FROM rb.ran();
SELECT current_user = session_user AS self, current_setting('is_superuser') AS is_superuser;

-- SET ROLE is not lost by it, and handlers are session_user all the same
SELECT gt_allow('regress_b_lease', 'admin');
SET ROLE regress_b_other;
SELECT gt_release(gt_lease_create('once more', 'rb', cleanup => 'b_other'));
SET ROLE regress_b_lease;
CALL gt_reclaim();
SELECT current_user;
SELECT * FROM rb.ran();
RESET ROLE;
-- also where the role that was set is a superuser: a handler is none
SET ROLE regress_b_other;
SELECT gt_release(gt_lease_create('by a superuser', 'rb', cleanup => 'b_other'));
SELECT set_config('role', session_user, false) = session_user AS set;
CALL gt_reclaim();
SELECT current_user = session_user AS self, current_setting('role') = session_user AS set,
	current_setting('is_superuser') AS is_superuser;
SELECT * FROM rb.ran();
RESET ROLE;

-- cursors that a handler leaves open are closed; those of the caller are not touched
SET client_min_messages = warning;
CREATE FUNCTION rb.leave(id text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'DECLARE leftover CURSOR FOR SELECT 1'; END $$;
SELECT gt_handler_create('b_leave', 'sql', 'SELECT rb.leave($1)');
RESET client_min_messages;
SELECT gt_release(gt_lease_create('leave', 'rb', cleanup => 'b_leave'));
BEGIN;
DECLARE mine CURSOR FOR SELECT n FROM generate_series(1, 3) n;
FETCH mine;
CALL gt_reclaim();
SELECT name FROM pg_cursors;
FETCH mine;
COMMIT;
SELECT count(*) FROM gt_garbage WHERE object_type = 'rb';

DEALLOCATE look;
SELECT count(gt_handler_drop(name)) FROM gt_handlers WHERE name LIKE 'b\_%';
SET client_min_messages = warning;
DROP SCHEMA rb CASCADE;
DROP OWNED BY regress_b_app, regress_b_other, regress_b_lease;
DROP ROLE regress_b_app, regress_b_other, regress_b_lease;
