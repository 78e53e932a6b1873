"""Attacks on other people's rights: to have something run, or done, as somebody else."""
import os
import tempfile

import town


def attack(function=None, *, alone=False):
    """Marks one; alone: it changes what all others see."""
    if function is None:
        return lambda f: attack(f, alone=alone)
    function.attack, function.alone = True, alone
    return function


# --- planted names

PLANT = """
CREATE FUNCTION {schema}.eq(varchar, varchar) RETURNS boolean LANGUAGE sql AS 'SELECT spy_{by}.spy()';
CREATE OPERATOR {schema}.= (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = {schema}.eq);
CREATE FUNCTION {schema}.lower(varchar) RETURNS text LANGUAGE sql AS 'SELECT spy_{by}.spy()::text';
"""
UPROOT = "DROP FUNCTION IF EXISTS {schema}.eq(varchar, varchar) CASCADE; DROP FUNCTION IF EXISTS {schema}.lower(varchar)"


def plant(t, by, schema):
    t.sql(by, PLANT.format(by=by, schema=schema))
    t.afterwards(by, UPROOT.format(schema=schema))


@attack(alone=True)
def superusers_handler_in_the_owners_schema(t):
    """the database's owner plants an operator in public, which is on the path of a superuser's handler"""
    t.sql("dbo", "CREATE TABLE public.paths (path varchar PRIMARY KEY)")
    t.afterwards("dbo", "DROP TABLE public.paths")
    t.sql("dbo", "INSERT INTO public.paths VALUES ('/a')")
    t.handler("purge", "sql", "DELETE FROM public.paths WHERE path = $1 AND lower(path) IS NOT NULL", role="postgres")
    plant(t, "dbo", "public")
    t.garbage("purge", role="postgres")
    t.ran("purge")
    yield


@attack(alone=True)
def schema_opened_after_the_registration(t):
    """a schema on a handler's path is opened to others after the registration"""
    t.sql("victim", "SET search_path = v, public")
    t.sql("victim", "CREATE TABLE v.paths (path varchar)")
    t.afterwards("victim", "DROP TABLE v.paths")
    t.sql("victim", "INSERT INTO v.paths VALUES ('a')")
    for who in ("PUBLIC", "mallory"):
        name = f"v_open_{who.lower()}_{t.n}"
        t.handler(name, "sql", "DELETE FROM v.paths WHERE path = $1 AND lower(path) IS NOT NULL", role="victim")
        t.sql("victim", f"GRANT CREATE ON SCHEMA v TO {who}")
        t.afterwards("victim", f"REVOKE CREATE ON SCHEMA v FROM {who}")
        plant(t, "mallory", "v")
        t.garbage(name, role="victim")
        t.until(f"{name} is neither suspended nor run",
                lambda: t.admin("SELECT 1 FROM gt_handlers WHERE name = %s AND (paused OR runs > 0)", name))
        yield
        t.same(t.seen_by(name), 0, f"runs of {name}")
        t.same(bool(t.seen_by(name, "paused_reason")), True, "a reason for the suspension")
        t.sql("mallory", UPROOT.format(schema="v"))
        t.sql("victim", f"REVOKE CREATE ON SCHEMA v FROM {who}")


@attack(alone=True)
def schema_made_anew_by_another(t):
    """a schema of a handler's path is dropped, and made anew by whoever has CREATE on the database"""
    name = f"v_anew_{t.n}"
    schema = f"lost_{t.n}"
    t.admin(f"CREATE SCHEMA {schema} AUTHORIZATION victim")
    t.sql("victim", f"SET search_path = {schema}, v, public")
    t.sql("victim", "CREATE TABLE v.paths (path varchar)")
    t.afterwards("victim", "DROP TABLE v.paths")
    t.sql("victim", "INSERT INTO v.paths VALUES ('a')")
    t.handler(name, "sql", "DELETE FROM v.paths WHERE path = $1 AND lower(path) IS NOT NULL", role="victim")
    t.sql("victim", f"DROP SCHEMA {schema}")
    t.admin("GRANT CREATE ON DATABASE shop TO mallory")
    t.afterwards("postgres", "REVOKE CREATE ON DATABASE shop FROM mallory")
    t.sql("mallory", f"CREATE SCHEMA {schema}")
    t.afterwards("mallory", f"DROP SCHEMA {schema} CASCADE")
    t.sql("mallory", f"GRANT USAGE ON SCHEMA {schema} TO PUBLIC")
    plant(t, "mallory", schema)
    t.garbage(name, role="victim")
    t.until(f"{name} is neither suspended nor run",
            lambda: t.admin("SELECT 1 FROM gt_handlers WHERE name = %s AND (paused OR runs > 0)", name))
    yield


