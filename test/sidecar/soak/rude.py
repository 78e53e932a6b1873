"""The clients that misbehave, each kind in a thread of its own, until the process is killed.

    rude.py strangers|callers CONFIG        (the JSON file of soak.py)

`strangers` have no token, or send what is not even HTTP/2; `callers` have one.  What each has done is counted in a file,
so that a run in which they did nothing is not taken for one that the sidecar bore.
"""
import itertools
import json
import os
import random
import resource
import socket
import ssl
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from harness import GC, V1, grpc, method  # noqa: E402
from test_bounds import PREFACE, h2_frame, headers, message, settings  # noqa: E402
import distributed_gc_pb2 as gc  # noqa: E402
import garbagetruck_v1_pb2 as v1  # noqa: E402
import health_pb2  # noqa: E402
from targets import ADDRESSES, MANNERS  # noqa: E402

TOKEN = "t-rude"
META = (("authorization", "Bearer " + TOKEN),)
HEALTH = "/grpc.health.v1.Health/Watch"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PING, WINDOW, CONTINUATION = 0, 1, 2, 3, 4, 6, 8, 9
TAKEN = {}              # kind -> how often
KINDS = {"strangers": {}, "callers": {}}


def kind(group, times=1):
    """Registers a misbehaviour: a function that does it once, called again and again, in so many threads."""
    def register(function):
        KINDS[group][function.__name__] = (function, times)
        return function
    return register


class Wire:
    """A connection on which anything may be sent; from an address of its own, so that strangers are many."""

    def __init__(self, port, tls=None, hello=PREFACE + settings(), small=False, source=None):
        self.socket = socket.socket()
        if small:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.bind((source or f"127.0.2.{random.randint(1, 20)}", 0))
        self.socket.settimeout(5)
        self.socket.connect(("127.0.0.1", port))
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self.send(hello)

    def send(self, data):
        """False: the other side takes no more."""
        try:
            self.socket.sendall(data)
            return True
        except OSError:
            return False

    def read(self, limit=0.2):
        self.socket.settimeout(limit)
        try:
            return self.socket.recv(65536)
        except OSError:
            return b""
        finally:
            self.socket.settimeout(5)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.socket.close()


def client_tls():
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


class Port:
    """Where the sidecars listen."""

    def __init__(self, config):
        self.plain, self.tls, self.admin = config["ports"]
        self.target, self.rude_target = config["target"], config["rude_target"]
        self.context = client_tls()

    def wire(self, **more):
        """To one of the two."""
        if random.random() < 0.3:
            return Wire(self.tls, self.context, **more)
        return Wire(self.plain, **more)


