# Workers work under settings of their own, whatever the defaults of the cluster, the database or the role are; their
# commits are flushed here, and a standby that is away holds up no rows.
use strict;
use warnings;
use GarbageTruck;
use PostgreSQL::Test::Cluster;
use Test::More;

my $node = truck('pins');
set_up($node);
$node->safe_psql('postgres', q{
	CREATE ROLE nobody;
	CREATE TABLE seen (id text, isolation text, read_only text, sync text, path text, role name, caller text DEFAULT current_setting('garbagetruck.caller'));
	SELECT gt_handler_create('see', 'sql', $$INSERT INTO public.seen SELECT $1, current_setting('transaction_isolation'),
		current_setting('transaction_read_only'), current_setting('synchronous_commit'), current_setting('search_path'), current_user$$);});

# What spoils a worker, for the database and for the role whose settings it gets.
my %spoilt = (
	default_transaction_isolation => 'serializable',
	default_transaction_read_only => 'on',
	default_transaction_deferrable => 'on',
	statement_timeout => '1ms',
	lock_timeout => '1ms',
	idle_in_transaction_session_timeout => '1ms',
	idle_session_timeout => '1ms',
	transaction_timeout => '1ms',
	search_path => 'nowhere',
	session_replication_role => 'replica',
	row_security => 'off',
	synchronous_commit => 'off',
	exit_on_error => 'on',
	role => 'nobody',
	check_function_bodies => 'off',
	quote_all_identifiers => 'on',
	standard_conforming_strings => 'off',
	transform_null_equals => 'on',
	bytea_output => 'escape',
	DateStyle => 'German',
	IntervalStyle => 'iso_8601',
	TimeZone => 'Asia/Kathmandu',
	log_statement => 'all',
	log_min_duration_statement => '0',
	client_min_messages => 'error',
	temp_tablespaces => 'pg_default',
	default_tablespace => 'pg_default',
	constraint_exclusion => 'off',
	enable_indexscan => 'off',
	event_triggers => 'off',
	'garbagetruck.caller' => 'somebody');
my @there = grep { $node->safe_psql('postgres', "SELECT count(*) FROM pg_settings WHERE name = '$_'") eq '1' || $_ eq 'role' } sort keys %spoilt;
my $n = 0;
for my $whose ('DATABASE postgres', 'ROLE ' . $node->safe_psql('postgres', 'SELECT quote_ident(current_user)'))
{
	# those who set it and ask are not concerned
	local $ENV{PGOPTIONS} = join ' ', map { "-c $_=" . ($_ eq 'search_path' ? 'public' : $node->safe_psql('postgres', "SELECT coalesce((SELECT reset_val FROM pg_settings WHERE name = '$_'), 'none')") =~ s/([ ,])/\\$1/gr) } @there;
	$node->safe_psql('postgres', join ';', map { "ALTER $whose SET $_ = '$spoilt{$_}'" } @there);
	ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'garbagetruck worker%'}), 'the workers that were there are gone');
	$n++;
	$node->safe_psql('postgres', qq{
		SELECT gt_release(gt_lease_create('released $n', cleanup => 'see'));
		SELECT gt_lease_create('expired $n', cleanup => 'see', duration => '100 ms');
		SELECT gt_release(gt_lease_create('bad $n', cleanup => 'clean', max_attempts => 2))});
	is(eventually($node, 'postgres', qq{SELECT count(*), bool_and(isolation = 'read committed'), bool_and(read_only = 'off'), bool_and(sync <> 'off'),
			bool_and(path NOT LIKE '%nowhere%'), bool_and(role <> 'nobody' AND caller = '') FROM seen WHERE id LIKE '% $n'}, '2|t|t|t|t|t'), '2|t|t|t|t|t',
		"$whose spoils nothing");
	is(eventually($node, 'postgres', qq{SELECT attempts FROM gt_dead WHERE object_id = 'bad $n' AND error LIKE 'can not clean%'}, '2'), '2',
		'and a handler that fails costs its attempts, not the worker');
	$node->safe_psql('postgres', "ALTER $whose RESET ALL");
}
is($node->safe_psql('postgres', q{SELECT sum(crashes) FROM gt_workers}), '0', 'no worker went down');

# A stronger synchronous_commit stays.
ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'garbagetruck worker%'}), 'the workers that were there are gone');
reload_and_see($node, 'synchronous_commit', 'remote_apply');
$node->safe_psql('postgres', q{SELECT gt_release(gt_lease_create('strong', cleanup => 'see'))});
is(eventually($node, 'postgres', q{SELECT sync FROM seen WHERE id = 'strong'}, 'remote_apply'), 'remote_apply', 'a stronger synchronous_commit stays');

# A standby that is away: the worker waits for it, as configured, and for nobody with a row locked.
$node->safe_psql('postgres', q{ALTER SYSTEM SET synchronous_commit = 'on'; ALTER SYSTEM SET synchronous_standby_names = 'away'});
$node->reload;
{
	local $ENV{PGOPTIONS} = '-c synchronous_commit=local';
	$node->safe_psql('postgres', q{SELECT gt_lease_create('waits', cleanup => 'see', duration => '100 ms')});
	ok($node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type LIKE 'garbagetruck worker%' AND wait_event = 'SyncRep'}), 'a worker waits for a standby');
	is($node->safe_psql('postgres', q{SET lock_timeout = '10 s'; SELECT gt_lease_create('waits', duration => '1 hour') IS NOT NULL}), 't', 'and has no rows locked');
	$node->safe_psql('postgres', q{ALTER SYSTEM SET synchronous_commit = 'local'});
	$node->reload;
	$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'garbagetruck worker%'});
	$node->safe_psql('postgres', q{SELECT gt_lease_create('goes on', cleanup => 'see', duration => '100 ms')});
	is(eventually($node, 'postgres', q{SELECT sync FROM seen WHERE id = 'goes on'}, 'local'), 'local', 'where nobody waits for the standby, workers do not');
}

$node->stop;
done_testing();
