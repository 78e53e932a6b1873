# What the machine does to a server at night: a disk that is full, a clock that is set, processes that are killed, connections
# that are all taken, transactions that are forgotten. gt_health() and the metric name it, nothing is lost, and it goes on.
#
# The server's disk and clock are what machine.c, which is preloaded, makes of them.
use strict;
use warnings;
use File::Basename;
use GarbageTruck;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir();
system('gcc', '-shared', '-fPIC', '-Wall', '-o', "$dir/machine.so", dirname(__FILE__) . '/machine.c', '-ldl') == 0 or die 'machine.c was not compiled';

# Its clock is ahead of the true one by so many seconds; files whose path has this part cannot grow.
sub machine
{
	my ($ahead, $full) = @_;
	open my $file, -e "$dir/machine" ? '+<:raw' : '>:raw', "$dir/machine" or die "$dir/machine: $!";
	print $file pack('q a56', $ahead, $full // '');
	close $file;
	return;
}

sub on_machine
{
	my ($start) = @_;
	local $ENV{LD_PRELOAD} = "$dir/machine.so";
	local $ENV{GT_MACHINE} = "$dir/machine";
	$start->();
	return;
}

my $node = truck('machine', "garbagetruck.history = 'all'", 'autovacuum = off', 'max_connections = 12');
set_up($node);
machine(0);
on_machine(sub { $node->restart });

# The checks that are not ok.
sub wrong
{
	return $node->safe_psql('postgres', q{SELECT string_agg(DISTINCT check_name, ' ' ORDER BY check_name) FROM gt_health() WHERE NOT ok});
}

# It is told of by this check and its metric, in these words.
sub told
{
	my ($name, $check, $words) = @_;
	ok($node->poll_query_until('postgres', "SELECT count(*) > 0 FROM gt_health() WHERE check_name = '$check' AND NOT ok AND detail ~ '$words'"), "$name: it is told of");
	is($node->safe_psql('postgres', "SELECT value FROM gt_metrics() WHERE name = 'garbagetruck_health' AND labels ->> 'check' = '$check'"), '0', "$name: by the metric");
	return;
}

sub over
{
	my ($name, $check) = @_;
	ok($node->poll_query_until('postgres', "SELECT bool_and(ok) FROM gt_health() WHERE check_name = '$check'"), "$name: it is over");
	return;
}

sub cleaned_once
{
	my ($name, $what, $n) = @_;
	return is(eventually($node, 'postgres', "SELECT count(*), count(DISTINCT id) FROM cleaned WHERE id LIKE '$what'", "$n|$n"), "$n|$n", $name);
}

is(wrong(), '', 'all is well');
my $held = $node->safe_psql('postgres', q{SELECT gt_lease_create('held', cleanup => 'clean', duration => '3 days')});

# The disk of the tables is full: workers cannot write what they do. They say so, and go on by themselves once there is room.
$node->safe_psql('postgres', q{SELECT count(gt_lease_create('full ' || n, cleanup => 'clean', duration => '2 s')) FROM generate_series(1, 3000) n});
machine(0, '/base/');
told('a full disk', 'errors', 'No space left on device');
is($node->safe_psql('postgres', q{SELECT string_agg(remedy, ' ') FROM gt_health() WHERE check_name = 'errors'}), '-- make room on the disk: the workers go on by themselves', 'and what helps');
machine(0);
cleaned_once('nothing is lost', 'full %', 3000);
over('a full disk', 'errors');
is($node->safe_psql('postgres', 'SELECT count(*) FROM gt_dead'), '0', 'nothing was given up');

# The disk of the log is full: PostgreSQL goes down. The handler that ran has nothing to do with it.
$node->safe_psql('postgres', q{CREATE TABLE filled (n int); SELECT gt_release(gt_lease_create('gate', cleanup => 'clean'))});
gate_is_waiting($node, 'postgres');
machine(0, '/pg_wal/');
for my $segment (1 .. 50)
{
	my $job = in_background($node, 'postgres', 'WITH w AS (INSERT INTO filled VALUES (1) RETURNING n) SELECT pg_switch_wal() FROM w');
	last if !eval { finish_background($job) } || slurp_file($node->logfile) =~ /PANIC/;
}
like(slurp_file($node->logfile), qr/PANIC:.*No space left on device/, 'the log has no room: the server goes down');
$node->stop('immediate', fail_ok => 1);
machine(0);
on_machine(sub { $node->start });
gate_is_waiting($node, 'postgres');
is($node->safe_psql('postgres', "SELECT state FROM gt_lease_get('$held')"), 'active', 'a lease that runs runs on');
$node->safe_psql('postgres', 'INSERT INTO gate VALUES (true)');
cleaned_once('what was in hand is cleaned', 'gate', 1);
is($node->safe_psql('postgres', q{SELECT attempt FROM cleaned WHERE id = 'gate'}), '1', 'the run that the server went down with was no attempt');
is(wrong(), '', 'and all is well again');

# Kills, of workers and of others: nobody is charged for what others did, nothing is lost, nothing is done twice.
$node->safe_psql('postgres', q{SELECT gt_handler_create('takes time', 'sql', 'SELECT public.clean($1, $8) FROM pg_sleep(0.03)', retry_delay => '10 ms')});
for my $victim ("SELECT pid FROM gt_workers WHERE state = 'cleaning' LIMIT 1", q{SELECT pid FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(1000)'},
	"SELECT pid FROM gt_workers WHERE state = 'cleaning' LIMIT 1")
{
	my $job = in_background($node, 'postgres', 'SELECT pg_sleep(1000)');
	$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(1000)'}) or die 'no backend';
	$node->safe_psql('postgres', q{SELECT gt_release_many(gt_lease_create_many(ARRAY(SELECT 'killed ' || g || ' ' || n FROM generate_series(1, 100) n), cleanup => 'takes time'))
		FROM (SELECT count(*) AS g FROM filled) f; INSERT INTO filled VALUES (1)});
	$node->poll_query_until('postgres', "SELECT EXISTS ($victim)") or die 'nobody to kill';
	my $pid = $node->safe_psql('postgres', $victim);
	if ($pid ne '')
	{
		kill 'KILL', $pid;
		wait_until_gone($pid);
	}
	eval { finish_background($job) };
	wait_for_restart($node);
}
cleaned_once('kills: all are cleaned, each once', 'killed %', 300);
is($node->safe_psql('postgres', 'SELECT count(*) FROM gt_dead'), '0', 'none was given up');
is($node->safe_psql('postgres', 'SELECT count(*) FROM gt_handlers WHERE paused'), '0', 'no handler is paused');
is($node->safe_psql('postgres', "SELECT state FROM gt_lease_get('$held')"), 'active', 'a lease that runs runs on');

# The system clock is set, back and ahead, while the server runs: leases end as ever.
for my $step ([ -7200, 'ahead of the system clock' ], [ 86400, 'behind the system clock' ])
{
	my ($seconds, $words) = @$step;
	machine($seconds);
	my $name = "a clock that is set by $seconds s";
	told($name, 'clock', $words);
	$node->safe_psql('postgres', "SELECT gt_lease_create('set $seconds', cleanup => 'clean', duration => '300 ms')");
	cleaned_once("$name: a lease ends when it should", "set $seconds", 1);
	is($node->safe_psql('postgres', "SELECT state FROM gt_lease_get('$held')"), 'active', "$name: and none before");
}
is($node->safe_psql('postgres', q{SELECT remedy FROM gt_health() WHERE check_name = 'clock'}), '-- nothing is wrong with leases; a restart makes them agree', 'what helps');
on_machine(sub { $node->restart });
over('a restart', 'clock');
is($node->safe_psql('postgres', "SELECT state FROM gt_lease_get('$held')"), 'active', 'and the lease runs on');

# Transactions that nobody ends hold dead rows back, whether they have a snapshot or have only written; VACUUM itself does not.
$node->safe_psql('postgres', 'CREATE TABLE pages AS SELECT n FROM generate_series(1, 20000) n');
reload_and_see($node, 'vacuum_cost_limit', '1');
reload_and_see($node, 'vacuum_cost_delay', '100ms');
my $vacuum = in_background($node, 'postgres', 'VACUUM pages');
my $reads = $node->background_psql('postgres');
$reads->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
my $reader = $reads->query_safe('SELECT pg_backend_pid()');
my $writes = $node->background_psql('postgres');
$writes->query_safe('BEGIN');
$writes->query_safe('INSERT INTO filled VALUES (2)');
my $writer = $writes->query_safe('SELECT pg_backend_pid()');
$node->poll_query_until('postgres', 'SELECT count(*) = 1 FROM pg_stat_progress_vacuum') or die 'no VACUUM';
machine(86400 + 120);
told('a forgotten transaction', 'snapshots', "transaction of process $reader ");
told('one that has only written', 'snapshots', "transaction of process $writer ");
my @remedies = split /\n/, $node->safe_psql('postgres', q{SELECT remedy FROM gt_health() WHERE check_name = 'snapshots' ORDER BY remedy});
is_deeply(\@remedies, [ sort map { "SELECT pg_catalog.pg_terminate_backend($_);" } $reader, $writer ], 'these are all, and what ends them');
$node->safe_psql('postgres', $_) for @remedies;
over('their end', 'snapshots');
is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_stat_progress_vacuum'), '1', 'VACUUM goes on');
$node->safe_psql('postgres', 'SELECT pg_terminate_backend(pid) FROM pg_stat_progress_vacuum');
eval { finish_background($vacuum) };
for my $gone ($reads, $writes) { eval { $gone->quit }; }
machine(86400);

# All connections are taken: workers have places of their own.
my $session = $node->background_psql('postgres');
my @crowd = map { in_background($node, 'postgres', 'SELECT pg_sleep(1000)') } 1 .. 12;
my $asked = 0;
1 while $session->query_safe(q{SELECT count(*) FROM pg_stat_activity, pg_sleep(0.02) WHERE backend_type = 'client backend'}) < 12 && $asked++ < 1000;
$session->query_safe(q{SELECT gt_lease_create('crowded', cleanup => 'clean', duration => '300 ms') \g /dev/null});
my $n = 0;
1 while ($n = $session->query_safe(q{SELECT count(*) FROM cleaned, pg_sleep(0.02) WHERE id = 'crowded'})) == 0 && $asked++ < 2000;
is($n, 1, 'no connection is left, and leases end');
$session->query_safe(q{SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(1000)'});
for my $job (@crowd) { eval { finish_background($job) }; }
$session->quit;
is(wrong(), '', 'in the end all is well');

$node->stop;
done_testing();
