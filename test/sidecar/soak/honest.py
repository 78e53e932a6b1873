"""The honest clients: leases of every fate, one after the other, and consumers of what is to be cleaned.

    honest.py CONFIG            (a JSON file that soak.py writes; see there)

One process.  A thread pool carries out the lives of the objects, each a generator that calls and then yields how long it
sleeps.  At SIGTERM no more begin, those that are there come to their ends, the consumers go on until a file named in
CONFIG is there; then everything that was done is left in another.
"""
import heapq
import itertools
import json
import os
import queue
import random
import signal
import sys
import threading
import time
from dataclasses import asdict

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from harness import GC, V1, grpc, method  # noqa: E402
import distributed_gc_pb2 as gc  # noqa: E402
import garbagetruck_v1_pb2 as v1  # noqa: E402
import health_pb2  # noqa: E402
from account import Lease, Thing  # noqa: E402

PATIENCE = 30           # seconds: the deadline of a call
BEAT = 2.0
KEPT_ALIVE = 8          # seconds: the duration of leases that a stream keeps alive
now = time.monotonic


class Books:
    """What was done, by all threads."""

    def __init__(self):
        self.things, self.calls, self.failed, self.attempts, self.acked = {}, [], [], [], {}
        self.lock = threading.Lock()

    def failure(self, kind, what):
        with self.lock:
            self.failed.append((now(), kind, what))

    def ack(self, name):
        with self.lock:
            self.acked[name] = self.acked.get(name, 0) + 1

    def write(self, path):
        with self.lock, open(path, "w") as file:
            json.dump({"things": [asdict(thing) for thing in self.things.values()], "calls": self.calls, "failed": self.failed,
                       "attempts": self.attempts, "acked": self.acked}, file)


class Client:
    """A caller with a token on one of the sidecars."""

    def __init__(self, config, books):
        self.name, self.books = config["name"], books
        self.address, self.tls_ca = config["address"], config["tls_ca"]
        self.meta = (("authorization", "Bearer " + config["token"]),)
        self.channel = self.connect()

    def connect(self):
        options = [("grpc.use_local_subchannel_pool", 1)]
        if not self.tls_ca:
            return grpc.insecure_channel(self.address, options)
        with open(self.tls_ca, "rb") as file:
            return grpc.secure_channel(self.address, grpc.ssl_channel_credentials(file.read()), options)

    def call(self, kind, path, request, answer, channel=None):
        """The answer and when it was asked for; what fails is in the books, and raised."""
        began = now()
        try:
            return method(channel or self.channel, path, answer)(request, timeout=PATIENCE, metadata=self.meta), began
        except grpc.RpcError as error:
            self.books.failure(kind, f"{self.name}: {error.code().name}: {error.details()}")
            raise
        finally:
            self.books.calls.append((kind, began, now() - began))

    def create(self, name, seconds, handler="", url="", parent="", channel=None, kind="create"):
        """A lease of that many seconds, by either service; a child has none of its own."""
        if url and not parent:
            request = gc.CreateLeaseRequest(object_id=name, object_type=gc.CUSTOM, service_id=self.name, lease_duration_seconds=seconds)
            request.cleanup_config.cleanup_http_endpoint = url
            request.cleanup_config.retry_delay_seconds = 1
            made, began = self.call(kind, GC + "CreateLease", request, gc.CreateLeaseResponse, channel)
        else:
            request = v1.CreateRequest(object_id=name, object_type="custom", cleanup=handler, parent=parent)
            if url:
                request.cleanup, request.payload = "http_endpoint", json.dumps({"url": url})
            if not parent:
                request.duration.FromMilliseconds(int(seconds * 1000))
            made, began = self.call(kind, V1 + "Create", request, v1.Grant, channel)
        return Lease(made.lease_id, began + seconds)

    def renew(self, lease, seconds):
        if random.random() < 0.5:
            answer, began = self.call("renew", GC + "RenewLease", gc.RenewLeaseRequest(
                lease_id=lease.id, service_id=self.name, extend_duration_seconds=seconds), gc.RenewLeaseResponse)
        else:
            request = v1.RenewBatchRequest(lease_ids=[lease.id])
            request.duration.FromSeconds(seconds)
            answer, began = self.call("renew", V1 + "RenewBatch", request, v1.RenewBatchResponse)
            if answer.results[0].status != v1.RenewResult.RENEWED:
                self.books.failure("renew", f"{lease.id} is {answer.results[0].status}")
                return
        lease.renewed(began + seconds)

    def release(self, lease, keep=False):
        began = now()
        if not keep and random.random() < 0.5:
            self.call("release", GC + "ReleaseLease", gc.ReleaseLeaseRequest(lease_id=lease.id, service_id=self.name), gc.ReleaseLeaseResponse)
        else:
            answer, began = self.call("release", V1 + "Release", v1.ReleaseRequest(lease_ids=[lease.id], keep=keep), v1.CountResponse)
            if answer.count != 1:
                self.books.failure("release", f"{lease.id} had ended before")
                began = lease.until
        lease.until, lease.over, lease.released = began, True, True


