"""Outages in the middle of a history: a backend is killed, or the whole server; it is stopped at once; a standby takes over.

A thread of the recording process.  What it does is part of the history: {"t": "outage"} with the instants before it and
when surely nothing ran any more (`down`, `gone`), when the server that came up after it had begun to judge (S of promise 1:
`started`, and `restarted` where several processes said so at once), both on gt_clock(), and the grace.  Clients find the server of the moment by a directory that leads to it.
"""
import os
import random
import shutil
import signal
import threading
import traceback

import psycopg2

from cluster import query, value, wait_until
from record import calibrate, now

GRACE = 150         # restart_grace, ms: less than many durations, and more than some
SETTINGS = {
    "garbagetruck.restart_grace": f"'{GRACE}ms'",
    "restart_after_crash": "on",
    "wal_level": "replica",
    "max_wal_senders": "4",
    "hot_standby": "on",
}


class Place:
    """Where the server is, that of the moment."""

    def __init__(self, server):
        self.server = server
        self.home = server.home         # of the first one
        self.directory = self.home + "-place"
        self.before = []
        self.lead()

    def lead(self):
        os.symlink(self.server.home, self.directory + ".new")
        os.replace(self.directory + ".new", self.directory)

    def dsn(self, dbname="postgres", user="postgres"):
        return f"host={self.directory} port={self.server.port} dbname={dbname} user={user}"

    def connect(self, dbname="postgres", name="history"):
        link = psycopg2.connect(self.dsn(dbname), application_name=name)
        link.autocommit = True
        return link

    def log_tail(self, lines=30):
        return self.server.log_tail(lines)

    def close(self):
        """All but the first server, which is its maker's."""
        if self.before:
            self.server.close()
        for server in self.before[1:]:
            shutil.rmtree(server.home, ignore_errors=True)
        os.unlink(self.directory)


class Outages(threading.Thread):
    KINDS = ("backend", "immediate", "postmaster", "backend", "promotion")
    PAUSE = (1.5, 3.5)

    def __init__(self, place, dbname):
        super().__init__(daemon=True)
        self.place, self.dbname = place, dbname
        self.over = threading.Event()
        self.found = []         # records of the history, by this process' clock but for S
        self.offsets = []       # that of gt_clock(), of each server that came up
        self.trouble = None
        self.made = 0

    def run(self):
        kinds = list(self.KINDS)
        random.shuffle(kinds)
        try:
            while kinds and not self.over.wait(random.uniform(*self.PAUSE)):
                self.outage(getattr(self, kinds.pop()))
        except Exception:
            self.trouble = traceback.format_exc()

    def stop(self):
        self.over.set()
        self.join()
        return self.trouble

    def close(self):
        pass

    # --- one outage

    def answering(self):
        def ask():
            try:
                link = self.place.connect(self.dbname, "outages")
                value(link, "SELECT 1")
                return link
            except psycopg2.Error:
                return None
        link = wait_until(ask, 60)
        if link is None:
            raise RuntimeError("the server does not answer any more")
        return link

    @staticmethod
    def start_of(link):
        """Run and S, as far as they are recorded: the first, by which some may have been judged, and the last."""
        rows = query(link, "SELECT run, hist.us(min(started_at)), hist.us(max(started_at)) FROM _garbagetruck.gt__start"
                           " GROUP BY run ORDER BY 3 DESC LIMIT 1")
        return rows[0] if rows else (None, None, None)

    def outage(self, fault):
        link = self.answering()
        run, _, last = self.start_of(link)
        if self.found:
            self.found[-1]["restarted"] = last
        record = {"t": "outage", "kind": fault.__name__, "grace": GRACE * 1000}
        fault(link, record)
        after = wait_until(lambda: self.begun(run), 60)
        if after is None:
            raise RuntimeError("no process says that the server has started again")
        record["started"], record["restarted"] = after[0]
        record.setdefault("gone", after[2])
        self.offsets.append(after[1])
        self.found.append(record)

    def begun(self, before):
        """S of another run than that, and the offset of the clock."""
        link = self.answering()
        try:
            run, *started = self.start_of(link)
            return (started, calibrate(link, 50), now()) if run not in (None, before) else None
        except psycopg2.Error:
            return None
        finally:
            link.close()

    def last(self):
        """When all is over."""
        if self.found:
            link = self.answering()
            self.found[-1]["restarted"] = self.start_of(link)[2]
            link.close()
        return self.found

    # --- the faults

    def backend(self, link, record):
        def kill():
            rows = query(link, "SELECT pid FROM pg_stat_activity WHERE application_name ~ '^client ' ORDER BY random() LIMIT 1")
            record["down"] = now()
            try:
                os.kill(rows[0][0], signal.SIGKILL)
                return True
            except (IndexError, ProcessLookupError):    # it has gone by itself
                return False
        wait_until(kill, 10)

    def immediate(self, link, record):
        record["down"] = now()
        self.place.server.stop("immediate")
        record["gone"] = now()
        self.place.server.start()

    def postmaster(self, link, record):
        record["down"] = now()
        self.place.server.kill()
        record["gone"] = now()
        self.place.server.start()

    def promotion(self, link, record):
        place = self.place
        spare = place.server.follow(f"{place.home}-{len(place.before) + 1}")
        record["down"] = now()
        place.server.kill()
        record["gone"] = now()
        spare.promote()
        place.before.append(place.server)
        place.server = spare
        place.lead()
