# Rows with a deadline: by workers that sleep until then, over crashes, restarts, failovers, copies, dumps.
use strict;
use warnings;
use GarbageTruck;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# What takes its time goes on beside the rest, on a server of its own: a row that hangs, a rate, tables without number.
my $slow = truck('slow');
$slow->safe_psql('postgres', q{
	CREATE EXTENSION garbagetruck;
	CREATE TABLE t (id int PRIMARY KEY, expires_at timestamptz);
	CREATE TABLE rated (id int PRIMARY KEY, expires_at timestamptz);
	CREATE TABLE gone (id int, at timestamptz DEFAULT gt_clock());
	CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF TG_ARGV[0] = 't' AND OLD.id % 50 = 0 THEN PERFORM pg_sleep(3600); END IF;
		IF TG_ARGV[0] = 'rated' THEN INSERT INTO public.gone VALUES (OLD.id); END IF;
		RETURN OLD;
	END $$;
	CREATE TRIGGER log BEFORE DELETE ON t FOR EACH ROW EXECUTE FUNCTION log('t');
	CREATE TRIGGER log BEFORE DELETE ON rated FOR EACH ROW EXECUTE FUNCTION log('rated');
	SELECT gt_ttl_create('t', 'expires_at', create_index => true), gt_ttl_create('rated', 'expires_at', create_index => true, rate_limit => 20);
	INSERT INTO t SELECT i, now() FROM generate_series(1, 200) i;
	INSERT INTO rated SELECT i, now() FROM generate_series(1, 60) i;
	DO $$ BEGIN
		FOR i IN 1 .. 300 LOOP
			EXECUTE format('CREATE TABLE many_%s (id int PRIMARY KEY, expires_at timestamptz)', i);
			PERFORM gt_ttl_create('many_' || i, 'expires_at', create_index => true);
			EXECUTE format('INSERT INTO many_%s VALUES (1, now()), (2, now() + interval ''1 hour'')', i);
		END LOOP;
	END $$;
});

my $node = truck('main', "garbagetruck.restart_grace = '1s'");
$node->safe_psql('postgres', q{
	CREATE EXTENSION garbagetruck;
	CREATE TABLE t (id int PRIMARY KEY, expires_at timestamptz, note text);
	CREATE INDEX ON t (expires_at);
	SELECT gt_ttl_create('t', 'expires_at');
	CREATE TABLE gone (id int, expires_at timestamptz, at timestamptz DEFAULT gt_clock());
	CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF OLD.note = 'raise' THEN RAISE 'no'; END IF;
		IF OLD.note = 'die' THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
		IF OLD.note = 'gate' THEN
			WHILE NOT EXISTS (SELECT FROM public.gate) LOOP PERFORM pg_sleep(0.01); END LOOP;
		END IF;
		INSERT INTO public.gone (id, expires_at) VALUES (OLD.id, OLD.expires_at);
		RETURN OLD;
	END $$;
	CREATE TABLE gate (opened boolean);
	CREATE TRIGGER log BEFORE DELETE ON t FOR EACH ROW EXECUTE FUNCTION log();
});

# The worker is told of each deadline that is earlier than what it knows; none goes early.
$node->safe_psql('postgres', q{INSERT INTO t VALUES (1, now() + interval '1 hour'), (2, NULL), (3, 'infinity')});
$node->safe_psql('postgres', q{INSERT INTO t VALUES (4, now() + interval '2 s')});
$node->safe_psql('postgres', q{INSERT INTO t VALUES (5, now() + interval '1 s')});
is(eventually($node, 'postgres', q{SELECT string_agg(id::text, ' ' ORDER BY at) FROM gone}, '5 4'), '5 4', 'rows go in the order of their deadlines');
$node->safe_psql('postgres', q{UPDATE t SET expires_at = now() + interval '500 ms' WHERE id = 1});
is(eventually($node, 'postgres', 'SELECT count(*) FROM gone WHERE id = 1', '1'), '1', 'a deadline that was moved to an earlier time is met');
is($node->safe_psql('postgres', 'SELECT count(*) FROM gone WHERE at < expires_at'), '0', 'none went early');
is($node->safe_psql('postgres', 'SELECT string_agg(id::text, $$ $$ ORDER BY id) FROM t'), '2 3', 'what has no deadline stays');
like($node->safe_psql('postgres', q{SELECT value FROM gt_metrics() WHERE name = 'garbagetruck_ttl_rows_total'}), qr/^3$/, 'they are counted');
is($node->safe_psql('postgres', q{SELECT value FROM gt_metrics() WHERE name = 'garbagetruck_ttl_lag_seconds_count'}), '3', 'and so is their lag');
# COPY tells, too
$node->safe_psql('postgres', qq{COPY t (id, expires_at) FROM stdin;\n6\t2020-01-01\n7\t2020-01-01\n\\.\n});
is(eventually($node, 'postgres', 'SELECT count(*) FROM gone WHERE id IN (6, 7)', '2'), '2', 'what was copied in goes');

