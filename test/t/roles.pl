# A worker runs the SQL of one role only, roles are served in turn, and nobody's handlers, however slow, many or
# failing, keep another role's objects from being cleaned.
use strict;
use warnings;
use GarbageTruck;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = truck('roles', "garbagetruck.history = 'all'");

# Each role has a handler of its own that writes down what it cleans, in which process, as whom.
sub roles
{
	my ($db, @roles) = @_;
	$node->safe_psql($db, q{
		CREATE EXTENSION IF NOT EXISTS garbagetruck;
		CREATE TABLE seen (n serial, id text, role name DEFAULT current_user, pid int DEFAULT pg_backend_pid());
		GRANT INSERT, SELECT ON seen TO PUBLIC;
		GRANT USAGE ON SEQUENCE seen_n_seq TO PUBLIC});
	for my $role (@roles)
	{
		$node->safe_psql($db, qq{
			DO \$\$ BEGIN CREATE ROLE $role; EXCEPTION WHEN duplicate_object THEN NULL; END \$\$;
			SELECT gt_allow('$role'), gt_allow('$role', 'handler');
			SET ROLE $role;
			SELECT gt_handler_create('clean_$role', 'sql', 'INSERT INTO public.seen (id) SELECT \$1', max_attempts => 3, retry_delay => '100 ms');});
	}
	return;
}

sub garbage
{
	my ($db, $role, $handler, $ids) = @_;
	return $node->safe_psql($db, qq{SET ROLE $role; SELECT count(gt_release(gt_lease_create(i, '$role', cleanup => '$handler'))) FROM $ids AS i});
}

my @roles = map { "r$_" } 1 .. 6;
roles('postgres', @roles);

# Six roles in turn over four workers, a hundred objects each, as they come and all at once.
for my $i (1 .. 5)
{
	garbage('postgres', $_, "clean_$_", "unnest(ARRAY['a$i'])") for @roles;
}
$node->safe_psql('postgres', join(';', map { "SET ROLE $_; SELECT count(gt_release(gt_lease_create('b' || i, '$_', cleanup => 'clean_$_'))) FROM generate_series(1, 95) i" } @roles));
is(eventually($node, 'postgres', q{SELECT count(*), count(DISTINCT (role, id)) FROM seen}, '600|600'), '600|600', 'the objects of six roles are cleaned, each once');
is($node->safe_psql('postgres', q{SELECT count(*) FROM (SELECT pid FROM seen GROUP BY pid HAVING count(DISTINCT role) > 1) p}), '0',
	'no process has run the SQL of two roles');

# Announcing is of no role: it needs no worker of its own.
$node->safe_psql('postgres', q{
	SELECT gt_handler_create('hint', 'notify_only', 'hints');
	SELECT gt_release(gt_lease_create('n', cleanup => 'hint'))});
is(eventually($node, 'postgres', q{SELECT count(*) FROM gt_garbage WHERE handler = 'hint'}, '0'), '0', 'what is of no role is done by any worker');

