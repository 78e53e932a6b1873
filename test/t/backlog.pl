# A backlog of one role does not hold up what ends now: neither the children of one lease, nor a hundred thousand leases
# that ended before, nor rows that a transaction has locked.
use strict;
use warnings;
use GarbageTruck;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = truck('backlog', "garbagetruck.batch_size = 100");
set_up($node);
my $left = q{SELECT count(*) FROM _garbagetruck.gt_lease};

# What the handler of a lease saw that ended beside the others: how many were left.
$node->safe_psql('postgres', q{
	CREATE TABLE witness (id text, n int);
	SELECT gt_handler_create('look', 'sql', 'INSERT INTO witness SELECT $1, count(*) FROM _garbagetruck.gt_lease');
	SELECT gt_handler_create('nobody', 'queue')});

# How many kB the process of a session has grown by a query, after another one that does the same with little.
sub grown
{
	my ($little, $much) = @_;
	my $size = q{SELECT (regexp_match(pg_read_file('/proc/self/status'), 'VmHWM:\s+(\d+)'))[1]};
	my @lines = split /\n/, $node->safe_psql('postgres', "DO \$\$BEGIN PERFORM $little; END\$\$; $size; DO \$\$BEGIN PERFORM $much; END\$\$; $size");
	return $lines[1] - $lines[0];
}

# Children, all of them while the workers are away.
my $parent = $node->safe_psql('postgres', q{SELECT gt_lease_create('parent', duration => '1 hour')});
$node->safe_psql('postgres', qq{SELECT gt_lease_create_many(array_agg('child ' || n), parent => '$parent') FROM generate_series(1, 30000) n;
	SELECT gt_lease_create('child to be seen', cleanup => 'nobody', parent => '$parent')});
cmp_ok(grown(q{* FROM gt_forecast('0')}, q{* FROM gt_forecast('2 hours')}), '<', 6000, 'a forecast has one of them in memory at a time');
$node->safe_psql('postgres', qq{
	BEGIN;
	SELECT gt_lease_create('meanwhile', cleanup => 'look', duration => '10 ms');
	SELECT gt_release('$parent');
	COMMIT});
is(eventually($node, 'postgres', q{SELECT n > 0 FROM witness WHERE id = 'meanwhile'}, 't'), 't', 'a lease ends beside the children of another');
is(eventually($node, 'postgres', $left, '0'), '0', 'and they do in the end');
is($node->safe_psql('postgres', q{SELECT age(gt_clock(), since) < '1 hour' FROM gt_garbage WHERE handler = 'nobody'}), 't',
	'a child has ended when its parent did');
$node->safe_psql('postgres', q{SELECT gt_ack(cleanup_id, attempt) FROM gt_claim('{nobody}')});

# Leases that ended before.
reload_and_see($node, 'garbagetruck.databases', '');
$node->safe_psql('postgres', q{
	SELECT gt_lease_create_many(array_agg('old ' || n), duration => '1 s') FROM generate_series(1, 30000) n;
	SELECT pg_sleep(1.5)});
reload_and_see($node, 'garbagetruck.databases', '*');
$node->safe_psql('postgres', q{SELECT gt_lease_create('now', cleanup => 'look', duration => '10 ms')});
is(eventually($node, 'postgres', q{SELECT n > 0 FROM witness WHERE id = 'now'}, 't'), 't', 'a lease that ends now does not wait for those that ended before');
is(eventually($node, 'postgres', $left, '0'), '0', 'they are done in the end, each');
is($node->safe_psql('postgres', q{SELECT count(*) FROM _garbagetruck.gt_object}), '0', 'and nothing is left of them');

# Leases of another role, before and after in time: nobody waits for those, nor for another's children.
reload_and_see($node, 'garbagetruck.databases', '');
$node->safe_psql('postgres', q{
	CREATE ROLE flood;
	SELECT gt_allow('flood');
	SET ROLE flood;
	SELECT gt_lease_create('flood') AS parent \gset
	SELECT cardinality(gt_lease_create_many(array_agg('flood child ' || n), parent => :'parent')) FROM generate_series(1, 15000) n;
	SELECT cardinality(gt_lease_create_many(array_agg('flood before ' || n), duration => '1 s')) FROM generate_series(1, 15000) n;
	RESET ROLE;
	SELECT gt_lease_create('amid', cleanup => 'look', duration => '1 s');
	SELECT gt_lease_create('parent') AS mine \gset
	SELECT gt_lease_create('amid child', cleanup => 'look', parent => :'mine');
	SET ROLE flood;
	SELECT cardinality(gt_lease_create_many(array_agg('flood after ' || n), duration => '1 s')) FROM generate_series(1, 15000) n;
	SELECT gt_release(:'parent');
	RESET ROLE;
	SELECT gt_release(:'mine');
	SELECT pg_sleep(1.5)});
