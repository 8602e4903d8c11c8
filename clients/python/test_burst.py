"""Many calls at once on one connection, from a stock Python client."""

from harness import PATIENCE_S, bearer, talk

CALLS, ROUNDS = 1000, 5


def test_bursts_on_one_connection_all_succeed(server):
    metadata = bearer(server.account("burst"))
    cache = server.talk()
    keys = [f"key-{number}" for number in range(CALLS)]

    def at_once(method, requests):
        calls = [
            method.future(request, metadata=metadata, timeout=PATIENCE_S) for request in requests
        ]
        return [call.result() for call in calls]

    at_once(cache.Store, [talk.StoreReq(key=key, val=key.encode()) for key in keys])
    for _ in range(ROUNDS - 1):
        answers = at_once(cache.Get, [talk.GetReq(key=key) for key in keys])
        assert [answer.val.decode() for answer in answers] == keys