class Beats(threading.Thread):
    """One KeepAlive stream, which keeps the leases alive that are given to it."""

    def __init__(self, client):
        super().__init__(daemon=True)
        self.client, self.leases, self.lock = client, {}, threading.Lock()
        self.start()

    def add(self, lease):
        with self.lock:
            self.leases[lease.id] = lease

    def drop(self, lease):
        with self.lock:
            self.leases.pop(lease.id, None)

    def run(self):
        while True:
            requests = queue.Queue()
            try:
                answers = method(self.client.channel, V1 + "KeepAlive", v1.KeepAliveResponse, "stream_stream")(
                    iter(requests.get, None), metadata=self.client.meta)
                for seq in itertools.count(1):
                    self.beat(requests, answers, seq)
                    time.sleep(BEAT)
            except grpc.RpcError as error:
                self.client.books.failure("beat", f"{self.client.name}: {error.code().name}: {error.details()}")
                time.sleep(0.5)

    def beat(self, requests, answers, seq):
        with self.lock:
            held = dict(self.leases)
        request = v1.KeepAliveRequest(lease_ids=list(held), seq=seq)
        request.duration.FromSeconds(KEPT_ALIVE)
        began = now()
        requests.put(request)
        answer = next(answers)
        self.client.books.calls.append(("beat", began, now() - began))
        for result in answer.results:
            if result.status == v1.RenewResult.RENEWED:
                held[result.lease_id].renewed(began + KEPT_ALIVE)
            elif result.lease_id in self.leases:
                self.client.books.failure("beat", f"{result.lease_id} is {result.status}")