# What comes as from a subscription is told of.
$node->safe_psql('postgres', q{SET session_replication_role = replica; INSERT INTO t VALUES (8, now())});
is(eventually($node, 'postgres', 'SELECT count(*) FROM gone WHERE id = 8', '1'), '1', 'what is replicated goes');

# One row hangs in its trigger, another raises: the rest of the table, and another table, go on.
$node->safe_psql('postgres', q{
	CREATE TABLE other (id int PRIMARY KEY, expires_at timestamptz);
	SELECT gt_ttl_create('other', 'expires_at', create_index => true);
	INSERT INTO t VALUES (10, now(), 'gate');
	INSERT INTO t SELECT i, now(), CASE i WHEN 20 THEN 'raise' END FROM generate_series(11, 40) i;
	INSERT INTO other VALUES (1, now());
});
is(eventually($node, 'postgres', 'SELECT count(*) FROM other', '0'), '0', 'another table does not wait for a row that hangs');
$node->safe_psql('postgres', q{INSERT INTO t VALUES (41, now())});
is(eventually($node, 'postgres', 'SELECT count(*) FROM gone WHERE id = 41', '1'), '1', 'nor does another row of its table');
is(eventually($node, 'postgres', 'SELECT count(*) FROM gone WHERE id BETWEEN 10 AND 40', '29'), '29', 'nor do those that were chosen with it');
$node->safe_psql('postgres', 'INSERT INTO gate VALUES (true)');
is(eventually($node, 'postgres', 'SELECT count(*) FROM gone WHERE id BETWEEN 10 AND 40', '30'), '30', 'all but one go');
is($node->safe_psql('postgres', q{SELECT object_id, handler IS NULL, error FROM gt_garbage}), '20|t|no (SQLSTATE P0001)', 'which is put aside');
$node->safe_psql('postgres', q{UPDATE t SET note = NULL WHERE id = 20; SELECT gt_redrive()});
is(eventually($node, 'postgres', 'SELECT count(*) FROM gone WHERE id = 20', '1'), '1', 'and goes when it can');

# One takes the worker down. The others go; it is charged when it is by itself, and the second time in a row stops the table.
$node->safe_psql('postgres', q{INSERT INTO t SELECT i, now(), CASE i WHEN 57 THEN 'die' END FROM generate_series(50, 60) i});
is(eventually($node, 'postgres', 'SELECT count(*) FROM gone WHERE id BETWEEN 50 AND 60', '10'), '10', 'a row that ends the worker keeps no other');
is(eventually($node, 'postgres', q{SELECT paused, paused_reason ~ 'row "57"' FROM gt_ttls WHERE table_name = 't'::regclass}, 't|t'), 't|t',
	'and after the second time by itself the table is paused, with the cause');
is($node->safe_psql('postgres', q{SELECT ok FROM gt_health() WHERE check_name = 'ttl'}), 'f', 'which gt_health tells');
$node->safe_psql('postgres', q{UPDATE t SET note = NULL WHERE id = 57; SELECT gt_ttl_create('t', 'expires_at'); SELECT gt_redrive()});
is(eventually($node, 'postgres', 'SELECT count(*) FROM gone WHERE id = 57', '1'), '1', 'mended and declared anew it goes on');