@attack
def handlers_search_path_of_the_caller(t):
    """whoever creates a lease on another's handler sets his own search_path: it is not that of the run"""
    name = f"v_path_{t.n}"
    t.sql("victim", "SET search_path = v, pg_catalog, public")
    t.handler(name, "sql", "INSERT INTO v.seen (n) SELECT -1 WHERE lower($1::varchar) IS NOT NULL", role="victim")
    t.sql("victim", "SELECT gt_handler_grant(%s, 'mallory')", name)
    plant(t, "mallory", "spy_mallory")
    t.sql("mallory", "SET search_path = spy_mallory, pg_catalog, public")
    t.garbage(name)
    t.ran(name)
    yield


# --- what runs beside the handler's statement

@attack
def conversion_of_parameters(t):
    """the parameter's type is a domain whose check spies: at the registration and in the run it is its owner that runs"""
    domain = f"m.sly_{t.n}"
    t.sql("mallory", f"CREATE DOMAIN {domain} AS text CHECK (spy_mallory.spy() AND VALUE IS NOT NULL)")
    t.sql("mallory", f"CREATE FUNCTION m.take_{t.n}({domain}) RETURNS boolean LANGUAGE sql AS 'SELECT true'")
    name = t.handler(t.name("domain"), "sql", f"SELECT m.take_{t.n}($1)")
    t.garbage(name)
    t.ran(name)
    yield
    t.same(t.seen_by(name, "failures"), 0, "failures")
    t.afterwards("mallory", f"DROP DOMAIN {domain} CASCADE")


@attack
def immutable_function_at_planning(t):
    """a function that is folded when the plan is made runs as its owner, whoever looks at the handlers"""
    t.sql("mallory", f"CREATE FUNCTION m.fold_{t.n}(text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS"
                     " $$ BEGIN RETURN spy_mallory.spy(); END $$")
    name = t.handler(t.name("folded"), "sql", f"SELECT $1 WHERE m.fold_{t.n}('x')")
    t.admin("SELECT * FROM gt_health()")
    t.admin("SELECT count(*) FROM gt_handlers, gt_forecast(), gt_metrics()")
    t.admin("SELECT gt_pause(%s), gt_resume(%s)", name, name)
    t.garbage(name)
    t.ran(name)
    yield


@attack
def ways_out_of_the_run(t):
    """a handler tries to become somebody else, and to leave something behind"""
    for n, body in enumerate((
            "EXECUTE 'SET ROLE postgres'", "EXECUTE 'RESET ROLE'", "EXECUTE 'SET SESSION AUTHORIZATION postgres'",
            "EXECUTE 'RESET SESSION AUTHORIZATION'", "PERFORM set_config('role', 'postgres', false)",
            "PERFORM set_config('session_authorization', 'postgres', false)", "EXECUTE 'SET LOCAL ROLE victim'",
            "EXECUTE 'CREATE TEMPORARY TABLE left_behind (x int)'", "EXECUTE 'LISTEN left_behind'",
            "EXECUTE 'SET search_path = spy_mallory'", "PERFORM pg_advisory_lock(4711)",
            "EXECUTE 'DECLARE left_behind CURSOR WITH HOLD FOR SELECT spy_mallory.spy()'",
            "EXECUTE 'PREPARE left_behind AS SELECT spy_mallory.spy()'",
            "EXECUTE 'CREATE TABLE m.made(x int DEFAULT spy_mallory.spy()::int)'; EXECUTE 'DROP TABLE m.made'",
            "PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'victim'")):
        function = f"m.way_{t.n}_{n}"
        t.sql("mallory", f"CREATE FUNCTION {function}() RETURNS void LANGUAGE plpgsql AS $$ BEGIN {body}; PERFORM spy_mallory.spy();"
                         " EXCEPTION WHEN others THEN PERFORM spy_mallory.spy(); END $$")
        name = t.handler(t.name(f"way{n}"), "sql", f"SELECT {function}()", max_attempts=1, timeout="5 s")
        t.garbage(name)
    t.until("a way was not tried", lambda: not t.admin("SELECT 1 FROM gt_garbage WHERE handler LIKE %s AND state <> 'dead'", f"m_way%_{t.n}"))
    yield
    t.same(t.admin("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711")[0][0], 0, "advisory locks left")


@attack
def deferred_trigger(t):
    """a deferred trigger on the table that the victim's handler cleans runs as the victim's run, never as the worker"""
    name = f"v_deferred_{t.n}"
    table = f"v.deferred_{t.n}"
    t.sql("victim", f"CREATE TABLE {table} (id text)")
    t.sql("victim", f"GRANT TRIGGER, INSERT ON {table} TO mallory")
    t.handler(name, "sql", f"INSERT INTO {table} SELECT $1", role="victim", max_attempts=1)
    t.sql("mallory", f"CREATE FUNCTION m.grab_{t.n}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                     " IF current_user = 'postgres' OR session_user = 'postgres' THEN PERFORM spy_mallory.spy(); END IF;"
                     " EXECUTE 'SET ROLE postgres'; RETURN NULL; EXCEPTION WHEN others THEN RETURN NULL; END $$")
    t.sql("mallory", f"CREATE CONSTRAINT TRIGGER grab AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
                     f" EXECUTE FUNCTION m.grab_{t.n}()")
    t.garbage(name, role="victim")
    t.ran(name)
    yield
    t.sql("victim", f"DROP TABLE {table}")


