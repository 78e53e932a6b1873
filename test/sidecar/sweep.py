"""A scenario again and again, each time with another allocation failing.

ALLOCATIONS=all tries each one, ALLOCATIONS=N every Nth, of those in ALLOCATIONS_RANGE=FIRST-LAST.  Else as many, evenly
spread, as there is time for: ALLOCATIONS_SECONDS (30 unless told otherwise), of which each scenario has a share.
"""
import itertools
import os
import re
import time

STEP = int(os.environ.get("ALLOCATIONS", "0").replace("all", "1"))  # 0: a sample
SECONDS = float(os.environ.get("ALLOCATIONS_SECONDS", "30"))
FIRST, LAST = (int(n) for n in os.environ.get("ALLOCATIONS_RANGE", "1-1000000").split("-"))


def count_of(path):
    with open(path, encoding="utf-8") as file:
        return int(file.read())


def said(log):
    """What the program itself wrote, without the place of the failure."""
    return "".join(line for line in log.splitlines() if not re.search(r"\[0x[0-9a-f]+\]$", line))


def numbers(total, share):
    """Which allocations are to fail."""
    if STEP:
        yield from range(max(FIRST, 1), min(int(total * 1.05), LAST) + 1, STEP)
        return
    end = time.monotonic() + SECONDS * share
    for i in itertools.count(1):
        if time.monotonic() > end:
            return
        # In the order of a sequence that is evenly spread wherever it stops.
        yield 1 + int((i * 0.6180339887498949) % 1.0 * total)


def sweep(test, scenario, count, share):
    """Run scenario(number) for each of them; `count` is the file that says how many allocations a run has."""
    scenario(0)
    total = count_of(count)
    tried = 0
    for number in numbers(total, share):
        with test.subTest(number):
            try:
                scenario(number)
            except AssertionError as error:
                print(f"{scenario.__name__} {number}: {error}", flush=True)
                raise
        tried += 1
        if STEP and tried % 500 == 0:
            print(f"{scenario.__name__}: {number} of about {total}", flush=True)
    print(f"{scenario.__name__}: {tried} of about {total} allocations failed once", flush=True)
    test.assertGreater(tried, 0)
