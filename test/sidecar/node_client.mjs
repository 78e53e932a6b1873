// Calls both services with @grpc/grpc-js and prints one line for each: the status's name, or what came.
// Arguments: addresses of the server, of one that wants tokens and of one without a database; directory of the .proto
// files, directory of node_modules. The server's workers are off, and a service may have 20 leases.
import { createRequire } from 'node:module';
const [address, strict, cut, protos, modules] = process.argv.slice(2);
const require = createRequire(modules + '/');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

function load(file) {
  return grpc.loadPackageDefinition(loader.loadSync(file, { includeDirs: [protos, '/usr/include'], keepCase: true, longs: Number, enums: String, defaults: true }));
}

const gcOf = load('distributed_gc.proto').distributed_gc.DistributedGCService;
const v1Of = load('garbagetruck_v1.proto').garbagetruck.v1.GarbageTruck;
const gcClient = new gcOf(address, grpc.credentials.createInsecure());
const v1Client = new v1Of(address, grpc.credentials.createInsecure());
const health = new (load('health.proto').grpc.health.v1.Health)(address, grpc.credentials.createInsecure());
const names = Object.fromEntries(Object.entries(grpc.status).filter(([k]) => isNaN(k)).map(([k, v]) => [v, k]));

function call(client, method, request, { metadata = new grpc.Metadata(), patience = 20000 } = {}) {
  return new Promise((resolve) => client[method](request, metadata, { deadline: Date.now() + patience },
    (error, answer) => resolve(error ? { status: names[error.code], message: error.details } : { status: 'OK', ...answer })));
}

const say = (name, value) => console.log(name + ': ' + JSON.stringify(value));
const unknown = '01900000-0000-7000-8000-000000000000';

const made = await call(gcClient, 'CreateLease', { object_id: 'node ü', service_id: 'node', object_type: 'CACHE_ENTRY', lease_duration_seconds: 60, metadata: { a: 'b' } });
say('create', made.status);
const got = await call(gcClient, 'GetLease', { lease_id: made.lease_id });
say('get', [got.found, got.lease.object_id, got.lease.object_type, got.lease.metadata]);
say('renew', (await call(gcClient, 'RenewLease', { lease_id: made.lease_id, service_id: 'node' })).status);
say('wrong', (await call(gcClient, 'RenewLease', { lease_id: made.lease_id, service_id: 'other' })).status);
say('list', (await call(gcClient, 'ListLeases', { service_id: 'node' })).leases.length);
say('release', (await call(gcClient, 'ReleaseLease', { lease_id: made.lease_id, service_id: 'node' })).status);
say('again', (await call(gcClient, 'ReleaseLease', { lease_id: made.lease_id, service_id: 'node' })).status);
say('unknown', (await call(gcClient, 'RenewLease', { lease_id: unknown, service_id: 'node' })).status);
say('bad', (await call(gcClient, 'CreateLease', { object_id: '', service_id: 'node' })).status);
say('health', (await call(gcClient, 'HealthCheck', {})).healthy);
say('check', (await call(health, 'Check', { service: '' })).status);

const grant = await call(v1Client, 'Create', { object_id: 'node v1', service_id: 'node', exclusive: true, cleanup: 'node' });
say('grant', [grant.status, grant.created]);
say('taken', (await call(v1Client, 'Create', { object_id: 'node v1', service_id: 'node' })).status);
const batch = await call(v1Client, 'CreateBatch', { requests: [{ object_id: 'nb1' }, { object_id: '' }] });
say('batch', batch.items.map((item) => (item.error ? item.error.sqlstate : 'grant')));

const beats = v1Client.KeepAlive();
const answers = [];
await new Promise((resolve) => {
  beats.on('data', (answer) => { answers.push([answer.seq, answer.results[0].status]); if (answers.length === 3) beats.end(); });
  beats.on('end', resolve);
  beats.on('error', (error) => { answers.push(names[error.code]); resolve(); });
  for (let seq = 1; seq <= 3; seq++) beats.write({ lease_ids: [grant.lease_id], seq });
});
say('beats', answers);

say('count', (await call(v1Client, 'Release', { lease_ids: [grant.lease_id] })).count);
const watch = v1Client.WatchCleanups();
const seen = await new Promise((resolve) => {
  watch.on('data', (cleanup) => {
    watch.write({ acks: [{ cleanup_id: cleanup.cleanup_id, attempt: cleanup.attempt }] });
    watch.end();
    resolve(cleanup.object_id);
  });
  watch.on('error', (error) => resolve(names[error.code]));
  watch.write({ handlers: ['node'], credit: 1 });
});
say('watch', seen);
say('large', (await call(gcClient, 'CreateLease', { object_id: 'x'.repeat(5000000), service_id: 'node' })).status);

// ---- the rest of the calls ----

