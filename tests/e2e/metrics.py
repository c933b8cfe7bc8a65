"""What a server's /metrics says, read with Prometheus's own Python parsers."""

from prometheus_client import parser as classic
from prometheus_client.openmetrics import parser as openmetrics

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


class Metrics:
    """The samples of one scrape. Subscripts are a sample's name and, where it matters, labels to select and sum."""

    def __init__(self, families):
        self.samples = [sample for family in families for sample in family.samples]

    @classmethod
    def of(cls, server, accept=None):
        answer = server.get("/metrics", {"Accept": accept} if accept else None)
        assert answer.status == 200
        text = answer.body.decode()
        if accept == OPENMETRICS:
            assert answer.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
            return cls(openmetrics.text_string_to_metric_families(text))
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        return cls(classic.text_string_to_metric_families(text))

    def __getitem__(self, key):
        name, labels = key if isinstance(key, tuple) else (key, {})
        found = self.select(name, labels)
        assert found, f"no sample {name} with {labels}"
        return sum(found)

    def count(self, name, **labels):
        """Of what need not have happened yet, and then has no sample."""
        return sum(self.select(name, labels))

    def select(self, name, labels):
        return [s.value for s in self.samples if s.name == name and labels.items() <= s.labels.items()]

    def labels(self, name):
        return {frozenset(sample.labels) for sample in self.samples if sample.name == name}

    def identities(self):
        return {(sample.name, frozenset(sample.labels.items())) for sample in self.samples}
