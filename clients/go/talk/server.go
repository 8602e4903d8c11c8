package talk

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.invalid/larder/clients/go/internal/gen/rpc"
)

// accountsTimeout is the talk's limit on a call to the Accounts server.
const accountsTimeout = 2 * time.Second

// CacheService is the talk's Cache server: one map for all accounts, and no
// word of expiry. It has a lock, which the talk leaves out.
type CacheService struct {
	rpc.UnimplementedCacheServer
	accounts rpc.AccountsClient

	mu            sync.Mutex
	store         map[string][]byte
	keysByAccount map[string]int64
}

// NewCacheService makes an empty cache that asks an Accounts server.
func NewCacheService(accounts rpc.AccountsClient) *CacheService {
	return &CacheService{
		accounts:      accounts,
		store:         make(map[string][]byte),
		keysByAccount: make(map[string]int64),
	}
}

// Store stores a value under a key.
func (s *CacheService) Store(ctx context.Context, req *rpc.StoreReq) (*rpc.StoreResp, error) {
	accountsCtx, cancel := context.WithTimeout(ctx, accountsTimeout)
	defer cancel()
	resp, err := s.accounts.GetByToken(accountsCtx, &rpc.GetByTokenReq{
		Token: req.AccountToken,
	})
	if err != nil {
		return nil, err
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keysByAccount[req.AccountToken] >= resp.Account.MaxCacheKeys {
		return nil, status.Errorf(codes.FailedPrecondition, "Account %s exceeds max key limit %d", req.AccountToken, resp.Account.MaxCacheKeys)
	}
	if _, ok := s.store[req.Key]; !ok {
		s.keysByAccount[req.AccountToken]++
	}
	s.store[req.Key] = req.Val
	return &rpc.StoreResp{}, nil
}

// Get reads the value of a key.
func (s *CacheService) Get(ctx context.Context, req *rpc.GetReq) (*rpc.GetResp, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	val, ok := s.store[req.Key]
	if !ok {
		return nil, status.Errorf(codes.NotFound, "Key not found %s", req.Key)
	}
	return &rpc.GetResp{Val: val}, nil
}

// Dump streams every entry.
func (s *CacheService) Dump(req *rpc.DumpReq, stream rpc.Cache_DumpServer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, v := range s.store {
		if err := stream.Send(&rpc.DumpItem{Key: k, Val: v}); err != nil {
			return err
		}
	}
	return nil
}

// AccountsService is the talk's Accounts server: what each token may store.
type AccountsService struct {
	rpc.UnimplementedAccountsServer
	// MaxCacheKeys is the key limit of each token.
	MaxCacheKeys map[string]int64
}

// GetByToken reads the account that a token belongs to.
func (s *AccountsService) GetByToken(ctx context.Context, req *rpc.GetByTokenReq) (*rpc.GetByTokenResp, error) {
	limit, ok := s.MaxCacheKeys[req.Token]
	if !ok {
		return nil, status.Error(codes.NotFound, "no such token")
	}
	return &rpc.GetByTokenResp{Account: &rpc.Account{MaxCacheKeys: limit}}, nil
}
