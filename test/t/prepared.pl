# Two-phase commit under workers: what is prepared survives kill -9, is cleaned up after COMMIT PREPARED by whatever session,
# and while it is open nothing spins, and nobody else waits.
use strict;
use warnings;
use GarbageTruck;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $node = truck('prepared', 'max_prepared_transactions = 40', "garbagetruck.naptime = '60s'");
set_up($node);
my $sql = sub { return $node->safe_psql('postgres', shift) };
my $prepared = sub { my ($gid, $work) = @_; $sql->("BEGIN; $work; PREPARE TRANSACTION '$gid'"); return };

# Each writing call, committed by another session: the workers are woken, nobody waits for the naptime.
$sql->(q{SELECT gt_lease_create('released', cleanup => 'clean'), gt_lease_create('updated', cleanup => 'clean'), gt_lease_create('parent', cleanup => 'clean')});
$sql->(q{SELECT gt_lease_create('child', cleanup => 'clean', parent => lease_id) FROM gt_leases WHERE object_id = 'parent'});
$prepared->('one', q{SELECT gt_lease_create('created', duration => '10 ms', cleanup => 'clean');
	SELECT gt_release(lease_id) FROM gt_leases WHERE object_id = 'released';
	SELECT gt_lease_update(lease_id, duration => '10 ms') FROM gt_leases WHERE object_id = 'updated';
	SELECT gt_release(lease_id) FROM gt_leases WHERE object_id = 'parent'});
$sql->(q{SELECT gt_lease_create('beside', duration => '10 ms', cleanup => 'clean')});
cleaned($node, 'postgres', 'beside', 'nothing of it is there while it is prepared, and who comes beside does not wait');
$sql->(q{COMMIT PREPARED 'one'});
cleaned($node, 'postgres', 'beside child created parent released updated', 'all of it after COMMIT PREPARED');

# The same of one that survives kill -9 of the server.
$sql->(q{TRUNCATE cleaned; SELECT gt_lease_create('released', cleanup => 'clean')});
$prepared->('two', q{SELECT gt_lease_create('created', duration => '10 ms', cleanup => 'clean');
	SELECT gt_release(lease_id) FROM gt_leases WHERE object_id = 'released'});
$node->stop('immediate');
$node->start;
$sql->(q{SELECT gt_lease_create('beside', duration => '10 ms', cleanup => 'clean')});
cleaned($node, 'postgres', 'beside', 'after a crash others go on, and nothing of it is there');
is($sql->(q{SELECT value FROM gt_metrics() WHERE name = 'garbagetruck_leases'}), '1', 'the lease that it has released is counted');
$sql->(q{COMMIT PREPARED 'two'});
cleaned($node, 'postgres', 'beside created released', 'it is cleaned up when it has committed');
is($sql->(q{SELECT value FROM gt_metrics() WHERE name = 'garbagetruck_leases'}), '0', 'and in the numbers, though nobody knows what it did');

# Its leases get the grace of a restart as others do: not over before the start and the grace.
$sql->(q{TRUNCATE cleaned});
$prepared->('grace', q{SELECT gt_lease_create('grace', duration => '1500 ms', cleanup => 'clean')});
$node->stop('immediate');
$node->start;
my $started = $sql->(q{SELECT gt_lease_create('first') IS NOT NULL; SELECT extract(epoch FROM max(started_at)) FROM _garbagetruck.gt__start});
($started) = $started =~ /(\S+)$/;
$sql->(q{COMMIT PREPARED 'grace'});
cleaned($node, 'postgres', 'grace', 'a lease of a transaction that was prepared before the crash ends');
is($sql->("SELECT extract(epoch FROM at) >= $started + 1.5 FROM cleaned"), 't', 'after the grace');

# Rolled back: rows that workers have passed over for long are looked at at once.
$sql->(q{TRUNCATE cleaned; SELECT gt_lease_create('held lease', duration => '300 ms', cleanup => 'clean'),
	gt_pause('clean'), gt_release(gt_lease_create('held garbage', cleanup => 'clean'))});
