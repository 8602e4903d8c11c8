// Command tour shows larder from Go, with grpc-go: each method is one thing
// that a client meets. The servers are named by the environment;
// clients/README.md says how.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health" // Lets healthCheckConfig of a service configuration work.
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	cachev1 "example.invalid/larder/clients/go/internal/gen/larder/cache/v1"
	"example.invalid/larder/clients/go/internal/gen/rpc"
)

const patience = 10 * time.Second

var token = os.Getenv("TOUR_TOKEN")

// connect opens a channel that retries as the service configuration says.
func connect(target string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	serviceConfig, err := os.ReadFile(os.Getenv("TOUR_SERVICE_CONFIG"))
	if err != nil {
		return nil, err
	}
	return grpc.NewClient(target, append(options,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(string(serviceConfig)))...)
}

type tour struct {
	cache  rpc.CacheClient
	faulty cachev1.CacheServiceClient
}

// talk stores a value and reads it back, as an account's token.
func (t *tour) talk(ctx context.Context) error {
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := t.cache.Store(ctx, &rpc.StoreReq{Key: "gopher", Val: []byte("con")}); err != nil {
		return err
	}
	resp, err := t.cache.Get(ctx, &rpc.GetReq{Key: "gopher"})
	if err != nil {
		return err
	}
	return want(string(resp.Val), "con")
}

// quota stores more keys than the account may have, and reads why not.
func (t *tour) quota(ctx context.Context) error {
	_, err := t.cache.Store(ctx, &rpc.StoreReq{Key: "second", AccountToken: token})
	if err != nil {
		return err
	}
	_, err = t.cache.Store(ctx, &rpc.StoreReq{Key: "third", AccountToken: token})
	st := status.Convert(err)
	if st.Code() != codes.FailedPrecondition {
		return fmt.Errorf("got %v, want FAILED_PRECONDITION", err)
	}
	var reason, subject string
	for _, detail := range st.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			reason = detail.Domain + "/" + detail.Reason
		case *errdetails.QuotaFailure:
			subject = detail.Violations[0].Subject
		}
	}
	if !strings.Contains(subject, "tour") {
		return fmt.Errorf("the violation is of %q", subject)
	}
	return want(reason, "larder/KEY_QUOTA_EXCEEDED")
}

// deadline gives up on a slow server, which then leaves the call undone.
func (t *tour) deadline(ctx context.Context) error {
	conn, err := connect(os.Getenv("TOUR_SLOW_SERVER"))
	if err != nil {
		return err
	}
	defer conn.Close()
	slow := rpc.NewCacheClient(conn)

	soon, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err = slow.Store(soon, &rpc.StoreReq{Key: "late", AccountToken: token})
	if err := want(status.Code(err), codes.DeadlineExceeded); err != nil {
		return err
	}
	// Nothing later: it was not stored behind the caller's back.
	_, err = slow.Get(ctx, &rpc.GetReq{Key: "late", AccountToken: token})
	return want(status.Code(err), codes.NotFound)
}

// dryRun has a store checked but not carried out.
func (t *tour) dryRun(ctx context.Context) error {
	var header, trailer metadata.MD
	_, err := t.cache.Store(
		metadata.AppendToOutgoingContext(ctx, "dry-run", "1"),
		&rpc.StoreReq{Key: "gopher", Val: []byte("phercon"), AccountToken: token},
		grpc.Header(&header), grpc.Trailer(&trailer))
	if err != nil {
		return err
	}
	echoed := metadata.Join(header, trailer).Get("dry-run")
	if err := want(strings.Join(echoed, ","), "1"); err != nil {
		return err
	}
	resp, err := t.cache.Get(ctx, &rpc.GetReq{Key: "gopher", AccountToken: token})
	if err != nil {
		return err
	}
	return want(string(resp.Val), "con")
}

// dump streams every entry.
func (t *tour) dump(ctx context.Context) error {
	stream, err := t.cache.Dump(ctx, &rpc.DumpReq{})
	if err != nil {
		return err
	}
	keys := make(map[string]bool)
	for {
		item, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := want(string(item.Val), "value of "+item.Key); err != nil {
			return err
		}
		keys[item.Key] = true
	}
	return want(strconv.Itoa(len(keys)), os.Getenv("TOUR_ENTRIES"))
}

// retry reads from a server that fails twice, and does not notice.
func (t *tour) retry(ctx context.Context) error {
	resp, err := t.faulty.Get(ctx, &cachev1.GetRequest{Key: []byte("unavailable-twice")})
	if err != nil {
		return err
	}
	return want(string(resp.GetHit().GetValue()), "value of unavailable-twice")
}

// once is told at once what another attempt would not change, or might do twice.
func (t *tour) once(ctx context.Context) error {
	_, err := t.faulty.Get(ctx, &cachev1.GetRequest{Key: []byte("not-found")})
	if err := want(status.Code(err), codes.NotFound); err != nil {
		return err
	}
	_, err = t.faulty.Get(ctx, &cachev1.GetRequest{Key: []byte("failed-precondition")})
	if err := want(status.Code(err), codes.FailedPrecondition); err != nil {
		return err
	}
	increment := &cachev1.IncrementRequest{Key: []byte("unavailable-twice"), Delta: 1}
	_, err = t.faulty.Increment(ctx, increment)
	return want(status.Code(err), codes.Unavailable)
}

// failover goes on with the second server when the first one dies.
func (t *tour) failover(ctx context.Context) error {
	servers := manual.NewBuilderWithScheme("list")
	var addresses []resolver.Address
	for server := range strings.SplitSeq(os.Getenv("TOUR_PAIR"), ",") {
		addresses = append(addresses, resolver.Address{Addr: server})
	}
	servers.InitialState(resolver.State{Addresses: addresses})
	conn, err := connect("list:///localhost", grpc.WithResolvers(servers))
	if err != nil {
		return err
	}
	defer conn.Close()
	pair := cachev1.NewCacheServiceClient(conn)

	if _, err := pair.Set(ctx, &cachev1.SetRequest{Key: []byte("before")}); err != nil {
		return err
	}
	report("failover", "waiting", "")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	_, err = pair.Set(ctx, &cachev1.SetRequest{Key: []byte("after")})
	return err
}

func want[T comparable](got, want T) error {
	if got != want {
		return fmt.Errorf("got %v, want %v", got, want)
	}
	return nil
}

func report(behaviour, outcome, why string) {
	line := map[string]string{"behaviour": behaviour, "outcome": outcome, "why": why}
	if err := json.NewEncoder(os.Stdout).Encode(line); err != nil {
		log.Fatal(err)
	}
}

func main() {
	conn, err := connect(os.Getenv("TOUR_SERVER"))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	faultyConn, err := connect(os.Getenv("TOUR_FAULTY_SERVER"))
	if err != nil {
		log.Fatal(err)
	}
	defer faultyConn.Close()

	t := &tour{cache: rpc.NewCacheClient(conn), faulty: cachev1.NewCacheServiceClient(faultyConn)}
	for _, b := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"talk", t.talk},
		{"quota", t.quota},
		{"deadline", t.deadline},
		{"dry-run", t.dryRun},
		{"dump", t.dump},
		{"retry", t.retry},
		{"once", t.once},
		{"failover", t.failover},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		if err := b.run(ctx); err != nil {
			report(b.name, "failed", err.Error())
		} else {
			report(b.name, "passed", "")
		}
		cancel()
	}
}
