"""Records what becomes of rows with a deadline on a private server, and checks it; stops at the first run that breaks a promise.

Eight clients insert rows, and move their deadlines, delete and lock them, mostly a moment before or after they are over. A
trigger writes down every deletion in its transaction, with the version of the row and gt_clock(); of one row in fifty it
fails now and then. A client writes down what was acknowledged to it. When all are done it is waited until nothing is due any
more (naptime is an hour: a wake-up that is lost shows as rows that are left). Then, by what is in the database and what was
acknowledged:

  early    no row was deleted by us before the deadline of its last committed version
  left     no row is there whose deadline has passed, and none that fails is still put aside
  twice    no row was deleted twice
  lost     every row that was inserted is there, or was deleted
  version  what was deleted is no older than what was acknowledged before
  garbage  of the table with a handler each row that we deleted is garbage once, as it was last, and nothing else is
"""
import argparse
import collections
import os
import random
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
sys.dont_write_bytecode = True

import psycopg2     # noqa: E402

import cluster      # noqa: E402

TABLES = ("plain", "cleaned", "parts")
SETTINGS = {
    "fsync": "off",                 # the machine does not crash here
    "garbagetruck.naptime": "'1h'",
    "garbagetruck.restart_grace": "0",
    "log_min_messages": "warning",
    "log_min_error_statement": "panic",
}
SCHEMA = """
CREATE EXTENSION garbagetruck;
CREATE TABLE gone (tab text, id bigint, n int, deadline timestamptz, at timestamptz, ours boolean);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.id % 50 = 0 AND random() < 0.25 AND current_setting('garbagetruck.in_cleanup')::boolean THEN RAISE 'planned failure'; END IF;
    INSERT INTO public.gone VALUES (TG_ARGV[0], OLD.id, OLD.n, OLD.expires_at, public.gt_clock(),
        current_setting('garbagetruck.in_cleanup')::boolean);
    RETURN NULL;
END $$;
CREATE TABLE plain (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0, expires_at timestamptz);
CREATE TABLE cleaned (LIKE plain INCLUDING ALL);
CREATE TABLE parts (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0, expires_at timestamptz) PARTITION BY HASH (id);
CREATE TABLE parts_0 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 1);
SELECT gt_handler_create('files', 'queue');
SELECT gt_ttl_create('plain', 'expires_at', create_index => true);
SELECT gt_ttl_create('cleaned', 'expires_at', 'files', create_index => true);
SELECT gt_ttl_create('parts', 'expires_at', create_index => true);
CREATE TRIGGER note AFTER DELETE ON plain FOR EACH ROW EXECUTE FUNCTION note('plain');
CREATE TRIGGER note AFTER DELETE ON cleaned FOR EACH ROW EXECUTE FUNCTION note('cleaned');
CREATE TRIGGER note AFTER DELETE ON parts FOR EACH ROW EXECUTE FUNCTION note('parts');
"""
# The table's rows that are over, and those that have failed and wait for their next try.
LEFT = "SELECT " + " + ".join(f"(SELECT count(*) FROM {name} WHERE expires_at < 'infinity')" for name in TABLES) \
    + " + (SELECT count(*) FROM gt_garbage WHERE handler IS NULL)"
MOMENT = 0.005      # s around a deadline


class Shown:
    """What clients know of each other's rows: the deadlines, by the clock of this process."""

    def __init__(self):
        self.lock = threading.Lock()
        self.rows = {}          # (table, id) -> deadline
        self.ids = 0

    def new_ids(self, count):
        with self.lock:
            self.ids += count
            return range(self.ids - count + 1, self.ids + 1)

    def put(self, row, deadline):
        with self.lock:
            self.rows[row] = deadline

    def drop(self, row):
        with self.lock:
            self.rows.pop(row, None)

    def near(self):
        """A row that will be over in a moment, or was a moment ago; else any."""
        now = time.monotonic()
        with self.lock:
            for row in [row for row, deadline in self.rows.items() if deadline < now - 1]:
                del self.rows[row]
            near = [row for row, deadline in self.rows.items() if -MOMENT < deadline - now < 4 * MOMENT]
            return random.choice(near or list(self.rows) or [None]), bool(near)

    def deadline(self, row):
        with self.lock:
            return self.rows.get(row, 0)


