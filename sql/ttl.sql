-- Rows with a deadline of their own: gt_ttl_create, gt_ttl_drop, gt_ttls, and what gt_reclaim does with them.
\set VERBOSITY default
\set SHOW_CONTEXT never
CREATE SCHEMA r;
CREATE TABLE r.t (id int PRIMARY KEY, expires_at timestamptz, at timestamp, keep_for interval, note text);

-- what is no table
SELECT t.fails($$SELECT gt_ttl_create(NULL, 'expires_at')$$);
SELECT t.fails($$SELECT gt_ttl_create('r.none', 'expires_at')$$);
CREATE VIEW r.v AS SELECT * FROM r.t;
CREATE MATERIALIZED VIEW r.m AS SELECT * FROM r.t;
CREATE SEQUENCE r.s;
CREATE TEMPORARY TABLE tmp (id int PRIMARY KEY, expires_at timestamptz);
CREATE FOREIGN DATA WRAPPER r_fdw;
CREATE SERVER r_server FOREIGN DATA WRAPPER r_fdw;
CREATE FOREIGN TABLE r.f (id int, expires_at timestamptz) SERVER r_server;
SELECT what, t.fails(format('SELECT gt_ttl_create(%L, %L)', what, 'expires_at'))
FROM unnest('{r.v,r.m,r.s,r.f,tmp,r.t_pkey,pg_catalog.pg_class,information_schema.sql_features,_garbagetruck.gt_lease}'::text[]) what;
DROP TABLE tmp;

-- what is no deadline
SELECT e, t.fails(format('SELECT gt_ttl_create(%L, %L)', 'r.t', e))
FROM unnest(ARRAY['gone', 'at', 'note', 'id', 'expires_at + keep_for', 'now()', 'clock_timestamp()', $$'2000-01-01 UTC'::timestamptz$$,
	'expires_at, at', 'expires_at FROM r.t', '(SELECT expires_at)', 'max(expires_at)', 'expires_at)', '', 'tableoid::text::timestamptz',
	'expires_at; DROP TABLE r.t']) e;
SELECT gt_ttl_create('r.t', 'at');
SELECT gt_ttl_create('r.t', 'expires_at + keep_for');
SELECT t.fails($$SELECT gt_ttl_create('r.t', NULL)$$);

-- what is missing
CREATE TABLE r.nokey (id int, expires_at timestamptz);
CREATE INDEX ON r.nokey (expires_at);
SELECT t.fails($$SELECT gt_ttl_create('r.nokey', 'expires_at')$$);
SELECT gt_ttl_create('r.t', 'expires_at');
SELECT gt_ttl_create('r.t', $$(at AT TIME ZONE 'UTC')$$);
CREATE INDEX t_hash ON r.t USING hash (expires_at);
CREATE INDEX t_second ON r.t (note, expires_at);
CREATE INDEX t_part ON r.t (expires_at) WHERE expires_at > '2000-01-01 UTC';
SELECT t.state($$SELECT gt_ttl_create('r.t', 'expires_at')$$);
CREATE INDEX t_some ON r.t (expires_at) WHERE expires_at IS NOT NULL;
SELECT gt_ttl_create('r.t', 'expires_at');
DROP INDEX r.t_some;
CREATE INDEX t_desc ON r.t (expires_at DESC, note);
SELECT gt_ttl_create('r.t', 'expires_at');
DROP INDEX r.t_desc;
SELECT gt_ttl_create('r.t', 'expires_at', create_index => true);
SELECT gt_ttl_create('r.t', 'expires_at', create_index => true);
SELECT count(*) FROM pg_index WHERE indrelid = 'r.t'::regclass AND indkey::text = '2' AND indpred IS NULL AND indexrelid <> 'r.t_hash'::regclass;
CREATE TABLE r.p (id int, expires_at timestamptz, PRIMARY KEY (id, expires_at)) PARTITION BY RANGE (expires_at);
SELECT gt_ttl_create('r.p', 'expires_at');
-- an expression, which is kept whatever the search_path is
CREATE TABLE r.e (id int PRIMARY KEY, created_at timestamptz, keep_for interval);
SET search_path = r, public;
SELECT gt_ttl_create('e', $$((created_at AT TIME ZONE 'UTC') + keep_for) AT TIME ZONE 'UTC'$$, create_index => true);
RESET search_path;
-- a column whose name needs quotes
CREATE TABLE r."Q t" ("Id" int PRIMARY KEY, "Expires at" timestamptz);
SELECT gt_ttl_create('r."Q t"', 'Expires at', create_index => true, wake => false);
SELECT gt_ttl_create('r."Q t"', '"Expires at"', wake => false);