@attack
def database_connections_of_another_role(t):
    """what a library keeps in a session (dblink) does not pass from one role's run to another's"""
    victims = t.handler(f"v_link_{t.n}", "sql", f"SELECT links.dblink_connect_u($1 || $9, 'host={t.server.home} port={t.server.port}"
                                                " user=victim dbname=shop')", role="victim")
    found = f"m.found_{t.n}"
    t.sql("mallory", f"CREATE TABLE {found} (t text)")
    name = t.handler(t.name("link"), "sql", f"INSERT INTO {found} SELECT unnest(links.dblink_get_connections())")
    for _ in range(3):
        t.garbage(victims, role="victim")
        t.ran(victims, count=_ + 1)
        t.garbage(name, 3)
        t.ran(name, count=3 * (_ + 1))
    yield
    t.same(t.sql("mallory", f"SELECT * FROM {found}"), [], "connections of the victim that mallory's handler saw")
    t.sql("mallory", f"DROP TABLE {found}")


@attack
def commands_that_are_none(t):
    """what is no statement over one object, or another's role, is refused at the registration"""
    for command in ("COMMIT", "SET ROLE postgres", "CREATE ROLE x", "SELECT 1; SELECT 2", "COPY v.secret TO PROGRAM 'true'",
                    "VACUUM", "DO 'BEGIN END'", "LISTEN x", "BEGIN"):
        t.refused("mallory", "22023 42601", "SELECT gt_handler_create(%s, 'sql', %s)", t.name("no"), command)
    t.refused("mallory", "42501", "SELECT gt_handler_create(%s, 'sql', 'SELECT 1', run_as => 'postgres')", t.name("no"))
    t.refused("mallory", "42501", "SELECT gt_handler_create(%s, 'sql', 'SELECT 1', run_as => 'victim')", t.name("no"))
    t.refused("mallory", "42501", "SELECT gt_handler_create(%s, 'sql', 'SELECT t FROM v.secret', run_as => 'mallory'),"
                                  " t FROM v.secret", t.name("no"))
    name = t.handler(t.name("reader"), "sql", "SELECT t FROM v.secret WHERE t <> $1", max_attempts=1)
    t.garbage(name)
    t.until("it was not tried", lambda: t.admin("SELECT 1 FROM gt_dead WHERE handler = %s", name))
    t.sql("mallory", "SELECT * FROM gt_dead")
    yield


@attack
def looking_at_a_table_with_deadlines(t):
    """gt_health, gt_metrics and gt_ttls call nothing that the owner of a table has made, in whose session ever"""
    t.sql("mallory", f"CREATE TABLE m.rows_{t.n} (id int PRIMARY KEY, at timestamptz)")
    t.afterwards("mallory", f"DROP TABLE m.rows_{t.n}")
    t.sql("mallory", f"CREATE FUNCTION m.at_{t.n}(timestamptz) RETURNS timestamptz IMMUTABLE LANGUAGE plpgsql AS"
                     " $$ BEGIN PERFORM spy_mallory.spy(); IF session_user = 'postgres' THEN"
                     " RAISE 'canceled' USING ERRCODE = '57014'; END IF; RETURN $1; END $$")
    t.sql("mallory", f"INSERT INTO m.rows_{t.n} VALUES (1, '2100-01-01')")
    t.sql("mallory", f"SELECT gt_ttl_create('m.rows_{t.n}', 'm.at_{t.n}(at)', create_index => true)")
    t.admin("SELECT count(*) FROM gt_health(), gt_metrics()")
    t.same(t.admin("SELECT next_due_at FROM gt_ttls WHERE table_name = %s::regclass", f"m.rows_{t.n}")[0][0].year, 2100, "when it is due")
    yield


# --- the administrator's session

