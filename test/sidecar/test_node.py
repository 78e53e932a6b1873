#!/usr/bin/python3
"""A client of another make: Node's @grpc/grpc-js, which npm installs into a temporary directory."""
import json
import os
import shutil
import subprocess
import unittest

from harness import HERE, SOURCES, WORK, Sidecar, start_cluster, until_serving


@unittest.skipUnless(shutil.which("node") and shutil.which("npm"), "Node is not installed")
class NodeTest(unittest.TestCase):
    def test_both_services(self):
        modules = os.path.join(WORK, "node")
        os.makedirs(modules)
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", modules,
                        "@grpc/grpc-js@1", "@grpc/proto-loader@0.7"], check=True, cwd=modules)
        cluster = start_cluster(**{"garbagetruck.max_workers": "0", "garbagetruck.max_leases_per_service": "20"})
        self.addCleanup(cluster.close)
        cluster.tool("psql", "-U", "app", "-d", "postgres", "-c", "SELECT gt_handler_create('node', 'queue')")
        tokens = os.path.join(WORK, "tokens")
        with open(tokens, "w") as file:
            file.write("secret node\n")
        sidecars = [until_serving(Sidecar(cluster)), until_serving(Sidecar(cluster, "--token-file", tokens)),
                    Sidecar(cluster, dsn="host=/nowhere")]
        for sidecar in sidecars:
            self.addCleanup(sidecar.stop)
        done = subprocess.run(["node", os.path.join(HERE, "node_client.mjs"), *(s.address for s in sidecars),
                               os.path.join(SOURCES, "proto"), modules], capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        said = {line[:line.index(": ")]: json.loads(line[line.index(": ") + 2:]) for line in done.stdout.splitlines()}
        self.assertEqual(said, {
            "create": "OK", "get": [True, "node ü", "CACHE_ENTRY", {"a": "b"}], "renew": "OK", "wrong": "PERMISSION_DENIED",
            "list": 1, "release": "OK", "again": "NOT_FOUND", "unknown": "NOT_FOUND", "bad": "INVALID_ARGUMENT",
            "health": False, "check": "SERVING", "grant": ["OK", True], "taken": "ALREADY_EXISTS",
            "batch": ["grant", "22023"], "beats": [[1, "RENEWED"], [2, "RENEWED"], [3, "RENEWED"]], "count": 1,
            "watch": "node v1", "large": "RESOURCE_EXHAUSTED",
            "metrics": ["OK", True], "renew_batch": ["RENEWED", "NOT_FOUND"], "update": "OK",
            "shown": ['{"n": 1}', '{"half": true}', 60], "listed": ["held"], "fence": [True, False],
            "extend": True, "being cleaned": ["ABORTED", "ABORTED"], "nack": [True, False], "ack": [True, False],
            "redrive": 1, "pause": ["OK", "OK"], "forecast": 1, "checks": True,
            "expired": ["FAILED_PRECONDITION"] * 2, "denied": ["PERMISSION_DENIED"] * 2, "exists": ["ALREADY_EXISTS"] * 2,
            "not found": ["NOT_FOUND"] * 2, "invalid": ["INVALID_ARGUMENT"] * 2, "exhausted": ["RESOURCE_EXHAUSTED"] * 2,
            "patience": ["DEADLINE_EXCEEDED"], "unimplemented": "UNIMPLEMENTED", "no token": ["UNAUTHENTICATED"] * 2,
            "token": ["OK"] * 2, "away": ["UNAVAILABLE"] * 2})


if __name__ == "__main__":
    unittest.main()
