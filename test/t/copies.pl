# A copy acts on nobody's objects until an administrator says so (promise I9).
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(has_archiving => 1, allows_streaming => 'logical');
$node->append_conf('postgresql.conf', <<'EOC');
shared_preload_libraries = 'garbagetruck'
garbagetruck.naptime = '1s'
garbagetruck.restart_grace = '1s'
max_worker_processes = 20
EOC
$node->start;
$node->safe_psql('postgres', 'CREATE ROLE app; CREATE ROLE other');

sub fill
{
	my ($name) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $name");
	$node->safe_psql($name, q{
		CREATE EXTENSION garbagetruck;
		CREATE TABLE cleaned (id text, at timestamptz DEFAULT gt_clock());
		SELECT gt_allow('app'), gt_allow('app', 'handler');
		GRANT INSERT, SELECT ON cleaned TO app;
		SET ROLE app;
		SELECT gt_handler_create('note', 'sql', 'INSERT INTO cleaned VALUES ($1)');
		SELECT gt_handler_create('fail', 'sql', 'SELECT 1/0 FROM cleaned', max_attempts => 1);
		SELECT gt_handler_create('queue', 'queue');
		SELECT gt_handler_grant('note', 'other');
		SELECT gt_release(gt_lease_create('dead', cleanup => 'fail', payload => '{"a": [1, "x"]}'));
		SELECT gt_release(gt_lease_create('garbage', cleanup => 'queue', metadata => '{"m": 1}'));
		SELECT gt_release(gt_lease_create('claimed', cleanup => 'queue'));
		SELECT count(*) FROM gt_claim(cleanup_ids => ARRAY[(SELECT cleanup_id FROM gt_garbage WHERE object_id = 'claimed')]);
		SELECT gt_lease_create('short', duration => '8 s', cleanup => 'note', service_id => 's');
		SELECT gt_lease_create('long', duration => '1 hour', cleanup => 'note', parent => NULL, payload => '{"p": true}');
	});
	# a handler that fails must be given something to fail on
	$node->safe_psql($name, q{INSERT INTO cleaned VALUES ('seed')});
	$node->safe_psql($name, q{SET ROLE app; SELECT gt_release(gt_lease_create('dead', cleanup => 'fail', payload => '{"a": [1, "x"]}'))})
	  if $node->safe_psql($name, q{SELECT count(*) FROM _garbagetruck.gt_object WHERE object_id = 'dead'}) eq '0';
	$node->poll_query_until($name, q{SELECT count(*) = 1 FROM gt_dead}) or die 'no dead garbage';
	return;
}

# What a copy must keep, whatever its ids.
my $state = q{
	SELECT string_agg(x, E'\n' ORDER BY x) FROM (
		SELECT 'lease ' || object_id || ' ' || service_id || ' ' || duration || ' ' || coalesce(payload::text, '-') FROM gt_leases WHERE object_id = 'long'
		UNION ALL SELECT 'garbage ' || object_id || ' ' || handler || ' ' || attempts || ' ' || owner FROM gt_garbage WHERE handler = 'queue'
		UNION ALL SELECT 'dead ' || object_id || ' ' || attempts || ' ' || coalesce(error, '-') || ' ' || coalesce(payload::text, '-') FROM gt_dead
		UNION ALL SELECT 'handler ' || name || ' ' || kind || ' ' || coalesce(command, '-') || ' ' || owner || ' ' || max_attempts FROM gt_handlers) AS t(x)};

