# After any way of going down, a living holder's lease still runs, a dead one's ends within its bound, and every
# object of the dead is cleaned once: for a lease that may have been running, not before S + G (promise I1), where S
# is when the server came back.
use strict;
use warnings;
use GarbageTruck;
use PostgreSQL::Test::Cluster;
use Test::More;

my $node = truck('restart', "garbagetruck.restart_grace = '1min'");
set_up($node);
my $round = 0;

# Leases before, $down, and what became of them after.
sub survives
{
	my ($name, $down) = @_;
	$round++;
	my $clock = $node->safe_psql('postgres', 'SELECT gt_clock()');
	my $live = $node->safe_psql('postgres', "SELECT gt_lease_create('live $round', cleanup => 'clean', duration => '1 hour')");
	my $short = $node->safe_psql('postgres', "SELECT gt_lease_create('short $round', cleanup => 'clean', duration => '20 s')");
	$node->safe_psql('postgres', "SELECT gt_lease_create_many(array_agg('dead $round ' || n), cleanup => 'clean', duration => '1500 ms') FROM generate_series(1, 50) n");
	my $deadline = $node->safe_psql('postgres', "SELECT expires_at FROM gt_lease_get('$live')");

	$down->();
	wait_for_restart($node);

	# The holder of the short one comes back and renews: it was never over.
	my ($out, $err) = ('', '');
	is($node->psql('postgres', "SELECT gt_renew('$short', '1 hour')", stdout => \$out, stderr => \$err), 0, "$name: a short lease can be renewed") or diag $err;
	is($node->safe_psql('postgres', "SELECT state FROM gt_lease_get('$live')"), 'active', "$name: a living lease runs on");
	is($node->safe_psql('postgres', "SELECT expires_at >= '$deadline' FROM gt_lease_get('$live')"), 't', "$name: not shorter than promised");
	ok($node->poll_query_until('postgres', "SELECT count(*) = 50 FROM cleaned WHERE id LIKE 'dead $round %'"), "$name: the dead are cleaned");
	is($node->safe_psql('postgres', "SELECT count(*), count(DISTINCT id) FROM cleaned WHERE id LIKE 'dead $round %'"), '50|50', "$name: each once");
	is($node->safe_psql('postgres', "SELECT bool_and(at >= '$clock'::timestamptz + interval '1500 ms') FROM cleaned WHERE id LIKE 'dead $round %'"), 't', "$name: none before its minimum life");
	is($node->safe_psql('postgres', "SELECT count(*) FROM cleaned WHERE id IN ('live $round', 'short $round')"), '0', "$name: nothing of the living");
	is($node->safe_psql('postgres', "SELECT gt_clock() >= '$clock'"), 't', "$name: the clock did not go back");
	return;
}

survives('kill -9 of a backend', sub {
	my $job = in_background($node, 'postgres', 'SELECT pg_sleep(1000)');
	$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(1000)'});
	kill_process($node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(1000)'}));
	eval { finish_background($job) };
});
survives('kill -9 of the launcher', sub {
	kill_process($node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'garbagetruck launcher'}));
});
survives('immediate stop', sub { $node->stop('immediate'); $node->start; });
survives('kill -9 of the postmaster', sub {
	my @children = split /\n/, $node->safe_psql('postgres', 'SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()');
	kill_process($node->safe_psql('postgres', 'SELECT pg_read_file($$postmaster.pid$$, 0, 10)::text') =~ /^(\d+)/);
	$node->kill9;
	# the orphans leave by themselves, and the server starts once they have
	wait_until_gone($_) for @children;
	$node->start;
});
survives('orderly restart', sub { $node->restart; });

# S + G: leases that the absence outlived do not end before their grace is over, and may be renewed until then.
my $outlived = $node->safe_psql('postgres', q{SELECT gt_lease_create('outlived', cleanup => 'clean', duration => '6 s')});
$node->safe_psql('postgres', q{SELECT gt_lease_create('grace', cleanup => 'clean', duration => '6 s')});
$node->stop('immediate');
sleep 7;
my $epoch = time;
$node->start;
is($node->safe_psql('postgres', "SELECT gt_renew('$outlived', '1 hour') > gt_clock()"), 't', 'a lease that the absence outlived can be renewed');
cleaned_one('grace');
cmp_ok($node->safe_psql('postgres', q{SELECT extract(epoch FROM at) FROM cleaned WHERE id = 'grace'}), '>=', $epoch + 6, 'without a renewal its grace counts from the start');
is($node->safe_psql('postgres', "SELECT state FROM gt_lease_get('$outlived')"), 'active', 'with one it runs on');

