# Our tables among what others do with all tables of a database: publications and their subscribers, triggers, grants,
# dumps, and indexes that are built anew while calls come in.
use strict;
use warnings;
use GarbageTruck;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = truck('tables', 'wal_level = logical', "garbagetruck.history = 'all'", "garbagetruck.history_retention = '1s'");
set_up($node);
$node->safe_psql('postgres', 'CREATE TABLE app (n int PRIMARY KEY); CREATE PUBLICATION everything FOR ALL TABLES');

# A publication of all tables: expiry, cleaning and the trimming of the history go on.
$node->safe_psql('postgres', q{SELECT gt_release(gt_lease_create('a', cleanup => 'clean')), gt_lease_create('b', cleanup => 'clean', duration => '100 ms')});
cleaned($node, 'postgres', 'a b', 'objects are cleaned under a publication of all tables');
is(eventually($node, 'postgres', q{CALL gt_reclaim(); SELECT count(*) FROM gt_history}, "0\n0"), "0\n0", 'and the history is trimmed');

# Its subscriber gets what our tables hold, and the application's rows also after the publisher has started anew.
my $subscriber = truck('subscriber', "garbagetruck.databases = ''");
$subscriber->safe_psql('postgres', q{CREATE EXTENSION garbagetruck; CREATE TABLE app (n int PRIMARY KEY);
	CREATE TABLE cleaned (n serial, id text, attempt int, at timestamptz, pid int); CREATE TABLE gate (opened boolean)});
$node->safe_psql('postgres', q{SELECT gt_pause('grpc_endpoint')});
my $connection = $node->connstr('postgres');
$connection =~ s/'/''/g;
$subscriber->safe_psql('postgres', "CREATE SUBSCRIPTION all_of_it CONNECTION '$connection' PUBLICATION everything");
is(eventually($subscriber, 'postgres', q{SELECT count(*) FROM pg_subscription_rel WHERE srsubstate NOT IN ('r', 's')}, '0'), '0', 'each table has been copied');
is($subscriber->safe_psql('postgres', q{SELECT paused FROM gt_handlers WHERE name = 'grpc_endpoint'}), 't', 'the built-in handlers too');
for my $n (1 .. 2)
{
	$node->restart;
	$node->safe_psql('postgres', qq{SELECT gt_release(gt_lease_create('after restart $n', cleanup => 'clean')); SELECT gt_renew(gt_lease_create('held $n', duration => '1 hour'));
		SELECT gt_pause(); SELECT gt_resume(); SELECT gt_share('pg_monitor'); SELECT gt_unshare('pg_monitor'); INSERT INTO app VALUES ($n)});
	cleaned($node, 'postgres', join(' ', 'a', map({ "after restart $_" } 1 .. $n), 'b'), "it works after start $n");
	ok($subscriber->poll_query_until('postgres', "SELECT count(*) = 1 FROM app WHERE n = $n"), 'and the subscriber follows');
}
is($subscriber->safe_psql('postgres', q{SELECT string_agg(object_id, ', ' ORDER BY object_id) FROM gt_leases}), 'held 1, held 2', 'our rows as well');
$subscriber->safe_psql('postgres', 'DROP SUBSCRIPTION all_of_it');
$subscriber->stop;

# A trigger: nothing is written, by sessions or workers, until it is gone; then all goes on by itself.
# The lease is due within the second for which a worker that has looked around (at the start) does not look again.
$node->safe_psql('postgres', q{TRUNCATE cleaned});
$node->restart;
$node->safe_psql('postgres', q{SELECT gt_release(gt_lease_create('first', cleanup => 'clean'))});
cleaned($node, 'postgres', 'first', 'a worker is there');
$node->safe_psql('postgres', q{TRUNCATE cleaned; BEGIN;
	SELECT gt_lease_create('expires', cleanup => 'clean', duration => '1 ms');
	CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
	CREATE TRIGGER repack_trigger AFTER INSERT OR DELETE OR UPDATE ON _garbagetruck.gt_object FOR EACH ROW EXECUTE FUNCTION log();
	COMMIT});
