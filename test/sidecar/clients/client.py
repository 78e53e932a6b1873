#!/usr/bin/python3
"""A client of Python's grpcio: see test_clients.py, which has all of them do the same.

    client.py check NAME ADDRESS STRICT AWAY    one line for each thing: "name: JSON"
    client.py load NAME ready|any ADDRESS...    prints "begun", calls until its input ends, then prints what became of it
"""
import json
import os
import queue
import sys
import threading
import time

import grpc
import distributed_gc_pb2 as gc
import error_details_pb2 as details
import garbagetruck_v1_pb2 as v1
import health_pb2
import status_pb2

UNKNOWN = "01900000-0000-7000-8000-000000000000"
RENEWED = v1.RenewResult.RENEWED


class Client:
    def __init__(self, addresses, ready=False, **options):
        self.more = {"wait_for_ready": True} if ready else {}
        target = addresses[0]
        if len(addresses) > 1:
            target = "ipv4:" + ",".join(addresses)
            options["grpc.lb_policy_name"] = "round_robin"
        # Channels to one target share their connection, unless they are told not to.
        options["grpc.use_local_subchannel_pool"] = 1
        self.channel = grpc.insecure_channel(target, options=list(options.items()))

    def method(self, path, answer, kind="unary_unary"):
        return getattr(self.channel, kind)(path, request_serializer=lambda m: m.SerializeToString(), response_deserializer=answer.FromString)

    def call(self, path, request, answer, timeout=20, **more):
        return self.method(path, answer)(request, timeout=timeout, **self.more, **more)

    def gc(self, name, request, **more):
        return self.call("/distributed_gc.DistributedGCService/" + name, request, getattr(gc, name + "Response"), **more)

    def v1(self, name, request, answer, **more):
        return self.call("/garbagetruck.v1.GarbageTruck/" + name, request, answer, **more)

    def stream(self, name, answer, **more):
        """(what it answers, what puts a request into it; None ends those)"""
        requests = queue.Queue()
        open_stream = self.method("/garbagetruck.v1.GarbageTruck/" + name, answer, "stream_stream")(
            iter(requests.get, None), **self.more, **more)
        return open_stream, requests.put

    def create(self, object_id, service, seconds=60, **more):
        request = v1.CreateRequest(object_id=object_id, object_type="t", service_id=service, **more)
        request.duration.FromSeconds(seconds)
        return self.v1("Create", request, v1.Grant)


def status(function, *arguments, **more):
    try:
        function(*arguments, **more)
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


def failure(function, *arguments, **more):
    try:
        function(*arguments, **more)
    except grpc.RpcError as error:
        return error
    raise AssertionError("it succeeded")


def details_of(error):
    """{message's name: message}"""
    found = {}
    for one in status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"]).details:
        name = one.type_url.rsplit(".", 1)[1]
        found[name] = getattr(details, name).FromString(one.value)
    return found


def say(name, value):
    print(name + ": " + json.dumps(value), flush=True)


