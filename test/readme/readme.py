"""Runs the blocks of the README and of the pages in src/doc in order, given nothing but what they say themselves.

The server has no extension, no library preloaded, and wants passwords over TCP, as one of Debian does. The section that
installs comes first (the README's first example refers to it); its build is test/server's. What a block is run as and in is
what the text before it says last: "the superuser, in `db`", "the role `name`, in `db`". ```sql is given to psql, ```conf is
added to postgresql.conf, and the server restarted; ```python and ```sh run in one empty directory, with the variables that the
text exports; the ports are others than those of the text, by the variables that it has for that. "Save this as `name`" saves
the block; one "in a terminal of its own" runs until the end. What installs is ```console and not run here: test/firsthour and
test/packaging do that. There are no other kinds.

A comment <!-- check: SELECT ... --> after a block is a question that must be answered with true, within 30 seconds.
At the end: are all functions, views, settings and metrics described, and is it true (truth.py), what does the heartbeat say when it
is cut off (holders.py), and does the consumer go on when its connection has become silent?
"""
import glob
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
sys.dont_write_bytecode = True

import psycopg2     # noqa: E402

import cluster      # noqa: E402
import holders      # noqa: E402
import truth        # noqa: E402

PART = re.compile(r"^```(?P<kind>\w*)\n(?P<text>.*?)^```$|^<!-- check: (?P<check>.*?) -->$", re.M | re.S)
WHERE = re.compile(r"(?:the superuser|the role `(\w+)`),\s+in `(\w+)`")
SECTION = re.compile(r"^(?=## )", re.M)
FIRST = "## Install it on your server"
PAGES = ["README.md"] + sorted(os.path.relpath(page, cluster.TOP) for page in glob.glob(os.path.join(cluster.TOP, "src", "doc", "*.md")))

