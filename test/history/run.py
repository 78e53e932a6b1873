"""Records histories on a private server and checks each; stops at the first that breaks a promise, and exits 1."""
import argparse
import gzip
import json
import os
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
sys.dont_write_bytecode = True

import beside       # noqa: E402
import check        # noqa: E402
import cluster      # noqa: E402
import outages      # noqa: E402
import record       # noqa: E402

SETTINGS = {
    "fsync": "off",                 # the machine does not crash here, and more calls meet each other
    "max_connections": "60",
    "max_prepared_transactions": "10",
    "deadlock_timeout": "50ms",
    "garbagetruck.naptime": "'1h'",     # a wake-up that is lost shows as garbage that is left
    "log_min_messages": "warning",
    "log_min_error_statement": "panic",     # failing calls are part of it
}


# by the number of the run
BESIDE = ((beside.Killer, beside.Reclaimer, beside.Maintenance), (beside.Killer, beside.Poisoner), (beside.Killer, beside.Reclaimer))


def enough(figures):
    """Whether a run had in it what it is meant to try; a list of what was missing."""
    short = []
    if figures["cleaned after expiry"] < 100:
        short.append(f"only {figures['cleaned after expiry']} expiries that the workers acted upon (100 are due)")
    if figures["failed"] < 0.05 * figures["calls"]:
        short.append(f"only {figures['failed']} of {figures['calls']} calls failed or were rolled back (5 % are due)")
    return short


def keep(history):
    handle, path = tempfile.mkstemp(prefix="garbagetruck-history-", suffix=".json.gz")
    with os.fdopen(handle, "wb") as raw, gzip.open(raw, "wt", encoding="utf-8") as f:
        json.dump(history, f)
    return path


def one_run(server, number, options):
    """True when the history keeps the promises."""
    away = outages.Outages(server, "history") if options.outages else None
    history, left, clock = record.record(server, "history", options.clients, options.seconds, () if away else BESIDE[number % 3], away)
    begin = time.monotonic()
    findings = check.Checker(history, left).check()
    figures = check.figures(history)
    print(f"run {number}: " + ", ".join(f"{v} {k}" for k, v in figures.items())
          + f"; clock known to {clock['uncertainty_us']} us; checked in {time.monotonic() - begin:.1f} s", flush=True)
    if findings:
        print(check.explain(findings, history))
        if not options.plant:
            print(f"the history is in {keep(history)} (check it again with test/history/run --check FILE)")
        print(server.log_tail(15))
        return False
    short = enough(figures) if not options.any else []
    for text in short:
        print("too little happened: " + text)
    return not short


def vary(admin, number, given):
    """Both kinds of renewals in turn; and batches so small that workers work side by side. What was given stays."""
    for name, values in (("renewals", ("durable", "buffered")), ("batch_size", (1000, 1000, 4, 4))):
        if f"garbagetruck.{name}" not in given:
            cluster.query(admin, f"ALTER SYSTEM SET garbagetruck.{name} = {values[number % len(values)]}")
    cluster.query(admin, "SELECT pg_reload_conf()")


def check_file(path):
    with gzip.open(path, "rt", encoding="utf-8") as f:
        history = json.load(f)
    findings = check.Checker(history).check()
    print(check.explain(findings, history, 20) if findings else "no violation")
    return not findings


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=int, nargs="?", default=3, help="the environment's RUNS goes before it")
    parser.add_argument("--seconds", type=float, default=17)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--plant", action="append", default=[], metavar="FILE",
                        help="a bug to plant in a copy of the sources; its history is not kept")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the server")
    parser.add_argument("--outages", action="store_true", help="the server is killed and comes again, or a standby takes over")
    parser.add_argument("--any", action="store_true", help="do not insist on enough expiries and failures")
    parser.add_argument("--check", metavar="FILE", help="check a history that was kept")
    options = parser.parse_args()
    if options.check:
        return 0 if check_file(options.check) else 1
    runs = int(os.environ.get("RUNS") or options.runs)
    settings = dict(SETTINGS, **(outages.SETTINGS if options.outages else {}))
    settings.update(s.split("=", 1) for s in options.set)
    with cluster.Cluster(settings, patches=options.plant) as server:
        server.start()
        place = outages.Place(server)
        cluster.query(place.connect(), "CREATE DATABASE history")
        with place.connect("history") as link:
            record.prepare(link)
        number = 0
        try:
            for number in range(1, runs + 1):
                vary(place.connect(), number, settings)
                if not one_run(place, number, options):
                    print(f"{number - 1} passed, 1 failed")
                    return 1
        finally:
            place.close()
    print(f"{number} passed, 0 failed")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except cluster.Failed as e:
        sys.exit(str(e))
