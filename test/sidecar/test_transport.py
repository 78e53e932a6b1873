#!/usr/bin/python3
"""The transport: HTTP/2 and gRPC as raw frames, as gRPC's interoperability cases, and over TLS; tokens and reload."""
import gzip
import os
import select
import signal
import socket
import ssl
import struct
import subprocess
import time
import unittest

import grpc
import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings

from harness import (GC, HERE, SOURCES, V1, WORK, Clock, Sidecar, call, failure, method, start_cluster, until_serving,
                     wait_until)
import distributed_gc_pb2 as gc
import garbagetruck_v1_pb2 as v1
import health_pb2

cluster = None
sidecar = None


def setUpModule():
    global cluster, sidecar
    cluster = start_cluster()
    sidecar = until_serving(Sidecar(cluster, "--max-streams", "5", "--keepalive-min", "1h", "--max-message", "65536"))


def tearDownModule():
    sidecar.stop()
    cluster.close()


def frame(message, flag=0):
    data = message if isinstance(message, bytes) else message.SerializeToString()
    return struct.pack(">BI", flag, len(data)) + data


CREATE = GC + "CreateLease"


def create(name="x"):
    return gc.CreateLeaseRequest(object_id=name, service_id="s")


def leases_of(name):
    return int(cluster.tool("psql", "-Atc", f"SELECT count(*) FROM gt_leases WHERE object_id = '{name}'"))


class Raw:
    """A client that sends what it is told."""

    def __init__(self, port, **settings):
        self.socket = self.connect(port)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8",
                                                                       validate_outbound_headers=False))
        self.h2.initiate_connection()
        self.events = []
        self.open = True
        self.send()

    def connect(self, port):
        connected = socket.create_connection(("127.0.0.1", port))
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected

    def send(self):
        try:
            self.socket.sendall(self.h2.data_to_send())
        except OSError:
            self.open = False

    def headers(self, stream, path=CREATE, end=False, send=True, **more):
        fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x",
                  "content-type": "application/grpc", "te": "trailers"}
        for name, value in more.items():
            name = (":" + name[1:]) if name.startswith("_") else name.replace("_", "-")
            fields[name] = value
        ordered = sorted(((n, v) for n, v in fields.items() if v is not None), key=lambda f: not f[0].startswith(":"))
        self.h2.send_headers(stream, ordered, end_stream=end)
        if send:
            self.send()

    def data(self, stream, data, end=True):
        self.h2.send_data(stream, data, end_stream=end)
        self.send()

    def wait(self, condition, limit=20):
        """Read until condition(events) is true; what it gave."""
        clock = Clock(limit)
        while True:
            value = condition(self.events)
            if value or not self.open or not clock:
                return value
            if not select.select([self.socket], [], [], 0.2)[0]:
                continue
            data = b""
            try:
                data = self.socket.recv(65536)
            except OSError:
                pass
            if not data:
                self.open = False
                continue
            self.events += self.h2.receive_data(data)
            self.send()

    def of(self, stream, kind):
        return [e for e in self.events if isinstance(e, kind) and getattr(e, "stream_id", None) == stream]

    def result(self, stream):
        """(headers with trailers, data) of a stream that ended."""
        self.wait(lambda e: self.of(stream, h2.events.StreamEnded) or self.of(stream, h2.events.StreamReset))
        fields = {}
        for event in self.of(stream, h2.events.ResponseReceived) + self.of(stream, h2.events.TrailersReceived):
            fields.update(event.headers)
        return fields, b"".join(e.data for e in self.of(stream, h2.events.DataReceived))

    def ask(self, stream, body, path=CREATE, **more):
        self.headers(stream, path, **more)
        self.data(stream, body)
        return self.result(stream)

    def close(self):
        self.socket.close()


