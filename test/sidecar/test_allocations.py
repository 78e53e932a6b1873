#!/usr/bin/python3
"""Every allocation fails once in turn, in the server and in the command line: no crash, no hang, no false success.

A short scenario runs again and again, each time with another allocation failing, those of the libraries included: calls
of every rpc, the admin port, a reload, the end in order. What was answered must be so in the database, whatever failed.
A process may end by itself only with a message and status 1.

Which ones are tried is said in sweep.py; all of them take some hours, most of them for TLS.
"""
import contextlib
import gzip
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import time
import unittest

import h2.events

from harness import BINARY, GC, HERE, V1, WORK, Clock, Sidecar, start_cluster, until_serving
from sweep import said, sweep
from test_transport import Raw, frame, make_certificates
import distributed_gc_pb2 as gc
import garbagetruck_v1_pb2 as v1
import health_pb2
import reflection_v1_pb2
from google.protobuf import empty_pb2

LIMIT = 30
cluster = None
database = None
library = None


def setUpModule():
    global cluster, database, library
    cluster = start_cluster()
    database = cluster.connect(user="app")
    sql("SELECT gt_handler_create('q', 'queue', retry_delay => '100 ms')")
    library = os.path.join(WORK, "fail.so")
    subprocess.run(["gcc", "-shared", "-fPIC", "-D_GNU_SOURCE", os.path.join(HERE, "executors", "fail.c"), "-o", library], check=True)


def tearDownModule():
    database.close()
    cluster.close()


def sql(text, *parameters):
    with database.cursor() as cursor:
        cursor.execute(text, parameters)
        return cursor.fetchall()


def failing(number, **more):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("GARBAGETRUCK_", "PG"))}
    return {**clean, "LD_PRELOAD": library, "FAIL_WHOLE": "1", "FAIL_TRACE": "1", "FAIL_AT": str(number), **more}


class Server:
    """A sidecar in which an allocation fails."""

    def __init__(self, number, *options):
        self.count = os.path.join(WORK, "count")
        self.log_name = os.path.join(WORK, "allocations-log")
        with open(self.log_name, "w") as log:
            self.process = subprocess.Popen(
                [BINARY, "serve", "--db", cluster.dsn(user="app"), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0",
                 "--executors", "none", "--db-connections", "1", "--shutdown-timeout", "5s", *options],
                stderr=log, stdin=subprocess.DEVNULL, env=failing(number, FAIL_COUNT=self.count))
        clock = Clock(LIMIT)
        while clock and self.process.poll() is None and "serves gRPC on" not in self.log():
            time.sleep(0.002)
        ports = re.search(r"serves gRPC on \S*:(\d+).*admin port is \S*:(\d+)", self.log())
        self.port, self.admin = (int(p) for p in ports.groups()) if ports else (None, None)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.stop()

    def log(self):
        with open(self.log_name, errors="replace") as log:
            return log.read()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None


class SecureRaw(Raw):
    """Over TLS, with a token or as the caller whom a certificate's URI names; its CN is one's who may do everything."""

    files = None
    caller = None

    def context(self):
        context = ssl.create_default_context(cafile=self.files + "/ca.pem")
        context.set_alpn_protocols(["h2"])
        context.load_cert_chain(self.files + "/clients/uri.pem", self.files + "/clients/uri.key")
        return context

    def connect(self, port):
        return self.context().wrap_socket(super().connect(port), server_hostname="localhost")

    def headers(self, stream, path, **more):
        super().headers(stream, path, authorization="Bearer sesame" if self.caller == "s" else None, **more)


class WeakRaw(SecureRaw):
    """With nothing but what HTTP/2 forbids."""

    def context(self):
        context = super().context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE-ECDSA-AES128-SHA")
        return context


