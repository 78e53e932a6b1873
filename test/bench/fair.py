"""Fairness: what a role with failing, hanging and very many endings costs the others, and what it costs to alternate."""
import os
import subprocess
import time

from cluster import query, wait_until

HONEST = 19
FAILING, HANGING, ENDINGS = 1000, 100, 1000000

ROLES = """
CREATE TABLE done (role name DEFAULT current_user, id text);
GRANT INSERT ON done TO PUBLIC;
DO $$ BEGIN
    FOR i IN 1 .. %(roles)s LOOP
        EXECUTE format('CREATE ROLE honest%%s', i);
        PERFORM gt_allow('honest' || i), gt_allow('honest' || i, 'handler');
        EXECUTE format('SET LOCAL ROLE honest%%s', i);
        PERFORM gt_handler_create('clean' || i, 'sql', 'INSERT INTO public.done (id) SELECT $1');
        RESET ROLE;
    END LOOP;
END $$;
CREATE ROLE hostile LOGIN;
SELECT gt_allow('hostile'), gt_allow('hostile', 'handler');
"""

HOSTILE = """
SELECT gt_handler_create('hang' || i, 'sql', 'SELECT pg_sleep(3600)') FROM generate_series(1, %(hanging)s) AS i;
SELECT gt_handler_create('fail' || i, 'sql', 'SELECT 1/0') FROM generate_series(1, %(failing)s) AS i;
SELECT gt_handler_create('many', 'sql', 'INSERT INTO public.done (id) SELECT $1');
"""


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))]


def pgbench(b, *arguments):
    """It is started, and goes on beside what comes next."""
    environment = dict(os.environ, PGHOST=b.server.home, PGPORT=str(b.server.port), PGUSER="postgres")
    return subprocess.Popen([os.path.join(b.server.bindir, "pgbench"), "-n", *arguments, "bench"], env=environment,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=b.server.home)


def endings_beside_commits(b, ending, rate=100):
    """So many runs of that script a second, beside plain commits; how many seconds it took, and ms each of the commits."""
    commit = b.script("commit", "INSERT INTO plain DEFAULT VALUES;\n")
    begin = time.monotonic()
    common = ["-M", "prepared", "-T", str(max(10, 3 * b.options.seconds))]
    endings = pgbench(b, "-c", "4", "-R", str(rate), "-f", ending, *common)
    b.server.tool("pgbench", "-n", "-c", "1", "-R", "50", "-l", "--log-prefix", os.path.join(b.server.home, "commits"),
                  "-f", commit, *common, "bench")
    endings.communicate()
    took = time.monotonic() - begin
    commits = []
    for name in os.listdir(b.server.home):
        if name.startswith("commits"):
            path = os.path.join(b.server.home, name)
            with open(path, encoding="utf-8") as f:
                # latency counts from the scheduled start; the last field is by how much it started late
                commits += [(int(line.split()[2]) - int(line.split()[6])) / 1000 for line in f]
            os.unlink(path)
    return took, commits


def tell_lags(b, of_what, early_what, values, took, commits):
    """Values in ms from the deadline on, of what ended in `took` seconds."""
    p99, bar = percentile(values, 0.99), 20 + 4 * percentile(commits, 0.99)
    b.result(f"lag p99 {of_what}in ms", p99, bar, p99 <= bar,
             f"p50 {percentile(values, 0.5):.1f}, p99 {p99:.1f}, max {max(values):.1f} ms of {len(values)}"
             f" at {len(values) / took:.0f} a second; p99 commit {percentile(commits, 0.99):.1f} ms", "<=")
    early = sum(1 for ms in values if ms < 0)
    b.result(f"{early_what} before the deadline", early, 0, early == 0, f"{early} of {len(values)}", "<=")


def start_endings(b, seconds):
    """Objects of all honest roles that end, a hundred a second: half of them released, half by their deadline."""
    ending = b.script("honest", f"\\set n random(1, {HONEST})\n\\set id random(1, 1000000000000)\nSET ROLE honest:n;\n"
                                "SELECT gt_release(gt_lease_create('r:id', 'honest', 's', cleanup => 'clean:n'));\n"
                                "SELECT gt_lease_create('e:id', 'honest', 's', '1 second', 'clean:n');\n")
    return pgbench(b, "-c", "4", "-R", "50", "-T", str(seconds), "-f", ending)


def lags(b, since, until):
    """In ms, of what ended in that time; what has not been cleaned yet has lasted until now."""
    rows = b.sql("SELECT extract(epoch FROM lag)::float * 1000 FROM gt_history WHERE event = 'cleaned' AND object_type = 'honest'"
                 " AND attempt = 1 AND at - lag BETWEEN %s AND %s", (since, until))
    left = b.sql("SELECT extract(epoch FROM gt_clock() - since)::float * 1000 FROM gt_garbage WHERE object_type = 'honest'"
                 " AND since BETWEEN %s AND %s", (since, until))
    return [row[0] for row in rows + left]


def show(values):
    return (f"p50 {percentile(values, 0.5):.0f}, p99 {percentile(values, 0.99):.0f}, max {max(values):.0f} ms of {len(values)}"
            if values else "none")