$prepared->('three', q{SELECT gt_renew(lease_id, '1 hour') FROM gt_leases WHERE object_id = 'held lease';
	SELECT gt_lease_create('held garbage')});
$sql->(q{SELECT gt_resume('clean')});
# Nothing spins: passes come at growing intervals, whatever workers come and go.  Counted over windows of five seconds.
my $passes = sub {
	return $sql->(q{SELECT pg_stat_clear_snapshot()::text || sum(xact_commit + xact_rollback) FROM pg_stat_database WHERE datname = 'postgres'});
};
usleep(12_000_000);    # by then the intervals have grown
my $wal = $sql->('SELECT pg_current_wal_insert_lsn()');
my $before = $passes->();
usleep(5_000_000);
my $more = $passes->() - $before;
cmp_ok($more, '<=', 12, "few transactions in five seconds: $more");
cmp_ok($sql->("SELECT pg_current_wal_insert_lsn() - '$wal'"), '<', 20_000, 'and little of the log');
is($sql->(q{SELECT count(*) FROM cleaned}), '0', 'its rows are passed over');
$sql->(q{SELECT gt_lease_create('beside', duration => '10 ms', cleanup => 'clean'), gt_release(gt_lease_create('garbage beside', cleanup => 'clean'))});
cleaned($node, 'postgres', 'beside garbage beside', 'and others are not');
$sql->(q{ROLLBACK PREPARED 'three'});
cleaned($node, 'postgres', 'beside garbage beside held garbage held lease', 'until it has ended');

# Renewals that are kept in shared memory, and a prepared end of the lease: they wait for it, and go on when it is undone.
my $try = sub {
	my ($work) = @_;
	my ($out, $err);
	$node->psql('postgres', "\\set VERBOSITY sqlstate\nSET lock_timeout = '200 ms';\n$work", stdout => \$out, stderr => \$err);
	return $err =~ /ERROR:\s+(\w+)/ ? $1 : $out;
};
my $left = q{round(extract(epoch FROM expires_at - gt_clock()) / 60)};
my $lease = $sql->(q{SELECT gt_lease_create('renewed', duration => '1 hour', cleanup => 'clean')});
my $renew = "SELECT gt_renew('$lease') IS NOT NULL";
$sql->($renew) for 1 .. 3;
$prepared->('end', "SELECT gt_release('$lease')");
is($try->($renew), '55P03', 'a renewal waits for a prepared end');
is($sql->("SELECT $left FROM gt_lease_get('$lease')"), '60', 'and the lease runs meanwhile');
$sql->(q{ROLLBACK PREPARED 'end'});
is($try->($renew), 't', 'it goes on when that is undone');
$prepared->('renewal', $renew);
is($try->($renew), 't', 'a prepared renewal keeps no other waiting');
$sql->(q{ROLLBACK PREPARED 'renewal'});
is($sql->("SELECT renewals FROM gt_lease_get('$lease')"), '6', 'and counts when it returns');
$prepared->('shorter', "SELECT gt_lease_update('$lease', duration => '5 minutes')");
is($sql->("SELECT $left FROM gt_lease_get('$lease')"), '60', 'a prepared update of the duration is not there');
is($try->($renew), '55P03', 'and renewals wait for it');
$sql->(q{COMMIT PREPARED 'shorter'});
is($sql->("SELECT $left FROM gt_lease_get('$lease')"), '5', 'it counts from COMMIT PREPARED on, whatever was acknowledged before');
is($try->($renew), 't', 'and renewals go on');
$sql->($renew) for 1 .. 3;
$prepared->('end', "SELECT gt_release('$lease')");
$sql->(q{TRUNCATE cleaned; COMMIT PREPARED 'end'});
is($try->($renew), 'GT001', 'committed, the lease has ended');
cleaned($node, 'postgres', 'renewed', 'and its object is cleaned up');

