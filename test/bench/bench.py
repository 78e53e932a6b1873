"""The figures: each item measures the extension and a home-made equivalent in turn, on one private server.

    test/bench/run                       everything, about an hour
    test/bench/run create renew          some items
    test/bench/run --seconds 3 --rounds 1 --scale 0.1      a quick look, not to be quoted

Every ratio is the median of the rounds; the two sides alternate, so that a slow minute hurts both. The exit status is 1
when a bar is missed. Default durability: fsync and synchronous_commit are on, unless the item says otherwise.
"""
import argparse
import json
import os
import platform
import statistics
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
sys.dont_write_bytecode = True

import cluster      # noqa: E402
import items        # noqa: E402
from cluster import query, value      # noqa: E402

SETTINGS = {
    "shared_buffers": "'2GB'",
    "max_wal_size": "'16GB'",
    "checkpoint_timeout": "'30min'",
    "max_connections": "100",
    "log_min_messages": "warning",
    "log_min_error_statement": "panic",
}


class Bench:
    def __init__(self, server, options):
        self.server, self.options = server, options
        self.results = []
        self.link = None
        self.wal = 0                    # bytes for each lease of the last reclaim

    # --- what the items use

    def say(self, text):
        print(f"  {time.strftime('%H:%M:%S')}  {text}", flush=True)

    def sql(self, text, arguments=None):
        return query(self.link, text, arguments)

    def size(self, number):
        return max(1000, int(number * self.options.scale))

    def script(self, name, text):
        path = os.path.join(self.server.home, name + ".sql")
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(path, 0o644)
        return path

    def pgbench(self, path, clients, *more):
        """Transactions a second."""
        out = self.server.tool("pgbench", "-n", "-M", "prepared", "-c", str(clients), "-j", "2", "-f", path,
                               "-T", str(self.options.seconds), *more, "bench")
        if "ERROR" in out or "aborted" in out:
            raise cluster.Failed(out)
        for line in out.splitlines():
            if line.startswith("tps = "):
                return float(line.split()[2])
        raise cluster.Failed(out)

    def alternate(self, ours, theirs):
        """Runs both in turn and returns the medians."""
        a, b = [], []
        for n in range(self.options.rounds):
            for results, side in ((b, theirs), (a, ours)) if n % 2 else ((a, ours), (b, theirs)):
                results.append(side())
        return statistics.median(a), statistics.median(b)

    def ratio(self, name, ours, theirs, bar, unit):
        """A ratio of speeds: at least the bar."""
        self.result(name, ours / theirs, bar, ours / theirs >= bar,
                    f"{ours:,.0f} against {theirs:,.0f} {unit}", ">=")

    def result(self, name, got, bar, met, detail, sense):
        self.results.append({"item": name, "got": got, "bar": bar, "met": met, "detail": detail, "sense": sense})
        print(f"  {'met   ' if met else 'MISSED'}  {name}: {got:.3g} (bar {sense} {bar:.3g}): {detail}", flush=True)

    def figure(self, name, number, unit, detail):
        """A figure that nothing is asked of."""
        self.results.append({"item": name, "got": number, "met": True, "detail": f"{number:,.0f} {unit}; {detail}"})
        print(f"          {name}: {number:,.0f} {unit} ({detail})", flush=True)

    def set(self, **settings):
        """Changes settings of the running server, for all sessions to come."""
        for name, v in settings.items():
            self.sql(f"ALTER SYSTEM SET {name.replace('__', '.')} = '{v}'")
        self.sql("SELECT pg_reload_conf()")
        time.sleep(0.2)

    # --- frame

    def fresh(self):
        """A database without the traces of the item before."""
        if self.link:
            self.link.close()
        admin = self.server.connect()
        for statement in ("DROP DATABASE IF EXISTS bench", "CREATE DATABASE bench", "CHECKPOINT"):
            query(admin, statement)
        admin.close()
        self.link = self.server.connect("bench", name="bench")
        self.sql("CREATE EXTENSION garbagetruck")

    def heading(self):
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            cpu = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), platform.machine())
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2 ** 30
        names = ("fsync", "synchronous_commit", "wal_sync_method", "full_page_writes", "shared_buffers", "max_wal_size",
                 "garbagetruck.max_workers", "garbagetruck.batch_size", "garbagetruck.renewals", "garbagetruck.history")
        rows = query(self.link, "SELECT name, current_setting(name, true) FROM unnest(%s) AS name", (list(names),))
        o = self.options
        return {
            "machine": f"{os.cpu_count()} x {cpu}, {memory:.0f} GB, {platform.system()} {platform.release()}",
            "server": value(self.link, "SELECT version()"),
            "library": f"garbagetruck {value(self.link, 'SELECT extversion FROM pg_extension WHERE extname = %s', ('garbagetruck',))}",
            "settings": ", ".join(f"{n} = {v}" for n, v in rows),
            "runs": f"medians of {o.rounds} alternating rounds, pgbench -M prepared -T {o.seconds}, {o.clients} clients,"
                    f" row counts x {o.scale:g}",
        }


