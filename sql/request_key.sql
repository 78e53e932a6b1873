-- Request keys make a create idempotent.
\set VERBOSITY terse
SELECT lease_id AS a, created FROM gt_lease_grant('key 1', request_key => 'k', service_id => 'ks', duration => '1 hour', cleanup => 't_clean') \gset
SELECT lease_id = :'a' AS same, created, ttl > '59 minutes' AS ttl FROM gt_lease_grant('key 1', request_key => 'k', service_id => 'ks', duration => '1 minute');
SELECT gt_lease_create('key 1', request_key => 'k', service_id => 'ks') = :'a' AS same;
SELECT * FROM t.rows('key 1');
-- of another service or another key: another lease
SELECT gt_lease_create('key 1', request_key => 'k', service_id => 'ks2') <> :'a' AS another;
SELECT gt_lease_create('key 1', request_key => 'k2', service_id => 'ks') <> :'a' AS another;
-- with another object: refused
SELECT t.fails($$SELECT gt_lease_create('key 2', request_key => 'k', service_id => 'ks')$$);
SELECT t.fails($$SELECT gt_lease_create('key 1', 'blob_storage', request_key => 'k', service_id => 'ks')$$);
-- of an exclusive lease
SELECT gt_lease_create('key 3', request_key => 'x', exclusive => true) = gt_lease_create('key 3', request_key => 'x', exclusive => true) AS same;
-- within a transaction, and after it was rolled back
BEGIN;
SELECT gt_lease_create('key 4', request_key => 'r') = gt_lease_create('key 4', request_key => 'r') AS same;
ROLLBACK;
SELECT created FROM gt_lease_grant('key 4', request_key => 'r');
-- once its lease is over the key is free again, and that lease has ended
SELECT gt_lease_create('key 5', request_key => 'e', duration => '100 ms') AS a \gset
SELECT t.until_over(:'a');
SELECT lease_id <> :'a' AS another, created FROM gt_lease_grant('key 5', request_key => 'e');
SELECT t.fails(format('SELECT gt_renew(%L)', :'a'));
SELECT gt_release(lease_id) FROM gt_lease_list(object_id => 'key 5');
SELECT created FROM gt_lease_grant('key 6', request_key => 'e');
-- with another `exclusive`: refused, either way
SELECT gt_lease_create('key 7', request_key => 'shared') IS NOT NULL AS a;
SELECT t.fails($$SELECT gt_lease_create('key 7', request_key => 'shared', exclusive => true)$$);
SELECT gt_lease_create('key 8', request_key => 'own', exclusive => true) IS NOT NULL AS a;
SELECT t.fails($$SELECT gt_lease_create('key 8', request_key => 'own')$$);
-- a service that is not given is one of its own, whatever the session is called
SET application_name = 'web.1';
SELECT lease_id AS a, created FROM gt_lease_grant('key 9', request_key => 'pod') \gset
SET application_name = 'web.2';
SELECT lease_id = :'a' AS same, created FROM gt_lease_grant('key 9', request_key => 'pod');
SELECT service_id FROM gt_lease_get(:'a');
SELECT lease_id = :'a' AS same, created FROM gt_lease_grant('key 9', request_key => 'pod', service_id => 'web.1');
RESET application_name;
