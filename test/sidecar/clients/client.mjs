// A client of Node's @grpc/grpc-js: see test_clients.py, which has all of them do the same. Where it runs there are node_modules
// and the directory protos.
//
//     client.mjs check NAME ADDRESS STRICT AWAY    one line for each thing: "name: JSON"
//     client.mjs load NAME ready|any ADDRESS...    prints "begun", calls until its input ends, then prints what became of it
import { createRequire } from 'node:module';
import { setTimeout as sleep } from 'node:timers/promises';
const require = createRequire(process.cwd() + '/');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');
const protobuf = require('protobufjs');

const includeDirs = ['protos', '/usr/include'];
const load = (file) => grpc.loadPackageDefinition(loader.loadSync(file, { includeDirs, keepCase: true, longs: Number, enums: String, defaults: true }));
const services = {
  small: load('distributed_gc.proto').distributed_gc.DistributedGCService,
  truck: load('garbagetruck_v1.proto').garbagetruck.v1.GarbageTruck,
  health: load('health.proto').grpc.health.v1.Health,
};
const details = await new protobuf.Root().load(['protos/status.proto', 'protos/google/rpc/error_details.proto'], { keepCase: true });
const names = Object.fromEntries(Object.entries(grpc.status).filter(([k]) => isNaN(k)).map(([k, v]) => [v, k]));
const unknown = '01900000-0000-7000-8000-000000000000';
const say = (name, value) => console.log(name + ': ' + JSON.stringify(value));

class Client {
  constructor(addresses, ready = false, options = {}) {
    this.ready = ready;
    let target = addresses[0];
    if (addresses.length > 1) {
      target = 'ipv4:' + addresses.join(',');
      options['grpc.service_config'] = JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] });
    }
    options['grpc.use_local_subchannel_pool'] = 1;
    for (const [name, Service] of Object.entries(services)) this[name] = new Service(target, grpc.credentials.createInsecure(), options);
  }

  metadata(fields = {}) {
    const metadata = new grpc.Metadata({ waitForReady: this.ready });
    for (const [key, value] of Object.entries(fields)) metadata.set(key, value);
    return metadata;
  }

  // What comes of a call: { code, ... }, with the answer, or with the error.
  call(service, method, request, { fields, patience = 20000 } = {}) {
    return new Promise((resolve) => this[service][method](request, this.metadata(fields), { deadline: Date.now() + patience },
      (error, answer) => resolve(error ? { error, code: names[error.code], message: error.details } : { code: 'OK', ...answer })));
  }

  create(request, seconds = 60) {
    return this.call('truck', 'Create', { object_type: 't', duration: { seconds }, ...request });
  }

  // A stream whose answers are taken by next(), which gives { code } at its end.
  stream(method, { fields, patience } = {}) {
    const stream = this.truck[method](this.metadata(fields), patience ? { deadline: Date.now() + patience } : {});
    const came = [], waiting = [];
    const put = (one) => (waiting.length ? waiting.shift()(one) : came.push(one));
    let over;
    const end = (code, message) => { if (!over) { over = { code, message }; waiting.splice(0).forEach((resolve) => resolve(over)); } };
    stream.on('data', put);
    stream.on('end', () => end('OK'));
    stream.on('error', (error) => end(names[error.code], error.details));
    stream.next = () => new Promise((resolve) => (came.length ? resolve(came.shift()) : over ? resolve(over) : waiting.push(resolve)));
    stream.rest = async () => { for (;;) { const one = await stream.next(); if (one.code) return one.code; } };
    return stream;
  }
}

function detailsOf(error) {
  const found = {};
  for (const any of details.lookupType('google.rpc.Status').decode(error.metadata.get('grpc-status-details-bin')[0]).details) {
    const name = any.type_url.slice(any.type_url.lastIndexOf('/') + 1);
    found[name.slice('google.rpc.'.length)] = details.lookupType(name).decode(any.value);
  }
  return found;
}

