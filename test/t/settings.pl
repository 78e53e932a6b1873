# Settings take effect on reload: how to stop everything, how many workers, quotas; and what happens when the server
# has no worker slot to give.
use strict;
use warnings;
use GarbageTruck;
use PostgreSQL::Test::Cluster;
use Test::More;

my $node = truck('settings', 'max_worker_processes = 5', 'max_prepared_transactions = 2');
set_up($node);

# the two ways to stop the workers by a setting
for my $off ([ 'garbagetruck.max_workers', '0', '4' ], [ 'garbagetruck.databases', '', '*' ])
{
	my ($setting, $none, $some) = @$off;
	reload_and_see($node, $setting, $none);
	is(eventually($node, 'postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'garbagetruck worker%'}, '0'), '0', "$setting = '$none': the workers leave");
	$node->safe_psql('postgres', "SELECT gt_release(gt_lease_create('$setting', cleanup => 'clean'))");
	$node->safe_psql('postgres', 'SELECT pg_sleep(1)');
	is($node->safe_psql('postgres', "SELECT count(*) FROM cleaned WHERE id = '$setting'"), '0', 'and nothing is cleaned');
	reload_and_see($node, $setting, $some);
	ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM cleaned WHERE id = '$setting'"), 'they come back by themselves');
}
# and by SQL
$node->safe_psql('postgres', q{SELECT gt_pause()});
$node->safe_psql('postgres', q{SELECT gt_release(gt_lease_create('paused', cleanup => 'clean'))});
is($node->safe_psql('postgres', q{SELECT ok FROM gt_health() WHERE check_name = 'paused'}), 'f', 'gt_health tells of a paused database');
$node->safe_psql('postgres', q{SELECT gt_resume()});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM cleaned WHERE id = 'paused'}), 'gt_resume wakes the workers');

# a database that is not in the list
$node->safe_psql('postgres', 'CREATE DATABASE other');
set_up($node, 'other');
reload_and_see($node, 'garbagetruck.databases', 'other');
is(eventually($node, 'postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'garbagetruck worker%' AND datname = 'postgres'}, '0'), '0', 'workers leave a database that is not listed any more');
$node->safe_psql('postgres', q{SELECT gt_release(gt_lease_create('not listed', cleanup => 'clean'))});
$node->safe_psql('other', q{SELECT gt_release(gt_lease_create('listed', cleanup => 'clean'))});
cleaned($node, 'other', 'listed', 'garbagetruck.databases names those that are served');
is($node->safe_psql('postgres', q{SELECT count(*) FROM cleaned WHERE id = 'not listed'}), '0', 'and the others are not');
reload_and_see($node, 'garbagetruck.databases', 'other, nowhere');
is($node->safe_psql('postgres', q{SELECT string_agg(ok::text, ' ') FROM gt_health() WHERE check_name = 'settings' AND detail ~ '"nowhere"'}), 'false', 'gt_health tells of a database that does not exist');
# each row is a remedy that runs as it stands, and does no more than is needed
$node->safe_psql('postgres', $_) for split /\n/, $node->safe_psql('postgres', q{SELECT remedy FROM gt_health() WHERE check_name = 'workers'});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM cleaned WHERE id = 'not listed'}), 'until they are');
is($node->safe_psql('postgres', 'SHOW garbagetruck.databases'), 'other, nowhere, postgres', 'by the remedy, which adds the database to the list');
reload_and_see($node, 'garbagetruck.databases', '*');

# in a schema that is not in the search_path the remedies name it
$node->safe_psql('postgres', 'CREATE DATABASE elsewhere');
$node->safe_psql('elsewhere', 'CREATE SCHEMA "gt x"; CREATE EXTENSION garbagetruck SCHEMA "gt x"; SELECT "gt x".gt_pause()');
$node->safe_psql('elsewhere', $node->safe_psql('elsewhere', q{SELECT remedy FROM "gt x".gt_health() WHERE check_name = 'paused'}));
is($node->safe_psql('elsewhere', q{SELECT ok FROM "gt x".gt_health() WHERE check_name = 'paused'}), 't', 'in another schema the remedy runs, too');

