package e2e

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	cachev1 "example.invalid/larder/clients/go/internal/gen/larder/cache/v1"
	"example.invalid/larder/clients/go/internal/gen/rpc"
)

// configured starts larder with a configuration file.
func configured(t *testing.T, config string, args ...string) process {
	t.Helper()
	file := filepath.Join(t.TempDir(), "larder.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return startLarder(t, append(args, "--config", file)...)
}

// account makes an account, and returns metadata that shows a token of it.
func (p process) account(t *testing.T, ctx context.Context, name string, args ...string) context.Context {
	t.Helper()
	p.run(t, append([]string{"account", "create", name}, args...)...)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(name+"-has-a-token"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.run(t, "token", "create", name, "--secret-file", secret)
	return with(ctx, "authorization", "Bearer "+name+"-has-a-token")
}

// stayAway asserts that a refusal says twice, and alike, for how long to stay away, which
// must be within bounds: as RetryInfo, and as the pushback of gRFC A6.
func stayAway(t *testing.T, err error, code codes.Code, reason string, trailer metadata.MD, least, most time.Duration) time.Duration {
	t.Helper()
	var delay time.Duration
	for _, detail := range check(t, err, code, reason).Details() {
		if retry, ok := detail.(*errdetails.RetryInfo); ok {
			delay = retry.RetryDelay.AsDuration()
		}
	}
	pushback := trailer.Get("grpc-retry-pushback-ms")
	if len(pushback) != 1 {
		t.Fatalf("got pushback %v", pushback)
	}
	ms, err := strconv.Atoi(pushback[0])
	if err != nil {
		t.Fatal(err)
	}
	if told := time.Duration(ms) * time.Millisecond; (told - delay).Abs() > time.Millisecond {
		t.Errorf("RetryInfo says %s, and the pushback %s", delay, told)
	}
	if delay < least || delay > most {
		t.Errorf("to stay away for %s is not within %s and %s", delay, least, most)
	}
	return delay
}

// An account that asks more often than it may is told when to come back, and is served then.
func TestRateLimit(t *testing.T) {
	larder := startLarder(t)
	ctx := within(t)
	cache := cachev1.NewCacheServiceClient(dial(t, larder.address))
	limited := larder.account(t, ctx, "limited", "--max-rps", "2")
	other := larder.account(t, ctx, "other")
	get := func(ctx context.Context, options ...grpc.CallOption) error {
		_, err := cache.Get(ctx, &cachev1.GetRequest{Key: []byte("k")}, options...)
		return err
	}
	var trailer metadata.MD
	var err error
	for range 50 {
		if err = get(limited, grpc.Trailer(&trailer)); err != nil {
			break
		}
	}
	delay := stayAway(t, err, codes.ResourceExhausted, "RATE_LIMITED", trailer, time.Microsecond, time.Second/2)
	if err := get(other); err != nil {
		t.Errorf("another account: %v", err)
	}
	<-time.After(delay + time.Millisecond)
	if err := get(limited); err != nil {
		t.Errorf("after the delay: %v", err)
	}
}

// An account has so many calls at a time, and so many streams among them.
func TestConcurrencyLimits(t *testing.T) {
	for _, limit := range []struct {
		config string
		delay  time.Duration
		call   func(ctx context.Context, cache cachev1.CacheServiceClient, options ...grpc.CallOption) error
	}{
		{"max_calls_per_account = 1", 100 * time.Millisecond, func(ctx context.Context, cache cachev1.CacheServiceClient, options ...grpc.CallOption) error {
			_, err := cache.ListKeys(ctx, &cachev1.ListKeysRequest{}, options...)
			return err
		}},
		{"max_streams_per_account = 1", time.Second, func(ctx context.Context, cache cachev1.CacheServiceClient, options ...grpc.CallOption) error {
			dump, err := cache.Dump(ctx, &cachev1.DumpRequest{}, options...)
			if err != nil {
				return err
			}
			if _, err = dump.Recv(); errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}},
	} {
		t.Run(limit.config, func(t *testing.T) {
			larder := configured(t, "[admission]\n"+limit.config)
			ctx := within(t)
			cache := cachev1.NewCacheServiceClient(dial(t, larder.address))
			busy := larder.account(t, ctx, "busy")
			other := larder.account(t, ctx, "other")
			load, err := cache.Load(busy)
			if err != nil {
				t.Fatal(err)
			}
			if err := load.Send(&cachev1.LoadRequest{}); err != nil {
				t.Fatal(err)
			}
			if _, err := load.Recv(); err != nil {
				t.Fatal(err)
			}
			var trailer metadata.MD
			err = limit.call(busy, cache, grpc.Trailer(&trailer))
			stayAway(t, err, codes.ResourceExhausted, "CONCURRENCY_LIMITED", trailer, limit.delay, limit.delay)
			if err := limit.call(other, cache); err != nil {
				t.Errorf("another account: %v", err)
			}
			if err := load.CloseSend(); err != nil {
				t.Fatal(err)
			}
			if _, err := load.Recv(); !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			if err := limit.call(busy, cache); err != nil {
				t.Errorf("once the load has ended: %v", err)
			}
		})
	}
}

// silent is an Accounts server of the talk that answers nobody.
type silent struct {
	rpc.UnimplementedAccountsServer
	// The time that its callers gave it.
	given chan time.Duration
}

func (s *silent) GetByToken(ctx context.Context, _ *rpc.GetByTokenReq) (*rpc.GetByTokenResp, error) {
	if deadline, ok := ctx.Deadline(); ok {
		s.given <- time.Until(deadline)
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

// A call whose time is over before it began is told so, whether its caller gave the time or
// the server did; the Accounts server, which it waited for, had less of it.
func TestDeadlineBeforeTheCallBegan(t *testing.T) {
	accounts := &silent{given: make(chan time.Duration, 10)}
	address := serveHere(t, func(s *grpc.Server) { rpc.RegisterAccountsServer(s, accounts) })
	larder := configured(t, "[deadlines]\ndefault_seconds = 1\nmax_seconds = 2\n", "--accounts", "http://"+address)
	cache := cachev1.NewCacheServiceClient(dial(t, larder.address))
	for name, asked := range map[string]time.Duration{"the caller's": 1500 * time.Millisecond, "the server's": 0} {
		t.Run(name, func(t *testing.T) {
			ctx, most := with(t.Context(), "authorization", "Bearer "+strings.ReplaceAll(name, " ", "-")), time.Second
			if asked > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, asked)
				defer cancel()
				most = asked
			}
			began := time.Now()
			_, err := cache.Set(ctx, &cachev1.SetRequest{Key: []byte("k")})
			took := time.Since(began)
			check(t, err, codes.DeadlineExceeded, "NOT_STARTED")
			if given := <-accounts.given; given > most {
				t.Errorf("the Accounts server was given %s of %s", given, most)
			}
			if took < most/2 || took > most+patience/2 {
				t.Errorf("took %s of %s", took, most)
			}
		})
	}
}

// A stream whose caller gives no time, or too much, has the server's; it may have had its
// effect by then.
func TestDeadlineOfAStream(t *testing.T) {
	larder := configured(t, "[deadlines]\ndefault_seconds = 1\nmax_seconds = 1\n")
	cache := cachev1.NewCacheServiceClient(dial(t, larder.address))
	token := larder.account(t, t.Context(), "team")
	for name, ctx := range map[string]context.Context{"no time": token, "too much": with(within(t), "authorization", "Bearer team-has-a-token")} {
		t.Run(name, func(t *testing.T) {
			load, err := cache.Load(ctx)
			if err != nil {
				t.Fatal(err)
			}
			entry := &cachev1.Entry{Key: []byte(name), Value: []byte("v")}
			if err := load.Send(&cachev1.LoadRequest{Entries: []*cachev1.Entry{entry}}); err != nil {
				t.Fatal(err)
			}
			if _, err := load.Recv(); err != nil {
				t.Fatal(err)
			}
			_, err = load.Recv()
			check(t, err, codes.DeadlineExceeded, "MAYBE_APPLIED")
			kept, err := cache.Get(token, &cachev1.GetRequest{Key: []byte(name)})
			if err != nil || kept.GetHit() == nil {
				t.Errorf("what was acknowledged is there: got %v, %v", kept, err)
			}
		})
	}
}

// Metadata makes any mutation a dry run, says so in the answer, and must be right.
func TestDryRunByMetadata(t *testing.T) {
	larder := startLarder(t)
	ctx := within(t)
	cache := cachev1.NewCacheServiceClient(dial(t, larder.address))
	set := &cachev1.SetRequest{Key: []byte("k"), Value: []byte("v")}
	get := &cachev1.GetRequest{Key: []byte("k")}
	for _, value := range []string{"1", "true"} {
		var header metadata.MD
		answer, err := cache.Set(with(ctx, "dry-run", value), set, grpc.Header(&header))
		if err != nil || !answer.GetValidatedOnly() {
			t.Fatalf("got %v, %v", answer, err)
		}
		if echoed := header.Get("dry-run"); len(echoed) != 1 || echoed[0] != "1" {
			t.Errorf("the answer says dry-run: %v", echoed)
		}
		if got, err := cache.Get(ctx, get); err != nil || got.GetHit() != nil {
			t.Errorf("after a dry run: %v, %v", got, err)
		}
	}
	_, err := cache.Set(with(ctx, "dry-run", "perhaps"), set)
	check(t, err, codes.InvalidArgument, "METADATA_INVALID")
	if _, err := cache.Set(with(ctx, "dry-run", "0"), set); err != nil {
		t.Fatal(err)
	}
	if got, err := cache.Get(ctx, get); err != nil || got.GetHit() == nil {
		t.Errorf("after a real one: %v, %v", got, err)
	}
}

// A server that has no time says so, and for how long to stay away; it goes on to say that
// it is well.
func TestOverload(t *testing.T) {
	larder := configured(t, "threads = 1\n[admission]\nlate_ms = 1\ninterval_ms = 10\ntarget_ms = 1\n")
	ctx := within(t)
	conn := dial(t, larder.address)
	cache := cachev1.NewCacheServiceClient(conn)
	request := &cachev1.BatchGetRequest{}
	for number := range 1000 {
		request.Keys = append(request.Keys, []byte(strconv.Itoa(number)))
	}
	type refusal struct {
		err     error
		trailer metadata.MD
	}
	refused := make(chan refusal, 200)
	pressing, stop := context.WithCancel(ctx)
	defer stop()
	var group sync.WaitGroup
	for range 200 {
		group.Go(func() {
			for pressing.Err() == nil {
				var trailer metadata.MD
				if _, err := cache.BatchGet(ctx, request, grpc.Trailer(&trailer)); err != nil {
					refused <- refusal{err, trailer}
					stop()
					return
				}
			}
		})
	}
	health := healthpb.NewHealthClient(conn)
	for pressing.Err() == nil {
		answer, err := health.Check(ctx, &healthpb.HealthCheckRequest{})
		if err != nil || answer.Status != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("health: %v, %v", answer, err)
			stop()
		}
	}
	group.Wait()
	close(refused)
	if len(refused) == 0 {
		t.Fatal("nothing was refused")
	}
	for each := range refused {
		stayAway(t, each.err, codes.Unavailable, "OVERLOADED", each.trailer, 100*time.Millisecond, 275*time.Millisecond)
	}
}
