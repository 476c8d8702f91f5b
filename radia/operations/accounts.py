"""MLflow's accounts of RADIA itself: `pipeline`, which registers candidates, and `web`, which may only read.

MLflow makes its administrator by itself; people's accounts are that person's to make, in MLflow.
"""

from __future__ import annotations

import requests

from radia.errors import RegistryError, SettingsError
from radia.settings import secret

SERVICES = {"pipeline": "RADIA_MLFLOW_PIPELINE_PASSWORD", "web": "RADIA_MLFLOW_WEB_PASSWORD"}
"""Account -> the secret that holds its password."""


def make_accounts(url: str) -> list[str]:
    """Makes the accounts that are missing, and gives the others the password of their secret. Returns the new ones.

    url: MLflow's own address. Raises SettingsError, RegistryError.
    """
    administrator = secret("MLFLOW_AUTH_ADMIN_PASSWORD")
    passwords = {name: secret(variable) for name, variable in SERVICES.items()}
    if not administrator or not all(passwords.values()):
        raise SettingsError("the passwords of MLflow's accounts are not set: see `radia secrets`")
    new = []
    for name, password in passwords.items():
        answer = _ask("POST", f"{url}/api/2.0/mlflow/users/create", administrator, username=name, password=password)
        if answer.status_code == requests.codes.ok:
            new.append(name)
            continue
        path = f"{url}/api/2.0/mlflow/users/update-password"
        _expect(_ask("PATCH", path, administrator, username=name, password=password), name)
    return new


def _ask(method: str, url: str, administrator: str, **values: str | None) -> requests.Response:
    try:
        return requests.request(method, url, json=values, auth=("admin", administrator), timeout=60)
    except requests.RequestException as error:
        raise RegistryError(f"MLflow does not answer: {type(error).__name__}") from error


def _expect(answer: requests.Response, name: str) -> None:
    if not answer.ok:
        raise RegistryError(f"MLflow refuses to make the account {name}: it answered {answer.status_code}")
