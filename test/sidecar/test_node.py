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
        cluster = start_cluster()
        self.addCleanup(cluster.close)
        cluster.tool("psql", "-U", "app", "-d", "postgres", "-c", "SELECT gt_handler_create('node', 'queue')")
        sidecar = until_serving(Sidecar(cluster))
        self.addCleanup(sidecar.stop)
        done = subprocess.run(["node", os.path.join(HERE, "node_client.mjs"), sidecar.address,
                               os.path.join(SOURCES, "proto"), modules], capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        said = {line.split(" ", 1)[0]: json.loads(line.split(" ", 1)[1]) for line in done.stdout.splitlines()}
        self.assertEqual(said, {
            "create": "OK", "get": [True, "node ü", "CACHE_ENTRY", {"a": "b"}], "renew": "OK", "wrong": "PERMISSION_DENIED",
            "list": 1, "release": "OK", "again": "NOT_FOUND", "unknown": "NOT_FOUND", "bad": "INVALID_ARGUMENT",
            "health": True, "check": "SERVING", "grant": ["OK", True], "taken": "ALREADY_EXISTS",
            "batch": ["grant", "22023"], "beats": [[1, "RENEWED"], [2, "RENEWED"], [3, "RENEWED"]], "count": 1,
            "watch": "node v1", "large": "RESOURCE_EXHAUSTED"})


if __name__ == "__main__":
    unittest.main()
