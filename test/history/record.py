"""Clients that call the extension on a small hot set of objects, and write down every call.

Each client is a process with a connection of its own.  It keeps what it did in memory and hands it over when the time is
up; record() adds what the cleanup handlers wrote in the database, puts all times on gt_clock() and returns one history.

A history is a list of dictionaries, times in microseconds of gt_clock():
  op     one call: client, seq, tx (None: autocommitted), kind, args, inv, ret, state (ok | error | unknown), sqlstate,
         value, and undone when a savepoint before it was rolled back
  tx     one transaction block: tx, isolation, begin, end_inv, end_ret, outcome (committed | rolled back | unknown), and
         prepared when it was committed in two phases
  clean  one effect of a handler that committed: cleanup_id, object, lease, fence, attempt, at, and the tx it was part of
  guard  the lease that a row of the application was inserted with, in one transaction
  outage the server was away: see outages.py
Handlers lease and release, too: what they did is in the database, written with its effect, and becomes ops of the workers'
transactions. Such a one had committed when its process wrote the next.
inv and ret bracket the call: the clock offset between client and server is known to within some 50 us, and each end is
moved outwards by it.
"""
import contextlib
import ctypes
import functools
import itertools
import multiprocessing
import os
import random
import time
import traceback
import uuid

import psycopg2

OBJECTS = 100
PARENTS = 3
SLOTS = 4           # leases that clients show to each other, per object
DURATIONS = (100, 100, 100, 130, 200, 300, 500, 1000)
DELAYS = (100, 200, 400)    # regrant_delay of those leases that have one
FAILING = 0.08      # of the handler's runs
RARELY = 0.002      # of those of handlers that do well as a rule: their leases are ended and their objects cleaned in one
ACTING = 0.3       # of them lease, release or keep something, their own object for the most part
REFUSED = "GT001 GT002 GT004 GT005 40001 40P01 55P03"

