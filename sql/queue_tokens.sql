-- Tokens: given back, given up, discarded, hurried; what others' tell; how long an unanswered one keeps the object.
\set VERBOSITY terse
\set SHOW_CONTEXT never
SELECT gt_handler_create('t_q', 'queue', max_attempts => 2, retry_delay => '1 hour'),
	gt_handler_create('t_n', 'notify', 'hints', max_attempts => 2, retry_delay => '1 hour');
CREATE FUNCTION t.made(id text, handler text) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	PERFORM gt_release(gt_lease_create(id, 't', cleanup => handler));
	RETURN (SELECT cleanup_id FROM gt_garbage WHERE object_id = id AND object_type = 't');
END $$;
-- what is seen of a piece of garbage; "in": until its next attempt, in minutes
CREATE FUNCTION t.seen(id bigint, OUT state text, OUT attempts int, OUT max_attempts int, OUT "in" numeric, OUT error text)
LANGUAGE sql AS $$
	SELECT g.state, g.attempts, g.max_attempts, round(extract(epoch FROM next_attempt_at - gt_clock()) / 60), g.error
	FROM gt_garbage g WHERE cleanup_id = $1 $$;

-- not now: no attempt; the token is used up, and the limit grows with it
SELECT t.made('back', 't_q') AS c \gset
SELECT attempt FROM gt_claim('{t_q}');
SELECT gt_nack(:c, 1, NULL), gt_nack(:c, 1, NULL) AS again, gt_ack(:c, 1) AS stale;
SELECT * FROM t.seen(:c);
SELECT attempt FROM gt_claim('{t_q}', cleanup_ids => ARRAY[:c]);
SELECT gt_nack(:c, 2, NULL, '30 minutes');
SELECT * FROM t.seen(:c);
-- the steps of the back-off do not count it, and it does not double: a failure, two that were none, another failure
SELECT attempt FROM gt_claim('{t_q}', cleanup_ids => ARRAY[:c]);
SELECT gt_nack(:c, 3, 'first', '0') AS failed, gt_redrive(ARRAY[:c]);
SELECT attempt FROM gt_claim('{t_q}');
SELECT gt_nack(:c, 4, NULL);
SELECT * FROM t.seen(:c);
SELECT runs, failures FROM gt_handlers WHERE name = 't_q';
-- without an error there is no final; with one it is dead at once
SELECT attempt FROM gt_claim('{t_q}', cleanup_ids => ARRAY[:c]);
SELECT t.fails(format('SELECT gt_nack(%s, 5, NULL, final => true)', :c)), t.fails(format('SELECT gt_nack(%s, 5, ''x'', final => NULL)', :c));
SELECT gt_ack(:c, 5);
SELECT t.made('final', 't_q') AS c \gset
SELECT attempt FROM gt_claim('{t_q}');
SELECT gt_nack(:c, 1, 'it can not be done', '1 second', true);
SELECT * FROM t.seen(:c);
-- redriven: the limit rises by max_attempts
SELECT gt_redrive(ARRAY[:c]);
SELECT * FROM t.seen(:c);
SELECT attempt FROM gt_claim('{t_q}');
SELECT gt_nack(:c, 2, 'again', final => true), gt_ack(:c, 1) AS stale, gt_ack(:c, 2) AS discarded;
-- a last attempt that lapsed and is given back late is none: there is another
SELECT t.made('late', 't_q') AS c \gset
SELECT gt_nack(:c, attempt, 'no') FROM gt_claim('{t_q}');
SELECT attempt FROM gt_claim(cleanup_ids => ARRAY[:c], visibility => '1 ms');
SELECT pg_sleep(0.002);
SELECT count(*) FROM gt_claim('{t_q}');
SELECT * FROM t.seen(:c);
SELECT gt_nack(:c, 2, NULL);
SELECT * FROM t.seen(:c);
-- sooner than in 100 ms is then
SELECT attempt FROM gt_claim(cleanup_ids => ARRAY[:c]);
BEGIN;
SELECT gt_clock() AS before \gset
SELECT gt_nack(:c, 3, NULL, '0');
SELECT next_attempt_at >= :'before'::timestamptz + '100 ms' AS later FROM gt_garbage WHERE cleanup_id = :c;
COMMIT;
SELECT t.fails(format('SELECT gt_nack(%s, 3, NULL, ''-1 s'')', :c)), t.fails(format('SELECT gt_nack(%s, 3, NULL, ''31 days'')', :c));
SELECT gt_ack(:c, 3) AS stale, gt_ack(:c, 4) AS its_next;

