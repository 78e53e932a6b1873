# Where more than one batch is due, workers end leases side by side, each its own: while one still has to commit, the
# next has begun behind it. What a pass leaves that fails, the last one finds.
use strict;
use warnings;
use GarbageTruck;
use PostgreSQL::Test::Cluster;
use Test::More;

my $node = truck('overlap', "garbagetruck.restart_grace = '0'", 'garbagetruck.batch_size = 5', 'garbagetruck.max_workers = 0');
set_up($node);
my $ended = 'SELECT count(*), count(DISTINCT id) FROM cleaned';

three_passes('a', 'ended');
is($node->safe_psql('postgres', $ended), '0|0', 'and none of it is committed');
no_fault($node, 'ended');
is(eventually($node, 'postgres', $ended, '12|12'), '12|12', 'all are cleaned, each once');

three_passes('b', 'ended');
my $first = $node->safe_psql('postgres', q{SELECT pid FROM gt_workers WHERE state = 'expiring' ORDER BY since LIMIT 1});
$node->safe_psql('postgres', "SELECT pg_terminate_backend($first)");
wait_until_gone($first);
no_fault($node, 'ended');
is(eventually($node, 'postgres', $ended, '24|24'), '24|24', 'what one had chosen that went is ended by another, each once');

three_passes('c', 'expire_commit');
for my $pid (split /\n/, $node->safe_psql('postgres', q{SELECT pid FROM gt_workers WHERE state = 'expiring'}))
{
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
}
no_fault($node, 'expire_commit');
is(eventually($node, 'postgres', $ended, '36|36'), '36|36', 'when all of them went: all are cleaned, each once');
is($node->safe_psql('postgres', 'SELECT count(*) FROM gt_leases'), '0', 'no lease is left');

# Nobody has an object, and before it is made somebody else has. So it is of one of a batch, whether the others are made or not;
# and of the last of nine, whose entries go to a leaf of the index together. The other's row then moves on to another page: that of
# who came too late, deleted again, is no reason to wait for him who waits.
for my $made ('committed', 'rolled back')
{
	for my $case (['one', 2, 2], ['many', 2, 1 .. 4], ['leaf', 9, 1 .. 9])
	{
		my ($what, $contested, @numbers) = @$case;
		my $name = "$made $what";
		my $call = @numbers == 1 ? "SELECT gt_lease_create('$name $contested') IS NOT NULL" :
			"SELECT count(*) FROM unnest(gt_lease_create_many('{" . join(',', map { "$name $_" } @numbers) . "}'))";
		fault($node, 'object_unmet', 'wait');
		my $creator = in_background($node, 'postgres', $call);
		ok(fault_waits($node, 'object_unmet'), "$name: somebody has looked");
		my $other = $node->background_psql('postgres');
		is($other->query_safe(qq{BEGIN; SELECT sqlstate FROM gt_lease_grant_each('[{"object_id": "$name $contested"}]')}), '00000', 'and another was faster');
		no_fault($node, 'object_unmet');
		ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'}), 'he is waited for');
		my $index = $what eq 'many' ? in_background($node, 'postgres', 'CREATE INDEX CONCURRENTLY theirs ON _garbagetruck.gt_object (fence)') : undef;
		ok(!$index || $node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_class WHERE relname = 'theirs'}), 'somebody may make an index');
		is($other->query_safe("SELECT count(gt_lease_create('$name $contested')) FROM generate_series(1, 100)"), '100', 'and can go on');
		$other->query_safe($made eq 'committed' ? 'COMMIT' : 'ROLLBACK');
		$other->quit;
		is(finish_background($creator), @numbers == 1 ? "t\n" : @numbers . "\n", 'and then it goes on');
		is(finish_background($index) . $node->safe_psql('postgres', 'DROP INDEX _garbagetruck.theirs'), '', 'which he has') if $index;
		my $leases = @numbers + ($made eq 'committed' ? 101 : 0);
		is($node->safe_psql('postgres', "SELECT count(*), count(DISTINCT (object_id, fence)) FROM gt_leases WHERE object_id LIKE '$name _'"), "$leases|$leases", "$name: each has its lease");
		is($node->safe_psql('postgres', "SELECT sum(leases) FROM _garbagetruck.gt_object WHERE object_id LIKE '$name _'"), $leases, 'and is counted');
	}
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM gt_check()'), '0', 'nothing contradicts itself');

$node->stop;
done_testing();

# Twelve leases that are due when the first worker looks: passes of five, five and two, which wait at the fault point.
sub three_passes
{
	my ($name, $point) = @_;
	reload_and_see($node, 'garbagetruck.max_workers', 0);
	$node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM gt_workers WHERE role = 'worker'}) or die 'a worker is left';
	fault($node, $point, 'wait');
	$node->safe_psql('postgres', qq{SELECT gt_lease_create_many(array_agg('$name' || i), cleanup => 'clean', duration => '1 ms') FROM generate_series(1, 12) i});
	is(eventually($node, 'postgres', q{SELECT count(*) FROM gt_leases WHERE state = 'expired'}, '12'), '12', "$name: twelve leases are over");
	reload_and_see($node, 'garbagetruck.max_workers', 4);
	is(eventually($node, 'postgres', q{SELECT count(*) FROM gt_workers WHERE state = 'expiring'}, '3'), '3', "$name: three workers end leases at once");
	return;
}
