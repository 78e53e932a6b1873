#!/usr/bin/python3
"""The executors against real servers: HTTP, gRPC, redis, S3, Azure's emulator, files; and against failures.

test_executors.py [--half 1|2] [NAME...]: runs all tests, or those whose name contains a NAME; with --half every other one of them.

Owns a private PostgreSQL, a temporary directory and every server that it starts; all of them are stopped by their own
pid. Needs gcc, protoc-c, redis-tools and python3-grpcio; the S3 and Azure servers come from the npm registry.
"""
import argparse
import base64
import collections
import contextlib
import hashlib
import hmac
import http.server
import json
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.parse
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(TOP, "test", "lib"))
from cluster import Cluster, query, value, wait_until  # noqa: E402
from sweep import said, sweep  # noqa: E402

SOURCES = os.path.join(TOP, "src", "sidecar")
LIMIT = float(os.environ.get("EXECUTORS_LIMIT", "60"))  # seconds: how long a condition may take to become true

cluster = None
admin = None
work = None
program = None
stack = contextlib.ExitStack()


def build(directory):
    """Compiles the executors with the tests' own main program; returns the directory."""
    out = os.path.join(directory, "build")
    os.makedirs(os.path.join(out, "proto"))
    include = next(d for d in ("/usr/include", "/usr/local/include") if os.path.exists(d + "/google/protobuf/timestamp.proto"))
    subprocess.run(["protoc-c", "-I", os.path.join(SOURCES, "proto"), "-I", include, "--c_out=proto",
                    "distributed_gc.proto", "google/protobuf/timestamp.proto"], cwd=out, check=True)
    executors = os.path.join(SOURCES, "executors")
    sources = sorted(os.path.join(executors, f) for f in os.listdir(executors) if f.endswith(".c"))
    sources += [os.path.join(SOURCES, "base", name + ".c") for name in ("array", "log", "memory")]
    sources += [os.path.join(out, "proto", "distributed_gc.pb-c.c"),
                os.path.join(out, "proto", "google", "protobuf", "timestamp.pb-c.c")]
    flags = os.environ.get("EXECUTORS_CFLAGS", "-O1 -g").split()
    config = subprocess.run(["pkg-config", "--cflags", "--libs", "libcurl", "libpq", "libcrypto", "libprotobuf-c"],
                            stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    command = ["gcc", "-std=gnu11", "-D_GNU_SOURCE", "-pthread", "-w", "-rdynamic", *flags, "-I" + SOURCES,
               "-I" + out, "-I" + os.path.join(out, "proto")]
    objects = os.path.join(out, "objects")
    os.makedirs(objects)
    subprocess.run(command + ["-c", *sources] + [f for f in config if f.startswith("-I")], cwd=objects, check=True)
    objects = [os.path.join(objects, f) for f in os.listdir(objects)]
    for name in ("main", "unit"):
        subprocess.run(command + [os.path.join(HERE, "executors", name + ".c"), *objects, "-o", os.path.join(out, name), *config],
                       check=True)
    for name in ("names", "fail"):
        subprocess.run(["gcc", "-shared", "-fPIC", "-D_GNU_SOURCE", os.path.join(HERE, "executors", name + ".c"), "-ldl",
                        "-o", os.path.join(out, name + ".so")], check=True)
    return out


def setUpModule():
    global cluster, admin, work, program
    unittest.addModuleCleanup(stack.close)
    work = tempfile.mkdtemp(prefix="garbagetruck-executors-")
    stack.callback(shutil.rmtree, work, ignore_errors=True)
    program = build(work)
    cluster = stack.enter_context(Cluster(preload=not os.environ.get("EXECUTORS_NO_PRELOAD")))
    cluster.start()
    admin = cluster.connect()
    query(admin, "CREATE EXTENSION garbagetruck")
    query(admin, "CREATE ROLE sidecar LOGIN")
    query(admin, "SELECT gt_allow('sidecar')")
    for name in ("http_endpoint", "grpc_endpoint"):
        query(admin, "SELECT gt_handler_grant(%s, 'sidecar', 'claim')", (name,))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def listening(port):
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False


class Process:
    """A child that is stopped, by its own pid, at the end of the block."""

    def __init__(self, command, **kwargs):
        self.child = subprocess.Popen(command, **kwargs)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(20)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        for pipe in (self.child.stdin, self.child.stdout, self.child.stderr):
            if pipe:
                pipe.close()


class Executors(Process):
    """The executors, in a process of their own."""

    def __init__(self, *arguments, env=None, user="sidecar", allow=("127.0.0.1",), dsn=None, wrap=()):
        command = [*wrap, os.path.join(program, "main"), "--db", dsn or cluster.dsn(user=user)]
        for target in allow:
            command += ["--allow-target", target]
        self.log = tempfile.TemporaryFile(dir=work)
        super().__init__(command + list(arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
                         text=True, env=dict(os.environ, **(env or {})))

    def ask(self, question):
        self.child.stdin.write(question + "\n")
        self.child.stdin.flush()

    def stats(self):
        self.ask("stats")
        return json.loads(self.child.stdout.readline())

    def problems(self):
        self.ask("problems")
        lines = []
        while (line := self.child.stdout.readline().rstrip("\n")) != ".":
            lines.append(line)
        return "\n".join(lines)

    def stop(self):
        self.child.stdin.close()
        return self.child.wait(60)

    def output(self):
        self.log.seek(0)
        return self.log.read().decode()


class Requests(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_one(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        self.server.seen.append((self.command, self.path, dict(self.headers), body))
        status, headers, answer = self.server.answer(self, body)
        if status is None:
            return
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name, text)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(answer)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = handle_one

    def log_message(self, *unused):
        pass


class Server(http.server.ThreadingHTTPServer):
    """An HTTP server that notes what it is asked; `answer` gives (status, headers, body), None to say nothing."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, answer=None):
        super().__init__(("127.0.0.1", 0), Requests)
        self.seen = []
        self.answer = answer or (lambda request, body: (200, {}, b"ok"))
        self.gone = threading.Event()
        self.port = self.server_address[1]
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def hang(self, request, body):
        self.gone.wait()
        return None, {}, b""

    def __exit__(self, *unused):
        self.gone.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, *unused):
        pass

    def paths(self):
        return [path for _, path, _, _ in list(self.seen)]


names = (f"t{n}" for n in range(1, 10000))


def handler(kind, command, **options):
    """Registers a handler that the sidecar may claim; returns its name."""
    name = next(names)
    extra = "".join(f", {key} => %({key})s" for key in options)
    query(admin, f"SELECT gt_handler_create(%(n)s, %(k)s, %(c)s{extra})", dict(options, n=name, k=kind, c=command))
    query(admin, "SELECT gt_handler_grant(%s, 'sidecar', 'claim')", (name,))
    return name


def garbage(handler_name, object_id, payload=None, metadata=None, object_type="custom", **options):
    """Makes one piece of garbage, by a lease that is released at once; returns the lease. object_id None: a new one."""
    extra = "".join(f", {key} => %({key})s" for key in options)
    lease = value(admin, f"""SELECT gt_lease_create(%(o)s, %(t)s, 'svc', cleanup => %(h)s, payload => %(p)s::jsonb,
        metadata => %(m)s::jsonb{extra})""",
                  dict(options, o=object_id or next(names), t=object_type, h=handler_name,
                       p=None if payload is None else json.dumps(payload),
                       m=None if metadata is None else json.dumps(metadata)))
    query(admin, "SELECT gt_release(%s)", (lease,))
    return lease


def many(handler_name, count, url):
    """Makes much garbage with payload {"url": url || n}."""
    query(admin, """SELECT gt_release(gt_lease_create(%s || '-' || n, 'custom', 'svc', cleanup => %s,
        payload => jsonb_build_object('url', %s || n::text))) FROM generate_series(1, %s) AS n""",
          (next(names), handler_name, url, count))


def left(handler_name):
    return value(admin, "SELECT count(*) FROM gt_garbage WHERE handler = %s", (handler_name,))


def row(handler_name):
    """The one piece of garbage of a handler: (attempts, error), or None."""
    rows = query(admin, "SELECT attempts, error FROM gt_garbage WHERE handler = %s", (handler_name,))
    return rows[0] if rows else None


class Test(unittest.TestCase):
    longMessage = True

    def until(self, condition, what, sidecar=None):
        result = wait_until(condition, LIMIT, 0.05)
        self.assertTrue(result, what + (("\n" + sidecar.output()) if sidecar else ""))
        return result

    def gone(self, handler_name, sidecar=None):
        self.until(lambda: left(handler_name) == 0, f"{handler_name} is cleaned: {row(handler_name)}", sidecar)

    def failed(self, handler_name, text, sidecar=None):
        """Its attempt failed with this text in the error."""
        self.until(lambda: (row(handler_name) or (0, None))[1], f"{handler_name} has an error", sidecar)
        self.assertIn(text, row(handler_name)[1])

    def left_to_others(self, handler_name, text, sidecar):
        """It is not claimed, and both the report and the log say what is lacking."""
        said = lambda: [line for line in sidecar.problems().splitlines() if f'"{handler_name}"' in line and text in line]
        line = self.until(said, f"{handler_name} is named", sidecar)[0]
        self.until(lambda: line in sidecar.output(), f"{line} is in the log", sidecar)
        # Others are claimed meanwhile.
        with Server() as server:
            other = handler("http", f"http://127.0.0.1:{server.port}/")
            garbage(other, None)
            self.gone(other, sidecar)
        self.assertEqual(row(handler_name), (0, None))

    def all_left(self, made, sidecar):
        """As left_to_others(), for pairs of handler and text."""
        for handler_name, text in made:
            self.until(lambda: any(f'"{handler_name}"' in line and text in line for line in sidecar.problems().splitlines()),
                       f"{handler_name} is named, with {text}", sidecar)
        self.assertEqual([row(handler_name) for handler_name, _ in made], [(0, None)] * len(made))

    def all_failed(self, made, sidecar=None):
        """As failed(), for pairs of handler and text."""
        for handler_name, text in made:
            self.failed(handler_name, text, sidecar)


class Http(Test):
    def test_endpoint(self):
        """The built-in handler: the body that existing services expect."""
        with Server() as server, Executors() as sidecar:
            lease = garbage("http_endpoint", "o/1 é", {"url": f"http://127.0.0.1:{server.port}/x?y=1", "payload": "p\"q"},
                            {"a": "b"}, "blob_storage")
            self.gone("http_endpoint", sidecar)
            method, path, headers, body = server.seen[0]
            self.assertEqual((method, path, headers["Content-Type"]), ("POST", "/x?y=1", "application/json"))
            self.assertNotIn("webhook-signature", headers)
            self.assertEqual(json.loads(body), {
                "lease_id": lease, "object_id": "o/1 é", "object_type": "BlobStorage", "service_id": "svc",
                "metadata": {"a": "b"}, "payload": "p\"q"})
            self.until(lambda: sidecar.stats()["acked"] == 1, "acknowledged")
            garbage("http_endpoint", "o2", {"url": f"http://127.0.0.1:{server.port}/"}, None, "something")
            self.gone("http_endpoint", sidecar)
            body = json.loads(server.seen[1][3])
            self.assertEqual((body["object_type"], body["payload"], body["metadata"]), ("Custom", "", {}))

    def test_status(self):
        """2xx is success and nothing else; the error is kept; a later 2xx ends it."""
        answers = collections.defaultdict(lambda: 500)

        def answer(request, body):
            return answers[request.path], {"Location": "/redirected"}, b"because"

        with Server(answer) as server, Executors() as sidecar:
            for status in (204, 299):
                answers[f"/{status}"] = status
                h = handler("http", f"http://127.0.0.1:{server.port}/{status}")
                garbage(h, None)
                self.gone(h, sidecar)
            made = []
            for status in (301, 302, 307, 308, 400, 404, 410, 500, 503):
                answers[f"/{status}"] = status
                h = handler("http", f"http://127.0.0.1:{server.port}/{status}", retry_delay="1 h")
                garbage(h, None)
                made.append((h, f"status {status}"))
            self.all_failed(made, sidecar)
            self.assertNotIn("/redirected", server.paths())
            h = handler("http", f"http://127.0.0.1:{server.port}/later", retry_delay="100 ms")
            garbage(h, None)
            self.failed(h, "status 500: because", sidecar)
            answers["/later"] = 200
            self.gone(h, sidecar)

    def test_methods(self):
        with Server(lambda r, b: (410 if r.path == "/gone" else 404 if r.path == "/none" else 200, {}, b"")) as server, Executors() as sidecar:
            base = f"http://127.0.0.1:{server.port}"
            for command in (f"DELETE {base}/none", f"DELETE {base}/gone", f"PUT {base}/p", f"GET {base}/g", f"HEAD {base}/h"):
                h = handler("http", command)
                garbage(h, None, {"k": 1})
                self.gone(h, sidecar)
            seen = {path: (method, body) for method, path, _, body in server.seen}
            self.assertEqual(seen["/none"], ("DELETE", b""))
            self.assertEqual(seen["/g"], ("GET", b""))
            self.assertEqual(seen["/p"][0], "PUT")
            claim = json.loads(seen["/p"][1])
            self.assertEqual(claim["payload"], {"k": 1})
            self.assertEqual((claim["attempt"], claim["kind"]), (1, "http"))
            self.assertIn("object_id", claim)
            self.assertIn("cleanup_id", claim)
            self.assertIn("fence", claim)

    def test_placeholders(self):
        with Server() as server, Executors() as sidecar:
            h = handler("http", f"http://127.0.0.1:{server.port}/{{object_type}}/{{object_id}}/{{service_id}}/{{payload.s}}/{{payload.n}}/{{payload.b}}?l={{lease_id}}")
            lease = garbage(h, "a/b?c#d e", {"s": "%é&", "n": 1.5, "b": False}, object_type="my/type")
            self.gone(h, sidecar)
            self.assertEqual(server.paths(), [f"/my%2Ftype/a%2Fb%3Fc%23d%20e/svc/%25%C3%A9%26/1.5/false?l={lease}"])

    def test_idempotency(self):
        """Each attempt at a cleanup says that it is the same, and which one; no other cleanup says so."""
        status = [500]
        with Server(lambda r, b: (status[0], {}, b"")) as server, Executors() as sidecar:
            h = handler("http", f"http://127.0.0.1:{server.port}/x", retry_delay="100 ms")
            garbage(h, None)
            self.until(lambda: len(server.seen) >= 2, "tried twice")
            status[0] = 204
            self.gone(h, sidecar)
            garbage(h, None)
            self.gone(h, sidecar)
            headers = [h for _, _, h, _ in server.seen]
            keys = [h["Idempotency-Key"] for h in headers]
            self.assertEqual(len(set(keys)), 2)
            self.assertEqual(len(set(keys[:-1])), 1)
            for key, attempt in zip(headers[:-1], range(1, len(headers))):
                self.assertRegex(key["Idempotency-Key"], r"\A[0-9a-f]{8}-[0-9]+\Z")
                self.assertEqual((key["webhook-id"], key["Garbagetruck-Attempt"]), (key["Idempotency-Key"], str(attempt)))

    def test_signed(self):
        """Standard Webhooks: signed with each of the secrets."""
        secrets = [base64.b64encode(b"0123456789abcdef01234567").decode(), base64.b64encode(b"another secret").decode()]
        with Server() as server, Executors(env={"GARBAGETRUCK_WEBHOOK_SECRET": " ".join("whsec_" + s for s in secrets)}) as sidecar:
            for command in (f"http://127.0.0.1:{server.port}/p", f"DELETE http://127.0.0.1:{server.port}/d"):
                h = handler("http", command)
                garbage(h, None, {"k": "é"})
                self.gone(h, sidecar)
            for _, _, headers, body in server.seen:
                text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
                proofs = ["v1," + base64.b64encode(hmac.new(base64.b64decode(s), text, hashlib.sha256).digest()).decode() for s in secrets]
                self.assertEqual(headers["webhook-signature"].split(" "), proofs)
                self.assertLess(abs(time.time() - int(headers["webhook-timestamp"])), 60)
        with Executors(env={"GARBAGETRUCK_WEBHOOK_SECRET": "whsec_%%"}) as sidecar:
            self.assertEqual(sidecar.child.wait(LIMIT), 1)
            self.assertIn("GARBAGETRUCK_WEBHOOK_SECRET", sidecar.output())

    def test_retry_after(self):
        """Not before the time that the target has asked for; a POST that is answered by 410 is not made again."""
        answers = {"/429": (429, {"Retry-After": "3000"}), "/503": (503, {"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"}),
                   "/short": (503, {"Retry-After": "1"}), "/500": (500, {"Retry-After": "3000"}), "/410": (410, {})}
        with Server(lambda r, b: (*answers[r.path], b"")) as server, Executors() as sidecar:
            waits = {}
            for path in answers:
                h = handler("http", f"http://127.0.0.1:{server.port}{path}", retry_delay="100 s")
                garbage(h, None)
                self.failed(h, "status", sidecar)
                waits[path] = query(admin, """SELECT state, extract(epoch FROM next_attempt_at - gt_clock())::float FROM gt_garbage
                    WHERE handler = %s""", (h,))[0]
            self.assertEqual({path: state for path, (state, _) in waits.items() if state != "waiting"}, {"/410": "dead"})
            self.assertTrue(2900 < waits["/429"][1] <= 3000, waits)
            self.assertTrue(86000 < waits["/503"][1] <= 86400, waits)
            self.assertTrue(waits["/short"][1] <= 100 and waits["/500"][1] <= 100, waits)

    def test_climbing(self):
        """A value that would lead out of its directory, however it is spelt, is not sent."""
        with Server() as server, Executors() as sidecar:
            made = []
            for value_ in ("../prod/secret", "..\\prod", "a/../../b", "a/.."):
                h = handler("http", f"DELETE http://127.0.0.1:{server.port}/files/{{object_id}}", retry_delay="1 h")
                garbage(h, value_)
                made.append((h, "segment"))
            self.all_failed(made, sidecar)
            self.assertEqual(server.seen, [])

    def test_no_value(self):
        """An absent, null, empty or not scalar value: no call is made."""
        with Server() as server, Executors() as sidecar:
            made = []
            for payload in (None, {}, {"k": None}, {"k": ""}, {"k": {"a": 1}}, {"k": [1]}, [1], "k"):
                h = handler("http", f"http://127.0.0.1:{server.port}/{{payload.k}}", retry_delay="1 h")
                garbage(h, None, payload)
                made.append((h, "{payload.k} has no value"))
            h = handler("http", f"http://127.0.0.1:{server.port}/{{payload.k}}", retry_delay="1 h")
            garbage(h, None, {"k": ".."})
            self.all_failed(made + [(h, "segment")], sidecar)
            self.assertEqual(server.seen, [])

    def test_bounds(self):
        """Endless bodies, endless headers, slow answers, no answers: each ends in time."""
        def answer(request, body):
            with contextlib.suppress(OSError):
                if request.path == "/body":
                    request.wfile.write(b"HTTP/1.1 500 No\r\n\r\n")
                    while True:
                        request.wfile.write(b"x" * 65536)
                elif request.path == "/big":
                    return 200, {}, b"x" * 10_000_000
                elif request.path == "/headers":
                    request.wfile.write(b"HTTP/1.1 200 OK\r\n")
                    while True:
                        request.wfile.write(b"X-A: " + b"x" * 1000 + b"\r\n")
                elif request.path == "/slow":
                    request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                    while True:
                        request.wfile.write(b"x")
                        time.sleep(0.1)
                elif request.path == "/nothing":
                    request.connection.shutdown(socket.SHUT_RDWR)
                elif request.path == "/rubbish":
                    request.wfile.write(b"rubbish\r\n\r\n")
                    request.connection.shutdown(socket.SHUT_RDWR)
            return None, {}, b""

        with Server(answer) as server, Executors() as sidecar:
            base = f"http://127.0.0.1:{server.port}"
            texts = {"/body": "status 500", "/headers": "too long", "/slow": "no answer within", "/nothing": "port",
                     "/rubbish": "port"}
            made = {path: handler("http", base + path, timeout="1 s", retry_delay="1 h") for path in texts}
            big = handler("http", base + "/big")
            garbage(big, None)
            for h in made.values():
                garbage(h, None)
            for path, h in made.items():
                self.failed(h, texts[path], sidecar)
            self.gone(big, sidecar)
            h = handler("http", f"http://127.0.0.1:{free_port()}/", retry_delay="1 h")
            garbage(h, None)
            self.failed(h, "could not connect: Connection refused", sidecar)

    def test_hanging_target(self):
        """Much garbage of a target that hangs; another target's is cleaned as if nothing were."""
        with Server() as bad, Server() as good, Executors() as sidecar:
            bad.answer = bad.hang
            many("http_endpoint", 2000, f"http://127.0.0.1:{bad.port}/")
            self.until(lambda: bad.seen, "the hanging target is called", sidecar)
            fixed = handler("http", f"http://127.0.0.1:{bad.port}/{{object_id}}")
            many(fixed, 500, "")
            many("http_endpoint", 200, f"http://127.0.0.1:{good.port}/")
            other = handler("http", f"http://127.0.0.1:{good.port}/fixed/{{object_id}}")
            many(other, 100, "")
            self.until(lambda: len(good.seen) >= 300, f"the good target's are called: {len(good.seen)}", sidecar)
            self.gone(other, sidecar)
            self.until(lambda: left("http_endpoint") == 2000, "only the bad are left", sidecar)
            self.assertEqual(len(set(good.paths())), 300)
            self.assertLessEqual(sidecar.stats()["http"]["in_flight"], 64)
            # what waits has not used up attempts
            self.assertEqual(value(admin, "SELECT count(*) FROM gt_garbage WHERE max_attempts - attempts < 24"), 0)
            sidecar.child.kill()
        clear()

    def test_behind_much_of_a_hanging_target(self):
        """What one handler has due for other targets is found in the midst of it, and called long before all that is given back."""
        with Server() as bad, Server() as good, Executors() as sidecar:
            bad.answer = bad.hang
            url = {"bad": f"http://127.0.0.1:{bad.port}/", "good": f"http://127.0.0.1:{good.port}/"}
            query(admin, """SELECT gt_release_many(gt_lease_create_many(ARRAY(SELECT 'early' || n FROM generate_series(1, 8000) n),
                cleanup => 'http_endpoint', payload => jsonb_build_object('url', %s)))""", (url["bad"],))
            garbage("http_endpoint", None, {"url": url["good"] + "middle"})
            query(admin, """SELECT gt_release_many(gt_lease_create_many(ARRAY(SELECT 'late' || n FROM generate_series(1, 8000) n),
                cleanup => 'http_endpoint', payload => jsonb_build_object('url', %s)))""", (url["bad"],))
            garbage("http_endpoint", None, {"url": url["good"] + "last"})
            self.until(lambda: len(good.seen) >= 2, f"both are called: {good.paths()}", sidecar)
            self.assertLess(sidecar.stats()["given_back"], 3000)
            # What comes now does not wait until all that was there has been looked at again; what is given back is the clock.
            for n in range(20):
                before = sidecar.stats()["given_back"]
                garbage("http_endpoint", None, {"url": url["good"] + f"later{n}"})
                self.until(lambda: len(good.seen) >= 3 + n, f"it is called: {good.paths()}", sidecar)
                self.assertLess(sidecar.stats()["given_back"] - before, 500)
            sidecar.child.kill()
        clear()

    def test_spellings(self):
        """A hanging host in any spelling, and one of which the handler leaves a part open, keep nothing of others'."""
        with Server() as bad, Server() as good, Executors(allow=("127.0.0.0/8", "localhost")) as sidecar:
            bad.answer = bad.hang
            for host in ("LOCALHOST", "localhost.", "127.0.0.1", "127.1", "2130706433", "%6cocalhost", "me:word@localhost"):
                many("http_endpoint", 200, f"http://{host}:{bad.port}/")
            part = handler("http", f"http://127.0.0.{{payload.url}}:{bad.port}/x")
            query(admin, """SELECT gt_release(gt_lease_create('part-' || n, cleanup => %s, payload => '{"url": "1"}'))
                FROM generate_series(1, 200) AS n""", (part,))
            self.until(lambda: len(bad.seen) >= 2, "the hanging target is called", sidecar)
            for n in range(20):
                garbage("http_endpoint", None, {"url": f"http://127.0.0.1:{good.port}/{n}"})
            self.until(lambda: len(good.seen) == 20, f"the good target's are called: {len(good.seen)}", sidecar)
            sidecar.child.kill()
        clear()

    def test_claims_beside_a_hanging_target(self):
        """What is due for a target that hangs is not claimed again and again: claims are for what can be done."""
        with Server() as bad, Executors("--file-root", work) as sidecar:
            bad.answer = bad.hang
            many("http_endpoint", 200, f"http://127.0.0.1:{bad.port}/")
            self.until(lambda: len(bad.seen) >= 2, "the hanging target is called", sidecar)
            h = handler("file", "{object_id}")
            query(admin, "SELECT count(gt_release(gt_lease_create('none-' || n, cleanup => %s))) FROM generate_series(1, 10000) AS n", (h,))
            self.gone(h, sidecar)
            self.assertLess(sidecar.stats()["given_back"], 2000)
            self.assertEqual(left("http_endpoint"), 200)
            sidecar.child.kill()
        clear()

    def test_hanging_objects(self):
        """Some objects' calls hang, and keep no others of the same host."""
        def answer(request, body):
            return server.hang(request, body) if "hang" in request.path else (200, {}, b"")

        with Server(answer) as server, Executors() as sidecar:
            many("http_endpoint", 24, f"http://127.0.0.1:{server.port}/hang/")
            self.until(lambda: len(server.seen) >= 2, "some hang", sidecar)
            many("http_endpoint", 190, f"http://127.0.0.1:{server.port}/good/")
            self.until(lambda: left("http_endpoint") == 24, f"the good ones are done: {left('http_endpoint')}", sidecar)
            self.assertLessEqual(sidecar.stats()["http"]["in_flight"], 16)
            sidecar.child.kill()
        clear()

    def test_more_hang_than_are_answered(self):
        """Of five hundred objects of a host that nobody knows three hundred hang, and are first: the others are found among them."""
        def answer(request, body):
            return server.hang(request, body) if "hang" in request.path else (200, {}, b"")

        with Server(answer) as server, Executors() as sidecar:
            many("http_endpoint", 300, f"http://127.0.0.1:{server.port}/hang/")
            many("http_endpoint", 200, f"http://127.0.0.1:{server.port}/good/")
            good = lambda: len({path for path in server.paths() if "good" in path})
            self.until(lambda: good() > 20 or sidecar.stats()["http"]["timed_out"] > 0, "some are called", sidecar)
            self.assertGreater(good(), 20)
            self.until(lambda: good() == 200, f"all are called: {good()}", sidecar)
            sidecar.child.kill()
        clear()

    def test_objects_that_hung_before(self):
        """They come again and again, and take no places of those that are called for the first time."""
        def answer(request, body):
            if "slow" in request.path:
                time.sleep(0.7)
            return server.hang(request, body) if "hang" in request.path else (200, {}, b"")

        with Server(answer) as server, Executors() as sidecar:
            url = f"http://127.0.0.1:{server.port}"
            many("http_endpoint", 200, url + "/fast/")
            self.until(lambda: left("http_endpoint") == 0, "fast ones are answered", sidecar)
            many("http_endpoint", 1, url + "/slow/")
            self.until(lambda: left("http_endpoint") == 0, "the slow one is answered", sidecar)
            many("http_endpoint", 40, url + "/hang/")
            hanging = lambda: [path for path in server.paths() if "hang" in path]
            self.until(lambda: len(set(hanging())) == 40, "all hang", sidecar)
            before = len(hanging())
            for n in range(20):
                garbage("http_endpoint", None, {"url": f"{url}/good/{n}"})
            self.until(lambda: left("http_endpoint") == 40, f"the good ones are done: {left('http_endpoint')}", sidecar)
            self.assertLess(len(hanging()) - before, 16)
            sidecar.child.kill()
        clear()

    def test_a_quiet_target_is_not_silent(self):
        """Some of its objects hang, and nothing was asked of it for a while: what comes then is called at once."""
        def answer(request, body):
            return server.hang(request, body) if "hang" in request.path else (200, {}, b"")

        with Server(answer) as server, Executors("--executor-calls", "16") as sidecar:
            url = f"http://127.0.0.1:{server.port}"
            many("http_endpoint", 8, url + "/good/")
            self.until(lambda: left("http_endpoint") == 0, "the good ones are done", sidecar)
            many("http_endpoint", 8, url + "/hang/")
            self.until(lambda: sidecar.stats()["http"]["in_flight"] == 8, "all hang", sidecar)
            time.sleep(3)           # the quiet
            garbage("http_endpoint", None, {"url": url + "/late"})
            self.until(lambda: "/late" in server.paths() or sidecar.stats()["http"]["timed_out"] > 0, "it is called", sidecar)
            self.assertIn("/late", server.paths())
            sidecar.child.kill()
        clear()

    def test_answers_that_do_not_end(self):
        """They are none: that they took long does not make the target one of which long calls are expected."""
        def answer(request, body):
            if "trickle" in request.path:
                return 200, {"Content-Length": "1000"}, b"x"
            return server.hang(request, body) if "hang" in request.path else (200, {}, b"")

        with Server(answer) as server, Executors() as sidecar:
            url = f"http://127.0.0.1:{server.port}"
            h = handler("http", url + "/trickle", timeout="8 seconds", retry_delay="1 h")
            garbage(h, None)
            self.failed(h, "no answer within", sidecar)
            many("http_endpoint", 16, url + "/hang/")
            self.until(lambda: len(server.seen) >= 4, "some hang", sidecar)
            before = sidecar.stats()["http"]["timed_out"]
            many("http_endpoint", 5, url + "/good/")
            done = lambda: sum("good" in path for path in server.paths()) >= 5
            self.until(lambda: done() or sidecar.stats()["http"]["timed_out"] > before, "the good ones are called", sidecar)
            self.assertTrue(done())
            sidecar.child.kill()
        clear()

    def test_folded_header(self):
        """An answer whose first header is a folded line, as libcurl once joined it to what it had freed."""
        def answer(connection):
            while connection.recv(65536):
                connection.sendall(b"HTTP/1.1 200 OK\r\n folded\r\nContent-Length: 0\r\nLast: x\r\n\r\n")

        with socket.create_server(("127.0.0.1", 0)) as server, Executors() as sidecar:
            def serve():
                with contextlib.suppress(OSError):
                    while True:
                        threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

            threading.Thread(target=serve, daemon=True).start()
            many("http_endpoint", 50, f"http://127.0.0.1:{server.getsockname()[1]}/")
            self.until(lambda: left("http_endpoint") == 0 or sidecar.stats()["http"]["failed"] > 0, "it is answered", sidecar)
            self.assertEqual(sidecar.stop(), 0)
        clear()

    def test_many_hanging_targets(self):
        with contextlib.ExitStack() as servers, Server() as good, Executors() as sidecar:
            for _ in range(160):
                bad = servers.enter_context(socket.create_server(("127.0.0.1", 0)))
                many("http_endpoint", 20, f"http://127.0.0.1:{bad.getsockname()[1]}/")
            self.until(lambda: sidecar.stats()["http"]["in_flight"] >= 100, "the hanging targets are called", sidecar)
            garbage("http_endpoint", None, {"url": f"http://127.0.0.1:{good.port}/first"})
            self.until(lambda: good.seen, "a target not tried yet finds a place", sidecar)
            self.assertEqual(sidecar.stats()["http"]["timed_out"], 0, "before any of theirs has ended")
            self.until(lambda: sidecar.stats()["given_back"] > 1000, "many wait for their turns", sidecar)
            self.assertLess(sidecar.stats()["http"]["in_flight"], 200)
            many("http_endpoint", 200, f"http://127.0.0.1:{good.port}/")
            self.until(lambda: left("http_endpoint") == 3200, f"the good target's are done: {len(good.seen)}", sidecar)
            sidecar.child.kill()
        clear()


def clear():
    """Discards what a test leaves behind, so that the next one finds an idle queue."""
    def discard():
        query(admin, "SELECT gt_ack(cleanup_id, attempts) FROM gt_garbage WHERE state IN ('claimed', 'dead')")
        query(admin, """SELECT gt_ack(c.cleanup_id, c.attempt) FROM
            (SELECT array_agg(cleanup_id) AS ids, array_agg(DISTINCT handler) AS handlers
             FROM (SELECT cleanup_id, handler FROM gt_garbage LIMIT 1000) g) w, gt_claim(w.handlers, 1000, '1 minute', w.ids) c
            WHERE w.ids IS NOT NULL""")
        return value(admin, "SELECT count(*) FROM gt_garbage") == 0

    wait_until(discard, LIMIT)


class Targets(Test):
    """What a lease may name."""

    def tearDown(self):
        clear()

    def test_refused(self):
        """Not named, or an address that is never called, however it is written: no connection is made."""
        with Server() as server:
            env = {"LD_PRELOAD": os.path.join(program, "names.so")}
            p = server.port
            allow = ("good.test:80", "mapped.test", "loopback6.test", "metadata.test", "linklocal.test", "any.test",
                     "turn.test", "loopback.test", "0.0.0.0/0", "::/0")
            made = []
            with Executors(env=env, allow=allow) as sidecar:
                for host in ("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0", "[::1]", "localhost",
                             "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "good.test",
                             "loopback.test", "mapped.test", "loopback6.test", "metadata.test", "linklocal.test",
                             "any.test", "127.0.0.1%2f@loopback.test", "169.254.169.254", "[fe80::1]", "other.test",
                             "LOOPBACK.test"):
                    h = handler("http", "{payload.url}", retry_delay="1 h", timeout="5 s")
                    garbage(h, None, {"url": f"http://{host}:{p}/"})
                    made.append((h, "--allow-target"))
                for url in (f"ftp://loopback.test:{p}/", "file:///etc/passwd", f"gopher://loopback.test:{p}/",
                            f"http:/\\127.0.0.1:{p}/", f"//127.0.0.1:{p}/", f"http://a b:{p}/", f"dict://127.0.0.1:{p}/"):
                    h = handler("http", "{payload.url}", retry_delay="1 h")
                    garbage(h, None, {"url": url})
                    made.append((h, ""))
                self.all_failed(made, sidecar)
            self.assertEqual(server.seen, [])

    def test_turning_name(self):
        """A name that resolves now to this and now to that never reaches loopback."""
        env = {"LD_PRELOAD": os.path.join(program, "names.so")}
        with Server() as server, Executors(env=env, allow=("turn.test",)) as sidecar:
            h = handler("http", "{payload.url}", retry_delay="50 ms", timeout="300 ms", max_attempts=4)
            garbage(h, None, {"url": f"http://turn.test:{server.port}/"})
            self.until(lambda: value(admin, "SELECT count(*) FROM gt_dead WHERE handler = %s", (h,)), "it is dead", sidecar)
            self.assertEqual(server.seen, [])

    def test_named(self):
        env = {"LD_PRELOAD": os.path.join(program, "names.so")}
        with Server() as server, Executors(env=env, allow=("good.test", "127.0.0.0/8", "localhost")) as sidecar:
            for host in ("good.test", "GOOD.test", "127.0.0.1", "localhost", "2130706433"):
                h = handler("http", "http://{payload.host}:%d/x" % server.port)
                garbage(h, None, {"host": host})
                self.gone(h, sidecar)

    def test_connection_of_another(self):
        """A connection that a handler's own target opened is not used for what a lease may not name."""
        env = {"LD_PRELOAD": os.path.join(program, "names.so")}
        with Server() as server, Executors(env=env, allow=("loopback.test",)) as sidecar:
            own = handler("http", f"http://loopback.test:{server.port}/own")
            lease = handler("http", "{payload.url}", retry_delay="1 h")
            garbage(own, None)
            self.gone(own, sidecar)
            garbage(lease, None, {"url": f"http://loopback.test:{server.port}/lease"})
            self.failed(lease, "--allow-target", sidecar)
            self.assertEqual(server.paths(), ["/own"])

    def test_hanging_name(self):
        """A look-up that hangs delays nobody else, and not the end of the process either."""
        env = {"LD_PRELOAD": os.path.join(program, "names.so")}
        with Server() as server, Executors(env=env, allow=("hang.test", "127.0.0.1")) as sidecar:
            bad = handler("http", "{payload.url}", retry_delay="1 h", timeout="1 s")
            for n in range(20):
                garbage(bad, f"o{n}", {"url": "http://hang.test/"})
            self.until(lambda: sidecar.stats()["http"]["in_flight"], "the hanging look-up is begun", sidecar)
            good = handler("http", "{payload.url}")
            garbage(good, None, {"url": f"http://127.0.0.1:{server.port}/"})
            self.gone(good, sidecar)
            self.until(lambda: sidecar.stats()["http"]["timed_out"] >= 2, "they time out", sidecar)
            self.assertEqual(sidecar.stop(), 0)

    def test_proxy_is_not_used(self):
        with Server() as server, Server() as proxy:
            env = {"http_proxy": f"http://127.0.0.1:{proxy.port}", "ALL_PROXY": f"http://127.0.0.1:{proxy.port}"}
            with Executors(env=env) as sidecar:
                garbage("http_endpoint", None, {"url": f"http://127.0.0.1:{server.port}/"})
                self.gone("http_endpoint", sidecar)
            self.assertEqual((len(server.seen), len(proxy.seen)), (1, 0))


class File(Test):
    def tearDown(self):
        clear()

    def test_files(self):
        root = os.path.join(work, "files")
        os.makedirs(root + "/d/e")
        outside = os.path.join(work, "outside")
        for path in (root + "/a", root + "/d/e/b c", root + "/é\"", outside):
            open(path, "w", encoding="utf-8").close()
        os.symlink("..", root + "/up")
        os.symlink(work, root + "/abs")
        with Executors("--file-root", root) as sidecar:
            h = handler("file", "{object_id}")
            for path in ("a", "d/e/b c", "é\"", "d/never"):
                garbage(h, path)
            self.gone(h, sidecar)
            missing = handler("file", "{object_id}", retry_delay="1 h")
            garbage(missing, "never/was")
            self.failed(missing, "is not there", sidecar)
            self.assertEqual([os.path.exists(root + p) for p in ("/a", "/d/e/b c", "/é\"")], [False] * 3)
            made = []
            for path in ("../outside", "d/../../outside", "up/outside", "abs/outside", outside, "d", "d/e", "d/", "/", "."):
                h = handler("file", "{payload.p}", retry_delay="1 h")
                garbage(h, None, {"p": path})
                made.append((h, ""))
            self.all_failed(made, sidecar)
            self.assertTrue(os.path.exists(outside))
            self.assertTrue(os.path.isdir(root + "/d/e"))

    def test_other_root(self):
        """A directory that has taken the place of the root has none of the files: nothing counts as removed."""
        root = os.path.join(work, "mounted")
        os.makedirs(root)
        with Executors("--file-root", root) as sidecar:
            h = handler("file", "{object_id}", retry_delay="1 h")
            garbage(h, "gone")
            self.gone(h, sidecar)
            os.rename(root, root + ".away")
            os.makedirs(root)
            garbage(h, "a")
            self.failed(h, "not the directory", sidecar)

    def test_unmounted(self):
        """Where a file system was mounted that is not any more, the empty directory beneath it says nothing."""
        if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], stderr=subprocess.DEVNULL).returncode != 0:
            self.skipTest("needs a mount namespace")
        root = os.path.join(work, "with volumes")
        at_start, later = os.path.join(root, "a b", "vol"), os.path.join(root, "later")
        os.makedirs(at_start)
        os.makedirs(later)
        wrap = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none "$1" && shift && exec "$@"', "sh", at_start]
        with Executors("--file-root", root + "/", wrap=wrap) as sidecar:
            def inside(*command):
                subprocess.run(["nsenter", "-t", str(sidecar.child.pid), "-m", *command], check=True)

            h = handler("file", "{object_id}", retry_delay="1 h")
            self.until(lambda: sidecar.stats()["connected"], "it has started", sidecar)
            inside("mount", "-t", "tmpfs", "none", later)
            garbage(h, "later/gone")
            self.gone(h, sidecar)
            inside("umount", at_start)
            inside("umount", later)
            for path in ("a b/vol/x", "later/x", "a b//vol/y", os.path.join(later, "d/y")):
                h = handler("file", "{object_id}", retry_delay="1 h")
                garbage(h, path)
                self.failed(h, "mounted", sidecar)
            h = handler("file", "{object_id}", retry_delay="1 h")
            garbage(h, "gone")
            self.gone(h, sidecar)

    def test_private_tmp(self):
        """A /tmp of the sidecar's own (PrivateTmp= of systemd) has none of the files: its handler is left to others."""
        if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], stderr=subprocess.DEVNULL).returncode != 0:
            self.skipTest("needs a mount namespace")
        with tempfile.TemporaryDirectory(dir="/tmp") as root:
            open(os.path.join(root, "file"), "w").close()
            h = handler("file", "{object_id}")
            garbage(h, "file")
            # as systemd does it, and as it does "disconnected"; what the sidecar needs of the old /tmp is where it was
            yes = "mkdir -p /tmp/systemd-private-1-garbagetruck/tmp && mount --bind /tmp/systemd-private-1-garbagetruck/tmp /tmp"
            disconnected = "mount -t tmpfs tmpfs /media && mkdir /media/tmp && mount --bind /media/tmp /tmp && umount /media"
            for how in (yes, disconnected):
                script = "mount --bind /tmp /mnt && " + how + """ || exit 9
                    for d in "$1" "$2"; do mkdir -p "$d" && mount --bind "/mnt${d#/tmp}" "$d" || exit 9; done
                    mkdir -p "$3" && shift 3 && exec "$@" """
                wrap = ["unshare", "-m", "sh", "-c", script, "sh", work, cluster.home, root]
                with Executors("--file-root", root, wrap=wrap) as sidecar:
                    self.left_to_others(h, "PrivateTmp", sidecar)
                self.assertTrue(os.path.exists(os.path.join(root, "file")))
            shutil.rmtree("/tmp/systemd-private-1-garbagetruck")

    def test_without_root(self):
        """It is not claimed: another sidecar may have the directory."""
        h = handler("file", "{object_id}")
        garbage(h, "a")
        with Executors() as sidecar:
            self.left_to_others(h, "--file-root", sidecar)
            with Executors("--file-root", work) as other:
                self.gone(h, other)