SCHEMA = """
CREATE SCHEMA hist;
CREATE TABLE hist.cleaned (cleanup_id bigint, object_id text, lease_id uuid, fence bigint, attempt int, at timestamptz,
                           pid int DEFAULT pg_backend_pid(), tx bigint DEFAULT txid_current(), n bigserial);
CREATE TABLE hist.acted (kind text, lease_id uuid, args jsonb, value jsonb, inv timestamptz, ret timestamptz DEFAULT gt_clock(),
                         pid int DEFAULT pg_backend_pid(), tx bigint DEFAULT txid_current(), n bigserial);
CREATE TABLE hist.guard (lease_id uuid);
CREATE FUNCTION hist.us(timestamptz) RETURNS bigint LANGUAGE sql AS 'SELECT (extract(epoch FROM $1) * 1000000)::bigint';
CREATE FUNCTION hist.act(own text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    o text := own;
    ms int := (ARRAY[100, 200, 400])[1 + floor(random() * 3)::int];
    keeps boolean := random() < 0.2;
    began timestamptz := gt_clock();
    l record;
    held uuid;
BEGIN
    PERFORM set_config('lock_timeout', '20ms', true);
    IF random() < 0.3 THEN
        o := 'o' || floor(random() * {objects})::int;
    ELSIF random() < 0.6 THEN           -- of the same batch, perhaps
        o := coalesce((SELECT object_id FROM gt_garbage WHERE handler = 'hist_row' AND object_id <> own ORDER BY random() LIMIT 1), own);
    END IF;
    IF random() < 0.6 THEN
        SELECT * INTO l FROM gt_lease_grant(o, 'custom', 'handler', ms * interval '1 ms', cleanup => 'hist_row');
        INSERT INTO hist.acted (kind, lease_id, args, value, inv) VALUES ('grant', l.lease_id,
            jsonb_build_object('object', o, 'service', 'handler', 'duration', ms * 1000, 'cleanup', 'hist_row'),
            jsonb_build_array(l.lease_id, l.fence, hist.us(l.expires_at), l.created), began);
    ELSE
        SELECT lease_id INTO held FROM gt_leases WHERE object_type = 'custom' AND object_id = o LIMIT 1;
        IF FOUND THEN
            began := gt_clock();
            INSERT INTO hist.acted (kind, lease_id, args, value, inv) VALUES ('release', held,
                jsonb_build_object('lease', held, 'keep', keeps), jsonb_build_array(gt_release(held, keeps)), began);
        END IF;
    END IF;
EXCEPTION WHEN others THEN
    IF NOT SQLSTATE = ANY (string_to_array('{refused}', ' ')) THEN RAISE; END IF;
END $$;
CREATE FUNCTION hist.coin() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF random() < {failing} THEN RAISE EXCEPTION 'planned failure'; END IF;
    RETURN true;
END $$;
CREATE FUNCTION hist.well() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF random() < {rarely} THEN RAISE EXCEPTION 'planned failure'; END IF;
    RETURN true;
END $$;
CREATE FUNCTION hist.clean(object_id text, lease_id uuid, fence bigint, attempt int, cleanup_id bigint)
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO hist.cleaned (cleanup_id, object_id, lease_id, fence, attempt, at)
        VALUES ($5, $1, $2, $3, $4, gt_clock());
    IF random() < 0.1 THEN PERFORM pg_sleep(random() * 0.003); END IF;
    IF random() < {acting} THEN PERFORM hist.act(object_id); END IF;
    RETURN hist.coin();
END $$;
SELECT gt_handler_create('hist_row', 'sql', 'SELECT hist.clean($1, $5, $7, $8, $9)', retry_delay => '10 ms');
SELECT gt_handler_create('hist_batch', 'sql_batch',
    'INSERT INTO hist.cleaned (cleanup_id, object_id, lease_id, fence, attempt, at) SELECT i, o, l, f, a, gt_clock()
     FROM unnest($1, $5, $7, $8, $9) AS u (o, l, f, a, i) WHERE hist.coin()', retry_delay => '10 ms');
SELECT gt_handler_create('hist_well', 'sql',
    'INSERT INTO hist.cleaned (cleanup_id, object_id, lease_id, fence, attempt, at) SELECT $9, $1, $5, $7, $8, gt_clock() WHERE hist.well()',
    retry_delay => '10 ms');
SELECT gt_handler_create('hist_set', 'sql_batch',
    'INSERT INTO hist.cleaned (cleanup_id, object_id, lease_id, fence, attempt, at) SELECT i, o, l, f, a, gt_clock()
     FROM unnest($1, $5, $7, $8, $9) AS u (o, l, f, a, i) WHERE hist.well()', retry_delay => '10 ms');
CREATE SEQUENCE hist.poisoned;          -- no rollback undoes what it counts
CREATE FUNCTION hist.poison(id text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF starts_with(id, 'poison') THEN
        PERFORM nextval('hist.poisoned');
        PERFORM pg_terminate_backend(pg_backend_pid());
    END IF;
END $$;
SELECT gt_handler_create('hist_calm', 'sql',
    'INSERT INTO hist.cleaned (cleanup_id, object_id, lease_id, fence, attempt, at) SELECT $9, $1, $5, $7, $8, gt_clock()
     FROM pg_sleep(0.05)', retry_delay => '10 ms');
SELECT gt_handler_create('hist_queue', 'queue', retry_delay => '10 ms');
SELECT gt_handler_create('hist_aside', 'sql', 'SELECT pg_sleep(0.02)');
"""