async function check(name, address, strict, away) {
  const client = new Client([address]);
  const fields = { 'idempotency-key': name };
  const lease = { object_id: 'client ü', service_id: name, lease_duration_seconds: 60, metadata: { a: 'b' } };
  const made = await client.call('small', 'CreateLease', lease, { fields });
  const again = await client.call('small', 'CreateLease', lease, { fields });
  const mine = { lease_id: made.lease_id, service_id: name };
  const renewed = await client.call('small', 'RenewLease', mine);
  const got = await client.call('small', 'GetLease', { lease_id: made.lease_id });
  say('small service', [made.success, again.lease_id === made.lease_id, renewed.success, got.lease.object_id, got.lease.metadata.a,
    (await client.call('small', 'ReleaseLease', mine)).code, (await client.call('small', 'ReleaseLease', mine)).code]);

  const grant = await client.create({ object_id: name, service_id: name, exclusive: true, cleanup: name, payload: '{"n": 1}' });
  say('create', [grant.created, grant.ttl.seconds]);
  const shown = await client.call('truck', 'Get', { lease_id: grant.lease_id });
  say('get', [shown.object_id === name, shown.payload, shown.exclusive]);
  say('renew', (await client.call('truck', 'RenewBatch', { lease_ids: [grant.lease_id, unknown] })).results.map((one) => one.status));

  const beats = client.stream('KeepAlive', { patience: 20000 });
  const seen = [];
  for (let seq = 1; seq <= 3; seq++) {
    beats.write({ lease_ids: [grant.lease_id], seq });
    const answer = await beats.next();
    seen.push([answer.seq, answer.results[0].status]);
  }
  beats.end();
  say('beats', [...seen, await beats.rest()]);

  const taken = await client.create({ object_id: name, service_id: name });
  const info = detailsOf(taken.error).ErrorInfo;
  say('taken', [taken.code, info.reason, info.metadata.holder === name, Number(info.metadata.retry_after) > 0]);
  const wrong = await client.create({ object_id: '', service_id: name });
  say('field', [wrong.code, detailsOf(wrong.error).BadRequest.field_violations[0].field]);
  say('text', (await client.call('truck', 'Get', { lease_id: 'ü%' })).message.includes('ü%'));

  say('release', (await client.call('truck', 'Release', { lease_ids: [grant.lease_id] })).count);
  const watch = client.stream('WatchCleanups', { patience: 20000 });
  watch.write({ handlers: [name], credit: 1 });
  const cleanup = await watch.next();
  watch.write({ acks: [{ cleanup_id: cleanup.cleanup_id, attempt: cleanup.attempt }] });
  watch.end();
  say('watch', [cleanup.object_id === name, cleanup.payload, await watch.rest()]);

  say('deadlines', [(await client.call('truck', 'Claim', { handlers: [name], wait: { seconds: 30 } }, { patience: 300 })).code,
    await client.stream('KeepAlive', { patience: 300 }).rest()]);
  const idle = client.stream('KeepAlive');
  idle.write({ seq: 1 });
  await idle.next();
  idle.cancel();
  say('cancel', await idle.rest());

  say('large', (await client.create({ object_id: 'x'.repeat(5000000), service_id: name })).code);
  await checkPages(client, new Client([address], false, { 'grpc.default_compression_algorithm': 2 }), name);
  const lists = await Promise.all(Array.from({ length: 2000 }, () => client.call('truck', 'List', { service_id: name }, { patience: 60000 })));
  lists.filter((one) => one.code !== 'OK').forEach((one) => console.error(one.code, one.message));
  say('many', lists.filter((one) => one.code === 'OK' && one.leases.length === 0).length);
  const streams = Array.from({ length: 100 }, () => client.stream('KeepAlive', { patience: 60000 }));
  streams.forEach((stream) => stream.write({ seq: 7 }));
  say('streams', (await Promise.all(streams.map((stream) => stream.next()))).reduce((sum, answer) => sum + answer.seq, 0));
  await Promise.all(streams.map((stream) => { stream.end(); return stream.rest(); }));
  say('health', (await client.call('health', 'Check', {})).status);

  const guarded = new Client([strict]);
  const token = { fields: { authorization: 'Bearer secret' } };
  const trusted = guarded.stream('KeepAlive', token);
  trusted.write({});
  trusted.end();
  say('token', [(await guarded.call('truck', 'List', {})).code, (await guarded.call('truck', 'List', {}, token)).code, await trusted.rest(),
    (await guarded.call('truck', 'List', { service_id: 'other' }, token)).code]);
  say('away', (await new Client([away]).create({ object_id: name, service_id: name })).code);
}