# A crash in the middle of 20,000 deletions with a cleanup: rows deleted = garbage made, none twice.
$node->safe_psql('postgres', q{
	SELECT gt_handler_create('files', 'queue');
	CREATE TABLE file (id int PRIMARY KEY, expires_at timestamptz, path text);
	SELECT gt_ttl_create('file', 'expires_at', 'files', create_index => true, paused => true);
	INSERT INTO file SELECT i, now(), 'path ' || i FROM generate_series(1, 20000) i;
	SELECT gt_ttl_create('file', 'expires_at', 'files');
});
for my $n (1 .. 3)
{
	$node->poll_query_until('postgres', 'SELECT count(*) < ' . (20000 - 5000 * $n) . ' FROM file') or die 'nothing is deleted';
	my $pid = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'garbagetruck worker%' LIMIT 1});
	if ($n < 3) { wait_until_gone($pid) if $pid ne '' && kill 'KILL', $pid; wait_for_restart($node); }
	else { $node->stop('immediate'); $node->start; }
	is($node->safe_psql('postgres', 'SELECT (SELECT count(*) FROM file) + (SELECT count(*) FROM gt_garbage WHERE handler IS NOT NULL)'), '20000', 'each row is there, or garbage');
}
is(eventually($node, 'postgres', 'SELECT count(*) FROM file', '0'), '0', 'all of them go in the end');
is($node->safe_psql('postgres', q{SELECT count(*), count(DISTINCT object_id), bool_and(payload ->> 'path' = 'path ' || object_id) FROM gt_garbage}),
	'20000|20000|t', 'each has become garbage, once');
is($node->safe_psql('postgres', q{SELECT count(*) FROM gt_garbage WHERE handler IS NULL}), '0', 'and none was charged');
$node->safe_psql('postgres', q{SELECT count(*) FROM (SELECT gt_ack(cleanup_id, attempts) FROM gt_garbage OFFSET 0) a});

# The grace counts from the server's return.
$node->safe_psql('postgres', q{
	CREATE TABLE beat (id int PRIMARY KEY, expires_at timestamptz);
	SELECT gt_ttl_create('beat', 'expires_at', create_index => true, grace => '5 s');
	INSERT INTO beat VALUES (1, now() + interval '100 ms');
});
$node->stop;
$node->start;
is($node->safe_psql('postgres', 'SELECT count(*) FROM beat'), '1', 'after a restart a row has its grace');
is(eventually($node, 'postgres', 'SELECT count(*) FROM beat', '0'), '0', 'and goes when that is over');