# settings that contradict each other
reload_and_see($node, 'garbagetruck.min_lease_duration', '1h');
is($node->safe_psql('postgres', q{SELECT ok FROM gt_health() WHERE check_name = 'settings' LIMIT 1}), 'f', 'a default that is not allowed is told of');
reload_and_see($node, 'garbagetruck.max_lease_duration', '1s');
like($node->safe_psql('postgres', q{SELECT detail FROM gt_health() WHERE check_name = 'settings' LIMIT 1}), qr/min_lease_duration .* is longer than max_lease_duration/, 'so is a range that is none');
$node->psql('postgres', q{SELECT gt_lease_create('none', duration => '10 s')}, stderr => \my $none);
like($none, qr/no duration is allowed/, 'and the error says so');
is($node->safe_psql('postgres', q{SELECT value FROM gt_metrics() WHERE name = 'garbagetruck_health' AND labels ->> 'check' = 'settings'}), '0', 'and the metric');
reload_and_see($node, 'garbagetruck.max_lease_duration', '30d');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET garbagetruck.min_lease_duration');
$node->reload;

# a list that cannot be read is refused, and the one before stays
my ($out, $err);
$node->psql('postgres', q{ALTER SYSTEM SET garbagetruck.databases = 'postgres,,other'}, stdout => \$out, stderr => \$err);
like($err, qr/invalid value for parameter "garbagetruck.databases"/, 'a list that cannot be read is refused');

# the history is trimmed when its time has come, though nothing else happens
$node->safe_psql('postgres', q{
	SELECT gt_handler_create('fails', 'sql', 'SELECT 1/0 FROM cleaned', max_attempts => 1);
	SELECT gt_release(gt_lease_create('trimmed', cleanup => 'fails'))});
ok($node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM gt_history WHERE object_id = 'trimmed'}), 'there is a history');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'garbagetruck worker%'}), 'the workers leave');
is($node->safe_psql('postgres', q{SELECT next_due_at > gt_clock() + interval '6 days 23 hours' FROM gt_workers WHERE role = 'launcher'}), 't',
	'nothing is due before the history wants to be trimmed');

# one worker for many databases
reload_and_see($node, 'garbagetruck.max_workers', '1');
is($node->safe_psql('postgres', q{SELECT bool_and(ok) FROM gt_health() WHERE check_name = 'workers'}), 'f', 'gt_health tells that one worker is too few');
for my $n (1 .. 4)
{
	$node->safe_psql('postgres', "CREATE DATABASE many$n");
	set_up($node, "many$n");
	$node->safe_psql("many$n", q{SELECT gt_release(gt_lease_create('a', cleanup => 'clean'))});
}
cleaned($node, "many$_", 'a', "database $_ of four with one worker") for 1 .. 4;
reload_and_see($node, 'garbagetruck.max_workers', '4');

# quota: per creating role and service; children count, what has ended does not
reload_and_see($node, 'garbagetruck.max_leases_per_service', '3');
is($node->safe_psql('postgres', q{
	SELECT sqlstate FROM gt_lease_grant_each((SELECT jsonb_agg(jsonb_build_object('object_id', 'quota ' || n, 'service_id', 'q')) FROM generate_series(1, 4) n)) ORDER BY n}),
	"00000\n00000\n00000\nGT006", 'the fourth lease of a service is one too many');
is($node->safe_psql('postgres', q{SELECT sqlstate FROM gt_lease_grant_each('[{"object_id": "quota 5", "service_id": "q2"}]')}), '00000', 'of another service it is not');
$node->safe_psql('postgres', q{SELECT gt_release(lease_id) FROM gt_lease_list(service_id => 'q', max_rows => 1)});
is($node->safe_psql('postgres', q{SELECT sqlstate FROM gt_lease_grant_each('[{"object_id": "quota 6", "service_id": "q"}]')}), '00000', 'nor after a release');
$node->psql('postgres', q{SELECT gt_lease_create_many(ARRAY['q1', 'q2', 'q3', 'q4'], service_id => 'q3')}, stdout => \$out, stderr => \$err);
like($err, qr/"q3"/, 'the error names the service');
is($node->safe_psql('postgres', q{SELECT count(*) FROM gt_lease_list(service_id => 'q3')}), '0', 'and gt_lease_create_many is all or nothing');
my $parent = $node->safe_psql('postgres', q{SELECT gt_lease_create('quota 7', service_id => 'q4')});
is($node->safe_psql('postgres', qq{
	SELECT sqlstate FROM gt_lease_grant_each((SELECT jsonb_agg(jsonb_build_object('object_id', 'quota 8 ' || n, 'service_id', 'q4', 'parent', '$parent')) FROM generate_series(1, 3) n)) ORDER BY n}),
	"00000\n00000\nGT006", 'children count');
