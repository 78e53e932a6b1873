# Whose doing was it? What goes wrong in other work of a worker, in another process or with the server is charged to no
# run: no attempt is counted, and no object dies of it. What a run does by itself is.
use strict;
use warnings;
use GarbageTruck;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = truck('blame', "garbagetruck.restart_grace = '0'", "garbagetruck.history = 'all'");
set_up($node);
$node->safe_psql('postgres', q{
	SELECT gt_handler_create('once', 'sql', 'SELECT public.clean($1, $8)', max_attempts => 1, retry_delay => '10 ms', timeout => '5 minutes');
	SELECT gt_handler_create('batch', 'sql_batch', 'SELECT public.clean(i, 1) FROM unnest($1) i', max_attempts => 1, retry_delay => '10 ms')});
my $charged = q{SELECT count(*) FROM gt_history WHERE event IN ('failed', 'dead')};
my $marks = sub { return scalar(grep { !/clock|restored/ } glob($node->data_dir . '/garbagetruck.*')) };

# Errors in other work, again and again, while runs are on record: each is made once all the same.
for my $point (qw(expire_commit lease_chosen ended))
{
	for my $round (1 .. 4)
	{
		fault($node, $point, 'error');
		$node->safe_psql('postgres', qq{
			SELECT gt_release(gt_lease_create('$point $round ' || h, cleanup => h)), gt_lease_create('$point $round run out ' || h, cleanup => h, duration => '1 ms')
			FROM unnest('{once,batch}'::text[]) h});
		ok(fault_waits($node, $point, 'error'), "$point, $round: an error beside the runs");
	}
	is(eventually($node, 'postgres', qq{SELECT count(*), count(DISTINCT id) FROM cleaned WHERE id LIKE '$point %'}, '16|16'), '16|16', "$point: all are cleaned, each once");
}
is($node->safe_psql('postgres', $charged), '0', 'and nobody was charged');

# The transaction of a run fails, four times, by nobody's doing: the error is shown, and it is no attempt.
fault($node, 'outcome_written', 'error');
$node->safe_psql('postgres', q{SELECT gt_release(gt_lease_create('excused', cleanup => 'once'))});
for my $round (2 .. 4)
{
	ok(fault_waits($node, 'outcome_written', 'error'), "the transaction of a run fails, $round");
	is(eventually($node, 'postgres', q{SELECT attempts, error FROM gt_garbage WHERE object_id = 'excused'},
		'0|fault point "outcome_written" (SQLSTATE XX000)'), '0|fault point "outcome_written" (SQLSTATE XX000)', 'the object shows why');
	fault($node, 'outcome_written', 'error');
}
ok(fault_waits($node, 'outcome_written', 'error'), 'and once more');
cleaned_once('excused');
is($node->safe_psql('postgres', $charged), '0', 'that was no attempt');

