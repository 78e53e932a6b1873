# At each named point between "rows are chosen" and "their deletion is committed" the process that comes by fails, is ended,
# or is killed (and with it the server): no row is lost, none is garbage twice, none is charged; and a row that is extended
# while the process waits there is judged by what it is then.
use strict;
use warnings;
use GarbageTruck;
use PostgreSQL::Test::Cluster;
use Test::More;

my $node = truck('rows', "garbagetruck.restart_grace = '0'", 'max_prepared_transactions = 5');
$node->safe_psql('postgres', q{
	CREATE EXTENSION garbagetruck;
	SELECT gt_handler_create('files', 'queue');
	CREATE TABLE t (id int PRIMARY KEY, expires_at timestamptz);
	SELECT gt_ttl_create('t', 'expires_at', 'files', create_index => true);
});
my $made = 0;

for my $point (qw(clean_chosen clean_committed rows_locked rows_deleted rows_made rows_done clean_commit))
{
	for my $action (qw(error fatal crash))
	{
		fault($node, $point, $action);
		my ($out, $err);
		my $first = $made + 1;
		$made += 10;
		while ($node->psql('postgres', "INSERT INTO t SELECT i, now() FROM generate_series($first, $made) i ON CONFLICT DO NOTHING", stdout => \$out, stderr => \$err) != 0)
		{
			wait_for_restart($node);
			last if $node->safe_psql('postgres', "SELECT count(*) + (SELECT count(*) FROM gt_garbage WHERE object_id = '$made') FROM t WHERE id = $made") ne '0';
		}
		ok(fault_waits($node, $point, $action), "$point, $action: a process came by");
		no_fault($node, $point);
		wait_for_restart($node);
		is(eventually($node, 'postgres', 'SELECT count(*), (SELECT count(DISTINCT object_id) FROM gt_garbage), (SELECT count(*) FROM gt_garbage) FROM t', "0|$made|$made"),
			"0|$made|$made", "$point, $action: all are deleted, and each is garbage once");
	}
}
is($node->safe_psql('postgres', q{SELECT count(*) FROM gt_garbage WHERE handler IS NULL OR attempts > 0}), '0', 'no row was charged');
is(eventually($node, 'postgres', 'SELECT count(*) FROM _garbagetruck.gt__run WHERE cardinality(items) > 0', '0'), '0', 'no run is on record');

# A row that was put aside is deleted, and the object that stood for it is garbage of the handler: both or neither.
$node->safe_psql('postgres', q{
	CREATE TABLE bad (id int);
	CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF EXISTS (SELECT FROM public.bad WHERE id = OLD.id) THEN RAISE 'no'; END IF;
		RETURN OLD;
	END $$;
	CREATE TRIGGER keep BEFORE DELETE ON t FOR EACH ROW EXECUTE FUNCTION keep();
});
for my $point (qw(run_locked rows_deleted run_done outcome_written clean_commit))
{
	$made++;
	$node->safe_psql('postgres', "INSERT INTO bad VALUES ($made); INSERT INTO t VALUES ($made, now())");
	is(eventually($node, 'postgres', 'SELECT object_id, attempts > 0 FROM gt_garbage WHERE handler IS NULL', "$made|t"), "$made|t", "$point: a row is put aside");
	fault($node, $point, 'crash');
	my ($out, $err);
	$node->psql('postgres', 'DELETE FROM bad; SELECT gt_redrive()', stdout => \$out, stderr => \$err);
	ok(fault_waits($node, $point, 'crash'), "$point: the server crashes when it is tried again");
	wait_for_restart($node);
	$node->safe_psql('postgres', 'DELETE FROM bad; SELECT gt_redrive()');
	is(eventually($node, 'postgres', 'SELECT count(*), (SELECT count(*) FROM gt_garbage WHERE handler IS NOT NULL) FROM t', "0|$made"), "0|$made",
		"$point: it is deleted, and garbage once");
	$node->safe_psql('postgres', q{SELECT gt_ttl_create('t', 'expires_at', 'files')});	# it may have been by itself, and is charged then
}