@attack(alone=True)
def foreground_beside_other_work(t):
    """gt_reclaim refuses a session that has something else open, and is as a worker to the handlers"""
    quiet = dict(database="quiet")
    t.sql("mallory", "SELECT gt_handler_create('m_fore', 'sql', 'SELECT spy_mallory.spy(), setseed(0.5),"
                     " set_config(''app.left'', ''behind'', false), pg_advisory_lock(4712)')", **quiet)
    release = "SELECT gt_release(gt_lease_create('1', 'm_fore', cleanup => 'm_fore'))"
    t.sql("mallory", release, **quiet)
    for before in ("SELECT pg_advisory_lock(1)", "CREATE TEMPORARY TABLE mine (x int)",
                   "DECLARE mine CURSOR WITH HOLD FOR SELECT t FROM v.secret"):
        link = t.session("postgres", before, **quiet)
        t.refused("postgres", "55000", "CALL gt_reclaim()", link=link)
        link.close()
    link = t.session("postgres", **quiet)
    runs = "SELECT runs FROM gt_handlers WHERE name = 'm_fore'"
    for beside in ("DO $$ DECLARE r record; d bigint; BEGIN FOR r IN SELECT * FROM v.secret LOOP CALL gt_reclaim(NULL, d); END LOOP; END $$",
                   "BEGIN; DECLARE mine CURSOR FOR SELECT t FROM v.secret; CALL gt_reclaim(); COMMIT"):
        t.execute("postgres", link, beside, ())
        t.same(t.admin(runs, **quiet), [(0,)], "runs of mallory's handler within the administrator's own work")
    link.close()
    link = t.session("postgres", "SET app.secret = 'mine'", "CALL gt_reclaim()", **quiet)
    rows = t.execute("postgres", link, "SELECT current_setting('app.left', true), (SELECT count(*) FROM pg_cursors WHERE name <> ''),"
                                       " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),"
                                       " current_user::text, session_user::text", ())
    t.same(rows[0][0] in (None, ""), True, "app.left does not outlive the run")
    t.same(rows[0][1:], (0, 0, "postgres", "postgres"), "the session after CALL gt_reclaim()")
    t.same(t.admin(runs, **quiet)[0][0] > 0, True, "it ran")
    if t.admin("SELECT last_value IS NOT NULL FROM pg_sequences WHERE sequencename = 'mallory_in_session_of_postgres'", **quiet)[0][0]:
        t.fault("mallory's handler ran in a session of postgres, as it could tell by session_user")
    yield
    t.admin("SELECT gt_release(lease_id) FROM gt_leases", **quiet)
    t.admin("CALL gt_reclaim()", **quiet)
    t.admin("SELECT gt_handler_drop('m_fore')", **quiet)


@attack(alone=True)
def administrators_time(t):
    """a handler that takes no for no answer does not spend the time of the administrator's gt_reclaim, and others have their turn"""
    quiet = dict(database="quiet")
    t.sql("mallory", "CREATE FUNCTION m.stay() RETURNS void LANGUAGE plpgsql AS $$ BEGIN LOOP BEGIN PERFORM pg_sleep(3600);"
                     " EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$;"
                     "CREATE FUNCTION m.shrug() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(3600);"
                     " EXCEPTION WHEN query_canceled THEN NULL; END $$", **quiet)
    for body in ("stay", "shrug"):
        t.sql("mallory", f"SELECT gt_handler_create('m_{body}', 'sql', 'SELECT m.{body}()', timeout => '30 s'),"
                         f" gt_release(gt_lease_create('1', 'm_{body}', cleanup => 'm_{body}'))", **quiet)
        t.sql("victim", "SELECT gt_handler_create('v_after', 'sql', 'INSERT INTO v.seen (n) SELECT -4'),"
                        " gt_release(gt_lease_create('1', 'v_after', cleanup => 'v_after'))", **quiet)
        runs = t.admin("SELECT runs FROM gt_handlers WHERE name = 'v_after'", **quiet)[0][0]
        for _ in range(2):
            link = t.session("postgres", "SET statement_timeout = '1 s'", **quiet)
            try:
                t.execute("postgres", link, "CALL gt_reclaim()", ())
            except town.psycopg2.Error as e:
                if not link.closed:
                    t.same(e.pgcode, "57014", "CALL gt_reclaim() with a statement_timeout")
                elif f"gt_pause('m_{body}')" not in t.server.log_tail():
                    t.fault("the administrator's session went, and he is not told whose doing it is")
            link.close()
        t.same(t.admin("SELECT runs FROM gt_handlers WHERE name = 'v_after'", **quiet)[0][0], runs + 1, f"runs of the victim's handler beside {body}")
        t.same(t.admin("SELECT count(*) FROM gt_history WHERE error ~ 'timeout of'", **quiet), [(0,)], f"runs of {body} to the end of their own timeout")
        t.admin(f"SELECT gt_pause('m_{body}')", **quiet)
        yield
    t.admin("SELECT gt_ack(cleanup_id, attempts), gt_ack(cleanup_id, attempts + 1) FROM gt_garbage", **quiet)
    t.admin("SELECT gt_handler_drop('m_stay'), gt_handler_drop('m_shrug'), gt_handler_drop('v_after')", **quiet)
    t.sql("mallory", "DROP FUNCTION m.stay(), m.shrug()", **quiet)


