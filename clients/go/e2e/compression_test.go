package e2e

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/stats"

	"example.invalid/larder/clients/go/internal/gen/rpc"
)

// sizes adds up the messages that a client receives, as they came and as they are.
type sizes struct {
	stats.Handler
	came, whole atomic.Int64
}

func (s *sizes) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (s *sizes) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (s *sizes) HandleConn(context.Context, stats.ConnStats)                       {}
func (s *sizes) HandleRPC(_ context.Context, event stats.RPCStats) {
	if in, ok := event.(*stats.InPayload); ok {
		s.came.Add(int64(in.CompressedLength))
		s.whole.Add(int64(in.Length))
	}
}

// A client that imports grpc-go's gzip offers to read it, and reads it.
func TestCompressedAnswers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "larder.toml")
	if err := os.WriteFile(file, []byte("[admission]\nlate_ms = 0\n[compression]\nanswers_above = \"1KiB\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	larder := startLarder(t, "--shared-keyspace", "--anonymous", "default", "--config", file)
	text := strings.Repeat("a value that has much in common with itself ", 10_000)
	for _, lane := range []struct {
		name    string
		options []grpc.CallOption
	}{
		{"typed", nil},
		{"general", []grpc.CallOption{grpc.UseCompressor(gzip.Name)}},
	} {
		t.Run(lane.name, func(t *testing.T) {
			var seen sizes
			cache := rpc.NewCacheClient(dial(t, larder.address, grpc.WithStatsHandler(&seen)))
			ctx := within(t)
			if _, err := cache.Store(ctx, &rpc.StoreReq{Key: "k", Val: []byte(text)}, lane.options...); err != nil {
				t.Fatal(err)
			}
			resp, err := cache.Get(ctx, &rpc.GetReq{Key: "k"}, lane.options...)
			if err != nil || string(resp.GetVal()) != text {
				t.Fatalf("got %d bytes, %v", len(resp.GetVal()), err)
			}
			dump, err := cache.Dump(ctx, &rpc.DumpReq{}, lane.options...)
			if err != nil {
				t.Fatal(err)
			}
			for {
				item, err := dump.Recv()
				if err == io.EOF {
					break
				}
				if err != nil || string(item.GetVal()) != text {
					t.Fatalf("got %d bytes, %v", len(item.GetVal()), err)
				}
			}
			came, whole := seen.came.Load(), seen.whole.Load()
			if whole < 2*int64(len(text)) || came > whole/10 {
				t.Errorf("%d bytes came for %d", came, whole)
			}
		})
	}
}
