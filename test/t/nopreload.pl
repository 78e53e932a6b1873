# Without shared_preload_libraries every SQL function works but gt_metrics and gt_workers, and gt_reclaim does the
# workers' job; what ran with the library preloaded before has the grace of I1.
use strict;
use warnings;
use GarbageTruck;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "garbagetruck.restart_grace = '1500ms'\nrestart_after_crash = on");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION garbagetruck;
	CREATE TABLE cleaned (id text, at timestamptz DEFAULT gt_clock());
	SELECT gt_handler_create('note', 'sql', 'INSERT INTO cleaned VALUES ($1)');
	SELECT gt_handler_create('notes', 'sql_batch', 'INSERT INTO cleaned SELECT unnest($1)');
	SELECT gt_handler_create('queue', 'queue');
});

is($node->safe_psql('postgres', 'SELECT abs(extract(epoch FROM gt_clock() - clock_timestamp())) < 1'), 't',
	'gt_clock() is the system clock');
my $lease = $node->safe_psql('postgres', q{SELECT gt_lease_create('a', duration => '1 hour', cleanup => 'note')});
is($node->safe_psql('postgres', "SELECT gt_renew('$lease') > gt_clock(), gt_fence('$lease') > 0"), 't|t', 'create, renew, fence');
is($node->safe_psql('postgres', "SELECT gt_release('$lease')"), 't', 'release');
is($node->safe_psql('postgres', 'CALL gt_reclaim()'), '1', 'gt_reclaim cleans, and says how many');
is($node->safe_psql('postgres', 'SELECT string_agg(id, $$ $$) FROM cleaned'), 'a', 'the handler ran');

$node->safe_psql('postgres', q{SELECT gt_lease_create('b' || i, duration => '100 ms', cleanup => CASE i % 2 WHEN 0 THEN 'note' ELSE 'notes' END)
	FROM generate_series(1, 200) i});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM gt_leases WHERE state = 'active'}), 'leases pass their deadlines');
$node->safe_psql('postgres', 'CALL gt_reclaim()');
is($node->safe_psql('postgres', q{SELECT count(*), count(DISTINCT id) FROM cleaned WHERE id LIKE 'b%'}), '200|200',
	'gt_reclaim cleans them all, each once');
is($node->safe_psql('postgres', q{SELECT count(*) FROM _garbagetruck.gt_object}), '0', 'and nothing is left');

# one role's garbage, however much, is not cleaned before all others', whatever the numbers of roles and handlers
$node->safe_psql('postgres', q{CREATE ROLE first_role; CREATE ROLE last_role; GRANT INSERT ON cleaned TO last_role;
	SELECT gt_handler_create('plenty', 'sql', 'SELECT 1', run_as => 'first_role');
	SELECT gt_handler_create('one', 'sql', 'INSERT INTO cleaned VALUES ($1)', run_as => 'last_role');
	SELECT gt_release_many(gt_lease_create_many(ARRAY(SELECT 'p' || i FROM generate_series(1, 3000) i), cleanup => 'plenty'));
	SELECT gt_release(gt_lease_create('one of the last role', cleanup => 'one'))});
my $calls = 0;
do
{
	$node->safe_psql('postgres', 'CALL gt_reclaim(60)');
} until $node->safe_psql('postgres', q{SELECT count(*) FROM cleaned WHERE id = 'one of the last role'}) || ++$calls > 30;
cmp_ok($calls, '<=', 30, 'the last role is served before all of what the first one has');
$node->safe_psql('postgres', 'CALL gt_reclaim()');

# claims
$node->safe_psql('postgres', q{SELECT gt_release(gt_lease_create('c', cleanup => 'queue'))});
is($node->safe_psql('postgres', q{SELECT gt_ack(cleanup_id, attempt) FROM gt_claim()}), 't', 'claim and acknowledge');

