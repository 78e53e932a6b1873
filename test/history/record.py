"""Clients that call the extension on a small hot set of objects, and write down every call.

Each client is a process with a connection of its own.  It keeps what it did in memory and hands it over when the time is
up; record() adds what the cleanup handlers wrote in the database, puts all times on gt_clock() and returns one history.

A history is a list of dictionaries, times in microseconds of gt_clock():
  op     one call: client, seq, tx (None: autocommitted), kind, args, inv, ret, state (ok | error | unknown), sqlstate,
         value, and undone when a savepoint before it was rolled back
  tx     one transaction block: tx, isolation, begin, end_inv, end_ret, outcome (committed | rolled back | unknown)
  clean  one effect of a handler that committed: cleanup_id, object, lease, fence, attempt, at
  guard  the lease that a row of the application was inserted with, in one transaction
inv and ret bracket the call: the clock offset between client and server is known to within some 50 us, and each end is
moved outwards by it.
"""
import ctypes
import multiprocessing
import os
import random
import time
import traceback
import uuid

import psycopg2

OBJECTS = 50
SLOTS = 4           # leases that clients show to each other, per object
DURATIONS = (100, 100, 100, 130, 200, 300, 500, 1000)
FAILING = 0.08      # of the handler's runs

SCHEMA = """
CREATE SCHEMA hist;
CREATE TABLE hist.cleaned (cleanup_id bigint, object_id text, lease_id uuid, fence bigint, attempt int, at timestamptz);
CREATE TABLE hist.guard (lease_id uuid);
CREATE FUNCTION hist.coin() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF random() < {failing} THEN RAISE EXCEPTION 'planned failure'; END IF;
    RETURN true;
END $$;
CREATE FUNCTION hist.clean(object_id text, lease_id uuid, fence bigint, attempt int, cleanup_id bigint)
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO hist.cleaned VALUES (cleanup_id, object_id, lease_id, fence, attempt, gt_clock());
    IF random() < 0.1 THEN PERFORM pg_sleep(random() * 0.003); END IF;
    RETURN hist.coin();
END $$;
SELECT gt_handler_create('hist_row', 'sql', 'SELECT hist.clean($1, $5, $7, $8, $9)', retry_delay => '10 ms');
SELECT gt_handler_create('hist_batch', 'sql_batch',
    'INSERT INTO hist.cleaned SELECT i, o, l, f, a, gt_clock()
     FROM unnest($1, $5, $7, $8, $9) AS u (o, l, f, a, i) WHERE hist.coin()', retry_delay => '10 ms');
"""

PREPARED = """
PREPARE grant_one(text, text, interval, text, uuid, boolean, text) AS
SELECT lease_id::text, fence, (extract(epoch FROM expires_at) * 1000000)::bigint, created
FROM gt_lease_grant($1, 'custom', $2, $3, $4, parent => $5, exclusive => $6, request_key => $7);
PREPARE create_many(text[], text, interval, text) AS
SELECT o, l::text FROM unnest($1, gt_lease_create_many($1, 'custom', $2, $3, $4)) AS u (o, l);
PREPARE fences(uuid[]) AS SELECT l::text, g.fence FROM unnest($1) AS l, gt_lease_get(l) AS g;
PREPARE renew(uuid, interval) AS SELECT (extract(epoch FROM gt_renew($1, $2)) * 1000000)::bigint;
PREPARE renew_many(uuid[], interval) AS
SELECT lease_id::text, status, (extract(epoch FROM expires_at) * 1000000)::bigint FROM gt_renew_many($1, $2);
PREPARE release(uuid, boolean) AS SELECT gt_release($1, $2);
PREPARE get(uuid) AS SELECT state, fence, (extract(epoch FROM expires_at) * 1000000)::bigint FROM gt_lease_get($1);
PREPARE list(text) AS SELECT lease_id::text FROM gt_lease_list(object_type => 'custom', object_id => $1, state => 'active', max_rows => 1000);
PREPARE fence_check(text, bigint) AS SELECT gt_fence_check($1, 'custom', $2);
PREPARE guard(uuid) AS INSERT INTO hist.guard VALUES ($1);
"""

# how often each call is made
MIX = (("grant", 30), ("renew", 26), ("release", 14), ("renew_many", 6), ("create_many", 4), ("get", 8), ("list", 3),
       ("fence_check", 6), ("release_keep", 3))


def now():
    return time.monotonic_ns() // 1000


