"""Runs another tool for de-identification over a folder. Called by deidentify.py with the Python that has the tool.

usage: python deidentify_rivals.py NAME SOURCE TARGET ROUNDS
prints {"cpu": seconds of the best round, "failed": files that raised}, or {"absent": why}
"""

from __future__ import annotations

import json
import logging
import resource
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path


def dicom_anonymizer() -> Callable[[Path, Path], None]:
    from dicomanonymizer.simpledicomanonymizer import anonymize_dicom_file

    return lambda source, target: anonymize_dicom_file(str(source), str(target))


def dentdeid() -> Callable[[Path, Path], None]:
    import pydicom
    from dentdeid.dicom.meta import MetaConfig, deidentify_dataset, replace_file_meta  # type: ignore[import-not-found]
    from dentdeid.keys import Pseudonymizer  # type: ignore[import-not-found]

    names, options = Pseudonymizer(bytes(32)), MetaConfig()

    def clean(source: Path, target: Path) -> None:
        dataset = pydicom.dcmread(source)
        deidentify_dataset(dataset, options, names)
        replace_file_meta(dataset)
        dataset.save_as(target)

    return clean


def by_file(clean: Callable[[Path, Path], None], source: Path, target: Path, rounds: int) -> dict[str, object]:
    best, failed = float("inf"), 0
    for _ in range(rounds):
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        failed, start = 0, time.process_time()
        for path in sorted(source.iterdir()):
            try:
                clean(path, target / path.name)
            except Exception:
                failed += 1
                (target / path.name).unlink(missing_ok=True)
        best = min(best, time.process_time() - start)
    return {"cpu": best, "failed": failed}


def gdcmanon(source: Path, target: Path, rounds: int) -> dict[str, object]:
    """The Basic Profile of gdcmanon, which wants a certificate to encrypt what it takes out."""
    beside = Path(sys.executable).parent / "gdcmanon"
    command = str(beside) if beside.exists() else shutil.which("gdcmanon")
    if command is None or shutil.which("openssl") is None:
        return {"absent": "gdcmanon or openssl is not installed"}
    pem = target.parent / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "/dev/null", "-out", str(pem)]
    subprocess.run([*make, "-days", "2", "-subj", "/CN=benchmark"], check=True, capture_output=True)
    best, failed = float("inf"), 0
    for _ in range(rounds):
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [command, "-c", str(pem), "-e", "-r", "--continue", "-i", str(source), "-o", str(target)],
            capture_output=True,
            check=False,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        missing = [path for path in source.iterdir() if not (target / path.name).exists()]
        for path in missing if rounds == 1 else ():  # one file that it refuses ends its run over a folder
            one = [command, "-c", str(pem), "-e", "-i", str(path), "-o", str(target / path.name)]
            subprocess.run(one, capture_output=True, check=False)
        failed = sum(not (target / path.name).exists() for path in missing)
    return {"cpu": best, "failed": failed}


def main(name: str, source: Path, target: Path, rounds: int) -> dict[str, object]:
    if name == "gdcmanon":
        return gdcmanon(source, target, rounds)
    try:
        clean = {"dicom-anonymizer": dicom_anonymizer, "dentdeid": dentdeid}[name]()
    except ImportError as error:
        return {"absent": f"no module {error.name}"}
    return by_file(clean, source, target, rounds)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable()
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        result = main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
    print(json.dumps(result))