for my $call ('gt_metrics()', 'gt_workers')
{
	my $err;
	$node->psql('postgres', "\\set VERBOSITY verbose\nSELECT * FROM $call", stderr => \$err);
	like($err, qr/55000/, "$call: 55000 without preload");
}
is($node->safe_psql('postgres', q{SELECT ok, remedy <> '' FROM gt_health() WHERE check_name = 'preloaded' LIMIT 1}), 'f|t',
	'gt_health says that it is not preloaded, and what to do');

# Each remedy can be done as it stands: with another library loaded it must stay two names.
is($node->safe_psql('postgres', q{SELECT string_agg(check_name, ' ') FROM gt_health() WHERE remedy = $$ALTER SYSTEM SET shared_preload_libraries = 'garbagetruck';$$}),
	'preloaded launcher workers', 'what lacks without preload has its remedy');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'auto_explain'");
$node->restart;
my $remedy = $node->safe_psql('postgres', q{SELECT remedy FROM gt_health() WHERE check_name = 'preloaded' LIMIT 1});
$node->safe_psql('postgres', $remedy);
$node->restart;
is($node->safe_psql('postgres', q{SELECT ok FROM gt_health() WHERE check_name = 'preloaded'}), 't', 'the remedy helps');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET shared_preload_libraries');
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");

# After a restart, before anybody has written, no reader shows less than was promised.
$node->safe_psql('postgres', q{SELECT gt_lease_create('promised', duration => '1 day')});
my $promise = $node->safe_psql('postgres', q{SELECT expires_at FROM gt_lease_list(object_id => 'promised')});
$node->restart;
is($node->safe_psql('postgres', "SELECT l.expires_at >= '$promise', l.expires_at = v.expires_at FROM gt_lease_list(object_id => 'promised') l JOIN gt_leases v USING (lease_id)"),
	't|t', 'after a restart no reader shows less than was promised');

# Nobody waits for who is first after a restart, and stays in his transaction: others record the start themselves.
$node->safe_psql('postgres', q{SELECT gt_lease_create('over', duration => '100 ms', cleanup => 'note'), gt_lease_create('locked', duration => '100 ms', exclusive => true)});
$node->restart;
my $first = in_background($node, 'postgres', "BEGIN; SELECT gt_renew(lease_id) FROM gt_lease_list(object_id => 'promised'); SELECT pg_sleep(1000)");
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'}) or die 'nobody sleeps';
ok($node->poll_query_until('postgres', q{SELECT sqlstate = '00000' FROM gt_lease_grant_each('[{"object_id": "locked", "exclusive": true}]')}),
	'an open first transaction after a restart does not suspend the judging of exclusive leases');
$node->safe_psql('postgres', 'CALL gt_reclaim()');
is($node->safe_psql('postgres', q{SELECT count(*) FROM cleaned WHERE id = 'over'}), '1', 'nor of any others');
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'});
eval { finish_background($first) };

# Inside a transaction block: one pass without a commit, also over leases of this very transaction.
is($node->safe_psql('postgres', q{
	BEGIN;
	SELECT gt_lease_create('t', duration => '100 ms', cleanup => 'note') IS NOT NULL;
	SELECT pg_sleep(0.15);
	CALL gt_reclaim();
	SELECT count(*) FROM cleaned WHERE id = 't';
	ROLLBACK;
	SELECT count(*) FROM cleaned WHERE id = 't';}), "t\n\n2\n1\n0", 'inside a transaction block it is one pass, and rolls back');

# kill -9 of a backend: what ran before has its grace although the postmaster is the same
my $at = $node->safe_psql('postgres', q{SELECT gt_lease_create('d', duration => '1 s', cleanup => 'note'); SELECT max(run) FROM _garbagetruck.gt__start});
$at =~ s/.*\n//s;
my $session = $node->background_psql('postgres', on_error_stop => 0);
my $pid = $session->query('SELECT pg_backend_pid()');
$pid =~ s/\s//g;
kill_process($pid);
wait_for_restart($node);
eval { $session->quit };
ok($node->poll_query_until('postgres', "SELECT gt_lease_create('w') IS NOT NULL AND EXISTS (SELECT FROM _garbagetruck.gt__start WHERE run <> $at)"),
	'the crash is told from the run before');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM gt_leases WHERE object_id = 'd' AND state = 'active'}), 'its lease ends');