async function checkPages(client, compressing, name) {
  const requests = (mark, n) => Array.from({ length: n }, (_, i) => ({ object_id: `${name} ${mark}${i}`, object_type: 'page', service_id: name,
    payload: JSON.stringify('x'.repeat(60000)) }));
  const made = [...(await client.call('truck', 'CreateBatch', { requests: requests('', 60) })).items,
    ...(await compressing.call('truck', 'CreateBatch', { requests: requests('+', 20) })).items];
  let pages = 0, leases = 0, page_token = '';
  while (pages === 0 || page_token) {
    const page = await client.call('truck', 'List', { service_id: name, object_type: 'page', limit: 1000, page_token });
    pages++;
    leases += page.leases.length;
    page_token = page.next_page_token;
  }
  say('pages', [leases, pages > 1]);
  say('batch', (await client.call('truck', 'Release', { lease_ids: made.map((item) => item.grant.lease_id) })).count);
}

// Workers that repeat nothing; a stream of heartbeats and one of cleanups, which begin anew when they end.
async function runLoad(name, ready, addresses) {
  const client = new Client(addresses, ready);
  const counts = { calls: 0, beats: 0, lost: 0, reopened: 0 };
  const failed = [], left = new Set();
  let stopping = false, done = false, open, cleaned = 0;
  const fail = (what, one) => failed.push(`${what}: ${one.code} ${one.message}`);
  async function work(number) {
    for (let i = 0; !stopping; i++) {
      const object_id = `${name} ${number} ${i}`;
      const grant = await client.create({ object_id, service_id: name, cleanup: name });
      if (grant.code !== 'OK') { fail('Create', grant); continue; }
      left.add(object_id);
      for (const [method, request] of [['Get', { lease_id: grant.lease_id }], ['Release', { lease_ids: [grant.lease_id] }]]) {
        const one = await client.call('truck', method, request);
        if (one.code !== 'OK') fail(method, one);
      }
      counts.calls += 3;
    }
  }
  async function again(what, one) {
    if (one.code !== 'UNAVAILABLE') fail(what, one);
    counts.reopened++;
    await sleep(50);
  }
  async function beat() {
    const { lease_id } = await client.create({ object_id: name, service_id: name }, 10);
    while (!stopping) {
      const stream = client.stream('KeepAlive');
      for (;;) {
        stream.write({ lease_ids: [lease_id] });
        const answer = await stream.next();
        if (answer.code) { await again('KeepAlive', answer); break; }
        counts[answer.results[0].status === 'RENEWED' ? 'beats' : 'lost']++;
        if (stopping) { stream.end(); break; }
        await sleep(100);
      }
    }
  }
  async function clean() {
    while (!done) {
      open = client.stream('WatchCleanups');
      open.write({ handlers: [name], credit: 8, visibility: { seconds: 5 } });
      for (;;) {
        const cleanup = await open.next();
        if (cleanup.code) { if (!done) await again('WatchCleanups', cleanup); break; }
        open.write({ acks: [{ cleanup_id: cleanup.cleanup_id, attempt: cleanup.attempt }], credit: 1 });
        left.delete(cleanup.object_id);
        cleaned++;
      }
    }
  }
  const workers = [0, 1, 2, 3].map(work);
  workers.push(beat());
  clean();
  while (!counts.calls || !counts.beats || !cleaned) await sleep(20);
  console.log('begun');
  await new Promise((resolve) => process.stdin.on('end', resolve).resume());
  stopping = true;
  await Promise.all(workers);
  for (let i = 0; i < 1200 && left.size > 0; i++) await sleep(50);
  done = true;
  open.cancel();
  console.log(JSON.stringify({ ...counts, failed: failed.slice(0, 20), left: left.size }));
}

const [mode, ...rest] = process.argv.slice(2);
await (mode === 'check' ? check(...rest) : runLoad(rest[0], rest[1] === 'ready', rest.slice(2)));
process.exit(0);
