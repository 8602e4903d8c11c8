// larder from C++, with gRPC: each function is one thing that a client meets.
// The servers are named by the environment; clients/README.md says how.

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>
#include <grpcpp/grpcpp.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "larder/cache/v1/cache_service.grpc.pb.h"
#include "rpc.grpc.pb.h"

namespace {

using namespace std::chrono_literals;
using larder::cache::v1::CacheService;

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr) {
    throw std::runtime_error(std::string(name) + " is not set");
  }
  return value;
}

void Check(bool holds, const std::string& otherwise) {
  if (!holds) {
    throw std::runtime_error(otherwise);
  }
}

void Check(const grpc::Status& status, grpc::StatusCode wanted = grpc::StatusCode::OK) {
  Check(status.error_code() == wanted,
        "status " + std::to_string(status.error_code()) + ": " + status.error_message());
}

// The arguments of a channel that retries as the service configuration says.
grpc::ChannelArguments Arguments() {
  std::ifstream file(Variable("TOUR_SERVICE_CONFIG"));
  const std::string service_config{std::istreambuf_iterator<char>(file), {}};
  grpc::ChannelArguments arguments;
  arguments.SetServiceConfigJSON(service_config);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return arguments;
}

std::shared_ptr<grpc::Channel> Connect(const std::string& target,
                                       const grpc::ChannelArguments& arguments = Arguments()) {
  return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
}

// A context serves one call.
std::unique_ptr<grpc::ClientContext> Within(std::chrono::milliseconds timeout) {
  auto context = std::make_unique<grpc::ClientContext>();
  context->set_deadline(std::chrono::system_clock::now() + timeout);
  return context;
}

rpc::StoreReq StoreRequest(const std::string& key, const std::string& value) {
  rpc::StoreReq request;
  request.set_key(key);
  request.set_val(value);
  request.set_account_token(Variable("TOUR_TOKEN"));
  return request;
}

rpc::GetReq GetRequest(const std::string& key) {
  rpc::GetReq request;
  request.set_key(key);
  request.set_account_token(Variable("TOUR_TOKEN"));
  return request;
}

// Stores a value and reads it back, as an account's token.
void Talk(rpc::Cache::Stub& cache) {
  const std::string credential = "Bearer " + Variable("TOUR_TOKEN");

  rpc::StoreReq store;
  store.set_key("gopher");
  store.set_val("con");
  auto context = Within(10s);
  context->AddMetadata("authorization", credential);
  rpc::StoreResp stored;
  Check(cache.Store(context.get(), store, &stored));

  rpc::GetReq get;
  get.set_key("gopher");
  context = Within(10s);
  context->AddMetadata("authorization", credential);
  rpc::GetResp got;
  Check(cache.Get(context.get(), get, &got));
  Check(got.val() == "con", "got " + got.val());
}

// Stores more keys than the account may have, and reads why not.
void Quota(rpc::Cache::Stub& cache) {
  rpc::StoreResp stored;
  Check(cache.Store(Within(10s).get(), StoreRequest("second", "v"), &stored));
  const grpc::Status status =
      cache.Store(Within(10s).get(), StoreRequest("third", "v"), &stored);
  Check(status, grpc::StatusCode::FAILED_PRECONDITION);

  google::rpc::Status details;
  Check(details.ParseFromString(status.error_details()), "no google.rpc.Status");
  google::rpc::ErrorInfo info;
  google::rpc::QuotaFailure failure;
  for (const google::protobuf::Any& detail : details.details()) {
    // Each is unpacked by the message that it is.
    detail.UnpackTo(&info);
    detail.UnpackTo(&failure);
  }
  Check(info.domain() == "larder" && info.reason() == "KEY_QUOTA_EXCEEDED",
        info.ShortDebugString());
  Check(failure.violations_size() == 1 &&
            failure.violations(0).subject().find("tour") != std::string::npos,
        failure.ShortDebugString());
}

// Gives up on a slow server, which then leaves the call undone.
void Deadline() {
  rpc::Cache::Stub slow(Connect(Variable("TOUR_SLOW_SERVER")));
  rpc::StoreResp stored;
  Check(slow.Store(Within(1s).get(), StoreRequest("late", "v"), &stored),
        grpc::StatusCode::DEADLINE_EXCEEDED);
  // Nothing later: it was not stored behind the caller's back.
  rpc::GetResp got;
  Check(slow.Get(Within(10s).get(), GetRequest("late"), &got), grpc::StatusCode::NOT_FOUND);
}

