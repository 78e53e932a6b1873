-- What CREATE EXTENSION makes, to whom it belongs, and what PUBLIC may do; and the helpers of the other files.
CREATE EXTENSION garbagetruck;
SELECT extversion, extrelocatable FROM pg_extension WHERE extname = 'garbagetruck';
SELECT superuser, trusted, relocatable FROM pg_available_extension_versions WHERE name = 'garbagetruck' AND version = '1.0';

-- every name is ours
SELECT pg_describe_object(classid, objid, objsubid) FROM pg_depend
WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
	AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'garbagetruck')
	AND (classid = 'pg_proc'::regclass AND (SELECT proname FROM pg_proc WHERE oid = objid) NOT LIKE 'gt\_%'
		OR classid = 'pg_class'::regclass AND (SELECT relname FROM pg_class WHERE oid = objid) NOT LIKE 'gt\_%'
		OR classid NOT IN ('pg_proc'::regclass, 'pg_class'::regclass, 'pg_type'::regclass));

-- tables, sequences and internals are in a schema of their own, the public names in that of the extension
SELECT nspname, relname FROM pg_depend d JOIN pg_class c ON c.oid = d.objid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
	AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'garbagetruck')
	AND (nspname = '_garbagetruck') <> (relkind IN ('r', 'S') OR relname ~ '^gt__');
SELECT nspname, proname FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
	AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'garbagetruck')
	AND (nspname <> '_garbagetruck') = (proname ~ '^gt__');

-- every table has a primary key that logical replication can go by
SELECT relname FROM pg_class c WHERE relnamespace = '_garbagetruck'::regnamespace AND relkind = 'r'
	AND (relreplident <> 'd' OR NOT EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary AND indisvalid));

-- what PUBLIC may call and read (the internal functions that the views need aside)
SELECT p.proname FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid
WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
	AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'garbagetruck')
	AND p.proname NOT LIKE 'gt\_\_%'
	AND EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee = 0)
ORDER BY 1;
SELECT c.relname, a.privilege_type FROM pg_depend d JOIN pg_class c ON c.oid = d.objid
	CROSS JOIN aclexplode(c.relacl) a
WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
	AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'garbagetruck')
	AND a.grantee = 0
ORDER BY 1, 2;

-- no function is SECURITY DEFINER; everything says what it is for, and so does each column of a public view
SELECT p.proname FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid
WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
	AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'garbagetruck') AND p.prosecdef;
SELECT pg_describe_object(d.classid, d.objid, 0) AS mute FROM pg_depend d
WHERE d.classid IN ('pg_proc'::regclass, 'pg_class'::regclass, 'pg_type'::regclass, 'pg_namespace'::regclass)
	AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
	AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'garbagetruck')
	AND (d.classid <> 'pg_type'::regclass OR EXISTS (SELECT FROM pg_type WHERE oid = d.objid AND typtype = 'b' AND typelem = 0))
	AND obj_description(d.objid, d.classid::regclass::name) IS NULL
ORDER BY 1;
SELECT c.relname, a.attname AS mute FROM pg_depend d JOIN pg_class c ON c.oid = d.objid JOIN pg_attribute a ON a.attrelid = c.oid
WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
	AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'garbagetruck')
	AND c.relkind = 'v' AND c.relname NOT LIKE 'gt\_\_%' AND a.attnum > 0 AND col_description(c.oid, a.attnum) IS NULL;

-- user rows go into a dump
SELECT c.relname FROM pg_extension e, unnest(e.extconfig) r JOIN pg_class c ON c.oid = r
WHERE e.extname = 'garbagetruck' AND c.relname IN ('gt_object', 'gt_lease', 'gt__cleanup_id') ORDER BY 1;