class Client(threading.Thread):
    def __init__(self, server, shown, end):
        super().__init__(daemon=True)
        self.server, self.shown, self.end = server, shown, end
        self.link = None
        self.inserted = set()       # (table, id), acknowledged
        self.versions = {}          # (table, id) -> the newest that was acknowledged
        self.done = collections.Counter()
        self.trouble = None

    def run(self):
        steps = (self.insert,) * 5 + (self.extend,) * 7 + (self.shorten,) * 2 + (self.hold,) * 2 + (self.delete, self.forever)
        while time.monotonic() < self.end and self.trouble is None:
            try:
                if self.link is None:
                    self.link = self.server.connect("history", name="client")
                random.choice(steps)()
            except (psycopg2.OperationalError, psycopg2.InterfaceError):    # the server is away, or it was a deadlock
                self.drop_link()
                self.done["lost"] += 1
                time.sleep(0.01)
            except Exception as e:                  # pylint: disable=broad-except
                self.trouble = repr(e)
        self.drop_link()

    def drop_link(self):
        if self.link is not None:
            self.link.close()
        self.link = None

    # --- one step each

    def insert(self):
        name = random.choice(TABLES)
        ids = list(self.shown.new_ids(random.randint(1, 6)))
        after = [random.choice((0, 20, 50, 100, 200)) for _ in ids]
        cluster.query(self.link, f"INSERT INTO {name} (id, expires_at) SELECT i, gt_clock() + a * interval '1 ms'"
                                 f" FROM unnest(%s::bigint[], %s::int[]) AS u (i, a)", (ids, after))
        now = time.monotonic()
        for i, ms in zip(ids, after):
            self.inserted.add((name, i))
            self.shown.put((name, i), now + ms / 1000)
        self.done["inserted"] += len(ids)

    def move(self, ms, kind):
        """The deadline of a row; as often as not in a block, which may be rolled back."""
        row, near = self.shown.near()
        if row is None:
            return
        if near and kind == "extended":
            time.sleep(max(0, self.shown.deadline(row) - time.monotonic() - random.uniform(0, MOMENT / 2)))
        block = random.random()
        if block < 0.5:
            cluster.query(self.link, "BEGIN")
        found = cluster.query(self.link, f"UPDATE {row[0]} SET n = n + 1, expires_at = gt_clock() + %s * interval '1 ms'"
                                         " WHERE id = %s RETURNING n", (ms, row[1]))
        if block < 0.5:
            time.sleep(random.uniform(0, MOMENT))
            cluster.query(self.link, "ROLLBACK" if block < 0.1 else "COMMIT")
        if block < 0.1:
            return
        if not found:
            self.shown.drop(row)
            self.done["too late"] += 1
            return
        self.versions[row] = max(self.versions.get(row, 0), found[0][0])
        self.shown.put(row, time.monotonic() + ms / 1000)
        self.done[kind + (" at the last moment" if near else "")] += 1

    def extend(self):
        self.move(random.choice((20, 40, 80, 200)), "extended")

    def shorten(self):
        self.move(random.choice((0, 1, 5)), "shortened")

    def hold(self):
        row, _ = self.shown.near()
        if row is None:
            return
        cluster.query(self.link, "BEGIN")
        cluster.query(self.link, f"SELECT FROM {row[0]} WHERE id = %s FOR " + random.choice(("UPDATE", "SHARE", "KEY SHARE")), (row[1],))
        time.sleep(random.uniform(0, 2 * MOMENT))
        cluster.query(self.link, "COMMIT")
        self.done["locked"] += 1

    def delete(self):
        row, _ = self.shown.near()
        if row is None:
            return
        cluster.query(self.link, f"DELETE FROM {row[0]} WHERE id = %s", (row[1],))
        self.shown.drop(row)
        self.done["deleted"] += 1

    def forever(self):
        row, _ = self.shown.near()
        if row is None:
            return
        deadline = random.choice(("NULL", "'infinity'"))
        found = cluster.query(self.link, f"UPDATE {row[0]} SET n = n + 1, expires_at = {deadline} WHERE id = %s RETURNING n", (row[1],))
        if found:
            self.versions[row] = max(self.versions.get(row, 0), found[0][0])
        if random.random() < 0.7:       # else it is shown to nobody any more, and stays
            self.shown.put(row, time.monotonic() + 1)
        else:
            self.shown.drop(row)


def killed(server):
    """kill -9 in the middle, and up again."""
    server.kill()
    server.start()


