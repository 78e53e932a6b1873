-- Rows with a deadline: who may declare them, as whom they are deleted, what others can try.
\set SHOW_CONTEXT never
CREATE ROLE regress_ttl_owner;
CREATE ROLE regress_ttl_member IN ROLE regress_ttl_owner;
CREATE ROLE regress_ttl_other;
CREATE ROLE regress_ttl_monitor;
SELECT gt_allow('regress_ttl_monitor', 'monitor');
CREATE SCHEMA rr AUTHORIZATION regress_ttl_owner;
GRANT USAGE ON SCHEMA rr TO regress_ttl_other, regress_ttl_monitor;
GRANT USAGE ON SCHEMA t TO PUBLIC;
SET ROLE regress_ttl_owner;
CREATE TABLE rr.t (id int PRIMARY KEY, expires_at timestamptz, note text);
CREATE INDEX ON rr.t (expires_at);
GRANT ALL ON rr.t TO regress_ttl_other;
-- the right 'handler', and the table
SELECT t.fails($$SELECT gt_ttl_create('rr.t', 'expires_at')$$);
RESET ROLE;
SELECT gt_allow('regress_ttl_owner'), gt_allow('regress_ttl_owner', 'handler'), gt_allow('regress_ttl_other'), gt_allow('regress_ttl_other', 'handler');
SET ROLE regress_ttl_other;
SELECT t.fails($$SELECT gt_ttl_create('rr.t', 'expires_at')$$);
SELECT t.fails($$SELECT gt_ttl_drop('rr.t')$$);
SELECT gt_handler_create('rr_other', 'queue');
SET ROLE regress_ttl_owner;
SELECT gt_ttl_create('rr.t', 'expires_at');
SET ROLE regress_ttl_member;
SELECT gt_ttl_create('rr.t', 'expires_at');
SET ROLE regress_ttl_other;
SELECT t.fails($$SELECT gt_ttl_drop('rr.t')$$);
-- who sees it
SELECT count(*) FROM gt_ttls;
SET ROLE regress_ttl_monitor;
SELECT table_name, owner, paused FROM gt_ttls WHERE table_name = 'rr.t'::regclass;
SET ROLE regress_ttl_owner;
SELECT table_name, owner, paused FROM gt_ttls;

-- names of objects that stand for rows are the owner's
SET ROLE regress_ttl_other;
SELECT t.fails($$SELECT gt_lease_create('1', 'rr.t')$$);
SELECT sqlstate, message FROM gt_lease_grant_each('[{"object_id": "1", "object_type": "rr.t"}, {"object_id": "1", "object_type": "rr.u"}]');
SET ROLE regress_ttl_member;
SELECT gt_release(gt_lease_create('1', 'rr.t'));

-- the handler is one that the owner may use, whoever declares it
SET ROLE regress_ttl_owner;
SELECT t.fails($$SELECT gt_ttl_create('rr.t', 'expires_at', 'rr_other')$$);
RESET ROLE;
SELECT t.fails($$SELECT gt_ttl_create('rr.t', 'expires_at', 'rr_other')$$);
SELECT gt_handler_grant('rr_other', 'regress_ttl_owner');
SELECT gt_ttl_create('rr.t', 'expires_at', 'rr_other');
INSERT INTO rr.t VALUES (1, '2020-01-01');
SELECT gt_handler_revoke('rr_other', 'regress_ttl_owner');
CALL gt_reclaim();
SELECT count(*) FROM rr.t;
SELECT paused, paused_reason FROM gt_ttls WHERE table_name = 'rr.t'::regclass;
SELECT gt_handler_grant('rr_other', 'regress_ttl_owner');
CALL gt_reclaim();
SELECT count(*) FROM rr.t;
SELECT object_id, owner, handler FROM gt_garbage WHERE object_type = 'rr.t';
SELECT gt_ack(cleanup_id, attempts) FROM gt_garbage WHERE object_type = 'rr.t';

