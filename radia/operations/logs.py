"""Logs of services: one JSON object a line, and nothing in it that a patient could be known by.

RADIA's own messages name no value of a patient (radia.errors). Libraries do not promise that: a warning of pydicom
quotes the value it stumbled on. So the text of a library's message is written only where the library never sees an
object of a patient; of all others a line says who spoke, how loud and where, and so does every traceback: kinds and
places, no text.
"""

from __future__ import annotations

import json
import logging
import logging.config
import re
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SPEAK_FREELY = ("radia", "pipelines", "uvicorn", "waitress", "mlflow", "alembic")
"""Loggers whose text is written. Everything else may have met a patient's value."""

_URL_WITH_PASSWORD = re.compile(r"(://[^:/@\s]+:)[^@\s]+@")


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time (UTC), level, logger, service, message, error."""

    def __init__(self, service: str = "") -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
        }
        if self._service:
            line["service"] = self._service
        if record.name.split(".")[0] in SPEAK_FREELY:
            line["message"] = _URL_WITH_PASSWORD.sub(r"\1***@", record.getMessage())
        else:
            line["place"] = f"{Path(record.pathname).name}:{record.lineno}"
            line["message"] = "(left out: a library's text may quote a patient's value)"
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = told_error(record.exc_info[1])
        return json.dumps(line, ensure_ascii=False)


def told_error(error: BaseException) -> list[str]:
    """Kind and place of an error and of those that led to it, the innermost first; no message."""
    told: list[str] = []
    one: BaseException | None = error
    while one is not None and len(told) < 10:
        frames = traceback.extract_tb(one.__traceback__)
        where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames[-5:]))
        told.insert(0, f"{type(one).__name__} at {where}" if where else type(one).__name__)
        one = one.__cause__ or one.__context__
    return told


def configuration(service: str, *, level: str = "INFO") -> dict[str, Any]:
    """The configuration of Python's logging (`logging.config.dictConfig`) that writes such lines to standard error."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": {"()": "radia.operations.logs.JsonLines", "service": service}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
        "root": {"level": level, "handlers": ["stderr"]},
        "loggers": {
            name: {"level": level, "handlers": [], "propagate": True}
            for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "mlflow", "alembic")
        },
    }


def write_lines(service: str) -> None:
    """From now on this process logs in JSON lines; warnings of Python too."""
    logging.config.dictConfig(configuration(service))
    logging.captureWarnings(True)
