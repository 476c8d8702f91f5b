"""The way to a site's MLflow: a quiet client, its errors as RADIA's, and its database made whole or refused.

What is asked of MLflow is in the modules beside this one. Importing MLflow takes seconds: it happens inside functions.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from radia.errors import RegistryError
from radia.settings import mlflow_url, quiet_dependencies
from radia.workspace import Workspace, written_whole

if TYPE_CHECKING:
    from mlflow import MlflowClient


_QUIET = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


@contextmanager
def client(site: Workspace) -> Iterator[MlflowClient]:
    """A client of the site's MLflow, quiet, with its errors as RegistryError."""
    quiet_dependencies()
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import mlflow
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    url = mlflow_url(site)
    if not url.startswith("http"):
        site.root.mkdir(parents=True, exist_ok=True)
    before = os.environ.get("MLFLOW_TRACKING_URI")
    try:
        _make_database(url)
        mlflow.set_tracking_uri(url)  # pyfunc and the artefact functions look there and nowhere else
        yield mlflow.MlflowClient(url)
    except MlflowException as error:
        raise RegistryError(f"MLflow refused: {_first_line(error)}") from error
    except SQLAlchemyError as error:
        raise RegistryError(f"MLflow's database refused: {type(error).__name__}") from error
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # forgets the address
        if before is not None:  # MLflow writes the variable, and another site must not find this one's address there
            os.environ["MLFLOW_TRACKING_URI"] = before


def _make_database(url: str) -> None:
    """Makes a SQLite database that is not there yet whole or not at all: a run killed meanwhile leaves none.

    One of an older schema is refused: MLflow's client would migrate it as it comes, with nothing kept of it.
    """
    from mlflow import MlflowClient

    from radia.operations.sqlite_whole import revision

    if not url.startswith("sqlite:///"):
        return
    if (path := Path(url.removeprefix("sqlite:///"))).exists():
        found = revision(path, "alembic_version")
        if found and found != (wanted := _newest_schema()):
            raise RegistryError(f"MLflow's database is at revision {found}, not {wanted}: run `radia migrate`")
        return
    with written_whole(path) as partial:
        MlflowClient(f"sqlite:///{partial}").search_experiments(max_results=1)


@cache
def _newest_schema() -> str:
    from radia.operations.schema import known

    return known("MLflow", "").wanted


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