-- what is run is the owner's, and he can be nobody else
SET ROLE regress_ttl_owner;
SET search_path = rr;
CREATE TABLE rr.seen (id int, who name, sess name, path text, in_cleanup text, sent text);
CREATE FUNCTION rr.see() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF OLD.note = 'role' THEN RESET ROLE; END IF;
	IF OLD.note = 'auth' THEN RESET SESSION AUTHORIZATION; END IF;
	IF OLD.note = 'temp' THEN CREATE TEMPORARY TABLE mine (i int); END IF;
	IF OLD.note = 'lock' THEN PERFORM pg_advisory_lock(1); END IF;
	INSERT INTO seen VALUES (OLD.id, current_user, session_user, current_setting('search_path'), current_setting('garbagetruck.in_cleanup'));
	RETURN OLD;
END $$;
CREATE TRIGGER see BEFORE DELETE ON rr.t FOR EACH ROW EXECUTE FUNCTION rr.see();
-- a deferred trigger would fire at the commit
CREATE FUNCTION rr.late() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO rr.seen (id, who, sess) VALUES (-OLD.id, current_user, session_user);
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER late AFTER DELETE ON rr.t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION rr.late();
SELECT public.gt_ttl_create('rr.t', 'expires_at');
INSERT INTO rr.t SELECT i, '2020-01-01', n FROM unnest('{role,auth,temp,lock,plain}'::text[]) WITH ORDINALITY u(n, i);
RESET search_path;
RESET ROLE;
CALL gt_reclaim();
SELECT id, who, sess, path, in_cleanup FROM rr.seen ORDER BY id;
SELECT object_id, error FROM gt_garbage WHERE object_type = 'rr.t' ORDER BY 1;
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory';
DROP TRIGGER late ON rr.t;
DROP TRIGGER see ON rr.t;
SELECT gt_redrive(ARRAY(SELECT cleanup_id FROM gt_garbage WHERE object_type = 'rr.t'));
CALL gt_reclaim();
SELECT count(*) FROM rr.t;

-- an index expression whose function is redefined since
SET ROLE regress_ttl_owner;
TRUNCATE rr.seen;
CREATE FUNCTION rr.ends(at timestamptz) RETURNS timestamptz LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN at; END $$;
CREATE TABLE rr.e (id int PRIMARY KEY, at timestamptz);
SELECT public.gt_ttl_create('rr.e', 'rr.ends(at)', create_index => true);
INSERT INTO rr.e VALUES (1, '2020-01-01'), (2, '2020-01-01');
CREATE OR REPLACE FUNCTION rr.ends(at timestamptz) RETURNS timestamptz LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	RETURN at + interval '200 years';
END $$;
RESET ROLE;
CALL gt_reclaim();
SELECT count(*) FROM rr.e;
SET ROLE regress_ttl_owner;
CREATE OR REPLACE FUNCTION rr.ends(at timestamptz) RETURNS timestamptz LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	RAISE 'I am % and %', current_user, session_user;
END $$;
RESET ROLE;
CALL gt_reclaim();
SELECT failures > 0 AS failed, last_error FROM gt_ttls WHERE table_name = 'rr.e'::regclass;
SELECT object_id, error FROM gt_garbage WHERE object_type = 'rr.e' ORDER BY 1;
SET ROLE regress_ttl_owner;
CREATE OR REPLACE FUNCTION rr.ends(at timestamptz) RETURNS timestamptz LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN at; END $$;
RESET ROLE;
SELECT gt_redrive(ARRAY(SELECT cleanup_id FROM gt_garbage WHERE object_type = 'rr.e'));
CALL gt_reclaim();
SELECT count(*) FROM rr.e;

