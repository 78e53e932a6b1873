"""The calls of a lease's life with debug_discard_caches = 1, which only a server with assertions has (test/assertions).

No cache outlives any call that might invalidate it, so what is used after such a call without being looked up again is freed
memory, and what waits until nothing is invalidated waits for ever. Each statement takes seconds: therefore so few, and not the
suites. The last line is "N passed, N failed".
"""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "lib"))
sys.dont_write_bytecode = True

import cluster      # noqa: E402

LIMIT = "5min"      # for one statement: it hangs
STEPS = (           # statement, what it returns
    ("CREATE TEMPORARY TABLE l AS SELECT gt_lease_create('a', 't', cleanup => 'h') AS id", None),
    ("SELECT gt_renew(id, '1 hour') IS NOT NULL FROM l", True),
    ("SELECT gt_lease_create('b', 't', parent => id, cleanup => 'q') IS NOT NULL FROM l", True),
    ("SELECT state FROM l, gt_lease_get(id)", "active"),
    ("SELECT count(*) FROM gt_lease_list(object_type => 't')", 2),
    ("SELECT gt_release(id) FROM l", True),
    ("DROP TABLE l", None),
    ("CALL gt_reclaim()", 2),
    ("SELECT count(*) FROM seen", 1),
    ("SELECT gt_ack(cleanup_id, attempt) FROM gt_claim('{q}')", True),
    ("SELECT count(*) FROM gt_garbage", 0),
)


def main():
    passed = failed = 0
    with cluster.Cluster({"garbagetruck.databases": "''", "fsync": "off"}) as server:
        server.start()
        link = server.connect()
        cluster.query(link, "CREATE EXTENSION garbagetruck; CREATE TABLE seen (t text);"
                            " SELECT gt_handler_create('h', 'sql', 'INSERT INTO public.seen SELECT $1'), gt_handler_create('q', 'queue')")
        cluster.query(link, f"SET debug_discard_caches = 1; SET statement_timeout = '{LIMIT}'")
        for sql, wanted in STEPS:
            try:
                rows = cluster.query(link, sql)
                got = rows[0][0] if rows else None
            except Exception as e:
                got = e
            passed, failed = (passed + 1, failed) if got == wanted else (passed, failed + 1)
            print(f"{'ok' if got == wanted else 'not ok'} - {sql}: {got!r}", flush=True)
        if failed:
            print(server.log_tail())
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
