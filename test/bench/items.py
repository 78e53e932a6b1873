"""The items of the bench: what is measured, and the home-made equivalent that it is measured against."""
import itertools
import statistics
import time

import fair
import peers
import rows
from cluster import query, wait_until
from fair import endings_beside_commits, tell_lags

LIKE = """
CREATE SCHEMA base;
CREATE TABLE base.object (LIKE _garbagetruck.gt_object INCLUDING ALL);
CREATE TABLE base.lease (LIKE _garbagetruck.gt_lease INCLUDING ALL);
CREATE SEQUENCE base.id;
DO $$
DECLARE o text; t text;
BEGIN
    FOR t, o IN SELECT substr(relname, 4), array_to_string(reloptions, ', ') FROM pg_class
        WHERE relname IN ('gt_object', 'gt_lease') AND relnamespace = '_garbagetruck'::regnamespace AND reloptions IS NOT NULL
    LOOP
        EXECUTE format('ALTER TABLE base.%I SET (%s)', t, o);
    END LOOP;
END $$;
"""

# What gt_lease_create writes, by a plain function. Its ids are in order, as UUIDv7 are, and cheaper to make.
PLAIN = """
CREATE FUNCTION base.lease_create(id text, duration interval) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    f bigint;
    l uuid := lpad(to_hex(nextval('base.id')), 32, '0')::uuid;
    t timestamptz := clock_timestamp();
BEGIN
    INSERT INTO base.object AS o (object_type, object_id, owner, leases, fence, state, keep, alone, evicted, attempts,
        extra_attempts, sends)
    VALUES ('bench', id, 10, 1, 1, 'h', false, false, 0, 0, 0, 0)
    ON CONFLICT (object_type, object_id) DO UPDATE SET leases = o.leases + 1, fence = o.fence + 1
    RETURNING fence INTO f;
    INSERT INTO base.lease (id, object_type, object_id, owner, service_id, created_at, renewed_at, deadline, check_at,
        duration, run, renewals, fence, exclusive, attempts)
    VALUES (l, 'bench', id, 10, 's', t, t, t + duration, t + duration, 3600000000, 1, 0, f, false, 0);
    RETURN l;
END $$;
"""

MANY = """
INSERT INTO base.lease (id, object_type, object_id, owner, service_id, created_at, renewed_at, deadline, check_at, duration,
    run, renewals, fence, exclusive, attempts)
SELECT lpad(to_hex(nextval('base.id')), 32, '0')::uuid, 'bench', :n || '-' || g, 10, 's', now(), now(), now() + '1 hour',
    now() + '1 hour', 3600000000, 1, 0, 1, false, 0
FROM generate_series(1, 100) AS g;
"""


def create(b):
    """gt_lease_create against a plpgsql function that writes the same two rows."""
    b.sql(LIKE)
    b.sql(PLAIN)
    ours = b.script("create", "\\set n random(1, 1000000000000)\n"
                              "SELECT gt_lease_create((:n)::text, 'bench', 's', '1 hour');\n")
    theirs = b.script("plain", "\\set n random(1, 1000000000000)\nSELECT base.lease_create((:n)::text, '1 hour');\n")
    for commit in ("on", "off"):
        b.sql(f"ALTER DATABASE bench SET synchronous_commit = {commit}")
        for clients in b.options.clients:
            a, p = b.alternate(lambda c=clients: b.pgbench(ours, c), lambda c=clients: b.pgbench(theirs, c))
            b.ratio(f"create, {clients} clients, synchronous_commit {commit}", a, p, 1.3, "tps")


