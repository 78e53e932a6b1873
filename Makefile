# garbagetruck: leases and their cleanup in PostgreSQL
#
#   make && sudo make install      build and install the extension (PG_CONFIG=... picks the server)
#   make demo                      see it work on a private server
#   make test                      run every test on private servers
#
# `make demo` and `make test` install the packages that they need themselves; everything else needs pg_config.

EXTENSION = garbagetruck
MODULE_big = garbagetruck
DATA = garbagetruck--1.0.sql

OBJS = \
	src/adopt.o \
	src/allow.o \
	src/arguments.o \
	src/busy.o \
	src/check.o \
	src/choose.o \
	src/claim.o \
	src/clean.o \
	src/clock.o \
	src/consistency.o \
	src/counts.o \
	src/crash.o \
	src/create.o \
	src/created.o \
	src/database.o \
	src/due.o \
	src/ending.o \
	src/execute.o \
	src/expiry.o \
	src/fail.o \
	src/failures.o \
	src/fence.o \
	src/forecast.o \
	src/garbage.o \
	src/garbagetruck.o \
	src/grant.o \
	src/handler.o \
	src/health.o \
	src/health_limits.o \
	src/health_processes.o \
	src/health_put.o \
	src/health_work.o \
	src/history.o \
	src/hold.o \
	src/ids.o \
	src/launcher.o \
	src/lease.o \
	src/leftovers.o \
	src/library.o \
	src/list.o \
	src/lock.o \
	src/look.o \
	src/low.o \
	src/margins.o \
	src/marks.o \
	src/may.o \
	src/mend.o \
	src/metrics.o \
	src/notify.o \
	src/observe.o \
	src/overdue.o \
	src/owner.o \
	src/path.o \
	src/pause.o \
	src/place.o \
	src/plan.o \
	src/point.o \
	src/process.o \
	src/queue.o \
	src/rates.o \
	src/rearm.o \
	src/rebuild.o \
	src/reclaim.o \
	src/record.o \
	src/redrive.o \
	src/register.o \
	src/relations.o \
	src/release.o \
	src/renew.o \
	src/request.o \
	src/rights.o \
	src/role.o \
	src/run.o \
	src/scan.o \
	src/settings.o \
	src/shmem.o \
	src/slots.o \
	src/start.o \
	src/table.o \
	src/tally.o \
	src/tampered.o \
	src/text.o \
	src/transaction.o \
	src/translate.o \
	src/trim.o \
	src/turns.o \
	src/views.o \
	src/way.o \
	src/worker.o \
	src/write.o \
	src/writing.o

