"""What others do for the same need, in the same run on the same machine, where Debian's packages of them are installed.

They are no equivalents: none of them commits a lease together with a row, and redis and etcd have another durability than
PostgreSQL. So nothing is a bar here; each line says what was asked for how. What is not installed is said, and left out.
    etcd        /usr/bin/etcd of etcd-server; its calls are made by test/sidecar/load.c, over gRPC
    redis       redis-server, or redis-check-rdb of redis-tools, which is the same program; redis-benchmark
    pg_cron     postgresql-NN-cron, on a server of its own
"""
import os
import re
import shutil
import socket
import subprocess

import cluster
from cluster import query, wait_until
from fair import percentile
from rows import fill, table

CLIENTS = 16                    # of pgbench and redis-benchmark, connections to etcd
IN_FLIGHT = (16, 100)           # calls to etcd at once
INTEROP = os.path.join(cluster.TOP, "test", "sidecar", "interop")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return str(probe.getsockname()[1])


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", int(port)), 1).close()
        return True
    except OSError:
        return False


class Peer:
    """A server of somebody else's, in a directory below ours, as the same user as PostgreSQL."""

    def __init__(self, b, name, port, command):
        self.directory = os.path.join(b.server.home, name)
        os.mkdir(self.directory)
        if os.geteuid() == 0:
            shutil.chown(self.directory, b.server.user)
            command = ["setpriv", f"--reuid={b.server.user}", "--clear-groups", *command]
        self.process = subprocess.Popen(command, cwd=self.directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if not wait_until(lambda: answers(port), 30):
            self.close()
            raise RuntimeError(f"{name} does not answer")

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    def close(self):
        self.process.terminate()
        self.process.wait(30)
        shutil.rmtree(self.directory, ignore_errors=True)


def ours(b):
    create = b.script("create", "\\set n random(1, 1000000000000)\nSELECT gt_lease_create((:n)::text, 'bench', 's', '1 hour');\n")
    b.figure(f"gt_lease_create, {CLIENTS} clients", b.pgbench(create, CLIENTS), "leases/s", "committed and flushed, each by itself")
    ids = [row[0] for row in b.sql("SELECT unnest(gt_lease_create_many(array(SELECT g::text FROM generate_series(1, 1000) AS g),"
                                   " 'beat', 's', '1 hour'))")]
    renew = b.script("renew", f"SELECT gt_renew('{ids[0]}');\n")
    many = b.script("many", f"SELECT count(*) FROM gt_renew_many('{{{','.join(ids)}}}');\n")
    b.pgbench(many, 1)
    b.figure(f"gt_renew, {CLIENTS} clients", b.pgbench(renew, CLIENTS), "leases/s", "in shared memory")
    b.figure(f"gt_renew_many of 1000, {CLIENTS} clients", 1000 * b.pgbench(many, CLIENTS), "leases/s", "in shared memory")


def etcd(b):
    program, load = shutil.which("etcd"), os.path.join(b.server.home, "load")
    if not program:
        return b.say("etcd: left out, it is not installed (etcd-server)")
    cluster.run(["make", "-s", "-C", INTEROP, f"OUT={b.server.home}", load])
    port, peers = free_port(), free_port()
    with Peer(b, "etcd", port, [program, "--data-dir", "data", "--log-level", "error",
                                "--listen-client-urls", f"http://127.0.0.1:{port}", "--advertise-client-urls", f"http://127.0.0.1:{port}",
                                "--listen-peer-urls", f"http://127.0.0.1:{peers}", "--initial-advertise-peer-urls",
                                f"http://127.0.0.1:{peers}", "--initial-cluster", f"default=http://127.0.0.1:{peers}"]):
        version = cluster.run([program, "--version"]).split("\n", 1)[0].split()[-1]
        for kind, name, how in (("etcd-create", "LeaseGrant", "one member, flushed"), ("etcd-renew", "LeaseKeepAlive", "in memory")):
            for in_flight in IN_FLIGHT:
                out = cluster.run([load, port, kind, str(CLIENTS), str(in_flight), str(b.options.seconds)]).split()
                if out[3] != "0":
                    raise RuntimeError(f"{out[3]} calls of etcd failed")
                b.figure(f"etcd {version} {name}, {in_flight} calls in flight", float(out[0]), "leases/s", f"{how}; p99 {out[2]} ms")


def redis(b):
    server = shutil.which("redis-server") or shutil.which("redis-check-rdb")
    bench = shutil.which("redis-benchmark")
    if not (server and bench):
        return b.say("redis: left out, it is not installed (redis-tools)")
    version = cluster.run([bench, "--version"]).split()[1]
    for flush in ("always", "everysec"):
        port = free_port()
        # by its name it knows what it is
        with Peer(b, "redis", port, ["bash", "-c", f'exec -a redis-server {server} "$@"', "-", "--port", port, "--bind", "127.0.0.1",
                                     "--save", "", "--appendonly", "yes", "--appendfsync", flush]):
            for command in (["SET", "key:__rand_int__", "x", "EX", "3600"], ["EXPIRE", "key:__rand_int__", "3600"]):
                out = cluster.run([bench, "-p", port, "-c", str(CLIENTS), "-r", "100000", "-q",
                                   "-n", str(b.size(20000) * b.options.seconds), *command])
                rate = float(re.findall(r"([0-9.]+) requests per second", out)[-1])
                b.figure(f"redis {version} {command[0]}{' EX' if command[0] == 'SET' else ''}, {CLIENTS} clients", rate, "keys/s",
                         f"appendfsync {flush}")


# A job that starts with each minute: what is over then is deleted, and its lag kept.
CRON = """
CREATE EXTENSION pg_cron;
CREATE TABLE done (lag interval);
SELECT cron.schedule('reap', '* * * * *', 'WITH gone AS (DELETE FROM byhand WHERE expires_at <= clock_timestamp() RETURNING expires_at)
    INSERT INTO done SELECT clock_timestamp() - expires_at FROM gone');
UPDATE cron.job SET nodename = current_setting('unix_socket_directories'), nodeport = current_setting('port')::int;
"""


def lags_of(b, name, lags):
    b.figure(name, percentile(lags, 0.5), "ms", f"p99 {percentile(lags, 0.99):,.0f}, max {max(lags):,.0f} ms of {len(lags)} rows")


def rows_over_a_minute(b, name, count):
    fill(b, name, count, f"now() + interval '5 s' + g * interval '60 s' / {count}")


def pg_cron(b):
    """Rows that end one after the other over a minute: how long after its deadline each is deleted."""
    count = b.size(100000)
    table(b, "ours")
    b.sql("CREATE TABLE done (lag interval); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
          " INSERT INTO public.done VALUES (public.gt_clock() - OLD.expires_at); RETURN NULL; END $$;"
          "CREATE TRIGGER note AFTER DELETE ON ours FOR EACH ROW EXECUTE FUNCTION note(); SELECT gt_ttl_create('ours', 'expires_at')")
    rows_over_a_minute(b, "ours", count)
    if not wait_until(lambda: b.sql("SELECT count(*) FROM done")[0][0] >= count, 180, 1):
        raise TimeoutError("not all rows are gone after three minutes")
    lags_of(b, "gt_ttl_create: lag p50", [row[0] for row in b.sql("SELECT extract(epoch FROM lag)::float * 1000 FROM done")])

    if not b.sql("SELECT 1 FROM pg_available_extensions WHERE name = 'pg_cron'"):
        return b.say("pg_cron: left out, it is not installed (postgresql-NN-cron)")
    b.set(garbagetruck__max_workers="0")
    os.environ["GT_BINDIR"] = b.server.bindir
    with cluster.Cluster({"shared_preload_libraries": "'pg_cron'", "cron.database_name": "'postgres'"}, preload=False) as server:
        server.start()
        link, b.link = b.link, server.connect()
        try:
            table(b, "byhand")
            b.sql(CRON)
            rows_over_a_minute(b, "byhand", count)
            if not wait_until(lambda: b.sql("SELECT count(*) FROM done")[0][0] >= count, 240, 1):
                raise TimeoutError("pg_cron has not deleted all rows after four minutes: " +
                                   str(query(b.link, "SELECT status, return_message FROM cron.job_run_details")))
            version = b.sql("SELECT extversion FROM pg_extension WHERE extname = 'pg_cron'")[0][0]
            lags_of(b, f"pg_cron {version} and DELETE, each minute: lag p50",
                    [row[0] for row in b.sql("SELECT extract(epoch FROM lag)::float * 1000 FROM done")])
        finally:
            b.link.close()
            b.link = link


def peers(b):
    """Leases and expiry of etcd, redis and pg_cron, where they are installed, beside ours; nothing is a bar."""
    for part in (ours, etcd, redis, pg_cron):
        try:
            part(b)
        except (cluster.Failed, OSError, RuntimeError, subprocess.SubprocessError) as e:
            b.say(f"{part.__name__}: FAILED {e}")
            b.results.append({"item": part.__name__, "met": False, "detail": str(e)})