-- the other arguments
SELECT t.fails($$SELECT gt_ttl_create('r.t', 'expires_at', batch_size => 0)$$);
SELECT t.fails($$SELECT gt_ttl_create('r.t', 'expires_at', batch_size => 10001)$$);
SELECT t.fails($$SELECT gt_ttl_create('r.t', 'expires_at', rate_limit => 0)$$);
SELECT t.fails($$SELECT gt_ttl_create('r.t', 'expires_at', grace => '-1 s')$$);
SELECT t.fails(format('SELECT gt_ttl_create(%L, %L, %s => NULL)', 'r.t', 'expires_at', a)) FROM unnest('{create_index,wake,paused,grace}'::text[]) a;
SELECT t.fails($$SELECT gt_ttl_create('r.t', 'expires_at', cleanup => 'none')$$);

-- the view
SELECT gt_ttl_create('r.t', 'expires_at', batch_size => 10, rate_limit => 1000000, paused => true, grace => '1 s');
SELECT table_name, expires_at, cleanup, owner = current_user AS own, batch_size, rate_limit, wake, paused, paused_reason, grace, rows_removed, failures,
	last_run_at, last_error, next_due_at, oldest_overdue FROM gt_ttls ORDER BY table_name::text;
SELECT tgname ~ '^gt_ttl_wake' AS ours, tgrelid::regclass, tgnattr FROM (SELECT *, tgattr::text AS tgnattr FROM pg_trigger) t(oid) WHERE tgname LIKE 'gt\_ttl\_wake%' ORDER BY 2;

-- rows go when their deadline has passed
INSERT INTO r.t (id, expires_at) SELECT i, now() - interval '1 minute' FROM generate_series(1, 25) i;
INSERT INTO r.t (id, expires_at) VALUES (100, now() + interval '1 hour'), (101, NULL), (102, 'infinity'), (103, '-infinity');
CALL gt_reclaim();
SELECT count(*) FROM r.t;
SELECT gt_ttl_create('r.t', 'expires_at', batch_size => 10);
CALL gt_reclaim();
SELECT id FROM r.t ORDER BY id;
SELECT rows_removed, failures FROM gt_ttls WHERE table_name = 'r.t'::regclass;
-- what max_items says
INSERT INTO r.t (id, expires_at) SELECT i, now() - interval '1 minute' FROM generate_series(1, 25) i;
CALL gt_reclaim(7);
SELECT count(*) FROM r.t;
-- in a block
BEGIN;
INSERT INTO r.t (id, expires_at) VALUES (200, now() - interval '1 s');
CALL gt_reclaim();
ROLLBACK;
SELECT count(*) FROM r.t;
CALL gt_reclaim();
-- grace
SELECT gt_ttl_create('r.t', 'expires_at', grace => '1 hour');
INSERT INTO r.t (id, expires_at) VALUES (1, gt_clock() - interval '59 minutes'), (2, gt_clock() - interval '61 minutes');
CALL gt_reclaim();
SELECT id FROM r.t WHERE id < 10;
-- an expression, a name that needs quotes, partitions
INSERT INTO r.e VALUES (1, now() - interval '1 hour', '59 minutes'), (2, now() - interval '1 hour', '61 minutes'), (3, NULL, '1 s');
INSERT INTO r."Q t" VALUES (1, now()), (2, now() + interval '1 hour');
CREATE TABLE r.p1 PARTITION OF r.p FOR VALUES FROM (MINVALUE) TO ('2020-01-01');
CREATE TABLE r.p2 (expires_at timestamptz NOT NULL, gone text, id int NOT NULL);
ALTER TABLE r.p2 DROP COLUMN gone;
ALTER TABLE r.p ATTACH PARTITION r.p2 FOR VALUES FROM ('2020-01-01') TO (MAXVALUE);
SELECT gt_ttl_create('r.p', 'expires_at', create_index => true);
INSERT INTO r.p VALUES (1, '2010-01-01'), (2, '2021-01-01'), (3, now() + interval '1 hour');
-- children by inheritance are not looked at
CREATE TABLE r.child () INHERITS (r.e);
INSERT INTO r.child VALUES (1, now() - interval '1 hour', '59 minutes');
CALL gt_reclaim();
SELECT (SELECT string_agg(id::text, ' ' ORDER BY id) FROM ONLY r.e) AS e, (SELECT count(*) FROM r.child) AS child,
	(SELECT string_agg("Id"::text, ' ') FROM r."Q t") AS q, (SELECT string_agg(id::text, ' ') FROM r.p) AS p;

