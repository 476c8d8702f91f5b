"""`make audit`. Ends with status 1 where a pinned version has a known weakness or bandit finds something severe."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.audit.check import LIST, asked, listed

LOCK = Path("requirements.lock")
BILL = Path("data/sbom.cdx.json")


def main() -> None:
    found = asked(LOCK)
    where = "PyPI's database" if found is not None else f"{LIST.name}, because no database of advisories was reached"
    weaknesses = listed(LOCK) if found is None else found
    print(f"{LOCK} against {where}: {len(weaknesses)} known weaknesses")
    for weakness in weaknesses:
        print(f"  {weakness.package} {weakness.version}: {weakness.advisory} {weakness.what}")
    bandit = [sys.executable, "-m", "bandit", "-q", "-r", "radia", "pipelines", "--severity-level", "high"]
    severe = subprocess.run(bandit).returncode
    print(f"bandit: {'see above' if severe else 'nothing severe'} (the others are ruff's rules S, in `make lint`)")
    BILL.parent.mkdir(parents=True, exist_ok=True)
    made = ["environment", "--pyproject", "pyproject.toml", "--output-reproducible", "-o", str(BILL), sys.executable]
    subprocess.run([sys.executable, "-m", "cyclonedx_py", *made], check=True)
    print(f"bill of materials (CycloneDX): {BILL}")
    sys.exit(bool(weaknesses) or severe)


if __name__ == "__main__":
    main()