reload_and_see($node, 'garbagetruck.databases', '*');
is(eventually($node, 'postgres', q{SELECT count(*) = 2 AND min(n) > 15000 FROM witness WHERE id LIKE 'amid%'}, 't'), 't', "a lease and a child end before the most of what another role has");
is(eventually($node, 'postgres', $left, '0'), '0', 'and those do in the end');

# Of very many roles a worker remembers which have something due soon: what comes meanwhile is not missed, be it due before
# or after that, while other work goes on or not.
$node->safe_psql('postgres', q{
	DO $$ BEGIN
		FOR i IN 1 .. 100 LOOP
			EXECUTE format('CREATE ROLE many%s', i);
			PERFORM gt_allow('many' || i);
			PERFORM set_config('role', 'many' || i, true);
			PERFORM gt_lease_create('long ' || i, duration => '1 hour');
			RESET ROLE;
		END LOOP;
	END $$;
	CREATE PROCEDURE soon(i int, after interval) LANGUAGE plpgsql AS $$ BEGIN
		PERFORM set_config('role', 'many' || i, true);
		PERFORM gt_lease_create('soon ' || i || ' ' || clock_timestamp(), duration => after);
		RESET ROLE;
		COMMIT;
	END $$});
$node->safe_psql('postgres', q{
	DO $$ BEGIN
		FOR i IN 1 .. 60 LOOP
			CALL soon(i, '50 ms');
			CALL soon(101 - i, CASE i % 3 WHEN 0 THEN '300 ms' WHEN 1 THEN '1100 ms' ELSE '2300 ms' END::interval);
			IF i % 2 = 0 THEN
				PERFORM gt_release(gt_lease_create('passing ' || i, cleanup => 'look'));
				COMMIT;
			END IF;
			PERFORM pg_sleep(0.05);
		END LOOP;
	END $$});
is(eventually($node, 'postgres', $left, '100'), '100', 'of many roles each lease ends that is over');
$node->safe_psql('postgres', q{SELECT count(gt_release(lease_id)) FROM gt_leases});

# Leases of which the rows are locked: more than a pass can have, before and after one that is not.
$node->safe_psql('postgres', q{
	SELECT gt_lease_create_many(array_agg('held ' || n), duration => '2 s') FROM generate_series(1, 250) n;
	SELECT gt_lease_create('between', cleanup => 'clean', duration => '2 s');
	SELECT gt_lease_create_many(array_agg('held ' || n), duration => '2 s') FROM generate_series(251, 500) n});
my $holder = $node->background_psql('postgres');
$holder->query_safe('BEGIN');
$holder->query_safe(q{SELECT count(*) FROM (SELECT FROM _garbagetruck.gt_object WHERE object_id LIKE 'held%' FOR UPDATE) o});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 500 FROM gt_leases WHERE state = 'expired' AND object_id LIKE 'held%'}), 'leases are over while their rows are locked');
$node->safe_psql('postgres', q{SELECT gt_lease_create('beside ' || n, cleanup => 'clean', duration => '10 ms') FROM generate_series(1, 3) n});
cleaned($node, 'postgres', 'beside 1 beside 2 beside 3 between', 'others end beside them');
is($node->psql('postgres', "SET statement_timeout = '60s'; CALL gt_reclaim()"), 0, 'who reclaims by hand comes to an end');
my $xacts = q{SELECT xact_commit FROM pg_stat_database WHERE datname = 'postgres'};
my $before = $node->safe_psql('postgres', $xacts);
$node->safe_psql('postgres', 'SELECT pg_sleep(3)');
cmp_ok($node->safe_psql('postgres', $xacts) - $before, '<', 300, 'and the workers do not spin');

# Nor do what somebody has had locked for long, and what passes by meanwhile, make others wait for as long: of a lease
# and of garbage that are locked for a moment the wait is theirs.
my $since = $node->safe_psql('postgres', 'SELECT gt_clock()');
$node->safe_psql('postgres', q{
	SELECT gt_handler_create('soon', 'sql', 'SELECT public.clean($1, $8)', grace => '300 ms');
	SELECT gt_release(gt_lease_create('long', cleanup => 'soon'))});
