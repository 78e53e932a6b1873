-- Registration: what is a handler, what is refused and with which SQLSTATE, replacing, dropping.
\set VERBOSITY sqlstate
\set SHOW_CONTEXT never
CREATE ROLE regress_h_app;
CREATE ROLE regress_h_other;
CREATE ROLE regress_h_member IN ROLE regress_h_app;
CREATE SCHEMA regress_h AUTHORIZATION regress_h_app;
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS garbagetruck;
RESET client_min_messages;
SELECT gt_allow('regress_h_app'), gt_allow('regress_h_app', 'handler'),
	gt_allow('regress_h_other'), gt_allow('regress_h_other', 'handler');

SET ROLE regress_h_app;
SET search_path = regress_h, public;
CREATE TABLE file (id bigint PRIMARY KEY, path text);

-- one of each kind
SELECT gt_handler_create('h_sql', 'sql', 'DELETE FROM file WHERE id = $1');
SELECT gt_handler_create('h_batch', 'sql_batch', 'DELETE FROM file WHERE id = ANY ($1::bigint[])');
SELECT gt_handler_create('h_' || kind, kind, 'target')
FROM unnest('{notify,notify_only,queue,http,grpc,s3,azure_blob,file,redis}'::text[]) kind;
SELECT gt_handler_create('h_queue', 'queue');
SELECT gt_handler_create('h_channel', 'notify', repeat('c', 63));

-- a null where a value is needed
SELECT gt_handler_create(NULL, 'queue');
SELECT gt_handler_create('x', NULL);
SELECT gt_handler_create('x', 'sql');
SELECT gt_handler_create('x', 'notify');
SELECT gt_handler_create('x', 'http');
SELECT gt_handler_create('x', 'queue', max_attempts => NULL);
SELECT gt_handler_create('x', 'queue', retry_delay => NULL);
SELECT gt_handler_create('x', 'queue', timeout => NULL);
SELECT gt_handler_create('x', 'queue', grace => NULL);
SELECT gt_handler_drop(NULL);
SELECT gt_handler_grant('h_sql', NULL);
SELECT gt_handler_grant(NULL, 'regress_h_other');
SELECT gt_handler_revoke('h_sql', 'regress_h_other', NULL);
SELECT gt_resume('h_sql', NULL);

-- a value out of range, which the message names
\set VERBOSITY terse
SELECT gt_handler_create('', 'queue');
SELECT gt_handler_create(repeat('n', 256), 'queue');
SELECT gt_handler_create(E'new\nline', 'queue');
SELECT gt_handler_create('x', 'ftp', 'target');
SELECT gt_handler_create('x', 'notify', '');
SELECT gt_handler_create('x', 'notify', repeat('c', 64));
SELECT gt_handler_create('x', 'notify_only', E'a\tb');
SELECT gt_handler_create('x', 'http', '');
SELECT gt_handler_create('x', 'queue', max_attempts => 0);
SELECT gt_handler_create('x', 'queue', retry_delay => '-1 s');
SELECT gt_handler_create('x', 'queue', retry_delay => '25 h');
SELECT gt_handler_create('x', 'queue', timeout => '0');
SELECT gt_handler_create('x', 'queue', timeout => '100000000 years');
SELECT gt_handler_create('x', 'queue', grace => '-1 day');
SELECT gt_handler_create('x', 'queue', concurrency => 0);
SELECT gt_handler_create('x', 'queue', rate_limit => -1);
SELECT gt_handler_create('x', 'queue', run_as => 'regress_h_nobody');
SELECT gt_handler_grant('h_sql', 'regress_h_nobody');
SELECT gt_handler_grant('h_sql', 'regress_h_other', 'all');
SELECT gt_handler_grant('x', 'regress_h_other');
SELECT gt_handler_revoke('x', 'regress_h_other');
SELECT gt_pause('x');
SELECT gt_resume('x');
SELECT gt_resume('h_sql', adopt => true);

SELECT gt_handler_create('x', 'queue', max_attempts => 1001);
SELECT gt_handler_create('x', 'queue', repeat('c', 65537));
SELECT gt_handler_create('x', 'sql', repeat('c', 65537));