my ($out, $err);
$node->psql('postgres', "\\set VERBOSITY verbose\nSELECT gt_lease_create('x')", stdout => \$out, stderr => \$err);
like($err, qr/55000.*table _garbagetruck.gt_object has the trigger "repack_trigger"/, 'a create is refused');
$node->wait_for_log(qr/WARNING: .*does nothing in database "postgres": table _garbagetruck.gt_object has the trigger "repack_trigger"/);
is($node->safe_psql('postgres', q{SELECT count(*) FROM cleaned}), '0', 'no worker has written');
is($node->safe_psql('postgres', q{SELECT ok FROM gt_health() WHERE check_name = 'rights'}), 'f', 'gt_health says so');
$node->safe_psql('postgres', 'DROP TRIGGER repack_trigger ON _garbagetruck.gt_object');
cleaned($node, 'postgres', 'expires', 'it goes on when the trigger is gone');
is($node->safe_psql('postgres', q{SELECT count(*) FROM gt_garbage}), '0', 'and nothing is left');

# A right to write our tables: no SQL of anybody is run; what is not SQL is.
$node->safe_psql('postgres', q{CREATE ROLE app; GRANT INSERT ON _garbagetruck.gt_lease TO app;
	SELECT gt_handler_create('hint', 'notify_only', 'hint');
	SELECT gt_release(gt_lease_create('suspended', cleanup => 'clean')); SELECT gt_release(gt_lease_create('told', cleanup => 'hint'))});
is(eventually($node, 'postgres', q{SELECT string_agg(object_id, ' ') FROM gt_garbage}, 'suspended'), 'suspended', 'what is told of by NOTIFY goes');
is($node->safe_psql('postgres', q{SELECT paused_reason FROM gt_handlers WHERE name = 'clean'}),
	'role "app" has INSERT on TABLE _garbagetruck.gt_lease', 'the SQL handler is suspended');
$node->append_conf('postgresql.conf', "garbagetruck.naptime = '1h'");
$node->reload;
$node->safe_psql('postgres', q{SELECT gt_release(gt_lease_create('suspended, too', cleanup => 'clean'))});
is(eventually($node, 'postgres', q{SELECT count(*) FROM gt_workers WHERE role = 'worker' AND state <> 'idle'}, '0'), '0', 'and nobody looks again for an hour');
$node->safe_psql('postgres', q{SELECT remedy FROM gt_health() WHERE check_name = 'rights' \gexec});
cleaned($node, 'postgres', 'expires suspended suspended, too', 'but after the remedy of gt_health it goes on');
$node->safe_psql('postgres', q{REVOKE USAGE ON SCHEMA public FROM PUBLIC; GRANT CREATE ON SCHEMA public TO app;
	SELECT gt_release(gt_lease_create('open', cleanup => 'clean'))});
is(eventually($node, 'postgres', q{SELECT count(*) FROM gt_workers WHERE role = 'worker' AND state <> 'idle'}, '0'), '0', 'a schema that is open');
$node->safe_psql('postgres', 'REVOKE CREATE ON SCHEMA public FROM app; GRANT USAGE ON SCHEMA public TO PUBLIC');
cleaned($node, 'postgres', 'expires open suspended suspended, too', 'and closed');

# A dump: pauses and settings of the built-in handlers, and who may what.
$node->safe_psql('postgres', q{SELECT gt_allow('app'); SELECT gt_pause('http_endpoint');
	SELECT gt_handler_create('grpc_endpoint', 'grpc', '{payload.url}', max_attempts => 3, concurrency => 2);
	CREATE DATABASE restored});
my $dump = $node->basedir . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $node->connstr('postgres') ], 'pg_dump');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('restored'), $dump ], 'pg_restore');
is($node->safe_psql('restored', q{SELECT name, paused, max_attempts, concurrency, owner FROM gt_handlers WHERE name ~ 'endpoint' ORDER BY 1}),
	$node->safe_psql('postgres', q{SELECT name, paused, max_attempts, concurrency, owner FROM gt_handlers WHERE name ~ 'endpoint' ORDER BY 1}),
	'the built-in handlers are as they were');
is($node->safe_psql('restored', q{SET ROLE app; SELECT count(gt_lease_create('by app')); SELECT count(*) > 0 FROM gt_leases}), "1\nt", 'who was allowed still is');
$node->psql('restored', q{SET ROLE pg_read_all_stats; SELECT gt_lease_create('by another')}, stderr => \$err);
like($err, qr/permission denied/, 'and nobody else');

