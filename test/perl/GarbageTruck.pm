# A server with the extension, for the TAP tests of the processes: workers wake by themselves (naptime is an hour, so
# that nothing is found by polling), and every wait has a condition and a limit.
package GarbageTruck;
use strict;
use warnings;
use Exporter 'import';
use File::Basename;
use File::Path qw(make_path);
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

our @EXPORT = qw(truck set_up lease_version renewed_in_memory cleaned eventually in_background finish_background gate_is_waiting
	workers kill_process wait_until_gone wait_for_restart reload_and_see own_installation fault fault_waits no_fault);

# A started node whose library is preloaded; further lines for postgresql.conf may follow the name.
sub truck
{
	my ($name, @conf) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init(allows_streaming => 1);
	$node->append_conf('postgresql.conf', join("\n",
		"shared_preload_libraries = 'garbagetruck'",
		"garbagetruck.naptime = '1h'",
		"garbagetruck.min_lease_duration = '1ms'",
		"garbagetruck.restart_grace = '2s'",
		'max_worker_processes = 16',
		'log_min_messages = info',
		'restart_after_crash = on', @conf) . "\n");
	$node->start;
	return $node;
}

# The extension in a database, and a handler "clean" that writes down what it cleans in the table cleaned. Objects
# whose name begins with "gate" wait in it until the table gate has a row, those with "bad" fail, "die" takes the
# worker down, "crash" the server.
sub set_up
{
	my ($node, $db) = @_;
	$db //= 'postgres';
	$node->safe_psql($db, q{
		CREATE EXTENSION garbagetruck;
		CREATE TABLE cleaned (n serial, id text, attempt int, at timestamptz DEFAULT gt_clock(), pid int DEFAULT pg_backend_pid());
		CREATE TABLE gate (opened boolean);
		CREATE FUNCTION clean(id text, attempt int) RETURNS void LANGUAGE plpgsql AS $$
		BEGIN
			IF starts_with(id, 'gate') THEN
				WHILE NOT EXISTS (SELECT FROM public.gate) LOOP PERFORM pg_sleep(0.01); END LOOP;
			ELSIF starts_with(id, 'bad') THEN
				RAISE EXCEPTION 'can not clean %', id;
			ELSIF starts_with(id, 'die') THEN
				PERFORM pg_terminate_backend(pg_backend_pid());
			END IF;
			INSERT INTO public.cleaned (id, attempt) VALUES (id, attempt);
		END $$;
		SELECT gt_handler_create('clean', 'sql', 'SELECT public.clean($1, $8)', retry_delay => '10 ms', timeout => '5 minutes');
	});
	return;
}

# The version of the lease's row: who wrote it.
sub lease_version
{
	my ($node, $lease) = @_;
	return $node->safe_psql('postgres', "SELECT xmin FROM _garbagetruck.gt_lease WHERE id = '$lease'");
}

# Renews the lease until its deadline is later than its row says; returns the deadline.
sub renewed_in_memory
{
	my ($node, $lease) = @_;
	for (1 .. 100)
	{
		my ($until, $later) = split /\|/, $node->safe_psql('postgres',
			"SELECT u, u > deadline FROM gt_renew('$lease') u, _garbagetruck.gt_lease WHERE id = '$lease'");
		return $until if $later eq 't';
		usleep(10_000);
	}
	die 'no renewal is kept in memory';
}

# Waits until what was cleaned is this: names in order, "a a" if a was cleaned twice.
sub cleaned
{
	my ($node, $db, $want, $name) = @_;
	my $seen = eventually($node, $db,
		q{SELECT coalesce(string_agg(id, ' ' ORDER BY id COLLATE "C"), '') FROM cleaned}, $want);
	return is($seen, $want, $name);
}

# Asks until the answer is the wanted one, or too long; returns the last answer.
sub eventually
{
	my ($node, $db, $query, $want) = @_;
	my $seen = '';
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		my ($stdout, $stderr);
		$node->psql($db, $query, stdout => \$stdout, stderr => \$stderr);
		$seen = $stdout // '';
		last if $seen eq $want;
		usleep(100_000);
	}
	return $seen;
}

