"""What the tests of the server share: a private PostgreSQL, sidecars, and stubs made from the .proto files.

Owned by the script that imports it. Servers listen on free loopback ports and are stopped by their own pid.
"""
import atexit
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
SOURCES = os.path.join(TOP, "src", "sidecar")
BINARY = os.environ.get("GARBAGETRUCK", os.path.join(SOURCES, "garbagetruck"))
sys.path.insert(0, os.path.join(TOP, "test", "lib"))
from cluster import Cluster, wait_until  # noqa: E402,F401

WORK = tempfile.mkdtemp(prefix="garbagetruck-sidecar-")
atexit.register(shutil.rmtree, WORK, True)
_stubs = os.path.join(WORK, "stubs")
os.mkdir(_stubs)
subprocess.run(["protoc", "-I", os.path.join(SOURCES, "proto"), "-I", "/usr/include", "--python_out", _stubs]
               + [os.path.join(SOURCES, "proto", f) for f in sorted(os.listdir(os.path.join(SOURCES, "proto")))
                  if f.endswith(".proto")], check=True)
sys.path.insert(0, _stubs)

# Its fork handlers can hang a process that starts another one while calls are in progress.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
import grpc  # noqa: E402

GC = "/distributed_gc.DistributedGCService/"
V1 = "/garbagetruck.v1.GarbageTruck/"


def start_cluster(**settings):
    """A server with the extension and a role `app` as which the sidecars connect."""
    cluster = Cluster(settings=settings)
    atexit.register(cluster.close)
    cluster.start()
    cluster.tool("psql", "-q", "-v", "ON_ERROR_STOP=1", "-c", "CREATE EXTENSION garbagetruck", "-c", "CREATE ROLE app LOGIN",
                 "-c", "SELECT gt_allow('app', w) FROM unnest(ARRAY['lease', 'handler', 'monitor']) w")
    return cluster


class Sidecar:
    def __init__(self, cluster, *options, admin=False, executors="none", user="app", environment=None, dsn=None, wrap=(),
                 listen="127.0.0.1:0"):
        self.log_name = tempfile.mktemp(prefix="log-", dir=WORK)
        self.command = [*wrap, BINARY, "serve", "--db", dsn or cluster.dsn(user=user), "--listen", listen,
                        "--admin", "127.0.0.1:0" if admin else "", "--executors", executors, *options]
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("GARBAGETRUCK_", "PG"))}
        with open(self.log_name, "w") as log:
            self.process = subprocess.Popen(self.command, stderr=log, stdin=subprocess.DEVNULL,
                                            env={**clean, **(environment or {})})
        atexit.register(self.kill)
        said = wait_until(lambda: re.search(r"serves gRPC on (unix:[^\s,]+|\S*?:\d+)", self.log()) or self.process.poll() is not None, 20)
        if said is True or said is None:
            raise RuntimeError("the sidecar did not start:\n" + self.log())
        self.address = said.group(1)
        self.port = None if listen.startswith("unix:") else int(self.address.rsplit(":", 1)[1])
        self.channels = []

    def log(self):
        with open(self.log_name) as log:
            return log.read()

    def channel(self, **options):
        channel = grpc.insecure_channel(self.address, options=list(options.items()))
        self.channels.append(channel)
        return channel

    def rss_kb(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1))

    def signal(self, number):
        os.kill(self.process.pid, number)

    def stop(self):
        """Orderly; the exit code."""
        for channel in self.channels:
            channel.close()
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def method(channel, path, answer, kind="unary_unary"):
    return getattr(channel, kind)(path, request_serializer=lambda m: m.SerializeToString(),
                                  response_deserializer=answer.FromString)


def call(channel, path, request, answer, timeout=20, **more):
    return method(channel, path, answer)(request, timeout=timeout, **more)


def failure(channel, path, request, answer, **more):
    """The status that a call must end with."""
    try:
        call(channel, path, request, answer, **more)
    except grpc.RpcError as error:
        return error
    raise AssertionError(f"{path} succeeded")


def until_serving(sidecar):
    import health_pb2
    channel = sidecar.channel()

    def serving():
        try:
            return call(channel, "/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest(),
                        health_pb2.HealthCheckResponse).status == 1
        except grpc.RpcError:
            return False
    if not wait_until(serving, 30):
        raise AssertionError("not serving:\n" + sidecar.log())
    return sidecar


class Clock:
    """Time limits for loops, so that no test can hang."""

    def __init__(self, limit=60):
        self.end = time.monotonic() + limit

    def __bool__(self):
        return time.monotonic() < self.end