class RawTest(unittest.TestCase):
    def setUp(self):
        self.raw = Raw(sidecar.port)
        self.addCleanup(lambda: self.raw.close())

    def test_a_plain_call(self):
        fields, data = self.raw.ask(1, frame(create()))
        self.assertEqual((fields[":status"], fields["grpc-status"], fields["content-type"]), ("200", "0", "application/grpc"))
        self.assertTrue(gc.CreateLeaseResponse.FromString(data[5:]).success)

    def test_foreign_content_type_is_415(self):
        self.assertEqual(self.raw.ask(1, b"", content_type="text/html")[0][":status"], "415")
        self.assertEqual(self.raw.ask(3, b"", content_type=None)[0][":status"], "415")
        self.assertEqual(self.raw.ask(5, b"", content_type="application/grpc-web")[0][":status"], "415")

    def test_get_is_405(self):
        self.raw.headers(1, end=True, _method="GET")
        self.assertEqual(self.raw.result(1)[0][":status"], "405")

    def test_content_type_with_parameters(self):
        self.assertEqual(self.raw.ask(1, frame(create()), content_type="application/grpc+proto;v=1")[0]["grpc-status"], "0")

    def test_unknown_method_and_service_are_unimplemented(self):
        for stream, path in ((1, GC + "Nothing"), (3, "/no.Service/CreateLease"), (5, "/"), (7, "/a")):
            fields, _ = self.raw.ask(stream, frame(create()), path)
            self.assertEqual((fields[":status"], fields["grpc-status"]), ("200", "12"), path)
            self.assertEqual(fields["content-type"], "application/grpc")

    def test_a_message_in_single_bytes(self):
        self.raw.headers(1)
        body = frame(create())
        for i, byte in enumerate(body):
            self.raw.data(1, bytes([byte]), end=i == len(body) - 1)
        self.assertEqual(self.raw.result(1)[0]["grpc-status"], "0")

    def test_end_of_stream_in_a_frame_of_its_own(self):
        self.raw.headers(1)
        self.raw.data(1, frame(create()), end=False)
        self.raw.data(1, b"")
        self.assertEqual(self.raw.result(1)[0]["grpc-status"], "0")

    def test_two_messages_none_and_half_a_message(self):
        self.assertEqual(self.raw.ask(1, frame(create()) * 2)[0]["grpc-status"], "13")
        self.assertEqual(self.raw.ask(3, b"")[0]["grpc-status"], "13")
        self.assertEqual(self.raw.ask(5, frame(create())[:-1])[0]["grpc-status"], "13")

    def test_gzip_both_ways(self):
        body = frame(gzip.compress(create("g" * 500).SerializeToString()), 1)
        self.assertEqual(self.raw.ask(1, body, grpc_encoding="gzip")[0]["grpc-status"], "0")
        for i in range(40):
            call(sidecar.channel(), CREATE, create("zip%d" % i), gc.CreateLeaseResponse)
        fields, data = self.raw.ask(3, frame(gc.ListLeasesRequest()), GC + "ListLeases", grpc_accept_encoding="identity,gzip")
        self.assertEqual((fields["grpc-encoding"], data[0]), ("gzip", 1))
        self.assertGreater(len(gc.ListLeasesResponse.FromString(gzip.decompress(data[5:])).leases), 39)
        self.assertEqual(self.raw.ask(5, frame(gc.ListLeasesRequest()), GC + "ListLeases")[1][0], 0)

    def test_compressed_without_saying_how(self):
        self.assertEqual(self.raw.ask(1, frame(gzip.compress(b""), 1))[0]["grpc-status"], "13")

    def test_unknown_compression_names_the_known(self):
        fields, _ = self.raw.ask(1, frame(create()), grpc_encoding="snappy")
        self.assertEqual(fields["grpc-status"], "12")
        self.assertIn("gzip", fields["grpc-accept-encoding"])

    def test_what_is_not_gzip(self):
        self.assertEqual(self.raw.ask(1, frame(b"abc", 1), grpc_encoding="gzip")[0]["grpc-status"], "13")

    def test_inflated_size_is_capped(self):
        body = frame(gzip.compress(b"\0" * 10_000_000), 1)
        self.assertEqual(self.raw.ask(1, body, grpc_encoding="gzip")[0]["grpc-status"], "8")

    def test_message_size_is_capped(self):
        self.raw.headers(1)
        self.raw.data(1, struct.pack(">BI", 0, 65537), end=False)
        self.assertEqual(self.raw.result(1)[0]["grpc-status"], "8")

    def test_an_early_answer_ends_with_no_error(self):
        self.raw.headers(1)
        self.raw.data(1, struct.pack(">BI", 0, 1 << 31), end=False)
        self.assertEqual(self.raw.result(1)[0]["grpc-status"], "8")
        reset = self.raw.wait(lambda e: self.raw.of(1, h2.events.StreamReset))
        self.assertEqual(reset[0].error_code, h2.errors.ErrorCodes.NO_ERROR)

    def test_a_client_that_ends_by_itself_is_not_reset(self):
        """HAProxy makes a cancellation of a reset, also of one without error, and some of its clients forget the answer then."""
        self.raw.headers(1, V1 + "KeepAlive")
        self.raw.data(1, frame(b"\xff"), end=False)
        self.assertEqual(self.raw.result(1)[0]["grpc-status"], "3")
        self.raw.data(1, b"")
        self.raw.h2.ping(b"12345678")
        self.raw.send()
        self.assertTrue(self.raw.wait(lambda e: [x for x in e if isinstance(x, h2.events.PingAckReceived)]))
        self.assertFalse(self.raw.of(1, h2.events.StreamReset))

    def test_what_is_answered_takes_no_place_of_another(self):
        """Some clients count a stream no more when they have read its end, though they do not end it."""
        self.raw.wait(lambda e: [x for x in e if isinstance(x, h2.events.RemoteSettingsChanged)])
        self.raw.h2.remote_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] = 100
        self.raw.h2.remote_settings.acknowledge()
        for stream in range(1, 11, 2):
            self.raw.headers(stream, V1 + "KeepAlive")
            self.raw.data(stream, frame(b"\xff"), end=False)
            self.assertEqual(self.raw.result(stream)[0]["grpc-status"], "3")
        self.assertEqual(self.raw.ask(11, frame(create()))[0]["grpc-status"], "0")

    def test_a_refusal_waits_for_what_is_on_its_way(self):
        """A reset that overtakes the request's message makes some clients forget the answer."""
        def unharmed(stream):
            self.raw.headers(stream, "/no.Service/Call")
            self.raw.wait(lambda e: self.raw.of(stream, h2.events.ResponseReceived))
            self.raw.data(stream, frame(create()))
            self.assertEqual(self.raw.result(stream)[0]["grpc-status"], "12")
            return not self.raw.of(stream, h2.events.StreamReset)
        # Not for long: on a machine with other work it may be over before we answer.
        self.assertTrue(any(unharmed(stream) for stream in range(1, 21, 2)))
        self.raw.headers(21, "/no.Service/Call")
        self.assertEqual(self.raw.result(21)[0]["grpc-status"], "12")

    def test_malformed_protobuf_and_utf8_and_nul(self):
        for stream, body in ((1, b"\x0a\x05a"), (3, b"\xff\xff"), (5, b"\x0a\x02\xc3\x28"), (7, b"\x0a\x02a\x00"), (9, b"\x0b")):
            self.assertEqual(self.raw.ask(stream, frame(body))[0]["grpc-status"], "3", body)

    def test_a_number_that_does_not_fit(self):
        body = gc.CreateLeaseRequest(object_id="n", service_id="s").SerializeToString()
        config = b"\x20\xff\xff\xff\xff\xff\x01"  # max_retries: 2^36
        self.assertEqual(self.raw.ask(1, frame(body + b"\x32" + bytes([len(config)]) + config))[0]["grpc-status"], "3")

    def test_malformed_timeout(self):
        for stream, text in ((1, "1"), (3, "S"), (5, "123456789S"), (7, "-1S"), (9, "1x")):
            self.assertEqual(self.raw.ask(stream, frame(create()), grpc_timeout=text)[0]["grpc-status"], "13", text)

    def test_past_the_deadline_nothing_is_started(self):
        fields, _ = self.raw.ask(1, frame(create("late")), grpc_timeout="1n")
        self.assertEqual(fields["grpc-status"], "4")
        self.assertEqual(leases_of("late"), 0)

    def test_headers_and_message_in_one_packet_past_the_deadline(self):
        for stream in range(1, 201, 2):
            self.raw.headers(stream, send=False, grpc_timeout=("1n", "1u")[stream % 4 == 1])
            self.raw.data(stream, frame(create("late packet")))
            self.assertEqual(self.raw.result(stream)[0]["grpc-status"], "4")
        self.assertEqual(leases_of("late packet"), 0)

    def test_a_failed_batch_starts_nothing_past_the_deadline(self):
        own = until_serving(Sidecar(cluster, "--db-connections", "1"))
        self.addCleanup(own.kill)
        raw = Raw(own.port)
        self.addCleanup(raw.close)
        raw.ask(1, frame(create("held")))
        holder = cluster.connect()
        self.addCleanup(holder.close)
        holder.autocommit = False
        holder.cursor().execute("SELECT FROM _garbagetruck.gt_object WHERE object_id = 'held' FOR UPDATE")
        # One batch: its first call meets the lock, which is given up when the second one's time is long over.
        raw.headers(3, send=False)
        raw.h2.send_data(3, frame(create("held")), end_stream=True)
        raw.headers(5, send=False, grpc_timeout="100m")
        raw.data(5, frame(create("behind")))
        self.assertEqual(raw.result(5)[0]["grpc-status"], "4")
        self.assertEqual(raw.ask(7, frame(create("after")))[0]["grpc-status"], "0")
        self.assertEqual(leases_of("behind"), 0)
        holder.rollback()
        self.assertEqual(raw.result(3)[0]["grpc-status"], "0")
        self.assertEqual(own.stop(), 0)

    def test_odd_metadata_does_not_matter(self):
        fields, _ = self.raw.ask(1, frame(create()), x_bin="AAE", y_bin="AAE=,AAI", z="a b\tc", grpc_reserved="1")
        self.assertEqual(fields["grpc-status"], "0")

    def test_headers_that_are_too_large(self):
        self.assertEqual(self.raw.ask(1, frame(create()), x="a" * 17000)[0][":status"], "431")
        self.assertEqual(self.raw.ask(3, frame(create()))[0]["grpc-status"], "0")

    def test_errors_are_percent_coded_and_short(self):
        fields, _ = self.raw.ask(1, frame(v1.GetRequest(lease_id="ü%\n" * 3000)), V1 + "Get")
        self.assertEqual(fields["grpc-status"], "5")
        self.assertIn("%C3%BC%25%0A", fields["grpc-message"])
        self.assertLess(sum(len(n) + len(v) for n, v in fields.items()), 6000)

    def test_streams_over_the_limit_are_refused(self):
        ids = [1 + 2 * i for i in range(8)]
        self.raw.wait(lambda e: [x for x in e if isinstance(x, h2.events.RemoteSettingsChanged)])
        self.raw.h2.remote_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] = 100
        self.raw.h2.remote_settings.acknowledge()
        for stream in ids:
            self.raw.headers(stream, V1 + "KeepAlive")
        refused = self.raw.wait(lambda e: [x for x in e if isinstance(x, h2.events.StreamReset)][2:])
        self.assertTrue(refused)
        for event in self.raw.events:
            if isinstance(event, h2.events.StreamReset):
                self.assertIn(event.stream_id, ids[5:])
                self.assertEqual(event.error_code, h2.errors.ErrorCodes.REFUSED_STREAM)
        self.raw.data(1, b"")
        self.assertEqual(self.raw.result(1)[0]["grpc-status"], "0")

    def test_too_many_pings(self):
        for i in range(4):
            self.raw.h2.ping(struct.pack(">Q", i))
            self.raw.send()
        gone = self.raw.wait(lambda e: [x for x in e if isinstance(x, h2.events.ConnectionTerminated)])
        self.assertEqual(gone[0].error_code, h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
        self.assertEqual(gone[0].additional_data, b"too_many_pings")
        self.raw.wait(lambda e: not self.raw.open)
        self.assertFalse(self.raw.open)

    def test_a_cancelled_call_harms_nobody(self):
        for stream in range(1, 401, 2):
            self.raw.headers(stream)
            self.raw.data(stream, frame(create("c%d" % stream)))
            self.raw.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
            self.raw.send()
        self.assertEqual(self.raw.ask(401, frame(create()))[0]["grpc-status"], "0")

    def test_garbage_instead_of_http2(self):
        for text in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(100), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + os.urandom(100)):
            with socket.create_connection(("127.0.0.1", sidecar.port)) as s:
                s.settimeout(20)
                s.sendall(text)
                try:
                    while s.recv(4096):
                        pass
                except ConnectionError:
                    pass
        self.assertEqual(self.raw.ask(1, frame(create()))[0]["grpc-status"], "0")


