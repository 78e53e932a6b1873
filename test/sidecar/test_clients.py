#!/usr/bin/python3
"""Clients of other makes: grpcio, grpc-js, grpc-go and grpc-java. Each over TCP and over a unix socket, while sidecars restart,
and through nginx and HAProxy as docker/ configures them.

Not part of the default (`make sidecar-clients`): they come by their own package managers, npm, go and Maven.
"""
import glob
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
import unittest

from harness import HERE, SOURCES, TOP, WORK, Sidecar, start_cluster, until_serving, wait_until

CLIENTS = os.path.join(HERE, "clients")
PROTO = os.path.join(SOURCES, "proto")
cluster = None
commands = {}

EXPECTED = {
    "small service": [True, True, True, "client ü", "b", "OK", "NOT_FOUND"], "create": [True, 60], "get": [True, '{"n": 1}', True],
    "renew": ["RENEWED", "NOT_FOUND"], "beats": [[1, "RENEWED"], [2, "RENEWED"], [3, "RENEWED"], "OK"],
    "taken": ["ALREADY_EXISTS", "GT005", True, True], "field": ["INVALID_ARGUMENT", "object_id"], "text": True, "release": 1,
    "watch": [True, '{"n": 1}', "OK"], "deadlines": ["DEADLINE_EXCEEDED"] * 2, "cancel": "CANCELLED", "large": "RESOURCE_EXHAUSTED",
    "pages": [80, True], "batch": 80, "many": 2000, "streams": 700, "health": "SERVING",
    "token": ["UNAUTHENTICATED", "OK", "OK", "PERMISSION_DENIED"], "away": "UNAVAILABLE"}


def setUpModule():
    global cluster
    cluster = start_cluster(**{"garbagetruck.history": "off"})
    commands.update(python=build_python(), node=build_node(), go=build_go(), java=build_java())


def tearDownModule():
    cluster.close()


def run(*command, **more):
    done = subprocess.run(command, capture_output=True, text=True, **more)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def protoc(include, *arguments):
    run("protoc", "-I", include, "-I", "/usr/include", *arguments)


def directory(name):
    path = os.path.join(WORK, name)
    os.mkdir(path)
    return path


# ---- building them: what each starts with, and where ----

def build_python():
    stubs = os.path.join(WORK, "stubs")
    protoc(CLIENTS, "--python_out", stubs, "status.proto")
    protoc(os.path.join(PROTO, "google/rpc"), "--python_out", stubs, "error_details.proto")
    return ["env", "PYTHONPATH=" + stubs, "/usr/bin/python3", os.path.join(CLIENTS, "client.py")], WORK


def build_node():
    home = directory("node")
    run("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", home, "@grpc/grpc-js@1", "@grpc/proto-loader@0.8", cwd=home)
    shutil.copytree(PROTO, os.path.join(home, "protos"))
    shutil.copy(os.path.join(CLIENTS, "status.proto"), os.path.join(home, "protos"))
    return ["node", os.path.join(CLIENTS, "client.mjs")], home


def build_go():
    home = os.path.join(WORK, "go")
    shutil.copytree(os.path.join(CLIENTS, "go"), home)
    plugins = ["google.golang.org/protobuf/cmd/protoc-gen-go", "google.golang.org/grpc/cmd/protoc-gen-go-grpc"]
    run("go", "build", "-o", home + "/", *plugins, cwd=home)
    options = ["--plugin=" + os.path.join(home, os.path.basename(plugin)) for plugin in plugins]
    for language in ("go", "go-grpc"):
        options += [f"--{language}_out={home}", f"--{language}_opt=module=example.com/app",
                    f"--{language}_opt=Mgarbagetruck_v1.proto=example.com/app/gt", f"--{language}_opt=Mdistributed_gc.proto=example.com/app/gc"]
    protoc(PROTO, *options, "garbagetruck_v1.proto", "distributed_gc.proto")
    run("go", "build", "-o", "client", ".", cwd=home)
    return [os.path.join(home, "client")], home


def build_java():
    home = directory("java")
    run("mvn", "-q", "-B", "-f", os.path.join(CLIENTS, "java/pom.xml"), "dependency:copy-dependencies", "-DoutputDirectory=" + home + "/lib")
    os.mkdir(home + "/classes")
    protoc(PROTO, "--java_out", home, "garbagetruck_v1.proto", "distributed_gc.proto", "health.proto")
    sources = glob.glob(home + "/**/*.java", recursive=True)
    run("javac", "-nowarn", "-cp", home + "/lib/*", "-d", home + "/classes", os.path.join(CLIENTS, "java/Client.java"), *sources)
    return ["java", "-Xmx512m", "-cp", f"{home}/classes:{home}/lib/*", "Client"], home