# The copy in database $name of $where does nothing; adopted, it starts with the grace.
sub copy_ok
{
	my ($what, $where, $name, $other_roles) = @_;
	is($where->safe_psql($name, q{SELECT ok FROM gt_health() WHERE check_name = 'place'}), 'f', "$what: gt_health tells of it");
	like($where->safe_psql($name, q{SELECT remedy FROM gt_health() WHERE check_name = 'place'}), qr/adopt/, "$what: and what to do");
	my $err;
	$where->psql($name, "\\set VERBOSITY verbose\nSELECT * FROM gt_claim()", stderr => \$err);
	like($err, qr/55000/, "$what: gt_claim raises 55000");
	$where->psql($name, "\\set VERBOSITY verbose\nSELECT gt_resume()", stderr => \$err);
	like($err, qr/55000/, "$what: gt_resume() without adopt raises 55000");
	is($where->safe_psql($name, q{SELECT gt_release(gt_lease_create('new', duration => '1 s'))}), 't', "$what: create and release work");
	is($where->safe_psql($name, q{SELECT count(*) FROM cleaned WHERE id <> 'seed'}), '0', "$what: nothing was cleaned");
	is($where->safe_psql($name, q{SELECT count(*) FROM _garbagetruck.gt_lease WHERE object_id = 'short'}), '1', "$what: nothing was ended");

	my $adopted = $where->safe_psql($name, q{SELECT gt_resume(adopt => true); SELECT gt_clock()});
	$adopted =~ s/^\n//;
	if ($other_roles)
	{
		is($where->safe_psql($name, q{SELECT bool_and(ok) FROM gt_health() WHERE check_name = 'suspended'}), 'f',
			"$what: where roles have other OIDs, handlers are suspended");
		$where->safe_psql($name, q{SET ROLE app;
			SELECT gt_handler_create('note', 'sql', 'INSERT INTO cleaned VALUES ($1)');
			SELECT gt_handler_create('queue', 'queue')});
	}
	ok($where->poll_query_until($name, q{SELECT count(*) = 1 FROM cleaned WHERE id = 'short'}), "$what: once adopted, it acts");
	is($where->safe_psql($name, "SELECT count(*) FROM cleaned WHERE id = 'short' AND at < '$adopted'::timestamptz + interval '7.9 s'"),
		'0', "$what: with the grace of its full duration");
	is($where->safe_psql($name, q{SELECT string_agg(object_id, ' ' ORDER BY object_id) FROM gt_claim()}), 'claimed garbage',
		"$what: and what was claimed in the original can be claimed here");
	return;
}

fill('original');
my $expected = $node->safe_psql('original', $state);
like($expected, qr/dead dead 1 division by zero/, 'there is something of each kind');
is(() = $expected =~ /\n/g, 8, 'all of it');

# The copies are made while the short lease runs; what the original does then must not be theirs.
my $dump = $node->basedir . '/dump';
$node->run_log([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('original') ]);
$node->safe_psql('postgres', 'CREATE DATABASE by_template TEMPLATE original');
is($node->safe_psql('by_template', q{SELECT count(*) FROM cleaned WHERE id = 'short'}), '0', 'the copies are made in time');

# A copy made by the server.
is($node->safe_psql('by_template', $state), $expected, 'TEMPLATE: it has everything');
copy_ok('TEMPLATE', $node, 'by_template');

# A dump, restored into the same cluster and into another one, where the roles have other OIDs.
$node->safe_psql('postgres', 'CREATE DATABASE restored');
ok($node->run_log([ 'pg_restore', '-e', '-d', $node->connstr('restored'), $dump ]), 'restore: without an error');
is($node->safe_psql('restored', $state), $expected, 'restore: it has everything');
copy_ok('restore', $node, 'restored');

my $other = PostgreSQL::Test::Cluster->new('other');
$other->init;
$other->append_conf('postgresql.conf', <<'EOC');
shared_preload_libraries = 'garbagetruck'
garbagetruck.naptime = '1s'
garbagetruck.restart_grace = '1s'
EOC
$other->start;
$other->safe_psql('postgres', 'CREATE ROLE stranger; CREATE ROLE another; CREATE ROLE other; CREATE ROLE app; CREATE DATABASE restored');
ok($other->run_log([ 'pg_restore', '-e', '-d', $other->connstr('restored'), $dump ]), 'another cluster: without an error');
is($other->safe_psql('restored', $state), $expected, 'another cluster: it has everything, owned by the same names');
copy_ok('another cluster', $other, 'restored', 1);
is($other->safe_psql('restored', q{SET ROLE app; SELECT count(*) FROM gt_leases WHERE object_id = 'long'}), '1',
	'another cluster: the lease belongs to the role of its name');