# whatever its OID is
$node->safe_psql('postgres', q{CREATE ROLE high; SET allow_system_table_mods = on; UPDATE pg_authid SET oid = 4294967000 WHERE rolname = 'high'});
is($node->safe_psql('postgres', q{SELECT gt_allow('high'); SET ROLE high;
	SELECT gt_lease_create('high ' || n, service_id => 'q5') IS NOT NULL FROM generate_series(1, 3) n;
	SELECT sqlstate FROM gt_lease_grant_each('[{"object_id": "high 4", "service_id": "q5"}]')}), "\nt\nt\nt\nGT006", 'of a role with a high OID, too');
# what it costs does not grow with what there is; what is undone, released, expired or prepared counts as it should
reload_and_see($node, 'garbagetruck.max_leases_per_service', '2000');
$node->safe_psql('postgres', q{SELECT gt_lease_create_many(ARRAY(SELECT 'much ' || n FROM generate_series(1, 1990) n), service_id => 'q6')});
my $looks = q{pg_stat_get_xact_tuples_returned('_garbagetruck.gt_lease_service'::regclass)};
my $create = q{count(gt_lease_create('more ' || random(), service_id => 'q6')) FROM generate_series(1, %d)};
my $full = q{SELECT sqlstate FROM gt_lease_grant_each('[{"object_id": "too much", "service_id": "q6"}]')};
my @counted = split /\n/, $node->safe_psql('postgres', "BEGIN; SELECT $looks; SELECT " . sprintf($create, 4) . "; SELECT $looks; COMMIT");
cmp_ok($counted[2] - $counted[0], '<', 100, 'four leases more of 1990: they are not counted each time');
is($node->safe_psql('postgres', 'BEGIN; SAVEPOINT s; SELECT ' . sprintf($create, 6) . "; $full; ROLLBACK TO s; SELECT " . sprintf($create, 6) . "; $full; COMMIT; $full"),
	"6\nGT006\n6\nGT006\nGT006", 'what a savepoint takes back does not count');
is($node->safe_psql('postgres', "BEGIN; SELECT count(*) FROM gt_lease_list(service_id => 'q6', max_rows => 3) l, gt_release(l.lease_id) r WHERE r; ROLLBACK; $full"),
	"3\nGT006", 'nor what is rolled back');
is($node->safe_psql('postgres', "SELECT count(*) FROM gt_lease_list(service_id => 'q6', max_rows => 3) l, gt_release(l.lease_id) r WHERE r; SELECT " . sprintf($create, 2) .
	"; SELECT gt_lease_create('short', service_id => 'q6', duration => '100 ms') IS NOT NULL; $full"), "3\n2\nt\nGT006", 'three that are released make room for three');
is(eventually($node, 'postgres', $full, '00000'), '00000', 'one that expires for one');
is($node->safe_psql('postgres', "$full; SELECT count(*) FROM gt_lease_list(service_id => 'q6', max_rows => 2) l, gt_release(l.lease_id) r WHERE r; BEGIN; SELECT " . sprintf($create, 2) .
	"; PREPARE TRANSACTION 'q6'; $full; ROLLBACK PREPARED 'q6'"), "GT006\n2\n2\nGT006", 'what is prepared counts');
is(eventually($node, 'postgres', $full, '00000'), '00000', 'until it is undone');
reload_and_see($node, 'garbagetruck.max_leases_per_service', '0');