PREPARED = """
PREPARE grant_one(text, text, interval, text, uuid, boolean, text, interval) AS
SELECT lease_id::text, fence, hist.us(expires_at), created
FROM gt_lease_grant($1, 'custom', $2, $3, $4, parent => $5, exclusive => $6, request_key => $7, regrant_delay => $8);
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
PREPARE update_one(uuid, interval) AS SELECT gt_lease_update($1, duration => $2);
PREPARE claim(int, interval) AS
SELECT cleanup_id, attempt, object_id, lease_id::text, fence, hist.us(claimed_until) FROM gt_claim('{hist_queue}', $1, $2);
PREPARE ack(bigint, int) AS SELECT gt_ack($1, $2);
PREPARE nack(bigint, int, text, boolean) AS SELECT gt_nack($1, $2, $3, '0', $4);
PREPARE extend(bigint, int, interval) AS SELECT gt_extend($1, $2, $3);
PREPARE redrive AS SELECT gt_redrive(handler => 'hist_queue');
PREPARE guard(uuid) AS INSERT INTO hist.guard VALUES ($1);
"""

# how often each call is made
MIX = (("grant", 30), ("renew", 26), ("release", 14), ("renew_many", 6), ("create_many", 4), ("get", 8), ("list", 3),
       ("fence_check", 6), ("release_keep", 3), ("update", 5), ("claim", 5), ("answer", 8), ("redrive", 1))
