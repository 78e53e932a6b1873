# pg_upgrade keeps handlers, leases, garbage and dead, and nothing of ours runs while it works. With `identity` the new
# cluster goes on where the old one was, with the grace; without, it has another system identifier and waits to be adopted.
# A new version of ours is a new library, a restart, and ALTER EXTENSION UPDATE, in this order.
#
# Old and new are of the same major, unless `oldinstall` names the installation of an older one that has the extension.
use strict;
use warnings;
use File::Copy qw(copy);
use GarbageTruck;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# All that is to be kept, with its ids and tokens.
my $state = q{
	SELECT string_agg(x, E'\n' ORDER BY x) FROM (
		SELECT 'lease ' || concat_ws(' ', id, object_id, owner::regrole, service_id, deadline, duration, fence, parent, request_key, payload) AS x FROM _garbagetruck.gt_lease
		UNION ALL SELECT 'garbage ' || concat_ws(' ', cleanup_id, object_id, owner, handler, state, attempts, payload) FROM gt_garbage
		UNION ALL SELECT 'dead ' || concat_ws(' ', cleanup_id, object_id, owner, handler, attempts, error) FROM gt_dead
		UNION ALL SELECT 'handler ' || concat_ws(' ', name, kind, command, owner, run_as, paused, max_attempts) FROM gt_handlers
		UNION ALL SELECT 'right ' || concat_ws(' ', handler, role_name, privilege) FROM _garbagetruck.gt__handler_right
		UNION ALL SELECT 'share ' || concat_ws(' ', owner_name, role_name, object_type) FROM _garbagetruck.gt__share
		UNION ALL SELECT 'ttl ' || concat_ws(' ', table_name, expires_at, cleanup, owner, batch_size, wake, paused, paused_reason, grace, next_due_at) FROM gt_ttls
		UNION ALL SELECT 'row ' || concat_ws(' ', v.*) FROM visit AS v
		UNION ALL SELECT 'history ' || concat_ws(' ', at, event, object_id) FROM gt_history
		UNION ALL SELECT 'run ' || run FROM _garbagetruck.gt__start) AS t};

my @conf = ("shared_preload_libraries = 'garbagetruck'", "garbagetruck.naptime = '1h'", "garbagetruck.restart_grace = '5s'");

# The old cluster, with work that is due but was not done.
sub old_cluster
{
	my ($name, $identity) = @_;
	my $old = PostgreSQL::Test::Cluster->new($name, install_path => $ENV{oldinstall});
	$old->init;
	$old->append_conf('postgresql.conf', join("\n", @conf, "garbagetruck.databases = ''", "garbagetruck.identity = '$identity'") . "\n");
	$old->start;
	$old->safe_psql('postgres', 'CREATE ROLE app; CREATE ROLE other');
	$old->safe_psql('postgres', q{
		CREATE EXTENSION garbagetruck;
		CREATE TABLE cleaned (id text, at timestamptz DEFAULT gt_clock());
		SELECT gt_allow('app'), gt_allow('app', 'handler');
		GRANT INSERT, SELECT ON cleaned TO app;
		CREATE TABLE visit (gone int, id int PRIMARY KEY, expires_at timestamptz);
		ALTER TABLE visit DROP COLUMN gone;
		CREATE INDEX ON visit (expires_at);
		ALTER TABLE visit OWNER TO app;
		SET ROLE app;
		SELECT gt_handler_create('note', 'sql', 'INSERT INTO cleaned VALUES ($1)');
		SELECT gt_handler_create('fail', 'sql', 'SELECT 1/0', max_attempts => 1);
		SELECT gt_handler_create('queue', 'queue');
		SELECT gt_handler_create('resting', 'queue');
		SELECT gt_pause('resting');
		SELECT gt_handler_grant('note', 'other'), gt_share('other');
		SELECT gt_ttl_create('visit', 'expires_at', 'queue', batch_size => 3);
		SELECT gt_release(gt_lease_create('dead', cleanup => 'fail'));
		RESET ROLE;
		CALL gt_reclaim();
		SET ROLE app;
		SELECT gt_release(gt_lease_create('claimed', cleanup => 'queue'));
		SELECT count(*) FROM gt_claim(visibility => '1 hour');
		SELECT gt_release(gt_lease_create('waiting', cleanup => 'queue', payload => '{"a": [1, "x"]}'));
		SELECT gt_release(gt_lease_create('due', cleanup => 'note'));
		SELECT gt_lease_create('short', duration => '5 s', cleanup => 'note', service_id => 's');
		INSERT INTO visit VALUES (1, '2020-01-01'), (2, '2100-01-01'), (3, NULL);
		SELECT gt_lease_create('child', parent => gt_lease_create('parent', duration => '1 hour', request_key => 'k'), cleanup => 'note');
	});
	return $old;
}