@attack(alone=True)
def wrapper_of_the_administrator(t):
    """a SECURITY DEFINER function around gt_reclaim fires nothing that its caller has deferred"""
    quiet = dict(database="quiet")
    t.admin("CREATE FUNCTION public.reclaim_now() RETURNS bigint SECURITY DEFINER LANGUAGE plpgsql SET search_path = public, pg_temp AS"
            " $$ DECLARE d bigint; BEGIN CALL gt_reclaim(NULL, d); RETURN d; END $$", **quiet)
    t.sql("mallory", "CREATE TABLE m.late (x int); CREATE FUNCTION m.late() RETURNS trigger LANGUAGE plpgsql AS"
                     " $$ BEGIN PERFORM spy_mallory.spy(); RETURN NULL; END $$;"
                     "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON m.late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION m.late();"
                     "SELECT gt_handler_create('m_late', 'sql', 'SELECT 1'), gt_release(gt_lease_create('1', 'm_late', cleanup => 'm_late'))",
          **quiet)
    link = t.session("mallory", **quiet)
    try:
        t.execute("mallory", link, "BEGIN; INSERT INTO m.late VALUES (1); SELECT public.reclaim_now(); COMMIT", ())
    except town.psycopg2.Error:
        pass        # it may refuse
    link.close()
    if t.admin("SELECT last_value IS NOT NULL FROM pg_sequences WHERE sequencename = 'mallory_as_postgres'", **quiet)[0][0]:
        t.fault("mallory's deferred trigger ran as postgres")
        t.admin("SELECT setval('ran.mallory_as_postgres', 1, false)", **quiet)
    yield
    t.admin("DROP FUNCTION public.reclaim_now()", **quiet)
    t.admin("CALL gt_reclaim()", **quiet)
    t.sql("mallory", "SELECT gt_handler_drop('m_late')", **quiet)
    t.sql("mallory", "DROP TABLE m.late; DROP FUNCTION m.late()", **quiet)


@attack
def reclaim_by_a_role_of_its_own(t):
    """gt_reclaim in a role's own transaction ends and runs only its own, as that role; others may not call it"""
    t.refused("bob", "42501", "CALL gt_reclaim()")
    t.refused("nobody", "42501", "CALL gt_reclaim()")
    t.refused("mallory", "42501", "CALL gt_reclaim()")
    quiet = dict(database="quiet")
    t.sql("victim", "SELECT gt_handler_create('v_own', 'sql', 'INSERT INTO v.seen (n) SELECT -2')", **quiet)
    t.sql("victim", "SELECT gt_release(gt_lease_create('1', 'v_own', cleanup => 'v_own'))", **quiet)
    t.sql("mallory", "SELECT gt_handler_create('m_own', 'sql', 'SELECT spy_mallory.spy()')", **quiet)
    link = t.session("mallory", **quiet)
    t.execute("mallory", link, "BEGIN; SELECT gt_release(gt_lease_create('1', 'm_own', cleanup => 'm_own')); CALL gt_reclaim();"
                               " CALL gt_reclaim(); COMMIT", ())
    t.same(t.admin("SELECT name, runs FROM gt_handlers WHERE name LIKE '%\\_own' ORDER BY 1", **quiet), [("m_own", 1), ("v_own", 0)], "runs")
    t.refused("bob", "42501", "BEGIN; CALL gt_reclaim()", link=t.session("bob", **quiet))
    yield
    # what the caller's own tables defer is deferred after it, too, though a run has had all constraints immediate
    link = t.session("victim", "CREATE TABLE v.par (id int PRIMARY KEY);"
                               "CREATE TABLE v.chi (par int REFERENCES v.par DEFERRABLE INITIALLY DEFERRED)", **quiet)
    t.execute("victim", link, "BEGIN; INSERT INTO v.chi VALUES (1); INSERT INTO v.par VALUES (1);"
                              " SELECT gt_release(gt_lease_create('2', 'v_own', cleanup => 'v_own')); CALL gt_reclaim();"
                              " INSERT INTO v.chi VALUES (2); INSERT INTO v.par VALUES (2); COMMIT", ())
    t.same(t.execute("victim", link, "SELECT count(*) FROM v.chi JOIN v.par ON id = par", ()), [(2,)], "children after gt_reclaim in a block")
    t.execute("victim", link, "DROP TABLE v.chi, v.par", ())
    t.admin("CALL gt_reclaim()", **quiet)
    t.admin("SELECT gt_handler_drop('m_own'), gt_handler_drop('v_own')", **quiet)


# --- rights on the tables and functions

OURS = """
SELECT c.oid::regclass::text, relkind FROM pg_depend d JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND extname = 'garbagetruck'
WHERE relkind IN ('r', 'S', 'v') AND relnamespace = '_garbagetruck'::regnamespace"""