ISOLATIONS = ("read committed", "repeatable read", "serializable")
# what a consumer answers to a claim; abandoned ones lapse
ANSWERS = (("ack", 55), ("nack", 12), ("nack_null", 12), ("nack_final", 6), ("extend", 10), ("abandon", 5))


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
    """Leases that everybody may try to renew and release: a few slots for each object. And a few to be parents of everybody's."""

    def __init__(self):
        self.slots = [multiprocessing.Array(ctypes.c_char, 16, lock=True) for _ in range(OBJECTS * SLOTS)]
        self.parents = [multiprocessing.Array(ctypes.c_char, 16, lock=True) for _ in range(PARENTS)]
        self.staying = multiprocessing.Array(ctypes.c_char, 16)     # a parent that somebody renews, and does not commit yet
        self.children = multiprocessing.Array(ctypes.c_int, 8)      # numbers of objects that children were made on lately

    def put(self, number, lease):
        self.slots[number * SLOTS + random.randrange(SLOTS)].raw = uuid.UUID(lease).bytes

    def put_parent(self, lease):
        random.choice(self.parents).raw = uuid.UUID(lease).bytes

    def take(self, slots=None):
        raw = random.choice(slots or self.slots).raw
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
        self.claims = []        # (cleanup_id, attempt) that are not answered yet
        self.parent = None
        self.renewed = None     # one that renew_and_stay() has renewed
        self.kids = []          # numbers of the objects of its children
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
        isolation = ISOLATIONS[self.number % 3]
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
        pick = self.random.random()
        if pick < 0.12:
            return self.shared.take(self.shared.parents)
        if self.mine and pick < 0.6:
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
        if kind == "claim":
            return self.claim()
        if kind == "answer" and self.claims:
            return self.answer()
        if kind == "redrive":
            return self.call("redrive", "EXECUTE redrive", (), {})
        lease = self.some_lease()
        if lease is None:
            return self.grant()
        if kind == "update":
            ms = self.duration()
            return self.call("update", "EXECUTE update_one(%s, %s)", (lease, f"{ms} ms"), {"lease": lease, "duration": ms * 1000})
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

    def grant(self, of=None):
        """of: as a child of that lease."""
        number = self.some_object()
        pick = self.random.random()
        ms = self.duration()
        if pick < 0.1:                  # what was a child's, by somebody who wants it alone
            number = self.random.choice(self.shared.children)
        args = {"object": f"o{number}", "duration": ms * 1000,
                "cleanup": self.random.choices(("hist_row", "hist_batch", "hist_well", "hist_set", "hist_queue", None), (4, 3, 4, 3, 3, 1))[0],
                "exclusive": False, "parent": None}
        if pick < 0.2:
            args["exclusive"] = True
        elif pick < 0.37:               # now and then another request takes its key
            args["key"], args["service"] = f"k{self.some_object() if self.random.random() < 0.1 else number}", "shared"
            args["exclusive"] = self.random.random() < 0.1
        parent = of or (self.shared.take(self.shared.parents) if self.random.random() < 0.5 else self.parent)
        if of or (0.3 < pick < 0.6 and parent):
            args["parent"], args["duration"] = parent, None
        if self.random.random() < 0.2:
            args["regrant"] = 1000 * self.random.choice(DELAYS)
        rows = self.ask(**args)
        if rows and rows[0][3]:
            self.own(number, rows[0][0], rows[0][1])
            if args["parent"]:
                self.shared.children[self.random.randrange(8)] = number
                if args["parent"] == self.parent:
                    self.kids.append(number)
            if args["parent"] is None and self.random.random() < 0.2:
                self.parent, self.kids = rows[0][0], []
                self.shared.put_parent(self.parent)
        return rows

    def ask(self, **args):
        args = {"service": f"s{self.number}", "duration": None, "cleanup": "hist_batch", "exclusive": False, "key": None,
                "parent": None, "regrant": None, **args}
        us = lambda name: args[name] and f"{args[name]} us"
        return self.call("grant", "EXECUTE grant_one(%s, %s, %s, %s, %s, %s, %s, %s)",
                         (args["object"], args["service"], us("duration"), args["cleanup"], args["parent"], args["exclusive"],
                          args["key"], us("regrant")), args)

    def create_many(self):
        rows = self.create_all([f"o{self.some_object()}" for _ in range(self.random.randrange(2, 6))], self.duration(),
                               self.random.choice(("hist_row", "hist_batch", "hist_well", "hist_set")))
        for name, lease in rows or ():
            fence = self.history[-1]["fences"].get(lease)
            if fence is not None:
                self.own(int(name[1:]), lease, fence)
        return rows

    def create_all(self, names, ms, cleanup):
        args = {"objects": names, "service": f"s{self.number}", "duration": ms * 1000, "cleanup": cleanup}
        rows = self.call("create_many", "EXECUTE create_many(%s, %s, %s, %s)", (names, args["service"], f"{ms} ms", cleanup), args)
        if rows:                        # each may have ended meanwhile: then its fence stays unknown
            self.cursor.execute("EXECUTE fences(%s::uuid[])", ([r[1] for r in rows],))
            self.history[-1]["fences"] = dict(self.cursor.fetchall())
        return rows

    # --- a consumer of the queue

    def claim(self):
        ms = self.random.choice(DURATIONS)
        rows = self.call("claim", "EXECUTE claim(%s, %s)", (self.random.randrange(1, 4), f"{ms} ms"), {"visibility": ms * 1000})
        self.claims += [(r[0], r[1]) for r in rows or ()]
        return rows

    def answer(self):
        cleanup_id, attempt = token = self.claims.pop(self.random.randrange(len(self.claims)))
        kind = self.random.choices([a[0] for a in ANSWERS], [a[1] for a in ANSWERS])[0]
        args = {"cleanup_id": cleanup_id, "attempt": attempt}
        if kind == "abandon":
            return []
        if kind == "ack":
            return self.call("ack", "EXECUTE ack(%s, %s)", token, args)
        if kind == "extend":
            self.claims.append(token)
            ms = self.random.choice(DURATIONS)
            return self.call("extend", "EXECUTE extend(%s, %s, %s)", (*token, f"{ms} ms"), {**args, "visibility": ms * 1000})
        return self.call("nack", "EXECUTE nack(%s, %s, %s, %s)",
                         (*token, None if kind == "nack_null" else "planned failure", kind == "nack_final"),
                         {**args, "null": kind == "nack_null", "final": kind == "nack_final"})

    # --- transactions

    def new_transaction(self, isolation):
        self.transactions += 1
        self.tx = f"{self.number}.{self.transactions}"
        self.history.append({"t": "tx", "tx": self.tx, "isolation": isolation, "begin": now(), "end_inv": None, "end_ret": None,
                             "outcome": "rolled back"})
        return self.history[-1]

    def transaction(self):
        tx = self.new_transaction(self.random.choice(ISOLATIONS))
        try:
            self.cursor.execute(f"BEGIN ISOLATION LEVEL {tx['isolation']}")
            pick = self.random.random()
            failed = self.renew_and_stay() if pick < 0.05 else self.grant_and_stay() if pick < 0.1 else \
                self.steps(self.random.randrange(1, 5))
            if self.random.random() < 0.06:                     # long enough to outlive the shorter leases
                time.sleep(self.random.choice((0.06, 0.12)))
            commit = not failed and self.random.random() < 0.7
            if not failed and self.random.random() < 0.08:
                self.prepare(tx)
            tx["end_inv"] = now()
            if commit:
                tx["outcome"] = "unknown"
            self.cursor.execute(("COMMIT" if commit else "ROLLBACK") + (f" PREPARED '{self.tx}'" if tx.get("prepared") else ""))
            tx["end_ret"] = now()
            tx["outcome"] = "committed" if commit else "rolled back"
        except psycopg2.Error as e:
            tx["end_ret"] = now()
            if self.link.closed or e.pgcode is None or e.pgcode.startswith("57P"):
                if tx.get("prepared"):
                    tx["outcome"] = "unknown"
                raise ConnectionError(str(e)) from e
            tx["outcome"], tx["sqlstate"] = "rolled back", e.pgcode     # a COMMIT that failed
            if e.pgcode[:2] != "40":
                tx["message"] = str(e).strip()
            self.cursor.execute("ROLLBACK")
        finally:
            tx["end_ret"] = tx["end_ret"] or now()
            tx["end_inv"] = tx["end_inv"] or tx["end_ret"]
            self.tx = None

    def renew_and_stay(self):
        """A parent is renewed in time, and what tells of it comes after its deadline: meanwhile others want what is its
        children's. True: aborted."""
        lease = self.parent if self.kids else self.shared.take(self.shared.parents)
        if lease is None or self.call("renew", "EXECUTE renew(%s, %s)", (lease, None), {"lease": lease, "duration": None}) is None:
            return lease is not None
        for i in range(8 if self.kids else 0):
            self.shared.children[i] = self.random.choice(self.kids)
        self.shared.staying.raw = uuid.UUID(lease).bytes
        time.sleep(0.12)
        self.renewed = lease
        return False

    def grant_and_stay(self):
        """A child of such a parent, committed after that may have been released. True: aborted."""
        lease = self.shared.take([self.shared.staying])
        if lease is None or self.grant(of=lease) is None:
            return lease is not None
        time.sleep(0.12)
        return False

    def prepare(self, tx):
        """What it did is there from COMMIT PREPARED on; lost between the two, it is rolled back in the end. Often it is another
        session that commits it, or rolls it back, and later."""
        tx["prepared"] = True
        self.cursor.execute(f"PREPARE TRANSACTION '{self.tx}'")
        if self.random.random() < 0.5:
            self.link.close()
            time.sleep(self.random.choice((0, 0.03, 0.15)))
            self.connect()

    @contextlib.contextmanager
    def alone(self, end):
        """A transaction with nobody beside it who could fail it."""
        tx = self.new_transaction("read committed")
        self.cursor.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
        yield
        tx["end_inv"] = now()
        self.cursor.execute(end)
        tx["end_ret"] = now()
        tx["outcome"] = "committed" if end == "COMMIT" else "rolled back"
        self.tx = None

    def wanted(self):
        """A parent expires and ends, but not its child, for somebody has that one's object. He wants it alone then: that the
        parent has ended is known, and when it did tells for how long the child's regrant_delay keeps him from it."""
        parent = self.ask(object="parent", duration=400000)[0][0]
        rows = self.ask(object="wanted", parent=parent, regrant=2000000)
        if rows is None:
            return
        child, fence = rows[0][:2]
        with self.alone("ROLLBACK"):
            self.call("fence_check", "EXECUTE fence_check(%s, %s)", ("wanted", fence), {"object": "wanted", "fence": fence, "lease": child})
            end = time.monotonic() + 10
            while self.is_there(parent) and time.monotonic() < end:
                time.sleep(0.02)
            self.ask(object="wanted", duration=100000, exclusive=True)

    def late(self):
        """Leases end together, whose handler takes its time over each: a worker ends and cleans one after the other, as it has
        chosen them. The last was renewed before, and what renews it commits meanwhile."""
        proof = self.create_all(["late"], 1000, "hist_calm")[0][1]      # that the handler does well
        self.call("release", "EXECUTE release(%s, %s)", (proof, False), {"lease": proof, "keep": False})
        while not self.cleaned("late"):
            time.sleep(0.02)
        ms = 400
        rows = self.create_all([f"late {n}" for n in range(8)], ms, "hist_calm")
        over, last = time.monotonic() + ms / 1000, rows[-1][1]
        with self.alone("COMMIT"):
            self.call("renew", "EXECUTE renew(%s, %s)", (last, "10 s"), {"lease": last, "duration": 10000000})
            time.sleep(max(0, over + 0.2 - time.monotonic()))
        end = time.monotonic() + 10
        while not self.cleaned("late 6") and time.monotonic() < end:
            time.sleep(0.02)
        self.call("get", "EXECUTE get(%s)", (last,), {"lease": last})
        self.call("release", "EXECUTE release(%s, %s)", (last, False), {"lease": last, "keep": False})

    def is_there(self, lease):
        self.cursor.execute("SELECT 1 FROM gt_leases WHERE lease_id = %s", (lease,))
        return self.cursor.fetchone() is not None

    def cleaned(self, name):
        self.cursor.execute("SELECT 1 FROM hist.cleaned WHERE object_id = %s", (name,))
        return self.cursor.fetchone() is not None

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
                lease, self.renewed = self.renewed, None
                if lease is not None and self.random.random() < 0.5:
                    self.call("release", "EXECUTE release(%s, %s)", (lease, False), {"lease": lease, "keep": False})
            except (ConnectionError, psycopg2.OperationalError):
                self.tx = None
                if self.link is not None:
                    self.link.close()
                time.sleep(0.01)                # the server may be away
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
        cursor.execute(SCHEMA.format(objects=OBJECTS, failing=FAILING, rarely=RARELY, acting=ACTING, refused=REFUSED))


