package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"

	accounts "example.invalid/larder/clients/go/internal/gen/larder/accounts/v1"
	cache "example.invalid/larder/clients/go/internal/gen/larder/cache/v1"
)

// named issues a client certificate with a SPIFFE id.
func (a authority) named(t *testing.T, id string) tls.Certificate {
	t.Helper()
	parsed, err := url.Parse(id)
	if err != nil {
		t.Fatal(err)
	}
	return a.issueAs(t, func(c *x509.Certificate) { c.URIs = []*url.URL{parsed} })
}

// TestCertificateStandsForAccount checks that callers without a token are known
// by their certificate, while the server's own is exchanged.
func TestCertificateStandsForAccount(t *testing.T) {
	ours := newAuthority(t)
	cert, key := ours.issueFiles(t)
	config := filepath.Join(t.TempDir(), "larder.toml")
	rules := `
[tls]
reload_seconds = 1
client_certificates = "optional"
[[tls.account]]
uri = "spiffe://example/ops/*"
account = "default"
actions = ["admin"]
[[tls.account]]
uri = "spiffe://example/team/*"
account = "team"
key_prefixes = ["mine/"]
`
	if err := os.WriteFile(config, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	larder := startLarder(t, "--tls-cert", cert, "--tls-key", key,
		"--client-ca", ours.file(t), "--config", config)
	as := func(certificates ...tls.Certificate) *grpc.ClientConn {
		tlsConfig := &tls.Config{RootCAs: ours.pool(), Certificates: certificates}
		return dial(t, larder.address, grpc.WithTransportCredentials(credentials.NewTLS(tlsConfig)))
	}
	ops := accounts.NewAccountServiceClient(as(ours.named(t, "spiffe://example/ops/1")))
	if _, err := ops.CreateAccount(within(t), &accounts.CreateAccountRequest{AccountId: "team"}); err != nil {
		t.Fatal(err)
	}
	team := cache.NewCacheServiceClient(as(ours.named(t, "spiffe://example/team/web")))
	set := func(client cache.CacheServiceClient, key string) error {
		_, err := client.Set(within(t), &cache.SetRequest{Key: []byte(key)})
		return err
	}
	if err := set(team, "mine/k"); err != nil {
		t.Fatal(err)
	}
	check(t, set(team, "k"), codes.PermissionDenied, "SCOPE_DENIED")
	stranger := cache.NewCacheServiceClient(as(ours.named(t, "spiffe://example/elsewhere")))
	check(t, set(stranger, "mine/k"), codes.Unauthenticated, "TOKEN_MISSING")
	check(t, set(cache.NewCacheServiceClient(as()), "mine/k"), codes.Unauthenticated, "TOKEN_MISSING")
	// A token wins over the certificate, also a bad one.
	_, err := team.Set(with(within(t), "authorization", "Bearer nobody"), &cache.SetRequest{Key: []byte("mine/k")})
	check(t, err, codes.Unauthenticated, "TOKEN_INVALID")

	// The server's certificate is exchanged; calls on the connection go on.
	before := serial(t, larder.address, ours)
	newCert, newKey := ours.issueFiles(t)
	for old, fresh := range map[string]string{cert: newCert, key: newKey} {
		if err := os.Rename(fresh, old); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(patience); serial(t, larder.address, ours) == before; {
		if err := set(team, "mine/k"); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(end) {
			t.Fatal("the new certificate is not shown")
		}
	}
	if err := set(team, "mine/k"); err != nil {
		t.Fatal(err)
	}
}

// serial is that of the certificate which the server shows.
func serial(t *testing.T, address string, a authority) string {
	t.Helper()
	dialer := &net.Dialer{Timeout: patience}
	conn, err := tls.DialWithDialer(dialer, "tcp", address, &tls.Config{RootCAs: a.pool()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return fmt.Sprint(conn.ConnectionState().PeerCertificates[0].SerialNumber)
}
