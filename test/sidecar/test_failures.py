#!/usr/bin/python3
"""PostgreSQL going away, locks, floods and crashes: nothing lost, no false success, nobody else delayed."""
import os
import re
import resource
import signal
import socket
import threading
import time
import unittest
import urllib.error
import urllib.request

from google.protobuf import empty_pb2
import grpc

from harness import GC, V1, Sidecar, call, failure, method, start_cluster, until_serving, wait_until
import distributed_gc_pb2 as gc
import garbagetruck_v1_pb2 as v1
import health_pb2

cluster = None
sidecar = None
Code = grpc.StatusCode


def setUpModule():
    global cluster, sidecar
    cluster = start_cluster()
    sidecar = until_serving(Sidecar(cluster))


def tearDownModule():
    sidecar.stop()
    cluster.close()


def sql(text, user="postgres"):
    return cluster.tool("psql", "-AtqX", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-c", text, as_role=user).strip()


def create(channel, name, timeout=20, key=None):
    return call(channel, GC + "CreateLease", gc.CreateLeaseRequest(object_id=name, service_id="s"), gc.CreateLeaseResponse,
                timeout=timeout, metadata=(("idempotency-key", key),) if key else None)


class Load:
    """Creates leases until it is stopped, and keeps what was acknowledged and how calls failed."""

    def __init__(self, own, prefix, keyed=False, depth=20):
        self.create = method(own.channel(), GC + "CreateLease", gc.CreateLeaseResponse)
        self.prefix, self.keyed = prefix, keyed
        self.made, self.failed = [], []
        self.serial = 0
        self.stopping = False
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.work) for _ in range(depth)]
        for thread in self.threads:
            thread.start()

    def work(self):
        while not self.stopping:
            with self.lock:
                self.serial += 1
                name = f"{self.prefix}{self.serial}"
            try:
                metadata = (("idempotency-key", name),) if self.keyed else None
                made = self.create(gc.CreateLeaseRequest(object_id=name, service_id="s"), timeout=30, metadata=metadata)
                self.made.append(made.lease_id)
            except grpc.RpcError as error:
                self.failed.append((error.code(), error.details()))
                time.sleep(0.01)

    def reached(self, count):
        goal = len(self.made) + count
        return wait_until(lambda: len(self.made) >= goal, 60)

    def stop(self):
        self.stopping = True
        for thread in self.threads:
            thread.join()

    def lost(self):
        there = set(sql(f"SELECT lease_id FROM gt_leases WHERE object_id LIKE '{self.prefix}%'").split())
        return [lease for lease in self.made if lease not in there]


