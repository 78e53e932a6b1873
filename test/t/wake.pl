# Workers start by themselves when there is work, at commit or when a deadline passes, and leave when there is none:
# naptime is an hour here, so that nothing of this is found by polling.
use strict;
use warnings;
use GarbageTruck;
use PostgreSQL::Test::Cluster;
use Test::More;

my $node = truck('wake');
set_up($node);

is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'garbagetruck launcher' AND datname IS NULL}),
	1, 'the launcher runs, in no database');

# at commit
$node->safe_psql('postgres', q{SELECT gt_release(gt_lease_create('a', cleanup => 'clean'))});
cleaned($node, 'postgres', 'a', 'a release wakes a worker');

# when the deadline passes
$node->safe_psql('postgres', q{SELECT gt_lease_create('b', cleanup => 'clean', duration => '300 ms')});
cleaned($node, 'postgres', 'a b', 'so does a deadline');

# an earlier deadline than the one that was slept for
$node->safe_psql('postgres', q{SELECT gt_lease_create('later', cleanup => 'clean', duration => '1 hour')});
$node->safe_psql('postgres', q{SELECT gt_lease_create('c', cleanup => 'clean', duration => '200 ms')});
cleaned($node, 'postgres', 'a b c', 'an earlier deadline than the one that was waited for');

# nothing for what was rolled back, in whole or to a savepoint
$node->safe_psql('postgres', q{
	BEGIN; SELECT gt_release(gt_lease_create('rolled back', cleanup => 'clean')); ROLLBACK;
	BEGIN; SAVEPOINT s; SELECT gt_release(gt_lease_create('rolled back', cleanup => 'clean')); ROLLBACK TO s; COMMIT;
	BEGIN; SELECT gt_lease_create('d', cleanup => 'clean', duration => '1 ms'); SELECT pg_sleep(0.1); COMMIT;});
cleaned($node, 'postgres', 'a b c d', 'rolled back work is none; a lease of a long transaction ends after it');

# a renewal moves the deadline, and the worker that comes by re-arms it
my $lease = $node->safe_psql('postgres', q{SELECT gt_lease_create('renewed', cleanup => 'clean', duration => '3 s')});
$node->safe_psql('postgres', "SELECT gt_renew('$lease', '1 hour')");
is($node->safe_psql('postgres', "SELECT check_at < deadline FROM _garbagetruck.gt_lease WHERE id = '$lease'"), 't', 'a renewal leaves check_at alone');
ok($node->poll_query_until('postgres', "SELECT check_at = deadline FROM _garbagetruck.gt_lease WHERE id = '$lease'"), 'and the worker moves it');
cleaned($node, 'postgres', 'a b c d', 'without ending the lease');

# a handler's retries come by themselves, until it is dead
$node->safe_psql('postgres', q{SELECT gt_release(gt_lease_create('bad', cleanup => 'clean', max_attempts => 4))});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM gt_dead WHERE object_id = 'bad' AND attempts = 4 AND error LIKE 'can not clean bad%'}),
	'retries, then dead, with its error');

# a thousand, each once
$node->safe_psql('postgres', q{SELECT gt_release_many(gt_lease_create_many(array_agg('many ' || n), cleanup => 'clean')) FROM generate_series(1, 1000) n});
is(eventually($node, 'postgres', q{SELECT count(*), count(DISTINCT id) FROM cleaned WHERE id LIKE 'many%'}, '1000|1000'), '1000|1000', 'a thousand, each once');

# grace, and a database that the launcher has not met yet
$node->safe_psql('postgres', 'CREATE DATABASE other');
set_up($node, 'other');
my $before = $node->safe_psql('other', 'SELECT gt_clock()');
$node->safe_psql('other', q{
	SELECT gt_handler_create('patient', 'sql', 'SELECT public.clean($1, $8)', grace => '500 ms');
	SELECT gt_release(gt_lease_create('e', cleanup => 'patient'));});
cleaned($node, 'other', 'e', 'another database, after a grace');
is($node->safe_psql('other', "SELECT at >= '$before'::timestamptz + interval '500 ms' FROM cleaned"), 't', 'the grace was waited for');

# what the workers say of themselves
is($node->safe_psql('postgres', q{SELECT string_agg(DISTINCT role, ' ' ORDER BY role) FROM gt_workers}), 'launcher worker', 'gt_workers shows both');
is($node->safe_psql('postgres', q{SELECT string_agg(check_name, ' ' ORDER BY check_name) FROM gt_health() WHERE check_name IN ('preloaded', 'launcher', 'workers', 'overdue', 'place') AND ok}),
	'launcher overdue place preloaded workers', 'gt_health finds them well');

# a name that is too long for that is cut between two characters
my $long = 'ü' x 40;
$node->safe_psql('postgres', qq{SELECT gt_handler_create('$long', 'sql', 'SELECT public.clean(\$1, \$8)'); SELECT gt_release(gt_lease_create('gate', cleanup => '$long'))});
gate_is_waiting($node, 'postgres');
is($node->safe_psql('postgres', q{SELECT (SELECT bool_and(convert_to(handler, 'UTF8') = convert_to(repeat('ü', length(handler)), 'UTF8')) FROM gt_workers WHERE handler <> ''),
	(SELECT count(length(query)) > 0 FROM pg_stat_activity WHERE backend_type LIKE 'garbagetruck worker%' AND query LIKE '%cleaning with%')}), 't|t', 'a long name of a handler is cut between characters');
$node->safe_psql('postgres', 'INSERT INTO gate VALUES (true)');

# a database without the extension is looked at once
$node->safe_psql('postgres', 'CREATE DATABASE bare');
my $looks = q{SELECT xact_commit > 0 FROM pg_stat_database WHERE datname = 'bare'};
$node->reload;
is(eventually($node, 'postgres', $looks, 't'), 't', 'a database without the extension is looked at');
$looks =~ s/ > 0//;

# idle means idle: the workers give their slots up, and nothing is written or asked any more
is(eventually($node, 'postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'garbagetruck worker%'}, '0'), '0', 'without work the workers leave');
is($node->safe_psql('postgres', 'SELECT count(*) FROM _garbagetruck.gt__run'), '0', 'and leave no run on record');
my $before_sleep = $node->safe_psql('postgres', $looks);
$node->safe_psql('postgres', 'SELECT pg_sleep(2)');
is($node->safe_psql('postgres', $looks), $before_sleep, 'nobody looks at it again');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'garbagetruck worker%'}), '0', 'none starts while there is nothing to do');

$node->stop;
done_testing();
