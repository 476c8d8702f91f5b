"""Dagster's instance: where its runs and events are kept, and what it may do at once."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from radia.settings import database_url
from radia.workspace import Workspace, written_whole

CONFIG = {
    "telemetry": {"enabled": False},
    "nux": {"enabled": False},
    "concurrency": {
        "pools": {"default_limit": 1},
        "runs": {"tag_concurrency_limits": [{"key": "radia/writes", "limit": 1}]},
    },
    "freshness": {"enabled": True},
    "run_monitoring": {"enabled": True, "start_timeout_seconds": 300},
    "retention": {"sensor": {"purge_after_days": 30}, "schedule": {"purge_after_days": 90}},
}
"""dagster.yaml on the embedded defaults: SQLite in the same folder."""


def dagster_home(site: Workspace) -> Path:
    """Dagster's folder in the site's data folder, its configuration written. Absolute, as Dagster asks, and quiet.

    Raises SettingsError.
    """
    home = site.dagster_home.resolve()
    config = home / "dagster.yaml"
    text = yaml.safe_dump(configuration(), sort_keys=False)
    if not config.is_file() or config.read_text() != text:
        with written_whole(config) as partial:
            partial.write_text(text)
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def configuration() -> dict[str, object]:
    """What dagster.yaml says: in PostgreSQL where `$RADIA_DATABASE` names a server. Raises SettingsError."""
    url = database_url("dagster")
    if url is None:
        return dict(CONFIG)
    theirs = url.replace("postgresql+psycopg://", "postgresql+psycopg2://")  # its NOTIFY takes no server-side parameter
    return {**CONFIG, "storage": {"postgres": {"postgres_url": theirs}}}
