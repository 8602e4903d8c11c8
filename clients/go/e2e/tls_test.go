package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"example.invalid/larder/clients/go/internal/gen/rpc"
)

func TestTLS(t *testing.T) {
	ours, foreign := newAuthority(t), newAuthority(t)
	cert, key := ours.issueFiles(t)
	larder := startLarder(t, "--tls-cert", cert, "--tls-key", key, "--anonymous", "default")
	mutual := startLarder(t, "--tls-cert", cert, "--tls-key", key, "--anonymous", "default",
		"--client-ca", ours.file(t))

	for _, c := range []struct {
		name    string
		address string
		config  *tls.Config
		want    codes.Code
	}{
		{"the right authority", larder.address, &tls.Config{RootCAs: ours.pool()}, codes.OK},
		{"a foreign authority", larder.address, &tls.Config{RootCAs: foreign.pool()}, codes.Unavailable},
		{"another name", larder.address, &tls.Config{RootCAs: ours.pool(), ServerName: "example.com"}, codes.Unavailable},
		{"a client certificate", mutual.address, &tls.Config{RootCAs: ours.pool(), Certificates: []tls.Certificate{ours.issue(t)}}, codes.OK},
		{"no client certificate", mutual.address, &tls.Config{RootCAs: ours.pool()}, codes.Unavailable},
		{"a foreign client certificate", mutual.address, &tls.Config{RootCAs: ours.pool(), Certificates: []tls.Certificate{foreign.issue(t)}}, codes.Unavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := dial(t, c.address, grpc.WithTransportCredentials(credentials.NewTLS(c.config)))
			_, err := rpc.NewCacheClient(conn).Store(within(t), &rpc.StoreReq{Key: "k"})
			if got := status.Code(err); got != c.want {
				t.Fatalf("got %v, want %s", err, c.want)
			}
		})
	}
}

// authority signs certificates for 127.0.0.1.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key := newKey(t)
	template := certificate("authority")
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{cert, key}
}

func (a authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// issue signs a certificate for servers and clients.
func (a authority) issue(t *testing.T) tls.Certificate {
	t.Helper()
	return a.issueAs(t, func(*x509.Certificate) {})
}

// issueAs signs a certificate with more in it.
func (a authority) issueAs(t *testing.T, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key := newKey(t)
	template := certificate("larder")
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a authority) issueFiles(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	issued := a.issue(t)
	key, err := x509.MarshalPKCS8PrivateKey(issued.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return pemFile(t, "tls.crt", "CERTIFICATE", issued.Certificate[0]), pemFile(t, "tls.key", "PRIVATE KEY", key)
}

func (a authority) file(t *testing.T) string {
	t.Helper()
	return pemFile(t, "ca.crt", "CERTIFICATE", a.cert.Raw)
}

func pemFile(t *testing.T, name, kind string, der []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	block := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(file, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func certificate(name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(24 * time.Hour),
	}
}
