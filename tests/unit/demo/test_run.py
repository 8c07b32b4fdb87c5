"""What `make run` tells of the controller it started."""

from __future__ import annotations

from pathlib import Path

import pytest

from hack.demo.run import metrics_url

STARTING = '{"event": "starting", "metrics": "http://127.0.0.1:39133/metrics", "version": "0.1.0"}\n'


def test_the_first_line_of_the_log_tells_where_the_metrics_are(tmp_path: Path) -> None:
    """Whatever follows."""
    log = tmp_path / "controller.log"
    log.write_text(STARTING + '{"event": "caches filled"}\n')

    assert metrics_url(log) == "http://127.0.0.1:39133/metrics"


@pytest.mark.parametrize("begins", ["", STARTING[:40], '{"event": "caches filled"}\n', "2026-01-15 [info] starting\n"])
def test_a_log_that_does_not_begin_with_it_tells_nothing(tmp_path: Path, begins: str) -> None:
    """Nothing written yet, half a line, another line, another format."""
    log = tmp_path / "controller.log"
    log.write_text(begins)

    assert metrics_url(log) is None