-- to look at it calls nothing that its owner has made: not in whose session it would be
SET ROLE regress_ttl_owner;
CREATE SEQUENCE rr.calls;
CREATE FUNCTION rr.called(at timestamptz) RETURNS timestamptz LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM nextval('rr.calls'); RETURN at; END $$;
CREATE TYPE rr.mood AS ENUM ('a', 'b');
CREATE FUNCTION rr.mood_json(rr.mood) RETURNS json LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('rr.calls'); RETURN to_json($1::text); END $$;
CREATE CAST (rr.mood AS json) WITH FUNCTION rr.mood_json(rr.mood);
CREATE TABLE rr.c (id int, m rr.mood, at timestamptz, PRIMARY KEY (id, m));
CREATE INDEX ON rr.c (rr.called(greatest(at, rr.called('2001-01-01 UTC')))) WHERE rr.called(greatest(at, rr.called('2001-01-01 UTC'))) IS NOT NULL;
SELECT public.gt_ttl_create('rr.c', 'rr.called(greatest(at, rr.called(''2001-01-01 UTC'')))', wake => false);
INSERT INTO rr.c VALUES (1, 'a', '2020-01-01 UTC'), (2, 'b', '2120-01-01 UTC');
SELECT setval('rr.calls', 1);
RESET ROLE;
\c -
SELECT paused, next_due_at AT TIME ZONE 'UTC' AS next_due_at, oldest_overdue > '1 year' AS overdue FROM gt_ttls WHERE table_name = 'rr.c'::regclass;
SELECT ok, regexp_replace(detail, '[0-9.]+ s', 'n s') AS detail FROM gt_health() WHERE check_name = 'ttl';
SELECT value > 1e6 AS overdue FROM gt_metrics() WHERE name = 'garbagetruck_ttl_oldest_overdue_seconds' AND labels ->> 'table' = 'rr.c';
SELECT last_value FROM rr.calls;
CALL gt_reclaim();
SELECT id FROM rr.c;
SELECT next_due_at AT TIME ZONE 'UTC' AS next_due_at FROM gt_ttls WHERE table_name = 'rr.c'::regclass;
DROP TABLE rr.c;

-- row security that holds for the owner, too: what is hidden from the DELETE has failed
SET ROLE regress_ttl_owner;
CREATE TABLE rr.p (id int PRIMARY KEY, expires_at timestamptz, note text);
CREATE POLICY readable ON rr.p FOR SELECT USING (note IS DISTINCT FROM 'unseen');
CREATE POLICY writable ON rr.p FOR INSERT WITH CHECK (true);
CREATE POLICY deletable ON rr.p FOR DELETE USING (note IS NULL);
ALTER TABLE rr.p ENABLE ROW LEVEL SECURITY;
ALTER TABLE rr.p FORCE ROW LEVEL SECURITY;
SELECT gt_ttl_create('rr.p', 'expires_at', create_index => true);
INSERT INTO rr.p VALUES (1, '2020-01-01', NULL), (2, '2020-01-01', 'kept'), (3, '2020-01-01', 'unseen');
RESET ROLE;
CALL gt_reclaim();
SELECT id FROM rr.p ORDER BY id;
SELECT object_id, error FROM gt_garbage WHERE object_type = 'rr.p' ORDER BY 1;
SET ROLE regress_ttl_owner;
ALTER TABLE rr.p NO FORCE ROW LEVEL SECURITY;
SELECT gt_redrive();
RESET ROLE;
CALL gt_reclaim();
SELECT count(*) FROM rr.p;

-- a trigger that brings the row back; one that moves the deadline; a rule
CREATE FUNCTION rr.back() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF OLD.note = 'back' THEN INSERT INTO rr.p VALUES (OLD.*); END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER back AFTER DELETE ON rr.p FOR EACH ROW EXECUTE FUNCTION rr.back();
INSERT INTO rr.p VALUES (1, '2020-01-01', 'back'), (2, '2020-01-01', NULL);
CALL gt_reclaim();
SELECT id FROM rr.p;
SELECT object_id, error FROM gt_garbage WHERE object_type = 'rr.p' ORDER BY 1;
SELECT gt_ack(cleanup_id, attempts) FROM gt_garbage WHERE object_type = 'rr.p';
DROP TRIGGER back ON rr.p;
CREATE RULE keep AS ON DELETE TO rr.p DO INSTEAD NOTHING;
CALL gt_reclaim();
SELECT object_id, error FROM gt_garbage WHERE object_type = 'rr.p' ORDER BY 1;
DROP RULE keep ON rr.p;
SELECT gt_redrive(ARRAY(SELECT cleanup_id FROM gt_garbage WHERE object_type = 'rr.p'));
CALL gt_reclaim();
SELECT count(*) FROM rr.p;

