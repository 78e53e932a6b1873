"""Five logins on one server, and somebody who watches: what the attacks share.

    victim    has lease and handler, and secrets: payloads, object ids, the rows of schema v
    mallory   has lease and handler too, and schema m
    bob       has lease only
    nobody    may connect
    dbo       owns the database, and so schema public

`postgres` owns the extension, and does what an administrator would.  An attack is a generator that is given a Town: it
prepares, yields while the attack is on (once, or often), and takes back what it did.  At each yield the runner waits until the
victim has been served several times, from the beginning to the end, and only then lets the attack go on.  So nothing is judged
by a duration: either the victim was served while the attack was on, or it was not within a limit that tells "hangs".

What was run as whom is told by sequences, which no rollback takes back: the planted function spy() of each login advances one
that is named after the role that it ran as.
"""
import collections
import contextlib
import http.server
import itertools
import json
import os
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.dont_write_bytecode = True

import psycopg2     # noqa: E402
import psycopg2.extensions  # noqa: E402

import cluster      # noqa: E402

LIMIT = 30          # s: longer than this is "never"
SECRET = "TOPSECRET"
HIDDEN = "hidden-"  # begins the victim's object ids
LOGINS = ("victim", "mallory", "bob", "nobody", "dbo")
TRESPASSERS = ("mallory", "bob", "nobody", "dbo")

SETTINGS = {
    "fsync": "off",
    "max_connections": "60",
    "max_prepared_transactions": "4",
    "max_worker_processes": "16",
    "garbagetruck.databases": "'shop, first, defaults'",     # not quiet, where gt_reclaim is tried
    "garbagetruck.max_workers": "4",
    "garbagetruck.naptime": "'1h'",
    "log_min_messages": "warning",
    "log_min_error_statement": "panic",
}

SCHEMA = """
CREATE EXTENSION garbagetruck;
CREATE SCHEMA links;
GRANT USAGE ON SCHEMA links TO victim, mallory;
CREATE EXTENSION dblink SCHEMA links;
GRANT EXECUTE ON FUNCTION links.dblink_connect_u(text, text) TO victim, mallory;
CREATE SCHEMA v AUTHORIZATION victim;
CREATE SCHEMA m AUTHORIZATION mallory;
GRANT USAGE ON SCHEMA v, m TO PUBLIC;
CREATE TABLE v.seen (n int, at timestamptz DEFAULT gt_clock());
CREATE TABLE v.secret (t text);
INSERT INTO v.secret VALUES ('{secret} of the table');
ALTER TABLE v.seen OWNER TO victim;
ALTER TABLE v.secret OWNER TO victim;
CREATE SCHEMA ran;
GRANT USAGE ON SCHEMA ran TO PUBLIC;
"""
ALLOW = """
DO $$ BEGIN
    PERFORM gt_allow('victim'), gt_allow('victim', 'handler'), gt_allow('mallory'), gt_allow('mallory', 'handler'), gt_allow('bob');
END $$;
"""

# who planted it, and what is to happen there besides
SPY = """
CREATE SCHEMA IF NOT EXISTS spy_{by} AUTHORIZATION {by};
GRANT USAGE ON SCHEMA spy_{by} TO PUBLIC;
CREATE FUNCTION spy_{by}.spy() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.nextval(pg_catalog.format('ran.{by}_as_%s', current_user)::regclass);
    PERFORM pg_catalog.nextval(pg_catalog.format('ran.{by}_in_session_of_%s', session_user)::regclass);
    RETURN true;
END $$;
ALTER FUNCTION spy_{by}.spy() OWNER TO {by};
"""


class Unfair(Exception):
    """What an attack reached, or broke."""


def connect(server, role, database="shop", name=None):
    """In parallel with others, and never for ever in one statement."""
    link = server.connect(database, role, name=name or f"{role}'s")
    with link.cursor() as cursor:
        cursor.execute(f"SET statement_timeout = '{LIMIT}s'")
    return link


