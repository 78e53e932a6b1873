# What a DBA finds at night, made anew: gt_health() and the metric name it, and the remedies, pasted as they stand, end it.
# Others have a program of their own: clocks that were wrong (clock.pl), crashes and whom they are charged to (faults/blame.pl),
# workers that wait for a lock, and what they fail at (health.pl), tables that others have put something on (tables.pl).
use strict;
use warnings;
use File::Basename;
use File::Path qw(make_path);
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
	my ($check, $what) = @_;
	return $node->safe_psql('postgres', "SELECT $what FROM gt_health() WHERE check_name = '$check' AND NOT ok");
}

# It is told of by this check and its metric, in these words, and over once its remedies have run.
sub remedied
{
	my ($name, $check, $words) = @_;
	ok($node->poll_query_until('postgres', "SELECT count(*) > 0 FROM gt_health() WHERE check_name = '$check' AND NOT ok"), "$name: it is told of");
	like(wrong($check, 'detail'), $words, "$name: in words");
	my ($known, $value) = $node->psql('postgres', "SELECT value FROM gt_metrics() WHERE name = 'garbagetruck_health' AND labels ->> 'check' = '$check'");
	is($value, '0', "$name: by the metric") if $known == 0;
	for my $remedy (split /\x01/, wrong($check, q{string_agg(remedy, E'\001')}))
	{
		note("$name: $remedy");
		if ($remedy =~ /^-- restart the server/) { $node->restart; }
		elsif ($remedy !~ /^--/) { is($node->psql('postgres', $remedy), 0, "$name: $remedy"); }
	}
	ok($node->poll_query_until('postgres', "SELECT bool_and(ok) FROM gt_health() WHERE check_name = '$check'"), "$name: it is over");
	note(wrong($check, 'detail'));
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

# A handler that cleans what it should not: it is stopped at once, and what it has done can be looked up.
$node->safe_psql('postgres', q{SELECT gt_pause('clean'); SELECT gt_release(gt_lease_create('would be cleaned', cleanup => 'clean'))});
is($node->safe_psql('postgres', q{SELECT string_agg(object_id, ' ' ORDER BY object_id) FROM gt_history WHERE event = 'cleaned' AND handler = 'clean'}), 'good held', 'the history says what was cleaned');
remedied('and goes on', 'paused', qr/"clean"/);
cleaned($node, 'postgres', 'good held twice would be cleaned', 'with what had waited');

# A page of an index that says nothing. The file is found by its name, and the server does not run meanwhile.
$node->safe_psql('postgres', q{SELECT count(gt_lease_create('l' || n, duration => '1 second', cleanup => 'polled')) FROM generate_series(1, 300) n});
my $file = $node->data_dir . '/' . $node->safe_psql('postgres', q{SELECT pg_relation_filepath('_garbagetruck.gt_lease_check')});
$node->stop;
open my $index, '+<:raw', $file or die "$file: $!";
seek $index, 8192, 0;
print $index "\xff" x 8192;
close $index;
$node->start;
ok($node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM gt_health() WHERE NOT ok AND detail ~ 'invalid page|could not be judged'}), 'a damaged index: it is told of');
like($node->safe_psql('postgres', q{SELECT string_agg(check_name, ' ') FROM gt_health() WHERE NOT ok}), qr/errors|overdue/, 'by the checks that meet it');
$node->safe_psql('postgres', "REINDEX TABLE CONCURRENTLY _garbagetruck.$_") for 'gt_object', 'gt_lease';
is(eventually($node, 'postgres', q{CALL gt_reclaim(); SELECT count(*) FROM gt_leases}, "0\n0"), "0\n0", 'REINDEX and gt_reclaim end it');

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
my %own = map { chomp(my $dir = `pg_config --${_}dir`); $_ => $dir } 'bin', 'share';
my $common = $own{bin};
$common =~ s,/[^/]*$,, until index("$own{share}/", "$common/") == 0;
my $copy = PostgreSQL::Test::Utils::tempdir();
for my $dir (dirname($own{bin}), $own{share})
{
	my $there = $copy . substr($dir, length $common);
	make_path(dirname($there));
	system('cp', '-al', $dir, $there) == 0 or die "$dir was not copied";
}
my $home = $copy . substr(dirname($own{bin}), length $common);
my $other = PostgreSQL::Test::Cluster->new('library', install_path => $home);
$other->init;
$other->append_conf('postgresql.conf', "shared_preload_libraries = 'garbagetruck'");
$other->start;
$other->safe_psql('postgres', 'CREATE EXTENSION garbagetruck');
my $ask = q{SELECT string_agg(detail || ' ' || remedy, '; ') FROM gt_health() WHERE check_name = 'preloaded' AND NOT ok};
my @told = split /\n/, $other->safe_psql('postgres', join "\n", "$ask;", "\\! mv $home/lib/garbagetruck.so $home/lib/away", "$ask;",
	"\\! cp $home/lib/away $home/lib/garbagetruck.so", "$ask;"), -1;
is($told[0], '', 'the library is there');
like($told[1], qr/not on disk any more.*-- restart the server/, 'and is told of when it is not');
like($told[2], qr/another one than the server has loaded.*-- restart the server/, 'or is another one');
$other->restart;
is($other->safe_psql('postgres', $ask), '', 'a restart ends it');
$other->stop;
done_testing();
