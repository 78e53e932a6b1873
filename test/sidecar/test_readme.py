#!/usr/bin/python3
"""The examples for users of gRPC do what is said of them, and every option is documented."""

import os
import re
import subprocess
import threading
import unittest

import harness
import holders
import grpc
from harness import BINARY, SOURCES, TOP, Sidecar, start_cluster, until_serving, wait_until

HOMES = [os.path.join(TOP, "README.md"), os.path.join(SOURCES, "README.md")]
TEXT = "\n".join(open(path).read() for path in HOMES if os.path.exists(path))

cluster = None

# The stubs' other half, which grpcio-tools makes: one multicallable for each method.
STUBS = """
import types
import google.protobuf.empty_pb2
import garbagetruck_v1_pb2

class _Stub:
    def __init__(self, channel):
        for m in garbagetruck_v1_pb2.DESCRIPTOR.services_by_name["GarbageTruck"].methods:
            kind = {"KeepAlive": "stream_stream", "WatchCleanups": "stream_stream"}.get(m.name, "unary_unary")
            answer = getattr(garbagetruck_v1_pb2, m.output_type.name, None) or google.protobuf.empty_pb2.Empty
            setattr(self, m.name, getattr(channel, kind)("/garbagetruck.v1.GarbageTruck/" + m.name,
                    request_serializer=lambda message: message.SerializeToString(), response_deserializer=answer.FromString))

gt_grpc = types.SimpleNamespace(GarbageTruckStub=_Stub)
"""


def setUpModule():
    global cluster
    cluster = start_cluster()
    cluster.tool("psql", "-q", "-v", "ON_ERROR_STOP=1", "-c", "SELECT gt_allow('app', 'admin')")


def example(beginning):
    """The first block of code that contains a line beginning so."""
    for block in re.findall(r"^```\w*\n(.*?)^```$", TEXT, re.M | re.S):
        if re.search("^" + re.escape(beginning), block, re.M):
            return block
    raise AssertionError(f"no example has a line that begins with {beginning}")


