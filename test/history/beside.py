"""What goes on beside the clients of a history: connections that are lost, gt_reclaim in the foreground, table maintenance.

All of it may happen at any time and must change nothing: so nothing of it is recorded.  Threads of the recording process.
"""
import random
import threading

import psycopg2

# what gt_reclaim may meet where clients and workers are at the same rows; 57014: we cancel it
MEETS = {"40001", "40P01", "55P03", "57014"}


class Beside(threading.Thread):
    """Does one step after the other, until it is stopped."""

    pause = (0.2, 0.6)

    def __init__(self, connect):
        super().__init__(daemon=True)
        self.connect = connect
        self.link = connect()
        self.aside = []         # connections that stay open to the end
        self.made = 0           # leases, on objects of its own
        self.over = threading.Event()
        self.trouble = None

    def run(self):
        while not self.over.wait(random.uniform(*self.pause)):
            try:
                with self.link.cursor() as cursor:
                    self.step(cursor)
            except psycopg2.Error as e:
                if e.pgcode not in MEETS:
                    self.trouble = f"{type(self).__name__}: {e} ({e.pgcode})"
                    return
                if self.link.info.transaction_status != psycopg2.extensions.TRANSACTION_STATUS_IDLE:
                    with self.link.cursor() as cursor:
                        cursor.execute("ROLLBACK")

    def stop(self):
        self.over.set()
        self.join()
        return self.trouble

    def last(self):
        """When all that clients and others had is cleaned."""

    def close(self):
        for link in self.aside + [self.link]:
            link.close()


class Killer(Beside):
    """Now and then a client loses its connection."""

    pause = (0.5, 1.5)

    def step(self, cursor):
        cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ~ '^client ' ORDER BY random() LIMIT 1")


class Reclaimer(Beside):
    """gt_reclaim by itself, in a transaction that is kept or not, and cancelled in the middle by somebody who catches that."""

    pause = (0.0, 0.1)
    MOST_ASIDE = 8
    CAUGHT = """DO $$ DECLARE d bigint; BEGIN
        PERFORM gt_release(gt_lease_create('r' || random(), 'aside', cleanup => 'hist_aside'));
        BEGIN CALL gt_reclaim(NULL, d); EXCEPTION WHEN query_canceled OR lock_not_available THEN NULL; END; END $$"""

    def step(self, cursor):
        way = random.random()
        if way < 0.3:
            cursor.execute("CALL gt_reclaim()")
        elif way < 0.5:
            cursor.execute("CALL gt_reclaim(3)")
        elif way < 0.8:
            cursor.execute(f"BEGIN ISOLATION LEVEL {random.choice(('READ COMMITTED', 'REPEATABLE READ'))}")
            cursor.execute("SAVEPOINT s")
            cursor.execute("CALL gt_reclaim()")
            cursor.execute("ROLLBACK TO s" if random.random() < 0.3 else "RELEASE s")
            cursor.execute(random.choice(("COMMIT", "ROLLBACK")))
        else:
            cursor.execute(f"SET statement_timeout = {random.choice((5, 10, 15))}")
            try:
                cursor.execute(self.CAUGHT)
                self.made += 1
            finally:
                cursor.execute("SET statement_timeout = 0")
            if len(self.aside) < self.MOST_ASIDE and random.random() < 0.3:
                self.aside.append(self.link)        # what it has left undone must not be held for as long as it is there
                self.link = self.connect()


class Poisoner(Beside):
    """Two handlers that do well, but for one object each, which takes its worker down: that ends dead, however often others do
    well. The second's comes last, when there is nothing else to do: so it is in a pass that ends its lease and cleans it in one."""

    pause = (0.2, 0.3)

    def lease(self, cursor, name, handler, duration="100 ms"):
        cursor.execute("SELECT gt_lease_create(%s, 'aside', cleanup => %s, duration => %s)", (name, handler, duration))
        self.made += 1

    def step(self, cursor):
        if self.made == 0:
            self.handlers = [f"hist_poison_{random.randrange(10 ** 9)}" for _ in range(2)]
            for handler in self.handlers:
                cursor.execute("SELECT gt_handler_create(%s, 'sql', 'SELECT hist.poison($1)', max_attempts => 1, retry_delay => '10 ms')", (handler,))
        self.lease(cursor, "poison" if self.made == 10 else f"wholesome {self.made}", self.handlers[0])
        self.lease(cursor, f"wholesome {self.made}", self.handlers[1])

    def last(self):
        if self.trouble is None and self.made > 0:
            with self.link.cursor() as cursor:
                self.lease(cursor, "wholesome at last", self.handlers[1])
                self.lease(cursor, "poison at last", self.handlers[1], "300 ms")


class Maintenance(Beside):
    """Tables and indexes are written anew, and moved."""

    STEPS = ("VACUUM FULL {}", "REINDEX TABLE CONCURRENTLY {}", "VACUUM (FREEZE) {}", "CLUSTER {} USING {}_pkey", "ANALYZE {}")

    def step(self, cursor):
        table = random.choice(("gt_lease", "gt_object"))
        sql = random.choice(self.STEPS)
        cursor.execute("SET search_path = _garbagetruck; SET lock_timeout = '1s'")
        cursor.execute(sql.format(table, table))