# Partitions, those too that come later; TRUNCATE, a rewrite, an index that is made anew.
$node->safe_psql('postgres', q{
	CREATE TABLE p (id int, at timestamptz, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
	CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (MINVALUE) TO ('2020-01-01');
	SELECT gt_ttl_create('p', 'at', create_index => true);
	CREATE TABLE p2 PARTITION OF p FOR VALUES FROM ('2020-01-01') TO (MAXVALUE);
	INSERT INTO p VALUES (1, '2019-01-01'), (2, '2021-01-01'), (3, now() + interval '1 s'), (4, now() + interval '1 hour');
});
is(eventually($node, 'postgres', 'SELECT count(*) FROM p', '1'), '1', 'rows go from every partition');
$node->safe_psql('postgres', q{TRUNCATE t});
$node->safe_psql('postgres', q{INSERT INTO t VALUES (70, now() + interval '500 ms')});
$node->safe_psql('postgres', q{VACUUM FULL t});
$node->safe_psql('postgres', q{REINDEX TABLE CONCURRENTLY t});
is(eventually($node, 'postgres', 'SELECT count(*) FROM gone WHERE id = 70', '1'), '1', 'TRUNCATE, VACUUM FULL and REINDEX do no harm');

# What somebody has locked is left, and nothing waits for it.
my $holder = $node->background_psql('postgres');
$holder->query_safe('BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE');
$node->safe_psql('postgres', q{INSERT INTO other VALUES (2, now())});
is(eventually($node, 'postgres', 'SELECT count(*) FROM other', '0'), '0', 'a table that is locked holds up no other');
$holder->query_safe('ROLLBACK');
$holder->query_safe("INSERT INTO t VALUES (80, now() + interval '1 s'); BEGIN; SELECT FROM t WHERE id = 80 FOR UPDATE");
$node->safe_psql('postgres', q{INSERT INTO t VALUES (81, now())});
is(eventually($node, 'postgres', 'SELECT count(*) FROM gone WHERE id = 81', '1'), '1', 'a row that is locked holds up no other');
$holder->query_safe("UPDATE t SET expires_at = now() + interval '1 hour' WHERE id = 80; COMMIT");
# How often it is looked at: soon again at first, and ever more rarely.
my $looks = q{(SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 't_expires_at_idx')};
my $looked = $node->safe_psql('postgres', "SELECT $looks");
my $locked_at = $holder->query_safe("INSERT INTO t VALUES (82, now() + interval '500 ms') RETURNING expires_at; BEGIN; SELECT FROM t WHERE id = 82 FOR UPDATE");
ok($node->poll_query_until('postgres', "SELECT $looks >= $looked + 14"), 'a row that is locked is looked at again');
ok($node->poll_query_until('postgres', "SELECT gt_clock() > '$locked_at'::timestamptz + interval '2 s'"), 'it has been locked for a while');
cmp_ok($node->safe_psql('postgres', "SELECT ($looks - $looked) / (1 + log(2, (extract(epoch FROM gt_clock() - '$locked_at') / 2)::numeric))"), '<', 50, 'but not all the time');
$holder->query_safe('ROLLBACK');
is(eventually($node, 'postgres', 'SELECT count(*) FROM gone WHERE id = 82', '1'), '1', 'and goes when it is not locked any more');
$holder->quit;

# What it needs is dropped, and made again: it goes on by itself.
my $index = $node->safe_psql('postgres', q{SELECT indexrelid::regclass FROM pg_index WHERE indrelid = 'other'::regclass AND NOT indisprimary});
$node->safe_psql('postgres', "DROP INDEX $index");
$node->safe_psql('postgres', q{INSERT INTO other VALUES (3, now())});
is(eventually($node, 'postgres', q{SELECT remedy FROM gt_health() WHERE check_name = 'ttl'}, 'CREATE INDEX CONCURRENTLY ON public.other (expires_at);'),
	'CREATE INDEX CONCURRENTLY ON public.other (expires_at);', 'without its index a table is suspended');
$node->safe_psql('postgres', $node->safe_psql('postgres', q{SELECT remedy FROM gt_health() WHERE check_name = 'ttl'}));
is(eventually($node, 'postgres', 'SELECT count(*) FROM other', '0'), '0', 'and goes on when it has one');
$node->safe_psql('postgres', q{CREATE ROLE app; ALTER TABLE other OWNER TO app; INSERT INTO other VALUES (4, now())});
is(eventually($node, 'postgres', q{SELECT remedy FROM gt_health() WHERE check_name = 'ttl'}, q{SELECT gt_ttl_create('public.other', 'expires_at');}),
	q{SELECT gt_ttl_create('public.other', 'expires_at');}, 'so it is when it belongs to another');
$node->safe_psql('postgres', q{SELECT gt_allow('app', 'handler'); SET ROLE app; SELECT gt_ttl_create('public.other', 'expires_at')});
is(eventually($node, 'postgres', 'SELECT count(*) FROM other', '0'), '0', 'and goes on when that one declares it');

$node->safe_psql('postgres', q{SELECT gt_handler_create('other', 'queue'), gt_handler_grant('other', 'app'); SELECT gt_ttl_create('other', 'expires_at', 'other');
	SELECT gt_handler_revoke('other', 'app'); INSERT INTO other VALUES (5, now())});
is(eventually($node, 'postgres', q{SELECT remedy FROM gt_health() WHERE check_name = 'ttl'}, q{SELECT gt_handler_grant('other', 'app');}), q{SELECT gt_handler_grant('other', 'app');},
	'so it is when its owner may not use the handler any more');
$node->safe_psql('postgres', q{SELECT gt_handler_grant('other', 'app')});
is(eventually($node, 'postgres', 'SELECT count(*) FROM other', '0'), '0', 'and goes on when he may');
$node->safe_psql('postgres', q{SELECT gt_ack(cleanup_id, attempts) FROM gt_garbage WHERE handler = 'other'});

# A copy of the database does nothing until it is adopted.
$node->safe_psql('postgres', q{INSERT INTO t VALUES (90, now() + interval '1 hour')});
$node->safe_psql('template1', 'CREATE DATABASE copy TEMPLATE postgres');
# So does what is restored from a dump, which has it all.
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'pg_dump', '-Fc', '-f', $node->basedir . '/dump', '-d', $node->connstr('postgres') ], 'pg_dump');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('restored'), $node->basedir . '/dump' ], 'pg_restore');
$node->safe_psql($_, q{UPDATE t SET expires_at = now() WHERE id = 90}) for 'postgres', 'copy', 'restored';
is(eventually($node, 'postgres', 'SELECT count(*) FROM gone WHERE id = 90', '1'), '1', 'the original goes on');
for my $db ('copy', 'restored')
{
	my $state = 'SELECT string_agg(table_name::text, $$ $$ ORDER BY table_name::text), count(*) FILTER (WHERE paused) FROM gt_ttls';
	is($node->safe_psql($db, $state), $node->safe_psql('postgres', $state), "$db: all is declared");
	is($node->safe_psql($db, q{SELECT ok FROM gt_health() WHERE check_name = 'place'}), 'f', "$db: it is a copy");
	is($node->safe_psql($db, 'SELECT count(*) FROM t WHERE id = 90'), '1', "$db: its rows stay");
	$node->safe_psql($db, 'SELECT gt_resume(adopt => true)');
	is(eventually($node, $db, 'SELECT count(*) FROM t WHERE id = 90', '0'), '0', "$db: adopted, they go");
	$node->safe_psql($db, q{INSERT INTO t VALUES (91, now() + interval '300 ms')});
	is(eventually($node, $db, 'SELECT count(*) FROM t WHERE id = 91', '0'), '0', "$db: and it is told of new ones");
}