def renew(b):
    """Durable gt_renew against a plain UPDATE of an indexed deadline; how many of ours are HOT."""
    b.set(garbagetruck__renewals="durable")
    count = b.size(100000)
    b.sql("CREATE TABLE ids (n serial PRIMARY KEY, id uuid)")
    for first in range(0, count, 10000):
        b.sql("INSERT INTO ids (id) SELECT unnest(gt_lease_create_many(array(SELECT (%s + g)::text"
              " FROM generate_series(1, 10000) AS g), 'bench', 's', '1 hour'))", (first,))
    b.sql("CREATE TABLE plain (LIKE _garbagetruck.gt_lease INCLUDING DEFAULTS INCLUDING CONSTRAINTS);"
          "INSERT INTO plain SELECT * FROM _garbagetruck.gt_lease; ALTER TABLE plain ADD PRIMARY KEY (id);"
          "CREATE INDEX ON plain (deadline); CREATE INDEX ON plain (object_type, object_id);"
          "CREATE INDEX ON plain (service_id, id)")
    b.sql("VACUUM ANALYZE")
    ours = b.script("renew", f"\\set n random(1, {count})\nSELECT gt_renew((SELECT id FROM ids WHERE n = :n));\n")
    theirs = b.script("update", f"\\set n random(1, {count})\nUPDATE plain SET deadline = clock_timestamp() + '1 hour',"
                                " renewed_at = clock_timestamp(), renewals = renewals + 1"
                                " WHERE id = (SELECT id FROM ids WHERE n = :n);\n")
    updates = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_all_tables WHERE relid = '_garbagetruck.gt_lease'::regclass"
    before = b.sql(updates)[0]
    for clients in b.options.clients:
        a, p = b.alternate(lambda c=clients: b.pgbench(ours, c), lambda c=clients: b.pgbench(theirs, c))
        b.ratio(f"durable renew, {clients} clients", a, p, 0.95, "tps")
    time.sleep(1)                       # the sessions' counters arrive when these have ended
    after = b.sql(updates)[0]
    done = max(1, after[0] - before[0])
    hot = (after[1] - before[1]) / done
    b.result("HOT share of durable renewals", hot, 0.95, hot >= 0.95, f"{after[1] - before[1]} of {done} updates", ">=")


def renew_buffered(b):
    """gt_renew and gt_renew_many in shared memory against SELECT by primary key of as many rows, and durable gt_renew."""
    count = b.size(200000)
    b.sql("CREATE TABLE batches (n serial PRIMARY KEY, ids uuid[])")
    b.sql("ALTER TABLE batches ALTER ids SET STORAGE EXTERNAL")
    for first in range(0, count, 1000):
        b.sql("INSERT INTO batches (ids) SELECT gt_lease_create_many(array(SELECT (%s + g)::text"
              " FROM generate_series(1, 1000) AS g), 'bench', 's', '1 hour')", (first,))
    b.sql("CREATE TABLE plain AS SELECT * FROM _garbagetruck.gt_lease; ALTER TABLE plain ADD PRIMARY KEY (id)")
    b.sql("VACUUM ANALYZE")
    # of some, each by a script of its own: pgbench has no variables of type uuid
    some = [row[0] for row in b.sql("SELECT id FROM plain ORDER BY md5(id::text) LIMIT 100")]
    ours = [b.script(f"renew{n}", f"SELECT gt_renew('{id}');\n") for n, id in enumerate(some)]
    theirs = [b.script(f"select{n}", f"SELECT deadline FROM plain WHERE id = '{id}';\n") for n, id in enumerate(some)]
    many = b.script("many", f"\\set n random(1, {count // 1000})\n"
                            "SELECT count(*) FROM gt_renew_many((SELECT ids FROM batches WHERE n = :n));\n")

    def of_all(scripts, clients):
        more = [word for script in scripts[1:] for word in ("-f", script)]
        return b.pgbench(scripts[0], clients, *more)

    b.sql("SELECT count(*) FROM batches, gt_renew_many(ids)")       # they are in memory, and the rows as they will stay
    b.sql("CHECKPOINT")
    for clients in b.options.clients:
        written = "SELECT pg_current_wal_insert_lsn() - '0/0', sum(n_tup_upd)::float FROM pg_stat_all_tables WHERE relname = 'gt_lease'"
        before = b.sql(written)[0]
        a, p = b.alternate(lambda c=clients: of_all(ours, c), lambda c=clients: of_all(theirs, c))
        b.ratio(f"buffered renew, {clients} clients", a, p, 0.8, "tps")
        after = b.sql(written)[0]
        b.result("rows that it wrote", after[1] - before[1], 0, after[1] == before[1],
                 f"{after[0] - before[0]:,.0f} bytes of WAL in the whole server meanwhile, the table of the SELECTs included", "<=")
        all_of = b.pgbench(many, clients) * 1000
        b.set(garbagetruck__renewals="durable")
        durable = of_all(ours, clients)
        b.set(garbagetruck__renewals="buffered")
        b.result(f"renew_many of 1000, {clients} clients", all_of / durable, 40, all_of >= 40 * durable,
                 f"{all_of:,.0f} leases/s against {durable:,.0f} durable gt_renew/s", ">=")


