# Leases are ended and their objects cleaned in one: at each step the worker fails, is ended, or is killed (and with it the
# server). Nothing is lost, nothing is cleaned twice, nobody is charged; after a crash the handler goes the ordinary way for a
# while. To the handler, and to whoever waits, all is as in the ordinary way.
use strict;
use warnings;
use GarbageTruck;
use PostgreSQL::Test::Cluster;
use Test::More;

my $node = truck('optimistic', "garbagetruck.restart_grace = '0'", "garbagetruck.history = 'all'");
set_up($node);
$node->safe_psql('postgres', q{
	SELECT gt_handler_create('set', 'sql_batch', 'SELECT public.clean(i, a) FROM unnest($1, $8) x(i, a)', retry_delay => '10 ms', timeout => '5 minutes');
	CREATE FUNCTION look(id text, lease uuid, cleanup bigint) RETURNS void LANGUAGE sql AS $$
		INSERT INTO public.cleaned (id, attempt) SELECT id || ' saw ' || (SELECT count(*) FROM public.gt_lease_get(lease))
			|| ' ' || (SELECT count(*) FROM public.gt_garbage WHERE cleanup_id = cleanup), 1 $$;
	SELECT gt_handler_create('look', 'sql', 'SELECT public.look($1, $5, $9)');
});
my $careful = 'SELECT count(*) FROM _garbagetruck.gt__run WHERE careful_until > gt_clock()';
my $round = 0;

# Until the handler has run an error is its own. At the first points other transactions come by, too.
my %spared = map { $_ => 1 } ('whole_taken error', 'run error');
for my $handler (qw(clean set))
{
	for my $point ($handler eq 'set' ? qw(whole_taken run whole_run) : qw(lease_chosen clean_commit clean_committed whole_chosen whole_taken run whole_run whole_written))
	{
		for my $action (qw(error fatal crash))
		{
			$round++;
			prove_itself($handler);
			fault($node, $point, $action);
			run_out($handler, "$round");
			ok(fault_waits($node, $point, $action), "$handler, $point, $action: a process came by");
			no_fault($node, $point);
			wait_for_restart($node);
			is(eventually($node, 'postgres', "SELECT count(*), count(DISTINCT id), min(attempt), max(attempt) FROM cleaned WHERE id LIKE '_ $round'", '5|5|1|1'),
				'5|5|1|1', "$handler, $point, $action: all are cleaned, each once, by a first attempt");
			is($node->safe_psql('postgres', "SELECT string_agg(DISTINCT event || n, ' ') FROM (SELECT event, count(*) AS n FROM gt_history WHERE object_id LIKE '_ $round' GROUP BY 1, object_id) h"),
				'cleaned1 expired1', "$handler, $point, $action: which the history tells");
			is($node->safe_psql('postgres', $careful), $spared{"$point $action"} ? '0' : '1', "$handler, $point, $action: the handler is handled with care after a crash alone")
				if $point =~ /^(whole|run)/;
			$node->safe_psql('postgres', 'DELETE FROM _garbagetruck.gt__run WHERE careful_until IS NOT NULL');
			$node->restart if $point =~ /^(whole_taken|run)$/ && $action eq 'error';    # else it rests
		}
	}
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM gt_dead'), '0', 'nobody was charged to death');
is($node->safe_psql('postgres', q{SELECT count(*) FROM gt_handlers WHERE paused}), '0', 'and no handler is paused');

# With care: no such pass; what crashes is found by the ordinary way, and only it is charged.
prove_itself('set');
fault($node, 'whole_run', 'crash');
run_out('set', 'with care');
ok(fault_waits($node, 'whole_run', 'crash'), 'a pass crashes');
wait_for_restart($node);
cleaned_once('with care');
is($node->safe_psql('postgres', $careful), '1', 'its handler is handled with care');
$node->restart;
prove_itself('set', 1);
fault($node, 'whole_chosen', 'error');
run_out('set', 'the ordinary way');
cleaned_once('the ordinary way');
ok(-e $node->data_dir . '/gt_point.whole_chosen', 'no pass was made, though it has proved itself, and after a restart');
no_fault($node, 'whole_chosen');
$node->safe_psql('postgres', 'DELETE FROM _garbagetruck.gt__run WHERE careful_until IS NOT NULL');

# Who waits for a row that the pass has: a release comes too late, a create takes the object anew.
for my $handler (qw(clean set))
{
	prove_itself($handler);
	fault($node, 'whole_run', 'wait');
	my $lease = $node->safe_psql('postgres', "SELECT lease_id FROM gt_lease_grant('waited for $handler', cleanup => '$handler', duration => '1 ms')");
	ok(fault_waits($node, 'whole_run'), "$handler: a pass has run");
	is($node->safe_psql('postgres', q{SELECT handler FROM gt_workers WHERE state = 'cleaning'}), $handler, "$handler: gt_workers shows it");
	my $release = in_background($node, 'postgres', "SELECT gt_release('$lease')");
	my $create = in_background($node, 'postgres', "SELECT created, attempts FROM gt_lease_grant('waited for $handler', duration => '1 hour')");
	ok($node->poll_query_until('postgres', q{SELECT count(*) = 2 FROM pg_stat_activity WHERE wait_event_type = 'Lock'}), "$handler: two wait");
	no_fault($node, 'whole_run');
	is(finish_background($release), "f\n", "$handler: the release came too late");
	is(finish_background($create), "t|0\n", "$handler: the create has it anew");
	is($node->safe_psql('postgres', "SELECT count(*) FROM cleaned WHERE id = 'waited for $handler'"), '1', "$handler: it was cleaned before");
}

# Somebody is quicker with an object, once its lease is deleted: that is undone, and all of them go the ordinary way.
for my $handler (qw(clean set))
{
	prove_itself($handler, 1);
	fault($node, 'whole_lease', 'wait');
	run_out($handler, "lost $handler");
	ok(fault_waits($node, 'whole_lease'), "$handler: a lease is deleted");
	my $quicker = $node->background_psql('postgres');
	$quicker->query_safe("BEGIN; SELECT object_id FROM _garbagetruck.gt_object WHERE object_id LIKE '_ lost $handler' FOR UPDATE SKIP LOCKED");
	no_fault($node, 'whole_lease');
	ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM gt_workers WHERE state IN ('expiring', 'cleaning')}), "$handler: nobody waits for it");
	is($node->safe_psql('postgres', "SELECT count(*) FROM cleaned WHERE id LIKE '_ lost $handler'"), '0', "$handler: nothing is cleaned");
	$quicker->query_safe('COMMIT');
	$quicker->quit;
	is(eventually($node, 'postgres', "SELECT count(*), count(DISTINCT id), min(attempt), max(attempt) FROM cleaned WHERE id LIKE '_ lost $handler'", '5|5|1|1'),
		'5|5|1|1', "$handler: then all are, each once, by a first attempt");
}
$node->restart;    # else they rest

