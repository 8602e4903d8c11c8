"""What a server tells of itself, read as its readers read it: Prometheus, a collector of traces."""

import re
import threading
import urllib.request
from concurrent import futures
from typing import NamedTuple

import grpc

from harness import PATIENCE_S, Larder, collector, collector_grpc

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)\Z")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|\Z)')
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}


class Series(NamedTuple):
    """A line of the page: a name, and its labels."""

    name: str
    labels: frozenset[tuple[str, str]]


class Page(NamedTuple):
    """A page of metrics."""

    kinds: dict[str, str]
    samples: dict[Series, float]

    def value(self, name: str, **labels: str) -> float:
        """The value of one series."""
        return self.samples[Series(name, frozenset(labels.items()))]

    def labels(self) -> dict[str, set[str]]:
        """The labels of every name."""
        found: dict[str, set[str]] = {}
        for series in self.samples:
            found.setdefault(series.name, set()).update(label for label, _ in series.labels)
        return found


def parse(text: str) -> Page:
    """Reads Prometheus' text format, and insists on what the format does."""
    kinds: dict[str, str] = {}
    helps: set[str] = set()
    samples: dict[Series, float] = {}
    family = None
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            family, _, words = line.removeprefix("# HELP ").partition(" ")
            assert NAME.match(family), line
            assert words.strip(), line
            assert family not in helps, f"{line}: twice"
            helps.add(family)
        elif line.startswith("# TYPE "):
            name, kind = line.removeprefix("# TYPE ").split(" ")
            assert name == family, line
            assert kind in SUFFIXES, line
            kinds[name] = kind
        else:
            name, labels, value = SAMPLE.match(line).groups()
            # All lines of a metric stand together, after its HELP and TYPE.
            assert name in {family + suffix for suffix in SUFFIXES[kinds[family]]}, line
            found = LABEL.findall(labels or "")
            assert "".join(f'{k}="{v}",' for k, v in found) == (labels + "," if labels else "")
            assert len(dict(found)) == len(found), f"{line}: a label twice"
            series = Series(name, frozenset(found))
            assert series not in samples, f"{line}: twice"
            samples[series] = float(value)
    check_names(kinds)
    check_histograms(kinds, samples)
    return Page(kinds, samples)


def check_names(kinds: dict[str, str]) -> None:
    """Prometheus' conventions: counters end with `_total`, and nothing else does."""
    for name, kind in kinds.items():
        assert name.endswith("_total") == (kind == "counter"), name


def check_histograms(kinds: dict[str, str], samples: dict[Series, float]) -> None:
    """Buckets only grow, and the last one, which has no bound, is the count."""
    buckets: dict[Series, list[tuple[float, float]]] = {}
    for series, value in samples.items():
        name = series.name.removesuffix("_bucket")
        if name != series.name and kinds.get(name) == "histogram":
            labels = dict(series.labels)
            bound = float(labels.pop("le"))
            buckets.setdefault(Series(name, frozenset(labels.items())), []).append((bound, value))
    for series, found in buckets.items():
        values = [value for _, value in sorted(found)]
        assert values == sorted(values), series
        assert max(found)[0] == float("inf"), series
        assert samples[Series(f"{series.name}_count", series.labels)] == values[-1], series
        assert Series(f"{series.name}_sum", series.labels) in samples, series


def scrape(server: Larder) -> str:
    """The page at /metrics."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{server.admin}/metrics", timeout=PATIENCE_S) as response:
        assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
        return response.read().decode()


class Collector(collector_grpc.TraceServiceServicer):
    """A collector of traces on a free port."""

    def __init__(self):
        self.requests: list[collector.ExportTraceServiceRequest] = []
        self.refuses = threading.Event()
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        collector_grpc.add_TraceServiceServicer_to_server(self, self._server)
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.url = f"http://127.0.0.1:{port}"
        self._server.start()

    def Export(self, request, context):  # noqa: N802
        """Takes a batch."""
        if self.refuses.is_set():
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not today")
        self.requests.append(request)
        return collector.ExportTraceServiceResponse()

    def spans(self) -> list:
        """All spans that came."""
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def stop(self) -> None:
        """Ends it."""
        self._server.stop(None).wait()


def attributes(span) -> dict[str, object]:
    """The attributes of a span, or of a resource."""
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes
    }
