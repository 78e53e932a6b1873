#!/usr/bin/python3
"""Running it: signals, logs that nobody reads, name servers that do not answer, sockets, systemd, who comes to the wrong port."""
import contextlib
import fcntl
import http.client
import http.server
import json
import os
import queue
import re
import select
import signal
import socket
import subprocess
import threading
import time
import unittest

import grpc
from google.protobuf import duration_pb2

from harness import BINARY, GC, V1, WORK, Clock, Sidecar, call, method, start_cluster, until_serving, wait_until
import distributed_gc_pb2 as gc
import garbagetruck_v1_pb2 as v1

cluster = None


def setUpModule():
    global cluster
    cluster = start_cluster()


def tearDownModule():
    cluster.close()


def sql(text, user="postgres"):
    return cluster.tool("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-c", text, as_role=user).strip()


def admin_port(sidecar):
    return int(re.search(r"admin port is \S*:(\d+)", sidecar.log()).group(1))


def get(port, path, timeout=10, **headers):
    """(status, headers, text)"""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        connection.close()


def create(channel, name, **more):
    return call(channel, GC + "CreateLease", gc.CreateLeaseRequest(object_id=name, service_id="s"), gc.CreateLeaseResponse, **more)


class SignalsTest(unittest.TestCase):
    def start(self, *options, **more):
        own = until_serving(Sidecar(cluster, *options, admin=True, **more))
        self.addCleanup(own.kill)
        return own

    def test_stopped_while_it_drains(self):
        """Calls have the time that they were promised."""
        own = self.start("--shutdown-timeout", "6s")
        holder = subprocess.Popen([os.path.join(os.environ["GT_BINDIR"], "psql"), "-XAtq", "-d", cluster.dsn(user="app")],
                                  stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        self.addCleanup(holder.wait)
        self.addCleanup(holder.stdin.close)
        print("BEGIN; SELECT gt_lease_create('drained');", file=holder.stdin, flush=True)
        self.assertTrue(wait_until(lambda: sql("SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'") == "1", 20))
        made = queue.Queue()
        channel = own.channel()
        threading.Thread(target=lambda: made.put(create(channel, "drained", timeout=60).lease_id), daemon=True).start()
        self.assertTrue(wait_until(lambda: sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") != "0", 20))
        own.signal(signal.SIGTERM)
        self.assertTrue(wait_until(lambda: "shutting down" in own.log(), 20))
        own.signal(signal.SIGSTOP)
        time.sleep(7)
        own.signal(signal.SIGCONT)
        time.sleep(1)
        print("COMMIT;", file=holder.stdin, flush=True)
        self.assertNotEqual(made.get(timeout=30), "")
        self.assertEqual(own.process.wait(20), 0)

    def test_readyz_first_and_the_listener_later(self):
        own = self.start("--shutdown-delay", "2s")
        port = admin_port(own)
        self.assertEqual(get(port, "/readyz")[0], 200)
        own.signal(signal.SIGTERM)
        self.assertTrue(wait_until(lambda: get(port, "/readyz")[0] == 503, 1.5))
        channel = grpc.insecure_channel(own.address)
        create(channel, "while it is not ready")
        channel.close()
        self.assertEqual(own.process.wait(20), 0)

    def test_the_admin_port_answers_to_the_end_and_a_second_signal_ends_it(self):
        hanging = socket.create_server(("127.0.0.1", 0))
        sql("SELECT gt_handler_create('hang', 'http', 'http://127.0.0.1:%d/x')" % hanging.getsockname()[1], "app")
        own = self.start("--allow-target", "127.0.0.1", "--shutdown-timeout", "30s", executors="http")
        sql("SELECT gt_release(gt_lease_create('hangs', cleanup => 'hang'))", "app")
        hanging.settimeout(20)
        called, _ = hanging.accept()
        port = admin_port(own)
        own.signal(signal.SIGTERM)
        self.assertTrue(wait_until(lambda: "shutting down" in own.log(), 10))
        for _ in range(5):
            time.sleep(0.3)
            self.assertEqual(get(port, "/livez")[0], 200)
            self.assertEqual(get(port, "/readyz")[0], 503)
        own.signal(signal.SIGTERM)
        self.assertEqual(own.process.wait(5), 0)
        called.close()
        hanging.close()
        sql("SELECT gt_ack(cleanup_id, attempts + 1) FROM gt_garbage WHERE handler = 'hang'", "app")

    def test_the_end_does_not_wait_for_a_database_that_is_away(self):
        """What came of a call cannot be told: its claim lapses. Not some seconds more than it was given."""
        called = threading.Event()

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                called.set()
                time.sleep(1)
                self.send_response(204)
                self.end_headers()

            def log_message(self, *unused):
                pass
        target = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=target.serve_forever, daemon=True).start()
        own_cluster = start_cluster()
        self.addCleanup(own_cluster.close)
        own = until_serving(Sidecar(own_cluster, "--allow-target", "127.0.0.1", "--shutdown-timeout", "1s", executors="http"))
        self.addCleanup(own.kill)
        text = "SELECT gt_handler_create('slow', 'http', 'http://127.0.0.1:%d/x'), gt_release(gt_lease_create('x', cleanup => 'slow'))" % target.server_port
        own_cluster.tool("psql", "-Xq", "-d", "postgres", "-c", text, as_role="app")
        self.assertTrue(called.wait(30))
        own_cluster.stop("immediate")
        time.sleep(1.5)
        own.signal(signal.SIGTERM)
        self.assertEqual(own.process.wait(5), 0)
        target.shutdown()
        target.server_close()

    def test_a_log_that_nobody_reads(self):
        reader, writer = os.pipe()
        fcntl.fcntl(writer, 1031, 4096)     # F_SETPIPE_SZ
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("GARBAGETRUCK_", "PG"))}
        ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        numbers = [one.getsockname()[1] for one in ports]
        for one in ports:
            one.close()
        process = subprocess.Popen([BINARY, "serve", "--db", cluster.dsn(user="app"), "--listen", "127.0.0.1:%d" % numbers[0],
                                    "--admin", "127.0.0.1:%d" % numbers[1], "--executors", "none", "--log-level", "debug"],
                                   stderr=writer, env=clean)
        self.addCleanup(process.kill)
        os.close(writer)

        def lives():
            try:
                return get(numbers[1], "/livez", 2)[0] == 200
            except OSError:
                return False
        self.assertTrue(wait_until(lives, 20))
        channel = grpc.insecure_channel("127.0.0.1:%d" % numbers[0])
        for i in range(200):
            create(channel, "unread%d" % i, timeout=10, wait_for_ready=True)
        self.assertTrue(lives())
        dropped = re.search(r"log_lines_dropped_total (\d+)", get(numbers[1], "/metrics")[2])
        self.assertGreater(int(dropped.group(1)), 0)
        channel.close()
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), 0)
        os.close(reader)

    def test_tokens_that_are_taken_away(self):
        tokens = os.path.join(WORK, "taken")

        def write(text):
            with open(tokens, "w") as file:
                file.write(text)
        sql("SELECT gt_handler_create('q', 'queue')", "app")
        write("t-a A\nt-b B claim=q\nt-c C claim=q\n")
        own = self.start("--token-file", tokens)
        channel = own.channel()
        ends = []

        def stream(token, name, request, answer):
            requests = queue.Queue()
            requests.put(request)
            open_stream = method(channel, V1 + name, answer, "stream_stream")(
                iter(requests.get, None), metadata=(("authorization", "Bearer " + token),), timeout=60)
            ends.append(requests)
            return open_stream
        lost = stream("t-a", "KeepAlive", v1.KeepAliveRequest(seq=1), v1.KeepAliveResponse)
        less = stream("t-b", "WatchCleanups", v1.WatchRequest(handlers=["q"], credit=1), v1.Cleanup)
        kept = stream("t-c", "KeepAlive", v1.KeepAliveRequest(seq=1), v1.KeepAliveResponse)
        next(lost)
        next(kept)
        time.sleep(0.5)
        write("t-b B\nt-c C claim=q admin\n")
        own.signal(signal.SIGHUP)
        for broken, code in ((lost, grpc.StatusCode.UNAUTHENTICATED), (less, grpc.StatusCode.PERMISSION_DENIED)):
            with self.assertRaises(grpc.RpcError) as caught:
                next(broken)
            self.assertEqual(caught.exception.code(), code)
        ends[2].put(v1.KeepAliveRequest(seq=2))
        self.assertEqual(next(kept).seq, 2)
        for requests in ends:
            requests.put(None)

    def test_tokens_from_a_pipe(self):
        """They are there once: SIGHUP neither waits for more nor takes them from everybody."""
        fifo = os.path.join(WORK, "fifo")
        os.mkfifo(fifo)

        def write():
            with open(fifo, "w") as file:
                file.write("t-a A\n")
        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        own = self.start("--token-file", fifo)
        writer.join(20)
        own.signal(signal.SIGHUP)
        self.assertTrue(wait_until(lambda: "the tokens stay as they were" in own.log(), 20))
        call(own.channel(), V1 + "Create", v1.CreateRequest(object_id="piped"), v1.Grant, metadata=(("authorization", "Bearer t-a"),))

    def test_unknown_handlers_of_cleanup_are_said_at_the_start(self):
        own = self.start("--cleanup", "temporary_file=nobody_has_it", "--cleanup", "custom=http_endpoint")
        self.assertTrue(wait_until(lambda: "nobody_has_it" in own.log(), 20))
        self.assertNotIn("--cleanup custom", own.log())

    def test_systemd(self):
        path = os.path.join(WORK, "notify")
        told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        told.bind(path)
        told.settimeout(20)
        own = self.start(environment={"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "600000"})
        said = [told.recv(200) for _ in range(4)]
        self.assertEqual(said[0], b"READY=1")
        self.assertGreaterEqual(said.count(b"WATCHDOG=1"), 3)
        own.signal(signal.SIGHUP)
        while not (one := told.recv(200)).startswith(b"RELOADING=1"):
            pass
        self.assertRegex(one, rb"RELOADING=1\nMONOTONIC_USEC=\d+")
        while told.recv(200) != b"READY=1":
            pass
        told.close()


class StoppedTest(unittest.TestCase):
    """SIGSTOP, or a machine that was suspended: what others had to say meanwhile is heard before they are called silent."""

    CONNECTIONS = 600  # more than the loop takes in one turn
    PATIENCE = 2

    def answer_pings(self, sockets):
        """As clients that take a second for it."""
        due = self.due
        poll = select.epoll()
        for fd in sockets:
            poll.register(fd, select.EPOLLIN)
        buffers = dict.fromkeys(sockets, b"")
        while not self.over.is_set():
            for fd, _ in poll.poll(0.05):
                try:
                    data = sockets[fd].recv(4096)
                except ConnectionResetError:
                    data = b""
                if not data:
                    self.ended.append(fd)
                    poll.unregister(fd)
                    continue
                data = buffers[fd] + data
                while len(data) >= 9 and len(data) >= 9 + int.from_bytes(data[:3], "big"):
                    length, kind, flags = int.from_bytes(data[:3], "big"), data[3], data[4]
                    if kind == 6 and not flags & 1:
                        due.append((time.monotonic() + self.PATIENCE / 2, fd, b"\0\0\x08\x06\x01\0\0\0\0" + data[9:17]))
                    data = data[9 + length:]
                buffers[fd] = data
            while due and due[0][0] <= time.monotonic():
                _, fd, answer = due.pop(0)
                if fd not in self.ended:
                    sockets[fd].sendall(answer)

    def test_a_consumer_that_could_not_be_heard(self):
        sql("SELECT gt_handler_create('stopped', 'queue', retry_delay => '100 ms')", "app")
        make = "SELECT gt_release(gt_lease_create(%s, cleanup => 'stopped'))"
        sql(make % "'one'", "app")
        sidecar = until_serving(Sidecar(cluster))
        self.addCleanup(sidecar.stop)
        requests = queue.Queue()
        self.addCleanup(requests.put, None)
        requests.put(v1.WatchRequest(handlers=["stopped"], credit=100, visibility=duration_pb2.Duration(nanos=500000000)))
        stream = method(sidecar.channel(), V1 + "WatchCleanups", v1.Cleanup, "stream_stream")(iter(requests.get, None), timeout=60)
        self.assertEqual(next(stream).object_id, "one")
        requests.put(v1.WatchRequest(credit=1))
        time.sleep(0.5)
        sidecar.signal(signal.SIGSTOP)
        sql(make % "'two'", "app")
        time.sleep(7)
        sidecar.signal(signal.SIGCONT)
        over = threading.Event()
        self.addCleanup(over.set)

        def speak():
            while not over.wait(0.2):
                requests.put(v1.WatchRequest(credit=1))
        threading.Thread(target=speak).start()
        # its claim of one may have lapsed meanwhile, and be made again
        self.assertIn("two", (cleanup.object_id for cleanup in stream))

    def test_clients_are_not_called_silent(self):
        sidecar = until_serving(Sidecar(cluster, "--keepalive-time", "1s", "--keepalive-timeout", f"{self.PATIENCE}s"))
        self.addCleanup(sidecar.stop)
        sockets = {}
        for _ in range(self.CONNECTIONS):
            connection = socket.create_connection(("127.0.0.1", sidecar.port))
            self.addCleanup(connection.close)
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0")
            sockets[connection.fileno()] = connection
        self.over = threading.Event()
        self.ended = []
        self.due = []
        answers = threading.Thread(target=self.answer_pings, args=(sockets,))
        answers.start()
        self.addCleanup(answers.join)
        self.addCleanup(self.over.set)
        self.assertTrue(wait_until(lambda: len(self.due) > self.CONNECTIONS * 2 // 3, 30))
        self.assertEqual(self.ended, [])
        sidecar.signal(signal.SIGSTOP)
        time.sleep(2 * self.PATIENCE)
        sidecar.signal(signal.SIGCONT)
        time.sleep(2 * self.PATIENCE)
        self.assertEqual(len(self.ended), 0)


class NamesTest(unittest.TestCase):
    def test_a_name_server_that_does_not_answer(self):
        source, library = os.path.join(WORK, "silent.c"), os.path.join(WORK, "silent.so")
        with open(source, "w") as file:
            file.write("""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>
int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **found)
{
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");
    if (host && strcmp(host, "db.silent") == 0)
    {
        sleep(60);
        return EAI_AGAIN;
    }
    return real(host && strcmp(host, "db.known") == 0 ? "127.0.0.1" : host, port, hints, found);
}
""")
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        services = os.path.join(WORK, "services")
        with open(services, "w") as file:
            file.write("[far]\nhost=db.silent\ndbname=postgres\nuser=app\n")
        environment = {"LD_PRELOAD": library, "PGSERVICEFILE": services}
        # The second one's executors hang in the look-up: the end does not wait for it.
        for dsn, more, executors in (("host=db.silent dbname=postgres user=app", {}, "none"), ("host=db.silent dbname=postgres user=app", {}, "http"),
                                     ("service=far", {}, "none"), ("dbname=postgres", {"PGSERVICE": "far"}, "none")):
            with self.subTest(dsn, executors=executors):
                own = Sidecar(cluster, "--shutdown-timeout", "1s", admin=True, dsn=dsn, executors=executors, environment={**environment, **more})
                self.addCleanup(own.kill)
                port = admin_port(own)
                for _ in range(3):
                    self.assertEqual(get(port, "/livez", 3)[0], 200)
                    time.sleep(0.2)
                self.assertEqual(get(port, "/readyz", 3)[0], 503)
                own.signal(signal.SIGTERM)
                self.assertEqual(own.process.wait(20), 0)

    def test_names_are_known(self):
        """By TCP, of one host, and of one after one that is not known."""
        listener = socket.create_server(("127.0.0.1", 0))
        path = os.path.join(re.search(r"host=(\S+)", cluster.dsn()).group(1), ".s.PGSQL.%s" % re.search(r"port=(\d+)", cluster.dsn()).group(1))

        def pump(one, other):
            try:
                while data := one.recv(65536):
                    other.sendall(data)
            except OSError:
                pass
            for each in (one, other):
                try:
                    each.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

        def accept():
            while True:
                try:
                    one, _ = listener.accept()
                except OSError:
                    return
                other = socket.socket(socket.AF_UNIX)
                other.connect(path)
                for pair in ((one, other), (other, one)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()
        threading.Thread(target=accept, daemon=True).start()
        port = listener.getsockname()[1]
        for where in ("host=localhost port=%d", "host=no.such.host.invalid,localhost port=1,%d", "host=localhost,no.such.host.invalid port=%d"):
            own = Sidecar(cluster, dsn="dbname=postgres user=app sslmode=disable " + where % port)
            self.addCleanup(own.kill)
            until_serving(own)
            self.assertEqual(own.stop(), 0)
        listener.close()


class BytesTest(unittest.TestCase):
    def test_text_that_is_no_utf_8(self):
        """What initdb makes in a C locale: nobody knows what its bytes mean."""
        sql("CREATE DATABASE bytes ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")

        def inside(text, user="postgres"):
            return cluster.tool("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "bytes", "-c", text, as_role=user).strip()
        inside("CREATE EXTENSION garbagetruck")
        inside("SELECT gt_allow('app'), gt_allow('app', 'handler')")
        inside("SELECT gt_handler_create('odd', 'queue')", "app")
        inside("SELECT gt_release(gt_lease_create(E'caf\\xe9\\xf8\\x88\\x80' || i, cleanup => 'odd', metadata => '{\"a\": \"b\"}')) FROM generate_series(1, 2) i", "app")
        inside("SELECT gt_lease_create(E'\\xc3\\xa9\\xc0\\x80\\xed\\xa0\\x80', service_id => 's')", "app")
        own = until_serving(Sidecar(cluster, dsn=cluster.dsn("bytes", "app")))
        self.addCleanup(own.kill)
        channel = own.channel()
        shown = call(channel, V1 + "List", v1.ListRequest(), v1.ListResponse).leases
        self.assertEqual([lease.object_id for lease in shown], ["\u00e9?????"])
        self.assertEqual(len(call(channel, GC + "ListLeases", gc.ListLeasesRequest(), gc.ListLeasesResponse).leases), 1)
        claimed = call(channel, V1 + "Claim", v1.ClaimRequest(handlers=["odd"]), v1.ClaimResponse).cleanups
        self.assertEqual({cleanup.object_id for cleanup in claimed}, {"caf????1", "caf????2"})
        self.assertEqual(own.stop(), 0)

    def test_characters_that_utf_8_does_not_have(self):
        """One row that has them hides no other, neither from callers nor on the admin port."""
        sql("CREATE DATABASE kanji ENCODING 'EUC_JP' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")

        def inside(text, user="postgres"):
            return cluster.tool("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "kanji", "-c", text, as_role=user).strip()
        inside("CREATE EXTENSION garbagetruck")
        inside("SELECT gt_allow('app'), gt_allow('app', 'handler'), gt_allow('app', 'monitor')")
        odd = "E'\\xa9\\xa1'"
        inside(f"SELECT gt_handler_create('odd', 'queue'), gt_handler_create({odd}, 'queue')", "app")
        for which in (odd, "E'\\xc6\\xfc'"):
            inside(f"SELECT gt_release(gt_lease_create({which}, cleanup => 'odd', payload => jsonb_build_object('a', {which}),"
                   f" metadata => jsonb_build_object('a', {which})))", "app")
            inside(f"SELECT gt_lease_create({which}, {which}, {which}, cleanup => {odd}, metadata => jsonb_build_object({which}, {which}))", "app")
        own = until_serving(Sidecar(cluster, dsn=cluster.dsn("kanji", "app"), admin=True))
        self.addCleanup(own.kill)
        channel = own.channel()
        both = {"\ufffd", "\u65e5"}
        self.assertEqual({lease.object_id for lease in call(channel, V1 + "List", v1.ListRequest(), v1.ListResponse).leases}, both)
        listed = call(channel, GC + "ListLeases", gc.ListLeasesRequest(), gc.ListLeasesResponse).leases
        self.assertEqual({text for lease in listed for text in (lease.object_id, *lease.metadata, *lease.metadata.values())}, both)
        told = call(channel, GC + "GetMetrics", gc.MetricsRequest(), gc.MetricsResponse)
        self.assertEqual(set(told.leases_by_service), both)
        claimed = call(channel, V1 + "Claim", v1.ClaimRequest(handlers=["odd"]), v1.ClaimResponse).cleanups
        self.assertEqual({(cleanup.object_id, json.loads(cleanup.payload)["a"]) for cleanup in claimed}, {(text, text) for text in both})
        stream = method(channel, V1 + "WatchCleanups", v1.Cleanup, "stream_stream")
        for cleanup in claimed:
            call(channel, V1 + "Nack", v1.Outcome(cleanup_id=cleanup.cleanup_id, attempt=cleanup.attempt), v1.OutcomeResponse)
        requests = queue.Queue()
        self.addCleanup(requests.put, None)
        requests.put(v1.WatchRequest(handlers=["odd"], credit=2))
        pushed = stream(iter(requests.get, None), timeout=60)
        two = [next(pushed), next(pushed)]
        self.assertEqual({cleanup.object_id for cleanup in two}, both)
        requests.put(v1.WatchRequest(nacks=[v1.Outcome(cleanup_id=cleanup.cleanup_id, attempt=cleanup.attempt, error=error, final=True)
                                            for cleanup, error in zip(two, ("one", "\U0001f4a5 two"))]))
        self.assertTrue(wait_until(lambda: inside("SELECT string_agg(error, ',' ORDER BY error) FROM gt_dead") == "???? two,one", 30))
        for path in ("/metrics", "/healthz", "/"):
            page = get(admin_port(own), path)
            self.assertNotIn("encoding", page[2])
            if path == "/metrics":
                self.assertIn('handler="\ufffd"', page[2])
        self.assertEqual(own.stop(), 0)


class SocketsTest(unittest.TestCase):
    def serve(self, path):
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("GARBAGETRUCK_", "PG"))}
        process = subprocess.Popen([BINARY, "serve", "--db", cluster.dsn(user="app"), "--listen", "unix:" + path, "--admin", "none",
                                    "--executors", "none"], stderr=subprocess.PIPE, env=clean)
        self.addCleanup(process.kill)
        self.addCleanup(process.stderr.close)
        return process

    def test_a_path_is_taken_from_nobody_who_lives(self):
        path = os.path.join(WORK, "gt.sock")
        first = self.serve(path)
        self.assertTrue(wait_until(lambda: os.path.exists(path), 20))
        channel = grpc.insecure_channel("unix:" + path)
        create(channel, "by path", wait_for_ready=True, timeout=20)
        second = self.serve(path)
        self.assertEqual(second.wait(20), 1)
        self.assertIn(b"in use", second.stderr.read())
        create(channel, "still by path", timeout=20)
        first.kill()
        first.wait()
        self.assertTrue(os.path.exists(path))
        third = self.serve(path)
        again = grpc.insecure_channel("unix:" + path, options=[("grpc.use_local_subchannel_pool", 1)])
        create(again, "again by path", wait_for_ready=True, timeout=20)
        third.send_signal(signal.SIGTERM)
        self.assertEqual(third.wait(20), 0)
        self.assertFalse(os.path.exists(path))

    def test_any_authority(self):
        path = os.path.join(WORK, "any.sock")
        self.serve(path)
        self.assertTrue(wait_until(lambda: os.path.exists(path), 20))
        for authority in ("/tmp/gt.sock", "", "any%2Fsock", "localhost"):
            channel = grpc.insecure_channel("unix:" + path, options=[("grpc.default_authority", authority or "x")])
            if authority:
                create(channel, "authority", wait_for_ready=True, timeout=20)
            channel.close()


class HttpTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.sidecar = until_serving(Sidecar(cluster, admin=True))
        cls.port = admin_port(cls.sidecar)

    @classmethod
    def tearDownClass(cls):
        cls.sidecar.stop()

    def test_http_1_to_the_grpc_port(self):
        for path in ("GET", "POST"):
            connection = http.client.HTTPConnection("127.0.0.1", self.sidecar.port, timeout=20)
            connection.request(path, "/")
            answer = connection.getresponse()
            self.assertEqual(answer.status, 426)
            self.assertIn(b"HTTP/2", answer.read())
            connection.close()
        create(self.sidecar.channel(), "after HTTP/1")

    def test_probes_find_a_place(self):
        idle = [socket.create_connection(("127.0.0.1", self.port)) for _ in range(80)]
        self.assertEqual(get(self.port, "/livez", 5)[0], 200)
        slow = [socket.create_connection(("127.0.0.1", self.port)) for _ in range(80)]
        for one in slow[-60:]:
            one.sendall(b"G")
        self.assertEqual(get(self.port, "/livez", 5)[0], 200)
        # A byte now and then gains no time.
        one = slow[-1]
        one.settimeout(0.5)
        clock = Clock(20)
        while clock:
            try:
                one.sendall(b"E")
                if one.recv(100) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        self.assertTrue(clock, "it is kept")
        for one in idle + slow:
            one.close()

    def test_who_asks_and_goes(self):
        """Answers for which nobody waits any more do not fill the queue to PostgreSQL."""
        backends = [int(pid) for pid in sql("SELECT pid FROM pg_stat_activity WHERE usename = 'app'").split()]
        for pid in backends:
            os.kill(pid, signal.SIGSTOP)
        try:
            # Many at a time: each is given up after five seconds, in which one after the other may be too few on a busy machine.
            def asked_in_vain():
                with contextlib.ExitStack() as stack, contextlib.suppress(ConnectionError):
                    many = [stack.enter_context(socket.create_connection(("127.0.0.1", self.port))) for _ in range(20)]
                    for one in many:
                        one.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
                    return any(b"too many have asked" in one.recv(1000) for one in select.select(many, [], [], 0.05)[0])
            self.assertTrue(wait_until(asked_in_vain, 60, 0))
            self.assertEqual(get(self.port, "/livez", 5)[0], 200)
        finally:
            for pid in backends:
                os.kill(pid, signal.SIGCONT)
        self.assertTrue(wait_until(lambda: get(self.port, "/metrics")[0] == 200, 40))

    def test_open_metrics(self):
        status, headers, text = get(self.port, "/metrics", Accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
        self.assertEqual((status, headers["content-type"].split(";")[0]), (200, "application/openmetrics-text"))
        self.assertTrue(text.endswith("# EOF\n"))
        counters = re.findall(r"^# TYPE (\S+) counter$", text, re.M)
        self.assertTrue(counters)
        self.assertEqual([name for name in counters if name.endswith("_total")], [])
        for name in counters:
            self.assertRegex(text, rf"(?m)^{name}_total[ {{]")
        self.assertNotRegex(text, r'le="\d+"')
        status, headers, text = get(self.port, "/metrics")
        self.assertEqual(headers["content-type"].split(";")[0], "text/plain")
        self.assertNotIn("# EOF", text)

    def test_show_config_hides_passwords(self):
        for conninfo, shown in (("host=h password=geheim user=u", "host=h password=*** user=u"),
                                ("host=h password = 'ge \\'heim' user=u", "user=u"),
                                ("postgresql://u:geheim@h:5432/db?sslpassword=geheim&x=y", "@h:5432/db")):
            text = subprocess.run([BINARY, "serve", "--db", conninfo, "--show-config"], check=True, capture_output=True, text=True).stdout
            line = next(one for one in text.splitlines() if one.startswith("db = "))
            self.assertNotIn("heim", line)
            self.assertIn(shown, line)


if __name__ == "__main__":
    unittest.main()