// Has a store checked but not carried out.
void DryRun(rpc::Cache::Stub& cache) {
  auto context = Within(10s);
  context->AddMetadata("dry-run", "1");
  rpc::StoreResp stored;
  Check(cache.Store(context.get(), StoreRequest("gopher", "phercon"), &stored));
  auto echoed = context->GetServerInitialMetadata();
  echoed.merge(std::multimap(context->GetServerTrailingMetadata()));
  const auto echo = echoed.find("dry-run");
  Check(echo != echoed.end() && echo->second == "1", "not echoed");

  rpc::GetResp got;
  Check(cache.Get(Within(10s).get(), GetRequest("gopher"), &got));
  Check(got.val() == "con", "stored " + got.val());
}

// Streams every entry.
void Dump(rpc::Cache::Stub& cache) {
  const auto context = Within(30s);
  const auto items = cache.Dump(context.get(), rpc::DumpReq());
  std::map<std::string, std::string> entries;
  for (rpc::DumpItem item; items->Read(&item);) {
    entries[item.key()] = item.val();
  }
  Check(items->Finish());
  Check(entries.size() == std::stoul(Variable("TOUR_ENTRIES")),
        std::to_string(entries.size()) + " entries");
  for (const auto& [key, value] : entries) {
    Check(value == "value of " + key, key + " has " + value);
  }
}

// Reads from a server that fails twice, and does not notice.
void Retry(CacheService::Stub& faulty) {
  larder::cache::v1::GetRequest request;
  request.set_key("unavailable-twice");
  larder::cache::v1::GetResponse response;
  Check(faulty.Get(Within(10s).get(), request, &response));
  Check(response.hit().value() == "value of unavailable-twice", response.ShortDebugString());
}

// Is told at once what another attempt would not change, or might do twice.
void Once(CacheService::Stub& faulty) {
  larder::cache::v1::GetRequest get;
  larder::cache::v1::GetResponse got;
  get.set_key("not-found");
  Check(faulty.Get(Within(10s).get(), get, &got), grpc::StatusCode::NOT_FOUND);
  get.set_key("failed-precondition");
  Check(faulty.Get(Within(10s).get(), get, &got), grpc::StatusCode::FAILED_PRECONDITION);

  larder::cache::v1::IncrementRequest increment;
  increment.set_key("unavailable-twice");
  increment.set_delta(1);
  larder::cache::v1::IncrementResponse incremented;
  Check(faulty.Increment(Within(10s).get(), increment, &incremented),
        grpc::StatusCode::UNAVAILABLE);
}

void Report(const std::string& behaviour, const std::string& outcome, const std::string& why) {
  google::protobuf::Struct line;
  auto& fields = *line.mutable_fields();
  fields["behaviour"].set_string_value(behaviour);
  fields["outcome"].set_string_value(outcome);
  fields["why"].set_string_value(why);
  std::string json;
  Check(google::protobuf::util::MessageToJsonString(line, &json).ok(), "no JSON");
  std::cout << json << std::endl;
}

// Goes on with the second server when the first one dies.
void Failover() {
  // A list of addresses is no name of a server: it needs one.
  grpc::ChannelArguments arguments = Arguments();
  arguments.SetString(GRPC_ARG_DEFAULT_AUTHORITY, "localhost");
  CacheService::Stub pair(Connect("ipv4:" + Variable("TOUR_PAIR"), arguments));

  larder::cache::v1::SetRequest request;
  larder::cache::v1::SetResponse response;
  request.set_key("before");
  Check(pair.Set(Within(10s).get(), request, &response));
  Report("failover", "waiting", "");
  std::cin.get();
  request.set_key("after");
  Check(pair.Set(Within(10s).get(), request, &response));
}

}  // namespace

// Makes the whole tour.
int main() {
  rpc::Cache::Stub cache(Connect(Variable("TOUR_SERVER")));
  CacheService::Stub faulty(Connect(Variable("TOUR_FAULTY_SERVER")));
  const std::vector<std::pair<std::string, std::function<void()>>> tour = {
      {"talk", [&] { Talk(cache); }},
      {"quota", [&] { Quota(cache); }},
      {"deadline", [] { Deadline(); }},
      {"dry-run", [&] { DryRun(cache); }},
      {"dump", [&] { Dump(cache); }},
      {"retry", [&] { Retry(faulty); }},
      {"once", [&] { Once(faulty); }},
      {"failover", [] { Failover(); }},
  };
  for (const auto& [behaviour, run] : tour) {
    try {
      run();
      Report(behaviour, "passed", "");
    } catch (const std::exception& error) {
      Report(behaviour, "failed", error.what());
    }
  }
}