# A standby is idle, and knows nothing of rows that are not logged; promoted it goes on.
$node->safe_psql('postgres', q{CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY, expires_at timestamptz); SELECT gt_ttl_create('unlogged', 'expires_at', create_index => true)});
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
$node->safe_psql('postgres', q{INSERT INTO t VALUES (100, now() + interval '4 s')});
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
is($standby->safe_psql('postgres', q{SELECT next_due_at IS NOT NULL, paused FROM gt_ttls WHERE table_name = 't'::regclass}), 't|f', 'a standby shows it');
is($standby->safe_psql('postgres', q{SELECT detail FROM gt_health() WHERE check_name = 'ttl' AND NOT ok AND detail ~ 'unlogged'}), '', 'and a table that is not logged is well there');
my $err;
$standby->psql('postgres', "\\set VERBOSITY verbose\nSELECT gt_ttl_create('t', 'expires_at')", stderr => \$err);
like($err, qr/25006/, 'gt_ttl_create: 25006 on a standby');
$node->stop('immediate');
$standby->promote;
is(eventually($standby, 'postgres', 'SELECT count(*) FROM gone WHERE id = 100', '1'), '1', 'promoted, it deletes');

# The server of what takes its time: four rows of 200 hang, and no other waits for them; each is charged when its time is over.
is(eventually($slow, 'postgres', 'SELECT count(*) FROM t', '4'), '4', 'rows that hang keep no others');
is(eventually($slow, 'postgres', q{SELECT count(*) > 0 FROM gt_garbage WHERE handler IS NULL AND attempts > 0 AND error = 'timeout of 30000 ms exceeded (SQLSTATE 57014)'}, 't'),
	't', 'they are told of when 30 s are over');
is($slow->safe_psql('postgres', q{SELECT count(*), bool_and(object_id::int % 50 = 0) FROM gt_garbage}), '4|t', 'they, and no others, are put aside');
is($slow->safe_psql('postgres', q{SELECT count(*) FROM (SELECT count(*) OVER (ORDER BY at RANGE BETWEEN CURRENT ROW AND '1 s' FOLLOWING) AS n FROM gone) w WHERE n > 30}), '0',
	'a rate is kept to');
is(eventually($slow, 'postgres', 'SELECT count(*) FROM rated', '0'), '0', 'and all rows go');
is(eventually($slow, 'postgres', q{SELECT sum(rows_removed), count(*) FROM gt_ttls WHERE table_name::text LIKE 'many%'}, '300|300'), '300|300', 'however many tables there are, each has its turn');
# A deadline that another trigger moves, which no trigger tells of, is met within a naptime.
reload_and_see($slow, 'garbagetruck.naptime', '1s');
$slow->safe_psql('postgres', q{
	CREATE TABLE moved (id int PRIMARY KEY, expires_at timestamptz, note text);
	CREATE FUNCTION move() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.expires_at := now(); RETURN NEW; END $$;
	CREATE TRIGGER move BEFORE UPDATE ON moved FOR EACH ROW EXECUTE FUNCTION move();
	SELECT gt_ttl_create('moved', 'expires_at', create_index => true);
	INSERT INTO moved VALUES (1, now() + interval '1 hour'), (2, now());
});
$slow->poll_query_until('postgres', 'SELECT count(*) = 1 FROM moved') or die 'no row is deleted';
$slow->safe_psql('postgres', q{UPDATE moved SET note = 'x'});
is(eventually($slow, 'postgres', 'SELECT count(*) FROM moved', '0'), '0', 'a deadline that another trigger moves is met');
$slow->stop;

# It goes with the extension.
$standby->safe_psql('postgres', 'ALTER TABLE gone ALTER at DROP DEFAULT; DROP EXTENSION garbagetruck');
is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'gt_ttl_wake%'}), '0', 'DROP EXTENSION takes the triggers along');
$standby->safe_psql('postgres', q{INSERT INTO t VALUES (101, now())});
$standby->stop;
done_testing();
