-- The search_path of a handler is that of its registration, without what anybody could plant in.
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS garbagetruck;
RESET client_min_messages;
CREATE ROLE regress_p_app;
CREATE ROLE "regress_p ""q""";
CREATE SCHEMA regress_p_open;
GRANT USAGE, CREATE ON SCHEMA regress_p_open TO PUBLIC;
CREATE SCHEMA "regress_p $user, 'x";
GRANT USAGE ON SCHEMA "regress_p $user, 'x" TO PUBLIC;
CREATE SCHEMA regress_p_app AUTHORIZATION regress_p_app;
CREATE SCHEMA "regress_p ""q""" AUTHORIZATION "regress_p ""q""";
CREATE SCHEMA regress_p_hidden;
CREATE TABLE regress_p_open.planted (id bigint);
CREATE TABLE regress_p_hidden.hidden (id bigint);
SELECT gt_allow('regress_p_app', 'handler'), gt_allow('regress_p "q"', 'handler');
CREATE VIEW p AS SELECT name, search_path FROM _garbagetruck.gt__handler WHERE name LIKE 'p\_%';

SET ROLE regress_p_app;
SET search_path = pg_temp, "$user", regress_p_open, regress_p_missing, regress_p_hidden, "regress_p $user, 'x", public;
SELECT gt_handler_create('p_1', 'sql', 'SELECT 1');
\set VERBOSITY default
SELECT gt_handler_create('p_1', 'sql', 'SELECT 1');
\set VERBOSITY terse
SELECT gt_handler_create('p_2', 'sql', 'DELETE FROM planted');
SELECT gt_handler_create('p_2', 'sql', 'DELETE FROM hidden');
SET search_path = '';
SELECT public.gt_handler_create('p_3', 'sql', 'SELECT 1');
SET search_path = public, pg_catalog;
SELECT gt_handler_create('p_4', 'sql', 'SELECT 1');
SET ROLE "regress_p ""q""";
SET search_path = "$user", public;
SELECT gt_handler_create('p_5', 'sql', 'SELECT 1');
RESET ROLE;
RESET search_path;
SELECT * FROM p ORDER BY name;

-- it does not change with the settings of whoever runs it, and a temporary table hides nothing
CREATE TABLE regress_p_app.target (id bigint);
ALTER TABLE regress_p_app.target OWNER TO regress_p_app;
SET ROLE regress_p_app;
SET search_path = regress_p_app, public;
SELECT gt_handler_create('p_6', 'sql', 'INSERT INTO target VALUES ($1)');
RESET ROLE;
SELECT gt_allow('regress_p_app');
SET ROLE regress_p_app;
SELECT gt_release(gt_lease_create('1', 'p', cleanup => 'p_6'));
RESET ROLE;
SET search_path = regress_p_open, public;
CREATE TEMPORARY TABLE target (id bigint);
CREATE TABLE regress_p_open.target (id bigint);
SET ROLE regress_p_app;
BEGIN;
CALL gt_reclaim();
COMMIT;
RESET ROLE;
SHOW search_path;
SELECT (SELECT count(*) FROM regress_p_app.target) AS own,
	(SELECT count(*) FROM regress_p_open.target) AS planted, (SELECT count(*) FROM pg_temp.target) AS temporary;
RESET search_path;

