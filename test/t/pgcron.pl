# pg_cron as the workers of a server that does not preload the library: it calls gt_reclaim().
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->start;
if ($node->safe_psql('postgres', q{SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_cron'}) eq '0')
{
	$node->stop;
	plan skip_all => 'pg_cron is not installed';
}
my $host = $node->host;
$node->append_conf('postgresql.conf', <<"EOC");
shared_preload_libraries = 'pg_cron'
cron.database_name = 'postgres'
cron.host = '$host'
EOC
$node->restart;

$node->safe_psql('postgres', q{
	CREATE EXTENSION pg_cron;
	CREATE EXTENSION garbagetruck;
	CREATE TABLE cleaned (id text);
	SELECT gt_handler_create('note', 'sql', 'INSERT INTO cleaned VALUES ($1)');
	SELECT gt_lease_create('o' || i, duration => '1 s', cleanup => 'note') FROM generate_series(1, 2500) i;
	SELECT gt_lease_create('long', duration => '1 hour', cleanup => 'note');
	SELECT cron.schedule('garbagetruck', '* * * * *', 'CALL gt_reclaim()');
	UPDATE cron.job SET nodeport = current_setting('port')::int;
});
is($node->safe_psql('postgres', q{SELECT bool_and(ok) FROM gt_health() WHERE check_name = 'preloaded'}), 'f', 'the library is not preloaded');

# The job starts with the next minute.
my $done = 0;
for (1 .. 150)
{
	$done = $node->safe_psql('postgres', 'SELECT count(*) = 2500 FROM cleaned') eq 't';
	last if $done;
	sleep 1;
}
ok($done, 'the job of pg_cron ends what is over, and cleans it')
  or diag $node->safe_psql('postgres', 'SELECT status, return_message FROM cron.job_run_details');
is($node->safe_psql('postgres', 'SELECT count(DISTINCT id) FROM cleaned'), '2500', 'each once');
is($node->safe_psql('postgres', q{SELECT string_agg(object_id, ' ') FROM gt_leases}), 'long', 'and nothing else');

$node->stop;
done_testing();
