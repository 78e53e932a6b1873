// A client of grpc-java: see ../test_clients.py, which has all of them do the same.
//
//     Client check NAME ADDRESS STRICT AWAY    one line for each thing: "name: JSON"
//     Client load NAME ready|any ADDRESS...    prints "begun", calls until its input ends, then prints what became of it
//
// An address of a unix socket is unix:PATH, for which grpc-java has a provider, or socket:PATH, as before it had one. The calls
// are described here as generated stubs describe them.
import com.google.protobuf.Any;
import com.google.protobuf.Duration;
import com.google.protobuf.Message;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import distributed_gc.DistributedGc.CreateLeaseRequest;
import distributed_gc.DistributedGc.CreateLeaseResponse;
import distributed_gc.DistributedGc.GetLeaseRequest;
import distributed_gc.DistributedGc.GetLeaseResponse;
import distributed_gc.DistributedGc.ReleaseLeaseRequest;
import distributed_gc.DistributedGc.ReleaseLeaseResponse;
import distributed_gc.DistributedGc.RenewLeaseRequest;
import distributed_gc.DistributedGc.RenewLeaseResponse;
import garbagetruck.v1.GarbagetruckV1.*;
import grpc.health.v1.HealthOuterClass.HealthCheckRequest;
import grpc.health.v1.HealthOuterClass.HealthCheckResponse;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientInterceptors;
import io.grpc.EquivalentAddressGroup;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.NameResolver;
import io.grpc.NameResolverProvider;
import io.grpc.NameResolverRegistry;
import io.grpc.Status;
import io.grpc.StatusOr;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.netty.shaded.io.netty.channel.epoll.EpollDomainSocketChannel;
import io.grpc.netty.shaded.io.netty.channel.epoll.EpollEventLoopGroup;
import io.grpc.netty.shaded.io.netty.channel.unix.DomainSocketAddress;
import io.grpc.protobuf.ProtoUtils;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.MetadataUtils;
import io.grpc.stub.StreamObserver;
import java.net.InetSocketAddress;
import java.net.URI;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;

public class Client {
    static final String UNKNOWN = "01900000-0000-7000-8000-000000000000";
    static final String SMALL = "distributed_gc.DistributedGCService/";
    static final String TRUCK = "garbagetruck.v1.GarbageTruck/";

    static <Q extends Message, A extends Message> MethodDescriptor<Q, A> method(String name, MethodDescriptor.MethodType type, Q request, A answer) {
        return MethodDescriptor.<Q, A>newBuilder().setType(type).setFullMethodName(name)
            .setRequestMarshaller(ProtoUtils.marshaller(request)).setResponseMarshaller(ProtoUtils.marshaller(answer)).build();
    }

    static <Q extends Message, A extends Message> MethodDescriptor<Q, A> unary(String name, Q request, A answer) {
        return method(name, MethodDescriptor.MethodType.UNARY, request, answer);
    }

    static final MethodDescriptor<CreateRequest, Grant> CREATE = unary(TRUCK + "Create", CreateRequest.getDefaultInstance(), Grant.getDefaultInstance());
    static final MethodDescriptor<CreateBatchRequest, CreateBatchResponse> CREATE_BATCH =
        unary(TRUCK + "CreateBatch", CreateBatchRequest.getDefaultInstance(), CreateBatchResponse.getDefaultInstance());
    static final MethodDescriptor<GetRequest, Lease> GET = unary(TRUCK + "Get", GetRequest.getDefaultInstance(), Lease.getDefaultInstance());
    static final MethodDescriptor<ListRequest, ListResponse> LIST = unary(TRUCK + "List", ListRequest.getDefaultInstance(), ListResponse.getDefaultInstance());
    static final MethodDescriptor<ReleaseRequest, CountResponse> RELEASE = unary(TRUCK + "Release", ReleaseRequest.getDefaultInstance(), CountResponse.getDefaultInstance());
    static final MethodDescriptor<RenewBatchRequest, RenewBatchResponse> RENEW_BATCH =
        unary(TRUCK + "RenewBatch", RenewBatchRequest.getDefaultInstance(), RenewBatchResponse.getDefaultInstance());
    static final MethodDescriptor<ClaimRequest, ClaimResponse> CLAIM = unary(TRUCK + "Claim", ClaimRequest.getDefaultInstance(), ClaimResponse.getDefaultInstance());
    static final MethodDescriptor<KeepAliveRequest, KeepAliveResponse> KEEP_ALIVE = method(TRUCK + "KeepAlive", MethodDescriptor.MethodType.BIDI_STREAMING,
        KeepAliveRequest.getDefaultInstance(), KeepAliveResponse.getDefaultInstance());
    static final MethodDescriptor<WatchRequest, Cleanup> WATCH =
        method(TRUCK + "WatchCleanups", MethodDescriptor.MethodType.BIDI_STREAMING, WatchRequest.getDefaultInstance(), Cleanup.getDefaultInstance());