my $long = $node->background_psql('postgres');
$long->query_safe(q{BEGIN; SELECT 1 FROM _garbagetruck.gt_object WHERE object_id = 'long' FOR UPDATE});
$node->safe_psql('postgres', 'SELECT pg_sleep(4)');
$node->safe_psql('postgres', q{
	SELECT gt_release(gt_lease_create('brief', cleanup => 'soon'));
	SELECT gt_lease_create('brief lease', cleanup => 'clean', duration => '300 ms')});
my $brief = $node->background_psql('postgres');
$brief->query_safe(q{BEGIN; SELECT 1 FROM _garbagetruck.gt_object WHERE object_id LIKE 'brief%' FOR UPDATE; SELECT pg_sleep(0.5); COMMIT});
my $until = $node->safe_psql('postgres', 'SELECT gt_clock()');
cleaned($node, 'postgres', 'beside 1 beside 2 beside 3 between brief brief lease', 'what was locked for a moment is done');
is($node->safe_psql('postgres', qq{SELECT count(*) FROM cleaned WHERE id LIKE 'brief%' AND at - '$until' < ('$until'::timestamptz - '$since') / 2}),
	'2', 'and has not waited for as long as something else was locked');
$brief->quit;
$long->query_safe('COMMIT');
$long->quit;
$holder->query_safe('COMMIT');
$holder->quit;
is(eventually($node, 'postgres', $left, '0'), '0', 'they end when the lock is gone');
cleaned($node, 'postgres', 'beside 1 beside 2 beside 3 between brief brief lease long', 'and what was garbage is cleaned');

# A run that took its worker down cannot be judged while somebody has its handler's row: it is not run again meanwhile,
# and nobody else waits.
$node->safe_psql('postgres', q{
	CREATE SEQUENCE tries;
	SELECT gt_handler_create('die', 'sql', $$SELECT nextval('tries'), pg_terminate_backend(pg_backend_pid()), $1$$, retry_delay => '100 ms')});
$holder = $node->background_psql('postgres');
$holder->query_safe('BEGIN');
$holder->query_safe(q{SELECT gt_pause('die')});
$node->safe_psql('postgres', q{SELECT gt_release(gt_lease_create('die', cleanup => 'die'))});
ok($node->poll_query_until('postgres', 'SELECT is_called FROM tries'), 'a run takes its worker down');
$node->safe_psql('postgres', q{SELECT gt_release(gt_lease_create('others', cleanup => 'clean'))});
cleaned($node, 'postgres', 'beside 1 beside 2 beside 3 between brief brief lease long others', 'others go on while its handler is locked');
$node->safe_psql('postgres', 'SELECT pg_sleep(2)');
is($node->safe_psql('postgres', 'SELECT last_value FROM tries'), '1', 'it is not run again before it has been judged');
$holder->query_safe('ROLLBACK');
$holder->quit;
is(eventually($node, 'postgres', q{SELECT paused FROM gt_handlers WHERE name = 'die'}, 't'), 't', 'and judged when the lock is gone');
is($node->safe_psql('postgres', 'SELECT last_value FROM tries'), '2', 'after one more run');

# A run that failed as a whole, of which not even that can be written down: its object waits, and nobody else.
$node->safe_psql('postgres', q{
	CREATE FUNCTION spoil(id text, error text) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
		$$ BEGIN IF id = 'spoilt' AND error IS NOT NULL THEN RAISE 'no entry for %', id; END IF; RETURN 0; END $$;
	CREATE INDEX spoilt ON _garbagetruck.gt_object (public.spoil(object_id, error));
	SELECT gt_handler_create('fails', 'sql', 'SELECT 1/(length($1) - 6)');
	SELECT gt_release(gt_lease_create('spoilt', cleanup => 'fails'))});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM _garbagetruck.gt__run r, _garbagetruck.gt_object o WHERE r.items @> ARRAY[o.cleanup_id] AND o.object_id = 'spoilt'}), 'its run is on record');
