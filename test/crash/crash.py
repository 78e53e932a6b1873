"""What a crash may not do (promise I1): 2,000 leases that living holders renew, 2,000 of dead ones, and a fault between.

Each scenario creates the dead ones' leases, waits until some of them are over, kills something, waits until the server is
there again, and then holds the record of all cleanups against what was acknowledged:
 - every renewal of a living holder succeeds, and no object of theirs is cleaned;
 - every object of the dead is cleaned exactly once;
 - a prepared transaction of theirs, which another session commits after the fault, is as the rest;
 - no lease ended before its acknowledged deadline, and, where the server was away, none that ran before S + G;
 - none was prolonged beyond greatest(deadline, S) + 2 G.
The last two compare instants that the server recorded on its own clock, not how long anything took.
"""
import os
import shutil
import signal
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
sys.dont_write_bytecode = True

import psycopg2                                  # noqa: E402
from cluster import Cluster, query, value, wait_until   # noqa: E402

LIVING = 2000
DEAD = 2000
PREPARED = 200              # more of them
HOLDERS = 4
LIVING_DURATION = 6         # s
DEAD_DURATIONS = (2, 4)     # of one half and of the other: the fault comes when the first ones are being cleaned
GRACE = 6                   # restart_grace
SETTINGS = {
    "garbagetruck.restart_grace": f"'{GRACE}s'",
    "garbagetruck.history": "all",
    "log_min_messages": "warning",
    "max_prepared_transactions": "4",
    "max_wal_senders": "4",
    "wal_level": "replica",
    "hot_standby": "on",
    "restart_after_crash": "on",
}

passed = failed = 0


def check(ok, what):
    global passed, failed
    if ok:
        passed += 1
    else:
        failed += 1
    print(("ok - " if ok else "NOT ok - ") + what, flush=True)


class Holder(threading.Thread):
    """A living service: it renews all of its leases again and again, and connects again when the server was away."""

    def __init__(self, where, ids):
        super().__init__(daemon=True)
        self.where = where              # a function: the server of the moment
        self.ids = ids
        self.lost = []
        self.rounds = 0
        self.over = False

    def run(self):
        link = None
        while not self.over:
            try:
                if link is None:
                    link = self.where().connect(name="living")
                for lease, status in query(link, "SELECT lease_id, status FROM gt_renew_many(%s::uuid[])", (self.ids,)):
                    if status != "renewed":
                        self.lost.append((lease, status))
                self.rounds += 1
                time.sleep(0.5)         # the heartbeat of the application, not a wait for anything
            except psycopg2.Error:
                link = None
                time.sleep(0.05)