def settle(link, consumer, limit=60):
    """Waits until every lease has ended and all garbage is cleaned; what is left after limit seconds. The consumer takes what
    is in the queue, the dead first."""
    end = time.monotonic() + limit
    with link.cursor() as cursor:
        cursor.execute("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()")
        for gid, in cursor.fetchall():      # whose clients were lost in between
            cursor.execute(f"ROLLBACK PREPARED '{gid}'")
        while True:
            consumer.call("redrive", "EXECUTE redrive", (), {})
            consumer.claim()
            while consumer.claims:
                token = consumer.claims.pop()
                consumer.call("ack", "EXECUTE ack(%s, %s)", token, dict(zip(("cleanup_id", "attempt"), token)))
            cursor.execute("SELECT gt_ack(cleanup_id, attempts) FROM gt_dead WHERE handler LIKE 'hist_poison%'")
            cursor.execute("SELECT (SELECT count(*) FROM gt_leases), (SELECT count(*) FROM gt_garbage),"
                           " (SELECT count(*) FROM gt_dead)")
            left = cursor.fetchone()
            if left == (0, 0, 0) or time.monotonic() > end:
                return dict(zip(("leases", "garbage", "dead"), left))
            time.sleep(0.05)


def created(link):
    """How many creations the extension has counted."""
    with link.cursor() as cursor:
        cursor.execute("SELECT sum(value)::bigint FROM gt_metrics() WHERE name = 'garbagetruck_leases_created_total'")
        return cursor.fetchone()[0]