def check(link, inserted, versions):
    """What breaks a promise, as text."""
    found = []
    gone = collections.defaultdict(list)
    for name, i, n, deadline, at, ours in cluster.query(link, "SELECT tab, id, n, deadline, at, ours FROM gone ORDER BY at"):
        gone[name, i].append((n, ours))
        if ours and (deadline is None or at < deadline):
            found.append(f"early: {name} {i}, deleted at {at}, its deadline was {deadline}")
    there = {}
    for name in TABLES:
        for i, n, finite in cluster.query(link, f"SELECT id, n, expires_at < 'infinity' FROM {name}"):
            there[name, i] = n
            if finite:
                found.append(f"left: {name} {i} is over, and there")
    for i, error in cluster.query(link, "SELECT object_id, error FROM gt_garbage WHERE handler IS NULL"):
        found.append(f"left: {i} is still put aside: {error}")
    found += [f"twice: {row} was deleted {len(all_of_it)} times" for row, all_of_it in gone.items() if len(all_of_it) > 1]
    found += [f"twice: {row} was deleted, and is there" for row in gone if row in there]
    found += [f"lost: {row} was inserted, is not there, and nobody deleted it" for row in inserted if row not in gone and row not in there]
    for row, n in versions.items():
        last = gone[row][-1][0] if row in gone else there.get(row, -1)
        if last < n:
            found.append(f"version: of {row} version {n} was acknowledged, and {last} is the last")
    return found + check_garbage(link, gone)


def check_garbage(link, gone):
    made = collections.Counter()
    found = []
    for i, n in cluster.query(link, "SELECT object_id::bigint, (payload ->> 'n')::int FROM gt_garbage WHERE handler = 'files'"):
        made[i] += 1
        if (n, True) not in gone.get(("cleaned", i), []):
            found.append(f"garbage: {i} is garbage as its version {n}, and we have deleted {gone.get(('cleaned', i))}")
    due = {i for (name, i), all_of_it in gone.items() if name == "cleaned" and any(ours for _, ours in all_of_it)}
    found += [f"garbage: {i} was deleted, and is none" for i in due if not made[i]]
    return found + [f"garbage: {i} is garbage {n} times" for i, n in made.items() if n > 1]


def one_run(server, number, options):
    link = server.connect("history")
    cluster.query(link, f"ALTER SYSTEM SET garbagetruck.batch_size = {random.choice((3, 1000))}")
    cluster.query(link, "SELECT pg_reload_conf()")
    cluster.query(link, "TRUNCATE gone, plain, cleaned, parts; SELECT gt_ack(cleanup_id, attempts) FROM gt_garbage")
    link.close()
    shown = Shown()
    clients = [Client(server, shown, time.monotonic() + options.seconds) for _ in range(options.clients)]
    for client in clients:
        client.start()
    if number % 2 == 0:
        time.sleep(options.seconds / 2)
        killed(server)
    for client in clients:
        client.join()
    trouble = [client.trouble for client in clients if client.trouble]
    link = server.connect("history")
    cluster.wait_until(lambda: trouble or cluster.value(link, LEFT) == 0, options.patience)
    versions = {}
    for client in clients:
        for row, n in client.versions.items():
            versions[row] = max(versions.get(row, 0), n)
    found = trouble or check(link, set().union(*(client.inserted for client in clients)), versions)
    done = sum((client.done for client in clients), collections.Counter())
    done["deleted by us"] = cluster.value(link, "SELECT count(*) FROM gone WHERE ours")
    done["failed"] = cluster.value(link, "SELECT sum(failures) FROM gt_ttls")
    print(f"run {number}: " + ", ".join(f"{n} {what}" for what, n in sorted(done.items())), flush=True)
    link.close()
    if found:
        print(f"{len(found)} violations: " + "\n    ".join(found[:20]))
        print(server.log_tail(15))
        return False
    short = [what for what, due in (("deleted by us", 200), ("extended at the last moment", 50), ("too late", 10)) if done[what] < due]
    for what in short:
        print(f"too little happened: only {done[what]} {what}")
    return options.any or not short


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=int, nargs="?", default=2)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--patience", type=float, default=60, help="seconds for which it is waited that all is gone")
    parser.add_argument("--plant", action="append", default=[], metavar="FILE", help="a bug to plant in a copy of the sources")
    parser.add_argument("--any", action="store_true", help="do not insist on enough of everything")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the server")
    options = parser.parse_args()
    settings = dict(SETTINGS)
    settings.update(s.split("=", 1) for s in options.set)
    number = 0
    with cluster.Cluster(settings, patches=options.plant) as server:
        server.start()
        cluster.query(server.connect(), "CREATE DATABASE history")
        with server.connect("history") as link:
            cluster.query(link, SCHEMA)
        for number in range(1, options.runs + 1):
            if not one_run(server, number, options):
                print(f"{number - 1} passed, 1 failed")
                return 1
    print(f"{number} passed, 0 failed")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except cluster.Failed as e:
        sys.exit(str(e))
