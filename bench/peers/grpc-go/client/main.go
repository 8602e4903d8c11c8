// Client loads a server of rpc.Cache with Get calls by a stock grpc-go client,
// and prints what was measured as one line of JSON.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"example.invalid/larder/bench/peers/grpc-go/internal/gen/rpc"
)

// Ticks a second in which /proc counts the time of the processor.
const ticksPerSecond = 100

var (
	server      = flag.String("server", "", "HOST:PORT")
	token       = flag.String("token", "", "sent with every call")
	connections = flag.Int("connections", 8, "")
	streams     = flag.Int("streams", 32, "calls in flight on each connection")
	keys        = flag.Int("keys", 100_000, "")
	keyBytes    = flag.Int("key-bytes", 16, "")
	valueBytes  = flag.Int("value-bytes", 100, "what each answer has to have")
	deadline    = flag.Duration("deadline", 5*time.Second, "of each call")
	warmup      = flag.Duration("warmup", time.Second, "")
	duration    = flag.Duration("duration", 3*time.Second, "")
	watch       = flag.Int("watch", 0, "process of the server")
)

// The counts of a run.
type tally struct {
	done, failed atomic.Int64
	firstError   sync.Once
}

func main() {
	flag.Parse()
	var clients []rpc.CacheClient
	for range *connections {
		connection, err := grpc.NewClient(*server,
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			log.Fatal(err)
		}
		clients = append(clients, rpc.NewCacheClient(connection))
	}
	run(clients, *warmup)
	before := cpuTime()
	start := time.Now()
	counts := run(clients, *duration)
	elapsed := time.Since(start)
	used := cpuTime() - before
	requests := counts.done.Load()
	err := json.NewEncoder(os.Stdout).Encode(map[string]any{
		"requests":            requests,
		"failed":              counts.failed.Load(),
		"seconds":             elapsed.Seconds(),
		"requests_per_second": float64(requests) / elapsed.Seconds(),
		"server": map[string]any{
			"cpu_us_per_request": used.Seconds() * 1e6 / float64(requests),
		},
	})
	if err != nil {
		log.Fatal(err)
	}
}

// Run lets every stream call until the time is over, and its last call has ended.
func run(clients []rpc.CacheClient, duration time.Duration) *tally {
	var counts tally
	var group sync.WaitGroup
	end := time.Now().Add(duration)
	for _, client := range clients {
		for range *streams {
			group.Go(func() { work(client, end, &counts) })
		}
	}
	group.Wait()
	return &counts
}

func work(client rpc.CacheClient, end time.Time, counts *tally) {
	all := context.Background()
	if *token != "" {
		all = metadata.AppendToOutgoingContext(all, "authorization", "Bearer "+*token)
	}
	for time.Now().Before(end) {
		ctx, cancel := context.WithTimeout(all, *deadline)
		key := fmt.Sprintf("k%0*d", *keyBytes-1, rand.IntN(*keys))
		reply, err := client.Get(ctx, &rpc.GetReq{Key: key})
		cancel()
		if err == nil && len(reply.GetVal()) != *valueBytes {
			err = fmt.Errorf("a value of %d bytes", len(reply.GetVal()))
		}
		if err != nil {
			counts.failed.Add(1)
			counts.firstError.Do(func() { log.Print(err) })
		}
		counts.done.Add(1)
	}
}

// CpuTime is the time of the processor that the server has used, in its own code
// and in the kernel: the 14th and 15th field of proc_pid_stat(5).
func cpuTime() time.Duration {
	if *watch == 0 {
		return 0
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", *watch))
	if err != nil {
		log.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	var ticks int64
	for _, field := range fields[11:13] {
		count, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			log.Fatal(err)
		}
		ticks += count
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond
}