-- SQL is analysed there and then, as it will run
SELECT gt_handler_create('x', 'sql', '');
SELECT gt_handler_create('x', 'sql', ' -- nothing');
SELECT gt_handler_create('x', 'sql', 'DELET FROM file');
SELECT gt_handler_create('x', 'sql', 'SELECT 1; SELECT 2');
SELECT gt_handler_create('x', 'sql', 'DELETE FROM nofile');
SELECT gt_handler_create('x', 'sql', 'DELETE FROM file WHERE nocolumn = $1');
SELECT gt_handler_create('x', 'sql', 'SELECT nofunction($1)');
SELECT gt_handler_create('x', 'sql', 'SELECT $1, $10');
SELECT gt_handler_create('x', 'sql', 'DROP TABLE file');
SELECT gt_handler_create('x', 'sql', 'TRUNCATE file');
SELECT gt_handler_create('x', 'sql', 'SELECT 1 AS a INTO stolen');
SELECT gt_handler_create('x', 'sql', 'SELECT 1 AS a INTO stolen UNION SELECT 2');
SELECT gt_handler_create('x', 'sql', 'CREATE TABLE stolen AS SELECT 1');
SELECT gt_handler_create('x', 'sql', 'COMMIT');
SELECT gt_handler_create('x', 'sql', 'SET ROLE regress_h_other');
SELECT gt_handler_create('x', 'sql', 'NOTIFY x');
SELECT gt_handler_create('x', 'sql', 'DO ''BEGIN END''');
SELECT gt_handler_create('x', 'sql', 'EXPLAIN ANALYZE DELETE FROM file');
SELECT gt_handler_create('x', 'sql', 'COPY file TO STDOUT');
SELECT gt_handler_create('x', 'sql_batch', 'DELETE FROM file WHERE id = ANY ($1)');
SELECT gt_handler_create('x', 'sql', 'SELECT $1::unknown');
SELECT gt_handler_create('x', 'sql', 'SELECT $1::unknown, $2::bigint');
\set VERBOSITY default
SELECT gt_handler_create('x', 'sql', 'DELETE FROM file WHERE ids = $1');
\set VERBOSITY terse

-- every kind of statement that may be; types of parameters are inferred, else those of the README
CREATE PROCEDURE cleanup(id bigint, INOUT path text DEFAULT NULL) LANGUAGE plpgsql AS 'BEGIN DELETE FROM regress_h.file f WHERE f.id = $1; END';
SELECT gt_handler_create('h_sql', 'sql', command) FROM unnest(ARRAY[
	'SELECT',
	'VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)',
	'TABLE file',
	'SELECT $3->>''path'', $4->''a''',
	'DELETE FROM file WHERE id = $1 AND path = $3->>''path'' AND $8 > 0',
	'INSERT INTO file VALUES ($1, $3) ON CONFLICT (id) DO UPDATE SET path = $4',
	'UPDATE file SET path = $9::text WHERE id = $1',
	'WITH gone AS (DELETE FROM file WHERE id = $1 RETURNING path) SELECT count(*) FROM gone',
	'MERGE INTO file USING (SELECT 1) AS s (id) ON file.id = s.id WHEN MATCHED THEN DELETE',
	'CALL cleanup($1)',
	'CALL cleanup($1, $6);',
	'DELETE FROM file WHERE id = $1']) command;

-- a name belongs to whom registered it; a replacement keeps the owner and starts a new version
RESET ROLE;
SELECT name, kind, command, owner_name, run_as_name, search_path, version FROM _garbagetruck.gt__handler WHERE name = 'h_sql';
SET ROLE regress_h_other;
SELECT gt_handler_create('h_sql', 'sql', 'SELECT 1');
SELECT gt_handler_drop('h_sql');
SELECT gt_handler_grant('h_sql', 'regress_h_other');
SELECT gt_handler_revoke('h_sql', 'regress_h_app');
SET ROLE regress_h_member;
SELECT gt_handler_create('h_sql', 'sql', 'UPDATE regress_h.file SET path = NULL WHERE id = $1', max_attempts => 3);
RESET ROLE;
SELECT gt_handler_create('h_queue', 'queue', 'by a superuser');
SELECT name, command, owner_name, max_attempts FROM _garbagetruck.gt__handler WHERE name IN ('h_sql', 'h_queue') ORDER BY 1;

