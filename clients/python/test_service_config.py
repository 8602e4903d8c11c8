"""`clients/service-config.json` says of each method what the contract says of it."""

import json

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from harness import CHANNEL_OPTIONS, PATIENCE_S, accounts, cache, cache_grpc, talk
from stubs import ROOT

SERVICES = [
    service
    for file in (talk, cache, accounts)
    for service in file.DESCRIPTOR.services_by_name.values()
]
MethodOptions = descriptor_pb2.MethodOptions
REPEATABLE = (MethodOptions.NO_SIDE_EFFECTS, MethodOptions.IDEMPOTENT)


def load(name: str) -> dict:
    """One of the two files."""
    return json.loads((ROOT / "clients" / name).read_text())


@pytest.mark.parametrize("file", ["service-config.json", "service-config.round-robin.json"])
def test_the_methods_that_are_retried_are_those_the_contract_calls_repeatable(file):
    retried = {
        (name["service"], name["method"])
        for config in load(file)["methodConfig"]
        for name in config["name"]
        if "retryPolicy" in config
    }
    repeatable = {
        (service.full_name, method.name)
        for service in SERVICES
        for method in service.methods
        if method.GetOptions().idempotency_level in REPEATABLE
    }
    assert retried == repeatable
    assert ("larder.cache.v1.CacheService", "Increment") not in retried
    # Without an id, a retry would make a second token.
    assert ("larder.accounts.v1.AccountService", "CreateToken") not in retried


@pytest.mark.parametrize("file", ["service-config.json", "service-config.round-robin.json"])
def test_only_unavailable_is_retried(file):
    policies = [config["retryPolicy"] for config in load(file)["methodConfig"]]
    assert [policy["retryableStatusCodes"] for policy in policies] == [["UNAVAILABLE"]]


def test_the_two_files_differ_in_the_balancing_alone():
    one, other = load("service-config.json"), load("service-config.round-robin.json")
    assert one.pop("loadBalancingConfig") == [{"pick_first": {}}]
    assert other.pop("loadBalancingConfig") == [{"round_robin": {}}]
    assert one == other


def pair(larder, config: dict) -> tuple[list, cache_grpc.CacheServiceStub]:
    """Two servers, and a client of both."""
    servers = [larder(), larder()]
    channel = grpc.insecure_channel(
        "ipv4:" + ",".join(server.address for server in servers),
        [
            *CHANNEL_OPTIONS,
            ("grpc.service_config", json.dumps(config)),
        ],
    )
    return servers, cache_grpc.CacheServiceStub(channel)


@pytest.mark.parametrize(
    ("file", "holders"), [("service-config.json", 1), ("service-config.round-robin.json", 2)]
)
def test_memory_nodes_want_pick_first(larder, file, holders):
    servers, stub = pair(larder, load(file))
    asked = [server.cache() for server in servers]

    def holding() -> int:
        usages = [one.GetUsage(cache.GetUsageRequest()).quota_usage for one in asked]
        return sum(usage.key_count > 0 for usage in usages)

    calls = 0
    # The second server's connection comes when it comes.
    while calls < 20 or holding() < holders:
        stub.Set(cache.SetRequest(key=b"key-%d" % calls), timeout=PATIENCE_S)
        calls += 1
        assert calls < 10_000, "the calls go to one server only"
    assert holding() == holders


def test_round_robin_asks_for_the_health_of_the_service(larder):
    config = load("service-config.round-robin.json")
    config["healthCheckConfig"]["serviceName"] = "another.Service"
    _, stub = pair(larder, config)
    with pytest.raises(grpc.RpcError) as raised:
        stub.Set(cache.SetRequest(key=b"k"), timeout=PATIENCE_S)
    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE


def test_the_health_of_the_named_service_can_be_asked(server):
    service = load("service-config.json")["healthCheckConfig"]["serviceName"]
    health = health_pb2_grpc.HealthStub(server.channel())
    reply = health.Check(health_pb2.HealthCheckRequest(service=service))
    assert reply.status == health_pb2.HealthCheckResponse.SERVING
