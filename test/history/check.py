"""The model: does a recorded history keep the promises?

Nothing here knows how the extension works.  Every call has an interval [inv, ret] in which it took place; a call in a
transaction block took effect, for others, between the sending of COMMIT and its answer.  From these the model derives
for each lease what surely held at an instant and what possibly held, and finds fault only where the extension's answer
contradicts what surely was:

  surely running at t   its creation was acknowledged before t, no release of it can have begun to take effect by t,
                        and an acknowledged deadline is later than t
  surely over at t      a release of it was acknowledged before t, or no creation and no renewal that began before t can
                        have given it a deadline of t or later, or its creation was rolled back

A deadline that gt_lease_update set counts from then on, sooner or later than the one before; where the order of two calls is
not known, both are possible.

A server that was away (a record "outage") prolongs what may have run then: by its grace for sure, by twice that at most.

A call that failed for an unknown reason (its connection was lost) may have happened: it weakens both.
Fences order the grants of an object against its cleanups: a cleanup tells the newest fence that it knew.

Findings are (rule, object, text, records); rules are named after the promises of the README.
"""
import bisect
import collections

ALLOWED = {"GT001", "GT002", "GT004", "GT005", "22023", "40001", "40P01", "55P03", "57014", "57P01", "25P02"}
NEVER = 1 << 62
POISONED = 10       # runs, of objects that take their worker down: more than the few that are tried until each is dead


class Lease:
    """What is known of one lease."""

    def __init__(self, lease, obj, op):
        self.id, self.object, self.op = lease, obj, op
        args = op["args"]
        self.tx = op["tx"]
        self.exclusive = args.get("exclusive", False)
        self.key = (args["service"], args["key"]) if args.get("key") else None
        self.duration = args.get("duration")
        self.regrant = args.get("regrant") or 0
        self.names_cleanup = args["cleanup"] is not None
        self.parent = None              # a Lease
        self.fence = None
        self.status = op["status"]      # yes | no | maybe
        self.asked = op["inv"]
        self.born = (op["from"], op["to"] if self.status == "yes" else NEVER)
        self.undone = op["to"] if self.status == "no" else NEVER        # a rolled back creation is over by then
        self.acks = []                  # (acknowledged at, deadline, op): lower bounds
        self.tops = []                  # (possible from, deadline, op): upper bounds
        self.updates = []               # ops that may have set another deadline, and duration
        self.releases = []              # ops
        self.longest = self.shortest = self.duration
        self.stamped = None             # lower bound of the deadline that the commit gave it

    def d_low(self, t, viewer=None, until=0):
        """What had been promised by t, and is still until then."""
        if self.parent:
            return self.parent.d_low(t, viewer, until)
        return max((self.at_least(d, op, max(t, until), viewer) for at, d, op in self.acks if at <= t), default=0)

    def at_least(self, deadline, op, t, viewer=None):
        """What is left at t of a deadline that was acknowledged: an update that may have come later may have shortened it. To
        the transaction of that (viewer: one of its calls) it has, whatever becomes of it."""
        return min([deadline] + [u["inv"] + u["args"]["duration"] for u in self.updates if u is not op and u["to"] >= op["inv"]
                                 and (u["status"] != "no" and u["from"] <= t or is_earlier(u, viewer))])

    def d_last(self):
        """The latest deadline that anybody was promised: every renewal that succeeded proves the time before it."""
        return self.d_low(NEVER)

    def d_high(self, t, without=None):
        if self.parent:
            return self.parent.d_high(t, without)
        updates = [u for u in self.updates if u["status"] == "yes" and u["to"] <= t and u is not without]
        return max((d for at, d, op in self.tops if at <= t and op is not without
                    and not any(op["to"] < u["inv"] for u in updates)), default=0)

    def ends(self):
        return self.releases + (self.parent.releases if self.parent else [])

    def maybe_released(self, t):
        return any(r["from"] <= t for r in self.ends())

    def surely_released(self, t, without=None):
        return any(r["status"] == "yes" and r["to"] <= t and r is not without for r in self.ends())

    def first_release(self):
        return min((r["from"] for r in self.ends()), default=NEVER)

    def surely_expired(self):
        """When at the earliest, if it was not released: None where it may have been."""
        return None if self.status != "yes" or self.first_release() < NEVER else self.d_last()

    def surely_running(self, a, b, viewer=None):
        return self.born[1] <= a and not self.maybe_released(b) and self.d_low(a, viewer, b) > b

    def surely_over(self, t, without=None):
        if t < self.asked:              # it may yet be created, by the end of the call that is judged
            return False
        if self.status == "no" and self.undone <= t:
            return True
        if self.parent and self.parent.status == "no" and self.parent.undone <= t:
            return True
        return self.surely_released(t, without) or self.d_high(t, without) < t

    def sure_interval(self):
        """The time during which it surely ran, as others could tell."""
        return self.born[1], min(self.d_last(), self.first_release())

    def possible_in(self, a, b):
        return self.asked <= b and not self.surely_over(a)


