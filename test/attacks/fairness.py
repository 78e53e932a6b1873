"""Attacks on other people's time: to have them wait, or to take all there is. Each yields while the attack is on."""
import time

import town
from rights import attack

OTHERS = 3          # workers that one role's handlers can have: all but one
MB = 1 << 20


def hanging(t, name, count=1, **options):
    """A handler whose runs do not end by themselves, and take no for no answer."""
    t.sql("mallory", f"CREATE FUNCTION m.{name}() RETURNS void LANGUAGE plpgsql AS $$ BEGIN LOOP BEGIN PERFORM pg_sleep(3600);"
                     " EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$")
    return t.handler(name, "sql", f"SELECT m.{name}()", **{"timeout": "1 hour", **options})


def watched(t):
    """A database of its own that workers serve, with nothing in it but two roles, and what the victim's handler has seen."""
    t.admin("CREATE DATABASE defaults")
    t.afterwards("postgres", "DROP DATABASE defaults WITH (FORCE)")
    there = dict(database="defaults")
    t.admin("CREATE EXTENSION garbagetruck; CREATE SCHEMA v AUTHORIZATION victim; SELECT gt_allow(r), gt_allow(r, 'handler')"
            " FROM unnest('{victim,mallory}'::name[]) r", **there)
    t.sql("victim", "CREATE TABLE v.seen (t text); SELECT gt_handler_create('v_see', 'sql', 'INSERT INTO v.seen SELECT $1')", **there)
    return there


def reads(t, table):
    """Entries of the indexes of this table that were read."""
    return t.admin("SELECT pg_stat_clear_snapshot(), sum(idx_tup_read) FROM pg_stat_all_indexes WHERE relname = %s", table)[0][1]


# --- row locks

@attack
def own_handlers_row(t):
    """a role holds the row of its own handler, whose run must be judged because it does not end"""
    name = hanging(t, t.name("pause"), timeout="10 ms")
    t.garbage(name)
    t.running(name)
    t.holding("mallory", f"SELECT gt_pause('{name}')")
    t.until("the run is not ended", lambda: not t.admin("SELECT 1 FROM gt_workers WHERE handler = %s", name))
    yield


@attack
def own_objects_row(t):
    """a role holds the row of its own object, whose run must be judged because its worker was terminated"""
    name = hanging(t, t.name("row"))
    t.garbage(name)
    t.running(name)
    t.holding("bob")
    for _ in range(3):
        t.admin("SELECT pg_terminate_backend(pid) FROM gt_workers WHERE handler = %s", name)
        link = t.holding("mallory")
        with link.cursor() as cursor:
            cursor.execute("SET lock_timeout = '300 ms'")
            try:
                cursor.execute(f"SELECT gt_lease_create('{name}-1', '{name}')")
            except town.psycopg2.Error:
                cursor.execute("ROLLBACK")
        yield
        link.close()


@attack
def strangers_object_by_a_refused_call(t):
    """refused calls on the victim's objects, leases and handlers keep no lock, whatever stays open"""
    mine = f"{town.HIDDEN}obj-{t.n}"
    queue = t.handler(f"v_drop_{t.n}", "queue", None, role="victim")
    lease = t.value("victim", "SELECT gt_lease_create(%s, 'v_refused', duration => '1 minute', cleanup => 'v_queue')", mine)
    garbage = f"{town.HIDDEN}gone-{t.n}"
    t.sql("victim", "SELECT gt_release(gt_lease_create(%s, 'v_refused', cleanup => %s))", garbage,
          t.handler(f"v_keep_{t.n}", "queue", None, role="victim"))
    for role in ("bob", "mallory"):
        t.holding(role, "SELECT sqlstate FROM gt_lease_grant_each('" + "[" + ", ".join((
            f'{{"object_id": "{mine}", "object_type": "v_refused"}}', f'{{"object_id": "{garbage}", "object_type": "v_refused"}}',
            f'{{"object_id": "x", "cleanup": "{queue}"}}', f'{{"object_id": "y", "parent": "{lease}"}}')) + "]')",
            f"SELECT * FROM gt_renew_many('{{{lease}}}')", f"SELECT * FROM gt_lease_get('{lease}')")
        for sql in (f"SELECT gt_release('{lease}')", f"SELECT gt_lease_update('{lease}', payload => '{{}}')", f"SELECT gt_renew('{lease}')",
                    f"SELECT gt_lease_create('{mine}', 'v_refused')", f"SELECT gt_lease_create('x', cleanup => '{queue}')",
                    f"SELECT gt_lease_create('y', parent => '{lease}')", f"SELECT gt_lease_create_many('{{z,{mine}}}', 'v_refused')",
                    f"SELECT gt_fence_check('{mine}', 'v_refused', 1)"):
            link = t.holding(role, "SAVEPOINT s")
            t.refused(role, "42501", sql, link=link)
            t.execute(role, link, "ROLLBACK TO s", ())
    yield
    t.sql("victim", "SET lock_timeout = '5 s'")
    t.sql("victim", "SELECT gt_renew(%s)", lease)
    t.sql("victim", "SELECT gt_release(gt_lease_create(%s, 'v_refused'))", mine)
    t.sql("victim", "SELECT gt_release(%s)", lease)
    t.sql("victim", "SELECT gt_handler_drop(%s)", queue)
    t.handlers.remove(("victim", queue))
    yield


