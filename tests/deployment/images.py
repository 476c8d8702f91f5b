"""What the images that RADIA does not build do when they start: PostgreSQL's and Orthanc's entry points, in short."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tests.unit.test_ledger_postgres import BINARIES

ORTHANC_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def postgres(environment: Mapping[str, str]) -> list[str]:
    """initdb where there is no cluster yet, then the server, asking everybody from elsewhere for a password."""
    folder, user, password = (environment[name] for name in ("PGDATA", "POSTGRES_USER", "POSTGRES_PASSWORD_FILE"))
    make = f"{BINARIES}/initdb -D {folder} -U {user} --pwfile={password} --auth-local=trust --auth-host=scram-sha-256"
    allow = f"echo 'host all all all scram-sha-256' >> {folder}/pg_hba.conf"
    serve = f"exec {BINARIES}/postgres -D {folder} -c listen_addresses='*' -c unix_socket_directories=/run/postgresql"
    return ["sh", "-ec", f"if ! [ -f {folder}/PG_VERSION ]; then {make} && {allow}; fi; {serve}"]


def orthanc(environment: Mapping[str, str]) -> list[str]:
    """Orthanc with DICOMweb; `ORTHANC__A_B` in the environment is the setting `AB` of its configuration."""
    settings = {
        "StorageDirectory": "/var/lib/orthanc/db",
        "IndexDirectory": "/var/lib/orthanc/db",
        "RemoteAccessAllowed": True,
        "AuthenticationEnabled": json.loads(environment["ORTHANC__AUTHENTICATION_ENABLED"]),
        "DicomModalities": json.loads(environment["ORTHANC__DICOM_MODALITIES"]),
        "Plugins": [str(ORTHANC_PLUGIN)],
        "DicomWeb": {"Enable": json.loads(environment["DICOM_WEB_PLUGIN_ENABLED"])},
    }
    return ["sh", "-ec", f"echo '{json.dumps(settings)}' > /tmp/orthanc.json; exec Orthanc /tmp/orthanc.json"]


COMMANDS = {"postgres": postgres, "orthanc": orthanc}