class Checker:
    def __init__(self, history, left=None):
        self.findings = []
        self.left = left or {}
        self.txs = {r["tx"]: r for r in history if r["t"] == "tx"}
        self.ops = [r for r in history if r["t"] == "op"]
        self.ops.sort(key=lambda r: r["inv"])
        self.outages = sorted((r for r in history if r["t"] == "outage"), key=lambda r: r["down"])
        self.cleaned = collections.defaultdict(list)
        self.all_cleaned = sorted(({"by": r["at"], **r} for r in history if r["t"] == "clean"), key=lambda r: r["at"])
        self.guards = {r["lease"] for r in history if r["t"] == "guard"}
        self.leases = {}
        self.on = collections.defaultdict(list)         # object -> leases
        self.lost = collections.defaultdict(list)       # object -> grants whose answer never came
        self.fenced = collections.defaultdict(list)     # object -> fence checks, whose transactions hold it
        self.by_key = collections.defaultdict(list)
        self.own_ended = collections.defaultdict(list)  # (tx, lease) -> times of releases inside the transaction
        self.tokens = collections.defaultdict(list)     # cleanup_id -> calls on it, claims among them
        self.first_claim = {}           # object -> when
        self.claims_lost = any(r["kind"] == "claim" and r["state"] == "unknown" for r in self.ops)
        self.unsure = set()             # objects that a call whose answer never came may have cleaned

    def report(self, rule, obj, text, *records):
        self.findings.append((rule, obj, text, records))

    # --- reading the history

    def outcome(self, op):
        """status of the call, and the interval in which its effect became visible to others."""
        if op["state"] == "error":
            op["status"] = "no"
        elif op["tx"] is None:
            op["status"] = "yes" if op["state"] == "ok" else "maybe"
        else:
            tx = self.txs[op["tx"]]
            if "undone" in op or tx["outcome"] == "rolled back":
                op["status"] = "no"
            elif tx["outcome"] == "unknown":
                op["status"] = "maybe" if tx["end_inv"] < tx["end_ret"] else "no"
            else:
                op["status"] = "yes"
            op["from"] = tx["end_inv"]
            op["to"] = min(op.get("undone", NEVER), tx["end_ret"])
            return
        op["from"], op["to"] = op["inv"], op["ret"]

    def load(self):
        for op in self.ops:
            self.outcome(op)
            if op["state"] == "error" and op["sqlstate"] not in ALLOWED:
                self.report("errors", op["args"].get("object"), f"unexpected SQLSTATE {op['sqlstate']}", op)
            if op["kind"] == "grant":
                self.load_grant(op)
            elif op["kind"] == "create_many" and op["state"] == "ok":
                for lease, obj in {r[1]: r[0] for r in op["value"]}.items():
                    self.add(obj, lease, op, op.get("fences", {}).get(lease))
            elif op["kind"] == "create_many" and op["state"] == "unknown":
                for obj in op["args"]["objects"]:
                    self.lost[obj].append(op)
            elif op["kind"] == "fence_check" and (op["state"] == "unknown" or op["state"] == "ok" and op["value"][0][0]):
                self.fenced[op["args"]["object"]].append(op)
        for tx in self.txs.values():
            # PREPARE TRANSACTION locks gt_object, in the way of which table maintenance may be
            if tx.get("message") and not (tx.get("prepared") and tx["sqlstate"] == "55P03"):
                self.report("errors", None, f"a COMMIT failed: {tx['message']}", tx)
        for op in self.ops:
            if op["kind"] == "update":
                self.load_update(op)
        for op in self.ops:
            if op["kind"] == "renew":
                self.load_renewal(op, op["args"]["lease"],
                                  op["value"][0][0] if op["state"] == "ok" else None)
            elif op["kind"] == "renew_many":
                if op["state"] == "ok":
                    for lease, status, deadline in op["value"]:
                        if status == "renewed":
                            self.load_renewal(op, lease, deadline)
                else:               # some may have counted before it failed
                    for lease in op["args"]["leases"]:
                        self.load_renewal(op, lease, None)
            elif op["kind"] == "release":
                self.load_release(op)
            elif op["kind"] in ("claim", "ack", "nack", "extend"):
                self.load_queue(op)
        for lease in self.leases.values():
            if lease.stamped and lease.status == "yes":
                lease.acks.append((lease.born[1], lease.stamped, lease.op))
        for outage in self.outages:
            for lease in self.leases.values():
                if not lease.parent and lease.asked <= outage["restarted"]:
                    self.load_outage(outage, lease)
        self.load_acknowledged()
        self.all_cleaned.sort(key=lambda c: c["at"])
        for c in self.all_cleaned:
            self.cleaned[c["object"]].append(c)

    def load_grant(self, op):
        args = op["args"]
        if op["state"] == "unknown":
            self.lost[args["object"]].append(op)
        if op["state"] != "ok":
            return
        lease, fence, expires, created = op["value"][0]
        if created:
            self.add(args["object"], lease, op, fence, expires)

    def add(self, obj, lease, op, fence, expires=None):
        known = Lease(lease, obj, op)
        known.fence = fence
        self.leases[lease] = known
        self.on[obj].append(known)
        if known.key:
            self.by_key[known.key].append(known)
        if op["args"].get("parent"):
            known.parent = self.leases.get(op["args"]["parent"])
            return
        duration = known.duration
        low = op["inv"] + duration if expires is None else expires
        if known.tx is not None:
            tx = self.txs[known.tx]
            if tx["end_inv"] > op["ret"] + duration / 2 and not tx.get("prepared"):     # re-stamped at the commit, unless renewed before it
                known.stamped = tx["end_inv"] + duration
        if known.status == "yes":
            known.acks.append((op["to"], low, op))
        known.tops.append((op["inv"], max(expires or 0, op["to"] + duration, op["ret"] + duration), op))

    def load_renewal(self, op, lease, deadline):
        known = self.leases.get(lease)
        if known is None or (op["state"] == "error" and op["kind"] == "renew"):
            return
        if op["args"]["duration"] and known.longest:
            known.longest = max(known.longest, op["args"]["duration"])
        if deadline is None:
            known.tops.append((op["inv"], op["ret"] + max(op["args"]["duration"] or 0, known.longest or 0), op))
            return
        if op["status"] == "yes":
            known.acks.append((op["to"], deadline, op))
        known.tops.append((op["inv"], deadline, op))
        if self.is_own(op, known):       # the commit may stamp anew, with the longer duration
            known.tops.append((op["inv"], self.txs[op["tx"]]["end_ret"] + known.longest, op))
            known.stamped = None

    def load_release(self, op):
        known = self.leases.get(op["args"]["lease"])
        if known is None:
            return
        if op["state"] == "ok" and op["value"][0][0] and op["tx"] is not None:
            self.own_ended[(op["tx"], known.id)].append(op)
        happened = op["state"] == "unknown" or (op["state"] == "ok" and op["value"][0][0])
        if happened and op["status"] != "no":
            known.releases.append(op)

    def load_update(self, op):
        known = self.leases.get(op["args"]["lease"])
        if known is None or op["state"] == "error" or known.parent:
            return
        duration = op["args"]["duration"]
        own = self.is_own(op, known)
        known.updates.append(op)
        known.longest, known.shortest = max(known.longest, duration), min(known.shortest, duration)
        if op["status"] == "yes":
            known.acks.append((op["to"], op["inv"] + duration, op))
        known.tops.append((op["inv"], op["ret"] + duration, op))
        if own:
            known.tops.append((op["inv"], self.txs[op["tx"]]["end_ret"] + known.longest, op))
        if own:
            known.stamped = None

    @staticmethod
    def load_outage(outage, lease):
        """What surely ran when the server went does not end before S and its grace; whatever had not been ended may run again,
        until twice that."""
        least, most = min(lease.shortest, outage["grace"]), min(lease.longest, outage["grace"])
        if lease.status == "yes":
            lease.acks += [(outage["started"], max(deadline, outage["started"] + least), op) for at, deadline, op in lease.acks
                           if at <= outage["down"] and deadline > outage["gone"]]
        lease.tops += [(outage["down"], max(deadline, outage["restarted"]) + 2 * most, op) for at, deadline, op in lease.tops
                       if at <= outage["restarted"]]

    def may_last(self, asked, until):
        """Until when something may run that was asked for then, and had time until then, outages considered."""
        for outage in self.outages:
            if asked <= outage["restarted"]:
                until = max(until, outage["restarted"]) + 2 * outage["grace"]
        return until

    def load_queue(self, op):
        if op["kind"] != "claim":
            self.tokens[op["args"]["cleanup_id"]].append(op)
        elif op["state"] == "ok":
            for row in op["value"]:
                self.tokens[row[0]].append(op)
                self.first_claim.setdefault(row[2], op["inv"])

    def load_acknowledged(self):
        """What a consumer acknowledged is a cleanup: it took effect where gt_ack said so, which is somewhere in that call."""
        for cleanup_id, ops in self.tokens.items():
            claims = {tuple(row[:2]): row for op in ops if op["kind"] == "claim" for row in op["value"]}
            for op in (o for o in ops if o["kind"] == "ack"):
                row = claims.get((cleanup_id, op["args"]["attempt"]))
                if row is None or op["status"] == "no" or (op["state"] == "ok" and not op["value"][0][0]):
                    continue
                if op["status"] == "maybe":
                    self.unsure.add(row[2])
                    continue
                self.all_cleaned.append({"t": "clean", "cleanup_id": cleanup_id, "object": row[2], "lease": row[3], "fence": row[4],
                                         "attempt": row[1], "at": op["inv"], "by": op["ret"], "tx": op["tx"], "seq": op["seq"]})

    def ended_by_own(self, op, lease):
        """Its own transaction had released it (or its parent) before this call, whatever became of that later."""
        if op["tx"] is None:
            return False
        ids = [lease.id] + ([lease.parent.id] if lease.parent else [])
        return any(r["seq"] < op["seq"] for i in ids for r in self.own_ended.get((op["tx"], i), ()))

    def claimed_by_ender(self, c, lease):
        """Whether a consumer released the lease in the transaction in which it then acknowledged this cleanup."""
        return "seq" in c and self.ended_by_own(c, lease)

    @staticmethod
    def is_own(op, lease):
        """Whether the call was made in the transaction that created the lease."""
        return op["tx"] is not None and op["tx"] == lease.tx

    # --- the rules

    def check(self):
        self.load()
        for op in self.ops:
            if op["kind"] == "renew":
                self.check_renew(op)
            elif op["kind"] == "renew_many" and op["state"] == "ok":
                self.check_renew_many(op)
            elif op["kind"] == "release":
                self.check_release(op)
            elif op["kind"] == "get" and op["state"] == "ok":
                self.check_get(op)
            elif op["kind"] == "list" and op["state"] == "ok":
                self.check_list(op)
            elif op["kind"] == "fence_check" and op["state"] == "ok":
                self.check_fence(op)
            elif op["kind"] == "grant":
                self.check_grant(op)
            elif op["kind"] == "update":
                self.check_update(op)
            elif op["kind"] == "claim" and op["state"] == "ok":
                self.check_claim(op)
        for cleanup_id, ops in self.tokens.items():
            self.check_tokens(cleanup_id, ops)
        for obj in set(self.on) | set(self.cleaned):
            self.check_cleanups(obj)
            self.check_overlaps(obj)
            self.check_fence_order(obj)
            self.check_regrants(obj)
        for pair in self.by_key.values():
            self.check_pairs(pair, lambda a, b: True, "I3 request_key", "two leases of one request_key at once")
        self.check_guards()
        self.check_counter()
        for what, count in self.left.items():
            if count and what not in ("created", "poisoned"):
                self.report("I2", None, f"a minute after the last call, {count} {what} are still there")
        if self.left.get("poisoned", 0) > POISONED:
            self.report("I2", None, f"what takes its worker down was run {self.left['poisoned']} times: nobody took notice of it")
        return self.findings

    def renewed(self, op, lease, deadline):
        obj, inv = lease.object, op["inv"]
        own = self.is_own(op, lease)
        if lease.status == "no" and not own:
            self.report("I5", obj, "a renewal of a lease whose creation was rolled back succeeded", lease.op, op)
        if lease.parent:
            self.report("I3", obj, "a child was renewed", lease.op, op)
            return
        if lease.surely_released(inv):
            self.report("I3", obj, "a released lease was renewed", *lease.releases, op)
        if not own and lease.d_high(inv, op) < inv:
            self.report("I8", obj, "an expired lease was renewed", lease.op, *self.last_renewals(lease, inv), op)
        asked = op["args"]["duration"] or lease.shortest
        if deadline < inv + asked:
            self.report("I3", obj, f"a renewal promised {inv + asked - deadline} us less than asked for", lease.op, op)
        low = lease.d_low(inv, op, op["ret"])
        if lease.status == "yes" and deadline < low:
            self.report("I3", obj, f"a renewal shortened the lease by {low - deadline} us", lease.op, op)
        top = max(max((d for at, d, o in lease.tops if at <= op["ret"] and o is not op), default=0), op["ret"] + max(asked, lease.longest))
        if deadline > top:
            self.report("I3", obj, f"a renewal promised {deadline - top} us more than possible", lease.op, op)
        if op["status"] == "no":        # undone with its transaction, unless buffered: no promise to hold it to
            return
        for c in self.cleaned[obj]:
            if lease.fence is not None and c["fence"] >= lease.fence and c["by"] < lease.at_least(deadline, op, c["by"]) \
                    and not lease.maybe_released(c["by"]) and op["status"] == "yes" and not self.claimed_by_ender(c, lease):
                self.report("I3", obj, "the object of a successful renewal was cleaned before the deadline that it promised",
                            lease.op, op, c)

    @staticmethod
    def last_renewals(lease, t):
        return [op for at, _, op in lease.tops if at <= t and op is not lease.op][-2:]

    def lost_early(self, op, lease, answer):
        """The answer says that a lease is over. Is it?"""
        if self.ended_by_own(op, lease):
            return
        if self.is_own(op, lease):
            if lease.status != "no" and not lease.parent and lease.op["seq"] < op["seq"]:
                self.report("I5", lease.object, f"{answer}, to the transaction that creates it", lease.op, op)
            return
        if lease.surely_running(op["inv"], op["ret"], op):
            left = lease.d_low(op["inv"], op, op["ret"]) - op["ret"]
            self.report("I1", lease.object, f"{answer}, with at least {left} us to run", lease.op,
                        *self.last_renewals(lease, op["inv"]), op)

    def check_renew(self, op):
        lease = self.leases.get(op["args"]["lease"])
        if lease is None:
            return
        if op["state"] == "ok":
            self.renewed(op, lease, op["value"][0][0])
        elif op.get("sqlstate") in ("GT001", "GT002"):
            self.lost_early(op, lease, f"a renewal failed with {op['sqlstate']}")
        elif op.get("sqlstate") == "22023":
            if not lease.parent:
                self.report("errors", lease.object, "22023 for a lease that is no child", op)
            elif lease.surely_over(op["inv"]) and not self.is_own(op, lease):
                self.report("I8", lease.object, "a child whose parent is over was taken for a running one", lease.op, op)

    def check_renew_many(self, op):
        asked = op["args"]["leases"]
        if [r[0] for r in op["value"]] != asked:
            self.report("errors", None, "gt_renew_many did not answer in the order of its input", op)
        for lease_id, status, deadline in op["value"]:
            lease = self.leases.get(lease_id)
            if lease is None:
                continue
            if status == "renewed":
                self.renewed(op, lease, deadline)
            elif status in ("expired", "not_found"):
                self.lost_early(op, lease, f"gt_renew_many says {status}")
            elif status == "child":
                if not lease.parent:
                    self.report("errors", lease.object, "gt_renew_many says child of a lease that is none", op)
            else:
                self.report("errors", lease.object, f"gt_renew_many says {status}", op)

    def check_update(self, op):
        lease = self.leases.get(op["args"]["lease"])
        if lease is None:
            return
        if op["state"] == "ok":
            if lease.parent:
                self.report("I3", lease.object, "a child was given a duration", lease.op, op)
            elif not self.is_own(op, lease) and (lease.surely_released(op["inv"]) or lease.d_high(op["inv"], op) < op["inv"]):
                self.report("I8", lease.object, "a lease that is over was given a duration", lease.op, *lease.releases,
                            *self.last_renewals(lease, op["inv"]), op)
        elif op.get("sqlstate") in ("GT001", "GT002"):
            self.lost_early(op, lease, f"gt_lease_update failed with {op['sqlstate']}")
        elif op.get("sqlstate") == "22023" and not lease.parent:
            self.report("errors", lease.object, "22023 for a lease that is no child", op)

    # --- the queue

    def check_claim(self, op):
        """A claim is the start of an attempt: no lease on its object runs."""
        for cleanup_id, attempt, obj, _, fence, _ in op["value"]:
            for lease in self.on[obj]:
                if self.ended_by_own(op, lease):
                    continue
                if lease.surely_running(op["inv"], op["ret"], op):
                    self.report("I1", obj, f"cleanup {cleanup_id} was claimed while an acknowledged lease ran", lease.op,
                                *self.last_renewals(lease, op["inv"]), op)
                elif lease.status == "yes" and lease.fence is not None and lease.fence <= fence and lease.d_last() > op["ret"] \
                        and not lease.maybe_released(op["ret"]) and op["status"] == "yes":
                    self.report("I1", obj, f"cleanup {cleanup_id} was claimed before the deadline of a lease that it knew", lease.op,
                                *self.last_renewals(lease, op["inv"]), op)

    def check_tokens(self, cleanup_id, ops):
        """A token is given once, and acknowledged once; while it is in flight no lease is granted on its object."""
        given, acked = {}, None
        for op in ops:
            if op["status"] != "yes" or op["state"] != "ok":
                continue
            if op["kind"] == "claim":
                row = next(r for r in op["value"] if r[0] == cleanup_id)
                if row[1] in given:
                    self.report("I2", row[2], f"attempt {row[1]} of cleanup {cleanup_id} was claimed twice", given[row[1]], op)
                given[row[1]] = op
                self.check_flight(row, op, ops)
            elif op["kind"] == "ack" and op["value"][0][0]:
                if acked:
                    self.report("I2", None, f"cleanup {cleanup_id} was acknowledged twice", acked, op)
                acked = op
                for later in (c for a, c in given.items() if a > op["args"]["attempt"] and c["to"] < op["inv"]):
                    self.report("I2", None, f"cleanup {cleanup_id} was acknowledged with a token that was superseded", later, op)

    def check_flight(self, row, claim, ops):
        """From the commit of the claim to claimed_until, if nothing else was tried with this cleanup meanwhile."""
        until = claim["inv"] + claim["args"]["visibility"]
        for lease in self.on[row[2]]:
            grant = lease.op
            if claim["to"] < grant["inv"] and grant["ret"] < until and grant["kind"] == "grant" and lease.status == "yes" \
                    and not any(o is not claim and o["to"] >= claim["inv"] and o["inv"] <= grant["ret"] for o in ops):
                self.report("I1", row[2], f"a lease was granted while cleanup {row[0]} was in flight", claim, grant)

    # --- the same, and others

    def check_regrants(self, obj):
        """After an expiry no exclusive grant for the regrant_delay of the lease that expired."""
        for lease in self.on[obj]:
            expired = lease.surely_expired() if lease.regrant else None
            if expired is None:
                continue
            for other in self.on[obj]:
                op = other.op
                if other.exclusive and op["inv"] >= lease.born[1] and op["ret"] < expired + lease.regrant \
                        and not self.ended_by_own(op, lease):
                    self.report("I3 regrant", obj, f"an exclusive grant {(expired + lease.regrant - op['ret']) / 1000:.1f} ms before the"
                                " end of the regrant_delay of a lease that expired", lease.op, *self.last_renewals(lease, op["inv"]), op)

    def check_counter(self):
        """Creations are counted when they are committed, and only those."""
        counted = self.left.get("created")
        if counted is None:
            return
        made = [l for l in self.leases.values() if l.status == "yes"]
        sure = sum(1 for l in made if l.tx is None or not self.txs[l.tx].get("prepared"))
        lost = sum(len(ops) for ops in self.lost.values())
        most = len(made) + lost + sum(1 for l in self.leases.values() if l.status == "maybe")
        if not sure <= counted <= most:
            self.report("counters", None, f"{counted} creations were counted, of {sure} to {most} that were committed")

    def check_release(self, op):
        lease = self.leases.get(op["args"]["lease"])
        if lease is None:
            return
        obj = lease.object
        if op["state"] == "error":
            if op["sqlstate"] in ("GT001", "GT002") and not op["args"]["keep"]:
                self.report("errors", obj, f"gt_release without keep failed with {op['sqlstate']}", op)
            elif op["sqlstate"] == "GT001":
                self.lost_early(op, lease, "gt_release with keep failed with GT001")
            return
        if op["state"] != "ok":
            return
        if not op["value"][0][0]:
            self.lost_early(op, lease, "gt_release says that it had ended")
            return
        own = self.is_own(op, lease)
        if lease.status == "no" and not own:
            self.report("I5", obj, "a lease whose creation was rolled back was released", lease.op, op)
        # a child counts until the worker has ended it, even after the release of its parent
        if any(r["status"] == "yes" and r["to"] <= op["inv"] and r is not op for r in lease.releases):
            self.report("I3", obj, "a lease was released twice", *lease.releases)
        elif op["status"] == "yes":
            twice = [r for r in lease.releases if r["status"] == "yes" and r is not op]
            if twice and r_before(op, twice):
                self.report("I3", obj, "two releases of one lease both succeeded", op, *twice)
        for c in self.cleaned[obj]:
            if lease.fence is not None and c["fence"] >= lease.fence and c["by"] < op["inv"]:
                self.report("I3", obj, "a lease was released although its object had been cleaned before", lease.op, c, op)

    def is_snapshot(self, op):
        isolation = op["isolation"] if op["tx"] is None else self.txs[op["tx"]]["isolation"]
        return op["tx"] is not None and isolation != "read committed"

    def check_get(self, op):
        lease = self.leases.get(op["args"]["lease"])
        if lease is None or self.is_snapshot(op):
            return
        state = op["value"][0][0] if op["value"] else None
        if state == "active":
            if lease.surely_over(op["inv"]) and not self.is_own(op, lease):
                self.report("I8", lease.object, "gt_lease_get shows a lease as active that is over", lease.op, op)
        else:
            self.lost_early(op, lease, f"gt_lease_get shows {state or 'no lease'}")

    def check_list(self, op):
        if self.is_snapshot(op):
            return
        shown = {r[0] for r in op["value"]}
        for lease in self.on[op["args"]["object"]]:
            if lease.id in shown:
                if lease.surely_over(op["inv"]) and not self.is_own(op, lease):
                    self.report("I8", lease.object, "gt_lease_list shows a lease as active that is over", lease.op, op)
            elif lease.asked <= op["ret"]:
                self.lost_early(op, lease, "gt_lease_list does not show it")

    def check_fence(self, op):
        lease = self.leases.get(op["args"]["lease"])
        if lease is None:
            return
        if not op["value"][0][0]:
            self.lost_early(op, lease, "gt_fence_check says no")
            return
        # a creation that was rolled back leaves its fence to the next one
        holders = [l for l in self.on[lease.object] if l.fence in (None, op["args"]["fence"])]
        if all(l.surely_over(op["inv"]) and not self.is_own(op, l) for l in holders) and not self.lost[lease.object]:
            self.report("I8", lease.object, "gt_fence_check says yes for a lease that is over", lease.op, op)
        if op["tx"] is None or op["status"] != "yes":
            return
        for other in self.on[lease.object]:
            if other.born[0] > op["ret"] and other.born[1] < op["from"] and other.tx != op["tx"]:
                self.report("I4", lease.object, "a new grant came between a fence check and the commit of its transaction",
                            op, other.op)

    def blockers(self, op, exclusive):
        """Whether any lease can have been in the way of a grant. One that is over still is, while the transaction that
        checked its fence is open."""
        obj = op["args"]["object"]
        for check in self.fenced[obj]:
            lease = self.leases.get(check["args"]["lease"])
            if (exclusive or lease is None or lease.exclusive) and check["inv"] <= op["ret"] and self.holds_until(check) >= op["inv"]:
                return True
        for other in self.on[obj]:
            if (exclusive or other.exclusive) and other.possible_in(op["inv"], op["ret"]):
                return True
            if exclusive and other.regrant and other.asked <= op["ret"] and other.status != "no" \
                    and max((d for _, d, _ in (other.parent or other).tops), default=0) + other.regrant >= op["inv"]:
                return True
        return any(o["inv"] <= op["ret"] and (exclusive or o["args"].get("exclusive"))
                   and (o["args"].get("parent") or self.may_last(o["inv"], o["ret"] + 2 * o["args"]["duration"])
                        + (o["args"].get("regrant") or 0) >= op["inv"])
                   for o in self.lost[obj])

    def holds_until(self, op):
        """What a transaction has locked it keeps to its end. A prepared one of which nobody knows the outcome may still be there."""
        tx = self.txs.get(op["tx"])
        return NEVER if tx and tx.get("prepared") and tx["outcome"] == "unknown" else op["to"]

    def check_grant(self, op):
        args, obj = op["args"], op["args"]["object"]
        if op["state"] == "error":
            if op["sqlstate"] == "GT005" and not self.blockers(op, args["exclusive"]):
                self.report("I8", obj, "GT005 although no lease can have been in the way", op)
            if op["sqlstate"] in ("GT001", "GT002"):
                parent = self.leases.get(args["parent"])
                if not args["parent"]:
                    self.report("errors", obj, f"{op['sqlstate']} from a create without parent", op)
                elif parent:
                    self.lost_early(op, parent, f"a child was refused with {op['sqlstate']}")
            elif op["sqlstate"] == "22023" and not self.other_request(op):
                self.report("errors", obj, "22023 from a create", op)
            elif op["sqlstate"] == "GT004" and not self.in_flight(op):
                self.report("errors", obj, "GT004 although no attempt can have been in flight", op)
            return
        if op["state"] != "ok":
            return
        lease, _, expires, created = op["value"][0]
        if not created:
            self.check_reuse(op, lease)
            return
        known = self.leases[lease]
        if args["duration"]:
            if not op["inv"] + args["duration"] <= expires <= op["ret"] + args["duration"]:
                self.report("I1", obj, "the deadline of a new lease is not the call's time plus its duration", op)
        elif known.parent and known.parent.surely_over(op["inv"]) and not self.is_own(op, known.parent):
            self.report("I8", obj, "a child of a parent that is over was created", known.parent.op, op)
        for other in self.on[obj]:
            if other is not known and (args["exclusive"] or other.exclusive) \
                    and other.surely_running(op["inv"], op["ret"], op) and not self.ended_by_own(op, other):
                self.report("I3 exclusive", obj, "a grant passed over a running lease", other.op, op)
        if known.key:
            for other in self.by_key[known.key]:
                if other is not known and other.surely_running(op["inv"], op["ret"], op) and not self.ended_by_own(op, other):
                    self.report("I3 request_key", obj, "a running lease with the same request_key was not returned",
                                other.op, op)

    def other_request(self, op):
        """Whether its request_key may have been that of another object, or of a lease that is otherwise exclusive."""
        args = op["args"]
        return args.get("key") and (any(
            (l.object != args["object"] or l.exclusive != args["exclusive"]) and l.possible_in(op["inv"], op["ret"])
            for l in self.by_key[(args["service"], args["key"])]) or any(
            o["args"].get("key") == args["key"] for ops in self.lost.values() for o in ops))

    def in_flight(self, op):
        return self.claims_lost or self.first_claim.get(op["args"]["object"], NEVER) <= op["ret"]

    def check_reuse(self, op, lease):
        known, args = self.leases.get(lease), op["args"]
        if known is None:
            return
        if known.key != (args["service"], args["key"]) or known.object != args["object"] or known.exclusive != args["exclusive"]:
            self.report("I3 request_key", args["object"], "the lease of another request was returned", known.op, op)
        elif known.surely_over(op["inv"]) and not self.is_own(op, known):
            self.report("I8", args["object"], "a request_key returned a lease that is over", known.op, op)

    # --- per object

    def check_pairs(self, leases, counts, rule, text):
        spans = sorted(((l.sure_interval(), n, l) for n, l in enumerate(leases) if l.status == "yes"), key=lambda s: s[0])
        running = []
        for (start, end), _, lease in spans:
            if end <= start:
                continue
            running = [(e, l) for e, l in running if e > start]
            for other_end, other in running:
                if counts(lease, other):
                    self.report(rule, lease.object, f"{text}, for {min(end, other_end) - start} us", other.op, lease.op)
            running.append((end, lease))

    def check_overlaps(self, obj):
        self.check_pairs(self.on[obj], lambda a, b: a.exclusive or b.exclusive,
                         "I3 exclusive", "an exclusive lease and another ran together")

    def check_fence_order(self, obj):
        born = sorted((l for l in self.on[obj] if l.status == "yes" and l.fence is not None), key=lambda l: l.born[1])
        seen = {}
        for lease in born:
            if lease.fence in seen:
                self.report("I4", obj, f"two grants have the fence {lease.fence}", seen[lease.fence].op, lease.op)
            seen[lease.fence] = lease
        ends = [l.born[1] for l in born]
        best, top = [], None
        for lease in born:
            top = lease if top is None or lease.fence > top.fence else top
            best.append(top)
        for lease in born:
            n = bisect.bisect_left(ends, lease.asked)
            if n and best[n - 1].fence >= lease.fence:
                self.report("I4", obj, f"fence {lease.fence} was granted after {best[n - 1].fence}", best[n - 1].op, lease.op)

    def check_cleanups(self, obj):
        leases, cleaned = self.on[obj], sorted(self.cleaned[obj], key=lambda c: c["fence"])
        seen = {}
        previous = -1
        for c in cleaned:
            if c["cleanup_id"] in seen:
                self.report("I2", obj, "a cleanup took effect twice", seen[c["cleanup_id"]], c)
            seen[c["cleanup_id"]] = c
            self.check_cleanup(obj, leases, c, previous)
            previous = c["fence"]
        last = max((l for l in leases if l.status == "yes" and l.names_cleanup and l.fence is not None),
                   key=lambda l: l.fence, default=None)
        if last is not None and previous < last.fence and not self.may_be_kept(leases, last) and not any(self.left.get(what) for what in ("leases", "garbage", "dead")) \
                and obj not in self.unsure:
            self.report("I2", obj, "garbage was never cleaned, and is not there any more", last.op, *last.releases)

    @staticmethod
    def may_be_kept(leases, last):
        return any(r["args"]["keep"] and r["to"] >= last.born[0] for l in leases for r in l.releases)

    def check_cleanup(self, obj, leases, c, previous):
        named = self.leases.get(c["lease"])
        at, by = c["at"], c["by"]
        if named is not None and named.object != obj:
            self.report("I2", obj, "the handler was given the lease of another object", named.op, c)
        if named is not None and named.status == "no":
            self.report("I5", obj, "an object was cleaned for a lease that was rolled back", named.op, c)
        between = [l for l in leases if l.fence is not None and previous < l.fence <= c["fence"] and l.status != "no"]
        unsure = self.lost[obj] or any(l.fence is None for l in leases)
        if not between and not unsure:
            self.report("I2", obj, "an object was cleaned again, without a grant in between", c)
        elif not any(l.names_cleanup for l in between) and not unsure:
            self.report("I2", obj, "an object was cleaned although no lease on it named a cleanup", c)
        for lease in leases:
            if lease.status != "yes":
                continue
            if self.claimed_by_ender(c, lease):
                continue
            if c["tx"] is not None and lease.tx == c["tx"] and lease.op["ret"] <= at and not self.ended_by_own(
                    {"tx": c["tx"], "seq": NEVER}, lease) and lease.d_last() > by:
                self.report("I1", obj, "an object was cleaned after a lease on it was granted in the same transaction", lease.op, c)
            if lease.surely_running(at, by):
                self.report("I1", obj, f"a cleanup started while an acknowledged lease had {lease.d_low(at) - by} us to run",
                            lease.op, *self.last_renewals(lease, at), c)
            elif lease.fence is not None and lease.fence <= c["fence"] and lease.d_last() > by \
                    and not lease.maybe_released(by):
                self.report("I1", obj, f"a cleanup started {lease.d_last() - by} us before the deadline of a lease that it knew",
                            lease.op, *self.last_renewals(lease, at), c)
            if lease.fence is not None and lease.born[1] < at and lease.fence > c["fence"]:
                self.report("I4", obj, "a cleanup was given an old fence", lease.op, c)
        for lease in leases:
            for r in lease.releases:
                if r["args"]["keep"] and r["status"] == "yes" and lease.fence is not None and lease.fence <= c["fence"] \
                        and r["to"] < at and not self.lost[obj] and not any(
                            l.names_cleanup and l.status != "no" and l.born[1] > r["from"] and l.born[0] < at
                            for l in leases):
                    self.report("I2", obj, "an object was cleaned that had been released with keep", lease.op, r, c)

    def check_guards(self):
        for lease in self.leases.values():
            if lease.tx is None or lease.fence is None:
                continue
            if lease.status == "no" and lease.id in self.guards:
                self.report("I5", lease.object, "a row was committed, and the lease in its transaction was not", lease.op)


