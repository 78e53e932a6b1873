-- Attempts at borrowed rights; each must come to nothing.
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS garbagetruck;
CREATE ROLE regress_a_victim;
CREATE ROLE regress_a_mallory;
CREATE SCHEMA regress_a_shop AUTHORIZATION regress_a_victim;
CREATE SCHEMA regress_a_den AUTHORIZATION regress_a_mallory;
GRANT USAGE ON SCHEMA regress_a_shop, regress_a_den TO PUBLIC;
CREATE TABLE loot (who text, what text);
GRANT INSERT ON loot TO PUBLIC;
RESET client_min_messages;
SELECT gt_allow(r, w) FROM unnest('{regress_a_victim,regress_a_mallory}'::name[]) r, unnest('{lease,handler}'::text[]) w;

SET ROLE regress_a_victim;
CREATE TABLE regress_a_shop.file (id text PRIMARY KEY, path text);
INSERT INTO regress_a_shop.file VALUES ('1', '/a'), ('2', '/b'), ('3', '/c');
GRANT SELECT, TRIGGER ON regress_a_shop.file TO regress_a_mallory;
SET search_path = regress_a_shop, public;
SELECT gt_handler_create('a_file', 'sql', 'DELETE FROM file WHERE id = $1 AND $2 = ''a''');
SELECT gt_handler_create('a_queue', 'queue', 'https://user:password@host/');

