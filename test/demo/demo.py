"""The demo: three owners, a kill -9 of one of them, a kill -9 of the server, and what became of everybody's rows.

Runs on a private server in a temporary directory. Exits 0 only if every claim that it prints is true.
"""
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
sys.dont_write_bytecode = True

import psycopg2     # noqa: E402

import cluster      # noqa: E402
from cluster import query, value, wait_until      # noqa: E402

TTL = 8             # seconds: the duration of every lease here
GRACE = 5           # garbagetruck.restart_grace; the default is ten minutes
AWAY = 10           # how long the server is away: longer than any lease runs
FILES = 2000        # per owner
LIMIT = 90          # for anything that has to happen

SCHEMA = """
CREATE SCHEMA app;
SET search_path = app, public;
CREATE SEQUENCE files_id;
CREATE TABLE files (id bigint PRIMARY KEY, owner text, batch uuid, lease_id uuid, path text, sha256 bytea, content bytea);
CREATE INDEX ON files (batch);
CREATE TABLE uploaded (id bigint PRIMARY KEY, owner text, sha256 bytea);     -- the ledger: written with each row, kept
CREATE TABLE cleaned (id bigint, cleanup_id bigint, at timestamptz);         -- written by the cleanup itself
-- of those killed: the last deadline that they were promised, and when it ended with the grace of a restart
CREATE TABLE promised (id bigint PRIMARY KEY, until timestamptz, due timestamptz);
SELECT gt_handler_create('delete_upload', 'sql',
    'WITH gone AS (DELETE FROM files WHERE id = $1) INSERT INTO cleaned VALUES ($1, $9, gt_clock())');
"""

REPORT = """
SELECT u.owner, count(*) AS uploaded,
       count(f.id) AS kept,
       count(f.id) FILTER (WHERE sha256(f.content) = u.sha256) AS intact,
       count(c.id) AS cleaned,
       count(*) FILTER (WHERE c.times > 1) AS cleaned_twice,
       count(*) FILTER (WHERE c.at < p.until) AS cleaned_early,
       percentile_disc(0.50) WITHIN GROUP (ORDER BY c.at - p.due) AS lag_p50,
       percentile_disc(0.99) WITHIN GROUP (ORDER BY c.at - p.due) AS lag_p99,
       max(c.at - p.due) AS lag_max
FROM app.uploaded u
     LEFT JOIN app.files f USING (id)
     LEFT JOIN (SELECT id, min(at) AS at, count(*) AS times FROM app.cleaned GROUP BY id) c USING (id)
     LEFT JOIN app.promised p USING (id)
GROUP BY u.owner ORDER BY u.owner;
"""

PROGRESS = """
SELECT u.owner, count(f.id), count(l.lease_id), count(*) - count(f.id)
FROM app.uploaded u
     LEFT JOIN app.files f USING (id)
     LEFT JOIN gt_leases l ON l.lease_id = f.lease_id AND l.state = 'active'
GROUP BY u.owner ORDER BY u.owner
"""


