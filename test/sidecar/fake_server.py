"""A gRPC server that answers as it is told, for the command line's tests of what a real one rarely does."""

import threading
import time
import uuid
from concurrent import futures

import harness  # noqa: F401 (makes the stubs)
import distributed_gc_pb2
import garbagetruck_v1_pb2
import grpc
from google.protobuf import empty_pb2


def gc(name, **fields):
    return getattr(distributed_gc_pb2, name)(**fields)


def v1(name, **fields):
    return getattr(garbagetruck_v1_pb2, name)(**fields)


class FakeServer(grpc.GenericRpcHandler):
    """Leases are kept in a dictionary; `fail[method]` is a (status, message) or a number of seconds to sleep."""

    def __init__(self):
        self.leases = {}
        self.fail = {}
        self.calls = []
        self.healthy = True
        self.changed = threading.Condition()
        self.server = grpc.server(futures.ThreadPoolExecutor(8))
        self.server.add_generic_rpc_handlers([self])
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def stop(self):
        self.server.stop(None).wait()

    def wait_calls(self, method, count, limit=20):
        """Until `method` has been called so often."""
        with self.changed:
            done = self.changed.wait_for(lambda: len(self.requests(method)) >= count, limit)
        assert done, f"{method} was called {len(self.requests(method))} times in {limit} s"

    def requests(self, method):
        return [request for name, request, _ in self.calls if name == method]

    def metadata(self, method):
        return [metadata for name, _, metadata in self.calls if name == method]

    def service(self, details):
        package, method = details.method.strip("/").rsplit("/", 1)
        module = distributed_gc_pb2 if package.startswith("distributed_gc.") else garbagetruck_v1_pb2
        request_type = getattr(module, method + "Request", empty_pb2.Empty)

        def answer(data, context):
            request = request_type.FromString(data)
            with self.changed:
                self.calls.append((method, request, dict(context.invocation_metadata())))
                self.changed.notify_all()
            failure = self.fail.get(method)
            if isinstance(failure, tuple):
                context.abort(*failure)
            if failure:
                time.sleep(failure)
            return getattr(self, method)(request, context)

        return grpc.unary_unary_rpc_method_handler(answer, response_serializer=lambda m: m.SerializeToString())

    def grant(self, seconds):
        lease_id = str(uuid.uuid4())
        self.leases[lease_id] = seconds or 300
        return lease_id

    def known(self, lease_id, context):
        if lease_id not in self.leases:
            context.abort(grpc.StatusCode.NOT_FOUND, f"lease {lease_id} not found")

    def HealthCheck(self, request, context):
        return gc("HealthCheckResponse", healthy=self.healthy, version="1.0", active_leases=len(self.leases))

    def Health(self, request, context):
        answer = v1("HealthResponse", healthy=self.healthy)
        answer.checks.add(name="dead", ok=self.healthy, detail="3 objects are dead", remedy="SELECT gt_redrive()")
        return answer

    def CreateLease(self, request, context):
        answer = gc("CreateLeaseResponse", lease_id=self.grant(request.lease_duration_seconds), success=True)
        answer.expires_at.FromMilliseconds(1_700_000_000_123)
        return answer

    def Create(self, request, context):
        answer = v1("Grant", fence=7, created=True)
        answer.lease_id = self.grant(request.duration.ToMilliseconds() / 1000)
        answer.ttl.FromMilliseconds(int(self.leases[answer.lease_id] * 1000))
        answer.expires_at.FromMilliseconds(1_700_000_000_123)
        return answer

    def RenewLease(self, request, context):
        self.known(request.lease_id, context)
        answer = gc("RenewLeaseResponse", success=True)
        answer.new_expires_at.FromMilliseconds(1_700_000_000_123)
        return answer

    def RenewBatch(self, request, context):
        answer = v1("RenewBatchResponse")
        for lease_id in request.lease_ids:
            result = answer.results.add(lease_id=lease_id, status=3)
            if lease_id in self.leases:
                result.status = 1
                result.ttl.FromMilliseconds(int(self.leases[lease_id] * 1000))
        return answer

    def ReleaseLease(self, request, context):
        self.known(request.lease_id, context)
        del self.leases[request.lease_id]
        return gc("ReleaseLeaseResponse", success=True)

    def Release(self, request, context):
        return v1("CountResponse", count=sum(self.leases.pop(i, None) is not None for i in request.lease_ids))

    def lease(self, lease_id):
        answer = v1("Lease", lease_id=lease_id, object_id='a "b"', object_type="temporary_file", service_id="cli-client",
                    state="active", payload='{"n": 1}', fence=7)
        answer.expires_at.FromMilliseconds(1_700_000_000_123)
        answer.duration.FromMilliseconds(1500)
        return answer

    def Get(self, request, context):
        self.known(request.lease_id, context)
        return self.lease(request.lease_id)

    def List(self, request, context):
        """Two a page, whatever the limit."""
        ids = sorted(self.leases)
        start = int(request.page_token or 0)
        answer = v1("ListResponse", leases=[self.lease(i) for i in ids[start:start + 2]])
        if start + 2 < len(ids):
            answer.next_page_token = str(start + 2)
        return answer