# A psql of its own that runs this and stays away until it has; finish_background returns its output.
sub in_background
{
	my ($node, $db, $sql) = @_;
	my %job = (out => '', err => '');
	$job{run} = IPC::Run::start(
		[ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($db), '-c', $sql ],
		'<', \undef, '>', \$job{out}, '2>', \$job{err},
		IPC::Run::timer($PostgreSQL::Test::Utils::timeout_default));
	return \%job;
}

sub finish_background
{
	my ($job) = @_;
	$job->{run}->finish;
	return $job->{out} . $job->{err};
}

# Waits until a handler is at the gate in this database; returns the pid of its worker.
sub gate_is_waiting
{
	my ($node, $db) = @_;
	my $who = q{FROM pg_stat_activity WHERE backend_type LIKE 'garbagetruck worker%' AND wait_event = 'PgSleep' AND datname = current_database()};
	$node->poll_query_until($db, "SELECT count(*) = 1 $who") or die 'no handler at the gate';
	return $node->safe_psql($db, "SELECT pid $who");
}

# How many workers there are, of all databases.
sub workers
{
	my ($node) = @_;
	return $node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'garbagetruck worker%'});
}

# kill -9, and wait until the process is gone.
sub kill_process
{
	my ($pid) = @_;
	kill 'KILL', $pid or die "no process $pid";
	wait_until_gone($pid);
	return;
}

sub wait_until_gone
{
	my ($pid) = @_;
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return unless kill 0, $pid;
		usleep(100_000);
	}
	die "process $pid would not go";
}

# After a crash of a process: the server is back and takes connections. The query is an argument: a psql that finds no
# server is gone before anything can be written to it, which would end the test ("Broken pipe").
sub wait_for_restart
{
	my ($node) = @_;
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		my ($stdout, $stderr);
		return if IPC::Run::run([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', 'SELECT 1' ],
			'<', \undef, '>', \$stdout, '2>', \$stderr);
		usleep(100_000);
	}
	die 'the server did not come back';
}

# Sets it by ALTER SYSTEM and waits until new sessions see it.
sub reload_and_see
{
	my ($node, $setting, $value) = @_;
	$node->safe_psql('postgres', "ALTER SYSTEM SET $setting = '$value'");
	$node->reload;
	$node->poll_query_until('postgres', "SELECT setting = (SELECT setting FROM pg_file_settings WHERE name = '$setting' ORDER BY seqno DESC LIMIT 1) OR current_setting('$setting') = '$value' FROM pg_settings WHERE name = '$setting'")
		or die "$setting did not change";
	return;
}

# A copy of the server's installation, of links, in which files may be replaced: its directory (install_path), that of the
# extensions' scripts, and that of libraries.
sub own_installation
{
	my %own = map { chomp(my $dir = `pg_config --${_}dir`); $_ => $dir } 'bin', 'share', 'pkglib';
	my $common = $own{bin};
	$common =~ s,/[^/]*$,, while grep { index("$_/", "$common/") != 0 } values %own;
	my $copy = PostgreSQL::Test::Utils::tempdir() . '/copy';
	my $in_copy = sub { return $copy . substr($_[0], length $common) };
	for my $dir (dirname($own{bin}), $own{share}, $own{pkglib})
	{
		my $there = $in_copy->($dir);
		next if -e $there;		# as part of one before it
		make_path(dirname($there));
		system('cp', '-al', $dir, $there) == 0 or die "$dir was not copied";
	}
	return ($in_copy->(dirname($own{bin})), $in_copy->($own{share}) . '/extension', $in_copy->($own{pkglib}));
}

# Fault points (builds with FAULTS=1): what the next process that comes by does: wait, error, fatal or crash.
sub fault
{
	my ($node, $point, $action) = @_;
	append_to_file($node->data_dir . "/gt_point.$point", "$action\n");
	return;
}

# Waits until a process waits there, or, for the other actions, until one has been.
sub fault_waits
{
	my ($node, $point, $action) = @_;
	my $file = $node->data_dir . "/gt_point.$point";
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return 1 if ($action // 'wait') eq 'wait' ? -e "$file.waiting" : !-e $file;
		usleep(100_000);
	}
	return 0;
}

sub no_fault
{
	my ($node, $point) = @_;
	unlink $node->data_dir . "/gt_point.$point";
	return;
}

1;
