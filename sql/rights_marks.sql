-- Rights are marks in the schema of the extension's own: what default privileges and grants on all of a schema give is none.
\set SHOW_CONTEXT never
CREATE ROLE regress_m_app;
CREATE ROLE regress_m_app2;
CREATE ROLE regress_m_team;
CREATE ROLE regress_m_member IN ROLE regress_m_team;
CREATE ROLE regress_m_super SUPERUSER;
CREATE ROLE "regress m";
CREATE DATABASE regress_marks;
\c regress_marks
CREATE SCHEMA AUTHORIZATION regress_m_app;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO regress_m_app WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO regress_m_app, PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO regress_m_app, PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TYPES TO regress_m_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO regress_m_app2, PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON FUNCTIONS TO regress_m_app2;
CREATE EXTENSION garbagetruck;

-- who has anything on what the extension has made: for PUBLIC the three that the README names (or fewer), the rest pg_monitor's
CREATE VIEW given AS
SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee,
	pg_describe_object(o.classid, o.objid, 0) AS what, a.privilege_type
FROM (SELECT d.classid, d.objid, coalesce(p.proacl, acldefault('f', p.proowner)) AS acl, p.proowner AS owner
		FROM pg_depend d JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid WHERE d.deptype = 'e'
	UNION ALL SELECT d.classid, d.objid, c.relacl, c.relowner
		FROM pg_depend d JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid WHERE d.deptype = 'e'
	UNION ALL SELECT d.classid, d.objid, n.nspacl, n.nspowner
		FROM pg_depend d JOIN pg_namespace n ON d.classid = 'pg_namespace'::regclass AND n.oid = d.objid WHERE d.deptype = 'e'
	UNION ALL SELECT d.classid, d.objid, coalesce(t.typacl, acldefault('T', t.typowner)), t.typowner
		FROM pg_depend d JOIN pg_type t ON d.classid = 'pg_type'::regclass AND t.oid = d.objid AND t.typtype = 'b' AND t.typelem = 0 WHERE d.deptype = 'e') o,
	aclexplode(o.acl) a, pg_depend e
WHERE e.classid = o.classid AND e.objid = o.objid AND e.deptype = 'e'
	AND e.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'garbagetruck') AND a.grantee <> o.owner;
SELECT * FROM given WHERE grantee <> 'pg_monitor' AND what !~ 'gt_snooze' ORDER BY 2;