# Who took what a child had, since its parent had expired, has it for good: the parent's expiry was acted upon, and outlasts a crash,
# also where somebody's transaction kept the worker from the parent itself.
my $parent = $node->safe_psql('postgres', q{SELECT gt_lease_create('parent', duration => '3 s')});
$node->safe_psql('postgres', "SELECT gt_lease_create('contested ' || n, parent => '$parent') FROM generate_series(1, 3) n");
my $sibling = in_background($node, 'postgres', "SELECT gt_lease_create('sibling', parent => '$parent'), pg_sleep(1000)");
is(eventually($node, 'postgres', q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE '%sibling%'}, '1'), '1', 'a transaction holds the parent');
is(eventually($node, 'postgres', "SELECT state FROM gt_lease_get('$parent')", 'expired'), 'expired', 'which expires meanwhile');
is($node->safe_psql('postgres', q{SELECT cardinality(gt_lease_create_many(ARRAY['contested 1', 'contested 2'], service_id => 'other', exclusive => true))}),
	'2', 'others take what its children had');
is($node->safe_psql('postgres', q{SELECT count(gt_lease_create('contested 3', service_id => 'other', exclusive => true))}), '1', 'and more, later');
$node->stop('immediate');
eval { finish_background($sibling) };
$node->start;
my ($revived, $why) = ('', '');
ok($node->psql('postgres', "SELECT gt_renew('$parent')", stdout => \$revived, stderr => \$why) != 0, 'after a crash the parent is over none the less');
like($why, qr/has expired|does not exist/, 'and says so');
is($node->safe_psql('postgres', q{SELECT count(*) FROM gt_leases WHERE object_id LIKE 'contested%' AND service_id = 'other' AND exclusive}), '3', 'who took it still has it');

# A worker that is killed: its run is on record, and the object is cleaned once all the same.
$node->safe_psql('postgres', q{SELECT gt_release_many(gt_lease_create_many(ARRAY['gate 1', 'with it 1', 'with it 2'], cleanup => 'clean'))});
kill_process(gate_is_waiting($node, 'postgres'));
wait_for_restart($node);
gate_is_waiting($node, 'postgres');
$node->safe_psql('postgres', 'INSERT INTO gate VALUES (true)');
cleaned_one('gate 1');
cleaned_one('with it 1');
cleaned_one('with it 2');
is($node->safe_psql('postgres', q{SELECT string_agg(attempt::text, ' ' ORDER BY id) FROM cleaned WHERE id LIKE 'with it%'}), '1 1', 'what was not alone in a crashed run is not charged');
is(eventually($node, 'postgres', 'SELECT count(*) FROM _garbagetruck.gt__run WHERE cardinality(items) > 0', '0'), '0', 'no run is on record any more');

# A worker that is terminated is evicted: that is no attempt, unless for the third time in a row.
$node->safe_psql('postgres', 'DELETE FROM gate');
$node->safe_psql('postgres', q{SELECT gt_release(gt_lease_create('gate 2', cleanup => 'clean'))});
my $pid = gate_is_waiting($node, 'postgres');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
$node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid");
gate_is_waiting($node, 'postgres');
$node->safe_psql('postgres', 'INSERT INTO gate VALUES (true)');
cleaned_one('gate 2');
is($node->safe_psql('postgres', q{SELECT attempt FROM cleaned WHERE id = 'gate 2'}), '1', 'an evicted run is no attempt');

$node->stop;
done_testing();

sub cleaned_one
{
	my ($id) = @_;
	$node->poll_query_until('postgres', "SELECT count(*) > 0 FROM cleaned WHERE id = '$id'");
	return is($node->safe_psql('postgres', "SELECT count(*) FROM cleaned WHERE id = '$id'"), '1', "$id is cleaned once");
}
