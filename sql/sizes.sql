-- Sizes of names and payloads.
\set VERBOSITY terse
SELECT object_id, t.fails(format('SELECT gt_lease_create(%L)', value)) <> 'does not fail' AS fails, t.state(format('SELECT gt_lease_create(%L)', value))
FROM (VALUES ('1024 bytes', repeat('a', 1024)), ('1025 bytes', repeat('a', 1025)), ('512 of two', repeat('ä', 512)), ('513 of two', repeat('ä', 513))) v(object_id, value);
SELECT what, bytes, t.state(format('SELECT gt_lease_create(''sizes'', %I => %L)', what, repeat('a', bytes)))
FROM unnest(ARRAY['object_type', 'service_id', 'request_key']) what, unnest(ARRAY[255, 256]) bytes;
SELECT t.fails($$SELECT gt_lease_create('sizes', request_key => repeat('a', 256))$$) LIKE '22023%request_key%255%' AS named;
SELECT t.state(format('SELECT gt_lease_create(%L)', 'sizes ' || chr(c))) FROM unnest(ARRAY[1, 9, 10, 13, 31, 127]) c;
SELECT t.fails($$SELECT gt_lease_create(E'sizes\u0085')$$), t.fails($$SELECT gt_lease_create('sizes ü €')$$);
-- whom a server calls for is kept with the object: a name, too
SELECT bytes, t.state(format('SELECT set_config(''garbagetruck.caller'', %L, true)', repeat('a', bytes))) FROM unnest(ARRAY[255, 256, 10000000]) bytes;
SELECT t.state($$SELECT set_config('garbagetruck.caller', E'a\nb', true)$$);
-- payload and metadata together
SHOW garbagetruck.max_payload;
SELECT t.state($$SELECT gt_lease_create('sizes', payload => to_jsonb(repeat('a', 60000)))$$);
SELECT t.fails($$SELECT gt_lease_create('sizes', payload => to_jsonb(repeat('a', 70000)))$$);
SELECT t.state($$SELECT gt_lease_create('sizes', payload => to_jsonb(repeat('a', 40000)), metadata => to_jsonb(repeat('a', 40000)))$$);
SELECT gt_lease_create('sizes 2', metadata => to_jsonb(repeat('a', 40000))) AS a \gset
SELECT t.state(format($$SELECT gt_lease_update(%L, payload => to_jsonb(repeat('a', 40000)))$$, :'a'));
SELECT t.state(format($$SELECT gt_lease_update(%L, payload => to_jsonb(repeat('a', 40000)), metadata => '{}')$$, :'a'));
-- names are data
SELECT gt_lease_create('it''s "quoted" \ %s $1', 'odd ''type''', 'odd; DROP TABLE gt_lease', cleanup => 't_clean') AS a \gset
SELECT object_id, object_type, service_id FROM gt_lease_get(:'a');
SELECT gt_release(:'a');
CALL gt_reclaim() \g /dev/null
SELECT object_id, object_type, service_id FROM t.cleaned;
SELECT t.cleaned();