def is_earlier(op, viewer):
    """Whether it is a call before that one, in the same transaction."""
    return viewer is not None and op["tx"] is not None and op["tx"] == viewer["tx"] and op["seq"] < viewer["seq"]


def r_before(op, others):
    """So that a pair is reported once."""
    return all((op["inv"], op["client"]) < (o["inv"], o["client"]) for o in others)


def figures(history):
    """What a run consisted of."""
    checker = Checker(history)
    checker.load()
    calls = len(checker.ops)
    failed = sum(1 for op in checker.ops if op["status"] != "yes")
    released = {l.id for l in checker.leases.values() if any(r["status"] != "no" for r in l.ends())}
    expired = sum(1 for l in checker.leases.values() if l.status == "yes" and l.id not in released)
    worked = sum(1 for c in checker.all_cleaned if c["lease"] not in released)
    away = {"outages": len(checker.outages)} if checker.outages else {}
    return {**away, "calls": calls, "failed": failed, "leases": len(checker.leases), "expired": expired,
            "cleaned": len(checker.all_cleaned), "cleaned after expiry": worked,
            "by handlers": sum(1 for op in checker.ops if str(op["client"]).startswith("worker")),
            "acknowledged": len(checker.all_cleaned) - sum(1 for r in history if r["t"] == "clean"),
            "transactions": len(checker.txs),
            "rolled back": sum(1 for t in checker.txs.values() if t["outcome"] != "committed")}