def fairness(b):
    """Lag of 19 roles alone, and beside one with 1000 failing and 100 hanging handlers and a million endings at once."""
    seconds = max(15, 3 * b.options.seconds)
    count = b.size(ENDINGS)
    b.set(garbagetruck__history="all")
    b.sql(ROLES % {"roles": HONEST})
    link = b.server.connect("bench", user="hostile")
    query(link, HOSTILE % {"failing": FAILING, "hanging": HANGING})
    try:
        at = b.sql("SELECT gt_clock() + make_interval(secs => %s)", (seconds + 10 + count / 4000,))[0][0]
        for first in range(0, count, 1000):
            query(link, "SELECT count(gt_lease_create_many(array(SELECT 'm' || (%s + g) FROM generate_series(1, 1000) AS g),"
                        " 'hostile', 's', %s - gt_clock(), 'many'))", (first, at))
        b.sql("CHECKPOINT")
        clients = start_endings(b, seconds)
        time.sleep(2)
        since = b.sql("SELECT gt_clock()")[0][0]
        clients.communicate()
        until = b.sql("SELECT gt_clock()")[0][0]
        time.sleep(3)
        alone = lags(b, since, until)

        wait_until(lambda: b.sql("SELECT gt_clock() > %s - interval '2 seconds'", (at,))[0][0], 600, 0.2)
        clients = start_endings(b, seconds + 2)
        for name, n in (("hang", HANGING), ("fail", FAILING)):
            query(link, "SELECT gt_release(gt_lease_create(%s || i, 'hostile', cleanup => %s || i))"
                        " FROM generate_series(1, %s) AS i", (name, name, n))
        wait_until(lambda: b.sql("SELECT gt_clock() > %s", (at,))[0][0], 60, 0.05)
        since = b.sql("SELECT gt_clock()")[0][0]
        clients.communicate()
        until = b.sql("SELECT gt_clock()")[0][0]
        time.sleep(5)
        beside = lags(b, since, until)
        left = b.sql("SELECT count(*) FROM gt_leases WHERE object_type = 'hostile'")[0][0]
        garbage = b.sql("SELECT count(*) FROM gt_garbage WHERE handler = 'many'")[0][0]
    finally:
        link.close()
        # what hangs must not hold up the next item
        b.sql("SELECT count(gt_pause(name)) FROM gt_handlers WHERE owner = 'hostile'")
        b.sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type = 'garbagetruck worker'")
    p99 = percentile(beside, 0.99)
    b.result("lag p99 of 19 roles beside a hostile one, in ms", p99, 1000, p99 < 1000,
             f"{show(beside)}; alone {show(alone)}; of {count} endings {left} leases and {garbage} objects are left", "<")


ALTERNATE = """
CREATE TABLE app (id bigint PRIMARY KEY, content text);
GRANT SELECT, DELETE ON app TO PUBLIC;
DO $$ BEGIN
    FOR i IN 1 .. 2 LOOP
        EXECUTE format('CREATE ROLE alternate%s', i);
        PERFORM gt_allow('alternate' || i), gt_allow('alternate' || i, 'handler');
        EXECUTE format('SET LOCAL ROLE alternate%s', i);
        PERFORM gt_handler_create('turn' || i, 'sql', 'DELETE FROM public.app WHERE id = $1');
        RESET ROLE;
    END LOOP;
END $$;
"""


def drain(b, count, roles):
    """Seconds that the workers need for so many leases, of one role or of two in turn by hundreds."""
    b.set(garbagetruck__max_workers="0")
    b.sql("INSERT INTO app SELECT g, repeat('x', 100) FROM generate_series(1, %s) AS g", (count,))
    for first in range(0, count, 100):
        i = first // 100 % roles + 1
        b.sql(f"SET ROLE alternate{i}")
        b.sql("SELECT count(gt_lease_create_many(array(SELECT g::text FROM generate_series(%s + 1, %s + 100) AS g), 'alternate',"
              " 's', '1 second', %s))", (first, first, f"turn{i}"))
    b.sql("RESET ROLE")
    b.sql("VACUUM ANALYZE")
    b.sql("CHECKPOINT")
    time.sleep(1.1)
    runs = "SELECT sum(runs) FROM gt_handlers WHERE name LIKE 'turn%'"
    wanted = b.sql(runs)[0][0] + count
    begin = time.monotonic()
    b.sql("ALTER SYSTEM RESET garbagetruck.max_workers")
    b.sql("SELECT pg_reload_conf()")
    if not wait_until(lambda: b.sql(runs)[0][0] >= wanted, 900, 0.02):
        raise TimeoutError("not all is drained after 15 minutes")
    took = time.monotonic() - begin
    b.sql("VACUUM")
    return took


def alternate(b):
    """A drain of 100,000 of two roles that alternate against one of one role."""
    count = b.size(100000)
    b.sql(ALTERNATE)
    two, one = b.alternate(lambda: drain(b, count, 2), lambda: drain(b, count, 1))
    b.result(f"drain of {count} of two roles", two / one, 1.3, two / one <= 1.3, f"{two:.1f} against {one:.1f} s", "<=")