# One that nobody ends is told of after five minutes, with both ways out.  Its time is in the file of a checkpoint.
sub crc32c
{
	my $crc = 0xffffffff;
	foreach my $byte (unpack 'C*', shift)
	{
		$crc ^= $byte;
		$crc = $crc & 1 ? ($crc >> 1) ^ 0x82f63b78 : $crc >> 1 for 1 .. 8;
	}
	return $crc ^ 0xffffffff;
}
my $health = q{SELECT ok, detail, remedy FROM gt_health() WHERE check_name = 'prepared'};
is($sql->('SELECT count(*) = 1 AND bool_and(ok) FROM gt_health() WHERE check_name = \'prepared\''), 't', 'all is well');
$sql->(q{CREATE ROLE other LOGIN; SELECT gt_allow('other')});
$prepared->("it''s \"old\" \\ 1", q{SELECT gt_lease_create('old', duration => '1 hour')});
$prepared->('nothing of ours', 'CREATE TABLE nothing ()');
$prepared->('new', q{SELECT gt_lease_create('new', duration => '1 hour')});
my %xid = map { split /\|/ } split /\n/, $sql->(q{SELECT gid, transaction FROM pg_prepared_xacts});
$node->stop('fast');
foreach my $gid ("it's \"old\" \\ 1", 'nothing of ours')
{
	my ($file) = glob(sprintf '%s/pg_twophase/*%08X', $node->data_dir, $xid{$gid});
	my $state = slurp_file($file);
	substr($state, 16, 8) = pack 'q', unpack('q', substr $state, 16, 8) - 600 * 1_000_000;
	substr($state, -4) = pack 'L', crc32c(substr $state, 0, -4);
	open my $handle, '>:raw', $file or die $!;
	print $handle $state;
	close $handle or die $!;
}
$node->start;
my @told = split /\n/, $sql->($health);
is(scalar @told, 2, 'of the one that is old and has locks of ours') or diag(join "\n", @told);
my $me = $sql->('SELECT current_user');
like($told[0], qr/^f\|transaction E'it''s "old" \\\\ 1' of \Q$me\E has been prepared for 00:1\d:\d\d and holds locks \(.*gt_object.*\|COMMIT PREPARED E'it''s "old" \\\\ 1';$/, 'how to commit it');
like($told[1], qr/^f\|.*\|ROLLBACK PREPARED E'it''s "old" \\\\ 1';$/, 'how to roll it back');
is($sql->(q{SET ROLE other; SELECT detail !~ '"old"' FROM gt_health() WHERE check_name = 'prepared'}), 't', 'no monitor is told its name');
$sql->((split /\|/, $told[0])[-1]);
is($sql->('SELECT count(*) = 1 AND bool_and(ok) FROM gt_health() WHERE check_name = \'prepared\''), 't', 'it is right as it stands');
is($sql->(q{SELECT count(*) FROM gt_leases WHERE object_id = 'old'}), '1', 'and has committed it');
my @held = split /\n/, $sql->(q{SELECT remedy FROM gt_health() WHERE check_name = 'snapshots' AND NOT ok});
is("@held", q{ROLLBACK PREPARED 'nothing of ours';}, 'one that holds back vacuum is told of, whatever it has');
$sql->($_) for @held;
is($sql->(q{SELECT bool_and(ok) FROM gt_health() WHERE check_name = 'snapshots'}), 't', 'until its remedy has run');
$sql->($_) for q{ROLLBACK PREPARED 'new'}, q{SELECT gt_release(lease_id) FROM gt_leases}, q{DROP OWNED BY other; DROP ROLE other};

# Rows with a deadline of their own, of a transaction that was prepared before a restart, too.
reload_and_see($node, 'garbagetruck.naptime', '1h');
$sql->(q{CREATE TABLE visit (id int PRIMARY KEY, expires_at timestamptz); CREATE INDEX ON visit (expires_at); SELECT gt_ttl_create('visit', 'expires_at');
	INSERT INTO visit VALUES (1, now())});
$node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM visit') or die 'no row is deleted';
$prepared->('rows', q{INSERT INTO visit VALUES (2, now() - interval '1 hour')});
$prepared->('more rows', q{INSERT INTO visit VALUES (3, now() - interval '1 hour')});
$sql->(q{COMMIT PREPARED 'rows'});
ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM visit'), 'a row that is over when it is committed is deleted');
$node->restart;
$sql->(q{INSERT INTO visit VALUES (4, now())});
$node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM visit') or die 'no row is deleted';
$sql->(q{COMMIT PREPARED 'more rows'});
ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM visit'), 'after a restart, too');

# Thirty with work of every kind, through kill -9 of the server: of those that commit all of it is there, of the others nothing.
$sql->(q{TRUNCATE cleaned;
	SELECT gt_handler_create('claimed', 'queue', concurrency => 100);
	SELECT gt_release(gt_lease_create('claim ' || i, cleanup => 'claimed')), gt_lease_create('release ' || i, cleanup => 'clean'),
		gt_lease_create('renew ' || i, duration => '1 hour') FROM generate_series(1, 30) i;
	INSERT INTO visit SELECT i, now() + interval '1 hour' FROM generate_series(101, 130) i});
$sql->(q{SELECT count(gt_renew(lease_id)) FROM gt_leases WHERE object_id LIKE 'renew%'}) for 1 .. 2;
$sql->(join ';', map { my $row = 100 + $_; "BEGIN; SELECT gt_lease_create('create $_', duration => '10 ms', cleanup => 'clean');
	SELECT gt_release(lease_id) FROM gt_leases WHERE object_id = 'release $_';
	SELECT gt_renew(lease_id) FROM gt_leases WHERE object_id = 'renew $_';
	SELECT count(*) FROM gt_claim(visibility => '1 hour', cleanup_ids => ARRAY(SELECT cleanup_id FROM gt_garbage WHERE object_id = 'claim $_'));
	UPDATE visit SET expires_at = now() - interval '1 hour' WHERE id = $row; INSERT INTO visit VALUES ($row + 100, now());
	PREPARE TRANSACTION 'many $_'" } 1 .. 30);
$node->stop('immediate');
$node->start;
is($sql->('SELECT count(*) FROM pg_prepared_xacts'), '30', 'thirty are open');
$sql->(join ';', map { ($_ % 2 ? 'COMMIT' : 'ROLLBACK') . " PREPARED 'many $_'" } 1 .. 30);
is(eventually($node, 'postgres', 'SELECT count(*), count(DISTINCT id), bool_and(substring(id from \'\d+\')::int % 2 = 1) FROM cleaned', '30|30|t'), '30|30|t', 'what was created and released is cleaned up');
is(eventually($node, 'postgres', 'SELECT count(*), bool_and(id % 2 = 0 AND id <= 130) FROM visit', '15|t'), '15|t', 'rows have gone');
is($sql->(q{SELECT state, count(*), bool_and((substring(object_id from '\d+')::int % 2 = 1) = (state = 'claimed')) FROM gt_garbage GROUP BY 1 ORDER BY 1}), "claimed|15|t\nwaiting|15|t", 'claims are made');
is($sql->(q{SELECT count(gt_ack(cleanup_id, 1)) FILTER (WHERE state = 'claimed') FROM gt_garbage}), '15', 'and are answered');
is($sql->(q{SELECT count(*) FROM gt_claim(max_items => 100)}), '15', 'the others can be claimed');
is($sql->(q{SELECT count(*) FILTER (WHERE object_id LIKE 'release%'), count(*) FILTER (WHERE object_id LIKE 'renew%' AND state = 'active'), count(*) FROM gt_leases}), '15|30|45', 'leases are held');
is($sql->(q{SELECT (SELECT value FROM gt_metrics() WHERE name = 'garbagetruck_leases'), (SELECT count(*) FROM gt_check())}), '45|0', 'and counted, and nothing contradicts itself');
$sql->(q{SELECT count(gt_ack(cleanup_id, attempts)) FROM gt_garbage; SELECT count(gt_release(lease_id)) FROM gt_leases; DELETE FROM visit});

# What gt_reclaim has deleted in one is in the metrics once that is committed, and not before.
my $rows = q{SELECT string_agg(value::text, ' ' ORDER BY name) FROM gt_metrics() WHERE name IN ('garbagetruck_ttl_rows_total', 'garbagetruck_ttl_lag_seconds_count')};
reload_and_see($node, 'garbagetruck.max_workers', '0');
$node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM gt_workers WHERE role = 'worker'}) or die 'the workers stay';
my @before = split / /, $sql->($rows);
$sql->(q{INSERT INTO visit VALUES (5, now())});
$prepared->('reclaimed', 'CALL gt_reclaim()');
is($sql->($rows), "@before", 'a row that is not deleted yet is not counted');
$sql->(q{COMMIT PREPARED 'reclaimed'});
is($sql->('SELECT count(*) FROM visit'), '0', 'gt_reclaim has deleted a row in a transaction that was prepared');
is($sql->($rows), join(' ', map { $_ + 1 } @before), 'it is counted, and so is its lag');
reload_and_see($node, 'garbagetruck.max_workers', '4');

# A transaction that has nothing of ours wakes nobody.
$sql->(q{CREATE TABLE app (n int)});
$node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM gt_workers WHERE role = 'worker'}) or die 'the workers stay';
$prepared->('app', 'INSERT INTO app VALUES (1)');
$sql->(q{COMMIT PREPARED 'app'});
is($sql->(q{SELECT count(*) FROM gt_workers WHERE role = 'worker'}), '0', 'one that has nothing of ours wakes nobody');

