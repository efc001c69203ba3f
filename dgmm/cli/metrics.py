"""A fit's progress as metrics for Prometheus, served on a port of its own while it runs."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

from dgmm.cli.progress import Watch
from dgmm.engine import Meter
from dgmm.engine.plan import Plan
from dgmm.errors import UsageError
from dgmm.estimators.passes import NUMBERS, Pass

log = logging.getLogger("dgmm")


class _Collector:
    """What is known of a fit whenever somebody asks; what isn't known is left out."""

    def __init__(self) -> None:
        self._meter, self._rows = Meter(), 0
        self._planned: Plan | None = None
        self._last: Pass | None = None

    def watch(self, passes: Iterator[Pass], planned: Plan, meter: Meter) -> Iterator[Pass]:
        self._meter, self._planned = meter, planned
        for done in passes:
            self._last = done
            yield done

    def collect(self) -> Iterator[Any]:
        planned, last = self._planned, self._last
        if planned is None:
            return
        # A pass begun again is uncounted, and a counter must not fall.
        self._rows = max(self._rows, self._meter.rows)
        yield CounterMetricFamily("dgmm_rows", "Rows swept, also in this pass.", self._rows)
        yield GaugeMetricFamily("dgmm_rows_per_pass", "Rows of the data.", planned.rows)
        help = "Passes over the data done, with those before the fit was resumed."
        yield CounterMetricFamily("dgmm_passes", help, 0 if last is None else last.number)
        if stage := self._meter.stage:
            help = "What is done on samples at the moment."
            yield InfoMetricFamily("dgmm_stage", help, {"stage": stage})
        if last is None:
            return
        if last.rows_per_second is not None:
            help = "Rows per second in the last pass."
            yield GaugeMetricFamily("dgmm_rows_per_second", help, last.rows_per_second)
        help = "Seconds that work on samples took before the last pass was told."
        yield GaugeMetricFamily("dgmm_seconds_on_samples", help, last.seconds_on_samples)
        for name, value in last.numbers.items():
            if value is not None:
                yield GaugeMetricFamily(f"dgmm_{name}", NUMBERS[name], value)


@contextmanager
def served(address: tuple[str, int]) -> Iterator[Watch]:
    """Serve what the watch sees at ``address``, while inside; raises ``UsageError`` if it can't."""
    registry, collector = prometheus_client.CollectorRegistry(), _Collector()
    registry.register(collector)
    prometheus_client.ProcessCollector(registry=registry)
    host, port = address
    try:
        server, thread = prometheus_client.start_http_server(port, host, registry)
    except OSError as error:
        raise UsageError(
            f"metrics can't be served at {host}:{port}: {error}; try another --metrics-port"
        ) from None  # no store or cluster is away
    log.info("metrics at http://%s:%d/metrics", host, server.server_port)
    try:
        yield collector.watch
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
