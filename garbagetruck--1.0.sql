/* garbagetruck--1.0.sql: tables, internals, leases, handlers, queue, rows, observation, views, rights, dump marks */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION garbagetruck" to load this file. \quit

-- ---------------------------------------------------------------------------
-- Tables, in a schema of their own: "all tables in schema public" of a grant, a
-- publication or a migration tool does not mean them.  All writing is done by C,
-- which finds them by OID and writes them through the table access method, never
-- through SQL: so no statement of ours depends on a search_path.  Column order is
-- known to src/table/schema.h and src/table/records.h.  Every table has a primary key, so that logical
-- replication of all tables can carry them; where nothing else tells rows apart
-- it is an id drawn at random, for which no two transactions ever wait.
-- Durations are bigint microseconds; text is COLLATE "C", so that a new version
-- of a system collation can not corrupt an index of ours.
-- ---------------------------------------------------------------------------

CREATE SCHEMA _garbagetruck;
COMMENT ON SCHEMA _garbagetruck IS 'Tables and internals of the extension garbagetruck: for its own functions only.';

CREATE SEQUENCE _garbagetruck.gt__cleanup_id;
CREATE SEQUENCE _garbagetruck.gt__handler_id MINVALUE 100 START 100;

-- One row per object that has leases or is garbage: the lock per object and the cleanup queue.
CREATE TABLE _garbagetruck.gt_object (
	object_type   text COLLATE "C" NOT NULL,
	object_id     text COLLATE "C" NOT NULL,
	owner         oid NOT NULL,             -- role of the first lease
	leases        int NOT NULL,             -- how many leases have not ended
	fence         bigint NOT NULL,          -- of the newest grant
	state         "char" NOT NULL,          -- h held, w waiting, c claimed, d dead, f forgotten but for regrant_at
	keep          boolean NOT NULL,         -- forget, do not clean, when the last lease ends
	alone         boolean NOT NULL,         -- was in a run that crashed: runs by itself next time
	evicted       int NOT NULL,             -- runs in a row that did not happen (worker evicted)
	handler       int,                      -- gt__handler.id; NULL: forgotten when the last lease ends
	spec_lease    uuid,                     -- the lease whose payload and retry options count
	regrant_at    timestamptz,              -- no exclusive grant before
	cleanup_id    bigint,                   -- from here on: of garbage (spec columns also while held, once spec_lease has ended)
	due_at        timestamptz,              -- next attempt; of a claim: its end; NULL: held or dead
	since         timestamptz,              -- end of the last lease
	attempts      int NOT NULL,
	max_attempts  int,                      -- NULL: the handler's
	retry_delay   bigint,                   -- NULL: the handler's
	extra_attempts int NOT NULL,            -- by gt_redrive, and for tokens of attempts that were not made
	lease_id      uuid,                     -- the last lease
	service_id    text COLLATE "C",
	payload       jsonb,
	metadata      jsonb,
	claimed_until timestamptz,
	flight_until  timestamptz,              -- an external attempt may be in flight until then
	sends         int NOT NULL,             -- kind notify: how often announced in this attempt
	error         text,
	flight_before timestamptz,              -- the same of claims before the newest
	steps         int,                      -- failures since it became garbage or was redriven; NULL: none
	timed_at      timestamptz,              -- gt_clock() of the last write: the times above are right by the clock of then
	conflicts     int,                      -- runs in a row that ended with 40001 or 40P01; NULL: none
	caller        text COLLATE "C",         -- whose it is of those who share the owner's role, see gt_caller_covers(); NULL: nobody's
	-- the id first: ids differ, and each comparison on the way down the tree is of one text, not two
	CONSTRAINT gt_object_pkey PRIMARY KEY (object_id, object_type) WITH (fillfactor = 80),
	CONSTRAINT gt_object_held CHECK ((state OPERATOR(pg_catalog.=) 'h') OPERATOR(pg_catalog.=) (leases OPERATOR(pg_catalog.>) 0))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX gt_object_due ON _garbagetruck.gt_object (handler, due_at) WHERE due_at IS NOT NULL;
CREATE UNIQUE INDEX gt_object_cleanup ON _garbagetruck.gt_object (cleanup_id) WHERE cleanup_id IS NOT NULL;
CREATE INDEX gt_object_dead ON _garbagetruck.gt_object (handler, cleanup_id) WHERE state OPERATOR(pg_catalog.=) 'd';
CREATE INDEX gt_object_claimed ON _garbagetruck.gt_object (handler, due_at) WHERE state OPERATOR(pg_catalog.=) 'c';

-- One row per lease that has not ended.
CREATE TABLE _garbagetruck.gt_lease (
	id           uuid NOT NULL,
	object_type  text COLLATE "C" NOT NULL,
	object_id    text COLLATE "C" NOT NULL,
	owner        oid NOT NULL,              -- the creating role
	service_id   text COLLATE "C" NOT NULL,
	created_at   timestamptz NOT NULL,
	renewed_at   timestamptz NOT NULL,
	deadline     timestamptz,               -- NULL: a child, its parent's counts
	check_at     timestamptz,               -- never later than the deadline; only the worker moves it
	duration     bigint,
	run          bigint NOT NULL,           -- the server run of the last write, see src/lease/start.c; 0: over in any run
	renewals     bigint NOT NULL,
	fence        bigint NOT NULL,
	exclusive    boolean NOT NULL,
	attempts     int NOT NULL,              -- attempts to clean the object before this lease took it back
	parent       uuid,
	handler      int,
	max_attempts int,
	retry_delay  bigint,
	request_key  text COLLATE "C",
	payload      jsonb,
	metadata     jsonb,
	request_service text COLLATE "C",       -- of request_key: service_id as it was given; '' for NULL
	regrant_delay bigint,                   -- NULL: the setting
	CONSTRAINT gt_lease_pkey PRIMARY KEY (id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
-- a queue for each role: see src/lease/pick.c
CREATE INDEX gt_lease_check ON _garbagetruck.gt_lease (owner, check_at) WHERE check_at IS NOT NULL;
CREATE INDEX gt_lease_object ON _garbagetruck.gt_lease (object_type, object_id);
-- of a role, for its quota and for lists of its own: see src/report/page.c
CREATE INDEX gt_lease_service ON _garbagetruck.gt_lease (owner, service_id, id);
CREATE INDEX gt_lease_parent ON _garbagetruck.gt_lease (parent) WHERE parent IS NOT NULL;
CREATE UNIQUE INDEX gt_lease_request ON _garbagetruck.gt_lease (owner, request_service, request_key) WHERE request_key IS NOT NULL;

-- Leases that ended while they had children: the worker ends those in batches.
CREATE TABLE _garbagetruck.gt__orphan (
	parent    uuid NOT NULL CONSTRAINT gt__orphan_pkey PRIMARY KEY,
	expired   boolean NOT NULL,
	ended_at  timestamptz NOT NULL,
	owner     oid NOT NULL,                 -- in whose turn they are ended
	queued_at timestamptz NOT NULL          -- gt_clock() of the write
);
CREATE INDEX gt__orphan_due ON _garbagetruck.gt__orphan (owner, queued_at);

CREATE TABLE _garbagetruck.gt__handler (
	id            int NOT NULL CONSTRAINT gt__handler_pkey PRIMARY KEY,
	name          text COLLATE "C" NOT NULL,
	kind          text COLLATE "C" NOT NULL,
	command       text,
	owner         oid NOT NULL,
	owner_name    name NOT NULL,
	run_as        oid,                      -- NULL: the owner
	run_as_name   name,
	search_path   text,                     -- of the registering call, quoted, pg_temp last
	max_attempts  int NOT NULL,
	retry_delay   bigint NOT NULL,
	timeout       bigint NOT NULL,
	grace         bigint NOT NULL,
	concurrency   int,
	rate_limit    int,
	paused        boolean NOT NULL,
	paused_reason text,
	builtin       boolean NOT NULL,
	version       int NOT NULL,             -- grows with each replacement
	crashes       int NOT NULL,             -- crashes in a row of runs alone
	resumed_at    timestamptz,              -- the rate ramps up from here
	must_affect   boolean NOT NULL DEFAULT false,   -- a run that affects nothing has failed
	CONSTRAINT gt__handler_name UNIQUE (name)
) WITH (fillfactor = 70);

-- privilege: use | claim
CREATE TABLE _garbagetruck.gt__handler_right (
	handler   int NOT NULL,
	role      oid NOT NULL,
	role_name name NOT NULL,
	privilege text COLLATE "C" NOT NULL,
	CONSTRAINT gt__handler_right_pkey PRIMARY KEY (handler, role, privilege)
);

-- gt_share: role may lease the objects of owner (of one type; '': of all)
CREATE TABLE _garbagetruck.gt__share (
	owner       oid NOT NULL,
	role        oid NOT NULL,
	object_type text COLLATE "C" NOT NULL,
	owner_name  name NOT NULL,
	role_name   name NOT NULL,
	CONSTRAINT gt__share_pkey PRIMARY KEY (owner, role, object_type)
);

-- The name of each role that owns something here: tells roles apart in a copy. Of several rows of a role that with the
-- greatest id counts.
CREATE TABLE _garbagetruck.gt__role (
	role oid NOT NULL,
	name name NOT NULL,
	id   bigint NOT NULL,
	CONSTRAINT gt__role_pkey PRIMARY KEY (role, id)
);

-- What the runs of each handler came to: a row for each writer's slot, so that workers do not wait for each other.
CREATE TABLE _garbagetruck.gt__tally (
	handler     int NOT NULL,
	slot        int NOT NULL,
	runs        bigint NOT NULL,
	failures    bigint NOT NULL,
	last_run_at timestamptz,
	last_error  text,
	last_error_at timestamptz,
	CONSTRAINT gt__tally_pkey PRIMARY KEY (handler, slot)
) WITH (fillfactor = 50);

-- Intent of the worker that wrote it; without a living worker: a crashed run.  See src/clean/crash.c.
CREATE TABLE _garbagetruck.gt__run (
	worker    bigint NOT NULL,              -- unique in the life of the cluster
	handler   int NOT NULL,
	alone     boolean NOT NULL,
	together  boolean NOT NULL,             -- went down with others, and is not taken for the cause
	at        timestamptz NOT NULL,
	items     bigint[] NOT NULL,            -- cleanup ids: first and last of each range
	timeline  int NOT NULL,                 -- of the server that wrote it: another one now, and it was a switchover
	optimistic boolean NOT NULL,            -- ends leases and cleans their objects in one, see src/clean/optimistic.c
	careful_until timestamptz,              -- such a run crashed, and this is no run any more: none of its handler until then
	CONSTRAINT gt__run_pkey PRIMARY KEY (worker)
) WITH (fillfactor = 50);

-- The server run that is recorded here, and when it began: of several rows of it the latest counts.  See src/lease/start.c.
CREATE TABLE _garbagetruck.gt__start (
	run          bigint NOT NULL,
	started_at   timestamptz NOT NULL,
	grace        bigint NOT NULL,
	grace_before bigint NOT NULL,
	id           bigint NOT NULL CONSTRAINT gt__start_pkey PRIMARY KEY,
	rearmed      boolean NOT NULL,          -- no time in the rows of earlier runs is ahead, see src/lease/rearm.c
	history_now  timestamptz NOT NULL       -- the time that counted then for the retention of the history
) WITH (fillfactor = 50);

-- Where this database lives; a row that tells of another place makes it a copy.  See src/rights/place.c.
CREATE TABLE _garbagetruck.gt__place (
	identity  text COLLATE "C" NOT NULL,
	database  oid NOT NULL,
	adopted_at timestamptz,                 -- gt_resume(adopt => true): the grace counts from here, with the full duration
	subscribed boolean NOT NULL,            -- adopted although it subscribes to our tables
	restored  text,                         -- names the archive recovery after which it was written; NULL: none
	id        bigint NOT NULL CONSTRAINT gt__place_pkey PRIMARY KEY,
	replaces  bigint[]                      -- ids of the rows in whose place it was written: those say nothing any more
);

-- A table of a user's, by its OID; in text, and so in a dump, by its name. One that is not there is 0.
CREATE TYPE _garbagetruck.gt__table;
CREATE FUNCTION _garbagetruck.gt__table_in(cstring) RETURNS _garbagetruck.gt__table
AS 'MODULE_PATHNAME' LANGUAGE C STRICT STABLE PARALLEL SAFE;
CREATE FUNCTION _garbagetruck.gt__table_out(_garbagetruck.gt__table) RETURNS cstring
AS 'MODULE_PATHNAME' LANGUAGE C STRICT STABLE PARALLEL SAFE;
CREATE TYPE _garbagetruck.gt__table (INPUT = _garbagetruck.gt__table_in, OUTPUT = _garbagetruck.gt__table_out, LIKE = pg_catalog.oid);

-- Tables whose rows have a deadline of their own: gt_ttl_create(). See src/ttl/ttl.c.
CREATE TABLE _garbagetruck.gt__ttl (
	id            int NOT NULL CONSTRAINT gt__ttl_pkey PRIMARY KEY,    -- of the same sequence as gt__handler.id
	relation      _garbagetruck.gt__table NOT NULL,
	expires_at    text NOT NULL,            -- as it was given
	expression    text NOT NULL,            -- the same, with all names qualified
	cleanup       int,                      -- gt__handler.id; NULL: the rows are deleted, and that is all
	owner_name    name NOT NULL,            -- of the table, when it was declared
	search_path   text NOT NULL,            -- of the deletes, as of a handler
	batch_size    int,                      -- NULL: the setting
	rate_limit    int,
	wake          boolean NOT NULL,
	paused        boolean NOT NULL,
	paused_reason text,
	grace         bigint NOT NULL,
	version       int NOT NULL,             -- grows with each replacement
	crashes       int NOT NULL,             -- in a row, of rows deleted by themselves
	careful       int NOT NULL              -- so many rows go by themselves: more went down with others
) WITH (fillfactor = 70);

-- gt_pause(): the switch of the whole database; a row means paused.
CREATE TABLE _garbagetruck.gt__paused (
	at   timestamptz NOT NULL,
	role name NOT NULL,
	id   bigint NOT NULL CONSTRAINT gt__paused_pkey PRIMARY KEY
);

-- A log: rows come by the thousand, stay as they are, and go when they are old. So a row is kept small: what has one width
-- comes first, of the widest, and nothing is padded.
CREATE TABLE _garbagetruck.gt__history (
	at          timestamptz NOT NULL,
	id          bigint NOT NULL,
	expired_at  timestamptz,                -- of one that is cleaned: its last lease expired then, which is an event, too, but no row
	cleanup_id  bigint,
	lag         bigint,                     -- in microseconds, as took
	took        bigint,
	affected    bigint,                     -- rows that its statement has affected; NULL: SELECT and CALL do not tell
	owner       oid,
	attempt     int,
	handler_id  int,                        -- the error is for those who may claim this very handler, not its namesake
	handler_version int,                    -- gt__handler.version of the run
	lease_id    uuid,
	event       text COLLATE "C" NOT NULL,
	object_type text COLLATE "C",
	object_id   text COLLATE "C",
	handler     text COLLATE "C",
	service_id  text COLLATE "C",
	error       text,
	CONSTRAINT gt__history_pkey PRIMARY KEY (at, id)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.05);
-- Most objects end once, or rarely: what a full leaf would do to find equal names costs more than the few that it has.
CREATE INDEX gt__history_object ON _garbagetruck.gt__history (object_id) WITH (deduplicate_items = off);
-- Rows lie in the order of their times, but where they fill what older ones have left: so it is enough to know from when to
-- when each 32 pages are. A B-tree was a sixth of what the history of a lease costs: a pass of a thousand leases has one time,
-- and a leaf full of one key takes its entries one by one. Pages that VACUUM has not seen yet are not in it, and are
-- read by every look at a time: at most a twentieth of the table and 1000 rows, by the setting above, while autovacuum runs.
-- Pages that are used again count from the time of what was there first, too: a look at the last minutes, which is what people
-- want, reads the pages of these and no more, one at some minutes of last week those that came after it as well (80 ms of a
-- million rows, until a REINDEX).
-- Not autosummarize: it queues a request for each 32 pages, of which the whole server has room for 256.
-- Not for object_id, by a bloom filter: pages are used again and filters never forget, so after some rounds of the retention they
-- say yes to every name, and until then each new row writes the whole filter of its pages again.
CREATE INDEX gt__history_expired ON _garbagetruck.gt__history USING brin (expired_at) WITH (pages_per_range = 32)
	WHERE expired_at IS NOT NULL;

COMMENT ON TABLE _garbagetruck.gt_object IS 'One row per object that has leases or is garbage.';
COMMENT ON TABLE _garbagetruck.gt_lease IS 'One row per lease that has not ended.';
COMMENT ON TABLE _garbagetruck.gt__orphan IS 'Leases that ended while they had children, which are still to be ended.';
COMMENT ON TABLE _garbagetruck.gt__handler IS 'Handlers as registered.';
COMMENT ON TABLE _garbagetruck.gt__handler_right IS 'gt_handler_grant(): who may use or claim a handler.';
COMMENT ON TABLE _garbagetruck.gt__share IS 'gt_share(): who may lease the objects of whom.';
COMMENT ON TABLE _garbagetruck.gt__role IS 'The names of roles, which tell them apart in a copy.';
COMMENT ON TABLE _garbagetruck.gt__tally IS 'How the runs of each handler went.';
COMMENT ON TABLE _garbagetruck.gt__run IS 'What workers are about to run; without a living worker: a crashed run.';
COMMENT ON TABLE _garbagetruck.gt__start IS 'When the server run began that is recorded here.';
COMMENT ON TABLE _garbagetruck.gt__place IS 'Where this database lives; another place makes it a copy.';
COMMENT ON TABLE _garbagetruck.gt__paused IS 'gt_pause() of the whole database: a row means paused.';
COMMENT ON FUNCTION _garbagetruck.gt__table_in(cstring) IS 'Input of the type gt__table.';
COMMENT ON FUNCTION _garbagetruck.gt__table_out(_garbagetruck.gt__table) IS 'Output of the type gt__table.';
COMMENT ON TYPE _garbagetruck.gt__table IS 'A table of a user''s, by its OID; in text by its name.';
COMMENT ON TABLE _garbagetruck.gt__ttl IS 'Tables whose rows have a deadline of their own.';
COMMENT ON TABLE _garbagetruck.gt__history IS 'What became of objects.';
COMMENT ON SEQUENCE _garbagetruck.gt__cleanup_id IS 'Ids of garbage.';
COMMENT ON SEQUENCE _garbagetruck.gt__handler_id IS 'Ids of handlers.';

-- ---------------------------------------------------------------------------
-- Leases: src/lease
-- ---------------------------------------------------------------------------

CREATE FUNCTION @extschema@.gt_clock() RETURNS timestamptz
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.gt_clock() IS 'The clock by which leases are judged: monotonic within a server run, alike in all processes.';

CREATE FUNCTION @extschema@.gt_lease_create(object_id text, object_type text DEFAULT 'custom', service_id text DEFAULT NULL,
	duration interval DEFAULT NULL, cleanup text DEFAULT NULL, payload jsonb DEFAULT NULL,
	metadata jsonb DEFAULT NULL, parent uuid DEFAULT NULL, exclusive boolean DEFAULT false,
	request_key text DEFAULT NULL, max_attempts int DEFAULT NULL, retry_delay interval DEFAULT NULL,
	regrant_delay interval DEFAULT NULL)
RETURNS uuid AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.gt_lease_create(text, text, text, interval, text, jsonb, jsonb, uuid, boolean, text, int, interval, interval)
IS 'Creates a lease on an object and returns its id.';

CREATE FUNCTION @extschema@.gt_lease_grant(object_id text, object_type text DEFAULT 'custom', service_id text DEFAULT NULL,
	duration interval DEFAULT NULL, cleanup text DEFAULT NULL, payload jsonb DEFAULT NULL,
	metadata jsonb DEFAULT NULL, parent uuid DEFAULT NULL, exclusive boolean DEFAULT false,
	request_key text DEFAULT NULL, max_attempts int DEFAULT NULL, retry_delay interval DEFAULT NULL,
	regrant_delay interval DEFAULT NULL)
RETURNS TABLE (lease_id uuid, fence bigint, expires_at timestamptz, ttl interval, created boolean, attempts int)
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1;
COMMENT ON FUNCTION @extschema@.gt_lease_grant(text, text, text, interval, text, jsonb, jsonb, uuid, boolean, text, int, interval, interval)
IS 'Creates a lease on an object and returns all there is to know about it.';

CREATE FUNCTION @extschema@.gt_lease_create_many(object_ids text[], object_type text DEFAULT 'custom', service_id text DEFAULT NULL,
	duration interval DEFAULT NULL, cleanup text DEFAULT NULL, payload jsonb DEFAULT NULL,
	metadata jsonb DEFAULT NULL, parent uuid DEFAULT NULL, exclusive boolean DEFAULT false,
	max_attempts int DEFAULT NULL, retry_delay interval DEFAULT NULL, regrant_delay interval DEFAULT NULL)
RETURNS uuid[] AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.gt_lease_create_many(text[], text, text, interval, text, jsonb, jsonb, uuid, boolean, int, interval, interval)
IS 'Creates a lease on each object, or on none; equal ids get the same lease.';

CREATE FUNCTION @extschema@.gt_lease_grant_each(requests jsonb)
RETURNS TABLE (n int, sqlstate text, message text, lease_id uuid, fence bigint, expires_at timestamptz, created boolean,
	holder text, retry_after interval)
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.gt_lease_grant_each(jsonb)
IS 'Creates a lease for each element of an array of objects with the arguments of gt_lease_create; each succeeds or fails by itself.';

CREATE FUNCTION @extschema@.gt_renew(lease_id uuid, duration interval DEFAULT NULL, service_id text DEFAULT NULL)
RETURNS timestamptz AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.gt_renew(uuid, interval, text) IS 'Renews a lease and returns its new deadline.';

CREATE FUNCTION @extschema@.gt_renew_many(lease_ids uuid[], duration interval DEFAULT NULL, service_id text DEFAULT NULL)
RETURNS TABLE (lease_id uuid, status text, ttl interval, expires_at timestamptz)
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.gt_renew_many(uuid[], interval, text)
IS 'Renews leases and tells of each: renewed, expired, not_found, denied or child.';

CREATE FUNCTION @extschema@.gt_release(lease_id uuid, keep boolean DEFAULT false, service_id text DEFAULT NULL)
RETURNS boolean AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.gt_release(uuid, boolean, text) IS 'Ends a lease; with keep the object is not cleaned. False: it had ended.';

CREATE FUNCTION @extschema@.gt_release_many(lease_ids uuid[], keep boolean DEFAULT false, service_id text DEFAULT NULL)
RETURNS bigint AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.gt_release_many(uuid[], boolean, text) IS 'Ends leases and returns how many had not ended.';

CREATE FUNCTION @extschema@.gt_lease_update(lease_id uuid, payload jsonb DEFAULT NULL, metadata jsonb DEFAULT NULL, service_id text DEFAULT NULL,
	duration interval DEFAULT NULL)
RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.gt_lease_update(uuid, jsonb, jsonb, text, interval)
IS 'Replaces payload, metadata and duration of a lease, which then counts from now; NULL leaves as it is.';

CREATE FUNCTION @extschema@.gt_lease_get(lease_id uuid)
RETURNS TABLE (lease_id uuid, object_id text, object_type text, service_id text, state text,
	created_at timestamptz, renewed_at timestamptz, expires_at timestamptz, duration interval,
	renewals bigint, fence bigint, exclusive boolean, parent uuid, cleanup text, payload jsonb,
	metadata jsonb, attempts int, max_attempts int, retry_delay interval)
AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL RESTRICTED ROWS 1;
COMMENT ON FUNCTION @extschema@.gt_lease_get(uuid) IS 'Shows a lease of one''s own: one row, or none.';

CREATE FUNCTION @extschema@.gt_lease_list(service_id text DEFAULT NULL, object_type text DEFAULT NULL, state text DEFAULT NULL,
	max_rows int DEFAULT 100, after uuid DEFAULT NULL, object_id text DEFAULT NULL)
RETURNS TABLE (lease_id uuid, object_id text, object_type text, service_id text, state text,
	created_at timestamptz, renewed_at timestamptz, expires_at timestamptz, duration interval,
	renewals bigint, fence bigint, exclusive boolean, parent uuid, cleanup text, payload jsonb,
	metadata jsonb, attempts int, max_attempts int, retry_delay interval)
AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL RESTRICTED ROWS 100;
COMMENT ON FUNCTION @extschema@.gt_lease_list(text, text, text, int, uuid, text) IS 'Lists one''s own leases by id, a page at a time.';

CREATE FUNCTION @extschema@.gt_fence(lease_id uuid) RETURNS bigint
AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION @extschema@.gt_fence(uuid) IS 'The fence of a running lease.';

CREATE FUNCTION @extschema@.gt_fence_check(object_id text, object_type text, fence bigint) RETURNS boolean
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.gt_fence_check(text, text, bigint)
IS 'True exactly if a running lease of the object has this fence; share-locks the object to the end of the transaction.';

-- what the views and the read functions judge a lease by; NULL deadline: over
CREATE FUNCTION _garbagetruck.gt__deadline(id uuid, deadline timestamptz, duration bigint, run bigint, renewed_at timestamptz)
RETURNS timestamptz AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL RESTRICTED;
-- the same of what is shown of renewals
CREATE FUNCTION _garbagetruck.gt__renewed_at(id uuid, renewed_at timestamptz) RETURNS timestamptz
AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
CREATE FUNCTION _garbagetruck.gt__renewals(id uuid, renewals bigint) RETURNS bigint
AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
CREATE FUNCTION _garbagetruck.gt__running(id uuid, deadline timestamptz) RETURNS boolean
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
CREATE FUNCTION _garbagetruck.gt__acts_for(role oid) RETURNS boolean
AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL RESTRICTED;
CREATE FUNCTION _garbagetruck.gt__role_name(role oid) RETURNS name
AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL RESTRICTED;
CREATE FUNCTION _garbagetruck.gt__may(what text) RETURNS boolean
AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL RESTRICTED;

CREATE FUNCTION _garbagetruck.gt__may_look() RETURNS boolean
AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL RESTRICTED;

-- A lease as its reader sees it; the functions and the view gt_leases choose the rows.
CREATE VIEW _garbagetruck.gt__lease_view AS
SELECT l.id AS lease_id, l.object_id, l.object_type, l.service_id,
	CASE WHEN _garbagetruck.gt__running(d.id, d.expires_at) THEN 'active' ELSE 'expired' END AS state,
	l.created_at, _garbagetruck.gt__renewed_at(l.id, l.renewed_at) AS renewed_at, d.expires_at,
	l.duration OPERATOR(pg_catalog.*) interval '1 microsecond' AS duration,
	_garbagetruck.gt__renewals(l.id, l.renewals) AS renewals, l.fence, l.exclusive, l.parent, h.name AS cleanup, l.payload, l.metadata, l.attempts,
	coalesce(l.max_attempts, h.max_attempts) AS max_attempts,
	coalesce(l.retry_delay, h.retry_delay) OPERATOR(pg_catalog.*) interval '1 microsecond' AS retry_delay,
	l.owner
FROM _garbagetruck.gt_lease l
	-- by its index, whatever the statistics say: those of a moment ago may be of an empty table
	LEFT JOIN LATERAL (SELECT i.id, i.deadline, i.duration, i.run, i.renewed_at
		FROM _garbagetruck.gt_lease i WHERE i.id OPERATOR(pg_catalog.=) l.parent OFFSET 0) p ON true
	LEFT JOIN _garbagetruck.gt__handler h ON h.id OPERATOR(pg_catalog.=) l.handler
	CROSS JOIN LATERAL (SELECT coalesce(l.parent, l.id) AS id,
		CASE WHEN l.parent IS NULL THEN _garbagetruck.gt__deadline(l.id, l.deadline, l.duration, l.run, l.renewed_at)
			ELSE _garbagetruck.gt__deadline(p.id, p.deadline, p.duration, p.run, p.renewed_at) END AS expires_at
		OFFSET 0) d;

-- ---------------------------------------------------------------------------
-- Handlers and rights: src/handler, src/rights, src/control
-- ---------------------------------------------------------------------------

CREATE FUNCTION @extschema@.gt_handler_create(name text, kind text, command text DEFAULT NULL, max_attempts int DEFAULT 25,
	retry_delay interval DEFAULT '1 second', timeout interval DEFAULT '30 seconds',
	grace interval DEFAULT '0', concurrency int DEFAULT NULL, rate_limit int DEFAULT NULL, run_as name DEFAULT NULL,
	must_affect boolean DEFAULT false)
RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.gt_handler_create(text, text, text, int, interval, interval, interval, int, int, name, boolean)
IS 'Registers or replaces a handler: a named way to clean objects.';

CREATE FUNCTION @extschema@.gt_handler_drop(name text) RETURNS boolean
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.gt_handler_drop(text) IS 'Drops a handler that no lease and no garbage uses. False: there was none.';

CREATE FUNCTION @extschema@.gt_handler_grant(name text, role name, privilege text DEFAULT 'use') RETURNS void
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.gt_handler_grant(text, name, text) IS 'Lets a role use a handler, or claim its garbage.';

CREATE FUNCTION @extschema@.gt_handler_revoke(name text, role name, privilege text DEFAULT 'use') RETURNS void
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.gt_handler_revoke(text, name, text) IS 'Takes back what gt_handler_grant gave.';

-- EXECUTE on one of these is the right of that name
CREATE FUNCTION _garbagetruck.gt__mark_lease() RETURNS void AS 'MODULE_PATHNAME', 'gt__mark' LANGUAGE C IMMUTABLE;
CREATE FUNCTION _garbagetruck.gt__mark_handler() RETURNS void AS 'MODULE_PATHNAME', 'gt__mark' LANGUAGE C IMMUTABLE;
CREATE FUNCTION _garbagetruck.gt__mark_monitor() RETURNS void AS 'MODULE_PATHNAME', 'gt__mark' LANGUAGE C IMMUTABLE;
CREATE FUNCTION _garbagetruck.gt__mark_admin() RETURNS void AS 'MODULE_PATHNAME', 'gt__mark' LANGUAGE C IMMUTABLE;
CREATE FUNCTION _garbagetruck.gt__revoke_all() RETURNS void
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION @extschema@.gt_allow(role name, what text DEFAULT 'lease') RETURNS void
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.gt_allow(name, text) IS 'Lets a role lease, register handlers (handler), see everything (monitor) or administer (admin).';

CREATE FUNCTION @extschema@.gt_disallow(role name, what text DEFAULT 'lease') RETURNS void
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.gt_disallow(name, text) IS 'Takes back what gt_allow gave.';

CREATE FUNCTION @extschema@.gt_share(role name, object_type text DEFAULT NULL) RETURNS void
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.gt_share(name, text) IS 'Lets a role lease my objects, of one type or of all.';

CREATE FUNCTION @extschema@.gt_unshare(role name, object_type text DEFAULT NULL) RETURNS void
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.gt_unshare(name, text) IS 'Takes back what gt_share gave.';

CREATE FUNCTION @extschema@.gt_pause(handler text DEFAULT NULL) RETURNS void
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.gt_pause(text) IS 'Stops the attempts of a handler; without a name, all of this database. Expiry goes on.';

CREATE FUNCTION @extschema@.gt_resume(handler text DEFAULT NULL, adopt boolean DEFAULT false) RETURNS void
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.gt_resume(text, boolean) IS 'Ends gt_pause; with adopt, makes a copy act on its objects.';

-- ---------------------------------------------------------------------------
-- The queue of garbage: src/queue, src/clean
-- ---------------------------------------------------------------------------

CREATE FUNCTION @extschema@.gt_claim(handlers text[] DEFAULT NULL, max_items int DEFAULT 10, visibility interval DEFAULT '1 minute',
	cleanup_ids bigint[] DEFAULT NULL)
RETURNS TABLE (cleanup_id bigint, attempt int, object_id text, object_type text, handler text, kind text,
	command text, payload jsonb, metadata jsonb, lease_id uuid, service_id text, fence bigint, claimed_until timestamptz)
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 10;
COMMENT ON FUNCTION @extschema@.gt_claim(text[], int, interval, bigint[]) IS 'Starts attempts on garbage that the caller will clean and acknowledge.';

CREATE FUNCTION @extschema@.gt_ack(cleanup_id bigint, attempt int) RETURNS boolean
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.gt_ack(bigint, int) IS 'The object is clean; garbage that waits or is dead is discarded. False: stale, somebody else has it now.';

CREATE FUNCTION @extschema@.gt_nack(cleanup_id bigint, attempt int, error text, retry_after interval DEFAULT NULL, final boolean DEFAULT false) RETURNS boolean
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.gt_nack(bigint, int, text, interval, boolean) IS 'The attempt failed, for good with final; without an error it was not made. False: stale, somebody else has it now.';

CREATE FUNCTION @extschema@.gt_extend(cleanup_id bigint, attempt int, visibility interval) RETURNS boolean
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.gt_extend(bigint, int, interval) IS 'Sets the end of a claim to now + visibility. False: stale.';

CREATE FUNCTION @extschema@.gt_ack_many(cleanup_ids bigint[], attempts int[]) RETURNS bigint
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.gt_ack_many(bigint[], int[]) IS 'Acknowledges many and returns how many tokens were current.';

CREATE FUNCTION @extschema@.gt_redrive(cleanup_ids bigint[] DEFAULT NULL, handler text DEFAULT NULL, max_items int DEFAULT NULL)
RETURNS bigint AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.gt_redrive(bigint[], text, int) IS 'Gives dead garbage another max_attempts attempts, lets what waits be tried at once, and returns how many those are.';

CREATE FUNCTION @extschema@.gt_snooze(after interval, reason text DEFAULT NULL) RETURNS void
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.gt_snooze(interval, text) IS 'Called by a handler: not now. The run is rolled back at its end and comes again after this time.';

CREATE PROCEDURE @extschema@.gt_reclaim(max_items int DEFAULT NULL, INOUT done bigint DEFAULT 0)
AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON PROCEDURE @extschema@.gt_reclaim(int, bigint) IS 'The workers'' job in the foreground.';

-- ---------------------------------------------------------------------------
-- Rows with a deadline: src/ttl
-- ---------------------------------------------------------------------------

CREATE FUNCTION @extschema@.gt_ttl_create(table_name regclass, expires_at text, cleanup text DEFAULT NULL, batch_size int DEFAULT NULL,
	rate_limit int DEFAULT NULL, create_index boolean DEFAULT false, wake boolean DEFAULT true, paused boolean DEFAULT false,
	grace interval DEFAULT '0')
RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.gt_ttl_create(regclass, text, text, int, int, boolean, boolean, boolean, interval)
IS 'Declares that the rows of a table go when the deadline in them has passed; or replaces that.';

CREATE FUNCTION @extschema@.gt_ttl_drop(table_name regclass) RETURNS boolean
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.gt_ttl_drop(regclass) IS 'From now on the rows of the table stay. False: they did before.';

CREATE FUNCTION _garbagetruck.gt__ttl_wake() RETURNS trigger
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION _garbagetruck.gt__ttl_sees(id int, OUT table_name regclass, OUT owner oid, OUT suspended text, OUT next_due_at timestamptz, OUT oldest_overdue interval)
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;

-- ---------------------------------------------------------------------------
-- Observation: src/report
-- ---------------------------------------------------------------------------

CREATE FUNCTION @extschema@.gt_forecast(horizon interval DEFAULT '1 hour')
RETURNS TABLE (minute timestamptz, object_type text, handler text, leases bigint)
AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION @extschema@.gt_forecast(interval) IS 'What ends within the horizon if nobody renews, by minute.';

CREATE FUNCTION @extschema@.gt_health() RETURNS TABLE (check_name text, ok boolean, detail text, remedy text)
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 20;
COMMENT ON FUNCTION @extschema@.gt_health() IS 'What is wrong here, and the SQL or setting that helps: a row for each check, or several.';

CREATE FUNCTION @extschema@.gt_check(repair boolean DEFAULT false)
RETURNS TABLE (kind text, object_type text, object_id text, detail text, mended boolean)
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.gt_check(boolean) IS 'What contradicts itself in the tables; with repair it is mended, in transactions of its own.';

CREATE FUNCTION @extschema@.gt_metrics()
RETURNS TABLE (name text, kind text, labels jsonb, value double precision, help text)
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 100;
COMMENT ON FUNCTION @extschema@.gt_metrics() IS 'The numbers of this database for Prometheus. Needs preload.';

CREATE FUNCTION _garbagetruck.gt__workers()
RETURNS TABLE (pid int, role text, database name, state text, handler text, since timestamptz,
	next_due_at timestamptz, crashes int)
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 5;
-- for update scripts: 55000 where the library that is loaded is older
CREATE FUNCTION _garbagetruck.gt__needs_library(version text) RETURNS void
AS 'MODULE_PATHNAME' LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION _garbagetruck.gt__running_items() RETURNS SETOF bigint
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 10;
CREATE FUNCTION _garbagetruck.gt__handler_may(handler int, privilege text) RETURNS boolean
AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL RESTRICTED;
CREATE FUNCTION _garbagetruck.gt__handler_suspended(handler int) RETURNS text
AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL RESTRICTED;

-- How the sidecar reads text of a database that is not in UTF-8, see src/report/legible.c.
CREATE FUNCTION _garbagetruck.gt__legible(int, int, cstring, internal, int, boolean) RETURNS int
AS 'MODULE_PATHNAME' LANGUAGE C STRICT IMMUTABLE PARALLEL SAFE;
CREATE FUNCTION _garbagetruck.gt__legible_create(regnamespace, regprocedure) RETURNS void
AS 'MODULE_PATHNAME' LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;
SELECT _garbagetruck.gt__legible_create('@extschema@',
	'_garbagetruck.gt__legible(pg_catalog.int4, pg_catalog.int4, pg_catalog.cstring, pg_catalog.internal, pg_catalog.int4, pg_catalog.bool)');

-- ---------------------------------------------------------------------------
-- Views.  They read the tables as the extension's owner and ask about the caller:
-- gt__acts_for(), gt__may() and gt__handler_may() see current_user; gt__may_look()
-- refuses who was given nothing, before the first row.  Monitors see
-- every row, but commands, payloads, metadata and error texts only as anybody.
-- ---------------------------------------------------------------------------

CREATE VIEW @extschema@.gt_leases WITH (security_barrier) AS
SELECT v.lease_id, v.object_id, v.object_type, v.service_id, v.state, v.created_at, v.renewed_at, v.expires_at,
	v.duration, v.renewals, v.fence, v.exclusive, v.parent, v.cleanup,
	CASE WHEN _garbagetruck.gt__acts_for(v.owner) THEN v.payload END AS payload,
	CASE WHEN _garbagetruck.gt__acts_for(v.owner) THEN v.metadata END AS metadata,
	v.attempts, v.max_attempts, v.retry_delay,
	_garbagetruck.gt__role_name(v.owner) AS owner
FROM _garbagetruck.gt__lease_view v
WHERE (SELECT _garbagetruck.gt__may_look())
	AND ((SELECT _garbagetruck.gt__may('monitor')) OR _garbagetruck.gt__acts_for(v.owner));
COMMENT ON VIEW @extschema@.gt_leases IS 'Leases that have not ended: one''s own, or all for monitors.';
COMMENT ON COLUMN @extschema@.gt_leases.lease_id IS 'The name of the lease.';
COMMENT ON COLUMN @extschema@.gt_leases.object_id IS 'The name of the object.';
COMMENT ON COLUMN @extschema@.gt_leases.object_type IS 'The kind of object.';
COMMENT ON COLUMN @extschema@.gt_leases.service_id IS 'Who holds it, by the name that it gave.';
COMMENT ON COLUMN @extschema@.gt_leases.state IS 'active, or expired: it is over, and nobody has acted upon that yet.';
COMMENT ON COLUMN @extschema@.gt_leases.created_at IS 'By gt_clock().';
COMMENT ON COLUMN @extschema@.gt_leases.renewed_at IS 'When it was renewed last, else created.';
COMMENT ON COLUMN @extschema@.gt_leases.expires_at IS 'Its deadline, by gt_clock(); of a child its parents.';
COMMENT ON COLUMN @extschema@.gt_leases.duration IS 'Of a renewal that says nothing else; NULL: a child.';
COMMENT ON COLUMN @extschema@.gt_leases.renewals IS 'How often it was renewed.';
COMMENT ON COLUMN @extschema@.gt_leases.fence IS 'Larger than that of every earlier grant on the object.';
COMMENT ON COLUMN @extschema@.gt_leases.exclusive IS 'A lock: no other lease on the object while it runs.';
COMMENT ON COLUMN @extschema@.gt_leases.parent IS 'The lease with which it ends; NULL: it has a deadline of its own.';
COMMENT ON COLUMN @extschema@.gt_leases.cleanup IS 'The handler that cleans the object; NULL: it is forgotten.';
COMMENT ON COLUMN @extschema@.gt_leases.payload IS 'What the handler gets, for the owner.';
COMMENT ON COLUMN @extschema@.gt_leases.metadata IS 'Labels for people, for the owner.';
COMMENT ON COLUMN @extschema@.gt_leases.attempts IS 'Attempts to clean the object before this lease took it back.';
COMMENT ON COLUMN @extschema@.gt_leases.max_attempts IS 'Attempts at its cleanup, the leases own or the handlers.';
COMMENT ON COLUMN @extschema@.gt_leases.retry_delay IS 'The first step between them, the leases own or the handlers.';
COMMENT ON COLUMN @extschema@.gt_leases.owner IS 'The role that created it.';

CREATE VIEW @extschema@.gt_garbage WITH (security_barrier) AS
SELECT o.cleanup_id, o.object_type, o.object_id, _garbagetruck.gt__role_name(o.owner) AS owner,
	h.name AS handler, h.kind,
	CASE WHEN j.dead THEN 'dead'
		WHEN o.state OPERATOR(pg_catalog.=) 'c' AND NOT j.lapsed THEN 'claimed'
		WHEN o.cleanup_id OPERATOR(pg_catalog.=) ANY (SELECT r FROM _garbagetruck.gt__running_items() r) THEN 'running'
		ELSE 'waiting' END AS state,
	o.attempts, j.max_attempts, o.since,
	CASE WHEN NOT j.dead THEN o.due_at END AS next_attempt_at,
	CASE WHEN o.state OPERATOR(pg_catalog.=) 'c' THEN o.claimed_until END AS claimed_until,
	CASE WHEN coalesce(a.may_claim, _garbagetruck.gt__acts_for(o.owner)) THEN o.error END AS error,
	CASE WHEN a.may_claim OR _garbagetruck.gt__acts_for(o.owner) THEN o.payload END AS payload,
	o.lease_id, o.service_id, o.fence, o.due_at
FROM _garbagetruck.gt_object o
	LEFT JOIN _garbagetruck.gt__handler h ON h.id OPERATOR(pg_catalog.=) o.handler
	CROSS JOIN LATERAL (SELECT CASE WHEN h.id IS NOT NULL THEN h.id OPERATOR(pg_catalog.=) ANY (SELECT i.id
		FROM _garbagetruck.gt__handler i WHERE _garbagetruck.gt__handler_may(i.id, 'claim')) END AS may_claim) a
	CROSS JOIN (SELECT @extschema@.gt_clock() AS now OFFSET 0) c
	CROSS JOIN LATERAL (SELECT m.max_attempts, m.lapsed,
		o.state OPERATOR(pg_catalog.=) 'd' OR
			(m.lapsed AND o.attempts OPERATOR(pg_catalog.>=) m.max_attempts) AS dead
		FROM (SELECT least(coalesce(o.max_attempts, h.max_attempts, 1)::pg_catalog.int8 OPERATOR(pg_catalog.+) o.extra_attempts,
				2147483647)::pg_catalog.int4 AS max_attempts,
			o.state OPERATOR(pg_catalog.=) 'c' AND o.claimed_until OPERATOR(pg_catalog.<=) c.now AS lapsed) m) j
WHERE (SELECT _garbagetruck.gt__may_look()) AND o.cleanup_id IS NOT NULL
	AND ((SELECT _garbagetruck.gt__may('monitor')) OR a.may_claim OR _garbagetruck.gt__acts_for(o.owner));
COMMENT ON VIEW @extschema@.gt_garbage IS 'Objects whose last lease has ended and that are not clean yet.';
COMMENT ON COLUMN @extschema@.gt_garbage.cleanup_id IS 'Of this time that the object is garbage; with an attempt it is the token of gt_ack() and its like.';
COMMENT ON COLUMN @extschema@.gt_garbage.object_type IS 'The kind of object.';
COMMENT ON COLUMN @extschema@.gt_garbage.object_id IS 'The name of the object.';
COMMENT ON COLUMN @extschema@.gt_garbage.owner IS 'The role of its first lease.';
COMMENT ON COLUMN @extschema@.gt_garbage.handler IS 'The handler that cleans it; NULL: a row with a deadline that could not be deleted.';
COMMENT ON COLUMN @extschema@.gt_garbage.kind IS 'The kind of that handler.';
COMMENT ON COLUMN @extschema@.gt_garbage.state IS 'waiting, running (a worker is at it), claimed (a consumer is), or dead (attempts used up).';
COMMENT ON COLUMN @extschema@.gt_garbage.attempts IS 'How often it was tried; a claim counts.';
COMMENT ON COLUMN @extschema@.gt_garbage.max_attempts IS 'After so many it is dead.';
COMMENT ON COLUMN @extschema@.gt_garbage.since IS 'When its last lease ended.';
COMMENT ON COLUMN @extschema@.gt_garbage.next_attempt_at IS 'Not before that; NULL: dead.';
COMMENT ON COLUMN @extschema@.gt_garbage.claimed_until IS 'The end of the consumers claim.';
COMMENT ON COLUMN @extschema@.gt_garbage.error IS 'Of the last attempt, for who may claim it or owns it.';
COMMENT ON COLUMN @extschema@.gt_garbage.payload IS 'What its handler gets, for who may claim it or owns it.';
COMMENT ON COLUMN @extschema@.gt_garbage.lease_id IS 'Its last lease.';
COMMENT ON COLUMN @extschema@.gt_garbage.service_id IS 'The service of that lease.';
COMMENT ON COLUMN @extschema@.gt_garbage.fence IS 'The newest of the object.';
COMMENT ON COLUMN @extschema@.gt_garbage.due_at IS 'When something is to be done about it: an attempt, or of a claim its end.';

CREATE VIEW @extschema@.gt_dead WITH (security_barrier) AS
SELECT g.cleanup_id, g.object_type, g.object_id, g.owner, g.handler, g.kind, g.state, g.attempts, g.max_attempts,
	g.since, g.next_attempt_at, g.claimed_until, g.error, g.payload, g.lease_id, g.service_id, g.fence
FROM @extschema@.gt_garbage g
WHERE g.state OPERATOR(pg_catalog.=) 'dead';
COMMENT ON VIEW @extschema@.gt_dead IS 'Garbage that used up its attempts: gt_redrive() gives it more, gt_ack() discards it.';
COMMENT ON COLUMN @extschema@.gt_dead.cleanup_id IS 'Of this time that the object is garbage; (cleanup_id, attempts) is the token by which gt_ack() discards it.';
COMMENT ON COLUMN @extschema@.gt_dead.object_type IS 'The kind of object.';
COMMENT ON COLUMN @extschema@.gt_dead.object_id IS 'The name of the object.';
COMMENT ON COLUMN @extschema@.gt_dead.owner IS 'The role of its first lease.';
COMMENT ON COLUMN @extschema@.gt_dead.handler IS 'The handler that cleans it; NULL: a row with a deadline that could not be deleted.';
COMMENT ON COLUMN @extschema@.gt_dead.kind IS 'The kind of that handler.';
COMMENT ON COLUMN @extschema@.gt_dead.state IS 'dead.';
COMMENT ON COLUMN @extschema@.gt_dead.attempts IS 'How often it was tried.';
COMMENT ON COLUMN @extschema@.gt_dead.max_attempts IS 'As many as it could have.';
COMMENT ON COLUMN @extschema@.gt_dead.since IS 'When its last lease ended.';
COMMENT ON COLUMN @extschema@.gt_dead.next_attempt_at IS 'NULL: gt_redrive() gives it another.';
COMMENT ON COLUMN @extschema@.gt_dead.claimed_until IS 'The end of the consumers claim.';
COMMENT ON COLUMN @extschema@.gt_dead.error IS 'Of the last attempt, for who may claim it or owns it.';
COMMENT ON COLUMN @extschema@.gt_dead.payload IS 'What its handler gets, for who may claim it or owns it.';
COMMENT ON COLUMN @extschema@.gt_dead.lease_id IS 'Its last lease.';
COMMENT ON COLUMN @extschema@.gt_dead.service_id IS 'The service of that lease.';
COMMENT ON COLUMN @extschema@.gt_dead.fence IS 'The newest of the object.';

CREATE VIEW @extschema@.gt_handlers WITH (security_barrier) AS
SELECT h.name, h.kind, CASE WHEN h.may_claim THEN h.command END AS command,
	coalesce((SELECT pg_catalog.pg_get_userbyid(e.extowner) FROM pg_catalog.pg_extension e
		WHERE h.builtin AND e.extname OPERATOR(pg_catalog.=) 'garbagetruck'), h.owner_name) AS owner,
	h.run_as_name AS run_as, h.max_attempts,
	h.retry_delay OPERATOR(pg_catalog.*) interval '1 microsecond' AS retry_delay,
	h.timeout OPERATOR(pg_catalog.*) interval '1 microsecond' AS timeout,
	h.concurrency, h.rate_limit,
	h.grace OPERATOR(pg_catalog.*) interval '1 microsecond' AS grace,
	h.paused OR h.suspended IS NOT NULL AS paused,
	coalesce(h.suspended, h.paused_reason) AS paused_reason,
	coalesce(t.runs, 0) AS runs, coalesce(t.failures, 0) AS failures, t.last_run_at,
	CASE WHEN h.may_claim THEN t.last_error END AS last_error,
	h.must_affect, h.version
FROM (SELECT i.*, _garbagetruck.gt__handler_may(i.id, 'claim') AS may_claim,
		_garbagetruck.gt__handler_suspended(i.id) AS suspended
		FROM _garbagetruck.gt__handler i
		WHERE (SELECT _garbagetruck.gt__may('monitor')) OR _garbagetruck.gt__handler_may(i.id, 'claim')
			OR _garbagetruck.gt__handler_may(i.id, 'use') OFFSET 0) h
	LEFT JOIN LATERAL (SELECT pg_catalog.sum(y.runs)::pg_catalog.int8 AS runs,
		pg_catalog.sum(y.failures)::pg_catalog.int8 AS failures, pg_catalog.max(y.last_run_at) AS last_run_at,
		(pg_catalog.array_agg(y.last_error ORDER BY y.last_error_at USING OPERATOR(pg_catalog.>))
			FILTER (WHERE y.last_error IS NOT NULL))[1] AS last_error
		FROM _garbagetruck.gt__tally y WHERE y.handler OPERATOR(pg_catalog.=) h.id) t ON true
WHERE (SELECT _garbagetruck.gt__may_look());
COMMENT ON VIEW @extschema@.gt_handlers IS 'Handlers that the caller may use or claim, or all for monitors, and how their runs went.';
COMMENT ON COLUMN @extschema@.gt_handlers.name IS 'Of the handler.';
COMMENT ON COLUMN @extschema@.gt_handlers.kind IS 'sql, sql_batch, notify, notify_only, queue, or the kind of call that the sidecar makes.';
COMMENT ON COLUMN @extschema@.gt_handlers.command IS 'As it was registered, for who may claim its garbage.';
COMMENT ON COLUMN @extschema@.gt_handlers.owner IS 'The role that registered it.';
COMMENT ON COLUMN @extschema@.gt_handlers.run_as IS 'The role that its SQL runs as; NULL: the owner.';
COMMENT ON COLUMN @extschema@.gt_handlers.max_attempts IS 'Then its garbage is dead.';
COMMENT ON COLUMN @extschema@.gt_handlers.retry_delay IS 'The first step between attempts; it doubles up to a day.';
COMMENT ON COLUMN @extschema@.gt_handlers.timeout IS 'Of a run, with its lock waits.';
COMMENT ON COLUMN @extschema@.gt_handlers.concurrency IS 'Runs at once; NULL: no limit.';
COMMENT ON COLUMN @extschema@.gt_handlers.rate_limit IS 'Starts a second; NULL: no limit.';
COMMENT ON COLUMN @extschema@.gt_handlers.grace IS 'From the end of the last lease to the first attempt.';
COMMENT ON COLUMN @extschema@.gt_handlers.paused IS 'No attempt starts: paused by somebody or by itself, or suspended.';
COMMENT ON COLUMN @extschema@.gt_handlers.paused_reason IS 'Why.';
COMMENT ON COLUMN @extschema@.gt_handlers.runs IS 'Attempts so far.';
COMMENT ON COLUMN @extschema@.gt_handlers.failures IS 'Those of them that failed.';
COMMENT ON COLUMN @extschema@.gt_handlers.last_run_at IS 'When the last one was made.';
COMMENT ON COLUMN @extschema@.gt_handlers.last_error IS 'Of the last that failed, for who may claim its garbage.';
COMMENT ON COLUMN @extschema@.gt_handlers.must_affect IS 'A run that affects no row has failed.';
COMMENT ON COLUMN @extschema@.gt_handlers.version IS 'Grows when it is replaced.';

CREATE VIEW @extschema@.gt_ttls WITH (security_barrier) AS
SELECT s.table_name, t.expires_at, h.name AS cleanup,
	_garbagetruck.gt__role_name(s.owner) AS owner, t.batch_size, t.rate_limit, t.wake,
	t.paused OR s.suspended IS NOT NULL AS paused,
	coalesce(s.suspended, t.paused_reason) AS paused_reason,
	t.grace OPERATOR(pg_catalog.*) interval '1 microsecond' AS grace,
	coalesce(y.rows_removed, 0) AS rows_removed, coalesce(y.failures, 0) AS failures, y.last_run_at, y.last_error,
	CASE WHEN NOT t.paused THEN s.next_due_at END AS next_due_at, s.oldest_overdue
FROM _garbagetruck.gt__ttl t
	CROSS JOIN LATERAL _garbagetruck.gt__ttl_sees(t.id) s
	LEFT JOIN _garbagetruck.gt__handler h ON h.id OPERATOR(pg_catalog.=) t.cleanup
	LEFT JOIN LATERAL (SELECT pg_catalog.sum(y.runs)::pg_catalog.int8 AS rows_removed,
		pg_catalog.sum(y.failures)::pg_catalog.int8 AS failures, pg_catalog.max(y.last_run_at) AS last_run_at,
		CASE WHEN _garbagetruck.gt__acts_for(s.owner) THEN
			(pg_catalog.array_agg(y.last_error ORDER BY y.last_error_at USING OPERATOR(pg_catalog.>))
				FILTER (WHERE y.last_error IS NOT NULL))[1] END AS last_error
		FROM _garbagetruck.gt__tally y WHERE y.handler OPERATOR(pg_catalog.=) t.id) y ON true
WHERE (SELECT _garbagetruck.gt__may_look()) AND s.table_name IS NOT NULL;
COMMENT ON VIEW @extschema@.gt_ttls IS 'Tables whose rows have a deadline: one''s own, or all for monitors.';
COMMENT ON COLUMN @extschema@.gt_ttls.table_name IS 'The table whose rows have a deadline.';
COMMENT ON COLUMN @extschema@.gt_ttls.expires_at IS 'The column or expression that tells it.';
COMMENT ON COLUMN @extschema@.gt_ttls.cleanup IS 'The handler of which a deleted row becomes garbage; NULL: none.';
COMMENT ON COLUMN @extschema@.gt_ttls.owner IS 'The tables owner, as whom rows are deleted.';
COMMENT ON COLUMN @extschema@.gt_ttls.batch_size IS 'Rows in one transaction; NULL: garbagetruck.batch_size.';
COMMENT ON COLUMN @extschema@.gt_ttls.rate_limit IS 'Rows a second; NULL: no limit.';
COMMENT ON COLUMN @extschema@.gt_ttls.wake IS 'A trigger tells of a deadline that is earlier than those known.';
COMMENT ON COLUMN @extschema@.gt_ttls.paused IS 'Nothing is deleted: paused, or suspended.';
COMMENT ON COLUMN @extschema@.gt_ttls.paused_reason IS 'Why.';
COMMENT ON COLUMN @extschema@.gt_ttls.grace IS 'From the deadline to the deletion.';
COMMENT ON COLUMN @extschema@.gt_ttls.rows_removed IS 'Rows deleted so far.';
COMMENT ON COLUMN @extschema@.gt_ttls.failures IS 'Rows that could not be.';
COMMENT ON COLUMN @extschema@.gt_ttls.last_run_at IS 'When rows were deleted last.';
COMMENT ON COLUMN @extschema@.gt_ttls.last_error IS 'Of a row that could not be deleted, for the owner.';
COMMENT ON COLUMN @extschema@.gt_ttls.next_due_at IS 'When the next row that is known is due.';
COMMENT ON COLUMN @extschema@.gt_ttls.oldest_overdue IS 'The age of the oldest row that is over and still there.';

CREATE VIEW @extschema@.gt_history WITH (security_barrier) AS
SELECT e.at, e.event, e.object_type, e.object_id, e.cleanup_id, e.attempt, e.handler, e.lease_id, e.service_id,
	e.lag OPERATOR(pg_catalog.*) interval '1 microsecond' AS lag, e.took OPERATOR(pg_catalog.*) interval '1 microsecond' AS took,
	CASE WHEN h.may_claim OR (w.id IS NOT NULL AND _garbagetruck.gt__acts_for(e.owner)) THEN e.error END AS error,
	_garbagetruck.gt__role_name(e.owner) AS owner, e.handler_version, e.affected
FROM (SELECT s.at, s.event, s.object_type, s.object_id, s.owner, s.cleanup_id, s.attempt, s.handler, s.lease_id, s.service_id,
			s.lag, s.took, s.error, s.handler_id, s.handler_version, s.affected
		FROM _garbagetruck.gt__history s
		UNION ALL
		SELECT s.expired_at, 'expired'::pg_catalog.text COLLATE pg_catalog."C", s.object_type, s.object_id, s.owner, NULL::bigint,
			NULL::int, NULL::pg_catalog.text COLLATE pg_catalog."C", s.lease_id, s.service_id, NULL::bigint, NULL::bigint,
			NULL::pg_catalog.text, s.handler_id, NULL::int, NULL::bigint
		FROM _garbagetruck.gt__history s WHERE s.expired_at IS NOT NULL) e
	LEFT JOIN (SELECT i.id, _garbagetruck.gt__handler_may(i.id, 'claim') AS may_claim
		FROM _garbagetruck.gt__handler i OFFSET 0) h ON h.id OPERATOR(pg_catalog.=) e.handler_id
	LEFT JOIN _garbagetruck.gt__ttl w ON w.id OPERATOR(pg_catalog.=) e.handler_id
WHERE (SELECT _garbagetruck.gt__may_look())
	AND ((SELECT _garbagetruck.gt__may('monitor')) OR h.may_claim OR _garbagetruck.gt__acts_for(e.owner));
COMMENT ON VIEW @extschema@.gt_history IS 'What became of objects, as far back as garbagetruck.history_retention.';
COMMENT ON COLUMN @extschema@.gt_history.at IS 'By gt_clock().';
COMMENT ON COLUMN @extschema@.gt_history.event IS 'cleaned, failed, dead, kept, released, expired, redriven or discarded.';
COMMENT ON COLUMN @extschema@.gt_history.object_type IS 'The kind of object.';
COMMENT ON COLUMN @extschema@.gt_history.object_id IS 'The name of the object.';
COMMENT ON COLUMN @extschema@.gt_history.cleanup_id IS 'Of the time that it was garbage.';
COMMENT ON COLUMN @extschema@.gt_history.attempt IS 'Which one it was, from 1.';
COMMENT ON COLUMN @extschema@.gt_history.handler IS 'The handler of then.';
COMMENT ON COLUMN @extschema@.gt_history.lease_id IS 'The lease that ended, or the last one.';
COMMENT ON COLUMN @extschema@.gt_history.service_id IS 'The service of that lease.';
COMMENT ON COLUMN @extschema@.gt_history.lag IS 'From the deadline or release, plus grace, to the start of the first attempt.';
COMMENT ON COLUMN @extschema@.gt_history.took IS 'How long the attempt took.';
COMMENT ON COLUMN @extschema@.gt_history.error IS 'Why it failed, for who may claim it or owns it.';
COMMENT ON COLUMN @extschema@.gt_history.owner IS 'The role of the objects first lease.';
COMMENT ON COLUMN @extschema@.gt_history.handler_version IS 'Of the handler that ran: gt_handlers.version.';
COMMENT ON COLUMN @extschema@.gt_history.affected IS 'Rows that its statement affected; NULL: it does not tell.';

CREATE VIEW @extschema@.gt_workers WITH (security_barrier) AS
SELECT w.pid, w.role, w.database, w.state, w.handler, w.since, w.next_due_at, w.crashes
FROM _garbagetruck.gt__workers() w
WHERE (SELECT _garbagetruck.gt__may_look());
COMMENT ON VIEW @extschema@.gt_workers IS 'The launcher and the workers of the whole cluster, for monitors. Needs preload.';
COMMENT ON COLUMN @extschema@.gt_workers.pid IS 'Of the process.';
COMMENT ON COLUMN @extschema@.gt_workers.role IS 'launcher or worker.';
COMMENT ON COLUMN @extschema@.gt_workers.database IS 'Where it works; NULL: nowhere in particular.';
COMMENT ON COLUMN @extschema@.gt_workers.state IS 'What it is at.';
COMMENT ON COLUMN @extschema@.gt_workers.handler IS 'Whose run that is.';
COMMENT ON COLUMN @extschema@.gt_workers.since IS 'Since when.';
COMMENT ON COLUMN @extschema@.gt_workers.next_due_at IS 'Until when it sleeps.';
COMMENT ON COLUMN @extschema@.gt_workers.crashes IS 'In a row, of its slot.';

-- ---------------------------------------------------------------------------
-- The handlers that are there from the start.  A dump
-- brings their settings and pauses, which the trigger gives to those that are here.
-- ---------------------------------------------------------------------------

INSERT INTO _garbagetruck.gt__handler (id, name, kind, command, owner, owner_name, max_attempts, retry_delay, timeout,
	grace, paused, builtin, version, crashes)
SELECT b.id, b.name, b.kind, '{payload.url}', r.oid, r.rolname, 25, 1000000, 30000000, 0, false, true, 1, 0
FROM (VALUES (1, 'http_endpoint', 'http'), (2, 'grpc_endpoint', 'grpc')) b(id, name, kind)
	JOIN pg_catalog.pg_roles r ON r.rolname OPERATOR(pg_catalog.=) current_user;

CREATE FUNCTION _garbagetruck.gt__handler_restored() RETURNS trigger
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE TRIGGER gt__handler_restored BEFORE INSERT ON _garbagetruck.gt__handler
	FOR EACH ROW EXECUTE FUNCTION _garbagetruck.gt__handler_restored();
-- also for a subscriber, whose first copy of the table would else meet the ones that are there
ALTER TABLE _garbagetruck.gt__handler ENABLE ALWAYS TRIGGER gt__handler_restored;

-- What the internals are for.
COMMENT ON FUNCTION _garbagetruck.gt__deadline(uuid, timestamptz, bigint, bigint, timestamptz) IS 'For the views: when a lease is over.';
COMMENT ON FUNCTION _garbagetruck.gt__renewed_at(uuid, timestamptz) IS 'For the views: when a lease was renewed last.';
COMMENT ON FUNCTION _garbagetruck.gt__renewals(uuid, bigint) IS 'For the views: how often a lease was renewed.';
COMMENT ON FUNCTION _garbagetruck.gt__running(uuid, timestamptz) IS 'For the views: is a lease with this deadline still running?';
COMMENT ON FUNCTION _garbagetruck.gt__acts_for(oid) IS 'For the views: does the reader act for this role?';
COMMENT ON FUNCTION _garbagetruck.gt__role_name(oid) IS 'For the views: the name of a role.';
COMMENT ON FUNCTION _garbagetruck.gt__may(text) IS 'For the views: has the reader this right?';
COMMENT ON FUNCTION _garbagetruck.gt__may_look() IS 'For the views: refuses who was given no right.';
COMMENT ON FUNCTION _garbagetruck.gt__mark_lease() IS 'Whoever may execute it has the right lease; see gt_allow().';
COMMENT ON FUNCTION _garbagetruck.gt__mark_handler() IS 'Whoever may execute it has the right handler; see gt_allow().';
COMMENT ON FUNCTION _garbagetruck.gt__mark_monitor() IS 'Whoever may execute it has the right monitor; see gt_allow().';
COMMENT ON FUNCTION _garbagetruck.gt__mark_admin() IS 'Whoever may execute it has the right admin; see gt_allow().';
COMMENT ON FUNCTION _garbagetruck.gt__revoke_all() IS 'For CREATE EXTENSION: takes back what default privileges gave.';
COMMENT ON FUNCTION _garbagetruck.gt__needs_library(text) IS 'For update scripts: fails where the library that is loaded is older.';
COMMENT ON FUNCTION _garbagetruck.gt__workers() IS 'Behind the view gt_workers.';
COMMENT ON FUNCTION _garbagetruck.gt__running_items() IS 'For the views: garbage that is being run now.';
COMMENT ON FUNCTION _garbagetruck.gt__handler_may(int, text) IS 'For the views: may the reader use, or claim, this handler?';
COMMENT ON FUNCTION _garbagetruck.gt__handler_suspended(int) IS 'For the views: why a handler is suspended.';
COMMENT ON FUNCTION _garbagetruck.gt__ttl_wake() IS 'The trigger of tables whose rows have a deadline: tells the workers of one that is earlier.';
COMMENT ON FUNCTION _garbagetruck.gt__ttl_sees(int) IS 'Behind the view gt_ttls.';
COMMENT ON FUNCTION _garbagetruck.gt__handler_restored() IS 'Gives the settings of a built-in handler in a dump to the one that is here.';
COMMENT ON FUNCTION _garbagetruck.gt__legible(int, int, cstring, internal, int, boolean) IS 'Behind the conversion gt_legible, which databases have that are not in UTF-8.';
COMMENT ON FUNCTION _garbagetruck.gt__legible_create(regnamespace, regprocedure) IS 'For CREATE EXTENSION: makes the conversion gt_legible.';
COMMENT ON VIEW _garbagetruck.gt__lease_view IS 'Leases as their readers see them.';

-- ---------------------------------------------------------------------------
-- What pg_dump keeps: the users' rows. What is known of one server run is not among them.
-- ---------------------------------------------------------------------------

SELECT pg_catalog.pg_extension_config_dump('_garbagetruck.gt_object', '');
SELECT pg_catalog.pg_extension_config_dump('_garbagetruck.gt_lease', '');
SELECT pg_catalog.pg_extension_config_dump('_garbagetruck.gt__orphan', '');
SELECT pg_catalog.pg_extension_config_dump('_garbagetruck.gt__handler', '');
SELECT pg_catalog.pg_extension_config_dump('_garbagetruck.gt__handler_right', '');
SELECT pg_catalog.pg_extension_config_dump('_garbagetruck.gt__share', '');
SELECT pg_catalog.pg_extension_config_dump('_garbagetruck.gt__role', '');
SELECT pg_catalog.pg_extension_config_dump('_garbagetruck.gt__place', '');
SELECT pg_catalog.pg_extension_config_dump('_garbagetruck.gt__ttl', '');
SELECT pg_catalog.pg_extension_config_dump('_garbagetruck.gt__paused', '');
SELECT pg_catalog.pg_extension_config_dump('_garbagetruck.gt__history', '');
SELECT pg_catalog.pg_extension_config_dump('_garbagetruck.gt__cleanup_id', '');
SELECT pg_catalog.pg_extension_config_dump('_garbagetruck.gt__handler_id', '');

-- ---------------------------------------------------------------------------
-- Rights, last: nothing of what the script has made is anybody's but what
-- follows; gt_allow() gives the rest.  See src/rights/allow.c.
-- ---------------------------------------------------------------------------

SELECT _garbagetruck.gt__revoke_all();
GRANT EXECUTE ON FUNCTION @extschema@.gt_clock(), @extschema@.gt_health(), @extschema@.gt_snooze(interval, text) TO PUBLIC;
SELECT @extschema@.gt_allow('pg_monitor', 'monitor');
