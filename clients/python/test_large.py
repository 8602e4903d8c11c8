"""Large values, asked for all at once, from a stock client that reads."""

import pytest

from harness import PATIENCE_S, bearer, cache


@pytest.mark.parametrize(
    ("size", "calls"), [(3 << 20, 10), (1 << 20, 30), (200 << 10, 100)], ids=str
)
def test_large_values_asked_for_at_once_all_come(server, size, calls):
    metadata = bearer(server.account(f"large-{size}"))
    stub = server.cache()
    value = bytes(size)
    stub.Set(cache.SetRequest(key=b"large", value=value), metadata=metadata)
    request = cache.GetRequest(key=b"large")
    answers = [
        stub.Get.future(request, metadata=metadata, timeout=PATIENCE_S) for _ in range(calls)
    ]
    for answer in answers:
        assert answer.result().hit.value == value