OUR_HEADERS = \
	src/base/arguments.h \
	src/base/caller.h \
	src/base/check.h \
	src/base/compat.h \
	src/base/fail.h \
	src/base/garbagetruck.h \
	src/base/library.h \
	src/base/point.h \
	src/base/settings.h \
	src/base/text.h \
	src/base/transaction.h \
	src/base/workers.h \
	src/clean/busy.h \
	src/clean/choose.h \
	src/clean/clean.h \
	src/clean/cleaner.h \
	src/clean/crash.h \
	src/clean/marks.h \
	src/clean/record.h \
	src/clean/trim.h \
	src/control/adopt.h \
	src/control/consistency.h \
	src/control/mend.h \
	src/garbage/garbage.h \
	src/garbage/history.h \
	src/garbage/low.h \
	src/garbage/notify.h \
	src/garbage/objects.h \
	src/handler/execute.h \
	src/handler/failures.h \
	src/handler/handler.h \
	src/handler/leftovers.h \
	src/handler/path.h \
	src/handler/plan.h \
	src/handler/rates.h \
	src/handler/role.h \
	src/handler/run.h \
	src/handler/slots.h \
	src/handler/tally.h \
	src/handler/turns.h \
	src/handler/use.h \
	src/lease/created.h \
	src/lease/ending.h \
	src/lease/expiry.h \
	src/lease/grant.h \
	src/lease/hold.h \
	src/lease/lease.h \
	src/lease/rearm.h \
	src/lease/rebuild.h \
	src/lease/request.h \
	src/lease/start.h \
	src/lease/start_record.h \
	src/process/commands.h \
	src/process/launcher.h \
	src/process/look.h \
	src/process/process.h \
	src/process/worker.h \
	src/queue/claim.h \
	src/queue/queue.h \
	src/report/health.h \
	src/report/health_checks.h \
	src/report/health_put.h \
	src/report/overdue.h \
	src/rights/may.h \
	src/rights/owner.h \
	src/rights/place.h \
	src/rights/right.h \
	src/rights/rights.h \
	src/rights/translate.h \
	src/rights/writing.h \
	src/shared/anchor.h \
	src/shared/clock.h \
	src/shared/counts.h \
	src/shared/due.h \
	src/shared/ids.h \
	src/shared/in_hand.h \
	src/shared/margins.h \
	src/shared/observe.h \
	src/shared/parts.h \
	src/shared/shmem.h \
	src/shared/wake.h \
	src/shared/where.h \
	src/table/records.h \
	src/table/relations.h \
	src/table/scan.h \
	src/table/schema.h \
	src/table/table.h \
	src/table/table_internal.h \
	src/table/tampered.h \
	src/table/versions.h

# Files name their headers by room: #include "lease/grant.h".
PG_CPPFLAGS += -I$(srcdir)/src

# FAULTS=1 compiles in the named fault points of the tests. A normal build has none.
ifdef FAULTS
PG_CPPFLAGS += -DGT_FAULT_POINTS
endif

EXTRA_CLEAN = results regression.diffs regression.out output_iso tmp_check

PG_CONFIG ?= pg_config

# pg_config may be absent (before the set-up of the tests), or know of a server whose development files are absent.
PGXS := $(wildcard $(shell $(PG_CONFIG) --pgxs 2>/dev/null))

ifneq ($(PGXS),)
include $(PGXS)
$(OBJS): $(OUR_HEADERS)
else
all install installdirs uninstall clean:
	@echo "$(PG_CONFIG) knows of no development files of a server: install postgresql-server-dev-NN," >&2
	@echo "or name another one with PG_CONFIG=/path/to/pg_config" >&2
	@exit 1
endif

.PHONY: demo test lint bench history attacks sidecar-soak sanitize assertions majors sidecar sidecar-clients install-sidecar

demo:
	@test/demo/run

test:
	@test/run

# What the linters say; make test asks them, too.
lint:
	@test/lint/run

# The figures against home-made equivalents: minutes to hours, and a machine of one's own.
bench:
	@test/bench/run

# A hundred recorded histories under faults, checked against the guarantees (make test runs three).
history:
	@test/run history-100

# The attacks of one role on another, longer than in make test: all of them again and again, in random order, side by side.
attacks:
	@test/run attacks-long

# Honest clients of the sidecar beside clients and cleanup targets that misbehave in every way; MINUTES=30.
sidecar-soak:
	@test/sidecar/run soak --minutes $(or $(MINUTES),30)

# The tests of functions, workers and the wire alone, under the address and undefined behaviour sanitizers.
sanitize:
	@test/run sanitize

# The tests on a server with assertions, built from the distribution's source package (ten minutes; DIR=... keeps it).
assertions:
	@test/assertions $(DIR)

# The tests on the PostgreSQL of every supported Debian release, each in a new chroot (as root).
majors:
	@test/majors

# The sidecar is a product of its own: it links no server code, and the extension does not need it.
sidecar:
	@$(MAKE) -C src/sidecar

# It with gRPC clients of other makes (Python, Node, Go, Java), directly and through nginx and HAProxy, while sidecars restart.
sidecar-clients:
	@test/run sidecar-clients

install-sidecar:
	@$(MAKE) -C src/sidecar install
