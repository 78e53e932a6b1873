# Behind PgBouncer in transaction mode: no client call keeps session state, takes session locks or listens, so leases
# are created, renewed and released by whatever server connection is free.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my ($program) = grep { -x } map { "$_/pgbouncer" } '/usr/sbin', '/usr/bin', split /:/, $ENV{PATH};
plan skip_all => 'PgBouncer is not installed' unless $program;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'garbagetruck'\ngarbagetruck.naptime = '1h'");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION garbagetruck;
	CREATE TABLE cleaned (id text);
	SELECT gt_handler_create('note', 'sql', 'INSERT INTO cleaned VALUES ($1)');
	SELECT gt_handler_create('work', 'queue');
});

# One server connection per client would hide state; two for eight clients do not.
my $port = PostgreSQL::Test::Cluster::get_free_port();
my $dir = $node->basedir;
my $user = $node->safe_psql('postgres', 'SELECT current_user');
append_to_file("$dir/users", qq{"$user" ""\n});
append_to_file("$dir/pgbouncer.ini", join "\n", '[databases]', 'postgres = host=' . $node->host . ' port=' . $node->port,
	'[pgbouncer]', 'pool_mode = transaction', 'default_pool_size = 2', 'max_client_conn = 50', 'listen_addr =',
	"listen_port = $port", 'unix_socket_dir = ' . $node->host, 'auth_type = trust', "auth_file = $dir/users", "pidfile = $dir/pgbouncer.pid",
	"logfile = $dir/pgbouncer.log", 'ignore_startup_parameters = extra_float_digits,options', '');
$node->run_log([ $program, '-q', '-d', "$dir/pgbouncer.ini" ]) or die 'could not start pgbouncer';
END
{
	local $?;
	kill 'INT', slurp_file("$dir/pgbouncer.pid") + 0 if defined $dir && -e "$dir/pgbouncer.pid";
}

my $through = 'host=' . $node->host . " port=$port dbname=postgres user=$user";

sub ask
{
	my ($sql) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'psql', '-X', '-A', '-t', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $through, '-c', $sql ],
		'<', \undef, '>', \$out, '2>', \$err) or diag $err;
	chomp $out;
	return $out;
}

# Newer ones let go of who has started them before they listen.
my $answer = '';
for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	last if ($answer = ask('SELECT 1')) eq '1';
	usleep(100_000);
}
is($answer, '1', 'PgBouncer answers');
my $lease = ask(q{SELECT gt_lease_create('a', service_id => 'web', duration => '1 hour', cleanup => 'note')});
is(ask("SELECT gt_renew('$lease') > gt_clock()"), 't', 'a lease is renewed through another client connection');
is(ask("SELECT state FROM gt_lease_get('$lease')"), 'active', 'and read');
is(ask("SELECT gt_release('$lease')"), 't', 'and released');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM cleaned WHERE id = 'a'}), 'and its object cleaned');

# Eight clients at once on two server connections: transactions with several calls, and single ones.
my $script = "$dir/clients.sql";
append_to_file($script, <<'EOS');
\set n random(1, 1000000000)
BEGIN;
SELECT gt_lease_create('b' || :n || '-' || :client_id, duration => '1 hour', cleanup => 'note') AS lease \gset
SELECT gt_fence(':lease');
COMMIT;
SELECT gt_renew(':lease');
SELECT count(*) FROM gt_renew_many(ARRAY[':lease'::uuid]);
SELECT gt_release(':lease');
EOS
$node->command_ok([ 'pgbench', '-n', '-c', '8', '-j', '2', '-t', '50', '-M', 'simple', '-f', $script, $through ],
	'eight clients create, renew and release through two connections');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 400 AND count(DISTINCT id) = 400 FROM cleaned WHERE id LIKE 'b%'}),
	'all of their objects are cleaned, each once');

ask(q{SELECT gt_release(gt_lease_create('c' || i, cleanup => 'work')) FROM generate_series(1, 20) i});
is(ask('SELECT count(*) FROM (SELECT gt_ack(cleanup_id, attempt) AS ok FROM gt_claim(max_items => 20)) c WHERE ok'), '20',
	'claims are acknowledged through it');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'}), '0', 'no session lock is left');
is(ask('SELECT count(*) FROM pg_listening_channels()'), '0', 'and nobody listens');

$node->stop;
done_testing();