-- neither do grants on all of the schema that all deploy scripts make
GRANT ALL ON ALL TABLES IN SCHEMA public TO regress_m_app, PUBLIC;
GRANT ALL ON ALL FUNCTIONS IN SCHEMA public TO regress_m_app, PUBLIC;
GRANT ALL ON ALL ROUTINES IN SCHEMA public TO regress_m_app, PUBLIC;
GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO regress_m_app;
CREATE FUNCTION may(action text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	BEGIN
		EXECUTE action;
		RAISE EXCEPTION USING ERRCODE = 'P0042';
	EXCEPTION
		WHEN SQLSTATE 'P0042' THEN RETURN 'yes';
		WHEN OTHERS THEN RETURN sqlstate;
	END;
END $$;
-- each public function with NULLs, which some refuse (22004) before they ask for rights; and each view
CREATE VIEW call AS
SELECT proname::text AS what, format(CASE p.prokind WHEN 'p' THEN 'CALL %s(%s)' ELSE 'SELECT count(*) FROM %s(%s)' END, proname,
	(SELECT string_agg('NULL::' || format_type(t, NULL), ', ' ORDER BY n) FROM unnest(proargtypes) WITH ORDINALITY a(t, n))) AS call
FROM pg_proc p WHERE pronamespace = 'public'::regnamespace AND proname ~ '^gt_'
UNION ALL
SELECT relname, 'SELECT count(*) FROM ' || relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname ~ '^gt_';
GRANT SELECT ON call TO PUBLIC;
SET ROLE regress_m_app;
SELECT what FROM call WHERE what <> 'gt_snooze' AND may(call) NOT IN ('42501', '22004') ORDER BY 1;
SELECT gt_renew('00000000-0000-0000-0000-000000000000');
SELECT gt_allow('regress_m_app', 'admin');
SELECT * FROM gt_leases;
EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT * FROM gt_garbage WHERE object_id = 'guessed';
SELECT gt_forecast();
SELECT * FROM gt_metrics();
-- what was given on a view locks no table of ours
CREATE VIEW regress_m_app.mine AS SELECT (SELECT count(*) FROM gt_leases);
LOCK TABLE gt_leases;
LOCK TABLE gt_dead IN ROW EXCLUSIVE MODE;
LOCK TABLE regress_m_app.mine;
DROP VIEW regress_m_app.mine;
RESET ROLE;

-- with the mark it is one's own; with 'lease' no more than that
SELECT gt_allow('regress_m_app');
SET ROLE regress_m_app;
SELECT may('SELECT gt_release(gt_lease_create(''1''))') AS lease, may('SELECT gt_handler_create(''h'', ''queue'')') AS handler,
	may('SELECT count(*) FROM gt_leases') AS view, may('SELECT * FROM gt_workers') AS workers, may('CALL gt_reclaim()') AS reclaim;
RESET ROLE;

-- a member has what its roles have, and the mark may be granted as anything else
SELECT gt_allow('regress_m_team');
GRANT EXECUTE ON FUNCTION _garbagetruck.gt__mark_handler() TO regress_m_member;
SET ROLE regress_m_member;
SELECT may('SELECT gt_lease_create(''1'')') AS lease, may('SELECT gt_handler_create(''h'', ''queue'')') AS handler;
RESET ROLE;
SELECT gt_disallow('regress_m_member');

-- what was allowed beside 'admin' stays when that is taken back, and the other way round
CREATE VIEW has AS
SELECT string_agg(w, ' ' ORDER BY w) AS marks,
	(SELECT count(*) > 30 FROM given WHERE grantee = 'regress_m_app2' AND what ~ 'function gt_') AS functions,
	(SELECT count(*) FROM given WHERE grantee = 'regress_m_app2' AND what ~ '^view') AS views
FROM unnest('{lease,handler,monitor,admin}'::text[]) w
WHERE EXISTS (SELECT FROM given WHERE grantee = 'regress_m_app2' AND what ~ ('gt__mark_' || w));
SELECT gt_allow('regress_m_app2'), gt_allow('regress_m_app2', 'handler'), gt_allow('regress_m_app2', 'admin');
TABLE has;
SELECT gt_disallow('regress_m_app2', 'admin');
SELECT marks, views FROM has;
SET ROLE regress_m_app2;
SELECT may('SELECT gt_release(gt_lease_create(''2''))') AS lease, may('SELECT gt_handler_create(''h'', ''queue'')') AS handler,
	may('SELECT gt_metrics()') AS monitor, may('SELECT gt_pause()') AS admin;
RESET ROLE;
SELECT gt_allow('regress_m_app2', 'admin');
SELECT gt_disallow('regress_m_app2', 'handler');
SELECT gt_disallow('regress_m_app2');
SET ROLE regress_m_app2;
SELECT may('SELECT gt_release(gt_lease_create(''2''))') AS lease, may('SELECT gt_handler_create(''h'', ''queue'')') AS handler,
	may('SELECT gt_lease_create(''2'', cleanup => ''http_endpoint'')') AS builtin, may('CALL gt_reclaim(0)') AS reclaim;
RESET ROLE;
SELECT gt_disallow('regress_m_app2', 'admin');
TABLE has;
SELECT gt_allow('regress_m_super'), gt_disallow('regress_m_super');
SELECT gt_disallow('regress_m_app', 'admin');
SELECT gt_allow('regress_m_app', 'handler');

-- who can write our tables could have SQL run as anybody: none is run, and it is said why
CREATE TABLE seen (what text);
SET client_min_messages = warning;
SELECT gt_handler_create('note', 'sql', 'INSERT INTO public.seen VALUES ($1)');
RESET client_min_messages;
CREATE PROCEDURE clean(id text) LANGUAGE plpgsql AS $$
DECLARE
	done bigint;
BEGIN
	PERFORM gt_release(gt_lease_create(id, cleanup => 'note'));
	CALL gt_reclaim(NULL, done);
END $$;
CALL clean('before');
GRANT SELECT, REFERENCES ON ALL TABLES IN SCHEMA _garbagetruck TO regress_m_app;
CALL clean('reading suspends nothing');
SELECT count(*), min(detail), min(remedy) FROM gt_health() WHERE check_name = 'rights' AND NOT ok;
GRANT INSERT ON _garbagetruck.gt_lease TO regress_m_app;
CALL clean('insert');
SELECT paused, paused_reason, (SELECT count(*) FROM seen) AS seen FROM gt_handlers WHERE name = 'note';
SELECT paused, paused_reason FROM gt_handlers WHERE name = 'http_endpoint';
REVOKE INSERT ON _garbagetruck.gt_lease FROM regress_m_app;
GRANT UPDATE (owner) ON _garbagetruck.gt__handler TO PUBLIC;
CALL clean('a column');
SELECT paused, paused_reason, (SELECT count(*) FROM seen) AS seen FROM gt_handlers WHERE name = 'note';
REVOKE UPDATE (owner) ON _garbagetruck.gt__handler FROM PUBLIC;
GRANT UPDATE ON SEQUENCE _garbagetruck.gt__cleanup_id TO regress_m_app;
CALL clean('a sequence');
SELECT paused, paused_reason, (SELECT count(*) FROM seen) AS seen FROM gt_handlers WHERE name = 'note';
REVOKE UPDATE ON SEQUENCE _garbagetruck.gt__cleanup_id FROM regress_m_app;
ALTER TABLE _garbagetruck.gt__tally OWNER TO regress_m_app;
CALL clean('an owner');
SELECT paused, paused_reason, (SELECT count(*) FROM seen) AS seen FROM gt_handlers WHERE name = 'note';
-- each remedy is one statement, and all of them together help
REVOKE SELECT ON ALL TABLES IN SCHEMA _garbagetruck FROM regress_m_app;
GRANT SELECT, INSERT ON _garbagetruck.gt__run TO regress_m_app2 WITH GRANT OPTION;
GRANT USAGE ON SCHEMA _garbagetruck TO regress_m_app2;
SET ROLE regress_m_app2;
GRANT INSERT ON _garbagetruck.gt__run TO regress_m_team;
RESET ROLE;
GRANT UPDATE (error), INSERT (error) ON _garbagetruck.gt_object TO PUBLIC;
GRANT ALL ON SEQUENCE _garbagetruck.gt__handler_id TO "regress m";
SELECT check_name, ok, detail, remedy FROM gt_health() WHERE check_name = 'rights' AND remedy !~ 'OWNER';
SET ROLE regress_m_team;
SELECT check_name, ok, detail, remedy FROM gt_health() WHERE check_name = 'rights';
RESET ROLE;
DO $$
DECLARE
	statement text;
BEGIN
	FOR statement IN SELECT remedy FROM gt_health() WHERE check_name = 'rights' AND NOT ok LOOP
		EXECUTE statement;
	END LOOP;
END $$;
SELECT check_name, ok, detail, remedy FROM gt_health() WHERE check_name = 'rights';
GRANT ALL ON ALL TABLES IN SCHEMA _garbagetruck TO regress_m_super, pg_write_all_data;
CALL clean('superusers');
SELECT string_agg(what, ', ') FROM seen;
ALTER ROLE regress_m_super NOSUPERUSER;
SELECT paused FROM gt_handlers WHERE name = 'note';
REVOKE ALL ON ALL TABLES IN SCHEMA _garbagetruck FROM regress_m_super, pg_write_all_data, regress_m_app;
SELECT paused FROM gt_handlers WHERE name = 'note';

-- what our writes would pass over: nothing is written while it is there
CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
SELECT gt_lease_create('held', duration => '1 day') AS held \gset
CREATE TRIGGER repack_trigger AFTER INSERT OR DELETE OR UPDATE ON _garbagetruck.gt_lease FOR EACH ROW EXECUTE FUNCTION log();
SELECT gt_renew(:'held');
\set VERBOSITY terse
SELECT gt_lease_create('x');
SELECT gt_release(:'held');
SELECT gt_lease_update(:'held', '{}');
CALL gt_reclaim();
SELECT state FROM gt_lease_get(:'held');
SELECT count(*) FROM gt_leases;
SELECT gt_fence_check('held', 'custom', gt_fence(:'held'));
SELECT detail, remedy FROM gt_health() WHERE check_name = 'rights';
ALTER TABLE _garbagetruck.gt_lease DISABLE TRIGGER repack_trigger;
SELECT gt_renew(:'held') > now() AS renewed;
ALTER TABLE _garbagetruck.gt_lease ENABLE REPLICA TRIGGER repack_trigger;
SELECT gt_renew(:'held') > now() AS renewed;
ALTER TABLE _garbagetruck.gt_lease ENABLE ALWAYS TRIGGER repack_trigger;
SELECT gt_renew(:'held') > now() AS renewed;
DROP TRIGGER repack_trigger ON _garbagetruck.gt_lease;
CREATE TRIGGER never BEFORE TRUNCATE ON _garbagetruck.gt_lease EXECUTE FUNCTION log();
SELECT gt_renew(:'held') > now() AS renewed;
CREATE TABLE referring (id uuid REFERENCES _garbagetruck.gt_lease);
SELECT gt_renew(:'held');
DROP TABLE referring;
CREATE TABLE referred (id int PRIMARY KEY);
ALTER TABLE _garbagetruck.gt_lease ADD CONSTRAINT "a ""key" FOREIGN KEY (handler) REFERENCES referred;
SELECT gt_renew(:'held');
\set VERBOSITY default
ALTER TABLE _garbagetruck.gt_lease DROP CONSTRAINT "a ""key";
CREATE RULE "our ""rule" AS ON DELETE TO _garbagetruck.gt_lease DO ALSO INSERT INTO seen VALUES ('deleted');
SELECT gt_renew(:'held');
DROP RULE "our ""rule" ON _garbagetruck.gt_lease;
ALTER TABLE _garbagetruck.gt_lease ADD CONSTRAINT "a ""check" CHECK (object_id <> 'bad');
SELECT gt_renew(:'held');
ALTER TABLE _garbagetruck.gt_lease DROP CONSTRAINT "a ""check";
ALTER TABLE _garbagetruck.gt_lease ADD COLUMN tenant int NOT NULL DEFAULT 1, ADD COLUMN sum int GENERATED ALWAYS AS (attempts + 1) STORED;
SELECT gt_renew(:'held');
SELECT state FROM gt_lease_get(:'held');
ALTER TABLE _garbagetruck.gt_lease DROP COLUMN tenant, DROP COLUMN sum;
DO $$
BEGIN
	FOR i IN 1..20 LOOP
		ALTER TABLE _garbagetruck.gt_lease ADD COLUMN more int DEFAULT 7;
		ALTER TABLE _garbagetruck.gt_lease DROP COLUMN more;
	END LOOP;
END $$;
SELECT gt_renew(:'held') > now() AS renewed, gt_lease_create('x') IS NOT NULL AS created;
SELECT count(*) FROM gt_leases;
-- an index that seemed to be of no use
BEGIN;
DROP INDEX _garbagetruck.gt_lease_request;
SAVEPOINT s;
SELECT gt_renew(:'held');
ROLLBACK TO s;
SELECT ok, detail FROM gt_health() WHERE check_name = 'rights';
ROLLBACK;
SELECT gt_renew(:'held') > now() AS renewed;
-- what has no part in our writes: row security, a check, another index
ALTER TABLE _garbagetruck.gt_lease ENABLE ROW LEVEL SECURITY;
ALTER TABLE _garbagetruck.gt_lease FORCE ROW LEVEL SECURITY;
CREATE INDEX ON _garbagetruck.gt_lease (created_at);
SELECT gt_renew(:'held') > now() AS renewed;
CALL clean('at last');
SELECT what FROM seen WHERE what = 'at last';

-- test cleaners that empty all tables of the schema do not meet ours
DO $$
DECLARE
	name text;
BEGIN
	FOR name IN SELECT format('%I', relname) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' LOOP
		EXECUTE 'TRUNCATE ' || name || ' CASCADE';
	END LOOP;
END $$;
SELECT name FROM gt_handlers ORDER BY 1;
SELECT count(*) FROM gt_leases;

-- what a restore inserts for a built-in handler becomes its settings; it stays whose it is
SELECT gt_pause('http_endpoint');
CREATE TEMPORARY TABLE dump AS SELECT * FROM _garbagetruck.gt__handler WHERE builtin;
UPDATE dump SET owner = 0, owner_name = 'elsewhere', max_attempts = 3, concurrency = 2 WHERE name = 'grpc_endpoint';
SELECT gt_resume('http_endpoint');
INSERT INTO _garbagetruck.gt__handler SELECT * FROM dump;
SELECT name, owner = current_user AS ours, max_attempts, concurrency, paused, paused_reason ~ '^paused by' AS reason
FROM gt_handlers WHERE name ~ 'endpoint' ORDER BY 1;

-- of another kind it is a handler as any other, and not every role's
SET client_min_messages = warning;
SELECT gt_handler_create('http_endpoint', 'sql', 'SELECT 1');
RESET client_min_messages;
SET ROLE regress_m_app;
SELECT may('SELECT gt_lease_create(''3'', cleanup => ''http_endpoint'')') AS sql, may('SELECT gt_lease_create(''4'', cleanup => ''grpc_endpoint'')') AS builtin;
RESET ROLE;
-- and is there after a restore, as is one of the name of a built-in handler that was dropped
SELECT gt_handler_drop('grpc_endpoint'), gt_handler_create('grpc_endpoint', 'queue', 'another');
DELETE FROM dump;
INSERT INTO dump SELECT * FROM _garbagetruck.gt__handler WHERE name ~ 'endpoint';
SET client_min_messages = warning;
DROP EXTENSION garbagetruck;
RESET client_min_messages;
CREATE EXTENSION garbagetruck;
INSERT INTO _garbagetruck.gt__handler SELECT * FROM dump;
SELECT name, kind, command FROM gt_handlers WHERE name ~ 'endpoint' ORDER BY 1;

DROP EXTENSION garbagetruck;
SELECT count(*) FROM pg_namespace WHERE nspname = '_garbagetruck';

-- the handlers that are there from the start are the extension's owner's, whoever that is now
ALTER ROLE regress_m_super SUPERUSER;
SET ROLE regress_m_super;
CREATE EXTENSION garbagetruck;
RESET ROLE;
ALTER ROLE regress_m_super NOSUPERUSER;
REASSIGN OWNED BY regress_m_super TO regress_m_team;
SET ROLE regress_m_team;
SELECT name, owner, paused FROM gt_handlers ORDER BY 1;
SELECT gt_pause('http_endpoint'), gt_resume('http_endpoint'), gt_allow('regress_m_app'), gt_disallow('regress_m_app');
RESET ROLE;
DROP EXTENSION garbagetruck;
\c contrib_regression
DROP DATABASE regress_marks;
DROP ROLE regress_m_app, regress_m_app2, regress_m_team, regress_m_member, regress_m_super, "regress m";
