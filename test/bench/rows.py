"""Rows with a deadline: what it costs to have them deleted, and to tell of them, against the same by hand."""
import os
import time

from cluster import value, wait_until
from fair import endings_beside_commits, tell_lags

# What is written by hand: the oldest by thousands, passing over what others work on, a commit after each.
BY_HAND = """
CREATE PROCEDURE drain_by_hand() LANGUAGE plpgsql AS $$
DECLARE n bigint;
BEGIN
    LOOP
        DELETE FROM byhand WHERE ctid = ANY (ARRAY(SELECT ctid FROM byhand WHERE expires_at <= clock_timestamp()
            ORDER BY expires_at LIMIT 1000 FOR UPDATE SKIP LOCKED));
        GET DIAGNOSTICS n = ROW_COUNT;
        COMMIT;
        EXIT WHEN n = 0;
    END LOOP;
END $$;
"""


def table(b, name):
    b.sql(f"CREATE TABLE {name} (id bigint PRIMARY KEY, expires_at timestamptz, note text); CREATE INDEX ON {name} (expires_at)")


def fill(b, name, count, expires="now() - interval '1 minute' + g * interval '1 ms'"):
    b.sql(f"INSERT INTO {name} SELECT g, {expires}, repeat('x', 50) FROM generate_series(1, %s) AS g", (count,))
    b.sql(f"VACUUM ANALYZE {name}")
    b.sql("CHECKPOINT")


# As gt_ttls has it, which also looks at the table: that is not to be beside the drain fifty times a second.
REMOVED = "SELECT coalesce(sum(runs), 0) FROM _garbagetruck.gt__tally"


def drain_ours(b, count):
    b.set(garbagetruck__max_workers="0")
    fill(b, "ours", count, "now() - interval '1 hour' + g * interval '1 ms'")
    before = b.sql(REMOVED)[0][0]
    begin = time.monotonic()
    b.sql("ALTER SYSTEM RESET garbagetruck.max_workers")
    b.sql("SELECT pg_reload_conf()")
    if not wait_until(lambda: b.sql(REMOVED)[0][0] >= before + count, 600, 0.02):
        raise TimeoutError("rows are still there after 10 minutes")
    took = time.monotonic() - begin
    assert not b.sql("SELECT 1 FROM ours LIMIT 1")
    b.sql("VACUUM")
    return count / took


def drain_by_hand(b, count):
    fill(b, "byhand", count, "now() - interval '1 hour' + g * interval '1 ms'")
    begin = time.monotonic()
    b.sql("CALL drain_by_hand()")
    took = time.monotonic() - begin
    assert not b.sql("SELECT 1 FROM byhand LIMIT 1")
    b.sql("VACUUM")
    return count / took


def drain(b):
    """A drain of 200,000 rows against a loop of DELETE .. SKIP LOCKED by thousands."""
    table(b, "ours")
    table(b, "byhand")
    b.sql(BY_HAND)
    b.sql("SELECT gt_ttl_create('ours', 'expires_at')")
    count = b.size(200000)
    ours, hand = b.alternate(lambda: drain_ours(b, count), lambda: drain_by_hand(b, count))
    b.ratio(f"drain of {count} rows", ours, hand, 0.9, "rows/s")


def copied(b, name, path, count):
    b.sql(f"TRUNCATE {name}")
    b.sql("CHECKPOINT")
    begin = time.monotonic()
    b.sql(f"COPY {name} FROM '{path}'")
    return count / (time.monotonic() - begin)


