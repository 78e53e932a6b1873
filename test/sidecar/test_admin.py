#!/usr/bin/python3
"""The admin port of a real server on a real database: metrics, probes, the status page, and HTTP as it comes.

Owns a private PostgreSQL and the sidecars that it starts. The page is drawn by Chromium where that is installed.
"""

import contextlib
import html.parser
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest
import urllib.error
import urllib.request
from pathlib import Path

from harness import BINARY, TOP, Sidecar, start_cluster, wait_until

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from cluster import query  # noqa: E402

LIMIT = 60
cluster = None


def setUpModule():
    global cluster
    cluster = start_cluster()
    connection = cluster.connect()
    query(connection, "SELECT gt_handler_create('<b>thumbs</b>', 'queue')")
    query(connection, "SELECT gt_handler_create('fails', 'sql', 'SELECT 1 / (length($1) * 0)', max_attempts => 1)")


class AdminSidecar(Sidecar):
    """One with an admin port, ready."""

    def __init__(self, *options, **how):
        super().__init__(cluster, *options, admin=True, **how)
        self.admin = int(re.search(r"admin port is \S+:(\d+)", self.log())[1])
        if not wait_until(lambda: self.get("/readyz")[0] == 200, LIMIT):
            self.kill()
            raise AssertionError("not ready: " + self.log())

    def get(self, path, method="GET"):
        """(status, text); status 0 when nobody answers."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)


class AdminTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.sidecar = AdminSidecar(executors="http")
        cls.addClassCleanup(cls.sidecar.stop)

    def query(self, sql):
        return query(cluster.connect(), sql)

    def eventually(self, condition, what):
        self.assertTrue(wait_until(condition, LIMIT), what)

    def raw(self, data, until=None, half=False, port=None):
        """Send bytes, and half: the end; read to the end of file or to `until`."""
        with socket.create_connection(("127.0.0.1", port or self.sidecar.admin), timeout=LIMIT) as connection:
            connection.sendall(data)
            if half:
                connection.shutdown(socket.SHUT_WR)
            got = b""
            while until is None or until not in got:
                piece = connection.recv(65536)
                if not piece:
                    break
                got += piece
        return got


class Http(AdminTest):
    def test_probes(self):
        self.assertEqual(self.sidecar.get("/livez"), (200, "ok\n"))
        self.assertEqual(self.sidecar.get("/readyz"), (200, "ready\n"))
        self.assertEqual(self.sidecar.get("/livez?verbose=1"), (200, "ok\n"))
        self.assertEqual(self.sidecar.get("/nothing")[0], 404)
        self.assertEqual(self.sidecar.get("/livez", "POST")[0], 405)
        self.assertEqual(self.sidecar.get("/metrics", "HEAD"), (200, ""))

    def test_keeps_the_connection(self):
        one = b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n"
        last = b"GET /readyz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        # pipelined, and the last one in pieces of one byte
        got = self.raw(one + b"GET /metrics HTTP/1.1\r\n\r\n" + one + last)
        self.assertEqual(got.count(b"HTTP/1.1 200 OK"), 4)
        self.assertTrue(got.endswith(b"ready\n"))
        with socket.create_connection(("127.0.0.1", self.sidecar.admin), timeout=LIMIT) as connection:
            for byte in last:
                connection.sendall(bytes([byte]))
            got = b""
            while piece := connection.recv(4096):
                got += piece
        self.assertTrue(got.endswith(b"ready\n"))

    def test_old_http(self):
        self.assertTrue(self.raw(b"GET /livez HTTP/1.0\r\n\r\n").endswith(b"ok\n"))

    def test_who_has_said_all_is_answered(self):
        """nc -N, and whoever else ends its half of the connection behind the request."""
        for version in ("1.0", "1.1"):
            for path, says in (("/livez", b"ok\n"), ("/healthz", b"}"), ("/metrics", b"garbagetruck_"), ("/", b"</html>")):
                with self.subTest(path, version=version):
                    got = self.raw(f"GET {path} HTTP/{version}\r\n\r\n".encode(), half=True)
                    self.assertTrue(got.startswith(b"HTTP/1.1 200 OK") and says in got, got[:300])
        two = b"GET /healthz HTTP/1.1\r\n\r\nGET /readyz HTTP/1.1\r\n\r\n"
        self.assertTrue(self.raw(two, half=True).endswith(b"ready\n"))
        self.assertEqual(self.raw(b"GET /livez HTTP/1.1\r\n", half=True), b"")
        self.assertIn(b" 426 ", self.raw(b"GET / HTTP/1.1\r\n\r\n", half=True, port=self.sidecar.port))

    def test_what_is_no_request(self):
        for data, status in ((b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400), (b"hello\r\n\r\n", 400), (b"\r\n\r\n", 400),
                             (b"GET /livez HTTP/1.1\r\nContent-Length: 10\r\n\r\n0123456789", 400),
                             (b"GET /livez HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
                             (b"GET / HTTP/1.1\r\nX: " + b"x" * 20000, 431), (b"GET /\0 HTTP/1.1\r\n\r\n", 431),
                             (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500, 431),
                             (b"GET " + b"/" * 300 + b" HTTP/1.1\r\n\r\n", 404)):
            with self.subTest(data[:40]):
                with contextlib.suppress(ConnectionResetError):
                    self.assertIn(b"HTTP/1.1 %d " % status, self.raw(data, b"\r\n\r\n"))
        self.assertEqual(self.sidecar.get("/livez")[0], 200)

    def test_a_client_that_leaves(self):
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", self.sidecar.admin)) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        self.assertEqual(self.sidecar.get("/")[0], 200)

    def test_headers(self):
        got = self.raw(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").decode()
        self.assertIn("Content-Security-Policy: default-src 'none'", got)
        self.assertIn("X-Content-Type-Options: nosniff", got)


class Metrics(AdminTest):
    def test_promtool_likes_them(self):
        self.query("SELECT gt_lease_create('quoted', cleanup => '<b>thumbs</b>')")
        status, text = self.sidecar.get("/metrics")
        self.assertEqual(status, 200)
        self.assertTrue(text.endswith("\n"))
        if shutil.which("promtool"):
            done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))
        seen = set()
        for name in re.findall(r"^# TYPE (\S+)", text, re.M):
            self.assertNotIn(name, seen)
            seen.add(name)
        for name in ("leases", "garbage", "dead", "leases_created_total", "leases_renewed_total", "leases_released_total",
                     "leases_expired_total", "cleanups_total", "reclaim_lag_seconds", "cleanup_seconds", "oldest_overdue_seconds",
                     "stalled", "workers", "worker_slots_missing_total", "handler_paused", "renewal_buffer_entries",
                     "sidecar_database_up", "sidecar_calls_total", "sidecar_executor_calls_total"):
            self.assertIn("garbagetruck_" + name, seen)
        self.assertRegex(text, r'garbagetruck_cleanups_total\{database="\w+",handler="fails",result="failed"\} \d')
        self.assertRegex(text, r'garbagetruck_reclaim_lag_seconds_bucket\{database="\w+",le="\+Inf"\} \d')
        self.assertRegex(text, r'garbagetruck_health\{check="place",database="\w+"\} 1')
        self.assertIn("garbagetruck_sidecar_database_up 1\n", text)

    def test_they_are_described(self):
        told = "".join(Path(TOP, page).read_text() for page in ("src/sidecar/README.md", "src/doc/operations.md"))
        names = re.findall(r"^# TYPE garbagetruck_(?:sidecar_)?(\S+)", self.sidecar.get("/metrics")[1], re.M)
        self.assertGreater(len(names), 40)
        self.assertEqual([name for name in names if not re.search(rf"`{name}[`{{]", told)], [])

    def test_without_the_database(self):
        other = AdminSidecar("--no-database-metrics")
        self.addCleanup(other.stop)
        _, text = other.get("/metrics")
        self.assertIn("garbagetruck_sidecar_", text)
        self.assertNotIn("garbagetruck_leases", text)
        self.assertIn("--no-database-metrics", other.get("/")[1])

    def test_a_role_without_monitor(self):
        self.query("CREATE ROLE plain LOGIN")
        self.query("SELECT gt_allow('plain', 'lease')")
        other = AdminSidecar(user="plain")
        self.addCleanup(other.stop)
        status, text = other.get("/metrics")
        self.assertEqual(status, 200)
        self.assertIn("garbagetruck_sidecar_database_up 1\n", text)
        self.assertNotIn("garbagetruck_leases{", text)
        self.assertIn("42501", other.log())
        self.assertEqual(other.get("/")[0], 200)
        remedy = "SELECT gt_allow('plain', 'monitor');"
        self.assertIn(remedy, "".join(json.loads(other.get("/healthz")[1])["problems"]))
        self.eventually(lambda: remedy in other.log(), "what the role lacks is not logged")
        self.assertNotIn("gt_allow('plain', 'lease')", other.log())


class Balance(html.parser.HTMLParser):
    """Finds elements that are not closed, scripts, and what would be fetched."""

    VOID = {"meta", "line", "rect", "path", "br", "link", "img"}
    LOOSE = {"tr", "th", "td"}  # their ends may be left out

    def __init__(self):
        super().__init__()
        self.open = []
        self.problems = []
        self.text = []

    def handle_starttag(self, tag, attributes):
        if tag in ("script", "link", "img", "iframe") or any(name in ("src", "onclick") for name, _ in attributes):
            self.problems.append(f"<{tag} {attributes}>")
        if tag not in self.VOID and tag not in self.LOOSE:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        if tag in self.LOOSE:
            return
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}>")

    def handle_data(self, data):
        self.text.append(data)


class Status(AdminTest):
    def page(self, status=200):
        got, text = self.sidecar.get("/")
        self.assertEqual(got, status)
        parser = Balance()
        parser.feed(text)
        self.assertEqual((parser.open, parser.problems), ([], []))
        return " ".join("".join(parser.text).split())

    def test_says_what_is_wrong_and_what_mends_it(self):
        self.assertIn("Reclaiming normally", self.page())
        self.assertEqual(self.sidecar.get("/healthz")[0], 200)
        self.query("SELECT gt_lease_create('x', duration => '100 ms', cleanup => 'fails')")
        self.eventually(lambda: self.sidecar.get("/healthz")[0] == 503, "a dead object is no failed check")
        checks = {c["name"]: c for c in json.loads(self.sidecar.get("/healthz")[1])["checks"]}
        self.assertFalse(checks["dead"]["ok"])
        self.assertIn("gt_redrive", checks["dead"]["remedy"])
        self.assertTrue(checks["preloaded"]["ok"])
        text = self.page()
        self.assertIn("gt_redrive", text)
        self.assertNotIn("division by zero", text)  # not for a role that may only monitor
        self.assertNotIn("Reclaiming normally", text)
        self.query("SELECT gt_ack(cleanup_id, attempts) FROM gt_dead")
        self.assertIn("Reclaiming normally", self.page())

    def test_shows_its_parts(self):
        self.query("SELECT gt_lease_create('a&<i>' || i, '<i>type</i>', duration => '10 min', cleanup => '<b>thumbs</b>')"
                   " FROM generate_series(1, 7) AS i")
        text = self.page()
        for part in ("Forecast", "By type and handler", "Workers", "launcher", "Sidecars", "this one", "<b>thumbs</b>",
                     "<i>type</i>", "http_endpoint"):
            self.assertIn(part, text)
        self.eventually(lambda: "Live leases" in self.page(), "the tiles do not come")

    def test_chromium_draws_it(self):
        chromium = shutil.which("chromium")
        if chromium is None:
            self.skipTest("chromium is not installed")
        self.query("SELECT gt_lease_create('drawn', '<i>type</i>', duration => '10 min', cleanup => '<b>thumbs</b>')")
        self.eventually(lambda: "Live leases" in self.page(), "the tiles do not come")
        with tempfile.TemporaryDirectory() as directory:
            done = subprocess.run(
                [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={directory}",
                 "--enable-logging=stderr", "--dump-dom",
                 f"http://127.0.0.1:{self.sidecar.admin}/"], capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.count('<svg class="spark"'), 4)
        self.assertEqual(done.stdout.count('<svg class="bars"'), 1)
        self.assertIn("&lt;b&gt;thumbs&lt;/b&gt;", done.stdout)
        self.assertNotIn("CONSOLE", done.stderr)


class Absence(AdminTest):
    def test_the_database_goes_and_comes(self):
        cluster.stop()
        try:
            self.eventually(lambda: self.sidecar.get("/readyz")[0] == 503, "ready without a database")
            self.assertEqual(self.sidecar.get("/livez")[0], 200)
            status, text = self.sidecar.get("/healthz")
            self.assertEqual((status, json.loads(text)["healthy"]), (503, False))
            status, text = self.sidecar.get("/")
            self.assertEqual(status, 503)
            self.assertIn("The database does not answer", text)
            self.assertIn("garbagetruck_sidecar_database_up 0\n", self.sidecar.get("/metrics")[1])
        finally:
            cluster.start()
        self.eventually(lambda: self.sidecar.get("/readyz")[0] == 200, "not ready with the database back")
        self.eventually(lambda: self.sidecar.get("/healthz")[0] == 200, "not healthy with the database back")


class Ephemeral(unittest.TestCase):
    def start(self):
        sidecar = AdminSidecar("--ephemeral", "--pg-bindir", cluster.bindir, dsn="")
        self.addCleanup(sidecar.kill)
        directory = Path(re.search(r"host=(\S+)", sidecar.log())[1])
        self.assertTrue(directory.exists())
        self.assertNotIn("PostgreSQL is away", sidecar.log())      # however long its start took
        return sidecar, directory

    def test_serves_and_goes(self):
        sidecar, directory = self.start()
        done = subprocess.run([BINARY, "health", "--endpoint", "http://" + sidecar.address], capture_output=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        # For development what is on this machine may be a target, unasked.
        done = subprocess.run([BINARY, "--endpoint", "http://" + sidecar.address, "lease", "create", "--object-id", "x", "--object-type",
                               "custom", "--cleanup-endpoint", "http://localhost:8080"], capture_output=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        sidecar.stop()
        self.assertFalse(directory.exists())

    def test_goes_when_killed(self):
        sidecar, directory = self.start()
        sidecar.kill()
        self.assertTrue(wait_until(lambda: not directory.exists(), LIMIT), f"{directory} is left behind")

    def test_says_why_not(self):
        done = subprocess.run([BINARY, "serve", "--ephemeral", "--pg-bindir", "/nowhere", "--admin", "", "--listen", "127.0.0.1:0"],
                              capture_output=True, text=True, timeout=LIMIT)
        self.assertEqual(done.returncode, 1)
        self.assertIn("/nowhere/initdb", done.stderr)


if __name__ == "__main__":
    unittest.main()