# ---- running them ----

def free_ports(n):
    """Below those that connections are given by themselves: nobody takes one while its sidecar restarts."""
    taken = []
    while len(taken) < n:
        one = socket.socket()
        try:
            one.bind(("127.0.0.1", random.randrange(10000, 30000)))
            taken.append(one)
        except OSError:
            one.close()
    ports = [one.getsockname()[1] for one in taken]
    for one in taken:
        one.close()
    return ports


def handler(name):
    cluster.tool("psql", "-qX", "-d", "postgres", "-v", "ON_ERROR_STOP=1", "-c", f"SELECT gt_handler_create('{name}', 'queue')", as_role="app")


def start(listen, *options):
    return Sidecar(cluster, *options, listen=listen)


def said_by(client, name, *arguments):
    command, home = commands[client]
    handler(name)
    done = subprocess.run([*command, "check", name, *arguments], capture_output=True, text=True, timeout=180, cwd=home)
    lines = [line.split(": ", 1) for line in done.stdout.splitlines()]
    said = {line[0]: json.loads(line[1]) for line in lines if len(line) == 2}
    return said if done.returncode == 0 and said == EXPECTED else {**said, "it ends": done.returncode, "stderr": done.stderr[-3000:]}


class Load:
    """All four clients at once, from the beginning of a with block to its end."""

    def __init__(self, test, name, ready, *addresses):
        self.test = test
        self.processes = {}
        for client, (command, home) in commands.items():
            handler(f"{name} {client}")
            self.processes[client] = subprocess.Popen([*command, "load", f"{name} {client}", ready, *addresses], stdin=subprocess.PIPE,
                                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=home)

    def __enter__(self):
        try:
            for client, process in self.processes.items():
                self.test.assertEqual(process.stdout.readline(), "begun\n", client)
        except BaseException:
            self.kill()
            raise
        return self

    def kill(self):
        for process in self.processes.values():
            process.kill()
            process.communicate()

    def __exit__(self, kind, *unused):
        if kind is not None:
            self.kill()
            return
        for process in self.processes.values():
            process.stdin.close()
        for client, process in self.processes.items():
            process.stdin = None
            out, err = process.communicate(timeout=120)
            with self.test.subTest(client):
                self.test.assertEqual(process.returncode, 0, err)
                became = json.loads(out)
                print(f"# {self.test.id().split('.')[-1]}: {client}: {out.strip()}", flush=True)
                self.test.assertEqual((became["failed"], became["lost"], became["left"]), ([], 0, 0))
                self.test.assertGreater(became["calls"], 50)
                self.test.assertGreater(became["beats"], 5)
                self.test.assertGreater(became["reopened"], 0)


