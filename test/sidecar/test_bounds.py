#!/usr/bin/python3
"""What one client can take from the others: streams, connections, memory, the queue of SQL calls, waits for locks."""
import gzip
import os
import re
import resource
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time
import unittest
import urllib.request

import psycopg2

from harness import GC, V1, WORK, Clock, Sidecar, call, method, start_cluster, until_serving, wait_until
import distributed_gc_pb2 as gc
import garbagetruck_v1_pb2 as v1
import health_pb2

cluster = None
tokens = os.path.join(WORK, "bounds-tokens")

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def setUpModule():
    global cluster
    cluster = start_cluster()
    with open(tokens, "w") as file:
        file.write("t-s S\nt-t T\nt-w W claim=*\n")


def tearDownModule():
    cluster.close()


def sql(text, user="postgres"):
    return cluster.tool("psql", "-XAtqc", text, "-U", user, "-d", "postgres").strip()


def h2_frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def settings(**values):
    return h2_frame(4, 0, 0, b"".join(struct.pack(">HI", key, value) for key, value in values.values()))


def literal(name, value):
    return b"\0" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()


def headers(stream, path, flags=4, content_type="application/grpc", token=None, encoding=None):
    block = b"\x83\x86" + literal(":path", path) + literal(":authority", "x") + literal("content-type", content_type) \
        + literal("te", "trailers")
    if token:
        block += literal("authorization", "Bearer " + token)
    if encoding:
        block += literal("grpc-encoding", encoding)
    return h2_frame(1, flags, stream, block)


def message(request):
    data = request.SerializeToString()
    return struct.pack(">BI", 0, len(data)) + data


class Flood:
    """A connection that sends whatever it is told, and reads only when asked to."""

    def __init__(self, port, window=65535, small=False):
        self.read = b""
        self.socket = socket.socket()
        if small:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect(("127.0.0.1", port))
        self.socket.sendall(PREFACE + settings(window=(4, window)))

    def send(self, data, limit=5):
        """False: it takes no more, or is closed."""
        self.socket.settimeout(limit)
        try:
            self.socket.sendall(data)
            return True
        except OSError:
            return False

    def ended(self):
        """How many streams the server has ended, as far as can be read now."""
        self.socket.setblocking(False)
        try:
            while data := self.socket.recv(65536):
                self.read += data
        except OSError:
            pass
        count, at = 0, 0
        while at + 9 <= len(self.read):
            count += self.read[at + 3] == 1 and self.read[at + 4] & 1
            at += 9 + int.from_bytes(self.read[at:at + 3], "big")
        return count

    def closed(self, limit=20):
        self.socket.settimeout(limit)
        try:
            while self.socket.recv(65536):
                pass
            return True
        except TimeoutError:
            return False
        except OSError:
            return True

    def close(self):
        self.socket.close()


def create(channel, token, name, timeout=20, **more):
    return call(channel, V1 + "Create", v1.CreateRequest(object_id=name, **more), v1.Grant, timeout=timeout,
                metadata=(("authorization", "Bearer " + token),))