class Victim(threading.Thread):
    """Leases, renews, releases and claims all the time, and tells how often all of it was done, and how long it took at most."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server = server
        self.cycles = collections.deque(maxlen=10000)       # (begin, end, lag): since the beginning
        self.done = 0
        self.troubles = []
        self.stop = threading.Event()
        self.link = None

    def query(self, sql, *arguments):
        return cluster.query(self.link, sql, arguments or None)

    def prepare(self):
        self.link = connect(self.server, "victim", name="watcher")
        self.query("SELECT gt_handler_create('v_watch', 'sql', 'INSERT INTO v.seen (n) VALUES (($3->>''n'')::int)'),"
                   " gt_handler_create('v_queue', 'queue', 'https://user:" + SECRET + "@host/')")
        self.hold()

    def hold(self):
        self.held = self.query("SELECT gt_lease_create(%s, 'v_held', duration => '1 minute', payload => %s)",
                               HIDDEN + "held", json.dumps({"pw": SECRET}))[0][0]

    def run(self):
        for n in itertools.count(1):
            if self.stop.is_set():
                return
            try:
                self.cycle(n)
                self.done += 1
            except psycopg2.Error as e:
                self.troubles.append(f"the victim's call failed: {str(e).strip()} ({e.pgcode})")
                if self.link.closed:
                    return
            except Unfair as e:
                self.troubles.append(str(e))

    def cycle(self, n):
        begin = time.monotonic()
        payload = json.dumps({"n": n, "pw": SECRET})
        self.query("SELECT gt_lease_create(%s, 'v_type', duration => '100 ms', cleanup => 'v_watch', payload => %s)",
                   f"{HIDDEN}{n}", payload)
        due = time.monotonic() + 0.1
        self.query("SELECT gt_release(gt_lease_create(%s, 'v_type', cleanup => 'v_queue', payload => %s))",
                   f"{HIDDEN}q{n}", payload)
        if not self.query("SELECT sum(gt_ack(cleanup_id, attempt)::int) FROM gt_claim('{v_queue}')")[0][0]:
            raise Unfair("the victim's queue gave nothing although its object was due")
        try:
            self.query("SELECT gt_renew(%s)", self.held)
        except psycopg2.Error as e:
            self.hold()
            raise Unfair(f"the victim's lease was lost: {e}") from e
        if not cluster.wait_until(lambda: self.query("SELECT 1 FROM v.seen WHERE n = %s", n), LIMIT, 0.02):
            raise Unfair(f"an object of the victim was not cleaned for {LIMIT} s")
        now = time.monotonic()
        self.cycles.append((begin, now, now - due))


class LockWatch(threading.Thread):
    """Nobody but a trespasser waits for a lock that a trespasser holds; a worker only within that role's own handler."""

    WAITING = """
    SELECT a.pid, coalesce(a.usename, a.backend_type), coalesce(b.usename, 'a prepared transaction'), a.query, b.query, a.wait_event
    FROM pg_stat_activity a CROSS JOIN unnest(pg_blocking_pids(a.pid)) AS p
        LEFT JOIN pg_stat_activity b ON b.pid = p LEFT JOIN gt_workers w ON w.pid = a.pid
    WHERE a.wait_event_type = 'Lock' AND (b.usename = ANY (%s) OR p = 0)
        AND (a.usename IN ('victim', 'postgres') OR a.backend_type ~ 'garbagetruck')
        AND a.query !~ 'may wait' AND NOT coalesce(w.state = 'cleaning' AND w.handler ~ '^m_', false)"""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.link = connect(server, "postgres", name="watcher of locks")
        self.troubles = []
        self.stop = threading.Event()

    def run(self):
        before = set()
        while not self.stop.wait(0.1):
            rows = cluster.query(self.link, self.WAITING, (list(TRESPASSERS),))
            now = {r[:3] for r in rows}
            for pid, who, whose, what, their, event in rows:
                if (pid, who, whose) in before:             # not only in passing
                    self.troubles.append(f"{who} waits for a lock ({event}) of {whose}: {what[:150]} | {their[:150]}")
            before = now


@contextlib.contextmanager
def unloaded(t):
    """A town of its own for this attack, of the same logins, on a server that does not preload the library."""
    os.environ["GT_BINDIR"] = t.server.bindir
    settings = {k: v for k, v in SETTINGS.items() if not k.startswith("garbagetruck.")}
    with cluster.Cluster(settings, preload=False) as server:
        server.start()
        build(server)
        other = Town(server, t.attack)
        other.found = t.found
        yield other
        for link in [*other.links.values(), *other.opened]:
            link.close()


class Listener(threading.Thread):
    """An http server of this machine that only somebody whom it trusts should call; what it was asked for."""

    def __init__(self):
        super().__init__(daemon=True)
        self.paths = paths = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self):
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                paths.append(self.path)
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

            do_GET = do_POST = do_PUT = do_DELETE = answer

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]

    def run(self):
        self.server.serve_forever()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


