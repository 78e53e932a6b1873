#!/usr/bin/python3
"""The command line against the real server: what both must agree on, over cleartext, TLS, certificates and tokens."""

import json
import os
import signal
import socket
import subprocess
import unittest
from pathlib import Path

from harness import BINARY, WORK, Sidecar, start_cluster, until_serving, wait_until

cluster = None


def setUpModule():
    global cluster
    cluster = start_cluster()
    cluster.tool("psql", "-q", "-v", "ON_ERROR_STOP=1", "-c", "CREATE TABLE cleaned (id text, type text)",
                 "-c", "GRANT INSERT ON cleaned TO app", "-c", "SET ROLE app",
                 "-c", "SELECT gt_handler_create('note', 'sql', 'INSERT INTO cleaned VALUES ($1, $2)')")


def cleaned():
    return cluster.tool("psql", "-XAtc", "SELECT id FROM cleaned ORDER BY id").split()


class ServerTest(unittest.TestCase):
    def start(self, *options):
        sidecar = Sidecar(cluster, *options)
        self.addCleanup(sidecar.stop)
        return sidecar

    def run_cli(self, sidecar, *arguments, code=0, scheme="http"):
        clean = {k: v for k, v in os.environ.items() if not k.startswith("GARBAGETRUCK_")}
        done = subprocess.run([BINARY, "--endpoint", f"{scheme}://localhost:{sidecar.port}", "--json", *arguments],
                              env=clean, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return json.loads(done.stdout) if done.stdout else json.loads(done.stderr)["error"]


class Lease(ServerTest):
    def test_life(self):
        sidecar = until_serving(self.start())
        self.assertTrue(self.run_cli(sidecar, "health")["healthy"])
        for extra in ((), ("--cleanup", "note", "--payload", '{"n": [1, null]}', "--exclusive")):
            with self.subTest(extra):
                created = self.run_cli(sidecar, "lease", "create", "--object-id", "o/ü 1", "--object-type", "temporary-file",
                                       "--duration", "5m", "--metadata", "k=\"v\"", *extra)
                lease = created["lease_id"]
                got = self.run_cli(sidecar, "lease", "get", "--lease-id", lease)
                self.assertEqual((got["object_id"], got["object_type"], got["service_id"], got["state"], got["duration_seconds"]),
                                 ("o/ü 1", "temporary_file", "cli-client", "active", 300))
                self.assertEqual(got["metadata"], {"k": '"v"'})
                self.assertEqual(got["exclusive"], bool(extra))
                self.assertGreaterEqual(self.run_cli(sidecar, "lease", "renew", "--lease-id", lease)["expires_at"], created["expires_at"])
                rows = self.run_cli(sidecar, "lease", "list", "--service", "cli-client", "--type", "temporary-file")["leases"]
                self.assertEqual([row["lease_id"] for row in rows], [lease])
                self.assertEqual(self.run_cli(sidecar, "lease", "list", "--service", "nobody")["leases"], [])
                error = self.run_cli(sidecar, "--service-id", "other", "lease", "renew", "--lease-id", lease, code=1)
                self.assertEqual(error["code"], "PERMISSION_DENIED")
                self.run_cli(sidecar, "lease", "release", "--lease-id", lease)
                for command in ("get", "renew", "release"):
                    self.assertEqual(self.run_cli(sidecar, "lease", command, "--lease-id", lease, code=1)["code"], "NOT_FOUND")
                    self.assertEqual(self.run_cli(sidecar, "lease", command, "--lease-id", "no-uuid", code=1)["code"], "NOT_FOUND")
        self.assertTrue(wait_until(lambda: "o/ü" in cleaned(), 60))

    def test_keep(self):
        sidecar = until_serving(self.start())
        lease = self.run_cli(sidecar, "lease", "create", "--object-id", "kept", "--cleanup", "note")["lease_id"]
        self.run_cli(sidecar, "lease", "release", "--lease-id", lease, "--keep")
        self.assertEqual(self.run_cli(sidecar, "lease", "release", "--lease-id", lease, "--keep", code=1)["code"], "NOT_FOUND")
        last = self.run_cli(sidecar, "lease", "create", "--object-id", "not-kept", "--cleanup", "note")["lease_id"]
        self.run_cli(sidecar, "lease", "release", "--lease-id", last)
        self.assertTrue(wait_until(lambda: "not-kept" in cleaned(), 60))
        self.assertNotIn("kept", cleaned())

    def test_pages(self):
        sidecar = until_serving(self.start())
        cluster.tool("psql", "-XAtc", "SET ROLE app", "-c",
                     "SELECT count(gt_lease_create(i::text, 'many', 'pages')) FROM generate_series(1, 1500) AS i")
        listed = self.run_cli(sidecar, "lease", "list", "--type", "many", "--limit", "5000")
        self.assertEqual(len({row["lease_id"] for row in listed["leases"]}), 1500)
        self.assertFalse(listed["more"])
        listed = self.run_cli(sidecar, "lease", "list", "--type", "many", "--limit", "1200")
        self.assertEqual((len(listed["leases"]), listed["more"]), (1200, True))

    def test_values_that_the_server_refuses(self):
        sidecar = until_serving(self.start())
        for arguments in (("--duration", "1ms"), ("--duration", "400d"), ("--cleanup", "nobody"), ("--object-type", "x" * 300),
                          ("--cleanup", "note", "--payload", "{not json"), ("--cleanup-endpoint", "http://10.0.0.1/")):
            error = self.run_cli(sidecar, "lease", "create", "--object-id", "x", *arguments, code=1)
            self.assertEqual(error["code"], "INVALID_ARGUMENT", arguments)

    def test_servers_cleanup_of_a_type(self):
        """It holds for every way to create a lease."""
        sidecar = until_serving(self.start("--cleanup", "temporary-file=note"))
        create = ("lease", "create", "--object-type", "temporary-file", "--object-id")
        for name, more in (("by-type", ()), ("by-type-ms", ("--duration", "1500ms")), ("by-type-lock", ("--exclusive",))):
            lease = self.run_cli(sidecar, *create, name, *more)["lease_id"]
            self.run_cli(sidecar, "lease", "release", "--lease-id", lease)
        subprocess.run([BINARY, "--endpoint", f"http://localhost:{sidecar.port}", "lease", "hold", "--object-type", "temporary-file",
                        "--object-id", "by-type-hold", "--", "true"], check=True, timeout=60)
        expected = {"by-type", "by-type-ms", "by-type-lock", "by-type-hold"}
        self.assertTrue(wait_until(lambda: expected <= set(cleaned()), 60), cleaned())

    def test_hint(self):
        sidecar = until_serving(self.start())
        cluster.tool("psql", "-q", "-v", "ON_ERROR_STOP=1", "-c", "SELECT gt_handler_create('theirs', 'queue')")
        error = self.run_cli(sidecar, "lease", "create", "--object-id", "x", "--cleanup", "theirs", code=1)
        self.assertIn("gt_handler_grant('theirs', 'app', 'use')", error["message"])

        def said(*arguments):
            return subprocess.run([BINARY, "--endpoint", "http://" + sidecar.address, *arguments], capture_output=True, text=True).stderr
        self.assertIn("gt_handler_create()", said("lease", "create", "--object-id", "x", "--cleanup", "nobody"))
        # A lease that is not there, for each command in the same words.
        for command in ("get", "renew", "release"):
            self.assertIn("lease list", said("lease", command, "--lease-id", "00000000-0000-0000-0000-000000000001"))

    def test_zero_durations(self):
        sidecar = until_serving(self.start())
        lease = self.run_cli(sidecar, "lease", "create", "--object-id", "zero")["lease_id"]
        for words in (("create", "--object-id", "x"), ("renew", "--lease-id", lease)):
            error = self.run_cli(sidecar, "lease", *words, "--duration", "0", code=1)
            self.assertEqual(error["code"], "INVALID_ARGUMENT")

    def test_request_key(self):
        sidecar = until_serving(self.start())
        same = {self.run_cli(sidecar, "lease", "create", "--object-id", "once", "--request-key", "k")["lease_id"] for _ in range(2)}
        self.assertEqual(len(same), 1)


class Hold(ServerTest):
    def test_mutual_exclusion(self):
        sidecar = until_serving(self.start())
        command = [BINARY, "--endpoint", f"http://localhost:{sidecar.port}", "lease", "hold", "--object-id", "lock",
                   "--exclusive", "--duration", "2s", "--cleanup", "note", "--"]
        with subprocess.Popen([*command, "sh", "-c", "echo held; read line; exit 5"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True) as holder:
            self.assertEqual(holder.stdout.readline(), "held\n")
            second = subprocess.run([*command, "true"], capture_output=True, text=True)
            self.assertEqual(second.returncode, 75)
            self.assertIn("(ALREADY_EXISTS): somebody else holds the object", second.stderr)
            holder.communicate("go\n")
            self.assertEqual(holder.returncode, 5)
        self.assertTrue(wait_until(lambda: "lock" in cleaned(), 60))
        self.assertEqual(subprocess.run([*command, "true"]).returncode, 0)

    def test_survives_a_new_sidecar(self):
        sidecar = until_serving(self.start())
        command = [BINARY, "--endpoint", f"http://localhost:{sidecar.port}", "lease", "hold", "--object-id", "moved",
                   "--duration", "20s", "--", "sh", "-c", "echo held; read line"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            holder.stdout.readline()
            sidecar.kill()
            second = until_serving(self.start("--listen", f"127.0.0.1:{sidecar.port}"))
            self.assertTrue(wait_until(lambda: self.run_cli(second, "lease", "list", "--limit", "1000")["leases"][-1]["renewals"] > 0
                                       or holder.poll() is not None, 60))
            holder.communicate("go\n")
            self.assertEqual(holder.returncode, 0)

    def test_stops_when_somebody_ends_the_lease(self):
        sidecar = until_serving(self.start())
        command = [BINARY, "--endpoint", f"http://localhost:{sidecar.port}", "lease", "hold", "--object-id", "taken",
                   "--duration", "1s", "--", "sh", "-c", "echo $GARBAGETRUCK_LEASE_ID; exec sleep 60"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as holder:
            lease = holder.stdout.readline().strip()
            self.run_cli(sidecar, "lease", "release", "--lease-id", lease)
            _, err = holder.communicate(timeout=60)
            self.assertEqual(holder.returncode, 1)
            self.assertIn("the lease is lost", err)


class Secured(ServerTest):
    @classmethod
    def setUpClass(cls):
        cls.files = Path(WORK) / "tls"
        cls.files.mkdir()

        def openssl(*arguments):
            subprocess.run(["openssl", *arguments], cwd=cls.files, check=True, capture_output=True)

        (cls.files / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key",
                "-out", "ca.pem", "-subj", "/CN=test authority", "-days", "2")
        for name, subject, more in (("server", "/CN=localhost", ("-extfile", "names")), ("client", "/CN=billing", ())):
            openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key",
                    "-out", f"{name}.csr", "-subj", subject)
            openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                    "-out", f"{name}.pem", "-days", "2", *more)
        (cls.files / "tokens").write_text("sesame shop admin\n")
        (cls.files / "token").write_text("sesame\n")
        (cls.files / "wrong").write_text("barley\n")

    def path(self, name):
        return str(self.files / name)

    def serving(self, sidecar, *arguments):
        self.assertTrue(wait_until(lambda: "PostgreSQL answers" in sidecar.log(), 60), sidecar.log())
        self.assertTrue(self.run_cli(sidecar, "health", *arguments, scheme="https" if "--tls-ca" in arguments else "http")["healthy"])

    def test_tls(self):
        sidecar = self.start("--tls-cert", self.path("server.pem"), "--tls-key", self.path("server.key"))
        self.serving(sidecar, "--tls-ca", self.path("ca.pem"))
        error = self.run_cli(sidecar, "health", code=1, scheme="https")
        self.assertIn("certificate", error["message"])
        done = subprocess.run([BINARY, "--endpoint", f"http://localhost:{sidecar.port}", "health"], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 1)
        self.assertIn("https://", done.stderr)
        self.run_cli(sidecar, "health", "--tls-ca", "/nowhere", code=1, scheme="https")

    def test_client_certificate(self):
        sidecar = self.start("--tls-cert", self.path("server.pem"), "--tls-key", self.path("server.key"),
                             "--tls-client-ca", self.path("ca.pem"))
        mine = ("--tls-ca", self.path("ca.pem"), "--tls-cert", self.path("client.pem"), "--tls-key", self.path("client.key"))
        self.serving(sidecar, *mine)
        self.run_cli(sidecar, *mine, "lease", "create", "--object-id", "x", "--service-id", "billing", scheme="https")
        error = self.run_cli(sidecar, *mine, "lease", "create", "--object-id", "x", "--service-id", "shop", code=1, scheme="https")
        self.assertEqual(error["code"], "PERMISSION_DENIED")

    def test_token(self):
        sidecar = self.start("--token-file", self.path("tokens"))
        mine = ("--token-file", self.path("token"))
        self.serving(sidecar, *mine)
        self.run_cli(sidecar, *mine, "--service-id", "shop/till", "lease", "create", "--object-id", "of the shop")
        lease = self.run_cli(sidecar, *mine, "lease", "create", "--object-id", "y")["lease_id"]
        self.assertEqual(self.run_cli(sidecar, *mine, "lease", "get", "--lease-id", lease)["service_id"], "shop")
        self.run_cli(sidecar, *mine, "lease", "renew", "--lease-id", lease)
        self.run_cli(sidecar, *mine, "lease", "release", "--lease-id", lease)
        self.assertEqual(self.run_cli(sidecar, *mine, "lease", "release", "--lease-id", lease, code=1)["code"], "NOT_FOUND")
        held = subprocess.run([BINARY, "--endpoint", f"http://localhost:{sidecar.port}", *mine, "lease", "hold", "--object-id", "z", "--", "sh", "-c",
                               "exit 4"], timeout=60)
        self.assertEqual(held.returncode, 4)
        for arguments, code in (((), "UNAUTHENTICATED"), (("--token-file", self.path("wrong")), "UNAUTHENTICATED"),
                                ((*mine, "--service-id", "cli-client"), "PERMISSION_DENIED")):
            error = self.run_cli(sidecar, *arguments, "lease", "create", "--object-id", "x", code=1)
            self.assertEqual(error["code"], code)


class Ephemeral(unittest.TestCase):
    def programs(self, name, before):
        """PostgreSQL's, with something that initdb does before."""
        programs = Path(WORK) / name
        programs.mkdir()
        for program in Path(cluster.bindir).iterdir():
            (programs / program.name).symlink_to(program)
        (programs / "initdb").unlink()
        (programs / "initdb").write_text(f'#!/bin/sh\n{before}\nexec {cluster.bindir}/initdb "$@"\n')
        (programs / "initdb").chmod(0o755)
        os.chmod(WORK, 0o755)
        return str(programs)

    def test_ended_while_it_starts(self):
        """It ends at once, and leaves nothing."""
        for number, code in ((signal.SIGTERM, 1), (signal.SIGINT, 1), (signal.SIGKILL, -9)):
            place = Path(WORK) / f"hanging-{number}"
            place.mkdir()
            os.chmod(place, 0o777)
            programs = self.programs(f"hangs-{number}", f"touch {place}/begun; sleep 1000")
            child = subprocess.Popen([BINARY, "serve", "--ephemeral", "--pg-bindir", programs, "--listen", "127.0.0.1:0", "--admin", ""],
                                     stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(place)})
            self.addCleanup(child.kill)
            self.assertTrue(wait_until((place / "begun").exists, 20))
            child.send_signal(number)
            self.assertEqual(child.wait(20), code)
            said = child.communicate()[1]
            self.assertEqual("ended by a signal" in said, code == 1, said)
            self.assertTrue(wait_until(lambda: os.listdir(place) == ["begun"], 20), os.listdir(place))
            self.assertTrue(wait_until(lambda number=number: subprocess.run(["pgrep", "-f", f"/hangs-{number}/"], stdout=subprocess.DEVNULL).returncode, 20))

    def test_slow_start_and_sudden_end(self):
        """What takes long before the loop turns starts no timer too early, and the keeper keeps no port open."""
        sidecar = Sidecar(cluster, "--ephemeral", "--pg-bindir", self.programs("slow", "sleep 5.5"), dsn="")
        self.addCleanup(sidecar.kill)
        self.assertTrue(wait_until(lambda: "PostgreSQL answers" in sidecar.log(), 60), sidecar.log())
        self.assertNotIn("took too long", sidecar.log())
        keeper, = Path(f"/proc/{sidecar.process.pid}/task/{sidecar.process.pid}/children").read_text().split()
        kept = [os.readlink(f"/proc/{keeper}/fd/{fd}") for fd in os.listdir(f"/proc/{keeper}/fd")]
        self.assertEqual([kind.split(":")[0] for kind in sorted(kept)], ["/dev/null"] * 3 + ["pipe"])
        sidecar.kill()
        with socket.socket() as client:
            self.assertRaises(ConnectionRefusedError, client.connect, ("127.0.0.1", sidecar.port))


if __name__ == "__main__":
    unittest.main()