class Examples(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.sidecar = until_serving(Sidecar(cluster))
        cls.addClassCleanup(cls.sidecar.stop)
        with open(os.path.join(harness.WORK, "stubs", "garbagetruck_v1_pb2_grpc.py"), "w") as module:
            module.write(STUBS + "GarbageTruckStub = gt_grpc.GarbageTruckStub\n")
        cls.names = {}
        cls.first = example("truck = gt_grpc.")
        exec(cls.first.replace("localhost:50051", cls.sidecar.address), cls.names)
        cls.heart = example("class Heart:")
        exec(cls.heart.replace("localhost:50051", cls.sidecar.address), cls.names)
        exec(example("def watch("), cls.names)

    def create(self, object_id, seconds, **more):
        gt, truck = self.names["gt"], self.names["truck"]
        request = gt.CreateRequest(object_id=object_id, object_type="t", service_id="jobs", **more)
        request.duration.FromSeconds(seconds)
        return truck.Create(request, timeout=20).lease_id

    def test_first_example_left_nothing(self):
        leases = self.names["truck"].List(self.names["gt"].ListRequest(service_id="jobs", object_type="temporary_file"), timeout=20)
        self.assertEqual(len(leases.leases), 0)
        self.assertTrue(self.names["grant"].lease_id)

    def test_heart_renews_and_tells_of_losses(self):
        gt, truck = self.names["gt"], self.names["truck"]
        sent = holders.clock()
        leases = [self.create("a", 2), self.create("b", 2)]
        lost = []
        heart = self.names["Heart"](self.names["connect"], leases, 2, sent, lambda *what: lost.append(what))
        self.addCleanup(heart.close)
        self.assertTrue(wait_until(lambda: truck.Get(gt.GetRequest(lease_id=leases[0]), timeout=20).renewals >= 4, 60))
        truck.Release(gt.ReleaseRequest(lease_ids=[leases[1]]), timeout=20)
        self.assertTrue(wait_until(lambda: lost == [(leases[1], "NOT_FOUND")], 60), lost)
        self.assertTrue(heart.held(leases[0]))
        self.assertFalse(heart.held(leases[1]))

    def test_heart_tells_in_time(self):
        """Cut off, without an answer, frozen, and forked: told before anybody else can have the lease. Not lost with one connection
        (holders.py)."""
        create = """
def take(lost):
    request = gt.CreateRequest(object_id="@NAME@", object_type="lock", service_id="jobs", exclusive=True)
    request.duration.FromSeconds(@SECONDS@)
    sent = clock()
    lease_id = truck.Create(request, timeout=5).lease_id
    heart = Heart(connect, [lease_id], @SECONDS@, sent, lambda lease_id, reason: lost(reason))
    return lambda: heart.held(lease_id)
"""
        classes = self.heart[:self.heart.index("\nsent = clock()\n")]
        connect = re.search("^connect = .*$", self.heart, re.M)[0]
        code = "\n".join([f"import sys; sys.path.insert(0, {os.path.join(harness.WORK, 'stubs')!r}); sys.path.insert(0, {harness.HERE!r})",
                          # grpcio's own handlers of a fork wait for its threads, at times for ever: a fork without any
                          "import ctypes, os; os.fork = ctypes.PyDLL(None)._Fork", "import grpc", "import garbagetruck_v1_pb2 as gt",
                          STUBS, classes, connect, 'truck = gt_grpc.GarbageTruckStub(connect())', create])
        wrong = holders.try_all(code.replace("localhost:50051", "127.0.0.1:@PORT@"), "127.0.0.1", self.sidecar.port,
                                cluster.dsn(user="app"), "lock", harness.WORK)
        self.assertEqual({kind: None for kind in wrong}, wrong)
        self.assertEqual(len(wrong), len(holders.KINDS))

    def test_watch_cleans_and_refuses(self):
        gt, truck = self.names["gt"], self.names["truck"]
        cluster.tool("psql", "-q", "-v", "ON_ERROR_STOP=1", "-c", "SET ROLE app",
                     "-c", "SELECT gt_handler_create('thumbnails', 'queue', retry_delay => '100 ms')")
        seen = []

        def clean(object_id, payload):
            seen.append(object_id)
            if object_id == "again" and seen.count(object_id) == 1:
                raise OSError("not yet")

        threading.Thread(target=self.ignoring_the_end, args=(self.names["watch"], truck, clean), daemon=True).start()
        ids = [self.create(name, 60, cleanup="thumbnails") for name in ("one", "again", "two")]
        truck.Release(gt.ReleaseRequest(lease_ids=ids), timeout=20)
        self.assertTrue(wait_until(lambda: sorted(set(seen)) == ["again", "one", "two"] and seen.count("again") == 2, 60), seen)
        left = "SELECT count(*) FROM gt_garbage"
        self.assertTrue(wait_until(lambda: cluster.tool("psql", "-XAtc", left).strip() == "0", 60))

    @staticmethod
    def ignoring_the_end(watch, *arguments):
        try:
            watch(*arguments)
        except grpc.RpcError:
            pass                                # the server was stopped


class Documented(unittest.TestCase):
    def test_every_option_of_serve(self):
        """The table has each with its argument, default and meaning, as --help tells them."""
        shown = subprocess.run([BINARY, "serve", "--help"], capture_output=True, text=True, check=True).stdout
        told = {}
        for flag, text in re.findall(r"^  (--.*)\n {8}(.*)$", shown, re.M):
            meaning, default = re.fullmatch(r"(.*?)(?: \(default (.*)\))?", text).groups()
            told[flag] = (default or "", meaning.replace("`", ""))
        table = re.findall(r"^\| `(--[^`]+)` \| (.*?) ?\| (.*) \|$", TEXT, re.M)
        self.assertGreater(len(told), 30)
        self.assertEqual({flag: (default.strip("`"), meaning.replace("`", "")) for flag, default, meaning in table}, told)


if __name__ == "__main__":
    unittest.main()
