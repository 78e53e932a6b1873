# The queue between processes: consumers that stall and die, listeners that were away, what is kept of it all.
use strict;
use warnings;
use GarbageTruck;
use PostgreSQL::Test::Cluster;
use Test::More;

my $node = truck('queue');
$node->safe_psql('postgres', 'CREATE EXTENSION garbagetruck');

# 20,000 items and four consumers. Each writes down what it was given, and in one transaction with it what it
# acknowledged. The third sleeps through its visibility now and then, the fourth is terminated with claims in hand.
$node->safe_psql('postgres', q{
	CREATE TABLE given (consumer int, cleanup_id bigint, attempt int, at timestamptz DEFAULT gt_clock(), until timestamptz);
	CREATE TABLE taken (consumer int, cleanup_id bigint, attempt int, at timestamptz DEFAULT gt_clock());
	CREATE PROCEDURE consume(consumer int) LANGUAGE plpgsql AS $$
	DECLARE
		n bigint;
		rounds int := 0;
	BEGIN
		CREATE TEMP TABLE mine (cleanup_id bigint, attempt int);
		LOOP
			TRUNCATE mine;
			WITH c AS (SELECT * FROM gt_claim(ARRAY['work'], 100, '500 ms')),
				m AS (INSERT INTO mine SELECT c.cleanup_id, c.attempt FROM c)
			INSERT INTO given (consumer, cleanup_id, attempt, until) SELECT consume.consumer, c.cleanup_id, c.attempt, c.claimed_until FROM c;
			GET DIAGNOSTICS n = ROW_COUNT;
			COMMIT;
			EXIT WHEN n = 0 AND NOT EXISTS (SELECT FROM gt_garbage);
			rounds := rounds + 1;
			IF consumer = 3 AND rounds % 10 = 1 AND n > 0 THEN
				PERFORM pg_sleep(1);
			ELSIF consumer = 4 THEN
				PERFORM pg_terminate_backend(pg_backend_pid()) WHERE rounds = 5;
			ELSIF n = 0 THEN
				PERFORM pg_sleep(0.05);
			END IF;
			INSERT INTO taken (consumer, cleanup_id, attempt)
			SELECT consume.consumer, m.cleanup_id, m.attempt FROM mine m WHERE gt_ack(m.cleanup_id, m.attempt);
			COMMIT;
		END LOOP;
	END $$;
	SELECT gt_handler_create('work', 'queue', retry_delay => '10 ms');
	SELECT count(gt_lease_create_many(ARRAY(SELECT 'item ' || n FROM generate_series(1, 20000) n), cleanup => 'work'));
	SELECT gt_release_many(ARRAY(SELECT lease_id FROM gt_leases));
});
my @consumers = map { in_background($node, 'postgres', "CALL consume($_)") } 1 .. 4;
my @said = map { finish_background($_) } @consumers;
is(join('', @said[0 .. 2]), '', 'three consumers came to an end');
like($said[3], qr/terminat|closed/, 'the fourth was terminated');
is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT cleanup_id) FROM taken'), '20000|20000',
	'each item was acknowledged by exactly one token');
is($node->safe_psql('postgres', 'SELECT count(*) FROM (SELECT cleanup_id, attempt FROM given GROUP BY 1, 2 HAVING count(*) > 1) g'), '0',
	'no token was given twice');
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM given WHERE attempt > 1'), '>', 0, 'what lapsed was given again');
is($node->safe_psql('postgres', q{
	SELECT count(*) FROM given a JOIN given b USING (cleanup_id) WHERE b.attempt = a.attempt + 1 AND b.until - interval '500 ms' < a.until}), '0',
	'and nobody had an item while it was another\'s');
is($node->safe_psql('postgres', q{
	SELECT count(*) FROM taken t WHERE EXISTS (SELECT FROM given g WHERE g.cleanup_id = t.cleanup_id AND g.attempt > t.attempt)}), '0',
	'only the newest token of an item was good');
is($node->safe_psql('postgres', q{
	SELECT name, value FROM gt_metrics() WHERE name IN ('garbagetruck_garbage', 'garbagetruck_leases')
	OR name = 'garbagetruck_cleanups_total' AND labels @> '{"handler": "work", "result": "cleaned"}' ORDER BY 1}),
	"garbagetruck_cleanups_total|20000\ngarbagetruck_garbage|0\ngarbagetruck_leases|0", 'the metrics agree');

