"""One owner of the demo: an application that uploads files and holds leases on them for as long as it lives.

It knows two ways to hold many leases:
  parent   one lease for the process, renewed by one call; the lease of each file is its child and needs no renewal
  each     a lease per file, renewed all together by gt_renew_many

It writes what it knows to have happened to standard output, a JSON object a line, for the demo to compare with.
"""
import hashlib
import json
import sys
import threading
import time
import uuid

import psycopg2
from psycopg2.extras import execute_values

BATCH = 20
LOST = (psycopg2.OperationalError, psycopg2.InterfaceError)      # the connection, not the lease


class Owner:
    def __init__(self, name, style, dsn, ttl, pause, paths):
        self.name, self.style, self.dsn, self.ttl, self.pause, self.paths = name, style, dsn, ttl, pause, paths
        self.parent = None
        self.leases = set()             # of the files that are not published, with style each
        self.lock = threading.Lock()

    def tell(self, **what):
        with self.lock:
            print(json.dumps(what), flush=True)

    def connect(self):
        while True:
            try:
                return psycopg2.connect(self.dsn, application_name=self.name)
            except psycopg2.OperationalError:
                time.sleep(0.1)         # the server is away

    # --- uploading

    def upload(self, link, token, files):
        """Rows and leases in one transaction: there is never a row that nobody looks after."""
        with link, link.cursor() as cursor:
            cursor.execute("SELECT array_agg(nextval('files_id')) FROM generate_series(1, %s)", (len(files),))
            ids = cursor.fetchone()[0]
            cursor.execute("SELECT gt_lease_create_many(%s::text[], 'database_row', cleanup => 'delete_upload',"
                           " duration => %s, parent => %s)::text[]",
                           (ids, None if self.parent else f"{self.ttl} s", self.parent))
            leases = cursor.fetchone()[0]
            rows = [(i, self.name, token, lease, path, hashlib.sha256(content).digest(), content)
                    for i, lease, (path, content) in zip(ids, leases, files)]
            execute_values(cursor, "INSERT INTO files (id, owner, batch, lease_id, path, sha256, content) VALUES %s",
                           [(i, n, t, le, p, psycopg2.Binary(h), psycopg2.Binary(c)) for i, n, t, le, p, h, c in rows])
            execute_values(cursor, "INSERT INTO uploaded (id, owner, sha256) VALUES %s",
                           [(r[0], r[1], psycopg2.Binary(r[5])) for r in rows])
        return ids, leases

    def publish(self, link, leases):
        """These uploads are final: nobody needs to look after them any more."""
        try:
            with link, link.cursor() as cursor:
                cursor.execute("SELECT gt_release_many(%s::uuid[], keep => true)", (leases,))
        except psycopg2.Error as e:
            if e.pgcode != "GT001":     # they had been released: by the call whose answer we did not get
                raise

    def again(self, do):
        """Calls do() until the server has answered; do() must find out itself what it did before."""
        while True:
            try:
                return do()
            except LOST:
                self.link = self.connect()

    def one_batch(self, number, files):
        token = str(uuid.uuid4())

        def upload_once():
            # When the server went away after our COMMIT, the batch is there, leases and all.
            with self.link, self.link.cursor() as cursor:
                cursor.execute("SELECT array_agg(id), array_agg(lease_id)::text[] FROM files WHERE batch = %s", (token,))
                ids, leases = cursor.fetchone()
            return (ids, leases) if ids else self.upload(self.link, token, files)

        ids, leases = self.again(upload_once)
        if self.style == "each":
            with self.lock:
                self.leases.update(leases)
        self.tell(uploaded=ids)
        if number % 4 == 3:
            with self.lock:             # from here on a renewal need not find them
                self.leases.difference_update(leases)
            self.again(lambda: self.publish(self.link, leases))
            self.tell(published=len(ids))

    # --- the heartbeat: a connection of its own, every third of the time to live

    def heartbeat(self, link):
        while True:
            began = time.monotonic()
            try:
                with link, link.cursor() as cursor:
                    self.renew(cursor)
            except LOST:
                link = self.connect()
                continue
            time.sleep(max(0.0, self.ttl / 3 - (time.monotonic() - began)))

    def renew(self, cursor):
        if self.parent:
            cursor.execute("SELECT gt_renew(%s)", (self.parent,))
            self.tell(renewed=1)
            return
        with self.lock:
            leases = list(self.leases)
        cursor.execute("SELECT lease_id, status FROM gt_renew_many(%s::uuid[]) WHERE status <> 'renewed'", (leases,))
        with self.lock:
            lost = [row for row in cursor.fetchall() if row[0] in self.leases]
        self.tell(renewed=len(leases), lost=lost)

    def run(self):
        self.link = self.connect()
        if self.style == "parent":
            with self.link, self.link.cursor() as cursor:
                cursor.execute("SELECT gt_lease_create(%s, 'process', duration => %s)",
                               (f"{self.name} {uuid.uuid4()}", f"{self.ttl} s"))
                self.parent = cursor.fetchone()[0]
        threading.Thread(target=self.heartbeat, args=(self.connect(),), daemon=True).start()
        for number, first in enumerate(range(0, len(self.paths), BATCH)):
            files = []
            for path in self.paths[first:first + BATCH]:
                with open(path, "rb") as f:
                    files.append((path, f.read()))
            self.one_batch(number, files)
            time.sleep(self.pause)
        self.tell(done=True)
        while True:                     # all uploaded; the process lives on, and so do its leases
            time.sleep(3600)


if __name__ == "__main__":
    order = json.loads(sys.stdin.readline())
    try:
        Owner(**order).run()
    except Exception as e:
        print(json.dumps({"failed": f"{type(e).__name__}: {e}"}), flush=True)
        raise
