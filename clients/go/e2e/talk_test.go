package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"example.invalid/larder/clients/go/internal/gen/rpc"
)

// The talk's client has the same output against every server of its contract.
func TestTalksPrograms(t *testing.T) {
	const want = "Got cached value con\nCache Entry: gopher => con\n"
	program := buildTalk(t)
	startAccounts := func(t *testing.T) string {
		return start(t, program, "accounts", "-listen", "127.0.0.1:0", token+"=2")
	}
	for _, server := range []struct {
		name  string
		start func(t *testing.T) string
	}{
		{"the talk's server", func(t *testing.T) string {
			return start(t, program, "server", "-listen", "127.0.0.1:0", "-accounts", startAccounts(t))
		}},
		{"larder", func(t *testing.T) string {
			larder := startLarder(t, "--shared-keyspace", "--anonymous", "default")
			larder.importToken(t, "shreve", token, "2")
			return larder.address
		}},
		{"larder before the talk's Accounts server", func(t *testing.T) string {
			larder := startLarder(t, "--accounts", "http://"+startAccounts(t), "--shared-keyspace", "--anonymous", "default")
			return larder.address
		}},
	} {
		t.Run(server.name, func(t *testing.T) {
			address := server.start(t)
			// Twice: the same key is overwritten.
			for range 2 {
				client := exec.CommandContext(within(t), program, "client", "-server", address, "-token", token)
				var log bytes.Buffer
				client.Stderr = &log
				out, err := client.Output()
				if err != nil {
					t.Fatalf("%v\n%s", err, log.String())
				}
				if string(out) != want {
					t.Fatalf("got %q, want %q", out, want)
				}
				if !strings.Contains(log.String(), "invoke remote method=/rpc.Cache/Store") {
					t.Fatalf("the client's interceptor is silent: %s", log.String())
				}
			}
		})
	}
}

// buildTalk builds the talk's programs as they stand in this module.
func buildTalk(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "talk")
	build := exec.CommandContext(within(t), "go", "build", "-o", program, "../cmd/talk")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

func TestErrorsCarryDetails(t *testing.T) {
	larder := startLarder(t)
	larder.importToken(t, "shreve", token, "2")
	cache := dialCache(t, larder.address)
	ctx := within(t)
	store := func(key string) error {
		_, err := cache.Store(ctx, &rpc.StoreReq{Key: key, Val: []byte("v"), AccountToken: token})
		return err
	}

	_, err := cache.Get(ctx, &rpc.GetReq{Key: "nothing", AccountToken: token})
	if st := check(t, err, codes.NotFound, "KEY_NOT_FOUND"); st.Message() != "Key not found nothing" {
		t.Fatal(st.Message())
	}
	for _, key := range []string{"a", "b", "a", "b"} {
		if err := store(key); err != nil {
			t.Fatal(err)
		}
	}
	st := check(t, store("c"), codes.FailedPrecondition, "KEY_QUOTA_EXCEEDED")
	if st.Message() != "Account shreve exceeds max key limit 2" {
		t.Fatal(st.Message())
	}
	if failure := detail[*errdetails.QuotaFailure](t, st.Details()); len(failure.Violations) != 1 {
		t.Fatalf("want one violation: %v", failure)
	}
	st = check(t, store(""), codes.InvalidArgument, "KEY_EMPTY")
	if bad := detail[*errdetails.BadRequest](t, st.Details()); bad.FieldViolations[0].Field != "key" {
		t.Fatalf("want the field's name: %v", bad)
	}
	check(t, store(strings.Repeat("k", 1025)), codes.InvalidArgument, "KEY_TOO_LONG")
	_, err = cache.Store(ctx, &rpc.StoreReq{Key: "a", AccountToken: "nobody's token"})
	check(t, err, codes.Unauthenticated, "TOKEN_INVALID")
}

func detail[T any](t *testing.T, details []any) T {
	t.Helper()
	for _, detail := range details {
		if found, ok := detail.(T); ok {
			return found
		}
	}
	var none T
	t.Fatalf("no %T in %v", none, details)
	return none
}