-- kind notify: the announced token too
SELECT t.made('hint', 't_n') AS c \gset
CALL gt_reclaim() \g /dev/null
SELECT gt_nack(:c, 1, NULL), gt_ack(:c, 1) AS stale;
SELECT * FROM t.seen(:c);
SELECT gt_redrive(ARRAY[:c]), gt_redrive(handler => 't_n') AS due_already;
CALL gt_reclaim() \g /dev/null
SELECT * FROM t.seen(:c);
-- hurried, it is announced again, by the same token
SELECT gt_redrive(handler => 't_n');
CALL gt_reclaim() \g /dev/null
SELECT * FROM t.seen(:c);
SELECT gt_nack(:c, 2, 'for good', final => true);
SELECT * FROM t.seen(:c);
SELECT gt_ack(:c, 3) AS future, gt_ack(:c, 2) AS discarded;

-- discarded while it waits: by the token of its next attempt, or by what the views show as long as nobody had that
SET client_min_messages = warning;
SELECT gt_handler_create('t_s', 'sql', 'SELECT 1 / 0', max_attempts => 3, retry_delay => '1 hour');
RESET client_min_messages;
SELECT t.made('waits', 't_s') AS s, t.made('waits too', 't_q') AS q \gset
CALL gt_reclaim() \g /dev/null
SELECT state, attempts, max_attempts, "in" BETWEEN 30 AND 60 AS "in", error FROM t.seen(:s);
SELECT gt_ack(:s, 0) AS past, gt_ack(:s, 3) AS future, gt_ack(:s, 1) AS discarded;
SELECT gt_ack_many(ARRAY[:q, :q], ARRAY[0, 0]) AS once;
SELECT event, object_id, attempt, handler FROM gt_history WHERE object_type = 't' AND event = 'discarded' ORDER BY at;
SELECT name, runs, failures FROM gt_handlers WHERE name LIKE 't\__' ORDER BY 1;
-- an attempt that is out is not at rest
SELECT t.made('out', 't_q') AS c \gset
SELECT attempt FROM gt_claim('{t_q}');
SELECT gt_ack(:c, 0) AS past, gt_ack(:c, 2) AS future, gt_redrive(ARRAY[:c]) AS claimed, gt_ack(:c, 1);

-- waiting garbage is due at once, and counted; that is no attempt. Dead and waiting together, up to max_items
SELECT t.made('w1', 't_q') AS w1, t.made('w2', 't_q') AS w2, t.made('w3', 't_q') AS w3 \gset
SELECT count(gt_nack(cleanup_id, attempt, 'no', make_interval(mins => 10 * (cleanup_id - :w1 + 1)::int), cleanup_id = :w3)) FROM gt_claim('{t_q}');
SELECT gt_redrive(handler => 't_q', max_items => 2);
SELECT cleanup_id - :w1 AS n, s.* FROM gt_garbage g, t.seen(g.cleanup_id) s WHERE handler = 't_q' ORDER BY 1;
SELECT gt_redrive(handler => 't_q');
SELECT gt_redrive(handler => 't_q');
SELECT gt_redrive(ARRAY[:w1, :w1, :w2, NULL, -1]) AS due_counts;
SELECT count(*) FILTER (WHERE attempt = 2) FROM gt_claim('{t_q}');
SELECT gt_ack_many(ARRAY[:w1, :w2, :w3], ARRAY[2, 2, 2]);