# One that fails: nobody but it is charged.
for my $handler (qw(clean set))
{
	prove_itself($handler);
	$node->safe_psql('postgres', "SELECT gt_lease_create_many(ARRAY['good 1 $handler', 'bad $handler', 'good 2 $handler'], cleanup => '$handler', duration => '1 ms', max_attempts => 1)");
	is(eventually($node, 'postgres', "SELECT object_id, attempts, error FROM gt_dead WHERE object_id LIKE '%$handler'", "bad $handler|1|can not clean bad $handler (SQLSTATE P0001)"),
		"bad $handler|1|can not clean bad $handler (SQLSTATE P0001)", "$handler: the culprit is charged once");
	is(eventually($node, 'postgres', "SELECT count(*), max(attempt) FROM cleaned WHERE id LIKE 'good%$handler'", '2|1'), '2|1', "$handler: the others are clean");
}

# What others have locked is passed over, and ended once they let go; the others' leases with it are not kept waiting.
prove_itself('set');
my $holder = $node->background_psql('postgres');
$holder->query_safe(q{SELECT gt_lease_create_many(ARRAY['held 1', 'held 2'], cleanup => 'set', duration => '300 ms'); BEGIN;
	SELECT object_id FROM _garbagetruck.gt_object WHERE object_id LIKE 'held %' FOR UPDATE});
$node->safe_psql('postgres', q{SELECT gt_lease_create('free', cleanup => 'set', duration => '1 ms')});
cleaned_once('free');
is(eventually($node, 'postgres', q{SELECT count(*) FROM gt_leases WHERE object_id LIKE 'held %' AND state = 'expired'}, '2'), '2', 'two are over, and locked');
$holder->query_safe('COMMIT');
$holder->quit;
cleaned_once('held 1');
cleaned_once('held 2');