def certificate(directory):
    """A self-signed certificate for 127.0.0.1; returns (certificate, key)."""
    os.makedirs(directory, exist_ok=True)
    crt, key = os.path.join(directory, "tls.crt"), os.path.join(directory, "tls.key")
    if not os.path.exists(crt):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                        "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
                        "-keyout", key, "-out", crt], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return crt, key


def resp(port, *commands):
    """Sends commands to redis and returns all that it answers."""
    with socket.create_connection(("127.0.0.1", port), 10) as s:
        answer = b""
        for command in commands + (("PING", "the end"),):
            words = [w if isinstance(w, bytes) else str(w).encode() for w in command]
            s.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
        while b"the end" not in answer:
            answer += s.recv(65536)
    return answer


class FakeRedis(socketserver.ThreadingTCPServer):
    """Notes the commands that it is sent; `answer` gives the reply to one, a list of words, as bytes."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, answer):
        super().__init__(("127.0.0.1", 0), FakeRedisConnection)
        self.port = self.server_address[1]
        self.answer = answer
        self.seen = []
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def __exit__(self, *unused):
        self.shutdown()
        self.server_close()


class FakeRedisConnection(socketserver.StreamRequestHandler):
    def handle(self):
        while line := self.rfile.readline():
            words = []
            for _ in range(int(line[1:])):
                words.append(self.rfile.read(int(self.rfile.readline()[1:]) + 2)[:-2].decode())
            self.server.seen.append(words)
            self.wfile.write(self.server.answer(words))


class Redis(Test):
    @classmethod
    def setUpClass(cls):
        cls.crt, cls.key = certificate(os.path.join(work, "tls"))
        cls.port, cls.tls = free_port(), free_port()
        cls.processes = contextlib.ExitStack()
        home = os.path.join(work, "redis")
        os.makedirs(home)
        cls.processes.enter_context(Process(
            ["redis-server", "--port", str(cls.port), "--tls-port", str(cls.tls), "--tls-cert-file", cls.crt,
             "--tls-key-file", cls.key, "--tls-auth-clients", "no", "--bind", "127.0.0.1", "--requirepass", "secret word",
             "--save", "", "--dir", home], executable="/usr/bin/redis-check-rdb", stdout=subprocess.DEVNULL))
        if not wait_until(lambda: listening(cls.port) and listening(cls.tls), LIMIT):
            raise RuntimeError("redis-server does not listen")

    @classmethod
    def tearDownClass(cls):
        cls.processes.close()
        clear()

    def test_unlink(self):
        keys = ["plain", "with/slash", "with space", "é%\"'", "a\x01b", "*", "a:{b}"]
        resp(self.port, ("AUTH", "secret word"), *[("SET", k, "v") for k in keys], ("SELECT", 3), ("SET", "x/plain", "v"), ("SET", "plain", "v"))
        with Executors("--tls-ca", self.crt, env={"REDIS_PASSWORD": "secret word"}) as sidecar:
            h = handler("redis", f"redis://127.0.0.1:{self.port}/0/{{payload.k}}")
            for n, key in enumerate(keys[:-1]):
                garbage(h, f"o{n}", {"k": key})
            self.gone(h, sidecar)
            answer = resp(self.port, ("AUTH", "secret word"), *[("EXISTS", k) for k in keys])
            self.assertEqual(answer.count(b":0\r\n"), len(keys) - 1)
            self.assertEqual(answer.count(b":1\r\n"), 1)
            secure = handler("redis", f"rediss://127.0.0.1:{self.tls}/{{payload.db}}/x/{{object_id}}")
            garbage(secure, "plain", {"db": 3})
            garbage(secure, "absent", {"db": 3})
            self.gone(secure, sidecar)
            answer = resp(self.port, ("AUTH", "secret word"), ("SELECT", 3), ("KEYS", "*"))
            self.assertIn(b"plain", answer)
            self.assertNotIn(b"x/plain", answer)

    def test_failures(self):
        with Server() as web, Executors(env={"REDIS_PASSWORD": "wrong"}) as sidecar:
            made = []
            for target, text in ((f"redis://127.0.0.1:{self.port}/0/k", "AUTH"),
                                 (f"rediss://127.0.0.1:{self.tls}/0/k", "certificate"),
                                 (f"redis://127.0.0.1:{web.port}/0/k", "redis"),
                                 (f"redis://127.0.0.1:{free_port()}/0/k", "connect")):
                h = handler("redis", target, retry_delay="1 h", timeout="3 s")
                garbage(h, None)
                made.append((h, text))
            never = []
            for target, text in ((f"redis://127.0.0.1:{self.port}/x/k", "/DB/KEY"),
                                 (f"redis://127.0.0.1:{self.port}/0/", "/DB/KEY"),
                                 (f"redis://127.0.0.1:{self.port}/0", "/DB/KEY"),
                                 (f"redis://127.0.0.1:{self.port}?/0/k", "/DB/KEY"),
                                 (f"redis://127.0.0.1:{self.port}x/0/k", "host:port"),
                                 (f"http://127.0.0.1:{self.port}/0/k", "redis://")):
                h = handler("redis", target)
                garbage(h, None)
                never.append((h, text))
            self.all_failed(made, sidecar)
            self.all_left(never, sidecar)
        with Executors(env={"REDIS_PASSWORD": "secret word"}, allow=()) as sidecar:
            resp(self.port, ("AUTH", "secret word"), ("SET", "stays", "v"))
            h = handler("redis", f"redis://127.0.0.1:{self.port}/999/stays", retry_delay="1 h")
            garbage(h, None)
            self.failed(h, "SELECT", sidecar)
            self.assertIn(b"$1\r\nv", resp(self.port, ("AUTH", "secret word"), ("GET", "stays")))
            h = handler("redis", "redis://{payload.h}/0/stays", retry_delay="1 h")
            garbage(h, None, {"h": f"127.0.0.1:{self.port}"})
            self.failed(h, "--allow-target", sidecar)

    def test_credentials(self):
        """A target's own, the environment's for hosts of handlers; a host that a lease names gets none."""
        env = {"REDIS_USERNAME": "joe", "REDIS_PASSWORD": "sesame"}
        with FakeRedis(lambda words: b":1\r\n" if words[0] == "UNLINK" else b"+OK\r\n") as server, Executors(env=env) as sidecar:
            here = f"127.0.0.1:{server.port}"
            for target, payload, login in (
                    (f"redis://{here}/0/k", None, [["AUTH", "joe", "sesame"]]),
                    (f"redis://me:p%40ss@{here}/0/k", None, [["AUTH", "me", "p@ss"]]),
                    (f"redis://:word@{here}/0/k", None, [["AUTH", "word"]]),
                    ("redis://{payload.h}/0/k", {"h": here}, []),
                    ("{payload.u}", {"u": f"redis://{here}/0/k"}, []),
                    ("redis://127.0.0.1:{payload.p}/0/k", {"p": server.port}, [])):
                del server.seen[:]
                h = handler("redis", target, retry_delay="1 h")
                garbage(h, None, payload)
                self.gone(h, sidecar)
                self.assertEqual(server.seen, login + [["UNLINK", "k"]], target)
            del server.seen[:]
            made = []
            for url in (f"redis://joe:sesame@{here}/0/k", f"redis://{here}?/0/k", f"redis://{here}#/0/k", "redis:///0/k"):
                h = handler("redis", "{payload.u}", retry_delay="1 h")
                garbage(h, None, {"u": url})
                made.append((h, ""))
            self.all_failed(made, sidecar)
            self.assertEqual(server.seen, [])
        with FakeRedis(lambda words: b":1\r\n" if words[0] == "UNLINK" else
                       b"-ERR AUTH <password> called without any password configured for the default user.\r\n") as server, \
                Executors(env=env) as sidecar:
            h = handler("redis", f"redis://127.0.0.1:{server.port}/0/k", retry_delay="1 h")
            garbage(h, None)
            self.gone(h, sidecar)
            h = handler("redis", f"redis://a:b@127.0.0.1:{server.port}/0/k", retry_delay="1 h")
            garbage(h, None)
            self.failed(h, "AUTH", sidecar)

    def test_without_unlink(self):
        def answer(words):
            return b":1\r\n" if words[0] == "DEL" else b"-ERR unknown command 'UNLINK', with args\r\n"
        with FakeRedis(answer) as server, Executors() as sidecar:
            h = handler("redis", f"redis://127.0.0.1:{server.port}/0/a b")
            garbage(h, None)
            self.gone(h, sidecar)
            self.assertEqual(server.seen, [["UNLINK", "a b"], ["DEL", "a b"]])

    def test_cluster(self):
        """MOVED and ASK lead on, within --allow-target; the password goes to hosts that are named only."""
        with FakeRedis(lambda words: b":1\r\n" if words[0] == "UNLINK" else b"+OK\r\n") as node:
            where = {"moved": f"MOVED 3999 127.0.0.1:{node.port}", "same": f"MOVED 3999 :{node.port}",
                     "ask": f"ASK 3999 127.0.0.1:{node.port}", "away": "MOVED 1 198.51.100.1:6379", "loop": ""}

            def answer(words):
                if words[0] != "UNLINK":
                    return b"+OK\r\n"
                return f"-{where[words[1]] or f'MOVED 1 127.0.0.1:{entry.port}'}\r\n".encode()

            with FakeRedis(answer) as entry, Executors(env={"REDIS_PASSWORD": "sesame"}) as sidecar:
                for key in ("moved", "same", "ask"):
                    del node.seen[:]
                    h = handler("redis", f"redis://127.0.0.1:{entry.port}/0/{{object_id}}", retry_delay="1 h")
                    garbage(h, key)
                    self.gone(h, sidecar)
                    self.assertEqual(node.seen, [["AUTH", "sesame"]] + [["ASKING"]] * (key == "ask") + [["UNLINK", key]])
                for key, text in (("away", "--allow-target"), ("loop", "nowhere")):
                    h = handler("redis", f"redis://127.0.0.1:{entry.port}/0/{{object_id}}", retry_delay="1 h")
                    garbage(h, key)
                    self.failed(h, text, sidecar)
            del node.seen[:]
            with FakeRedis(answer) as entry, Executors(env={"REDIS_PASSWORD": "sesame"}, allow=()) as sidecar:
                h = handler("redis", f"redis://localhost:{entry.port}/0/{{object_id}}", retry_delay="1 h")
                garbage(h, "moved")
                self.failed(h, "--allow-target", sidecar)
            with FakeRedis(answer) as entry, Executors(env={"REDIS_PASSWORD": "sesame"}) as sidecar:
                h = handler("redis", f"redis://localhost:{entry.port}/0/{{object_id}}", retry_delay="1 h")
                garbage(h, "moved")
                self.gone(h, sidecar)
                self.assertEqual(node.seen, [["UNLINK", "moved"]])
                del node.seen[:]
                for host, seen in (("localhost", []), ("127.0.0.1", [["AUTH", "me", "own"]])):
                    h = handler("redis", f"redis://me:own@{host}:{entry.port}/0/{{object_id}}", retry_delay="1 h")
                    garbage(h, "moved")
                    self.gone(h, sidecar)
                    self.assertEqual(node.seen, seen + [["UNLINK", "moved"]])
                    del node.seen[:]
            with FakeRedis(answer) as entry, Executors(env={"REDIS_PASSWORD": "sesame", "REDIS_HOST": f"other,127.0.0.1:{node.port}"}) as sidecar:
                h = handler("redis", f"redis://localhost:{entry.port}/0/{{object_id}}", retry_delay="1 h")
                garbage(h, "moved")
                self.gone(h, sidecar)
                self.assertEqual(node.seen[-2:], [["AUTH", "sesame"], ["UNLINK", "moved"]])

    def test_hanging(self):
        with socket.socket() as silent, Executors() as sidecar:
            silent.bind(("127.0.0.1", 0))
            silent.listen(16)
            h = handler("redis", f"redis://127.0.0.1:{silent.getsockname()[1]}/0/k", retry_delay="1 h", timeout="500 ms")
            garbage(h, None)
            self.failed(h, "no answer within", sidecar)


def signature(secret, request, date, region="eu-test-1"):
    key = ("AWS4" + secret).encode()
    for part in (date[:8], region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    text = f"AWS4-HMAC-SHA256\n{date}\n{date[:8]}/{region}/s3/aws4_request\n{hashlib.sha256(request.encode()).hexdigest()}"
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def is_signed(request, body, secret):
    """As the service would judge a DELETE, with a session's token."""
    fields = dict(part.split("=", 1) for part in request.headers["Authorization"].split(" ", 1)[1].replace(" ", "").split(","))
    signed = fields["SignedHeaders"].split(";")
    path = urllib.parse.quote(urllib.parse.unquote_to_bytes(request.path), safe="/-._~")
    canonical = "\n".join(["DELETE", path, "", *[f"{name}:{request.headers[name].strip()}" for name in signed], "", ";".join(signed),
                           hashlib.sha256(body).hexdigest()])
    return fields["Signature"] == signature(secret, canonical, request.headers["x-amz-date"]) and "x-amz-security-token" in signed