# The end of the program of a holder: see holders.py.
TAKE = """
def take(lost):
    lease = Lease("host=127.0.0.1 port=@PORT@ dbname=app user=app password=secret", "@NAME@", "lock", seconds=@SECONDS@,
                  exclusive=True, lost=lost)
    return lambda: lease.held
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def parts(text):
    """(kind, text, line, the prose before it) of each block and check."""
    end = 0
    for m in PART.finditer(text):
        line = text.count("\n", 0, m.start()) + 1
        before, end = text[end:m.start()], m.end()
        yield ("check", m["check"], line, before) if m["check"] else (m["kind"], m["text"], line, before)


class Examples:
    def __init__(self, server, directory):
        self.server, self.directory = server, directory
        self.role = self.database = None        # until a text names them
        self.page = ""
        self.passed, self.failed = 0, 0
        self.terminals = []
        self.memory = self.shared()             # without the library; then what that takes
        endpoint, admin = free_port(), free_port()
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "GARBAGETRUCK"))}
        self.environment.update(PGPORT=str(server.port), PATH=f"{directory}/bin:{server.bindir}:{os.environ['PATH']}",
                                GARBAGETRUCK_LISTEN=f"127.0.0.1:{endpoint}", GARBAGETRUCK_ADMIN=f"127.0.0.1:{admin}",
                                GARBAGETRUCK_ENDPOINT=f"http://127.0.0.1:{endpoint}")

    def count(self, ok, what, output=""):
        self.passed += ok
        self.failed += not ok
        print(f"{'ok' if ok else 'not ok'}  {what}" + (f"\n{output}" if not ok else ""), flush=True)

    def shared(self, less="'0'"):
        link = self.server.connect()
        size, = cluster.query(link, f"SELECT (pg_size_bytes(current_setting('shared_memory_size')) - pg_size_bytes({less})) / 1024 / 1024")[0]
        link.close()
        return size

    def dsn(self):
        if self.role:
            return self.environment["DSN"]
        return f"host={self.server.home} dbname={self.database} user=postgres"

    def run(self, command, what, text=None):
        done = subprocess.run(command, input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
                              cwd=self.directory, env=self.environment)
        self.count(done.returncode == 0, what, done.stdout)

    def sql(self, text, what, before):
        self.run(["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", self.dsn()], what, text)

    def conf(self, text, what, before):
        self.server.stop()
        with open(os.path.join(self.server.data, "postgresql.conf"), "a", encoding="utf-8") as conf:
            conf.write(text)
        self.server.start()
        if "preload" in text:
            self.memory = self.shared("current_setting('garbagetruck.renewal_buffer_size')") - self.memory
        self.count(True, what)

    def python(self, text, what, before):
        saved = re.search(r"Save this as `([\w.]+)`:\s*$", before)
        if saved:
            with open(os.path.join(self.directory, saved[1]), "w", encoding="utf-8") as f:
                f.write(text)
        self.run([sys.executable, "-B", "-c", text], what)

    def sh(self, text, what, before):
        export = re.fullmatch(r"export (\w+)='([^']*)'\n", text)
        if export:
            self.environment[export[1]] = export[2]
        elif re.search(r"in a terminal of its own:\s*$", before, re.I):
            self.terminals.append(subprocess.Popen(["bash", "-c", "exec " + text if "=" not in text.split()[0] else "exec env " + text],
                                                   cwd=self.directory, env=self.environment))
            self.serving(what)
        elif text.startswith("grpcurl") and not shutil.which("grpcurl"):
            print(f"skipped  {what}: no grpcurl here")
        else:
            text = text.replace("localhost:50051", self.environment["GARBAGETRUCK_LISTEN"])
            self.run(["bash", "-euo", "pipefail", "-c", text], what)

    def serving(self, what):
        def asks():
            return subprocess.run(["garbagetruck", "health"], env=self.environment, capture_output=True).returncode == 0
        self.count(bool(cluster.wait_until(asks, 30)), what)

    def check(self, text, what, before):
        link = None
        try:
            link = psycopg2.connect(self.dsn() + f" port={self.server.port}")
            link.autocommit = True
            self.count(bool(cluster.wait_until(lambda: cluster.value(link, text), 30)), what, text)
        except psycopg2.Error as e:
            self.count(False, what, f"{text}\n{e}")
        finally:
            if link:
                link.close()

    def complete(self, text, readme, operations):
        """Every function, view, setting and metric of the extension is described, and as it is."""
        link = self.server.connect("app")
        names = [r[0] for r in cluster.query(link, """
            SELECT proname FROM pg_depend JOIN pg_extension e ON refobjid = e.oid JOIN pg_proc p ON objid = p.oid
            WHERE extname = 'garbagetruck' AND classid = 'pg_proc'::regclass AND proname !~ '^gt__'
            UNION SELECT relname FROM pg_depend JOIN pg_extension e ON refobjid = e.oid JOIN pg_class c ON objid = c.oid
            WHERE extname = 'garbagetruck' AND classid = 'pg_class'::regclass AND relkind IN ('v', 'r') AND relname !~ '^gt__'
            UNION SELECT substr(name, 14) FROM pg_settings WHERE name LIKE 'garbagetruck.%'
            UNION SELECT regexp_replace(name, '^garbagetruck_(.*?)(_bucket|_sum|_count)?$', '\\1') FROM gt_metrics() ORDER BY 1""")]
        untrue = truth.untrue(lambda statement: cluster.query(link, statement), readme, operations, self.memory)
        link.close()
        self.count(not untrue, "what the tables say of them is true", "\n".join(untrue))
        missing = [n for n in names if not re.search(rf"\b{n}\b", text)]
        self.count(len(names) > 50 and not missing, f"all {len(names)} functions, views, settings and metrics are described",
                   ", ".join(missing))

    def consumer(self, text):
        """That of the README, of which a connection becomes silent: it finds that, and takes what has come meanwhile. Returns the
        question whether it has."""
        code = next(body for kind, body, _, _ in parts(text) if kind == "python" and "def consume(" in body)
        code = re.sub(r"^consume\(.*", "", code, flags=re.M) + """