-- cleanup: the row becomes an object, in the transaction that deletes it
CREATE TABLE r.files (bucket text, key text, expires_at timestamptz, body text, size numeric, PRIMARY KEY (bucket, key));
SELECT gt_handler_create('r_files', 'queue');
SELECT gt_ttl_create('r.files', 'expires_at', 'r_files', create_index => true);
INSERT INTO r.files VALUES ('b', 'k "1"', '2020-01-01 00:00+00', 'short', 1.50), ('b', 'large', '2020-01-01 00:00+00', repeat('x', 70000), 2),
	('c', repeat('k', 1100), '2020-01-01 00:00+00', NULL, NULL);
CALL gt_reclaim();
SELECT count(*) FROM r.files;
SELECT object_type, CASE WHEN length(object_id) < 100 THEN object_id END AS object_id,
	object_id = 'md5:' || md5(jsonb_build_array('c', repeat('k', 1100))::text) AS md5, left(payload::text, 110) AS payload, metadata, lease_id, service_id
FROM gt_claim('{r_files}') ORDER BY payload->>'key';
SELECT t.fails($$SELECT gt_handler_drop('r_files')$$);
SELECT t.fails($$SELECT gt_handler_create('r_files', 'http', '{payload.url}')$$);
-- the key was used again
INSERT INTO r.files VALUES ('b', 'k "1"', '2020-01-01', 'again'), ('b', 'other', '2020-01-01', 'other');
CALL gt_reclaim();
SELECT key FROM r.files;
SELECT gt_ack(cleanup_id, attempts) FROM gt_garbage WHERE object_id = '["b", "k \"1\""]';
CALL gt_reclaim();
SELECT count(*) FROM r.files;
SELECT count(*), bool_and(gt_ack(cleanup_id, attempts)) FROM gt_garbage WHERE object_type = 'r.files';
-- an object that is leased keeps its row, of which it is the name
SELECT gt_ttl_create('r.t', 'expires_at');
UPDATE r.t SET expires_at = '2020-01-01' WHERE id = 1;
INSERT INTO r.t (id, expires_at) VALUES (2, '2020-01-01');
SELECT gt_lease_create('1', 'r.t') AS lease \gset
CALL gt_reclaim();
SELECT id FROM r.t WHERE id < 10;
SELECT gt_release(:'lease');
CALL gt_reclaim();
SELECT count(*) FROM r.t WHERE id < 10;

-- an object of which only a regrant_delay is left keeps no row, and that lasts
CREATE TABLE r.regrant (id int PRIMARY KEY, expires_at timestamptz);
SELECT gt_ttl_create('r.regrant', 'expires_at', 'r_files', create_index => true);
SELECT count(gt_lease_create(i::text, 'r.regrant', duration => '100 ms', regrant_delay => '1 hour')) FROM generate_series(1, 2) i;
SELECT pg_sleep(0.11) \g /dev/null
CALL gt_reclaim();
SELECT count(*) FROM gt_leases WHERE object_type = 'r.regrant';
INSERT INTO r.regrant SELECT i, '2020-01-01' FROM generate_series(1, 3) i;
CALL gt_reclaim();
SELECT count(*) FROM r.regrant;
SELECT object_id, handler, gt_ack(cleanup_id, attempts) FROM gt_garbage WHERE object_type = 'r.regrant' ORDER BY 1;
SELECT sqlstate FROM gt_lease_grant_each('[{"object_id": "1", "object_type": "r.regrant", "exclusive": true}, {"object_id": "3", "object_type": "r.regrant", "exclusive": true}]');
SELECT count(gt_release(lease_id)) FROM gt_leases WHERE object_type = 'r.regrant';
SELECT gt_ttl_drop('r.regrant');

-- rows that cannot be deleted
CREATE TABLE r.refers (id int REFERENCES r.t);
CREATE FUNCTION r.keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF OLD.note = 'keep' THEN RETURN NULL; END IF;
	IF OLD.note = 'raise' THEN RAISE 'no'; END IF;
	RETURN OLD;
