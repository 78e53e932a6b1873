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

SELECT count(gt_handler_drop(name)) FROM p;
SET client_min_messages = warning;
DROP VIEW p;
DROP TABLE pg_temp.target;
DROP SCHEMA regress_p_open, regress_p_hidden, "regress_p $user, 'x" CASCADE;
DROP OWNED BY regress_p_app, "regress_p ""q""" CASCADE;
DROP ROLE regress_p_app, "regress_p ""q""";