class ConnectionsTest(unittest.TestCase):
    HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"

    def open(self, sidecar, host="127.0.0.1"):
        connection = socket.create_connection(("127.0.0.1", sidecar.port), timeout=20, source_address=(host, 0))
        self.addCleanup(connection.close)
        connection.sendall(self.HELLO)
        return connection

    def is_served(self, connection):
        try:
            return connection.recv(64) != b""
        except ConnectionResetError:
            return False

    def test_each_peer_has_its_share(self):
        """Where nobody has a name, too."""
        sidecar = until_serving(Sidecar(cluster, "--max-connections", "40"))
        self.addCleanup(sidecar.stop)
        greedy = [self.is_served(self.open(sidecar)) for _ in range(60)]
        self.assertGreater(sum(greedy), 20)
        for n in range(2, 5):
            self.assertTrue(self.is_served(self.open(sidecar, f"127.0.0.{n}")))

    def test_connections_are_bounded_in_bytes(self):
        """With TLS, and while they do not even shake hands, too: of one address, for whom another one's is open."""
        cert, key = os.path.join(WORK, "bounds.crt"), os.path.join(WORK, "bounds.key")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
                        "-subj", "/CN=localhost", "-keyout", key, "-out", cert], check=True, capture_output=True)
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limit[1] < 4000:
            self.skipTest("too few descriptors")
        resource.setrlimit(resource.RLIMIT_NOFILE, (4000, limit[1]))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limit)
        sidecar = Sidecar(cluster, "--tls-cert", cert, "--tls-key", key, "--handshake-timeout", "1m", "--max-connections", "8000")
        self.addCleanup(sidecar.stop)
        connections = [socket.create_connection(("127.0.0.1", sidecar.port), source_address=("127.0.0.1", 0)) for _ in range(2400)]
        for connection in connections:
            self.addCleanup(connection.close)
        self.assertTrue(wait_until(lambda: "is used up" in sidecar.log(), 20))
        self.assertLess(len(os.listdir(f"/proc/{sidecar.process.pid}/fd")), 2200)
        # Others have theirs.
        other = socket.create_connection(("127.0.0.1", sidecar.port), source_address=("127.0.0.9", 0))
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        with context.wrap_socket(other) as served:
            served.sendall(self.HELLO)
            self.assertTrue(self.is_served(served))

    def test_descriptors_are_kept_for_the_rest(self):
        sidecar = until_serving(Sidecar(cluster, "--token-file", tokens, wrap=("sh", "-c", 'ulimit -n 200; exec "$@"', "sh")))
        self.addCleanup(sidecar.stop)
        for _ in range(300):
            self.open(sidecar)
        create(sidecar.channel(**{"grpc.use_local_subchannel_pool": 1}), "t-s", "beside many")
        self.assertNotIn("could not accept", sidecar.log())


