#!/usr/bin/python3
"""Fuzzing what strangers send: each harness of fuzz/ for a short while, FUZZ_SECONDS (5 unless told otherwise).

fuzz/run does it for longer.
"""
import os
import subprocess
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
SECONDS = os.environ.get("FUZZ_SECONDS", "5")


class Fuzz(unittest.TestCase):
    def fuzz(self, name):
        done = subprocess.run([os.path.join(HERE, "fuzz", "run"), name, SECONDS], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertRegex(done.stdout, r": [1-9][0-9]{3,}\n$")
        print("\n" + done.stdout, end="", flush=True)

    def test_transport(self):
        self.fuzz("transport")

    def test_http2(self):
        self.fuzz("http2")

    def test_executors(self):
        self.fuzz("executors")

    def test_answers(self):
        self.fuzz("answers")


if __name__ == "__main__":
    unittest.main()