@attack(alone=True)
def grants_on_all_tables(t):
    """the deployment script's GRANT ALL ON ALL TABLES and FUNCTIONS IN SCHEMA public gives nothing of ours"""
    t.admin("GRANT ALL ON ALL TABLES IN SCHEMA public TO mallory, bob")
    t.admin("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO mallory, bob")
    t.admin("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO bob, nobody")
    t.afterwards("postgres", town.ALLOW)        # as it was
    for what in ("TABLES", "SEQUENCES", "FUNCTIONS"):
        t.afterwards("postgres", f"REVOKE ALL ON ALL {what} IN SCHEMA public FROM mallory, bob, nobody")
    t.afterwards("postgres", "SELECT gt_disallow('bob', 'admin'), gt_resume()")
    yield
    for name, kind in t.admin(OURS):
        for sql in ("SELECT * FROM {}", "SELECT nextval('{}')") if kind == "S" else \
                ("SELECT * FROM {}", "INSERT INTO {} DEFAULT VALUES", "DELETE FROM {}"):
            t.refused("mallory", "42501", sql.format(name))
    for sql in ("SELECT gt_allow('bob', 'admin')", "SELECT gt_pause()", "SELECT gt_handler_create('bobs', 'queue')",
                "SELECT * FROM gt_metrics()", "SELECT * FROM gt_check()"):
        t.refused("bob", "42501", "BEGIN; " + sql)
        t.sql("bob", "ROLLBACK")
    t.refused("nobody", "42501", "SELECT gt_lease_create('x')")
    t.refused("nobody", "42501", "SELECT * FROM gt_claim()")


@attack(alone=True)
def default_privileges(t):
    """default privileges from before CREATE EXTENSION give nobody our tables, nor the marks of our rights"""
    t.admin("CREATE DATABASE defaults")
    t.afterwards("postgres", "DROP DATABASE defaults WITH (FORCE)")
    there = dict(database="defaults")
    t.admin("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO mallory; ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO mallory;"
            " ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO mallory; ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO mallory;"
            " CREATE EXTENSION garbagetruck", **there)
    yield
    t.same(t.admin("SELECT DISTINCT n FROM (SELECT relname::text AS n, (aclexplode(relacl)).grantee FROM pg_class"
                   " UNION ALL SELECT proname::text, (aclexplode(proacl)).grantee FROM pg_proc"
                   " UNION ALL SELECT nspname::text, (aclexplode(nspacl)).grantee FROM pg_namespace) a"
                   " WHERE grantee = 'mallory'::regrole ORDER BY 1", **there), [], "what mallory was given")


@attack(alone=True)
def dml_on_our_tables(t):
    """who is given DML on our tables becomes nobody by it: SQL handlers stop until it is taken away"""
    there = dict(database="defaults")
    t.admin("CREATE DATABASE defaults")
    t.afterwards("postgres", "DROP DATABASE defaults WITH (FORCE)")
    t.admin("CREATE EXTENSION garbagetruck; CREATE TABLE ran (who text); GRANT ALL ON ran TO PUBLIC; GRANT CREATE ON SCHEMA public TO mallory;"
            " SELECT gt_allow('mallory'), gt_allow('mallory', 'handler');"
            " GRANT USAGE ON SCHEMA _garbagetruck TO mallory; GRANT UPDATE ON _garbagetruck.gt__handler TO mallory", **there)
    t.sql("mallory", "CREATE FUNCTION public.own() RETURNS void LANGUAGE plpgsql AS $$ BEGIN INSERT INTO ran SELECT current_user;"
                     " ALTER ROLE mallory SUPERUSER; EXCEPTION WHEN insufficient_privilege THEN RETURN; END $$;"
                     "SELECT gt_handler_create('m_own', 'sql', 'SELECT public.own()')", **there)
    t.admin("UPDATE _garbagetruck.gt__handler SET owner = 10, owner_name = 'postgres' WHERE name = 'm_own'", **there)
    t.sql("mallory", "SELECT gt_release(gt_lease_create('1', 'x'))", **there)
    t.admin("SELECT gt_release(gt_lease_create('1', 'y', cleanup => 'm_own'))", **there)
    yield
    t.same(t.admin("SELECT * FROM ran", **there), [], "runs while mallory could write our tables")
    health = t.admin("SELECT ok, remedy FROM gt_health() WHERE check_name = 'rights' AND NOT ok", **there)
    t.same(bool(health), True, "gt_health tells of it")
    for _, remedy in health:
        t.admin(remedy, **there)
    t.same(t.admin("SELECT bool_and(ok) FROM gt_health() WHERE check_name = 'rights'", **there), [(True,)], "gt_health after its remedy")