def markdown(heading, results):
    """For README.md here."""
    lines = [f"{name}: {text}  " for name, text in heading.items()] + ["", "| what | ratio or figure | bar | measured | again |",
                                                                       "|---|---|---|---|---|"]
    for r in results:
        figure = f"{r['got']:.3g}" if "bar" in r else ""
        bar = f"{r['sense']} {r['bar']:.3g}{'' if r['met'] else ' **missed**'}" if "bar" in r else ("" if r["met"] else "**failed**")
        lines.append(f"| {r['item']} | {figure} | {bar} | {r['detail']} | `{r.get('of', '')}` |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("items", nargs="*", help=", ".join(items.ALL))
    parser.add_argument("--seconds", type=int, default=10, help="of each pgbench run (10)")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds (5)")
    parser.add_argument("--clients", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--scale", type=float, default=1.0, help="of the row counts; 1 is what the bars are for")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the server")
    parser.add_argument("--json", metavar="FILE", help="write the results there, too")
    parser.add_argument("--markdown", metavar="FILE", help="and there as the table that README.md here wants")
    options = parser.parse_args()
    for name in options.items:
        if name not in items.ALL:
            parser.error(f"no item {name}; there are: {', '.join(items.ALL)}")
    settings = dict(SETTINGS)
    settings.update(s.split("=", 1) for s in options.set)
    with cluster.Cluster(settings) as server:
        server.start()
        bench = Bench(server, options)
        bench.fresh()
        heading = bench.heading()
        print("\n".join(f"{name:<10}{text}" for name, text in heading.items()) + "\n", flush=True)
        for name in options.items or items.ALL:
            print(f"{name}: {items.ALL[name].__doc__.strip().splitlines()[0]}", flush=True)
            before = len(bench.results)
            try:
                items.ALL[name](bench)
            except Exception as e:
                bench.results.append({"item": name, "met": False, "detail": f"{type(e).__name__}: {e}"})
                print(f"  FAILED  {type(e).__name__}: {e}\n{server.log_tail(10)}", flush=True)
            for result in bench.results[before:]:
                result["of"] = name
            for setting in ("renewals", "max_workers", "history"):
                bench.sql(f"ALTER SYSTEM RESET garbagetruck.{setting}")
            bench.set(autovacuum="on")
            bench.fresh()
        if options.json:
            with open(options.json, "w", encoding="utf-8") as f:
                json.dump(bench.results, f, indent=1)
        if options.markdown:
            with open(options.markdown, "w", encoding="utf-8") as f:
                f.write(markdown(heading, bench.results))
    missed = [r["item"] for r in bench.results if not r["met"]]
    print(f"\n{len(bench.results) - len(missed)} bars met, {len(missed)} missed" + (": " + ", ".join(missed) if missed else ""))
    return 1 if missed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except cluster.Failed as e:
        sys.exit(str(e))