# a listener hears of what ends while it listens: all of it as gt_claim shows it, or truncated
my $listen = sub {
	my ($sql) = @_;
	my ($stdout, $stderr);
	# psql shows what has arrived after each command
	$node->psql('postgres', $sql, stdout => \$stdout, stderr => \$stderr);
	return map { /payload "(.*)" received/ ? $1 : () } split /\n/, $stdout;
};
$node->safe_psql('postgres', q{
	CREATE PROCEDURE announced(again int) LANGUAGE plpgsql AS $$
	BEGIN
		-- an announcement moves the next one into the future
		FOR i IN 1 .. 6000 LOOP
			EXIT WHEN (SELECT count(*) FROM gt_garbage WHERE handler = 'hint' AND next_attempt_at > gt_clock()) >= again;
			COMMIT;
			PERFORM pg_sleep(0.01);
		END LOOP;
	END $$;
	SELECT gt_handler_create('hint', 'notify', 'hints', retry_delay => '1 hour');
	SELECT gt_handler_create('once', 'notify_only', 'hints');
});
my @heard = $listen->(q{
	LISTEN hints;
	SELECT gt_release(gt_lease_create('small', cleanup => 'hint', payload => '{"a": "b\"c"}', metadata => '{"m": 1}'));
	CALL announced(1);
	SELECT gt_release(gt_lease_create('large', cleanup => 'hint', payload => jsonb_build_object('a', repeat('x', 9000))));
	CALL announced(2);
	SELECT 1;
});
is(scalar(@heard), 2, 'a notification for each object');
my $small = $node->safe_psql('postgres', qq{
	SELECT j - ARRAY['lease_id', 'fence'], jsonb_typeof(j -> 'fence'), j ? 'lease_id' FROM (SELECT \$j\$$heard[0]\$j\$::jsonb AS j) x});
is($small, $node->safe_psql('postgres', q{
	SELECT jsonb_build_object('cleanup_id', cleanup_id, 'attempt', 1, 'object_id', 'small', 'object_type', 'custom', 'handler', 'hint',
		'kind', 'notify', 'command', 'hints', 'payload', '{"a": "b\"c"}'::jsonb, 'metadata', '{"m": 1}'::jsonb, 'service_id', service_id,
		'claimed_until', null), 'number', true FROM gt_garbage WHERE object_id = 'small'}), 'with all that gt_claim shows');
is($node->safe_psql('postgres', qq{SELECT j ->> 'object_id', j -> 'truncated', j ? 'payload', j ? 'metadata' FROM (SELECT \$j\$$heard[1]\$j\$::jsonb AS j) x}),
	'large|true|f|f', 'without payload and metadata where it would be too long');
$node->safe_psql('postgres', 'SELECT gt_ack(cleanup_id, attempts + 1) FROM gt_garbage');

# unacknowledged it is announced again, without counting attempts
$node->safe_psql('postgres', q{SELECT gt_handler_create('hint', 'notify', 'hints', retry_delay => '100 ms')});
@heard = $listen->(q{
	LISTEN hints;
	SELECT gt_release(gt_lease_create('again', cleanup => 'hint'));
	SELECT set_config('t.since', gt_clock()::text, false);
	DO $$ BEGIN FOR i IN 1 .. 6000 LOOP
		EXIT WHEN (SELECT next_attempt_at - since > '600 ms' FROM gt_garbage WHERE object_id = 'again');
		PERFORM pg_sleep(0.01); END LOOP; END $$;
	SELECT 1;
});
cmp_ok(scalar(@heard), '>=', 3, 'an unacknowledged object is announced again and again');
is(join(' ', grep { !/"attempt": 1,/ } @heard), '', 'with the same token');
is($node->safe_psql('postgres', q{SELECT attempts, gt_ack(cleanup_id, 1) FROM gt_garbage WHERE object_id = 'again'}), '0|t', 'which is good');
@heard = $listen->(q{
	LISTEN hints;
	SELECT gt_release(gt_lease_create('fire and forget', cleanup => 'once'));
	DO $$ BEGIN FOR i IN 1 .. 6000 LOOP EXIT WHEN NOT EXISTS (SELECT FROM gt_garbage); PERFORM pg_sleep(0.01); END LOOP; END $$;
	SELECT 1;
});
is(scalar(@heard), 1, 'notify_only is done once sent');

# a listener that was away while 5,000 objects ended has them all: it listens first, then drains
$node->safe_psql('postgres', q{
	SELECT gt_handler_create('hint', 'notify', 'hints', retry_delay => '1 hour');
	SELECT count(gt_lease_create_many(ARRAY(SELECT 'missed ' || n FROM generate_series(1, 5000) n), cleanup => 'hint'));
	SELECT gt_release_many(ARRAY(SELECT lease_id FROM gt_leases));
});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM gt_garbage WHERE next_attempt_at = since}), 'all were announced to nobody');
is($node->safe_psql('postgres', q{
	LISTEN hints;
	CREATE TABLE drained (object_id text);
	DO $$
	DECLARE
		n bigint;
	BEGIN
		LOOP
			WITH c AS (SELECT * FROM gt_claim(ARRAY['hint'], 100))
			INSERT INTO drained SELECT object_id FROM c WHERE gt_ack(cleanup_id, attempt);
			GET DIAGNOSTICS n = ROW_COUNT;
			EXIT WHEN n = 0;
		END LOOP;
	END $$;
	SELECT count(*), count(DISTINCT object_id) FROM drained}), '5000|5000', 'who was away drains what he missed at once');

# what the history keeps is a setting
my %want = (off => '', errors => 'bad:dead',
	all => 'bad:dead bad:released good:cleaned good:released kept:kept');
