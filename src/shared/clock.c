/*-------------------------------------------------------------------------
 *
 * clock.c
 *	  The clock by which leases are judged.
 *
 * gt_clock() is an anchor plus CLOCK_MONOTONIC, which all processes of a machine
 * share.  The anchor is drawn once in the life of the postmaster
 * process, so that a crash of a backend does not move it: the system clock, or
 * what the file garbagetruck.clock in the data directory says where that is
 * later (by at most a day: a clock that was wrong by more is not believed).  The
 * launcher writes that file when it wakes up and when it ends, then with the run
 * that has gone down in order (see nothing_is_ahead() in start.c).  A standby has no
 * launcher: the first one who is going to write after a recovery moves the anchor
 * on to the last commit that was replayed, before anything has been granted
 * (gt_clock_settle).  Without preload there is nobody to keep an anchor:
 * gt_clock() is the system clock.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "utils/timestamp.h"

#include "shared/anchor.h"
#include "shared/clock.h"

#define CLOCK_FILE "garbagetruck.clock"

PG_FUNCTION_INFO_V1(gt_clock);

static GtClock *shared_clock = NULL;	/* in shared memory; NULL: not preloaded */
static LWLock *clock_lock;

static int64
monotonic_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64) ts.tv_sec * USECS_PER_SEC + ts.tv_nsec / 1000;
}

/* The clock, and the run that ends with it; 0: it goes on. */
static bool
write_file(TimestampTz now, int64 run)
{
	FILE	   *file = AllocateFile(CLOCK_FILE ".tmp", "w");
	bool		done = file != NULL &&
		fprintf(file, "%lld %lld\n", (long long) now, (long long) run) > 0 &&
		FreeFile(file) == 0 &&
		rename(CLOCK_FILE ".tmp", CLOCK_FILE) == 0;

	if (!done)
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", CLOCK_FILE)));
	return done;
}

/*
 * What to add to CLOCK_MONOTONIC. Postmaster only; alike for its whole life.
 * ended: the run that went down in order before, if the clock goes on from it;
 * the file does not say so twice.
 */
static TimestampTz
anchor_of(TimestampTz *before, int64 *ended)
{
	static int64 anchor = 0;
	static TimestampTz seen = 0;
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz last = 0;
	long long	run = 0;
	FILE	   *file;

	*before = seen;
	*ended = 0;
	if (anchor != 0)
		return anchor;
	file = AllocateFile(CLOCK_FILE, "r");
	if (file != NULL)
	{
		long long	value;

		if (fscanf(file, "%lld %lld", &value, &run) >= 1)
			last = value;
		FreeFile(file);
	}
	if (last <= now)
		*before = seen = last;
	if (last > now + USECS_PER_DAY)
		ereport(LOG,
				(errmsg("garbagetruck: the clock of the last run was ahead by more than a day, and is not believed"),
				 errdetail("It was at %s when the server went down; gt_clock() starts at the system clock.",
						   timestamptz_to_str(last)),
				 errhint("If it is the system clock that is wrong now, stop the server, set it and start again.")));
	else if (last > now)
	{
		ereport(LOG,
				(errmsg("garbagetruck: the system clock is behind the clock of the last run"),
				 errdetail("gt_clock() starts at %s.", timestamptz_to_str(last))));
		now = last;
	}
	anchor = now - monotonic_us();
	if (run != 0 && last <= now && write_file(last, 0))
		*ended = run;
	return anchor;
}

void
gt_clock_share(GtClock *shared, LWLock *lock, bool first)
{
	if (first)
	{
		if (!pg_strong_random(&shared->run, sizeof(shared->run)))
			ereport(ERROR, (errmsg("could not draw a random number for this server run")));
		shared->base = anchor_of(&shared->before, &shared->ended);
	}
	shared_clock = shared;
	clock_lock = lock;
}

/* Keeps the clock for the next start. Failure is logged: it costs safety only when the system clock is set back. */
void
gt_clock_record(void)
{
	static TimestampTz written = 0;
	TimestampTz now = gt_now();

	if (!proc_exit_inprogress && written != 0 && now < written + 10 * USECS_PER_SEC)
		return;
	written = now;
	(void) write_file(now, proc_exit_inprogress ? shared_clock->run : 0);
}

/*
 * After the promotion of a standby, whose system clock may
 * be behind that of the server before: the clock goes on from the last commit
 * that was replayed.  Nothing has been judged or granted by then.
 */
void
gt_clock_settle(void)
{
	TimestampTz last;
	int64		behind;

	if (shared_clock == NULL || shared_clock->settled || RecoveryInProgress())
		return;
	LWLockAcquire(clock_lock, LW_EXCLUSIVE);
	last = GetLatestXTime();
	behind = last - gt_now();
	if (!shared_clock->settled && last != 0 && behind > 0 && behind <= USECS_PER_DAY)
		shared_clock->base += behind;
	shared_clock->settled = true;
	LWLockRelease(clock_lock);
}

/* gt_clock(): see the top of the file. */
TimestampTz
gt_now(void)
{
	if (shared_clock != NULL)
		return shared_clock->base + monotonic_us();
	return GetCurrentTimestamp();
}

Datum
gt_clock(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(gt_now());
}
