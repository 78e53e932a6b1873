/*-------------------------------------------------------------------------
 *
 * buffered.c
 *	  Renewals that are kept in shared memory (promises I1 and I3).
 *
 * A renewal is acknowledged by a write to shared memory.  What it promises must
 * outlive the server, though memory does not, and no ending may pass it by.
 *
 * What is kept.  An entry has the deadline that was acknowledged last, and by when.
 * It counts for a row of this run that was not renewed later than the entry
 * (gt_renewal_deadline(), which deadline.c calls).
 * A change that may shorten the lease (gt_lease_update) writes a renewed_at that is
 * later than that of the entry: if it commits the entry counts no more, if it
 * aborts it does, and nobody has to be told.  An abort never takes anything out.
 *
 * After a crash.  The run after this one lets no lease end before
 * greatest(deadline in its row, start) + G.  So an entry is written only for a
 * committed row of this run whose commit has been flushed (and has reached the
 * standbys for which the session's own commits wait), while this run's
 * restart_grace is on record in a commit that was flushed too, and only
 *
 *		up to now + the duration in that row, and
 *		up to its deadline + least(duration, restart_grace): `bound`
 *
 * Any other renewal is written to the table (renew.c), and so are all while
 * nobody moves the row's deadline: correctness never depends on a worker.  A crash
 * at any step leaves the table, which is right by this rule; shared memory begins
 * empty.  The rows of all renewals are of one kind, so a standby, a base backup and
 * PITR are runs like any other; CREATE DATABASE makes rows of a foreign run.
 *
 * Against endings.  Locks: the row's lock first, then that of the partition; under
 * that at most the content lock of the row's page, for a look.
 *
 *	- A lease that is over by the clock stays so: who judges reads the clock first,
 *	  then the entry under the partition's lock; who renews takes the lock, then
 *	  reads the clock.  If the judge was first, the clock of the renewal is not
 *	  earlier, and it finds the lease over, too; else the judge finds the renewal.
 *	- Whoever ends a running lease, changes its duration or renews it in the table
 *	  locks its row first and then closes the entry: from there on nothing is
 *	  acknowledged without a look at the row.  Who looks does so under the
 *	  partition's lock: a version that nobody has locked or replaced is the newest,
 *	  and a later lock finds the entry.  Else the renewal waits for whoever has it,
 *	  and looks again.  A lock whose transaction has ended is none, however it ended:
 *	  in a savepoint, by a killed process, in two phases.  So there are no marks to
 *	  be cleared; an entry that was closed by one that was undone is opened by the
 *	  next renewal.
 *
 * Where the table of entries (shared/renewals.c) has no room, renewals are written.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/caller.h"
#include "base/check.h"
#include "base/settings.h"
#include "lease/buffered.h"
#include "lease/start.h"
#include "shared/clock.h"
#include "shared/counts.h"
#include "shared/margins.h"
#include "shared/renewals.h"
#include "table/relations.h"

/* See buffered.h. */
bool
gt_renewals_buffered(void)
{
	return gt_renewals == GT_RENEWALS_BUFFERED && gt_renewals_kept();
}

/*
 * The file of the table of leases.  What could have been done to it, or put on it,
 * is judged as if it were written (gt_open() raises), once for each change there.
 */
static Oid
file_of_leases(void)
{
	static Oid	file = InvalidOid;
	static uint64 known_at;
	static int	known_as;
	GtTable		leases;

	if (OidIsValid(file) && known_at == gt_table_changes && known_as == SessionReplicationRole)
		return file;
	file = InvalidOid;
	gt_open(&leases, GT_LEASE, RowExclusiveLock);
	file = leases.rel->rd_rel->relfilenode;
	known_at = gt_table_changes;
	known_as = SessionReplicationRole;
	gt_close(&leases);
	return file;
}

/* Services that callers act for, as was seen when their leases were renewed by their rows; by hashes of the names. */
#define COVERED 256

static struct Covered
{
	uint64		caller;			/* 0: free */
	uint64		service;
}			covered[COVERED];

/* The caller's name; 0: it is the role itself, which is not judged by service. */
static uint64
hash_of_caller(void)
{
	return gt_caller[0] == '\0' ? 0 : gt_service_hash(gt_caller) | 1;
}

static struct Covered *
covered_place(uint64 caller, uint64 service)
{
	return &covered[hash_combine64(caller, service) % COVERED];
}

/* May the caller renew leases of this service, as far as is known? */
static bool
is_covered(uint64 caller, uint64 service)
{
	const struct Covered *c = covered_place(caller, service);

	return caller == 0 || (c->caller == caller && c->service == service);
}