class Lives:
    """The objects' lives, in a pool of threads."""

    def __init__(self, config, books, clients):
        self.config, self.books, self.clients = config, books, clients
        self.beats = {client: Beats(client) for client in clients}
        self.due, self.ready, self.serial = [], threading.Condition(), itertools.count()
        self.living, self.stopping = 0, False
        for _ in range(config["threads"]):
            threading.Thread(target=self.work, daemon=True).start()

    def begin(self, life, after=0.0):
        with self.ready:
            self.living += 1
            self.put(life, after)

    def put(self, life, after):
        heapq.heappush(self.due, (now() + after, next(self.serial), life))
        self.ready.notify()

    def work(self):
        while True:
            with self.ready:
                while not self.due or self.due[0][0] > now():
                    self.ready.wait(min(self.due[0][0] - now(), 1) if self.due else 1)
                life = heapq.heappop(self.due)[2]
            try:
                after = next(life)
            except StopIteration:
                after = None
            except grpc.RpcError:
                after = None        # which is in the books
            with self.ready:
                if after is None:
                    self.living -= 1
                else:
                    self.put(life, after)

    # --- what lives

    def pace(self):
        """Begins a new life so many times a second."""
        kinds = itertools.cycle(("http", "endpoint", "file", "sql", "queue", "watch", "none"))
        fates = itertools.cycle((self.released, self.expired, self.renewed, self.lapsed, self.kept, self.shared, self.beaten, self.child))
        at = now()
        while not self.stopping:
            # 7 and 8 have no common divisor: every kind meets every fate
            kind, fate, client = next(kinds), next(fates), random.choice(self.clients)
            thing = Thing(f"{kind}-{next(self.serial)}", kind, fate.__name__)
            self.books.things[thing.id] = thing
            if kind == "file":
                open(os.path.join(self.config["file_root"], thing.id), "w").close()
            self.begin(self.life(client, thing, fate))
            at += 1 / self.config["lives_per_second"]
            yield max(at - now(), 0)

    def life(self, client, thing, fate):
        try:
            yield from fate(client, thing)
        except grpc.RpcError:
            thing.unsure = True
            raise

    def lease(self, client, thing, seconds, **more):
        handler = "" if thing.kind in ("endpoint", "none") else "soak_" + thing.kind
        url = f"{self.config['target']}/endpoint/{thing.id}" if thing.kind == "endpoint" else ""
        lease = client.create(thing.id, seconds, handler, url, **more)
        if not more:
            thing.leases.append(lease)
        return lease

    def still_there(self, thing):
        """A file whose lease runs is there. (Of the other kinds, what came early shows in when it came.)"""
        there = thing.kind != "file" or os.path.exists(os.path.join(self.config["file_root"], thing.id))
        if not there and now() < thing.may_from():
            self.books.attempts.append((now(), thing.id))

    def expire(self, thing, lease):
        lease.over = True
        yield lease.until - now() - 0.05
        self.still_there(thing)

    def end(self, client, thing, lease):
        self.still_there(thing)
        client.release(lease)

    def released(self, client, thing):
        lease = self.lease(client, thing, 30)
        yield random.uniform(0.1, 3)
        found, _ = client.call("get", GC + "GetLease", gc.GetLeaseRequest(lease_id=lease.id), gc.GetLeaseResponse)
        if not found.found:
            self.books.failure("get", f"{lease.id} of {thing.id} is not found")
        self.end(client, thing, lease)

    def expired(self, client, thing):
        lease = self.lease(client, thing, random.randint(1, 4))
        yield from self.expire(thing, lease)

    def renewed(self, client, thing):
        lease = self.lease(client, thing, 8)
        for _ in range(3):
            yield 2.5
            client.renew(lease, 8)
        yield random.uniform(0, 2)
        self.end(client, thing, lease)

    def lapsed(self, client, thing):
        lease = self.lease(client, thing, 6)
        yield 2
        client.renew(lease, 6)
        yield from self.expire(thing, lease)

    def kept(self, client, thing):
        lease = self.lease(client, thing, 30)
        yield random.uniform(0.1, 2)
        thing.kept = True
        client.release(lease, keep=True)

    def shared(self, client, thing):
        lease = self.lease(client, thing, 30)
        other = self.lease(client, thing, 30)
        yield random.uniform(0.1, 1)
        client.release(lease)
        yield random.uniform(0.1, 2)
        self.end(client, thing, other)

    def beaten(self, client, thing):
        lease = self.lease(client, thing, KEPT_ALIVE)
        self.beats[client].add(lease)
        yield random.uniform(3, 20)
        self.beats[client].drop(lease)
        yield 0.5
        if random.random() < 0.5:
            self.end(client, thing, lease)
        else:
            yield from self.expire(thing, lease)

    def child(self, client, thing):
        """Lives with a parent, which is kept alive and released."""
        parent = client.create("parent-of-" + thing.id, 8)
        self.lease(client, thing, 8, parent=parent.id)
        thing.leases.append(parent)     # which tells how long the child lives
        yield 3
        client.renew(parent, 8)
        yield random.uniform(0.1, 2)
        self.end(client, thing, parent)

    # --- what goes on all the time

    def newcomers(self):
        """Who connects only now."""
        for client in itertools.cycle(self.clients):
            if self.stopping:
                return
            with client.connect() as channel:
                thing = Thing(f"none-{next(self.serial)}", "none", "newcomer")
                self.books.things[thing.id] = thing
                try:
                    thing.leases.append(client.create(thing.id, 1, channel=channel, kind="connect"))
                except grpc.RpcError:
                    thing.unsure = True
                    yield 0.5
                    continue
            yield 0.5

    def readers(self):
        for client in itertools.cycle(self.clients):
            if self.stopping:
                return
            client.call("list", V1 + "List", v1.ListRequest(limit=50), v1.ListResponse)
            client.call("health", "/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest(), health_pb2.HealthCheckResponse)
            yield 0.1

    def again(self, name):
        """A life that a failed call ended begins anew."""
        def life():
            while not self.stopping:
                try:
                    yield from getattr(self, name)()
                except grpc.RpcError:
                    yield 0.5
        return life()


def consume_queue(client, books, stop):
    """Claim by long poll, and acknowledge each."""
    request = v1.ClaimRequest(handlers=["soak_queue"], max_items=10)
    request.wait.FromSeconds(2)
    while not stop():
        try:
            claimed = method(client.channel, V1 + "Claim", v1.ClaimResponse)(request, timeout=PATIENCE, metadata=client.meta)
            at = now()
            books.attempts += [(at, cleanup.object_id) for cleanup in claimed.cleanups]
            for cleanup in claimed.cleanups:
                outcome, _ = client.call("ack", V1 + "Ack", v1.Outcome(cleanup_id=cleanup.cleanup_id, attempt=cleanup.attempt), v1.OutcomeResponse)
                if outcome.current:
                    books.ack(cleanup.object_id)
                else:
                    books.failure("ack", f"{cleanup.object_id} is somebody else's by now")
        except grpc.RpcError as error:
            books.failure("claim", f"{client.name}: {error.code().name}: {error.details()}")
            time.sleep(0.5)


def consume_watch(client, books, stop):
    """WatchCleanups: every seventh is refused once, the others are acknowledged."""
    refused = set()
    while not stop():
        outcomes = queue.Queue()
        outcomes.put(v1.WatchRequest(handlers=["soak_watch"], credit=8))
        try:
            for cleanup in method(client.channel, V1 + "WatchCleanups", v1.Cleanup, "stream_stream")(iter(outcomes.get, None), metadata=client.meta):
                books.attempts.append((now(), cleanup.object_id))
                token = v1.Outcome(cleanup_id=cleanup.cleanup_id, attempt=cleanup.attempt)
                if hash(cleanup.object_id) % 7 == 0 and cleanup.object_id not in refused:
                    refused.add(cleanup.object_id)
                    token.error = "not the first time"
                    outcomes.put(v1.WatchRequest(nacks=[token], credit=1))
                else:
                    books.ack(cleanup.object_id)
                    outcomes.put(v1.WatchRequest(acks=[token], credit=1))
        except grpc.RpcError as error:
            books.failure("watch", f"{client.name}: {error.code().name}: {error.details()}")
            time.sleep(0.5)
        finally:
            outcomes.put(None)


def main():
    with open(sys.argv[1]) as file:
        config = json.load(file)
    random.seed(config["seed"])
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    books = Books()
    clients = [Client(one, books) for one in config["clients"]]
    stop = lambda: os.path.exists(config["stop"])       # noqa: E731
    for client in clients:
        for consumer in (consume_queue, consume_watch):
            threading.Thread(target=consumer, args=(client, books, stop), daemon=True).start()
    lives = Lives(config, books, clients)
    lives.begin(lives.pace())
    lives.begin(lives.again("newcomers"))
    lives.begin(lives.again("readers"))
    asked.wait()
    lives.stopping = True
    print("ending", flush=True)
    end = now() + 120
    while lives.living and now() < end:
        time.sleep(0.1)
    if lives.living:
        books.failure("end", f"{lives.living} objects did not come to their ends")
    print("ended", flush=True)
    while not stop():
        time.sleep(0.2)
    books.write(config["results"])
    print("written", flush=True)
    os._exit(0)             # whatever streams are open


main()
