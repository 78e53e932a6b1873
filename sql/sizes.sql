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
-- what is much too large is refused before it is made into text, which may be longer than there is memory for
SELECT t.fails(format('SELECT gt_lease_create(''sizes'', payload => %L)', '[' || repeat('1e131000, ', 10000) || '1]'));
SELECT n, sqlstate, message FROM gt_lease_grant_each(format('[{"object_id": "sizes", "payload": [%1$s 1]}, {"object_id": [%1$s 1]}, {"object_id": "sizes 3"}]', repeat('1e131000, ', 10000))::jsonb);
-- counted as it is written
SELECT v, octet_length(v::text), substring(t.fails(format('SELECT gt_lease_create(''sizes'', payload => %L, metadata => %L)', v, to_jsonb(repeat('x', 70000)))), '(\d+) bytes')::int - 70002 AS counted
FROM unnest(ARRAY['{}', '[]', '"a"', 'null', '-1.50', 'true', '{"a": [], "b\"": {}}', '[[], [1, false], {"k": null, "l": "\u0001\t\\ü\u007f"}]', '"\b\f\n\r/"']::jsonb[]) v;
-- names are data
SELECT gt_lease_create('it''s "quoted" \ %s $1', 'odd ''type''', 'odd; DROP TABLE gt_lease', cleanup => 't_clean') AS a \gset
SELECT object_id, object_type, service_id FROM gt_lease_get(:'a');
SELECT gt_release(:'a');
CALL gt_reclaim() \g /dev/null
SELECT object_id, object_type, service_id FROM t.cleaned;
SELECT t.cleaned();
-- the upper range of control characters, in an encoding of one byte
\set database :DBNAME
CREATE DATABASE regress_latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0;
\c regress_latin
CREATE EXTENSION garbagetruck;
SELECT chr(133) IS NOT NULL, gt_release(gt_lease_create('caf' || chr(233)));
SELECT gt_lease_create('a' || chr(133));
\c :database
DROP DATABASE regress_latin;
