"""Runs the attacks on a private server, once each in turn, or again and again, in random order and side by side."""
import argparse
import os
import queue
import random
import sys
import threading
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

import town         # noqa: E402  (finds test/lib)
import cluster      # noqa: E402

import fairness     # noqa: E402
import privacy      # noqa: E402
import rights       # noqa: E402

SERVED = 2          # whole cycles of the victim that an attack must let through


def attacks():
    """Name -> generator function, in the order of the files."""
    found = {}
    for module in (rights, privacy, fairness):
        for name, value in vars(module).items():
            if callable(value) and getattr(value, "attack", False):
                found[name] = value
    return found


class Runner:
    def __init__(self, options):
        self.options = options
        self.passed = self.failed = 0
        self.lock = threading.Lock()
        self.began = time.monotonic()

    def served(self, t, since):
        """Waits until the victim was served from beginning to end since then; its longest lag."""
        def enough():
            return sum(1 for begin, _, _ in list(self.victim.cycles) if begin >= since) >= SERVED

        end = time.monotonic() + town.LIMIT
        while not enough():
            if self.victim.troubles or not self.victim.is_alive() or time.monotonic() > end:
                t.fault(f"the victim was not served for {time.monotonic() - since:.0f} s")
                break
            time.sleep(0.02)
        return max((lag for begin, _, lag in list(self.victim.cycles) if begin >= since), default=0)

    def attack(self, name, function):
        t = town.Town(self.server, name)
        began = time.monotonic()
        lag = 0
        try:
            steps = function(t)
            for _ in steps:
                lag = max(lag, self.served(t, time.monotonic()))
                if t.found:
                    steps.close()
                    break
        except Exception as e:      # an attack that cannot be made proves nothing
            t.fault(str(e) if isinstance(e, town.Unfair) else traceback.format_exc(limit=-3))
        try:
            t.close()
        except Exception as e:
            t.fault(f"its end: {e}")
        self.report(name, function, t, time.monotonic() - began, lag)

    def report(self, name, function, t, took, lag):
        with self.lock:
            for watcher in (self.victim, self.locks):
                t.found += watcher.troubles[:5]
                del watcher.troubles[:]
            if t.found:
                self.failed += 1
            else:
                self.passed += 1
            print(f"{'not ok' if t.found else 'ok'} - {name}: {function.__doc__.splitlines()[0]} ({took:.1f} s"
                  + (f", the victim's lag {lag:.2f} s)" if lag else ")"), flush=True)
            for text in dict.fromkeys(t.found):
                print("    " + text.replace("\n", "\n    "), flush=True)

    def once(self, chosen):
        for name, function in chosen.items():
            self.attack(name, function)

    def many(self, chosen):
        """In random order, several at a time; those that change what all others see, alone."""
        todo = queue.Queue()
        alone = []
        for _ in range(self.options.rounds):
            names = list(chosen)
            random.shuffle(names)
            for name in names:
                (alone.append if chosen[name].alone else todo.put)(name)

        def take():
            while True:
                try:
                    name = todo.get_nowait()
                except queue.Empty:
                    return
                self.attack(name, chosen[name])
        threads = [threading.Thread(target=take) for _ in range(self.options.together)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for name in alone:
            self.attack(name, chosen[name])

    def run(self, chosen):
        with cluster.Cluster(dict(town.SETTINGS)) as self.server:
            self.server.start()
            town.build(self.server)
            self.victim, self.locks = town.Victim(self.server), town.LockWatch(self.server)
            self.victim.prepare()
            for thread in (self.victim, self.locks):
                thread.start()
            (self.many if self.options.rounds else self.once)(chosen)
            for thread in (self.victim, self.locks):
                thread.stop.set()
            for thread in (self.victim, self.locks):
                thread.join(town.LIMIT)
            if self.failed:
                print(self.server.log_tail(15))
        print(f"{self.passed} passed, {self.failed} failed")
        return 0 if self.passed and not self.failed else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="the attacks whose names contain one of these; all")
    parser.add_argument("--rounds", type=int, default=0, help="each so often, in random order and side by side")
    parser.add_argument("--together", type=int, default=3, help="so many at a time")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    random.seed(options.seed)
    chosen = {k: v for k, v in attacks().items() if not options.names or any(n in k for n in options.names)}
    if options.list:
        for name, function in chosen.items():
            print(f"{name}: {function.__doc__.splitlines()[0]}")
        return 0
    if options.rounds:
        print(f"# --seed {options.seed}")
    return Runner(options).run(chosen)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except cluster.Failed as e:
        sys.exit(str(e))