def calibrate(link, rounds=200):
    """The offset gt_clock() - monotonic clock of this machine, as an interval."""
    low, high = -(1 << 62), 1 << 62
    with link.cursor() as cursor:
        cursor.execute("PREPARE clock AS SELECT (extract(epoch FROM gt_clock()) * 1000000)::bigint")
        for _ in range(rounds):
            before = now()
            cursor.execute("EXECUTE clock")
            clock = cursor.fetchone()[0]
            after = now() + 1
            if clock - after > low:
                low = clock - after
            if clock + 1 - before < high:
                high = clock + 1 - before
        cursor.execute("DEALLOCATE clock")
    return min(low, high), max(low, high)


class Shared:
    """Leases that everybody may try to renew and release: a few slots for each object."""

    def __init__(self):
        self.slots = [multiprocessing.Array(ctypes.c_char, 16, lock=True) for _ in range(OBJECTS * SLOTS)]

    def put(self, number, lease):
        self.slots[number * SLOTS + random.randrange(SLOTS)].raw = uuid.UUID(lease).bytes

    def take(self):
        raw = random.choice(self.slots).raw
        return str(uuid.UUID(bytes=raw)) if raw != b"\0" * 16 else None


class Client:
    def __init__(self, number, dsn, shared, end):
        self.number = number
        self.dsn = dsn
        self.shared = shared
        self.end = end
        self.random = random.Random(os.urandom(8))
        self.history = []
        self.mine = []          # (lease, object, fence), newest last
        self.parent = None
        self.seq = 0
        self.tx = None
        self.transactions = 0
        self.link = None

    # --- one call

    def connect(self):
        self.link = psycopg2.connect(self.dsn, application_name=f"client {self.number}")
        self.link.autocommit = True
        self.cursor = self.link.cursor()
        self.cursor.execute(PREPARED)
        isolation = "repeatable read" if self.number % 2 else "read committed"
        self.cursor.execute(f"SET default_transaction_isolation = '{isolation}'; SET lock_timeout = '{self.random.choice((20, 200, 2000))}ms'")
        self.isolation = isolation

    def call(self, kind, sql, arguments, args):
        """Executes and records; the rows, or None when the call failed."""
        self.seq += 1
        op = {"t": "op", "client": self.number, "seq": self.seq, "tx": self.tx, "kind": kind, "args": args}
        if self.tx is None:
            op["isolation"] = self.isolation
        self.history.append(op)
        op["inv"] = now()
        try:
            self.cursor.execute(sql, arguments)
            rows = self.cursor.fetchall() if self.cursor.description else []
            op["ret"] = now()
            op["state"], op["value"] = "ok", rows
            return rows
        except psycopg2.Error as e:
            op["ret"] = now()
            code = e.pgcode
            op["sqlstate"] = code
            op["message"] = str(e).strip()
            lost = self.link.closed or code is None or code.startswith("57P") or code == "57014"
            op["state"] = "unknown" if lost else "error"
            if self.link.closed or code is None or code.startswith("57P"):
                raise ConnectionError(str(e)) from e
            return None

    # --- what to call on what

    def some_object(self):
        # a fifth of the calls goes to a tenth of the objects
        return self.random.randrange(OBJECTS // 10 if self.random.random() < 0.2 else OBJECTS)

    def some_lease(self):
        if self.mine and self.random.random() < 0.6:
            return self.mine[-1 - min(int(self.random.expovariate(0.4)), len(self.mine) - 1)][0]
        return self.shared.take() or (self.mine[-1][0] if self.mine else None)

    def duration(self):
        return self.random.choice(DURATIONS)

    def own(self, number, lease, fence):
        self.mine.append((lease, f"o{number}", fence))
        del self.mine[:-40]
        if self.tx is None or self.random.random() < 0.3:       # the others may try one that is not committed yet, too
            self.shared.put(number, lease)
        if self.tx is not None:
            self.cursor.execute("EXECUTE guard(%s)", (lease,))

    def step(self):
        kind = self.random.choices([m[0] for m in MIX], [m[1] for m in MIX])[0]
        if kind == "grant":
            return self.grant()
        if kind == "create_many":
            return self.create_many()
        if kind == "list":
            number = self.some_object()
            return self.call("list", "EXECUTE list(%s)", (f"o{number}",), {"object": f"o{number}"})
        if kind == "fence_check" and self.mine:
            lease, name, fence = self.random.choice(self.mine[-5:])
            return self.call("fence_check", "EXECUTE fence_check(%s, %s)", (name, fence),
                             {"object": name, "fence": fence, "lease": lease})
        lease = self.some_lease()
        if lease is None:
            return self.grant()
        if kind == "renew":
            ms = None if self.random.random() < 0.5 else self.duration()
            return self.call("renew", "EXECUTE renew(%s, %s)", (lease, ms and f"{ms} ms"),
                             {"lease": lease, "duration": ms and ms * 1000})
        if kind == "renew_many":
            leases = sorted({lease} | {m[0] for m in self.mine[-3:]}, key=lambda _: self.random.random())
            ms = self.duration()
            return self.call("renew_many", "EXECUTE renew_many(%s::uuid[], %s)", (leases, f"{ms} ms"),
                             {"leases": leases, "duration": ms * 1000})
        if kind == "get":
            return self.call("get", "EXECUTE get(%s)", (lease,), {"lease": lease})
        keep = kind == "release_keep"
        return self.call("release", "EXECUTE release(%s, %s)", (lease, keep), {"lease": lease, "keep": keep})

    def grant(self):
        number = self.some_object()
        pick = self.random.random()
        ms = self.duration()
        args = {"object": f"o{number}", "service": f"s{self.number}", "duration": ms * 1000,
                "cleanup": self.random.choices(("hist_row", "hist_batch", None), (5, 4, 1))[0],
                "exclusive": False, "key": None, "parent": None}
        if pick < 0.2:
            args["exclusive"] = True
        elif pick < 0.35:
            args["key"], args["service"] = f"k{number}", "shared"
        elif pick < 0.5 and self.parent:
            args["parent"], args["duration"] = self.parent, None
        rows = self.call("grant", "EXECUTE grant_one(%s, %s, %s, %s, %s, %s, %s)",
                         (args["object"], args["service"], args["duration"] and f"{ms} ms", args["cleanup"], args["parent"],
                          args["exclusive"], args["key"]), args)
        if rows and rows[0][3]:
            self.own(number, rows[0][0], rows[0][1])
            if args["parent"] is None and self.random.random() < 0.2:
                self.parent = rows[0][0]
        return rows

    def create_many(self):
        numbers = [self.some_object() for _ in range(self.random.randrange(2, 6))]
        ms = self.duration()
        args = {"objects": [f"o{n}" for n in numbers], "service": f"s{self.number}", "duration": ms * 1000,
                "cleanup": self.random.choice(("hist_row", "hist_batch"))}
        rows = self.call("create_many", "EXECUTE create_many(%s, %s, %s, %s)",
                         (args["objects"], args["service"], f"{ms} ms", args["cleanup"]), args)
        if rows:                        # each may have ended meanwhile: then its fence stays unknown
            self.cursor.execute("EXECUTE fences(%s::uuid[])", ([r[1] for r in rows],))
            fences = self.history[-1]["fences"] = dict(self.cursor.fetchall())
            for name, lease in rows:
                if lease in fences:
                    self.own(int(name[1:]), lease, fences[lease])
        return rows

    # --- transactions

    def transaction(self):
        self.transactions += 1
        isolation = self.random.choice(("read committed", "repeatable read"))
        tx = {"t": "tx", "tx": f"{self.number}.{self.transactions}", "isolation": isolation, "begin": now()}
        self.history.append(tx)
        self.tx = tx["tx"]
        tx["end_inv"] = tx["end_ret"] = None
        tx["outcome"] = "rolled back"
        try:
            self.cursor.execute(f"BEGIN ISOLATION LEVEL {isolation}")
            failed = self.steps(self.random.randrange(1, 5))
            if self.random.random() < 0.04:                     # long enough to outlive the shorter leases
                time.sleep(self.random.choice((0.06, 0.12)))
            commit = not failed and self.random.random() < 0.7
            tx["end_inv"] = now()
            if commit:
                tx["outcome"] = "unknown"
            self.cursor.execute("COMMIT" if commit else "ROLLBACK")
            tx["end_ret"] = now()
            tx["outcome"] = "committed" if commit else "rolled back"
        except psycopg2.Error as e:
            tx["end_ret"] = now()
            if self.link.closed or e.pgcode is None or e.pgcode.startswith("57P"):
                raise ConnectionError(str(e)) from e
            tx["outcome"], tx["sqlstate"] = "rolled back", e.pgcode     # a COMMIT that failed
            if e.pgcode[:2] != "40":
                tx["message"] = str(e).strip()
            self.cursor.execute("ROLLBACK")
        finally:
            tx["end_ret"] = tx["end_ret"] or now()
            tx["end_inv"] = tx["end_inv"] or tx["end_ret"]
            self.tx = None

    def steps(self, count):
        """True when the transaction is aborted."""
        for _ in range(count):
            savepoint = self.random.random() < 0.4
            first = len(self.history)
            if savepoint:
                self.cursor.execute("SAVEPOINT s")
            rows = self.step()
            if rows is None and not savepoint:
                return True
            if savepoint and (rows is None or self.random.random() < 0.25):
                self.cursor.execute("ROLLBACK TO s")
                undone = now()
                for op in self.history[first:]:
                    op["undone"] = undone
        return False

    def run(self):
        while time.monotonic() < self.end:
            try:
                if self.link is None or self.link.closed:
                    self.connect()
                if self.random.random() < 0.35:
                    self.transaction()
                else:
                    self.step()
            except (ConnectionError, psycopg2.OperationalError):
                self.tx = None
                if self.link is not None:
                    self.link.close()
            except psycopg2.Error as e:
                if self.link.closed:
                    continue
                raise RuntimeError(f"a statement of the recorder itself failed: {e}") from e
        self.link.close()


def client_process(number, dsn, shared, end, pipe):
    client = Client(number, dsn, shared, end)
    try:
        client.run()
        pipe.send((client.history, None))
    except BaseException:
        pipe.send((client.history, traceback.format_exc()))


def prepare(link):
    with link.cursor() as cursor:
        cursor.execute("CREATE EXTENSION IF NOT EXISTS garbagetruck")
        cursor.execute(SCHEMA.format(failing=FAILING))


def settle(link, limit=60):
    """Waits until every lease has ended and all garbage is cleaned; what is left after limit seconds."""
    end = time.monotonic() + limit
    with link.cursor() as cursor:
        while True:
            cursor.execute("SELECT (SELECT count(*) FROM gt_leases), (SELECT count(*) FROM gt_garbage),"
                           " (SELECT count(*) FROM gt_dead)")
            left = cursor.fetchone()
            if left == (0, 0, 0) or time.monotonic() > end:
                return dict(zip(("leases", "garbage", "dead"), left))
            time.sleep(0.05)


def record(cluster, dbname, clients=8, seconds=20):
    """One run in a database that prepare() has seen; its history, and what was left when the workers had had their time."""
    link = cluster.connect(dbname, name="recorder")
    low, high = calibrate(link)
    with link.cursor() as cursor:
        cursor.execute("TRUNCATE hist.cleaned, hist.guard")
    shared = Shared()
    end = time.monotonic() + seconds
    pipes, processes = [], []
    for number in range(clients):
        ours, theirs = multiprocessing.Pipe(duplex=False)
        p = multiprocessing.Process(target=client_process, args=(number, cluster.dsn(dbname), shared, end, theirs))
        p.start()
        theirs.close()
        pipes.append(ours)
        processes.append(p)
    with link.cursor() as cursor:                               # now and then a client loses its connection
        while time.monotonic() < end - 1:
            time.sleep(random.uniform(0.5, 1.5))
            cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                           " WHERE application_name ~ '^client ' ORDER BY random() LIMIT 1")
    history, troubles = [], []
    for pipe, p in zip(pipes, processes):
        part, trouble = pipe.recv()
        p.join()
        history += part
        if trouble:
            troubles.append(trouble)
    left = settle(link)
    low2, high2 = calibrate(link)
    drift = max(abs(low2 - low), abs(high2 - high))
    low, high = min(low, low2), max(high, high2)
    for record_ in history:
        for name in ("inv", "begin", "end_inv"):
            if record_.get(name) is not None:
                record_[name] += low
        for name in ("ret", "end_ret", "undone"):
            if record_.get(name) is not None:
                record_[name] += high
    with link.cursor() as cursor:
        cursor.execute("SELECT cleanup_id, object_id, lease_id::text, fence, attempt,"
                       " (extract(epoch FROM at) * 1000000)::bigint FROM hist.cleaned")
        names = ("cleanup_id", "object", "lease", "fence", "attempt", "at")
        history += [dict(zip(names, row), t="clean") for row in cursor.fetchall()]
        cursor.execute("SELECT lease_id::text FROM hist.guard")
        history += [{"t": "guard", "lease": row[0]} for row in cursor.fetchall()]
    link.close()
    if troubles:
        raise RuntimeError("\n".join(troubles))
    return history, left, {"drift_us": drift, "uncertainty_us": high - low}