class ShutdownTest(unittest.TestCase):
    def test_goaway_in_two_steps_and_calls_finish(self):
        own = until_serving(Sidecar(cluster))
        raw = Raw(own.port)
        raw.ask(1, frame(create()))
        raw.headers(3)
        own.signal(signal.SIGTERM)
        first = raw.wait(lambda e: [x for x in e if isinstance(x, h2.events.ConnectionTerminated)])
        self.assertEqual((first[0].error_code, first[0].last_stream_id), (0, 2**31 - 1))
        raw.h2.state_machine.state = h2.connection.ConnectionState.CLIENT_OPEN  # h2 takes the notice for the end
        raw.data(3, frame(create()))
        self.assertEqual(raw.result(3)[0]["grpc-status"], "0")
        self.assertEqual(own.stop(), 0, own.log())

    def test_what_the_last_goaway_leaves_out_did_not_happen(self):
        """Clients do it again elsewhere."""
        own = until_serving(Sidecar(cluster))
        raw = Raw(own.port)
        raw.ask(1, frame(create()))
        raw.headers(3, V1 + "KeepAlive")
        raw.headers(5, send=False)
        raw.h2.send_data(5, frame(create("late")), end_stream=True)
        late = raw.h2.data_to_send()
        raw.socket.settimeout(20)
        own.signal(signal.SIGTERM)
        text, at, frames = b"", 0, []
        while chunk := raw.socket.recv(65536):
            text += chunk
            while at + 9 <= len(text) and at + 9 + int.from_bytes(text[at:at + 3], "big") <= len(text):
                length, kind, flags, stream = (int.from_bytes(text[at:at + 3], "big"), text[at + 3], text[at + 4],
                                               int.from_bytes(text[at + 5:at + 9], "big"))
                frames.append((kind, stream, text[at + 9:at + 9 + length]))
                at += 9 + length
                if kind == 6 and flags == 0:
                    # The answer by which it is known that the client has heard, and one more call.
                    raw.socket.sendall(b"\0\0\x08\6\1\0\0\0\0" + frames[-1][2] + late)
        last = [int.from_bytes(body[:4], "big") for kind, _, body in frames if kind == 7]
        self.assertEqual([len(last), last[0]], [2, 2**31 - 1])
        self.assertEqual(own.stop(), 0)
        served = any(kind == 1 and stream == 5 for kind, stream, _ in frames)
        self.assertEqual((served, leases_of("late")), (last[1] >= 5, int(last[1] >= 5)))

    def test_streams_and_watchers_are_told(self):
        own = until_serving(Sidecar(cluster))
        channel = own.channel()
        watch = method(channel, "/grpc.health.v1.Health/Watch", health_pb2.HealthCheckResponse, "unary_stream")(
            health_pb2.HealthCheckRequest())
        self.assertEqual(next(watch).status, 1)
        own.signal(signal.SIGTERM)
        seen = []
        with self.assertRaises(grpc.RpcError) as caught:
            for answer in watch:
                seen.append(answer.status)
        self.assertEqual(seen, [2])
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE)
        self.assertEqual(own.stop(), 0)

    def test_who_has_come_before_the_listener_closes_is_served(self):
        own = until_serving(Sidecar(cluster))
        for channel in own.channels:
            channel.close()
        os.kill(own.process.pid, signal.SIGSTOP)
        own.signal(signal.SIGTERM)
        came = [Raw(own.port) for _ in range(100)]
        for raw in came:
            raw.headers(1)
            raw.data(1, frame(create("came")))
        os.kill(own.process.pid, signal.SIGCONT)
        # h2 takes the notice of the shutdown for the end: the frames themselves tell.
        for raw in came:
            raw.socket.settimeout(20)
            text, at, kinds = b"", 0, []
            while chunk := raw.socket.recv(65536):
                text += chunk
            while at < len(text):
                length, kind, stream = int.from_bytes(text[at:at + 3], "big"), text[at + 3], int.from_bytes(text[at + 5:at + 9], "big")
                kinds += [kind] if stream == 1 and kind in (0, 1, 3) else []
                at += 9 + length
            self.assertEqual(kinds, [1, 0, 1], "headers, an answer, trailers")
            raw.close()
        self.assertEqual(own.stop(), 0)

    def test_max_connection_age(self):
        own = until_serving(Sidecar(cluster, "--max-connection-age", "300ms", "--max-connection-age-grace", "5s"))
        raw = Raw(own.port)
        self.assertTrue(raw.wait(lambda e: [x for x in e if isinstance(x, h2.events.ConnectionTerminated)]))
        raw.wait(lambda e: not raw.open)
        self.assertFalse(raw.open)
        own.stop()

    def test_the_server_pings_silent_clients(self):
        own = until_serving(Sidecar(cluster, "--keepalive-time", "200ms", "--keepalive-timeout", "200ms"))
        silent = socket.create_connection(("127.0.0.1", own.port))
        silent.settimeout(20)
        silent.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        while silent.recv(4096):
            pass
        silent.close()
        raw = Raw(own.port)
        self.assertTrue(raw.wait(lambda e: len([x for x in e if isinstance(x, h2.events.PingReceived)]) > 2))
        self.assertTrue(raw.open)
        own.stop()


