# One role does not fill the tables in shared memory for the others: limits hold, and margins are seen.
use strict;
use warnings;
use GarbageTruck;
use PostgreSQL::Test::Cluster;
use Test::More;

my $node = truck('shares', "garbagetruck.renewals = 'durable'");
$node->safe_psql('postgres', q{
	CREATE EXTENSION garbagetruck;
	CREATE ROLE mallory; SELECT gt_allow('mallory'), gt_allow('mallory', 'handler');
	CREATE ROLE victim; SELECT gt_allow('victim'), gt_allow('victim', 'handler')});

# More handlers, and more services, than there is room for.
$node->safe_psql('postgres', q{
	SET ROLE mallory;
	DO $$ BEGIN
		FOR i IN 1 .. 2100 LOOP
			PERFORM gt_handler_create('m' || i, 'queue');
			PERFORM gt_claim(ARRAY['m' || i]);
		END LOOP;
		FOR i IN 1 .. 1100 LOOP
			PERFORM gt_renew(gt_lease_create('o' || i, service_id => 's' || i));
		END LOOP;
	END $$});
$node->safe_psql('postgres', q{
	SET ROLE victim;
	SELECT gt_handler_create('v', 'queue', rate_limit => 1);
	SELECT gt_release(gt_lease_create('v' || i, cleanup => 'v')) FROM generate_series(1, 20) i;
	SELECT gt_renew(gt_lease_create('renewed', service_id => 'victim'))});
is($node->safe_psql('postgres', q{SET ROLE victim; SELECT count(*) FROM gt_claim('{v}', max_items => 20)}), '1', 'a limit holds in a full table');
is($node->safe_psql('postgres', q{SELECT count(*) FROM gt_metrics() WHERE name LIKE '%renewal_margin_ratio' AND labels ->> 'service_id' = 'victim'}), '1', 'and a service is seen');
$node->safe_psql('postgres', q{
	SET ROLE mallory;
	DO $$ BEGIN
		FOR i IN 1 .. 1100 LOOP
			PERFORM gt_claim(ARRAY['m' || i]);
			PERFORM gt_renew(gt_lease_create('p' || i, service_id => 't' || i));
		END LOOP;
	END $$});
is($node->safe_psql('postgres', q{SELECT count(*) FROM gt_metrics() WHERE name LIKE '%renewal_margin_ratio' AND labels ->> 'service_id' = 'victim'}), '1', 'whoever has a good part of it makes room of its own');

# What is known of a handler goes with it, and with the extension: not with what is rolled back.
$node->safe_psql('postgres', q{
	CREATE TABLE seen (id text);
	SELECT gt_handler_create('count', 'sql', 'INSERT INTO seen SELECT $1');
	SELECT gt_release(gt_lease_create('c', cleanup => 'count'))});
my $cleanups = q{SELECT value::int FROM gt_metrics() WHERE name LIKE '%cleanups_total' AND labels ->> 'handler' = 'count' AND labels ->> 'result' = 'cleaned'};
is(eventually($node, 'postgres', $cleanups, '1'), '1', 'a run is counted');
$node->safe_psql('postgres', q{BEGIN; SELECT gt_handler_drop('count'); ROLLBACK; BEGIN; DROP EXTENSION garbagetruck CASCADE; ROLLBACK});
is($node->safe_psql('postgres', $cleanups), '1', 'still after drops that were rolled back');
$node->safe_psql('postgres', q{DROP EXTENSION garbagetruck CASCADE; CREATE EXTENSION garbagetruck; SELECT gt_handler_create('count', 'sql', 'INSERT INTO seen SELECT $1')});
is($node->safe_psql('postgres', $cleanups), '0', 'and not after one that was not');

$node->stop;
done_testing();
