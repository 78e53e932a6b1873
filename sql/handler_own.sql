-- A handler that acts on its own object, or on another one of its batch, is obeyed: each is judged before its run and after it.
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS garbagetruck;
CREATE SCHEMA own;
CREATE TABLE own.seen (n serial, what text);
-- what the object's name says: "lease X", "again X", "keep X", "kept X", "update X", "touch X": of itself, or of "own X"
CREATE FUNCTION own.run(id text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	verb text := split_part(id, ' ', 1);
	target text := CASE WHEN id LIKE '% of %' THEN split_part(id, ' of ', 2) ELSE id END;
	lease uuid;
BEGIN
	INSERT INTO own.seen (what) VALUES (id);
	CASE verb
		WHEN 'lease' THEN PERFORM gt_lease_create(target, 'own');
		WHEN 'again' THEN PERFORM gt_release(gt_lease_create(target, 'own'));
		WHEN 'keep' THEN PERFORM gt_release(gt_lease_create(target, 'own'), keep => true);
		WHEN 'update' THEN
			lease := gt_lease_create(target, 'own');
			PERFORM gt_lease_update(lease, payload => '1'), gt_renew(lease, '1 hour');
		WHEN 'redrive' THEN PERFORM gt_redrive(cleanup_ids => ARRAY(SELECT cleanup_id FROM gt_garbage WHERE object_id = target));
		WHEN 'fail' THEN PERFORM gt_lease_create(target, 'own'); RAISE 'and fail';
		ELSE NULL;
	END CASE;
END $$;
CREATE FUNCTION own.run_all(ids text[]) RETURNS void LANGUAGE sql AS $$SELECT own.run(id) FROM unnest(ids) WITH ORDINALITY u (id, n) ORDER BY n$$;
SELECT gt_handler_create('own', 'sql', 'SELECT own.run($1)', max_attempts => 3);
SELECT gt_handler_create('own_batch', 'sql_batch', 'SELECT own.run_all($1)', max_attempts => 3);
-- one pass over these objects in this order, and what came of it
CREATE FUNCTION own.try(handler text, VARIADIC ids text[], OUT ran text, OUT garbage text, OUT leases text) LANGUAGE plpgsql AS $$
DECLARE
	id text;
	done bigint;
BEGIN
	FOREACH id IN ARRAY ids LOOP
		PERFORM gt_release(gt_lease_create(id, 'own', cleanup => handler));
	END LOOP;
	CALL gt_reclaim(NULL, done);
	SELECT string_agg(what, ', ' ORDER BY n) INTO ran FROM own.seen;
	SELECT string_agg(format('%s %s %s', object_id, attempts, coalesce(error, '-')), ', ' ORDER BY object_id) INTO garbage FROM gt_garbage WHERE object_type = 'own';
	SELECT string_agg(object_id || ' ' || state, ', ' ORDER BY object_id) INTO leases FROM gt_leases WHERE object_type = 'own';
	DELETE FROM own.seen;
	PERFORM gt_release(lease_id, keep => true) FROM gt_leases WHERE object_type = 'own';
	PERFORM gt_release(gt_lease_create(object_id, 'own'), keep => true) FROM gt_garbage WHERE object_type = 'own';
END $$;
RESET client_min_messages;

-- each by itself
SELECT * FROM own.try('own', 'lease');
SELECT * FROM own.try('own', 'again');
SELECT * FROM own.try('own', 'keep');
SELECT * FROM own.try('own', 'update');
SELECT * FROM own.try('own', 'fail');
SELECT * FROM own.try('own_batch', 'lease');
SELECT * FROM own.try('own_batch', 'again');
SELECT * FROM own.try('own_batch', 'keep');
SELECT * FROM own.try('own_batch', 'update');
-- beside others
SELECT * FROM own.try('own', 'a', 'lease', 'b');
SELECT * FROM own.try('own_batch', 'a', 'lease', 'b', 'keep');
-- another one, which comes later in the batch, or came before
SELECT * FROM own.try('own', 'lease of x', 'x');
SELECT * FROM own.try('own', 'keep of x', 'x', 'y');
SELECT * FROM own.try('own', 'again of x', 'x');
SELECT * FROM own.try('own', 'redrive of x', 'x');
SELECT * FROM own.try('own', 'fail of x', 'x');
SELECT * FROM own.try('own', 'x', 'lease of x');
SELECT * FROM own.try('own_batch', 'lease of x', 'x', 'y');

-- what makes itself garbage again and again does so at most ten times a second
DO $$ DECLARE done bigint; BEGIN PERFORM gt_release(gt_lease_create('again', 'own', cleanup => 'own')); CALL gt_reclaim(NULL, done); END $$;
SELECT next_attempt_at >= since + interval '100 ms' AS later FROM gt_garbage WHERE object_type = 'own';
SELECT gt_release(gt_lease_create('again', 'own'), keep => true);
SELECT gt_handler_drop('own'), gt_handler_drop('own_batch');
SET client_min_messages = warning;
DROP SCHEMA own CASCADE;
