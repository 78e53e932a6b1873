"""Attacks on other people's data: to read it, or to tell what there is. What trespassers are told is searched by town.py."""
import json

import town
from rights import attack


def failed_and_dead(t):
    """Garbage of the victim's whose error texts are secret, too."""
    name = t.handler(f"v_fails_{t.n}", "sql", f"SELECT ('{town.SECRET} ' || $1)::int", role="victim", max_attempts=1)
    t.sql("victim", "SELECT gt_release(gt_lease_create(%s, 'v_fails', cleanup => %s, payload => %s, metadata => %s))",
          f"{town.HIDDEN}dead-{t.n}", name, f'{{"pw": "{town.SECRET}"}}', f'{{"label": "{town.SECRET}"}}')
    t.until("nothing died", lambda: t.admin("SELECT 1 FROM gt_dead WHERE handler = %s", name))
    return name


@attack
def views_of_nobody(t):
    """who was given nothing reads no view and calls no function; the others read what is their own"""
    failed_and_dead(t)
    for view in t.views():
        t.refused("nobody", "42501", f"SELECT * FROM {view}")
        t.refused("dbo", "42501", f"SELECT * FROM {view}")
        if view != "gt_workers":        # which is for monitors
            t.sql("bob", f"SELECT * FROM {view}")
            t.sql("mallory", f"SELECT * FROM {view}")
    t.refused("nobody", "42501", "EXPLAIN ANALYZE SELECT * FROM gt_leases WHERE object_id >= %s", town.HIDDEN)
    for role in town.TRESPASSERS:
        for sql in ("SELECT * FROM gt_metrics()", "SELECT * FROM gt_workers", "SELECT * FROM gt_check()"):
            t.refused(role, "42501", sql)
        if role in ("bob", "mallory"):
            t.same(t.sql(role, "SELECT object_type FROM gt_forecast() WHERE object_type LIKE 'v%'"), [], "the forecast")
        else:
            t.refused(role, "42501", "SELECT * FROM gt_forecast()")
    yield
    for role in town.TRESPASSERS:
        t.sql(role, "SELECT * FROM gt_health()")
        t.sql(role, "SELECT query FROM pg_stat_activity")
        t.sql(role, "SELECT obj_description(oid), * FROM pg_class WHERE relname LIKE 'gt%'")


@attack(alone=True)
def monitors_see_no_contents(t):
    """a monitor sees names and numbers of all, but no commands, payloads, metadata and error texts"""
    name = failed_and_dead(t)
    t.admin("SELECT gt_allow('nobody', 'monitor')")
    try:
        for view in t.views() + ["gt_metrics()", "gt_forecast()", "gt_health()"]:
            for row in read(t, f"SELECT * FROM {view}"):
                if town.SECRET in repr(row):
                    t.fault(f"a monitor reads {row!r} in {view}")
        t.same(read(t, "SELECT handler FROM gt_dead WHERE handler = '%s'" % name), [(name,)], "the monitor sees the dead")
    finally:
        t.admin("SELECT gt_disallow('nobody', 'monitor')")
    yield


def read(t, sql):
    """As nobody, who is a monitor now and may see the names of objects."""
    with t.link("nobody").cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


@attack
def leaky_functions(t):
    """a cheap function in the WHERE clause sees no more than the view shows"""
    failed_and_dead(t)
    t.sql("mallory", f"CREATE FUNCTION m.leak_{t.n}(text) RETURNS boolean COST 0.000001 LANGUAGE plpgsql AS"
                     " $$ BEGIN RAISE NOTICE '%', $1; RETURN true; END $$")
    for view, columns in (("gt_leases", "object_id service_id payload metadata"), ("gt_garbage", "object_id error payload"),
                          ("gt_dead", "object_id error payload"), ("gt_handlers", "name command last_error"),
                          ("gt_history", "object_id error"), ("gt_lease_list(max_rows => 1000)", "object_id payload")):
        for column in columns.split():
            t.sql("mallory", f"SELECT count(*) FROM {view} WHERE m.leak_{t.n}({column}::text)")
    yield
    t.sql("mallory", f"DROP FUNCTION m.leak_{t.n}")