def literal(value):
    """A header field a: value of more than 126 bytes, kept in the table."""
    return b"\x40\1a\x7f" + bytes((0x80 | (len(value) - 127) % 128, (len(value) - 127) // 128)) + value


def streams(count, path, **more):
    return b"".join(headers(1 + 2 * n, path, **more) for n in range(count))


# --- before anybody knows who they are

@kind("strangers")
def says_nothing(port):
    wires = [Wire(random.choice((port.plain, port.tls)), hello=b"") for _ in range(200)]
    time.sleep(8)
    for wire in wires:
        wire.socket.close()
    return len(wires)


@kind("strangers")
def half_of_the_handshake(port):
    """The beginning of a ClientHello, and all of it but no answer to what comes back."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        port.context.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    except ssl.SSLWantReadError:
        pass
    hello = outgoing.read()
    wires = [Wire(port.tls, hello=hello[:n % len(hello) + 1] if n % 2 else hello) for n in range(50)]
    time.sleep(3)
    for wire in wires:
        wire.socket.close()
    return len(wires)


@kind("strangers")
def half_of_the_preface(port):
    wires = [port.wire(hello=(PREFACE + settings())[:random.randint(1, 33)]) for _ in range(30)]
    time.sleep(2)
    for wire in wires:
        wire.socket.close()
    return len(wires)


@kind("strangers")
def speaks_something_else(port):
    for hello in (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"POST / HTTP/1.0\r\n\r\n", os.urandom(300), b"SSH-2.0-x\r\n", b"\x16\x03\x01" * 50,
                  PREFACE + b"\xff" * 200, PREFACE + h2_frame(99, 0, 0, b"unknown") * 500):
        with port.wire(hello=hello) as wire:
            wire.read()
    time.sleep(0.3)
    return 7


@kind("strangers")
def opens_and_closes(port):
    for _ in range(30):
        with Wire(random.choice((port.plain, port.tls)), hello=random.choice((b"", PREFACE + settings()))):
            pass
    time.sleep(0.5)
    return 30


@kind("strangers")
def header_flood(port):
    """Thousands of streams that nobody ends, of a peer that does not read."""
    with port.wire(small=True) as wire:
        for n in range(20):
            wire.send(b"".join(headers(1 + 2 * i, V1 + "Create", content_type=random.choice(("text/plain", "application/grpc")))
                               for i in range(n * 500, n * 500 + 500)))
            time.sleep(0.1)
    return 10000


@kind("strangers")
def headers_without_end(port):
    """CONTINUATION upon CONTINUATION."""
    with port.wire(small=True) as wire:
        wire.send(headers(1, V1 + "Create", flags=0))
        for _ in range(50):
            if not wire.send(h2_frame(CONTINUATION, 0, 1, literal(b"x" * 8000))):
                break
            time.sleep(0.02)
    time.sleep(0.3)
    return 50


@kind("strangers")
def large_headers(port):
    """Small on the wire by the table, large once unpacked."""
    with port.wire() as wire:
        wire.send(h2_frame(HEADERS, 4, 1, b"\x83\x86" + literal(b"v" * 3000) + b"\xbe" * 4000))
        for n in range(1, 40):
            if not wire.send(h2_frame(HEADERS, 4, 1 + 2 * n, b"\x83\x86" + b"\xbe" * 4000)):
                break
        wire.read()
    time.sleep(0.3)
    return 40


@kind("strangers")
def rst_flood(port):
    """Streams that begin and are reset at once."""
    with port.wire(small=True) as wire:
        for n in range(20):
            wire.send(b"".join(headers(1 + 2 * i, V1 + "List") + h2_frame(RST, 0, 1 + 2 * i, b"\0\0\0\x08") for i in range(n * 300, n * 300 + 300)))
            time.sleep(0.1)
    return 6000


@kind("strangers")
def ping_flood(port):
    with port.wire(small=True) as wire:
        for _ in range(50):
            wire.send(h2_frame(PING, 0, 0, bytes(8)) * 500)
            time.sleep(0.05)
    return 25000


@kind("strangers")
def settings_flood(port):
    with port.wire(small=True) as wire:
        for _ in range(30):
            wire.send(settings(window=(4, 1), table=(1, random.randint(0, 4096))) * 200 + h2_frame(PRIORITY, 0, 7, b"\0\0\0\5\1") * 200)
            time.sleep(0.1)
    return 12000


@kind("strangers")
def window_games(port):
    """Windows of nothing, of one, of all, of too much; and DATA that nobody asked for."""
    with port.wire(hello=PREFACE + settings(window=(4, 0))) as wire:
        wire.send(streams(50, HEALTH) + b"".join(h2_frame(DATA, 1, 1 + 2 * n, message(health_pb2.HealthCheckRequest())) for n in range(50)))
        for n in range(200):
            wire.send(h2_frame(WINDOW, 0, 1 + 2 * (n % 50), struct.pack(">I", 1)) + settings(window=(4, random.choice((0, 1, 65535, 2**31 - 1)))))
            time.sleep(0.01)
        wire.send(h2_frame(WINDOW, 0, random.choice((0, 1)), struct.pack(">I", random.choice((0, 2**31 - 1)))) * 3)
        wire.send(h2_frame(DATA, 0, 1) * 1000)
        wire.read()
    return 50


@kind("strangers")
def watches_and_never_reads(port):
    wires = [port.wire(small=True, hello=PREFACE + settings(window=(4, 0))) for _ in range(10)]
    for wire in wires:
        wire.send(streams(100, HEALTH) + b"".join(h2_frame(DATA, 1, 1 + 2 * n, message(health_pb2.HealthCheckRequest())) for n in range(100)))
    time.sleep(5)
    for wire in wires:
        wire.socket.close()
    return 1000


@kind("strangers")
def wrong_tokens(port):
    with port.wire(source="127.0.0.1") as wire:     # from where the honest come, too
        wire.send(streams(500, V1 + "Create", token="no-such-token") + streams(200, "/no.such/Method"))
        wire.read(1)
    time.sleep(0.5)
    return 700


@kind("strangers")
def loiters_at_the_admin_port(port):
    wires = [Wire(port.admin, hello=b"") for _ in range(60)] + [Wire(port.admin, hello=b"GET /livez HTT") for _ in range(30)]
    for _ in range(6):
        for wire in wires[60:]:
            wire.send(b"P")
        with Wire(port.admin, hello=b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n", small=True):
            time.sleep(1)
    for wire in wires:
        wire.socket.close()
    return len(wires)


# --- with a name

def call_frames(stream, path, request, end=True):
    return headers(stream, V1 + path, token=TOKEN) + h2_frame(DATA, 1 if end else 0, stream, message(request))


@kind("callers")
def reads_slowly(port):
    """Lists by the page, taken byte by byte."""
    with port.wire(small=True, hello=PREFACE + settings(window=(4, 0)), source="127.0.0.1") as wire:
        wire.send(b"".join(call_frames(1 + 2 * n, "List", v1.ListRequest(limit=1000)) for n in range(20)))
        for n in range(100):
            wire.send(h2_frame(WINDOW, 0, 1 + 2 * (n % 20), struct.pack(">I", 1)))
            time.sleep(0.1)
    return 20


@kind("callers")
def never_takes_watched_cleanups(port):
    """Credit for thousands, and not a byte is read."""
    with port.wire(small=True, hello=PREFACE + settings(window=(4, 0))) as wire:
        watch = v1.WatchRequest(handlers=["rude_queue"], credit=2**32 - 1)
        watch.visibility.FromSeconds(2)
        wire.send(b"".join(call_frames(1 + 2 * n, "WatchCleanups", watch, end=False) for n in range(5)))
        for n in range(20):
            time.sleep(0.5)
            wire.send(h2_frame(DATA, 0, 1 + 2 * (n % 5), message(v1.WatchRequest(credit=2**32 - 1))))
    return 5


@kind("callers")
def never_takes_beats(port):
    """KeepAlive with beats of a thousand ids, whose answers stay."""
    beat = v1.KeepAliveRequest(lease_ids=[f"0190aaaa-0000-7000-8000-{n:012d}" for n in range(300)])
    data = message(beat)
    with port.wire(small=True, hello=PREFACE + settings(window=(4, 0))) as wire:
        wire.send(headers(1, V1 + "KeepAlive", token=TOKEN))
        for _ in range(60):
            wire.send(h2_frame(DATA, 0, 1, data))
            time.sleep(0.1)
    return 60


@kind("callers")
def resets_calls(port):
    """Creates that are reset as soon as they are sent: what they began goes on in the database."""
    with port.wire() as wire:
        for n in range(20):
            wire.send(b"".join(call_frames(1 + 2 * i, "Create", v1.CreateRequest(object_id=f"reset{i % 50}")) + h2_frame(RST, 0, 1 + 2 * i, b"\0\0\0\x08")
                               for i in range(n * 20, n * 20 + 20)))
            wire.read(0.01)
            time.sleep(0.2)
    return 400


@kind("callers")
def huge_messages(port):
    """4 MiB less a little that do not end, lengths of 4 GiB, more than may be, and bombs of gzip."""
    wires = [port.wire() for _ in range(8)]
    for n, wire in enumerate(wires):
        wire.send(headers(1, V1 + "Create", token=TOKEN))
        wire.send(h2_frame(DATA, 0, 1, struct.pack(">BI", n % 2, (4 << 20) - 64, ) if n < 6 else struct.pack(">BI", 0, 2**32 - 1)))
        for _ in range(15):
            wire.send(h2_frame(DATA, 0, 1, bytes(16000)))
        wire.read(0.01)
    time.sleep(3)
    for wire in wires:
        wire.socket.close()
    return len(wires)


@kind("callers")
def goes_in_the_middle(port):
    """Half a call, and gone."""
    for _ in range(20):
        with port.wire() as wire:
            wire.send(call_frames(1, "Create", v1.CreateRequest(object_id="gone", payload='"%s"' % ("x" * 5000)))[:random.randint(20, 3000)])
    time.sleep(0.5)
    return 20


def many(channel, path, requests, answer, wait=20, **more):
    """Calls all at once; how many there were."""
    stub = method(channel, path, answer)
    for one in [stub.future(request, metadata=META, timeout=wait, **more) for request in requests]:
        one.exception()
    return len(requests)


@kind("callers")
def thousands_of_streams(port):
    with grpc.insecure_channel(f"127.0.0.1:{port.plain}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        taken = many(channel, V1 + "Get", [v1.GetRequest(lease_id=f"0190aaaa-0000-7000-8000-{n:012d}") for n in range(3000)], v1.Lease)
    time.sleep(3)
    return taken


@kind("callers")
def batches(port):
    with grpc.insecure_channel(f"127.0.0.1:{port.plain}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        names = [f"batch{n}" for n in range(1000)]
        request = v1.CreateBatchRequest(requests=[v1.CreateRequest(object_id=name) for name in names])
        for one in request.requests:
            one.duration.FromSeconds(2)
        taken = many(channel, V1 + "CreateBatch", [request] * 3, v1.CreateBatchResponse)
    time.sleep(5)
    return 1000 * taken


@kind("callers")
def fights_for_one_object(port):
    with grpc.insecure_channel(f"127.0.0.1:{port.plain}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        request = v1.CreateRequest(object_id="hot", exclusive=True)
        request.duration.FromMilliseconds(200)
        taken = many(channel, V1 + "Create", [request] * 200, v1.Grant)
    time.sleep(2)
    return taken


@kind("callers")
def polls(port):
    """Claims that wait, for what hardly comes."""
    with grpc.insecure_channel(f"127.0.0.1:{port.plain}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        request = v1.ClaimRequest(handlers=["rude_queue"], max_items=1)
        request.wait.FromSeconds(5)
        return many(channel, V1 + "Claim", [request] * 300, v1.ClaimResponse)


@kind("callers")
def nonsense(port):
    with grpc.insecure_channel(f"127.0.0.1:{port.plain}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        raw = channel.unary_unary(V1 + "Create")
        for one in [raw.future(os.urandom(random.randint(0, 3000)), metadata=META, timeout=20) for _ in range(100)]:
            one.exception()
        taken = many(channel, GC + "CreateLease", [gc.CreateLeaseRequest(object_id="x" * n, lease_duration_seconds=2**63) for n in range(0, 2000, 50)],
                     gc.CreateLeaseResponse)
    time.sleep(1)
    return 100 + taken


@kind("callers")
def garbage_for_rude_targets(port):
    """Leases whose cleanups hang, trickle, redirect, ...: many to one address, one to each of many, and some to the honest target."""
    serial = int(time.monotonic() * 1000)
    urls = [f"http://{random.choice(ADDRESSES)}:{port.rude_target}/{manner}/{serial}" for manner in MANNERS for _ in range(3)]
    urls += [f"http://{ADDRESSES[0]}:{port.rude_target}/hang/{n}" for n in range(10)] + [f"{port.target}/hang/{n}" for n in range(2)]
    with grpc.insecure_channel(f"127.0.0.1:{port.plain}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        request = v1.CreateBatchRequest(requests=[
            v1.CreateRequest(object_id=f"rude{serial}-{n}", cleanup="http_endpoint", payload=json.dumps({"url": url}), max_attempts=2)
            for n, url in enumerate(urls)] + [v1.CreateRequest(object_id=f"rude{serial}-q{n}", cleanup="rude_queue") for n in range(20)])
        made = method(channel, V1 + "CreateBatch", v1.CreateBatchResponse)(request, metadata=META, timeout=30)
        ids = [item.grant.lease_id for item in made.items if item.HasField("grant")]
        method(channel, V1 + "Release", v1.CountResponse)(v1.ReleaseRequest(lease_ids=ids), metadata=META, timeout=30)
    time.sleep(2)
    return len(ids)


def again(function, port):
    while True:
        try:
            TAKEN[function.__name__] = TAKEN.get(function.__name__, 0) + (function(port) or 0)
        except (OSError, grpc.RpcError) as error:       # shown the door, as is right
            TAKEN[function.__name__ + " refused"] = TAKEN.get(function.__name__ + " refused", 0) + 1
            if os.environ.get("SOAK_DEBUG"):
                print(function.__name__, repr(error)[:300], flush=True)
            time.sleep(1)


def main():
    group = sys.argv[1]
    with open(sys.argv[2]) as file:
        config = json.load(file)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8192)), hard))
    port = Port(config)
    for name, (function, times) in KINDS[group].items():
        if not config["only"] or name in config["only"]:
            for _ in range(times):
                threading.Thread(target=again, args=(function, port), daemon=True).start()
    for _ in itertools.count():
        time.sleep(0.5)
        with open(sys.argv[3] + ".new", "w") as file:
            json.dump(TAKEN, file)
        os.replace(sys.argv[3] + ".new", sys.argv[3])


main()
