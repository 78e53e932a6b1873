#!/usr/bin/python3
"""The command line against a server that answers as it is told: arguments, output, errors, and lease hold."""

import fnmatch
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path

import grpc

from fake_server import FakeServer
from harness import BINARY

LEASE = "01900000-0000-7000-8000-000000000000"


def environment(**more):
    """This one's, without what would be taken for a flag."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GARBAGETRUCK_")}
    return {**kept, **more}


class CliTest(unittest.TestCase):
    def setUp(self):
        self.fake = FakeServer()
        self.addCleanup(self.fake.stop)
        self.endpoint = f"http://127.0.0.1:{self.fake.port}"

    def run_cli(self, *arguments, code=0, endpoint=None, env=None):
        """Run it, check its exit code; the finished process."""
        done = subprocess.run([BINARY, "--endpoint", endpoint or self.endpoint, *arguments],
                              env=environment(**(env or {})), stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done

    def run_json(self, *arguments, **how):
        return json.loads(self.run_cli(*arguments, "--json", **how).stdout)

    def assert_usage(self, *arguments, says):
        done = self.run_cli(*arguments, code=2)
        self.assertEqual(done.stdout, "")
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertIn(says, done.stderr)
        done = self.run_cli("--json", *arguments, code=2)
        self.assertEqual(set(json.loads(done.stderr)["error"]), {"code", "message"})


class Arguments(CliTest):
    def test_usage_errors(self):
        self.assert_usage(says="a command is missing")
        self.assert_usage("dance", says='no command "dance"')
        self.assert_usage("lease", says="create, renew")
        self.assert_usage("lease", "burn", says="create, renew")
        self.assert_usage("lease", "create", says="--object-id")
        self.assert_usage("lease", "create", "--object-id", "", says="--object-id")
        self.assert_usage("lease", "create", "--object-id", says="needs a value")
        self.assert_usage("lease", "create", "--objekt-id=x", says="no flag --objekt-id")
        self.assert_usage("lease", "create", "--object-id=x", "--keep", says="has no flag --keep")
        self.assert_usage("lease", "create", "--object-id=x", "more", says='"more"')
        self.assert_usage("health", "more", says='"more" is one word too many')
        self.assert_usage("lease", "create", "--object-id=x", "--metadata", "novalue", says="KEY=VALUE")
        self.assert_usage("lease", "renew", says="--lease-id")
        self.assert_usage("lease", "list", "--limit", "none", says="whole number")
        self.assert_usage("lease", "list", "--limit", "0", says="whole number")
        self.assert_usage("lease", "hold", "--object-id", "x", says="-- COMMAND")
        self.assert_usage("lease", "get", "--lease-id", LEASE, "--json=yes", says="no value")
        self.assertEqual(self.fake.calls, [])

    def test_a_result_that_cannot_be_written(self):
        with open("/dev/full", "w") as full:
            for command in (["health"], ["lease", "create", "--object-id", "x"], ["lease", "list", "--json"]):
                done = subprocess.run([BINARY, "--endpoint", self.endpoint, *command], stdout=full, stderr=subprocess.PIPE, text=True)
                self.assertEqual((done.returncode, done.stderr.count("\n")), (1, 1), done.stderr)
                self.assertIn("could not be written", done.stderr)

    def test_durations(self):
        for text, seconds in (("90", 90), ("500ms", .5), ("30s", 30), ("5m", 300), ("2h", 7200), ("7d", 604800), ("0", 0)):
            with self.subTest(text):
                self.run_cli("lease", "create", "--object-id", "x", "--duration", text)
                request = self.fake.requests("Create")[-1]
                self.assertTrue(request.HasField("duration"))  # zero, too: the server refuses it
                self.assertEqual(request.duration.ToMilliseconds() / 1000, seconds)
        self.run_cli("lease", "create", "--object-id", "x")
        self.assertFalse(self.fake.requests("Create")[-1].HasField("duration"))
        for text in ("-5", "5 m", "soon", "", "1w", "0x10", "inf", "0.1ms", "9" * 30, "5mm"):
            with self.subTest(text):
                self.assert_usage("lease", "create", "--object-id", "x", "--duration", text, says="30s")

    def test_environment(self):
        self.run_cli("lease", "create", env={"GARBAGETRUCK_OBJECT_ID": "from-env", "GARBAGETRUCK_SERVICE_ID": "svc",
                                             "GARBAGETRUCK_JSON": "1", "GARBAGETRUCK_EXCLUSIVE": "true"})
        request, = self.fake.requests("Create")
        self.assertEqual((request.object_id, request.service_id, request.exclusive), ("from-env", "svc", True))
        # a flag wins, an empty variable is none, a flag of another command's is nobody's business
        self.run_cli("lease", "create", "--object-id", "flag",
                     env={"GARBAGETRUCK_OBJECT_ID": "env", "GARBAGETRUCK_DURATION": "", "GARBAGETRUCK_KEEP": "maybe"})
        self.assertEqual(self.fake.requests("Create")[-1].object_id, "flag")
        self.run_cli("lease", "create", "--object-id", "x", code=2, env={"GARBAGETRUCK_EXCLUSIVE": "maybe"})
        done = subprocess.run([BINARY, "health"], env=environment(GARBAGETRUCK_ENDPOINT=self.endpoint), capture_output=True)
        self.assertEqual(done.returncode, 0)

    def test_variables_that_are_a_servers(self):
        """Where a server reads the same environment: its --cleanup, its --token-file, its --admin."""
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "tokens"
            path.write_text("- cert-only admin\nsecret billing claim=h\n")
            self.run_cli("lease", "create", "--object-id", "x",
                         env={"GARBAGETRUCK_CLEANUP": "temporary_file=rm", "GARBAGETRUCK_TOKEN_FILE": str(path)})
        request, = self.fake.requests("Create")
        self.assertEqual((request.cleanup, request.service_id), ("", ""))
        self.assertEqual(self.fake.metadata("Create")[0]["authorization"], "Bearer secret")
        self.assertTrue(self.run_json("health", env={"GARBAGETRUCK_ADMIN": "127.0.0.1:1"})["healthy"])
        self.run_cli("lease", "create", "--object-id", "x", env={"GARBAGETRUCK_ADMIN": "127.0.0.1:1"})

    def test_default_service(self):
        """Without a token cli-client; with one, or a certificate, what the server says it is."""
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "token"
            path.write_text("secret\n")
            lease = self.fake.grant(60)
            for more, service in (((), "cli-client"), (("--token-file", str(path)), ""), (("--token-file", str(path), "--service-id", "s/t"), "s/t")):
                self.run_cli("lease", "create", "--object-id", "x", *more)
                self.assertEqual(self.fake.requests("Create")[-1].service_id, service)
            for command, method in (("renew", "RenewBatch"), ("release", "Release")):
                self.run_cli("lease", command, "--lease-id", lease, "--token-file", str(path))
                self.assertEqual(len(self.fake.requests(method)), 1)
            self.assertIn("not found", self.run_cli("lease", "release", "--lease-id", lease, "--token-file", str(path), code=1).stderr)

    def test_version(self):
        self.assertEqual(self.run_cli("health").returncode, 0)
        for words in (["--version"], ["--json", "--version"], ["--version", "--json"]):
            done = subprocess.run([BINARY, *words], capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stdout.split()[0]), (0, "garbagetruck"))

    def test_flags_may_stand_anywhere(self):
        done = self.run_cli("--json", "lease", "--service-id=s", "create", "--object-id", "x")
        self.assertIn("lease_id", json.loads(done.stdout))
        self.assertEqual(self.fake.requests("Create")[0].service_id, "s")

    def test_help_teaches(self):
        for words in ((), ("health",), ("lease", "create"), ("lease", "hold"), ("lease", "list")):
            done = self.run_cli(*words, "--help")
            self.assertIn("Usage: garbagetruck", done.stdout)
            self.assertIn("GARBAGETRUCK_", done.stdout)
            self.assertTrue("Example" in done.stdout or "Try it" in done.stdout)
        for words in (("help",), ("help", "lease", "hold"), ("help", "serve")):
            done = self.run_cli(*words)
            self.assertIn("lease hold" if words[-1] == "hold" else "serve", done.stdout)
        self.assertEqual(self.fake.calls, [])


class Described(unittest.TestCase):
    """The manual page and the completions have every command and every flag that --help has."""
    PACKAGING = Path(__file__).parents[2] / "src" / "packaging"

    @classmethod
    def setUpClass(cls):
        top = cls.run_text(BINARY, "--help")
        cls.commands = re.findall(r"^  ((?:lease )?[a-z]+) {2,}\S", top[:top.index("Flags of")], re.M)
        cls.help = {command: cls.run_text(BINARY, *command.split(), "--help") for command in cls.commands}

    @staticmethod
    def run_text(*arguments):
        return subprocess.run(arguments, env=environment(), capture_output=True, text=True, check=True, timeout=60).stdout

    @staticmethod
    def flags(text):
        return set(re.findall(r"^  (--[a-z-]+)", text, re.M))

    def test_commands_are_found(self):
        self.assertIn("lease hold", self.commands)
        self.assertGreater(len(self.flags(self.help["serve"])), 30)
        self.assertIn("--wait", self.flags(self.help["lease hold"]))

    def test_manual(self):
        page = self.run_text(self.PACKAGING / "manpage", BINARY).replace("\\-", "-")
        sections = {part.split("\n")[0]: set(re.findall(r"^\.B (--[a-z-]+)", part, re.M)) for part in page.split(".SH ")}
        common = sections["DESCRIPTION"]
        self.assertIn("--endpoint", common)
        for command, text in self.help.items():
            with self.subTest(command):
                self.assertEqual(sections[command.upper()] | common, self.flags(text) | common)

    def complete(self, *words):
        """What bash offers for the last of these."""
        return set(self.run_text("bash", "-c", 'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _garbagetruck "$1"; '
                                 'printf "%s\\n" "${COMPREPLY[@]}"', self.PACKAGING / "completion" / "garbagetruck", BINARY, *words).split())

    def test_bash(self):
        self.assertEqual(self.complete(""), {command.split()[0] for command in self.commands})
        self.assertEqual(self.complete("lease", ""), {command.split()[1] for command in self.commands if " " in command})
        for command, text in self.help.items():
            with self.subTest(command):
                self.assertEqual(self.complete(*command.split(), "--"), self.flags(text))
        self.assertEqual(self.complete("lease", "hold", "--", "--"), set())

    def test_the_other_shells_know_as_much(self):
        words = {word for command in self.commands for word in command.split()}
        files = {flag for text in self.help.values() for flag in re.findall(r"^  (--[a-z-]+) (?:FILE|DIR)\b", text, re.M)}
        every = set().union(*map(self.flags, self.help.values()))
        for path in (self.PACKAGING / "completion").iterdir():
            with self.subTest(path.name):
                text = path.read_text()
                self.assertEqual(words - set(re.findall(r"\w+", text)), set())
                named = re.search(r"^\t*(--token-file[^)]*)\)|^for file in (.*)$", text, re.M)
                patterns = [f"--{word.strip('-')}" for word in re.findall(r"[\w*-]+", named[1] or named[2])]
                self.assertEqual({flag for flag in files if not any(fnmatch.fnmatch(flag, p) for p in patterns)}, set())
                self.assertEqual({p for p in patterns if not fnmatch.filter(every, p)}, set())


class Serve(CliTest):
    """`serve` is a command like the others: flags before it, --json, one-line errors that name the flag."""

    def refused(self, *arguments, code=2, says):
        arguments = (*arguments, "--db", "host=/nowhere", *([] if "--admin" in arguments else ["--admin", "none"]))
        done = self.run_cli("--service-id", "s", *arguments, code=code)
        self.assertEqual((done.stdout, done.stderr.count("\n")), ("", 1), done.stderr)
        self.assertIn(says, done.stderr)
        for before, after in ((["--json"], []), ([], ["--json"])):
            done = self.run_cli(*before, *arguments, *after, code=code)
            self.assertIn(says, json.loads(done.stderr)["error"]["message"])

    def test_flags_before_it(self):
        done = self.run_cli("--service-id", "s", "--timeout=3s", "--tls-cert", "c.pem", "--tls-key=k.pem", "serve", "--show-config")
        self.assertIn("tls-cert = c.pem  # flag", done.stdout)
        self.assertIn("tls-key = k.pem  # flag", done.stdout)
        self.assertIn("--ephemeral", self.run_cli("--json", "serve", "--help").stdout)

    def test_bad_values_are_usage_errors(self):
        for flag, value in (("listen", "127.0.0.1:99999"), ("listen", "nonsense"), ("listen", "0.0.0.0:0"), ("executors", "ftp"),
                            ("allow-target", "http://x"), ("cleanup", "foo"), ("max-message", "10"), ("nope", "x"),
                            ("admin", "nonsense"), ("admin", ":0"), ("admin", "[::]:0")):
            with self.subTest(flag, value=value):
                self.refused("serve", "--" + flag, value, says=value if flag != "nope" else "--nope")
        self.refused("serve", "--insecure=maybe", says="maybe")
        # The admin port has no TLS, whether gRPC has it or not.
        self.refused("serve", "--admin", "0.0.0.0:0", "--tls-cert", "c.pem", "--tls-key", "k.pem", says="--insecure")

    def test_files_that_do_not_fit_are_named(self):
        with tempfile.TemporaryDirectory() as directory:
            garbage = os.path.join(directory, "garbage.pem")
            Path(garbage).write_text("garbage")
            self.refused("serve", "--tls-cert", "/nowhere", "--tls-key", "/nowhere", code=1, says="/nowhere: No such file")
            self.refused("serve", "--tls-cert", garbage, "--tls-key", garbage, code=1, says=garbage + ": no start line")
            for flag in ("--token-file", "--file-root", "--target-tls-ca"):
                self.refused("serve", flag, "/nowhere", code=1, says=flag + " /nowhere: No such file")


class Leases(CliTest):
    def test_a_url_is_shown_to_the_service_that_looks_at_it(self):
        created = self.run_json("lease", "create", "--object-id", "x", "--object-type", "database-row", "--duration", "5m",
                                "--cleanup-endpoint", "https://h/clean", "--payload", 'a "b"', "--metadata", "k=v=w",
                                "--service-id", "svc")
        self.assertEqual(set(created), set(self.run_json("lease", "create", "--object-id", "x")))
        request, = self.fake.requests("CreateLease")
        self.assertEqual((request.object_id, request.object_type, request.service_id, request.lease_duration_seconds),
                         ("x", 1, "svc", 300))
        self.assertEqual(request.cleanup_config.cleanup_http_endpoint, "https://h/clean")
        self.assertEqual(request.cleanup_config.cleanup_endpoint, "")
        self.assertEqual(request.cleanup_config.cleanup_payload, 'a "b"')
        self.assertEqual(dict(request.metadata), {"k": "v=w"})
        self.run_cli("lease", "create", "--object-id", "x", "--request-key", "key")
        self.assertEqual(self.fake.requests("Create")[-1].request_key, "key")

    def test_create_by_grpc_cleanup(self):
        self.run_cli("lease", "create", "--object-id", "x", "--cleanup-endpoint", "grpc://h:1")
        self.assertEqual(self.fake.requests("CreateLease")[0].cleanup_config.cleanup_endpoint, "http://h:1")

    def test_what_only_the_second_service_can_say(self):
        self.run_cli("lease", "create", "--object-id", "x", "--object-type", "Temporary-File", "--cleanup", "h",
                     "--payload", '{"a": 1}', "--metadata", "k=\"v\"", "--exclusive")
        self.run_cli("lease", "create", "--object-id", "y", "--object-type", "My-Own", "--parent", LEASE)
        self.run_cli("lease", "create", "--object-id", "z", "--duration", "500ms",
                     "--cleanup-endpoint", "grpcs://h:1", "--payload", "p")
        first, second, third = self.fake.requests("Create")
        self.assertEqual((first.object_type, first.cleanup, first.payload, first.exclusive),
                         ("temporary_file", "h", '{"a": 1}', True))
        self.assertEqual(json.loads(first.metadata), {"k": '"v"'})
        self.assertEqual((second.object_type, second.parent), ("My-Own", LEASE))
        self.assertEqual((third.cleanup, json.loads(third.payload)),
                         ("grpc_endpoint", {"url": "https://h:1", "payload": "p"}))

    def test_life_of_a_lease(self):
        created = self.run_json("lease", "create", "--object-id", "x", "--cleanup", "h", "--duration", "90")
        self.assertEqual(created["expires_at"], "2023-11-14T22:13:20.123Z")
        self.assertEqual((created["fence"], created["ttl_seconds"], created["created"]), (7, 90, True))
        lease = created["lease_id"]
        self.assertEqual(self.run_json("lease", "get", "--lease-id", lease)["payload"], {"n": 1})
        self.assertIn('object_id:       a "b"', self.run_cli("lease", "get", "--lease-id", lease).stdout)
        self.assertTrue(self.run_json("lease", "renew", "--lease-id", lease, "--duration", "5m")["success"])
        self.assertEqual(self.fake.requests("RenewLease")[0].extend_duration_seconds, 300)
        self.run_json("lease", "renew", "--lease-id", lease, "--duration", "1500ms")
        self.assertEqual(self.fake.requests("RenewBatch")[0].duration.ToMilliseconds(), 1500)
        self.assertTrue(self.run_json("lease", "release", "--lease-id", lease)["released"])
        for words in (("get",), ("renew",), ("renew", "--duration", "500ms"), ("release",), ("release", "--keep")):
            done = self.run_cli("lease", *words, "--lease-id", lease, code=1)
            self.assertIn("not found", done.stderr)
            self.assertEqual((done.stdout, done.stderr.count("\n")), ("", 1))

    def test_another_service(self):
        """What the second service's calls do not check is checked here."""
        lease = self.fake.grant(60)
        for words in (("renew", "--duration", "1500ms"), ("release", "--keep")):
            done = self.run_cli("--service-id", "other", "lease", *words, "--lease-id", lease, code=1)
            self.assertIn('not "other"', done.stderr)
        self.assertEqual(self.fake.requests("RenewBatch") + self.fake.requests("Release"), [])

    def test_keep(self):
        lease = self.fake.grant(60)
        self.assertTrue(self.run_json("lease", "release", "--lease-id", lease, "--keep")["kept"])
        self.assertTrue(self.fake.requests("Release")[0].keep)

    def test_list_follows_pages(self):
        for _ in range(5):
            self.fake.grant(60)
        listed = self.run_json("lease", "list", "--service", "s", "--type", "cache-entry")
        self.assertEqual([row["lease_id"] for row in listed["leases"]], sorted(self.fake.leases))
        self.assertFalse(listed["more"])
        first = self.fake.requests("List")[0]
        self.assertEqual((first.service_id, first.object_type, first.limit), ("s", "cache_entry", 100))
        done = self.run_cli("lease", "list", "--limit", "3")
        self.assertIn("raise --limit", done.stderr)
        self.assertEqual(self.run_cli("lease", "list").stdout.count("temporary_file"), 5)

    def test_output_cannot_break_lines(self):
        self.fake.lease = lambda i: type(FakeServer.lease(self.fake, i))(lease_id=i, object_id="a\nb\x1b[2J")
        lease = self.fake.grant(60)
        out = self.run_cli("lease", "get", "--lease-id", lease).stdout
        self.assertIn("a b [2J", out)
        self.assertEqual(self.run_json("lease", "get", "--lease-id", lease)["object_id"], "a\nb\x1b[2J")