@attack
def counting_of_cleanup_ids(t):
    """cleanup ids of others tell nothing: neither that they are, nor whose"""
    name = t.handler(f"v_secret_project_{t.n}", "queue", None, role="victim")
    t.sql("victim", "SELECT gt_release(gt_lease_create(%s, 'v_secret', cleanup => %s))", f"{town.HIDDEN}q{t.n}", name)
    one = t.admin("SELECT cleanup_id FROM gt_garbage WHERE handler = %s", name)[0][0]
    for role in ("mallory", "bob"):
        for i in (one, one + 100000):
            for sql in ("SELECT gt_ack(%s, 1)", "SELECT gt_nack(%s, 1, 'x')", "SELECT gt_extend(%s, 1, '1 minute')",
                        "SELECT gt_nack(%s, 1, 'x', final => true)"):
                t.same(t.sql(role, sql, i), [(False,)], f"{role}: {sql}")
            t.same(t.sql(role, "SELECT gt_ack_many(ARRAY[%s::bigint], '{1}'), gt_redrive(ARRAY[%s::bigint])", i, i), [(0, 0)], "ack_many, redrive")
            t.same(t.sql(role, "SELECT * FROM gt_claim(cleanup_ids => ARRAY[%s::bigint])", i), [], "gt_claim(cleanup_ids)")
    yield
    t.same(t.admin("SELECT state, attempts FROM gt_garbage WHERE handler = %s", name), [("waiting", 0)], "the victim's garbage")


@attack
def refusals_tell_no_secrets(t):
    """error texts about the victim's objects name what the caller named, and nothing else"""
    victims = f"{town.HIDDEN}locked-{t.n}"
    lease = t.value("victim", "SELECT gt_lease_create(%s, 'v_lock', service_id => %s, duration => '1 minute', exclusive => true)",
                    victims, f"{town.SECRET} service")
    for role in ("mallory", "bob"):
        t.refused(role, "42501", "SELECT gt_lease_create(%s, 'v_lock', exclusive => true)", victims)
        t.same([r[0] for r in t.sql(role, "SELECT sqlstate, message, holder, retry_after FROM gt_lease_grant_each(jsonb_build_array("
                                          "jsonb_build_object('object_id', %s::text, 'object_type', 'v_lock')))", victims)], ["42501"], "grant_each")
        t.refused(role, "42501", "SELECT gt_renew(%s)", lease)
        t.refused(role, "42501", "SELECT gt_release(%s, service_id => 'wrong')", lease)
        t.refused(role, "42501 22023", "SELECT gt_lease_create('c', parent => %s)", lease)
        t.same(t.sql(role, "SELECT gt_fence_check(%s, 'v_lock', 1)", victims)[0][0] in (False,), True, "gt_fence_check") \
            if role == "nobody" else fence_check(t, role, victims)
    yield
    t.sql("victim", "SELECT gt_release(%s)", lease)


def fence_check(t, role, name):
    """Refused or false: in no case true."""
    fence = t.admin("SELECT fence FROM gt_leases WHERE object_id = %s", name)[0][0]
    try:
        t.same(t.sql(role, "SELECT gt_fence_check(%s, 'v_lock', %s)", name, fence), [(False,)], "gt_fence_check on the victim's object")
    except town.psycopg2.Error as e:
        t.same(e.pgcode, "42501", "gt_fence_check on the victim's object")


@attack
def names_with_control_characters(t):
    """names that a terminal or a log would take for something else are refused everywhere"""
    for bad in ("a\u009b31mb", "a\nb", "a\x1b[2Jb", "a\u0085b", "a\x7fb"):
        for sql in ("SELECT gt_lease_create(%s)", "SELECT gt_lease_create('x', %s)", "SELECT gt_lease_create('x', service_id => %s)",
                    "SELECT gt_lease_create('x', request_key => %s)", "SELECT gt_handler_create(%s, 'queue')",
                    "SELECT gt_handler_create('m_x', 'notify', %s)", "SELECT gt_share('victim', %s)"):
            t.refused("mallory", "22023", sql, bad)
    yield


@attack
def long_names_in_other_encodings(t):
    """a handler's long name of two-byte characters is cut between them where monitors read it"""
    name = ("é" * 100) + str(t.n)
    t.handler(name, "sql", "SELECT pg_sleep(3600)", timeout="1 hour")
    t.garbage(name)
    t.until("it does not run", lambda: t.admin("SELECT 1 FROM gt_workers WHERE handler LIKE 'éé%'"))
    latin = t.session("postgres")
    latin.set_client_encoding("LATIN1")
    t.execute("postgres", latin, "SELECT query FROM pg_stat_activity", ())
    t.execute("postgres", latin, "SELECT length(handler), handler, name FROM gt_workers, gt_handlers", ())
    yield
    t.admin("SELECT pg_terminate_backend(pid) FROM gt_workers WHERE handler LIKE 'éé%'")


