"""Half an hour of honest clients beside clients that misbehave in every way we know of.

    test/sidecar/run soak [--minutes N] [--only KIND]...        (make sidecar-soak MINUTES=30)

Two sidecars on one private server, one of them with TLS.  Honest clients (honest.py) create, renew, keep alive, release,
watch, claim and acknowledge all the time, and two `lease hold` take turns.  In every second window misbehaving clients
(rude.py) and cleanup targets (targets.py) are beside them, at a lower priority, so that what is measured is what the sidecar
lets them take and not who gets the processors; at its end they are killed.  So what is alone and what is beside is
measured within one run.  The bars:

    - no honest call fails, and the 99th percentile of each kind is beside at most three times that alone;
    - what is owed arrives (account.py): each cleanup at least once, SQL exactly once, none early, none of what was kept or
      renewed, none left behind; and on time: one target that hangs delays nobody else's;
    - resident memory, descriptors and threads do not grow from the first third of the run to the last, in windows alone
      (what stays) and beside (what they can take);
    - two holders never run at once; the sidecars end in order at SIGTERM.

It wants a machine of its own: where others compute, the ratios are theirs.

--only KIND limits who misbehaves to some kinds (the functions of rude.py; `targets`).  The last line is "N passed, N failed".
"""
import argparse
import collections
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from harness import BINARY, WORK, Sidecar, start_cluster, wait_until  # noqa: E402
from cluster import query  # noqa: E402
import socket  # noqa: E402
from account import Lease, Thing, judge  # noqa: E402

RATIO = 3.0             # of the 99th percentile beside to that alone
LEAST_MS = 10.0         # a percentile below that is none of anybody's business
FEW = 300               # calls of which the last hundredth says nothing
LATE = 1.0              # seconds by which the first attempt may be later than alone: whatever hangs, on the same host too
GROWTH, GROWTH_KB = 1.15, 8 * 1024
SETTLE = 3.0            # seconds after a change of windows that count for neither
KINDS = ("http", "file", "sql", "queue", "watch")
# What takes long in the database, to look into where a bar is missed.
SLOW = """SELECT coalesce(wait_event_type || '/' || wait_event, 'runs'), left(query, 150) FROM pg_stat_activity
    WHERE state <> 'idle' AND now() - query_start > interval '1 s' AND backend_type = 'client backend'"""
now = time.monotonic


def percentile(values, share):
    values = sorted(values)
    return values[min(int(len(values) * share), len(values) - 1)]


class Bars:
    def __init__(self):
        self.passed = self.failed = 0

    def check(self, good, what):
        self.passed, self.failed = self.passed + bool(good), self.failed + (not good)
        print(f"{'ok' if good else 'not ok'} - {what}", flush=True)


def path(name):
    return os.path.join(WORK, name)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def certificates():
    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=WORK, check=True, capture_output=True)
    with open(path("names"), "w") as file:
        file.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority", "-days", "2")
    openssl("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "server.pem", "-days", "2",
            "-extfile", "names")


def prepare_database(cluster, target):
    """Handlers of each kind; those that are consumed by clients, too."""
    link = cluster.connect(name="soak")
    for handler in ("http_endpoint", "grpc_endpoint"):
        query(link, "SELECT gt_handler_grant(%s, 'app', 'claim')", (handler,))
    query(link, "CREATE TABLE public.soak_cleaned (object_id text, at timestamptz)")
    query(link, "GRANT INSERT ON public.soak_cleaned TO app")
    app = cluster.connect(user="app", name="soak")
    for name, kind, command in (("soak_http", "http", f"{target}/soak/{{object_id}}"), ("soak_file", "file", "{object_id}"),
                                ("soak_sql", "sql", "INSERT INTO public.soak_cleaned SELECT $1, public.gt_clock()"),
                                ("soak_queue", "queue", None), ("soak_watch", "queue", None), ("rude_queue", "queue", None)):
        query(app, "SELECT gt_handler_create(%s, %s, %s, retry_delay => '1 second')", (name, kind, command))
    app.close()
    return link


