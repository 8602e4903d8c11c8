# frozen_string_literal: true

# larder from Ruby, with the grpc gem: each method is one thing that a client
# meets. The servers are named by the environment; clients/README.md says how.
# Run with `ruby -I STUBS tour.rb`, where STUBS is what protoc wrote.

require 'grpc'
require 'json'
require 'google/protobuf/well_known_types'
require 'google/rpc/error_details_pb'
require 'google/rpc/status_pb'
require 'larder/cache/v1/cache_service_services_pb'
require 'rpc_services_pb'

V1 = Larder::Cache::V1
TOKEN = ENV.fetch('TOUR_TOKEN')

# The options of a channel that retries as the service configuration says.
def channel_args(more = {})
  service_config = File.read(ENV.fetch('TOUR_SERVICE_CONFIG'))
  { 'grpc.service_config' => service_config, 'grpc.enable_http_proxy' => 0 }.merge(more)
end

def connect(stub, target, more = {})
  stub.new(target, :this_channel_is_insecure, channel_args: channel_args(more), timeout: 10)
end

def check(holds, otherwise)
  raise otherwise unless holds
end

# The error that a call ends with.
def error_of
  yield
rescue GRPC::BadStatus => e
  e
else
  raise 'the call went well'
end

def report(behaviour, outcome, why = '')
  puts JSON.generate(behaviour:, outcome:, why:)
  $stdout.flush
end

# Stores a value and reads it back, as an account's token.
def talk(cache)
  metadata = { 'authorization' => "Bearer #{TOKEN}" }
  cache.store(Rpc::StoreReq.new(key: 'gopher', val: 'con'), metadata:, deadline: Time.now + 10)
  reply = cache.get(Rpc::GetReq.new(key: 'gopher'), metadata:, deadline: Time.now + 10)
  check(reply.val == 'con', "got #{reply.val}")
end

# Stores more keys than the account may have, and reads why not.
def quota(cache)
  cache.store(Rpc::StoreReq.new(key: 'second', account_token: TOKEN))
  error = error_of { cache.store(Rpc::StoreReq.new(key: 'third', account_token: TOKEN)) }
  check(error.is_a?(GRPC::FailedPrecondition), error.message)

  details = error.to_rpc_status.details
  info = details.filter_map { |any| any.unpack(Google::Rpc::ErrorInfo) }.first
  check([info.domain, info.reason] == %w[larder KEY_QUOTA_EXCEEDED], info.to_s)
  failure = details.filter_map { |any| any.unpack(Google::Rpc::QuotaFailure) }.first
  check(failure.violations.first.subject.include?('tour'), failure.to_s)
end

# Gives up on a slow server, which then leaves the call undone.
def deadline
  slow = connect(Rpc::Cache::Stub, ENV.fetch('TOUR_SLOW_SERVER'))
  request = Rpc::StoreReq.new(key: 'late', account_token: TOKEN)
  error = error_of { slow.store(request, deadline: Time.now + 1) }
  check(error.is_a?(GRPC::DeadlineExceeded), error.message)
  # Nothing later: it was not stored behind the caller's back.
  error = error_of { slow.get(Rpc::GetReq.new(key: 'late', account_token: TOKEN)) }
  check(error.is_a?(GRPC::NotFound), error.message)
end

# Has a store checked but not carried out.
def dry_run(cache)
  request = Rpc::StoreReq.new(key: 'gopher', val: 'phercon', account_token: TOKEN)
  operation = cache.store(request, metadata: { 'dry-run' => '1' }, return_op: true)
  operation.execute
  echoed = operation.metadata.merge(operation.trailing_metadata)
  check(echoed['dry-run'] == '1', "got #{echoed}")

  reply = cache.get(Rpc::GetReq.new(key: 'gopher', account_token: TOKEN))
  check(reply.val == 'con', "stored #{reply.val}")
end

# Streams every entry.
def dump(cache)
  entries = cache.dump(Rpc::DumpReq.new, deadline: Time.now + 30).to_h { |item| [item.key, item.val] }
  check(entries.size == Integer(ENV.fetch('TOUR_ENTRIES')), "#{entries.size} entries")
  wrong = entries.find { |key, value| value != "value of #{key}" }
  check(wrong.nil?, "got #{wrong}")
end

# Reads from a server that fails twice, and does not notice.
def retry_twice(faulty)
  reply = faulty.get(V1::GetRequest.new(key: 'unavailable-twice'))
  check(reply.hit.value == 'value of unavailable-twice', reply.to_s)
end

# Is told at once what another attempt would not change, or might do twice.
def once(faulty)
  error = error_of { faulty.get(V1::GetRequest.new(key: 'not-found')) }
  check(error.is_a?(GRPC::NotFound), error.message)
  error = error_of { faulty.get(V1::GetRequest.new(key: 'failed-precondition')) }
  check(error.is_a?(GRPC::FailedPrecondition), error.message)
  error = error_of { faulty.increment(V1::IncrementRequest.new(key: 'unavailable-twice', delta: 1)) }
  check(error.is_a?(GRPC::Unavailable), error.message)
end

# Goes on with the second server when the first one dies.
def failover
  # A list of addresses is no name of a server: it needs one.
  authority = { 'grpc.default_authority' => 'localhost' }
  pair = connect(V1::CacheService::Stub, "ipv4:#{ENV.fetch('TOUR_PAIR')}", authority)
  pair.set(V1::SetRequest.new(key: 'before'))
  report('failover', 'waiting')
  $stdin.gets
  pair.set(V1::SetRequest.new(key: 'after'))
end

cache = connect(Rpc::Cache::Stub, ENV.fetch('TOUR_SERVER'))
faulty = connect(V1::CacheService::Stub, ENV.fetch('TOUR_FAULTY_SERVER'))
tour = {
  'talk' => -> { talk(cache) },
  'quota' => -> { quota(cache) },
  'deadline' => -> { deadline },
  'dry-run' => -> { dry_run(cache) },
  'dump' => -> { dump(cache) },
  'retry' => -> { retry_twice(faulty) },
  'once' => -> { once(faulty) },
  'failover' => -> { failover }
}
tour.each do |behaviour, run|
  run.call
  report(behaviour, 'passed')
rescue StandardError => e
  report(behaviour, 'failed', "#{e.class}: #{e.message}")
end
