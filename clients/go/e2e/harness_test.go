// Package e2e drives a real larder from outside, with stock gRPC for Go.
//
// LARDER_BIN names the program to test; by default it is the one that
// `cargo build` makes.
package e2e

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"example.invalid/larder/clients/go/internal/gen/rpc"
)

// patience bounds every wait of a test; nothing waits that long unless it is
// broken.
const patience = 30 * time.Second

// token is what the talk's client shows.
const token = "inconshreveable"

// process is a program under test that listens.
type process struct {
	address string
	dataDir string
}

// startLarder starts `larder serve` on a free port, with a data directory of
// its own, and ends it with the test.
func startLarder(t *testing.T, args ...string) process {
	t.Helper()
	dataDir := t.TempDir()
	args = append([]string{"serve", "--listen", "127.0.0.1:0", "--data-dir", dataDir}, args...)
	return process{address: start(t, larderBin(t), args...), dataDir: dataDir}
}

func larderBin(t *testing.T) string {
	t.Helper()
	bin := os.Getenv("LARDER_BIN")
	if bin == "" {
		bin = filepath.Join("..", "..", "..", "target", "debug", "larder")
	}
	absolute, err := filepath.Abs(bin)
	if err != nil {
		t.Fatal(err)
	}
	return absolute
}

// start runs a server until the test ends, and returns the address that it
// listens on. It must then end with exit status 0.
func start(t *testing.T, program string, args ...string) string {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = clean(os.Environ())
	var stderr lockedBuffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address := make(chan string, 1)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		defer close(address)
		lines := bufio.NewScanner(stdout)
		first := true
		for lines.Scan() {
			if found, ok := strings.CutPrefix(lines.Text(), "listening on "); ok && first {
				address <- found
				first = false
			}
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		overdue := time.AfterFunc(patience, func() { cmd.Process.Kill() })
		defer overdue.Stop()
		<-drained
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s ended with %v:\n%s", filepath.Base(program), err, stderr.String())
		}
	})
	select {
	case found, ok := <-address:
		if !ok {
			t.Fatalf("%s did not listen:\n%s", filepath.Base(program), stderr.String())
		}
		return found
	case <-time.After(patience):
		t.Fatalf("%s did not say where it listens:\n%s", filepath.Base(program), stderr.String())
	}
	return ""
}

// run runs `larder` to its end, on the server's default account.
func (p process) run(t *testing.T, args ...string) string {
	t.Helper()
	args = append(args, "--server", "http://"+p.address, "--token-file", filepath.Join(p.dataDir, "admin-token"))
	cmd := exec.Command(larderBin(t), args...)
	cmd.Env = clean(os.Environ())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.Output()
	if err != nil {
		t.Fatalf("larder %s: %v:\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(stdout)
}

// importToken makes the account with a key limit, and gives it the token.
func (p process) importToken(t *testing.T, account, secret string, maxKeys string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	p.run(t, "account", "create", account, "--max-keys", maxKeys)
	p.run(t, "token", "create", account, "--secret-file", file)
}

// clean leaves out what would point larder at another server.
func clean(environ []string) []string {
	var kept []string
	for _, variable := range environ {
		if !strings.HasPrefix(variable, "LARDER_") {
			kept = append(kept, variable)
		}
	}
	return kept
}

// serveHere runs a gRPC server inside the test, until it ends.
func serveHere(t *testing.T, register func(*grpc.Server), options ...grpc.ServerOption) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(options...)
	register(srv)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Stop()
		if err := <-served; err != nil {
			t.Errorf("server in the test: %v", err)
		}
	})
	return l.Addr().String()
}

// dial connects in clear text, until the test ends.
func dial(t *testing.T, address string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	options = append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, options...)
	conn, err := grpc.NewClient(address, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func dialCache(t *testing.T, address string) rpc.CacheClient {
	t.Helper()
	return rpc.NewCacheClient(dial(t, address))
}

// within is a context that bounds a test.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// with adds metadata to a context.
func with(ctx context.Context, pairs ...string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, pairs...)
}

// check asserts that an error has a code and a reason of larder's catalogue,
// and returns its status.
func check(t *testing.T, err error, code codes.Code, reason string) *status.Status {
	t.Helper()
	st, ok := status.FromError(err)
	if !ok || st.Code() != code {
		t.Fatalf("got %v, want %s", err, code)
	}
	for _, detail := range st.Details() {
		info, ok := detail.(*errdetails.ErrorInfo)
		if !ok {
			continue
		}
		if info.Domain != "larder" || info.Reason != reason {
			t.Fatalf("got reason %s/%s, want larder/%s", info.Domain, info.Reason, reason)
		}
		if temporary := info.Metadata["temporary"]; temporary != "true" && temporary != "false" {
			t.Fatalf("temporary is %q", temporary)
		}
		return st
	}
	t.Fatalf("%v carries no ErrorInfo", err)
	return nil
}

// lockedBuffer may be read while a process still writes to it.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
