// A client of grpc-go: see ../test_clients.py, which has all of them do the same.
//
//	client check NAME ADDRESS STRICT AWAY    one line for each thing: "name: JSON"
//	client load NAME ready|any ADDRESS...    prints "begun", calls until its input ends, then prints what became of it
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"example.com/app/gc"
	"example.com/app/gt"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

const unknown = "01900000-0000-7000-8000-000000000000"

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

type client struct {
	conn  *grpc.ClientConn
	small gc.DistributedGCServiceClient
	truck gt.GarbageTruckClient
}

func dial(ready bool, addresses ...string) client {
	options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	target := addresses[0]
	if len(addresses) > 1 {
		known := manual.NewBuilderWithScheme("known")
		var state resolver.State
		for _, address := range addresses {
			state.Addresses = append(state.Addresses, resolver.Address{Addr: address})
		}
		known.InitialState(state)
		target = "known:///all"
		options = append(options, grpc.WithResolvers(known),
			grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`))
	}
	if ready {
		options = append(options, grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	}
	conn := must(grpc.NewClient(target, options...))
	return client{conn, gc.NewDistributedGCServiceClient(conn), gt.NewGarbageTruckClient(conn)}
}

func within(limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	time.AfterFunc(limit+time.Second, cancel)
	return ctx
}

func soon() context.Context { return within(20 * time.Second) }

func (c client) create(ctx context.Context, request *gt.CreateRequest, seconds time.Duration) (*gt.Grant, error) {
	request.ObjectType = "t"
	request.Duration = durationpb.New(seconds * time.Second)
	return c.truck.Create(ctx, request)
}

// As it is spelt in the protocol.
func code(err error) string {
	if status.Code(err) == codes.Canceled {
		return "CANCELLED"
	}
	words := ""
	for i, letter := range status.Code(err).String() {
		if i > 0 && letter >= 'A' && letter <= 'Z' && words != "O" {
			words += "_"
		}
		words += strings.ToUpper(string(letter))
	}
	return words
}

func say(name string, value any) { fmt.Printf("%s: %s\n", name, must(json.Marshal(value))) }

// Where a stream ends: its status.
func end[T any](receive func() (T, error)) string {
	for {
		if _, err := receive(); err == io.EOF {
			return "OK"
		} else if err != nil {
			return code(err)
		}
	}
}

func check(name, address, strict, away string) {
	c := dial(false, address)
	key := metadata.AppendToOutgoingContext(soon(), "idempotency-key", name)
	made := must(c.small.CreateLease(key, &gc.CreateLeaseRequest{ObjectId: "client ü", ServiceId: name, LeaseDurationSeconds: 60,
		Metadata: map[string]string{"a": "b"}}))
	again := must(c.small.CreateLease(key, &gc.CreateLeaseRequest{ObjectId: "client ü", ServiceId: name, LeaseDurationSeconds: 60}))
	renewed := must(c.small.RenewLease(soon(), &gc.RenewLeaseRequest{LeaseId: made.LeaseId, ServiceId: name}))
	got := must(c.small.GetLease(soon(), &gc.GetLeaseRequest{LeaseId: made.LeaseId}))
	release := &gc.ReleaseLeaseRequest{LeaseId: made.LeaseId, ServiceId: name}
	_, first := c.small.ReleaseLease(soon(), release)
	_, second := c.small.ReleaseLease(soon(), release)
	say("small service", []any{made.Success, again.LeaseId == made.LeaseId, renewed.Success, got.Lease.ObjectId, got.Lease.Metadata["a"],
		code(first), code(second)})

	grant := must(c.create(soon(), &gt.CreateRequest{ObjectId: name, ServiceId: name, Exclusive: true, Cleanup: name, Payload: `{"n": 1}`}, 60))
	say("create", []any{grant.Created, grant.Ttl.Seconds})
	lease := must(c.truck.Get(soon(), &gt.GetRequest{LeaseId: grant.LeaseId}))
	say("get", []any{lease.ObjectId == name, lease.Payload, lease.Exclusive})
	results := must(c.truck.RenewBatch(soon(), &gt.RenewBatchRequest{LeaseIds: []string{grant.LeaseId, unknown}})).Results
	say("renew", []any{results[0].Status.String(), results[1].Status.String()})

	beats := must(c.truck.KeepAlive(soon()))
	var seen []any
	for seq := uint64(1); seq <= 3; seq++ {
		must(0, beats.Send(&gt.KeepAliveRequest{LeaseIds: []string{grant.LeaseId}, Seq: seq}))
		answer := must(beats.Recv())
		seen = append(seen, []any{answer.Seq, answer.Results[0].Status.String()})
	}
	must(0, beats.CloseSend())
	say("beats", append(seen, end(beats.Recv)))

	_, err := c.create(soon(), &gt.CreateRequest{ObjectId: name, ServiceId: name}, 60)
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			wait := must(strconv.ParseFloat(info.Metadata["retry_after"], 64))
			say("taken", []any{code(err), info.Reason, info.Metadata["holder"] == name, wait > 0})
		}
	}
	_, err = c.create(soon(), &gt.CreateRequest{ServiceId: name}, 60)
	for _, detail := range status.Convert(err).Details() {
		if bad, ok := detail.(*errdetails.BadRequest); ok {
			say("field", []any{code(err), bad.FieldViolations[0].Field})
		}
	}
	_, err = c.truck.Get(soon(), &gt.GetRequest{LeaseId: "ü%"})
	say("text", strings.Contains(status.Convert(err).Message(), "ü%"))

	say("release", must(c.truck.Release(soon(), &gt.ReleaseRequest{LeaseIds: []string{grant.LeaseId}})).Count)
	watch := must(c.truck.WatchCleanups(soon()))
	must(0, watch.Send(&gt.WatchRequest{Handlers: []string{name}, Credit: 1}))
	cleanup := must(watch.Recv())
	must(0, watch.Send(&gt.WatchRequest{Acks: []*gt.Outcome{{CleanupId: cleanup.CleanupId, Attempt: cleanup.Attempt}}}))
	must(0, watch.CloseSend())
	say("watch", []any{cleanup.ObjectId == name, cleanup.Payload, end(watch.Recv)})

	_, err = c.truck.Claim(within(300*time.Millisecond), &gt.ClaimRequest{Handlers: []string{name}, Wait: durationpb.New(30 * time.Second)})
	say("deadlines", []any{code(err), end(must(c.truck.KeepAlive(within(300 * time.Millisecond))).Recv)})
	ctx, cancel := context.WithCancel(soon())
	beats = must(c.truck.KeepAlive(ctx))
	must(0, beats.Send(&gt.KeepAliveRequest{Seq: 1}))
	must(beats.Recv())
	cancel()
	say("cancel", end(beats.Recv))

	_, err = c.create(soon(), &gt.CreateRequest{ObjectId: strings.Repeat("x", 5000000), ServiceId: name}, 60)
	say("large", code(err))
	checkPages(c, name)
	checkMany(c, name)

	healthy := must(grpc_health_v1.NewHealthClient(c.conn).Check(soon(), &grpc_health_v1.HealthCheckRequest{}))
	say("health", healthy.Status.String())
	guarded := dial(false, strict)
	token := metadata.AppendToOutgoingContext(soon(), "authorization", "Bearer secret")
	_, none := guarded.truck.List(soon(), &gt.ListRequest{})
	_, with := guarded.truck.List(token, &gt.ListRequest{})
	_, other := guarded.truck.List(token, &gt.ListRequest{ServiceId: "other"})
	beats = must(guarded.truck.KeepAlive(token))
	must(0, beats.Send(&gt.KeepAliveRequest{}))
	must(0, beats.CloseSend())
	say("token", []any{code(none), code(with), end(beats.Recv), code(other)})
	_, err = dial(false, away).create(soon(), &gt.CreateRequest{ObjectId: name, ServiceId: name}, 60)
	say("away", code(err))
}

func pageRequests(name, mark string, n int) *gt.CreateBatchRequest {
	batch := &gt.CreateBatchRequest{}
	for i := range n {
		batch.Requests = append(batch.Requests, &gt.CreateRequest{ObjectId: fmt.Sprint(name, " ", mark, i), ObjectType: "page", ServiceId: name,
			Payload: `"` + strings.Repeat("x", 60000) + `"`})
	}
	return batch
}

func checkPages(c client, name string) {
	var ids []string
	items := must(c.truck.CreateBatch(soon(), pageRequests(name, "", 60))).Items
	items = append(items, must(c.truck.CreateBatch(soon(), pageRequests(name, "+", 20), grpc.UseCompressor(gzip.Name))).Items...)
	for _, item := range items {
		ids = append(ids, item.Grant.LeaseId)
	}
	pages, leases, token := 0, 0, ""
	for pages == 0 || token != "" {
		page := must(c.truck.List(soon(), &gt.ListRequest{ServiceId: name, ObjectType: "page", Limit: 1000, PageToken: token}))
		pages, leases, token = pages+1, leases+len(page.Leases), page.NextPageToken
	}
	say("pages", []any{leases, pages > 1})
	say("batch", must(c.truck.Release(soon(), &gt.ReleaseRequest{LeaseIds: ids})).Count)
}

func checkMany(c client, name string) {
	var wait sync.WaitGroup
	var lock sync.Mutex
	calls, seqs := 0, uint64(0)
	for range 2000 {
		wait.Go(func() {
			list := must(c.truck.List(within(time.Minute), &gt.ListRequest{ServiceId: name}))
			lock.Lock()
			defer lock.Unlock()
			if len(list.Leases) == 0 {
				calls++
			}
		})
	}
	wait.Wait()
	say("many", calls)
	var streams []grpc.BidiStreamingClient[gt.KeepAliveRequest, gt.KeepAliveResponse]
	for range 100 {
		stream := must(c.truck.KeepAlive(within(time.Minute)))
		must(0, stream.Send(&gt.KeepAliveRequest{Seq: 7}))
		streams = append(streams, stream)
	}
	for _, stream := range streams {
		seqs += must(stream.Recv()).Seq
	}
	say("streams", seqs)
	for _, stream := range streams {
		must(0, stream.CloseSend())
		end(stream.Recv)
	}
}

// Workers that repeat nothing; a stream of heartbeats and one of cleanups, which begin anew when they end.
type load struct {
	client
	name     string
	lock     sync.Mutex
	counts   map[string]int
	failed   []string
	left     map[string]bool // made, and not yet cleaned
	begun    map[string]chan bool
	stopping chan bool
}

func (l *load) count(what string, n int) {
	l.lock.Lock()
	l.counts[what] += n
	l.lock.Unlock()
}

func (l *load) begin(what string) {
	select {
	case l.begun[what] <- true:
	default:
	}
}

func (l *load) fail(what string, err error) {
	l.lock.Lock()
	l.failed = append(l.failed, fmt.Sprint(what, ": ", code(err), " ", status.Convert(err).Message()))
	l.lock.Unlock()
}

func (l *load) stopped() bool {
	select {
	case <-l.stopping:
		return true
	default:
		return false
	}
}

func (l *load) work(number int) {
	for i := 0; !l.stopped(); i++ {
		object := fmt.Sprint(l.name, " ", number, " ", i)
		grant, err := l.create(soon(), &gt.CreateRequest{ObjectId: object, ServiceId: l.name, Cleanup: l.name}, 60)
		if err != nil {
			l.fail("Create", err)
			continue
		}
		l.lock.Lock()
		l.left[object] = true
		l.lock.Unlock()
		if _, err = l.truck.Get(soon(), &gt.GetRequest{LeaseId: grant.LeaseId}); err != nil {
			l.fail("Get", err)
		}
		if _, err = l.truck.Release(soon(), &gt.ReleaseRequest{LeaseIds: []string{grant.LeaseId}}); err != nil {
			l.fail("Release", err)
		}
		l.count("calls", 3)
		l.begin("work")
	}
}

func (l *load) again(what string, err error) {
	if status.Code(err) != codes.Unavailable {
		l.fail(what, err)
	}
	l.count("reopened", 1)
	time.Sleep(50 * time.Millisecond)
}

func (l *load) beat() {
	lease := must(l.create(soon(), &gt.CreateRequest{ObjectId: l.name, ServiceId: l.name}, 10)).LeaseId
	for !l.stopped() {
		ctx, cancel := context.WithCancel(context.Background())
		stream, err := l.truck.KeepAlive(ctx)
		for err == nil && !l.stopped() {
			var answer *gt.KeepAliveResponse
			stream.Send(&gt.KeepAliveRequest{LeaseIds: []string{lease}})
			if answer, err = stream.Recv(); err != nil {
				break
			}
			if answer.Results[0].Status == gt.RenewResult_RENEWED {
				l.count("beats", 1)
			} else {
				l.count("lost", 1)
			}
			l.begin("beats")
			time.Sleep(100 * time.Millisecond)
		}
		if err != nil {
			l.again("KeepAlive", err)
		}
		cancel()
	}
}

func (l *load) clean(ctx context.Context) {
	for ctx.Err() == nil {
		stream, err := l.truck.WatchCleanups(ctx)
		if err == nil {
			stream.Send(&gt.WatchRequest{Handlers: []string{l.name}, Credit: 8, Visibility: durationpb.New(5 * time.Second)})
		}
		for err == nil {
			var cleanup *gt.Cleanup
			if cleanup, err = stream.Recv(); err == nil {
				stream.Send(&gt.WatchRequest{Acks: []*gt.Outcome{{CleanupId: cleanup.CleanupId, Attempt: cleanup.Attempt}}, Credit: 1})
				l.lock.Lock()
				delete(l.left, cleanup.ObjectId)
				l.lock.Unlock()
				l.begin("cleanups")
			}
		}
		if ctx.Err() == nil {
			l.again("WatchCleanups", err)
		}
	}
}

func runLoad(name string, ready bool, addresses []string) {
	l := &load{client: dial(ready, addresses...), name: name, counts: map[string]int{}, failed: []string{}, left: map[string]bool{},
		begun: map[string]chan bool{"work": make(chan bool, 1), "beats": make(chan bool, 1), "cleanups": make(chan bool, 1)}, stopping: make(chan bool)}
	ctx, cancel := context.WithCancel(context.Background())
	var workers sync.WaitGroup
	for i := range 4 {
		workers.Go(func() { l.work(i) })
	}
	workers.Go(l.beat)
	go l.clean(ctx)
	for _, begun := range l.begun {
		<-begun
	}
	fmt.Println("begun")
	io.ReadAll(os.Stdin)
	close(l.stopping)
	workers.Wait()
	left := func() int {
		l.lock.Lock()
		defer l.lock.Unlock()
		return len(l.left)
	}
	for until := time.Now().Add(time.Minute); left() > 0 && time.Now().Before(until); {
		time.Sleep(50 * time.Millisecond)
	}
	cancel()
	l.lock.Lock()
	fmt.Println(string(must(json.Marshal(map[string]any{"calls": l.counts["calls"], "beats": l.counts["beats"], "lost": l.counts["lost"],
		"reopened": l.counts["reopened"], "failed": l.failed[:min(20, len(l.failed))], "left": len(l.left)}))))
}

func main() {
	if os.Args[1] == "check" {
		check(os.Args[2], os.Args[3], os.Args[4], os.Args[5])
	} else {
		runLoad(os.Args[2], os.Args[3] == "ready", os.Args[4:])
	}
}