    // Those that more than one address is given.
    static class Known extends NameResolverProvider {
        final List<EquivalentAddressGroup> groups = new ArrayList<>();

        @Override protected boolean isAvailable() { return true; }
        @Override protected int priority() { return 5; }
        @Override public String getDefaultScheme() { return "known"; }
        @Override public NameResolver newNameResolver(URI target, NameResolver.Args args) {
            return new NameResolver() {
                @Override public String getServiceAuthority() { return "localhost"; }
                @Override public void start(Listener2 listener) {
                    listener.onResult2(ResolutionResult.newBuilder().setAddressesOrError(StatusOr.fromValue(groups)).build());
                }
                @Override public void shutdown() { }
            };
        }
    }

    static ManagedChannelBuilder<?> builder(List<String> addresses) {
        String first = addresses.get(0);
        if (addresses.size() > 1) {
            Known known = new Known();
            for (String address : addresses) {
                int colon = address.lastIndexOf(':');
                known.groups.add(new EquivalentAddressGroup(new InetSocketAddress(address.substring(0, colon), Integer.parseInt(address.substring(colon + 1)))));
            }
            NameResolverRegistry.getDefaultRegistry().register(known);
            return ManagedChannelBuilder.forTarget("known:///all").usePlaintext().defaultLoadBalancingPolicy("round_robin");
        }
        if (first.startsWith("socket:"))
            return NettyChannelBuilder.forAddress(new DomainSocketAddress(first.substring(7))).eventLoopGroup(new EpollEventLoopGroup())
                .channelType(EpollDomainSocketChannel.class).usePlaintext();
        return Grpc.newChannelBuilder(first, InsecureChannelCredentials.create());
    }

    final Channel channel;
    final CallOptions options;

    Client(Channel channel, boolean ready) {
        this.channel = channel;
        this.options = ready ? CallOptions.DEFAULT.withWaitForReady() : CallOptions.DEFAULT;
    }

    static Client dial(boolean ready, String... addresses) {
        return new Client(builder(Arrays.asList(addresses)).build(), ready);
    }

    Client with(String header, String value) {
        Metadata metadata = new Metadata();
        metadata.put(Metadata.Key.of(header, Metadata.ASCII_STRING_MARSHALLER), value);
        return new Client(ClientInterceptors.intercept(channel, MetadataUtils.newAttachHeadersInterceptor(metadata)), false);
    }

    CallOptions within(long ms) { return options.withDeadlineAfter(ms, TimeUnit.MILLISECONDS); }

    <Q, A> A call(MethodDescriptor<Q, A> method, Q request) { return ClientCalls.blockingUnaryCall(channel, method, within(20000), request); }

    Grant create(CreateRequest.Builder request, String object, String service, int seconds) {
        return call(CREATE, request.setObjectId(object).setServiceId(service).setObjectType("t").setDuration(Duration.newBuilder().setSeconds(seconds)).build());
    }

    // What comes of a stream, in its order; the end as a Status.
    static class Stream<Q, A> implements StreamObserver<A> {
        final LinkedBlockingQueue<Object> came = new LinkedBlockingQueue<>();
        final StreamObserver<Q> requests;

        Stream(Client client, MethodDescriptor<Q, A> method, CallOptions options) {
            requests = ClientCalls.asyncBidiStreamingCall(client.channel.newCall(method, options), this);
        }

        @Override public void onNext(A answer) { came.add(answer); }
        @Override public void onError(Throwable error) { came.add(Status.fromThrowable(error)); }
        @Override public void onCompleted() { came.add(Status.OK); }

