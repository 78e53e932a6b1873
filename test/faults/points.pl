# At each named point between "lease chosen" and "outcome committed" the process that comes by fails, is ended, or is
# killed (and with it the server): nothing is lost, nothing is cleaned twice, and the workers come back by themselves.
use strict;
use warnings;
use GarbageTruck;
use PostgreSQL::Test::Cluster;
use Test::More;

my $node = truck('points', "garbagetruck.restart_grace = '0'");
set_up($node);
my $round = 0;

for my $point (qw(lease_chosen ended expire_commit expired clean_chosen clean_commit clean_committed run run_locked run_done outcome_written worker_start))
{
	for my $action (qw(error fatal crash))
	{
		$round++;
		fault($node, $point, $action);
		make_work($round);
		my $met = $point eq 'worker_start' ? 1 : fault_waits($node, $point, $action);
		ok($met, "$point, $action: a process came by");
		no_fault($node, $point);
		wait_for_restart($node);
		is(eventually($node, 'postgres', qq{SELECT count(*), count(DISTINCT id) FROM cleaned WHERE id LIKE '% $round _'}, '10|10'), '10|10', "$point, $action: all are cleaned, each once");
		is($node->safe_psql('postgres', qq{SELECT count(*) FROM gt_leases WHERE object_id = 'held $round' AND state = 'active'}), '1', "$point, $action: what is held stays");
	}
}
is(eventually($node, 'postgres', 'SELECT count(*) FROM _garbagetruck.gt__run WHERE cardinality(items) > 0', '0'), '0', 'no run is on record');
is($node->safe_psql('postgres', 'SELECT count(*) FROM gt_dead'), '0', 'nobody was charged to death');
is($node->safe_psql('postgres', q{SELECT paused FROM gt_handlers WHERE name = 'clean'}), 'f', 'and the handler is not paused');

# To announce is no attempt, also where whoever does it goes down, and nothing else runs.
$node->safe_psql('postgres', q{SELECT gt_handler_create('hint', 'notify', 'hints', retry_delay => '1 hour', max_attempts => 1)});
fault($node, 'run_locked', 'crash');
my ($out, $err);
$node->psql('postgres', q{SELECT gt_release(gt_lease_create('hint', cleanup => 'hint'))}, stdout => \$out, stderr => \$err);
ok(fault_waits($node, 'run_locked', 'crash'), 'the server goes down over an announcement');
wait_for_restart($node);
is(eventually($node, 'postgres', q{SELECT state, attempts FROM gt_garbage WHERE next_attempt_at > gt_clock() + interval '50 minutes'}, 'waiting|0'),
	'waiting|0', 'an announcement is no attempt');
is($node->safe_psql('postgres', q{SELECT paused FROM gt_handlers WHERE name = 'hint'}), 'f', 'and nothing to be paused for');

# A copy is adopted, while others call: from the moment at which they can see that, they judge by the record that comes
# with it, by which its leases run anew.
$node->safe_psql('template1', 'CREATE DATABASE copied TEMPLATE postgres');
$node->safe_psql('copied', q{
	SELECT gt_release(gt_lease_create('recorded'));
	UPDATE _garbagetruck.gt_lease SET deadline = gt_clock() - interval '1 day' WHERE object_id = 'held 1'});
my $state = q{SELECT state FROM gt_leases WHERE object_id = 'held 1'};
is($node->safe_psql('copied', $state), 'expired', 'in a copy a lease is over');
my $lock = $node->background_psql('copied');
$lock->query_safe('SELECT pg_advisory_lock(7)');
my $adopter = in_background($node, 'copied', 'BEGIN; SELECT gt_resume(adopt => true); SELECT pg_advisory_lock(7); COMMIT');
ok($node->poll_query_until('copied', q{SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}), 'somebody is about to adopt it');
is($node->safe_psql('copied', "SELECT gt_release(gt_lease_create('meanwhile')); $state"), "t\nexpired", 'others go on as before');
fault($node, 'adopted', 'wait');
$lock->query_safe('SELECT pg_advisory_unlock(7)');
$lock->quit;
ok(fault_waits($node, 'adopted'), 'it is committed, and hardly anybody knows');
is($node->safe_psql('copied', "SELECT ok FROM gt_health() WHERE check_name = 'place'; $state"), "t\nactive", 'who sees that judges by the new record');
no_fault($node, 'adopted');
finish_background($adopter);
is($node->safe_psql('copied', $state), 'active', 'and so does everybody');