-- it goes without a trace, also from under a lease that the commit would give a new deadline, and comes again
BEGIN;
SELECT gt_lease_create('goes', duration => '100 ms') IS NOT NULL AS created;
-- nothing was ever here whose time could be ahead
SELECT rearmed FROM _garbagetruck.gt__start;
SELECT pg_sleep(0.06);
SET LOCAL client_min_messages = warning;
DROP EXTENSION garbagetruck;
COMMIT;
SELECT count(*) FROM pg_proc WHERE proname LIKE 'gt\_%';
SELECT count(*) FROM pg_class WHERE relname LIKE 'gt\_%';
-- a schema of that name which is somebody's is not taken over; later servers say where in the script that was
\set SHOW_CONTEXT never
CREATE SCHEMA _garbagetruck;
CREATE EXTENSION garbagetruck;
DROP SCHEMA _garbagetruck;
CREATE SCHEMA elsewhere;
CREATE EXTENSION garbagetruck SCHEMA elsewhere;
SELECT elsewhere.gt_release(elsewhere.gt_lease_create('in another schema'));
-- what shared memory knew of the tables before went with them: this run of the server is recorded anew
SELECT count(*) FROM _garbagetruck.gt__start;
CALL elsewhere.gt_reclaim();
DROP EXTENSION garbagetruck;
DROP SCHEMA elsewhere;
-- made anew in the transaction that has used the one before: it is told where it lives, too
BEGIN;
CREATE EXTENSION garbagetruck;
SELECT gt_release(gt_lease_create('of the one before'));
SELECT gt_release(gt_lease_create('another'));
DROP EXTENSION garbagetruck;
CREATE EXTENSION garbagetruck;
SELECT gt_release(gt_lease_create('made anew'));
COMMIT;
SELECT (SELECT count(*) FROM _garbagetruck.gt__place) AS places, (SELECT count(*) FROM _garbagetruck.gt__start) AS starts;

-- the clock
SELECT abs(extract(epoch FROM gt_clock() - clock_timestamp())) < 1 AS near_the_system_clock;
SELECT bool_and(b >= a) AS monotonic FROM (SELECT gt_clock() AS a, gt_clock() AS b FROM generate_series(1, 1000) OFFSET 0) c;

-- helpers ---------------------------------------------------------------------------------------------------------
CREATE SCHEMA t;

-- the SQLSTATE and message that a command fails with, without what differs from run to run, and with the server's settings
CREATE FUNCTION t.mask(message text) RETURNS text LANGUAGE sql AS $$
	SELECT regexp_replace(regexp_replace(replace(message, format('between %s and', current_setting('garbagetruck.min_lease_duration')), 'between 1ms and'),
		'[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}', '<id>', 'g'),
		'[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:.]+\+00', '<time>', 'g')
$$;
CREATE FUNCTION t.fails(command text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE command;
	RETURN 'does not fail';
EXCEPTION WHEN OTHERS THEN
	RETURN format('%s %s', sqlstate, t.mask(sqlerrm));
END $$;
-- the SQLSTATE alone
CREATE FUNCTION t.state(command text) RETURNS text LANGUAGE sql AS $$ SELECT split_part(replace(t.fails(command), 'does not fail', 'fine'), ' ', 1) $$;

-- waits until a lease's deadline has passed
CREATE FUNCTION t.until_over(id uuid) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	seen text;
BEGIN
	FOR i IN 1 .. 10000 LOOP
		SELECT state INTO seen FROM gt_lease_get(id);
		EXIT WHEN seen IS DISTINCT FROM 'active';
		PERFORM pg_sleep(0.001);
	END LOOP;
	RETURN coalesce(seen, 'none');
END $$;

-- what was cleaned: the handler t_clean writes it down
SET client_min_messages = warning;	-- not the notice that names who runs the tests
CREATE TABLE t.cleaned (n serial, object_type text, object_id text, payload jsonb, metadata jsonb, service_id text, attempt int);
SELECT gt_handler_create('t_clean', 'sql',
	'INSERT INTO t.cleaned (object_id, object_type, payload, metadata, service_id, attempt) VALUES ($1, $2, $3, $4, $6, $8)');
RESET client_min_messages;
-- does the workers' job, and tells what was cleaned since the last time
CREATE FUNCTION t.cleaned() RETURNS text LANGUAGE sql AS $$
	WITH gone AS (DELETE FROM t.cleaned RETURNING object_id)
	SELECT coalesce(string_agg(object_id, ' ' ORDER BY object_id COLLATE "C"), 'nothing') FROM gone
$$;
-- how many object and lease rows there are for objects with this prefix
CREATE FUNCTION t.rows(prefix text, OUT objects bigint, OUT leases bigint) LANGUAGE sql AS $$
	SELECT (SELECT count(*) FROM _garbagetruck.gt_object WHERE starts_with(object_id, prefix)),
		(SELECT count(*) FROM _garbagetruck.gt_lease WHERE starts_with(object_id, prefix))
$$;
