-- A run: as its role, in a restricted operation, on its own settings; it leaves nothing behind.
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS garbagetruck;
RESET client_min_messages;
CREATE ROLE regress_r_app;
CREATE ROLE regress_r_as;
GRANT regress_r_as TO regress_r_app;
CREATE SCHEMA regress_r AUTHORIZATION regress_r_app;
GRANT USAGE ON SCHEMA regress_r TO regress_r_as;
SELECT gt_allow('regress_r_app'), gt_allow('regress_r_app', 'handler'), gt_allow('regress_r_as');
SET search_path = regress_r, public;
SET ROLE regress_r_app;
CREATE TABLE file (id bigint PRIMARY KEY, path text);
CREATE TABLE seen (n serial, what text);
GRANT ALL ON TABLE seen, file TO regress_r_as;
GRANT ALL ON SEQUENCE seen_n_seq TO regress_r_as;
CREATE FUNCTION note(what text) RETURNS void LANGUAGE sql AS 'INSERT INTO regress_r.seen (what) VALUES ($1)';

-- registers a handler that calls a function with this body, and makes garbage of the ids given
CREATE FUNCTION try(body text, VARIADIC ids text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE OR REPLACE FUNCTION regress_r.run(id text) RETURNS void LANGUAGE plpgsql AS %L', body);
	PERFORM gt_handler_create('r_run', 'sql', 'SELECT run($1)', timeout => '1 second');
	PERFORM gt_release_many(array_agg(gt_lease_create(id, 'r', cleanup => 'r_run', max_attempts => 1))) FROM unnest(ids) id;
END $$;
RESET ROLE;
-- what became of them
CREATE FUNCTION outcome(OUT id text, OUT error text) RETURNS SETOF record LANGUAGE sql AS $$
	WITH gone AS (SELECT object_id, error, gt_ack(cleanup_id, attempts) FROM gt_dead WHERE object_type = 'r')
	SELECT object_id, error FROM gone ORDER BY 1
$$;

-- who, where, how: and the same for each run, whatever the one before has set
SELECT try($$ BEGIN
	PERFORM regress_r.note(format('%s: user %s, path %s, %s, %s, row_security %s, in_cleanup %s, work_mem %s', id, current_user,
		current_setting('search_path'), current_setting('transaction_isolation'), current_setting('session_replication_role'),
		current_setting('row_security'), current_setting('garbagetruck.in_cleanup'), current_setting('work_mem')));
	PERFORM set_config('work_mem', '77MB', false), set_config('search_path', 'public', true), set_config('row_security', 'off', false);
END $$, '1', '2') FROM (SELECT set_config('role', 'regress_r_app', false)) r;
RESET ROLE;
SET work_mem = '5MB';
SET row_security = off;
SET session_replication_role = replica;
CALL gt_reclaim();
SELECT * FROM outcome();
SELECT what FROM seen ORDER BY what;
TRUNCATE seen;
SHOW work_mem;
SHOW row_security;
SHOW session_replication_role;
SHOW search_path;
SHOW garbagetruck.in_cleanup;
RESET work_mem;
RESET row_security;
RESET session_replication_role;

-- what a run may not do
SET ROLE regress_r_app;
SELECT try($$ BEGIN
	CASE id
		WHEN 'a temporary table' THEN CREATE TEMPORARY TABLE t ();
		WHEN 'b set role' THEN SET ROLE regress_r_as;
		WHEN 'c reset role' THEN RESET ROLE;
		WHEN 'd set_config role' THEN PERFORM set_config('role', 'none', true);
		WHEN 'e session authorization' THEN RESET SESSION AUTHORIZATION;
		WHEN 'f commit' THEN COMMIT;
		WHEN 'g listen' THEN LISTEN c;
		WHEN 'h prepare' THEN EXECUTE 'PREPARE p AS SELECT 1';
		WHEN 'i cursor' THEN EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT 1';
		WHEN 'j in_cleanup' THEN PERFORM set_config('garbagetruck.in_cleanup', 'off', true);
		WHEN 'k reclaim' THEN EXECUTE 'CALL gt_reclaim()';
		WHEN 'l copy' THEN EXECUTE 'COPY regress_r.file TO PROGRAM ''true''';
		WHEN 'm our tables' THEN DELETE FROM _garbagetruck.gt_object;
		WHEN 'n allow' THEN PERFORM gt_allow('regress_r_app', 'admin');
		WHEN 'o pause' THEN PERFORM gt_pause();
	END CASE;
END $$, 'a temporary table', 'b set role', 'c reset role', 'd set_config role', 'e session authorization', 'f commit',
	'g listen', 'h prepare', 'i cursor', 'j in_cleanup', 'k reclaim', 'l copy', 'm our tables', 'n allow', 'o pause');
RESET ROLE;
CALL gt_reclaim();
SELECT id, substring(error FROM '\(SQLSTATE .....\)$') FROM outcome();
SELECT current_user = session_user AS self;

-- nobody else sets in_cleanup
SET garbagetruck.in_cleanup = on;
SELECT set_config('garbagetruck.in_cleanup', 'on', true);

-- a failure undoes its own run alone; other functions of ours may be called
SET ROLE regress_r_app;
SELECT try($$ BEGIN
	PERFORM regress_r.note(id), gt_lease_create('nested ' || id, 'r_nested');
	IF id = '2' THEN RAISE EXCEPTION 'no % for you', id USING ERRCODE = 'P0666'; END IF;
END $$, '1', '2', '3');
RESET ROLE;
CALL gt_reclaim();
SELECT * FROM outcome();
SELECT what FROM seen ORDER BY what;
TRUNCATE seen;
SELECT object_id FROM gt_leases WHERE object_type = 'r_nested' ORDER BY 1;
SELECT count(gt_release(lease_id)) FROM gt_leases WHERE object_type = 'r_nested';

-- a run may lease, end or acknowledge its own object: that is what counts
SET ROLE regress_r_app;
SELECT try($$ BEGIN
	CASE id
		WHEN 'ack' THEN PERFORM gt_ack(cleanup_id, attempts + 1) FROM gt_garbage WHERE object_type = 'r' AND object_id = id;
		WHEN 'again' THEN PERFORM gt_release(gt_lease_create(id, 'r', cleanup => 'r_run', max_attempts => 1));
		WHEN 'keep' THEN PERFORM gt_release(gt_lease_create(id, 'r'), keep => true);
		WHEN 'lease' THEN PERFORM gt_lease_create(id, 'r');
		WHEN 'renew' THEN PERFORM gt_renew(gt_lease_create(id, 'r')); RAISE 'and fail';
	END CASE;
END $$, 'ack', 'again', 'keep', 'lease', 'renew');
BEGIN;
CALL gt_reclaim();
SELECT object_id, state, attempts, error FROM gt_garbage WHERE object_type = 'r' ORDER BY 1;
SELECT object_id, state FROM gt_leases WHERE object_type = 'r' ORDER BY 1;
ROLLBACK;
RESET ROLE;
SELECT count(gt_release(gt_lease_create(object_id, 'r'), keep => true)) FROM gt_garbage WHERE object_type = 'r';

-- deferred triggers and constraints fire inside the run, as its role
SET ROLE regress_r_app;
CREATE FUNCTION deferred() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	PERFORM regress_r.note(format('deleted %s as %s, in_cleanup %s', OLD.id, current_user, current_setting('garbagetruck.in_cleanup')));
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER deferred AFTER DELETE ON file DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION deferred();
CREATE TABLE part (file bigint REFERENCES file DEFERRABLE INITIALLY DEFERRED);
INSERT INTO file SELECT n FROM generate_series(1, 4) n;
INSERT INTO part VALUES (2);
SELECT try($$ BEGIN
	IF id = '3' THEN SET CONSTRAINTS ALL DEFERRED; END IF;
	DELETE FROM regress_r.file f WHERE f.id = run.id::bigint;
END $$, '1', '2', '3', 'x');
RESET ROLE;
CALL gt_reclaim();
SELECT * FROM outcome();
SELECT what FROM seen ORDER BY what;
TRUNCATE seen;
-- in a block: what the caller has deferred fires before, and afterwards constraints are as they were defined
SET ROLE regress_r_app;
BEGIN;
DELETE FROM file WHERE id = 4;
SELECT try($$ BEGIN PERFORM regress_r.note('run as ' || current_user || ', in_cleanup ' || current_setting('garbagetruck.in_cleanup')); END $$, '4');
CALL gt_reclaim();
SELECT what FROM seen ORDER BY n;
INSERT INTO part VALUES (5);
INSERT INTO file VALUES (5);
COMMIT;
RESET ROLE;
SELECT * FROM outcome();
TRUNCATE seen;

-- session advisory locks do not outlive the run; at top level there must be none of the caller's, in a block those stay
SET ROLE regress_r_app;
SELECT try($$ BEGIN
	PERFORM pg_advisory_lock(2), pg_advisory_lock(2), pg_advisory_lock_shared(3), pg_advisory_xact_lock(4);
	IF id = '2' THEN RAISE 'with locks'; END IF;
END $$, '1', '2');
SELECT pg_advisory_lock(1);
RESET ROLE;
CALL gt_reclaim();
SET ROLE regress_r_app;
BEGIN;
CALL gt_reclaim();
COMMIT;
RESET ROLE;
SELECT * FROM outcome();
SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() ORDER BY 1;
SELECT pg_advisory_unlock(1);
SET ROLE regress_r_app;
SELECT try($$ BEGIN PERFORM pg_advisory_lock(2); END $$, '1');
RESET ROLE;
CALL gt_reclaim();
SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() ORDER BY 1;

-- the timeout: also where the run catches its cancellation, and where it waits
SET ROLE regress_r_app;
SELECT try($$ BEGIN
	PERFORM regress_r.note(id);
	IF id = 'caught' THEN
		BEGIN PERFORM pg_sleep(600); EXCEPTION WHEN query_canceled THEN NULL; END;
	ELSE
		PERFORM pg_sleep(600);
	END IF;
END $$, 'caught', 'sleeping');
RESET ROLE;
CALL gt_reclaim();
SELECT * FROM outcome();
SELECT count(*) FROM seen;

-- parameters: inferred types, values from their text, domains, null
SET ROLE regress_r_app;
CREATE DOMAIN positive AS bigint NOT NULL CHECK (VALUE > 0);
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TABLE typed (id positive, mood mood, payload json, label text, lease text, service varchar(5), fence numeric, attempt smallint, cleanup text);
SELECT gt_handler_create('r_typed', 'sql', 'INSERT INTO typed VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)');
SELECT gt_release_many(array_agg(gt_lease_create(id, type, 'svc', cleanup => 'r_typed', payload => payload, max_attempts => 1)))
FROM (VALUES ('7', 'happy', '{"a": 1}'::jsonb), ('8', 'sad', NULL), ('-1', 'sad', NULL), ('nine', 'sad', NULL), ('9', 'bored', NULL)) v (id, type, payload);
SELECT gt_handler_create('r_json', 'sql', 'INSERT INTO typed (id, label) SELECT $1, $3->>''label'' WHERE $4 ? ''key''');
SELECT gt_release(gt_lease_create('10', 'r', cleanup => 'r_json', payload => '{"label": "from payload"}', metadata => '{"key": 1}'));
-- a bigint stays one, also where an integer would be inferred
SELECT gt_handler_create('r_wide', 'sql', 'INSERT INTO typed (id, label, attempt) SELECT $1, ''wide'', $7 % 1 WHERE $7 > 0 AND $9 <> 0 AND $8 = 1', max_attempts => 1);
SELECT gt_release(gt_lease_create('14', 'r', cleanup => 'r_wide'));
SELECT gt_handler_create('r_batch', 'sql_batch', 'INSERT INTO typed (id, label, payload, service, attempt)
	SELECT i::bigint, t, to_json(p), s, a FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9) u (i, t, p, m, l, s, f, a, c)');
SELECT gt_release_many(array_agg(gt_lease_create(n::text, 'r', 'svc', cleanup => 'r_batch', payload => to_jsonb(n)))) FROM generate_series(11, 13) n;
RESET ROLE;
CALL gt_reclaim();
SELECT id, mood, payload, label, lease IS NOT NULL AS lease, service, fence > 0 AS fence, attempt, cleanup IS NOT NULL AS cleanup FROM typed ORDER BY id;
SELECT object_id, error FROM gt_dead WHERE handler = 'r_typed' ORDER BY 1;
SELECT count(gt_ack(cleanup_id, attempts)) FROM gt_dead WHERE handler = 'r_typed';

-- the plan follows the tables
SET ROLE regress_r_app;
DROP TABLE part;
DROP TRIGGER deferred ON file;
SELECT gt_handler_create('r_plan', 'sql', 'DELETE FROM file WHERE id = $1', max_attempts => 1);
SELECT gt_release(gt_lease_create('1', 'r', cleanup => 'r_plan'));
RESET ROLE;
CALL gt_reclaim();
ALTER TABLE file ALTER id TYPE text;
INSERT INTO file VALUES ('two'), ('three');
SET ROLE regress_r_app;
SELECT gt_release_many(array_agg(gt_lease_create(id, 'r', cleanup => 'r_plan', max_attempts => 2, retry_delay => '0'))) FROM file;
RESET ROLE;
CALL gt_reclaim();
SELECT id FROM file;
SELECT * FROM outcome();
-- a type that is dropped with it does no harm
CREATE TYPE kind AS ENUM ('a', 'b');
CREATE TABLE kinds (kind kind);
GRANT ALL ON kinds TO regress_r_app;
SET ROLE regress_r_app;
SELECT gt_handler_create('r_kind', 'sql', 'DELETE FROM kinds WHERE kind = $1', max_attempts => 1);
SELECT gt_release(gt_lease_create('a', 'r', cleanup => 'r_kind'));
RESET ROLE;
INSERT INTO kinds VALUES ('a'), ('b');
CALL gt_reclaim();
ALTER TABLE kinds ALTER kind TYPE text;
DROP TYPE kind;
SET ROLE regress_r_app;
SELECT gt_release(gt_lease_create('b', 'r', cleanup => 'r_kind'));
RESET ROLE;
CALL gt_reclaim();
SELECT count(*) FROM kinds;
DROP TABLE kinds;
DROP TABLE file;
SET ROLE regress_r_app;
SELECT gt_release(gt_lease_create('4', 'r', cleanup => 'r_plan', max_attempts => 1));
RESET ROLE;
CALL gt_reclaim();
SELECT * FROM outcome();

-- another role: its rights, not the registrar's
SET ROLE regress_r_app;
CREATE TABLE private (id text);
INSERT INTO private VALUES ('1');
SELECT gt_handler_create('r_as', 'sql', 'INSERT INTO seen (what) SELECT current_user || '' '' || $1', run_as => 'regress_r_as');
SELECT gt_handler_create('r_denied', 'sql', 'DELETE FROM private WHERE id = $1', run_as => 'regress_r_as', max_attempts => 1);
SELECT gt_release(gt_lease_create('1', 'r', cleanup => 'r_as')), gt_release(gt_lease_create('2', 'r', cleanup => 'r_denied'));
RESET ROLE;
CALL gt_reclaim();
SELECT what FROM seen WHERE what LIKE 'regress%';
SELECT * FROM outcome();

-- roles that are not what they were: suspended, until they are again
ALTER ROLE regress_r_as RENAME TO regress_r_renamed;
SET ROLE regress_r_app;
SELECT gt_release(gt_lease_create('3', 'r', cleanup => 'r_as'));
RESET ROLE;
CALL gt_reclaim();
SELECT object_id, state, attempts FROM gt_garbage WHERE handler = 'r_as';
SELECT name, paused, regexp_replace(paused_reason, 'OID \d+', 'OID ...') AS paused_reason FROM gt_handlers WHERE name = 'r_as';
CREATE ROLE regress_r_as;
CALL gt_reclaim();
SELECT object_id, state, attempts FROM gt_garbage WHERE handler = 'r_as';
DROP ROLE regress_r_as;
ALTER ROLE regress_r_renamed RENAME TO regress_r_as;
CALL gt_reclaim();
SELECT count(*) FROM gt_garbage WHERE handler = 'r_as';
-- one whose owner is gone is nobody's but a superuser's, who registers it anew: for the role of that name, or for himself
CREATE ROLE regress_r_gone;
GRANT USAGE ON SCHEMA regress_r TO regress_r_gone;
GRANT INSERT ON seen TO regress_r_gone;
GRANT USAGE ON SEQUENCE seen_n_seq TO regress_r_gone;
SELECT gt_allow('regress_r_gone'), gt_allow('regress_r_gone', 'handler');
SET ROLE regress_r_gone;
SELECT gt_handler_create('r_gone', 'sql', 'INSERT INTO regress_r.seen (what) VALUES (current_user || $1)'), gt_pause('r_gone');
SELECT gt_release(gt_lease_create(' left this', 'r', cleanup => 'r_gone'));
RESET ROLE;
DROP OWNED BY regress_r_gone;
DROP ROLE regress_r_gone;
SELECT gt_resume('r_gone');
SELECT name, owner, paused, regexp_replace(paused_reason, 'OID \d+', 'OID ...') AS paused_reason FROM gt_handlers WHERE name = 'r_gone';
CREATE ROLE regress_r_gone;
SELECT gt_allow('regress_r_gone'), gt_allow('regress_r_gone', 'handler');
SET ROLE regress_r_gone;
SELECT gt_handler_create('r_gone', 'sql', 'SELECT 1');
SELECT count(*) FROM gt_garbage;
RESET ROLE;
GRANT USAGE ON SCHEMA regress_r TO regress_r_gone;
GRANT INSERT ON seen TO regress_r_gone;
GRANT USAGE ON SEQUENCE seen_n_seq TO regress_r_gone;
SELECT gt_handler_create('r_gone', 'sql', 'INSERT INTO regress_r.seen (what) VALUES (current_user || $1)');
SELECT name, owner, paused FROM gt_handlers WHERE name = 'r_gone';
CALL gt_reclaim();
SELECT what FROM seen WHERE what LIKE '%left this';
DROP OWNED BY regress_r_gone;
DROP ROLE regress_r_gone;
SELECT gt_handler_create('r_gone', 'queue');
SELECT name, owner = session_user AS mine, paused FROM gt_handlers WHERE name = 'r_gone';

SELECT count(gt_handler_drop(name)) FROM _garbagetruck.gt__handler WHERE name LIKE 'r\_%';
RESET search_path;
SET client_min_messages = warning;
DROP OWNED BY regress_r_app, regress_r_as CASCADE;
DROP ROLE regress_r_app, regress_r_as;