# A change of a lease that commits when it is over, in the middle of a choice of leases: that finds it twice, as two versions of
# its row, and it ends once. In a database where the newer version lies behind the others.
reload_and_see($node, 'garbagetruck.max_workers', '0');
reload_and_see($node, 'garbagetruck.max_leases_per_service', '100');
$node->safe_psql('template1', 'CREATE DATABASE twice');
$node->safe_psql('twice', 'CREATE EXTENSION garbagetruck');
my $changer = $node->background_psql('twice');
my $twice = $changer->query_safe(q{SELECT gt_lease_create('twice', duration => '2 s')});
$changer->query_safe("BEGIN; SELECT gt_lease_update('$twice', metadata => '{}')");
$node->safe_psql('twice', q{SELECT gt_lease_create('later', duration => '2 s')});
$node->poll_query_until('twice', q{SELECT count(*) = 2 FROM gt_leases WHERE state = 'expired'}) or die 'they do not expire';
fault($node, 'oldest_picked', 'wait');
my $reclaim = in_background($node, 'twice', 'BEGIN; CALL gt_reclaim(3); COMMIT');
ok(fault_waits($node, 'oldest_picked'), 'the oldest lease is chosen');
$changer->query_safe('COMMIT');
$changer->quit;
no_fault($node, 'oldest_picked');
is(finish_background($reclaim), "2\n", 'it is chosen again as it is now, and ends once');

# No memory is left for what a transaction notes (of savepoints with a quota, of leases it creates):
# the first note, and one that would not fit in any more. The call fails, and is undone by a savepoint; all else counts.
my $noter = $node->background_psql('twice', on_error_stop => 0);
$noter->query_safe(q{BEGIN; SELECT gt_lease_create('first', service_id => 'quota')});
fails_once(q{SELECT gt_lease_create('noted first', service_id => 'quota')}, 'of a savepoint with a quota');
create('before', 19);
fails_once(q{SELECT gt_lease_create_many(ARRAY(SELECT 'many ' || i FROM generate_series(1, 20) i), service_id => 'quota')}, 'of one lease more');
create('behind', 60);
$noter->query_safe('COMMIT');
is($noter->query_safe(q{SELECT count(*) FROM gt_leases WHERE service_id = 'quota'}), '80', 'all else is there');
$noter->query_safe(q{SELECT count(gt_lease_create('up to the limit ' || i, service_id => 'quota')) FROM generate_series(1, 20) i});
$noter->query(q{SELECT gt_lease_create('over the limit', service_id => 'quota')});
like($noter->{stderr}, qr/\b100\b/, 'the quota counts what is there');
$noter->quit;

$node->stop;
done_testing();

# In savepoints of their own.
sub create
{
	my ($name, $n) = @_;
	$noter->query_safe(join ';', map { "SAVEPOINT s; SELECT gt_lease_create('$name $_', service_id => 'quota'); RELEASE s" } 1 .. $n);
	return;
}

# Within the transaction of that session.
sub fails_once
{
	my ($sql, $what) = @_;
	fault($node, 'more_notes', 'error');
	$noter->query_safe('SAVEPOINT f');
	$noter->query($sql);
	like($noter->{stderr}, qr/fault point "more_notes"/, "a note $what fails");
	$noter->{stderr} = '';
	$noter->query_safe('ROLLBACK TO f; RELEASE f');
	return;
}

# Ten objects to be cleaned and one that is held, by one transaction. The server may crash while its client still
# waits for the answer to COMMIT: then it tells by itself whether it was done.
sub make_work
{
	my ($n) = @_;
	my ($out, $err);
	while ($node->psql('postgres', qq{
			BEGIN;
			SELECT gt_lease_create_many(array_agg('expired $n ' || i), cleanup => 'clean', duration => '1 ms') FROM generate_series(1, 5) i;
			SELECT gt_release_many(gt_lease_create_many(array_agg('released $n ' || i), cleanup => 'clean')) FROM generate_series(1, 5) i;
			SELECT gt_lease_create('held $n', cleanup => 'clean', duration => '1 hour');
			COMMIT;}, stdout => \$out, stderr => \$err) != 0)
	{
		wait_for_restart($node);
		last if $node->safe_psql('postgres', "SELECT count(*) FROM gt_leases WHERE object_id = 'held $n'") == 1;
	}
	return;
}
