# Renewals in shared memory: they keep a lease alive without a write to the table, and give way to the table where there is
# no room for them. That they outlive shared memory is told by buffered_away.pl.
use strict;
use warnings;
use GarbageTruck;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = truck('buffered', "garbagetruck.restart_grace = '1min'", "garbagetruck.renewal_buffer_size = '256kB'");
set_up($node);

sub one
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql);
}
sub lease
{
	my ($object, $duration) = @_;
	return one("SELECT gt_lease_create('$object', cleanup => 'clean', duration => '$duration')");
}
sub version { my ($lease) = @_; return lease_version($node, $lease); }
sub renewed { my ($lease) = @_; return renewed_in_memory($node, $lease); }
sub in_use { return one(q{SELECT substring(detail FROM '^\d+') FROM gt_health() WHERE check_name = 'renewal_buffer'}); }

is(one('SHOW garbagetruck.renewals'), 'buffered', 'the default where the library is preloaded');

# A lease that is renewed goes on, and so do its children; its row is written once in a duration at most.
my $kept = lease('kept', '2 s');
one("SELECT gt_lease_create('child', cleanup => 'clean', parent => '$kept')");
my $begin = one('SELECT gt_clock()');
my $holder = in_background($node, 'postgres', "DO \$\$ BEGIN FOR i IN 1..250 LOOP PERFORM gt_renew('$kept'); COMMIT; PERFORM pg_sleep(0.02); END LOOP; END \$\$");
is(finish_background($holder), '', 'renewals for five seconds');
is(one('SELECT count(*) FROM cleaned'), '0', 'nothing was cleaned meanwhile');
my ($renewals, $versions) = split /\|/, one(qq{SELECT l.renewals, s.n_tup_upd FROM gt_lease_get('$kept') l,
	pg_stat_all_tables s WHERE s.relid = '_garbagetruck.gt_lease'::regclass});
is($renewals, '250', 'each counts');
is(one("SELECT renewals, renewed_at > created_at + interval '4 seconds' FROM gt_leases WHERE lease_id = '$kept'"), '250|t', 'the view shows them too');
my $durations = one("SELECT ceil(extract(epoch FROM gt_clock() - '$begin') / 2)");
cmp_ok(one(q{SELECT pg_stat_force_next_flush() IS NULL, n_tup_upd FROM pg_stat_all_tables WHERE relid = '_garbagetruck.gt_lease'::regclass}) =~ s/.*\|//r,
	'<=', $durations + 1, 'one write for each duration');
cleaned($node, 'postgres', 'child kept', 'and ends when nobody renews it any more');
ok($node->poll_query_until('postgres', q{SELECT value = 0 FROM gt_metrics() WHERE name LIKE '%renewal_buffer_entries'}), 'nothing of it stays in memory');

# It is no part of a transaction.
my $aside = lease('aside', '1 hour');
one("BEGIN; SAVEPOINT s; SELECT gt_renew('$aside'); ROLLBACK TO s; SELECT gt_renew('$aside'); ROLLBACK");
is(one("SELECT renewals FROM gt_lease_get('$aside')"), '2', 'a rollback takes nothing back');

# The setting counts at once, and what is in memory, whatever it is.
$aside = lease('setting', '1 hour');
my $until = renewed($aside);
reload_and_see($node, 'garbagetruck.renewals', 'durable');
is(one("SELECT expires_at = '$until' FROM gt_lease_get('$aside')"), 't', 'durable: what was acknowledged before counts');
$until = one("SELECT gt_renew('$aside')");
is(one("SELECT deadline = '$until' FROM _garbagetruck.gt_lease WHERE id = '$aside'"), 't', 'and a renewal is written');
reload_and_see($node, 'garbagetruck.renewals', 'buffered');
is(renewed($aside) gt $until, 1, 'buffered: it is in memory again');