class Failures(CliTest):
    def test_health(self):
        self.assertTrue(self.run_json("health")["healthy"])
        self.fake.healthy = False
        done = self.run_cli("health", code=1)
        self.assertIn("3 objects are dead: SELECT gt_redrive()", done.stderr)
        self.fake.fail["Health"] = (grpc.StatusCode.PERMISSION_DENIED, "no")
        self.assertFalse(self.run_json("health", code=1)["healthy"])

    def test_health_by_the_admin_port(self):
        class Admin(http.server.BaseHTTPRequestHandler):
            code = 200

            def do_GET(self):
                self.send_response(self.code if self.path == "/readyz" else 404)
                self.end_headers()
                self.wfile.write(b"because\nof much\n")

            def log_message(self, *arguments):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Admin)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_port
        nobody = "http://127.0.0.1:1"
        for admin in (f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port}/", f"127.0.0.1:{port}", f"0.0.0.0:{port}", f":{port}"):
            with self.subTest(admin):
                self.assertEqual(self.run_json("health", "--admin", admin, endpoint=nobody), {"healthy": True})
        Admin.code = 503
        done = self.run_cli("health", "--admin", f":{port}", endpoint=nobody, code=1)
        self.assertIn("503: because", done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1)
        self.assertEqual(self.run_json("health", "--admin", f":{port}", endpoint=nobody, code=1), {"healthy": False})
        self.assertIn("--admin", self.run_cli("health", "--admin", nobody, code=1).stderr)

    def test_a_hint_of_the_server_is_shown(self):
        from google.protobuf import any_pb2

        def field(number, data):
            return bytes([number << 3 | 2]) + (bytes([len(data)]) if len(data) < 128 else bytes([len(data) & 127 | 128, len(data) >> 7])) + data
        info = field(1, b"42501") + field(2, b"garbagetruck") + field(3, field(1, b"sqlstate") + field(2, b"42501")) \
            + field(3, field(1, b"hint") + field(2, b"SELECT gt_handler_grant('h', 'app');"))
        detail = any_pb2.Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=info)
        other = any_pb2.Any(type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"")
        status = b"\x08\x07" + field(2, b"no") + field(3, other.SerializeToString()) + field(3, detail.SerializeToString())

        def refuse(request, context):
            context.set_trailing_metadata((("grpc-status-details-bin", status),))
            context.abort(grpc.StatusCode.PERMISSION_DENIED, 'permission denied for handler "h"')
        self.fake.Create = refuse
        done = self.run_cli("lease", "create", "--object-id", "x", "--cleanup", "h", code=1)
        self.assertEqual(done.stderr, 'garbagetruck: permission denied for handler "h" (PERMISSION_DENIED): '
                                      "SELECT gt_handler_grant('h', 'app');\n")
        for broken in (b"\x08", status[:-3], b"\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x80" * 20):
            status = broken
            done = self.run_cli("lease", "create", "--object-id", "x", "--cleanup", "h", code=1)
            self.assertEqual(done.stderr.count("\n"), 1)

    def test_closed_descriptors(self):
        """What is opened next has their numbers, and must not be written to."""
        for closing in ("2>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-"):
            done = subprocess.run(["sh", "-c", f'exec "$@" {closing}', "sh", BINARY, "--endpoint", self.endpoint, "lease", "get",
                                   "--lease-id", "no-such"], env=environment(), timeout=60)
            self.assertEqual(done.returncode, 1)
        self.assertEqual(len(self.fake.requests("Get")), 3)

    def test_nobody_listens(self):
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
            done = self.run_cli("health", endpoint=endpoint, code=1)
            self.assertIn("--endpoint", done.stderr)
            done = self.run_cli("health", "--json", endpoint=endpoint, code=1)
            self.assertEqual(json.loads(done.stderr)["error"]["code"], "UNAVAILABLE")

    def test_not_a_grpc_server(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            child = subprocess.Popen([BINARY, "health", "--endpoint", f"http://127.0.0.1:{listener.getsockname()[1]}"],
                                     env=environment(), stderr=subprocess.PIPE, text=True)
            peer, _ = listener.accept()
            peer.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            peer.close()
            self.assertIn("no answer from", child.communicate(timeout=60)[1])
            self.assertEqual(child.returncode, 1)

    def test_bad_endpoints(self):
        for endpoint in ("ftp://h", "http://", "http://h:1/path"):
            done = self.run_cli("health", endpoint=endpoint, code=2)
            self.assertIn(endpoint, done.stderr)

    def test_each_status_says_what_to_do(self):
        remedies = {"INVALID_ARGUMENT": "correct", "ALREADY_EXISTS": "try again when", "PERMISSION_DENIED": "--service-id",
                    "RESOURCE_EXHAUSTED": "release", "FAILED_PRECONDITION": "new lease", "ABORTED": "try again",
                    "UNAUTHENTICATED": "--token-file", "UNAVAILABLE": "database"}
        for code, remedy in remedies.items():
            with self.subTest(code):
                self.fake.fail["Create"] = (grpc.StatusCode[code], 'the "words"\nof the sérver: 100 %')
                done = self.run_cli("lease", "create", "--object-id", "x", code=1)
                self.assertIn('the "words" of the sérver: 100 %', done.stderr)
                self.assertIn(remedy, done.stderr)
                self.assertEqual((done.stdout, done.stderr.count("\n")), ("", 1))
                done = self.run_cli("lease", "create", "--object-id", "x", "--json", code=1)
                self.assertEqual(json.loads(done.stderr)["error"],
                                 {"code": code, "message": 'the "words"\nof the sérver: 100 %'})

    def test_timeout(self):
        self.run_cli("health", "--timeout", "3000000d")
        self.fake.fail["Create"] = 5
        done = self.run_cli("lease", "create", "--object-id", "x", "--timeout", "200ms", code=1)
        self.assertIn("DEADLINE_EXCEEDED", done.stderr)

    def test_token(self):
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "token"
            path.write_text("# mine\n\nsecret billing claim=h\n")
            self.run_cli("health", "--token-file", str(path))
            self.assertEqual(self.fake.metadata("HealthCheck")[0]["authorization"], "Bearer secret")
            path.write_text("\n")
            self.assertIn("empty", self.run_cli("health", "--token-file", str(path), code=1).stderr)
            self.assertIn("cannot read", self.run_cli("health", "--token-file", str(path) + "x", code=1).stderr)


class Hold(CliTest):
    """Time passes here, but nothing is asserted about how much."""

    def start(self, *command, duration="900ms", more=(), **how):
        """A runner in the background hands down signals that are ignored; here they shall end what they reach."""
        return subprocess.Popen(["env", "--default-signal=INT,HUP,QUIT", BINARY, "--endpoint", self.endpoint, "lease",
                                 "hold", "--object-id", "x", "--duration", duration, *more, "--", *command], env=environment(), text=True,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how)

    def finish(self, child, code):
        out, err = child.communicate(timeout=60)
        self.assertEqual(child.returncode, code, out + err)
        return out, err

    def test_exits_with_the_command(self):
        for script, code in (("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)):
            self.finish(self.start("sh", "-c", script), code)
        self.assertEqual(len(self.fake.requests("Release")), 3)
        self.assertEqual(self.fake.leases, {})

    def test_tells_the_command_its_lease(self):
        out, _ = self.finish(self.start("sh", "-c", "echo $GARBAGETRUCK_LEASE_ID $GARBAGETRUCK_FENCE", more=("--exclusive",)), 0)
        self.assertEqual(out.split(), [self.fake.requests("Release")[0].lease_ids[0], "7"])
        self.assertTrue(self.fake.requests("Create")[0].exclusive)

    def test_cleanup_by_a_call(self):
        self.run_cli("lease", "hold", "--object-id", "x", "--cleanup-endpoint", "https://h/c", "--", "true")
        request = self.fake.requests("Create")[0]
        self.assertEqual((request.cleanup, json.loads(request.payload)["url"]), ("http_endpoint", "https://h/c"))

    def test_renews_while_it_runs(self):
        child = self.start("sh", "-c", "read line < fifo", cwd=self.fifo())
        self.fake.wait_calls("RenewBatch", 4)
        self.open_fifo()
        self.finish(child, 0)

    def fifo(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.fifo_path = Path(directory.name) / "fifo"
        os.mkfifo(self.fifo_path)
        return directory.name

    def open_fifo(self):
        self.fifo_path.write_text("go\n")

    def test_cannot_run(self):
        _, err = self.finish(self.start("/no/such/command"), 127)
        self.assertIn("/no/such/command", err)
        self.finish(self.start("/etc/passwd"), 126)
        self.assertEqual(self.fake.leases, {})

    def test_does_not_run_without_a_lease(self):
        self.fake.fail["Create"] = (grpc.StatusCode.ALREADY_EXISTS, "held by s")
        out, err = self.finish(self.start("echo", "ran"), 75)
        self.assertEqual(out, "")
        self.assertIn("held by s", err)
        self.fake.fail["Create"] = (grpc.StatusCode.INVALID_ARGUMENT, "no")
        self.finish(self.start("echo", "ran", more=("--wait", "20s")), 1)

    def test_stops_when_lost(self):
        child = self.start("sh", "-c", "trap 'echo stopping; exit 0' TERM; while :; do sleep 0.05; done")
        self.fake.wait_calls("RenewBatch", 1)
        self.fake.leases.clear()
        out, err = self.finish(child, 1)
        self.assertEqual(out, "stopping\n")
        self.assertIn("the lease is lost", err)
        self.assertEqual(self.fake.requests("Release"), [])

    def test_kills_what_will_not_stop(self):
        child = self.start("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done", duration="3s", more=("--kill-after", "200ms"))
        self.fake.wait_calls("RenewBatch", 1)
        self.fake.leases.clear()
        self.finish(child, 1)

    def test_stops_before_the_deadline_when_the_server_is_away(self):
        for failure in ((grpc.StatusCode.UNAVAILABLE, "the database is away"), 3):
            with self.subTest(failure):
                child = self.start("sleep", "60")
                self.fake.fail["RenewBatch"] = failure
                _, err = self.finish(child, 1)
                self.assertIn("could not be renewed", err)
                self.fake.fail.clear()

    def test_survives_a_short_absence(self):
        child = self.start("sh", "-c", "read line < fifo", duration="5s", cwd=self.fifo())
        self.fake.fail["RenewBatch"] = (grpc.StatusCode.UNAVAILABLE, "away")
        self.fake.wait_calls("RenewBatch", 2)
        self.fake.fail.clear()
        self.fake.wait_calls("RenewBatch", 4)
        self.open_fifo()
        self.finish(child, 0)

    def test_reports_a_lease_that_ended_first(self):
        child = self.start("sh", "-c", "read line < fifo", duration="1h", cwd=self.fifo())
        with self.fifo_path.open("w") as fifo:  # open once the command reads it
            self.fake.leases.clear()
            fifo.write("go\n")
        _, err = self.finish(child, 1)
        self.assertIn("had ended before", err)

    def test_forwards_signals(self):
        for name in ("TERM", "INT", "HUP", "USR1", "QUIT"):
            with self.subTest(name):
                child = self.start("sh", "-c", f"trap 'echo got {name}; exit 9' {name}; echo ready; while :; do sleep 0.05; done")
                self.assertEqual(child.stdout.readline(), "ready\n")
                child.send_signal(getattr(signal, "SIG" + name))
                out, _ = self.finish(child, 9)
                self.assertEqual(out, f"got {name}\n")
        self.assertEqual(self.fake.leases, {})

    def test_a_signal_that_ends_the_command(self):
        child = self.start("sh", "-c", "echo ready; exec sleep 60")
        child.stdout.readline()
        child.terminate()
        self.finish(child, 128 + signal.SIGTERM)

    def test_the_whole_group_is_stopped(self):
        child = self.start("sh", "-c", "sleep 61 & echo $!; sleep 60; echo not reached")
        grandchild = int(child.stdout.readline())
        self.fake.wait_calls("RenewBatch", 1)
        self.fake.leases.clear()
        out, _ = self.finish(child, 1)
        self.assertEqual(out, "")
        deadline = time.monotonic() + 20
        while Path(f"/proc/{grandchild}").exists() and "Z" not in Path(f"/proc/{grandchild}/stat").read_text().split()[2]:
            self.assertLess(time.monotonic(), deadline, "the grandchild still runs")
            time.sleep(0.01)

    def test_the_command_dies_with_its_holder(self):
        child = self.start("sh", "-c", "echo $$; exec sleep 60")
        command = int(child.stdout.readline())
        child.kill()
        child.wait()
        deadline = time.monotonic() + 20
        while Path(f"/proc/{command}").exists():
            self.assertLess(time.monotonic(), deadline, "the command still runs")
            time.sleep(0.01)
        child.stdout.close()
        child.stderr.close()


if __name__ == "__main__":
    unittest.main()