for my $mode (qw(off errors all))
{
	reload_and_see($node, 'garbagetruck.history', $mode);
	$node->safe_psql('postgres', qq{
		SELECT gt_handler_create('work', 'queue', max_attempts => 1);
		SELECT gt_release(gt_lease_create('good $mode', cleanup => 'work'));
		SELECT gt_ack(cleanup_id, attempt) FROM gt_claim(ARRAY['work']);
		SELECT gt_release(gt_lease_create('bad $mode', cleanup => 'work'));
		SELECT gt_nack(cleanup_id, attempt, 'no') FROM gt_claim(ARRAY['work']);
		SELECT gt_release(gt_lease_create('kept $mode', cleanup => 'work'), keep => true);
	});
	is($node->safe_psql('postgres', qq{
		SELECT coalesce(string_agg(split_part(object_id, ' ', 1) || ':' || event, ' ' ORDER BY object_id, event), '')
		FROM gt_history WHERE object_id LIKE '% $mode'}),
		$want{$mode}, "garbagetruck.history = $mode");
}

# a snapshot that stays keeps the entries of what is done: a claim does not walk over them all each time
{
	my $old = $node->background_psql('postgres');
	$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
	$node->safe_psql('postgres', q{
		SELECT gt_handler_create('many', 'queue');
		SELECT count(gt_lease_create_many(ARRAY(SELECT 'done ' || n FROM generate_series(1, 5000) n), cleanup => 'many'));
		SELECT gt_release_many(ARRAY(SELECT lease_id FROM gt_leases));
		SELECT gt_ack_many(array_agg(cleanup_id), array_agg(attempt)) FROM gt_claim(ARRAY['many'], 5000);
		SELECT pg_sleep(1.1);	-- of the last second all is looked at
		SELECT count(gt_lease_create_many(ARRAY(SELECT 'left ' || n FROM generate_series(1, 5) n), cleanup => 'many'));
		SELECT gt_release_many(ARRAY(SELECT lease_id FROM gt_leases));
	});
	my $plan = 'EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT * FROM gt_claim(ARRAY[\'many\'], 1)';
	my @pages = $node->safe_psql('postgres', "$plan; $plan; $plan") =~ /Function Scan[^\n]*\n\s*Buffers: shared hit=(\d+)/g;
	is(scalar(@pages), 3, 'three claims were measured');
	cmp_ok($pages[0], '>', 400, 'the first claim of a session has to look at what is done');
	cmp_ok($pages[2], '<', 100, 'the others begin where it found something');

	# nor does a worker each time over all that the records of runs were, of itself and of those before it: of one that has
	# left, and of one that was terminated in a run
	$node->safe_psql('postgres', q{
		SELECT gt_handler_create('one', 'sql', 'SELECT $1');
		SELECT gt_handler_create('long', 'sql', 'SELECT pg_sleep(1000)', timeout => '1 hour')});
	reload_and_see($node, 'garbagetruck.batch_size', 1);
	my $cleaned = q{SELECT coalesce(sum(runs), 0) FROM gt_handlers WHERE name = 'one'};
	my $worker = q{FROM pg_stat_activity WHERE backend_type LIKE 'garbagetruck worker%'};
	my $drain = sub {
		my ($count) = @_;
		my $wanted = $node->safe_psql('postgres', $cleaned) + $count;
		$node->safe_psql('postgres', "SELECT count(gt_lease_create_many(ARRAY(SELECT 'one ' || n FROM generate_series(1, $count) n), cleanup => 'one', duration => '10 ms'))");
		reload_and_see($node, 'garbagetruck.max_workers', 1);
		is(eventually($node, 'postgres', $cleaned, $wanted), $wanted, "$count are cleaned, one in each transaction");
		return;
	};
	my $leave = sub {
		reload_and_see($node, 'garbagetruck.max_workers', 0);
		is(eventually($node, 'postgres', "SELECT count(*) $worker", 0), 0, 'and the worker has gone');
		return;
	};
	$leave->();
	$drain->(2000);
	$leave->();
	$drain->(2000);
	$node->safe_psql('postgres', q{SELECT gt_release(gt_lease_create('long', cleanup => 'long'))});
	is(eventually($node, 'postgres', "SELECT count(*) $worker AND wait_event = 'PgSleep'", 1), 1, 'a worker is in a run');
	$node->safe_psql('postgres', "SELECT gt_pause('long'); SELECT pg_terminate_backend(pid) $worker");
	is(eventually($node, 'postgres', q{SELECT error FROM gt_garbage WHERE object_id = 'long'}, 'the worker was terminated during the run'),
		'the worker was terminated during the run', 'and is terminated');
	$leave->();
	my $read = q{SELECT pg_stat_force_next_flush(); SELECT idx_tup_read FROM pg_stat_all_indexes WHERE indexrelname = 'gt__run_pkey'};
	my ($before, $after) = grep { /./ } split /\n/, $node->safe_psql('postgres', "$read; CALL gt_reclaim(); $read") =~ s/^0$//mr;
	cmp_ok($before, '>', 4000, 'there was a record for each');
	cmp_ok($after - $before, '<', 10, 'of which few are read when all are looked at');
	$old->quit;
}

$node->stop;
done_testing();
