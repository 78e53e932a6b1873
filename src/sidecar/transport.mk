# Without the services: the tests link these with services of their own. The Makefile, the interoperability service and the
# fuzzer of test/sidecar read this.
TRANSPORT = \
	base/log.o \
	base/memory.o \
	base/message.o \
	base/metrics.o \
	base/options.o \
	grpc/grpc.o \
	grpc/grpc_codec.o \
	grpc/grpc_receive.o \
	grpc/grpc_status.o \
	http2/http2_receive.o \
	http2/http2_session.o \
	http2/http2_stream.o \
	net/listen.o \
	net/loop.o \
	net/net.o \
	net/party.o \
	net/tls.o