is($other->safe_psql('restored', q{SELECT gt_allow('stranger'); SET ROLE stranger; SELECT count(*) FROM gt_leases}), "\n0",
	'another cluster: and not to the one with its OID');
is($other->safe_psql('restored', q{SELECT string_agg(role::regrole::text, ' ') FROM _garbagetruck.gt__handler_right}), 'other',
	'another cluster: a grant is to the role of its name, though that owned nothing');

# An empty copy is adopted silently.
$node->safe_psql('postgres', 'CREATE DATABASE empty');
$node->safe_psql('empty', 'CREATE EXTENSION garbagetruck');
$node->safe_psql('postgres', 'CREATE DATABASE empty_copy TEMPLATE empty');
$node->safe_psql('empty_copy', q{
	CREATE TABLE cleaned (id text);
	SELECT gt_handler_create('note', 'sql', 'INSERT INTO cleaned VALUES ($1)');
	SELECT gt_release(gt_lease_create('x', cleanup => 'note'))});
ok($node->poll_query_until('empty_copy', 'SELECT count(*) = 1 FROM cleaned'), 'a copy without objects is adopted silently');

# A logical subscriber.
$node->safe_psql('postgres', 'CREATE DATABASE subscriber');
$node->safe_psql('subscriber', 'CREATE EXTENSION garbagetruck; CREATE TABLE cleaned (id text)');
$node->safe_psql('original', 'CREATE PUBLICATION pub FOR TABLE _garbagetruck.gt_object, _garbagetruck.gt_lease, _garbagetruck.gt__handler WHERE (id >= 100)');
$node->safe_psql('original', q{SELECT pg_create_logical_replication_slot('sub', 'pgoutput')});
my $connection = $node->connstr('original');
$connection =~ s/'/''/g;
$node->safe_psql('subscriber', "CREATE SUBSCRIPTION sub CONNECTION '$connection' PUBLICATION pub WITH (create_slot = false, slot_name = 'sub')");
ok($node->poll_query_until('subscriber', q{SELECT count(*) > 0 FROM _garbagetruck.gt_object}), 'a subscriber receives our rows');
is($node->safe_psql('subscriber', q{SELECT ok FROM gt_health() WHERE check_name = 'place'}), 'f', 'subscriber: it is paused');
is($node->safe_psql('subscriber', q{SELECT count(*) FROM cleaned}), '0', 'subscriber: and cleans nothing');
$node->safe_psql('subscriber', q{ALTER SUBSCRIPTION sub DISABLE; ALTER SUBSCRIPTION sub SET (slot_name = NONE); DROP SUBSCRIPTION sub});
$node->safe_psql('original', q{SELECT pg_drop_replication_slot('sub')});
$node->psql('subscriber', "\\set VERBOSITY verbose\nBEGIN; SAVEPOINT s; SELECT gt_resume(adopt => true); SELECT * FROM gt_claim(); ROLLBACK TO s; SELECT * FROM gt_claim()",
	stderr => \my $undone);
like($undone, qr/55000/, 'subscriber: an adoption that a savepoint undoes is undone');
$node->safe_psql('subscriber', q{
	SELECT gt_resume(adopt => true);
	SELECT gt_handler_create('new', 'queue');
	SELECT gt_release(gt_lease_create('new ' || n, cleanup => 'new')) FROM generate_series(1, 10) n});
is($node->safe_psql('subscriber', q{SELECT count(*) FROM gt_garbage WHERE object_id LIKE 'new %'}), '10', 'subscriber: adopted, its ids go on behind those that it has received');