# Two workers on one table: the second passes over what the first has deleted, and both are committed.
fault($node, 'rows_done', 'wait');
$node->safe_psql('postgres', "INSERT INTO t SELECT i, now() FROM generate_series($made + 1, $made + 10) i");
ok(fault_waits($node, 'rows_done'), 'ten rows are deleted, which is not committed');
$node->safe_psql('postgres', "INSERT INTO t SELECT i, now() FROM generate_series($made + 11, $made + 20) i");
is(eventually($node, 'postgres', q{SELECT count(*) FROM gt_workers WHERE state = 'cleaning'}, '2'), '2', 'another worker comes by');
no_fault($node, 'rows_done');
$made += 20;
is(eventually($node, 'postgres', 'SELECT count(*), (SELECT count(*) FROM gt_garbage WHERE handler IS NOT NULL) FROM t', "0|$made"), "0|$made", 'each row is deleted and garbage once');

# kill -9 between the commit of a prepared transaction and the call that tells the workers of it: they look when they start.
$node->safe_psql('postgres', q{SELECT gt_handler_create('one', 'queue', concurrency => 1), gt_release(gt_lease_create('claimed', cleanup => 'one'))});
for my $end ('COMMIT', 'ROLLBACK')
{
	my ($out, $err);
	$made++;
	$node->safe_psql('postgres', "BEGIN; INSERT INTO t VALUES ($made, now()); SELECT gt_lease_create('prepared', duration => '10 ms', cleanup => 'files');
		SELECT gt_claim('{one}'); PREPARE TRANSACTION 'p'");
	fault($node, 'prepared_ended', 'crash');
	$node->psql('postgres', "$end PREPARED 'p'", stdout => \$out, stderr => \$err);
	ok(fault_waits($node, 'prepared_ended', 'crash'), "$end PREPARED: done, and nobody told");
	wait_for_restart($node);
	$made-- if $end eq 'ROLLBACK';
	is(eventually($node, 'postgres', q{SELECT count(*), (SELECT count(*) FROM gt_leases), (SELECT count(*) FROM gt_garbage WHERE handler = 'files') FROM t}, "0|0|" . ($made + 1)),
		"0|0|" . ($made + 1), "$end PREPARED: what it has done is seen");
	is($node->safe_psql('postgres', q{SELECT (SELECT value FROM gt_metrics() WHERE name = 'garbagetruck_garbage') = count(*) FROM gt_garbage}), 't', "$end PREPARED: and counted");
	is($node->safe_psql('postgres', q{SELECT count(*) FROM gt_claim('{one}')}), $end eq 'COMMIT' ? '0' : '1', "$end PREPARED: and so is what it has claimed");
	$node->safe_psql('postgres', q{SELECT gt_nack(cleanup_id, attempts, NULL, '0') FROM gt_garbage WHERE handler = 'one'});
}

# Chosen, but not looked at yet: extended now, it stays.
fault($node, 'clean_committed', 'wait');
$node->safe_psql('postgres', 'INSERT INTO t VALUES (0, now())');
ok(fault_waits($node, 'clean_committed'), 'the table is chosen');
$node->safe_psql('postgres', q{UPDATE t SET expires_at = now() + interval '1 hour' WHERE id = 0});
no_fault($node, 'clean_committed');
is(eventually($node, 'postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'garbagetruck worker%' AND state = 'idle'}, '1'), '1', 'the worker has looked');
is($node->safe_psql('postgres', 'SELECT count(*) FROM t'), '1', 'and the row is there');

# Locked, about to be deleted: who extends it waits, and is told.
fault($node, 'rows_locked', 'wait');
$node->safe_psql('postgres', 'INSERT INTO t VALUES (-1, now())');
ok(fault_waits($node, 'rows_locked'), 'a row is locked');
my $late = in_background($node, 'postgres', q{WITH u AS (UPDATE t SET expires_at = now() + interval '1 hour' WHERE id = -1 RETURNING id) SELECT count(*) FROM u});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'}), 'who would extend it waits');
no_fault($node, 'rows_locked');
is(finish_background($late), "0\n", 'and finds that it is gone');

# While somebody hangs over a row the table is dropped by nobody, and its declaration changed by nobody; it is over soon.
fault($node, 'rows_done', 'wait');
$node->safe_psql('postgres', 'INSERT INTO t VALUES (-2, now())');
ok(fault_waits($node, 'rows_done'), 'a row is deleted, and that is not committed');
my $drop = in_background($node, 'postgres', q{SELECT gt_ttl_drop('t')});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'}), 'gt_ttl_drop waits');
no_fault($node, 'rows_done');
is(finish_background($drop), "t\n", 'and is done');
$node->safe_psql('postgres', 'INSERT INTO t VALUES (-3, now())');
$node->safe_psql('postgres', 'DROP TABLE t');
$node->stop;
done_testing();