END $$;
CREATE TRIGGER keep BEFORE DELETE ON r.t FOR EACH ROW EXECUTE FUNCTION r.keep();
INSERT INTO r.t (id, expires_at, note) SELECT i, '2020-01-01', CASE i WHEN 7 THEN 'keep' WHEN 8 THEN 'raise' END FROM generate_series(1, 50) i;
INSERT INTO r.refers VALUES (9), (10);
CALL gt_reclaim();
SELECT id FROM r.t WHERE id < 100 ORDER BY id;
SELECT object_type, object_id, handler, kind, state, attempts, max_attempts, error FROM gt_garbage WHERE object_type = 'r.t' ORDER BY object_id::int;
SELECT rows_removed > 0 AS removed, failures, last_error IS NOT NULL AS error, oldest_overdue IS NULL AS nothing_overdue FROM gt_ttls WHERE table_name = 'r.t'::regclass;
SELECT count(*) FROM gt_claim(cleanup_ids => (SELECT array_agg(cleanup_id) FROM gt_garbage WHERE object_type = 'r.t'));
-- mended, they go; moved, they are forgotten
DELETE FROM r.refers WHERE id = 9;
UPDATE r.t SET note = NULL WHERE id = 7;
UPDATE r.t SET expires_at = now() + interval '1 hour' WHERE id = 8;
SELECT gt_redrive();
CALL gt_reclaim();
SELECT id FROM r.t WHERE id < 100 ORDER BY id;
SELECT object_id, attempts FROM gt_garbage WHERE object_type = 'r.t';
-- dead in the end; discarded, it is tried anew
UPDATE _garbagetruck.gt_object SET attempts = 24, max_attempts = 25 WHERE object_type = 'r.t';
SELECT gt_redrive(cleanup_ids => (SELECT array_agg(cleanup_id) FROM gt_garbage WHERE object_type = 'r.t'));
CALL gt_reclaim();
SELECT object_id, state, attempts FROM gt_dead WHERE object_type = 'r.t';
SELECT detail ~ 'r.t' AS told, remedy IS NOT NULL AS remedy FROM gt_health() WHERE check_name = 'dead' AND NOT ok;
SELECT gt_ack(cleanup_id, attempts) FROM gt_dead WHERE object_type = 'r.t';
CALL gt_reclaim();
SELECT object_id, state, attempts FROM gt_garbage WHERE object_type = 'r.t';
DELETE FROM r.refers;
SELECT gt_redrive(cleanup_ids => (SELECT array_agg(cleanup_id) FROM gt_garbage WHERE object_type = 'r.t'));
CALL gt_reclaim();
SELECT count(*) FROM gt_garbage WHERE object_type = 'r.t';

-- many of them, first and between the others, more than one transaction may have parts
CREATE TABLE r.many (id int PRIMARY KEY, expires_at timestamptz);
CREATE TABLE r.refers_to_many (id int REFERENCES r.many);
SELECT gt_ttl_create('r.many', 'expires_at', create_index => true);
INSERT INTO r.many SELECT i, '2020-01-01 UTC'::timestamptz + i * interval '1 s' FROM generate_series(1, 3000) i;
INSERT INTO r.refers_to_many SELECT i FROM generate_series(1, 3000) i WHERE i <= 100 OR i % 20 = 0;
CALL gt_reclaim();
SELECT count(*), bool_and(id IN (SELECT id FROM r.refers_to_many)) FROM r.many;
SELECT count(*), count(DISTINCT object_id), bool_and(error ~ '23503') FROM gt_garbage WHERE object_type = 'r.many';
SELECT rows_removed, failures FROM gt_ttls WHERE table_name = 'r.many'::regclass;
DROP TABLE r.refers_to_many, r.many;
-- a row whose trigger meets a conflict each time, or asks for time, puts off no other
CREATE TABLE r.later (id int PRIMARY KEY, expires_at timestamptz, note text);
CREATE FUNCTION r.later() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF OLD.note = 'conflict' THEN RAISE 'somebody was there' USING ERRCODE = '40001'; END IF;
	IF OLD.note = 'snooze' THEN PERFORM gt_snooze('1 hour', 'not yet'); END IF;
	RETURN OLD;