# Indexes that are built anew, under prepared statements and creates of the same objects.
my $session = $node->background_psql('postgres');
$session->query_safe(q{PREPARE r AS SELECT gt_renew(lease_id) IS NOT NULL FROM gt_lease_list(object_id => 'held 1')});
$session->query_safe('EXECUTE r') for 1 .. 3;
$session->query_safe('BEGIN');
my @rounds = map { in_background($node, 'postgres', q{
	DO $$ BEGIN FOR i IN 1..2000 LOOP PERFORM gt_lease_create('same ' || i); COMMIT; END LOOP; END $$}) } 1 .. 4;
$node->safe_psql('postgres', "REINDEX TABLE CONCURRENTLY _garbagetruck.$_") for 'gt_lease', 'gt_object', 'gt_lease', 'gt_object';
is($session->query_safe('EXECUTE r'), 't', 'a transaction that was open meanwhile finds the new indexes');
$session->query_safe('COMMIT');
$session->quit;
is(finish_background($_), '', 'creates of the same objects went on while indexes were built') for @rounds;

# Every row has its entries in every index, whoever has made them: also in an index of somebody else's, while there is one.
SKIP:
{
	skip 'there is no amcheck', 8 unless $node->safe_psql('postgres', q{SELECT count(*) FROM pg_available_extensions WHERE name = 'amcheck'});
	$node->safe_psql('postgres', 'CREATE EXTENSION amcheck');
	reload_and_see($node, 'garbagetruck.renewals', 'durable');
	is(indexed('ours'), 't', 'with our own indexes');
	$node->safe_psql('postgres', q{CREATE INDEX theirs ON _garbagetruck.gt_lease (lower(object_id)) WHERE object_type <> 'x';
		CREATE INDEX theirs_too ON _garbagetruck.gt_object (object_type)});
	is(indexed('theirs'), 't', 'with one of somebody else');
	$node->safe_psql('postgres', 'DROP INDEX _garbagetruck.theirs, _garbagetruck.theirs_too');
	is(indexed('ours again'), 't', 'and without it again');

	# Entries that go to a leaf together, beside those of others, and after a crash, by records that are checked as they are read.
	reload_and_see($node, 'wal_consistency_checking', 'btree');
	@rounds = map { in_background($node, 'postgres', qq{
		DO \$\$ BEGIN FOR i IN 1..30 LOOP
			PERFORM gt_lease_create_many(array_agg(i || ' of all ' || n), 'many', duration => '1 hour') FROM generate_series(1, 100) n;
			COMMIT;
			PERFORM gt_lease_create_many(array_agg(md5(i || ' $_ ' || n)), 'md5', duration => '1 hour') FROM generate_series(1, 20 * i) n;
			COMMIT;
			PERFORM gt_lease_create_many(array_agg(md5(i || ' kept ' || n)), 'md5', '$_', duration => '1 hour') FROM generate_series(1, 20 * i) n;
			COMMIT;
		END LOOP; END \$\$}) } 1 .. 3;
	is(finish_background($_), '', 'many create many at once') for @rounds;
	is(indexed('after many'), 't', 'and each has its entries');
	$node->stop('immediate');
	$node->start;
	is(indexed('after a crash'), 't', 'also after a crash');
}

$node->stop;
done_testing();

# Writes rows in all ways, and looks whether all are in all indexes.
sub indexed
{
	my ($name) = @_;
	return $node->safe_psql('postgres', qq{
		SELECT gt_lease_create_many(array_agg('$name ' || i), 'many', duration => '1 hour') IS NULL FROM generate_series(1, 600) i \\g /dev/null
		SELECT gt_lease_create_many(array_agg('$name ' || i), 'many', duration => '1 hour') IS NULL FROM generate_series(590, 610) i \\g /dev/null
		SELECT gt_release(lease_id, keep => mod(n, 3) = 0) FROM (SELECT lease_id, row_number() OVER () AS n FROM gt_leases WHERE object_id LIKE '$name 5%') AS numbered \\g /dev/null
		SELECT gt_lease_create_many('{$name child 1,$name child 2}', parent => gt_lease_create('$name', request_key => '$name', cleanup => 'hint')) IS NULL \\g /dev/null
		SELECT gt_renew(lease_id, '2 hours') FROM gt_leases WHERE object_id IN ('$name', '$name 1', '$name 2') \\g /dev/null
		SELECT gt_lease_update(lease_id, duration => '1 minute') FROM gt_leases WHERE object_id IN ('$name', '$name 1') \\g /dev/null
		SELECT count(bt_index_check(indexrelid, true)) > 20 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
		WHERE a.amname = 'btree' AND indrelid::regclass::text LIKE '\_garbagetruck.gt\_%'});
}