const status = async (...args) => (await call(...args)).status;
const metrics = await call(gcClient, 'GetMetrics', {});
say('metrics', [metrics.status, metrics.total_leases_created > 0]);
const held = await call(v1Client, 'Create', { object_id: 'held', object_type: 't', service_id: 'node', duration: { seconds: 60 }, payload: '{"n": 1}' });
say('renew_batch', (await call(v1Client, 'RenewBatch', { lease_ids: [held.lease_id, unknown] })).results.map((r) => r.status));
say('update', await status(v1Client, 'Update', { lease_id: held.lease_id, metadata: '{"half": true}' }));
const shown = await call(v1Client, 'Get', { lease_id: held.lease_id });
say('shown', [shown.payload, shown.metadata, shown.duration.seconds]);
say('listed', (await call(v1Client, 'List', { object_type: 't' })).leases.map((lease) => lease.object_id));
const fence = { object_id: 'held', object_type: 't', fence: held.fence };
say('fence', [(await call(v1Client, 'CheckFence', fence)).current, (await call(v1Client, 'CheckFence', { ...fence, fence: 1 })).current]);

async function garbage(object_id) {
  const lease = await call(v1Client, 'Create', { object_id, service_id: 'node', cleanup: 'node' });
  await call(v1Client, 'Release', { lease_ids: [lease.lease_id] });
  const claimed = await call(v1Client, 'Claim', { handlers: ['node'], wait: { seconds: 10 } });
  return { cleanup_id: claimed.cleanups[0].cleanup_id, attempt: claimed.cleanups[0].attempt };
}
let token = await garbage('refused');
say('extend', (await call(v1Client, 'Extend', { ...token, delay: { seconds: 60 } })).current);
say('being cleaned', [await status(v1Client, 'Create', { object_id: 'refused' }), await status(gcClient, 'CreateLease', { object_id: 'refused', service_id: 'node' })]);
say('nack', [(await call(v1Client, 'Nack', { ...token, error: 'no', delay: { seconds: 3600 } })).current, (await call(v1Client, 'Nack', token)).current]);
token = await garbage('accepted');
say('ack', [(await call(v1Client, 'Ack', token)).current, (await call(v1Client, 'Ack', token)).current]);
// What waits for its next attempt is due at once.
say('redrive', (await call(v1Client, 'Redrive', { handler: 'node' })).count);
token = (await call(v1Client, 'Claim', { handlers: ['node'], wait: { seconds: 10 } })).cleanups[0];
await call(v1Client, 'Ack', { cleanup_id: token.cleanup_id, attempt: token.attempt });
say('pause', [await status(v1Client, 'Pause', { handler: 'node' }), await status(v1Client, 'Resume', { handler: 'node' })]);
say('forecast', (await call(v1Client, 'Forecast', { horizon: { seconds: 600 } })).rows.filter((row) => row.object_type === 't').length);
say('checks', (await call(v1Client, 'Health', {})).checks.some((check) => check.name === 'preloaded' && check.ok));

// ---- every status on both services ----

const short = await call(gcClient, 'CreateLease', { object_id: 'short', service_id: 'node', lease_duration_seconds: 1 });
while ((await call(v1Client, 'Get', { lease_id: short.lease_id })).state === 'active') await new Promise((next) => setTimeout(next, 100));
say('expired', [await status(gcClient, 'RenewLease', { lease_id: short.lease_id, service_id: 'node' }),
  await status(v1Client, 'Update', { lease_id: short.lease_id, payload: '1' })]);
say('denied', [await status(gcClient, 'ReleaseLease', { lease_id: held.lease_id, service_id: 'other' }), await status(v1Client, 'Pause', {})]);
await call(v1Client, 'Create', { object_id: 'alone', service_id: 'node', exclusive: true });
say('exists', [await status(gcClient, 'CreateLease', { object_id: 'alone', service_id: 'node' }), await status(v1Client, 'Create', { object_id: 'alone' })]);
say('not found', [await status(gcClient, 'RenewLease', { lease_id: 'x', service_id: 'node' }), await status(v1Client, 'Get', { lease_id: 'x' })]);
say('invalid', [await status(gcClient, 'ListLeases', { page_token: 'x' }), await status(v1Client, 'Extend', token)]);
for (let i = 0; i < 20; i++) await call(v1Client, 'Create', { object_id: 'quota', service_id: 'greedy' });
say('exhausted', [await status(gcClient, 'CreateLease', { object_id: 'quota', service_id: 'greedy' }), await status(v1Client, 'Create', { object_id: 'quota', service_id: 'greedy' })]);
say('patience', [await status(v1Client, 'Claim', { handlers: ['node'], wait: { seconds: 30 } }, { patience: 300 })]);
say('unimplemented', await new Promise((resolve) => v1Client.makeUnaryRequest('/garbagetruck.v1.GarbageTruck/Nothing',
  () => Buffer.alloc(0), (bytes) => bytes, {}, (error) => resolve(names[error.code]))));

const others = [strict, cut].map((at) => [new gcOf(at, grpc.credentials.createInsecure()), new v1Of(at, grpc.credentials.createInsecure())]);
const [[gcStrict, v1Strict], [gcCut, v1Cut]] = others;
const bearer = new grpc.Metadata();
bearer.set('authorization', 'Bearer secret');
say('no token', [await status(gcStrict, 'HealthCheck', {}), await status(v1Strict, 'Health', {})]);
say('token', [await status(gcStrict, 'HealthCheck', {}, { metadata: bearer }), await status(v1Strict, 'Health', {}, { metadata: bearer })]);
say('away', [await status(gcCut, 'CreateLease', { object_id: 'x', service_id: 's' }), await status(v1Cut, 'Create', { object_id: 'x' })]);
for (const client of [gcClient, v1Client, health, ...others.flat()]) client.close();