# Handlers that hang hold all slots but one, no role more than half of all; who has not run yet may have that, and gives it
# back where it hangs too.
sub hang
{
	my ($role, @n) = @_;
	$node->safe_psql('postgres', join(';', "SET ROLE $role", map { "SELECT gt_handler_create('hang$_', 'sql', 'SELECT pg_sleep(3600)', timeout => '1 day', retry_delay => '1 hour');
		SELECT gt_release(gt_lease_create('h$_', '$role', cleanup => 'hang$_'))" } @n));
	return;
}
$node->safe_psql('postgres', "CREATE ROLE $_; SELECT gt_allow('$_'), gt_allow('$_', 'handler')") for qw(hangs other);
hang('hangs', 1, 2);
hang('other', 3);
my $hanging = q{FROM pg_stat_activity WHERE backend_type LIKE 'garbagetruck worker%' AND wait_event = 'PgSleep'};
ok($node->poll_query_until('postgres', "SELECT count(*) = 3 $hanging"), 'three runs hang');
garbage('postgres', 'r1', 'clean_r1', q{unnest(ARRAY['beside'])});
is(eventually($node, 'postgres', q{SELECT count(*) FROM seen WHERE id = 'beside'}, '1'), '1', 'a handler that has run goes on beside them');
$node->safe_psql('postgres', q{
	SET ROLE r2;
	SELECT gt_handler_create('new', 'sql', 'INSERT INTO public.seen (id) SELECT $1');
	SELECT gt_release(gt_lease_create('unseen', 'r2', cleanup => 'new'))});
is(eventually($node, 'postgres', q{SELECT count(*) FROM seen WHERE id = 'unseen'}, '1'), '1', 'one that has not run yet, too');
$node->safe_psql('postgres', q{
	SET ROLE r3;
	SELECT gt_handler_create('also', 'sql', 'SELECT pg_sleep(3600)', timeout => '1 day', retry_delay => '1 hour');
	SELECT gt_release(gt_lease_create('last slot', 'r3', cleanup => 'also'))});
is(eventually($node, 'postgres', q{SELECT state, attempts FROM gt_garbage WHERE object_id = 'last slot' AND error LIKE 'given back%'}, 'waiting|0'),
	'waiting|0', 'one that hangs in the last slot is given back, and not charged');
is(eventually($node, 'postgres', "SELECT count(*) $hanging", '3'), '3', 'the others hang on');

# Of those that nobody knows yet, too, roles have the last slot in turn.
$node->safe_psql('postgres', q{
	SET ROLE r3;
	SELECT gt_handler_create('more' || i, 'sql', 'SELECT pg_sleep(3600)', timeout => '1 day', retry_delay => '1 hour') FROM generate_series(1, 40) i;
	SELECT gt_release(gt_lease_create('m' || i, 'more', cleanup => 'more' || i)) FROM generate_series(1, 40) i;});
my $tried = q{FROM gt_garbage WHERE handler LIKE 'more%' AND error LIKE 'given back%'};
ok($node->poll_query_until('postgres', "SELECT count(*) > 0 $tried"), 'another role has many that hang');
$node->safe_psql('postgres', q{
	SET ROLE r5;
	SELECT gt_handler_create('newer', 'sql', 'INSERT INTO public.seen (id) SELECT $1');
	SELECT gt_release(gt_lease_create('unseen as well', 'r5', cleanup => 'newer'))});
is(eventually($node, 'postgres', q{SELECT count(*) FROM seen WHERE id = 'unseen as well'}, '1'), '1', 'who has not run yet has its turn');
ok($node->safe_psql('postgres', "SELECT count(*) $tried") < 40, 'and does not wait for all of them');
$node->safe_psql('postgres', q{SELECT gt_pause('more' || i) FROM generate_series(1, 40) i});
garbage('postgres', 'r4', 'clean_r4', q{unnest(ARRAY['after'])});
is(eventually($node, 'postgres', q{SELECT count(*) FROM seen WHERE id = 'after'}, '1'), '1', 'and the slot is free again');

# The role has one more slot, while nobody waits.
$node->safe_psql('postgres', "SELECT gt_pause('hang3'); SELECT pg_terminate_backend(pid) $hanging AND query LIKE '%hang3%'");
hang('hangs', 4);
ok($node->poll_query_until('postgres', "SELECT count(*) = 3 $hanging AND query !~ 'hang3'"), 'three runs of one role hang');

# While others wait, what nobody knows gives way to them where it lasts, and so do the slow runs of a role in more than half
# of the slots: three roles have more to do than this takes, and the handlers "half" last until they may.
$node->safe_psql('postgres', join(';', 'CREATE TABLE may (go boolean); GRANT SELECT ON may TO PUBLIC;
	CREATE FUNCTION half(id text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
		WHILE NOT EXISTS (SELECT FROM public.may) LOOP PERFORM pg_sleep(0.01); END LOOP;
		INSERT INTO public.seen (id) VALUES (id);
	END $$; BEGIN', (map { "SET LOCAL ROLE $_; SELECT gt_handler_create('wait_$_', 'sql', 'INSERT INTO public.seen (id) SELECT \$1 FROM pg_sleep(0.02)');
	SELECT gt_release_many(gt_lease_create_many(array_agg('wait' || i), '$_', cleanup => 'wait_$_')) FROM generate_series(1, 3000) i" } qw(r1 r2 r4)),
	q{SET LOCAL ROLE r3; SELECT gt_handler_create('half' || i, 'sql', 'SELECT public.half($1)') FROM generate_series(1, 4) i;
	SELECT gt_release(gt_lease_create('half' || i, 'half', cleanup => 'half' || i)) FROM generate_series(1, 4) i}, 'COMMIT'));
my $given_back = sub {
	my ($type) = @_;
	return eventually($node, 'postgres', qq{SELECT count(*) > 0 FROM gt_garbage WHERE object_type = '$type' AND error LIKE 'given back%'}, 't');
};
is($given_back->('half'), 't', 'long runs that nobody knows give way to three roles with much to do');
is($given_back->('hangs'), 't', 'and so does what is slow in more than half of the slots');
is(eventually($node, 'postgres', q{SELECT count(DISTINCT role) FROM seen WHERE id LIKE 'wait%'}, '3'), '3', 'the three roles are served');
$node->safe_psql('postgres', join(';', 'INSERT INTO may VALUES (true)', map { "SELECT gt_pause('wait_$_')" } qw(r1 r2 r4)));
is(eventually($node, 'postgres', q{SELECT count(*) FROM seen WHERE id LIKE 'half%'}, '4'), '4', 'the long runs are made none the less');
is($node->safe_psql('postgres', q{SELECT count(*) FROM gt_history WHERE object_type = 'half' AND event = 'cleaned' AND attempt = 1}), '4', 'nothing charged');

# After a restart nobody knows who is quick.
$node->restart;
ok($node->poll_query_until('postgres', "SELECT count(*) = 3 $hanging"), 'three runs hang after a restart');
garbage('postgres', $_, "clean_$_", q{unnest(ARRAY['restarted'])}) for @roles;
is(eventually($node, 'postgres', q{SELECT count(*) FROM seen WHERE id = 'restarted'}, '6'), '6', 'all others are served after a restart');
$node->safe_psql('postgres', q{SELECT gt_pause('hang' || i) FROM generate_series(1, 4) i; SELECT gt_pause('also')});
$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) $hanging");

# A role with sixty handlers, none of which is slow, holds nobody up.
$node->safe_psql('postgres', q{
	CREATE ROLE many; SELECT gt_allow('many'), gt_allow('many', 'handler');
	SET ROLE many;
	SELECT gt_handler_create('many' || i, 'sql', 'SELECT pg_sleep(0.5)') FROM generate_series(1, 60) i;
	SELECT gt_release(gt_lease_create(i || 'm' || j, 'many', cleanup => 'many' || i)) FROM generate_series(1, 60) i, generate_series(1, 3) j;});
ok($node->poll_query_until('postgres', q{SELECT count(*) < 170 FROM gt_garbage WHERE handler LIKE 'many%'}), 'its runs have begun');
garbage('postgres', $_, "clean_$_", q{unnest(ARRAY['meanwhile'])}) for @roles;
is(eventually($node, 'postgres', q{SELECT count(*) FROM seen WHERE id = 'meanwhile'}, '6'), '6', 'six other roles are served');
ok($node->safe_psql('postgres', q{SELECT count(*) FROM gt_garbage WHERE handler LIKE 'many%'}) > 0, 'before the sixty handlers are done');
$node->safe_psql('postgres', q{SELECT gt_pause('many' || i) FROM generate_series(1, 60) i});

# One worker for two roles with a backlog: they have it in turn.
reload_and_see($node, 'garbagetruck.max_workers', '1');
$node->safe_psql('postgres', q{
	SET ROLE r1; SELECT gt_handler_create('step1', 'sql', 'INSERT INTO public.seen (id) SELECT $1 FROM pg_sleep(0.02)');
	SET ROLE r2; SELECT gt_handler_create('step2', 'sql', 'INSERT INTO public.seen (id) SELECT $1 FROM pg_sleep(0.02)');
	RESET ROLE; TRUNCATE seen});
$node->safe_psql('postgres', join(';', 'BEGIN', (map { "SET LOCAL ROLE r$_; SELECT gt_release_many(gt_lease_create_many(array_agg('s' || i), 'r$_', cleanup => 'step$_')) FROM generate_series(1, 400) i" } 1, 2), 'COMMIT'));
is(eventually($node, 'postgres', q{SELECT count(*) FROM seen}, '800'), '800', 'two roles share one worker');
is($node->safe_psql('postgres', q{SELECT count(*) FROM (SELECT pid FROM seen GROUP BY pid HAVING count(DISTINCT role) > 1) p}), '0', 'each in processes of its own');
ok($node->safe_psql('postgres', q{SELECT min(n) FILTER (WHERE role = 'r1') < max(n) FILTER (WHERE role = 'r2') AND
	min(n) FILTER (WHERE role = 'r2') < max(n) FILTER (WHERE role = 'r1') FROM seen}) eq 't', 'in turn');

# However many leases are left to end, who has run all that its role has makes room for the next.
reload_and_see($node, 'garbagetruck.max_workers', '0');
$node->safe_psql('postgres', q{SELECT count(gt_lease_create_many(ids, 'end', duration => '100 ms')) FROM
	(SELECT array_agg('e' || i) AS ids FROM generate_series(1, 40000) i GROUP BY i / 1000) e});
$node->safe_psql('postgres', 'TRUNCATE seen');
garbage('postgres', $_, "clean_$_", q{unnest(ARRAY['between'])}) for @roles;
reload_and_see($node, 'garbagetruck.max_workers', '1');
is(eventually($node, 'postgres', q{SELECT count(*) FROM seen WHERE id = 'between'}, '6'), '6', 'six roles are served');
is(eventually($node, 'postgres', q{SELECT count(*) FROM gt_leases}, '0'), '0', 'and very many leases end');
ok($node->safe_psql('postgres', q{SELECT count(*) FROM gt_history WHERE event = 'expired' AND object_type = 'end' AND at <
	(SELECT max(at) FROM gt_history WHERE event = 'cleaned' AND object_id = 'between')}) < 20000, 'most of them after that');

# Leases of roles that have had a run end beside garbage of others, of which each worker that comes has some to run first.
$node->safe_psql('postgres', join(';', 'TRUNCATE seen', 'BEGIN', map { "SET LOCAL ROLE $_;
	SELECT gt_handler_create('long_$_', 'sql', 'SELECT pg_sleep(0.05)');
	SELECT gt_lease_create('ends', '$_', duration => '500 ms', cleanup => 'clean_$_');
	SELECT gt_release_many(gt_lease_create_many(array_agg('long' || i), '$_', cleanup => 'long_$_')) FROM generate_series(1, 1000) i" } @roles) . '; COMMIT');
is(eventually($node, 'postgres', q{SELECT count(*) FROM seen WHERE id = 'ends'}, '6'), '6', 'leases end, and their objects are cleaned');
ok($node->safe_psql('postgres', q{SELECT count(DISTINCT handler) FROM gt_garbage WHERE handler LIKE 'long%'}) == 6, 'beside garbage of all roles');
$node->safe_psql('postgres', join(';', map { "SELECT gt_pause('long_$_')" } @roles));

# A batch that takes longer than a turn, and fails: where each turn began with all of it, its culprit would never be found.
$node->safe_psql('postgres', q{
	TRUNCATE seen;
	CREATE FUNCTION slow_batch(ids text[]) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
		PERFORM pg_sleep(0.25 * cardinality(ids));
		IF 'culprit' = ANY (ids) THEN RAISE 'a culprit'; END IF;
		INSERT INTO public.seen (id) SELECT unnest(ids);
	END $$;
	SET ROLE r1;
	SELECT gt_handler_create('backlog', 'sql', 'SELECT pg_sleep(0.1)');
	SELECT gt_release_many(gt_lease_create_many(array_agg('l' || i), 'backlog', cleanup => 'backlog')) FROM generate_series(1, 5000) i});
$node->safe_psql('postgres', q{
	SET ROLE r2;
	SELECT gt_handler_create('batch', 'sql_batch', 'SELECT public.slow_batch($1)', max_attempts => 1);
	SELECT gt_release_many(gt_lease_create_many('{culprit,b1,b2,b3,b4,b5}', 'batch', cleanup => 'batch'))});
is(eventually($node, 'postgres', q{SELECT array_agg(object_id) FROM gt_dead WHERE handler = 'batch'}, '{culprit}'), '{culprit}', 'a slow batch is halved over several turns');
is(eventually($node, 'postgres', q{SELECT count(*) FROM seen}, '5'), '5', 'and the rest of it is cleaned');
$node->safe_psql('postgres', q{SELECT gt_pause('backlog')});
reload_and_see($node, 'garbagetruck.max_workers', '2');

# Who is idle leaves at once when a database waits for a slot, also who was busy when it began to wait.
for my $db (qw(one two three))
{
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	roles($db, 'r1');
	$node->safe_psql($db, q{SELECT gt_handler_create('half', 'sql', 'INSERT INTO public.seen (id) SELECT $1 FROM pg_sleep(0.8)')});
}
is(eventually($node, 'postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'garbagetruck worker%'}, '0'), '0', 'no worker is left');
$node->safe_psql($_, q{SELECT gt_release(gt_lease_create('x', cleanup => 'half'))}) for qw(one two);
$node->safe_psql('three', q{SELECT gt_release(gt_lease_create('x', cleanup => 'half'))});
is(eventually($node, 'three', q{SELECT count(*) FROM seen}, '1'), '1', 'the third database is served');
is($node->safe_psql('three', q{SELECT lag < interval '8 seconds' FROM gt_history WHERE event = 'cleaned'}), 't', 'before the others have been idle for ten seconds');

$node->stop;
done_testing();
