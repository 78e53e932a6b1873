# garbagetruck: leases and their cleanup in PostgreSQL
#
#   make && sudo make install      build and install the extension (PG_CONFIG=... picks the server, in both)
#   make demo                      see it work on a private server
#   make test                      run every test on private servers
#   make installcheck              test it on the server that is installed and runs
#   make deb, make rpm             packages, see src/packaging/README.md
#
# `make demo`, `make test` and `make deb` install the packages that they need themselves; everything else needs pg_config.

EXTENSION = garbagetruck
MODULE_big = garbagetruck
DATA = garbagetruck--1.0.sql

OBJS = \
	src/base/arguments.o \
	src/base/check.o \
	src/base/fail.o \
	src/base/library.o \
	src/base/point.o \
	src/base/settings.o \
	src/base/text.o \
	src/base/transaction.o \
	src/shared/clock.o \
	src/shared/counts.o \
	src/shared/due.o \
	src/shared/ids.o \
	src/shared/margins.o \
	src/shared/observe.o \
	src/shared/prepared.o \
	src/shared/quota.o \
	src/shared/renewals.o \
	src/shared/rows_due.o \
	src/shared/shmem.o \
	src/table/delete.o \
	src/table/entries.o \
	src/table/find.o \
	src/table/leaves.o \
	src/table/lock.o \
	src/table/look.o \
	src/table/low.o \
	src/table/numbers.o \
	src/table/relations.o \
	src/table/scan.o \
	src/table/table.o \
	src/table/tampered.o \
	src/table/write.o \
	src/rights/allow.o \
	src/rights/may.o \
	src/rights/owner.o \
	src/rights/place.o \
	src/rights/rights.o \
	src/rights/translate.o \
	src/rights/writing.o \
	src/handler/admit.o \
	src/handler/beside.o \
	src/handler/command.o \
	src/handler/execute.o \
	src/handler/failures.o \
	src/handler/handler.o \
	src/handler/leftovers.o \
	src/handler/others.o \
	src/handler/path.o \
	src/handler/plan.o \
	src/handler/rates.o \
	src/handler/register.o \
	src/handler/role.o \
	src/handler/run.o \
	src/handler/slots.o \
	src/handler/tally.o \
	src/handler/timers.o \
	src/handler/turns.o \
	src/garbage/born.o \
	src/garbage/garbage.o \
	src/garbage/history.o \
	src/garbage/notify.o \
	src/garbage/order.o \
	src/lease/buffered.o \
	src/ttl/aside.o \
	src/ttl/batch.o \
	src/ttl/create.o \
	src/ttl/delete.o \
	src/ttl/named.o \
	src/ttl/passed.o \
	src/ttl/rows.o \
	src/ttl/scan.o \
	src/ttl/table_type.o \
	src/ttl/target.o \
	src/ttl/ttl.o \
	src/ttl/wake.o \
	src/lease/create.o \
	src/lease/created.o \
	src/lease/deadline.o \
	src/lease/ending.o \
	src/lease/expiry.o \
	src/lease/fence.o \
	src/lease/grant.o \
	src/lease/hold.o \
	src/lease/lease.o \
	src/lease/orphans.o \
	src/lease/pick.o \
	src/lease/rearm.o \
	src/lease/rebuild.o \
	src/lease/release.o \
	src/lease/renew.o \
	src/lease/request.o \
	src/lease/start.o \
	src/lease/way.o \
	src/queue/claim.o \
	src/queue/queue.o \
	src/queue/redrive.o \
	src/clean/busy.o \
	src/clean/choose.o \
	src/clean/clean.o \
	src/clean/crash.o \
	src/clean/marks.o \
	src/clean/optimistic.o \
	src/clean/reclaim.o \
	src/clean/record.o \
	src/clean/rows.o \
	src/clean/take.o \
	src/clean/trim.o \
	src/process/commands.o \
	src/process/launcher.o \
	src/process/look.o \
	src/process/passes.o \
	src/process/prepared.o \
	src/process/process.o \
	src/process/worker.o \
	src/control/adopt.o \
	src/control/consistency.o \
	src/control/mend.o \
	src/control/pause.o \
	src/report/forecast.o \
	src/report/health.o \
	src/report/health_limits.o \
	src/report/health_prepared.o \
	src/report/health_processes.o \
	src/report/health_put.o \
	src/report/health_work.o \
	src/report/legible.o \
	src/report/list.o \
	src/report/metrics.o \
	src/report/overdue.o \
	src/report/page.o \
	src/report/ttls.o \
	src/report/views.o \
	src/garbagetruck.o

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
	src/shared/after_commit.h \
	src/shared/anchor.h \
	src/shared/clock.h \
	src/shared/counters.h \
	src/shared/counts.h \
	src/shared/due.h \
	src/shared/ids.h \
	src/shared/in_hand.h \
	src/shared/long_busy.h \
	src/shared/low_end.h \
	src/shared/margins.h \
	src/shared/observe.h \
	src/shared/observe_lock.h \
	src/shared/parts.h \
	src/shared/prepared.h \
	src/shared/quota.h \
	src/shared/renewals.h \
	src/shared/renewed.h \
	src/shared/rows_due.h \
	src/shared/shmem.h \
	src/shared/turn.h \
	src/shared/wake.h \
	src/shared/where.h \
	src/table/delete.h \
	src/table/entries.h \
	src/table/find.h \
	src/table/leaves.h \
	src/table/look.h \
	src/table/low.h \
	src/table/numbers.h \
	src/table/records.h \
	src/table/relations.h \
	src/table/scan.h \
	src/table/schema.h \
	src/table/table.h \
	src/table/table_internal.h \
	src/table/tampered.h \
	src/table/versions.h \
	src/rights/may.h \
	src/rights/owner.h \
	src/rights/place.h \
	src/rights/right.h \
	src/rights/rights.h \
	src/rights/roles.h \
	src/rights/translate.h \
	src/rights/writing.h \
	src/handler/admit.h \
	src/handler/beside.h \
	src/handler/command.h \
	src/handler/execute.h \
	src/handler/failures.h \
	src/handler/handler.h \
	src/handler/leftovers.h \
	src/handler/others.h \
	src/handler/path.h \
	src/handler/plan.h \
	src/handler/rates.h \
	src/handler/role.h \
	src/handler/run.h \
	src/handler/slots.h \
	src/handler/tally.h \
	src/handler/timers.h \
	src/handler/turns.h \
	src/handler/use.h \
	src/garbage/garbage.h \
	src/garbage/history.h \
	src/garbage/notify.h \
	src/garbage/objects.h \
	src/garbage/order.h \
	src/lease/buffered.h \
	src/ttl/batch.h \
	src/ttl/delete.h \
	src/ttl/named.h \
	src/ttl/passed.h \
	src/ttl/rows.h \
	src/ttl/scan.h \
	src/ttl/target.h \
	src/ttl/ttl.h \
	src/ttl/wake.h \
	src/lease/created.h \
	src/lease/deadline.h \
	src/lease/ending.h \
	src/lease/expiry.h \
	src/lease/grant.h \
	src/lease/hold.h \
	src/lease/lease.h \
	src/lease/orphans.h \
	src/lease/pick.h \
	src/lease/rearm.h \
	src/lease/rebuild.h \
	src/lease/request.h \
	src/lease/start.h \
	src/lease/start_record.h \
	src/queue/queue.h \
	src/clean/busy.h \
	src/clean/choose.h \
	src/clean/clean.h \
	src/clean/cleaner.h \
	src/clean/crash.h \
	src/clean/marks.h \
	src/clean/optimistic.h \
	src/clean/record.h \
	src/clean/rows.h \
	src/clean/take.h \
	src/clean/trim.h \
	src/process/commands.h \
	src/process/launcher.h \
	src/process/look.h \
	src/process/passes.h \
	src/process/prepared.h \
	src/process/process.h \
	src/process/worker.h \
	src/control/adopt.h \
	src/control/consistency.h \
	src/control/mend.h \
	src/report/health.h \
	src/report/health_checks.h \
	src/report/health_put.h \
	src/report/overdue.h \
	src/report/page.h \
	src/report/ttls.h

