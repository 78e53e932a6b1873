"""What an example's heartbeat says when the network is cut, when nobody answers, when its process is frozen or forks; and
whether one connection over which nothing comes any more costs it the lease, which it does if a try has no limit of its own.

A holder is a program made of an example's code and LOOP: it takes an exclusive lease through a proxy of its own, and says on
its standard output, with CLOCK_BOOTTIME, each step that it makes while it believes that it holds the lease, and when it is told
that it is lost. Meanwhile a rival tries to take the lease, directly. What counts is the order: nothing is done, and the loss is
told, before the rival sends the request by which it gets it. Owned by the test that uses it; nothing outlives close().
"""
import json
import os
import signal
import subprocess
import sys
import threading
import time

import psycopg2

HERE = os.path.dirname(os.path.abspath(__file__))
LIMIT = 60
KINDS = ("cut", "killed", "frozen", "fork", "silent")


def seconds(kind):
    """How long a lease lives. Of the silent connection longer: there is a try on a new one, which must have time on a busy machine."""
    return 9 if kind == "silent" else 3


# The example defines clock(), and before this there is held() and take(lost).
LOOP = '''
import json as _json, os as _os, sys as _sys, time as _time

def say(what, at=None):
    _os.write(1, (_json.dumps([clock() if at is None else at, what]) + "\\n").encode())

held = take(lambda reason: say("told " + reason))
say("holds")
if _sys.argv[1] == "fork" and _os.fork() == 0:
    say("child holds" if held() else "child does not")
    _os._exit(0)
while True:
    at = clock()            # frozen after this, the step does not count; before it, held() has to know
    if held():
        say("step", at)
    _time.sleep(0.005)
'''


def clock():
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Proxy:
    def __init__(self, host, port):
        self.process = subprocess.Popen([sys.executable, os.path.join(HERE, "proxy.py"), host, str(port)],
                                        stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class Holder:
    def __init__(self, kind, code, host, port, directory, environment):
        self.kind, self.said = kind, []
        self.proxy = Proxy(host, port)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code.replace("@PORT@", str(self.proxy.port)).replace("@NAME@", kind)
             .replace("@SECONDS@", str(seconds(kind))) + LOOP, kind],
            cwd=directory, env=environment, stdout=subprocess.PIPE, text=True)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            self.said.append(json.loads(line))

    def times(self, what):
        return [at for at, said in list(self.said) if said.startswith(what)]

    def until(self, what, count=1):
        end = time.monotonic() + LIMIT
        while len(self.times(what)) < count:
            if time.monotonic() > end or (self.process.poll() is not None and not self.reader.is_alive()):
                raise AssertionError(f"{self.kind}: did not say {what!r}: {self.said[-5:]}")
            time.sleep(0.02)

    def close(self):
        self.process.kill()
        self.process.wait()
        self.reader.join()
        self.process.stdout.close()
        self.proxy.close()


def rival_takes(dsn, object_id, object_type):
    """When the request was sent by which the rival got the lease."""
    request = json.dumps([{"object_id": object_id, "object_type": object_type, "exclusive": True, "service_id": "rival"}])
    end = time.monotonic() + LIMIT
    with psycopg2.connect(dsn) as link:
        link.autocommit = True
        while time.monotonic() < end:
            sent = clock()
            with link.cursor() as cursor:
                cursor.execute("SELECT sqlstate FROM gt_lease_grant_each(%s)", (request,))
                if cursor.fetchone()[0] == "00000":
                    return sent
            time.sleep(0.01)
    raise AssertionError(f"the lease on {object_id} never became free")


def harm(holder):
    """What happens to it, after some renewals: it has lived for longer than its lease by then."""
    time.sleep(4)
    if holder.kind == "cut":
        os.kill(holder.proxy.process.pid, signal.SIGSTOP)
    elif holder.kind == "killed":
        holder.proxy.close()
    elif holder.kind == "frozen":
        os.kill(holder.process.pid, signal.SIGSTOP)
    elif holder.kind == "silent":
        os.kill(holder.proxy.process.pid, signal.SIGUSR1)


def outlives(holder, since):
    """After a whole life of its lease it holds it still: so it was renewed, on a new connection."""
    end = time.monotonic() + LIMIT
    while holder.times("step")[-1] < since + seconds(holder.kind):
        if holder.times("told"):
            return "lost the lease with one connection, though new ones worked"
        if time.monotonic() > end:
            return "did nothing any more"
        time.sleep(0.05)
    return None


def judge(holder, dsn, object_type):
    """What is wrong, or None. object_type: of the lease, whose object is named by the kind of harm."""
    harm(holder)
    if holder.kind == "fork":
        holder.until("child")
        return "the forked child believes that it holds the lease" if holder.times("child holds") else None
    if holder.kind == "silent":
        return outlives(holder, clock())
    taken = rival_takes(dsn, holder.kind, object_type)
    if holder.kind == "frozen":
        time.sleep(3)                   # two lives of the lease in all
        os.kill(holder.process.pid, signal.SIGCONT)
    holder.until("told")
    if holder.kind == "cut":
        os.kill(holder.proxy.process.pid, signal.SIGCONT)       # what was on its way comes after all
    time.sleep(0.5)                     # and does not believe it again
    if max(holder.times("step")) >= taken:
        return f"worked {max(holder.times('step')) - taken:.3f} s after somebody else had the lease"
    if holder.kind != "frozen" and holder.times("told")[0] >= taken:
        return f"was told {holder.times('told')[0] - taken:.3f} s after somebody else had the lease"
    return None


def try_all(code, host, port, dsn, object_type, directory, environment=None):
    """{kind of harm: what is wrong with it, or None}. code: the example, with @PORT@ for the port of the proxy, @NAME@ for the
    object's name and @SECONDS@ for the lease's duration; after it take(lost) makes the lease, and returns held()."""
    holders = [Holder(kind, code, host, port, directory, environment) for kind in KINDS]
    wrong = {}

    def one(holder):
        try:
            holder.until("step", 10)
            wrong[holder.kind] = judge(holder, dsn, object_type)
        except AssertionError as problem:
            wrong[holder.kind] = str(problem)

    try:
        threads = [threading.Thread(target=one, args=(holder,)) for holder in holders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        for holder in holders:
            holder.close()
    return wrong
