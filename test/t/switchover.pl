# A run that goes on when another server takes over is charged to nobody, whether the old one was shut down or died: its
# record is replicated, what the old one says about its end is not. And marks of such ends do not pile up.
use strict;
use warnings;
use GarbageTruck;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = truck('first', "garbagetruck.restart_grace = '100ms'");
set_up($node);
$node->safe_psql('postgres', q{
	SELECT gt_handler_create('once', 'sql', 'SELECT public.clean($1, $8)', max_attempts => 1, timeout => '5 minutes');
	SELECT gt_release(gt_lease_create('gate', cleanup => 'once'))});
gate_is_waiting($node, 'postgres');

for my $how (qw(fast immediate fast))
{
	my $next = standby_of($node);
	$node->wait_for_catchup($next, 'replay', $node->lsn('insert'));
	$node->stop($how);
	$next->promote;
	gate_is_waiting($next, 'postgres');
	is($next->safe_psql('postgres', q{SELECT state, attempts, coalesce(error, '-') FROM gt_garbage}), 'running|0|-', "$how: it goes on at the next one, and was no attempt");
	is($next->safe_psql('postgres', q{SELECT paused FROM gt_handlers WHERE name = 'once'}), 'f', "$how: the handler is not paused");
	is(marks($next), 0, "$how: no mark is there");
	$node = $next;
}
$node->safe_psql('postgres', 'INSERT INTO gate VALUES (true)');
cleaned($node, 'postgres', 'gate', 'it is cleaned, once');
is($node->safe_psql('postgres', 'SELECT attempt FROM cleaned'), '1', 'by its first attempt');

# What becomes a standby has no use for the marks that it has.
$node->safe_psql('postgres', q{DELETE FROM gate; SELECT gt_release(gt_lease_create('gate again', cleanup => 'once'))});
gate_is_waiting($node, 'postgres');
$node->stop;
is(marks($node), 1, 'a shutdown leaves a mark');
append_to_file($node->data_dir . '/standby.signal', '');
$node->start;
is(marks($node), 0, 'a standby has none');

$node->stop;
done_testing();

sub standby_of
{
	my ($primary) = @_;
	my $name = 'after_' . $primary->name;
	$primary->backup($name);
	my $standby = PostgreSQL::Test::Cluster->new($name);
	$standby->init_from_backup($primary, $name, has_streaming => 1);
	$standby->start;
	return $standby;
}

sub marks
{
	my ($where) = @_;
	return scalar(() = glob($where->data_dir . '/garbagetruck.{evicted,undone}.*'));
}