class Shared(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        tokens = os.path.join(WORK, "tokens")
        with open(tokens, "w") as file:
            file.write("secret client\n")
        cls.strict = until_serving(Sidecar(cluster, "--token-file", tokens))
        cls.away = Sidecar(cluster, dsn="host=/nowhere")
        cls.addClassCleanup(cls.strict.stop)
        cls.addClassCleanup(cls.away.stop)

    def check(self, client, name, address):
        with self.subTest(client, address=address):
            self.assertEqual(said_by(client, name, address, self.strict.address, self.away.address), EXPECTED)


class DirectTest(Shared):
    def test_tcp(self):
        own = until_serving(Sidecar(cluster))
        for client in commands:
            self.check(client, "tcp " + client, own.address)
        self.assertEqual(own.stop(), 0)

    def test_unix(self):
        path = os.path.join(WORK, "check.sock")
        own = start("unix:" + path)
        for client in commands:
            self.check(client, "unix " + client, "unix:" + path)
        self.check("java", "socket java", "socket:" + path)
        self.assertEqual(own.stop(), 0)


class RestartTest(unittest.TestCase):
    """Nothing fails, no lease is lost and nothing is left uncleaned, though no client repeats a call."""

    def take_over(self, own, *options):
        """The next one on the same address, as soon as the listener is free."""
        own.signal(signal.SIGTERM)

        def started():
            try:
                return start(own.address, *options)
            except RuntimeError:
                return None
        successor = wait_until(started, 60)
        self.assertTrue(successor, "there is no successor")
        self.assertEqual(own.process.wait(60), 0, own.log())    # another signal would end it at once
        return successor

    def test_two_addresses(self):
        options = ["--shutdown-delay", "500ms"]
        both = [until_serving(start(f"127.0.0.1:{port}", *options)) for port in free_ports(2)]
        with Load(self, "two", "any", *(own.address for own in both)):
            for i in (0, 1) * 3:
                self.assertEqual(both[i].stop(), 0, both[i].log())
                time.sleep(1)
                both[i] = until_serving(start(both[i].address, *options))
                # A client that was refused looks again after about a second.
                time.sleep(3)
        for own in both:
            self.assertEqual(own.stop(), 0)

    def test_one_address(self):
        options = ["--shutdown-delay", "500ms"]
        for listen in ("127.0.0.1:%d" % free_ports(1)[0], "unix:" + os.path.join(WORK, "restart.sock")):
            with self.subTest(listen):
                own = start(listen, *options)
                with Load(self, "one " + listen[:4], "ready", own.address):
                    for _ in range(4):
                        time.sleep(1)
                        own = self.take_over(own, *options)
                self.assertEqual(own.stop(), 0)

    def test_connections_that_grow_old(self):
        own = until_serving(Sidecar(cluster, "--max-connection-age", "500ms", "--max-connection-age-grace", "5s"))
        with Load(self, "old", "any", own.address):
            time.sleep(8)
        self.assertEqual(own.stop(), 0)


class ProxyTest(Shared):
    def configuration(self, name, ports):
        """As docker/ has it, but for the ports."""
        with open(os.path.join(TOP, "docker", name)) as file:
            text = file.read()
        for port, own in ports.items():
            text = re.sub(rf"\b{port}\b", str(own), text)
        return text

    def proxy(self, port, *command):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.communicate)
        self.addCleanup(process.terminate)

        def listens():
            if process.poll() is not None:
                raise AssertionError(process.stderr.read())
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return True
            except OSError:
                return False
        self.assertTrue(wait_until(listens, 20))

    def nginx(self, name, text, port):
        home = directory(name)
        with open(os.path.join(home, "site.conf"), "w") as file:
            file.write(text)
        with open(os.path.join(home, "nginx.conf"), "w") as file:
            places = "".join(f" {kind}_temp_path {home}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
            file.write(f"daemon off; pid {home}/pid; error_log {home}/log info; {'user root;' if os.geteuid() == 0 else ''}\n"
                       f"events {{ worker_connections 10000; }} http {{ access_log off;{places} include {home}/site.conf; }}\n")
        self.proxy(port, "/usr/sbin/nginx", "-p", home, "-c", os.path.join(home, "nginx.conf"))

    def restarts(self, name, front, admins, ports, *options):
        """Each of the two in turn, while all clients go through the proxy, which checks them first."""
        both = [until_serving(start(f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}", *options)) for port, admin in zip(ports, admins)]
        time.sleep(1)
        for client in commands:
            self.check(client, f"{name} {client}", f"127.0.0.1:{front}")
        with Load(self, name + " load", "any", f"127.0.0.1:{front}"):
            for i in (0, 1) * 3:
                self.assertEqual(both[i].stop(), 0, both[i].log())
                both[i] = until_serving(start(both[i].address, "--admin", f"127.0.0.1:{admins[i]}", *options))
                time.sleep(2)
        for own in both:
            self.assertEqual(own.stop(), 0)

    def test_nginx(self):
        front, *ports = free_ports(5)
        self.nginx("nginx", self.configuration("nginx.conf", {50050: front, 50051: ports[0], 50061: ports[1]}), front)
        self.restarts("nginx", front, ports[2:], ports[:2])

    def test_nginx_to_a_unix_socket(self):
        front, path = free_ports(1)[0], os.path.join(WORK, "behind.sock")
        own = start("unix:" + path)
        self.nginx("nginx-unix", self.configuration("nginx.conf", {50050: front, "127.0.0.1:50051": "unix:" + path, "127.0.0.1:50061": "unix:" + path}), front)
        self.check("go", "nginx unix", f"127.0.0.1:{front}")
        self.assertEqual(own.stop(), 0)

    def test_haproxy(self):
        front, *ports = free_ports(5)
        conf = os.path.join(WORK, "haproxy.cfg")
        with open(conf, "w") as file:
            file.write(self.configuration("haproxy.cfg", {50050: front, 50051: ports[0], 50061: ports[1], 50052: ports[2], 50062: ports[3]}))
        self.proxy(front, "/usr/sbin/haproxy", "-db", "-f", conf)
        self.restarts("haproxy", front, ports[2:], ports[:2], "--shutdown-delay", "2s")


if __name__ == "__main__":
    unittest.main()
