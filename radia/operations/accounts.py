"""MLflow's accounts: RADIA's own, `pipeline`, which registers candidates, and `web`, which may only read; approvers.

MLflow makes its administrator by itself. Everybody with an account may read; who approves may also edit candidates.
"""

from __future__ import annotations

import requests

from radia.errors import RegistryError, SettingsError
from radia.registry import CANDIDATE
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


def make_approver(url: str, name: str, password: str) -> None:
    """Makes a person's account, who may then approve or reject candidates in MLflow. Said twice, it is done once.

    An account that is there keeps its password. Raises SettingsError, RegistryError.
    """
    administrator = secret("MLFLOW_AUTH_ADMIN_PASSWORD")
    if not administrator:
        raise SettingsError("the password of MLflow's administrator is not set: see `radia secrets`")
    made = _ask("POST", f"{url}/api/2.0/mlflow/users/create", administrator, username=name, password=password)
    if made.status_code != requests.codes.ok and "RESOURCE_ALREADY_EXISTS" not in made.text:
        _expect(made, name)
    wanted = {"resource_type": "registered_model", "resource_id": CANDIDATE, "permission": "EDIT"}
    granted = _ask("POST", f"{url}/api/3.0/mlflow/users/permissions/grant", administrator, username=name, **wanted)
    if granted.status_code != requests.codes.ok and "RESOURCE_ALREADY_EXISTS" not in granted.text:
        _expect(granted, name)


def _ask(method: str, url: str, administrator: str, **values: str | None) -> requests.Response:
    try:
        return requests.request(method, url, json=values, auth=("admin", administrator), timeout=60)
    except requests.RequestException as error:
        raise RegistryError(f"MLflow does not answer: {type(error).__name__}") from error


def _expect(answer: requests.Response, name: str) -> None:
    if not answer.ok:
        raise RegistryError(f"MLflow refuses to make the account {name}: it answered {answer.status_code}")
