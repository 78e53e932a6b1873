# With synchronous_commit off a crash may take the last commits, but not a promise: what the grace after it would not
# cover is flushed, and so is whoever acts on an expiry.
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

done_testing();