class InteropTest(unittest.TestCase):
    """gRPC's cases for a plain server, by Python's client, against the same transport with the test service."""

    @classmethod
    def setUpClass(cls):
        out = os.path.join(WORK, "interop")
        os.makedirs(out, exist_ok=True)
        subprocess.run(["make", "-s", "-C", os.path.join(HERE, "interop"), "SIDECAR=" + SOURCES, "OUT=" + out], check=True)
        subprocess.run(["protoc", "-I", os.path.join(HERE, "interop"), "--python_out", out, "testing.proto"], check=True)
        import sys
        sys.path.insert(0, out)
        import testing_pb2
        cls.pb = testing_pb2
        cls.server = subprocess.Popen([os.path.join(out, "interop-server"), "127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
        cls.channel = grpc.insecure_channel(cls.server.stdout.readline().strip())

    @classmethod
    def tearDownClass(cls):
        cls.channel.close()
        cls.server.kill()
        cls.server.wait()
        cls.server.stdout.close()

    def rpc(self, name, answer, kind="unary_unary"):
        return method(self.channel, "/grpc.testing.TestService/" + name, answer, kind)

    def unary(self, request, **more):
        return self.rpc("UnaryCall", self.pb.SimpleResponse)(request, timeout=20, **more)

    def duplex(self, requests, **more):
        return self.rpc("FullDuplexCall", self.pb.StreamingOutputCallResponse, "stream_stream")(requests, timeout=20, **more)

    def output(self, size, **more):
        return self.pb.StreamingOutputCallRequest(response_parameters=[self.pb.ResponseParameters(size=size, **more)],
                                                  payload=self.pb.Payload(body=b"\0" * 100))

    def test_empty_unary(self):
        self.assertEqual(self.rpc("EmptyCall", self.pb.Empty)(self.pb.Empty(), timeout=20), self.pb.Empty())

    def test_large_unary(self):
        request = self.pb.SimpleRequest(response_size=314159, payload=self.pb.Payload(body=b"\0" * 271828))
        for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
            self.assertEqual(len(self.unary(request, compression=compression).payload.body), 314159)

    def test_client_streaming(self):
        sizes = (27182, 8, 1828, 45904)
        answer = self.rpc("StreamingInputCall", self.pb.StreamingInputCallResponse, "stream_unary")(
            iter([self.pb.StreamingInputCallRequest(payload=self.pb.Payload(body=b"\0" * s)) for s in sizes]), timeout=20)
        self.assertEqual(answer.aggregated_payload_size, sum(sizes))

    def test_server_streaming(self):
        sizes = [31415, 9, 2653, 58979]
        request = self.pb.StreamingOutputCallRequest(response_parameters=[self.pb.ResponseParameters(size=s) for s in sizes])
        answers = self.rpc("StreamingOutputCall", self.pb.StreamingOutputCallResponse, "unary_stream")(request, timeout=20)
        self.assertEqual([len(a.payload.body) for a in answers], sizes)

    def test_ping_pong(self):
        sizes = [31415, 9, 2653, 58979]
        self.assertEqual([len(a.payload.body) for a in self.duplex(iter([self.output(s) for s in sizes]))], sizes)

    def test_empty_stream(self):
        self.assertEqual(list(self.duplex(iter([]))), [])

    def test_custom_metadata(self):
        sent = (("x-grpc-test-echo-initial", "test_initial_metadata_value"),
                ("x-grpc-test-echo-trailing-bin", b"\x0a\x0b\x0a\x0b\x0a\x0b"))
        unary = self.rpc("UnaryCall", self.pb.SimpleResponse).future(self.pb.SimpleRequest(response_size=1), metadata=sent)
        self.assertIn(sent[0], [tuple(m) for m in unary.initial_metadata()])
        self.assertIn(sent[1], [tuple(m) for m in unary.trailing_metadata()])
        stream = self.duplex(iter([self.output(1)]), metadata=sent)
        list(stream)
        self.assertIn(sent[0], [tuple(m) for m in stream.initial_metadata()])
        self.assertIn(sent[1], [tuple(m) for m in stream.trailing_metadata()])

    def test_status_code_and_message(self):
        status = self.pb.EchoStatus(code=2, message="\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n")
        with self.assertRaises(grpc.RpcError) as caught:
            self.unary(self.pb.SimpleRequest(response_status=status))
        self.assertEqual((caught.exception.code(), caught.exception.details()), (grpc.StatusCode.UNKNOWN, status.message))
        with self.assertRaises(grpc.RpcError) as caught:
            list(self.duplex(iter([self.pb.StreamingOutputCallRequest(response_status=status)])))
        self.assertEqual((caught.exception.code(), caught.exception.details()), (grpc.StatusCode.UNKNOWN, status.message))

    def test_unimplemented(self):
        for path in ("/grpc.testing.TestService/UnimplementedCall", "/grpc.testing.UnimplementedService/UnimplementedCall"):
            self.assertEqual(failure(self.channel, path, self.pb.Empty(), self.pb.Empty).code(), grpc.StatusCode.UNIMPLEMENTED)

    def test_cancel_after_begin(self):
        hold = iter(lambda: time.sleep(30) or None, None)
        pending = self.rpc("StreamingInputCall", self.pb.StreamingInputCallResponse, "stream_unary").future(hold)
        pending.cancel()
        self.assertEqual(pending.code(), grpc.StatusCode.CANCELLED)

    def test_cancel_after_first_response(self):
        stream = self.duplex(iter([self.output(31415), self.output(10, interval_us=30_000_000)]))
        self.assertEqual(len(next(stream).payload.body), 31415)
        stream.cancel()
        self.assertEqual(stream.code(), grpc.StatusCode.CANCELLED)

    def test_timeout_on_sleeping_server(self):
        stream = self.rpc("FullDuplexCall", self.pb.StreamingOutputCallResponse, "stream_stream")(
            iter([self.output(10, interval_us=20_000_000)]), timeout=0.2)
        with self.assertRaises(grpc.RpcError) as caught:
            list(stream)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)


def make_certificates(directory):
    """A CA, a server's certificate for localhost, and a client's with a URI name, one with a CN only and one with no name."""
    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=directory)
    os.makedirs(directory, exist_ok=True)
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key", "-out",
            "ca.pem", "-subj", "/CN=test CA", "-days", "2", "-addext", "keyUsage=critical,keyCertSign")
    for name, subject, extension in (("server", "/CN=localhost", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
                                     ("uri", "/CN=other", "subjectAltName=URI:spiffe://app/billing"),
                                     ("cn", "/CN=media", None), ("nameless", "/O=media", "subjectAltName=IP:10.0.0.1")):
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", name + ".key", "-out",
                name + ".csr", "-subj", subject)
        with open(os.path.join(directory, name + ".ext"), "w") as file:
            file.write(f"authorityKeyIdentifier=keyid\n{extension or 'basicConstraints=CA:FALSE'}\n")
        openssl("x509", "-req", "-in", name + ".csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out",
                name + ".pem", "-days", "2", "-extfile", name + ".ext")


class TlsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = os.path.join(WORK, "tls")
        make_certificates(cls.dir)

    def file(self, name):
        return os.path.join(self.dir, name)

    def content(self, name):
        with open(self.file(name), "rb") as file:
            return file.read()

    def start(self, *options):
        own = Sidecar(cluster, "--tls-cert", self.file("server.pem"), "--tls-key", self.file("server.key"),
                      "--handshake-timeout", "500ms", *options)
        self.addCleanup(own.kill)
        return own

    def channel(self, own, client=None):
        credentials = grpc.ssl_channel_credentials(self.content("ca.pem"),
                                                   self.content(client + ".key") if client else None,
                                                   self.content(client + ".pem") if client else None)
        channel = grpc.secure_channel(f"localhost:{own.port}", credentials)
        self.addCleanup(channel.close)
        return channel

    def try_create(self, channel, service, name="tls"):
        try:
            call(channel, CREATE, gc.CreateLeaseRequest(object_id=name, service_id=service), gc.CreateLeaseResponse,
                 wait_for_ready=True)
            return "OK"
        except grpc.RpcError as error:
            return error.code().name

    def test_tls_with_alpn(self):
        own = self.start()
        self.assertEqual(self.try_create(self.channel(own), "s"), "OK")
        context = ssl.create_default_context(cafile=self.file("ca.pem"))
        http1, preface = b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\4" + bytes(5)
        for offered, said, first in ((["http/1.1"], http1, b"HTTP/1.1 426 "), (["spdy/3", "http/1.1"], http1, b"HTTP/1.1 426 "),
                                     ([], http1, b"HTTP/1.1 426 "), ([], preface, None), (["http/1.1"], preface, None),
                                     (["spdy/3"], http1, None)):
            with self.subTest(offered=offered, said=said):
                context = ssl.create_default_context(cafile=self.file("ca.pem"))
                if offered:
                    context.set_alpn_protocols(offered)
                self.assertEqual(self.first_words(context, own.port, said), first)
        self.assertEqual(self.try_create(self.channel(own), "s", "tls after HTTP/1"), "OK")
        self.assertEqual(own.stop(), 0)

    @staticmethod
    def first_words(context, port, said):
        """What the server answers first, None when it ends the connection."""
        try:
            with socket.create_connection(("127.0.0.1", port)) as plain:
                plain.settimeout(20)
                with context.wrap_socket(plain, server_hostname="localhost") as secure:
                    secure.sendall(said)
                    return secure.recv(13) or None
        except (ssl.SSLError, ConnectionError):
            return None

    def test_a_handshake_that_ends_during_the_shutdown(self):
        own = self.start("--shutdown-timeout", "1h", "--handshake-timeout", "1h")
        context = ssl.create_default_context(cafile=self.file("ca.pem"))
        context.set_alpn_protocols(["h2"])
        with socket.create_connection(("127.0.0.1", own.port)) as late:
            self.assertEqual(self.try_create(self.channel(own), "s", "late"), "OK")     # it has been accepted
            own.signal(signal.SIGTERM)
            self.assertTrue(wait_until(lambda: "shutting down" in own.log(), 20))
            late.settimeout(20)
            with context.wrap_socket(late, server_hostname="localhost") as secure:
                secure.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\4" + bytes(5))
                while secure.recv(4096):
                    pass
        self.assertEqual(own.process.wait(20), 0)

    def test_a_handshake_that_never_ends(self):
        own = self.start()
        with socket.create_connection(("127.0.0.1", own.port)) as silent:
            silent.settimeout(20)
            self.assertEqual(silent.recv(10), b"")

    def test_client_certificates_name_the_caller(self):
        own = self.start("--tls-client-ca", self.file("ca.pem"))
        self.assertEqual(self.try_create(self.channel(own, "uri"), "spiffe://app/billing"), "OK")
        self.assertEqual(self.try_create(self.channel(own, "uri"), "other"), "PERMISSION_DENIED")
        self.assertEqual(self.try_create(self.channel(own, "cn"), "media/thumbs", "of media"), "OK")
        with self.assertRaises(grpc.RpcError):
            call(self.channel(own), CREATE, create(), gc.CreateLeaseResponse, timeout=3)
        with self.assertRaises(grpc.RpcError) as caught:
            call(self.channel(own, "nameless"), CREATE, create(), gc.CreateLeaseResponse, timeout=20)
        self.assertEqual((caught.exception.code().name, "certificate" in caught.exception.details()), ("UNAUTHENTICATED", True))

    def test_reload(self):
        own = self.start()
        before = ssl.get_server_certificate(("127.0.0.1", own.port))
        kept = self.channel(own)
        self.assertEqual(self.try_create(kept, "s"), "OK")
        make_certificates(self.dir)
        own.signal(signal.SIGHUP)
        self.assertTrue(wait_until(lambda: ssl.get_server_certificate(("127.0.0.1", own.port)) != before, 20))
        self.assertEqual(self.try_create(kept, "s"), "OK")
        self.assertEqual(self.try_create(self.channel(own), "s"), "OK")
        with open(self.file("server.pem"), "w") as file:
            file.write("no certificate")
        own.signal(signal.SIGHUP)
        self.assertTrue(wait_until(lambda: "stay as they were" in own.log(), 20))
        self.assertEqual(self.try_create(self.channel(own), "s"), "OK")
        make_certificates(self.dir)

    def test_a_certificate_of_no_use(self):
        """It can be read, but no client has its curve: better said at the start than to each of them."""
        files = [self.file("odd.pem"), self.file("odd.key")]
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp256k1", "-nodes", "-subj",
                        "/CN=localhost", "-days", "2", "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
        with self.assertRaises(RuntimeError) as caught:
            Sidecar(cluster, "--tls-cert", files[0], "--tls-key", files[1])
        self.assertIn("TLS does not work with " + files[0], str(caught.exception))

    def test_only_loopback_without_tls(self):
        with self.assertRaises(RuntimeError) as caught:
            Sidecar(cluster, "--listen", "0.0.0.0:0")
        self.assertIn("--insecure", str(caught.exception))
        own = Sidecar(cluster, "--listen", "0.0.0.0:0", "--admin", "0.0.0.0:0", "--insecure")
        self.assertIn("its admin port is 0.0.0.0:", own.log())
        self.assertEqual(own.stop(), 0)
        own = Sidecar(cluster, "--admin", "none")
        self.assertNotIn("admin port", own.log())
        self.assertEqual(own.stop(), 0)


if __name__ == "__main__":
    unittest.main()
