-- Renewing.
\set VERBOSITY terse
SELECT gt_lease_create('renew 1', duration => '1 minute') AS a \gset
SELECT expires_at AS before FROM gt_lease_get(:'a') \gset
SELECT gt_renew(:'a') AS new \gset
SELECT :'new' > :'before' AS later;
SELECT renewals, renewed_at > created_at AS renewed, expires_at >= :'new' AS shown, duration FROM gt_lease_get(:'a');

-- never shortens; a longer one raises the duration
SELECT gt_renew(:'a', '1 hour') AS hour \gset
SELECT gt_renew(:'a', '1 second') = :'hour' AS not_shorter, duration FROM gt_lease_get(:'a');
SELECT gt_renew(:'a') > :'hour' AS by_its_own_duration;
SELECT t.fails(format('SELECT gt_renew(%L, %L)', :'a', d)) FROM unnest(ARRAY['0', '-1 s', '31 days', '1000000 years']) d;

-- the service must be the lease's where it is given
SELECT service_id AS service FROM gt_lease_get(:'a') \gset
SELECT gt_renew(:'a', service_id => :'service') IS NOT NULL AS renewed;
SELECT t.fails(format('SELECT gt_renew(%L, service_id => %L)', :'a', 'another'));

-- many: each by itself, in input order, duplicates too
SELECT gt_lease_create('renew 2', duration => '100 ms') AS over \gset
SELECT gt_lease_create('renew 3', service_id => 'another') AS other \gset
SELECT gt_lease_create('renew 4', parent => :'a') AS child \gset
SELECT t.until_over(:'over');
SELECT status, ttl BETWEEN '59 minutes' AND '1 hour' AS ttl, expires_at IS NOT NULL AS expires, array_position(ARRAY[:'a', :'over', :'other', :'child']::uuid[], lease_id) AS which
FROM gt_renew_many(ARRAY[:'a', :'over', NULL, :'other', :'child', '00000000-0000-7000-8000-000000000000', :'a']::uuid[], service_id => :'service')
	WITH ORDINALITY ORDER BY ordinality;
SELECT count(*) FROM gt_renew_many('{}');
SELECT t.state('SELECT gt_renew_many(NULL)');
SELECT t.state(format('SELECT gt_renew_many(%L, %L)', ARRAY[:'a']::uuid[], '31 days'));

-- a child is never renewed
SELECT t.fails(format('SELECT gt_renew(%L)', :'child'));

-- a durable renewal rolls back with the transaction
SELECT gt_lease_create('renew 5', duration => '1 minute') AS r \gset
SELECT expires_at AS before FROM gt_lease_get(:'r') \gset
BEGIN;
SELECT gt_renew(:'r', '1 hour') > :'before' AS renewed;
ROLLBACK;
SELECT expires_at = :'before' AS as_before FROM gt_lease_get(:'r');

-- within the transaction that creates it
BEGIN;
SELECT gt_lease_create('renew 6', duration => '1 minute') AS r \gset
SELECT gt_renew(:'r', '1 hour') > gt_clock() + interval '59 minutes' AS renewed;
COMMIT;
SELECT expires_at > gt_clock() + interval '59 minutes' AS kept, duration FROM gt_lease_get(:'r');

-- as HOT updates: a renewal writes to no index
SELECT gt_lease_create('renew 7', duration => '1 minute') AS r \gset
SELECT check_at AS before FROM _garbagetruck.gt_lease WHERE id = :'r' \gset
SELECT gt_renew(:'r', '2 minutes') IS NOT NULL AS renewed;
SELECT check_at = :'before' AS left_alone, deadline > check_at AS moved FROM _garbagetruck.gt_lease WHERE id = :'r';

-- gt_lease_update with a duration: from now on, sooner or later over than before; a renewal
SELECT gt_lease_create('renew 8', duration => '1 hour') AS r \gset
SELECT gt_lease_update(:'r', duration => '2 hours');
SELECT expires_at > gt_clock() + interval '119 minutes' AS later, duration, renewals, renewed_at > created_at AS renewed FROM gt_lease_get(:'r');
SELECT gt_lease_update(:'r', duration => '1 minute', payload => '{"step": 1}');
SELECT expires_at BETWEEN gt_clock() + interval '59 seconds' AND gt_clock() + interval '1 minute' AS sooner, duration, renewals, payload FROM gt_lease_get(:'r');
SELECT check_at = deadline AS met_in_time FROM _garbagetruck.gt_lease WHERE id = :'r';
SELECT gt_lease_update(:'r', duration => '1 hour');
SELECT check_at < deadline AS left_alone FROM _garbagetruck.gt_lease WHERE id = :'r';
-- it is undone with its transaction, and met by gt_reclaim() when it is over
BEGIN;
SELECT gt_lease_update(:'r', duration => '100 ms');
ROLLBACK;
SELECT duration, renewals FROM gt_lease_get(:'r');
SELECT gt_lease_update(:'r', duration => '100 ms');
SELECT t.until_over(:'r');
SELECT t.fails(format('SELECT gt_lease_update(%L, duration => %L)', :'r', '1 hour'));
CALL gt_reclaim() \g /dev/null
SELECT t.fails(format('SELECT gt_lease_update(%L, duration => %L)', :'r', '1 hour'));
SELECT t.fails(format('SELECT gt_lease_update(%L, duration => %L)', :'a', d)) FROM unnest(ARRAY['0', '31 days']) d;
-- of a child nothing but notes
SELECT t.fails(format('SELECT gt_lease_update(%L, duration => %L)', :'child', '1 hour'));
SELECT gt_lease_update(:'child', payload => '{"step": 2}');
-- in the transaction that creates it: at the commit it has half of the shorter duration left at least
BEGIN;
SELECT gt_lease_create('renew 9', duration => '1 hour') AS r \gset
SELECT gt_lease_update(:'r', duration => '140 ms');
SELECT pg_sleep(0.15);
SELECT gt_clock() AS before \gset
COMMIT;
SELECT deadline > :'before'::timestamptz + interval '135 ms' AS stamped_anew, duration FROM _garbagetruck.gt_lease WHERE id = :'r';
-- versions that cannot go yet are not walked through: a look-up reads a few pages, however often the row was written
BEGIN;
SELECT gt_lease_create('renew 10', duration => '1 hour') AS r \gset
SELECT count(*) FROM generate_series(1, 10000) g, LATERAL gt_lease_update(:'r', duration => '1 hour' + g * interval '1 ms') u;
CREATE FUNCTION pg_temp.pages(lease uuid) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE plan jsonb;
BEGIN
	EXECUTE format('EXPLAIN (ANALYZE, BUFFERS, FORMAT json) SELECT gt_lease_update(%L, duration => %L)', lease, '1 hour') INTO plan;
	RETURN plan->0->'Plan'->>'Shared Hit Blocks';
END $$;
SELECT pg_temp.pages(:'r') < 30 AS few;
ROLLBACK;