class S3(Test):
    def tearDown(self):
        clear()

    def test_signature_of_every_byte(self):
        """A server of our own checks the signature as the documentation describes it, for keys of all characters."""
        keys = []
        wrong = []

        def answer(request, body):
            decoded = urllib.parse.unquote_to_bytes(request.path)
            keys.append(decoded.split(b"/", 2)[2])
            if not is_signed(request, body, "s/e+c=ret"):
                wrong.append(request.path)
                return 403, {}, b"<Error>SignatureDoesNotMatch</Error>"
            return (404, {}, b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>") if b"absent" in decoded else (204, {}, b"")

        characters = [chr(c) for c in range(1, 0x180)] + ["€", "😀"]
        with Server(answer) as server:
            env = {"AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{server.port}", "AWS_REGION": "eu-test-1", "AWS_ACCESS_KEY_ID": "id",
                   "AWS_SECRET_ACCESS_KEY": "s/e+c=ret", "AWS_SESSION_TOKEN": "to/ken+=="}
            with Executors(env=env, allow=()) as sidecar:
                h = handler("s3", "s3://buck.et-1/{payload.k}", retry_delay="1 h")
                expected = ["a/" + c + "/b" for c in characters] + ["".join(characters), "absent", "/lead", "a//b/", "a/../b", "."]
                for n, key in enumerate(expected):
                    garbage(h, f"o{n}", {"k": key})
                self.gone(h, sidecar)
        self.assertEqual(wrong, [])
        self.assertEqual(sorted(set(keys)), sorted(k.encode() for k in expected))

    def test_server(self):
        """Against a server of another make (which reads the signature, but checks only whose it is)."""
        module = npm("s3rver")
        port = free_port()
        data = os.path.join(work, "s3")
        os.makedirs(data + "/bucket")
        with Process(["node", os.path.join(module, "bin", "s3rver.js"), "-a", "127.0.0.1", "-p", str(port), "-d", data,
                      "--configure-bucket", "bucket", "-s"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            self.until(lambda: listening(port), "s3rver listens")
            url = f"http://127.0.0.1:{port}/bucket/"
            for key in ("a", "d/e%20f", "%C3%A9"):
                urllib.request.urlopen(urllib.request.Request(url + key, b"x", method="PUT", headers=sign_put(port, "/bucket/" + key, b"x")))
            env = {"AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}", "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "S3RVER",
                   "AWS_SECRET_ACCESS_KEY": "S3RVER"}
            with Executors(env=env, allow=()) as sidecar:
                h = handler("s3", "s3://bucket/{object_id}", retry_delay="1 h")
                for key in ("a", "d/e f", "é", "was/never/there"):
                    garbage(h, key)
                self.gone(h, sidecar)
            left_there = [f for _, _, files in os.walk(data) for f in files if "object" in f]
            self.assertEqual(left_there, [])
            with Executors(env=dict(env, AWS_ACCESS_KEY_ID="wrong"), allow=()) as sidecar:
                h = handler("s3", "s3://bucket/{object_id}", retry_delay="1 h")
                garbage(h, "a")
                self.failed(h, "status 403", sidecar)

    def test_failures(self):
        with Executors(env={"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}) as sidecar:
            made, never = [], []
            for target in ("s3://b", "s3://b/", "s3:///k", "http://b/k"):
                h = handler("s3", "{payload.t}", retry_delay="1 h")
                garbage(h, None, {"t": target})
                made.append((h, "s3://bucket/key"))
                h = handler("s3", target)
                garbage(h, None)
                never.append((h, "s3://bucket/key"))
            self.all_failed(made, sidecar)
            self.all_left(never, sidecar)

    def test_endpoint_is_no_url(self):
        keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        for endpoint in ("minio.internal:9000", "http:/minio.internal:9000", "http://me:word@minio.internal:9000", "http://minio.internal?x"):
            with Executors(env=dict(keys, AWS_ENDPOINT_URL_S3=endpoint)) as sidecar:
                h = handler("s3", "s3://b/{object_id}")
                garbage(h, None)
                self.all_left([(h, "AWS_ENDPOINT_URL_S3")], sidecar)

    def test_not_there(self):
        """That the key is not there is success; that the bucket, or the store, is not is none."""
        answers = {"/gone/k": "<Error><Code>NoSuchKey</Code></Error>", "/version/k": "<Error><Code>NoSuchVersion</Code></Error>",
                   "/bucket/k": "<Error><Code>NoSuchBucket</Code><Key>NoSuchKey</Key></Error>", "/page/k": "<html>NoSuchKey</html>",
                   "/empty/k": "", "/late/k": '<?xml version="1.0"?>\n<Error><Code>InternalError</Code></Error>', "/removed/k": "<html>ok</html>"}
        late = ("/late/k", "/removed/k")        # whose status says success
        with Server(lambda r, b: (200 if r.path in late else 404, {}, answers[r.path].encode())) as server:
            env = {"AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{server.port}", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
            with Executors(env=env, allow=()) as sidecar:
                made = {path: handler("s3", f"s3:/{path}", retry_delay="1 h") for path in answers}
                for h in made.values():
                    garbage(h, None)
                self.gone(made["/gone/k"], sidecar)
                self.gone(made["/version/k"], sidecar)
                self.gone(made["/removed/k"], sidecar)
                self.all_failed([(made["/bucket/k"], "NoSuchBucket"), (made["/page/k"], "404"), (made["/empty/k"], "404"),
                                 (made["/late/k"], "InternalError")], sidecar)

    def test_without_keys(self):
        with Executors(env={"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"}) as sidecar:
            h = handler("s3", "s3://b/k")
            garbage(h, None)
            self.left_to_others(h, "AWS_SECRET_ACCESS_KEY", sidecar)

    # --- credentials of a role

    def setUp(self):
        self.keys = 0   # how often they were given
        self.used = []  # the tokens that the store saw
        self.lasts = 3600
        self.broken = False

    def expiration(self):
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + self.lasts))

    def store(self, request, body):
        """Takes requests that are signed with the keys given last or the time before."""
        token = request.headers.get("x-amz-security-token", "")
        self.used.append(token)
        return (204, {}, b"") if is_signed(request, body, "secret/" + token.split("-")[-1]) else (403, {}, b"<Error><Code>Wrong</Code></Error>")

    def json_keys(self):
        self.keys += 1
        return json.dumps({"Code": "Success", "Other": {"AccessKeyId": "no"}, "AccessKeyId": "AK", "SecretAccessKey": f"secret/{self.keys}",
                           "Token": f"token-{self.keys}", "Expiration": self.expiration()}).encode()

    def clean_by_role(self, env, answer, reason="role", works=True):
        """A sidecar with such a role removes an object; or says why it can not."""
        with Server(self.store) as store, Server(answer) as keys:
            base = f"http://127.0.0.1:{keys.port}"
            env = {name: text.replace("BASE", base) for name, text in env.items()}
            with Executors(env=dict(env, AWS_ENDPOINT_URL_S3=f"http://127.0.0.1:{store.port}", AWS_REGION="eu-test-1",
                                    AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY=""), allow=()) as sidecar:
                h = handler("s3", "s3://b/{object_id}", retry_delay="1 h")
                garbage(h, None)
                if works:
                    self.gone(h, sidecar)
                    if self.lasts < 10:
                        self.until(lambda: self.keys >= 3, "they are fetched again", sidecar)
                        garbage(h, None)
                        self.gone(h, sidecar)
                        self.assertGreaterEqual(int(self.used[-1].split("-")[-1]), 2)
                        self.broken = True
                        self.until(lambda: "status 500" in sidecar.problems(), "they are over", sidecar)
                        garbage(h, None)
                        self.left_to_others(h, "status 500", sidecar)
                        self.broken = False
                        self.gone(h, sidecar)
                else:
                    self.left_to_others(h, reason, sidecar)
                    self.assertEqual(store.seen, [])
                self.assertEqual(sidecar.stop(), 0)
            return keys.seen

    def test_web_identity(self):
        token = os.path.join(work, "web-token")
        with open(token, "w", encoding="utf-8") as file:
            file.write("head.body+/=.proof\n")
        env = {"AWS_WEB_IDENTITY_TOKEN_FILE": token, "AWS_ROLE_ARN": "arn:aws:iam::1:role/a b", "AWS_ROLE_SESSION_NAME": "gt",
               "AWS_ENDPOINT_URL_STS": "BASE", "AWS_CONTAINER_CREDENTIALS_FULL_URI": "BASE/not-this-one"}

        def answer(request, body):
            self.keys += 1
            return 200, {}, (f"""<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
                <!-- <AccessKeyId>no</AccessKeyId> --><AssumeRoleWithWebIdentityResult><AssumedRoleUser><AccessKeyId>no</AccessKeyId>
                </AssumedRoleUser><Credentials><SessionToken>token-{self.keys}</SessionToken><SecretAccessKey>secret/{self.keys}</SecretAccessKey>
                <Expiration>{self.expiration()}</Expiration><AccessKeyId>AK</AccessKeyId></Credentials></AssumeRoleWithWebIdentityResult>
                </AssumeRoleWithWebIdentityResponse>""").encode()

        seen = self.clean_by_role(env, answer)
        self.assertEqual({m + p for m, p, _, _ in seen}, {"POST/"})
        self.assertEqual(urllib.parse.parse_qs(seen[0][3].decode()), {
            "Action": ["AssumeRoleWithWebIdentity"], "Version": ["2011-06-15"], "RoleArn": ["arn:aws:iam::1:role/a b"],
            "RoleSessionName": ["gt"], "WebIdentityToken": ["head.body+/=.proof"]})
        self.clean_by_role(env, lambda r, b: (403, {}, b"<ErrorResponse><Error><Code>InvalidIdentityToken</Code></Error></ErrorResponse>"),
                           "InvalidIdentityToken", False)
        self.clean_by_role(env, lambda r, b: (200, {}, b"<a><Credentials><AccessKeyId>x</AccessKeyId></Credentials></a>"),
                           "no credentials", False)
        self.clean_by_role(dict(env, AWS_ROLE_ARN=""), answer, "AWS_ROLE_ARN", False)
        self.clean_by_role(dict(env, AWS_WEB_IDENTITY_TOKEN_FILE=token + "x"), answer, "could not open", False)

    def test_container_role(self):
        """They are fetched again before they are over; when they are over, the handler is left to others until there are new ones."""
        self.lasts = 4

        def answer(request, body):
            if request.path != "/keys?x" or request.headers["Authorization"] != "agent word":
                return 401, {}, b""
            return (500, {}, b"") if self.broken else (200, {}, self.json_keys())

        env = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "BASE/keys?x", "AWS_CONTAINER_AUTHORIZATION_TOKEN": "agent word"}
        self.clean_by_role(env, answer)
        self.clean_by_role(dict(env, AWS_CONTAINER_AUTHORIZATION_TOKEN="agent\r\nX: y"), answer, "line break", False)
        self.clean_by_role(dict(env, AWS_CONTAINER_AUTHORIZATION_TOKEN="other"), answer, "status 401", False)
        self.clean_by_role({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://192.0.2.1/keys"}, answer, "without https", False)
        self.clean_by_role(env, lambda r, b: (200, {}, b'{"Code": {"AccessKeyId": "a", "SecretAccessKey": "b", "Token": "c"}}'),
                           "no credentials", False)
        self.lasts = -10
        self.clean_by_role(env, answer, "are over", False)

    def test_instance_role(self):
        def answer(request, body):
            if request.path == "/latest/api/token":
                return (200, {}, b"session") if request.command == "PUT" and request.headers["X-aws-ec2-metadata-token-ttl-seconds"] else (405, {}, b"")
            if request.headers["X-aws-ec2-metadata-token"] != "session":
                return 401, {}, b""
            if request.path == "/latest/meta-data/iam/security-credentials/":
                return 200, {}, b"a-role\nanother"
            return (200, {}, self.json_keys()) if request.path == "/latest/meta-data/iam/security-credentials/a-role" else (404, {}, b"")

        self.clean_by_role({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "BASE/"}, answer)
        env = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": "BASE"}
        self.clean_by_role(env, lambda r, b: (404, {}, b"") if r.command == "GET" else (200, {}, b"t"), "status 404", False)
        self.assertEqual(self.clean_by_role(dict(env, AWS_EC2_METADATA_DISABLED="true"), answer, "AWS_EC2_METADATA_DISABLED", False), [])
        self.clean_by_role(env, lambda r, b: r.server.hang(r, b), "timed out", False)


def npm(package):
    """Installs a package of the npm registry into the temporary directory; returns its directory."""
    base = os.environ.get("EXECUTORS_NPM") or os.path.join(work, "npm")
    module = os.path.join(base, "node_modules", package)
    if not os.path.isdir(module):
        os.makedirs(base, exist_ok=True)
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", base, package], check=True,
                       stdout=subprocess.DEVNULL, timeout=300)
    return module


def sign_put(port, path, body):
    date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    digest = hashlib.sha256(body).hexdigest()
    request = f"PUT\n{path}\n\nhost:127.0.0.1:{port}\nx-amz-content-sha256:{digest}\nx-amz-date:{date}\n\nhost;x-amz-content-sha256;x-amz-date\n{digest}"
    proof = signature("S3RVER", request, date, "us-east-1")
    return {"x-amz-date": date, "x-amz-content-sha256": digest,
            "Authorization": f"AWS4-HMAC-SHA256 Credential=S3RVER/{date[:8]}/us-east-1/s3/aws4_request, "
                             f"SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature={proof}"}


ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def azure_sas(permissions):
    """A shared access signature for the whole account."""
    fields = {"sv": "2020-10-02", "ss": "b", "srt": "sco", "sp": permissions, "se": "2099-01-01T00:00:00Z", "spr": "https,http"}
    text = "\n".join([ACCOUNT, fields["sp"], fields["ss"], fields["srt"], "", fields["se"], "", fields["spr"], fields["sv"], ""])
    proof = base64.b64encode(hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()).decode()
    return urllib.parse.urlencode(dict(fields, sig=proof))


class Azure(Test):
    @classmethod
    def setUpClass(cls):
        module = npm("azurite")
        cls.port = free_port()
        cls.processes = contextlib.ExitStack()
        cls.processes.enter_context(Process(
            ["node", os.path.join(module, "dist", "src", "blob", "main.js"), "--blobHost", "127.0.0.1", "--blobPort", str(cls.port),
             "--location", os.path.join(work, "azurite"), "--silent", "--skipApiVersionCheck", "--disableTelemetry"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=work))
        if not wait_until(lambda: listening(cls.port), 60):
            raise RuntimeError("azurite does not listen")
        cls.base = f"http://127.0.0.1:{cls.port}/{ACCOUNT}"
        cls.connection = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={cls.base};"
        cls.call("PUT", "/box?restype=container")

    @classmethod
    def tearDownClass(cls):
        cls.processes.close()
        clear()

    @classmethod
    def call(cls, method, path, body=None):
        url = cls.base + path + ("&" if "?" in path else "?") + azure_sas("rwdlac")
        request = urllib.request.Request(url, body, method=method, headers={"x-ms-version": "2020-10-02", "x-ms-blob-type": "BlockBlob"})
        with contextlib.suppress(urllib.error.HTTPError):
            return urllib.request.urlopen(request).status
        return None

    def put(self, *blobs):
        for blob in blobs:
            self.assertEqual(self.call("PUT", "/box/" + urllib.parse.quote(blob), b"x"), 201)

    def has(self, blob):
        return self.call("GET", "/box/" + urllib.parse.quote(blob)) == 200

    def test_shared_key(self):
        blobs = ["a", "d/e f", "é+&%25?x", "q'(1)"]
        self.put(*blobs)
        with Executors(env={"AZURE_STORAGE_CONNECTION_STRING": self.connection}, allow=()) as sidecar:
            h = handler("azure_blob", "azure://box/{object_id}", retry_delay="1 h")
            for blob in blobs + ["never"]:
                garbage(h, blob)
            self.gone(h, sidecar)
            self.assertEqual([self.has(b) for b in blobs], [False] * len(blobs))
            # a query of one's own is signed too
            self.put("a")
            h = handler("azure_blob", self.base + "/box/{object_id}?Timeout=30&b=%20x&a=1", retry_delay="1 h")
            garbage(h, "a")
            self.gone(h, sidecar)
            self.assertFalse(self.has("a"))
        wrong = self.connection.replace("Eby8", "Eby9")
        self.put("b")
        with Executors(env={"AZURE_STORAGE_CONNECTION_STRING": wrong}, allow=()) as sidecar:
            h = handler("azure_blob", "azure://box/{object_id}", retry_delay="1 h")
            garbage(h, "b")
            self.failed(h, "status 403", sidecar)
            self.assertTrue(self.has("b"))

    def test_sas_and_urls(self):
        self.put("s", "t/u v", "w")
        sas = f"BlobEndpoint={self.base};SharedAccessSignature={azure_sas('rwd')}"
        with Executors(env={"AZURE_STORAGE_CONNECTION_STRING": sas}) as sidecar:
            h = handler("azure_blob", "azure://box/{object_id}", retry_delay="1 h")
            garbage(h, "s")
            self.gone(h, sidecar)
            h = handler("azure_blob", self.base + "/box/{object_id}?timeout=30", retry_delay="1 h")
            garbage(h, "t/u v")
            self.gone(h, sidecar)
        with Executors(env={"AZURE_STORAGE_CONNECTION_STRING": ""}) as sidecar:
            h = handler("azure_blob", "{payload.url}", retry_delay="1 h")
            garbage(h, None, {"url": f"{self.base}/box/w?{azure_sas('d')}"})
            self.gone(h, sidecar)
            self.assertEqual([self.has(b) for b in ("s", "t/u v", "w")], [False] * 3)
            h = handler("azure_blob", "azure://box/x")
            garbage(h, None)
            self.left_to_others(h, "AZURE_STORAGE", sidecar)
            h = handler("azure_blob", "{payload.url}", retry_delay="1 h")
            garbage(h, None, {"url": "azure://box/x"})
            self.failed(h, "AZURE_STORAGE", sidecar)
            h = handler("azure_blob", "ftp://x/y")
            garbage(h, None)
            self.all_left([(h, "blob")], sidecar)
        with Executors(env={"AZURE_STORAGE_CONNECTION_STRING": self.connection}) as sidecar:
            h = handler("azure_blob", "azure://box")
            garbage(h, None)
            self.all_left([(h, "azure://container/blob")], sidecar)

    def test_not_there(self):
        """A container that is not there is no success, nor is a page of a web server; a name can not climb."""
        with Executors(env={"AZURE_STORAGE_CONNECTION_STRING": self.connection}) as sidecar, \
                Server(lambda r, b: (404, {}, b"BlobNotFound")) as web, Server() as good, \
                Server(lambda r, b: r.wfile.write(b"HTTP/1.1 103 Early Hints\r\nx-ms-error-code: BlobNotFound\r\n\r\n") and (404, {}, b"")) as hints, \
                Server(lambda r, b: r.wfile.write(b"HTTP/1.1 404 No\r\nx-ms-error-code: ContainerNotFound\r\nx-ms-error-code: BlobNotFound\r\n"
                                                  b"Content-Length: 0\r\n\r\n") and (None, {}, b"")) as both:
            made = []
            for target, text in (("azure://no-such-box/{object_id}", "ContainerNotFound"),
                                 (f"http://127.0.0.1:{web.port}/box/{{object_id}}", "404"),
                                 (f"http://127.0.0.1:{hints.port}/box/{{object_id}}", "404"),
                                 (f"http://127.0.0.1:{both.port}/box/{{object_id}}", "ContainerNotFound, BlobNotFound"),
                                 ("azure://box/{payload.p}", "segment")):
                h = handler("azure_blob", target, retry_delay="1 h")
                garbage(h, None, {"p": "../prod/secret"})
                made.append((h, text))
            self.all_failed(made, sidecar)
            h = handler("azure_blob", "azure://box/a/../{object_id}")
            garbage(h, None)
            self.all_left([(h, "segment")], sidecar)
            for url, expected in ((f"http://127.0.0.1:{good.port}/box/a", "include"),
                                  (f"http://127.0.0.1:{good.port}/box/b?sv=1&snapshot=2020-01-01", None),
                                  (f"http://127.0.0.1:{good.port}/box/c?versionid=1", None)):
                h = handler("azure_blob", url)
                garbage(h, None)
                self.gone(h, sidecar)
                self.assertEqual(good.seen[-1][2].get("x-ms-delete-snapshots"), expected)

    def test_own_urls(self):
        """The account's credentials go with URLs of its endpoint, however they are spelt, and with no others."""
        with Server() as server:
            own = f"http://localhost:{server.port}/acc"
            for proof, connection in (("key", f"AccountName=acc;AccountKey={KEY};BlobEndpoint={own}"),
                                      ("sas", f"BlobEndpoint={own}/;SharedAccessSignature=sv=1&sig=x")):
                with Executors(env={"AZURE_STORAGE_CONNECTION_STRING": connection}, allow=("localhost", "127.0.0.1")) as sidecar:
                    h = handler("azure_blob", "{payload.url}", retry_delay="1 h")
                    for url, proven in ((f"{own}/box/a", True), (f"HTTP://LOCALHOST:0{server.port}/acc/box/a", True),
                                        (f"{own}/box/a?timeout=3#fragment", True), (f"{own}/box/a#?sig=1", True),
                                        (f"{own}?/box/a", False), (f"{own}er/box/a", False), (f"http://localhost:{server.port}/ACC/box/a", False),
                                        (f"http://127.0.0.1:{server.port}/acc/box/a", False), (f"http://u:p@localhost:{server.port}/acc/box/a", False)):
                        del server.seen[:]
                        garbage(h, None, {"url": url})
                        self.gone(h, sidecar)
                        _, path, headers, _ = server.seen[0]
                        self.assertEqual("sig=x" in path or headers.get("Authorization", "").startswith("SharedKey"), proven, (proof, url, path))
                    bad = handler("azure_blob", "{payload.url}", retry_delay="1 h")
                    garbage(bad, None, {"url": f"http:/localhost:{server.port}/acc/box/a"})
                    self.failed(bad, "URL", sidecar)

    def test_key_is_none(self):
        """A key that can sign nothing uses up no attempts."""
        connection = "AccountName=acc;AccountKey=%%%%;BlobEndpoint=http://127.0.0.1:9/acc"
        with Executors(env={"AZURE_STORAGE_CONNECTION_STRING": connection}) as sidecar:
            h = handler("azure_blob", "azure://box/{object_id}")
            garbage(h, None)
            self.left_to_others(h, "base64", sidecar)

    def test_credentials_stay(self):
        """Another host than the account's gets neither signature nor SAS."""
        with Server() as server:
            for connection in (self.connection, f"BlobEndpoint={self.base};SharedAccessSignature={azure_sas('rwd')}"):
                with Executors(env={"AZURE_STORAGE_CONNECTION_STRING": connection}) as sidecar:
                    h = handler("azure_blob", "{payload.url}")
                    garbage(h, None, {"url": f"http://127.0.0.1:{server.port}/box/x"})
                    self.gone(h, sidecar)
            for _, path, headers, _ in server.seen:
                self.assertNotIn("Authorization", headers)
                self.assertEqual(path, "/box/x")
            with Executors(env={"AZURE_STORAGE_CONNECTION_STRING": self.connection}, allow=()) as sidecar:
                h = handler("azure_blob", "{payload.url}", retry_delay="1 h")
                garbage(h, None, {"url": f"http://127.0.0.1:{server.port}/box/x"})
                self.failed(h, "--allow-target", sidecar)


def field(number, data):
    """A length-delimited field of a protobuf message."""
    return bytes([number << 3 | 2, len(data)]) + data


class Grpc(Test):
    """A server made with grpcio; the messages are read and written by hand."""

    def tearDown(self):
        clear()

    @contextlib.contextmanager
    def server(self, answer, tls=None):
        import concurrent.futures

        import grpc
        handlers = grpc.method_handlers_generic_handler("distributed_gc.CleanupService", {
            "CleanupObject": grpc.unary_unary_rpc_method_handler(answer)})
        server = grpc.server(concurrent.futures.ThreadPoolExecutor(32), handlers=(handlers,))
        if tls:
            crt, key = (open(f, "rb").read() for f in tls)
            port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, crt)]))
        else:
            port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield port
        finally:
            server.stop(0).wait()

    def test_endpoint(self):
        seen = []
        crt = certificate(os.path.join(work, "tls"))

        def answer(request, context):
            seen.append((request, context.time_remaining()))
            return b"\x08\x01"

        for tls in (None, crt):
            with self.server(answer, tls) as port, Executors("--tls-ca", crt[0]) as sidecar:
                lease = garbage("grpc_endpoint", "o/é", {"url": f"http{'s' if tls else ''}://127.0.0.1:{port}", "payload": "p"},
                                {"a": "b", "n": 1}, "cache_entry")
                self.gone("grpc_endpoint", sidecar)
            message, remaining = seen.pop()
            self.assertTrue(0 < remaining <= 30.1, remaining)
            self.assertEqual(message, field(1, lease.encode()) + field(2, "o/é".encode()) + b"\x18\x05" + field(4, b"svc") +
                             field(5, field(1, b"a") + field(2, b"b")) + field(5, field(1, b"n") + field(2, b"1")) + field(6, b"p"))

    def test_failures(self):
        import grpc

        def answer(request, context):
            if b"status" in request:
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "not now: 100 % é")
            if b"false" in request:
                return field(2, b"busy")
            if b"rubbish" in request:
                return b"\xff\xff"
            if b"large" in request:
                return b"\x08\x01" + b"\x1a\xff\xff\x3f" + b"x" * 0xfffff
            if b"slow" in request:
                time.sleep(3)
            return b""

        with self.server(answer) as port, Server() as web, Executors() as sidecar:
            for object_id, text in (("status", "grpc-status 8: not now: 100 % é"), ("false", "busy"), ("rubbish", "CleanupObjectResponse"),
                                    ("large", "too long"), ("slow", "no answer within"), ("none", "success is false")):
                h = handler("grpc", f"http://127.0.0.1:{port}", retry_delay="1 h", timeout="1 s")
                garbage(h, object_id)
                self.failed(h, text, sidecar)
            for target, text in ((f"http://127.0.0.1:{web.port}", "port"), (f"https://127.0.0.1:{port}", "port")):
                h = handler("grpc", target, retry_delay="1 h", timeout="3 s")
                garbage(h, None)
                self.failed(h, text, sidecar)
            for target in (f"http://127.0.0.1:{port}/path", "redis://x"):
                h = handler("grpc", target)
                garbage(h, None)
                self.all_left([(h, "host:port")], sidecar)