$before = $node->safe_psql('postgres', $xacts);
$node->safe_psql('postgres', q{SELECT gt_release(gt_lease_create('spared', cleanup => 'clean'))});
cleaned($node, 'postgres', 'beside 1 beside 2 beside 3 between brief brief lease long others spared', 'others go on beside what cannot be judged');
$node->safe_psql('postgres', 'SELECT pg_sleep(3)');
cmp_ok($node->safe_psql('postgres', $xacts) - $before, '<', 200, 'and the workers do not spin');
$node->safe_psql('postgres', 'DROP INDEX _garbagetruck.spoilt');
is(eventually($node, 'postgres', q{SELECT attempts > 0 AND error ~ 'division' FROM gt_garbage WHERE object_id = 'spoilt'}, 't'), 't', 'it is judged when it can be, and tried again');
$node->safe_psql('postgres', q{SELECT gt_ack(cleanup_id, attempts) FROM gt_garbage WHERE object_id = 'spoilt'});

# No run can be put on record at all: that is tried again ever more rarely, while leases end as ever.
$node->safe_psql('postgres', q{
	CREATE FUNCTION deny(items bigint[]) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
		$$ BEGIN IF cardinality(items) > 0 THEN RAISE 'no room for a run'; END IF; RETURN 0; END $$;
	CREATE INDEX denied ON _garbagetruck.gt__run (public.deny(items))});
my $log = -s $node->logfile;
$node->safe_psql('postgres', q{SELECT gt_release(gt_lease_create('kept waiting', cleanup => 'clean'))});
for my $n (1 .. 10)
{
	$node->safe_psql('postgres', qq{SELECT gt_lease_create('mere lock ' || i, duration => '300 ms') FROM generate_series(1, 10) i});
	is(eventually($node, 'postgres', $left, '0'), '0', "leases end while nothing can be cleaned, $n");
}
my $lines = () = slurp_file($node->logfile, $log) =~ /ERROR: .*no room for a run/g;
cmp_ok($lines, '>', 0, 'while no run can be put on record');
cmp_ok($lines, '<', 30, 'and that is not tried all the time');
$node->safe_psql('postgres', 'DROP INDEX _garbagetruck.denied');
cleaned($node, 'postgres', 'beside 1 beside 2 beside 3 between brief brief lease kept waiting long others spared', 'it goes on when they can');

# An index that was made anew may have what the workers have not seen: they look by themselves.
$node->safe_psql('postgres', q{SELECT gt_lease_create('unseen', cleanup => 'clean', duration => '1 hour')});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'garbagetruck worker%'}), 'the workers leave');
$node->safe_psql('postgres', q{
	SET session_replication_role = replica;
	UPDATE _garbagetruck.gt_lease SET check_at = gt_clock() - interval '1 day', deadline = gt_clock() - interval '1 day' WHERE object_id = 'unseen'});
$node->safe_psql('postgres', 'REINDEX TABLE _garbagetruck.gt_lease');
cleaned($node, 'postgres', 'beside 1 beside 2 beside 3 between brief brief lease kept waiting long others spared unseen', 'after a REINDEX they look at all of it');

# What is committed seconds after it was due does not wait for all that came meanwhile.
$node->safe_psql('postgres', q{TRUNCATE cleaned; SELECT gt_handler_create('steady', 'sql', 'SELECT public.clean($1, $8), pg_sleep(0.01)', concurrency => 1)});
$holder = $node->background_psql('postgres');
$holder->query_safe(q{BEGIN; SELECT gt_release(gt_lease_create('late', cleanup => 'steady'))});
$node->safe_psql('postgres', q{SELECT gt_release_many(gt_lease_create_many(array_agg('steady ' || n), cleanup => 'steady')) FROM generate_series(1, 3000) n});
$node->safe_psql('postgres', 'SELECT pg_sleep(3)');
$holder->query_safe('COMMIT');
$holder->quit;
$before = $node->safe_psql('postgres', 'SELECT max(n) FROM cleaned');
is(eventually($node, 'postgres', q{SELECT count(*) FROM cleaned WHERE id = 'late'}, '1'), '1', 'garbage that is committed late is cleaned');
cmp_ok($node->safe_psql('postgres', q{SELECT n FROM cleaned WHERE id = 'late'}) - $before, '<', 300, 'and does not wait behind what came meanwhile');
$node->safe_psql('postgres', q{SELECT gt_pause('steady')});
$node->safe_psql('postgres', q{SELECT count(gt_ack(cleanup_id, attempts)) FROM gt_garbage WHERE handler = 'steady'});