# No room: the table is written, and all goes on.
one('SELECT gt_release_many(array_agg(lease_id)) FROM gt_leases');
one(q{CREATE TABLE many AS SELECT l FROM unnest(gt_lease_create_many((SELECT array_agg('many ' || n) FROM generate_series(1, 3000) n), duration => '1 hour')) l});
is(one('SELECT status, count(*) FROM gt_renew_many((SELECT array_agg(l) FROM many)) GROUP BY 1'), 'renewed|3000', 'more renewals than there is room for');
my ($used, $room) = one(q{SELECT detail FROM gt_health() WHERE check_name = 'renewal_buffer' AND NOT ok ORDER BY detail DESC LIMIT 1}) =~ /(\d+) of (\d+) entries/;
cmp_ok($used, '<=', $room, 'gt_health tells that the buffer is full');
cmp_ok($used, '>=', 0.8 * $room, 'and it is');
is(one(q{SELECT value FROM gt_metrics() WHERE name = 'garbagetruck_health' AND labels ->> 'check' = 'renewal_buffer'}), '0', 'also by the metric');
my $remedies = one(q{SELECT string_agg(remedy, ' ') FROM gt_health() WHERE check_name = 'renewal_buffer'});
like($remedies, qr/^ALTER SYSTEM SET [^;]*; -- restart the server$/, 'what helps is one statement, and a restart');
one($remedies);
is(one('SELECT bool_and(renewals = 1) FROM gt_leases WHERE lease_id IN (SELECT l FROM many)'), 't', 'each lease was renewed');
# ... but for another role
one(q{CREATE ROLE another; SELECT gt_allow('another')});
my $its = one(q{SET ROLE another; SELECT gt_lease_create('its', duration => '1 hour')});
$until = one("SET ROLE another; SELECT gt_renew('$its')");
is(one("SELECT deadline < '$until' FROM _garbagetruck.gt_lease WHERE id = '$its'"), 't', 'a role that fills the buffer leaves room for another one');
one("SELECT gt_release('$its')");
one('SELECT gt_release_many(array_agg(l)) FROM many');
is(one(q{SELECT value FROM gt_metrics() WHERE name LIKE '%renewal_buffer_entries'}), '0', 'what has been released makes room');

# Entries that are over are taken by others, also where nobody ends the leases.
one(q{CREATE TABLE over AS SELECT l FROM unnest(gt_lease_create_many((SELECT array_agg('over ' || n) FROM generate_series(1, 3000) n), duration => '2 s')) l});
one('SELECT count(*) FROM gt_renew_many((SELECT array_agg(l) FROM over))');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM gt_leases WHERE object_id LIKE 'over%' AND state = 'active'}), 'leases are over');
my $before;
my $late = lease('late', '10 min');
$before = version($late);
one("SELECT gt_renew('$late')");
is(one("SELECT renewals FROM gt_lease_get('$late')"), '1', 'one more is renewed');
is(version($late), $before, 'in memory');
is(one("SELECT expires_at > gt_clock() + interval '599 s' FROM gt_lease_get('$late')"), 't', 'for its duration');

$node->restart;
cmp_ok((split / /, one(q{SELECT detail FROM gt_health() WHERE check_name = 'renewal_buffer' AND ok}))[2], '>', 3000, 'there is more room after the remedies');

# What is dropped leaves nothing behind.
one('CREATE DATABASE gone');
$node->safe_psql('gone', 'CREATE EXTENSION garbagetruck');
$node->safe_psql('gone', q{SELECT count(gt_renew(gt_lease_create('g' || n, duration => '1 s'))) FROM generate_series(1, 3) n});
my $held = $node->safe_psql('gone', q{SELECT gt_lease_create('g', duration => '1 s')});
$node->safe_psql('gone', "SELECT gt_renew('$held')");
is(in_use(), '1', 'an entry of another database');
one('DROP DATABASE gone');
is(in_use(), '0', 'goes with that');
$late = lease('late again', '1 s');
one("SELECT gt_renew('$late')");
is(in_use(), '1', 'an entry of this one');
one('SELECT count(*) FROM gt_metrics()');
one('DROP EXTENSION garbagetruck CASCADE; CREATE EXTENSION garbagetruck');
is(in_use(), '0', 'goes with the extension');

# Nobody's look at the metrics takes anything out, also where they were of another extension when they were looked at last.
my $anew = one(q{SELECT gt_lease_create('anew', duration => '1 hour')});
$until = renewed($anew);
one('SELECT count(*) FROM gt_metrics()');
is(one("SELECT expires_at = '$until' FROM gt_lease_get('$anew')"), 't', 'what was acknowledged outlives a look at the metrics');

$node->stop;
done_testing();