static void
remember_covered(uint64 caller, uint64 service)
{
	if (caller != 0)
		*covered_place(caller, service) = (struct Covered) {caller, service};
}

typedef struct Terms
{
	Oid			owner;			/* whose leases the caller may renew */
	Oid			file;
	int64		duration;		/* 0: each its own */
	uint64		caller;
	bool		any_service;
	uint64		service;
} Terms;

/* By the entry alone. Lock held, exclusively; the clock was read under it. */
static bool
renew_entry(GtRenewal *e, TimestampTz now, const Terms *terms, TimestampTz *deadline)
{
	int64		duration = terms->duration == 0 ? e->duration : terms->duration;

	if (now >= e->deadline || duration > e->duration || now + duration > e->bound ||
		e->owner != terms->owner || e->file != terms->file ||
		(!terms->any_service && e->service != terms->service) || !is_covered(terms->caller, e->service) ||
		!gt_margin_is_known(e->service, e->deadline - now, e->duration, now))
		return false;
	*deadline = Max(e->deadline, now + duration);
	e->deadline = *deadline;
	e->renewed_at = Max(e->renewed_at, now);
	return true;
}

/* Some of one partition, by their numbers; returns the owner of one that is another's, whose were left. */
static Oid
try_partition(GtTry *tries, const uint64 *hashes, const int *numbers, int n, const Terms *terms, int *done)
{
	uint64		part = hashes[numbers[0]];
	Oid			other = InvalidOid;
	TimestampTz now;
	int			i;

	gt_renewals_lock(part);
	now = gt_now();
	for (i = 0; i < n; i++)
	{
		GtTry	   *t = &tries[numbers[i]];
		GtRenewal  *e = t->ok ? NULL : gt_renewal_find(hashes[numbers[i]], t->id);
		bool		again;

		if (e == NULL)
			continue;
		if (e->owner != terms->owner)
			other = e->owner;
		again = n > 1 && e->renewed_at == now;	/* a batch may name a lease twice */
		t->now = now;
		t->ok = renew_entry(e, now, terms, &t->deadline);
		if (t->ok && !again)
		{
			e->renewals++;
			(*done)++;
		}
	}
	gt_renewals_unlock(part);
	return other;
}

/* Puts the numbers of those that have an id into the order of partitions; begin[i], of GT_RENEWALS_PARTS + 1: where those of one begin. */
static void
sort_by_partition(const GtTry *tries, int n, uint64 *hashes, int *numbers, int *begin)
{
	int			next[GT_RENEWALS_PARTS];
	int			i;

	memset(begin, 0, (GT_RENEWALS_PARTS + 1) * sizeof(int));
	for (i = 0; i < n; i++)
		if (tries[i].id != NULL)
		{
			hashes[i] = gt_renewal_hash(tries[i].id);
			begin[hashes[i] % GT_RENEWALS_PARTS + 1]++;
		}
	for (i = 0; i < GT_RENEWALS_PARTS; i++)
		begin[i + 1] += begin[i];
	memcpy(next, begin, sizeof(next));
	for (i = 0; i < n; i++)
		if (tries[i].id != NULL)
			numbers[next[hashes[i] % GT_RENEWALS_PARTS]++] = i;
}

/* Those of all partitions; as try_partition(). */
static Oid
try_all(GtTry *tries, const uint64 *hashes, const int *numbers, const int *begin, const Terms *terms, int *done)
{
	Oid			other = InvalidOid;
	int			i;

	for (i = 0; i < GT_RENEWALS_PARTS; i++)
		if (begin[i] < begin[i + 1])
		{
			Oid			of = try_partition(tries, hashes, numbers + begin[i], begin[i + 1] - begin[i], terms, done);

			if (OidIsValid(of))
				other = of;
			CHECK_FOR_INTERRUPTS();
		}
	return other;
}

/*
 * An entry is of a row that was written here, in this run: its owner is who has
 * that OID here, also in a copy.
 */
static bool
acts_for(Oid owner)
{
	return OidIsValid(owner) && has_privs_of_role(GetUserId(), owner);
}