# A prepared DROP EXTENSION, and CREATE EXTENSION: known when it commits.
$sql->(q{SELECT gt_lease_create('dropped', duration => '1 hour')});
$prepared->('drop', 'SET LOCAL client_min_messages = warning; DROP EXTENSION garbagetruck CASCADE');
$sql->(q{COMMIT PREPARED 'drop'});
is($sql->(q{SELECT count(*) FROM pg_extension WHERE extname = 'garbagetruck'}), '0', 'the extension is dropped');
$prepared->('create', 'CREATE EXTENSION garbagetruck');
$sql->(q{COMMIT PREPARED 'create'});
$sql->(q{TRUNCATE cleaned; ALTER TABLE cleaned ALTER at SET DEFAULT gt_clock();
	SELECT gt_handler_create('clean', 'sql', 'SELECT public.clean($1, $8)'); SELECT gt_lease_create('anew', duration => '10 ms', cleanup => 'clean')});
cleaned($node, 'postgres', 'anew', 'and made anew');

# A standby that is promoted with prepared transactions.
$sql->('TRUNCATE cleaned');
$node->backup('b');
my $standby = PostgreSQL::Test::Cluster->new('prepared_standby');
$standby->init_from_backup($node, 'b', has_streaming => 1);
$standby->start;
$prepared->('switch', q{SELECT gt_lease_create('prepared elsewhere', duration => '10 ms', cleanup => 'clean')});
$node->wait_for_catchup($standby);
$node->stop('fast');
$standby->promote;
$standby->safe_psql('postgres', q{COMMIT PREPARED 'switch'});
cleaned($standby, 'postgres', 'prepared elsewhere', 'a standby that was promoted cleans up what is committed there');
$standby->stop;

# Without preload all of it works, but nobody is woken.
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->start;
$sql->('TRUNCATE cleaned');
$sql->(q{COMMIT PREPARED 'switch'});
$prepared->('plain', q{SELECT gt_lease_create('without preload', duration => '10 ms', cleanup => 'clean')});
$sql->(q{COMMIT PREPARED 'plain'});
my $seen = '';
for (1 .. 600)
{
	$sql->('CALL gt_reclaim()');
	$seen = $sql->(q{SELECT string_agg(id, ' ' ORDER BY id) FROM cleaned});
	last if $seen eq 'prepared elsewhere without preload';
	usleep(100_000);
}
is($seen, 'prepared elsewhere without preload', 'without preload gt_reclaim() finds it');
$node->stop;
done_testing();