def gather(cursor):
    """What handlers did, as it was committed: their effects, and their own calls in the transactions of their processes."""
    cursor.execute("SELECT hist.us(gt_clock())")
    end = cursor.fetchone()[0]
    cursor.execute("SELECT n, pid, tx, hist.us(at), cleanup_id, object_id, lease_id::text, fence, attempt FROM hist.cleaned")
    names = ("cleanup_id", "object", "lease", "fence", "attempt")
    rows = [(row[1], row[3], row[2], dict(zip(names, row[4:]), t="clean", at=row[3])) for row in cursor.fetchall()]
    cursor.execute("SELECT n, pid, tx, hist.us(inv), hist.us(ret), kind, lease_id::text, args, value FROM hist.acted")
    for n, pid, tx, inv, ret, kind, lease, args, value in cursor.fetchall():
        args = {"exclusive": False, "key": None, "parent": None, **args} if kind == "grant" else args
        rows.append((pid, inv, tx, {"t": "op", "client": f"worker {pid}", "seq": n, "kind": kind, "args": args, "inv": inv,
                                    "ret": ret, "state": "ok", "value": [value]}))
    rows.sort(key=lambda row: row[:2])
    groups = [list(g) for _, g in itertools.groupby(rows, key=lambda row: (row[0], row[2]))]
    for group, following in itertools.zip_longest(groups, groups[1:]):
        pid, first, tx, _ = group[0]
        name = f"worker {pid}.{tx}"
        yield {"t": "tx", "tx": name, "isolation": "read committed", "begin": first,
               "end_inv": group[-1][3].get("ret", group[-1][1]), "outcome": "committed",
               "end_ret": following[0][1] if following and following[0][0] == pid else end}
        for row in group:
            yield {**row[3], "tx": name}


