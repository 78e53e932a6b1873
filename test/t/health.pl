# gt_health in incidents: who holds the workers up, and what they fail at.
use strict;
use warnings;
use GarbageTruck;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = truck('health');
set_up($node);
$node->safe_psql('postgres', q{
	CREATE TABLE app (id text);
	SELECT gt_handler_create('delete', 'sql', 'DELETE FROM app WHERE id = $1', timeout => '5 min')});
is($node->safe_psql('postgres', q{SELECT string_agg(check_name || ': ' || detail, ' ') FROM gt_health() WHERE NOT ok}), '', 'all is well');

# A worker that waits for an application's lock: which handler it is, and who has the lock.
my $alter = in_background($node, 'postgres', 'BEGIN; LOCK TABLE app; SELECT pg_sleep(1000)');
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_locks WHERE relation = 'app'::regclass AND mode = 'AccessExclusiveLock' AND granted});
my $holder = $node->safe_psql('postgres', q{SELECT pid FROM pg_locks WHERE relation = 'app'::regclass AND mode = 'AccessExclusiveLock'});
$node->safe_psql('postgres', q{
	SELECT gt_release_many(array_agg(gt_lease_create('waits ' || n, cleanup => 'delete'))) FROM generate_series(1, 200) n;
	SELECT gt_release_many(array_agg(gt_lease_create('is cleaned ' || n, cleanup => 'clean'))) FROM generate_series(1, 10) n});
ok($node->poll_query_until('postgres', q{SELECT NOT bool_and(ok) FROM gt_health() WHERE check_name = 'overdue'}), 'it is told of');
my $told = $node->safe_psql('postgres', q{SELECT detail || ' -> ' || remedy FROM gt_health() WHERE check_name = 'overdue'});
like($told, qr/most of it of handler "delete" \(\d+ objects\)/, 'with the handler');
like($told, qr/worker \d+, in handler "delete", waits for a lock of process $holder/, 'and the process that has the lock');
like($told, qr/pg_stat_activity WHERE pid = $holder;/, 'where to look at it');
unlike($told, qr/gt_reclaim/, 'and not to do by hand what would wait, too');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($holder)");
eval { finish_background($alter) };
ok($node->poll_query_until('postgres', q{SELECT bool_and(ok) FROM gt_health() WHERE check_name = 'overdue'}), 'then it goes on');

# What workers fail at outside of handlers: an object that waits for its handler has a number.
$node->safe_psql('postgres', q{
	SELECT gt_handler_create('clean later', 'sql', 'SELECT public.clean($1, $8)', grace => '1 ms');
	SELECT setval('_garbagetruck.gt__cleanup_id', 1000);
	ALTER SEQUENCE _garbagetruck.gt__cleanup_id MAXVALUE 1000;
	SELECT gt_lease_create('fails to end', cleanup => 'clean later', duration => '1 ms')});
ok($node->poll_query_until('postgres', q{SELECT detail ~ 'errors in a row .*reached maximum value of sequence' FROM gt_health() WHERE check_name = 'errors' AND NOT ok}), 'an error of the workers is told of');
is($node->safe_psql('postgres', q{SELECT value FROM gt_metrics() WHERE name = 'garbagetruck_health' AND labels ->> 'check' = 'errors'}), '0', 'also by the metric');
$node->safe_psql('postgres', 'ALTER SEQUENCE _garbagetruck.gt__cleanup_id NO MAXVALUE');
ok($node->poll_query_until('postgres', q{SELECT bool_and(ok) FROM gt_health() WHERE check_name = 'errors'}), 'until it goes well');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM cleaned WHERE id = 'fails to end'}), 'and nothing is lost');

# Numbers that cannot be read, here for a lock as for a corrupt index: those are left out, and the others told.
my $locked = in_background($node, 'postgres', 'BEGIN; LOCK TABLE _garbagetruck.gt_object; SELECT pg_sleep(1000)');
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_locks WHERE relation = '_garbagetruck.gt_object'::regclass AND mode = 'AccessExclusiveLock' AND granted});
is($node->safe_psql('postgres', q{
	SET lock_timeout = '100 ms';
	SELECT name, value FROM gt_metrics() WHERE labels ->> 'check' IN ('overdue', 'launcher')
		OR name IN ('garbagetruck_oldest_overdue_seconds', 'garbagetruck_worker_slots_missing_total') ORDER BY name, value}),
	"garbagetruck_health|0\ngarbagetruck_health|1\ngarbagetruck_worker_slots_missing_total|0", 'metrics that cannot be read are left out');
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_locks WHERE relation = '_garbagetruck.gt_object'::regclass AND mode = 'AccessExclusiveLock'});
eval { finish_background($locked) };

$node->stop;
done_testing();