class Process:
    """An owner, seen from outside: its pid, and what it said."""

    def __init__(self, server, name, style, paths, pause=0.2):
        self.name, self.uploaded, self.troubles, self.done = name, set(), [], False
        self.alive = True
        self.popen = subprocess.Popen([sys.executable, "-B", os.path.join(HERE, "owner.py")], text=True,
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        json.dump({"name": name, "style": style, "dsn": server.dsn("demo", "demo"), "ttl": TTL, "pause": pause,
                   "paths": paths}, self.popen.stdin)
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.popen.stdout:
            try:
                said = json.loads(line)
            except ValueError:          # cut short by the kill
                continue
            self.uploaded.update(said.get("uploaded", ()))
            if said.get("lost"):
                self.troubles.append(f"{self.name} lost {len(said['lost'])} leases: {said['lost'][:3]}")
            if said.get("failed"):
                self.troubles.append(f"{self.name}: {said['failed']}")
            self.done = self.done or said.get("done", False)

    def kill(self):
        self.popen.send_signal(signal.SIGKILL)
        self.popen.wait()
        self.reader.join()
        self.alive = False


class Demo:
    def __init__(self):
        self.began = time.monotonic()
        self.processes = []
        self.wrong = []
        self.link = None
        self.asked, self.shown, self.line = 0.0, 0.0, ""

    def say(self, text=""):
        print(f"\n{time.monotonic() - self.began:5.1f} s  {text}" if text else "", flush=True)

    def claim(self, true, text):
        print(f"         {'yes' if true else 'NO '}  {text}", flush=True)
        if not true:
            self.wrong.append(text)

    # --- the live view

    def progress(self, always=False):
        """A line about everybody, at most one a second; of what stands still, one in five seconds."""
        now = time.monotonic()
        if not always and now - self.asked < 1:
            return
        self.asked = now
        rows = query(self.link, PROGRESS)
        waiting = value(self.link, "SELECT count(*) FROM gt_garbage")
        dead = {p.name for p in self.processes if not p.alive}
        parts = [f"{owner}{' (dead)' if owner in dead else ''} {kept} rows, {held} held, {gone} cleaned"
                 for owner, kept, held, gone in rows]
        line = f"{' | '.join(parts)} | {waiting} waiting"
        if always or line != self.line or now - self.shown >= 5:
            self.line, self.shown = line, now
            print(f"{now - self.began:7.1f} s  {line}", flush=True)

    def until(self, condition, what):
        def step():
            self.progress()
            if any(p.troubles for p in self.processes):
                raise cluster.Failed(f"while waiting until {what}")
            return condition()
        if not wait_until(step, LIMIT, 0.1):
            raise cluster.Failed(f"waited {LIMIT} s in vain until {what}")

    def watch(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.progress()
            time.sleep(0.1)

    # --- steps

    def start(self, server):
        self.server = server
        server.start()
        admin = server.connect()
        for statement in ("CREATE ROLE demo LOGIN", "CREATE DATABASE demo OWNER demo"):
            query(admin, statement)
        admin.close()
        admin = server.connect("demo")
        query(admin, "CREATE EXTENSION garbagetruck; SELECT gt_allow('demo'); SELECT gt_allow('demo', 'handler');"
                     "ALTER ROLE demo SET search_path = app, public")
        admin.close()
        self.link = server.connect("demo", "demo", name="demo")
        query(self.link, SCHEMA)

    def launch(self, name, style, paths):
        process = Process(self.server, name, style, paths)
        self.processes.append(process)
        return process

    def kill_owner(self, process):
        process.kill()
        # what the database promised to its leases last: nobody renews them any more
        self.until(lambda: not query(self.link, "SELECT 1 FROM pg_stat_activity WHERE application_name = %s", (process.name,)),
                   "its sessions are gone")
        query(self.link, "INSERT INTO promised SELECT object_id::bigint, expires_at, expires_at FROM gt_leases"
                         " WHERE service_id = %s AND object_type = 'database_row'", (process.name,))
        return value(self.link, "SELECT count(*) FROM files WHERE owner = %s AND lease_id IN (SELECT lease_id FROM gt_leases)",
                     (process.name,))

    def kill_server(self):
        self.link.close()
        self.server.kill()
        print(f"{time.monotonic() - self.began:7.1f} s  no server", flush=True)
        for _ in range(AWAY):
            time.sleep(1)
            print(f"{time.monotonic() - self.began:7.1f} s  no server", flush=True)
        self.server.start()
        self.link = self.server.connect("demo", "demo", name="demo")
        query(self.link, "UPDATE promised SET due = expires_at FROM gt_leases WHERE object_id = id::text")
        return value(self.link, "SELECT gt_clock()")

    def left(self, process):
        """Rows of an owner that have a lease, or are garbage."""
        return value(self.link, "SELECT count(*) FROM files f JOIN promised p USING (id) WHERE owner = %s", (process.name,))

    def run(self, server):
        self.say("starting the server, with a restart_grace of "
                 f"{GRACE} s for this demo (the default is ten minutes)")
        self.start(server)
        paths = find_files(4 * FILES)
        quarter = len(paths) // 4
        self.say(f"three owners upload {3 * quarter} files from /usr into a table; every lease runs {TTL} s unless renewed.\n"
                 "         alice holds one lease for her process, her files' leases are its children;\n"
                 "         bob holds a lease per file and renews them by gt_renew_many; carol does as bob does.\n"
                 "         A quarter of the files is published (released with keep): those need no owner any more.")
        alice = self.launch("alice", "parent", paths[:quarter])
        bob = self.launch("bob", "each", paths[quarter:2 * quarter])
        carol = self.launch("carol", "each", paths[2 * quarter:3 * quarter])
        self.until(lambda: len(carol.uploaded) > quarter / 4, "carol has uploaded a quarter of her files")

        self.say("kill -9 of carol, in the middle of her work")
        held = self.kill_owner(carol)
        print(f"         she leaves {held} rows that are held by leases")
        self.until(lambda: not self.left(carol), "carol's rows are cleaned")

        self.say("carol's successor dave works as alice does: one lease for the process")
        dave = self.launch("dave", "parent", paths[3 * quarter:])
        self.until(lambda: len(dave.uploaded) > quarter / 8, "dave has uploaded an eighth of his files")
        self.say(f"kill -9 of dave, and at once kill -9 of the server, which stays away for {AWAY} s: longer than any lease runs")
        held = self.kill_owner(dave)
        print(f"         he leaves {held} rows that are held by leases")
        back = self.kill_server()
        self.say("the server is back: whoever lives renews; the dead do not")
        self.until(lambda: not self.left(dave), "dave's rows are cleaned")
        self.until(lambda: alice.done and bob.done, "alice and bob have uploaded everything")
        self.say("alice and bob hold on for two more lives of their leases")
        self.watch(2 * TTL)
        self.judge(alice, bob, carol, dave, back)

    # --- the end

    def judge(self, alice, bob, carol, dave, back):
        self.progress(always=True)
        self.say("the database's own account:\n" + REPORT)
        print(self.server.tool("psql", "-X", "-d", "demo", "-c", REPORT))
        rows = {r[0]: r for r in query(self.link, REPORT)}
        self.say("is it true?")
        for p in (alice, bob):
            _, uploaded, kept, intact, cleaned = rows[p.name][:5]
            ids = {r[0] for r in query(self.link, "SELECT id FROM files WHERE owner = %s", (p.name,))}
            self.claim(p.uploaded <= ids and kept == uploaded == intact and cleaned == 0 and not p.troubles,
                       f"{p.name} lives: of {len(p.uploaded)} rows that the process knows to have committed, "
                       f"{len(p.uploaded & ids)} are there, {intact} intact; none was cleaned")
            self.wrong += p.troubles
        for p in (carol, dave):
            _, uploaded, kept, intact, cleaned, twice, early = rows[p.name][:7]
            published = value(self.link, "SELECT count(*) FROM uploaded u WHERE owner = %s AND NOT EXISTS"
                                         " (SELECT FROM promised p WHERE p.id = u.id)", (p.name,))
            self.claim(cleaned > 0 and cleaned + published == uploaded and kept == published == intact,
                       f"{p.name} is dead: of {uploaded} rows {cleaned} were held and are cleaned; "
                       f"{published} had been published and are still there")
            self.claim(twice == 0, f"each of them was cleaned once ({twice} twice)")
            self.claim(early == 0, f"none was cleaned before its deadline ({early} were)")
        last = value(self.link, "SELECT max(at) - %s FROM cleaned JOIN uploaded USING (id) WHERE owner = 'dave'", (back,))
        first = value(self.link, "SELECT min(at) - pg_postmaster_start_time() FROM cleaned JOIN uploaded USING (id)"
                                 " WHERE owner = 'dave'")
        self.claim(first.total_seconds() >= min(TTL, GRACE),
                   f"dave's leases had the grace of {min(TTL, GRACE)} s after the restart: "
                   f"the first ended {first.total_seconds():.2f} s after it")
        self.claim(last.total_seconds() < LIMIT,
                   f"and no more than that: the last was cleaned {last.total_seconds():.2f} s after the server was back "
                   f"(promised: by {2 * min(TTL, GRACE)} s, and the time to clean)")
        unhealthy = query(self.link, "SELECT count(*) FROM gt_garbage UNION ALL SELECT count(*) FROM gt_dead")
        self.claim([r[0] for r in unhealthy] == [0, 0], "no garbage is left, and no cleanup failed for good")


def find_files(count):
    """Real files: small ones, so that thousands fit."""
    found = []
    for top in ("/usr/include", "/usr/share", "/usr/lib"):
        for directory, _, names in os.walk(top):
            for name in names:
                path = os.path.join(directory, name)
                try:
                    if os.path.isfile(path) and not os.path.islink(path) and 0 < os.path.getsize(path) <= 65536 \
                            and os.access(path, os.R_OK):
                        found.append(path)
                except OSError:
                    continue
        if len(found) >= 4 * count:
            break
    if len(found) < 400:
        raise cluster.Failed(f"only {len(found)} files found under /usr")
    return random.Random(1).sample(found, min(count, len(found)))


def main():
    demo = Demo()
    settings = {"garbagetruck.restart_grace": f"'{GRACE}s'", "log_min_messages": "warning"}
    demo.say("garbagetruck: leases protect rows, and clean up after owners that died; one or two minutes")
    with cluster.Cluster(settings, say=demo.say) as server:
        try:
            demo.run(server)
        except (cluster.Failed, psycopg2.Error) as e:
            demo.wrong.append(str(e).strip())
            print(server.log_tail())
        finally:
            for p in demo.processes:
                demo.wrong += [t for t in p.troubles if t not in demo.wrong]
                if p.alive:
                    p.kill()
        demo.say("everything claimed is true" if not demo.wrong else
                 "NOT TRUE:\n         " + "\n         ".join(demo.wrong))
        if os.environ.get("KEEP"):
            print(f"the server is kept; look around with:\n  {server.bindir}/psql -h {server.home} -U demo demo\n"
                  "press Enter to remove it")
            sys.stdin.readline()
    return 1 if demo.wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except cluster.Failed as e:
        sys.exit(str(e))
    except KeyboardInterrupt:
        sys.exit(130)
