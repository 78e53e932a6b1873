# What a DBA finds at night, made anew: gt_health() and the metric name it, and the remedies, pasted as they stand, end it.
# Others have a program of their own: disks that are full, kills, clocks that are set, snapshots (machine.pl), clocks that were
# wrong (clock.pl), crashes and whom they are charged to (faults/blame.pl), workers that wait for a lock, and what they fail at
# (health.pl), tables that others have put something on (tables.pl), restores (copies.pl).
use strict;
use warnings;
use File::Copy qw(copy);
use GarbageTruck;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = truck('incidents', "garbagetruck.history = 'all'", 'autovacuum = off');
set_up($node);
$node->safe_psql('postgres', q{
	CREATE TABLE broken (is_mended boolean);
	CREATE FUNCTION break_or_clean(id text) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		IF NOT EXISTS (SELECT FROM broken) THEN RAISE 'it is broken'; END IF;
		INSERT INTO cleaned (id) VALUES (id);
	END $$;
	SELECT gt_handler_create('broken', 'sql', 'SELECT break_or_clean($1)', max_attempts => 1);
	SELECT gt_handler_create('polled', 'queue')});

# The rows of a check that are not ok.
sub wrong
{
	my ($db, $check, $what) = @_;
	return $node->safe_psql($db, "SELECT $what FROM gt_health() WHERE check_name = '$check' AND NOT ok");
}

# It is told of by this check and its metric, in these words, and over once its remedies have run.
sub remedied
{
	my ($name, $check, $words, $db) = @_;
	$db //= 'postgres';
	ok($node->poll_query_until($db, "SELECT count(*) > 0 FROM gt_health() WHERE check_name = '$check' AND NOT ok"), "$name: it is told of");
	like(wrong($db, $check, 'detail'), $words, "$name: in words");
	my ($known, $value) = $node->psql($db, "SELECT value FROM gt_metrics() WHERE name = 'garbagetruck_health' AND labels ->> 'check' = '$check'");
	is($value, '0', "$name: by the metric") if $known == 0;
	for my $remedy (split /\x01/, wrong($db, $check, q{string_agg(remedy, E'\001')}))
	{
		note("$name: $remedy");
		if ($remedy =~ /^-- restart the server/) { $node->restart; }
		elsif ($remedy !~ /^--/) { is($node->psql($db, $remedy), 0, "$name: $remedy"); }
	}
	ok($node->poll_query_until($db, "SELECT bool_and(ok) FROM gt_health() WHERE check_name = '$check'"), "$name: it is over");
	note(wrong($db, $check, 'detail'));
	return;
}

