-- The table of who may what, by role: each action is tried as each role and undone. Then grants and shares.
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS garbagetruck;
CREATE ROLE regress_g_super SUPERUSER;
CREATE ROLE regress_g_owner;
CREATE ROLE regress_g_member IN ROLE regress_g_owner;
CREATE ROLE regress_g_noinherit NOINHERIT IN ROLE regress_g_owner;
CREATE ROLE regress_g_user;
CREATE ROLE regress_g_claimer;
CREATE ROLE regress_g_stranger;
CREATE ROLE regress_g_nobody;
CREATE ROLE regress_g_monitor;
CREATE ROLE regress_g_pg_monitor IN ROLE pg_monitor;
CREATE ROLE regress_g_admin;
CREATE ROLE "regress_g ""; 'x";
RESET client_min_messages;
SELECT gt_allow(r) FROM unnest('{regress_g_owner,regress_g_noinherit,regress_g_user,regress_g_claimer,regress_g_stranger}'::name[]) r;
SELECT gt_allow(r, 'handler') FROM unnest('{regress_g_owner,regress_g_noinherit,regress_g_stranger}'::name[]) r;
SELECT gt_allow('regress_g_monitor', 'monitor'), gt_allow('regress_g_admin', 'admin');

-- bad arguments, and roles that may not
SELECT gt_allow(NULL);
SELECT gt_allow('regress_g_user', NULL);
SELECT gt_allow('regress_g_user', 'everything');
SELECT gt_allow('regress_g_unknown');
SELECT gt_allow('public');
SELECT gt_disallow('regress_g_user', 'everything');
SELECT gt_share(NULL);
SELECT gt_share('regress_g_user', '');
SELECT gt_share('regress_g_user', E'a\nb');
SELECT gt_unshare('regress_g_unknown');

SET ROLE regress_g_owner;
SELECT gt_handler_create('g_sql', 'sql', 'SELECT $1'), gt_handler_create('g_queue', 'queue');
SELECT gt_handler_grant(h, 'regress_g_user') FROM unnest('{g_sql,g_queue}'::text[]) h;
SELECT gt_handler_grant(h, 'regress_g_claimer', 'claim') FROM unnest('{g_sql,g_queue}'::text[]) h;
SELECT gt_handler_grant('g_sql', 'regress_g_user');
CREATE TEMPORARY TABLE lease AS SELECT gt_lease_create('held', 'g') AS id;
SELECT gt_release(gt_lease_create('garbage', 'g', cleanup => 'g_queue', payload => '{"secret": 1}'));
GRANT SELECT ON lease TO PUBLIC;
RESET ROLE;

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
CREATE TABLE action (n int GENERATED ALWAYS AS IDENTITY, what text, call text);
INSERT INTO action (what, call) VALUES
	('clock, health', 'SELECT gt_clock(), (SELECT count(*) FROM gt_health())'),
	('the views', 'SELECT (SELECT count(*) FROM gt_leases), (SELECT count(*) FROM gt_garbage), (SELECT count(*) FROM gt_dead), (SELECT count(*) FROM gt_handlers), (SELECT count(*) FROM gt_history)'),
	('create', 'SELECT gt_lease_create(''x'', ''g'')'),
	('create on another''s object', 'SELECT gt_lease_create(''held'', ''g'')'),
	('renew', 'SELECT gt_renew(id) FROM lease'),
	('release', 'DO $d$ BEGIN ASSERT gt_release((SELECT id FROM lease)); END $d$'),
	('get', 'DO $d$ BEGIN IF NOT EXISTS (SELECT FROM lease, gt_lease_get(id)) THEN RAISE ''none'' USING ERRCODE = ''02000''; END IF; END $d$'),
	('name the handler in create', 'SELECT gt_lease_create(''x'', ''g'', cleanup => ''g_sql'')'),
	('claim', 'SELECT gt_claim(''{g_queue}'')'),
	('claim, sql', 'SELECT gt_claim(''{g_sql}'')'),
	('redrive', 'SELECT gt_redrive(handler => ''g_queue'')'),
	('pause, resume', 'SELECT gt_pause(''g_sql''), gt_resume(''g_sql'')'),
	('register a handler', 'SELECT gt_handler_create(''g_x'', ''queue'')'),
	('replace the handler', 'SELECT gt_handler_create(''g_sql'', ''sql'', ''SELECT 1'')'),
	('drop the handler', 'SELECT gt_handler_drop(''g_sql'')'),
	('grant the handler', 'SELECT gt_handler_grant(''g_sql'', ''regress_g_stranger'')'),
	('share', 'SELECT gt_share(''regress_g_stranger'')'),
	('metrics', 'SELECT count(*) FROM gt_metrics()'),
	('workers', 'SELECT count(*) FROM gt_workers'),
	('forecast', 'SELECT count(*) FROM gt_forecast()'),
	('pause everything', 'SELECT gt_pause(), gt_resume()'),
	('reclaim', 'CALL gt_reclaim(0)'),
	('allow', 'SELECT gt_allow(''regress_g_stranger'')'),
	('read our tables', 'SELECT FROM _garbagetruck.gt_object'),
	('write our tables', 'DELETE FROM _garbagetruck.gt_lease'),
	('call our internals', 'SELECT _garbagetruck.gt__acts_for(0)');
