package talk

import (
	"context"
	"log"
	"time"

	"google.golang.org/grpc"
)

// WithClientInterceptor logs every call that a client makes.
func WithClientInterceptor() grpc.DialOption {
	return grpc.WithUnaryInterceptor(clientInterceptor)
}

func clientInterceptor(
	ctx context.Context,
	method string,
	req any,
	reply any,
	cc *grpc.ClientConn,
	invoker grpc.UnaryInvoker,
	opts ...grpc.CallOption,
) error {
	start := time.Now()
	err := invoker(ctx, method, req, reply, cc, opts...)
	log.Printf("invoke remote method=%s duration=%s error=%v", method, time.Since(start), err)
	return err
}

// ServerInterceptor logs every call that a server answers.
func ServerInterceptor() grpc.ServerOption {
	return grpc.UnaryInterceptor(serverInterceptor)
}

func serverInterceptor(
	ctx context.Context,
	req any,
	info *grpc.UnaryServerInfo,
	handler grpc.UnaryHandler,
) (any, error) {
	start := time.Now()
	resp, err := handler(ctx, req)
	log.Printf("invoke server method=%s duration=%s error=%v", info.FullMethod, time.Since(start), err)
	return resp, err
}