# A handler that looks finds its object to be garbage and the lease ended.
prove_itself('look', 0, 'look %');
run_out('look', 'looked');
is(eventually($node, 'postgres', q{SELECT count(*), min(id), max(id) FROM cleaned WHERE id LIKE '%looked saw%'}, '5|a looked saw 0 1|e looked saw 0 1'),
	'5|a looked saw 0 1|e looked saw 0 1', 'what a handler sees is as ever');

# By the log: rows that go in one go are written together.
$node->safe_psql('postgres', q{SELECT gt_handler_create('many', 'sql_batch', 'SELECT public.clean(i, a) FROM unnest($1, $8) x(i, a)')});
prove_itself('many');
$node->safe_psql('postgres', q{CREATE EXTENSION IF NOT EXISTS pg_walinspect;
	SELECT gt_lease_create_many(ARRAY(SELECT 'written ' || i FROM generate_series(1, 400) i), cleanup => 'many', duration => '1 second')});
my $before = $node->safe_psql('postgres', 'SELECT pg_current_wal_insert_lsn()');
is(eventually($node, 'postgres', q{SELECT count(*), max(attempt) FROM cleaned WHERE id LIKE 'written %'}, '400|1'), '400|1', 'many are cleaned');
my $records = q{SELECT coalesce(sum(count), 0) FROM pg_get_wal_stats('%s', '%s', true) WHERE "resource_manager/record_type" IN (%s)};
my $after = $node->safe_psql('postgres', 'SELECT txid_current()') && $node->safe_psql('postgres', 'SELECT pg_current_wal_flush_lsn()');
cmp_ok($node->safe_psql('postgres', sprintf($records, $before, $after, "'Heap/DELETE', 'Heap/LOCK', 'Heap/UPDATE'")), '<', 400, 'leases and objects go with those beside them');
cmp_ok($node->safe_psql('postgres', sprintf($records, $before, $after, "'Heap/INSERT'")), '<', 600, 'nor is the history of each written by itself');
cmp_ok($node->safe_psql('postgres', sprintf($records, $before, $after, "'Btree/INSERT_LEAF'")), '<', 400, 'nor its entries in the indexes');
is($node->safe_psql('postgres', q{SELECT count(DISTINCT cleanup_id), max(cleanup_id) <= (SELECT last_value FROM _garbagetruck.gt__cleanup_id),
	min(cleanup_id) > (SELECT max(cleanup_id) FROM gt_history WHERE object_id LIKE '%looked') FROM gt_history WHERE object_id LIKE 'written %'}), '400|t|t', 'each has a number of its own, after those of before');
cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM _garbagetruck.gt__history WHERE object_id LIKE 'written %'}), '<', 600, 'and one row tells of both events');
is($node->safe_psql('postgres', q{SELECT count(*), bool_and(events) FROM (
	SELECT array_agg(event ORDER BY at) = '{expired,cleaned}' AND array_agg((cleanup_id, attempt, handler, lag, took, handler_version) IS NULL ORDER BY at) = '{t,f}'
		AND min(lease_id::text) = max(lease_id::text) AND count(DISTINCT (service_id, owner)) = 1 AS events
	FROM gt_history WHERE object_id LIKE 'written %' GROUP BY object_id) h}), '400|t', 'which the view shows one after the other');

# Their times are found by an index that knows of ranges of pages, once VACUUM has seen those: by what is new in them, too.
is(expired_since('-infinity', 'written %'), '400 400', 'what has expired is found in pages that the index does not know');
$node->safe_psql('postgres', 'VACUUM _garbagetruck.gt__history');
is(expired_since('-infinity', 'written %'), '400 400', 'in those that it knows');
my $since = write_more('more');
is(expired_since($since, 'more %'), '400 400', 'and so is what comes into those');
is(expired_since($since, '%'), '400 400', 'and no more than that');
$node->safe_psql('postgres', "DELETE FROM _garbagetruck.gt__history WHERE object_id LIKE 'more %'");
$node->safe_psql('postgres', 'VACUUM _garbagetruck.gt__history');
$since = write_more('again');
is(expired_since($since, 'again %'), '400 400', 'and what takes the place of what was trimmed');
my $plan = $node->safe_psql('postgres', q{SET enable_seqscan = off; EXPLAIN (COSTS OFF) SELECT * FROM gt_history WHERE at > now() - interval '5 minutes'});
like($plan, qr/Index Scan (?:using|on) gt__history_pkey\b.*Bitmap Index Scan on gt__history_expired\b/s, 'a look at a time goes by the indexes');
is($plan =~ /Seq Scan on gt__history/, '', 'and reads the table nowhere');
$plan = $node->safe_psql('postgres', q{SET enable_seqscan = off; EXPLAIN (COSTS OFF) SELECT * FROM gt_history WHERE object_id = 'again 1'});
is(() = $plan =~ /Scan (?:using|on) gt__history_object/g, 2, 'and a look at an object, for each kind of event');
$node->safe_psql('postgres', q{SELECT gt_lease_create('of two', service_id => 'first', cleanup => 'many', duration => '1 second');
	SELECT gt_release(gt_lease_create('of two', service_id => 'second', cleanup => 'many'))});