-- planted operators and functions: on the search_path of whoever calls us, they are not seen
SET ROLE regress_a_mallory;
CREATE FUNCTION regress_a_den.eq(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
	INSERT INTO public.loot VALUES (current_user, 'operator'); RETURN true; END $$;
CREATE OPERATOR regress_a_den.= (LEFTARG = text, RIGHTARG = text, FUNCTION = regress_a_den.eq);
CREATE FUNCTION regress_a_den.count(text) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN
	INSERT INTO public.loot VALUES (current_user, 'function'); RETURN 0; END $$;
CREATE FUNCTION regress_a_den.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN
	INSERT INTO public.loot VALUES (current_user, 'function'); RETURN NULL; END $$;
RESET ROLE;
SET search_path = regress_a_den, pg_catalog, public;
SELECT gt_release(gt_lease_create('0', 'a', cleanup => 'a_queue'));
SELECT gt_handler_drop('a_queue');
SELECT gt_allow('regress_a_victim');
SELECT gt_share('regress_a_mallory', 'nothing'), gt_unshare('regress_a_mallory', 'nothing');
SELECT gt_pause('a_queue'), gt_resume('a_queue'), gt_pause(), gt_resume();
UPDATE _garbagetruck.gt__handler SET resumed_at = NULL;	-- no slow start: it is timed
SET ROLE regress_a_victim;
SET search_path = regress_a_shop, public;
SELECT gt_release(gt_lease_create('1', 'a', cleanup => 'a_file'));
RESET ROLE;
SET search_path = regress_a_den, pg_catalog, public;
CALL gt_reclaim();
SELECT pg_catalog.count(*) FROM gt_leases, gt_garbage, gt_dead, gt_handlers, gt_history, gt_health() WHERE false;
RESET search_path;
SELECT * FROM loot;
SELECT id FROM regress_a_shop.file ORDER BY 1;

-- a trigger on the cleaned table runs as the handler's role, deferred or not, never as who reclaims
SET ROLE regress_a_mallory;
CREATE FUNCTION regress_a_den.grab() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	INSERT INTO public.loot VALUES (current_user, TG_NAME);
	IF current_user = 'regress_a_victim' AND TG_NAME = 'b_escalate' THEN EXECUTE 'SET ROLE NONE'; END IF;
	RETURN NULL; END $$;
CREATE TRIGGER a_plain AFTER DELETE ON regress_a_shop.file FOR EACH ROW EXECUTE FUNCTION regress_a_den.grab();
CREATE CONSTRAINT TRIGGER a_deferred AFTER DELETE ON regress_a_shop.file DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION regress_a_den.grab();
SET ROLE regress_a_victim;
SELECT gt_release(gt_lease_create('2', 'a', cleanup => 'a_file'));
RESET ROLE;
CALL gt_reclaim();
SELECT * FROM loot ORDER BY 2;
TRUNCATE loot;
SET ROLE regress_a_mallory;
CREATE CONSTRAINT TRIGGER b_escalate AFTER DELETE ON regress_a_shop.file DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION regress_a_den.grab();
SET ROLE regress_a_victim;
SELECT gt_release(gt_lease_create('3', 'a', cleanup => 'a_file', max_attempts => 1));
RESET ROLE;
CALL gt_reclaim();
SELECT * FROM loot;
SELECT object_id, error FROM gt_dead WHERE object_type = 'a';
SELECT count(gt_ack(cleanup_id, attempts)) FROM gt_dead WHERE object_type = 'a';
SELECT id FROM regress_a_shop.file;

-- a SECURITY DEFINER function lends its owner, as always, and only inside
CREATE FUNCTION lend(id text) RETURNS uuid SECURITY DEFINER LANGUAGE sql SET search_path = public, pg_temp
AS 'SELECT gt_lease_create($1, ''a_lent'')';
ALTER FUNCTION lend(text) OWNER TO regress_a_victim;
SET ROLE regress_a_mallory;
CREATE TABLE regress_a_den.lent AS SELECT lend('1') AS id;
\set VERBOSITY sqlstate
SELECT gt_release(id) FROM regress_a_den.lent;
SELECT gt_renew(id) FROM regress_a_den.lent;
\set VERBOSITY terse
SELECT count(*) FROM regress_a_den.lent, gt_lease_get(id);
SELECT gt_lease_create('1', 'a_lent');
RESET ROLE;
SELECT object_id, owner FROM gt_leases WHERE object_type = 'a_lent';
SELECT gt_release(id, keep => true) FROM regress_a_den.lent;
-- a SECURITY DEFINER function that a handler calls does not get out of the restricted operation
CREATE FUNCTION regress_a_den.definer() RETURNS void SECURITY DEFINER LANGUAGE plpgsql AS $$ BEGIN
	INSERT INTO public.loot VALUES (current_user, 'definer');
	RESET ROLE;
END $$;
SET ROLE regress_a_mallory;
SELECT gt_handler_create('a_definer', 'sql', 'SELECT regress_a_den.definer()', max_attempts => 1);
SELECT gt_release(gt_lease_create('1', 'a_mine', cleanup => 'a_definer'));
RESET ROLE;
CALL gt_reclaim();
SELECT object_id, error FROM gt_dead WHERE object_type = 'a_mine';
SELECT count(gt_ack(cleanup_id, attempts)) FROM gt_dead WHERE object_type = 'a_mine';

-- payloads, errors and commands of others are not shown; metadata neither
SET ROLE regress_a_victim;
CREATE TEMPORARY TABLE held AS SELECT gt_lease_create('9', 'a', cleanup => 'a_queue', payload => '{"secret": 1}', metadata => '{"secret": 2}') AS id;
SELECT gt_release(gt_lease_create('8', 'a', cleanup => 'a_queue', payload => '{"secret": 1}'));
GRANT SELECT ON held TO PUBLIC;
SET ROLE regress_a_mallory;
SELECT count(*) FROM gt_leases WHERE object_type = 'a';
SELECT count(*) FROM gt_garbage WHERE object_type = 'a';
SELECT count(*) FROM gt_handlers WHERE name LIKE 'a\_%' AND name <> 'a_definer';
SELECT count(*) FROM gt_history WHERE object_type = 'a';
SELECT gt_claim();
SELECT gt_claim('{a_queue}');
SELECT gt_ack(cleanup_id, 1) FROM generate_series(1, 3) cleanup_id;
-- leaky functions see no more than the view shows
CREATE FUNCTION regress_a_den.leak(text) RETURNS boolean COST 0.0001 LANGUAGE plpgsql AS $$ BEGIN
	IF $1 IS NOT NULL AND $1 ~ 'secret|password' THEN RAISE NOTICE 'leaked %', $1; END IF; RETURN true; END $$;
SELECT count(*) FROM gt_leases WHERE regress_a_den.leak(payload::text) AND regress_a_den.leak(metadata::text);
SELECT count(*) FROM gt_garbage WHERE regress_a_den.leak(payload::text) AND regress_a_den.leak(error);
SELECT count(*) FROM gt_handlers WHERE regress_a_den.leak(command) AND name <> 'a_definer' AND name !~ 'endpoint';
SELECT count(*) FROM gt_history WHERE regress_a_den.leak(object_id);
-- keep, release, renew, revive by a stranger
\set VERBOSITY sqlstate
SELECT gt_release(id, keep => true) FROM held;
SELECT gt_release(id) FROM held;
SELECT gt_release_many(ARRAY(SELECT id FROM held));
SELECT status FROM held, gt_renew_many(ARRAY[id]);
SELECT gt_lease_update(id, payload => '{}') FROM held;
SELECT gt_lease_create('1', 'a', parent => id) FROM held;
SELECT gt_lease_create('9', 'a');
SELECT gt_lease_create('8', 'a');
SELECT sqlstate FROM gt_lease_grant_each('[{"object_id": "8", "object_type": "a"}]');
SELECT gt_fence_check('9', 'a', 1);
\set VERBOSITY terse
-- names: taken, replaced, granted by a stranger
SELECT gt_handler_create('a_queue', 'queue');
SELECT gt_handler_create('a_file', 'sql', 'SELECT 1');
SELECT gt_handler_drop('a_file');
SELECT gt_handler_grant('a_file', 'regress_a_mallory', 'claim');
SELECT gt_handler_create('http_endpoint', 'http', 'http://mallory/');
SELECT gt_pause('http_endpoint');
SELECT gt_handler_create('x', 'sql', 'SELECT 1', run_as => 'regress_a_victim');
RESET ROLE;

SELECT count(gt_release(lease_id, keep => true)) FROM gt_leases WHERE object_type LIKE 'a%';
SELECT count(gt_ack(cleanup_id, attempt)) FROM gt_claim('{a_queue}', 100);
SELECT count(gt_handler_drop(name)) FROM _garbagetruck.gt__handler WHERE name LIKE 'a\_%';
SET client_min_messages = warning;
DROP TABLE loot, held;
DROP FUNCTION lend(text);
DROP SCHEMA regress_a_shop, regress_a_den CASCADE;
DROP OWNED BY regress_a_victim, regress_a_mallory CASCADE;
DROP ROLE regress_a_victim, regress_a_mallory;
