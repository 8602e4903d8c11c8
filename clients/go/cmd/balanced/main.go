// Command balanced calls larder through a balancer, with grpc-go as it comes, which keeps
// stricter to HTTP/2 and retries in other ways than gRPC's C core.
//
//	balanced once     the calls that every balancer has to let through
//	balanced calls    callers that ask one after the other, until standard input ends;
//	                  for each line of it, waits until each has had answers more, and says
//	                  how it went
//
// clients/python/test_balancers_go.py has the servers and the balancers, and tells by the
// environment where they are.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/health" // Lets healthCheckConfig of a service configuration work.
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	cachev1 "example.invalid/larder/clients/go/internal/gen/larder/cache/v1"
)

const (
	patience = 30 * time.Second
	callers  = 4
	// Together more than any window or buffer on the way.
	entries    = 3_000
	valueBytes = 10_000
	// Of one call of BatchSet.
	batch = 100
)

var tokens = strings.Split(os.Getenv("BALANCED_TOKENS"), ",")

// connect opens a channel to the balancer that retries as the service configuration says.
func connect() (*grpc.ClientConn, error) {
	authority, err := os.ReadFile(os.Getenv("BALANCED_CA"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return nil, errors.New("no certificate in BALANCED_CA")
	}
	serviceConfig, err := os.ReadFile(os.Getenv("BALANCED_SERVICE_CONFIG"))
	if err != nil {
		return nil, err
	}
	return grpc.NewClient("dns:///"+os.Getenv("BALANCED_ADDRESS"),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots})),
		grpc.WithDefaultServiceConfig(string(serviceConfig)))
}

// as is a context with the credential of one of the tokens.
func as(ctx context.Context, number int) context.Context {
	return metadata.AppendToOutgoingContext(ctx,
		"authorization", "Bearer "+tokens[number%len(tokens)])
}

// unary stores a large value and reads it back, with metadata as large as larder takes it.
func unary(ctx context.Context, conn *grpc.ClientConn) error {
	cache := cachev1.NewCacheServiceClient(conn)
	ctx = metadata.AppendToOutgoingContext(as(ctx, 0), "x-long", strings.Repeat("l", 15_000))
	value := make([]byte, 3<<20)
	if _, err := cache.Set(ctx, &cachev1.SetRequest{Key: []byte("large"), Value: value}); err != nil {
		return err
	}
	reply, err := cache.Get(ctx, &cachev1.GetRequest{Key: []byte("large")})
	if err != nil {
		return err
	}
	return want(len(reply.GetHit().GetValue()), len(value))
}

// details is refused, and reads why.
func details(ctx context.Context, conn *grpc.ClientConn) error {
	_, err := cachev1.NewCacheServiceClient(conn).Set(as(ctx, 0), &cachev1.SetRequest{})
	if err := want(status.Code(err), codes.InvalidArgument); err != nil {
		return err
	}
	for _, detail := range status.Convert(err).Details() {
		if info, is := detail.(*errdetails.ErrorInfo); is {
			return want(info.Reason, "KEY_EMPTY")
		}
	}
	return fmt.Errorf("no ErrorInfo in %v", err)
}

// dump fills an account, and streams more than all windows on the way hold.
func dump(ctx context.Context, conn *grpc.ClientConn) error {
	cache := cachev1.NewCacheServiceClient(conn)
	ctx = as(ctx, 0)
	for start := 0; start < entries; start += batch {
		request := &cachev1.BatchSetRequest{}
		for number := start; number < start+batch; number++ {
			key := fmt.Appendf(nil, "key-%05d", number)
			request.Requests = append(request.Requests,
				&cachev1.SetRequest{Key: key, Value: make([]byte, valueBytes)})
		}
		if _, err := cache.BatchSet(ctx, request); err != nil {
			return err
		}
	}
	stream, err := cache.Dump(ctx, &cachev1.DumpRequest{Prefix: []byte("key-")})
	if err != nil {
		return err
	}
	keys := make(map[string]bool)
	for {
		part, err := stream.Recv()
		if err == io.EOF {
			return want(len(keys), entries)
		}
		if err != nil {
			return err
		}
		for _, entry := range part.Entries {
			if err := want(len(entry.Value), valueBytes); err != nil {
				return err
			}
			keys[string(entry.Key)] = true
		}
	}
}

// deadline opens a call and never sends its request: the server waits until the time is over.
func deadline(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(as(ctx, 0), 300*time.Millisecond)
	defer cancel()
	stream, err := conn.NewStream(ctx,
		&grpc.StreamDesc{ClientStreams: true}, cachev1.CacheService_Get_FullMethodName)
	if err != nil {
		return err
	}
	err = stream.RecvMsg(new(cachev1.GetResponse))
	return want(status.Code(err), codes.DeadlineExceeded)
}

func once(ctx context.Context) error {
	conn, err := connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, step := range []struct {
		name string
		run  func(context.Context, *grpc.ClientConn) error
	}{{"unary", unary}, {"details", details}, {"dump", dump}, {"deadline", deadline}} {
		if err := step.run(ctx, conn); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		fmt.Println(step.name)
	}
	return nil
}

// crowd is callers that go on, and what became of their calls.
type crowd struct {
	mutex   sync.Mutex
	changed *sync.Cond
	calls   [callers]int
	errors  []string
}

// call makes idempotent calls one after the other, on a channel of its own.
func (c *crowd) call(ctx context.Context, number int) error {
	conn, err := connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	cache := cachev1.NewCacheServiceClient(conn)
	for call := 0; ctx.Err() == nil; call++ {
		err := ask(cache, call)
		c.mutex.Lock()
		if err != nil {
			c.errors = append(c.errors, err.Error())
		} else {
			c.calls[number]++
		}
		c.changed.Broadcast()
		c.mutex.Unlock()
	}
	return nil
}

func ask(cache cachev1.CacheServiceClient, number int) error {
	ctx, cancel := context.WithTimeout(as(context.Background(), number), patience)
	defer cancel()
	key := fmt.Appendf(nil, "key-%d", number%len(tokens))
	if _, err := cache.Set(ctx, &cachev1.SetRequest{Key: key, Value: []byte("v")}); err != nil {
		return err
	}
	_, err := cache.Get(ctx, &cachev1.GetRequest{Key: key})
	return err
}

// waitForMore returns when each caller has had an answer for each token more, or one an error.
func (c *crowd) waitForMore() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	before := c.calls
	isDone := func() bool {
		for number, calls := range c.calls {
			if calls < before[number]+len(tokens) {
				return len(c.errors) > 0
			}
		}
		return true
	}
	for !isDone() {
		c.changed.Wait()
	}
}

// say writes how it goes, in a line.
func (c *crowd) say() error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"calls": c.calls, "errors": c.errors})
}

func calls(ctx context.Context) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	c := &crowd{errors: []string{}}
	c.changed = sync.NewCond(&c.mutex)
	ended := make(chan error, callers)
	for number := range callers {
		go func() { ended <- c.call(ctx, number) }()
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		c.waitForMore()
		if err := c.say(); err != nil {
			return err
		}
	}
	end()
	for range callers {
		if err := <-ended; err != nil {
			return err
		}
	}
	return c.say()
}

func want[T comparable](got, want T) error {
	if got != want {
		return fmt.Errorf("got %v, want %v", got, want)
	}
	return nil
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: balanced once|calls")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	var err error
	switch os.Args[1] {
	case "once":
		err = once(ctx)
	case "calls":
		err = calls(ctx)
	default:
		err = fmt.Errorf("no %q, but once and calls", os.Args[1])
	}
	if err != nil {
		log.Fatal(err)
	}
}
