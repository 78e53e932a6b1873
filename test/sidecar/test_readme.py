#!/usr/bin/python3
"""The examples for users of gRPC do what is said of them, and every option is documented."""

import os
import re
import subprocess
import threading
import unittest

import harness
import grpc
from harness import BINARY, SOURCES, TOP, Sidecar, start_cluster, until_serving, wait_until

HOMES = [os.path.join(SOURCES, "README-section.md"), os.path.join(TOP, "README.md"), os.path.join(SOURCES, "README.md")]
TEXT = "\n".join(open(path).read() for path in HOMES if os.path.exists(path))

cluster = None


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
        stubs = os.path.join(harness.WORK, "stubs")
        # the stubs' other half, which grpcio-tools makes, has one multicallable for each method
        import garbagetruck_v1_pb2 as gt

        class Stub:
            def __init__(self, channel):
                for m in gt.DESCRIPTOR.services_by_name["GarbageTruck"].methods:
                    kind = {"KeepAlive": "stream_stream", "WatchCleanups": "stream_stream"}.get(m.name, "unary_unary")
                    answer = getattr(gt, m.output_type.name, None) or __import__("google.protobuf.empty_pb2", fromlist=["Empty"]).Empty
                    setattr(self, m.name, harness.method(channel, harness.V1 + m.name, answer, kind))

        with open(os.path.join(stubs, "garbagetruck_v1_pb2_grpc.py"), "w") as module:
            module.write("GarbageTruckStub = None\n")
        import garbagetruck_v1_pb2_grpc
        garbagetruck_v1_pb2_grpc.GarbageTruckStub = Stub
        cls.names = {}
        exec(example("truck = gt_grpc.").replace("localhost:50051", cls.sidecar.address), cls.names)
        exec(example("def keep_alive("), cls.names)
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

    def test_keep_alive_renews_and_tells_of_losses(self):
        gt, truck = self.names["gt"], self.names["truck"]
        leases = [self.create("a", 1), self.create("b", 1)]
        lost = []
        thread = threading.Thread(target=self.names["keep_alive"], args=(truck, leases, 1, lost.extend))
        thread.start()
        self.assertTrue(wait_until(lambda: truck.Get(gt.GetRequest(lease_id=leases[0]), timeout=20).renewals >= 4, 60))
        truck.Release(gt.ReleaseRequest(lease_ids=[leases[1]]), timeout=20)
        thread.join(60)
        self.assertEqual(lost, [leases[1]])

    def test_keep_alive_gives_up_in_time(self):
        second = until_serving(Sidecar(cluster))
        truck = type(self.names["truck"])(grpc.insecure_channel(second.address))
        lost = []
        lease = self.create("c", 1)
        thread = threading.Thread(target=self.names["keep_alive"], args=(truck, [lease], 1, lost.extend))
        thread.start()
        second.kill()
        thread.join(60)
        self.assertEqual(lost, [lease])

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
        shown = subprocess.run([BINARY, "serve", "--help"], capture_output=True, text=True, check=True).stdout
        for name in re.findall(r"^  (--[a-z-]+)", shown, re.M):
            self.assertIn(f"`{name}", TEXT)


if __name__ == "__main__":
    unittest.main()
