-- What counts as an attempt: gt_snooze, must_affect, conflicts; and what gt_history tells of a run.
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS garbagetruck;
CREATE SCHEMA oc;
CREATE TABLE oc.thing (id int PRIMARY KEY);
CREATE TABLE oc.ran (n serial, id text, attempt int);
-- the SQLSTATE of a call, or '00000'
CREATE FUNCTION oc.state(sql text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN EXECUTE sql; RETURN '00000'; EXCEPTION WHEN OTHERS THEN RETURN sqlstate || ' ' || sqlerrm; END $$;
CREATE FUNCTION oc.waits(object text, OUT state text, OUT attempts int, OUT wait text, OUT error text) LANGUAGE sql AS $$
	SELECT g.state, g.attempts, CASE WHEN g.next_attempt_at - gt_clock() > '2 days' THEN 'days' WHEN g.next_attempt_at - gt_clock() > '50 minutes' THEN 'hours'
		ELSE 'soon' END, g.error FROM gt_garbage g WHERE object_id = $1 $$;
CREATE FUNCTION oc.make(handler text, VARIADIC ids text[]) RETURNS void LANGUAGE sql AS
	$$ SELECT gt_release(gt_lease_create(id, 'oc', cleanup => handler)) FROM unnest(ids) id $$;
CREATE FUNCTION oc.forget() RETURNS bigint LANGUAGE sql AS
	$$ SELECT count(gt_release(gt_lease_create(object_id, 'oc'), keep => true)) FROM gt_garbage WHERE object_type = 'oc' $$;

-- not now: the run is rolled back at its end, whatever it caught; the last call counts
CREATE FUNCTION oc.snooze(id text, attempt int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO oc.ran (id, attempt) VALUES (id, attempt);
	CASE id
		WHEN 'plain' THEN PERFORM gt_snooze('3 days', 'the partner is closed');
		WHEN 'no reason' THEN PERFORM gt_snooze('1 hour');
		WHEN 'twice' THEN PERFORM gt_snooze('3 days', 'first'), gt_snooze('1 hour', 'second');
		WHEN 'caught' THEN
			BEGIN PERFORM gt_snooze('1 hour', 'caught'); RAISE 'no'; EXCEPTION WHEN OTHERS THEN NULL; END;
		WHEN 'raised' THEN PERFORM gt_snooze('1 hour', 'raised'); RAISE 'no';
		WHEN 'short' THEN PERFORM gt_snooze('99 ms');
		WHEN 'long' THEN PERFORM gt_snooze('31 days');
		WHEN 'nil' THEN PERFORM gt_snooze(NULL);
		WHEN 'long reason' THEN PERFORM gt_snooze('1 hour', repeat('ä', 5000));
		ELSE NULL;
	END CASE;
END $$;
SELECT gt_handler_create('oc_snooze', 'sql', 'SELECT oc.snooze($1, $8)', max_attempts => 2);
RESET client_min_messages;
SELECT oc.make('oc_snooze', 'plain', 'no reason', 'twice', 'caught', 'raised', 'short', 'long', 'nil', 'long reason', 'now');
CALL gt_reclaim() \g /dev/null
SELECT id, attempt FROM oc.ran;
SELECT id, state, attempts, wait, left(error, 60) AS error FROM unnest('{plain,no reason,twice,caught,raised,short,long,nil,long reason}'::text[]) id, oc.waits(id);
SELECT octet_length(error) FROM oc.waits('long reason');
SELECT runs, failures FROM gt_handlers WHERE name = 'oc_snooze';
SELECT count(*) FROM gt_history WHERE object_type = 'oc' AND object_id IN ('plain', 'no reason', 'twice', 'caught', 'raised');
SELECT oc.forget();
DELETE FROM oc.ran;
-- for all of a statement
SET client_min_messages = warning;
SELECT gt_handler_create('oc_batch', 'sql_batch', 'SELECT oc.snooze(i, a) FROM unnest($1, $8) u (i, a)');
RESET client_min_messages;
SELECT oc.make('oc_batch', 'a', 'plain', 'b');
CALL gt_reclaim() \g /dev/null
SELECT id, state, attempts, wait, error FROM unnest('{a,plain,b}'::text[]) id, oc.waits(id);
SELECT count(*) FROM oc.ran;
SELECT oc.forget();
-- for everybody, and within a run only
SELECT oc.state($$SELECT gt_snooze('1 hour')$$);
CREATE ROLE regress_oc;
SET ROLE regress_oc;
SELECT gt_snooze('1 hour');
RESET ROLE;
DROP ROLE regress_oc;

-- a run that affects nothing has failed, where that is asked for
SET client_min_messages = warning;
CREATE FUNCTION oc.did(id text) RETURNS boolean LANGUAGE sql AS $$SELECT CASE id WHEN 'true' THEN true WHEN 'false' THEN false END$$;
CREATE FUNCTION oc.make_affect(command text) RETURNS void LANGUAGE sql AS
	$$SELECT gt_handler_create('oc_affect', 'sql', command, must_affect => true, max_attempts => 1)$$;
SELECT oc.make_affect('DELETE FROM oc.thing WHERE id = $1');
RESET client_min_messages;
INSERT INTO oc.thing VALUES (1);
SELECT oc.make('oc_affect', '1', '2');
CALL gt_reclaim() \g /dev/null
SELECT object_id, state, error FROM gt_garbage WHERE object_type = 'oc';
SELECT oc.forget();
-- 2 is there, 3 is not
CREATE FUNCTION oc.affect(command text, VARIADIC ids text[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	done bigint;
	result text;
BEGIN
	SET LOCAL client_min_messages = warning;
	PERFORM oc.make_affect(command);
	TRUNCATE oc.thing;
	INSERT INTO oc.thing VALUES (2);
	PERFORM oc.make('oc_affect', VARIADIC ids);
	CALL gt_reclaim(NULL, done);
	SELECT string_agg(CASE WHEN g IS NULL THEN 'done' ELSE g.error END, '; ' ORDER BY i) INTO result
	FROM unnest(ids) WITH ORDINALITY u (id, i) LEFT JOIN gt_garbage g ON g.object_id = u.id AND g.object_type = 'oc';
	PERFORM oc.forget();
	RETURN result;
END $$;
SELECT command, oc.affect(command, '2', '3') FROM unnest(ARRAY[
	'DELETE FROM oc.thing WHERE id = $1 RETURNING false',
	'UPDATE oc.thing SET id = id WHERE id = $1',
	'INSERT INTO oc.thing SELECT 5 WHERE $1 = ''2''',
	'MERGE INTO oc.thing t USING (SELECT $1::int AS id) s ON t.id = s.id WHEN MATCHED THEN DELETE',
	'SELECT id FROM oc.thing WHERE id = $1',
	'WITH d AS (DELETE FROM oc.thing WHERE id = $1 RETURNING id) SELECT id FROM d',
	'SELECT sum(id), NULL FROM oc.thing WHERE id = $1',
	'VALUES (1)']) command;
SELECT oc.affect('SELECT oc.did($1)', 'true', 'false', 'null');
SELECT oc.affect('SELECT false, false WHERE $1 = ''2''', '2', '3');
SELECT oc.state($$SELECT gt_handler_create('x', 'sql', 'CALL oc.p($1)', must_affect => true)$$),
	oc.state($$SELECT gt_handler_create('x', 'sql_batch', 'SELECT 1', must_affect => true)$$),
	oc.state($$SELECT gt_handler_create('x', 'queue', must_affect => true)$$),
	oc.state($$SELECT gt_handler_create('x', 'queue', must_affect => NULL)$$);
SELECT must_affect FROM gt_handlers WHERE name IN ('oc_affect', 'oc_snooze') ORDER BY name;

-- conflicts are no attempts, ten times in a row
SET client_min_messages = warning;
CREATE SEQUENCE oc.calls;
CREATE FUNCTION oc.conflict() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM nextval('oc.calls');
	RAISE 'a conflict' USING ERRCODE = CASE WHEN random() < 0.5 THEN '40001' ELSE '40P01' END;
END $$;
CREATE PROCEDURE oc.turns(n int) LANGUAGE plpgsql AS $$
DECLARE
	done bigint;
BEGIN
	FOR i IN 1 .. n LOOP
		PERFORM gt_redrive(cleanup_ids => ARRAY(SELECT cleanup_id FROM gt_garbage WHERE object_type = 'oc' AND state = 'waiting'));
		CALL gt_reclaim(NULL, done);
		COMMIT;
	END LOOP;
END $$;
SELECT gt_handler_create('oc_conflict', 'sql', 'SELECT oc.conflict()', retry_delay => '2 hours', max_attempts => 3);
SELECT gt_handler_create('oc_conflict_batch', 'sql_batch', 'SELECT oc.conflict()', retry_delay => '2 hours', max_attempts => 3);
RESET client_min_messages;
SELECT oc.make('oc_conflict', 'conflict');
CALL oc.turns(1);
SELECT state, attempts, wait, regexp_replace(error, '40...', '...') AS error FROM oc.waits('conflict');
CALL oc.turns(9);
SELECT state, attempts, wait FROM oc.waits('conflict');
CALL oc.turns(1);
SELECT state, attempts, wait FROM oc.waits('conflict');
CALL oc.turns(1);
SELECT state, attempts FROM oc.waits('conflict');
SELECT last_value FROM oc.calls;
SELECT oc.forget();
SELECT oc.make('oc_conflict_batch', 'c1', 'c2');
CALL oc.turns(10);
SELECT id, state, attempts, wait FROM unnest('{c1,c2}'::text[]) id, oc.waits(id);
CALL oc.turns(1);
SELECT id, state, attempts FROM unnest('{c1,c2}'::text[]) id, oc.waits(id);
SELECT oc.forget();

-- what gt_history tells of a run: the version of the handler, and how many rows its statement has affected
SET client_min_messages = warning;
ALTER SYSTEM SET garbagetruck.history = 'all';
SELECT pg_reload_conf();
-- one statement after the other, until this session has read it
\set ECHO none
\o /dev/null
SELECT $$SELECT pg_sleep(0.01) WHERE current_setting('garbagetruck.history') <> 'all'$$ FROM generate_series(1, 1000) \gexec
\o
\set ECHO all
SELECT gt_handler_create('oc_rows', 'sql', 'DELETE FROM oc.thing WHERE id <= $1');
TRUNCATE oc.thing;
INSERT INTO oc.thing SELECT generate_series(1, 40);
SELECT oc.make('oc_rows', '30');
CALL gt_reclaim() \g /dev/null
SELECT gt_handler_create('oc_rows', 'sql', 'DELETE FROM oc.thing WHERE id = $1::int / 0');
SELECT oc.make('oc_rows', '31');
CALL gt_reclaim() \g /dev/null
SELECT event, object_id, attempt, handler_version, affected FROM gt_history WHERE handler = 'oc_rows' ORDER BY at;
SELECT version FROM gt_handlers WHERE name = 'oc_rows';
SELECT oc.forget();
-- gt_reclaim() trims it, by itself and in a block
ALTER SYSTEM SET garbagetruck.history_retention = 0;
SELECT pg_reload_conf();
\set ECHO none
\o /dev/null
SELECT $$SELECT pg_sleep(0.01) WHERE current_setting('garbagetruck.history_retention') <> '0'$$ FROM generate_series(1, 1000) \gexec
\o
\set ECHO all
SELECT count(*) > 0 AS there FROM gt_history;
CALL gt_reclaim() \g /dev/null
SELECT count(*) FROM gt_history;
ALTER SYSTEM RESET garbagetruck.history_retention;
ALTER SYSTEM RESET garbagetruck.history;
SELECT pg_reload_conf();
\set ECHO none
\o /dev/null
SELECT $$SELECT pg_sleep(0.01) WHERE current_setting('garbagetruck.history') = 'all'$$ FROM generate_series(1, 1000) \gexec
\o
\set ECHO all
-- done: each object once, also where its batch was halved; and no more than were asked for
SET client_min_messages = warning;
SELECT gt_handler_create('oc_halves', 'sql_batch', 'SELECT 1 / (i <> ''h 7'')::int FROM unnest($1) i');
SELECT oc.make('oc_halves', VARIADIC array_agg('h ' || n)) FROM generate_series(1, 20) n;
RESET client_min_messages;
CALL gt_reclaim(20);
SELECT object_id, attempts FROM gt_garbage WHERE object_type = 'oc';
SELECT oc.forget();
SELECT oc.make('oc_halves', VARIADIC array_agg('i ' || n)) FROM generate_series(1, 20) n;
CALL gt_reclaim(5);
SELECT count(*) FROM gt_garbage WHERE object_type = 'oc';
SELECT oc.forget();

SELECT count(gt_handler_drop(name)) FROM gt_handlers WHERE name LIKE 'oc\_%';
SET client_min_messages = warning;
DROP SCHEMA oc CASCADE;