@contextlib.contextmanager
def sidecar(server, role, *options):
    """The sidecar, which is built, connected as this role."""
    binary = os.environ.get("GARBAGETRUCK", os.path.join(cluster.TOP, "src", "sidecar", "garbagetruck"))
    process = subprocess.Popen([binary, "serve", "--db", server.dsn("shop", role), "--listen", "127.0.0.1:0", "--admin", "", *options],
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(LIMIT)


class Town:
    """What one attack has at hand. Its names end in a number of its own, so that attacks can go on side by side."""

    numbers = itertools.count(1)

    def __init__(self, server, name):
        self.server = server
        self.attack = name
        self.n = next(self.numbers)
        self.links = {}
        self.opened = []
        self.handlers = []
        self.undo = []
        self.found = []

    # --- statements

    def link(self, role, database="shop"):
        key = role, database
        if key not in self.links:
            self.links[key] = connect(self.server, role, database)
        return self.links[key]

    def look(self, role, statement, text):
        """What a trespasser is told must not have the victim's secrets in it, but for what he said himself."""
        if role in TRESPASSERS:
            for word in (SECRET, HIDDEN):
                if word in text and word not in statement:
                    self.found.append(f"{role} read {text[max(0, text.index(word) - 60):][:150]!r} by {statement[:150]}")

    def execute(self, role, link, sql, arguments):
        statement = sql + repr(arguments)
        with link.cursor() as cursor:
            try:
                cursor.execute(sql, arguments or None)
                rows = cursor.fetchall() if cursor.description else []
                self.look(role, statement, repr(rows))
                return rows
            except psycopg2.Error as e:
                self.look(role, statement, str(e))
                raise
            finally:
                self.look(role, statement, repr(link.notices))
                del link.notices[:]

    def sql(self, role, sql, *arguments, database="shop"):
        return self.execute(role, self.link(role, database), sql, arguments)

    def value(self, role, sql, *arguments):
        return self.sql(role, sql, *arguments)[0][0]

    def admin(self, sql, *arguments, database="shop"):
        return self.sql("postgres", sql, *arguments, database=database)

    def afterwards(self, role, sql, database="shop"):
        """What is done when the attack is over, however it ended; the last first."""
        self.undo.append((role, sql, database))

    def refused(self, role, state, sql, *arguments, link=None):
        """The statement fails with that SQLSTATE (several: with one of them)."""
        try:
            rows = self.execute(role, link or self.link(role), sql, arguments)
        except psycopg2.Error as e:
            if e.pgcode not in state.split():
                self.fault(f"{role} got {e.pgcode} ({str(e).strip()}), not {state}: {sql}")
            return
        self.fault(f"{role} was not refused ({state}), but got {rows!r}: {sql}")

    def same(self, got, wanted, what):
        if got != wanted:
            self.fault(f"{what}: {got!r} instead of {wanted!r}")

    def fault(self, text):
        self.found.append(text)

    # --- connections with something open; closed when the attack is over

    def session(self, role, *statements, database="shop"):
        """A connection of its own, outside of a transaction."""
        link = connect(self.server, role, database, name=f"{role}'s {self.attack}")
        self.opened.append(link)
        for sql in statements:
            self.execute(role, link, sql, ())
        return link

    def holding(self, role, *statements, database="shop"):
        """A transaction that has done this and stays open."""
        return self.session(role, "BEGIN", *statements, database=database)

    def waits(self, link):
        """Whether the statement that `link` was sent waits for a lock; for what may wait, as a check of the check."""
        return bool(self.admin("SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'", link.info.backend_pid))

    def views(self):
        """What there is to be read in the extension's schema."""
        return [row[0] for row in self.admin(
            "SELECT relname::text FROM pg_class JOIN pg_depend d ON objid = pg_class.oid AND classid = 'pg_class'::regclass"
            " JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND refobjid = e.oid"
            " WHERE extname = 'garbagetruck' AND relkind = 'v' AND relnamespace = extnamespace ORDER BY 1")]

    def prepared(self, role, link, gid):
        """Prepares the transaction of that connection; false: the server refuses that, and has rolled it back."""
        try:
            self.execute(role, link, f"PREPARE TRANSACTION '{gid}'", ())
            return True
        except psycopg2.errors.FeatureNotSupported:
            return False

    # --- handlers and garbage

    def name(self, text):
        """Of a handler or an object type: mallory's begin with m_, which the watcher of locks knows."""
        return f"m_{text}_{self.n}"

    def handler(self, name, kind, command, role="mallory", **options):
        arguments = [name, kind, command, *options.values()]
        extra = "".join(f", {k} => %s" for k in options)
        self.sql(role, f"SELECT gt_handler_create(%s, %s, %s{extra})", *arguments)
        self.handlers.append((role, name))
        return name

    def garbage(self, handler, count=1, role="mallory", object_type=None, payload=None):
        self.sql(role, "SELECT gt_release_many(gt_lease_create_many(ARRAY(SELECT %s || i FROM generate_series(1, %s) i), %s,"
                       " cleanup => %s, payload => %s))", f"{handler}-", count, object_type or handler, handler, payload)

    def until(self, what, condition):
        """Waits for a condition of the attack itself."""
        if not cluster.wait_until(condition, LIMIT, 0.02):
            raise Unfair(f"the attack did not come about: {what}")

    def running(self, handler):
        self.until(f"{handler} does not run", lambda: self.admin("SELECT 1 FROM gt_workers WHERE handler = %s", handler))

    def seen_by(self, handler, field="runs"):
        return self.admin(f"SELECT {field} FROM gt_handlers WHERE name = %s", handler)[0][0]

    def ran(self, handler, field="runs", count=1):
        self.until(f"{handler} has not run", lambda: (self.seen_by(handler, field) or 0) >= count)

    def discard(self, handler):
        """The handler is given up: its runs are ended, its garbage is forgotten, its leases are released."""
        self.admin("SELECT gt_pause(name) FROM gt_handlers WHERE name = %s", handler)

        def gone():
            self.admin("SELECT pg_terminate_backend(pid) FROM gt_workers WHERE handler = %s", handler)
            self.admin("SELECT gt_release_many(ARRAY(SELECT lease_id FROM gt_leases WHERE cleanup = %s))", handler)
            self.admin("SELECT gt_ack(cleanup_id, attempts), gt_ack(cleanup_id, attempts + 1) FROM gt_garbage WHERE handler = %s"
                       " UNION ALL SELECT gt_ack(cleanup_id, attempts), NULL FROM gt_dead WHERE handler = %s", handler, handler)
            try:
                self.admin("SELECT gt_handler_drop(%s)", handler)
                return True
            except psycopg2.Error:
                return False
        if not cluster.wait_until(gone, LIMIT, 0.05):
            self.fault(f"{handler} could not be dropped: "
                       f"{self.admin('SELECT state, attempts, error FROM gt_garbage WHERE handler = %s LIMIT 3', handler)!r}")

    # --- the end

    def check_spies(self):
        for name, called in self.admin("SELECT sequencename, last_value IS NOT NULL FROM pg_sequences WHERE schemaname = 'ran'"):
            by, role = name.split("_as_") if "_as_" in name else name.split("_in_session_of_")
            if called and by != role:
                self.found.append(f"a function that {by} planted ran {name[len(by) + 1:].replace('_', ' ')}")
                self.admin(f"SELECT setval('ran.{name}', 1, false)")

    def check_roles(self):
        for name, in self.admin("SELECT rolname FROM pg_roles WHERE rolsuper AND rolname <> 'postgres'"):
            self.found.append(f"{name} is a superuser now")
            self.admin(f"ALTER ROLE {name} NOSUPERUSER")
        for name, in self.admin("SELECT pg_get_userbyid(member) FROM pg_auth_members WHERE member::regrole::text = ANY (%s)", list(LOGINS)):
            self.found.append(f"{name} is a member of somebody now")

    def undone(self, role, sql, database):
        try:
            self.sql(role, sql, database=database)
            return True
        except psycopg2.Error:
            return False

    def insist(self, role, sql, database="shop"):
        """Until it succeeds."""
        if not cluster.wait_until(lambda: self.undone(role, sql, database), LIMIT):
            self.fault(f"could not be done: {sql}")

    def leave(self, database):
        """Closes the connections to it."""
        for link in [self.links.pop(k) for k in list(self.links) if k[1] == database]:
            link.close()

    def restart(self):
        """Stops the server at once, with all who are connected, and starts it again."""
        self.server.stop("immediate")
        self.server.start()
        self.links.clear()
        self.opened.clear()

    def close(self):
        for link in self.opened:
            if not link.closed:
                link.cancel()
                link.close()
        for role, handler in reversed(self.handlers):
            self.discard(handler)
        for role, sql, database in reversed(self.undo):
            self.insist(role, sql, database)
        self.check_spies()
        self.check_roles()
        for link in self.links.values():
            link.close()


def build(server):
    """The town as an administrator makes it."""
    admin = server.connect()
    for role in LOGINS:
        cluster.query(admin, f"CREATE ROLE {role} LOGIN")
    cluster.query(admin, "CREATE DATABASE shop OWNER dbo")
    cluster.query(admin, "CREATE DATABASE quiet OWNER dbo")
    for database in ("shop", "quiet"):
        with server.connect(database) as link:
            cluster.query(link, SCHEMA.format(secret=SECRET) + ALLOW)
            for by in TRESPASSERS:
                cluster.query(link, SPY.format(by=by))
                for role in LOGINS + ("postgres",):
                    for how in ("as", "in_session_of"):
                        cluster.query(link, f"CREATE SEQUENCE ran.{by}_{how}_{role}; GRANT ALL ON ran.{by}_{how}_{role} TO PUBLIC")
    admin.close()