class Database(Test):
    """Crashes, several sidecars, a database that goes away, rights."""

    def tearDown(self):
        clear()

    def overlaps(self, server):
        """Objects that were called again before an earlier call had ended."""
        return [i for i, spans in server.spans.items()
                for a, b in zip(sorted(spans), sorted(spans)[1:]) if b[0] < a[1]]

    def counting(self, delay=0.0):
        """A server that notes from when to when each object was called."""
        server = Server()
        server.spans = collections.defaultdict(list)

        def answer(request, body):
            began = time.monotonic()
            time.sleep(delay)
            server.spans[json.loads(body)["object_id"]].append((began, time.monotonic()))
            return 200, {}, b""

        server.answer = answer
        return server

    def test_kill(self):
        """Killed with 2000 outstanding: another one does all of them, nothing is acknowledged that was not done."""
        with self.counting(0.01) as server:
            many("http_endpoint", 2000, f"http://127.0.0.1:{server.port}/")
            for _ in range(3):
                with Executors("--visibility-ms", "2000") as sidecar:
                    before = len(server.spans)
                    self.until(lambda: len(server.spans) > before + 200, "some are done", sidecar)
                    sidecar.child.kill()
                    sidecar.child.wait()
                self.assertGreaterEqual(len(server.spans), 2000 - left("http_endpoint"))
            with Executors("--visibility-ms", "2000") as sidecar:
                self.gone("http_endpoint", sidecar)
            self.assertEqual(len(server.spans), 2000)
            self.assertEqual(self.overlaps(server), [])

    def test_several(self):
        """Five on one database: each object once, and never twice at a time."""
        with self.counting(0.005) as server, contextlib.ExitStack() as sidecars:
            all_of_them = [sidecars.enter_context(Executors()) for _ in range(5)]
            many("http_endpoint", 2000, f"http://127.0.0.1:{server.port}/")
            self.gone("http_endpoint", all_of_them[0])
            self.assertEqual(len(server.spans), 2000)
            self.assertEqual(sum(len(spans) for spans in server.spans.values()), 2000)
            self.assertEqual(self.overlaps(server), [])
            self.until(lambda: sum(s.stats()["acked"] for s in all_of_them) == 2000, "each was acknowledged once")
            self.assertGreater(sum(s.stats()["acked"] > 0 for s in all_of_them), 1)

    def test_database_goes_away(self):
        """Restarted under load, by crash and in order: goes on by itself, nothing lost."""
        global admin
        with self.counting(0.02) as server, Executors("--visibility-ms", "4000") as sidecar:
            many("http_endpoint", 2000, f"http://127.0.0.1:{server.port}/")
            for mode in ("immediate", "fast"):
                before = len(server.spans)
                self.until(lambda: len(server.spans) > before + 100, "some are done", sidecar)
                cluster.stop(mode)
                self.until(lambda: not sidecar.stats()["connected"], "it is noticed", sidecar)
                self.assertIn("database is away", sidecar.problems())
                cluster.start()
                admin = cluster.connect()
            self.gone("http_endpoint", sidecar)
            self.assertEqual(len(server.spans), 2000)
            self.until(lambda: "database is away" not in sidecar.problems(), "no problem is left", sidecar)
            self.assertEqual(sidecar.stop(), 0)

    def test_terminated_backends(self):
        """The connection is cut again and again, also between a commit and its answer."""
        with self.counting(0.05) as server, Executors("--visibility-ms", "3000") as sidecar:
            many("http_endpoint", 1000, f"http://127.0.0.1:{server.port}/")
            cuts = 0
            while left("http_endpoint") and cuts < 200:
                query(admin, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'sidecar'")
                cuts += 1
                wait_until(lambda: sidecar.stats()["connects"] > cuts, 3)
            self.gone("http_endpoint", sidecar)
            self.assertEqual(len(server.spans), 1000)
            self.assertGreater(cuts, 1)

    def test_long_call(self):
        """A call longer than a claim: the claim is extended, and nobody else gets it. They are few, so that none is ended to make way."""
        with self.counting(5) as server, Executors("--visibility-ms", "1000") as one, Executors("--visibility-ms", "1000") as other:
            many("http_endpoint", 12, f"http://127.0.0.1:{server.port}/")
            self.gone("http_endpoint", one)
            self.assertEqual(sum(len(spans) for spans in server.spans.values()), 12)
            self.until(lambda: one.stats()["acked"] + other.stats()["acked"] == 12, "each was acknowledged once")

    def test_stops_are_no_attempts(self):
        """Stopped again and again while the target hangs: nothing was attempted, and nothing is dead."""
        with Server() as server:
            server.answer = server.hang
            h = handler("http", f"http://127.0.0.1:{server.port}/{{object_id}}", max_attempts=1)
            for n in range(60):
                garbage(h, f"stop-{n}")
            for _ in range(3):
                seen = len(server.seen)
                with Executors() as sidecar:
                    self.until(lambda: len(server.seen) > seen, "called", sidecar)
                    sidecar.ask("drain 3000")
                    self.assertEqual(sidecar.stop(), 0)
            self.assertEqual(query(admin, "SELECT state, count(*) FROM gt_garbage WHERE handler = %s GROUP BY 1", (h,)), [("waiting", 60)])

    def test_no_descriptors(self):
        """What we lack ourselves is no attempt."""
        with Server() as server, Executors(wrap=["sh", "-c", "ulimit -n 24; exec \"$@\"", "sh"]) as sidecar:
            server.answer = server.hang
            handler("http", f"http://127.0.0.1:{server.port}/{{object_id}}", max_attempts=1, timeout="3 s")
            with contextlib.ExitStack() as others:
                more = [others.enter_context(Server()) for _ in range(40)]
                for other in more:
                    other.answer = other.hang
                    garbage("http_endpoint", None, {"url": f"http://127.0.0.1:{other.port}/"}, max_attempts=1)
                self.until(lambda: sidecar.stats()["given_back"] > 0, "some were given back", sidecar)
            self.assertNotIn("descriptor", str(query(admin, "SELECT error FROM gt_dead")))

    def test_no_ports(self):
        """So it is where all local ports to a target are taken."""
        flag = os.path.join(work, "no-ports")
        open(flag, "w").close()
        with Server() as server, Executors(env={"LD_PRELOAD": os.path.join(program, "names.so"), "NO_PORTS": flag}) as sidecar:
            h = handler("http", f"http://127.0.0.1:{server.port}/", max_attempts=1)
            garbage(h, None)
            self.until(lambda: sidecar.stats()["given_back"] > 0 or sidecar.stats()["http"]["failed"] > 0, "it is tried", sidecar)
            self.assertIsNone(row(h)[1])
            os.unlink(flag)
            self.gone(h, sidecar)

    def test_locked_row(self):
        """One row that somebody holds makes no other claim lapse."""
        with Server() as server, Executors("--visibility-ms", "3000") as sidecar:
            server.answer = server.hang
            h = handler("http", f"http://127.0.0.1:{server.port}/{{object_id}}", timeout="60 s")
            for n in range(12):
                garbage(h, f"locked-{n}")
            self.until(lambda: len(server.seen) >= 4, "called", sidecar)
            other = cluster.connect(autocommit=False)
            token = query(admin, "SELECT cleanup_id, attempts FROM gt_garbage WHERE handler = %s AND state = 'claimed' ORDER BY 1 LIMIT 1", (h,))[0]
            query(other, "SELECT gt_extend(%s, %s, '3 s')", token)
            time.sleep(7)		# more than two lives of a claim: what is measured is what lapses meanwhile
            lapsed = sidecar.stats()["lapsed"]
            other.rollback()
            other.close()
            self.assertLessEqual(lapsed, 1)
            sidecar.child.kill()

    def test_a_claim_that_fails_is_said_once(self):
        """And for as long as it does, whatever else goes well meanwhile."""
        with Executors() as sidecar, contextlib.closing(cluster.connect()) as link:
            query(link, "BEGIN; LOCK TABLE _garbagetruck.gt_object IN EXCLUSIVE MODE")
            fails = lambda: "could not claim" in sidecar.problems()
            self.until(fails, "the claim fails", sidecar)
            for _ in range(20):                 # through two looks at the handlers, and two more claims
                self.assertTrue(fails())
                time.sleep(0.25)
            self.assertEqual(sidecar.output().count("could not claim"), 1)
            query(link, "ROLLBACK")
            self.until(lambda: not fails(), "it does no more", sidecar)

    def test_owners(self):
        """Nobody's grant makes us call anything, but that of whom we trust."""
        query(admin, "CREATE ROLE stranger LOGIN; CREATE ROLE boss LOGIN; GRANT boss TO sidecar")
        query(admin, "SELECT gt_allow(r, w) FROM unnest('{stranger,boss}'::name[]) r, unnest('{lease,handler}'::text[]) w")
        with Server() as server:
            for owner in ("stranger", "boss"):
                with contextlib.closing(cluster.connect(user=owner)) as link:
                    query(link, "SELECT gt_handler_create(%s, 'http', %s)", ("of_" + owner, f"http://127.0.0.1:{server.port}/{owner}"))
                    query(link, "SELECT gt_handler_grant(%s, 'sidecar', 'claim')", ("of_" + owner,))
                    query(link, "SELECT gt_release(gt_lease_create(%s, cleanup => %s))", ("o-" + owner, "of_" + owner))
            with Executors() as sidecar:
                self.gone("of_boss", sidecar)
                self.assertEqual(row("of_stranger"), (0, None))
                self.assertEqual(server.paths(), ["/boss"])
            with Executors("--handler-owner", "stranger") as sidecar:
                self.gone("of_stranger", sidecar)

    def test_encodings(self):
        """In databases of other encodings an odd text is one object's trouble, not everybody's."""
        for encoding, odd in (("SQL_ASCII", b"caf\xe9"), ("LATIN1", b"caf\xe9")):
            name = "of_" + encoding.lower()
            query(admin, f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
            with contextlib.closing(cluster.connect(dbname=name)) as link, Server() as server:
                server.answer = lambda r, b: (500, {}, "no → way".encode()) if "bad" in r.path else (200, {}, b"")
                link.set_client_encoding("LATIN1")
                query(link, "CREATE EXTENSION garbagetruck; SELECT gt_allow('sidecar')")
                query(link, "SELECT gt_handler_create('h', 'http', %s, retry_delay => '1 h')", (f"http://127.0.0.1:{server.port}/{{object_id}}",))
                query(link, "SELECT gt_handler_grant('h', 'sidecar', 'claim')")
                query(link, "SELECT gt_release(gt_lease_create(E'caf\\xe9', cleanup => 'h'))")
                for object_id in ("good", "bad"):
                    query(link, "SELECT gt_release(gt_lease_create(%s, cleanup => 'h'))", (object_id,))
                with Executors(dsn=cluster.dsn(dbname=name, user="sidecar")) as sidecar:
                    self.until(lambda: "/good" in server.paths() and "/bad" in server.paths() and
                               any(p.startswith("/caf") for p in server.paths()), f"all are called: {server.paths()}", sidecar)
                    self.until(lambda: value(link, "SELECT count(*) FROM gt_garbage WHERE state = 'waiting' AND error LIKE '%%way%%'", ()) == 1,
                               "the error is told", sidecar)
                    self.assertNotIn("could not", sidecar.problems())
            query(admin, f"DROP DATABASE {name} WITH (FORCE)")

    def test_characters_that_utf_8_does_not_have(self):
        """The object whose text can not be read is given up; all others are cleaned."""
        query(admin, "CREATE DATABASE of_euc ENCODING 'EUC_JP' LOCALE 'C' TEMPLATE template0")
        with contextlib.closing(cluster.connect(dbname="of_euc")) as link, Server() as server:
            query(link, "CREATE EXTENSION garbagetruck; SELECT gt_allow('sidecar')")
            url = f"http://127.0.0.1:{server.port}/"
            for name, target in (("h", "DELETE " + url + "{object_id}"), ("p", "DELETE " + url + "{payload.k}"), ("body", url + "body")):
                query(link, "SELECT gt_handler_create(%s, 'http', %s, retry_delay => '1 h')", (name, target))
                query(link, "SELECT gt_handler_grant(%s, 'sidecar', 'claim')", (name,))
            odd = r"E'\xa9\xa1'"
            query(link, f"SELECT gt_handler_create('h' || {odd}, 'http', %s)", (url,))
            query(link, f"SELECT gt_handler_grant('h' || {odd}, 'sidecar', 'claim')")
            query(link, f"SELECT gt_release(gt_lease_create({odd} || 'a', cleanup => 'h'))")
            query(link, f"SELECT gt_release(gt_lease_create('b', cleanup => 'p', payload => jsonb_build_object('k', {odd})))")
            query(link, f"SELECT gt_release(gt_lease_create('c', cleanup => 'body', metadata => jsonb_build_object('k', {odd})))")
            query(link, "SELECT gt_release(gt_lease_create(%s, cleanup => 'h'))", ("\u65e5\u672c",))
            query(link, "SELECT gt_release(gt_lease_create('d', cleanup => 'p', payload => '{\"k\": \"e,=%f\"}'))")
            with Executors(dsn=cluster.dsn(dbname="of_euc", user="sidecar")) as sidecar:
                self.until(lambda: value(link, "SELECT count(*) FROM gt_garbage", ()) == value(link, "SELECT count(*) FROM gt_dead", ()) == 3,
                           f"three are given up: {server.paths()}", sidecar)
                self.assertEqual(value(link, "SELECT count(*) FROM gt_dead WHERE error LIKE '%%UTF-8%%'", ()), 3)
                self.assertEqual(sorted(server.paths()), ["/%E6%97%A5%E6%9C%AC", "/e%2C%3D%25f"])
                self.assertNotIn("could not", sidecar.problems())
                self.assertIn("its name has a character", sidecar.problems())
        query(admin, "DROP DATABASE of_euc WITH (FORCE)")

    def test_frozen(self):
        """Stopped for longer than its claims: its calls that went on do not end in a false success."""
        with self.counting(1) as server, Executors("--visibility-ms", "1000") as one:
            many("http_endpoint", 30, f"http://127.0.0.1:{server.port}/")
            self.until(lambda: one.stats()["http"]["in_flight"], "calls are under way", one)
            os.kill(one.child.pid, signal.SIGSTOP)
            with Executors("--visibility-ms", "1000") as other:
                self.until(lambda: other.stats()["claimed"] > 0, "another one has them", other)
                os.kill(one.child.pid, signal.SIGCONT)
                self.gone("http_endpoint", other)
            self.assertEqual(len(server.spans), 30)

    def test_stopped_for_a_moment(self):
        """The target answered in time, and nobody was there to see it: that is no failure of its."""
        with self.counting(0.5) as server, Executors() as sidecar:
            h = handler("http", f"http://127.0.0.1:{server.port}/{{object_id}}", max_attempts=1, timeout="2 s")
            garbage(h, None)
            self.until(lambda: sidecar.stats()["http"]["in_flight"], "it is called", sidecar)
            os.kill(sidecar.child.pid, signal.SIGSTOP)
            time.sleep(4)
            os.kill(sidecar.child.pid, signal.SIGCONT)
            self.gone(h, sidecar)

    def test_drain(self):
        """The end in order: what is claimed is finished, nothing stays claimed."""
        with self.counting(0.2) as server, Executors() as sidecar:
            many("http_endpoint", 300, f"http://127.0.0.1:{server.port}/")
            self.until(lambda: server.spans, "some are done", sidecar)
            sidecar.ask("drain 3000")
            self.assertEqual(sidecar.stop(), 0)
            self.assertEqual(value(admin, "SELECT count(*) FROM gt_garbage WHERE state = 'claimed'"), 0)
            self.assertEqual(len(server.spans), 300 - left("http_endpoint"))

    def test_rights(self):
        """What the role lacks is named; it works as soon as it is granted."""
        query(admin, "SELECT gt_handler_revoke('http_endpoint', 'sidecar', 'claim')")
        try:
            with Server() as server, Executors() as sidecar:
                other = handler("http", f"http://127.0.0.1:{server.port}/other")
                garbage(other, None)
                self.gone(other, sidecar)
                lack = "SELECT gt_handler_grant('http_endpoint', 'sidecar', 'claim')"
                self.until(lambda: lack in sidecar.problems(), "the lack is named", sidecar)
                garbage("http_endpoint", None, {"url": f"http://127.0.0.1:{server.port}/"})
                query(admin, lack)
                self.gone("http_endpoint", sidecar)
                self.until(lambda: lack not in sidecar.problems(), "nothing is lacking", sidecar)
        finally:
            query(admin, "SELECT gt_handler_grant('http_endpoint', 'sidecar', 'claim')")

    def test_no_rights(self):
        """A role that was given nothing is told what it needs."""
        query(admin, "CREATE ROLE nobody LOGIN")
        with Executors(user="nobody") as sidecar:
            for what in ("SELECT gt_allow('nobody')", "SELECT gt_handler_grant('http_endpoint', 'nobody', 'claim')"):
                self.until(lambda: what in sidecar.problems(), what, sidecar)
                self.until(lambda: what in sidecar.output(), what + " in the log", sidecar)

    def test_kinds(self):
        """--executors leaves the other kinds to others."""
        with Server() as server, Executors("--executors", "grpc,file", "--file-root", work) as sidecar:
            garbage("http_endpoint", None, {"url": f"http://127.0.0.1:{server.port}/"})
            h = handler("file", "{object_id}", retry_delay="1 h")
            garbage(h, "..")
            self.failed(h, "no plain path", sidecar)
            self.assertEqual(row("http_endpoint")[0], 0)
        done = subprocess.run([os.path.join(program, "main"), "--executors", "http,x"], stderr=subprocess.PIPE, text=True, check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn("\"x\" is no executor", done.stderr)

    def test_identity(self):
        """Nothing is claimed from a database of another identity."""
        with Server() as server:
            garbage("http_endpoint", None, {"url": f"http://127.0.0.1:{server.port}/"})
            with Executors("--expect-identity", "production") as sidecar:
                self.until(lambda: "--expect-identity" in sidecar.problems(), "it is said", sidecar)
                self.until(lambda: sidecar.stats()["connected"], "it is connected", sidecar)
                self.assertEqual(sidecar.stats()["claimed"], 0)
            with Executors("--expect-identity", "") as sidecar:
                self.gone("http_endpoint", sidecar)


@unittest.skipIf("SANITIZE" in os.environ, "the sanitizers have allocations of their own")
class Allocations(Test):
    """
    Whichever allocation fails: no crash, no hang, no false success, and nothing is lost.

    A cleanup of each kind; what the database says was cleaned up must have been asked of its target, and rightly so. When
    the process ends for it, with status 1, another one must find all that is left.
    """

    def setUp(self):
        self.addCleanup(clear)
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self.root = os.path.join(work, "allocations")
        os.makedirs(self.root)
        self.asked = set()
        self.wrong = set()
        self.web = self.stack.enter_context(Server(self.answer_http))
        self.grpc = self.stack.enter_context(Grpc.server(self, self.answer_grpc))
        self.redis = free_port()
        self.stack.enter_context(Process(["redis-server", "--port", str(self.redis), "--bind", "127.0.0.1", "--save", "",
                                          "--requirepass", "secret", "--dir", self.root],
                                         executable="/usr/bin/redis-check-rdb", stdout=subprocess.DEVNULL))
        self.until(lambda: listening(self.redis), "redis-server listens")
        base = f"http://127.0.0.1:{self.web.port}"
        self.count = os.path.join(self.root, "count")
        self.env = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "s/e+c=ret", "AWS_SESSION_TOKEN": "token",
                    "AWS_REGION": "eu-test-1", "AWS_ENDPOINT_URL_S3": base, "REDIS_PASSWORD": "secret",
                    "AZURE_STORAGE_CONNECTION_STRING": f"AccountName=a;AccountKey={KEY};BlobEndpoint={base}/a"}
        options = {"retry_delay": "100 ms"}
        self.kinds = {"http": handler("http", "PUT " + base + "/{object_id}", **options),
                      "grpc": handler("grpc", f"http://127.0.0.1:{self.grpc}", **options),
                      "s3": handler("s3", "s3://s3/{object_id}", **options),
                      "azure_blob": handler("azure_blob", "azure://azure/{object_id}", **options),
                      "file": handler("file", "d/{object_id}", **options),
                      "redis": handler("redis", f"redis://127.0.0.1:{self.redis}/2/{{object_id}}", **options)}

    def take(self, kind, name, right):
        """What a target was asked for, in full or not."""
        (self.asked if right else self.wrong).add(kind + name)

    def answer_http(self, request, body):
        place, name = request.path.rsplit("/", 1)
        if place == "/s3":
            self.take("s3", name, is_signed(request, body, "s/e+c=ret"))
        elif place == "/a/azure":
            self.take("azure_blob", name, request.headers["Authorization"].startswith("SharedKey a:") and request.headers["x-ms-version"])
        else:
            told = json.loads(body)
            self.take("http", name, (request.command, told["object_id"], told["payload"]) == ("PUT", name, {"p": 1}))
        return 204, {}, b""

    def answer_grpc(self, request, context):
        name = request.split(b"\x18\x06", 1)[0][40:]
        self.take("grpc", name.decode(), request[40:] == name + b"\x18\x06" + field(4, b"svc") +
                  field(5, field(1, b"k") + field(2, b"v")) + field(6, b'{"p": 1}'))
        return b"\x08\x01"

    def make(self, name):
        """Garbage for each of the handlers, and what is to be removed."""
        os.makedirs(os.path.join(self.root, "d"), exist_ok=True)
        open(os.path.join(self.root, "d", name), "w", encoding="utf-8").close()
        resp(self.redis, ("AUTH", "secret"), ("SELECT", 2), ("SET", name, "v"))
        query(admin, """SELECT gt_release(gt_lease_create(%s, h, 'svc', cleanup => h, payload => '{"p": 1}',
            metadata => '{"k": "v"}')) FROM unnest(%s) AS h""", (name, list(self.kinds.values())))

    def is_done(self, kind, name):
        if kind == "file":
            return not os.path.exists(os.path.join(self.root, "d", name))
        if kind == "redis":
            return b":0\r\n" in resp(self.redis, ("AUTH", "secret"), ("SELECT", 2), ("EXISTS", name))
        return kind + name in self.asked

    def waiting(self):
        return {h for h, in query(admin, "SELECT handler FROM gt_garbage WHERE state <> 'dead'")}

    def executors(self, number):
        name = f"n{number}"
        self.make(name)
        env = dict(self.env, LD_PRELOAD=os.path.join(program, "fail.so"), FAIL_COUNT=self.count, FAIL_AT=str(number), FAIL_TRACE="1")
        with Executors("--file-root", self.root, "--visibility-ms", "1000", env=env) as sidecar:
            ended = wait_until(lambda: sidecar.child.poll() is not None or not self.waiting(), LIMIT, 0.01)
            self.assertTrue(ended, sidecar.output())
            code = sidecar.child.poll()
            if code is None:
                code = sidecar.stop()
            self.assertIn(code, (0, 1) if number else (0,), sidecar.output())
            self.assertTrue(code == 0 or said(sidecar.output()), sidecar.output())
            left_there = self.waiting()
            self.assertEqual([k for k, h in self.kinds.items() if h not in left_there and not self.is_done(k, name)], [], sidecar.output())
        if left_there:
            # Not to wait until the claims lapse.
            query(admin, "SELECT gt_nack(cleanup_id, attempts, 'gone', '0') FROM gt_garbage WHERE state = 'claimed'")
            with Executors("--file-root", self.root, env=self.env) as heir:
                self.until(lambda: not self.waiting(), f"{self.waiting()} of {number} is left", heir)
        self.assertEqual([k for k in self.kinds if not self.is_done(k, name)], [])
        self.assertEqual(self.wrong, set())
        self.asked.clear()

    def test_each_fails_once(self):
        sweep(self, self.executors, self.count, 0.4)


class Unit(Test):
    def test_unit(self):
        home = os.path.join(work, "unit-files")
        os.makedirs(home)
        done = subprocess.run([os.path.join(program, "unit"), home], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertRegex(done.stdout, r"^[1-9][0-9]* checks, 0 failed$")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--half", type=int, choices=(1, 2))
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    loader = unittest.TestLoader()
    loader.testNamePatterns = [f"*{name}*" for name in options.names] or None
    tests = [test for of_class in loader.loadTestsFromModule(sys.modules["__main__"]) for test in of_class]
    if options.half:
        tests = tests[options.half - 1::2]
    result = unittest.TextTestRunner(verbosity=2).run(unittest.TestSuite(tests))
    failed = len(result.failures) + len(result.errors)
    print(f"{max(result.testsRun - failed, 0)} passed, {failed} failed")
    sys.exit(failed > 0 or result.testsRun == 0)


if __name__ == "__main__":
    main()
