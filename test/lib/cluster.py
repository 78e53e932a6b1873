"""A private PostgreSQL server with the extension, for the demo, the histories, the figures and the README's examples.

Runs in the process of the script that uses it.  Owns one temporary directory: the private copy of the server that
test/server makes, the data directory and the socket.  close() stops the server by the pid that it wrote down itself and
removes all of it; a crash of the script leaves the directory, named garbagetruck-*.

PostgreSQL refuses to run as root: there the server runs as `postgres`, and the directory belongs to it.

Environment: PG_CONFIG names the server to copy, GT_BINDIR the programs of a copy that test/server has made already.
GT_KEEP=1 leaves the directory in place.
"""
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Failed(Exception):
    """A step that could not be done, with the output of the command that failed."""


def run(command, user=None, **kwargs):
    """As root also as somebody else: by setpriv, because Python would fork for that, and grpcio (of Debian 13, in the
    scripts that use it) has handlers that wait for all of its threads before a fork, some of them for ever."""
    if user:
        command = ["setpriv", f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--clear-groups", *command]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kwargs)
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}")
    return done.stdout


def plant(top, path):
    """Plants a bug in the sources below top: what is between <<<< and ==== gives way to what is between that and >>>>. It is
    looked for in all of them, and must be there once; white space does not count. So a plant outlives what is done around it."""
    with open(path, encoding="utf-8") as f:
        pairs = re.findall(r"^<<<<\n(.*?)\n====\n(.*?)\n>>>>$", f.read(), re.M | re.S)
    sources = [os.path.join(where, name) for where, _, names in os.walk(top) for name in names if name.endswith((".c", ".h"))]
    if not pairs:
        raise Failed(f"{path} plants nothing")
    for old, new in pairs:
        pattern = re.compile(r"\s+".join(map(re.escape, old.split())))
        found = [(source, text) for source in sources for text in [read(source)] for _ in pattern.finditer(text)]
        if len(found) != 1:
            raise Failed(f"{path}: is {len(found)} times in the sources, not once:\n{old}")
        with open(found[0][0], "w", encoding="utf-8") as f:
            f.write(pattern.sub(lambda _: new.strip(), found[0][1]))


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def wait_until(condition, limit=60.0, step=0.05):
    """The first true value of condition(), or None when limit seconds have passed."""
    end = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            return None
        time.sleep(step)