def describe(record, base):
    """One line for a human."""
    ms = lambda t: f"{(t - base) / 1000:.3f}"
    if record["t"] == "clean":
        return (f"{ms(record['at']):>12} ms  cleanup {record['cleanup_id']} of {record['object']}: lease {record['lease']},"
                f" fence {record['fence']}, attempt {record['attempt']}")
    if record["t"] == "tx":
        return f"{ms(record['begin']):>12} ms  transaction {record['tx']} {record['isolation']}: {record['outcome']}"
    args = ", ".join(f"{k} {v}" for k, v in record["args"].items() if v is not None and v is not False)
    answer = record.get("sqlstate") if record["state"] != "ok" else \
        "; ".join(", ".join(f"@{ms(v)}" if isinstance(v, int) and v > 10 ** 15 else str(v) for v in row)
                  for row in record["value"])
    where = "" if record["tx"] is None else f" in transaction {record['tx']}, took effect: {record['status']}" \
        f" [{ms(record['from'])} .. {ms(record['to'])}]"
    return (f"{ms(record['inv']):>12} .. {ms(record['ret'])} ms  client {record['client']} {record['kind']}({args})"
            f" -> {answer}{where}")


def explain(findings, history, limit=5):
    """A report of the first findings of each rule."""
    base = min((r["inv"] for r in history if r["t"] == "op"), default=0)
    lines = [f"{len(findings)} violations: " + ", ".join(
        f"{n} of {rule}" for rule, n in collections.Counter(f[0] for f in findings).most_common())]
    for rule, obj, text, records in findings[:limit]:
        lines.append(f"\n  {rule} on {obj}: {text}")
        shown = sorted({id(r): r for r in records}.values(), key=lambda r: r.get("inv", r.get("at", r.get("begin", 0))))
        lines += ["    " + describe(r, base) for r in shown]
    return "\n".join(lines)