class StrangersTest(unittest.TestCase):
    def setUp(self):
        self.sidecar = until_serving(Sidecar(cluster, "--token-file", tokens, "--max-connections", "60", "--max-calls", "4000"))
        self.floods = []

    def tearDown(self):
        for flood in self.floods:
            flood.close()
        self.sidecar.stop()

    def flood(self, **more):
        self.floods.append(Flood(self.sidecar.port, **more))
        return self.floods[-1]

    def serves(self):
        create(self.sidecar.channel(**{"grpc.use_local_subchannel_pool": 1}), "t-s", "served")

    def test_streams_without_a_token_shut_nobody_out(self):
        for way in ({"path": V1 + "Create", "content_type": "text/plain"}, {"path": V1 + "Create"}, {"path": "/no/Method"},
                    {"path": "/grpc.health.v1.Health/Watch"}):
            for _ in range(8):
                flood = self.flood(window=0)
                out = b""
                for stream in range(1, 2000, 2):
                    out += headers(stream, **way)
                    if "Watch" in way["path"]:
                        out += h2_frame(0, 1, stream, message(health_pb2.HealthCheckRequest()))
                flood.send(out)
            self.serves()

    def test_what_is_answered_ends_though_nobody_takes_it(self):
        flood = self.flood(window=0)
        flood.send(headers(1, V1 + "Create", content_type="text/plain") + headers(3, V1 + "Create"))
        flood.socket.settimeout(10)
        got = b""
        clock = Clock(20)
        while clock and not all(h2_frame(3, 0, stream)[3:9] in got for stream in (1, 3)):
            got += flood.socket.recv(65536)
        self.assertTrue(clock)

    def test_connections_without_a_token_make_room(self):
        for _ in range(100):
            self.flood()
        self.serves()
        create(self.sidecar.channel(**{"grpc.use_local_subchannel_pool": 1}), "t-t", "of T")

    def test_small_headers_that_stand_for_large_ones(self):
        """What is in the table once, and named a thousand times, is not looked at a thousand times."""
        flood = self.flood()
        value = b"v" * 3000
        length = bytes((0x7f, 0x80 | (len(value) - 127) % 128, (len(value) - 127) // 128))
        flood.send(h2_frame(1, 5, 1, b"\x83\x86\x40\1a" + length + value + b"\xbe" * 10000)
                   + headers(3, V1 + "Create", flags=5))
        flood.socket.settimeout(10)
        got, clock, reset, answer = b"", Clock(20), h2_frame(3, 0, 1, b"\0\0\0\2"), struct.pack(">I", 3)
        while clock and not (reset in got and b"\1\5" + answer in got):
            got += flood.socket.recv(65536)
        self.assertTrue(clock)
        self.serves()

    def test_refused_streams_of_who_does_not_read(self):
        before = self.sidecar.rss_kb()
        flood = self.flood(small=True)
        block = b"\x83\x86\x84\x41\x01x"
        for i in range(60):
            out = b"".join(h2_frame(1, 4, 1 + 2 * (i * 30000 + n), block) for n in range(30000))
            if not flood.send(out):
                break
        self.assertLess(self.sidecar.rss_kb() - before, 64 * 1024)
        self.serves()

    def test_data_after_the_end_of_who_does_not_read(self):
        before = self.sidecar.rss_kb()
        flood = self.flood(small=True)
        flood.send(b"".join(headers(1 + 2 * i, V1 + "Create", flags=5) for i in range(400)))
        time.sleep(0.5)
        empty = b"".join(h2_frame(0, 0, 1 + 2 * i) for i in range(400)) * 100
        for _ in range(120):
            if not flood.send(empty):
                break
        self.assertLess(self.sidecar.rss_kb() - before, 64 * 1024)
        self.serves()


class PeersTest(unittest.TestCase):
    def test_what_small_messages_stand_for_counts(self):
        """Ids and names are kept until the database answers, as they are, and each has room for so many."""
        sidecar = until_serving(Sidecar(cluster))
        self.addCleanup(sidecar.stop)
        packed = gzip.compress(v1.RenewBatchRequest(lease_ids=["%04d" % i + "x" * 4000 for i in range(1000)]).SerializeToString())
        before = sidecar.rss_kb()
        for path in ("RenewBatch", "Claim"):
            until_serving(sidecar)
            backends = [int(pid) for pid in sql("SELECT pid FROM pg_stat_activity WHERE usename = 'app'").split()]
            floods = [Flood(sidecar.port) for _ in range(5)]
            for pid in backends:
                os.kill(pid, signal.SIGSTOP)
            try:
                for flood in floods:
                    flood.send(b"".join(headers(2 * n + 1, V1 + path, encoding="gzip")
                                        + h2_frame(0, 1, 2 * n + 1, struct.pack(">BI", 1, len(packed)) + packed) for n in range(6)))
                # As many as do not find room are refused, while the others wait.
                self.assertTrue(wait_until(lambda: sum(flood.ended() for flood in floods) >= 30 - 16, 60), path)
                self.assertLess(sidecar.rss_kb() - before, 80 * 1024, path)
            finally:
                for flood in floods:
                    flood.close()
                for pid in backends:
                    os.kill(pid, signal.SIGCONT)


class CallersTest(unittest.TestCase):
    def setUp(self):
        self.sidecar = until_serving(Sidecar(cluster, "--token-file", tokens, "--db-queue", "3000"))
        self.floods = []

    def tearDown(self):
        for flood in self.floods:
            flood.close()
        self.sidecar.stop()

    def test_unfinished_messages_are_their_own_callers(self):
        channel = self.sidecar.channel()
        create(channel, "t-s", "first")
        body = struct.pack(">BI", 0, 4 * 1024 * 1024 - 64)
        for i in range(66):
            flood = Flood(self.sidecar.port)
            self.floods.append(flood)
            flood.send(headers(1, V1 + "Create", token="t-t"))
            data = body + bytes(4 * 1024 * 1024 - 100)
            # The window of a stream is 256 kB: the rest waits for updates, which come as the server takes it.
            threading.Thread(target=self.send_all, args=(flood, data), daemon=True).start()
        for i in range(20):
            create(channel, "t-s", "while T does not end %d" % i, payload='"%s"' % ("x" * 60000))
            time.sleep(0.1)
        self.assertLess(self.sidecar.rss_kb(), 400 * 1024)

    @staticmethod
    def send_all(flood, data):
        """All of it, as the windows allow: updates are counted, and nothing else is read."""
        window, conn, at, read = 256 * 1024, 65535, 0, b""
        flood.socket.settimeout(10)
        try:
            while at < len(data):
                n = min(window, conn, 16384, len(data) - at)
                if n > 0:
                    flood.socket.sendall(h2_frame(0, 0, 1, data[at:at + n]))
                    at, window, conn = at + n, window - n, conn - n
                    continue
                read += flood.socket.recv(65536)
                while len(read) >= 9:
                    length = int.from_bytes(read[:3], "big")
                    if len(read) < 9 + length:
                        break
                    if read[3] == 8:
                        more = int.from_bytes(read[9:13], "big")
                        if int.from_bytes(read[5:9], "big") == 0:
                            conn += more
                        else:
                            window += more
                    elif read[3] in (1, 3):
                        return
                    read = read[9 + length:]
        except OSError:
            pass

    def test_lists_are_bounded_in_bytes(self):
        sql("SELECT count(gt_lease_create(o, 'large', service_id => 'S', payload => to_jsonb(repeat('x', 60000)), duration => '1 hour'))"
            " FROM (SELECT 'large' || i AS o FROM generate_series(1, 1000) i) x", "app")
        channel = self.sidecar.channel(**{"grpc.max_receive_message_length": -1})
        before = self.sidecar.rss_kb()
        meta = (("authorization", "Bearer t-s"),)
        lists = [method(channel, V1 + "List", v1.ListResponse).future(v1.ListRequest(limit=1000), metadata=meta, timeout=60)
                 for _ in range(20)]
        lists += [method(channel, GC + "ListLeases", gc.ListLeasesResponse).future(gc.ListLeasesRequest(limit=1000), metadata=meta,
                                                                                   timeout=60) for _ in range(20)]
        most = 0
        clock = Clock(60)
        while clock and not all(one.done() for one in lists):
            most = max(most, self.sidecar.rss_kb() - before)
            time.sleep(0.02)
        self.assertTrue(all(one.result().next_page_token for one in lists))
        self.assertLess(most, 200 * 1024)
        # Pages add up to all.
        seen, token = set(), ""
        while True:
            page = call(channel, V1 + "List", v1.ListRequest(limit=1000, page_token=token, object_type="large"), v1.ListResponse,
                        metadata=meta)
            self.assertFalse(seen & {lease.lease_id for lease in page.leases})
            seen |= {lease.lease_id for lease in page.leases}
            token = page.next_page_token
            if not token:
                break
        self.assertEqual(len(seen), 1000)

    def test_answers_that_nobody_reads(self):
        sql("SELECT count(gt_lease_create(o, 'unread', service_id => 'T', payload => to_jsonb(repeat('x', 60000)), duration => '1 hour'))"
            " FROM (SELECT 'unread' || i AS o FROM generate_series(1, 100) i) x", "app")
        before = self.sidecar.rss_kb()
        flood = Flood(self.sidecar.port, window=0)
        self.floods.append(flood)
        request = h2_frame(0, 1, 1, message(v1.ListRequest(limit=1000)))
        for i in range(200):
            flood.send(headers(1 + 2 * i, V1 + "List", token="t-t") + request[:5] + struct.pack(">I", 1 + 2 * i) + request[9:])
        channel = self.sidecar.channel()
        clock = Clock(15)
        most = 0
        while clock:
            create(channel, "t-s", "meanwhile")
            most = max(most, self.sidecar.rss_kb() - before)
            time.sleep(0.1)
        self.assertLess(most, 330 * 1024)

    def test_the_queue_is_shared(self):
        channel = self.sidecar.channel()
        create(channel, "t-s", "first")
        meta = (("authorization", "Bearer t-w"),)
        stub = method(channel, V1 + "CreateBatch", v1.CreateBatchResponse)
        batches = [stub.future(v1.CreateBatchRequest(requests=[v1.CreateRequest(object_id="w%d-%d" % (n, i)) for i in range(1000)]),
                               metadata=meta, timeout=60) for n in range(20)]
        while not all(one.done() for one in batches):
            create(channel, "t-s", "beside W")
        self.assertTrue(all(len(one.result().items) == 1000 for one in batches))

    def test_callers_take_turns(self):
        """Who comes with one call does not wait for all that another one has in the queue."""
        own = until_serving(Sidecar(cluster, "--token-file", tokens, "--no-database-metrics", admin=True))
        self.addCleanup(own.stop)
        admin = re.search(r"admin port is (\S+:\d+)", own.log())[1]

        def queued():
            with urllib.request.urlopen(f"http://{admin}/metrics", timeout=20) as answer:
                return int(re.search(r"^garbagetruck_\w*database_queued_calls (\d+)", answer.read().decode(), re.M)[1])

        def start(name, token, *requests):
            for path, request, answer in requests:
                futures.append(method(channel, V1 + path, answer).future(
                    request, metadata=(("authorization", "Bearer " + token),), timeout=60))
                futures[-1].add_done_callback(lambda _: ended.append(name))

        channel, futures, ended = own.channel(), [], []
        backends = [int(pid) for pid in sql("SELECT pid FROM pg_stat_activity WHERE usename = 'app'").split()]
        # The database stands still until all are in the queue.
        for pid in backends:
            os.kill(pid, signal.SIGSTOP)
        try:
            start("W", "t-w", *[("CreateBatch", v1.CreateBatchRequest(requests=[v1.CreateRequest(object_id="turns%d-%d" % (n, i)) for i in range(1000)]),
                                 v1.CreateBatchResponse) for n in range(6)])
            self.assertTrue(wait_until(lambda: queued() > 5000, 30))
            before = queued()
            start("S", "t-s", *[("Create", v1.CreateRequest(object_id="in turn %d" % i), v1.Grant) for i in range(10)])
            self.assertTrue(wait_until(lambda: queued() >= before + 10, 30))
        finally:
            for pid in backends:
                os.kill(pid, signal.SIGCONT)
        for future in futures:
            future.result()
        self.assertTrue(wait_until(lambda: len(ended) == 16, 20))
        self.assertLess(ended[:len(ended) - ended[::-1].index("S")].count("W"), 3)

    def test_small_messages_that_stand_for_large_ones(self):
        """What takes long for its bytes is read in turn with what others send."""
        packed = gzip.compress(b"\x0a\0" * 2000000)
        for connection in range(20):
            flood = Flood(self.sidecar.port)
            self.floods.append(flood)
            flood.send(b"".join(headers(2 * n + 1, V1 + "RenewBatch", token="t-t", encoding="gzip")
                                + h2_frame(0, 1, 2 * n + 1, struct.pack(">BI", 1, len(packed)) + packed) for n in range(10)))
        channel = self.sidecar.channel()
        for i in range(5):
            create(channel, "t-s", "between %d" % i)
        answered = sum(flood.ended() for flood in self.floods)
        self.assertLess(answered, 190)
        self.assertTrue(wait_until(lambda: sum(flood.ended() for flood in self.floods) == 200, 100))

    def test_waits_for_locks_are_of_one_object(self):
        channel = self.sidecar.channel()
        for name in ("locked by all", "locked for a second"):
            create(channel, "t-s" if "second" in name else "t-w", name)
        connection = psycopg2.connect(cluster.dsn(user="postgres"))
        other = psycopg2.connect(cluster.dsn(user="postgres"))
        connection.cursor().execute("SELECT FROM _garbagetruck.gt_object WHERE object_id = %s FOR UPDATE", ("locked by all",))
        other.cursor().execute("SELECT FROM _garbagetruck.gt_object WHERE object_id = %s FOR UPDATE", ("locked for a second",))
        stub = method(channel, V1 + "Create", v1.Grant)
        waiting = [stub.future(v1.CreateRequest(object_id="locked by all"), metadata=(("authorization", "Bearer t-w"),), timeout=40)
                   for _ in range(6)]
        # More than a turn, so that W has had one.
        time.sleep(4)
        mine = stub.future(v1.CreateRequest(object_id="locked for a second"), metadata=(("authorization", "Bearer t-s"),), timeout=15)
        time.sleep(1)
        other.rollback()
        self.assertTrue(mine.result().lease_id)
        connection.rollback()
        self.assertTrue(all(one.result().lease_id for one in waiting))


if __name__ == "__main__":
    unittest.main()