sub upgraded
{
	my ($old, $name, $identity) = @_;
	my $new = PostgreSQL::Test::Cluster->new($name);
	$new->init;
	$new->append_conf('postgresql.conf', join("\n", @conf, "garbagetruck.identity = '$identity'") . "\n");
	chdir $new->basedir or die "chdir: $!";
	note 'from ' . $old->pg_version . ' to ' . $new->pg_version;
	command_ok([ 'pg_upgrade', '--no-sync', '-d', $old->data_dir, '-D', $new->data_dir,
		'-b', $old->config_data('--bindir'), '-B', $new->config_data('--bindir'),
		'-s', $new->host, '-p', $old->port, '-P', $new->port ], "$name: pg_upgrade");
	chdir '/' or die "chdir: $!";
	return $new;
}

for my $identity ('', 'production')
{
	my $what = $identity eq '' ? 'without' : 'with';
	my $old = old_cluster("old_$what", $identity);
	my $fence = $old->safe_psql('postgres', q{SELECT max(fence) FROM _garbagetruck.gt_object});
	my $token = $old->safe_psql('postgres', q{SELECT cleanup_id || ', ' || attempts FROM gt_garbage WHERE object_id = 'claimed'});
	my $before = $old->safe_psql('postgres', $state);
	is(() = $before =~ /^(?:lease|garbage|dead|handler|right|share|ttl|row|history|run) /mg, 3 + 3 + 1 + 6 + 1 + 1 + 1 + 3 + 2 + 1, "$what identity: there is something of each kind");
	$old->stop;

	# from here on workers would work, those of the servers that pg_upgrade starts
	$old->append_conf('postgresql.conf', "garbagetruck.databases = '*'\n");
	my $new = upgraded($old, "new_$what", $identity);
	$new->append_conf('postgresql.conf', "garbagetruck.max_workers = 0\n");
	$new->start;
	is($new->safe_psql('postgres', $state), $before, "$what identity: all of it is there, and nobody has worked meanwhile");

	if ($identity eq '')
	{
		is($new->safe_psql('postgres', q{SELECT ok FROM gt_health() WHERE check_name = 'place'}), 'f', 'without identity it is paused');
		my $err;
		$new->psql('postgres', "\\set VERBOSITY verbose\nSELECT * FROM gt_claim()", stderr => \$err);
		like($err, qr/55000/, 'and gt_claim raises 55000');
		$new->safe_psql('postgres', q{SELECT gt_resume(adopt => true)});
	}
	is($new->safe_psql('postgres', q{SELECT ok FROM gt_health() WHERE check_name = 'place'}), 't', "$what identity: it acts on its objects");
	is($new->safe_psql('postgres', q{SELECT ok FROM gt_health() WHERE check_name = 'suspended'}), 't', "$what identity: no handler is suspended");
	is($new->safe_psql('postgres', q{SELECT fence FROM gt_lease_grant('new')}) > $fence, 1, "$what identity: fences have grown");
	my $started = $new->safe_psql('postgres', 'SELECT started_at FROM _garbagetruck.gt__start');
	$new->append_conf('postgresql.conf', "garbagetruck.max_workers = 4\n");
	$new->reload;
	cleaned($new, 'postgres', 'due short', "$what identity: what is due is cleaned");
	is($new->safe_psql('postgres', "SELECT at >= timestamptz '$started' + interval '5 s' FROM cleaned WHERE id = 'short'"), 't',
		"$what identity: leases have their grace");
	is($new->safe_psql('postgres', q{SELECT string_agg(object_id, ' ' ORDER BY object_id) FROM gt_lease_list() WHERE object_id IN ('parent', 'child')}),
		'child parent', "$what identity: those of an hour run");
	$new->safe_psql('postgres', q{INSERT INTO visit VALUES (4, now())});
	is(eventually($new, 'postgres', q{SELECT string_agg(id::text, ' ' ORDER BY id) FROM visit}, '2 3'), '2 3', "$what identity: rows with a deadline go, old and new ones");
	is($new->safe_psql('postgres', q{SELECT count(gt_ack(cleanup_id, attempts)) FROM gt_garbage WHERE object_type = 'public.visit'}), '2', 'and are garbage of their handler');
	if ($identity eq '')
	{
		is($new->safe_psql('postgres', q{SELECT string_agg(object_id, ' ' ORDER BY object_id) FROM gt_claim()}), 'claimed waiting',
			'in a copy claims count as crashed');
	}
	else
	{
		is($new->safe_psql('postgres', q{SELECT string_agg(object_id, ' ' ORDER BY object_id) FROM gt_claim()}), 'waiting',
			'a claim survives the upgrade');
		is($new->safe_psql('postgres', "SET ROLE app; SELECT gt_ack($token)"), 't', 'and its token');
	}
	is($new->safe_psql('postgres', q{SELECT gt_redrive(handler => 'fail')}), '1', "$what identity: what is dead can be redriven");
	$new->stop;
}