END $$;
CREATE TRIGGER later BEFORE DELETE ON r.later FOR EACH ROW EXECUTE FUNCTION r.later();
SELECT gt_ttl_create('r.later', 'expires_at', create_index => true);
INSERT INTO r.later SELECT i, '2020-01-01', CASE i WHEN 5 THEN 'conflict' WHEN 30 THEN 'snooze' END FROM generate_series(1, 50) i;
CALL gt_reclaim();
SELECT id FROM r.later ORDER BY id;
CALL gt_reclaim();
SELECT object_id, attempts, error, next_attempt_at > gt_clock() + interval '50 minutes' AS snoozed FROM gt_garbage WHERE object_type = 'r.later' ORDER BY 1;
SELECT failures FROM gt_ttls WHERE table_name = 'r.later'::regclass;
DROP TABLE r.later;
-- rows are gone to by their places, however small the table is
CREATE TABLE r.small (id int PRIMARY KEY, expires_at timestamptz);
SELECT gt_ttl_create('r.small', 'expires_at', create_index => true);
INSERT INTO r.small SELECT i, '2020-01-01' FROM generate_series(1, 1000) i;
BEGIN;
CALL gt_reclaim();
SELECT seq_tup_read, n_tup_del FROM pg_stat_xact_user_tables WHERE relid = 'r.small'::regclass;
COMMIT;
-- and in this table: what has its name now, or that of its schema, is another
ALTER TABLE r.small RENAME TO smaller;
CREATE TABLE r.small (LIKE r.smaller);
INSERT INTO r.smaller VALUES (1, '2020-01-01');
INSERT INTO r.small SELECT i, '2020-01-01' FROM generate_series(1, 1001) i;
CALL gt_reclaim();
SELECT (SELECT count(*) FROM r.small) AS small, (SELECT count(*) FROM r.smaller) AS smaller;
DROP TABLE r.small;
ALTER SCHEMA r RENAME TO r_then;
CREATE SCHEMA r;
CREATE TABLE r.smaller (LIKE r_then.smaller);
INSERT INTO r_then.smaller VALUES (1, '2020-01-01');
INSERT INTO r.smaller SELECT i, '2020-01-01' FROM generate_series(1, 1002) i;
CALL gt_reclaim();
SELECT (SELECT count(*) FROM r.smaller) AS others, (SELECT count(*) FROM r_then.smaller) AS ours;
DROP SCHEMA r CASCADE;
ALTER SCHEMA r_then RENAME TO r;
DROP TABLE r.smaller;
-- in a block that has more subtransactions than a process keeps in mind
CREATE TABLE r.deep (id int PRIMARY KEY, expires_at timestamptz, note text);
CREATE TRIGGER keep BEFORE DELETE ON r.deep FOR EACH ROW EXECUTE FUNCTION r.keep();
SELECT gt_ttl_create('r.deep', 'expires_at', create_index => true);
INSERT INTO r.deep SELECT i, '2020-01-01', CASE i WHEN 5 THEN 'raise' END FROM generate_series(1, 50) i;
BEGIN;
DO $$ BEGIN
	FOR i IN 1 .. 70 LOOP
		BEGIN
			INSERT INTO r.deep VALUES (1000 + i, NULL);
		EXCEPTION WHEN unique_violation THEN NULL;
		END;
	END LOOP;
END $$;
CALL gt_reclaim();
SELECT string_agg(id::text, ' ') FROM r.deep WHERE id < 1000;
SELECT object_id, error FROM gt_garbage WHERE object_type = 'r.deep';
ROLLBACK;
DROP TABLE r.deep;

