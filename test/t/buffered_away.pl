# Renewals in shared memory outlive whatever takes that away: what was acknowledged holds after a crash, a restart with other
# settings or without the library, and the promotion of a standby.
use strict;
use warnings;
use GarbageTruck;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# nobody flushes by the way, nor because there is so much
my $node = truck('away', "garbagetruck.restart_grace = '1min'", "wal_writer_delay = '10s'", "checkpoint_timeout = '1h'",
	'full_page_writes = off', 'autovacuum = off', "shared_buffers = '64MB'", 'bgwriter_lru_maxpages = 0');
set_up($node);

sub one
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql);
}
sub lease
{
	my ($object, $duration) = @_;
	return one("SELECT gt_lease_create('$object', cleanup => 'clean', duration => '$duration')");
}
sub version { my ($lease) = @_; return lease_version($node, $lease); }
sub renewed { my ($lease) = @_; return renewed_in_memory($node, $lease); }

# a lease of an hour that is some seconds old
sub older
{
	my ($object) = @_;
	my $lease = lease($object, '1 hour');
	$node->poll_query_until('postgres', "SELECT gt_clock() > created_at + interval '2 s' FROM gt_lease_get('$lease')");
	return $lease;
}

my $round = 0;
sub survives
{
	my ($name, $down) = @_;
	$round++;
	my $long = lease("long $round", '1 hour');
	my $short = lease("short $round", '20 s');
	my $before = version($long);
	my $until = renewed($long);
	my $soon = renewed($short);
	is(version($long), $before, "$name: the row was not written");
	$down->();
	wait_for_restart($node);
	is(one("SELECT expires_at >= '$until' FROM gt_lease_get('$long')"), 't', "$name: a long lease lives as long as was promised");
	is(one("SELECT expires_at >= '$soon' FROM gt_lease_get('$short')"), 't', "$name: a short one, too");
	is(one("SELECT gt_renew('$long') >= '$until'"), 't', "$name: a renewal does not shorten it");
	cmp_ok(version($long), 'ne', $before, "$name: and is written, for the row is of another run");
	return;
}
survives('kill -9 of a backend', sub {
	my $job = in_background($node, 'postgres', 'SELECT pg_sleep(1000)');
	$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(1000)'});
	kill_process(one(q{SELECT pid FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(1000)'}));
	eval { finish_background($job) };
});
survives('immediate stop', sub { $node->stop('immediate'); $node->start; });
survives('orderly restart', sub { $node->restart; });

# A lease of which the create was not flushed; no workers, whose commits would flush it, and a WAL writer that does nothing.
$node->append_conf('postgresql.conf', "garbagetruck.databases = ''");
$node->restart;
lease('first', '1 hour');	# which records this run, and flushes that
kill 'STOP', one(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'});
my $lazy = one("SET synchronous_commit = off; SELECT gt_lease_create('lazy', cleanup => 'clean', duration => '1 hour')");
my $until = renewed($lazy);
$node->stop('immediate');
$node->start;
is(one("SELECT count(*) FROM gt_lease_get('$lazy') WHERE expires_at >= '$until'"), '1', 'what is renewed in memory is in the table for good');

# The grace of the run that acknowledged it counts, also when there is less of it afterwards, and another start soon after that.
my $promised = older('promised');
$until = renewed($promised);
$node->append_conf('postgresql.conf', "garbagetruck.restart_grace = '1s'");
for my $start ('first', 'second', 'third')
{
	$node->restart;
	one("SELECT gt_lease_create('$start start')");	# it is on record
	is(one("SELECT expires_at >= '$until' FROM gt_lease_get('$promised')"), 't', "a smaller grace, $start start: what was promised holds");
}
# beyond what the grace would give back it is written
my $other = older('other');
my $before = version($other);
one("SELECT gt_renew('$other')");
cmp_ok(version($other), 'ne', $before, 'a renewal that the grace would not cover is written');

# A standby takes over: it has the table, and has seen nothing of what was in memory.
$node->append_conf('postgresql.conf', "garbagetruck.restart_grace = '1min'");
$node->restart;
my $primary = $node;
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
# what it must have before it counts is not kept in memory before that
$primary->safe_psql('postgres', q{ALTER SYSTEM SET synchronous_standby_names = 'standby'});
$primary->reload;
$primary->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'});
$standby->stop;
my $ahead = one("SET synchronous_commit = local; SELECT gt_lease_create('ahead', duration => '1 hour')");
my $renewal = in_background($node, 'postgres', "SELECT gt_renew('$ahead') > gt_clock()");
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'SELECT gt_renew%' AND wait_event = 'SyncRep'}),
	'a renewal waits until the standby has what it relies on');
is(one("SELECT renewals FROM gt_lease_get('$ahead')"), '0', 'and does not count before');
$standby->start;
is(finish_background($renewal), "t\n", 'then it does');
survives('promotion', sub {
	$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
	$primary->stop('immediate');
	$standby->append_conf('postgresql.conf', "synchronous_standby_names = ''");
	$standby->promote;
	$node = $standby;
});

# The library is not there any more: renewals are written, and what was acknowledged before holds.
survives('restart without the library', sub {
	$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
	$node->restart;
});

$node->stop;
done_testing();