func TestDryRunHasNoEffect(t *testing.T) {
	cache := dialCache(t, startLarder(t).address)
	ctx := within(t)
	for _, c := range []struct {
		value string
		dry   bool
	}{{"1", true}, {"true", true}, {"0", false}, {"false", false}} {
		t.Run(c.value, func(t *testing.T) {
			key := "key-" + c.value
			var header, trailer metadata.MD
			_, err := cache.Store(with(ctx, "dry-run", c.value), &rpc.StoreReq{Key: key},
				grpc.Header(&header), grpc.Trailer(&trailer))
			if err != nil {
				t.Fatal(err)
			}
			echoed := metadata.Join(header, trailer).Get("dry-run")
			if c.dry != (len(echoed) == 1 && echoed[0] == "1") {
				t.Fatalf("echoed %v", echoed)
			}
			_, err = cache.Get(ctx, &rpc.GetReq{Key: key})
			if c.dry {
				check(t, err, codes.NotFound, "KEY_NOT_FOUND")
			} else if err != nil {
				t.Fatal(err)
			}
		})
	}
	_, err := cache.Store(with(ctx, "dry-run", "maybe"), &rpc.StoreReq{Key: "k"})
	check(t, err, codes.InvalidArgument, "METADATA_INVALID")
	// Every check of the real call is made.
	_, err = cache.Store(with(ctx, "dry-run", "1"), &rpc.StoreReq{})
	check(t, err, codes.InvalidArgument, "KEY_EMPTY")
}

// slowAccounts answers no call before its caller has gone.
type slowAccounts struct {
	rpc.UnimplementedAccountsServer
	// ended gets the deadline of each call, and how its context ended.
	ended chan ending
}

type ending struct {
	left        time.Duration
	hasDeadline bool
	err         error
}

func (s *slowAccounts) GetByToken(ctx context.Context, req *rpc.GetByTokenReq) (*rpc.GetByTokenResp, error) {
	deadline, ok := ctx.Deadline()
	left := time.Until(deadline)
	<-ctx.Done()
	s.ended <- ending{left: left, hasDeadline: ok, err: ctx.Err()}
	return nil, ctx.Err()
}

func TestDeadlineTravelsToAccounts(t *testing.T) {
	accounts := &slowAccounts{ended: make(chan ending, 8)}
	address := serveHere(t, func(srv *grpc.Server) { rpc.RegisterAccountsServer(srv, accounts) })
	cache := dialCache(t, startLarder(t, "--accounts", "http://"+address).address)

	const timeout = 500 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	_, err := cache.Store(ctx, &rpc.StoreReq{Key: "k", AccountToken: token})
	if got := status.Code(err); got != codes.DeadlineExceeded {
		t.Fatalf("got %v, want DEADLINE_EXCEEDED", err)
	}
	select {
	case end := <-accounts.ended:
		if !end.hasDeadline || end.left > timeout {
			t.Fatalf("the caller's %s did not travel: %+v", timeout, end)
		}
	case <-time.After(patience):
		t.Fatal("the call to Accounts goes on without its caller")
	}
}

func TestDumpOf100000Entries(t *testing.T) {
	const entries = 100_000
	cache := dialCache(t, startLarder(t).address)
	ctx := within(t)
	fill(t, ctx, cache, entries)

	stream, err := cache.Dump(ctx, &rpc.DumpReq{})
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool, entries)
	for {
		item, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if seen[item.Key] || string(item.Val) != "value of "+item.Key {
			t.Fatalf("twice, or a wrong value: %v", item)
		}
		seen[item.Key] = true
	}
	if len(seen) != entries {
		t.Fatalf("got %d entries, want %d", len(seen), entries)
	}
}

// fill stores entries key-0 and on, by many calls at once on one connection.
func fill(t *testing.T, ctx context.Context, cache rpc.CacheClient, entries int) {
	t.Helper()
	const writers = 64
	errs := make(chan error, writers)
	for writer := range writers {
		go func() {
			for i := writer; i < entries; i += writers {
				key := fmt.Sprintf("key-%d", i)
				if _, err := cache.Store(ctx, &rpc.StoreReq{Key: key, Val: []byte("value of " + key)}); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range writers {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
}