# Whoever goes through many leases of one object, or much garbage, has one row in memory at a time.
reload_and_see($node, 'garbagetruck.databases', '');
$node->safe_psql('postgres', q{
	CREATE FUNCTION large() RETURNS jsonb LANGUAGE sql AS $$SELECT to_jsonb(string_agg(md5(random()::text), '')) FROM generate_series(1, 45)$$;
	DO $$BEGIN FOR i IN 1 .. 4000 LOOP PERFORM gt_lease_create('hot', payload => large()); COMMIT; END LOOP; END$$;
	SELECT gt_lease_create('cold');
	SELECT gt_handler_create('much', 'queue');
	SELECT gt_release_many(gt_lease_create_many(ARRAY(SELECT n::text FROM generate_series(1, 4000) n), 'much', cleanup => 'much', payload => large()));
	SELECT count(gt_nack(cleanup_id, attempt, 'never', final => true)) FROM gt_claim('{much}', 10000)});
# whoever asks how things are sees one object of his, behind which there are many of others
$node->safe_psql('postgres', q{
	SELECT gt_handler_create('lots', 'sql', 'SELECT 1');
	SELECT gt_handler_grant('lots', 'flood');
	SELECT gt_release_many(gt_lease_create_many(ARRAY(SELECT n::text FROM generate_series(1, 4000) n), 'lots', cleanup => 'lots', payload => large()));
	SET ROLE flood;
	SELECT gt_release(gt_lease_create('one', 'lots', cleanup => 'lots'));
	RESET ROLE;
	SET session_replication_role = replica;
	UPDATE _garbagetruck.gt_object SET due_at = due_at - CASE object_id WHEN 'one' THEN interval '2 hours' ELSE '1 hour' END WHERE object_type = 'lots'});
cmp_ok(grown(q{set_config('role', 'pg_read_all_stats', true); PERFORM count(*) FROM gt_health()},
	q{set_config('role', 'flood', true); PERFORM 1 / (SELECT count(*) FROM gt_health() WHERE check_name = 'overdue' AND NOT ok)}), '<', 3000, 'health');
my $fence = $node->safe_psql('postgres', q{SELECT max(fence) FROM gt_lease_list(object_id => 'hot', max_rows => 10000)});
cmp_ok(grown(q{gt_lease_list(object_id => 'cold')}, q{gt_lease_list(object_id => 'hot', max_rows => 1)}), '<', 2500, 'a page of leases');
cmp_ok(grown(q{gt_fence_check('cold', 'custom', 1)}, qq{gt_fence_check('hot', 'custom', $fence)}), '<', 2500, 'a fence');
cmp_ok(grown(q{gt_lease_grant_each('[{"object_id": "cold", "exclusive": true}]')}, q{gt_lease_grant_each('[{"object_id": "hot", "exclusive": true}]')}), '<', 2500, 'a grant that is refused');
cmp_ok(grown(q{gt_redrive(ARRAY[1::bigint])}, q{gt_redrive(handler => 'much')}), '<', 2500, 'much dead garbage is redriven');
my $first = $node->safe_psql('postgres', q{SELECT min(cleanup_id) FROM gt_garbage WHERE handler = 'much'});
cmp_ok(grown(q{gt_ack_many('{1}', '{1}')}, qq{gt_ack_many(ARRAY(SELECT generate_series($first, $first + 3999)), array_fill(2, ARRAY[4000]))}), '<', 2500, 'and acknowledged');
is($node->safe_psql('postgres', q{SELECT count(*) FROM gt_garbage WHERE handler = 'much'}), '0', 'each');
# rows that stay because objects of their names are held: nothing is kept of them
$node->safe_psql('postgres', q{
	CREATE TABLE named (id int PRIMARY KEY, expires_at timestamptz);
	SELECT gt_ttl_create('named', 'expires_at', create_index => true);
	SELECT gt_lease_create_many(array_agg(n::text), 'public.named', duration => '1 hour') FROM generate_series(1, 20000) n;
	INSERT INTO named SELECT n, '2020-01-01' FROM generate_series(1, 10) n});
my $session = $node->background_psql('postgres');
my $size = q{SELECT (regexp_match(pg_read_file('/proc/self/status'), 'VmHWM:\s+(\d+)'))[1]};
$session->query_safe('CALL gt_reclaim()');
my $small = $session->query_safe($size);
$node->safe_psql('postgres', q{INSERT INTO named SELECT n, '2020-01-01' FROM generate_series(11, 20001) n});
$session->query_safe('CALL gt_reclaim()');
cmp_ok($session->query_safe($size) - $small, '<', 6000, 'rows that stay');
$session->quit;
is($node->safe_psql('postgres', 'SELECT count(*) FROM named'), '20000', 'those that nothing keeps have gone');

$node->stop;
done_testing();
