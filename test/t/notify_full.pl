# A full NOTIFY queue delays the notify kinds, charges nobody, and stops no other handler. Only from PostgreSQL 17 on can
# the queue be made small enough to be filled (max_notify_queue_pages); before it is of 8 GB.
use strict;
use warnings;
use GarbageTruck;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($major) = `$ENV{PG_REGRESS} --version` =~ /PostgreSQL\D* (\d+)/;
plan skip_all => 'the size of the NOTIFY queue is a setting from PostgreSQL 17 on' if $major < 17;

my $node = truck('full', 'max_notify_queue_pages = 64');
set_up($node);
$node->safe_psql('postgres', q{
	SELECT gt_handler_create('hint', 'notify', 'hints', retry_delay => '1 hour', max_attempts => 1);
	SELECT gt_handler_create('once', 'notify_only', 'hints', max_attempts => 1);
	SELECT gt_handler_create('work', 'queue');
	CREATE PROCEDURE fill() LANGUAGE plpgsql AS $$
	BEGIN
		LOOP
			PERFORM pg_notify('noise', n || repeat('x', 7900)) FROM generate_series(1, 10) n;
			COMMIT;
		END LOOP;
	END $$;
});

# A listener in an open transaction has not read what others send: until it has, the queue keeps all of it.
my $listener = $node->background_psql('postgres');
$listener->query_safe('LISTEN noise');
$listener->query_safe('BEGIN');
my $stderr;
$node->psql('postgres', 'CALL fill()', stderr => \$stderr);
like($stderr, qr/too many notifications/, 'the queue is full');
cmp_ok($node->safe_psql('postgres', 'SELECT pg_notification_queue_usage()'), '>', 0.9, 'and stays so');

$node->safe_psql('postgres', q{
	SELECT gt_release(gt_lease_create(h || n, cleanup => h)) FROM unnest('{hint,once,work}'::text[]) h, generate_series(1, 50) n;
	SELECT gt_release(gt_lease_create('a' || n, cleanup => 'clean')) FROM generate_series(1, 50) n;
});
ok($node->poll_query_until('postgres', 'SELECT count(*) = 50 FROM cleaned'), 'other handlers go on');
is($node->safe_psql('postgres', q{SELECT count(gt_ack(cleanup_id, attempt)) FROM gt_claim('{work}', 100)}), '50', 'and so do consumers');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 100 FROM gt_garbage WHERE error = 'the notify queue is full'}),
	'what was to be announced waits, and says for what');
is($node->safe_psql('postgres', q{SELECT DISTINCT handler, state, attempts FROM gt_garbage WHERE next_attempt_at > gt_clock() ORDER BY 1}),
	"hint|waiting|0\nonce|waiting|0", 'that is no attempt');
$node->safe_psql('postgres', q{SELECT gt_release(gt_lease_create('b', cleanup => 'clean'))});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM cleaned WHERE id = 'b'}), 'workers are there as before');

$listener->query_safe('COMMIT');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 50 FROM gt_garbage WHERE next_attempt_at > gt_clock() + interval '50 minutes'}),
	'once there is room, all are announced');
is($node->safe_psql('postgres', q{SELECT count(*) FROM gt_garbage WHERE handler = 'once'}), '0', 'those to be forgotten, too');
is($node->safe_psql('postgres', q{SELECT count(*) FROM gt_garbage WHERE gt_ack(cleanup_id, 1)}), '50', 'by their first token');
is($node->safe_psql('postgres', q{SELECT sum(failures) FROM gt_handlers}), '0', 'nobody was charged');

# More than the queue holds goes out piece by piece.
$node->safe_psql('postgres', q{
	SELECT gt_release_many(gt_lease_create_many(ARRAY(SELECT 'c' || n FROM generate_series(1, 300) n), cleanup => 'hint',
		payload => to_jsonb(repeat('x', 1500))))});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 300 FROM gt_garbage WHERE next_attempt_at > gt_clock() + interval '50 minutes'}),
	'a batch that is larger than the queue is announced in pieces');
unlike(slurp_file($node->logfile), qr/garbagetruck: a run of handler .* was interrupted/, 'no worker ran into it');

$listener->quit;
$node->stop;
done_testing();