# regrant_delay: after an expiry no exclusive grant for that long; after a release at once
reload_and_see($node, 'garbagetruck.regrant_delay', '1h');
$node->safe_psql('postgres', q{SELECT gt_lease_create('lock', exclusive => true, duration => '1 ms')});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM gt_leases WHERE object_id = 'lock'}), 'an exclusive lease expires');
is($node->safe_psql('postgres', q{SELECT sqlstate FROM gt_lease_grant_each('[{"object_id": "lock", "exclusive": true}]')}), 'GT005', 'no exclusive grant within regrant_delay');
is($node->safe_psql('postgres', q{SELECT sqlstate FROM gt_lease_grant_each('[{"object_id": "lock"}]')}), '00000', 'another one is granted');
$node->safe_psql('postgres', q{SELECT gt_release(gt_lease_create('lock 2', exclusive => true))});
is($node->safe_psql('postgres', q{SELECT sqlstate FROM gt_lease_grant_each('[{"object_id": "lock 2", "exclusive": true}]')}), '00000', 'after a release it is granted at once');
reload_and_see($node, 'garbagetruck.regrant_delay', '0');

# durations
reload_and_see($node, 'garbagetruck.default_lease_duration', '7min');
reload_and_see($node, 'garbagetruck.max_lease_duration', '1h');
is($node->safe_psql('postgres', q{SELECT ttl = '7 minutes' FROM gt_lease_grant('default')}), 't', 'default_lease_duration');
$node->psql('postgres', q{SELECT gt_lease_create('too long', duration => '2 hours')}, stdout => \$out, stderr => \$err);
like($err, qr/2 hours|02:00:00/, 'max_lease_duration, and the error names the value');

# no worker slot is free: it is said, and work goes on when there is one
$node->safe_psql('postgres', q{ALTER SYSTEM SET max_worker_processes = 2});
$node->restart;
# the first to look at the metrics counts, and looks at no object for that which is no garbage
my @looked = map { (split /\n/, $node->safe_psql('postgres', q{BEGIN; SELECT count(*) FROM gt_metrics();
	SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_all_tables WHERE relname = 'gt_object'; COMMIT}))[1] } 1 .. 2;
cmp_ok($looked[0] - $looked[1], '<', 1000, 'the gauges have their start');
my $missing = $node->safe_psql('postgres', q{SELECT setting FROM pg_settings WHERE name = 'max_worker_processes'});
$node->safe_psql('postgres', q{SELECT gt_release(gt_lease_create('no slot', cleanup => 'clean'))});
ok($node->poll_query_until('postgres', q{SELECT value > 0 FROM gt_metrics() WHERE name LIKE '%worker_slots_missing_total'}), 'a missing worker slot is counted')
	if $missing == 2;
is($node->safe_psql('postgres', q{SELECT bool_and(ok) FROM gt_health() WHERE check_name = 'slots'}), 'f', 'gt_health tells of it');
$node->safe_psql('postgres', q{SELECT remedy FROM gt_health() WHERE check_name = 'slots' AND remedy !~ '^--' \gexec});
$node->restart;
is($node->safe_psql('postgres', q{SELECT bool_and(ok) FROM gt_health() WHERE check_name = 'slots'}), 't', 'until its remedies have run');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM cleaned WHERE id = 'no slot'}), 'with a slot it is cleaned');

# The server has one for us, and a database that always has something to do has it: another gets it in its turn.
$node->safe_psql('postgres', q{ALTER SYSTEM SET max_worker_processes = 3});
$node->restart;
$node->safe_psql('template1', 'CREATE DATABASE second');
set_up($node, 'second');
$node->safe_psql('postgres', q{SELECT gt_handler_create('endless', 'sql', 'SELECT pg_sleep(0.1)');
	SELECT gt_release_many(gt_lease_create_many(ARRAY(SELECT 'endless ' || i FROM generate_series(1, 5000) i), cleanup => 'endless'))});
for my $turn (1 .. 3)
{
	ok($node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM gt_workers WHERE handler = 'endless'}), "$turn: there is much to do");
	$node->safe_psql('second', "SELECT gt_release(gt_lease_create('$turn', cleanup => 'clean'))");
	ok($node->poll_query_until('second', "SELECT count(*) = 1 FROM cleaned WHERE id = '$turn'"), "$turn: and in another database, too");
}

$node->stop;
done_testing();