-- what is missing suspends it, until it is there again
INSERT INTO r.t (id, expires_at) VALUES (1, '2020-01-01');
ALTER TABLE r.t RENAME COLUMN expires_at TO ends_at;
CALL gt_reclaim();
SELECT paused, paused_reason FROM gt_ttls WHERE table_name = 'r.t'::regclass;
SELECT ok, detail, remedy FROM gt_health() WHERE check_name = 'ttl';
INSERT INTO r.t (id, ends_at) VALUES (2, '2020-01-01');
ALTER TABLE r.t RENAME COLUMN ends_at TO expires_at;
CALL gt_reclaim();
SELECT count(*) FROM r.t WHERE id < 100;
-- the remedy, as it stands, goes on by the new name: of a column, of a part of an expression, of one without a trigger, of another type
CREATE TABLE r.renamed (id int PRIMARY KEY, expires_at timestamptz, created_at timestamptz, keep_for interval);
SELECT gt_ttl_create('r.renamed', 'expires_at', batch_size => 7, create_index => true);
ALTER TABLE r.renamed RENAME expires_at TO "Ends at";
SELECT remedy FROM gt_health() WHERE check_name = 'ttl' \gexec
SELECT expires_at, batch_size FROM gt_ttls WHERE table_name = 'r.renamed'::regclass;
SELECT gt_ttl_create('r.renamed', $$((created_at AT TIME ZONE 'UTC') + keep_for) AT TIME ZONE 'UTC'$$, create_index => true);
ALTER TABLE r.renamed RENAME keep_for TO lifetime;
SELECT remedy FROM gt_health() WHERE check_name = 'ttl' \gexec
SELECT ok FROM gt_health() WHERE check_name = 'ttl';
SELECT gt_ttl_create('r.renamed', 'Ends at', wake => false);
ALTER TABLE r.renamed ALTER "Ends at" TYPE timestamp;
SELECT remedy FROM gt_health() WHERE check_name = 'ttl' \gexec
SELECT ok FROM gt_health() WHERE check_name = 'ttl';
ALTER TABLE r.renamed RENAME "Ends at" TO expires_at;
SELECT remedy FROM gt_health() WHERE check_name = 'ttl';
-- a trigger that is not as it was made
SELECT gt_ttl_create('r.renamed', 'expires_at');
ALTER TABLE r.renamed DISABLE TRIGGER ALL;
ALTER TABLE r.renamed ENABLE TRIGGER ALL;
SELECT detail, remedy FROM gt_health() WHERE check_name = 'ttl';
SELECT remedy FROM gt_health() WHERE check_name = 'ttl' \gexec
SELECT ok FROM gt_health() WHERE check_name = 'ttl';
-- the key is renamed, and of another type, while a row is put aside
ALTER TABLE r.renamed ADD keep text;
CREATE RULE keep AS ON DELETE TO r.renamed WHERE OLD.keep = 'it' DO INSTEAD NOTHING;
INSERT INTO r.renamed (id, expires_at, keep) VALUES (1, '2020-01-01', 'it');
CALL gt_reclaim();
ALTER TABLE r.renamed RENAME id TO key;
ALTER TABLE r.renamed ALTER key TYPE text;
SELECT gt_redrive();
CALL gt_reclaim();
SELECT object_id, payload ->> 'key' AS key FROM gt_garbage WHERE object_type = 'r.renamed';
DROP RULE keep ON r.renamed;
SELECT gt_redrive();
CALL gt_reclaim();
SELECT count(*) FROM r.renamed;
DROP TABLE r.renamed;
INSERT INTO r."Q t" VALUES (1, now());
DO $$ DECLARE i regclass; BEGIN
	SELECT indexrelid::regclass INTO i FROM pg_index WHERE indrelid = 'r."Q t"'::regclass AND NOT indisprimary;
	EXECUTE format('DROP INDEX %s', i);
END $$;
CALL gt_reclaim();
SELECT count(*) FROM r."Q t";
SELECT ok, detail, remedy FROM gt_health() WHERE check_name = 'ttl';
CREATE INDEX ON r."Q t" ("Expires at");
CALL gt_reclaim();
SELECT count(*) FROM r."Q t";
SELECT ok FROM gt_health() WHERE check_name = 'ttl';

-- a domain is another type: what would do is said; and does
CREATE DOMAIN r.stamp AS timestamptz;
CREATE TABLE r.d (id int PRIMARY KEY, "Ends" r.stamp);
SELECT gt_ttl_create('r.d', 'Ends');
SELECT gt_ttl_create('r.d', '("Ends")::timestamptz', create_index => true);
INSERT INTO r.d VALUES (1, '2020-01-01'), (2, NULL);
CALL gt_reclaim();
SELECT id FROM r.d;

-- a generated column
CREATE TABLE r.g (id int PRIMARY KEY, at timestamptz, ends timestamptz GENERATED ALWAYS AS ((at AT TIME ZONE 'UTC' + interval '1 hour') AT TIME ZONE 'UTC') STORED);
SELECT gt_ttl_create('r.g', 'ends', create_index => true);
INSERT INTO r.g VALUES (1, now() - interval '2 hours'), (2, now());
CALL gt_reclaim();
SELECT id FROM r.g;

