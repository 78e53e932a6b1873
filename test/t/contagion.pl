# Eight handlers that misbehave, and a good one beside them: all of the good one's objects are cleaned, each once and
# 99 of a hundred within a second of the time that the server is up, and only culprits are charged (promise I6).
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', <<'EOC');
shared_preload_libraries = 'garbagetruck'
garbagetruck.naptime = '1h'
garbagetruck.history = 'all'
garbagetruck.restart_grace = '200ms'
max_worker_processes = 20
restart_after_crash = on
EOC
$node->start;

$node->safe_psql('postgres', q{
	CREATE EXTENSION garbagetruck;
	CREATE TABLE good (id text PRIMARY KEY);
	CREATE TABLE cleaned (id text, at timestamptz DEFAULT gt_clock());
	CREATE TABLE victim (id text);
	CREATE ROLE gone;

	CREATE FUNCTION raise() RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE 'never'; END$$;
	CREATE FUNCTION swallow() RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		LOOP
			BEGIN
				PERFORM pg_sleep(600);
			EXCEPTION WHEN query_canceled THEN NULL;
			END;
		END LOOP;
	END$$;
	CREATE FUNCTION crash() RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; kill -9 $PPID; sleep 60';
	END$$;
	CREATE FUNCTION leak() RETURNS void LANGUAGE plpgsql AS $$
	DECLARE held text[] := '{}';
	BEGIN
		FOR i IN 1 .. 40 LOOP held := held || repeat('x', 1000000); END LOOP;
		RAISE 'leaked %', cardinality(held);
	END$$;

	SELECT gt_handler_create('good', 'sql',
		'WITH d AS (DELETE FROM good WHERE id = $1 RETURNING id) INSERT INTO cleaned SELECT id FROM d');
	SELECT gt_handler_create('raise', 'sql', 'SELECT raise()', retry_delay => '100 ms', max_attempts => 3);
	SELECT gt_handler_create('hang', 'sql', 'SELECT pg_sleep(600)', timeout => '1 s', retry_delay => '100 ms', max_attempts => 2);
	SELECT gt_handler_create('swallow', 'sql', 'SELECT swallow()', timeout => '500 ms', retry_delay => '100 ms', max_attempts => 2);
	SELECT gt_handler_create('suicide', 'sql', 'SELECT pg_terminate_backend(pg_backend_pid())', retry_delay => '100 ms');
	SELECT gt_handler_create('crash', 'sql', 'SELECT crash()', retry_delay => '100 ms');
	SELECT gt_handler_create('leak', 'sql', 'SELECT leak()', retry_delay => '100 ms', max_attempts => 3);
	SELECT gt_handler_create('tableless', 'sql', 'DELETE FROM victim WHERE id = $1', retry_delay => '100 ms', max_attempts => 2);
	SELECT gt_handler_create('roleless', 'sql', 'SELECT 1', run_as => 'gone');
	DROP TABLE victim;
	DROP ROLE gone;
});

# Three objects of each bad one fall due at the beginning, in the middle and near the end of the ten seconds over which
# those of the good one do, 2,000 of them. In one transaction: no lease ends, and no server goes down, before its commit.
$node->safe_psql('postgres', q{
	BEGIN;
	SELECT gt_lease_create(h || i, 'bad', duration => i * interval '4 s' - interval '3800 ms', cleanup => h)
	FROM unnest('{raise,hang,swallow,suicide,crash,leak,tableless,roleless}'::text[]) h, generate_series(1, 3) i;
	INSERT INTO good SELECT 'good' || i FROM generate_series(1, 2000) i;
	SELECT gt_lease_create('good' || i, 'good', duration => i * interval '5 ms' + interval '200 ms', cleanup => 'good')
	FROM generate_series(1, 2000) i;
	COMMIT;
});

ok($node->poll_query_until('postgres', 'SELECT count(*) = 2000 FROM cleaned'), "all of the good one's objects are cleaned");
is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT id) FROM cleaned'), '2000|2000', 'each of them once');
is($node->safe_psql('postgres', 'SELECT count(*) FROM good'), '0', 'and none is left');
is($node->safe_psql('postgres', q{SELECT count(*) FROM gt_history WHERE handler = 'good' AND event <> 'cleaned'}),
	'0', 'the good one was charged with nothing');
is($node->safe_psql('postgres', q{SELECT max(attempt) FROM gt_history WHERE handler = 'good'}), '1',
	'and none of its objects needed a second attempt');
# The one bar on a time here: it is the promise itself, and a hundred times what an idle machine shows. The lag counts
# from the end of the lease, which the grace after a restart moves with it.
my ($n, $within, $lag) = split /\|/, $node->safe_psql('postgres', q{
	SELECT count(*), percentile_disc(0.99) WITHIN GROUP (ORDER BY lag) < '1 second',
		format('p50 %s, p99 %s, max %s', percentile_disc(0.5) WITHIN GROUP (ORDER BY lag),
			percentile_disc(0.99) WITHIN GROUP (ORDER BY lag), max(lag))
	FROM gt_history WHERE handler = 'good' AND event = 'cleaned'});
is("$n $within", '2000 t', "99 of a hundred of them within a second ($lag)");

# What becomes of the others: dead after their attempts, or stopped with a cause that says what to mend.
for my $name (qw(raise hang leak tableless))
{
	ok($node->poll_query_until('postgres', "SELECT count(*) = 3 FROM gt_dead WHERE handler = '$name'"),
		"$name: its objects are dead after their attempts");
}
for my $name (qw(suicide crash))
{
	ok($node->poll_query_until('postgres', "SELECT paused AND paused_reason <> '' FROM gt_handlers WHERE name = '$name'"),
		"$name: the handler is paused by itself, with the cause");
}
ok($node->poll_query_until('postgres', q{
	SELECT (SELECT paused FROM gt_handlers WHERE name = 'swallow') OR (SELECT count(*) = 3 FROM gt_dead WHERE handler = 'swallow')}),
	'swallow: loses its worker, and is paused or its objects are dead');
is($node->safe_psql('postgres', q{SELECT paused, attempts FROM gt_handlers h JOIN gt_garbage g ON g.handler = h.name
	WHERE h.name = 'roleless' LIMIT 1}), 't|0', 'roleless: suspended, and charged with nothing');
is($node->safe_psql('postgres', q{SELECT string_agg(name, ' ' ORDER BY name) FROM gt_handlers WHERE paused AND name = 'good'}),
	'', 'the good one is not paused');

is($node->safe_psql('postgres', q{
	SELECT count(*) FROM gt_history WHERE error LIKE '%went down%' AND handler NOT IN ('swallow', 'suicide', 'crash')}),
	'0', 'whoever was there when a worker or the server went down is not charged with it');
is($node->safe_psql('postgres', q{
	SELECT count(*) FROM gt_history WHERE event IN ('failed', 'dead') AND error !~ CASE handler WHEN 'raise' THEN 'never'
		WHEN 'hang' THEN 'timeout' WHEN 'leak' THEN 'leaked' WHEN 'tableless' THEN 'victim' ELSE 'went down' END}),
	'0', 'each of the others is charged with its own doing alone');

# The good one goes on.
$node->safe_psql('postgres', q{INSERT INTO good VALUES ('last');
	SELECT gt_release(gt_lease_create('last', 'good', cleanup => 'good'))});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM cleaned WHERE id = 'last'}), 'the good one goes on');

$node->stop('immediate');
done_testing();
