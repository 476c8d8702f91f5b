"""Where people open Dagster, MLflow and, in the web app, another trace."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from radia.services.proxy import DAGSTER_READONLY, MLFLOW
from radia.settings import Settings, behind_proxy, mlflow_page, public_url


@dataclass(frozen=True)
class Links:
    """Where people open Dagster and MLflow: addresses without a slash at the end.

    traces: where the web app has its traces; empty on a page that stands alone, whose nodes lead nowhere.
    """

    dagster: str = "http://127.0.0.1:3000"
    mlflow: str = "http://127.0.0.1:5000"
    traces: str = ""

    @classmethod
    def of(cls, dagster: str, mlflow: str) -> Links:
        """Of the addresses as settings have them."""
        return cls(dagster.rstrip("/"), mlflow.rstrip("/"))

    @classmethod
    def in_force(cls, settings: Settings) -> Links:
        """Of the settings and the environment: named pages, else the proxy's, else those of one machine.

        Through the proxy runs are opened where nothing can be started: every role that may see runs may go there.
        """
        served = public_url().rstrip("/") if behind_proxy() else ""
        dagster = settings.pages.dagster or (served and served + DAGSTER_READONLY) or settings.notify.page
        mlflow = settings.pages.mlflow or (served and served + MLFLOW) or mlflow_page()
        return cls.of(dagster, mlflow)

    def trace(self, kind: str, identifier: str) -> str:
        """The trace of a model, image, patient, batch, person or event in the web app; empty outside of it."""
        return f"{self.traces}/{kind}/{quote(identifier, safe='/')}" if self.traces and identifier else ""

    def dagster_run(self, run: str) -> str:
        """The page of a run in Dagster."""
        return f"{self.dagster}/runs/{quote(run, safe='')}"

    def mlflow_run(self, run: str) -> str:
        """The page of a run in MLflow."""
        return f"{self.mlflow}/#/runs/{quote(run, safe='')}"

    def model(self, name: str, version: str) -> str:
        """The page of a model version in MLflow."""
        return f"{self.mlflow}/#/models/{quote(name, safe='')}/versions/{quote(version, safe='')}"