def record(cluster, dbname, clients=8, seconds=20, besides=(), outages=None):
    """One run in a database that prepare() has seen; its history, and what was left when the workers had had their time."""
    link = cluster.connect(dbname, name="recorder")
    low, high = calibrate(link)
    with link.cursor() as cursor:
        cursor.execute("TRUNCATE hist.cleaned, hist.acted, hist.guard; SELECT setval('hist.poisoned', 1, false)")
    counted = created(link)
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
    besides = [b(functools.partial(cluster.connect, dbname, name=b.__name__)) for b in besides] + ([outages] if outages else [])
    for b in besides:
        b.start()
    time.sleep(max(0, end - 1 - time.monotonic()))
    troubles = [b.stop() for b in besides]
    history = []
    for pipe, p in zip(pipes, processes):
        part, trouble = pipe.recv()
        p.join()
        history += part
        troubles.append(trouble)
    if outages:
        link.close()
        link = cluster.connect(dbname, name="recorder")
        history += outages.last()
    consumer = Client(clients, cluster.dsn(dbname), shared, end)
    consumer.connect()
    left = settle(link, consumer)
    if not outages and not any(left.values()):
        consumer.late()
        consumer.wanted()
        left = settle(link, consumer)
        for b in besides:
            b.last()
        left = settle(link, consumer)
    consumer.link.close()
    for b in besides:
        b.close()
    history += consumer.history
    low2, high2 = calibrate(link)
    drift = max(abs(low2 - low), abs(high2 - high))
    offsets = [(low, high), (low2, high2)] + (outages.offsets if outages else [])
    low, high = min(o[0] for o in offsets), max(o[1] for o in offsets)
    for record_ in history:
        for name in ("inv", "begin", "end_inv", "down"):
            if record_.get(name) is not None:
                record_[name] += low
        for name in ("ret", "end_ret", "undone", "gone"):
            if record_.get(name) is not None:
                record_[name] += high
    with link.cursor() as cursor:
        history += gather(cursor)
        cursor.execute("SELECT lease_id::text FROM hist.guard")
        history += [{"t": "guard", "lease": row[0]} for row in cursor.fetchall()]
        cursor.execute("SELECT last_value - 1 FROM hist.poisoned")
        left["poisoned"] = cursor.fetchone()[0]
    if not outages:             # it is counted in shared memory
        left["created"] = created(link) - counted - sum(b.made for b in besides)
    link.close()
    if any(troubles):
        raise RuntimeError("\n".join(t for t in troubles if t))
    return history, left, {"drift_us": drift, "uncertainty_us": high - low}
