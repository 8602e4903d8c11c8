// Command talk runs the programs of the talk: `talk client`, `talk server` and
// `talk accounts`. The servers print "listening on ADDRESS" once they accept
// calls.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"example.invalid/larder/clients/go/internal/gen/rpc"
	"example.invalid/larder/clients/go/talk"
)

const usage = `usage:
  talk client   -server ADDRESS -token TOKEN
  talk server   -accounts ADDRESS [-listen ADDRESS]
  talk accounts [-listen ADDRESS] TOKEN=MAX_KEYS...
`

func main() {
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	programs := map[string]func([]string) error{
		"client":   client,
		"server":   server,
		"accounts": accounts,
	}
	program, ok := programs[os.Args[1]]
	if !ok {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err := program(os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "failed: %v\n", err)
		os.Exit(1)
	}
}

func client(args []string) error {
	flags := flag.NewFlagSet("client", flag.ExitOnError)
	address := flags.String("server", "localhost:5051", "the Cache server")
	token := flags.String("token", "inconshreveable", "the account's token")
	if err := flags.Parse(args); err != nil {
		return err
	}
	conn, err := dial(*address)
	if err != nil {
		return fmt.Errorf("failed to dial server: %w", err)
	}
	defer conn.Close()
	return talk.RunClient(context.Background(), conn, *token, os.Stdout)
}

func server(args []string) error {
	flags := flag.NewFlagSet("server", flag.ExitOnError)
	listen := flags.String("listen", "localhost:5051", "where to listen")
	accounts := flags.String("accounts", "localhost:5052", "the Accounts server")
	if err := flags.Parse(args); err != nil {
		return err
	}
	conn, err := dial(*accounts)
	if err != nil {
		return fmt.Errorf("failed to dial accounts server: %w", err)
	}
	defer conn.Close()
	srv := grpc.NewServer(talk.ServerInterceptor())
	rpc.RegisterCacheServer(srv, talk.NewCacheService(rpc.NewAccountsClient(conn)))
	return serve(srv, *listen)
}

func accounts(args []string) error {
	flags := flag.NewFlagSet("accounts", flag.ExitOnError)
	listen := flags.String("listen", "localhost:5052", "where to listen")
	if err := flags.Parse(args); err != nil {
		return err
	}
	limits := make(map[string]int64)
	for _, arg := range flags.Args() {
		token, limit, _ := strings.Cut(arg, "=")
		max, err := strconv.ParseInt(limit, 10, 64)
		if err != nil {
			return fmt.Errorf("%s: not TOKEN=MAX_KEYS: %w", arg, err)
		}
		limits[token] = max
	}
	srv := grpc.NewServer(talk.ServerInterceptor())
	rpc.RegisterAccountsServer(srv, &talk.AccountsService{MaxCacheKeys: limits})
	return serve(srv, *listen)
}

func dial(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		talk.WithClientInterceptor())
}

// serve blocks until the process is told to end.
func serve(srv *grpc.Server, address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	context.AfterFunc(ctx, srv.GracefulStop)
	fmt.Printf("listening on %s\n", l.Addr())
	return srv.Serve(l)
}