class Crash:
    def __init__(self):
        self.server = Cluster(SETTINGS)
        self.server.start()
        self.spare = None
        link = self.server.connect()
        query(link, """CREATE EXTENSION garbagetruck;
            CREATE TABLE cleaned (object_id text, at timestamptz);
            SELECT gt_handler_create('note', 'sql', 'INSERT INTO cleaned VALUES ($1, gt_clock())')""")
        ids = value(link, "SELECT gt_lease_create_many(array(SELECT 'living-' || i FROM generate_series(1, %s) i),"
                    " duration => %s, cleanup => 'note')::text[]", (LIVING, f"{LIVING_DURATION} s"))
        link.close()
        self.holders = [Holder(lambda: self.server, ids[i::HOLDERS]) for i in range(HOLDERS)]
        for holder in self.holders:
            holder.start()

    def heartbeats(self):
        """Waits until each holder has renewed all of its leases from now on."""
        before = [h.rounds for h in self.holders]
        return wait_until(lambda: all(h.rounds > b + 1 for h, b in zip(self.holders, before)), 60)

    def answering(self):
        def ask():
            try:
                link = self.server.connect()
                value(link, "SELECT 1")
                return link
            except psycopg2.Error:
                return None
        return wait_until(ask, 60)

    @staticmethod
    def broken(link):
        try:
            value(link, "SELECT 1")
            return False
        except psycopg2.Error:
            return True

    def started_at(self, link):
        """The run that is recorded, and when it began: the first and the last of several who said so at once."""
        rows = query(link, "SELECT run, min(started_at), max(started_at) FROM _garbagetruck.gt__start GROUP BY run ORDER BY 3 DESC")
        return rows[0] if rows else (None,)

    def scenario(self, name, fault):
        link = self.server.connect()
        check(self.heartbeats(), f"{name}: the living renew before")
        before = self.started_at(link)
        for number, duration in enumerate(DEAD_DURATIONS):
            query(link, "SELECT gt_lease_create_many(array(SELECT %s || i FROM generate_series(1, %s) i),"
                  " duration => %s, cleanup => 'note')",
                  (f"{name}-{number}-", DEAD // len(DEAD_DURATIONS), f"{duration} s"))
        # each was renewed once, in shared memory
        query(link, "SELECT count(*) FROM (SELECT array_agg(lease_id) AS ids FROM gt_leases WHERE object_id LIKE %s) l, gt_renew_many(ids)",
              (name + "-%",))
        query(link, "CREATE TABLE IF NOT EXISTS acknowledged (object_id text, deadline timestamptz, grace interval)")
        query(link, "INSERT INTO acknowledged SELECT object_id, expires_at, least(duration, %s) FROM gt_leases"
              " WHERE object_id LIKE %s", (f"{GRACE} s", name + "-%"))
        self.prepare(name, link)
        fault(link)
        check(wait_until(lambda: self.broken(link), 60), f"{name}: the server was away")
        link = self.answering()
        check(link is not None, f"{name}: the server answers again")
        query(link, f"COMMIT PREPARED '{name}'")
        check(self.heartbeats(), f"{name}: the living renew after")
        check(wait_until(lambda: self.started_at(link)[0] not in (None, before[0]), 60),
              f"{name}: the new start of the server was recorded")
        done = wait_until(lambda: value(link, "SELECT count(DISTINCT object_id) FROM cleaned WHERE object_id LIKE %s",
                                        (name + "-%",)) == DEAD + PREPARED, 120, 0.2)
        check(done, f"{name}: every object of the dead is cleaned")
        check(value(link, "SELECT count(*) FROM cleaned WHERE object_id LIKE %s", (name + "-%",)) == DEAD + PREPARED,
              f"{name}: each of them once")
        wait_until(lambda: value(link, "SELECT count(*) FROM _garbagetruck.gt_object WHERE object_id LIKE %s", (name + "-%",)) == 0, 60)
        _, started, latest = self.started_at(link)
        # when each lease was over, as the history has it: the end of the cleanup less its lag
        rows = query(link, """
            SELECT count(*),
                   count(*) FILTER (WHERE h.at - h.lag < a.deadline - interval '1 ms'),
                   count(*) FILTER (WHERE c.at < a.deadline),
                   count(*) FILTER (WHERE h.at - h.lag > %(started)s
                                          AND h.at - h.lag < %(started)s + a.grace - interval '1 ms'),
                   count(*) FILTER (WHERE h.at - h.lag > greatest(a.deadline, %(latest)s) + 2 * a.grace + interval '1 ms')
            FROM acknowledged a JOIN cleaned c USING (object_id)
                JOIN gt_history h ON h.object_id = a.object_id AND h.event = 'cleaned'
            WHERE a.object_id LIKE %(like)s AND c.at > %(started)s""",
                     {"started": started, "latest": latest, "like": name + "-%"})
        n, early, cleaned_early, without_grace, late = rows[0]
        check(n > 0, f"{name}: {n} objects of the dead were cleaned after the fault")
        check(early == 0 and cleaned_early == 0, f"{name}: none before its acknowledged deadline")
        check(without_grace == 0, f"{name}: none before the start and its grace")
        check(late == 0, f"{name}: none prolonged beyond twice the grace")
        self.living(name, link)
        link.close()

    @staticmethod
    def prepare(name, link):
        query(link, "BEGIN")
        query(link, "SELECT gt_lease_create_many(array(SELECT %s || i FROM generate_series(1, %s) i), duration => %s, cleanup => 'note')",
              (name + "-prepared-", PREPARED, f"{DEAD_DURATIONS[-1]} s"))
        query(link, "INSERT INTO acknowledged SELECT object_id, expires_at, least(duration, %s) FROM gt_leases WHERE object_id LIKE %s",
              (f"{GRACE} s", name + "-prepared-%"))
        query(link, f"PREPARE TRANSACTION '{name}'")

    def living(self, name, link):
        lost = [l for h in self.holders for l in h.lost]
        check(not lost, f"{name}: no living holder lost a lease" + (f": {len(lost)}, e.g. {lost[0]}" if lost else ""))
        check(value(link, "SELECT count(*) FROM cleaned WHERE object_id LIKE 'living-%%'") == 0
              and value(link, "SELECT count(*) FROM _garbagetruck.gt_lease WHERE object_id LIKE 'living-%%'") == LIVING,
              f"{name}: no object of the living was cleaned, all of their leases are there")

    # --- the faults; they begin when some of the leases of the dead are over, so that workers are at it

    def some_cleaned(self, link, name):
        wait_until(lambda: value(link, "SELECT count(*) FROM cleaned WHERE object_id LIKE %s", (name + "-%",)) > 0, 60, 0.005)

    def postmaster(self, link):
        self.server.kill()
        self.server.start()

    def immediate(self, link):
        self.server.stop("immediate")
        self.server.start()

    def backend(self, link):
        os.kill(value(link, "SELECT pid FROM pg_stat_activity WHERE application_name = 'living' LIMIT 1"), signal.SIGKILL)

    def worker(self, link):
        find = "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'garbagetruck worker%%' LIMIT 1"
        rows = wait_until(lambda: query(link, find), 60, 0.002)
        check(bool(rows), "worker: there is one to be killed")
        if rows:
            os.kill(rows[0][0], signal.SIGKILL)

    def follow(self):
        """A standby that started long before its promotion."""
        self.spare = self.server.follow(self.server.home + "-standby")

    def promotion(self, link):
        primary = self.server
        primary.kill()
        self.spare.promote()
        self.server, self.spare = self.spare, primary

    def close(self):
        for holder in self.holders:
            holder.over = True
        for holder in self.holders:
            holder.join(30)
        self.server.close()
        if self.spare is not None:
            self.spare.close()
            shutil.rmtree(self.spare.home, ignore_errors=True)


SCENARIOS = ("backend", "worker", "immediate", "postmaster", "promotion")


def main():
    wanted = sys.argv[1:] or SCENARIOS
    fine = False
    crash = Crash()
    try:
        for name in wanted:
            if name == "promotion":
                crash.follow()
            fault = getattr(crash, name)

            def when_some_are_cleaned(link, name=name, fault=fault):
                if name != "worker":
                    crash.some_cleaned(link, name)
                fault(link)
            crash.scenario(name, when_some_are_cleaned)
        fine = not failed
    finally:
        if not fine:
            print(crash.server.log_tail(30))
        crash.close()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