        @SuppressWarnings("unchecked")
        A next() throws InterruptedException {
            Object one = came.take();
            if (one instanceof Status) {
                came.add(one);
                throw ((Status) one).asRuntimeException();
            }
            return (A) one;
        }

        // After it has ended by itself there is nobody to tell.
        void send(Q request) {
            try {
                requests.onNext(request);
            } catch (IllegalStateException ended) {
                return;
            }
        }

        String end() throws InterruptedException {
            for (;;) {
                Object one = came.take();
                if (one instanceof Status)
                    return ((Status) one).getCode().name();
            }
        }
    }

    interface Step { void run() throws Exception; }

    static String status(Step step) throws Exception {
        try {
            step.run();
            return "OK";
        } catch (StatusRuntimeException error) {
            return error.getStatus().getCode().name();
        }
    }

    static StatusRuntimeException failure(Step step) throws Exception {
        try {
            step.run();
        } catch (StatusRuntimeException error) {
            return error;
        }
        throw new AssertionError("it succeeded");
    }

    static <M extends Message> M detail(StatusRuntimeException error, Class<M> type) throws Exception {
        for (Any any : StatusProto.fromThrowable(error).getDetailsList())
            if (any.is(type))
                return any.unpack(type);
        throw new AssertionError("no " + type);
    }

    // JSON of what is said here: texts, numbers, truths, lists, and maps of one entry.
    static String json(Object value) {
        if (value instanceof List) {
            StringBuilder text = new StringBuilder("[");
            for (Object one : (List<?>) value)
                text.append(text.length() > 1 ? ", " : "").append(json(one));
            return text.append("]").toString();
        }
        if (value instanceof Number || value instanceof Boolean)
            return value.toString();
        StringBuilder text = new StringBuilder("\"");
        for (char one : value.toString().toCharArray())
            text.append(one < ' ' || one > '~' || one == '"' || one == '\\' ? String.format("\\u%04x", (int) one) : String.valueOf(one));
        return text.append("\"").toString();
    }

    static void say(String name, Object... values) {
        System.out.println(name + ": " + json(values.length == 1 ? values[0] : Arrays.asList(values)));
    }