def create_many(b):
    """gt_lease_create_many of 100 against a bare INSERT of 100 lease rows."""
    b.sql(LIKE)
    ours = b.script("many", "\\set n random(1, 1000000000000)\nSELECT gt_lease_create_many(array(SELECT :n || '-' || g"
                            " FROM generate_series(1, 100) AS g), 'bench', 's', '1 hour');\n")
    theirs = b.script("insert", "\\set n random(1, 1000000000000)\n" + " ".join(MANY.split()) + "\n")
    for clients in b.options.clients:
        a, p = b.alternate(lambda c=clients: b.pgbench(ours, c), lambda c=clients: b.pgbench(theirs, c))
        b.ratio(f"create_many of 100, {clients} clients", a * 100, p * 100, 1.0, "leases/s")


# --- reclaim

QUEUE = """
CREATE TABLE IF NOT EXISTS app (id bigint PRIMARY KEY, content text);
CREATE TABLE IF NOT EXISTS own (id bigint PRIMARY KEY, content text);
CREATE TABLE IF NOT EXISTS queue (id bigint PRIMARY KEY, deadline timestamptz);
CREATE INDEX IF NOT EXISTS queue_deadline ON queue (deadline);
CREATE OR REPLACE PROCEDURE reap_sets() LANGUAGE plpgsql AS $$
DECLARE n bigint;
BEGIN
    LOOP
        WITH due AS (SELECT id FROM queue WHERE deadline <= clock_timestamp() ORDER BY deadline LIMIT 1000
                FOR UPDATE SKIP LOCKED),
            gone AS (DELETE FROM own USING due WHERE own.id = due.id)
        DELETE FROM queue USING due WHERE queue.id = due.id;
        GET DIAGNOSTICS n = ROW_COUNT;
        COMMIT;
        EXIT WHEN n = 0;
    END LOOP;
END $$;
CREATE OR REPLACE PROCEDURE reap_rows() LANGUAGE plpgsql AS $$
DECLARE n bigint; due bigint;
BEGIN
    LOOP
        n := 0;
        FOR due IN SELECT id FROM queue WHERE deadline <= clock_timestamp() ORDER BY deadline LIMIT 1000
            FOR UPDATE SKIP LOCKED
        LOOP
            n := n + 1;
            BEGIN
                DELETE FROM own WHERE id = due;
                DELETE FROM queue WHERE id = due;
            EXCEPTION WHEN OTHERS THEN
                UPDATE queue SET deadline = clock_timestamp() + interval '1 second' WHERE id = due;
            END;
        END LOOP;
        COMMIT;
        EXIT WHEN n = 0;
    END LOOP;
END $$;
CREATE OR REPLACE PROCEDURE reap_guarded() LANGUAGE plpgsql AS $$
DECLARE chosen bigint[]; gone bigint[]; due bigint;
BEGIN
    LOOP
        chosen := ARRAY(SELECT id FROM queue WHERE deadline <= clock_timestamp() ORDER BY deadline LIMIT 1000
            FOR UPDATE SKIP LOCKED);
        gone := '{}';
        FOREACH due IN ARRAY chosen LOOP
            BEGIN
                DELETE FROM own WHERE id = due;
                gone := gone || due;
            EXCEPTION WHEN OTHERS THEN
                UPDATE queue SET deadline = clock_timestamp() + interval '1 second' WHERE id = due;
            END;
        END LOOP;
        DELETE FROM queue WHERE id = ANY (gone);
        COMMIT;
        EXIT WHEN chosen = '{}';
    END LOOP;
END $$;
"""

