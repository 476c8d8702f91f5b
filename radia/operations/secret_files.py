"""The secrets of a served RADIA, made once, each in a file that its owner alone can read.

Passwords of databases stand in files as libpq reads them ($PGPASSFILE), one for each kind of service, so that none
holds a password it does not need.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from radia.errors import SettingsError

DATABASES = ("ledger", "mlflow", "dagster")
ADMINISTRATOR = "radia"
"""The role that owns the ledger's tables, and makes the other roles."""

PASSFILES = {
    "pgpass_admin": (ADMINISTRATOR, *DATABASES),
    "pgpass_code": ("ledger", "dagster"),
    "pgpass_dagster": ("dagster",),
    "pgpass_mlflow": ("mlflow",),
    "pgpass_web": ("ledger",),
}
"""Which roles' passwords each file holds."""


def write_secrets(folder: Path, *, host: str = "localhost") -> list[str]:
    """Makes what is missing in a folder, and leaves what is there. Returns the names that are new.

    host: the name under which people reach the proxy, for a certificate of its own signing, to begin with.
    Raises SettingsError where the folder holds only some of the passwords of databases.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = _write_database_passwords(folder)
    makers: dict[str, Callable[[], str]] = {
        "mlflow_admin_password": _password,
        "mlflow_pipeline_password": _password,
        "mlflow_web_password": _password,
        "mlflow_secret_key": _password,
        "pseudonyms_key": lambda: secrets.token_hex(32),
        "ledger_key": lambda: secrets.token_hex(32),
    }
    for name, make in makers.items():
        if not (folder / name).exists():
            _write(folder / name, make() + "\n")
            new.append(name)
    if not (folder / "tls_certificate").exists():
        certificate, key = _self_signed(host)
        _write(folder / "tls_certificate", certificate)
        _write(folder / "tls_key", key)
        new += ["tls_certificate", "tls_key"]
    return new


def _write_database_passwords(folder: Path) -> list[str]:
    names = ["postgres_password", *PASSFILES]
    there = [name for name in names if (folder / name).exists()]
    if len(there) == len(names):
        return []
    if there:
        missing = ", ".join(name for name in names if name not in there)
        raise SettingsError(f"{folder} holds some passwords of databases and lacks {missing}: they belong together")
    passwords = {role: _password() for role in (ADMINISTRATOR, *DATABASES)}
    _write(folder / "postgres_password", passwords[ADMINISTRATOR] + "\n")
    for name, roles in PASSFILES.items():
        _write(folder / name, "".join(f"*:*:*:{role}:{passwords[role]}\n" for role in roles))
    return names


def read_passwords(passfile: Path) -> dict[str, str]:
    """Role -> password of a file of `write_secrets`. Raises SettingsError."""
    try:
        lines = [line.split(":") for line in passfile.read_text().splitlines() if line and not line.startswith("#")]
        return {role: password for _, _, _, role, password in lines}
    except (OSError, ValueError) as error:
        raise SettingsError(f"{passfile.name} is not a password file as `radia secrets` writes it") from error


def _password() -> str:
    return secrets.token_urlsafe(32)


def _write(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _self_signed(host: str) -> tuple[str, str]:
    """A certificate and its key, PEM, for a year. Browsers warn of it until the hospital's own takes its place."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import NameOID

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])])
    try:
        alternative: x509.GeneralName = x509.IPAddress(ip_address(host))
    except ValueError:
        alternative = x509.DNSName(host)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=365))
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM).decode(), pem.decode()
