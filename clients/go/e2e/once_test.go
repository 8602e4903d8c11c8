package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	cachev1 "example.invalid/larder/clients/go/internal/gen/larder/cache/v1"
)

// retries makes the library send a call again that failed with UNAVAILABLE
// (gRFC A6).
const retries = `{"methodConfig": [{
	"name": [{"service": "larder.cache.v1.CacheService"}],
	"retryPolicy": {
		"maxAttempts": 5, "initialBackoff": "0.01s", "maxBackoff": "0.1s",
		"backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]
	}}]}`

// startProxy breaks the connections to a server, as the flags of
// `larder-torture proxy` say, until the test ends.
func startProxy(t *testing.T, target string, args ...string) string {
	t.Helper()
	bin := os.Getenv("LARDER_TORTURE_BIN")
	if bin == "" {
		bin = filepath.Join(filepath.Dir(larderBin(t)), "larder-torture")
	}
	cmd := exec.Command(bin, append([]string{"proxy", "--to", target}, args...)...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	var address string
	if _, err := fmt.Fscanf(stdout, "listening on %s\n", &address); err != nil {
		t.Fatal(err)
	}
	return address
}

// stubborn makes calls of the default account until they are answered.
type stubborn struct {
	t       *testing.T
	address string
	conn    *grpc.ClientConn
	calls   int
}

func (s *stubborn) increment(ctx context.Context, req *cachev1.IncrementRequest) *cachev1.IncrementResponse {
	for ctx.Err() == nil {
		if s.conn == nil {
			s.conn = dial(s.t, s.address, grpc.WithDefaultServiceConfig(retries))
		}
		s.calls++
		once, cancel := context.WithTimeout(ctx, time.Second)
		resp, err := cachev1.NewCacheServiceClient(s.conn).Increment(once, req)
		cancel()
		switch status.Code(err) {
		case codes.OK:
			return resp
		case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Internal, codes.Unknown:
			s.conn.Close()
			s.conn = nil
		default:
			s.t.Errorf("got %v", err)
			return nil
		}
	}
	s.t.Error("no answer")
	return nil
}

// Increments that are sent until they are acknowledged count once each, whatever
// happens to their connections.
func TestIncrementsThroughFaultsCountOnce(t *testing.T) {
	const clients, each = 8, 125
	larder := startLarder(t)
	proxy := startProxy(t, larder.address, "--seed", "3")
	ctx := within(t)
	var group sync.WaitGroup
	var calls [clients]int
	for number := range clients {
		group.Go(func() {
			client := stubborn{t: t, address: proxy}
			for i := range each {
				client.increment(ctx, &cachev1.IncrementRequest{
					Key: []byte("counter"), Delta: 1, RequestId: fmt.Sprintf("%d-%d", number, i),
				})
			}
			calls[number] = client.calls
		})
	}
	group.Wait()
	direct := cachev1.NewCacheServiceClient(dial(t, larder.address))
	got, err := direct.Get(ctx, &cachev1.GetRequest{Key: []byte("counter")})
	if err != nil {
		t.Fatal(err)
	}
	if value := string(got.GetHit().GetValue()); value != fmt.Sprint(clients*each) {
		t.Errorf("counted %s, want %d", value, clients*each)
	}
	total := 0
	for _, made := range calls {
		total += made
	}
	if total <= clients*each {
		t.Error("nothing had to be sent again")
	}
}

// A request id is replayed on another connection, stands for one request, and
// makes a retry safe that is refused without.
func TestRequestIDs(t *testing.T) {
	larder := startLarder(t)
	ctx := within(t)
	call := func(ctx context.Context, req *cachev1.IncrementRequest) (*cachev1.IncrementResponse, error) {
		return cachev1.NewCacheServiceClient(dial(t, larder.address)).Increment(ctx, req)
	}
	req := &cachev1.IncrementRequest{Key: []byte("n"), Delta: 2, RequestId: "a-request"}
	first, err := call(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	again, err := call(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	if first.Replayed || !again.Replayed || again.Value != first.Value {
		t.Errorf("got %v, and then %v", first, again)
	}
	other := proto.Clone(req).(*cachev1.IncrementRequest)
	other.Delta = 3
	_, err = call(ctx, other)
	check(t, err, codes.InvalidArgument, "REQUEST_ID_REUSED")

	repeated := with(ctx, "grpc-previous-rpc-attempts", "1")
	unnamed := &cachev1.IncrementRequest{Key: []byte("n"), Delta: 2}
	_, err = call(repeated, unnamed)
	check(t, err, codes.Aborted, "RETRY_UNSAFE")
	if again, err = call(repeated, req); err != nil || !again.Replayed {
		t.Errorf("got %v, %v", again, err)
	}

	unnamed.ValidateOnly = true
	dry, err := call(ctx, unnamed)
	if err != nil || !dry.ValidatedOnly || dry.Value != first.Value+2 {
		t.Errorf("got %v, %v", dry, err)
	}
}