$node->safe_psql('postgres', 'CALL gt_reclaim()');
is($node->safe_psql('postgres', q{SELECT count(*) FROM cleaned c, _garbagetruck.gt__start s WHERE c.id = 'd' AND c.at >= s.started_at + interval '1 s'}),
	'1', 'not before the grace');

# Preloaded, then not: the run has changed, and so have the rules for what ran before.
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'garbagetruck'\ngarbagetruck.databases = ''");
$node->restart;
$node->safe_psql('postgres', q{SELECT gt_lease_create('e', duration => '1 s', cleanup => 'note')});
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->stop('immediate');
$node->start;
ok($node->poll_query_until('postgres', q{SELECT gt_lease_create('w') IS NOT NULL AND
	(SELECT count(*) = 0 FROM gt_leases WHERE object_id = 'e' AND state = 'active')}), 'its lease ends');
$node->safe_psql('postgres', 'CALL gt_reclaim()');
is($node->safe_psql('postgres', q{SELECT count(*) FROM cleaned c, _garbagetruck.gt__start s WHERE c.id = 'e' AND c.at >= s.started_at + interval '1 s'}),
	'1', 'not before the grace');

# What failed and can not be judged is not run again before it has been, and keeps nobody else waiting.
$node->safe_psql('postgres', q{
	CREATE FUNCTION spoil(id text, error text) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
		$$ BEGIN IF id = 'spoilt' AND error IS NOT NULL THEN RAISE 'no entry for %', id; END IF; RETURN 0; END $$;
	CREATE INDEX spoilt ON _garbagetruck.gt_object (public.spoil(object_id, error));
	CREATE SEQUENCE tries;
	SELECT gt_handler_create('fails', 'sql', $$SELECT nextval('tries') / (length($1) - 6)$$);
	SELECT gt_release(gt_lease_create('spoilt', cleanup => 'fails'))});
ok($node->psql('postgres', 'CALL gt_reclaim()') != 0, 'a run fails as a whole');
$node->safe_psql('postgres', q{SELECT gt_release(gt_lease_create('spared', cleanup => 'note'))});
$node->safe_psql('postgres', 'CALL gt_reclaim(); CALL gt_reclaim()');
is($node->safe_psql('postgres', q{SELECT (SELECT count(*) FROM cleaned WHERE id = 'spared'), last_value FROM tries}), '1|1', 'others go on, and it waits');
$node->safe_psql('postgres', 'DROP INDEX _garbagetruck.spoilt; CALL gt_reclaim()');
is($node->safe_psql('postgres', q{SELECT error ~ 'no entry' FROM gt_garbage WHERE object_id = 'spoilt'}), 't', 'until it can be judged');

# A copy is adopted by one session: another, which has judged before, judges anew.
$node->safe_psql('template1', 'CREATE DATABASE copied TEMPLATE postgres');
$node->safe_psql('copied', q{UPDATE _garbagetruck.gt_lease SET deadline = gt_clock() - interval '1 day' WHERE object_id = 'promised'});
my $judge = $node->background_psql('copied');
my $state = q{SELECT 'state ' || state FROM gt_leases WHERE object_id = 'promised'};
$judge->query_safe(q{SELECT gt_release(gt_lease_create('recorded'))});
for (1 .. 100)
{
	last if $judge->query_safe($state) =~ /expired/;
	$judge->query_safe('SELECT pg_sleep(0.1)');
}
like($judge->query_safe($state), qr/expired/, 'in a copy a lease is over');
$node->safe_psql('copied', 'SELECT gt_resume(adopt => true)');
like($judge->query_safe($state), qr/active/, 'and runs again, for who knew it before, when that is adopted');
like($judge->query_safe(q{SELECT sqlstate FROM gt_lease_grant_each('[{"object_id": "promised", "exclusive": true}]')}), qr/GT005/, 'and holds its object');
$judge->quit;

$node->stop;
done_testing();