def check(name, address, strict, away):
    client = Client([address])
    seconds = {"lease_duration_seconds": 60}
    made = client.gc("CreateLease", gc.CreateLeaseRequest(object_id="client ü", service_id=name, metadata={"a": "b"}, **seconds),
                     metadata=(("idempotency-key", name),))
    again = client.gc("CreateLease", gc.CreateLeaseRequest(object_id="client ü", service_id=name, **seconds), metadata=(("idempotency-key", name),))
    renewed = client.gc("RenewLease", gc.RenewLeaseRequest(lease_id=made.lease_id, service_id=name))
    got = client.gc("GetLease", gc.GetLeaseRequest(lease_id=made.lease_id))
    release = gc.ReleaseLeaseRequest(lease_id=made.lease_id, service_id=name)
    say("small service", [made.success, again.lease_id == made.lease_id, renewed.success, got.lease.object_id, got.lease.metadata["a"],
                          status(client.gc, "ReleaseLease", release), status(client.gc, "ReleaseLease", release)])

    grant = client.create(name, name, exclusive=True, cleanup=name, payload='{"n": 1}')
    say("create", [grant.created, grant.ttl.seconds])
    lease = client.v1("Get", v1.GetRequest(lease_id=grant.lease_id), v1.Lease)
    say("get", [lease.object_id == name, lease.payload, lease.exclusive])
    results = client.v1("RenewBatch", v1.RenewBatchRequest(lease_ids=[grant.lease_id, UNKNOWN]), v1.RenewBatchResponse).results
    say("renew", [v1.RenewResult.Status.Name(r.status) for r in results])

    beats, put = client.stream("KeepAlive", v1.KeepAliveResponse, timeout=20)
    seen = []
    for seq in (1, 2, 3):
        put(v1.KeepAliveRequest(lease_ids=[grant.lease_id], seq=seq))
        answer = next(beats)
        seen.append([answer.seq, v1.RenewResult.Status.Name(answer.results[0].status)])
    put(None)
    say("beats", seen + [status(list, beats)])

    error = failure(client.create, name, name)
    info = details_of(error)["ErrorInfo"]
    say("taken", [error.code().name, info.reason, info.metadata["holder"] == name, float(info.metadata["retry_after"]) > 0])
    error = failure(client.create, "", name)
    say("field", [error.code().name, details_of(error)["BadRequest"].field_violations[0].field])
    say("text", "ü%" in failure(client.v1, "Get", v1.GetRequest(lease_id="ü%"), v1.Lease).details())

    say("release", client.v1("Release", v1.ReleaseRequest(lease_ids=[grant.lease_id]), v1.CountResponse).count)
    cleanups, put = client.stream("WatchCleanups", v1.Cleanup, timeout=20)
    put(v1.WatchRequest(handlers=[name], credit=1))
    cleanup = next(cleanups)
    put(v1.WatchRequest(acks=[v1.Outcome(cleanup_id=cleanup.cleanup_id, attempt=cleanup.attempt)]))
    put(None)
    say("watch", [cleanup.object_id == name, cleanup.payload, status(list, cleanups)])

    claim = v1.ClaimRequest(handlers=[name])
    claim.wait.FromSeconds(30)
    idle, put = client.stream("KeepAlive", v1.KeepAliveResponse, timeout=0.3)
    say("deadlines", [status(client.v1, "Claim", claim, v1.ClaimResponse, timeout=0.3), status(list, idle)])
    put(None)
    idle, put = client.stream("KeepAlive", v1.KeepAliveResponse)
    put(v1.KeepAliveRequest(seq=1))
    next(idle)
    idle.cancel()
    say("cancel", status(list, idle))
    put(None)

    say("large", status(client.create, "x" * 5000000, name))
    batch = v1.CreateBatchRequest(requests=[v1.CreateRequest(object_id=f"{name} {i}", object_type="page", service_id=name,
                                                             payload=json.dumps("x" * 60000)) for i in range(60)])
    ids = [item.grant.lease_id for item in client.v1("CreateBatch", batch, v1.CreateBatchResponse).items]
    batch = v1.CreateBatchRequest(requests=[v1.CreateRequest(object_id=f"{name} +{i}", object_type="page", service_id=name,
                                                             payload=json.dumps("x" * 60000)) for i in range(20)])
    ids += [item.grant.lease_id for item in client.v1("CreateBatch", batch, v1.CreateBatchResponse, compression=grpc.Compression.Gzip).items]
    pages, token = [], ""
    while not pages or token:
        page = client.v1("List", v1.ListRequest(service_id=name, object_type="page", limit=1000, page_token=token), v1.ListResponse)
        pages.append(len(page.leases))
        token = page.next_page_token
    say("pages", [sum(pages), len(pages) > 1])
    say("batch", client.v1("Release", v1.ReleaseRequest(lease_ids=ids), v1.CountResponse).count)

    many = client.method("/garbagetruck.v1.GarbageTruck/List", v1.ListResponse)
    calls = [many.future(v1.ListRequest(service_id=name), timeout=60) for _ in range(2000)]
    say("many", sum(len(call.result().leases) == 0 for call in calls))
    streams = [client.stream("KeepAlive", v1.KeepAliveResponse, timeout=60) for _ in range(100)]
    for _, put in streams:
        put(v1.KeepAliveRequest(seq=7))
    say("streams", sum(next(answers).seq for answers, _ in streams))
    for answers, put in streams:
        put(None)
        list(answers)
    check_health = "/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest(), health_pb2.HealthCheckResponse
    say("health", health_pb2.HealthCheckResponse.ServingStatus.Name(client.call(*check_health).status))

    guarded, token = Client([strict]), (("authorization", "Bearer secret"),)
    answers, put = guarded.stream("KeepAlive", v1.KeepAliveResponse, timeout=20, metadata=token)
    put(v1.KeepAliveRequest())
    put(None)
    say("token", [status(guarded.v1, "List", v1.ListRequest(), v1.ListResponse), status(guarded.v1, "List", v1.ListRequest(), v1.ListResponse, metadata=token),
                  status(list, answers), status(guarded.v1, "List", v1.ListRequest(service_id="other"), v1.ListResponse, metadata=token)])
    say("away", status(Client([away]).create, name, name))