consume("host=127.0.0.1 port=@PORT@ dbname=app user=app password=secret", lambda name, payload: print(name, flush=True), idle=1)
"""
        proxy = holders.Proxy("127.0.0.1", self.server.port)
        process = subprocess.Popen([sys.executable, "-B", "-c", code.replace("@PORT@", str(proxy.port))], cwd=self.directory,
                                   env=self.environment, stdout=subprocess.PIPE, text=True)
        link = psycopg2.connect(f"{self.environment['DSN']} port={self.server.port}")
        link.autocommit = True

        def make(name):
            cluster.query(link, "SELECT gt_release(gt_lease_create(%s, 'blob_storage', cleanup => 'resize'))", (name,))

        def gone():
            return cluster.value(link, "SELECT count(*) = 0 FROM gt_garbage WHERE handler = 'resize'")

        make("before")
        works = process.stdout.readline() == "before\n" and cluster.wait_until(gone, 30)
        os.kill(proxy.process.pid, signal.SIGUSR1)
        make("after")

        def judge():                # what was claimed over the silent connection would come back after a minute
            self.count(bool(works and cluster.wait_until(gone, 120)), "the consumer outlives a silent connection")
            process.kill()
            process.communicate()
            proxy.close()
            link.close()
        return judge

    def heartbeats(self):
        """The class of the README, cut off, frozen and forked."""
        with open(os.path.join(self.directory, "lease.py"), encoding="utf-8") as f:
            code = f.read() + TAKE
        wrong = holders.try_all(code, "127.0.0.1", self.server.port, f"{self.environment['DSN']} port={self.server.port}", "lock",
                                self.directory, self.environment)
        for kind, what in wrong.items():
            self.count(what is None, f"lease.py, {kind}", what)

    def read(self, page, text, first=0):
        """first: the number of the line before the text."""
        for kind, body, line, before in parts(text):
            for named in WHERE.finditer(before):
                self.role, self.database = named.groups()
            what = f"{page}:{first + line} ({kind})"
            if kind in ("sql", "conf", "python", "sh", "check"):
                getattr(self, kind)(body, what, before)
            elif kind == "console":
                print(f"not run  {what}")
            else:
                self.count(False, f"{what}: nobody knows how to run that")

    def close(self):
        for terminal in self.terminals:
            terminal.terminate()
            terminal.wait(60)


def ask_for_passwords(server):
    with open(os.path.join(server.data, "pg_hba.conf"), "w", encoding="utf-8") as hba:
        hba.write("local all all trust\nhost all all all scram-sha-256\n")


def read_all(examples):
    texts = {page: cluster.read(os.path.join(cluster.TOP, page)) for page in PAGES}
    readme = texts.pop("README.md")
    at = readme.index(FIRST)
    end = readme.index("\n## ", at) + 1
    examples.read("README.md", readme[at:end], readme.count("\n", 0, at))
    # what was read already is left out by its blank lines
    examples.read("README.md", readme[:at] + "\n" * readme.count("\n", at, end) + readme[end:])
    for page, text in texts.items():
        examples.read(page, text)
    examples.complete(readme + "".join(texts.values()), readme, texts[os.path.join("src", "doc", "operations.md")])
    judge_consumer = examples.consumer(readme)
    examples.heartbeats()
    judge_consumer()


def main():
    with cluster.Cluster(preload=False, settings={"listen_addresses": "'127.0.0.1'"}) as server:
        server.port = free_port()
        server.configure(port=server.port)
        ask_for_passwords(server)
        server.start()
        directory = tempfile.mkdtemp(prefix="garbagetruck-readme.")
        os.mkdir(os.path.join(directory, "bin"))
        os.symlink(os.environ["GARBAGETRUCK"], os.path.join(directory, "bin", "garbagetruck"))
        examples = Examples(server, directory)
        try:
            read_all(examples)
        finally:
            examples.close()
            shutil.rmtree(directory, ignore_errors=True)
        if examples.failed:
            print(server.log_tail())
    print(f"{examples.passed} passed, {examples.failed} failed")
    return 0 if examples.passed and not examples.failed else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except cluster.Failed as e:
        sys.exit(str(e))