class DatabaseTest(unittest.TestCase):
    def test_restart_under_load(self):
        load = Load(sidecar, "restart")
        try:
            self.assertTrue(load.reached(200))
            for mode in ("fast", "immediate"):
                cluster.stop(mode)
                self.assertTrue(wait_until(lambda: load.failed and load.failed[-1][0] == Code.UNAVAILABLE, 30))
                cluster.start()
                self.assertTrue(load.reached(200), sidecar.log())
        finally:
            load.stop()
        self.assertEqual({code for code, _ in load.failed}, {Code.UNAVAILABLE})
        self.assertEqual(load.lost(), [])

    def test_terminated_connections(self):
        load = Load(sidecar, "terminated", keyed=True)
        try:
            for _ in range(5):
                self.assertTrue(load.reached(100), sidecar.log())
                sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
            self.assertTrue(load.reached(100))
        finally:
            load.stop()
        self.assertEqual(load.failed, [], "calls with a key are repeated")
        self.assertEqual(load.lost(), [])
        doubles = sql("SELECT count(*) FROM (SELECT FROM gt_leases WHERE object_id LIKE 'terminated%'"
                      " GROUP BY object_id HAVING count(*) > 1) d")
        self.assertEqual(doubles, "0")

    def test_a_hanging_server_is_not_serving(self):
        watch = method(sidecar.channel(), "/grpc.health.v1.Health/Watch", health_pb2.HealthCheckResponse, "unary_stream")(
            health_pb2.HealthCheckRequest(), timeout=60)
        self.assertEqual(next(watch).status, 1)
        pids = [int(p) for p in sql("SELECT pid FROM pg_stat_activity WHERE usename = 'app'").split()]
        try:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            self.assertEqual(next(watch).status, 2)
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        self.assertEqual(next(watch).status, 1)
        watch.cancel()

    def test_a_hanging_server_does_not_hang_calls(self):
        """They end when no answer can come any more, and no connections pile up."""
        own = until_serving(Sidecar(cluster, "--db-call-limit", "1s", environment={"PGAPPNAME": "hanging"}))
        self.addCleanup(own.stop)
        channel = own.channel()
        lease = call(channel, V1 + "Create", v1.CreateRequest(object_id="hang", service_id="s"), v1.Grant).lease_id
        backends = lambda: sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'hanging' ORDER BY 1").split()
        self.assertTrue(wait_until(lambda: len(backends()) == 6, 20))
        pids = backends()
        try:
            for pid in pids:
                os.kill(int(pid), signal.SIGSTOP)
            stream = method(channel, V1 + "KeepAlive", v1.KeepAliveResponse, "stream_stream")(
                iter([v1.KeepAliveRequest(lease_ids=[lease])]), timeout=60)
            waiting = [method(channel, GC + "CreateLease", gc.CreateLeaseResponse).future(
                gc.CreateLeaseRequest(object_id="hang%d" % i, service_id="s"), timeout=60) for i in range(20)]
            with self.assertRaises(grpc.RpcError) as caught:
                next(stream)
            for error in [caught.exception] + [one.exception() for one in waiting]:
                self.assertEqual(error.code(), Code.UNAVAILABLE, error.details())
                self.assertIn("does not answer", error.details())
        finally:
            for pid in pids:
                os.kill(int(pid), signal.SIGCONT)
        until_serving(own)
        create(channel, "hang again")
        self.assertEqual(call(channel, V1 + "RenewBatch", v1.RenewBatchRequest(lease_ids=[lease]), v1.RenewBatchResponse)
                         .results[0].status, v1.RenewResult.RENEWED)
        self.assertEqual(backends(), pids)

    def test_a_database_without_the_extension(self):
        sql("CREATE DATABASE bare")
        own = Sidecar(cluster, dsn=cluster.dsn("bare", "app"))
        channel = own.channel()
        self.assertTrue(wait_until(lambda: failure(
            channel, GC + "CreateLease", gc.CreateLeaseRequest(object_id="x", service_id="s"),
            gc.CreateLeaseResponse).details().endswith("CREATE EXTENSION garbagetruck"), 20))
        cluster.tool("psql", "-d", "bare", "-c", "CREATE SCHEMA odd", "-c", "CREATE EXTENSION garbagetruck SCHEMA odd",
                     "-c", "GRANT USAGE ON SCHEMA odd TO app", "-c", "SELECT odd.gt_allow('app')")
        until_serving(own)
        self.assertTrue(create(channel, "x").success)
        own.stop()

    def test_an_extension_that_is_made_anew_elsewhere(self):
        """Dropped it is as away as PostgreSQL; in another schema it is found, by calls and by executors, without a restart."""
        base, made = cluster.dsn(user="app").replace("dbname=postgres", "dbname=anew"), []
        sql("CREATE DATABASE anew")

        def there(*statements):
            cluster.tool("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "anew", *[word for s in statements for word in ("-c", s)])

        def served():
            try:
                made.append(create(own.channel(), f"anew {len(made)}").lease_id)
                return True
            except grpc.RpcError:
                return False

        def status():
            return call(own.channel(), "/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest(), health_pb2.HealthCheckResponse).status

        allow = "SELECT {0}gt_allow('app', w) FROM unnest(ARRAY['lease', 'handler', 'monitor']) w"
        there("CREATE EXTENSION garbagetruck", allow.format(""))
        own = Sidecar(cluster, dsn=base, executors="file")
        self.addCleanup(own.kill)
        self.assertTrue(wait_until(served, 20), own.log())
        there("DROP EXTENSION garbagetruck CASCADE")
        self.assertTrue(wait_until(lambda: status() == 2, 20), own.log())
        self.assertIn("away: the extension is not there any more", own.log())
        there("CREATE SCHEMA gtx", "GRANT USAGE ON SCHEMA gtx TO app", "CREATE EXTENSION garbagetruck SCHEMA gtx", allow.format("gtx."))
        self.assertTrue(wait_until(served, 20), own.log())
        self.assertEqual(status(), 1)
        self.assertTrue(wait_until(lambda: "the database is back" in own.log(), 20), own.log())
        self.assertEqual(own.stop(), 0)

    def test_errors_of_one_do_not_reach_others(self):
        channel = sidecar.channel()
        ask = method(channel, V1 + "Create", v1.Grant)
        pending = [ask.future(v1.CreateRequest(object_id="iso%d" % i, service_id="s", payload="{" if i % 7 == 3 else "1"),
                              timeout=30) for i in range(700)]
        for i, one in enumerate(pending):
            self.assertEqual(one.code(), Code.INVALID_ARGUMENT if i % 7 == 3 else Code.OK)
        self.assertEqual(sql("SELECT count(*) FROM gt_leases WHERE object_id LIKE 'iso%'"), "600")

    def test_one_object_under_contention(self):
        channel = sidecar.channel()
        ask = method(channel, V1 + "Create", v1.Grant)
        pending = [ask.future(v1.CreateRequest(object_id="hot%d" % (i % 3), service_id="s", exclusive=i % 2 == 0), timeout=30)
                   for i in range(300)]
        codes = [one.code() for one in pending]
        self.assertLessEqual(set(codes), {Code.OK, Code.ALREADY_EXISTS})


class LockTest(unittest.TestCase):
    """Somebody holds an object's row."""

    def setUp(self):
        self.channel = sidecar.channel()
        create(self.channel, "locked")
        self.holder = cluster.connect()
        self.holder.autocommit = False
        self.holder.cursor().execute("SELECT FROM _garbagetruck.gt_object WHERE object_id = 'locked' FOR UPDATE")
        self.addCleanup(self.holder.close)

    def test_others_are_not_delayed_and_it_succeeds_in_the_end(self):
        ask = method(self.channel, GC + "CreateLease", gc.CreateLeaseResponse)
        waiting = [ask.future(gc.CreateLeaseRequest(object_id="locked", service_id="s"), timeout=60) for _ in range(4)]
        for i in range(300):
            create(self.channel, "beside%d" % i)
        self.assertEqual([(one.code(), one.details()) for one in waiting if one.done()], [])
        self.holder.rollback()
        for one in waiting:
            self.assertTrue(one.result().success)

    def test_it_waits_though_the_database_was_away_just_now(self):
        """Also where the connection for those that wait is the last one to come back."""
        refused = lambda: open(cluster.log, errors="replace").read().count('too many connections for role "app"')
        before = refused()
        sql("ALTER ROLE app CONNECTION LIMIT 0")
        try:
            sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
            self.assertTrue(wait_until(lambda: refused() >= before + 36, 60))
        finally:
            sql("ALTER ROLE app CONNECTION LIMIT -1")
        until_serving(sidecar)
        waiting = method(self.channel, GC + "CreateLease", gc.CreateLeaseResponse).future(
            gc.CreateLeaseRequest(object_id="locked", service_id="s"), timeout=60)
        self.assertTrue(wait_until(lambda: waiting.done() or sql(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND wait_event_type = 'Lock' AND query_start < now() - interval '1 s'") == "1", 30))
        self.assertEqual([(one.code(), one.details()) for one in [waiting] if one.done()], [])
        self.holder.rollback()
        self.assertTrue(waiting.result().success)

    def test_the_clients_patience_bounds_the_wait(self):
        before = sql("SELECT count(*) FROM gt_leases WHERE object_id = 'locked'")
        for _ in range(3):
            error = failure(self.channel, GC + "CreateLease", gc.CreateLeaseRequest(object_id="locked", service_id="s"),
                            gc.CreateLeaseResponse, timeout=1)
            self.assertEqual(error.code(), Code.DEADLINE_EXCEEDED)
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND wait_event_type = 'Lock'"
        self.assertTrue(wait_until(lambda: sql(waiting) == "0", 20), "the statement still waits")
        self.holder.rollback()
        self.assertEqual(sql("SELECT count(*) FROM gt_leases WHERE object_id = 'locked'"), before)


class ProcessTest(unittest.TestCase):
    def test_kill_9_loses_nothing_acknowledged(self):
        own = until_serving(Sidecar(cluster))
        load = Load(own, "killed")
        self.assertTrue(load.reached(200))
        own.kill()
        load.stop()
        self.assertEqual(load.lost(), [])

    @unittest.skipIf("SANITIZE" in os.environ, "the sanitizers take memory themselves")
    def test_a_thousand_connections_in_little_memory(self):
        own = until_serving(Sidecar(cluster))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
        hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
        sockets = [socket.create_connection(("127.0.0.1", own.port)) for _ in range(1000)]
        try:
            for one in sockets:
                one.sendall(hello)
            for one in sockets:
                self.assertTrue(one.recv(64))
            channel = own.channel()
            for i in range(200):
                create(channel, "many%d" % i)
            self.assertLess(own.rss_kb(), 30 * 1024)
        finally:
            for one in sockets:
                one.close()
        self.assertEqual(own.stop(), 0)

    def test_no_more_connections_than_allowed(self):
        own = until_serving(Sidecar(cluster, "--max-connections", "3"))
        sockets = [socket.create_connection(("127.0.0.1", own.port)) for _ in range(10)]
        closed = 0
        for one in sockets:
            one.settimeout(20)
            one.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
            try:
                closed += one.recv(64) == b""
            except ConnectionError:
                closed += 1
            one.close()
        self.assertGreaterEqual(closed, 7)
        until_serving(own)
        own.stop()

    def test_out_of_descriptors(self):
        own = until_serving(Sidecar(cluster))
        used = len(os.listdir(f"/proc/{own.process.pid}/fd"))
        resource.prlimit(own.process.pid, resource.RLIMIT_NOFILE, (used + 5, used + 5))
        sockets = [socket.create_connection(("127.0.0.1", own.port)) for _ in range(30)]
        self.assertTrue(wait_until(lambda: "could not accept" in own.log(), 20))
        with open(f"/proc/{own.process.pid}/stat") as stat:
            before = sum(int(x) for x in stat.read().split()[13:15])
        time.sleep(1)
        with open(f"/proc/{own.process.pid}/stat") as stat:
            after = sum(int(x) for x in stat.read().split()[13:15])
        self.assertLess(after - before, 50, "it spins")
        for one in sockets:
            one.close()
        create(own.channel(), "after")
        self.assertEqual(own.stop(), 0)

    def test_shutdown_while_calls_are_in_flight(self):
        own = until_serving(Sidecar(cluster))
        load = Load(own, "drained")
        self.assertTrue(load.reached(200))
        own.signal(signal.SIGTERM)
        self.assertEqual(own.process.wait(60), 0, own.log())
        load.stop()
        self.assertEqual(load.lost(), [])
        self.assertLessEqual({code for code, _ in load.failed}, {Code.UNAVAILABLE})

    def test_shutdown_ends_a_long_poll(self):
        """It has nothing to give, so it answers that; the server does not wait for its time."""
        own = until_serving(Sidecar(cluster, "--shutdown-timeout", "1h"))
        request = v1.ClaimRequest()
        request.wait.FromSeconds(3600)
        polling = method(own.channel(), V1 + "Claim", v1.ClaimResponse).future(request)
        busy = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%gt_claim%' AND pid <> pg_backend_pid()"
        self.assertTrue(wait_until(lambda: sql(busy) != "0", 20))
        own.signal(signal.SIGTERM)
        self.assertEqual(len(polling.result(60).cleanups), 0)
        self.assertEqual(own.process.wait(60), 0, own.log())


class StandbyTest(unittest.TestCase):
    """One that comes to a standby answers what reads, and nobody takes it for one that can do its work."""

    def ask(self, own, name, request, answer, service=GC):
        try:
            return call(own.channel(), service + name, request, answer)
        except grpc.RpcError as error:
            return error.code()

    def test_until_it_is_promoted(self):
        first = start_cluster()
        spare = None
        try:
            lease = first.tool("psql", "-XAtq", "-d", "postgres", "-c", "SELECT gt_lease_create('there before')", as_role="app").strip()
            spare = first.follow(first.home + "-spare")
            self.addCleanup(spare.close)
            own = Sidecar(spare, admin=True)
            self.addCleanup(own.kill)
            port = int(re.search(r"admin port is \S*:(\d+)", own.log()).group(1))
            self.assertTrue(wait_until(lambda: "is a standby" in own.log(), 20), own.log())
            health = own.channel(), "/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest(), health_pb2.HealthCheckResponse
            self.assertEqual(call(*health).status, 2)
            watch = method(own.channel(), "/grpc.health.v1.Health/Watch", health_pb2.HealthCheckResponse, "unary_stream")(
                health_pb2.HealthCheckRequest(), timeout=60)
            self.assertEqual(next(watch).status, 2)
            for path in ("/readyz", "/healthz"):
                with self.assertRaises(urllib.error.HTTPError) as caught:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20)
                with caught.exception as answer:
                    self.assertEqual((answer.code, b"is a standby" in answer.read()), (503, True), path)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
                self.assertIn(b"garbagetruck_sidecar_database_up 0\n", answer.read())
            got = self.ask(own, "GetLease", gc.GetLeaseRequest(lease_id=lease), gc.GetLeaseResponse)
            self.assertEqual((got.found, got.lease.object_id), (True, "there before"))
            new = gc.CreateLeaseRequest(object_id="new", service_id="s")
            self.assertEqual(self.ask(own, "CreateLease", new, gc.CreateLeaseResponse), Code.UNAVAILABLE)
            self.assertFalse(self.ask(own, "HealthCheck", gc.HealthCheckRequest(), gc.HealthCheckResponse).healthy)
            told = self.ask(own, "Health", empty_pb2.Empty(), v1.HealthResponse, V1)
            self.assertFalse(told.healthy)
            self.assertIn("is a standby", [check.detail for check in told.checks if check.name == "database"][0])
            first.stop("immediate")
            spare.promote()
            self.assertEqual(next(watch).status, 1)
            self.assertEqual(call(*health).status, 1)
            self.assertTrue(self.ask(own, "CreateLease", new, gc.CreateLeaseResponse).success)
            self.assertEqual(urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=20).status, 200)
            self.assertEqual(own.log().count("is a standby"), 1, own.log())
            self.assertEqual(own.stop(), 0)
        finally:
            first.close()


class AtTheStart(unittest.TestCase):
    def test_a_database_that_is_not_there_is_named(self):
        own = Sidecar(cluster, dsn="host=/nowhere")
        self.addCleanup(own.stop)
        self.assertTrue(wait_until(lambda: "PostgreSQL is away" in own.log() and "/nowhere" in own.log(), 20))
        self.assertEqual(own.log().count("PostgreSQL is away"), 1)


if __name__ == "__main__":
    unittest.main()
