"""Runs the README's ```sql and ```python blocks in order, in one database; then, whether it describes everything.

A comment <!-- check: SELECT ... --> after a block is a question that must be answered with true, within 30 seconds.
The recipes run as the role app that the blocks before them have made, the others as the superuser. The sidecar's Python is
only compiled here: the sidecar's own tests run it. Blocks of other kinds (console, go, js) are not run.
"""
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
sys.dont_write_bytecode = True

import psycopg2     # noqa: E402

import cluster      # noqa: E402

PART = re.compile(r"^(?P<heading>#+ [^\n]*)$|^```(?P<kind>\w*)\n(?P<text>.*?)^```$|^<!-- check: (?P<check>.*?) -->$", re.M | re.S)


def parts(text):
    """(kind, text, line) of each heading, block and check."""
    for m in PART.finditer(text):
        line = text.count("\n", 0, m.start()) + 1
        if m["heading"]:
            yield "heading", m["heading"].lstrip("# "), line
        elif m["check"]:
            yield "check", m["check"], line
        else:
            yield m["kind"], m["text"], line


class Examples:
    def __init__(self, server):
        self.server = server
        self.role = "postgres"
        self.passed, self.failed = 0, 0

    def count(self, ok, what, output=""):
        self.passed += ok
        self.failed += not ok
        print(f"{'ok' if ok else 'not ok'}  {what}" + (f"\n{output}" if not ok else ""), flush=True)

    def heading(self, name):
        if name == "Recipes":
            self.role = "app"
        elif name.startswith("For "):
            self.role = "postgres"

    def sql(self, text, line):
        try:
            self.server.tool("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "readme", input=text, as_role=self.role)
            self.count(True, f"the SQL of line {line}")
        except cluster.Failed as e:
            self.count(False, f"the SQL of line {line}", str(e))

    def python(self, text, line):
        if self.role != "app":
            compile(text, f"README.md:{line}", "exec")
            return
        done = subprocess.run([sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=120, env=dict(os.environ, DSN=self.server.dsn("readme", self.role)))
        self.count(done.returncode == 0, f"the Python of line {line}", done.stdout)

    def check(self, text, line):
        link = self.server.connect("readme", self.role)
        try:
            ok = bool(cluster.wait_until(lambda: cluster.value(link, text), 30))
            self.count(ok, f"the check of line {line}", text)
        except psycopg2.Error as e:
            self.count(False, f"the check of line {line}", f"{text}\n{e}")
        finally:
            link.close()

    def complete(self, text):
        """Every function, view and setting of the extension is in the README."""
        link = self.server.connect("readme")
        names = [r[0] for r in cluster.query(link, """
            SELECT proname FROM pg_depend JOIN pg_extension e ON refobjid = e.oid JOIN pg_proc p ON objid = p.oid
            WHERE extname = 'garbagetruck' AND classid = 'pg_proc'::regclass AND proname !~ '^gt__'
            UNION SELECT relname FROM pg_depend JOIN pg_extension e ON refobjid = e.oid JOIN pg_class c ON objid = c.oid
            WHERE extname = 'garbagetruck' AND classid = 'pg_class'::regclass AND relkind IN ('v', 'r') AND relname !~ '^gt__'
            UNION SELECT substr(name, 14) FROM pg_settings WHERE name LIKE 'garbagetruck.%' ORDER BY 1""")]
        link.close()
        missing = [n for n in names if not re.search(rf"\b{n}\b", text)]
        self.count(len(names) > 50 and not missing, f"all {len(names)} functions, views and settings are described",
                   ", ".join(missing))

    def run(self, text):
        for kind, body, line in parts(text):
            if kind == "heading":
                self.heading(body)
            elif kind in ("sql", "python", "check"):
                getattr(self, kind)(body, line)


def main():
    with open(os.path.join(cluster.TOP, "README.md"), encoding="utf-8") as f:
        text = f.read()
    with cluster.Cluster() as server:
        server.start()
        admin = server.connect()
        cluster.query(admin, "CREATE DATABASE readme")
        admin.close()
        examples = Examples(server)
        examples.run(text)
        examples.complete(text)
        if examples.failed:
            print(server.log_tail())
    print(f"{examples.passed} passed, {examples.failed} failed")
    return 0 if examples.passed and not examples.failed else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except cluster.Failed as e:
        sys.exit(str(e))