    static void check(String name, String address, String strict, String away) throws Exception {
        Client client = dial(false, address);
        checkSmall(client, name);
        Grant grant = client.create(CreateRequest.newBuilder().setExclusive(true).setCleanup(name).setPayload("{\"n\": 1}"), name, name, 60);
        say("create", grant.getCreated(), grant.getTtl().getSeconds());
        Lease lease = client.call(GET, GetRequest.newBuilder().setLeaseId(grant.getLeaseId()).build());
        say("get", lease.getObjectId().equals(name), lease.getPayload(), lease.getExclusive());
        List<RenewResult> results =
            client.call(RENEW_BATCH, RenewBatchRequest.newBuilder().addLeaseIds(grant.getLeaseId()).addLeaseIds(UNKNOWN).build()).getResultsList();
        say("renew", results.get(0).getStatus(), results.get(1).getStatus());

        Stream<KeepAliveRequest, KeepAliveResponse> beats = new Stream<>(client, KEEP_ALIVE, client.within(20000));
        List<Object> seen = new ArrayList<>();
        for (int seq = 1; seq <= 3; seq++) {
            beats.requests.onNext(KeepAliveRequest.newBuilder().addLeaseIds(grant.getLeaseId()).setSeq(seq).build());
            KeepAliveResponse answer = beats.next();
            seen.add(Arrays.asList(answer.getSeq(), answer.getResults(0).getStatus()));
        }
        beats.requests.onCompleted();
        seen.add(beats.end());
        say("beats", seen.toArray());

        StatusRuntimeException error = failure(() -> client.create(CreateRequest.newBuilder(), name, name, 60));
        ErrorInfo info = detail(error, ErrorInfo.class);
        say("taken", error.getStatus().getCode(), info.getReason(), name.equals(info.getMetadataMap().get("holder")),
            Double.parseDouble(info.getMetadataMap().get("retry_after")) > 0);
        error = failure(() -> client.create(CreateRequest.newBuilder(), "", name, 60));
        say("field", error.getStatus().getCode(), detail(error, BadRequest.class).getFieldViolations(0).getField());
        error = failure(() -> client.call(GET, GetRequest.newBuilder().setLeaseId("\u00fc%").build()));
        say("text", error.getStatus().getDescription().contains("\u00fc%"));

        say("release", client.call(RELEASE, ReleaseRequest.newBuilder().addLeaseIds(grant.getLeaseId()).build()).getCount());
        Stream<WatchRequest, Cleanup> watch = new Stream<>(client, WATCH, client.within(20000));
        watch.requests.onNext(WatchRequest.newBuilder().addHandlers(name).setCredit(1).build());
        Cleanup cleanup = watch.next();
        watch.requests.onNext(ack(cleanup).build());
        watch.requests.onCompleted();
        say("watch", cleanup.getObjectId().equals(name), cleanup.getPayload(), watch.end());

        ClaimRequest claim = ClaimRequest.newBuilder().addHandlers(name).setWait(Duration.newBuilder().setSeconds(30)).build();
        say("deadlines", status(() -> ClientCalls.blockingUnaryCall(client.channel, CLAIM, client.within(300), claim)),
            new Stream<>(client, KEEP_ALIVE, client.within(300)).end());
        beats = new Stream<>(client, KEEP_ALIVE, client.options);
        beats.requests.onNext(KeepAliveRequest.newBuilder().setSeq(1).build());
        beats.next();
        beats.requests.onError(Status.CANCELLED.asException());
        say("cancel", beats.end());

        say("large", status(() -> client.create(CreateRequest.newBuilder(), "x".repeat(5000000), name, 60)));
        checkPages(client, name);
        checkMany(client, name);
        say("health", client.call(unary("grpc.health.v1.Health/Check", HealthCheckRequest.getDefaultInstance(), HealthCheckResponse.getDefaultInstance()),
            HealthCheckRequest.getDefaultInstance()).getStatus());

        Client guarded = dial(false, strict);
        Client named = guarded.with("authorization", "Bearer secret");
        beats = new Stream<>(named, KEEP_ALIVE, named.within(20000));
        beats.requests.onNext(KeepAliveRequest.getDefaultInstance());
        beats.requests.onCompleted();
        say("token", status(() -> guarded.call(LIST, ListRequest.getDefaultInstance())), status(() -> named.call(LIST, ListRequest.getDefaultInstance())),
            beats.end(), status(() -> named.call(LIST, ListRequest.newBuilder().setServiceId("other").build())));
        say("away", status(() -> dial(false, away).create(CreateRequest.newBuilder(), name, name, 60)));
    }

    static WatchRequest.Builder ack(Cleanup cleanup) {
        return WatchRequest.newBuilder().addAcks(Outcome.newBuilder().setCleanupId(cleanup.getCleanupId()).setAttempt(cleanup.getAttempt()));
    }

    static void checkSmall(Client client, String name) throws Exception {
        Client keyed = client.with("idempotency-key", name);
        MethodDescriptor<CreateLeaseRequest, CreateLeaseResponse> create =
            unary(SMALL + "CreateLease", CreateLeaseRequest.getDefaultInstance(), CreateLeaseResponse.getDefaultInstance());
        CreateLeaseRequest request = CreateLeaseRequest.newBuilder().setObjectId("client \u00fc").setServiceId(name).setLeaseDurationSeconds(60)
            .putMetadata("a", "b").build();
        CreateLeaseResponse made = keyed.call(create, request);
        CreateLeaseResponse again = keyed.call(create, request);
        RenewLeaseResponse renewed = client.call(unary(SMALL + "RenewLease", RenewLeaseRequest.getDefaultInstance(), RenewLeaseResponse.getDefaultInstance()),
            RenewLeaseRequest.newBuilder().setLeaseId(made.getLeaseId()).setServiceId(name).build());
        GetLeaseResponse got = client.call(unary(SMALL + "GetLease", GetLeaseRequest.getDefaultInstance(), GetLeaseResponse.getDefaultInstance()),
            GetLeaseRequest.newBuilder().setLeaseId(made.getLeaseId()).build());
        Step release = () -> client.call(unary(SMALL + "ReleaseLease", ReleaseLeaseRequest.getDefaultInstance(), ReleaseLeaseResponse.getDefaultInstance()),
            ReleaseLeaseRequest.newBuilder().setLeaseId(made.getLeaseId()).setServiceId(name).build());
        say("small service", made.getSuccess(), again.getLeaseId().equals(made.getLeaseId()), renewed.getSuccess(), got.getLease().getObjectId(),
            got.getLease().getMetadataMap().get("a"), status(release), status(release));
    }

