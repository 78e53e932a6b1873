# With synchronous_commit off a crash may take the last commits, but not a promise: what the grace after it would not
# cover is flushed, and so is whoever acts on an expiry, the token of a claim and the record of a run.
use strict;
use warnings;
use GarbageTruck;
use PostgreSQL::Test::Cluster;
use Test::More;

# no workers, and nobody who flushes meanwhile
my $node = truck('unflushed', "garbagetruck.databases = ''\ngarbagetruck.restart_grace = '1min'\nwal_writer_delay = '10s'\ncheckpoint_timeout = '1h'");
$node->safe_psql('postgres', 'CREATE EXTENSION garbagetruck');
my $lazy = 'SET synchronous_commit = off;';

my $chain = $node->safe_psql('postgres', "SELECT gt_lease_create('chain', duration => '10 s')");
my $long = $node->safe_psql('postgres', "SELECT gt_lease_create('long', duration => '1 hour')");
my $shorter = $node->safe_psql('postgres', "SELECT gt_lease_create('shorter', duration => '1 hour')");

# each step is less than what the grace of the one before would cover
$node->safe_psql('postgres', "$lazy SELECT gt_renew('$chain', d * interval '1 second') FROM unnest(ARRAY[19, 37, 72, 140, 270, 500, 900]) d");
$node->stop('immediate');
$node->start;
is($node->safe_psql('postgres', "SELECT duration, renewals FROM gt_lease_get('$chain')"), '00:15:00|7', 'a chain of longer and longer renewals');

my $until = $node->safe_psql('postgres', "$lazy SELECT gt_renew('$long')");
$node->stop('immediate');
$node->start;
is($node->safe_psql('postgres', "SELECT expires_at >= '$until' FROM gt_lease_get('$long')"), 't', 'a renewal of a lease that is longer than the grace');

$node->safe_psql('postgres', "$lazy SELECT gt_lease_update('$shorter', duration => '1 minute')");
$node->stop('immediate');
$node->start;
is($node->safe_psql('postgres', "SELECT duration FROM gt_lease_get('$shorter')"), '00:01:00', 'a shorter duration');

$node->safe_psql('postgres', "SELECT gt_renew('$shorter')");	# the run is recorded
my $expired = $node->safe_psql('postgres', "SELECT gt_lease_create('passed over', exclusive => true, duration => '200 ms')");
ok($node->poll_query_until('postgres', "SELECT state = 'expired' FROM gt_lease_get('$expired')"), 'a lease is over');
$node->safe_psql('postgres', "$lazy SELECT gt_lease_create('passed over', exclusive => true)");
$node->stop('immediate');
$node->start;
is($node->safe_psql('postgres', "SELECT count(*) FROM gt_lease_get('$expired')"), '0', 'an expired lease that somebody has passed over');

# a token that was given out is not given again, and the time that its holder was promised holds
$node->safe_psql('postgres', q{SELECT gt_handler_create('queue', 'queue'); SELECT gt_release(gt_lease_create('claimed', cleanup => 'queue'))});
my $token = $node->safe_psql('postgres', "$lazy SELECT cleanup_id, attempt FROM gt_claim('{queue}')");
$node->stop('immediate');
$node->start;
is($node->safe_psql('postgres', 'SELECT cleanup_id, attempts, state FROM gt_garbage'), "$token|claimed", 'a claim');
$token =~ s/\|/, /;
$node->safe_psql('postgres', "$lazy SELECT gt_extend($token, '1 day')");
$node->stop('immediate');
$node->start;
is($node->safe_psql('postgres', q{SELECT claimed_until > gt_clock() + interval '23 hours' FROM gt_garbage}), 't', 'an extended claim');

# a run that takes the server down is on record, and its object is charged
$node->safe_psql('postgres', q{
	CREATE FUNCTION crash() RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; kill -9 $PPID; sleep 60';
	END$$;
	SELECT gt_handler_create('crash', 'sql', 'SELECT crash()');
	SELECT gt_release(gt_lease_create('crash', cleanup => 'crash'))});
$node->psql('postgres', "$lazy CALL gt_reclaim()", stderr => \my $ignored);
wait_for_restart($node);
$node->safe_psql('postgres', 'CALL gt_reclaim(0)');
is($node->safe_psql('postgres', q{SELECT attempts FROM gt_garbage WHERE object_id = 'crash'}), '1', 'a run of gt_reclaim()');

done_testing();
