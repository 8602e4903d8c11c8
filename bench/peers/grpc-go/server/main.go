// Server serves rpc.Cache over a map in shards, as grpc-go's guides have it.
//
//	server ADDRESS
package main

import (
	"context"
	"hash/maphash"
	"log"
	"net"
	"os"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.invalid/larder/bench/peers/grpc-go/internal/gen/rpc"
)

const shards = 64

type shard struct {
	mutex   sync.RWMutex
	entries map[string][]byte
}

type cache struct {
	rpc.UnimplementedCacheServer
	seed   maphash.Seed
	shards [shards]shard
}

func newCache() *cache {
	c := &cache{seed: maphash.MakeSeed()}
	for i := range c.shards {
		c.shards[i].entries = make(map[string][]byte)
	}
	return c
}

func (c *cache) shard(key string) *shard {
	return &c.shards[maphash.String(c.seed, key)%shards]
}

func (c *cache) Store(_ context.Context, request *rpc.StoreReq) (*rpc.StoreResp, error) {
	s := c.shard(request.GetKey())
	s.mutex.Lock()
	s.entries[request.GetKey()] = request.GetVal()
	s.mutex.Unlock()
	return &rpc.StoreResp{}, nil
}

func (c *cache) Get(_ context.Context, request *rpc.GetReq) (*rpc.GetResp, error) {
	s := c.shard(request.GetKey())
	s.mutex.RLock()
	value, ok := s.entries[request.GetKey()]
	s.mutex.RUnlock()
	if !ok {
		return nil, status.Error(codes.NotFound, "no such key")
	}
	return &rpc.GetResp{Val: value}, nil
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("server ADDRESS")
	}
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	rpc.RegisterCacheServer(server, newCache())
	log.Fatal(server.Serve(listener))
}