GRANT SELECT ON action TO PUBLIC;
CREATE TABLE answer (role name, n int, answer text);
GRANT INSERT ON answer TO PUBLIC;
DO $$
DECLARE
	r name;
BEGIN
	FOREACH r IN ARRAY '{regress_g_super,regress_g_owner,regress_g_member,regress_g_noinherit,regress_g_user,regress_g_claimer,regress_g_stranger,regress_g_monitor,regress_g_pg_monitor,regress_g_admin,regress_g_nobody}'::name[] LOOP
		EXECUTE format('SET ROLE %I', r);
		INSERT INTO answer SELECT r, n, may(call) FROM action;
		RESET ROLE;
	END LOOP;
END $$;
SELECT what, max(answer) FILTER (WHERE role = 'regress_g_super') AS super,
	max(answer) FILTER (WHERE role = 'regress_g_owner') AS owner,
	max(answer) FILTER (WHERE role = 'regress_g_member') AS member,
	max(answer) FILTER (WHERE role = 'regress_g_noinherit') AS noinh,
	max(answer) FILTER (WHERE role = 'regress_g_user') AS "use",
	max(answer) FILTER (WHERE role = 'regress_g_claimer') AS claim,
	max(answer) FILTER (WHERE role = 'regress_g_stranger') AS stranger,
	max(answer) FILTER (WHERE role = 'regress_g_monitor') AS monitor,
	max(answer) FILTER (WHERE role = 'regress_g_pg_monitor') AS pg_mon,
	max(answer) FILTER (WHERE role = 'regress_g_admin') AS admin,
	max(answer) FILTER (WHERE role = 'regress_g_nobody') AS nobody
FROM answer JOIN action USING (n) GROUP BY n, what ORDER BY n;

-- nothing is executable by PUBLIC but what the README names; nothing but views is readable
SELECT p.proname FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.deptype = 'e' AND d.classid = 'pg_proc'::regclass
	JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'garbagetruck'
WHERE has_function_privilege('public', p.oid, 'EXECUTE') AND p.proname !~ '^gt__' ORDER BY 1;
SELECT c.relname, c.relkind FROM pg_class c JOIN pg_depend d ON d.objid = c.oid AND d.deptype = 'e' AND d.classid = 'pg_class'::regclass
	JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'garbagetruck'