class Client:
    """Calls over connections that may break: each answer is (status, message), None for none at all."""

    def __init__(self, server, raw=Raw):
        self.server, self.kind = server, raw
        self.raw = None
        self.hung = None

    def close(self):
        if self.raw is not None:
            self.raw.close()
        self.raw = None

    def ready(self):
        if self.raw is None or not self.raw.open:
            self.close()
            self.raw, self.stream = self.kind(self.server.port), -1
        self.stream += 2
        return self.stream

    def call(self, path, request, answer, streaming=False, **more):
        """The first message of the answer; a stream is half closed at the end."""
        if self.server.port is None:
            return None
        try:
            stream = self.ready()
            self.raw.headers(stream, path, send=False, **more)
            self.raw.data(stream, frame(request), end=not streaming)
            if streaming:
                ended = (h2.events.StreamEnded, h2.events.StreamReset)
                got = self.raw.wait(lambda e: self.raw.of(stream, h2.events.DataReceived) or
                                    any(self.raw.of(stream, kind) for kind in ended), LIMIT)
                if self.raw.open and got and not any(self.raw.of(stream, kind) for kind in ended):
                    self.raw.h2.end_stream(stream)
                    self.raw.send()
            fields, data = self.raw.result(stream)
        except (OSError, h2.exceptions.ProtocolError):
            self.close()
            return None
        if "grpc-status" not in fields:
            if self.raw.open and not self.raw.of(stream, h2.events.StreamReset) and ":status" not in fields:
                self.hung = self.hung or path
            return None
        status = int(fields["grpc-status"])
        size = int.from_bytes(data[1:5], "big")
        if not data or len(data) < 5 + size:
            return status, None
        message = data[5:5 + size]
        return status, answer.FromString(gzip.decompress(message) if data[0] else message)

    def get(self, path):
        """(status, body) of the admin port, None for none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.admin, timeout=LIMIT)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except socket.timeout:
            self.hung = path
        except (OSError, http.client.HTTPException, TypeError):
            pass
        finally:
            connection.close()
        return None


class Allocations(unittest.TestCase):
    def sweep(self, scenario, share):
        sweep(self, scenario, os.path.join(WORK, "count"), share)

    # ---- the server ----

    def true(self, server, condition, what):
        self.assertTrue(condition, f"{what}\n{server.log()}")

    def judge_end(self, server, client, failed):
        client.close()
        code = server.stop()
        self.true(server, client.hung is None, f"no answer to {client.hung}")
        self.true(server, code in ((0, 1, 2) if failed else (0,)), f"exit status {code}")
        self.true(server, code == 0 or said(server.log()), "it ended without a message")

    def leases(self, client, name):
        """distributed_gc: a lease from its creation to its end; what must be so: {lease: there}."""
        known = {}
        made = client.call(GC + "CreateLease", gc.CreateLeaseRequest(
            object_id=name, service_id="s", lease_duration_seconds=60, metadata={"k": "v"}), gc.CreateLeaseResponse)
        if not made or made[0] != 0:
            return known
        lease = made[1].lease_id
        known[lease] = True
        got = client.call(GC + "GetLease", gc.GetLeaseRequest(lease_id=lease), gc.GetLeaseResponse)
        if got and got[0] == 0:
            self.true(client.server, got[1].found and dict(got[1].lease.metadata) == {"k": "v"}, f"GetLease: {got}")
        listed = client.call(GC + "ListLeases", gc.ListLeasesRequest(service_id="s", limit=1), gc.ListLeasesResponse,
                             grpc_accept_encoding="gzip")
        if listed and listed[0] == 0:
            self.true(client.server, len(listed[1].leases) == 1, f"ListLeases: {listed}")
        renewed = client.call(GC + "RenewLease", gc.RenewLeaseRequest(lease_id=lease, service_id="s"), gc.RenewLeaseResponse)
        if renewed and renewed[0] == 0:
            # It is repeated when the connection is lost meanwhile.
            self.true(client.server, sql("SELECT renewals FROM gt_leases WHERE lease_id = %s", lease)[0][0] >= 1, "RenewLease")
        client.call(GC + "RenewLease", gc.RenewLeaseRequest(lease_id=lease, service_id="other"), gc.RenewLeaseResponse)
        client.call(GC + "HealthCheck", gc.HealthCheckRequest(), gc.HealthCheckResponse)
        metrics = client.call(GC + "GetMetrics", gc.MetricsRequest(), gc.MetricsResponse)
        if metrics and metrics[0] == 0:
            self.true(client.server, metrics[1].leases_by_type and metrics[1].leases_by_service, f"GetMetrics: {metrics}")
        released = client.call(GC + "ReleaseLease", gc.ReleaseLeaseRequest(lease_id=lease, service_id="s"), gc.ReleaseLeaseResponse)
        known[lease] = {True: None, False: False}[released is None or released[0] != 0]
        return known

    def truck(self, client, name):
        """garbagetruck.v1 but the queue, as leases()."""
        known = {}
        granted = client.call(V1 + "Create", v1.CreateRequest(object_id=name + "v", service_id="s", payload='{"x": 1}',
                                                              metadata='{"y": 2}'), v1.Grant)
        if granted and granted[0] == 0:
            lease = granted[1].lease_id
            known[lease] = True
            got = client.call(V1 + "Get", v1.GetRequest(lease_id=lease), v1.Lease)
            if got and got[0] == 0:
                self.true(client.server, (got[1].payload, got[1].metadata) == ('{"x": 1}', '{"y": 2}'), f"Get: {got}")
            client.call(V1 + "Update", v1.UpdateRequest(lease_id=lease, metadata="{}"), empty_pb2.Empty)
            client.call(V1 + "CheckFence", v1.FenceRequest(object_id=name + "v", object_type="custom", fence=1), v1.FenceResponse)
            for path, request, answer in (("RenewBatch", v1.RenewBatchRequest(lease_ids=[lease]), v1.RenewBatchResponse),
                                          ("KeepAlive", v1.KeepAliveRequest(lease_ids=[lease], seq=1), v1.KeepAliveResponse)):
                beat = client.call(V1 + path, request, answer, streaming=path == "KeepAlive")
                if beat and beat[0] == 0:
                    self.true(client.server, [r.status for r in beat[1].results] == [v1.RenewResult.RENEWED], f"{path}: {beat}")
        requests = [v1.CreateRequest(object_id=f"{name}b{i}", service_id="s", payload="{" if i == 1 else "") for i in range(3)]
        batch = client.call(V1 + "CreateBatch", v1.CreateBatchRequest(requests=requests), v1.CreateBatchResponse)
        if batch and batch[0] == 0:
            self.true(client.server, len(batch[1].items) == 3 and batch[1].items[1].HasField("error"), f"CreateBatch: {batch}")
            known.update({item.grant.lease_id: True for item in batch[1].items if item.HasField("grant")})
        listed = client.call(V1 + "List", v1.ListRequest(service_id="s", limit=1), v1.ListResponse)
        if listed and listed[0] == 0 and True in known.values():
            self.true(client.server, len(listed[1].leases) == 1, f"List: {listed}")
        forecast = client.call(V1 + "Forecast", v1.ForecastRequest(), v1.ForecastResponse)
        if forecast and forecast[0] == 0 and True in known.values():
            self.true(client.server, forecast[1].rows, "Forecast is empty")
        for path in ("Pause", "Resume"):
            client.call(V1 + path, v1.HandlerRequest(handler="other"), empty_pb2.Empty)
        client.call(V1 + "Redrive", v1.HandlerRequest(handler="q"), v1.CountResponse)
        client.call(V1 + "Health", empty_pb2.Empty(), v1.HealthResponse)
        return known

    def queue(self, client, name):
        """Garbage, claimed and settled; the cleanups that must be over."""
        over = []
        for i in range(2):
            made = client.call(V1 + "Create", v1.CreateRequest(object_id=f"{name}q{i}", service_id="s", cleanup="q"), v1.Grant)
            if made and made[0] == 0:
                client.call(V1 + "Release", v1.ReleaseRequest(lease_ids=[made[1].lease_id]), v1.CountResponse)
        request = v1.ClaimRequest(handlers=["q"], max_items=1)
        request.visibility.FromSeconds(5)
        request.wait.FromSeconds(1)
        claimed = client.call(V1 + "Claim", request, v1.ClaimResponse)
        for cleanup in claimed[1].cleanups if claimed and claimed[0] == 0 else ():
            token = v1.Outcome(cleanup_id=cleanup.cleanup_id, attempt=cleanup.attempt)
            token.delay.FromSeconds(5)
            client.call(V1 + "Extend", token, v1.OutcomeResponse)
            acked = client.call(V1 + "Ack", token, v1.OutcomeResponse)
            if acked and acked[0] == 0 and acked[1].current:
                over.append(cleanup.cleanup_id)
            client.call(V1 + "Nack", token, v1.OutcomeResponse)
        request = v1.WatchRequest(handlers=["q"], credit=1)
        request.visibility.FromSeconds(5)
        # There may be none, if the allocation that failed was needed for it.
        pushed = client.call(V1 + "WatchCleanups", request, v1.Cleanup, streaming=True, grpc_timeout="1S")
        if pushed and pushed[1] is not None:
            client.call(V1 + "Ack", v1.Outcome(cleanup_id=pushed[1].cleanup_id, attempt=pushed[1].attempt), v1.OutcomeResponse)
        return over

    def others(self, client):
        """Health, reflection, errors, and the admin port."""
        client.call("/grpc.health.v1.Health/Watch", health_pb2.HealthCheckRequest(), health_pb2.HealthCheckResponse, grpc_timeout="50m")
        Reflection = reflection_v1_pb2.ServerReflectionRequest
        services = client.call("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Reflection(list_services=""),
                               reflection_v1_pb2.ServerReflectionResponse, streaming=True)
        if services and services[0] == 0:
            self.true(client.server, len(services[1].list_services_response.service) == 5, f"reflection: {services}")
        client.call("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Reflection(file_containing_symbol="garbagetruck.v1.Lease"),
                    reflection_v1_pb2.ServerReflectionResponse, streaming=True, grpc_accept_encoding="gzip")
        client.call(GC + "Nothing", empty_pb2.Empty(), empty_pb2.Empty)
        client.call(GC + "CreateLease", empty_pb2.Empty(), empty_pb2.Empty, x="a" * 2000)
        for path, end in (("/livez", "ok\n"), ("/readyz", "ready\n"), ("/healthz", "}\n"), ("/metrics", "\n"), ("/", "</html>\n"),
                          ("/none", "\n")):
            got = client.get(path)
            if got and got[0] == 200:
                self.true(client.server, got[1].endswith(end), f"{path}: {got[1][-200:]}")

    def check(self, server, known, over):
        """What was answered is so."""
        there = {row[0] for row in sql("SELECT lease_id::text FROM gt_leases WHERE lease_id = ANY (%s::uuid[])", list(known))}
        for lease, expected in known.items():
            if expected is not None:
                self.true(server, (lease in there) == expected, f"lease {lease}: {expected} was answered")
        left = sql("SELECT cleanup_id FROM gt_garbage WHERE cleanup_id = ANY (%s)", over)
        self.true(server, left == [], f"acknowledged, but there: {left}")

    def until_up(self, client):
        """PostgreSQL is connected, or the process is gone."""
        clock = Clock(LIMIT)
        while client.server.process.poll() is None:
            answer = client.call("/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest(), health_pb2.HealthCheckResponse)
            if answer and answer[0] == 0 and answer[1].status == 1:
                return
            self.true(client.server, clock, "PostgreSQL is not reached again")
            time.sleep(0.005)

    def serves_again(self, client, name, service="s"):
        """One failure is over: the server works, or it has ended."""
        for _ in range(3):
            if client.server.port is None:
                return {}
            made = client.call(GC + "CreateLease", gc.CreateLeaseRequest(object_id=name + "z", service_id=service), gc.CreateLeaseResponse)
            if made and made[0] == 0:
                return {made[1].lease_id: True}
            self.until_up(client)
        self.true(client.server, client.server.process.poll() is not None, "it does not recover")
        return {}

    def server(self, number):
        with Server(number) as server:
            client = Client(server)
            known, over, name = {}, [], f"n{number}-"
            if server.port:
                self.until_up(client)
                known.update(self.leases(client, name))
                known.update(self.truck(client, name))
                over = self.queue(client, name)
                self.others(client)
                known.update(self.serves_again(client, name))
            self.judge_end(server, client, number > 0)
            self.check(server, known, over)

    def secured(self, number):
        """TLS, tokens, certificates of clients, a reload: what `server` does without them is not done again."""
        with Server(number, "--tls-cert", SecureRaw.files + "/server.pem", "--tls-key", SecureRaw.files + "/server.key",
                    "--tls-client-ca", SecureRaw.files + "/clients/ca.pem", "--token-file", SecureRaw.files + "/tokens") as server:
            client = Client(server, SecureRaw)
            known = {}
            if server.port:
                known.update(self.guards(client, f"s{number}-"))
            # What has failed before makes no other reload of it.
            if server.port and not self.has_failed(server):
                server.process.send_signal(signal.SIGHUP)
                clock = Clock(LIMIT)
                while clock and server.process.poll() is None and not re.search("were read again|stay as they were", server.log()):
                    time.sleep(0.002)
                client.close()
                known.update(self.guards(client, f"s{number}-r"))
            self.judge_end(server, client, number > 0)
            self.check(server, known, [])

    @staticmethod
    def has_failed(server):
        return "fail.so(" in server.log()

    def guards(self, client, name):
        """Whatever fails, nobody gets more rights by it; leases as serves_again()."""
        known = {}
        self.until_up(client)
        for caller in ("s", "spiffe://app/billing"):
            SecureRaw.caller = caller
            self.refuse(client)
            known.update(self.serves_again(client, name + caller, caller))
        with contextlib.suppress(OSError):
            WeakRaw(client.server.port).close()
            self.true(client.server, False, "a suite that HTTP/2 forbids was agreed on")
        return known

    def refuse(self, client):
        for path, request, answer in ((GC + "CreateLease", gc.CreateLeaseRequest(object_id="x", service_id="other"), gc.CreateLeaseResponse),
                                      (V1 + "Claim", v1.ClaimRequest(handlers=["q"]), v1.ClaimResponse),
                                      (V1 + "Pause", v1.HandlerRequest(handler="q"), empty_pb2.Empty)):
            got = client.call(path, request, answer)
            self.true(client.server, not got or got[0] != 0, f"{path} was allowed")

    def test_server(self):
        self.sweep(self.server, 0.5)

    def test_secured(self):
        SecureRaw.files = os.path.join(WORK, "tls-allocations")
        for directory in (SecureRaw.files, SecureRaw.files + "/clients"):
            make_certificates(directory)
        with open(SecureRaw.files + "/tokens", "w") as tokens:
            tokens.write("sesame s claim=mine\nother other admin claim=*\n- other admin claim=*\n")
        self.sweep(self.secured, 0.25)

    # ---- the command line ----

    def run_cli(self, number, *arguments):
        """(exit status, what was printed as JSON)."""
        done = subprocess.run([BINARY, "--endpoint", f"http://{self.sidecar.address}", "--service-id", "s", "--json", *arguments],
                              env=failing(number, FAIL_COUNT=os.path.join(WORK, "count")), capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=LIMIT)
        what = f"{arguments}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
        # 126: the command of `lease hold` could not be run.
        self.assertIn(done.returncode, (0, 1, 2, 126) if number else (0, 1), what)
        self.assertTrue(done.returncode == 0 or said(done.stderr), what)
        return done.returncode, json.loads(done.stdout) if done.returncode == 0 and done.stdout else None

    def command(self, number):
        name = f"{self.words[1] if len(self.words) > 1 else 'health'}{number}"
        lease = sql("SELECT gt_lease_create(%s, 'custom', 's', '1 min')::text", name + "l")[0][0]
        there = "SELECT count(*)::int FROM gt_leases WHERE lease_id::text = %s"
        words = [word.format(name=name, lease=lease) for word in self.words]
        code, got = self.run_cli(number, *words)
        if code == 0 and words[1:2] == ["create"]:
            self.assertEqual(sql(there, got["lease_id"]), [(1,)])
            self.assertEqual(sql("SELECT metadata FROM gt_leases WHERE lease_id::text = %s", got["lease_id"]), [({"k": "v"},)])
        elif code == 0 and words[1:2] == ["release"]:
            self.assertEqual(sql(there, lease), [(0,)])
        elif code == 0 and words[1:2] == ["renew"]:
            self.assertEqual(sql("SELECT renewals::int FROM gt_leases WHERE lease_id::text = %s", lease), [(1,)])
        elif code == 0 and words[1:2] == ["get"]:
            self.assertEqual((got["lease_id"], got["object_id"]), (lease, name + "l"))
        elif code == 0 and words[1:2] == ["list"]:
            self.assertEqual(len(got["leases"]), 3)
        elif code == 0 and words[1:2] == ["hold"]:
            with open(os.path.join(WORK, "held")) as held:
                self.assertRegex(held.read(), "^[0-9a-f-]{36}$")

    def test_commands(self):
        self.sidecar = until_serving(Sidecar(cluster))
        self.addCleanup(self.sidecar.stop)
        held = os.path.join(WORK, "held")
        for words in (("health",), ("lease", "create", "--object-id", "{name}", "--metadata", "k=v", "--duration", "60"),
                      ("lease", "create", "--object-id", "{name}", "--metadata", "k=v", "--exclusive", "--duration", "60"),
                      ("lease", "get", "--lease-id", "{lease}"), ("lease", "renew", "--lease-id", "{lease}"),
                      ("lease", "renew", "--lease-id", "{lease}", "--duration", "1500ms"), ("lease", "list", "--limit", "3"),
                      ("lease", "release", "--lease-id", "{lease}"), ("lease", "get", "--lease-id", "no"),
                      ("lease", "hold", "--object-id", "{name}", "--", "sh", "-c", f"printf %s $GARBAGETRUCK_LEASE_ID > {held}")):
            self.words = words
            self.sweep(self.command, 0.025)


if __name__ == "__main__":
    unittest.main()