@attack
def calls_on_what_is_anothers(t):
    """the victim's leases, handlers, cleanups and switches are the victim's"""
    lease = t.value("victim", "SELECT gt_lease_create(%s, 'v_else', duration => '1 minute')", f"{town.HIDDEN}else-{t.n}")
    for role in ("mallory", "bob"):
        for sql in ("SELECT gt_renew(%s)", "SELECT gt_release(%s)", "SELECT gt_release(%s, keep => true)", "SELECT gt_release_many(ARRAY[%s::uuid])",
                    "SELECT gt_lease_update(%s, payload => '{}')", "SELECT gt_lease_create('c', parent => %s)"):
            t.refused(role, "42501", sql, lease)
        t.same(t.sql(role, "SELECT status FROM gt_renew_many(ARRAY[%s::uuid])", lease), [("denied",)], "gt_renew_many")
        t.same(t.sql(role, "SELECT * FROM gt_lease_get(%s)", lease), [], "gt_lease_get")
        t.refused(role, "42501 GT001", "SELECT gt_fence(%s)", lease)
        t.same(t.sql(role, "SELECT count(*) FROM gt_lease_list(object_type => 'v_else')"), [(0,)], "gt_lease_list")
        t.refused(role, "42501", "SELECT gt_lease_create(%s, 'v_else')", f"{town.HIDDEN}else-{t.n}")
        t.refused(role, "42501 GT007", "SELECT gt_lease_create('x', cleanup => 'v_watch')")
        for sql in ("SELECT gt_pause('v_watch')", "SELECT gt_handler_drop('v_watch')", "SELECT gt_handler_grant('v_watch', 'bob', 'claim')",
                    "SELECT gt_pause()", "SELECT gt_resume()", "SELECT gt_resume(adopt => true)", "SELECT gt_allow('bob', 'admin')",
                    "SELECT gt_disallow('victim')", "SELECT gt_handler_create('v_watch', 'sql', 'SELECT 1')", "SELECT * FROM gt_claim('{v_queue}')",
                    "SELECT * FROM gt_check(true)", "SELECT gt_redrive(handler => 'v_watch')", "SELECT gt_handler_create('http_endpoint', 'queue')"):
            t.refused(role, "42501", sql)
    yield
    t.sql("victim", "SELECT gt_release(%s)", lease)


@attack
def gifts_that_nobody_asked_for(t):
    """what mallory shares or grants to the victim does not make the victim act on mallory's objects"""
    own = f"upload-{t.n}"
    t.sql("mallory", "SELECT gt_share('victim')")
    lease = t.value("mallory", "SELECT gt_lease_create(%s, 'blob_storage', duration => '1 minute')", own)
    t.refused("victim", "42501", "SELECT gt_lease_create(%s, 'blob_storage', cleanup => 'v_watch', payload => '{\"n\": -1}')", own)
    mine = t.value("victim", "SELECT gt_lease_create(%s, 'blob_storage')", own)
    t.sql("victim", "SELECT gt_release(%s)", mine)
    name = t.handler(t.name("gift"), "http", "http://127.0.0.1/admin?x={object_id}")
    t.sql("mallory", "SELECT gt_handler_grant(%s, 'victim', 'claim')", name)
    t.garbage(name, 3)
    t.same([r for r in t.sql("victim", "SELECT handler FROM gt_claim(NULL, 100)") if r[0] == name], [], "claimed by the victim's gt_claim()")
    t.same(t.sql("victim", "SELECT gt_redrive() >= 0"), [(True,)], "gt_redrive()")
    t.same(len(t.sql("victim", "SELECT 1 FROM gt_claim(ARRAY[%s])", name)), 3, "by its name it can be claimed")
    yield
    t.sql("mallory", "SELECT gt_release(%s), gt_unshare('victim')", lease)


@attack
def request_key_of_another(t):
    """another role's request_key under the same service is another key"""
    sql = "SELECT lease_id, created FROM gt_lease_grant(%s, %s, 'shared', '1 minute', request_key => %s)"
    victims = t.sql("victim", sql, f"{town.HIDDEN}key-{t.n}", "v_key", f"key-{t.n}")
    mallorys = t.sql("mallory", sql, f"key-{t.n}", "m_key", f"key-{t.n}")
    t.same(mallorys[0][1] and mallorys[0][0] != victims[0][0], True, "a lease of mallory's own")
    yield
    t.sql("victim", "SELECT gt_release(%s)", victims[0][0])
    t.sql("mallory", "SELECT gt_release(%s)", mallorys[0][0])


@attack
def sign_of_a_run(t):
    """garbagetruck.in_cleanup can not be set"""
    for sql in ("SET garbagetruck.in_cleanup = on", "SELECT set_config('garbagetruck.in_cleanup', 'on', true)",
                "ALTER ROLE bob SET garbagetruck.in_cleanup = on"):
        t.refused("bob", "55P02 42501 22023", sql)
    t.refused("mallory", "55000", "SELECT gt_snooze('1 s')")
    yield