$node->safe_psql('postgres', 'SELECT gt_pause()');
remedied('a pause that was forgotten', 'paused', qr/paused by "/);
$node->safe_psql('postgres', q{SELECT gt_pause('clean')});
remedied('a handler that is paused', 'paused', qr/"clean"/);

for my $setting ("garbagetruck.max_workers = 0", "garbagetruck.databases = 'other, \"an other\"'")
{
	$node->safe_psql('postgres', "ALTER SYSTEM SET $setting");
	$node->reload;
	remedied($setting, 'workers', qr/garbagetruck\./);
}
$node->safe_psql('postgres', 'ALTER SYSTEM SET garbagetruck.max_workers = 1');
$node->reload;
remedied('one worker', 'capacity', qr/a slow handler stops expiry and all other handlers/);
$node->safe_psql('postgres', 'ALTER SYSTEM RESET garbagetruck.databases');
$node->safe_psql('postgres', "ALTER SYSTEM SET garbagetruck.max_lease_duration = '1h'");
$node->safe_psql('postgres', "ALTER SYSTEM SET garbagetruck.min_lease_duration = '2h'");
$node->reload;
remedied('no duration is allowed', 'settings', qr/no duration is allowed/);
$node->safe_psql('postgres', 'ALTER SYSTEM RESET garbagetruck.max_lease_duration');
$node->reload;

$node->safe_psql('postgres', q{SELECT gt_release(gt_lease_create('twice', cleanup => 'broken'))});
$node->poll_query_until('postgres', 'SELECT count(*) = 1 FROM gt_dead');
$node->safe_psql('postgres', 'INSERT INTO broken VALUES (true)');
remedied('attempts used up', 'dead', qr/used up their attempts: 1, of "broken"/);
cleaned($node, 'postgres', 'twice', 'what was dead is cleaned');

# A row that is gone, by a mistake or a restore in part.
$node->safe_psql('postgres', q{SELECT gt_handler_create('gone', 'queue'); SELECT gt_lease_create('bad', duration => '100 ms', cleanup => 'gone');
	DELETE FROM _garbagetruck.gt__handler WHERE name = 'gone';
	SELECT gt_lease_create('good', duration => '100 ms', cleanup => 'clean')});
cleaned($node, 'postgres', 'good twice', 'a handler that is missing keeps nothing else');
remedied('a handler that is missing', 'dead', qr/handler is missing: 1/);
$node->safe_psql('postgres', q{SELECT gt_lease_create('held', duration => '1 hour', cleanup => 'clean'); DELETE FROM _garbagetruck.gt_lease WHERE object_id = 'held'});
remedied('leases deleted by hand', 'consistency', qr/"held"/);
cleaned($node, 'postgres', 'good held twice', 'its object is cleaned');
$node->safe_psql('postgres', q{SELECT gt_lease_create('kept', duration => '1 hour'); TRUNCATE _garbagetruck.gt_object});
remedied('objects truncated', 'consistency', qr/"kept"/);
$node->safe_psql('postgres', 'TRUNCATE _garbagetruck.gt__place');
remedied('the place truncated', 'place', qr/Nothing tells where its objects live/);
is($node->safe_psql('postgres', q{SELECT gt_release(lease_id) FROM gt_leases WHERE object_id = 'kept'}), 't', 'the lease is as before');

# What somebody has put on our tables.
$node->safe_psql('postgres', q{CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
	CREATE TRIGGER audit AFTER INSERT ON _garbagetruck.gt_object FOR EACH ROW EXECUTE FUNCTION audit()});
like(($node->psql('postgres', q{SELECT gt_lease_create('x')}))[2], qr/audit/, 'a trigger that our writes would pass over: they fail');
remedied('a trigger on our tables', 'rights', qr/nothing is written/);
$node->safe_psql('postgres', 'CREATE ROLE nosy; GRANT INSERT ON _garbagetruck.gt_lease TO nosy');
remedied('a role that can write our tables', 'rights', qr/no handler's SQL is run/);

# Nobody claims; who does ends it.
$node->safe_psql('postgres', q{SELECT gt_release(gt_lease_create('waits', cleanup => 'polled'))});
ok($node->poll_query_until('postgres', q{SELECT detail ~ '"polled"' FROM gt_health() WHERE check_name = 'unclaimed' AND NOT ok}), 'nobody claims: it is told of');
is($node->safe_psql('postgres', q{SELECT value FROM gt_metrics() WHERE name = 'garbagetruck_health' AND labels ->> 'check' = 'unclaimed'}), '0', 'also by the metric');
is($node->safe_psql('postgres', q{SELECT gt_ack(cleanup_id, attempt) FROM gt_claim()}), 't', 'it is claimed');
ok($node->poll_query_until('postgres', q{SELECT bool_and(ok) FROM gt_health() WHERE check_name = 'unclaimed'}), 'and told of no more');

# A consumer that took the last attempt and never came back: nobody has looked since.
$node->safe_psql('postgres', q{SELECT gt_handler_create('once', 'queue', max_attempts => 1); SELECT gt_release(gt_lease_create('claimed', cleanup => 'once'));
	SELECT count(*) FROM gt_claim('{once}', visibility => '100 ms')});
ok($node->poll_query_until('postgres', q{SELECT value = 1 FROM gt_metrics() WHERE name = 'garbagetruck_dead'}), 'a last claim that lapsed counts as dead');
remedied('a last claim that lapsed', 'dead', qr/used up their attempts: 1, of "once"/);
is($node->safe_psql('postgres', q{SELECT gt_ack(cleanup_id, attempt) FROM gt_claim('{once}')}), 't', 'another consumer takes it');

# A handler that cleans what it should not: it is stopped at once, and what it has done can be looked up.
$node->safe_psql('postgres', q{SELECT gt_pause('clean'); SELECT gt_release(gt_lease_create('would be cleaned', cleanup => 'clean'))});
is($node->safe_psql('postgres', q{SELECT string_agg(object_id, ' ' ORDER BY object_id) FROM gt_history WHERE event = 'cleaned' AND handler = 'clean'}), 'good held', 'the history says what was cleaned');
remedied('and goes on', 'paused', qr/"clean"/);
cleaned($node, 'postgres', 'good held twice would be cleaned', 'with what had waited');

# Restores that leave out a table of ours. What can be made anew is; of an object whose lease is not there nobody lives.
$node->safe_psql('postgres', q{SELECT gt_lease_create('of the dump', duration => '1 hour', cleanup => 'clean')});
my %part = (gt_lease => qr/held without lease: object "of the dump"/, gt_object => qr/lease without object: object "of the dump"/,
	gt__handler => qr/missing handler: object "of the dump"/);
for my $left (sort keys %part)
{
	my ($db, $dump) = ("no_$left", $node->basedir . "/no_$left");
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, "--exclude-table-data=_garbagetruck.$left", '-d', $node->connstr('postgres') ], "a dump without $left");
	$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr($db), $dump ], 'is restored');
	remedied("without $left", 'place', qr/nothing ends and nothing is cleaned here/, $db);
	remedied("without $left", 'consistency', $part{$left}, $db) if $left ne 'gt__handler';
}
is(eventually($node, 'no_gt_lease', q{SELECT count(*) FROM cleaned WHERE id = 'of the dump'}, '1'), '1', 'without its lease the object is cleaned');
is($node->safe_psql('no_gt_object', q{SELECT gt_release(lease_id) FROM gt_leases WHERE object_id = 'of the dump'}), 't', 'without objects the lease can be released');
is(eventually($node, 'no_gt_object', q{SELECT count(*) FROM cleaned WHERE id = 'of the dump'}, '1'), '1', 'and then it is cleaned');
$node->safe_psql('no_gt__handler', 'SELECT * FROM gt_check(repair => true)');
like(wrong('no_gt__handler', 'consistency', q{detail || ' -> ' || remedy}), qr/^$part{gt__handler}.* -> -- a new lease of it/, 'without its handler it can be leased again');
$node->safe_psql('no_gt__handler', q{SELECT gt_release(lease_id) FROM gt_leases WHERE object_id = 'of the dump'});
remedied('without its handler', 'dead', qr/handler is missing: 1/, 'no_gt__handler');
ok($node->poll_query_until('no_gt__handler', q{SELECT bool_and(ok) FROM gt_health() WHERE check_name = 'consistency'}), 'or discarded when it ends');
$node->safe_psql('postgres', "DROP DATABASE no_$_") for keys %part;
$node->safe_psql('postgres', q{SELECT gt_release(lease_id, keep => true) FROM gt_leases WHERE object_id = 'of the dump'});