# Files name their headers by room: #include "lease/grant.h".
PG_CPPFLAGS += -I$(srcdir)/src

# FAULTS=1 compiles in the named fault points of the tests. A normal build has none.
ifdef FAULTS
PG_CPPFLAGS += -DGT_FAULT_POINTS
endif

# The server that the objects are for: those of another one's headers are made anew.
STAMP = .built-for

EXTRA_CLEAN = $(STAMP) results regression.diffs regression.out output_iso tmp_check

PG_CONFIG ?= pg_config

# pg_config may be absent (before the set-up of the tests), or know of a server whose development files are absent.
PGXS := $(wildcard $(shell $(PG_CONFIG) --pgxs 2>/dev/null))

ifneq ($(PGXS),)
include $(PGXS)
ifneq ($(filter-out 15 16 17 18 19,$(MAJORVERSION)),)
$(error $(PG_CONFIG) is of PostgreSQL $(VERSION): garbagetruck is for 15 to 18. PG_CONFIG=/path/to/pg_config names another server)
endif
ifneq ($(findstring clang,$(shell $(CC) --version 2>/dev/null)),)
# Of a server that gcc has built, the flags and the headers' attributes are gcc's.
override CFLAGS += -Wno-unknown-warning-option -Wno-ignored-optimization-argument -Wno-ignored-attributes
endif
ifdef VPATH
# Outside of the source tree the objects' folders are not there yet.
$(shell mkdir -p $(sort $(dir $(OBJS))))
endif
$(shell echo '$(VERSION) $(pkgincludedir) $(FAULTS)' | cmp -s - $(STAMP) || echo '$(VERSION) $(pkgincludedir) $(FAULTS)' >$(STAMP))
$(OBJS): $(OUR_HEADERS) $(STAMP)
$(OBJS:.o=.bc): $(STAMP)