HANDLERS = """
SELECT gt_handler_create('batch', 'sql_batch', 'DELETE FROM app WHERE id = ANY ($1::bigint[])');
SELECT gt_handler_create('row', 'sql', 'DELETE FROM app WHERE id = $1');
SELECT gt_handler_create('work', 'queue');
"""


def lease_rows(b, handler, count, duration="1 second", first=0):
    b.sql("INSERT INTO app SELECT g, repeat('x', 100) FROM generate_series(%s + 1, %s + %s) AS g", (first, first, count))
    for start in range(first, first + count, 1000):
        end = min(start + 1000, first + count)
        b.sql("SELECT gt_lease_create_many(array(SELECT g::text FROM generate_series(%s, %s) AS g), 'database_row',"
              " duration => %s, cleanup => %s)", (start + 1, end, duration, handler))


def wal(b):
    return float(b.sql("SELECT pg_current_wal_insert_lsn() - '0/0'")[0][0])


def reclaim_ours(b, handler, count, first=0):
    """Leases a second, from the moment that the workers may start until the last row is gone.

    The handler's own count tells when that is: a look for rows left would scan all those that are dead, again and again,
    on one of the two processors.
    """
    b.set(garbagetruck__max_workers="0")
    lease_rows(b, handler, count, first=first)
    b.sql("VACUUM ANALYZE")
    b.sql("CHECKPOINT")
    time.sleep(1.1)                     # the duration of the last ones
    runs = f"SELECT runs FROM gt_handlers WHERE name = '{handler}'"
    wanted = b.sql(runs)[0][0] + count
    written = wal(b)
    begin = time.monotonic()
    b.sql("ALTER SYSTEM RESET garbagetruck.max_workers")
    b.sql("SELECT pg_reload_conf()")
    if not wait_until(lambda: b.sql(runs)[0][0] >= wanted, 900, 0.02):
        raise TimeoutError(f"{b.sql('SELECT count(*) FROM app')[0][0]} rows are still there after 15 minutes")
    took = time.monotonic() - begin
    b.wal = (wal(b) - written) / count
    assert not b.sql("SELECT 1 FROM app LIMIT 1")
    if not wait_until(lambda: not b.sql("SELECT 1 FROM gt_garbage LIMIT 1"), 60, 0.05):
        raise TimeoutError("garbage is left")
    b.sql("VACUUM")
    return count / took


def reclaim_theirs(b, procedure, count):
    b.sql("INSERT INTO own SELECT g, repeat('x', 100) FROM generate_series(1, %s) AS g", (count,))
    b.sql("INSERT INTO queue SELECT g, clock_timestamp() FROM generate_series(1, %s) AS g", (count,))
    b.sql("VACUUM ANALYZE")
    b.sql("CHECKPOINT")
    written = wal(b)
    begin = time.monotonic()
    b.sql(f"CALL {procedure}()")
    took = time.monotonic() - begin
    b.wal = (wal(b) - written) / count
    assert not b.sql("SELECT 1 FROM own LIMIT 1")
    b.sql("VACUUM")
    return count / took