-- who may create in a schema, PUBLIC or not, could change what a handler's command means: a schema is only for handlers
-- that run as its owner, and as the roles that may create there, or as a role that these may become
DROP TABLE pg_temp.target;
CREATE ROLE regress_p_dev;
CREATE ROLE regress_p_member IN ROLE regress_p_app;
CREATE SCHEMA regress_p_dev AUTHORIZATION regress_p_dev;
CREATE SCHEMA regress_p_team AUTHORIZATION regress_p_app;
CREATE TABLE regress_p_team.target (id bigint);
ALTER TABLE regress_p_team.target OWNER TO regress_p_app;
GRANT USAGE ON SCHEMA regress_p_dev, regress_p_app, regress_p_team TO PUBLIC;
GRANT CREATE ON SCHEMA regress_p_team TO regress_p_member;
SET search_path = regress_p_app, regress_p_dev, regress_p_team, public;
SET client_min_messages = warning;
SELECT gt_handler_create('p_7', 'sql', 'SELECT 1');
RESET client_min_messages;
SET ROLE regress_p_app;
SELECT gt_handler_create('p_8', 'sql', 'SELECT 1');
SET search_path = regress_p_team, public;
SELECT gt_handler_create('p_9', 'sql', 'INSERT INTO target VALUES ($1)');
RESET ROLE;
RESET search_path;
SELECT * FROM p WHERE name IN ('p_7', 'p_8', 'p_9') ORDER BY name;
-- what has become open since suspends it, until it is closed, or the handler is registered anew
SELECT paused, paused_reason FROM gt_handlers WHERE name = 'p_9';
SET ROLE regress_p_app;
SELECT gt_release(gt_lease_create('9', 'p', cleanup => 'p_9'));
GRANT CREATE ON SCHEMA regress_p_team TO regress_p_dev;
RESET ROLE;
SELECT paused, paused_reason FROM gt_handlers WHERE name = 'p_9';
SELECT ok, detail FROM gt_health() WHERE check_name = 'suspended';
CALL gt_reclaim();
SELECT state, attempts FROM gt_garbage WHERE handler = 'p_9';
REVOKE CREATE ON SCHEMA regress_p_team FROM regress_p_dev;
SELECT paused FROM gt_handlers WHERE name = 'p_9';
-- a schema that is dropped is missed; one of its name that is another's is not used
ALTER SCHEMA regress_p_team RENAME TO regress_p_renamed;
SELECT paused FROM gt_handlers WHERE name = 'p_9';
CREATE SCHEMA regress_p_team AUTHORIZATION regress_p_dev;
SELECT paused, paused_reason FROM gt_handlers WHERE name = 'p_9';
CALL gt_reclaim();
DROP SCHEMA regress_p_team;
ALTER SCHEMA regress_p_renamed RENAME TO regress_p_team;
CALL gt_reclaim();
SELECT count(*) FROM regress_p_team.target;
-- registered anew it leaves it out
GRANT CREATE ON SCHEMA regress_p_team TO PUBLIC;
SET ROLE regress_p_app;
SET search_path = regress_p_team, public;
SELECT gt_handler_create('p_9', 'sql', 'INSERT INTO regress_p_team.target VALUES ($1)');
RESET ROLE;
RESET search_path;
SELECT paused FROM gt_handlers WHERE name = 'p_9';
-- a role that its owner may not become any more
GRANT regress_p_dev TO regress_p_app;
SET ROLE regress_p_app;
SELECT gt_handler_create('p_10', 'sql', 'SELECT 1', run_as => 'regress_p_dev');
RESET ROLE;
REVOKE regress_p_dev FROM regress_p_app;
SELECT paused, paused_reason FROM gt_handlers WHERE name = 'p_10';
GRANT regress_p_dev TO regress_p_app;
SELECT paused FROM gt_handlers WHERE name = 'p_10';
-- the schema public belongs to the owner of the database, whoever that is
SELECT current_database() AS db \gset
ALTER DATABASE :"db" OWNER TO regress_p_dev;
SET client_min_messages = warning;
SELECT gt_handler_create('p_11', 'sql', 'SELECT 1');
RESET client_min_messages;
SELECT search_path FROM p WHERE name = 'p_11';
ALTER DATABASE :"db" OWNER TO CURRENT_USER;

SELECT count(gt_handler_drop(name)) FROM p;
SET client_min_messages = warning;
DROP VIEW p;
DROP SCHEMA regress_p_team, regress_p_dev, regress_p_open, regress_p_hidden, "regress_p $user, 'x" CASCADE;
DROP OWNED BY regress_p_app, "regress_p ""q""", regress_p_dev, regress_p_member CASCADE;
DROP ROLE regress_p_app, "regress_p ""q""", regress_p_dev, regress_p_member;
