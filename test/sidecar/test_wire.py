#!/usr/bin/python3
"""Both services by Python's grpcio: every rpc, every status, and who may do what."""
import os
import queue
import re
import threading
import time
import unittest

import grpc
from google.protobuf import duration_pb2, empty_pb2

from harness import GC, V1, WORK, Sidecar, call, failure, method, start_cluster, until_serving, wait_until
import distributed_gc_pb2 as gc
import garbagetruck_v1_pb2 as v1
import health_pb2
import reflection_v1_pb2
import reflection_v1alpha_pb2

cluster = None
sidecar = None
channel = None
UNKNOWN = "01900000-0000-7000-8000-000000000000"
Code = grpc.StatusCode


def setUpModule():
    global cluster, sidecar, channel
    cluster = start_cluster()
    sidecar = until_serving(Sidecar(cluster, "--cleanup", "temporary-file=tidy", "--allow-target", "127.0.0.1:9"))
    channel = sidecar.channel()
    sql("SELECT gt_handler_create('tidy', 'queue'), gt_handler_create('q', 'queue', retry_delay => '100 ms'),"
        " gt_handler_create('mine', 'queue'), gt_handler_create('other', 'queue'),"
        " gt_handler_create('large', 'queue'), gt_handler_create('lot', 'queue')")


def tearDownModule():
    sidecar.stop()
    cluster.close()