def reclaim(b):
    """200,000 ended leases through a handler against a home-made reaper of a queue table."""
    b.sql(QUEUE)
    b.sql(HANDLERS)
    count = b.size(200000)
    for handler, kind, procedure, bar in (("batch", "sql_batch", "reap_sets", 1.0), ("row", "sql", "reap_rows", 1.0),
                                          ("row", "sql", "reap_guarded", 0.6)):
        a, p = b.alternate(lambda h=handler: reclaim_ours(b, h, count), lambda q=procedure: reclaim_theirs(b, q, count))
        b.ratio(f"reclaim of {count} through {kind}, against {procedure}", a, p, bar, "leases/s")


def reclaim_wal(b):
    """WAL of 200,000 ended leases through a handler of kind sql_batch, the user's own DELETE included."""
    b.sql(QUEUE)
    b.sql(HANDLERS)
    count = b.size(200000)
    for pages in ("on", "off"):
        b.set(full_page_writes=pages)
        reclaim_ours(b, "batch", count)
        ours = b.wal
        reclaim_theirs(b, "reap_sets", count)
        b.figure(f"WAL for a lease, full_page_writes = {pages}", ours, "bytes", f"reap_sets: {b.wal:,.0f}")
    b.set(full_page_writes="on")


def live_leases(b, count, have=0):
    """Long leases, of which nothing is due."""
    step = 1000
    for start in range(have, count, step):
        b.sql("SELECT count(gt_lease_create_many(array(SELECT 'live' || g FROM generate_series(%s, %s) AS g), 'live',"
              " duration => '7 days'))", (start + 1, min(start + step, count)))
    b.sql("VACUUM ANALYZE")
    b.sql("CHECKPOINT")


def scale(b):
    """Cost of a reclaimed lease with 1,000,000 live leases against 10,000."""
    b.sql(QUEUE)
    b.sql(HANDLERS)
    few, many, count = min(10000, b.size(10000)), b.size(1000000), min(50000, b.size(50000))
    live_leases(b, few)
    small = statistics.median(reclaim_ours(b, "batch", count) for _ in range(b.options.rounds))
    live_leases(b, many, few)
    large = statistics.median(reclaim_ours(b, "batch", count) for _ in range(b.options.rounds))
    b.result(f"cost per lease, {many} live against {few}", small / large, 1.3, small / large <= 1.3,
             f"{1e6 / large:.1f} against {1e6 / small:.1f} us", "<=")