-- run_as: who registers must be able to SET ROLE to it
SET ROLE regress_h_member;
SELECT gt_handler_create('h_as', 'sql', 'SELECT 1', run_as => 'regress_h_app');
SELECT gt_handler_create('h_as', 'sql', 'SELECT 1', run_as => 'regress_h_other');
SET ROLE regress_h_other;
SELECT gt_handler_create('h_as_other', 'queue', run_as => 'regress_h_app');
RESET ROLE;
SELECT name, owner_name, run_as_name FROM _garbagetruck.gt__handler WHERE name LIKE 'h_as%';

-- in use: neither dropped nor given another kind
SET ROLE regress_h_app;
SELECT count(gt_lease_create(n::text, 'h_file', cleanup => 'h_sql')) FROM generate_series(1, 3) n;
SELECT count(gt_lease_create('1', 'h_file', 'another')) FROM generate_series(1, 2);
SELECT gt_handler_drop('h_sql');
SELECT gt_handler_create('h_sql', 'queue');
SELECT gt_handler_create('h_sql', 'sql', 'SELECT 2');
SELECT gt_release_many(ARRAY(SELECT lease_id FROM gt_lease_list(object_type => 'h_file') WHERE cleanup IS NOT NULL));
SELECT gt_handler_drop('h_sql');
SELECT gt_release_many(ARRAY(SELECT lease_id FROM gt_lease_list(object_type => 'h_file')), keep => true);
SELECT gt_handler_drop('h_sql');
SELECT count(gt_lease_create(n::text, 'h_file')) FROM generate_series(2, 3) n;
SELECT gt_release_many(ARRAY(SELECT lease_id FROM gt_lease_list(object_type => 'h_file')), keep => true);
SELECT gt_handler_drop('h_sql');
SELECT gt_handler_drop('h_sql');

-- of many users nobody wants to know the number
SELECT gt_handler_create('h_many', 'queue');
SELECT count(*) FROM unnest(gt_lease_create_many(ARRAY(SELECT 'many ' || n FROM generate_series(1, 1001) n), 'h_file', cleanup => 'h_many'));
SELECT gt_handler_drop('h_many');
SELECT gt_release_many(ARRAY(SELECT lease_id FROM gt_lease_list(object_type => 'h_file', max_rows => 1000)));
SELECT gt_handler_drop('h_many');
SELECT gt_release_many(ARRAY(SELECT lease_id FROM gt_lease_list(object_type => 'h_file')));
SELECT gt_handler_drop('h_many');
SELECT gt_ack_many(array_agg(cleanup_id), array_agg(attempts)) FROM gt_garbage WHERE handler = 'h_many';
SELECT gt_handler_drop('h_many');

-- the lease of a handler that is gone or foreign
SELECT gt_lease_create('1', 'h_file', cleanup => 'h_sql');
SET ROLE regress_h_other;
SELECT gt_lease_create('1', 'h_file', cleanup => 'h_batch');

-- how many: a role that has them all may replace them
RESET ROLE;
BEGIN;
INSERT INTO _garbagetruck.gt__handler (id, name, kind, owner, owner_name, max_attempts, retry_delay, timeout, grace, paused, builtin, version, crashes)
SELECT 1000000 + n, 'h_' || n, 'queue', 'regress_h_app'::regrole, 'regress_h_app', 1, 0, 1000000, 0, false, false, 1, 0
FROM generate_series(1, 10000 - (SELECT count(*) FROM _garbagetruck.gt__handler WHERE owner_name = 'regress_h_app')) n;
SET ROLE regress_h_app;
SELECT gt_handler_create('h_1', 'queue');
SELECT gt_handler_create('x', 'queue');
ROLLBACK;

-- read-only, two-phase
SET ROLE regress_h_app;
BEGIN READ ONLY;
SELECT gt_handler_create('x', 'queue');
ROLLBACK;
BEGIN;
SELECT gt_handler_create('x', 'queue');
PREPARE TRANSACTION 'regress_h';
ROLLBACK PREPARED 'regress_h';
SELECT gt_handler_drop('x');

RESET ROLE;
SELECT count(gt_handler_drop(name)) FROM _garbagetruck.gt__handler WHERE name LIKE 'h\_%';
RESET search_path;
DROP OWNED BY regress_h_app, regress_h_other, regress_h_member CASCADE;
DROP ROLE regress_h_member, regress_h_app, regress_h_other;
