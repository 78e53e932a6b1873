# A clock that was ahead in one run of the server (here: what the file of the last run says, which is believed by a day)
# holds nothing up in the next one: no time of an earlier run is trusted beyond what it can have been when that began.
use strict;
use warnings;
use GarbageTruck;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = truck('clock', "garbagetruck.history = 'all'", "garbagetruck.history_retention = '1h'");
set_up($node);
my $file = $node->data_dir . '/garbagetruck.clock';

# Starts it with a clock that is ahead by so many seconds.
sub start_ahead
{
	my ($seconds) = @_;
	unlink $file;
	append_to_file($file, sprintf("%d\n", (time - 946684800 + $seconds) * 1e6)) if $seconds;
	$node->start;
	return;
}

sub health
{
	my ($check, $what) = @_;
	return $node->safe_psql('postgres', "SELECT $what FROM gt_health() WHERE check_name = '$check'");
}

$node->safe_psql('postgres', q{
	SELECT gt_handler_create('flaky', 'sql', 'SELECT 1 / 0', retry_delay => '3 s');
	SELECT gt_handler_create('queue', 'queue');
	SELECT gt_release(gt_lease_create('old', cleanup => 'clean'))});
cleaned($node, 'postgres', 'old', 'there is something in the history');
is(health('clock', 'ok'), 't', 'the clock is that of the system');
$node->stop;

start_ahead(20 * 3600);
is($node->safe_psql('postgres', q{SELECT gt_clock() > now() + '19 hours'}), 't', 'the clock is ahead');
is(health('clock', 'ok'), 'f', 'gt_health says so');
like(health('clock', 'detail'), qr/ahead of/, 'and how');
my $row = $node->safe_psql('postgres', q{SELECT gt_lease_create('row', duration => '5 s', cleanup => 'clean')});
my $held = $node->safe_psql('postgres', q{SELECT gt_lease_create('held', duration => '10 min')});
$node->safe_psql('postgres', q{
	SELECT gt_lease_create('lock', duration => '5 s', exclusive => true);
	SELECT gt_lease_create('many ' || n, duration => '1 s', cleanup => 'queue') FROM generate_series(1, 2500) n;
	SELECT gt_release(gt_lease_create('flop', cleanup => 'flaky'));
	SELECT gt_release(gt_lease_create('claimed', cleanup => 'queue'))});
is($node->safe_psql('postgres', q{SELECT object_id FROM gt_claim(cleanup_ids => ARRAY[(SELECT cleanup_id FROM gt_garbage WHERE object_id = 'claimed')], visibility => '5 s')}),
	'claimed', 'it is claimed');
$node->poll_query_until('postgres', q{SELECT attempts > 0 FROM gt_garbage WHERE object_id = 'flop'}) or die 'no attempt';
my $attempts = $node->safe_psql('postgres', q{SELECT attempts FROM gt_garbage WHERE object_id = 'flop'});
is($node->safe_psql('postgres', q{SELECT count(*) FROM gt_history WHERE object_id = 'old'}), '2', 'the history stands, though its retention is over by that clock');
$node->stop;

start_ahead(0);
is($node->safe_psql('postgres', q{SELECT gt_clock() < now() + '1 s'}), 't', 'the clock is right again');
is(health('clock', 'ok'), 't', 'gt_health says so');
is($node->safe_psql('postgres', "SELECT expires_at < gt_clock() + '13 min' FROM gt_lease_get('$held')"), 't', 'a living lease has its duration and the grace left');
is($node->safe_psql('postgres', "SELECT ttl < '13 min' FROM gt_renew_many(ARRAY['$held'::uuid])"), 't', 'also when it is renewed');
cleaned($node, 'postgres', 'old row', 'a dead one ends when its duration and the grace are over');
ok($node->poll_query_until('postgres', q{SELECT (SELECT sqlstate FROM gt_lease_grant_each('[{"object_id": "lock", "exclusive": true}]')) = '00000'}),
	'so does an exclusive one');
is(eventually($node, 'postgres', q{SELECT count(*) FROM gt_garbage WHERE handler = 'queue' AND object_id LIKE 'many %'}, '2500'), '2500', 'and many');
ok($node->poll_query_until('postgres', "SELECT attempts > $attempts FROM gt_garbage WHERE object_id = 'flop'"), 'what failed is tried again');
ok($node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM gt_claim(cleanup_ids => ARRAY[(SELECT cleanup_id FROM gt_garbage WHERE object_id = 'claimed')])}),
	'and a claim lapses');
is($node->safe_psql('postgres', q{SELECT count(*) FROM gt_history WHERE object_id = 'old'}), '2', 'the history stands');
$node->stop;

# More than a day is not believed, and that is said.
start_ahead(3 * 86400);
is($node->safe_psql('postgres', q{SELECT gt_clock() < now() + '1 s'}), 't', 'a clock that was ahead by more than a day is not believed');
like(slurp_file($node->logfile), qr/the clock of the last run was ahead by more than a day/, 'the log says so');
$node->stop;

# To look for such times is to read all leases: it is done once, and not again where the server went down in order.
sub seen_to
{
	$node->safe_psql('postgres', q{SELECT gt_lease_create('records the start')});
	return $node->safe_psql('postgres', q{SELECT bool_or(rearmed) FROM _garbagetruck.gt__start});
}

start_ahead(0);
ok($node->poll_query_until('postgres', q{SELECT bool_or(rearmed) FROM _garbagetruck.gt__start}), 'a worker has looked at all times');
$node->append_conf('postgresql.conf', 'garbagetruck.max_workers = 0');
$node->restart;
is(seen_to(), 't', 'after a stop in order nobody needs to again');
$node->restart;
is(seen_to(), 't', 'however often');
$node->stop('immediate');
$node->start;
is(seen_to(), 'f', 'after a crash somebody does');
$node->restart;
is(seen_to(), 'f', 'and what was not done then is not forgotten');
$node->safe_psql('postgres', 'CALL gt_reclaim()');
$node->restart;
is(seen_to(), 't', 'until it is');
$node->stop;
start_ahead(0);
is(seen_to(), 'f', 'also where nothing tells what the clock was');
$node->safe_psql('postgres', 'CALL gt_reclaim()');
$node->stop;
start_ahead(20 * 3600);
is(seen_to(), 'f', 'nor how the run before has ended');
$node->stop;
done_testing();