clean: clean-sidecar

# On a server that is installed and runs, whatever it has preloaded.
installcheck: installcheck-here
installcheck-here:
	@PG_REGRESS='$(top_builddir)/src/test/regress/pg_regress' PSQLDIR='$(bindir)' $(srcdir)/test/installcheck
else
all install installdirs uninstall clean installcheck:
	@if command -v $(PG_CONFIG) >/dev/null; then \
		echo "$(PG_CONFIG) knows of no development files of its server ($$($(PG_CONFIG) --version)): install" >&2; \
		echo "postgresql-server-dev-NN (Debian, Ubuntu) or postgresqlNN-devel (Fedora and its kin), NN being its major version," >&2; \
	else \
		echo "There is no $(PG_CONFIG) here: install postgresql-server-dev-NN (Debian, Ubuntu) or postgresqlNN-devel (Fedora and" >&2; \
		echo "its kin), NN being the major version of your server," >&2; \
	fi; \
	echo "or name a server by PG_CONFIG=/path/to/pg_config. make demo and make test need neither." >&2; exit 1
endif

.PHONY: demo test lint bench history attacks sidecar-soak sanitize assertions majors sidecar sidecar-clients install-sidecar \
	uninstall-sidecar clean-sidecar installcheck-here deb rpm packages-test

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

# A hundred recorded histories under faults, checked against the promises (make test runs three).
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

uninstall-sidecar:
	@$(MAKE) -C src/sidecar uninstall

clean-sidecar:
	@$(MAKE) -s -C $(or $(srcdir),.)/src/sidecar clean

# Packages for this distribution, in build/deb or build/rpm.
deb:
	@src/packaging/deb

rpm:
	@src/packaging/rpm

# The packages made, judged, installed, tried and purged in new systems (as root; minutes).
packages-test:
	@test/packaging/run