    static CreateBatchRequest pageRequests(String name, String mark, int n) {
        CreateBatchRequest.Builder batch = CreateBatchRequest.newBuilder();
        for (int i = 0; i < n; i++)
            batch.addRequests(CreateRequest.newBuilder().setObjectId(name + " " + mark + i).setObjectType("page").setServiceId(name)
                .setPayload("\"" + "x".repeat(60000) + "\""));
        return batch.build();
    }

    static void checkPages(Client client, String name) {
        List<CreateBatchResponse.Item> items = new ArrayList<>(client.call(CREATE_BATCH, pageRequests(name, "", 60)).getItemsList());
        items.addAll(ClientCalls.blockingUnaryCall(client.channel, CREATE_BATCH, client.within(20000).withCompression("gzip"), pageRequests(name, "+", 20))
            .getItemsList());
        ReleaseRequest.Builder release = ReleaseRequest.newBuilder();
        for (CreateBatchResponse.Item item : items)
            release.addLeaseIds(item.getGrant().getLeaseId());
        int pages = 0;
        int leases = 0;
        String token = "";
        while (pages == 0 || !token.isEmpty()) {
            ListResponse page =
                client.call(LIST, ListRequest.newBuilder().setServiceId(name).setObjectType("page").setLimit(1000).setPageToken(token).build());
            pages++;
            leases += page.getLeasesCount();
            token = page.getNextPageToken();
        }
        say("pages", leases, pages > 1);
        say("batch", client.call(RELEASE, release.build()).getCount());
    }

    static void checkMany(Client client, String name) throws Exception {
        AtomicInteger good = new AtomicInteger();
        CountDownLatch all = new CountDownLatch(2000);
        for (int i = 0; i < 2000; i++)
            ClientCalls.asyncUnaryCall(client.channel.newCall(LIST, client.within(60000)), ListRequest.newBuilder().setServiceId(name).build(),
                new StreamObserver<ListResponse>() {
                    @Override public void onNext(ListResponse answer) { good.addAndGet(answer.getLeasesCount() == 0 ? 1 : 0); }
                    @Override public void onError(Throwable error) { all.countDown(); }
                    @Override public void onCompleted() { all.countDown(); }
                });
        all.await();
        say("many", good.get());
        List<Stream<KeepAliveRequest, KeepAliveResponse>> streams = new ArrayList<>();
        for (int i = 0; i < 100; i++) {
            Stream<KeepAliveRequest, KeepAliveResponse> stream = new Stream<>(client, KEEP_ALIVE, client.within(60000));
            stream.requests.onNext(KeepAliveRequest.newBuilder().setSeq(7).build());
            streams.add(stream);
        }
        long sum = 0;
        for (Stream<KeepAliveRequest, KeepAliveResponse> stream : streams)
            sum += stream.next().getSeq();
        say("streams", sum);
        for (Stream<KeepAliveRequest, KeepAliveResponse> stream : streams) {
            stream.requests.onCompleted();
            stream.end();
        }
    }

    // Workers that repeat nothing; a stream of heartbeats and one of cleanups, which begin anew when they end.
    static class Load {
        final String name;
        final Client client;
        final AtomicInteger calls = new AtomicInteger();
        final AtomicInteger beats = new AtomicInteger();
        final AtomicInteger lost = new AtomicInteger();
        final AtomicInteger reopened = new AtomicInteger();
        final List<Object> failed = java.util.Collections.synchronizedList(new ArrayList<>());
        final Set<String> left = ConcurrentHashMap.newKeySet();
        final CountDownLatch worked = new CountDownLatch(1);
        final CountDownLatch beaten = new CountDownLatch(1);
        final CountDownLatch cleaned = new CountDownLatch(1);
        final AtomicBoolean stopping = new AtomicBoolean();
        final AtomicBoolean done = new AtomicBoolean();