WHERE c.relkind IN ('r', 'v', 'S') AND has_table_privilege('public', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE') ORDER BY 1;

-- the handlers that are there from the start are for every role with 'lease'
SET ROLE regress_g_stranger;
SELECT name FROM gt_handlers ORDER BY 1;
SET ROLE regress_g_nobody;
SELECT name FROM gt_handlers ORDER BY 1;
RESET ROLE;

-- gt_disallow takes back what only this right needs
SELECT gt_allow('regress_g_nobody'), gt_allow('regress_g_nobody', 'handler');
SELECT gt_disallow('regress_g_nobody');
SELECT gt_disallow('regress_g_nobody');
SELECT has_function_privilege('regress_g_nobody', p.oid, 'EXECUTE') AS may, string_agg(proname, ' ' ORDER BY proname COLLATE "C")
FROM pg_proc p WHERE proname IN ('gt_lease_create', 'gt_renew', 'gt_claim', 'gt_pause', 'gt_forecast', 'gt_handler_create', 'gt_metrics') GROUP BY 1;
SELECT gt_allow('regress_g_nobody', 'admin');
SELECT gt_disallow('regress_g_nobody', 'handler');
SELECT gt_disallow('regress_g_nobody', 'admin');
SELECT count(*) FROM pg_proc WHERE proname ~ '^gt_' AND proacl::text ~ 'regress_g_nobody';
SELECT gt_allow('regress_g "; ''x'), gt_allow('regress_g "; ''x', 'admin');
SET ROLE "regress_g ""; 'x";
SELECT gt_handler_create('g "; ''x', 'queue');
SELECT gt_pause('g "; ''x');
SELECT gt_handler_grant('g "; ''x', 'regress_g "; ''x', 'claim');
RESET ROLE;
SELECT name, owner, paused_reason FROM gt_handlers WHERE name LIKE 'g "%';
SELECT gt_disallow('regress_g "; ''x', 'admin');

-- what runs as a superuser is for superusers, until it is granted
SET ROLE regress_g_super;
\set VERBOSITY default
SELECT gt_handler_create('g_super', 'sql', 'SELECT 1');
\set VERBOSITY terse
SELECT gt_handler_create('g_super_as', 'sql', 'SELECT 1', run_as => 'regress_g_owner');
SET ROLE regress_g_user;
SELECT gt_lease_create('1', 'g', cleanup => 'g_super');
RESET ROLE;
SELECT gt_handler_grant('g_super', 'regress_g_user');
SET ROLE regress_g_user;
SELECT count(gt_lease_create('1', 'g', cleanup => 'g_super'));
RESET ROLE;
SELECT gt_handler_revoke('g_super', 'regress_g_user');
SET ROLE regress_g_user;
SELECT gt_lease_create('2', 'g', cleanup => 'g_super');
RESET ROLE;
CREATE ROLE regress_g_super_member IN ROLE regress_g_super;
SELECT gt_allow('regress_g_super_member');
SET ROLE regress_g_super_member;
SELECT gt_lease_create('2', 'g', cleanup => 'g_super');
RESET ROLE;

-- shares: of one type or of all, and no more
SET ROLE regress_g_owner;
SELECT gt_share('regress_g_user', 'g');
SET ROLE regress_g_user;
SELECT may('SELECT gt_lease_create(''held'', ''g'')') AS lease, may('SELECT gt_release(id, keep => true) FROM lease') AS keep,
	may('SELECT gt_renew(id) FROM lease') AS renew;
SET ROLE regress_g_owner;
SELECT gt_unshare('regress_g_user');
SELECT gt_share('regress_g_user', 'another');
SET ROLE regress_g_user;
SELECT may('SELECT gt_lease_create(''held'', ''g'')') AS lease;
SET ROLE regress_g_owner;
SELECT gt_unshare('regress_g_user', 'g');
SET ROLE regress_g_user;
SELECT may('SELECT gt_lease_create(''held'', ''g'')') AS lease;
SET ROLE regress_g_owner;
SELECT gt_share('regress_g_user');
SET ROLE regress_g_user;
SELECT may('SELECT gt_lease_create(''held'', ''g'')') AS lease;
RESET ROLE;

-- pauses: each its own switch
SET ROLE regress_g_owner;
SELECT gt_pause('g_sql'), gt_pause('g_sql');
SET ROLE regress_g_admin;
SELECT gt_pause(), gt_pause();
SELECT gt_resume(), gt_resume();
SET ROLE regress_g_owner;
SELECT name, paused, paused_reason FROM gt_handlers WHERE name = 'g_sql';
SELECT gt_resume('g_sql');
SELECT name, paused, paused_reason FROM gt_handlers WHERE name = 'g_sql';
RESET ROLE;

SELECT count(gt_release(lease_id, keep => true)) FROM gt_leases WHERE object_type = 'g';
SELECT count(gt_ack(cleanup_id, attempt)) FROM gt_claim('{g_queue}');
SELECT count(gt_handler_drop(name)) FROM _garbagetruck.gt__handler WHERE name LIKE 'g%';
DROP TABLE action, answer;
DROP TABLE lease;
DROP FUNCTION may(text);
DROP OWNED BY regress_g_super, regress_g_owner, regress_g_member, regress_g_noinherit, regress_g_user, regress_g_claimer,
	regress_g_stranger, regress_g_nobody, regress_g_monitor, regress_g_pg_monitor, regress_g_admin, regress_g_super_member, "regress_g ""; 'x" CASCADE;
DROP ROLE regress_g_super_member, regress_g_super, regress_g_owner, regress_g_member, regress_g_noinherit, regress_g_user, regress_g_claimer,
	regress_g_stranger, regress_g_nobody, regress_g_monitor, regress_g_pg_monitor, regress_g_admin, "regress_g ""; 'x";
