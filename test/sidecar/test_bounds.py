#!/usr/bin/python3
"""What one client can take from the others: streams, connections, memory, the queue of SQL calls, waits for locks."""
import os
import socket
import struct
import threading
import time
import unittest

import grpc

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
    return cluster.tool("psql", "-XAtqc", text, "-U", user).strip()


def h2_frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def settings(**values):
    return h2_frame(4, 0, 0, b"".join(struct.pack(">HI", key, value) for key, value in values.values()))


def literal(name, value):
    return b"\0" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()


def headers(stream, path, flags=4, content_type="application/grpc", token=None):
    block = b"\x83\x86" + literal(":path", path) + literal(":authority", "x") + literal("content-type", content_type) \
        + literal("te", "trailers")
    if token:
        block += literal("authorization", "Bearer " + token)
    return h2_frame(1, flags, stream, block)


def message(request):
    data = request.SerializeToString()
    return struct.pack(">BI", 0, len(data)) + data


class Flood:
    """A connection that sends whatever it is told, and reads only when asked to."""

    def __init__(self, port, window=65535, small=False):
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


if __name__ == "__main__":
    unittest.main()