-- the owner changes; a schema of the path is opened; he may not delete any more
INSERT INTO rr.t VALUES (1, '2020-01-01');
ALTER TABLE rr.t OWNER TO regress_ttl_other;
CALL gt_reclaim();
SELECT paused, paused_reason FROM gt_ttls WHERE table_name = 'rr.t'::regclass;
-- the remedy has all that was declared, and first what the new owner needs
ALTER TABLE rr.t OWNER TO regress_ttl_owner;
SELECT gt_handler_create('rr_super', 'queue'), gt_handler_grant('rr_super', 'regress_ttl_owner');
SELECT gt_ttl_create('rr.t', 'expires_at', 'rr_super', 500, 100000, false, false, true, '1.5 s');
ALTER TABLE rr.t OWNER TO regress_ttl_other;
SELECT detail, remedy FROM gt_health() WHERE check_name = 'ttl';
SELECT remedy FROM gt_health() WHERE check_name = 'ttl' \gexec
SELECT ok FROM gt_health() WHERE check_name = 'ttl';
SELECT expires_at, cleanup, owner, batch_size, rate_limit, wake, paused, paused_reason, grace FROM gt_ttls WHERE table_name = 'rr.t'::regclass;
SELECT gt_handler_revoke('rr_super', 'regress_ttl_other');
SELECT remedy FROM gt_health() WHERE check_name = 'ttl' \gexec
SELECT ok FROM gt_health() WHERE check_name = 'ttl';
ALTER TABLE rr.t OWNER TO regress_ttl_owner;
SET search_path = rr;
SELECT public.gt_ttl_create('rr.t', 'expires_at'), public.gt_handler_drop('rr_super');
RESET search_path;
-- no USAGE on its schema
REVOKE USAGE ON SCHEMA rr FROM regress_ttl_owner;
CALL gt_reclaim();
SELECT remedy FROM gt_health() WHERE check_name = 'ttl';
SELECT remedy FROM gt_health() WHERE check_name = 'ttl' \gexec
REVOKE DELETE ON rr.t FROM regress_ttl_owner;
CALL gt_reclaim();
SELECT paused, paused_reason FROM gt_ttls WHERE table_name = 'rr.t'::regclass;
SELECT remedy FROM gt_health() WHERE check_name = 'ttl' AND NOT ok;
GRANT DELETE ON rr.t TO regress_ttl_owner;
GRANT CREATE ON SCHEMA rr TO regress_ttl_other;
CALL gt_reclaim();
SELECT paused, paused_reason FROM gt_ttls WHERE table_name = 'rr.t'::regclass;
REVOKE CREATE ON SCHEMA rr FROM regress_ttl_other;
CALL gt_reclaim();
SELECT count(*) FROM rr.t;

-- in a block one's own alone
INSERT INTO rr.t VALUES (1, '2020-01-01');
SET ROLE regress_ttl_other;
BEGIN;
CALL gt_reclaim();
COMMIT;
RESET ROLE;
SELECT count(*) FROM rr.t;
SET SESSION AUTHORIZATION regress_ttl_owner;
BEGIN;
CALL gt_reclaim();
COMMIT;
RESET SESSION AUTHORIZATION;
SELECT count(*) FROM rr.t;
SET client_min_messages = warning;
DROP SCHEMA rr CASCADE;
SELECT gt_handler_drop('rr_other');
SELECT gt_disallow('regress_ttl_owner'), gt_disallow('regress_ttl_owner', 'handler'), gt_disallow('regress_ttl_other'), gt_disallow('regress_ttl_other', 'handler'),
	gt_disallow('regress_ttl_monitor', 'monitor');
REVOKE USAGE ON SCHEMA t FROM PUBLIC;
DROP ROLE regress_ttl_member, regress_ttl_owner, regress_ttl_other, regress_ttl_monitor;
RESET client_min_messages;