-- a table is renamed while one of its rows is put aside: the row, and what it is named, goes by the new name
SELECT gt_handler_create('r_renamed', 'queue');
CREATE TABLE r.old (id int PRIMARY KEY, expires_at timestamptz, note text);
CREATE TRIGGER keep BEFORE DELETE ON r.old FOR EACH ROW EXECUTE FUNCTION r.keep();
SELECT gt_ttl_create('r.old', 'expires_at', 'r_renamed', create_index => true);
INSERT INTO r.old VALUES (1, '2020-01-01', 'raise');
CALL gt_reclaim();
ALTER TABLE r.old RENAME TO new;
CALL gt_reclaim();
SELECT object_type, object_id, handler FROM gt_garbage WHERE object_type IN ('r.old', 'r.new') ORDER BY 1;
UPDATE r.new SET note = NULL;
SELECT gt_redrive(ARRAY(SELECT cleanup_id FROM gt_garbage WHERE object_type IN ('r.old', 'r.new')));
CALL gt_reclaim();
SELECT count(*) FROM r.new;
SELECT object_type, object_id, handler, gt_ack(cleanup_id, attempts) FROM gt_garbage WHERE object_type IN ('r.old', 'r.new');
SELECT gt_ttl_drop('r.new'), gt_handler_drop('r_renamed');

-- a trigger of a partition brings the row back; a partition has a declaration of its own, too
CREATE FUNCTION r.back() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO r.p VALUES (OLD.*); RETURN NULL; END $$;
CREATE TRIGGER back AFTER DELETE ON r.p1 FOR EACH ROW EXECUTE FUNCTION r.back();
INSERT INTO r.p VALUES (1, '2010-01-01');
CALL gt_reclaim();
SELECT object_type, error FROM gt_garbage WHERE object_type = 'r.p';
DROP TRIGGER back ON r.p1;
SELECT gt_redrive(ARRAY(SELECT cleanup_id FROM gt_garbage WHERE object_type = 'r.p'));
CALL gt_reclaim();
SELECT count(*) FROM r.p1;
SELECT gt_ttl_create('r.p1', 'expires_at');
SELECT gt_ttl_create('r.p', 'expires_at', grace => '1 hour');
CREATE TABLE r.p0 (id int NOT NULL, expires_at timestamptz NOT NULL, PRIMARY KEY (id, expires_at));
SELECT gt_ttl_create('r.p0', 'expires_at', create_index => true);
ALTER TABLE r.p DETACH PARTITION r.p1;
ALTER TABLE r.p ATTACH PARTITION r.p0 FOR VALUES FROM (MINVALUE) TO ('2020-01-01');
INSERT INTO r.p VALUES (1, '2010-01-01');
CALL gt_reclaim();
SELECT count(*) FROM r.p0;
SELECT gt_ttl_drop('r.p0'), gt_ttl_drop('r.p1');
SELECT tgrelid::regclass, tgenabled, tgparentid <> 0 AS clone FROM pg_trigger WHERE tgname LIKE 'gt\_ttl\_wake%' AND tgrelid::regclass::text LIKE 'r.p%' ORDER BY 1;

-- keys of every kind, which name the row and find it again
CREATE TABLE r.k (a timestamptz, b bytea, c numeric, d uuid, e text COLLATE "C", f date, g boolean, expires_at timestamptz, note text DEFAULT 'raise',
	PRIMARY KEY (a, b, c, d, e, f, g));
CREATE TRIGGER keep BEFORE DELETE ON r.k FOR EACH ROW EXECUTE FUNCTION r.keep();
SELECT gt_ttl_create('r.k', 'expires_at', create_index => true);
SET DateStyle = 'German';
SET TimeZone = 'Asia/Tokyo';
INSERT INTO r.k VALUES ('2020-01-02 03:04:05.678+00', '\x00ff', 1.50, '01234567-89ab-cdef-0123-456789abcdef', E'q"\\ü', '2020-02-03', true, '2020-01-01');
CALL gt_reclaim();
SELECT object_id FROM gt_garbage WHERE object_type = 'r.k';
UPDATE r.k SET note = NULL;
SELECT gt_redrive(ARRAY(SELECT cleanup_id FROM gt_garbage WHERE object_type = 'r.k'));
CALL gt_reclaim();
RESET DateStyle;
RESET TimeZone;
SELECT (SELECT count(*) FROM r.k) AS rows, count(*) AS garbage FROM gt_garbage WHERE object_type = 'r.k';

