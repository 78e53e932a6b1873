# Commands on databases and on the extension go through while handlers run, as their ordinary owner, without anyone's
# help; a command that fails leaves the workers at work.
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
max_worker_processes = 20
EOC
$node->start;
$node->safe_psql('postgres', 'CREATE ROLE owner LOGIN CREATEDB');

# A database of an ordinary role in which a handler of the superuser's runs for a minute.
sub busy_database
{
	my ($name) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $name OWNER owner");
	$node->safe_psql($name, q{
		CREATE EXTENSION garbagetruck;
		SELECT gt_handler_create('slow', 'sql', 'SELECT pg_sleep(60)', timeout => '5 min');
		SELECT gt_release(gt_lease_create('a', cleanup => 'slow'));
	});
	ok(running($name), "$name: the handler runs");
	return;
}

sub running
{
	my ($name) = @_;
	return $node->poll_query_until('postgres',
		"SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = '$name' AND wait_event = 'PgSleep'");
}

sub as_owner
{
	my ($sql) = @_;
	my ($out, $err);
	my $status = $node->psql('postgres', $sql, stdout => \$out, stderr => \$err, extra_params => [ '-U', 'owner' ]);
	return ($status, $err);
}

# The role of the tests logs in by its name.
$node->append_conf('pg_hba.conf', 'local all all trust');
$node->reload;

my ($status, $err);

busy_database('dropped');
($status, $err) = as_owner('DROP DATABASE dropped');
is($status, 0, 'DROP DATABASE goes through while a handler runs') or diag $err;

busy_database('forced');
($status, $err) = as_owner('DROP DATABASE forced WITH (FORCE)');
is($status, 0, 'DROP DATABASE WITH (FORCE) goes through as an ordinary owner') or diag $err;

busy_database('renamed');
($status, $err) = as_owner('ALTER DATABASE renamed RENAME TO new_name');
is($status, 0, 'ALTER DATABASE RENAME goes through') or diag $err;
ok(running('new_name'), 'and the workers come back under the new name');
is($node->safe_psql('new_name', 'SELECT attempts, state FROM gt_garbage'), '0|running',
	'the run that was interrupted is charged to nobody');

($status, $err) = as_owner('CREATE DATABASE copied TEMPLATE new_name');
is($status, 0, 'CREATE DATABASE TEMPLATE goes through') or diag $err;
ok(running('new_name'), 'and the workers come back to the template');

# The database that the command is given in, as createdb -T of the one that it connects to does.
$status = $node->psql('new_name', 'CREATE DATABASE inside TEMPLATE new_name', stderr => \$err, extra_params => [ '-U', 'owner' ]);
is($status, 0, 'CREATE DATABASE goes through with the database that it is given in as the template') or diag $err;
ok(running('new_name'), 'and the workers come back to it');

my $space = $node->basedir . '/space';
mkdir $space or die "$space: $!";
$node->safe_psql('postgres', "CREATE TABLESPACE space LOCATION '$space'");
$node->safe_psql('postgres', 'GRANT CREATE ON TABLESPACE space TO owner');
($status, $err) = as_owner('ALTER DATABASE new_name SET TABLESPACE space');
is($status, 0, 'ALTER DATABASE SET TABLESPACE goes through') or diag $err;
ok(running('new_name'), 'and the workers come back');

# A stranger's command fails by itself, and must not have sent the workers away.
my $pid = $node->safe_psql('postgres',
	"SELECT pid FROM pg_stat_activity WHERE datname = 'new_name' AND wait_event = 'PgSleep'");
$node->safe_psql('postgres', 'CREATE ROLE stranger LOGIN');
for my $command ('DROP DATABASE new_name', 'ALTER DATABASE new_name RENAME TO mine')
{
	my $err;
	$node->psql('postgres', $command, stderr => \$err, extra_params => [ '-U', 'stranger' ]);
	like($err, qr/must be owner/, "$command fails for a stranger");
}
is($node->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE datname = 'new_name' AND wait_event = 'PgSleep'"),
	$pid, 'and the worker goes on with its run');