# An index that has lost writes (here: a copy of it from before): nobody can see that but amcheck. The way out is that of
# src/doc/operations.md. The files are found by their names, and the server does not run meanwhile.
my $file = $node->data_dir . '/' . $node->safe_psql('postgres', q{SELECT pg_relation_filepath('_garbagetruck.gt_lease_check')});
my $polled = q{SELECT count(gt_lease_create('l' || n, duration => '1 second', cleanup => 'polled')) FROM generate_series(1, 300) n};
reload_and_see($node, 'garbagetruck.max_workers', '0');
$node->stop;
copy($file, "$file.before") or die "$file: $!";
$node->start;
$node->safe_psql('postgres', $polled);
$node->stop;
copy("$file.before", $file) or die "$file: $!";
unlink "$file.before";
$node->start;
reload_and_see($node, 'garbagetruck.max_workers', '4');
is(eventually($node, 'postgres', q{SELECT count(*) FROM gt_leases WHERE state = 'expired'}, '300'), '300', 'leases that an index has lost are over, and stay');
SKIP:
{
	skip 'there is no amcheck', 1 unless $node->safe_psql('postgres', q{SELECT count(*) FROM pg_available_extensions WHERE name = 'amcheck'});
	like(($node->psql('postgres', q{CREATE EXTENSION amcheck; SELECT bt_index_check('_garbagetruck.gt_lease_check', true)}))[2], qr/lacks matching index tuple/, 'amcheck tells');
}
$node->safe_psql('postgres', 'REINDEX TABLE _garbagetruck.gt_lease');
is(eventually($node, 'postgres', q{SELECT count(*) FROM gt_leases}, '0'), '0', 'after a REINDEX the workers end them');