        Load(String name, Client client) {
            this.name = name;
            this.client = client;
        }

        void fail(String what, Status status) { failed.add(what + ": " + status.getCode() + " " + status.getDescription()); }

        void work(int number) {
            for (int i = 0; !stopping.get(); i++) {
                String object = name + " " + number + " " + i;
                String what = "Create";
                try {
                    String lease = client.create(CreateRequest.newBuilder().setCleanup(name), object, name, 60).getLeaseId();
                    left.add(object);
                    what = "Get";
                    client.call(GET, GetRequest.newBuilder().setLeaseId(lease).build());
                    what = "Release";
                    client.call(RELEASE, ReleaseRequest.newBuilder().addLeaseIds(lease).build());
                    calls.addAndGet(3);
                    worked.countDown();
                } catch (StatusRuntimeException error) {
                    fail(what, error.getStatus());
                }
            }
        }

        void again(String what, Status status) throws InterruptedException {
            if (status.getCode() != Status.Code.UNAVAILABLE)
                fail(what, status);
            reopened.incrementAndGet();
            Thread.sleep(50);
        }

        void beat() throws InterruptedException {
            String lease = client.create(CreateRequest.newBuilder(), name, name, 10).getLeaseId();
            while (!stopping.get()) {
                Stream<KeepAliveRequest, KeepAliveResponse> stream = new Stream<>(client, KEEP_ALIVE, client.options);
                try {
                    while (!stopping.get()) {
                        stream.send(KeepAliveRequest.newBuilder().addLeaseIds(lease).build());
                        (stream.next().getResults(0).getStatus() == RenewResult.Status.RENEWED ? beats : lost).incrementAndGet();
                        beaten.countDown();
                        Thread.sleep(100);
                    }
                } catch (StatusRuntimeException error) {
                    again("KeepAlive", error.getStatus());
                }
            }
        }

        void clean() throws InterruptedException {
            while (!done.get()) {
                Stream<WatchRequest, Cleanup> stream = new Stream<>(client, WATCH, client.options);
                stream.send(WatchRequest.newBuilder().addHandlers(name).setCredit(8).setVisibility(Duration.newBuilder().setSeconds(5)).build());
                try {
                    for (;;) {
                        Cleanup cleanup = stream.next();
                        stream.send(ack(cleanup).setCredit(1).build());
                        left.remove(cleanup.getObjectId());
                        cleaned.countDown();
                    }
                } catch (StatusRuntimeException error) {
                    again("WatchCleanups", error.getStatus());
                }
            }
        }

        static Thread start(Step step) {
            Thread thread = new Thread(() -> {
                try {
                    step.run();
                } catch (Exception error) {
                    error.printStackTrace();
                    System.exit(1);
                }
            });
            thread.start();
            return thread;
        }

        void run() throws Exception {
            List<Thread> threads = new ArrayList<>();
            for (int i = 0; i < 4; i++) {
                int number = i;
                threads.add(start(() -> work(number)));
            }
            threads.add(start(this::beat));
            start(this::clean);
            worked.await();
            beaten.await();
            cleaned.await();
            System.out.println("begun");
            System.in.readAllBytes();
            stopping.set(true);
            for (Thread thread : threads)
                thread.join();
            for (int i = 0; i < 1200 && !left.isEmpty(); i++)
                Thread.sleep(50);
            done.set(true);
            System.out.printf("{\"calls\": %d, \"beats\": %d, \"lost\": %d, \"reopened\": %d, \"failed\": %s, \"left\": %d}%n", calls.get(), beats.get(),
                lost.get(), reopened.get(), json(new ArrayList<>(failed).subList(0, Math.min(20, failed.size()))), left.size());
        }
    }

    // Threads of the transport would keep the process alive after an exception.
    public static void main(String[] args) {
        try {
            if (args[0].equals("check"))
                check(args[1], args[2], args[3], args[4]);
            else
                new Load(args[1], dial(args[2].equals("ready"), Arrays.copyOfRange(args, 3, args.length))).run();
        } catch (Throwable error) {
            error.printStackTrace();
            System.exit(1);
        }
        System.exit(0);
    }
}