# What was on record then has been judged, and its name is for no other: who looks for records passes over the name of one that was.
reload_and_see($node, 'garbagetruck.max_workers', 0);
is(eventually($node, 'postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'garbagetruck worker%'}, 0), 0, 'the workers go');
reload_and_see($node, 'garbagetruck.max_workers', 1);
my $name = q{SELECT r.worker, l.pid FROM _garbagetruck.gt__run r, pg_locks l WHERE r.items <> '{}'
	AND l.classid = '_garbagetruck.gt__run'::regclass AND l.objid::bigint = (r.worker & 4294967295)};
$node->safe_psql('postgres', q{SELECT gt_release(gt_lease_create('gate of a name', cleanup => 'once'))});
gate_is_waiting($node, 'postgres');
my ($first, $worker) = split /\|/, $node->safe_psql('postgres', $name);
# It counts as a copy for a moment, and is adopted: what runs here stays on record.
$node->safe_psql('postgres', 'DELETE FROM _garbagetruck.gt__place');
$node->safe_psql('postgres', 'SELECT gt_resume(adopt => true)');
is($node->safe_psql('postgres', $name), "$first|$worker", 'who adopts a database forgets no run that goes on in it');
# A record of the same name in another database has no writer.
$node->safe_psql('template1', 'CREATE DATABASE another');
$node->safe_psql('another', "CREATE EXTENSION garbagetruck; SELECT gt_handler_create('h', 'queue');
	INSERT INTO _garbagetruck.gt__run (worker, handler, alone, together, at, items, timeline, optimistic) SELECT $first, id, true, false, gt_clock(), '{1000,1000}', 1, false FROM _garbagetruck.gt__handler WHERE name = 'h'");
$node->safe_psql('another', 'CALL gt_reclaim()');
is($node->safe_psql('another', 'SELECT count(*) FROM _garbagetruck.gt__run'), '0', 'nor is a run of another database taken for one of this');
$node->safe_psql('template1', 'DROP DATABASE another');
fault($node, 'outcome_written', 'error');
fault($node, 'run_locked', 'wait');
$node->safe_psql('postgres', 'INSERT INTO gate VALUES (true)');
ok(fault_waits($node, 'run_locked'), 'an object is run again by the process that failed with it');
like($node->safe_psql('postgres', $name), qr/^(?!\Q$first\E)\d+\|\Q$worker\E$/, 'under another name');
no_fault($node, 'run_locked');
cleaned_once('gate of a name');
$node->safe_psql('postgres', 'DELETE FROM gate');
reload_and_see($node, 'garbagetruck.max_workers', 4);

# The table is rewritten between a choice and its run: the objects lie elsewhere then, or nowhere in the file.
$node->safe_psql('postgres', q{SELECT count(*) FROM unnest(gt_lease_create_many(ARRAY(SELECT 'pad ' || i FROM generate_series(1, 2000) i), duration => '1 hour'))});
fault($node, 'clean_committed', 'wait');
$node->safe_psql('postgres', q{SELECT gt_release(gt_lease_create('moved', cleanup => 'once'))});
ok(fault_waits($node, 'clean_committed'), 'a run is on record');
my $log = -s $node->logfile;
$node->safe_psql('postgres', q{SELECT gt_release_many(ARRAY(SELECT lease_id FROM gt_leases WHERE object_id LIKE 'pad %'))});
$node->safe_psql('postgres', 'VACUUM FULL _garbagetruck.gt_object');
no_fault($node, 'clean_committed');
cleaned_once('moved');
unlike(slurp_file($node->logfile, $log), qr/could not read|interrupted/, 'it is found all the same');

# Another backend is killed while a run goes on, three times: the server goes down, the handler has nothing to do with it.
$node->safe_psql('postgres', q{SELECT gt_release(gt_lease_create('gate of others', cleanup => 'once'))});
for my $round (1 .. 3)
{
	gate_is_waiting($node, 'postgres');
	my $victim = in_background($node, 'postgres', 'SELECT pg_sleep(3600)');
	$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(3600)'}) or die;
	kill_process($node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(3600)'}));
	eval { finish_background($victim) };
	wait_for_restart($node);
}
# An immediate and a fast stop, and the launcher's death.
gate_is_waiting($node, 'postgres');
$node->stop('immediate');
$node->start;
gate_is_waiting($node, 'postgres');
$node->restart;
gate_is_waiting($node, 'postgres');
kill_process($node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'garbagetruck launcher'}));
wait_for_restart($node);
gate_is_waiting($node, 'postgres');
is($node->safe_psql('postgres', $charged), '0', 'deaths of others and shutdowns are no attempts');
$node->safe_psql('postgres', 'INSERT INTO gate VALUES (true)');
cleaned_once('gate of others');
is($node->safe_psql('postgres', q{SELECT attempt FROM cleaned WHERE id = 'gate of others'}), '1', 'it was the first attempt');
is($node->safe_psql('postgres', q{SELECT paused FROM gt_handlers WHERE name = 'once'}), 'f', 'and the handler is not paused');
$node->safe_psql('postgres', 'DELETE FROM gate');

# Its own worker is killed: that counts.
$node->safe_psql('postgres', q{SELECT gt_handler_create('own', 'sql', 'SELECT public.clean($1, $8)', max_attempts => 5, retry_delay => '10 ms', timeout => '5 minutes')});
$node->safe_psql('postgres', q{SELECT gt_release(gt_lease_create('gate of its own', cleanup => 'own'))});
for my $round (1, 2)
{
	kill_process(gate_is_waiting($node, 'postgres'));
	wait_for_restart($node);
}
is(eventually($node, 'postgres', q{SELECT attempts, error FROM gt_garbage WHERE object_id = 'gate of its own'},
	'2|the worker or the server went down during the run'), '2|the worker or the server went down during the run', 'the death of its own worker is an attempt');
is(eventually($node, 'postgres', q{SELECT paused FROM gt_handlers WHERE name = 'own'}, 't'), 't', 'the second in a row pauses the handler');

# It is terminated in the middle of a run, beside one that is slow, and on its way out, with its slot given back, its timers still
# fire: the next turns of the run, of 200 ms, come, and nobody goes down with it.
my $session = $node->background_psql('postgres');
my $runs = q{FROM gt_workers WHERE handler = '%s' AND gt_clock() > since + interval '1.5 s'};
$node->safe_psql('postgres', q{DELETE FROM gate});
for my $handler ('batch', 'once')
{
	$node->safe_psql('postgres', "SELECT gt_release(gt_lease_create('gate of $handler', cleanup => '$handler'))");
	$node->poll_query_until('postgres', sprintf("SELECT count(*) = 1 $runs", $handler)) or die "$handler does not run";
}
my $leaving = $node->safe_psql('postgres', sprintf("SELECT pid $runs", 'once'));
fault($node, 'slot_left', 'wait');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($leaving)");
ok(fault_waits($node, 'slot_left'), 'a worker has given its slot back');
$session->query_safe('SELECT pg_sleep(0.5)');
no_fault($node, 'slot_left');
wait_until_gone($leaving);
is($session->query_safe('SELECT 1'), '1', 'and its timers concern nobody any more');
$session->quit;
$node->safe_psql('postgres', 'INSERT INTO gate VALUES (true)');
cleaned_once("gate of $_") for ('batch', 'once');

# No mark is left behind.
$node->restart;
$node->safe_psql('postgres', q{SELECT gt_release(gt_lease_create('last', cleanup => 'once'))});
cleaned_once('last');
is($marks->(), 0, 'no mark is left') or diag join "\n", glob($node->data_dir . '/garbagetruck.*');

$node->stop;
done_testing();

sub cleaned_once
{
	my ($id) = @_;
	$node->poll_query_until('postgres', "SELECT count(*) > 0 FROM cleaned WHERE id = '$id'");
	return is($node->safe_psql('postgres', "SELECT count(*) FROM cleaned WHERE id = '$id'"), '1', "$id is cleaned once");
}