# The library serves the SQL of the version before it, here one that differs from this one by its name only.
my ($home, $scripts, $lib) = own_installation();
append_to_file("$scripts/garbagetruck--0.9.sql", slurp_file("$scripts/garbagetruck--1.0.sql"));
append_to_file("$scripts/garbagetruck--0.9--1.0.sql", "SELECT _garbagetruck.gt__needs_library('1.0');\n");
append_to_file("$scripts/garbagetruck--1.0--1.1.sql", "SELECT _garbagetruck.gt__needs_library('1.1');\n");
append_to_file("$scripts/garbagetruck--1.0--1.2.sql", "SELECT 1;\n");
my $node = PostgreSQL::Test::Cluster->new('updated', install_path => $home);
$node->init;
$node->append_conf('postgresql.conf', join("\n", @conf) . "\n");
$node->start;
my $held = $node->safe_psql('postgres', q{
	CREATE EXTENSION garbagetruck VERSION '0.9';
	CREATE TABLE cleaned (id text);
	SELECT gt_handler_create('note', 'sql', 'INSERT INTO cleaned VALUES ($1)') \g /dev/null
	SELECT gt_release(gt_lease_create('before', cleanup => 'note')) \g /dev/null
	SELECT gt_lease_create('held', cleanup => 'note', duration => '1 hour')});
cleaned($node, 'postgres', 'before', 'a newer library serves the SQL of the version before');
my $loaded = q{SELECT string_agg(detail, ' ') FROM gt_health() WHERE check_name = 'preloaded' AND NOT ok};
is($node->safe_psql('postgres', $loaded), '', 'and gt_health() is content');

my $file = "$lib/garbagetruck.so";
rename $file, "$file.old" or die "$file: $!";
copy("$file.old", $file) or die "$file: $!";
chmod 0755, $file;
like($node->safe_psql('postgres', $loaded), qr/another one than the server has loaded/, 'a new library is installed: gt_health() asks for the restart');
$node->restart;
is($node->safe_psql('postgres', $loaded), '', 'until that');
$node->safe_psql('postgres', 'ALTER EXTENSION garbagetruck UPDATE');
my $version = q{SELECT extversion FROM pg_extension WHERE extname = 'garbagetruck'};
is($node->safe_psql('postgres', $version), '1.0', 'the SQL is updated');
is($node->safe_psql('postgres', "SELECT gt_renew('$held') IS NOT NULL, gt_release('$held')"), 't|t', 'leases of before go on');
cleaned($node, 'postgres', 'before held', 'and end');

my $err;
$node->psql('postgres', "\\set VERBOSITY verbose\nALTER EXTENSION garbagetruck UPDATE TO '1.1'", stderr => \$err);
like($err, qr/55000/, 'an update that needs a newer library than is loaded stops');
is($node->safe_psql('postgres', $version), '1.0', 'and nothing has changed');
$node->safe_psql('postgres', q{ALTER EXTENSION garbagetruck UPDATE TO '1.2'});
like($node->safe_psql('postgres', $loaded), qr/SQL is of version 1\.2, and the library that is loaded of 1\.0/, 'SQL that is newer than the library is told of');
$node->stop;

done_testing();