is(eventually($node, 'postgres', q{SELECT string_agg(event || ' ' || service_id, ', ' ORDER BY at) FROM gt_history WHERE object_id = 'of two'},
	'released second, expired first, cleaned second'), 'released second, expired first, cleaned second', 'also where they are of two services');

# One that lasts delays no other, though both were due when it was chosen.
prove_itself('set');
prove_itself('clean');
$node->safe_psql('postgres', q{
	BEGIN;
	SELECT gt_lease_create_many(ARRAY['gate 1', 'gate 2'], cleanup => 'set', duration => '1 ms');
	SELECT gt_lease_create_many(ARRAY['beside 1', 'beside 2'], cleanup => 'clean', duration => '1 ms');
	COMMIT});
cleaned_once('beside 1');
cleaned_once('beside 2');
gate_is_waiting($node, 'postgres');
$node->safe_psql('postgres', q{SELECT gt_lease_create('after', cleanup => 'clean', duration => '1 ms')});
cleaned_once('after');
$node->safe_psql('postgres', q{SELECT gt_pause('set'); INSERT INTO gate VALUES (true)});
cleaned_once('gate 1');
cleaned_once('gate 2');
is($node->safe_psql('postgres', $careful), '0', 'nobody has crashed');

$node->stop;
done_testing();

# Its last run went well: whether or not that is known of it.
sub prove_itself
{
	my ($handler, $again, $like) = @_;
	my $id = "proof $handler " . ($again // 0) . " $round";
	$node->safe_psql('postgres', "SELECT gt_release(gt_lease_create('$id', cleanup => '$handler'))");
	$node->poll_query_until('postgres', "SELECT count(*) > 0 FROM cleaned WHERE id LIKE '$id%'") or die "$handler does not clean";
	return;
}

# 400 leases that go in one go; since when.
sub write_more
{
	my ($name) = @_;
	prove_itself('many', $name);
	my $now = $node->safe_psql('postgres', 'SELECT gt_clock()');
	$node->safe_psql('postgres', "SELECT gt_lease_create_many(ARRAY(SELECT '$name ' || i FROM generate_series(1, 400) i), cleanup => 'many', duration => '1 second')");
	$node->poll_query_until('postgres', "SELECT count(*) = 400 FROM cleaned WHERE id LIKE '$name %'") or die "$name is not clean";
	cmp_ok($node->safe_psql('postgres', "SELECT count(expired_at) FROM _garbagetruck.gt__history WHERE object_id LIKE '$name %'"), '>', 100, "$name: one row tells of both events");
	return $now;
}

# The events, by the index and without it.
sub expired_since
{
	my ($since, $like) = @_;
	my $count = "SELECT count(*) FROM gt_history WHERE event = 'expired' AND at > '$since' AND object_id LIKE '$like'";
	return join(' ', map { $node->safe_psql('postgres', "SET enable_$_ = off; $count") } qw(seqscan bitmapscan));
}

# Five leases that are over at once.
sub run_out
{
	my ($handler, $name) = @_;
	my ($out, $err);
	$node->psql('postgres', "SELECT gt_lease_create_many(ARRAY(SELECT chr(96 + i) || ' $name' FROM generate_series(1, 5) i), cleanup => '$handler', duration => '1 ms')",
		stdout => \$out, stderr => \$err);
	return;
}

sub cleaned_once
{
	my ($name) = @_;
	my ($id) = $name =~ /^(gate|beside|after|free|held)/ ? ($name) : ("a $name");
	$node->poll_query_until('postgres', "SELECT count(*) > 0 FROM cleaned WHERE id = '$id'");
	return is($node->safe_psql('postgres', "SELECT count(*) FROM cleaned WHERE id = '$id'"), '1', "$id is cleaned once");
}
