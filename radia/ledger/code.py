"""Which code wrote an event."""

import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path


@cache
def code_version() -> str:
    """The commit of this checkout, with `+changes` when files were changed since; else the version of the package."""
    here = Path(__file__).resolve()

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603
            ["git", "-C", str(here.parent), *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    try:
        if git("ls-files", "--error-unmatch", here.name).returncode:
            return f"radia {version('radia')}"  # installed, or beside a repository that is not RADIA's
        commit = git("rev-parse", "HEAD").stdout.strip()
        changed = git("status", "--porcelain", "--untracked-files=no").stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return f"radia {version('radia')}"
    return f"{commit}+changes" if changed else commit