def come_last(pid):
    """The scheduler may share by sessions, to which nice means nothing."""
    try:
        with open("/proc/self/autogroup") as ours, open(f"/proc/{pid}/autogroup", "w") as theirs:
            theirs.write(str(min(int(ours.read().split()[-1]) + 10, 19)))
    except OSError:
        pass


class Watched:
    """A sidecar, and what it holds: sampled every second, each with the window in which it was."""

    def __init__(self, name, sidecar):
        self.name, self.sidecar, self.samples = name, sidecar, []

    def sample(self, window, settled):
        directory = f"/proc/{self.sidecar.process.pid}"
        with open(directory + "/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        with open(directory + "/schedstat") as stat:
            waited = int(stat.read().split()[1]) / 1e9
        self.samples.append((now(), window, settled, self.sidecar.rss_kb(), len(os.listdir(directory + "/fd")), int(fields[17]), cpu, waited))

    def column(self, n, beside, third):
        """Of the first (0) or last (2) third of the run. It begins when everybody has been there once."""
        known = [s for s in self.samples if s[1] >= 2]
        begin, end = known[0][0], known[-1][0]
        return [s[n] for s in known if s[1] % 2 == beside and s[2]
                and min(int(3 * (s[0] - begin) / (end - begin)), 2) == third]

    def share(self, n, beside):
        """Of the time: how long it ran (6), how long it waited for a processor (7)."""
        used = [(b[n] - a[n], b[0] - a[0]) for a, b in zip(self.samples, self.samples[1:]) if a[1] == b[1] and a[1] % 2 == beside]
        return sum(u for u, _ in used) / max(sum(t for _, t in used), 0.001)


class Holders:
    """Two `lease hold` that take turns for one lock, each on a sidecar of its own."""

    def __init__(self, sidecars):
        self.stopping, self.statuses, self.threads = False, [], []
        script = f'echo "+ $$ $(date +%s.%N)" >> {path("turns")}; sleep 0.7; echo "- $$ $(date +%s.%N)" >> {path("turns")}'
        for n, (sidecar, how) in enumerate(zip(sidecars, (["--endpoint", "http://{}"], ["--tls-ca", path("ca.pem"), "--endpoint", "https://{}"]))):
            with open(path(f"token{n}"), "w") as file:
                file.write("t-hold\n")
            command = [BINARY, *(word.format(sidecar.address) for word in how), "--token-file", path(f"token{n}"), "lease", "hold",
                       "--object-id", "the-lock", "--exclusive", "--duration", "9s", "--wait", "60s", "--", "sh", "-c", script]
            self.threads.append(threading.Thread(target=self.turns, args=(command,)))
            self.threads[-1].start()

    def turns(self, command):
        while not self.stopping:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            self.statuses.append((done.returncode, done.stderr.strip()))
            time.sleep(random.uniform(0.5, 2))      # who comes back at once may always be the first

    def stop(self):
        self.stopping = True
        for thread in self.threads:
            thread.join()

    def overlaps(self):
        """Turns that began before the one before had ended."""
        with open(path("turns")) as file:
            turns = [line.split()[:2] for line in file]
        return sum(1 for begun, ended in zip(turns[::2], turns[1::2]) if (begun[0], ended[0]) != ("+", "-") or begun[1] != ended[1])


class Soak:
    def __init__(self, options):
        self.options, self.processes, self.window, self.windows = options, [], 0, []
        self.length = max(12.0, min(90.0, options.minutes * 60 / 20))
        self.taken, self.loads, self.slow, self.tries = collections.Counter(), [], [], {}
        self.honest_port, self.rude_port = free_port(), free_port()

    def start(self):
        certificates()
        self.cluster = start_cluster()
        self.target = f"http://127.0.0.1:{self.honest_port}"
        self.link = prepare_database(self.cluster, self.target)
        self.clock = self.offset()
        with open(path("tokens"), "w") as file:
            file.write("t-one one claim=soak_queue,soak_watch\nt-two two claim=soak_queue,soak_watch\nt-hold hold\nt-rude rude claim=rude_queue\n")
        os.mkdir(path("files"))
        common = ("--token-file", path("tokens"), "--file-root", path("files"), "--allow-target", "127.0.0.0/8")
        self.admin_port = free_port()
        plain = Sidecar(self.cluster, *common, "--admin", f"127.0.0.1:{self.admin_port}", executors="http,grpc,file")
        secure = Sidecar(self.cluster, *common, "--tls-cert", path("server.pem"), "--tls-key", path("server.key"), executors="http,grpc,file")
        self.sidecars = [Watched("plain", plain), Watched("TLS", secure)]
        for one in (plain, secure):
            if not wait_until(lambda: "PostgreSQL answers" in one.log() or self.sessions() >= 12, 60):
                raise RuntimeError("the sidecar did not find its database:\n" + one.log())
        self.run("targets.py", "honest", str(self.honest_port), path("asked"), says="listening")
        config = {
            "clients": [{"name": "one", "token": "t-one", "address": plain.address, "tls_ca": ""},
                        {"name": "two", "token": "t-two", "address": secure.address, "tls_ca": path("ca.pem")}],
            "ports": [plain.port, secure.port, self.admin_port], "target": self.target, "rude_target": self.rude_port,
            "file_root": path("files"), "threads": 48, "lives_per_second": self.options.rate, "seed": self.options.seed,
            "only": self.options.only, "stop": path("stop"), "results": path("results")}
        with open(path("config"), "w") as file:
            json.dump(config, file)
        self.honest = self.run("honest.py", path("config"))
        self.holders = Holders([plain, secure])

    def sessions(self):
        return query(self.link, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'")[0][0]

    def offset(self):
        """What gt_clock() is ahead of CLOCK_MONOTONIC: the closest of some readings."""
        readings = []
        for _ in range(20):
            before = now()
            at = query(self.link, "SELECT extract(epoch FROM gt_clock())::float8")[0][0]
            readings.append((now() - before, at - (before + now()) / 2))
        return min(readings)[1]

    def run(self, script, *arguments, says=None, rude=False):
        """The rude come after all others for the processors: by nice, and in a session of their own, for a scheduler that shares
        by sessions."""
        log = path("output-" + script + "-" + arguments[0].replace("/", "_"))
        with open(log, "a") as out:
            process = subprocess.Popen(["nice", "-n", "10" if rude else "0", sys.executable, os.path.join(HERE, script), *arguments],
                                       stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, "TMPDIR": WORK},
                                       start_new_session=rude)
        if rude:
            come_last(process.pid)
        self.processes.append(process)
        if says and not self.says(log, says):
            raise RuntimeError(f"{script} {arguments}: {self.text(log)[-2000:]}")
        return process

    @staticmethod
    def text(name):
        with open(name) as file:
            return file.read()

    def says(self, log, what, limit=60):
        return wait_until(lambda: what in self.text(log), limit)

    # --- the windows

    def sampler(self):
        link = self.cluster.connect(name="soak")
        while self.window is not None:
            window, at = self.window, now()
            for wait, text in query(link, SLOW):
                self.slow.append(f"{at - self.windows[0][0]:.0f} s: {wait}: {' '.join(text.split())}")
            for one in self.sidecars:
                if one.sidecar.process.poll() is not None:
                    return
                one.sample(window, bool(self.windows) and at - self.windows[-1][0] > SETTLE)
            with open("/proc/loadavg") as file:
                self.loads.append(float(file.read().split()[0]))
            time.sleep(max(at + 1 - now(), 0.1))

    def let_in(self):
        groups = [("rude.py", group) for group in ("strangers", "callers")]
        rude = [self.run(script, group, path("config"), path("taken-" + group), rude=True) for script, group in groups]
        if not self.options.only or "targets" in self.options.only:
            rude.append(self.run("targets.py", "rude", str(self.rude_port), self.target, rude=True))
        return rude

    def throw_out(self, rude):
        for process in rude:
            process.kill()
            process.wait()
        for group in ("strangers", "callers"):
            if os.path.exists(path("taken-" + group)):
                self.taken.update(json.loads(self.text(path("taken-" + group))))
                os.unlink(path("taken-" + group))

    def soak(self):
        time.sleep(5)               # whatever is done only once
        threading.Thread(target=self.sampler, daemon=True).start()
        end = now() + self.options.minutes * 60
        while now() < end - self.length / 2 or len(self.windows) % 2:
            beside = len(self.windows) % 2 == 1
            self.windows.append((now(), beside))
            self.window = len(self.windows) - 1
            rude = self.let_in() if beside else []
            time.sleep(self.length)
            self.throw_out(rude)
            for one in self.sidecars:
                if one.sidecar.process.poll() is not None:
                    raise RuntimeError(f"the sidecar ended, status {one.sidecar.process.returncode}:\n" + one.sidecar.log()[-2000:])
            if self.honest.poll() is not None:
                raise RuntimeError("the honest ended:\n" + self.text(path("output-honest.py-" + path("config").replace("/", "_")))[-2000:])
            print(f"# {now() - self.windows[0][0]:5.0f} s, {'beside' if beside else 'alone '} "
                  + ", ".join(f"{one.name}: {one.samples[-1][3] // 1024} MB, {one.samples[-1][4]} descriptors" for one in self.sidecars)
                  + f", load {self.loads[-1]}", flush=True)
        self.windows.append((now(), False))
        self.window = None

    # --- the end

    def drain(self):
        """All that was begun comes to its end, and what is due is cleaned."""
        log = path("output-honest.py-" + path("config").replace("/", "_"))
        self.holders.stop()
        self.honest.send_signal(signal.SIGTERM)
        self.says(log, "ended", 180)
        self.seen = []

        def nothing_left():
            self.left = query(self.link, "SELECT object_id, cleanup_id, handler, state, attempts, error, due_at::text, claimed_until::text FROM gt_garbage"
                                         " WHERE handler LIKE 'soak%%' OR (handler = 'http_endpoint' AND object_id LIKE 'endpoint-%%') LIMIT 20")
            self.seen += [row for row in self.left if row not in self.seen]
            return not self.left

        if not wait_until(nothing_left, 90):        # three times what a claim of the executors lasts
            self.seen = [row for row in self.seen if row[0] in {one[0] for one in self.left}]
        time.sleep(2)               # should something come that should not
        open(path("stop"), "w").close()
        self.says(log, "written", 60)
        return json.loads(self.text(path("results")))

    def facts(self, results):
        things = {one["id"]: Thing(**{**one, "leases": [Lease(**lease) for lease in one["leases"]]}) for one in results["things"]}
        attempts, done = [tuple(one) for one in results["attempts"]], collections.Counter(results["acked"])
        for line in self.text(path("asked")).splitlines():
            at, where, status, attempt = line.split()
            name = where.rsplit("/", 1)[1]
            self.tries.setdefault(name, attempt)
            attempts.append((float(at), name))
            done[name] += status == "200"
        for name, at in query(self.link, "SELECT object_id, extract(epoch FROM at)::float8 FROM soak_cleaned"):
            attempts.append((at - self.clock, name))
            done[name] += 1
        there = set(os.listdir(path("files")))
        for thing in things.values():
            if thing.kind == "file":
                done[thing.id] += thing.id not in there
        return things, attempts, +done

    def side(self, at):
        """Of a time: 0 alone, 1 beside, None neither."""
        for (begin, beside), (end, _) in zip(self.windows, self.windows[1:]):
            if begin + SETTLE <= at < end - 0.5:
                return int(beside)
        return None

    def split(self, rows):
        """(kind, time, seconds) by kind: alone, beside."""
        sides = collections.defaultdict(lambda: ([], []))
        for kind, at, took in rows:
            side = self.side(at)
            if side is not None:
                sides[kind][side].append(took * 1000)
        return sides

    def judge_calls(self, results, bars):
        print(f"\n{'call':10}{'alone':>8}{'p50 ms':>9}{'p99 ms':>9}{'beside':>9}{'p50 ms':>9}{'p99 ms':>9}{'ratio':>7}")
        for kind, (alone, beside) in sorted(self.split(results["calls"]).items()):
            if not alone or not beside:
                bars.check(False, f"{kind}: called in both windows")
                continue
            a, b = percentile(alone, 0.99), percentile(beside, 0.99)
            print(f"{kind:10}{len(alone):>8}{percentile(alone, 0.5):>9.1f}{a:>9.1f}{len(beside):>9}{percentile(beside, 0.5):>9.1f}{b:>9.1f}{b / a:>7.2f}")
            if min(len(alone), len(beside)) < FEW:
                print(f"# {kind}: too few to judge")
                continue
            bars.check(b <= RATIO * max(a, LEAST_MS), f"{kind}: p99 {b:.1f} ms beside, {a:.1f} ms alone")
        for at, kind, what in results["failed"][:20]:
            print(f"# {at - self.windows[0][0]:.1f} s {kind}: {what}")
        bars.check(not results["failed"], f"no honest call failed ({len(results['failed'])} did, of {len(results['calls'])})")

    def judge_cleanups(self, results, bars):
        things, attempts, done = self.facts(results)
        verdict = judge(things, attempts, done)
        fates = sorted({fate for _, fate in verdict.made})
        print(f"\n{'objects':10}" + "".join(f"{fate:>10}" for fate in fates))
        for kind in sorted({kind for kind, _ in verdict.made}):
            print(f"{kind:10}" + "".join(f"{verdict.made.get((kind, fate), 0):>10}" for fate in fates))
        for name in ("lost", "early", "wrong"):
            found = getattr(verdict, name)
            for one in found[:10]:
                print(f"# {name}: {one}")
            bars.check(not found, f"no cleanup {name} ({len(found)} of {sum(thing.must() for thing in things.values())} that were owed)")
        for row in self.seen[-50:] if self.left else ():
            print("# left:", *row)
        bars.check(not self.left, "no garbage of the honest is left")
        print(f"# cleaned more than once: {verdict.twice}")
        for lag, kind, due, name in sorted(((lag, kind, due, name) for kind, rows in verdict.lags.items() for due, lag, name in rows), reverse=True)[:5]:
            print(f"# late: {name} {lag:.1f} s, due at {due - self.windows[0][0]:.1f} s, first seen attempt {self.tries.get(name, '?')}")
        late = self.split([(kind, due, lag) for kind, rows in verdict.lags.items() for due, lag, _ in rows])
        print(f"\n{'lag of':10}{'alone':>8}{'p50 ms':>9}{'p99 ms':>9}{'beside':>9}{'p50 ms':>9}{'p99 ms':>9}{'worst s':>9}")
        for kind, (alone, beside) in sorted(late.items()):
            a, b = percentile(alone, 0.99), percentile(beside, 0.99)
            print(f"{kind:10}{len(alone):>8}{percentile(alone, 0.5):>9.0f}{a:>9.0f}{len(beside):>9}{percentile(beside, 0.5):>9.0f}{b:>9.0f}{max(alone + beside) / 1000:>9.1f}")
            bars.check(b <= a + LATE * 1000, f"{kind}: cleanups begin {b:.0f} ms after they are due beside, {a:.0f} ms alone")

    def judge_memory(self, bars):
        print(f"\n{'holds':10}{'':8}{'first third':>20}{'last third':>20}")
        for one in self.sidecars:
            for beside in (False, True):
                for what, n, least in (("kB", 3, GROWTH_KB), ("descr.", 4, 40), ("threads", 5, 4)):
                    first, last = one.column(n, beside, 0), one.column(n, beside, 2)
                    if not first or not last:
                        bars.check(False, f"{one.name}: sampled in both thirds")
                        continue
                    f, l = (max(first), max(last)) if beside else (statistics.median(first), statistics.median(last))
                    print(f"{one.name:6}{what:8}{'beside' if beside else 'alone':>8}{f:>16.0f}{l:>20.0f}")
                    bars.check(l <= f * GROWTH + least, f"{one.name}: {what} {'at most, beside' if beside else 'alone'} {f:.0f}, then {l:.0f}")

        for one in self.sidecars:
            print(f"# {one.name} ran {one.share(6, False):.0%} of the time alone and {one.share(6, True):.0%} beside,"
                  f" and waited for a processor {one.share(7, False):.0%} and {one.share(7, True):.0%}")

    def judge_rude(self, bars):
        print("\n# taken by those who misbehave (and how often they were shown the door):")
        for name, count in sorted(self.taken.items()):
            if not name.endswith(" refused"):
                print(f"#   {name:34}{count:>10}{self.taken[name + ' refused']:>8}")
        # what each kind is: the functions of rude.py
        kinds = re.findall(r"^@kind\(.*\)\ndef (\w+)", self.text(os.path.join(HERE, "rude.py")), re.M)
        wanted = [name for name in kinds if not self.options.only or name in self.options.only]
        idle = [name for name in wanted if not self.taken[name] and not self.taken[name + " refused"]]
        bars.check(not idle, f"each of {len(wanted)} kinds of misbehaviour was there" + (": not " + ", ".join(idle) if idle else ""))

    def judge_holders(self, bars):
        bad = [one for one in self.holders.statuses if one[0] != 0]
        for one in bad[:5]:
            print("# hold:", one)
        bars.check(self.holders.statuses and not bad, f"each of {len(self.holders.statuses)} holds got its turn")
        bars.check(not self.holders.overlaps(), "and none while another had it")

    def judge_end(self, bars):
        trouble = query(self.link, "SELECT * FROM gt_check()")
        for row in trouble[:10]:
            print("# gt_check:", row)
        bars.check(not trouble, "gt_check finds nothing")
        for one in self.sidecars:
            bars.check(one.sidecar.process.poll() is None and one.sidecar.stop() == 0, f"{one.name}: ends in order")
            said = collections.Counter(re.sub(r"[0-9]+", "N", line[line.find(" "):])[:150] for line in one.sidecar.log().splitlines())
            worse = [(text, count) for text, count in said.most_common() if not text.strip().startswith("info")]
            print(f"# {one.name} said: " + "; ".join(f"{text.strip()} ({count})" for text, count in said.most_common(6) + worse[:20]))
            bars.check("ERROR: AddressSanitizer" not in one.sidecar.log(), f"{one.name}: no report of a sanitizer")

    def judge(self, results, bars):
        self.judge_calls(results, bars)
        self.judge_cleanups(results, bars)
        self.judge_memory(bars)
        self.judge_rude(bars)
        self.judge_holders(bars)
        self.judge_end(bars)

    def close(self):
        self.window = None
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        if hasattr(self, "holders"):
            self.holders.stop()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--rate", type=float, default=20, help="honest objects a second")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))     # and so leaves nothing running
    bars, soak = Bars(), Soak(options)
    print(f"# {options.minutes:g} minutes in windows of {soak.length:g} s, {os.cpu_count()} processors, seed {options.seed}", flush=True)
    try:
        soak.start()
        soak.soak()
        soak.judge(soak.drain(), bars)
        for line in soak.slow[:30]:
            print("# slow in the database at", line)
        print(f"# load of the machine: {min(soak.loads)} to {max(soak.loads)}, median {statistics.median(soak.loads):.1f}")
    except Exception as error:              # what it had to say is in the last line all the same
        import traceback
        traceback.print_exc()
        bars.check(False, f"the soak came to its end: {error!r}")
    finally:
        soak.close()
    print(f"{bars.passed} passed, {bars.failed} failed")
    sys.exit(0 if bars.passed and not bars.failed else 1)


main()