@attack
def open_first_calls(t):
    """what a role's first call records, in a transaction that stays open, lets all others go on"""
    newbie = f"newbie_{t.n}"
    t.admin(f"CREATE ROLE {newbie} LOGIN")
    t.admin("SELECT gt_allow(%s)", newbie)
    name = t.handler(t.name("granted"), "queue", None)
    link = t.holding("mallory", f"SELECT gt_share('{newbie}')", f"SELECT gt_handler_grant('{name}', '{newbie}')")
    t.sql(newbie, "SET lock_timeout = '5 s'")
    t.sql(newbie, "SELECT gt_lease_create(%s, %s, duration => '100 ms')", f"n{t.n}", t.name("new"))
    yield
    link.close()
    t.admin(f"ALTER ROLE {newbie} RENAME TO {newbie}_")
    t.afterwards("postgres", f"DROP OWNED BY {newbie}_; DROP ROLE {newbie}_")
    t.holding("mallory", f"SELECT gt_share('{newbie}_')")
    t.sql(newbie, "SELECT gt_lease_create(%s, %s, duration => '100 ms')", f"n{t.n}x", t.name("new"))
    yield


@attack(alone=True)
def open_first_call_of_a_database(t):
    """the first call in a database, left open or prepared, lets all others go on"""
    for gid in (None, "first"):
        database = "first"
        t.admin(f"CREATE DATABASE {database}")
        t.afterwards("postgres", f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
        t.admin("CREATE EXTENSION garbagetruck; CREATE TABLE seen (t text); GRANT ALL ON seen TO PUBLIC; SELECT gt_allow(r), gt_allow(r, 'handler')"
                " FROM unnest('{victim,mallory}'::name[]) r", database=database)
        first = t.holding("mallory", "SELECT gt_lease_create('a', 'm_t')", database=database)
        left = gid is not None and t.prepared("mallory", first, gid)
        t.sql("victim", "SET lock_timeout = '5 s'", database=database)
        t.sql("victim", "SELECT gt_handler_create('h', 'sql', 'INSERT INTO public.seen SELECT $1')", database=database)
        t.sql("victim", "SELECT gt_release(gt_lease_create('b', 'v_t', cleanup => 'h'))", database=database)
        yield
        t.until("nothing is cleaned beside an open first call", lambda: t.admin("SELECT 1 FROM seen", database=database))
        if left:
            t.admin(f"ROLLBACK PREPARED '{gid}'", database=database)
        first.close()
        t.leave(database)
        t.admin(f"DROP DATABASE {database} WITH (FORCE)")


@attack(alone=True)
def open_first_calls_without_preload(t):
    """where the library is not preloaded, too, who writes first, in a database or after a start, and stays open, holds nobody up"""
    with town.unloaded(t) as u:
        first = u.holding("mallory", "SELECT gt_lease_create('a', 'm_t')")
        u.sql("victim", "SET lock_timeout = '5 s'")
        u.sql("victim", "SELECT gt_handler_create('v_h', 'sql', 'INSERT INTO v.seen (n) SELECT 1')")
        u.sql("victim", "SELECT gt_release(gt_lease_create('b', 'v_t', cleanup => 'v_h'))")
        u.admin("CALL gt_reclaim()")
        u.same(u.sql("victim", "SELECT count(*) FROM v.seen"), [(1,)], "what is cleaned beside mallory's first call in the database")
        u.execute("mallory", first, "ROLLBACK", ())
        u.sql("victim", "SELECT gt_lease_create('c', 'v_t', duration => '1 s', cleanup => 'v_h'),"
                        " gt_lease_create('d', 'v_t', duration => '1 s', exclusive => true)")
        u.restart()
        u.holding("mallory", "SELECT gt_lease_create('e', 'm_t')")
        u.sql("victim", "SET lock_timeout = '5 s'")

        def cleaned():
            u.admin("CALL gt_reclaim()")
            return u.sql("victim", "SELECT count(*) FROM v.seen") == [(2,)]

        def granted():
            return u.sql("victim", "SELECT sqlstate FROM gt_lease_grant_each('[{\"object_id\": \"d\", \"object_type\": \"v_t\","
                                   " \"exclusive\": true}]')") == [("00000",)]

        u.until("a lease from before the start does not end beside mallory's first call after it", cleaned)
        u.until("nor is another granted in the place of an exclusive one", granted)
    yield


@attack
def own_locks_around_the_handler(t):
    """a role locks the table that its own handler needs, its leases, its garbage and its handler, and stays"""
    t.sql("mallory", f"CREATE TABLE m.locked_{t.n} (x text)")
    t.afterwards("mallory", f"DROP TABLE m.locked_{t.n}")
    names = [t.handler(t.name(f"locked{i}"), "sql", f"INSERT INTO m.locked_{t.n} SELECT $1", timeout="1 hour") for i in range(5)]
    t.holding("mallory", f"LOCK TABLE m.locked_{t.n}", "SELECT gt_lease_create_many(ARRAY(SELECT 'l' || i FROM generate_series(1, 500) i), 'm_many')")
    for name in names:
        t.garbage(name, 20)
    t.holding("mallory", f"SELECT gt_pause('{names[4]}')", f"SELECT gt_handler_grant('{names[3]}', 'bob')",
              f"SELECT gt_handler_create('m_open_{t.n}', 'queue')", "SELECT gt_share('bob', 'x')")
    t.holding("mallory", "SELECT pg_advisory_xact_lock(i) FROM generate_series(0, 2000) i")
    yield


@attack(alone=True)
def administrators_switches(t):
    """an administrator's calls on all handlers, rights and objects do not wait for a role's open transaction on its own"""
    name = t.handler(t.name("switch"), "queue", None)
    gone = t.handler(t.name("gone"), "queue", None)
    t.garbage(name, 3)
    lease = t.value("mallory", "SELECT gt_lease_create('held', %s)", name)
    t.holding("mallory", f"SELECT gt_pause('{name}'), gt_handler_grant('{name}', 'bob'), gt_share('bob')", f"SELECT * FROM gt_claim('{{{name}}}')",
              f"SELECT gt_lease_update('{lease}', payload => '1')", f"SELECT gt_handler_drop('{gone}')", "SELECT gt_lease_create('new', 'm_new')")
    t.admin("SET lock_timeout = '5 s'")
    t.admin("SELECT gt_pause(), gt_resume()")
    t.admin("SELECT * FROM gt_health()")
    t.admin("SELECT * FROM gt_check()")
    t.admin("SELECT count(*) FROM gt_metrics(), gt_forecast(), gt_handlers, gt_garbage, gt_leases")
    t.admin("SELECT gt_allow('nobody'), gt_disallow('nobody')")
    t.handler(f"v_switch_{t.n}", "queue", None, role="victim")
    yield


@attack
def judgement_of_a_strangers_object(t):
    """a refused call on an object whose run was interrupted keeps nobody from judging that"""
    table = f"v.sleep_{t.n}"
    t.sql("victim", f"CREATE TABLE {table} AS SELECT 3600 AS s")
    t.afterwards("victim", f"DROP TABLE {table}")
    name = t.handler(f"v_sleeper_{t.n}", "sql", f"SELECT pg_sleep(s) FROM {table}", role="victim", timeout="1 hour")
    t.garbage(name, role="victim")
    t.running(name)
    t.sql("victim", f"DELETE FROM {table}")
    refused = f"SELECT sqlstate FROM gt_lease_grant_each('[{{\"object_id\": \"{name}-1\", \"object_type\": \"{name}\"}}]')"
    for role in ("bob", "mallory"):
        link = t.holding(role, "SET lock_timeout = '1 s'", refused)
        t.same(t.execute(role, link, refused, ()), [("42501",)], "the refused call")
    t.admin("SELECT pg_terminate_backend(pid) FROM gt_workers WHERE handler = %s", name)
    t.until("it is not tried again", lambda: not t.admin("SELECT 1 FROM gt_garbage WHERE handler = %s", name))
    yield


@attack
def garbage_held_in_bulk(t):
    """hundreds of due objects of a role, all held by its open transaction, let the workers serve the others"""
    name = t.handler(t.name("bulk"), "sql", "SELECT 1")
    t.admin("SELECT gt_pause(%s)", name)
    t.garbage(name, 1500)
    link = t.holding("mallory", "SELECT count(*) FROM gt_lease_grant_each((SELECT jsonb_agg(jsonb_build_object('object_id', '%s-' || i,"
                                " 'object_type', '%s')) FROM generate_series(1, 1000) i))" % (name, name))
    t.admin("SELECT gt_resume(%s)", name)
    yield
    link.close()


@attack
def prepared_and_left(t):
    """a prepared transaction of a role holds its rows, and nobody else"""
    t.sql("mallory", "SELECT gt_lease_create(%s, 'm_left', duration => '100 ms')", f"left-{t.n}")
    name = t.handler(t.name("prepared"), "sql", "SELECT 1")
    t.garbage(name, 1)
    t.sql("mallory", "BEGIN")
    t.sql("mallory", "SELECT gt_lease_create(%s, 'm_left'), gt_lease_create('p', %s, cleanup => %s)", f"left-{t.n}", name, name)
    t.sql("mallory", f"SELECT gt_release(gt_lease_create('q', '{name}', cleanup => '{name}'))")
    left = t.prepared("mallory", t.link("mallory"), f"left_{t.n}")
    try:
        yield
    finally:
        if left:
            t.sql("mallory", f"COMMIT PREPARED 'left_{t.n}'")


@attack(alone=True)
def expired_leases_held_in_bulk(t):
    """a role holds more expired leases than a pass looks at: who has one lease that ends later is served when it does"""
    there = watched(t)
    t.sql("mallory", "SELECT count(*) FROM unnest(gt_lease_create_many(ARRAY(SELECT 'l' || i FROM generate_series(1, 1500) i), 'm_held',"
                     " duration => '1 s')) l", **there)
    link = t.holding("mallory", "SELECT gt_release_many(ARRAY(SELECT lease_id FROM gt_leases))", **there)
    # looks come ever more rarely while there is nothing but what is locked
    mine = t.sql("victim", "SELECT gt_lease_create('mine', 'v_mine', duration => '15 s', cleanup => 'v_see')", **there)[0][0]
    t.until("its time is not over", lambda: t.sql("victim", "SELECT gt_lease_list.state FROM gt_lease_list()", **there) != [("active",)])
    if not town.cluster.wait_until(lambda: t.sql("victim", "SELECT 1 FROM v.seen", **there), 5):
        t.fault("the victim's lease is not ended while mallory holds those of her own")
    t.same(t.sql("victim", "SELECT count(*) FROM gt_lease_get(%s)", mine, **there), [(0,)], "the victim's lease")
    yield
    link.close()


@attack
def children_held_in_bulk(t):
    """a role holds the children of its ended parent, more than a pass looks at: another's children end"""
    name = t.handler(t.name("orphans"), "queue", None)
    parent = t.value("mallory", "SELECT gt_lease_create(%s, %s)", name, name)
    t.sql("mallory", "SELECT count(*) FROM unnest(gt_lease_create_many(ARRAY(SELECT %s || i FROM generate_series(1, 1500) i), %s,"
                     " parent => %s, cleanup => %s)) AS l", name, name, parent, name)
    link = t.holding("mallory", f"SELECT gt_release_many(ARRAY(SELECT lease_id FROM gt_leases WHERE parent = '{parent}'))")
    t.sql("mallory", "SELECT gt_release(%s)", parent)
    yield
    seen = t.handler(f"v_child_{t.n}", "sql", "INSERT INTO v.seen (n) SELECT -3", role="victim")
    mine = t.value("victim", "SELECT gt_lease_create(%s, 'v_parent')", f"{town.HIDDEN}parent-{t.n}")
    t.sql("victim", "SELECT gt_lease_create(%s, 'v_child', parent => %s, cleanup => %s)", f"{town.HIDDEN}child-{t.n}", mine, seen)
    t.sql("victim", "SELECT gt_release(%s)", mine)
    t.ran(seen)
    yield
    link.close()


@attack(alone=True)
def forgotten_objects_held_in_bulk(t):
    """a role holds objects that are only remembered for their regrant_delay, more than a pass looks at: nothing spins"""
    kind = t.name("forgotten")
    t.sql("mallory", "SELECT count(*) FROM unnest(gt_lease_create_many(ARRAY(SELECT 'f' || i FROM generate_series(1, 1500) i), %s,"
                     " duration => '100 ms', exclusive => true, regrant_delay => '3 s')) l", kind)
    t.until("they do not end", lambda: not t.admin("SELECT 1 FROM gt_leases WHERE object_type = %s", kind))
    link = t.holding("mallory", f"SELECT count(*) FROM unnest(gt_lease_create_many(ARRAY(SELECT 'f' || i FROM generate_series(1, 1500) i), '{kind}')) l")
    t.sql("mallory", "SELECT pg_sleep(3)")
    yield
    before = reads(t, "gt_object")
    t.sql("mallory", "SELECT pg_sleep(2)")
    if reads(t, "gt_object") > before + 30000:
        t.fault("the workers read them again and again")
    yield
    link.close()
    t.until("they stay", lambda: not t.admin("SELECT 1 FROM _garbagetruck.gt_object WHERE object_type = %s AND state = 'f'", kind))


# --- worker slots

@attack
def hanging_handlers(t):
    """handlers that never end take every slot but one, and who has not run yet gets that one"""
    for i in range(OTHERS + 2):
        name = hanging(t, t.name(f"hang{i}"))
        t.garbage(name, 2)
    t.until("they do not run", lambda: t.admin("SELECT count(*) >= 3 FROM gt_workers WHERE handler ~ '^m_hang'")[0][0] or True)
    name = t.handler(f"v_new_{t.n}", "sql", "INSERT INTO v.seen (n) VALUES (0)", role="victim")
    t.garbage(name, role="victim")
    yield
    t.ran(name)
    t.same(t.admin("SELECT count(*) < 4 FROM gt_workers WHERE handler ~ '^m_'"), [(True,)], "a worker left for others")


@attack
def slow_handlers_by_the_dozen(t):
    """many handlers that are just not slow, of one role, share one role's turns"""
    for i in range(15):
        name = t.handler(t.name(f"dozen{i}"), "sql", "SELECT pg_sleep(0.6)")
        t.garbage(name, 3)
    yield


@attack
def announcements_by_the_dozen(t):
    """many handlers of one role that only announce share one role's turns, too"""
    told = t.handler(f"v_told_{t.n}", "notify_only", "v_told", role="victim")
    t.garbage(told, role="victim")
    t.ran(told)
    names = [t.handler(t.name(f"tells{i}"), "notify_only", "m_told") for i in range(200)]

    def left():
        return t.admin("SELECT count(*) FROM gt_garbage WHERE handler ~ %s", f"^m_tells.*_{t.n}$")[0][0]

    # all at once
    t.sql("mallory", "SELECT count(gt_release_many(gt_lease_create_many(ARRAY(SELECT 'n' || j FROM generate_series(1, 60) j), name, cleanup => name)))"
                     " FROM unnest(%s) AS name", names)
    begun = left()
    t.until("nothing is announced", lambda: left() < begun)
    before = left()
    t.garbage(told, role="victim")
    t.ran(told, count=2)
    if before - left() > begun / 2:
        t.fault(f"{before - left()} of mallory's {begun} were announced before one of the victim's")
    yield


@attack
def handlers_that_come_and_go(t):
    """thousands of handlers made, used and dropped take nobody's place where rates are kept"""
    for i in range(0, 2100, 100):
        t.sql("mallory", f"DO $$ BEGIN FOR i IN {i + 1}..{i + 100} LOOP PERFORM gt_handler_create('m_brief_' || i, 'queue', rate_limit => 1);"
                         " PERFORM * FROM gt_claim(ARRAY['m_brief_' || i]); PERFORM gt_handler_drop('m_brief_' || i); END LOOP; END $$")
    name = t.handler(f"v_rate_{t.n}", "queue", None, role="victim", rate_limit=1)
    t.garbage(name, 20, role="victim")
    began = time.monotonic()
    claimed = len(t.sql("victim", "SELECT 1 FROM gt_claim(ARRAY[%s], 100, '1 second')", name))
    allowed = 2 + int(time.monotonic() - began)
    if claimed > allowed:
        t.fault(f"{claimed} claims at once of a handler with rate_limit 1")
    yield


@attack
def heaps_of_garbage(t):
    """ten thousand objects of a role are due at once"""
    name = t.handler(t.name("heap"), "sql", "SELECT pg_sleep(0.001)")
    t.garbage(name, 10000)
    yield


@attack
def heaps_of_children(t):
    """a parent with thousands of children ends"""
    name = t.handler(t.name("child"), "sql_batch", "SELECT 1 FROM unnest($1)")
    parent = t.value("mallory", "SELECT gt_lease_create(%s, %s)", name, name)
    t.sql("mallory", "SELECT count(*) FROM unnest(gt_lease_create_many(ARRAY(SELECT %s || i FROM generate_series(1, 20000) i), %s,"
                     " parent => %s, cleanup => %s)) AS l", name, name, parent, name)
    t.sql("mallory", "SELECT gt_release(%s)", parent)
    yield


@attack
def heaps_of_handlers(t):
    """hundreds of handlers that a role made and never uses"""
    count = 100
    t.sql("mallory", "SELECT count(gt_handler_create(%s || i, 'queue')) FROM generate_series(1, %s) i", t.name("idle"), count)
    yield
    t.sql("mallory", "SELECT count(gt_handler_drop(%s || i)) FROM generate_series(1, %s) i", t.name("idle"), count)


@attack(alone=True)
def claims_of_many_handlers(t):
    """an open transaction that has claims of as many handlers as there are places for rates takes nobody's, in no database"""
    there = watched(t)
    count = 2100
    t.sql("mallory", "SELECT count(gt_handler_create('m_' || i, 'queue', concurrency => 1)),"
                     " count(gt_lease_create('o' || i, 'm_pinned', duration => '100 ms', cleanup => 'm_' || i)) FROM generate_series(1, %s) i",
          count, **there)
    t.until("there is no garbage of all", lambda: t.admin("SELECT count(*) FROM gt_garbage WHERE object_type = 'm_pinned'", **there) == [(count,)])
    link = t.holding("mallory", "SELECT count(*) FROM gt_claim(NULL, 10000, '1 minute')", **there)
    names = [t.handler(f"v_limit{i}_{t.n}", "queue", None, role="victim", rate_limit=1) for i in range(12)]
    for name in names:
        t.garbage(name, 5, role="victim")
    began = time.monotonic()
    claimed = [len(t.sql("victim", "SELECT 1 FROM gt_claim(ARRAY[%s], 100, '1 minute')", name)) for name in names + names]
    allowed = len(names) * (1 + int(time.monotonic() - began))
    if sum(claimed) > allowed or 0 in claimed[:len(names)]:
        t.fault(f"claims {claimed} of handlers with rate_limit 1")
    quick = t.handler(f"v_slowly_{t.n}", "sql", "SELECT $1", role="victim", rate_limit=5)
    t.garbage(quick, role="victim")
    t.ran(quick)
    yield
    link.close()


@attack
def services_that_come_and_go(t):
    """renewals under thousands of names push nobody else's out of what monitors see"""
    service = f"v_once_{t.n}"

    def seen():
        return t.admin("SELECT 1 FROM gt_metrics() WHERE name = 'garbagetruck_renewal_margin_ratio' AND labels->>'service_id' = %s", service)

    t.sql("victim", "SELECT gt_renew(gt_lease_create(%s, 'v_service', service_id => %s, duration => '1 s'))", f"{town.HIDDEN}{service}", service)
    t.until("the victim's margin is not seen", seen)
    t.sql("mallory", "SELECT gt_renew(gt_lease_create('s' || i, %s, service_id => 's ' || i, duration => '1 s')) FROM generate_series(1, 1500) i",
          t.name("service"))
    t.same(seen(), [(1,)], "the victim's renewal margin")
    yield


@attack
def types_by_the_thousand(t):
    """a role with leases of thousands of object types does not lengthen what others do with one object of theirs"""
    kind, mine = t.name("kind"), f"{town.HIDDEN}typed-{t.n}"
    t.sql("mallory", "SELECT count(gt_lease_create('x', %s || i, duration => '1 minute')) FROM generate_series(1, 2000) i", kind)
    lease = t.value("victim", "SELECT gt_lease_create(%s, 'v_typed', duration => '1 minute')", mine)
    link = t.holding("victim")
    for call in ("gt_lease_list(object_id => '%s')", "gt_lease_list(object_id => '%s', object_type => 'v_typed')",
                 "gt_lease_create('%s', 'v_typed')", "gt_fence_check('%s', 'v_typed', 1)"):
        looks = "SELECT sum(coalesce(idx_scan, 0) + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_all_tables WHERE schemaname = '_garbagetruck'"
        before = t.execute("victim", link, looks, ())[0][0] or 0
        t.same(len(t.execute("victim", link, f"SELECT * FROM {call % mine}", ())), 1, call)
        after = t.execute("victim", link, looks, ())[0][0] or 0
        if after - before > 200:
            t.fault(f"{after - before} looks at indexes for {call}")
    yield
    link.close()
    t.sql("victim", "SELECT gt_release(%s)", lease)
    t.sql("mallory", "SELECT gt_release_many(ARRAY(SELECT lease_id FROM gt_leases WHERE starts_with(object_type, %s)))", kind)


@attack
def plans_of_many_handlers(t):
    """the plans of a role's long commands do not fill its workers' memory"""
    t.refused("mallory", "22023", "SELECT gt_handler_create(%s, 'sql', 'SELECT 1 /*' || repeat('x', 400000) || '*/')", t.name("long"))
    command = "SELECT " + " + ".join(f"(length($1)::bigint + {i})" for i in range(2200))
    names = [t.handler(t.name(f"plan{i}"), "sql", command) for i in range(40)]
    most = 0

    def own_memory():
        """Of the largest worker; what it shares is not its own."""
        sizes = [0]
        for pid, in t.admin("SELECT pid FROM gt_workers WHERE role = 'worker'"):
            try:
                with open(f"/proc/{pid}/status", encoding="utf-8") as f:
                    sizes += [int(line.split()[1]) * 1024 for line in f if line.startswith("RssAnon")]
            except OSError:
                pass
        return max(sizes)

    for name in names:
        t.garbage(name)
        t.ran(name)
        most = max(most, own_memory())
    if most > 100 * MB:
        t.fault(f"a worker has {most // MB} MB of its own")
    yield


@attack
def lines_in_the_log(t):
    """handlers of one role that fail in turn do not fill the server's log"""
    names = [t.handler(t.name(f"noise{i}"), "sql", "SELECT 1/(length($1) - length($1))", retry_delay="0", max_attempts=50) for i in range(33)]
    with open(t.server.log, "rb") as log:
        log.seek(0, 2)
        began = time.monotonic()
        for name in names:
            t.garbage(name, 20)
        for name in names:
            t.ran(name, "failures", 40)
        yield
        lines = sum(b'handler "m_noise' in line for line in log)
    failures = sum(t.seen_by(name, "failures") for name in names)
    if lines > 100 + 20 * (time.monotonic() - began):
        t.fault(f"{lines} lines in the log of {failures} failures in {time.monotonic() - began:.0f} s")


@attack(alone=True)
def first_look_at_many_handlers(t):
    """what a server run does once, before all else, does not grow with the square of the handlers that a role has made"""
    there = dict(database="defaults")
    t.admin("CREATE DATABASE defaults")
    t.afterwards("postgres", "DROP DATABASE defaults WITH (FORCE)")
    t.admin("CREATE EXTENSION garbagetruck; SELECT gt_allow(r), gt_allow(r, 'handler') FROM unnest('{victim,mallory}'::name[]) r", **there)

    def read():
        return t.admin("SELECT pg_stat_clear_snapshot(), coalesce(sum(idx_tup_read), 0) FROM pg_stat_all_indexes WHERE relname = 'gt__handler'", **there)[0][1]

    # to make them is to look at those that there are; its end tells of that
    t.session("mallory", "SELECT count(gt_handler_create('m_' || i, 'queue')) FROM generate_series(1, 1000) i", **there).close()
    t.until("nothing is known of that", lambda: read() > 400 * 1000)
    before = read()
    t.sql("victim", "SELECT gt_handler_create('v_first', 'sql', 'SELECT 1')", **there)
    t.sql("victim", "SELECT gt_release(gt_lease_create('1', 'v_first', cleanup => 'v_first'))", **there)
    t.until("it is not cleaned", lambda: not t.sql("victim", "SELECT 1 FROM gt_garbage", **there))
    yield
    if read() > before + 500 * 1000:
        t.fault(f"{read() - before} handlers were read")


@attack
def hot_loops(t):
    """no delay and no end of attempts: there is a floor, and a ceiling"""
    t.refused("mallory", "22023", "SELECT gt_handler_create(%s, 'sql', 'SELECT 1/0', max_attempts => 2147483647)", t.name("hot"))
    t.refused("mallory", "22023", "SELECT gt_lease_create('x', max_attempts => 2147483647)")
    name = t.handler(t.name("hot"), "sql", "SELECT 1/(length($1) - length($1))", retry_delay="0", max_attempts=1000)
    t.sql("mallory", f"CREATE FUNCTION m.again_{t.n}() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'again' USING ERRCODE = '40001'; END $$")
    again = t.handler(t.name("again"), "sql", f"SELECT m.again_{t.n}()", retry_delay="0")
    began = time.monotonic()
    t.garbage(name, 3)
    t.garbage(again, 3)
    t.ran(name, "failures", 3)
    yield
    failures = t.seen_by(name, "failures")
    most = 3 * (2 + (time.monotonic() - began) / 0.1)
    if failures > most:
        t.fault(f"{failures} failures of 3 objects in {time.monotonic() - began:.1f} s")


@attack
def ways_to_hang(t):
    """handlers that catch their cancellation, burn the processor, fill the memory a little, or end their worker"""
    for n, body in enumerate(("LOOP NULL; END LOOP", "PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(10)",
                              "PERFORM pg_cancel_backend(pg_backend_pid()); PERFORM pg_sleep(10)",
                              "SET LOCAL statement_timeout = 0; PERFORM pg_sleep(3600)",
                              "PERFORM repeat('x', 50000000)", "PERFORM pg_advisory_xact_lock(1); PERFORM pg_sleep(3600)",
                              "RAISE WARNING '%', repeat('x', 100000)")):
        function = f"m.hang_{t.n}_{n}"
        t.sql("mallory", f"CREATE FUNCTION {function}() RETURNS void LANGUAGE plpgsql AS $$ BEGIN {body}; END $$")
        t.garbage(t.handler(t.name(f"hang{n}"), "sql", f"SELECT {function}()", timeout="2 s", max_attempts=2, retry_delay="100 ms"), 2)
    yield
    yield


@attack
def claims_for_ever(t):
    """a consumer claims its own garbage for as long as it may, and never acknowledges"""
    name = t.handler(t.name("claimed"), "queue", None)
    t.garbage(name, 200)
    rows = t.sql("mallory", "SELECT cleanup_id, attempt FROM gt_claim(ARRAY[%s], 200, '1 hour')", name)
    for cleanup_id, attempt in rows[:20]:
        t.sql("mallory", "SELECT gt_extend(%s, %s, '1 hour'), gt_nack(%s, %s, NULL, '0')", cleanup_id, attempt, cleanup_id, attempt)
    yield
    t.sql("mallory", "SELECT gt_ack_many(%s, %s)", [r[0] for r in rows], [r[1] for r in rows])


# --- settings of the database and of roles

@attack(alone=True)
def settings_of_the_database(t):
    """the database's owner sets defaults that would stop the workers"""
    for role, sql in (("postgres", "SELECT pg_terminate_backend(pid) FROM gt_workers WHERE role = 'worker'"),
                      ("mallory", "ALTER ROLE mallory RESET ALL"), ("dbo", "ALTER DATABASE shop RESET ALL")):
        t.afterwards(role, sql)
    t.sql("mallory", "ALTER ROLE mallory SET default_transaction_read_only = on")
    t.admin("SELECT 1")         # a connection from before
    settings = (("default_transaction_read_only", "on"), ("default_transaction_isolation", "serializable"), ("statement_timeout", "1"),
                ("lock_timeout", "1"), ("idle_in_transaction_session_timeout", "1"), ("search_path", "spy_dbo"), ("role", "dbo"),
                ("row_security", "off"), ("synchronous_commit", "off"), ("default_transaction_deferrable", "on"), ("datestyle", "SQL, DMY"),
                ("timezone", "Asia/Kathmandu"), ("client_min_messages", "error"), ("transform_null_equals", "on"),
                ("check_function_bodies", "off"), ("work_mem", "64"), ("enable_indexscan", "off"), ("intervalstyle", "sql_standard"))
    for name, value in settings:
        t.sql("dbo", f"ALTER DATABASE shop SET {name} = '{value}'")
    t.admin("SELECT pg_terminate_backend(pid) FROM gt_workers WHERE role = 'worker'")
    yield