# A page of an index that says nothing.
$file = $node->data_dir . '/' . $node->safe_psql('postgres', q{SELECT pg_relation_filepath('_garbagetruck.gt_lease_check')});
$node->safe_psql('postgres', $polled);
$node->stop;
open my $index, '+<:raw', $file or die "$file: $!";
seek $index, 8192, 0;
print $index "\xff" x 8192;
close $index;
$node->start;
ok($node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM gt_health() WHERE NOT ok AND detail ~ 'invalid page|could not be judged'}), 'a damaged index: it is told of');
like($node->safe_psql('postgres', q{SELECT string_agg(check_name, ' ') FROM gt_health() WHERE NOT ok}), qr/errors|overdue/, 'by the checks that meet it');
my @remedies = split /\n/, $node->safe_psql('postgres', q{SELECT remedy FROM gt_health() WITH ORDINALITY WHERE NOT ok GROUP BY remedy ORDER BY min(ordinality)});
is(scalar(grep { /^REINDEX TABLE CONCURRENTLY _garbagetruck\.(gt_object|gt_lease);$/ } @remedies), 2, 'and how it is mended') or diag(@remedies);
is($node->psql('postgres', $_), 0, $_) for grep { /^REINDEX/ } @remedies;
is(eventually($node, 'postgres', q{SELECT count(*) FROM gt_leases}, '0'), '0', 'which ends it');
ok($node->poll_query_until('postgres', q{SELECT bool_and(ok) FROM gt_health() WHERE check_name IN ('errors', 'overdue')}), 'all of it');

# No room for the launcher: no worker process at all, or others have taken them.
$node->safe_psql('postgres', 'ALTER SYSTEM SET max_worker_processes = 0');
$node->restart;
remedied('no launcher', 'launcher', qr/it does not run; .*too many background workers/);
$node->safe_psql('postgres', q{SELECT gt_release(gt_lease_create('after all', cleanup => 'clean'))});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM cleaned WHERE id = 'after all'}), 'and the workers are there again');

# Without the library, and as a copy. The restarts are the remedies' own, or what an administrator has just done.
$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', "''");
$node->restart;
remedied('not preloaded', 'preloaded', qr/not loaded at server start/);
$node->safe_psql('postgres', q{SELECT gt_lease_create('is here', cleanup => 'clean', duration => '1 hour'); ALTER SYSTEM SET garbagetruck.identity = 'a copy'});
$node->restart;
remedied('a copy', 'place', qr/nothing ends and nothing is cleaned here/);
is($node->safe_psql('postgres', q{SELECT count(*) FROM gt_leases WHERE object_id = 'is here'}), '1', 'its leases are there');

$node->stop;

# The library gone from the disk, and another one there. Of a copy of the server, of links, whose library is nobody else's; asked
# by a session that has it already.
my ($home, undef, $lib) = own_installation();
my $other = PostgreSQL::Test::Cluster->new('library', install_path => $home);
$other->init;
$other->append_conf('postgresql.conf', "shared_preload_libraries = 'garbagetruck'");
$other->start;
$other->safe_psql('postgres', 'CREATE EXTENSION garbagetruck');
my $ask = q{SELECT string_agg(detail || ' ' || remedy, '; ') FROM gt_health() WHERE check_name = 'preloaded' AND NOT ok};
my @told = split /\n/, $other->safe_psql('postgres', join "\n", "$ask;", "\\! mv $lib/garbagetruck.so $lib/away", "$ask;",
	"\\! cp $lib/away $lib/garbagetruck.so", "$ask;"), -1;
is($told[0], '', 'the library is there');
like($told[1], qr/not on disk any more.*-- restart the server/, 'and is told of when it is not');
like($told[2], qr/another one than the server has loaded.*-- restart the server/, 'or is another one');
$other->restart;
is($other->safe_psql('postgres', $ask), '', 'a restart ends it');
$other->stop;
done_testing();
