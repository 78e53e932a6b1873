# On a standby nothing runs and readers see lower bounds; after promotion all of it starts by itself, with the grace.
use strict;
use warnings;
use GarbageTruck;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', <<'EOC');
shared_preload_libraries = 'garbagetruck'
garbagetruck.naptime = '1h'
garbagetruck.restart_grace = '2s'
EOC
$primary->start;
$primary->safe_psql('postgres', q{
	CREATE EXTENSION garbagetruck;
	CREATE TABLE cleaned (id text, at timestamptz DEFAULT gt_clock());
	SELECT gt_handler_create('note', 'sql', 'INSERT INTO cleaned VALUES ($1)');
});
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

my $long = $primary->safe_psql('postgres', q{SELECT gt_lease_create('long', duration => '1 hour', cleanup => 'note')});
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));

# Reading works, writing says why not.
is($standby->safe_psql('postgres', "SELECT object_id, state FROM gt_lease_get('$long')"), 'long|active', 'gt_lease_get on a standby');
is($standby->safe_psql('postgres', "SELECT count(*) FROM gt_lease_list()"), '1', 'gt_lease_list on a standby');
is($standby->safe_psql('postgres', "SELECT count(*) FROM gt_leases"), '1', 'gt_leases on a standby');
for my $call ("gt_lease_create('x')", "gt_renew('$long')", "gt_release('$long')", "gt_lease_update('$long', '{}')",
	"gt_fence_check('long', 'custom', 1)", "gt_pause()", "gt_claim()", "gt_ack(1, 1)")
{
	my $err;
	$standby->psql('postgres', "\\set VERBOSITY verbose\nSELECT $call", stderr => \$err);
	like($err, qr/25006/, "$call: 25006 on a standby");
}
is($standby->safe_psql('postgres', 'SELECT count(*) > 5 FROM gt_health()'), 't', 'gt_health on a standby');
is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'garbagetruck%'}),
	'0', 'no worker and no launcher on a standby');

# Who holds back there what is vacuumed here is told of here.
$standby->append_conf('postgresql.conf', "hot_standby_feedback = on\nwal_receiver_status_interval = 1");
$standby->reload;
my $reader = in_background($standby, 'postgres', 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1; SELECT pg_sleep(1000)');
ok($primary->poll_query_until('postgres', 'SELECT backend_xmin IS NOT NULL FROM pg_stat_replication'), 'the standby tells what it needs');
my $xids = q{
	CREATE TABLE IF NOT EXISTS xids (i int);
	DO $$ BEGIN
		FOR i IN 1 .. 10010 LOOP
			BEGIN INSERT INTO xids VALUES (i); EXCEPTION WHEN division_by_zero THEN NULL; END;
		END LOOP;
	END $$};
$primary->safe_psql('postgres', $xids);
my $held = q{SELECT detail || ' -> ' || remedy FROM gt_health() WHERE check_name = 'snapshots' AND NOT ok};
like($primary->safe_psql('postgres', $held), qr/dead rows are not removed: standby 'standby' by hot_standby_feedback.*pg_stat_replication/, 'a snapshot of a standby is told of');
$standby->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(1000)%' AND pid <> pg_backend_pid()});
eval { finish_background($reader) };
ok($primary->poll_query_until('postgres', q{SELECT bool_and(ok) FROM gt_health() WHERE check_name = 'snapshots'}), 'until it is over');

# And what the slot of a standby that is gone holds back for ever.
$primary->safe_psql('postgres', q{SELECT pg_create_physical_replication_slot('abandoned')});
$standby->append_conf('postgresql.conf', q{primary_slot_name = 'abandoned'});
$standby->reload;
ok($primary->poll_query_until('postgres', 'SELECT xmin IS NOT NULL FROM pg_replication_slots'), 'a slot keeps what its standby needs');
$standby->stop('immediate');
$primary->poll_query_until('postgres', 'SELECT NOT active FROM pg_replication_slots') or die 'the slot is in use';
$primary->safe_psql('postgres', $xids);
like($primary->safe_psql('postgres', $held), qr/dead rows are not removed: replication slot 'abandoned', which nobody uses -> SELECT pg_catalog.pg_drop_replication_slot/, 'which is told of when that is gone');
$primary->safe_psql('postgres', q{SELECT remedy FROM gt_health() WHERE check_name = 'snapshots' AND NOT ok \gexec});
ok($primary->poll_query_until('postgres', q{SELECT bool_and(ok) FROM gt_health() WHERE check_name = 'snapshots'}), 'until the remedy has run');
$standby->append_conf('postgresql.conf', q{primary_slot_name = ''});
$standby->start;

# Leases whose deadline passes while the primary dies and the standby takes over.
$primary->safe_psql('postgres', q{SELECT gt_lease_create('s' || i, duration => '3 s', cleanup => 'note') FROM generate_series(1, 20) i});
$primary->safe_psql('postgres', q{CREATE TABLE deadline AS SELECT object_id, expires_at FROM gt_leases});
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
my $fence = $primary->safe_psql('postgres', q{SELECT max(fence) FROM gt_leases});
$primary->stop('immediate');
$standby->promote;
ok($standby->poll_query_until('postgres', 'SELECT count(DISTINCT id) = 20 FROM cleaned'), 'after promotion the dead are cleaned');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM cleaned'), '20', 'each once');
is($standby->safe_psql('postgres', q{
	SELECT count(*) FROM cleaned c JOIN deadline d ON d.object_id = c.id, _garbagetruck.gt__start s
	WHERE c.at < greatest(d.expires_at, s.started_at + interval '2 s')}), '0', 'none before its deadline and the grace');
is($standby->safe_psql('postgres', "SELECT state FROM gt_lease_get('$long')"), 'active', 'what runs longer runs on');
is($standby->safe_psql('postgres', "SELECT gt_renew('$long') >= (SELECT expires_at FROM deadline WHERE object_id = 'long')"),
	't', 'and can be renewed, never shortened');
is($standby->safe_psql('postgres', "SELECT fence > $fence FROM gt_lease_grant('s1')"), 't', 'fences have grown across the promotion');
is($standby->safe_psql('postgres', q{SELECT ok FROM gt_health() WHERE check_name = 'place'}), 't', 'a promoted standby is not a copy');

$standby->stop;
done_testing();