class Cluster:
    def __init__(self, settings=None, preload=True, patches=(), variant="normal", say=None):
        self.variant = variant
        self.say = say or (lambda text: None)
        self.home = tempfile.mkdtemp(prefix="garbagetruck-", dir=os.environ.get("TMPDIR", "/tmp"))
        self.user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        self.data = os.path.join(self.home, "data")
        self.log = os.path.join(self.home, "log")
        self.port = 5432
        self.settings = {
            "unix_socket_directories": f"'{self.home}'",
            "listen_addresses": "''",
            "max_connections": "100",
            "shared_buffers": "'256MB'",
            "max_wal_size": "'2GB'",
            "log_line_prefix": "'%m [%p] %b %q%a '",
        }
        if preload:
            self.settings["shared_preload_libraries"] = "'garbagetruck'"
        self.settings.update(settings or {})
        try:
            self._make(patches)
        except BaseException:
            self.close()
            raise

    # --- setting up

    def _make(self, patches):
        os.chmod(self.home, 0o755)
        if os.geteuid() == 0:
            run(["chown", self.user, self.home])
        self.bindir = os.environ.get("GT_BINDIR")
        if not self.bindir or patches or self.variant != "normal":
            self.bindir = self._build(patches)
        self.say("creating a private database cluster")
        run([self._bin("initdb"), "-D", self.data, "-U", "postgres", "-A", "trust", "-N", "--no-instructions",
             "-E", "UTF8", "--locale", "C"], **self._as_user())
        with open(os.path.join(self.data, "postgresql.conf"), "a", encoding="utf-8") as conf:
            for name, value in self.settings.items():
                conf.write(f"{name} = {value}\n")

    def _build(self, patches):
        """test/server makes the private server; for patched sources, the one in a patched copy of them."""
        self.say("compiling the extension for a private server")
        top = TOP
        if patches:
            top = os.path.join(self.home, "patched")
            shutil.copytree(TOP, top, symlinks=True,
                            ignore=shutil.ignore_patterns(".git", "*.o", "*.so", "*.bc", "node_modules", "__pycache__"))
            for patch in patches:
                plant(os.path.join(top, "src"), patch)
            if os.geteuid() == 0:
                run(["chown", "-R", self.user, top])
        output = run([os.path.join(top, "test", "server"), os.path.join(self.home, "server"), self.variant])
        return output.splitlines()[-1]

    def _as_user(self):
        return {"cwd": self.home, "user": self.user if os.geteuid() == 0 else None}

    def _bin(self, name):
        return os.path.join(self.bindir, name)

    # --- the server

    def start(self, wait=True):
        try:
            run([self._bin("pg_ctl"), "-D", self.data, "-l", self.log, "-s", "-t", "120", "-w" if wait else "-W", "start"],
                **self._as_user())
        except Failed as e:
            raise Failed(f"{e}\n{self.log_tail()}") from e

    def stop(self, mode="fast"):
        run([self._bin("pg_ctl"), "-D", self.data, "-s", "-w", "-t", "120", "-m", mode, "stop"], **self._as_user())

    def reload(self):
        os.kill(self.pid(), signal.SIGHUP)

    def configure(self, **settings):
        with open(os.path.join(self.data, "postgresql.conf"), "a", encoding="utf-8") as conf:
            for name, value in settings.items():
                conf.write(f"{name.replace('__', '.')} = {value}\n")

    def pid(self):
        """Of the postmaster, or None when it is not there."""
        try:
            with open(os.path.join(self.data, "postmaster.pid"), encoding="utf-8") as f:
                pid = int(f.readline())
            os.kill(pid, 0)
            return pid
        except (OSError, ValueError):
            return None

    def kill(self):
        """kill -9 of the postmaster, and wait until all of its processes are gone."""
        pid = self.pid()
        children = self._children(pid)
        os.kill(pid, signal.SIGKILL)
        gone = wait_until(lambda: not any(os.path.exists(f"/proc/{p}/stat") and not self._zombie(p)
                                          for p in [pid] + children), 60)
        if not gone:
            raise Failed("processes of the killed server are still there after a minute")
        # its pid may be a zombie's for long, and these would be taken for a living server's
        os.unlink(os.path.join(self.data, "postmaster.pid"))
        for name in os.listdir(self.home):
            if name.startswith(".s.PGSQL.") and name.endswith(".lock"):
                os.unlink(os.path.join(self.home, name))

    @staticmethod
    def _children(pid):
        with open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8") as f:
            return [int(p) for p in f.read().split()]

    @staticmethod
    def _zombie(pid):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
                return f.read().rsplit(")", 1)[1].split()[0] == "Z"
        except OSError:
            return True

    def follow(self, home):
        """A standby of this server that has every commit before it is acknowledged: a Cluster with this home."""
        spare = Cluster.__new__(Cluster)
        spare.__dict__.update(self.__dict__)
        spare.home = home
        spare.data = os.path.join(spare.home, "data")
        spare.log = os.path.join(spare.home, "log")
        spare.settings = dict(self.settings)
        os.mkdir(spare.home, 0o755)
        if os.geteuid() == 0:
            run(["chown", spare.user, spare.home])
        run([self._bin("pg_basebackup"), "-D", spare.data, "-R", "-X", "stream", "-c", "fast", "-h", self.home,
             "-U", "postgres", "-d", f"host={self.home} user=postgres application_name=spare"], **self._as_user())
        spare.configure(unix_socket_directories=f"'{spare.home}'")
        spare.start()
        self.configure(synchronous_standby_names="'spare'")
        self.reload()
        link = self.connect()
        wait_until(lambda: query(link, "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"), 60)
        before = value(link, "SELECT pg_current_wal_flush_lsn()")
        wait_until(lambda: query(link, "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync' AND flush_lsn >= %s", (before,)), 60)
        link.close()
        return spare

    def promote(self):
        self.configure(synchronous_standby_names="''")
        run([self._bin("pg_ctl"), "-D", self.data, "-s", "-w", "promote"], **self._as_user())

    def dsn(self, dbname="postgres", user="postgres"):
        return f"host={self.home} port={self.port} dbname={dbname} user={user}"

    def connect(self, dbname="postgres", user="postgres", autocommit=True, name=None):
        import psycopg2
        link = psycopg2.connect(self.dsn(dbname, user), application_name=name or os.path.basename(sys.argv[0]))
        link.autocommit = autocommit
        return link

    def tool(self, name, *arguments, **kwargs):
        """Runs a client program of the server (psql, pgbench) and returns what it prints."""
        environment = dict(os.environ, PGHOST=self.home, PGPORT=str(self.port), PGUSER=kwargs.pop("as_role", "postgres"))
        return run([self._bin(name), *arguments], env=environment, **self._as_user(), **kwargs)

    def log_tail(self, lines=30):
        try:
            with open(self.log, encoding="utf-8", errors="replace") as f:
                return "".join(f.readlines()[-lines:])
        except OSError:
            return ""

    def close(self):
        if os.path.isdir(self.data) and self.pid():
            try:
                self.stop("immediate")
            except Failed as e:
                print(e, file=sys.stderr)
                os.kill(self.pid(), signal.SIGKILL)
        if os.environ.get("GT_KEEP"):
            print(f"kept: {self.home}", file=sys.stderr)
        else:
            shutil.rmtree(self.home, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()
        return False


def query(link, sql, arguments=None):
    with link.cursor() as cursor:
        cursor.execute(sql, arguments)
        return cursor.fetchall() if cursor.description else []


def value(link, sql, arguments=None):
    return query(link, sql, arguments)[0][0]
