// Calls both services with @grpc/grpc-js and prints one line for each: the status's name, or what came.
// Arguments: address, directory of the .proto files, directory of node_modules.
import { createRequire } from 'node:module';
const [address, protos, modules] = process.argv.slice(2);
const require = createRequire(modules + '/');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

function load(file) {
  return grpc.loadPackageDefinition(loader.loadSync(file, { includeDirs: [protos, '/usr/include'], keepCase: true, longs: Number, enums: String, defaults: true }));
}

const gcClient = new (load('distributed_gc.proto').distributed_gc.DistributedGCService)(address, grpc.credentials.createInsecure());
const v1Client = new (load('garbagetruck_v1.proto').garbagetruck.v1.GarbageTruck)(address, grpc.credentials.createInsecure());
const health = new (load('health.proto').grpc.health.v1.Health)(address, grpc.credentials.createInsecure());
const names = Object.fromEntries(Object.entries(grpc.status).filter(([k]) => isNaN(k)).map(([k, v]) => [v, k]));

function call(client, method, request, metadata = new grpc.Metadata()) {
  return new Promise((resolve) => client[method](request, metadata, { deadline: Date.now() + 20000 },
    (error, answer) => resolve(error ? { status: names[error.code], message: error.details } : { status: 'OK', ...answer })));
}

const say = (name, value) => console.log(name + ' ' + JSON.stringify(value));
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
for (const client of [gcClient, v1Client, health]) client.close();