# A clone by archive recovery; the system identifier is the same.
$node->backup('base');
$node->safe_psql('original', q{SET ROLE app; SELECT gt_lease_create('short', duration => '2 s', cleanup => 'note')});
$node->safe_psql('original', q{SELECT pg_switch_wal()});
my $clone = PostgreSQL::Test::Cluster->new('clone');
$clone->init_from_backup($node, 'base', has_restoring => 1, standby => 0);
$clone->append_conf('postgresql.conf', "archive_mode = off");
$clone->start;
ok($clone->poll_query_until('original', 'SELECT NOT pg_is_in_recovery()'), 'PITR: the clone is up');
is($clone->safe_psql('original', q{SELECT ok FROM gt_health() WHERE check_name = 'place'}), 'f', 'PITR: it is paused');
$clone->restart;
is($clone->safe_psql('original', q{SELECT ok FROM gt_health() WHERE check_name = 'place'}), 'f', 'PITR: also after a restart');
$clone->safe_psql('original', 'SELECT gt_resume(adopt => true)');
$clone->restart;
is($clone->safe_psql('original', q{SELECT ok FROM gt_health() WHERE check_name = 'place'}), 't', 'PITR: adopted, and it stays so');

# Without the library preloaded a restore to a target is seen in the history of the timelines, and the promotion of a
# standby is not taken for one.
$node->safe_psql('original', q{SELECT pg_create_restore_point('here'); SELECT pg_switch_wal()});
my $late = PostgreSQL::Test::Cluster->new('late');
$late->init_from_backup($node, 'base', has_restoring => 1, standby => 0);
$late->append_conf('postgresql.conf',
	"archive_mode = off\nshared_preload_libraries = ''\nrecovery_target_name = 'here'\nrecovery_target_action = 'promote'");
$late->start;
ok($late->poll_query_until('original', 'SELECT NOT pg_is_in_recovery()'), 'PITR without preload: the clone is up');
is($late->safe_psql('original', q{SELECT ok FROM gt_health() WHERE check_name = 'place'}), 'f', 'PITR without preload: it is paused');
$late->append_conf('postgresql.conf', "shared_preload_libraries = 'garbagetruck'");
$late->restart;
is($late->safe_psql('original', q{SELECT ok FROM gt_health() WHERE check_name = 'place'}), 'f', 'PITR without preload: also with it, later');
$late->safe_psql('original', 'SELECT gt_resume(adopt => true)');
$late->restart;
is($late->safe_psql('original', q{SELECT ok FROM gt_health() WHERE check_name = 'place'}), 't', 'PITR without preload: adopted, and it stays so');
my $promoted = PostgreSQL::Test::Cluster->new('promoted');
$promoted->init_from_backup($node, 'base', has_streaming => 1);
$promoted->append_conf('postgresql.conf', "archive_mode = off\nshared_preload_libraries = ''");
$promoted->start;
$promoted->promote;
is($promoted->safe_psql('original', q{SELECT ok FROM gt_health() WHERE check_name = 'place'}), 't', 'without preload a promoted standby is not a copy');

# A file-level copy is told apart by `identity`; setting it for the first time pauses too.
$node->append_conf('postgresql.conf', "garbagetruck.identity = 'production'");
$node->restart;
is($node->safe_psql('original', q{SELECT ok FROM gt_health() WHERE check_name = 'place'}), 'f', 'identity: set for the first time it pauses');
$node->safe_psql('original', 'SELECT gt_resume(adopt => true)');
is($node->safe_psql('original', q{SELECT ok FROM gt_health() WHERE check_name = 'place'}), 't', 'identity: until somebody says so');
$node->append_conf('postgresql.conf', "garbagetruck.identity = 'staging'");
$node->restart;
is($node->safe_psql('original', q{SELECT ok FROM gt_health() WHERE check_name = 'place'}), 'f', 'identity: another one is another place');

$_->stop('fast') for $clone, $late, $promoted, $other, $node;
done_testing();
