// Package talk has the programs of the talk "gRPC in Production", typed anew:
// its client, its Cache server and its Accounts server. They know nothing of
// larder; the tests run each of them against it.
package talk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"

	"example.invalid/larder/clients/go/internal/gen/rpc"
)

// Timeouts of the talk's client.
const (
	storeTimeout = time.Second
	// The talk has 50 ms, which a busy machine may miss.
	getTimeout = time.Second
)

// RunClient stores "gopher" under a token, gets it without one, and dumps the
// cache, telling out what it got.
func RunClient(ctx context.Context, conn grpc.ClientConnInterface, token string, out io.Writer) error {
	cache := rpc.NewCacheClient(conn)

	// store
	storeCtx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	_, err := cache.Store(storeCtx, &rpc.StoreReq{
		AccountToken: token,
		Key:          "gopher",
		Val:          []byte("con"),
	})
	if err != nil {
		return fmt.Errorf("failed to store: %w", err)
	}

	// get
	getCtx, cancel := context.WithTimeout(ctx, getTimeout)
	defer cancel()
	resp, err := cache.Get(getCtx, &rpc.GetReq{Key: "gopher"})
	if err != nil {
		return fmt.Errorf("failed to get: %w", err)
	}
	fmt.Fprintf(out, "Got cached value %s\n", resp.Val)

	// stream
	stream, err := cache.Dump(ctx, &rpc.DumpReq{})
	if err != nil {
		return fmt.Errorf("failed to dump: %w", err)
	}
	for {
		item, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("failed to stream item: %w", err)
		}
		fmt.Fprintf(out, "Cache Entry: %s => %s\n", item.Key, item.Val)
	}
}
