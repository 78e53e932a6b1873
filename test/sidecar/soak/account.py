"""What is owed to the honest: of each object they leased, whether it must be cleaned, and from when on it may be.

Times are of CLOCK_MONOTONIC, which all processes here share.  A lease surely runs until its release is sent, or for its
duration from the sending of its creation or of the last renewal that was acknowledged: a cleanup before that is early.
"""
from dataclasses import dataclass, field

CLOCKS = 0.01           # seconds that two readings of the clocks may disagree


@dataclass
class Lease:
    id: str
    until: float                # it surely ran so long
    over: bool = False          # released, or left to expire
    released: bool = False

    def renewed(self, until):
        """The answer of a beat may come after the release that was sent behind it."""
        if not self.released:
            self.until = max(self.until, until)


@dataclass
class Thing:
    """An object that somebody honest leases."""
    id: str
    kind: str                   # of its cleanup
    fate: str
    kept: bool = False
    leases: list = field(default_factory=list)
    unsure: bool = False        # a call for it failed: what it may have done is not known

    def may_from(self):
        return max((lease.until for lease in self.leases), default=0.0)

    def must(self):
        return not self.kept and not self.unsure and bool(self.leases) and all(lease.over for lease in self.leases)


@dataclass
class Verdict:
    made: dict = field(default_factory=dict)        # (kind, fate) -> how many
    early: list = field(default_factory=list)
    lost: list = field(default_factory=list)
    wrong: list = field(default_factory=list)       # cleaned though kept; of nobody; not as often as promised
    twice: int = 0
    lags: dict = field(default_factory=dict)        # kind -> [(due, seconds until the first attempt, object)]


def judge(things, attempts, done):
    """attempts: (time, object) of all that were made; done: object -> how often it was cleaned with success."""
    verdict = Verdict()
    first = {}
    for at, name in attempts:
        first[name] = min(at, first.get(name, at))
    for name in sorted(set(first) | set(done)):
        if name not in things:
            verdict.wrong.append(f"{name} was cleaned, and nobody leased it")
    for thing in things.values():
        verdict.made[thing.kind, thing.fate] = verdict.made.get((thing.kind, thing.fate), 0) + 1
        at, times = first.get(thing.id), done.get(thing.id, 0)
        if thing.kind == "none" or (thing.kept and not thing.unsure):
            if at is not None or times:
                verdict.wrong.append(f"{thing.id} was cleaned, and was not to be")
            continue
        if at is not None and at < thing.may_from() - CLOCKS:
            verdict.early.append(f"{thing.id} ({thing.fate}) {thing.may_from() - at:.3f} s")
        if thing.must() and not times:
            verdict.lost.append(f"{thing.id} ({thing.fate}), due since {thing.may_from():.3f}, {'tried' if at else 'never tried'}")
        if times > 1:
            verdict.twice += 1
            if thing.kind == "sql":
                verdict.wrong.append(f"{thing.id} was cleaned {times} times by SQL, whose effect is once")
        if thing.must() and at is not None:
            verdict.lags.setdefault(thing.kind, []).append((thing.may_from(), at - thing.may_from(), thing.id))
    return verdict