class Load:
    """Workers that repeat nothing; a stream of heartbeats and one of cleanups, which begin anew when they end."""

    def __init__(self, name, ready, addresses):
        self.name, self.client = name, Client(addresses, ready)
        self.lock = threading.Lock()
        self.counts = {"calls": 0, "beats": 0, "lost": 0, "reopened": 0}
        self.failed, self.made, self.cleaned = [], set(), set()
        self.first = {what: threading.Event() for what in ("work", "beats", "cleanups")}
        self.stopping, self.done = threading.Event(), threading.Event()

    def count(self, what):
        with self.lock:
            self.counts[what] += 1

    def fail(self, what, error):
        with self.lock:
            self.failed.append(f"{what}: {error.code().name} {error.details()}")

    def work(self, number):
        i = 0
        while not self.stopping.is_set():
            object_id, i = f"{self.name} {number} {i}", i + 1
            what = "Create"
            try:
                lease = self.client.create(object_id, self.name, cleanup=self.name).lease_id
                with self.lock:
                    self.made.add(object_id)
                what = "Get"
                self.client.v1("Get", v1.GetRequest(lease_id=lease), v1.Lease)
                what = "Release"
                self.client.v1("Release", v1.ReleaseRequest(lease_ids=[lease]), v1.CountResponse)
                with self.lock:
                    self.counts["calls"] += 3
                self.first["work"].set()
            except grpc.RpcError as error:
                self.fail(what, error)

    def again(self, what, error):
        if error.code() != grpc.StatusCode.UNAVAILABLE:
            self.fail(what, error)
        self.count("reopened")
        time.sleep(0.05)

    def beat(self):
        lease = self.client.create(self.name, self.name, seconds=10).lease_id
        while not self.stopping.is_set():
            answers, put = self.client.stream("KeepAlive", v1.KeepAliveResponse)
            try:
                while not self.stopping.is_set():
                    put(v1.KeepAliveRequest(lease_ids=[lease]))
                    self.count("beats" if next(answers).results[0].status == RENEWED else "lost")
                    self.first["beats"].set()
                    time.sleep(0.1)
            except grpc.RpcError as error:
                self.again("KeepAlive", error)
            put(None)

    def clean(self):
        while not self.done.is_set():
            answers, put = self.client.stream("WatchCleanups", v1.Cleanup)
            request = v1.WatchRequest(handlers=[self.name], credit=8)
            request.visibility.FromSeconds(5)
            put(request)
            self.open = answers
            try:
                for cleanup in answers:
                    put(v1.WatchRequest(acks=[v1.Outcome(cleanup_id=cleanup.cleanup_id, attempt=cleanup.attempt)], credit=1))
                    with self.lock:
                        self.cleaned.add(cleanup.object_id)
                    self.first["cleanups"].set()
            except grpc.RpcError as error:
                if not self.done.is_set():
                    self.again("WatchCleanups", error)
            put(None)

    def run(self):
        threads = [threading.Thread(target=self.work, args=(i,)) for i in range(4)] + [threading.Thread(target=self.beat)]
        cleaner = threading.Thread(target=self.clean)
        for thread in threads + [cleaner]:
            thread.start()
        for event in self.first.values():
            event.wait(60)
        print("begun", flush=True)
        sys.stdin.read()
        self.stopping.set()
        for thread in threads:
            thread.join()
        end = time.monotonic() + 60
        while not self.made <= self.cleaned and time.monotonic() < end:
            time.sleep(0.05)
        self.done.set()
        self.open.cancel()
        cleaner.join(10)
        print(json.dumps({**self.counts, "failed": self.failed[:20], "left": len(self.made - self.cleaned)}), flush=True)
        os._exit(0)


if sys.argv[1] == "check":
    check(*sys.argv[2:])
else:
    Load(sys.argv[2], sys.argv[3] == "ready", sys.argv[4:]).run()
