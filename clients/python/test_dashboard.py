"""The dashboard asks for nothing that a server does not export."""

import json
import re

import grpc
import pytest

from harness import PATIENCE_S, Larder, bearer, cache
from observed import Collector, parse, scrape
from stubs import ROOT

DASHBOARD = json.loads((ROOT / "deploy/grafana/larder.json").read_text())
# What Prometheus adds to everything that it scrapes.
SCRAPED = {"job", "instance"}
# What Grafana puts in before it asks.
VARIABLES = dict.fromkeys(("job", "instance", "method", "account"), ".*") | {
    "__rate_interval": "1m"
}

TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>\d+(?:\.\d+)?(?!\w))
      | (?P<name>[a-zA-Z_][a-zA-Z0-9_:]*)
      | (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<range>\[\d+[smhd]\])
      | (?P<sign>=~|!~|!=|==|>=|<=|[-+*/%^(){},=<>])
    )""",
    re.VERBOSE,
)
AGGREGATIONS = {"sum", "max", "min", "avg", "count", "topk"}
# By name: the arguments, `c` for a range of what only grows, `g` for one of what does not, and
# `v` for anything else.
FUNCTIONS = {"rate": "c", "increase": "c", "changes": "g", "histogram_quantile": "vv"}
OPERATORS = {"+": 2, "-": 2, "*": 3, "/": 3, "%": 3, ">": 1, "<": 1, "==": 1}


class Query:
    """The part of PromQL that the dashboard uses, by recursive descent; anything else is wrong."""

    def __init__(self, text: str, metrics: dict[str, set[str]]):
        self.metrics = metrics
        self.used: set[str] = set()
        self.tokens = []
        at = 0
        while at < len(text.rstrip()):
            found = TOKEN.match(text, at)
            assert found, f"{text[at:]!r} is no PromQL"
            self.tokens.append((found.lastgroup, found[found.lastgroup]))
            at = found.end()
        self.tokens.append(("end", ""))
        self.labels = self.expression(0)
        assert self.tokens[0][0] == "end", f"{self.tokens[0]} is left of {text!r}"

    def take(self, text: str | None = None) -> str:
        kind, found = self.tokens.pop(0)
        assert kind != "end", f"the end where {text!r} belongs"
        assert text in (None, found), f"{found!r} where {text!r} belongs"
        return found

    def is_next(self, text: str) -> bool:
        return self.tokens[0][1] == text and self.tokens[0][0] != "string"

    def expression(self, least: int) -> set[str]:
        """The labels that its result may have."""
        labels = self.operand()
        while self.tokens[0][0] == "sign" and OPERATORS.get(self.tokens[0][1], 0) > least:
            strength = OPERATORS[self.take()]
            other = self.expression(strength)
            # One side without labels may be a number.
            assert labels == other or not labels or not other, f"{labels} beside {other}"
            labels = labels or other
        return labels

    def operand(self) -> set[str]:
        kind, text = self.tokens[0]
        if kind == "number":
            self.take()
            return set()
        if self.is_next("("):
            self.take("(")
            labels = self.expression(0)
            self.take(")")
            return labels
        assert kind == "name", f"{text!r} where an operand belongs"
        if text in AGGREGATIONS:
            return self.aggregation()
        if text in FUNCTIONS:
            return self.function()
        return self.selector("v")

    def aggregation(self) -> set[str]:
        self.take()
        kept: set[str] = set()
        if self.is_next("by"):
            self.take("by")
            kept = set(self.names())
        self.take("(")
        labels = self.expression(0)
        self.take(")")
        assert kept <= labels, f"by {kept}, where there are {labels}"
        return kept

    def names(self) -> list[str]:
        self.take("(")
        found = [self.take()]
        while self.is_next(","):
            self.take(",")
            found.append(self.take())
        self.take(")")
        return found

    def function(self) -> set[str]:
        name = self.take()
        self.take("(")
        labels: set[str] = set()
        for number, kind in enumerate(FUNCTIONS[name]):
            if number:
                self.take(",")
            labels = self.expression(0) if kind == "v" else self.selector(kind)
        self.take(")")
        if name == "histogram_quantile":
            assert "le" in labels, "a quantile without buckets"
            labels -= {"le"}
        return labels

    def selector(self, kind: str) -> set[str]:
        name = self.take()
        assert name in self.metrics, f"{name} is not exported"
        labels = self.metrics[name] | SCRAPED
        self.used.add(name)
        if self.is_next("{"):
            self.take("{")
            while not self.is_next("}"):
                label = self.take()
                assert label in labels, f"{name} has no label {label}"
                assert self.take() in ("=", "!=", "=~", "!~")
                re.compile(json.loads(self.take()))
                if not self.is_next("}"):
                    self.take(",")
            self.take("}")
        has_range = self.tokens[0][0] == "range"
        assert has_range == (kind != "v"), f"{name}: a range belongs into a function of ranges"
        if has_range:
            self.take()
        counts = name.endswith(("_total", "_bucket", "_sum", "_count"))
        assert counts == (kind == "c"), f"{name}: what only grows is asked for by its rate"
        return set(labels)


def filled(text: str) -> str:
    """A query as Grafana sends it."""
    filled = re.sub(r"\$(\w+)", lambda found: VARIABLES[found[1]], text)
    assert "$" not in filled
    return filled


def queries() -> list[tuple[str, str, str]]:
    """Title, query and legend of everything that is drawn, and of the annotations."""
    found = [
        (panel["title"], target["expr"], target["legendFormat"])
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", [])
    ]
    return found + [
        (each["name"], each["expr"], each["titleFormat"])
        for each in DASHBOARD["annotations"]["list"]
    ]


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> dict[str, set[str]]:
    """The labels of every name that a server exports which has been called."""
    collector = Collector()
    config = tmp_path_factory.mktemp("config") / "larder.toml"
    config.write_text(f'[telemetry]\notlp_endpoint = "{collector.url}"\n')
    server = Larder("--admin", "127.0.0.1:0", "--config", str(config))
    try:
        token = server.account("team", max_keys=10)
        stub = server.cache()
        stub.Set(cache.SetRequest(key=b"k", value=b"v"), metadata=bearer(token))
        with pytest.raises(grpc.RpcError):
            stub.Get(cache.GetRequest(), metadata=bearer(token), timeout=PATIENCE_S)
        return parse(scrape(server)).labels()
    finally:
        server.kill()
        collector.stop()


def test_every_query_asks_for_what_is_exported(exported):
    asked = queries()
    assert len(asked) > 50
    for title, text, legend in asked:
        query = Query(filled(text), exported)
        for label in re.findall(r"\{\{(\w+)\}\}", legend):
            is_bucket = label == "le" and "le" in query.labels
            assert is_bucket or label in query.labels, f"{title}: {label} in {legend!r}"


def test_every_variable_lists_what_is_exported(exported):
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] != "query":
            continue
        text = variable["query"]["query"]
        selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", text).groups()
        name, _, matchers = filled(selector).partition("{")
        labels = exported[name] | SCRAPED
        assert label in labels, text
        for matched in re.findall(r"(\w+)=~", matchers):
            assert matched in labels, text


def test_reasons_and_statuses_are_those_that_there_are():
    reasons = set(
        re.findall(r"^\| `([A-Z_]+)`", (ROOT / "docs/errors.md").read_text(), re.MULTILINE)
    )
    statuses = {code.name for code in grpc.StatusCode}
    for title, text, _ in queries():
        for label, values in re.findall(r'(reason|grpc_status)!?=~?"([A-Z_|]+)"', text):
            known = reasons if label == "reason" else statuses
            assert set(values.split("|")) <= known, title


def test_panels_lie_beside_each_other_and_say_what_they_are():
    taken = set()
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
        assert panel["type"] == "row" or panel["description"].endswith("."), panel["title"]


@pytest.mark.parametrize(
    "wrong",
    [
        "sum(rate(no_such_total[1m]))",
        "rate(larder_cache_hits_total)",
        "larder_cache_hits_total",
        'rate(larder_cache_hits_total{method="x"}[1m])',
        "sum by (reason) (rate(larder_cache_hits_total[1m]))",
        "sum(rate(larder_cache_hits_total[1m])",
        "sum(larder_cache_entries) larder_cache_entries",
        "larder_cache_entries[1m]",
        "histogram_quantile(0.9, sum(rate(larder_accounts_wait_seconds_bucket[1m])))",
        "larder_cache_entries / larder_accounts",
    ],
)
def test_a_wrong_query_is_found(exported, wrong):
    with pytest.raises(AssertionError):
        Query(wrong, exported)