# With another session in it DROP DATABASE fails; then the workers come back.
my $session = $node->background_psql('new_name');
($status, $err) = as_owner('DROP DATABASE new_name');
like($err, qr/is being accessed by other users/, 'DROP DATABASE fails while a session is there');
ok(running('new_name'), 'and the workers come back after it');
$session->quit;

# A database that is a template only since its worker came: who may create databases may copy it.
$node->safe_psql('postgres', 'ALTER DATABASE new_name IS_TEMPLATE true; CREATE ROLE creator LOGIN CREATEDB');
$status = $node->psql('postgres', 'CREATE DATABASE by_stranger TEMPLATE new_name', stderr => \$err, extra_params => [ '-U', 'creator' ]);
is($status, 0, 'CREATE DATABASE from a template goes through for who does not own it') or diag $err;

# Templates are not served. Who makes one an ordinary database need not restart: the first call there tells of it.
$node->safe_psql('new_name', q{
	CREATE TABLE noted (id text);
	SELECT gt_handler_create('template', 'sql', 'INSERT INTO public.noted VALUES ($1)');
	SELECT gt_release(gt_lease_create('t', cleanup => 'template'))});
$node->restart;
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE datname = 'new_name'}), '0', 'no worker comes to a template');
is($node->safe_psql('new_name', 'SELECT count(*) FROM noted'), '0', 'where nothing is cleaned');
$node->safe_psql('postgres', 'ALTER DATABASE new_name IS_TEMPLATE false');
$node->safe_psql('new_name', 'SELECT count(*) FROM gt_lease_list()');
ok($node->poll_query_until('new_name', 'SELECT count(*) = 1 FROM noted'), 'a call that only reads brings the workers there');
ok(running('new_name'), 'all of them');

# DROP EXTENSION cancels what runs, and is not charged for it.
my $log = -s $node->logfile;
my $objects = $node->safe_psql('new_name', q{CREATE TABLE kept (id int PRIMARY KEY, at timestamptz); SELECT gt_ttl_create('kept', 'at', create_index => true) \g /dev/null
	SELECT count(*) FROM (SELECT object_id FROM gt_garbage UNION SELECT object_id FROM gt_leases) AS objects});
is($node->psql('new_name', 'DROP EXTENSION garbagetruck CASCADE', stderr => \$err), 0, 'DROP EXTENSION goes through while a handler runs');
like($err, qr/NOTICE: +forgotten: $objects objects .* of 1 tables.*stay as they are/s, 'and says what is left behind');
ok($node->poll_query_until('postgres', q{
	SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = 'new_name' AND backend_type LIKE 'garbagetruck%')}),
	'no worker stays');
unlike(slurp_file($node->logfile, $log), qr/PANIC|XX000|TRAP/, 'and nothing went wrong in the log');
$node->safe_psql('new_name', q{
	CREATE EXTENSION garbagetruck;
	CREATE TABLE seen (id text);
	SELECT gt_handler_create('note', 'sql', 'INSERT INTO public.seen VALUES ($1)');
	SELECT gt_release(gt_lease_create('b', cleanup => 'note'));
});
ok($node->poll_query_until('new_name', 'SELECT count(*) = 1 FROM seen'), 'CREATE EXTENSION brings the workers back');

# Many databases, few workers: each gets its turn.
$node->safe_psql('postgres', 'ALTER SYSTEM SET garbagetruck.max_workers = 2');
$node->reload;
my @names = map { "many$_" } 1 .. 6;
for my $name (@names)
{
	$node->safe_psql('postgres', "CREATE DATABASE $name");
	$node->safe_psql($name, q{
		CREATE EXTENSION garbagetruck;
		CREATE TABLE seen (id text);
		SELECT gt_handler_create('note', 'sql', 'INSERT INTO public.seen VALUES ($1)');
	});
}
$node->safe_psql($_, q{SELECT count(gt_lease_create(i::text, duration => '200 ms', cleanup => 'note'))
	FROM generate_series(1, 50) i}) for @names;