def write(b):
    """Single-row INSERT, COPY, and an UPDATE of another column, with the trigger against without."""
    table(b, "ours")
    table(b, "byhand")
    b.sql("CREATE SEQUENCE ids; SELECT gt_ttl_create('ours', 'expires_at')")
    count = b.size(500000)
    path = os.path.join(b.server.home, "rows.copy")
    b.sql(f"COPY (SELECT g, now() + interval '1 day' + g * interval '1 ms', repeat('x', 50) FROM generate_series(1, {count}) AS g) TO '{path}'")
    ours, hand = b.alternate(lambda: copied(b, "ours", path, count), lambda: copied(b, "byhand", path, count))
    b.ratio(f"COPY of {count} rows", ours, hand, 0.8, "rows/s")
    b.sql(f"SELECT setval('ids', {count})")

    def script(kind, name, text):
        return b.script(f"{kind}_{name}", text % {"name": name, "count": count})
    insert = "INSERT INTO %(name)s VALUES (nextval('ids'), clock_timestamp() + interval '1 day', 'x');\n"
    update = "\\set n random(1, %(count)s)\nUPDATE %(name)s SET note = 'y' WHERE id = :n;\n"
    for kind, text, bar in (("insert", insert, 0.9), ("update", update, 0.95)):
        files = [script(kind, name, text) for name in ("ours", "byhand")]
        for clients in b.options.clients[:1]:
            ours, hand = b.alternate(lambda f=files[0], c=clients: b.pgbench(f, c), lambda f=files[1], c=clients: b.pgbench(f, c))
            b.ratio(f"single-row {kind}, {clients} clients", ours, hand, bar, "tps")


def lag(b):
    """Lag from deadline to deletion at 100 a second among 1,000,000 rows."""
    table(b, "ours")
    b.sql("CREATE TABLE done (deadline timestamptz, at timestamptz);"
          "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
          " INSERT INTO public.done VALUES (OLD.expires_at, public.gt_clock()); RETURN NULL; END $$;"
          "CREATE TRIGGER note AFTER DELETE ON ours FOR EACH ROW EXECUTE FUNCTION note();"
          "CREATE TABLE plain (n serial PRIMARY KEY, at timestamptz DEFAULT clock_timestamp());"
          "CREATE SEQUENCE ids START 10000000; SELECT gt_ttl_create('ours', 'expires_at')")
    fill(b, "ours", b.size(1000000), "now() + interval '7 days' + g * interval '1 ms'")
    ending = b.script("row", "INSERT INTO ours VALUES (nextval('ids'), clock_timestamp() + interval '1 second', 'x');\n")
    took, commits = endings_beside_commits(b, ending)
    made = value(b.link, "SELECT last_value - 9999999 FROM ids")
    if not wait_until(lambda: b.sql("SELECT count(*) FROM done")[0][0] >= made, 60):
        raise TimeoutError("not all rows that are over are gone within a minute")
    lags = [row[0] * 1000 for row in b.sql("SELECT extract(epoch FROM at - deadline)::float FROM done")]
    tell_lags(b, "of rows ", "rows deleted", lags, took, commits)


def culprits(b):
    """A hundred rows that cannot be deleted among 20,000: how long the others wait."""
    table(b, "ours")
    b.sql("CREATE TABLE refers (id bigint REFERENCES ours); SELECT gt_ttl_create('ours', 'expires_at')")

    def drained(culprit):
        b.set(garbagetruck__max_workers="0")
        count = b.size(20000)
        fill(b, "ours", count)
        if culprit:
            b.sql("INSERT INTO refers SELECT id FROM ours WHERE id %% (%s / 100) = 0", (count,))
        begin = time.monotonic()
        b.sql("ALTER SYSTEM RESET garbagetruck.max_workers")
        b.sql("SELECT pg_reload_conf()")
        left = b.sql("SELECT count(*) FROM refers")[0][0]
        if not wait_until(lambda: b.sql("SELECT count(*) FROM ours")[0][0] <= left, 120, 0.02):
            raise TimeoutError("rows are still there after two minutes")
        took = time.monotonic() - begin
        b.sql("TRUNCATE refers, ours")
        b.sql("SELECT gt_ack(cleanup_id, attempts) FROM gt_garbage")
        return took

    got, without = b.alternate(lambda: drained(True), lambda: drained(False))
    b.result("delay by a hundred culprits in s", got - without, 1, got - without <= 1, f"{got:.2f} against {without:.2f} s", "<=")