/* See buffered.h. Most callers' leases are of one role, as the last one's were. */
int
gt_buffered_try(GtTry *tries, int n, int64 duration, const char *service)
{
	static Oid	last_owner = InvalidOid;
	Terms		terms;
	uint64		hash_of_one;
	uint64	   *hashes = &hash_of_one;
	int			zero = 0;
	int		   *numbers = &zero;
	int			begin[GT_RENEWALS_PARTS + 1];
	int			done = 0;
	int			round;

	if (!gt_renewals_buffered() || (n == 1 && tries->id == NULL))
		return 0;
	terms.owner = acts_for(last_owner) ? last_owner : GetUserId();
	terms.file = file_of_leases();
	terms.duration = duration;
	terms.caller = hash_of_caller();
	terms.any_service = service == NULL;
	terms.service = service == NULL ? 0 : gt_service_hash(service);
	if (n == 1)
		hash_of_one = gt_renewal_hash(tries->id);
	else
	{
		hashes = gt_alloc_array(n, sizeof(uint64));
		numbers = gt_alloc_array(n, sizeof(int));
		sort_by_partition(tries, n, hashes, numbers, begin);
	}
	for (round = 0; round < 2; round++)
	{
		Oid			other = n == 1 ? try_partition(tries, hashes, numbers, 1, &terms, &done) :
			try_all(tries, hashes, numbers, begin, &terms, &done);

		last_owner = terms.owner;
		if (!acts_for(other))
			break;
		terms.owner = other;
	}
	if (n > 1)
	{
		pfree(hashes);
		pfree(numbers);
	}
	if (done > 0)
		gt_count_renewed_now(done);
	return done;
}

/* So much of a lease's life the next run gives back at least, as this one's restart_grace is on record. */
static int64
promised_grace(int64 duration)
{
	return Min(duration, (int64) gt_restart_grace * 1000);
}

/* What is set in an entry by the row of its lease. */
static void
fill(GtRenewal *e, const GtTable *leases, const GtRow *row, uint64 service)
{
	e->owner = GT_OID(row, L_OWNER);
	e->file = leases->rel->rd_rel->relfilenode;
	e->duration = GT_INT64(row, L_DURATION);
	e->regrant_delay = row->isnull[L_REGRANT_DELAY] ? -1 : GT_INT64(row, L_REGRANT_DELAY);
	e->bound = GT_TIME(row, L_DEADLINE) + promised_grace(e->duration);
	e->service = service;
}

/* With the lock held, by a row that is the newest. */
static GtBuffered
renew_locked(uint64 hash, const GtTable *leases, const GtRow *row, uint64 service, int64 duration, TimestampTz now,
			 TimestampTz *before, TimestampTz *deadline)
{
	pg_uuid_t  *id = DatumGetUUIDP(row->v[L_ID]);
	GtRenewal  *e = gt_renewal_find(hash, id);
	TimestampTz bound = GT_TIME(row, L_DEADLINE) + promised_grace(GT_INT64(row, L_DURATION));

	*before = GT_TIME(row, L_DEADLINE);
	if (gt_renewal_counts(e, GT_TIME(row, L_RENEWED_AT)))
		*before = Max(*before, e->deadline);
	if (now >= *before)
		return GT_BUFFERED_EXPIRED;
	*deadline = Max(*before, now + duration);
	if (*deadline > bound)
		return GT_BUFFERED_WRITE;
	if (e == NULL)
		e = gt_renewal_add(hash, id, GT_OID(row, L_OWNER), now);
	if (e == NULL)
		return GT_BUFFERED_WRITE;
	fill(e, leases, row, service);
	e->deadline = *deadline;
	e->renewed_at = Max(Max(e->renewed_at, GT_TIME(row, L_RENEWED_AT)), now);
	e->renewals = Max(e->renewals, GT_INT64(row, L_RENEWALS)) + 1;
	return GT_BUFFERED_DONE;
}

/* See buffered.h. */
GtBuffered
gt_buffered_renew(GtTable *leases, const GtRow *row, const GtVersion *version, int64 duration,
				  TimestampTz *now, TimestampTz *deadline)
{
	char	   *service = TextDatumGetCString(row->v[L_SERVICE_ID]);
	uint64		service_hash = gt_service_hash(service);
	int64		own = GT_INT64(row, L_DURATION);
	uint64		hash;
	TimestampTz before = 0;
	GtBuffered	result = GT_BUFFERED_CHANGED;

	if (duration == 0)
		duration = own;
	if (version->own || duration > own ||
		GT_INT64(row, L_RUN) != gt_run() || !gt_start_is_recorded())
		return GT_BUFFERED_WRITE;
	gt_flush_commit_of(version);
	hash = gt_renewal_hash(DatumGetUUIDP(row->v[L_ID]));
	gt_renewals_lock(hash);
	*now = gt_now();			/* before the look: whoever locks the row after that reads the clock later, too */
	if (gt_is_unchanged(leases, version))
		result = renew_locked(hash, leases, row, service_hash, duration, *now, &before, deadline);
	gt_renewals_unlock(hash);
	if (result == GT_BUFFERED_DONE)
	{
		remember_covered(hash_of_caller(), service_hash);
		gt_count_renewed_now(1);
		gt_observe_renewal(service, before - *now, own);
	}
	return result;
}