for my $name (@names)
{
	ok($node->poll_query_until($name, 'SELECT count(*) = 50 AND count(DISTINCT id) = 50 FROM seen'),
		"$name is served by one of two workers");
}

# Who has renamed databases, in a transaction that stays open, keeps everybody from connecting to them; but no worker waits
# for him in a slot that others need.
$session = $node->background_psql('postgres');
$session->query_safe('BEGIN; ALTER DATABASE many1 RENAME TO many_1; ALTER DATABASE many2 RENAME TO many_2');
$node->safe_psql('many3', q{SELECT gt_release(gt_lease_create('beside', cleanup => 'note'))});
ok($node->poll_query_until('many3', q{SELECT count(*) = 1 FROM seen WHERE id = 'beside'}), 'a database is served while others are being renamed');
$session->query_safe('ROLLBACK');
$session->quit;
$node->safe_psql('many1', q{SELECT gt_release(gt_lease_create('after', cleanup => 'note'))});
ok($node->poll_query_until('many1', q{SELECT count(*) = 1 FROM seen WHERE id = 'after'}), 'and so are those afterwards');

# Workers leave a database that lets nobody in any more, or has become a template, whatever is left to do there.
$node->safe_psql('many4', q{SELECT gt_handler_create('endless', 'sql', 'SELECT pg_sleep(0.1)');
	SELECT gt_release_many(gt_lease_create_many(ARRAY(SELECT 'endless ' || i FROM generate_series(1, 5000) i), cleanup => 'endless'))});
for my $option ('ALLOW_CONNECTIONS false', 'IS_TEMPLATE true')
{
	ok(running('many4'), 'there is much to do');
	$node->safe_psql('postgres', "ALTER DATABASE many4 $option");
	ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'many4'}), "$option: the workers leave");
	$node->safe_psql('postgres', 'ALTER DATABASE many4 ALLOW_CONNECTIONS true');
	$node->reload;
}
$node->safe_psql('postgres', 'ALTER DATABASE many4 IS_TEMPLATE false');
$node->safe_psql('postgres', 'DROP DATABASE many4');

# The handlers of a database in another encoding are shown as far as they can be.
$node->safe_psql('postgres', "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'; CREATE DATABASE unicode TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'");
$node->safe_psql($_, 'CREATE EXTENSION garbagetruck') for 'latin', 'unicode';
$node->safe_psql('latin', q{
	SELECT gt_handler_create('caf' || chr(233), 'sql', 'SELECT pg_sleep(600)', timeout => '1 h');
	SELECT gt_release(gt_lease_create('a', cleanup => 'caf' || chr(233)))});
ok($node->poll_query_until('unicode', q{SELECT count(*) = 1 FROM gt_workers WHERE handler = 'caf?' AND length(handler) = 4}), 'a name in another encoding');
is($node->safe_psql('unicode', q{SELECT count(*) FROM pg_stat_activity WHERE convert_from(convert_to(query, 'UTF8'), 'UTF8') LIKE '%handler "caf?"%' AND pid <> pg_backend_pid()}), '1', 'and in pg_stat_activity');
$node->safe_psql('latin', 'DROP EXTENSION garbagetruck');

# After a crash of the server each is learnt again, though nobody calls anything there.
$node->safe_psql($_, q{SELECT count(gt_lease_create('x' || i, duration => '500 ms', cleanup => 'note'))
	FROM generate_series(1, 5) i}) for @names[ 0, 1 ];
$node->append_conf('postgresql.conf', "garbagetruck.restart_grace = '100ms'");
$node->stop('immediate');
$node->start;
ok($node->poll_query_until($_, q{SELECT count(DISTINCT id) = 55 FROM seen WHERE id NOT IN ('beside', 'after')}), "$_ is served after a restart")
  for @names[ 0, 1 ];

$node->stop;
done_testing();