def sql(text, user="app"):
    return cluster.tool("psql", "-AtqX", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-c", text, as_role=user).strip()


def seconds(value):
    return duration_pb2.Duration(seconds=int(value), nanos=round((value % 1) * 1e9))


def ask(name, request, answer, **more):
    return call(channel, GC + name, request, answer, **more)


def ask1(name, request, answer, **more):
    return call(channel, V1 + name, request, answer, **more)


def create(object_id="o", service_id="s", **more):
    metadata = more.pop("call_metadata", None)
    return ask("CreateLease", gc.CreateLeaseRequest(object_id=object_id, service_id=service_id, **more),
               gc.CreateLeaseResponse, metadata=metadata)


def info(lease_id):
    return ask("GetLease", gc.GetLeaseRequest(lease_id=lease_id), gc.GetLeaseResponse)


class DistributedGCTest(unittest.TestCase):
    def refused(self, code, name, request, answer, word="", **more):
        error = failure(channel, GC + name, request, answer, **more)
        self.assertEqual(error.code(), code, error.details())
        self.assertIn(word, error.details())
        return dict(error.trailing_metadata())

    def create_refused(self, code, word, **fields):
        request = gc.CreateLeaseRequest(**{"object_id": "o", "service_id": "s", **fields})
        return self.refused(code, "CreateLease", request, gc.CreateLeaseResponse, word)

    def test_a_lease_from_create_to_release(self):
        made = create("life", "svc", object_type=gc.BLOB_STORAGE, lease_duration_seconds=60, metadata={"a": "b", 'c"\\': "ü"})
        self.assertTrue(made.success)
        self.assertEqual(made.error_message, "")
        found = info(made.lease_id)
        self.assertTrue(found.found)
        lease = found.lease
        self.assertEqual((lease.lease_id, lease.object_id, lease.object_type, lease.service_id, lease.state),
                         (made.lease_id, "life", gc.BLOB_STORAGE, "svc", gc.ACTIVE))
        self.assertEqual(dict(lease.metadata), {"a": "b", 'c"\\': "ü"})
        self.assertEqual(lease.expires_at, made.expires_at)
        self.assertEqual(lease.renewal_count, 0)
        renewed = ask("RenewLease", gc.RenewLeaseRequest(lease_id=made.lease_id, service_id="svc",
                                                         extend_duration_seconds=120), gc.RenewLeaseResponse)
        self.assertTrue(renewed.success)
        self.assertGreater(renewed.new_expires_at.seconds, made.expires_at.seconds + 50)
        self.assertEqual(info(made.lease_id).lease.renewal_count, 1)
        release = gc.ReleaseLeaseRequest(lease_id=made.lease_id, service_id="svc")
        self.assertTrue(ask("ReleaseLease", release, gc.ReleaseLeaseResponse).success)
        self.refused(Code.NOT_FOUND, "ReleaseLease", release, gc.ReleaseLeaseResponse, made.lease_id)
        self.assertFalse(info(made.lease_id).found)

    def test_types(self):
        for number, name in ((0, "custom"), (1, "database_row"), (2, "blob_storage"), (3, "temporary_file"),
                             (4, "websocket_session"), (5, "cache_entry"), (6, "custom")):
            made = create("type%d" % number, object_type=number)
            self.assertEqual(sql(f"SELECT object_type FROM gt_leases WHERE lease_id = '{made.lease_id}'"), name)
            self.assertEqual(info(made.lease_id).lease.object_type, number or 6)
        own = sql("SELECT gt_lease_create('x', 'something else')")
        self.assertEqual(info(own).lease.object_type, gc.CUSTOM)

    def test_default_duration(self):
        made = create("default")
        self.assertEqual(sql(f"SELECT duration FROM gt_leases WHERE lease_id = '{made.lease_id}'"), "00:05:00")

    def test_bad_values_are_named(self):
        self.create_refused(Code.INVALID_ARGUMENT, "object_id", object_id="")
        self.create_refused(Code.INVALID_ARGUMENT, "service_id", service_id="")
        self.create_refused(Code.INVALID_ARGUMENT, "duration", lease_duration_seconds=31 * 86400)
        self.create_refused(Code.INVALID_ARGUMENT, "duration", lease_duration_seconds=2**64 - 1)
        self.create_refused(Code.INVALID_ARGUMENT, "object_type", object_type=7)
        self.create_refused(Code.INVALID_ARGUMENT, "object_type", object_type=-1)
        self.create_refused(Code.INVALID_ARGUMENT, "object_id", object_id="a\0b")
        self.create_refused(Code.INVALID_ARGUMENT, "object", object_id="a" * 1025)
        self.create_refused(Code.INVALID_ARGUMENT, "service", service_id="a" * 256)
        self.create_refused(Code.INVALID_ARGUMENT, "metadata.value contains a NUL", metadata={"a": "\0"})
        self.create_refused(Code.INVALID_ARGUMENT, "metadata.key contains a NUL", metadata={"\0": "a"})
        config = gc.CleanupConfig(cleanup_http_endpoint="http://127.0.0.1:9/x", max_retries=2**32 - 1)
        self.create_refused(Code.INVALID_ARGUMENT, "max_retries", cleanup_config=config)
        config = gc.CleanupConfig(cleanup_http_endpoint="http://127.0.0.1:9/x", retry_delay_seconds=2**60)
        self.create_refused(Code.INVALID_ARGUMENT, "retry_delay", cleanup_config=config)
        self.create_refused(Code.INVALID_ARGUMENT, "max_retries", cleanup_config=gc.CleanupConfig(max_retries=2**32 - 1))
        made = create("named")
        for extend in (31 * 86400, 2**64 - 1):
            self.refused(Code.INVALID_ARGUMENT, "RenewLease", gc.RenewLeaseRequest(
                lease_id=made.lease_id, service_id="s", extend_duration_seconds=extend), gc.RenewLeaseResponse, "duration")
        for bad in ("", "no uuid"):
            self.refused(Code.INVALID_ARGUMENT, "RenewLease", gc.RenewLeaseRequest(lease_id=made.lease_id),
                         gc.RenewLeaseResponse, "service_id")

    def test_unknown_leases(self):
        for lease_id in (UNKNOWN, "no uuid", ""):
            self.refused(Code.NOT_FOUND, "RenewLease", gc.RenewLeaseRequest(lease_id=lease_id, service_id="s"),
                         gc.RenewLeaseResponse, lease_id)
            self.refused(Code.NOT_FOUND, "ReleaseLease", gc.ReleaseLeaseRequest(lease_id=lease_id, service_id="s"),
                         gc.ReleaseLeaseResponse, lease_id)
            self.assertFalse(info(lease_id).found)

    def test_messages_cut_no_character(self):
        """What clients sent is shown in part, and that part is UTF-8: their libraries insist on it."""
        long = "a" * 99 + "üüü"
        error = failure(channel, GC + "RenewLease", gc.RenewLeaseRequest(lease_id=long, service_id="s"), gc.RenewLeaseResponse)
        self.assertEqual(error.details(), "lease %s? not found" % ("a" * 99))
        self.assertIn(b"lease %s? not found" % (b"a" * 99), dict(error.trailing_metadata())["grpc-status-details-bin"])
        items = ask1("CreateBatch", v1.CreateBatchRequest(requests=[v1.CreateRequest(object_id="x", parent=long)]),
                     v1.CreateBatchResponse).items
        self.assertEqual(items[0].error.message, "parent: lease %s? not found" % ("a" * 99))

    def test_the_wrong_service(self):
        made = create("wrong", "right")
        self.refused(Code.PERMISSION_DENIED, "RenewLease", gc.RenewLeaseRequest(lease_id=made.lease_id, service_id="left"),
                     gc.RenewLeaseResponse, "left")
        self.refused(Code.PERMISSION_DENIED, "ReleaseLease", gc.ReleaseLeaseRequest(lease_id=made.lease_id, service_id="left"),
                     gc.ReleaseLeaseResponse, "left")

    def test_expired(self):
        """Past its deadline a lease is over, whether or not a worker has come by; here none does."""
        cluster.configure(garbagetruck__max_workers=0)
        cluster.reload()
        self.addCleanup(lambda: (cluster.configure(garbagetruck__max_workers=4), cluster.reload()))
        workers = "SELECT count(*) FROM gt_workers WHERE role = 'worker'"
        self.assertTrue(wait_until(lambda: sql("SHOW garbagetruck.max_workers") == "0" and sql(workers, "postgres") == "0", 30))
        lease_id = create("old", "late", lease_duration_seconds=1).lease_id
        self.assertTrue(wait_until(lambda: info(lease_id).lease.state == gc.EXPIRED, 20))

        def listed(state):
            return [lease.lease_id for lease in ask("ListLeases", gc.ListLeasesRequest(service_id="late", state=state),
                                                    gc.ListLeasesResponse).leases]
        self.assertEqual([listed(state) for state in (0, gc.EXPIRED, gc.RELEASED)], [[lease_id], [lease_id], []])
        self.assertEqual(len(ask1("List", v1.ListRequest(service_id="late", state="active"), v1.ListResponse).leases), 0)
        details = self.refused(Code.FAILED_PRECONDITION, "RenewLease", gc.RenewLeaseRequest(lease_id=lease_id, service_id="late"),
                               gc.RenewLeaseResponse, lease_id)["grpc-status-details-bin"]
        self.assertIn(b"GT002", details)
        error = failure(channel, V1 + "Update", v1.UpdateRequest(lease_id=lease_id, payload="1"), empty_pb2.Empty)
        self.assertEqual(error.code(), Code.FAILED_PRECONDITION)
        beat = v1.KeepAliveRequest(lease_ids=[lease_id])
        answer = next(method(channel, V1 + "KeepAlive", v1.KeepAliveResponse, "stream_stream")(iter([beat]), timeout=20))
        self.assertEqual(answer.results[0].status, v1.RenewResult.EXPIRED)

    def test_exclusive_elsewhere(self):
        sql("SELECT gt_lease_create('locked', 'custom', 's', '1 hour', exclusive => true)")
        self.create_refused(Code.ALREADY_EXISTS, "locked", object_id="locked")
        self.create_refused(Code.ALREADY_EXISTS, 'held by service "s"; retry after 20', object_id="locked")
        items = ask1("CreateBatch", v1.CreateBatchRequest(requests=[v1.CreateRequest(object_id="locked")]), v1.CreateBatchResponse).items
        self.assertIn('held by service "s"; retry after 20', items[0].error.message)

    def test_objects_of_another_role(self):
        sql("SELECT gt_lease_create('theirs', 'custom', 's', '1 hour')", "postgres")
        self.create_refused(Code.PERMISSION_DENIED, "theirs", object_id="theirs")

    def test_quota(self):
        cluster.configure(garbagetruck__max_leases_per_service=2)
        cluster.reload()
        self.addCleanup(lambda: (cluster.configure(garbagetruck__max_leases_per_service=0), cluster.reload()))

        def exhausted():
            try:
                create("quota", "quota")
            except grpc.RpcError as error:
                self.assertEqual(error.code(), Code.RESOURCE_EXHAUSTED)
                return dict(error.trailing_metadata())["grpc-status-details-bin"]
        details = wait_until(exhausted, 20)
        self.assertIn(b"GT006", details)
        self.assertIn(b"RetryInfo", details)

    def test_being_reclaimed(self):
        made = create("claimed", object_type=gc.TEMPORARY_FILE)
        ask("ReleaseLease", gc.ReleaseLeaseRequest(lease_id=made.lease_id, service_id="s"), gc.ReleaseLeaseResponse)
        claimed = ask1("Claim", v1.ClaimRequest(handlers=["tidy"], wait=seconds(10)), v1.ClaimResponse)
        self.assertEqual(claimed.cleanups[0].object_id, "claimed")
        self.create_refused(Code.ABORTED, '"claimed"', object_id="claimed", object_type=gc.TEMPORARY_FILE)
        self.create_refused(Code.ABORTED, ": ", object_id="claimed", object_type=gc.TEMPORARY_FILE)
        ask1("Ack", v1.Outcome(cleanup_id=claimed.cleanups[0].cleanup_id, attempt=1), v1.OutcomeResponse)

    def test_details_name_the_sqlstate(self):
        details = self.refused(Code.NOT_FOUND, "RenewLease", gc.RenewLeaseRequest(lease_id=UNKNOWN, service_id="s"),
                               gc.RenewLeaseResponse)["grpc-status-details-bin"]
        self.assertIn(b"type.googleapis.com/google.rpc.ErrorInfo", details)
        self.assertIn(b"GT001", details)

    def test_details_name_holder_and_field(self):
        def raw(error):
            return dict(error.trailing_metadata())["grpc-status-details-bin"]

        def pair(details, key):
            match = re.search(re.escape(key).encode() + rb"\x12(.)", details, re.S)
            return details[match.end():match.end() + match.group(1)[0]].decode() if match else None
        sql("SELECT gt_lease_create('held', 'lock', 'the holder', '10 s', exclusive => true)")
        error = failure(channel, V1 + "Create", v1.CreateRequest(object_id="held", object_type="lock", service_id="s"), v1.Grant)
        details = raw(error)
        self.assertEqual(pair(details, "holder"), "the holder")
        self.assertLess(5, float(pair(details, "retry_after")))
        self.assertLess(float(pair(details, "retry_after")), 10.5)
        sql("SELECT gt_handler_create('claimed_now', 'queue'), gt_release(gt_lease_create('in flight', cleanup => 'claimed_now'))")
        sql("SELECT * FROM gt_claim('{claimed_now}', visibility => '30 s')")
        details = raw(failure(channel, V1 + "Create", v1.CreateRequest(object_id="in flight", service_id="s"), v1.Grant))
        self.assertIsNone(pair(details, "holder"))
        self.assertLess(60, float(pair(details, "retry_after")))
        for path, request, answer, field in (
                (GC + "CreateLease", gc.CreateLeaseRequest(object_id="", service_id="s"), gc.CreateLeaseResponse, "object_id"),
                (GC + "CreateLease", gc.CreateLeaseRequest(object_id="x", service_id="s", lease_duration_seconds=10**9), gc.CreateLeaseResponse,
                 "duration"),
                (V1 + "Create", v1.CreateRequest(object_id="x", max_attempts=10**6), v1.Grant, "max_attempts"),
                (V1 + "Create", v1.CreateRequest(object_id="x" * 2000), v1.Grant, "object_id"),
                (V1 + "Claim", v1.ClaimRequest(wait=seconds(-1)), v1.ClaimResponse, "wait")):
            error = failure(channel, path, request, answer)
            self.assertEqual(error.code(), Code.INVALID_ARGUMENT)
            self.assertLess(len(error.details()), 300)
            self.assertIn(b"\x0a" + bytes((len(field),)) + field.encode() + b"\x12", raw(error))

    def test_idempotency_key(self):
        key = (("idempotency-key", "once"),)
        first = create("once", call_metadata=key)
        self.assertEqual(create("once", call_metadata=key).lease_id, first.lease_id)
        self.assertNotEqual(create("once").lease_id, first.lease_id)
        error = failure(channel, GC + "CreateLease", gc.CreateLeaseRequest(object_id="twice", service_id="s"),
                        gc.CreateLeaseResponse, metadata=key)
        self.assertEqual(error.code(), Code.INVALID_ARGUMENT)

    def test_cleanup_config(self):
        config = gc.CleanupConfig(cleanup_endpoint="http://10.1.2.3:1", cleanup_http_endpoint="http://127.0.0.1:9/x",
                                  cleanup_payload='a"b', max_retries=3, retry_delay_seconds=7)
        made = create("config", cleanup_config=config, metadata={"k": "v"})
        row = sql(f"SELECT cleanup, payload, max_attempts, retry_delay FROM gt_leases WHERE lease_id = '{made.lease_id}'")
        self.assertEqual(row, 'http_endpoint|{"url": "http://127.0.0.1:9/x", "payload": "a\\"b"}|4|00:00:07')
        shown = info(made.lease_id).lease.cleanup_config
        self.assertEqual((shown.cleanup_http_endpoint, shown.cleanup_endpoint, shown.cleanup_payload, shown.max_retries,
                          shown.retry_delay_seconds), ("http://127.0.0.1:9/x", "", 'a"b', 3, 7))
        made = create("config2", cleanup_config=gc.CleanupConfig(cleanup_endpoint="http://127.0.0.1:9"))
        self.assertEqual(sql(f"SELECT cleanup FROM gt_leases WHERE lease_id = '{made.lease_id}'"), "grpc_endpoint")

    def test_cleanup_config_without_endpoint(self):
        """Nothing is sent to nowhere: that is told, but what clients always fill in says nothing."""
        for config in (gc.CleanupConfig(), gc.CleanupConfig(max_retries=3, retry_delay_seconds=1)):
            made = create("config3", cleanup_config=config)
            self.assertEqual(sql(f"SELECT cleanup IS NULL FROM gt_leases WHERE lease_id = '{made.lease_id}'"), "t")
        self.create_refused(Code.INVALID_ARGUMENT, "cleanup_payload", cleanup_config=gc.CleanupConfig(cleanup_payload="x"))
        made = create("config4", object_type=gc.TEMPORARY_FILE, cleanup_config=gc.CleanupConfig(cleanup_payload="x", max_retries=3))
        self.assertEqual(sql(f"SELECT cleanup, payload, max_attempts FROM gt_leases WHERE lease_id = '{made.lease_id}'"), 'tidy|{"payload": "x"}|4')

    def test_targets_must_be_allowed(self):
        for url in ("http://127.0.0.1:10/", "http://169.254.169.254/", "http://example.com/"):
            self.create_refused(Code.INVALID_ARGUMENT, "--allow-target",
                                cleanup_config=gc.CleanupConfig(cleanup_http_endpoint=url))
            self.create_refused(Code.INVALID_ARGUMENT, "--allow-target", cleanup_config=gc.CleanupConfig(cleanup_endpoint=url))
        # what no call could be made to is refused as the call would refuse it
        for url in ("http://127.0.0.1:9/path", "grpc://127.0.0.1:9"):
            self.create_refused(Code.INVALID_ARGUMENT, "host:port", cleanup_config=gc.CleanupConfig(cleanup_endpoint=url))

    def test_cleanup_by_type(self):
        made = create("tmp", object_type=gc.TEMPORARY_FILE)
        self.assertEqual(sql(f"SELECT cleanup FROM gt_leases WHERE lease_id = '{made.lease_id}'"), "tidy")

    def test_list(self):
        # The newest first: clients that look at one page only look for what they have just made.
        ids = sorted((create("list%d" % i, "lister", object_type=i % 2 + 1).lease_id for i in range(7)), reverse=True)

        def pages(**fields):
            token, seen = "", []
            while True:
                answer = ask("ListLeases", gc.ListLeasesRequest(page_token=token, **fields), gc.ListLeasesResponse)
                seen += [lease.lease_id for lease in answer.leases]
                token = answer.next_page_token
                if not token:
                    return seen
        self.assertEqual(pages(service_id="lister", limit=2), ids)
        self.assertEqual(pages(service_id="lister", limit=100000), ids)
        self.assertEqual(len(pages(service_id="lister", object_type=gc.DATABASE_ROW)), 4)
        self.assertEqual(pages(service_id="lister", state=gc.EXPIRED), [])
        self.assertEqual(pages(service_id="lister", state=gc.RELEASED), [])
        self.assertTrue(set(ids) <= set(pages(limit=3)))
        first = ask("ListLeases", gc.ListLeasesRequest(service_id="lister", limit=3), gc.ListLeasesResponse)
        ask("ReleaseLease", gc.ReleaseLeaseRequest(lease_id=ids[2], service_id="lister"), gc.ReleaseLeaseResponse)
        rest = ask("ListLeases", gc.ListLeasesRequest(service_id="lister", page_token=first.next_page_token),
                   gc.ListLeasesResponse)
        self.assertEqual([lease.lease_id for lease in rest.leases], ids[3:])
        own = sql("SELECT gt_lease_create('x', 'own type', 'lister')")
        sql("SELECT gt_lease_create('y', 'own type', 'lister')", "postgres")
        self.assertEqual(pages(service_id="lister", object_type=gc.CUSTOM), [own])
        # Those of other types, of which many are newer, are passed over; those that are found come in pages all the same.
        for n in range(3):
            sql("SELECT gt_lease_create_many(array_agg('many' || i), 'cache_entry', 'lister', '1 hour') FROM generate_series(1, 700) i")
            own = [sql(f"SELECT gt_lease_create('x{n}', 'own type', 'lister')"), *([own] if n == 0 else own)]
        self.assertEqual(pages(service_id="lister", object_type=gc.CUSTOM), own)
        self.assertEqual(pages(service_id="lister", object_type=gc.CUSTOM, limit=1), own)
        sql("SELECT gt_release_many(array_agg(lease_id)) FROM gt_lease_list('lister', 'cache_entry', max_rows => 3000)")
        for bad in (gc.ListLeasesRequest(page_token="x"), gc.ListLeasesRequest(object_type=9), gc.ListLeasesRequest(state=3)):
            self.refused(Code.INVALID_ARGUMENT, "ListLeases", bad, gc.ListLeasesResponse)

    def test_health_and_metrics(self):
        made = create("counted", "counted", object_type=gc.WEBSOCKET_SESSION)
        health = ask("HealthCheck", gc.HealthCheckRequest(), gc.HealthCheckResponse)
        self.assertTrue(health.healthy)
        self.assertRegex(health.version, r"^\d+\.\d+")
        self.assertGreater(health.uptime.seconds, 1_000_000_000)
        metrics = ask("GetMetrics", gc.MetricsRequest(), gc.MetricsResponse)
        self.assertGreater(metrics.total_leases_created, 0)
        counted = wait_until(lambda: ask("GetMetrics", gc.MetricsRequest(), gc.MetricsResponse).leases_by_service.get("counted"), 30)
        self.assertEqual(counted, 1)
        self.assertIn("WebsocketSession", ask("GetMetrics", gc.MetricsRequest(), gc.MetricsResponse).leases_by_type)
        self.assertTrue(made.success)


class GarbageTruckTest(unittest.TestCase):
    def refused(self, code, name, request, answer, word="", **more):
        error = failure(channel, V1 + name, request, answer, **more)
        self.assertEqual(error.code(), code, error.details())
        self.assertIn(word, error.details())

    def grant(self, object_id, **fields):
        return ask1("Create", v1.CreateRequest(object_id=object_id, service_id="s", **fields), v1.Grant)

    def garbage(self, handler, *objects):
        for object_id in objects:
            ask1("Release", v1.ReleaseRequest(lease_ids=[self.grant(object_id, cleanup=handler).lease_id]), v1.CountResponse)

    def test_create_with_everything(self):
        parent = self.grant("parent", duration=seconds(60))
        made = self.grant("all", object_type="t", payload='{"x": 1}', metadata='{"m": [2]}', exclusive=True, cleanup="q",
                          request_key="k", duration=seconds(1.5), max_attempts=9, retry_delay=seconds(2))
        self.assertTrue(made.created)
        self.assertEqual((made.ttl.seconds, made.ttl.nanos), (1, 500000000))
        again = self.grant("all", object_type="t", request_key="k", exclusive=True)
        self.assertEqual((again.lease_id, again.created), (made.lease_id, False))
        lease = ask1("Get", v1.GetRequest(lease_id=made.lease_id), v1.Lease)
        self.assertEqual((lease.object_type, lease.payload, lease.metadata, lease.exclusive, lease.cleanup, lease.fence),
                         ("t", '{"x": 1}', '{"m": [2]}', True, "q", made.fence))
        child = self.grant("child", parent=parent.lease_id)
        self.assertEqual(ask1("Get", v1.GetRequest(lease_id=child.lease_id), v1.Lease).parent, parent.lease_id)
        self.refused(Code.ALREADY_EXISTS, "Create", v1.CreateRequest(object_id="all", object_type="t"), v1.Grant, "all")

    def test_bad_values(self):
        for word, fields in (("object_id", {"object_id": ""}), ("duration", {"duration": seconds(-1)}),
                             ("payload", {"payload": "{bad"}), ("payload", {"payload": '"\\u0000"'}), ("handler", {"cleanup": "nope"}),
                             ("max_attempts", {"max_attempts": 0}), ("max_attempts", {"max_attempts": 2**32 - 1}),
                             ("retry_delay", {"retry_delay": duration_pb2.Duration(nanos=-1)})):
            self.refused(Code.INVALID_ARGUMENT, "Create", v1.CreateRequest(**{"object_id": "b", **fields}), v1.Grant, word)
        self.refused(Code.NOT_FOUND, "Create", v1.CreateRequest(object_id="b", parent="x?"), v1.Grant, "parent: lease x?")
        self.refused(Code.NOT_FOUND, "Create", v1.CreateRequest(object_id="b", parent=UNKNOWN), v1.Grant)

    def test_zero_is_no_default(self):
        """A client whose language has whole seconds cut its half a one; nothing at all is the default."""
        zero = duration_pb2.Duration()
        lease = self.grant("zero").lease_id
        for name, request, answer in (("Create", v1.CreateRequest(object_id="b", duration=zero), v1.Grant),
                                      ("RenewBatch", v1.RenewBatchRequest(lease_ids=[lease], duration=zero), v1.RenewBatchResponse),
                                      ("Claim", v1.ClaimRequest(handlers=["q"], visibility=zero), v1.ClaimResponse),
                                      ("Extend", v1.Outcome(cleanup_id=1, attempt=1, delay=zero), v1.OutcomeResponse)):
            with self.subTest(name):
                self.refused(Code.INVALID_ARGUMENT, name, request, answer)
        for name, request, answer in (("KeepAlive", v1.KeepAliveRequest(lease_ids=[lease], duration=zero), v1.KeepAliveResponse),
                                      ("WatchCleanups", v1.WatchRequest(handlers=["q"], credit=1, visibility=zero), v1.Cleanup)):
            with self.subTest(name), self.assertRaises(grpc.RpcError) as caught:
                next(method(channel, V1 + name, answer, "stream_stream")(iter([request]), timeout=20))
            self.assertEqual(caught.exception.code(), Code.INVALID_ARGUMENT, name)
        items = ask1("CreateBatch", v1.CreateBatchRequest(requests=[v1.CreateRequest(object_id="b", duration=zero)]), v1.CreateBatchResponse).items
        self.assertEqual(items[0].error.sqlstate, "22023")
        # Where SQL takes it, it is what it says.
        for name, request, answer in (("Create", v1.CreateRequest(object_id="z", retry_delay=zero, regrant_delay=zero), v1.Grant),
                                      ("Claim", v1.ClaimRequest(handlers=["q"], max_items=1, wait=zero), v1.ClaimResponse),
                                      ("Nack", v1.Outcome(cleanup_id=1, attempt=1, delay=zero), v1.OutcomeResponse),
                                      ("Forecast", v1.ForecastRequest(horizon=zero), v1.ForecastResponse)):
            with self.subTest(name):
                ask1(name, request, answer)
        self.assertTrue(ask1("RenewBatch", v1.RenewBatchRequest(lease_ids=[lease]), v1.RenewBatchResponse).results[0].ttl.seconds > 200)
        # Update alone changes nothing by it.
        ask1("Update", v1.UpdateRequest(lease_id=lease, duration=zero, payload="1"), empty_pb2.Empty)
        got = ask1("Get", v1.GetRequest(lease_id=lease), v1.Lease)
        self.assertEqual((got.duration.seconds, got.payload), (300, "1"))

    def test_batch_is_judged_item_by_item(self):
        requests = [v1.CreateRequest(object_id="b%d" % i if i % 5 else "", payload="{" if i == 7 else "", service_id="s")
                    for i in range(40)]
        items = ask1("CreateBatch", v1.CreateBatchRequest(requests=requests), v1.CreateBatchResponse).items
        self.assertEqual(len(items), 40)
        for i, item in enumerate(items):
            if i % 5 == 0 or i == 7:
                self.assertEqual(item.error.code, 3)
                self.assertIn(item.error.sqlstate, ("22023", "22P02"))
                self.assertIn("payload" if i == 7 else "object_id", item.error.message)
            else:
                self.assertGreater(item.grant.fence, 0)
        self.assertEqual(len(ask1("CreateBatch", v1.CreateBatchRequest(), v1.CreateBatchResponse).items), 0)
        named = {2: {"object_id": "a\0b"}, 3: {"payload": '"\0"'}, 5: {"service_id": "\0"}, 6: {"parent": "\0"}, 9: {"request_key": "k\0"}}
        items = ask1("CreateBatch", v1.CreateBatchRequest(requests=[
            v1.CreateRequest(**{"object_id": "nul%d" % i, "service_id": "s", **named.get(i, {})}) for i in range(10)]),
                     v1.CreateBatchResponse).items
        self.assertEqual(len(items), 10)
        for i, item in enumerate(items):
            self.assertEqual(item.error.message, f"{[*named[i]][0]} contains a NUL byte" if i in named else "")
            self.assertEqual((item.error.code, item.error.sqlstate), (3, "22023") if i in named else (0, ""))
            self.assertEqual(item.grant.fence > 0, i not in named)
        self.refused(Code.INVALID_ARGUMENT, "CreateBatch", v1.CreateBatchRequest(requests=requests * 26), v1.CreateBatchResponse)

    def test_renew_batch_and_keep_alive(self):
        parent = self.grant("kp", duration=seconds(60))
        child = self.grant("kc", parent=parent.lease_id)
        ids = [parent.lease_id, "x", UNKNOWN, child.lease_id, parent.lease_id]
        Status = v1.RenewResult
        expected = [Status.RENEWED, Status.NOT_FOUND, Status.NOT_FOUND, Status.CHILD, Status.RENEWED]
        answer = ask1("RenewBatch", v1.RenewBatchRequest(lease_ids=ids, duration=seconds(90)), v1.RenewBatchResponse)
        self.assertEqual([r.status for r in answer.results], expected)
        self.assertEqual([r.lease_id for r in answer.results], ids)
        self.assertGreater(answer.results[0].ttl.seconds, 80)
        beats = [v1.KeepAliveRequest(lease_ids=ids, seq=i) for i in (7, 8, 9)]
        answers = list(method(channel, V1 + "KeepAlive", v1.KeepAliveResponse, "stream_stream")(iter(beats), timeout=20))
        self.assertEqual([a.seq for a in answers], [7, 8, 9])
        self.assertEqual([r.status for r in answers[0].results], expected)
        stream = method(channel, V1 + "KeepAlive", v1.KeepAliveResponse, "stream_stream")(
            iter([v1.KeepAliveRequest(lease_ids=ids, duration=seconds(-1))]), timeout=20)
        with self.assertRaises(grpc.RpcError) as caught:
            list(stream)
        self.assertEqual(caught.exception.code(), Code.INVALID_ARGUMENT)

    def test_a_beat_for_many(self):
        ids = sql("SELECT unnest(gt_lease_create_many(ARRAY(SELECT 'many ' || i FROM generate_series(1, 10000) i)))").split()
        beats = method(channel, V1 + "KeepAlive", v1.KeepAliveResponse, "stream_stream")
        answer, = beats(iter([v1.KeepAliveRequest(lease_ids=ids)]), timeout=20)
        self.assertEqual([r.lease_id for r in answer.results], ids)
        self.assertEqual({r.status for r in answer.results}, {v1.RenewResult.RENEWED})
        with self.assertRaises(grpc.RpcError) as caught:
            list(beats(iter([v1.KeepAliveRequest(lease_ids=ids + ids[:1])]), timeout=20))
        self.assertEqual(caught.exception.code(), Code.INVALID_ARGUMENT)
        sql("SELECT gt_release_many(ARRAY(SELECT lease_id FROM gt_leases WHERE object_id LIKE 'many %'))")

    def test_many_beats_at_once(self):
        """A client need not wait for an answer before its next beat, also while PostgreSQL is slow."""
        lease_id = self.grant("beats", duration=seconds(60)).lease_id
        with cluster.connect(autocommit=False) as link:
            link.cursor().execute("SELECT FROM _garbagetruck.gt_lease WHERE id = %s FOR UPDATE", (lease_id,))
            sent = threading.Event()

            def beats():
                for i in range(500):
                    yield v1.KeepAliveRequest(lease_ids=[lease_id], seq=i)
                sent.set()
            stream = method(channel, V1 + "KeepAlive", v1.KeepAliveResponse, "stream_stream")(beats(), timeout=60)
            self.assertTrue(sent.wait(30))
            link.rollback()
            # one that had to wait is answered when it has been carried out, perhaps after some that came behind it
            self.assertEqual(sorted(answer.seq for answer in stream), list(range(500)))

    def test_answers_fit_the_clients(self):
        """Pages and claims end before 4 MiB, what is left comes with the next."""
        payload = '"%s"' % ("x" * 64000)
        for start in (0, 40):
            requests = [v1.CreateRequest(object_id="large%d" % i, service_id="large", cleanup="large", payload=payload,
                                         metadata='{"k": "v"}') for i in range(start, start + 40)]
            ask1("CreateBatch", v1.CreateBatchRequest(requests=requests), v1.CreateBatchResponse)
            requests = [v1.CreateRequest(object_id="labels%d" % i, service_id="labels", metadata='{"k": %s}' % payload)
                        for i in range(start, start + 40)]
            ask1("CreateBatch", v1.CreateBatchRequest(requests=requests), v1.CreateBatchResponse)
        for service in ("large", "labels"):
            for ask_list, request, answer in ((ask1, v1.ListRequest, v1.ListResponse), (ask, gc.ListLeasesRequest, gc.ListLeasesResponse)):
                name = "List" if ask_list is ask1 else "ListLeases"
                seen, token = [], ""
                while True:
                    page = ask_list(name, request(service_id=service, limit=1000, page_token=token), answer)
                    seen += [lease.lease_id for lease in page.leases]
                    token = page.next_page_token
                    if not token:
                        break
                self.assertEqual((len(seen), len(set(seen))), (80, 80))
                if service == "large":
                    ids = seen
        ask1("Release", v1.ReleaseRequest(lease_ids=ids), v1.CountResponse)
        seen = set()
        while len(seen) < 80:
            cleanups = ask1("Claim", v1.ClaimRequest(handlers=["large"], max_items=1000, wait=seconds(10)), v1.ClaimResponse).cleanups
            self.assertTrue(cleanups)
            self.assertFalse(seen & {c.object_id for c in cleanups})
            seen |= {c.object_id for c in cleanups}
            for c in cleanups:
                ask1("Ack", v1.Outcome(cleanup_id=c.cleanup_id, attempt=c.attempt), v1.OutcomeResponse)

    def test_a_claim_of_many(self):
        ids = [item.grant.lease_id for item in ask1("CreateBatch", v1.CreateBatchRequest(requests=[
            v1.CreateRequest(object_id="lot%d" % i, cleanup="lot") for i in range(300)]), v1.CreateBatchResponse).items]
        ask1("Release", v1.ReleaseRequest(lease_ids=ids), v1.CountResponse)
        for wanted, got in ((250, 250), (1000, 50), (1000, 0)):
            cleanups = ask1("Claim", v1.ClaimRequest(handlers=["lot"], max_items=wanted), v1.ClaimResponse).cleanups
            self.assertEqual(len(cleanups), got)
            for c in cleanups:
                ask1("Ack", v1.Outcome(cleanup_id=c.cleanup_id, attempt=c.attempt), v1.OutcomeResponse)

    def test_release_update_get_list_fence(self):
        made = [self.grant("many%d" % i, object_type="rel", payload="1") for i in range(3)]
        ids = [m.lease_id for m in made]
        ask1("Update", v1.UpdateRequest(lease_id=ids[0], metadata='{"half": true}'), empty_pb2.Empty)
        lease = ask1("Get", v1.GetRequest(lease_id=ids[0]), v1.Lease)
        self.assertEqual((lease.payload, lease.metadata, lease.state), ("1", '{"half": true}', "active"))
        for lease_id in (UNKNOWN, "x"):
            self.refused(Code.NOT_FOUND, "Get", v1.GetRequest(lease_id=lease_id), v1.Lease, lease_id)
            self.refused(Code.NOT_FOUND, "Update", v1.UpdateRequest(lease_id=lease_id), empty_pb2.Empty, lease_id)
        self.refused(Code.INVALID_ARGUMENT, "Update", v1.UpdateRequest(lease_id=ids[0], payload="{"), empty_pb2.Empty, "payload")
        page = ask1("List", v1.ListRequest(object_type="rel", limit=2), v1.ListResponse)
        rest = ask1("List", v1.ListRequest(object_type="rel", page_token=page.next_page_token), v1.ListResponse)
        self.assertEqual(sorted(x.lease_id for x in list(page.leases) + list(rest.leases)), sorted(ids))
        self.assertEqual(len(ask1("List", v1.ListRequest(object_id="many1"), v1.ListResponse).leases), 1)
        self.refused(Code.INVALID_ARGUMENT, "List", v1.ListRequest(state="x"), v1.ListResponse)
        fence = v1.FenceRequest(object_id="many1", object_type="rel", fence=made[1].fence)
        self.assertTrue(ask1("CheckFence", fence, v1.FenceResponse).current)
        self.assertEqual(ask1("Release", v1.ReleaseRequest(lease_ids=ids + [UNKNOWN, "x"]), v1.CountResponse).count, 3)
        self.assertFalse(ask1("CheckFence", fence, v1.FenceResponse).current)
        self.refused(Code.NOT_FOUND, "Release", v1.ReleaseRequest(lease_ids=ids, keep=True), v1.CountResponse)
        self.refused(Code.NOT_FOUND, "Release", v1.ReleaseRequest(lease_ids=["x"], keep=True), v1.CountResponse, "lease x not found")

    def test_claim_ack_nack_extend(self):
        self.garbage("q", "c1", "c2", "c3")
        claimed = ask1("Claim", v1.ClaimRequest(handlers=["q"], max_items=2, visibility=seconds(30), wait=seconds(10)),
                       v1.ClaimResponse).cleanups
        self.assertEqual([(c.attempt, c.handler, c.kind) for c in claimed], [(1, "q", "queue")] * len(claimed))
        token = v1.Outcome(cleanup_id=claimed[0].cleanup_id, attempt=1)
        self.refused(Code.INVALID_ARGUMENT, "Extend", token, v1.OutcomeResponse, "delay")
        token.delay.CopyFrom(seconds(60))
        self.assertTrue(ask1("Extend", token, v1.OutcomeResponse).current)
        self.assertTrue(ask1("Nack", v1.Outcome(cleanup_id=claimed[0].cleanup_id, attempt=1, error="no", delay=seconds(0.1)),
                             v1.OutcomeResponse).current)
        self.assertFalse(ask1("Ack", token, v1.OutcomeResponse).current)
        self.refused(Code.INVALID_ARGUMENT, "Ack", v1.Outcome(attempt=2**31), v1.OutcomeResponse, "attempt")
        left = {"c1", "c2", "c3"}
        for cleanup in claimed[1:]:
            self.assertTrue(ask1("Ack", v1.Outcome(cleanup_id=cleanup.cleanup_id, attempt=cleanup.attempt),
                                 v1.OutcomeResponse).current)
            left.remove(cleanup.object_id)
        while left:
            for cleanup in ask1("Claim", v1.ClaimRequest(handlers=["q"], wait=seconds(10)), v1.ClaimResponse).cleanups:
                ask1("Ack", v1.Outcome(cleanup_id=cleanup.cleanup_id, attempt=cleanup.attempt), v1.OutcomeResponse)
                left.remove(cleanup.object_id)
        self.assertEqual(len(ask1("Claim", v1.ClaimRequest(handlers=["q"]), v1.ClaimResponse).cleanups), 0)
        self.refused(Code.INVALID_ARGUMENT, "Claim", v1.ClaimRequest(handlers=["nope"]), v1.ClaimResponse, "nope")
        self.refused(Code.INVALID_ARGUMENT, "Claim", v1.ClaimRequest(wait=seconds(-2)), v1.ClaimResponse, "wait")

    def test_watch(self):
        self.garbage("mine", "w1", "w2", "w3")
        requests = queue.Queue()
        requests.put(v1.WatchRequest(handlers=["mine"], credit=2, visibility=seconds(2)))
        stream = method(channel, V1 + "WatchCleanups", v1.Cleanup, "stream_stream")(iter(requests.get, None), timeout=60)
        first, second = next(stream), next(stream)
        waiting = "SELECT count(*) FROM gt_garbage WHERE handler = 'mine' AND state = 'waiting'"
        self.assertEqual(sql(waiting), "1")
        token = v1.Outcome(cleanup_id=first.cleanup_id, attempt=first.attempt)
        requests.put(v1.WatchRequest(credit=1, acks=[token]))
        third = next(stream)
        self.assertEqual({first.object_id, second.object_id, third.object_id}, {"w1", "w2", "w3"})
        until = f"SELECT claimed_until FROM gt_garbage WHERE cleanup_id = {second.cleanup_id}"
        before = sql(until)
        self.assertTrue(wait_until(lambda: sql(until) != before, 20), "the claim was not extended")
        requests.put(v1.WatchRequest(credit=1, nacks=[v1.Outcome(cleanup_id=second.cleanup_id, attempt=second.attempt, error="x",
                                                                 delay=seconds(0.1))]))
        again = next(stream)
        self.assertEqual((again.object_id, again.attempt), (second.object_id, second.attempt + 1))
        requests.put(v1.WatchRequest(acks=[v1.Outcome(cleanup_id=c.cleanup_id, attempt=c.attempt) for c in (third, again)]))
        self.assertTrue(wait_until(lambda: sql("SELECT count(*) FROM gt_garbage WHERE handler = 'mine'") == "0", 20))
        requests.put(None)
        self.assertEqual(list(stream), [])

    def watch_refused(self, code, word, *requests, **more):
        stream = method(channel, V1 + "WatchCleanups", v1.Cleanup, "stream_stream")(iter(requests), timeout=20, **more)
        with self.assertRaises(grpc.RpcError) as caught:
            list(stream)
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        self.assertIn(word, caught.exception.details())

    def test_bad_values_in_a_watch(self):
        first = v1.WatchRequest(handlers=["other"])
        token = v1.Outcome(cleanup_id=1, attempt=1, delay=seconds(-1))
        self.watch_refused(Code.INVALID_ARGUMENT, "visibility", v1.WatchRequest(visibility=seconds(-1)))
        self.watch_refused(Code.INVALID_ARGUMENT, "visibility", v1.WatchRequest(visibility=duration_pb2.Duration()))
        self.watch_refused(Code.INVALID_ARGUMENT, "visibility", first, v1.WatchRequest(visibility=seconds(-1)))
        self.watch_refused(Code.INVALID_ARGUMENT, "delay", first, v1.WatchRequest(nacks=[token]))
        self.watch_refused(Code.INVALID_ARGUMENT, "attempt", first, v1.WatchRequest(acks=[v1.Outcome(attempt=2**31)]))

    def test_an_outcome_that_fails_ends_the_watch(self):
        """An acknowledgement that did not count must not look as if it had."""
        token = v1.Outcome(cleanup_id=1, attempt=1)
        sql("REVOKE EXECUTE ON FUNCTION gt_ack FROM app", "postgres")
        try:
            self.watch_refused(Code.PERMISSION_DENIED, "gt_ack", v1.WatchRequest(handlers=["other"], acks=[token]))
        finally:
            sql("GRANT EXECUTE ON FUNCTION gt_ack TO app", "postgres")

    def test_acks_of_a_client_that_has_gone(self):
        self.garbage("mine", *["gone%d" % i for i in range(40)])
        requests = queue.Queue()
        requests.put(v1.WatchRequest(handlers=["mine"], credit=40))
        stream = method(channel, V1 + "WatchCleanups", v1.Cleanup, "stream_stream")(iter(requests.get, None), timeout=60)
        got = [next(stream) for _ in range(40)]
        for cleanup in got:
            requests.put(v1.WatchRequest(acks=[v1.Outcome(cleanup_id=cleanup.cleanup_id, attempt=cleanup.attempt)]))
        requests.put(None)
        self.assertEqual(list(stream), [])
        self.assertEqual(sql("SELECT count(*) FROM gt_garbage WHERE handler = 'mine'"), "0")

    def test_a_watch_extends_beside_a_locked_row(self):
        import psycopg2
        self.garbage("mine", "held1", "held2", "held3")
        requests = queue.Queue()
        requests.put(v1.WatchRequest(handlers=["mine"], credit=3, visibility=seconds(3)))
        stream = method(channel, V1 + "WatchCleanups", v1.Cleanup, "stream_stream")(iter(requests.get, None), timeout=60)
        got = {c.object_id: c for c in (next(stream), next(stream), next(stream))}
        holder = psycopg2.connect(cluster.dsn(user="postgres"))
        holder.cursor().execute("SELECT FROM _garbagetruck.gt_object WHERE object_id = 'held1' FOR UPDATE")
        until = "SELECT count(*) FROM gt_garbage WHERE handler = 'mine' AND object_id <> 'held1' AND state = 'claimed' AND attempts = 1"
        clock = time.monotonic() + 8
        while time.monotonic() < clock:
            self.assertEqual(sql(until), "2")
            time.sleep(0.3)
        holder.rollback()
        requests.put(v1.WatchRequest(acks=[v1.Outcome(cleanup_id=c.cleanup_id, attempt=c.attempt) for c in got.values()]))
        requests.put(None)
        list(stream)

    def test_a_silent_consumer_loses_its_claims(self):
        self.garbage("mine", "silent")
        requests = queue.Queue()
        requests.put(v1.WatchRequest(handlers=["mine"], credit=1, visibility=seconds(0.5)))
        stream = method(channel, V1 + "WatchCleanups", v1.Cleanup, "stream_stream")(iter(requests.get, None), timeout=60)
        next(stream)
        for _ in range(8):
            # An empty message is a sign of life.
            time.sleep(1)
            requests.put(v1.WatchRequest())
        self.assertEqual(sql("SELECT state, attempts FROM gt_garbage WHERE object_id = 'silent'"), "claimed|1")
        with self.assertRaises(grpc.RpcError) as caught:
            next(stream)
        requests.put(None)
        self.assertEqual(caught.exception.code(), Code.ABORTED)
        claimed = ask1("Claim", v1.ClaimRequest(handlers=["mine"], wait=seconds(15)), v1.ClaimResponse).cleanups
        self.assertEqual((claimed[0].object_id, claimed[0].attempt), ("silent", 2))
        # No error: it was no attempt; final: there is no further one.
        token = v1.Outcome(cleanup_id=claimed[0].cleanup_id, attempt=2, delay=seconds(0.1))
        self.assertTrue(ask1("Nack", token, v1.OutcomeResponse).current)
        claimed = ask1("Claim", v1.ClaimRequest(handlers=["mine"], wait=seconds(15)), v1.ClaimResponse).cleanups
        token = v1.Outcome(cleanup_id=claimed[0].cleanup_id, attempt=claimed[0].attempt, error="broken", final=True)
        self.assertTrue(ask1("Nack", token, v1.OutcomeResponse).current)
        self.assertEqual(sql("SELECT object_id, error FROM gt_dead WHERE object_id = 'silent'"), "silent|broken")
        sql("SELECT gt_ack(cleanup_id, attempts) FROM gt_dead WHERE object_id = 'silent'")

    def test_many_who_wait_ask_as_one(self):
        def calls():
            return int(sql("SELECT sum(calls) FROM pg_stat_user_functions WHERE funcname = 'gt_claim'", "postgres") or 0)
        sql("ALTER SYSTEM SET track_functions = 'all'", "postgres")
        sql("SELECT pg_reload_conf()", "postgres")
        waiting = [method(channel, V1 + "Claim", v1.ClaimResponse).future(
            v1.ClaimRequest(handlers=["mine"], max_items=1, wait=seconds(30)), timeout=40) for _ in range(200)]
        time.sleep(2)
        before = calls()
        time.sleep(4)
        asked = calls() - before
        self.garbage("mine", *["of many %d" % i for i in range(200)])
        got = [one.result().cleanups[0] for one in waiting]
        self.assertEqual(len({c.object_id for c in got}), 200)
        self.assertLess(asked, 40)
        for cleanup in got:
            ask1("Ack", v1.Outcome(cleanup_id=cleanup.cleanup_id, attempt=cleanup.attempt), v1.OutcomeResponse)
        sql("ALTER SYSTEM RESET track_functions", "postgres")
        sql("SELECT pg_reload_conf()", "postgres")

    def test_fields_that_sql_has_since(self):
        lease = self.grant("shorter", duration=seconds(3000)).lease_id
        ask1("Update", v1.UpdateRequest(lease_id=lease, duration=seconds(5)), empty_pb2.Empty)
        shown = ask1("Get", v1.GetRequest(lease_id=lease), v1.Lease)
        self.assertEqual(shown.duration.seconds, 5)
        ask1("Update", v1.UpdateRequest(lease_id=lease, payload="1"), empty_pb2.Empty)
        self.assertEqual(ask1("Get", v1.GetRequest(lease_id=lease), v1.Lease).duration.seconds, 5)
        self.grant("regrant", exclusive=True, duration=seconds(0.1), regrant_delay=seconds(30))
        again = v1.CreateRequest(object_id="regrant", exclusive=True, service_id="other")
        self.assertTrue(wait_until(lambda: sql("SELECT count(*) FROM gt_leases WHERE object_id = 'regrant' AND state = 'active'") == "0", 20))
        self.refused(Code.ALREADY_EXISTS, "Create", again, v1.Grant, "regrant_delay")
        self.refused(Code.INVALID_ARGUMENT, "Create", v1.CreateRequest(object_id="r", regrant_delay=seconds(-1)), v1.Grant, "regrant_delay")

    def test_targets_that_can_never_be_called(self):
        """Whatever --allow-target says, and where it says no."""
        for cleanup, payload in (("http_endpoint", '{"url": "http://elsewhere.example/x"}'),
                                 ("http_endpoint", '{"a": [{"url": 1}, "]"], "u\\u0072l" : "ftp:\\/\\/127.0.0.1:9\\/"}'),
                                 ("grpc_endpoint", '{"url": "http://127.0.0.1:9/with/a/path"}')):
            self.refused(Code.INVALID_ARGUMENT, "Create", v1.CreateRequest(object_id="no target", cleanup=cleanup, payload=payload), v1.Grant,
                         "payload")
        self.grant("target", cleanup="grpc_endpoint", payload='{"url": "http://elsewhere.example/x", "url": "http://127.0.0.1:9"}')

    def test_garbage_of_others(self):
        """Their tokens are answered as if there were none."""
        sql("SELECT gt_handler_create('theirs', 'queue'), gt_handler_grant('theirs', 'app', 'use')", "postgres")
        sql("SELECT gt_release(gt_lease_create('a1', cleanup => 'theirs'))")
        self.assertTrue(wait_until(lambda: sql("SELECT count(*) FROM gt_garbage WHERE handler = 'theirs'", "postgres") == "1", 20))
        token = v1.Outcome(cleanup_id=int(sql("SELECT cleanup_id FROM gt_claim('{theirs}')", "postgres")), attempt=1,
                           error="x", delay=seconds(1))
        for method_name in ("Ack", "Nack", "Extend"):
            self.assertFalse(ask1(method_name, token, v1.OutcomeResponse).current)
        self.refused(Code.PERMISSION_DENIED, "Claim", v1.ClaimRequest(handlers=["theirs"]), v1.ClaimResponse, "theirs")

    def test_a_watch_of_hardly_any_visibility(self):
        """Its claims lapse before they can be extended; the server goes on."""
        requests = queue.Queue()
        requests.put(v1.WatchRequest(handlers=["other"], visibility=duration_pb2.Duration(nanos=1000)))
        stream = method(channel, V1 + "WatchCleanups", v1.Cleanup, "stream_stream")(iter(requests.get, None), timeout=60)
        requests.put(v1.WatchRequest(credit=1))
        self.garbage("other", "brief")
        self.assertEqual(next(stream).object_id, "brief")
        requests.put(None)
        while True:
            cleanup = ask1("Claim", v1.ClaimRequest(handlers=["other"], wait=seconds(10)), v1.ClaimResponse).cleanups[0]
            if ask1("Ack", v1.Outcome(cleanup_id=cleanup.cleanup_id, attempt=cleanup.attempt), v1.OutcomeResponse).current:
                break

    def test_a_broken_watch_lets_claims_lapse(self):
        self.garbage("other", "lapse")
        requests = queue.Queue()
        requests.put(v1.WatchRequest(handlers=["other"], credit=5, visibility=seconds(1)))
        stream = method(channel, V1 + "WatchCleanups", v1.Cleanup, "stream_stream")(iter(requests.get, None), timeout=60)
        first = next(stream)
        stream.cancel()
        requests.put(None)
        claimed = ask1("Claim", v1.ClaimRequest(handlers=["other"], wait=seconds(15)), v1.ClaimResponse).cleanups
        self.assertEqual((claimed[0].object_id, claimed[0].attempt), (first.object_id, 2))
        ask1("Ack", v1.Outcome(cleanup_id=claimed[0].cleanup_id, attempt=2), v1.OutcomeResponse)

    def test_redrive_pause_resume_forecast_health(self):
        self.assertEqual(ask1("Redrive", v1.HandlerRequest(handler="q"), v1.CountResponse).count, 0)
        ask1("Pause", v1.HandlerRequest(handler="q"), empty_pb2.Empty)
        self.assertEqual(sql("SELECT paused FROM gt_handlers WHERE name = 'q'"), "t")
        ask1("Resume", v1.HandlerRequest(handler="q"), empty_pb2.Empty)
        self.assertEqual(sql("SELECT paused FROM gt_handlers WHERE name = 'q'"), "f")
        self.refused(Code.PERMISSION_DENIED, "Pause", v1.HandlerRequest(), empty_pb2.Empty)
        self.grant("soon", object_type="forecast", duration=seconds(120))
        rows = ask1("Forecast", v1.ForecastRequest(horizon=seconds(600)), v1.ForecastResponse).rows
        self.assertEqual(sum(r.leases for r in rows if r.object_type == "forecast"), 1)
        health = ask1("Health", empty_pb2.Empty(), v1.HealthResponse)
        self.assertIn("preloaded", [c.name for c in health.checks])

    def test_a_forecast_that_fits_no_answer(self):
        name = "n" * 255
        sql(f"SELECT gt_handler_create('{name}', 'queue')")
        sql(f"SELECT gt_lease_create('f', lpad(i::text, 255, 't'), 'forecast', '5 min', '{name}') FROM generate_series(1, 8000) i")
        self.refused(Code.RESOURCE_EXHAUSTED, "Forecast", v1.ForecastRequest(), v1.ForecastResponse, "ask for a shorter one")
        ask1("Forecast", v1.ForecastRequest(horizon=seconds(60)), v1.ForecastResponse)
        sql("SELECT gt_release_many(ARRAY(SELECT lease_id FROM gt_leases WHERE service_id = 'forecast'), true)")

    def test_another_identity(self):
        """--expect-identity: what may be a copy's garbage is given to nobody."""
        other = until_serving(Sidecar(cluster, "--expect-identity", "production"))
        self.addCleanup(other.stop)
        self.garbage("other", "copied")
        request = v1.ClaimRequest(handlers=["other"], wait=seconds(5))
        error = failure(other.channel(), V1 + "Claim", request, v1.ClaimResponse)
        self.assertEqual(error.code(), Code.FAILED_PRECONDITION)
        self.assertIn("production", error.details())
        stream = method(other.channel(), V1 + "WatchCleanups", v1.Cleanup, "stream_stream")(
            iter([v1.WatchRequest(handlers=["other"], credit=1)]), timeout=20)
        with self.assertRaises(grpc.RpcError) as caught:
            list(stream)
        self.assertEqual(caught.exception.code(), Code.FAILED_PRECONDITION)
        cleanup = ask1("Claim", request, v1.ClaimResponse).cleanups[0]
        self.assertEqual((cleanup.object_id, cleanup.attempt), ("copied", 1))
        ask1("Ack", v1.Outcome(cleanup_id=cleanup.cleanup_id, attempt=1), v1.OutcomeResponse)


class StandardServicesTest(unittest.TestCase):
    def test_health(self):
        def check(service):
            return call(channel, "/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest(service=service),
                        health_pb2.HealthCheckResponse).status
        for service in ("", "distributed_gc.DistributedGCService", "garbagetruck.v1.GarbageTruck"):
            self.assertEqual(check(service), 1)
        error = failure(channel, "/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest(service="x"),
                        health_pb2.HealthCheckResponse)
        self.assertEqual(error.code(), Code.NOT_FOUND)
        watch = method(channel, "/grpc.health.v1.Health/Watch", health_pb2.HealthCheckResponse, "unary_stream")
        for service, status in (("", 1), ("x", 3)):
            stream = watch(health_pb2.HealthCheckRequest(service=service))
            self.assertEqual(next(stream).status, status)
            stream.cancel()

    def test_reflection(self):
        from google.protobuf import descriptor_pb2
        for version, pb in (("v1", reflection_v1_pb2), ("v1alpha", reflection_v1alpha_pb2)):
            stub = method(channel, f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                          pb.ServerReflectionResponse, "stream_stream")
            asked = [pb.ServerReflectionRequest(list_services=""),
                     pb.ServerReflectionRequest(file_containing_symbol="garbagetruck.v1.GarbageTruck"),
                     pb.ServerReflectionRequest(file_containing_symbol="distributed_gc.LeaseInfo.lease_id"),
                     pb.ServerReflectionRequest(file_by_filename="google/protobuf/timestamp.proto"),
                     pb.ServerReflectionRequest(file_containing_symbol="no.such.Thing"),
                     pb.ServerReflectionRequest(all_extension_numbers_of_type="x"),
                     pb.ServerReflectionRequest(file_containing_symbol="google.rpc.ErrorInfo")]
            answers = list(stub(iter(asked), timeout=20))
            names = [s.name for s in answers[0].list_services_response.service]
            self.assertIn("distributed_gc.DistributedGCService", names)
            self.assertIn("grpc.health.v1.Health", names)
            files = [descriptor_pb2.FileDescriptorProto.FromString(f).name
                     for f in answers[1].file_descriptor_response.file_descriptor_proto]
            self.assertEqual(files[0], "garbagetruck_v1.proto")
            self.assertIn("google/protobuf/duration.proto", files)
            self.assertTrue(answers[2].file_descriptor_response.file_descriptor_proto)
            self.assertTrue(answers[3].file_descriptor_response.file_descriptor_proto)
            self.assertIn(b"ErrorInfo", b"".join(answers[6].file_descriptor_response.file_descriptor_proto))
            self.assertEqual(answers[4].error_response.error_code, 5)
            self.assertEqual(answers[5].error_response.error_code, 5)


class CallersTest(unittest.TestCase):
    """A server with a token file."""

    @classmethod
    def setUpClass(cls):
        cls.file = os.path.join(WORK, "tokens")
        cls.write("t1 billing claim=mine\nt2 media\nt3 boss admin claim=*\n# a comment\n")
        cls.sidecar = Sidecar(cluster, "--token-file", cls.file)
        cls.channel = until_serving(cls.sidecar).channel()

    @classmethod
    def tearDownClass(cls):
        cls.sidecar.stop()

    @classmethod
    def write(cls, text):
        with open(cls.file, "w") as file:
            file.write(text)

    def ask(self, token, path, request, answer):
        return call(self.channel, path, request, answer, metadata=(("authorization", "Bearer " + token),))

    def code(self, token, path, request, answer):
        try:
            self.ask(token, path, request, answer)
            return Code.OK
        except grpc.RpcError as error:
            return error.code()

    def create(self, token, service, name="caller"):
        return self.code(token, GC + "CreateLease", gc.CreateLeaseRequest(object_id=name, service_id=service),
                         gc.CreateLeaseResponse)

    def test_a_token_is_needed(self):
        request = gc.CreateLeaseRequest(object_id="x", service_id="billing")
        self.assertEqual(failure(self.channel, GC + "CreateLease", request, gc.CreateLeaseResponse).code(), Code.UNAUTHENTICATED)
        self.assertEqual(self.create("wrong", "billing"), Code.UNAUTHENTICATED)
        self.assertEqual(call(self.channel, "/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest(),
                              health_pb2.HealthCheckResponse).status, 1)

    def test_a_caller_is_its_service(self):
        self.assertEqual(self.create("t1", "billing"), Code.OK)
        self.assertEqual(self.create("t1", "billing/eu"), Code.OK)
        self.assertEqual(self.create("t1", "billing2"), Code.PERMISSION_DENIED)
        self.assertEqual(self.create("t1", "media"), Code.PERMISSION_DENIED)
        grant = self.ask("t1", V1 + "Create", v1.CreateRequest(object_id="default"), v1.Grant)
        self.assertEqual(sql(f"SELECT service_id FROM gt_leases WHERE lease_id = '{grant.lease_id}'"), "billing")
        self.assertEqual(self.code("t1", V1 + "Create", v1.CreateRequest(object_id="x", service_id="media"), v1.Grant),
                         Code.PERMISSION_DENIED)

    def test_only_own_leases_are_shown(self):
        mine = self.ask("t1", V1 + "Create", v1.CreateRequest(object_id="mine", service_id="billing/x"), v1.Grant).lease_id
        theirs = self.ask("t2", V1 + "Create", v1.CreateRequest(object_id="theirs2"), v1.Grant).lease_id
        get = gc.GetLeaseRequest(lease_id=theirs)
        self.assertFalse(self.ask("t1", GC + "GetLease", get, gc.GetLeaseResponse).found)
        self.assertTrue(self.ask("t2", GC + "GetLease", get, gc.GetLeaseResponse).found)
        self.assertEqual(self.code("t1", V1 + "Get", v1.GetRequest(lease_id=theirs), v1.Lease), Code.NOT_FOUND)
        foreign = sql("SELECT gt_lease_create('of another role', service_id => 'billing')", "postgres")
        for path, request, answer in ((GC + "ListLeases", gc.ListLeasesRequest(limit=1000), gc.ListLeasesResponse),
                                      (V1 + "List", v1.ListRequest(limit=1000), v1.ListResponse)):
            shown = {lease.lease_id for lease in self.ask("t1", path, request, answer).leases}
            self.assertIn(mine, shown)
            self.assertNotIn(theirs, shown)
            self.assertNotIn(foreign, shown)
        self.assertEqual(self.code("t1", V1 + "List", v1.ListRequest(service_id="media"), v1.ListResponse), Code.PERMISSION_DENIED)
        results = self.ask("t1", V1 + "RenewBatch", v1.RenewBatchRequest(lease_ids=[theirs, mine]), v1.RenewBatchResponse).results
        self.assertEqual([r.status for r in results], [v1.RenewResult.NOT_FOUND, v1.RenewResult.RENEWED])
        for name, request, answer in (("Update", v1.UpdateRequest(lease_id=theirs, payload="1"), empty_pb2.Empty),
                                      ("Get", v1.GetRequest(lease_id=theirs), v1.Lease)):
            error = failure(self.channel, V1 + name, request, answer, metadata=(("authorization", "Bearer t1"),))
            self.assertEqual((error.code(), error.details()), (Code.NOT_FOUND, f"lease {theirs} not found"))
        error = failure(self.channel, V1 + "Create", v1.CreateRequest(object_id="x", service_id="media"), v1.Grant,
                        metadata=(("authorization", "Bearer t1"),))
        self.assertEqual(error.details(), 'billing may not act as service "media"')
        self.ask("t1", V1 + "Update", v1.UpdateRequest(lease_id=mine, payload="1"), empty_pb2.Empty)
        # Nor does a lease of another service's become a parent.
        child = v1.CreateRequest(object_id="child", parent=theirs)
        error = failure(self.channel, V1 + "Create", child, v1.Grant, metadata=(("authorization", "Bearer t1"),))
        self.assertEqual((error.code(), error.details()), (Code.NOT_FOUND, f"parent: lease {theirs} not found"))
        self.assertEqual(sql("SELECT count(*) FROM gt_leases WHERE object_id = 'child'"), "0")
        items = self.ask("t1", V1 + "CreateBatch", v1.CreateBatchRequest(requests=[
            child, v1.CreateRequest(object_id="child", service_id="billing/a", parent=mine)]), v1.CreateBatchResponse).items
        self.assertEqual((items[0].error.code, items[0].error.sqlstate, items[0].error.message),
                         (5, "GT001", f"parent: lease {theirs} not found"))
        self.assertTrue(items[1].grant.created)
        self.assertEqual(self.ask("t1", V1 + "Release", v1.ReleaseRequest(lease_ids=[theirs, mine]), v1.CountResponse).count, 1)
        for request, name, answer in ((gc.RenewLeaseRequest(lease_id=theirs, service_id="media"), "RenewLease", gc.RenewLeaseResponse),
                                      (gc.ReleaseLeaseRequest(lease_id=theirs, service_id="media"), "ReleaseLease",
                                       gc.ReleaseLeaseResponse)):
            self.assertEqual(self.code("t1", GC + name, request, answer), Code.PERMISSION_DENIED)

    def error(self, token, path, request, answer):
        return failure(self.channel, path, request, answer, metadata=(("authorization", "Bearer " + token),))

    def untold(self, error, *secrets):
        told = [error.details()] + [str(value) for _, value in error.trailing_metadata() or ()]
        for secret in secrets:
            self.assertFalse([text for text in told if secret in text], secret)

    def test_an_object_belongs_to_the_caller_of_its_first_lease(self):
        grants = {}
        for name, cleanup in (("doc-a", "mine"), ("doc-lock", "")):
            grants[name] = self.ask("t2", V1 + "Create", v1.CreateRequest(object_id=name, service_id="media/secret", cleanup=cleanup),
                                    v1.Grant)
        for name in grants:
            for more in ({}, {"exclusive": True}, {"cleanup": "mine"}, {"request_key": "k"}):
                request = v1.CreateRequest(object_id=name, **more)
                error = self.error("t1", V1 + "Create", request, v1.Grant)
                self.assertEqual(error.code(), Code.PERMISSION_DENIED, more)
                self.untold(error, "media", "secret")
                item = self.ask("t1", V1 + "CreateBatch", v1.CreateBatchRequest(requests=[request, v1.CreateRequest(object_id="free")]),
                                v1.CreateBatchResponse).items
                self.assertEqual((item[0].error.code, item[1].grant.created), (7, True))
                self.assertNotIn("media", item[0].error.message)
            error = self.error("t1", GC + "CreateLease", gc.CreateLeaseRequest(object_id=name, object_type=6, service_id="billing"),
                               gc.CreateLeaseResponse)
            self.assertEqual(error.code(), Code.PERMISSION_DENIED)
            for fence in (grants[name].fence, 1):
                request = v1.FenceRequest(object_id=name, fence=fence)
                self.assertEqual(self.code("t1", V1 + "CheckFence", request, v1.FenceResponse), Code.PERMISSION_DENIED)
            self.assertTrue(self.ask("t2", V1 + "CheckFence", v1.FenceRequest(object_id=name, fence=grants[name].fence),
                                     v1.FenceResponse).current)
        # What the caller covers, S and S/..., is its own.
        again = self.ask("t2", V1 + "Create", v1.CreateRequest(object_id="doc-a", service_id="media/other"), v1.Grant)
        self.ask("t2", V1 + "Release", v1.ReleaseRequest(lease_ids=[again.lease_id, grants["doc-a"].lease_id]), v1.CountResponse)
        # Garbage belongs to it as well; what is forgotten, or cleaned, is anybody's.
        self.assertEqual(self.code("t1", V1 + "Create", v1.CreateRequest(object_id="doc-a"), v1.Grant), Code.PERMISSION_DENIED)
        cleanup = self.ask("t1", V1 + "Claim", v1.ClaimRequest(wait=seconds(10)), v1.ClaimResponse).cleanups[0]
        self.assertEqual((cleanup.object_id, cleanup.handler), ("doc-a", "mine"))
        error = self.error("t2", V1 + "Create", v1.CreateRequest(object_id="doc-a"), v1.Grant)
        self.assertEqual(error.code(), Code.ABORTED)
        self.untold(error, "gt_ack")
        self.ask("t1", V1 + "Ack", v1.Outcome(cleanup_id=cleanup.cleanup_id, attempt=cleanup.attempt), v1.OutcomeResponse)
        self.ask("t2", V1 + "Release", v1.ReleaseRequest(lease_ids=[grants["doc-lock"].lease_id]), v1.CountResponse)
        for name in grants:
            grant = self.ask("t1", V1 + "Create", v1.CreateRequest(object_id=name), v1.Grant)
            self.assertEqual(self.code("t2", V1 + "Create", v1.CreateRequest(object_id=name), v1.Grant), Code.PERMISSION_DENIED)
            self.ask("t1", V1 + "Release", v1.ReleaseRequest(lease_ids=[grant.lease_id], keep=True), v1.CountResponse)

    def test_callers_and_the_role_itself(self):
        # In SQL nobody calls but the role: who the object is for is said by the service.
        sql("SELECT gt_lease_create('from sql', service_id => 'media/x')", "app")
        self.assertEqual(self.code("t1", V1 + "Create", v1.CreateRequest(object_id="from sql"), v1.Grant), Code.PERMISSION_DENIED)
        self.assertEqual(self.code("t2", V1 + "Create", v1.CreateRequest(object_id="from sql"), v1.Grant), Code.OK)
        # And what a caller leases the role may, as nothing of the caller is left in a session.
        grant = self.ask("t1", V1 + "Create", v1.CreateRequest(object_id="for sql"), v1.Grant)
        self.assertEqual(sql(f"SELECT gt_fence_check('for sql', 'custom', {grant.fence})", "app"), "t")
        # Keep is judged by the object, not by the lease alone.
        sql("SELECT gt_lease_create('two', service_id => 'media'), gt_lease_create('two', service_id => 'billing')", "app")
        mine = sql("SELECT lease_id FROM gt_leases WHERE object_id = 'two' AND service_id = 'billing'", "app")
        self.assertEqual(self.code("t1", V1 + "Release", v1.ReleaseRequest(lease_ids=[mine], keep=True), v1.CountResponse),
                         Code.PERMISSION_DENIED)
        self.assertEqual(self.ask("t1", V1 + "Release", v1.ReleaseRequest(lease_ids=[mine]), v1.CountResponse).count, 1)

    def test_nobody_learns_of_others(self):
        theirs = self.ask("t2", V1 + "Create", v1.CreateRequest(object_id="hush", object_type="secret_type", service_id="media/secret"),
                          v1.Grant).lease_id
        for name, request, answer in (("RenewLease", gc.RenewLeaseRequest(lease_id=theirs, service_id="billing"), gc.RenewLeaseResponse),
                                      ("ReleaseLease", gc.ReleaseLeaseRequest(lease_id=theirs, service_id="billing"),
                                       gc.ReleaseLeaseResponse)):
            error = self.error("t1", GC + name, request, answer)
            self.assertEqual(error.code(), Code.PERMISSION_DENIED)
            self.untold(error, "media", "secret")
        before = self.ask("t1", GC + "HealthCheck", gc.HealthCheckRequest(), gc.HealthCheckResponse)
        self.assertEqual(before.active_leases, int(sql("SELECT count(*) FROM gt_leases WHERE service_id ~ '^billing(/|$)'")))
        metrics = self.ask("t1", GC + "GetMetrics", gc.MetricsRequest(), gc.MetricsResponse)
        self.assertNotIn("secret_type", metrics.leases_by_type)
        self.assertEqual(sum(metrics.leases_by_type.values()), metrics.active_leases)
        self.assertEqual(metrics.total_leases_created, 0)
        metrics = self.ask("t2", GC + "GetMetrics", gc.MetricsRequest(), gc.MetricsResponse)
        self.assertEqual(metrics.leases_by_type["secret_type"], 1)
        metrics = self.ask("t3", GC + "GetMetrics", gc.MetricsRequest(), gc.MetricsResponse)
        self.assertGreater(metrics.total_leases_created, 0)
        checks = {token: self.ask(token, V1 + "Health", empty_pb2.Empty(), v1.HealthResponse).checks for token in ("t1", "t3")}
        self.assertEqual({c.detail + c.remedy for c in checks["t1"]}, {""})
        self.assertTrue(any(c.detail for c in checks["t3"]))
        self.assertEqual({c.name for c in checks["t1"]}, {c.name for c in checks["t3"]})

    def test_claiming(self):
        for handler in ("mine", "other"):
            lease = self.ask("t2", V1 + "Create", v1.CreateRequest(object_id="cl-" + handler, cleanup=handler), v1.Grant).lease_id
            self.ask("t2", V1 + "Release", v1.ReleaseRequest(lease_ids=[lease]), v1.CountResponse)
        self.assertEqual(self.code("t2", V1 + "Claim", v1.ClaimRequest(), v1.ClaimResponse), Code.PERMISSION_DENIED)
        self.assertEqual(self.code("t1", V1 + "Claim", v1.ClaimRequest(handlers=["other"]), v1.ClaimResponse),
                         Code.PERMISSION_DENIED)
        cleanup = self.ask("t1", V1 + "Claim", v1.ClaimRequest(wait=seconds(10)), v1.ClaimResponse).cleanups[0]
        self.assertEqual(cleanup.handler, "mine")
        token = v1.Outcome(cleanup_id=cleanup.cleanup_id, attempt=cleanup.attempt, delay=seconds(30))
        self.assertEqual(self.code("t2", V1 + "Ack", token, v1.OutcomeResponse), Code.PERMISSION_DENIED)
        self.assertEqual(self.code("t2", V1 + "Nack", token, v1.OutcomeResponse), Code.PERMISSION_DENIED)
        self.assertEqual(self.code("t2", V1 + "Extend", token, v1.OutcomeResponse), Code.PERMISSION_DENIED)
        self.assertTrue(self.ask("t1", V1 + "Extend", token, v1.OutcomeResponse).current)
        self.assertTrue(self.ask("t1", V1 + "Ack", token, v1.OutcomeResponse).current)
        self.assertFalse(self.ask("t1", V1 + "Ack", token, v1.OutcomeResponse).current)
        # Whether it is stale or not: no handler is t2's.
        self.assertEqual(self.code("t2", V1 + "Ack", token, v1.OutcomeResponse), Code.PERMISSION_DENIED)
        stream = method(self.channel, V1 + "WatchCleanups", v1.Cleanup, "stream_stream")(
            iter([v1.WatchRequest(handlers=["other"], credit=1)]), timeout=20, metadata=(("authorization", "Bearer t2"),))
        with self.assertRaises(grpc.RpcError) as caught:
            next(stream)
        self.assertEqual(caught.exception.code(), Code.PERMISSION_DENIED)
        cleanup = self.ask("t3", V1 + "Claim", v1.ClaimRequest(handlers=["other"], wait=seconds(10)), v1.ClaimResponse).cleanups[0]
        self.assertTrue(self.ask("t3", V1 + "Ack", v1.Outcome(cleanup_id=cleanup.cleanup_id, attempt=cleanup.attempt),
                                 v1.OutcomeResponse).current)

    def test_admin(self):
        for name, request, answer in (("Redrive", v1.HandlerRequest(handler="q"), v1.CountResponse),
                                      ("Pause", v1.HandlerRequest(handler="q"), empty_pb2.Empty),
                                      ("Resume", v1.HandlerRequest(handler="q"), empty_pb2.Empty),
                                      ("Forecast", v1.ForecastRequest(), v1.ForecastResponse)):
            self.assertEqual(self.code("t1", V1 + name, request, answer), Code.PERMISSION_DENIED, name)
            self.assertEqual(self.code("t3", V1 + name, request, answer), Code.OK, name)

    def test_tokens_are_read_again(self):
        import signal
        self.write("t1 billing claim=mine\nt2 media\nt3 boss admin claim=*\nnew fresh\n")
        self.sidecar.signal(signal.SIGHUP)
        self.assertTrue(wait_until(lambda: self.create("new", "fresh", "of fresh") == Code.OK, 20))
        # What is no line, and two lines of one token: nobody could tell whose rights it has.
        for refused, bad in enumerate(("t1\n", "t1 billing\nt2 media\nt1 billing admin\n"), 1):
            self.write(bad)
            self.sidecar.signal(signal.SIGHUP)
            self.assertTrue(wait_until(lambda: self.sidecar.log().count("stay as they were") == refused, 20))
        self.assertEqual(self.create("new", "fresh", "of fresh"), Code.OK)


if __name__ == "__main__":
    unittest.main()