@attack(alone=True)
def sign_of_a_run_without_preload(t):
    """where the library is not preloaded the sign can be set until it is loaded, as README says, and gives no right"""
    with town.unloaded(t) as u:
        links = [u.session("bob", "SET garbagetruck.in_cleanup = on"), u.session("mallory", "SET garbagetruck.in_cleanup = on")]
        for role, link in zip(("bob", "mallory"), links):
            u.refused(role, "55000", "SELECT gt_snooze('1 s')", link=link)      # which is for runs
            u.execute(role, link, "SELECT gt_clock()", ())
            u.same(u.execute(role, link, "SELECT current_setting('garbagetruck.in_cleanup')", ()), [("off",)], f"the sign in {role}'s session")
            u.refused(role, "55P02", "SET garbagetruck.in_cleanup = on", link=link)
            u.refused(role, "42501", "CALL gt_reclaim()", link=link)
        # and a handler's run has it on
        u.sql("victim", "SELECT gt_handler_create('v_sign', 'sql', 'INSERT INTO v.seen (n) SELECT 7 WHERE current_setting(''garbagetruck.in_cleanup'')::bool')")
        u.sql("victim", "SELECT gt_release(gt_lease_create('sign', 'v_t', cleanup => 'v_sign'))")
        u.admin("CALL gt_reclaim()")
        u.same(u.sql("victim", "SELECT count(*) FROM v.seen WHERE n = 7"), [(1,)], "runs with the sign")
    yield


@attack(alone=True)
def calls_of_the_sidecar(t):
    """a sidecar carries out no handler that a stranger has granted to it: neither by what it may claim, nor by its name"""
    sidecar = "sidecar"
    t.admin(f"CREATE ROLE {sidecar} LOGIN; SELECT gt_allow('{sidecar}'), gt_allow('{sidecar}', 'handler')")
    t.afterwards("postgres", f"DROP OWNED BY {sidecar}; DROP ROLE {sidecar}")
    with town.Listener() as listener, tempfile.TemporaryDirectory() as root:
        victims = os.path.join(root, "victim")
        with open(victims, "w", encoding="utf-8"):
            pass
        handlers = [t.handler(t.name("http"), "http", f"http://127.0.0.1:{listener.port}/stranger/{{object_id}}"),
                    t.handler(t.name("file"), "file", "{object_id}")]
        mine = t.handler(f"{sidecar}_{t.n}", "http", f"http://127.0.0.1:{listener.port}/own/{{object_id}}", role=sidecar)
        for name in handlers:
            t.sql("mallory", "SELECT gt_handler_grant(%s, %s, 'claim')", name, sidecar)
        t.garbage(handlers[0], 3)
        t.sql("mallory", "SELECT gt_release(gt_lease_create('victim', 'm_file', cleanup => %s))", handlers[1])
        with town.sidecar(t.server, sidecar, "--executors", "http,file", "--file-root", root) as process:
            # its own, released after those, tells that it is at work
            t.garbage(mine, 3, role=sidecar)
            t.until("the sidecar calls nobody", lambda: sum("/own/" in path for path in listener.paths) >= 3 or process.poll() is not None)
            t.until("its own are not done", lambda: not t.admin("SELECT 1 FROM gt_garbage WHERE handler = %s", mine))
            yield
        t.same([path for path in listener.paths if "stranger" in path], [], "calls that mallory had the sidecar make")
        t.same(os.path.exists(victims), True, "the file beneath its root")
        t.same(t.admin("SELECT count(*) FROM gt_garbage WHERE handler = ANY (%s) AND attempts = 0", handlers), [(4,)], "mallory's garbage, waiting")


@attack(alone=True)
def callers_by_default(t):
    """the database's owner can not make everybody a caller of one name, nor turn their lists round"""
    for sql in ("ALTER DATABASE shop SET garbagetruck.caller = 'x'", "ALTER DATABASE shop SET garbagetruck.newest_first = on"):
        t.afterwards("dbo", "ALTER DATABASE shop RESET ALL")
        t.refused("dbo", "22023 42501", sql)
        link = t.session("victim")
        mine = t.execute("victim", link, "SELECT gt_lease_create(%s, 'v_caller'), current_setting('garbagetruck.caller'),"
                                         " current_setting('garbagetruck.newest_first')", (f"{town.HIDDEN}caller-{t.n}",))
        t.same(mine[0][1:], ("", "off"), "what the victim's session calls as")
        t.execute("victim", link, "SELECT gt_release(%s)", (mine[0][0],))
    yield
    link = t.session("victim")
    t.same(t.execute("victim", link, "SELECT set_config('garbagetruck.caller', 'x', true), set_config('garbagetruck.newest_first', 'on', true)", ()),
           [("x", "on")], "what a session may set for itself")