-- how long an attempt that nobody answers keeps a create away: as long again as its visibility, from a minute to an hour
CREATE FUNCTION t.away(id bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
BEGIN
	PERFORM gt_lease_create('flight', 't');
	RETURN 'created';
EXCEPTION WHEN SQLSTATE 'GT004' THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN (SELECT round(extract(epoch FROM substring(detail FROM 'after (.*)\.')::timestamptz - g.claimed_until)) || ' s'
		FROM gt_garbage g WHERE cleanup_id = id);
END $$;
SELECT gt_release(gt_lease_create('flight', 't', cleanup => 't_q', max_attempts => 5));
SELECT cleanup_id AS c, attempt FROM gt_claim('{t_q}', visibility => '20 minutes') \gset
SELECT t.away(:c);
SELECT gt_extend(:c, 1, '3 hours'), t.away(:c);
SELECT gt_extend(:c, 1, '90 s'), t.away(:c);
SELECT gt_extend(:c, 1, '1 ms'), t.away(:c);
SELECT pg_sleep(0.002);
SELECT attempt FROM gt_claim('{t_q}', visibility => '50 minutes');
SELECT t.away(:c);
-- lapsed, and claimed for less: what that holder is owed stays; once the newest is answered, none is out
UPDATE _garbagetruck.gt_object SET claimed_until = gt_clock(), due_at = gt_clock() WHERE cleanup_id = :c;
SELECT attempt FROM gt_claim('{t_q}', visibility => '5 minutes');
SELECT t.away(:c);
SELECT gt_extend(:c, 3, '10 minutes'), t.away(:c);
SELECT gt_nack(:c, 3, NULL), gt_ack(:c, 2) AS stale;
SELECT t.away(:c);
SELECT gt_release(lease_id) FROM gt_leases WHERE object_id = 'flight';
SELECT gt_ack(cleanup_id, 1) FROM gt_garbage WHERE object_id = 'flight';

-- bounds
SELECT t.fails($$SELECT gt_handler_create('t_x', 'queue', max_attempts => 1001)$$);
SELECT t.fails($$SELECT gt_lease_create('x', max_attempts => 1001)$$);
SELECT sqlstate, message FROM gt_lease_grant_each('[{"object_id": "x", "max_attempts": 1001}, {"object_id": "x", "retry_delay": "25 h"}]');
SELECT t.fails($$SELECT gt_handler_create(U&'a\009b', 'queue')$$), t.fails($$SELECT gt_handler_create('t_x', 'notify', U&'\0080')$$);
SELECT t.fails($$SELECT gt_share('pg_monitor', U&'a\009f')$$), t.fails($$SET garbagetruck.identity = E'a\x07'$$);
-- the longer retry_delay holds
SELECT gt_release(gt_lease_create('delay', 't', cleanup => 't_q', retry_delay => '0')), gt_release(gt_lease_create('delay 2', 't', cleanup => 't_q', retry_delay => '2 hours'));
SELECT object_id, gt_nack(cleanup_id, attempt, NULL) FROM gt_claim('{t_q}') ORDER BY 1;
SELECT object_id, s."in" FROM gt_garbage g, t.seen(g.cleanup_id) s WHERE object_id LIKE 'delay%' ORDER BY 1;
SELECT count(gt_ack(cleanup_id, attempts + 1)) FROM gt_garbage WHERE object_id LIKE 'delay%';

-- refused at registration, with what helps
\set VERBOSITY default
SELECT gt_handler_create('t_x', 'sql', 'DO $d$ BEGIN END $d$');
SELECT gt_handler_create('t_x', 'sql', 'DROP TABLE nothing');
SELECT gt_handler_create('t_x', 'sql', 'VACUUM');
SELECT gt_handler_create('t_x', 'sql', 'COMMIT');
\set VERBOSITY terse

-- of others: their ids tell nothing, and what they give binds nobody unasked
CREATE ROLE regress_q_one;
CREATE ROLE regress_q_two;
SELECT gt_allow(r), gt_allow(r, 'handler') FROM unnest('{regress_q_one,regress_q_two}'::name[]) r;
SET ROLE regress_q_one;
SELECT gt_handler_create('q_secret', 'queue', retry_delay => '1 hour');
SELECT gt_release(gt_lease_create(o, 'q', cleanup => 'q_secret')) FROM unnest('{a,b,c}'::text[]) o;
SELECT min(cleanup_id) AS a FROM gt_garbage WHERE handler = 'q_secret' \gset
SELECT gt_nack(cleanup_id, attempt, 'dead', final => true) FROM gt_claim('{q_secret}', cleanup_ids => ARRAY[:a + 2]);
SELECT attempt FROM gt_claim(cleanup_ids => ARRAY[:a + 1]);
SET ROLE regress_q_two;
SELECT gt_ack(:a, 0), gt_ack(:a, 1), gt_ack(:a + 1, 1), gt_ack(:a + 2, 1), gt_nack(:a + 1, 1, 'x'), gt_nack(:a + 1, 1, NULL), gt_extend(:a + 1, 1, '1 s');
SELECT gt_ack_many(ARRAY[:a, :a + 1, :a + 2], ARRAY[0, 1, 1]), gt_redrive(ARRAY[:a, :a + 1, :a + 2]), gt_redrive();
SELECT count(*) FROM gt_claim(cleanup_ids => ARRAY[:a, :a + 1, :a + 2]);
\set VERBOSITY default
SELECT gt_claim('{q_secret}');
SELECT gt_redrive(handler => 'q_secret');
SELECT gt_pause('q_secret');
\set VERBOSITY terse
SET ROLE regress_q_one;
SELECT object_id, state, attempts FROM gt_garbage WHERE handler = 'q_secret' ORDER BY 1;
SELECT gt_handler_grant('q_secret', 'regress_q_two', 'claim');
SET ROLE regress_q_two;
SELECT gt_handler_create('q_mine', 'queue');
SELECT gt_release(gt_lease_create('mine', 'q', cleanup => 'q_mine'));
-- without names: one's own
SELECT object_id FROM gt_claim();
SELECT gt_redrive();
-- named, by handler or by id
SELECT gt_redrive(handler => 'q_secret'), gt_redrive(ARRAY[:a]);
SELECT object_id FROM gt_claim('{q_secret}', 1);
SELECT object_id FROM gt_claim(cleanup_ids => ARRAY[:a + 2]);
SELECT gt_ack_many(ARRAY[:a, :a + 1, :a + 2], ARRAY[1, 1, 2]);
RESET ROLE;
SELECT t.fails($$SELECT gt_claim('{t_s}')$$);
-- a member's own are those of the role
GRANT regress_q_one TO regress_q_two;
SET ROLE regress_q_one;
SELECT gt_release(gt_lease_create('member', 'q', cleanup => 'q_secret'));
SET ROLE regress_q_two;
SELECT object_id, gt_ack(cleanup_id, attempt) FROM gt_claim() ORDER BY 1;
RESET ROLE;
SELECT gt_ack(cleanup_id, attempts) FROM gt_garbage WHERE object_id = 'mine';

-- the owner is gone, and somebody else has its name
CREATE ROLE regress_q_gone;
SELECT gt_allow('regress_q_gone'), gt_allow('regress_q_gone', 'handler');
SET ROLE regress_q_gone;
SELECT gt_handler_create('q_gone', 'queue');
RESET ROLE;
SELECT gt_disallow('regress_q_gone'), gt_disallow('regress_q_gone', 'handler');
DROP OWNED BY regress_q_gone;
DROP ROLE regress_q_gone;
CREATE ROLE regress_q_gone;
SELECT gt_allow('regress_q_gone'), gt_allow('regress_q_gone', 'handler');
\set VERBOSITY default
SET ROLE regress_q_gone;
SELECT gt_handler_create('q_gone', 'queue');
SELECT gt_claim('{q_gone}');
SELECT gt_lease_create('x', cleanup => 'q_gone');
RESET ROLE;
\set VERBOSITY terse
-- the switch of the database is beside those of the handlers
SELECT gt_pause('t_q'), gt_pause(), gt_pause();
SELECT name, paused FROM gt_handlers WHERE name LIKE 't\__' ORDER BY 1;
SELECT gt_resume();
SELECT name, paused FROM gt_handlers WHERE name LIKE 't\__' ORDER BY 1;
SELECT count(*) FROM _garbagetruck.gt__paused;

SELECT gt_handler_drop(name) FROM unnest('{t_q,t_n,t_s,q_secret,q_mine,q_gone}'::text[]) name;
DROP FUNCTION t.made(text, text), t.seen(bigint), t.away(bigint);
SELECT gt_disallow(r), gt_disallow(r, 'handler') FROM unnest('{regress_q_one,regress_q_two,regress_q_gone}'::name[]) r;
DROP ROLE regress_q_one, regress_q_two, regress_q_gone;