@attack
def notifications_overheard(t):
    """who listens on the channel of a handler hears of its garbage, as README says, and can do nothing with the token"""
    channel = f"v_channel_{t.n}"
    name = t.handler(f"v_notify_{t.n}", "notify", channel, role="victim")
    large = t.handler(f"v_large_{t.n}", "notify", channel, role="victim")
    link = t.session("bob", f"LISTEN {channel}")
    t.garbage(name, role="victim", payload='{"n": 1}')
    t.garbage(large, role="victim", payload=json.dumps({"pw": town.SECRET, "more": "x" * 8000}))

    def heard():
        link.poll()
        return [json.loads(n.payload) for n in link.notifies] if len(link.notifies) >= 2 else None

    t.until("nothing is announced", heard)
    for said in heard():
        t.same("payload" in said, said["handler"] == name, "a payload in the announcement")
        t.same(said.get("truncated", False), said["handler"] == large, "truncated")
        for sql in ("SELECT gt_ack(%s, %s)", "SELECT gt_nack(%s, %s, 'x')", "SELECT gt_extend(%s, %s, '1 day')"):
            t.same(t.sql("bob", sql, said["cleanup_id"], said["attempt"]), [(False,)], sql)
        t.same(t.sql("bob", "SELECT * FROM gt_claim(cleanup_ids => ARRAY[%s::bigint])", said["cleanup_id"]), [], "gt_claim")
        t.same(t.sql("bob", "SELECT * FROM gt_lease_get(%s)", said["lease_id"]), [], "gt_lease_get")
    yield


@attack
def namesake_of_a_role_that_is_gone(t):
    """a role of the name of one that was dropped is told that, gets nothing of that one's, and no hint that sends it in circles"""
    role = f"newbie_{t.n}"
    handler, kind = t.name("left"), t.name("left_type")
    make = f"CREATE ROLE {role} LOGIN; SELECT gt_allow('{role}'), gt_allow('{role}', 'handler')"
    drop = f"DROP OWNED BY {role}; DROP ROLE {role}"
    t.admin(make)
    t.sql(role, "SELECT gt_handler_create(%s, 'queue')", handler)
    lease = t.value(role, "SELECT gt_lease_create('left', %s, cleanup => %s, payload => '{\"a\": 1}')", kind, handler)
    t.sql(role, "SELECT gt_release(gt_lease_create('left too', %s, cleanup => %s))", kind, handler)
    one = t.admin("SELECT cleanup_id FROM gt_garbage WHERE handler = %s", handler)[0][0]
    t.links.pop((role, "shop")).close()
    t.insist("postgres", drop)      # which fails where others are given rights at the same time
    t.admin(make)
    t.afterwards("postgres", drop)
    for sql in (f"SELECT gt_handler_create('{handler}', 'queue')", f"SELECT gt_handler_drop('{handler}')", f"SELECT gt_pause('{handler}')",
                f"SELECT gt_handler_grant('{handler}', '{role}')", f"SELECT * FROM gt_claim('{{{handler}}}')",
                f"SELECT gt_lease_create('x', cleanup => '{handler}')", f"SELECT gt_lease_create('left', '{kind}')", f"SELECT gt_renew('{lease}')"):
        t.refused(role, "42501", sql)
        told = refusal(t, role, sql)
        if f"role \"{role}\"" in told and "is gone" not in told or f"gt_handler_grant('{handler}', '{role}'" in told:
            t.fault(f"{role} is told {told!r} by {sql}")
    t.same(t.sql(role, "SELECT gt_ack(%s, 1)", one), [(False,)], "gt_ack")
    for sql in ("SELECT * FROM gt_lease_list()", "SELECT * FROM gt_leases", "SELECT * FROM gt_garbage", "SELECT * FROM gt_handlers WHERE kind = 'queue'",
                "SELECT * FROM gt_history"):
        t.same(t.sql(role, sql), [], sql)
    yield
    t.links.pop((role, "shop")).close()
    t.admin("SELECT gt_release(%s)", lease)
    t.handlers.append(("postgres", handler))


def refusal(t, role, sql):
    """All that the error says."""
    try:
        t.sql(role, sql)
    except town.psycopg2.Error as e:
        return str(e)
    return ""


@attack
def types_that_go(t):
    """types that a handler's parameters had are altered and dropped, and types that are none are refused: no internal error"""
    t.refused("mallory", "42P18 22023", "SELECT gt_handler_create(%s, 'sql', 'SELECT $1::unknown')", t.name("unknown"))
    kind, table = f"m.mood_{t.n}", f"m.moods_{t.n}"
    t.sql("mallory", f"CREATE TYPE {kind} AS ENUM ('a'); CREATE TABLE {table} (x {kind})")
    t.afterwards("mallory", f"DROP TABLE {table}")
    name = t.handler(t.name("typed"), "sql", f"DELETE FROM {table} WHERE x = $1", max_attempts=3)
    t.sql("mallory", "SELECT gt_release(gt_lease_create('a', %s, cleanup => %s))", name, name)
    t.ran(name)
    t.sql("mallory", f"ALTER TABLE {table} ALTER x TYPE text; DROP TYPE {kind}")
    t.sql("mallory", "SELECT gt_release(gt_lease_create('a', %s, cleanup => %s))", name, name)
    t.ran(name, count=2)
    yield
    t.same(t.sql("mallory", "SELECT error FROM gt_history WHERE handler = %s", name), [], "errors of runs after the types were changed")