def snapshot(b):
    """Reclaim at the end of a snapshot that is held through 3 minutes of 500 endings a second, against before."""
    b.sql(QUEUE)
    b.sql(HANDLERS)
    b.sql("CREATE TABLE promised (id text PRIMARY KEY, until timestamptz); CREATE TABLE done (id text, at timestamptz);"
          "SELECT gt_handler_create('note', 'sql', 'INSERT INTO done VALUES ($1, gt_clock())')")
    count, seconds = b.size(20000), max(10, int(180 * b.options.scale))
    rounds = range(b.options.rounds)
    before = statistics.median(reclaim_ours(b, "batch", count) for _ in rounds)
    ending = b.script("ending", "\\set n random(1, 1000000000000000)\nINSERT INTO promised SELECT (:n)::text, expires_at"
                                " FROM gt_lease_grant((:n)::text, 'ending', duration => '1 second', cleanup => 'note');\n")
    holder = b.server.connect("bench", autocommit=False)
    query(holder, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    query(holder, "SELECT 1")
    b.server.tool("pgbench", "-n", "-M", "prepared", "-c", "8", "-R", "500", "-T", str(seconds), "-f", ending, "bench")
    if not wait_until(lambda: b.sql("SELECT (SELECT count(*) FROM done) = (SELECT count(*) FROM promised)")[0][0], 120):
        raise TimeoutError("not all that ended was cleaned within two minutes")
    part = max(2, seconds // 10)
    first, last = (b.sql("SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM d.at - p.until) * 1000) FROM done d"
                         f" JOIN promised p USING (id), (SELECT min(until) AS begin, max(until) AS end FROM promised) t WHERE {where}")[0][0]
                   for where in (f"p.until < t.begin + interval '{part} s'", f"p.until > t.end - interval '{part} s'"))
    ended = b.sql("SELECT count(*) FROM done")[0][0]
    after = statistics.median(reclaim_ours(b, "batch", count, first=count * (1 + n)) for n in rounds)
    holder.close()
    b.ratio(f"reclaim of {count} after {ended} endings under a snapshot", after, before, 0.8,
            f"leases/s; lag p50 of single endings {first:.1f} ms at first, {last:.1f} ms at last")


def measure_lag(b, rate, live):
    b.sql("CREATE TABLE promised (id text PRIMARY KEY, until timestamptz); CREATE TABLE done (id text, at timestamptz);"
          "CREATE TABLE plain (n serial PRIMARY KEY, at timestamptz DEFAULT clock_timestamp());"
          "SELECT gt_handler_create('note', 'sql', 'INSERT INTO done VALUES ($1, gt_clock())')")
    live_leases(b, live)
    ending = b.script("ending", "\\set n random(1, 1000000000000000)\nINSERT INTO promised SELECT (:n)::text, expires_at"
                                " FROM gt_lease_grant((:n)::text, 'ending', duration => '1 second', cleanup => 'note');\n")
    took, commits = endings_beside_commits(b, ending, rate)
    if not wait_until(lambda: b.sql("SELECT (SELECT count(*) FROM done) = (SELECT count(*) FROM promised)")[0][0], 60):
        raise TimeoutError("not all that ended was cleaned within a minute")
    lags = [row[0] * 1000 for row in b.sql("SELECT extract(epoch FROM d.at - p.until)::float FROM done d JOIN promised p USING (id)")]
    tell_lags(b, "", "cleaned", lags, took, commits)


def lag(b):
    """Lag from deadline to cleanup at 100 endings a second among 1,000,000 live leases."""
    measure_lag(b, 100, b.size(1000000))


def lag_much(b):
    """Lag from deadline to cleanup at 1,000 endings a second among 10,000,000 live leases."""
    measure_lag(b, 1000, b.size(10000000))


def idle(b):
    """With nothing due: transactions, WAL and wake-ups of the launcher in 30 seconds."""
    live_leases(b, b.size(100000))
    b.set(autovacuum="off")
    # a worker gives its slot up after 10 s without work; the naptime is 60 s
    workers = "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'garbagetruck%' AND datname IS NOT NULL"
    if not wait_until(lambda: not b.sql(workers), 60, 1):
        b.result("idle: workers", 1, 0, False, "a worker is still there after a minute", "<=")
        return
    launcher = b.sql("SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'garbagetruck%'")[0][0]
    b.sql("CHECKPOINT")
    time.sleep(2)

    def look():
        with open(f"/proc/{launcher}/status", encoding="utf-8") as f:
            switches = next(int(line.split()[1]) for line in f if line.startswith("voluntary_ctxt_switches"))
        row = b.sql("SELECT pg_current_wal_insert_lsn() - '0/0', (SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database)")[0]
        return switches, int(row[0]), int(row[1])

    # what the server itself still writes after the last of our work: a record of running transactions, up to 15 s later
    quiet = [look()[1]]

    def is_quiet():
        quiet.append(look()[1])
        return len(quiet) > 17 and quiet[-1] == quiet[-17]

    wait_until(is_quiet, 90, 1)
    time.sleep(2)                       # this session's own counters are reported once a second
    before = look()
    time.sleep(30)
    after = look()
    wal, switches = after[1] - before[1], after[0] - before[0]
    transactions = max(0, after[2] - before[2] - 1)      # without the look before
    b.result("idle: WAL bytes", wal, 0, wal == 0, "in 30 s", "<=")
    b.result("idle: transactions", transactions, 1, transactions <= 1, "in 30 s, in all databases; one may be the observer's", "<=")
    b.result("idle: wake-ups of the launcher", switches, 1, switches <= 1, "in 30 s, naptime 60 s", "<=")


# --- the queue

def drain_ours(b, count):
    lease_rows(b, "work", count, duration="1 hour")
    b.sql("SELECT gt_release_many(array(SELECT lease_id FROM gt_leases))")
    b.sql("VACUUM ANALYZE")
    begin = time.monotonic()
    done = 0
    while done < count:
        rows = b.sql("SELECT cleanup_id, attempt FROM gt_claim(ARRAY['work'], 100)")
        if not rows:
            raise RuntimeError(f"nothing to claim after {done} of {count}")
        done += b.sql("SELECT gt_ack_many(%s::bigint[], %s::int[])", ([r[0] for r in rows], [r[1] for r in rows]))[0][0]
    took = time.monotonic() - begin
    b.sql("TRUNCATE app")
    return count / took


def drain_theirs(b, count):
    b.sql("INSERT INTO jobs SELECT g, repeat('x', 100), clock_timestamp(), NULL FROM generate_series(1, %s) AS g", (count,))
    b.sql("VACUUM ANALYZE jobs")
    begin = time.monotonic()
    done = 0
    while done < count:
        rows = b.sql("UPDATE jobs SET claimed_until = clock_timestamp() + '1 minute' WHERE id IN (SELECT id FROM jobs"
                     " WHERE due <= clock_timestamp() AND (claimed_until IS NULL OR claimed_until < clock_timestamp())"
                     " ORDER BY due LIMIT 100 FOR UPDATE SKIP LOCKED) RETURNING id, payload")
        b.sql("DELETE FROM jobs WHERE id = ANY (%s)", ([r[0] for r in rows],))
        done += len(rows)
    took = time.monotonic() - begin
    b.sql("VACUUM jobs")
    return count / took


def claim(b):
    """gt_claim and gt_ack_many in batches of 100 against UPDATE ... SKIP LOCKED ... RETURNING and DELETE."""
    b.sql(QUEUE)
    b.sql(HANDLERS)
    b.sql("CREATE TABLE jobs (id bigint PRIMARY KEY, payload text, due timestamptz, claimed_until timestamptz);"
          "CREATE INDEX ON jobs (due)")
    count = b.size(20000)
    a, p = b.alternate(lambda: drain_ours(b, count), lambda: drain_theirs(b, count))
    b.ratio(f"claim and ack of {count} by hundreds", a, p, 0.5, "items/s")


def history(b):
    """Reclaim with history = errors against history = off, and with history = all against errors."""
    b.sql(QUEUE)
    b.sql(HANDLERS)
    count = b.size(200000)
    names = itertools.count(0, count)       # each round has objects of other names, as uploads and sessions are

    def with_setting(setting):
        b.set(garbagetruck__history=setting)
        return reclaim_ours(b, "batch", count, first=next(names))

    for more, less, bar in (("errors", "off", 0.95), ("all", "errors", 0.8)):
        a, p = b.alternate(lambda s=more: with_setting(s), lambda s=less: with_setting(s))
        b.ratio(f"reclaim with history = {more} against {less}", a, p, bar, "leases/s")


ALL = {"create": create, "renew": renew, "renew_buffered": renew_buffered, "create_many": create_many, "reclaim": reclaim,
       "reclaim_wal": reclaim_wal, "scale": scale, "snapshot": snapshot, "lag": lag, "lag_much": lag_much,
       "idle": idle, "claim": claim, "history": history, "fairness": fair.fairness, "alternate": fair.alternate,
       "row_drain": rows.drain, "row_write": rows.write, "row_lag": rows.lag, "row_culprits": rows.culprits,
       "peers": peers.peers}