-- one call deletes rows and runs the handler that cleans up after them
CREATE TABLE r.after (id int PRIMARY KEY, expires_at timestamptz);
SELECT gt_ttl_create('r.after', 'expires_at', 't_clean', create_index => true);
INSERT INTO r.after SELECT i, '2020-01-01' FROM generate_series(1, 3) i;
CALL gt_reclaim();
SELECT t.cleaned();
INSERT INTO r.after VALUES (4, '2020-01-01');
BEGIN;
CALL gt_reclaim();
SELECT t.cleaned();
COMMIT;
SELECT gt_ttl_drop('r.after');

-- what stands for a row is leased: the row stays as long, and goes then; the type of another column is changed meanwhile
CREATE TABLE r.l (id int PRIMARY KEY, expires_at timestamptz, note text);
CREATE TRIGGER keep BEFORE DELETE ON r.l FOR EACH ROW EXECUTE FUNCTION r.keep();
SELECT gt_ttl_create('r.l', 'expires_at', create_index => true);
INSERT INTO r.l VALUES (1, '2020-01-01', 'raise'), (2, '2020-01-01', 'raise');
CALL gt_reclaim();
SELECT gt_lease_create('1', 'r.l') AS lease \gset
DROP TRIGGER keep ON r.l;
ALTER TABLE r.l ALTER note TYPE int USING NULL;
SELECT gt_redrive(ARRAY(SELECT cleanup_id FROM gt_garbage WHERE object_type = 'r.l'));
CALL gt_reclaim();
SELECT id FROM r.l;
SELECT gt_release(:'lease');
CALL gt_reclaim();
SELECT (SELECT count(*) FROM r.l) AS rows, count(*) AS garbage FROM gt_garbage WHERE object_type = 'r.l';

-- tables have their turns
CREATE TABLE r.one (id int PRIMARY KEY, expires_at timestamptz);
CREATE TABLE r.two (id int PRIMARY KEY, expires_at timestamptz);
SELECT gt_ttl_create('r.one', 'expires_at', batch_size => 1, create_index => true), gt_ttl_create('r.two', 'expires_at', batch_size => 1, create_index => true);
INSERT INTO r.one SELECT i, '2020-01-01' FROM generate_series(1, 4) i;
INSERT INTO r.two SELECT i, '2020-01-01' FROM generate_series(1, 4) i;
CALL gt_reclaim(4);
SELECT (SELECT count(*) FROM r.one) AS one, (SELECT count(*) FROM r.two) AS two;
CALL gt_reclaim();

-- gt_pause() stops it
INSERT INTO r.t (id, expires_at) VALUES (1, '2020-01-01');
SELECT gt_pause();
CALL gt_reclaim();
SELECT count(*) FROM r.t WHERE id = 1;
SELECT gt_resume();
CALL gt_reclaim();
SELECT count(*) FROM r.t WHERE id = 1;

-- the end of it: by gt_ttl_drop, of the table, of the column, of the extension
SELECT gt_ttl_drop('r.t'), gt_ttl_drop('r.t');
SELECT t.fails($$SELECT gt_ttl_drop(NULL)$$);
SELECT count(*) FROM pg_trigger WHERE tgrelid = 'r.t'::regclass AND tgname LIKE 'gt\_ttl\_wake%';
INSERT INTO r.t (id, expires_at) VALUES (1, '2020-01-01');
CALL gt_reclaim();
SELECT count(*) FROM r.t WHERE id = 1;
DROP TABLE r.files;
SELECT table_name FROM gt_ttls WHERE table_name::text ~ 'files';
SELECT gt_handler_drop('r_files');
ALTER TABLE r.e DROP COLUMN keep_for;
CALL gt_reclaim();
SELECT detail FROM gt_health() WHERE check_name = 'ttl';
SELECT gt_ttl_drop('r.e');
SELECT count(*) FROM gt_check();
SET client_min_messages = warning;
DROP FOREIGN DATA WRAPPER r_fdw CASCADE;
DROP SCHEMA r CASCADE;
RESET client_min_messages;
CALL gt_reclaim();
SELECT count(*) FROM gt_ttls;
SELECT count(*) FROM _garbagetruck.gt__ttl;
