package e2e

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"

	"example.invalid/larder/clients/go/internal/gen/rpc"
)

// A thousand calls that begin at once on one connection all succeed, and each
// gets its own answer; again and again.
func TestBurstsOnOneConnection(t *testing.T) {
	const calls, rounds = 1000, 5
	larder := startLarder(t, "--shared-keyspace")
	larder.importToken(t, "burst", token, fmt.Sprint(calls))
	var connections atomic.Int64
	dialer := func(ctx context.Context, address string) (net.Conn, error) {
		connections.Add(1)
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	}
	cache := rpc.NewCacheClient(dial(t, larder.address, grpc.WithContextDialer(dialer)))
	ctx := with(within(t), "authorization", "Bearer "+token)
	store := func(key, value string) error {
		_, err := cache.Store(ctx, &rpc.StoreReq{Key: key, Val: []byte(value)})
		return err
	}
	get := func(key, value string) error {
		resp, err := cache.Get(ctx, &rpc.GetReq{Key: key})
		if err == nil && string(resp.GetVal()) != value {
			err = fmt.Errorf("got %q for %s", resp.GetVal(), key)
		}
		return err
	}
	for round := range rounds {
		call := get
		if round == 0 {
			call = store
		}
		for _, err := range atOnce(calls, call) {
			t.Errorf("round %d: %v", round, err)
		}
	}
	if made := connections.Load(); made != 1 {
		t.Errorf("made %d connections", made)
	}
}

// atOnce makes calls that all begin together, and returns the errors.
func atOnce(calls int, call func(key, value string) error) []error {
	begin := make(chan struct{})
	failed := make(chan error, calls)
	var group sync.WaitGroup
	for i := range calls {
		group.Go(func() {
			<-begin
			if err := call(fmt.Sprintf("key-%d", i), fmt.Sprintf("value-%d", i)); err != nil {
				failed <- err
			}
		})
	}
	close(begin)
	group.Wait()
	close(failed)
	var errs []error
	for err := range failed {
		errs = append(errs, err)
	}
	return errs
}
