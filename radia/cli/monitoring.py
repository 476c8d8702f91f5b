"""Watching what comes in."""

from __future__ import annotations

from pathlib import Path

from radia.cli.frame import main, opened, params_option, prints


@main.command()
@params_option
@prints
def monitor(params: Path | None) -> tuple[object, str]:
    """Compare new batches with what the model in use was made on; propose to train again where a rule says so."""
    from radia import steps

    with opened(params) as site:
        watch = steps.monitor(site)
    lines = [f"{watch.model or 'no model'} in use"]
    for one in watch.batches:
        moved = ", ".join(one.summary["shifted"]) or "nothing moved"
        lines.append(f"{one.summary['batch']}: {one.summary['images']} images, {moved}")
    if not watch.batches:
        lines.append("no batch came in since what the model in use was made on")
    lines += [
        f"{trigger['name']}: {trigger['observed']} ({trigger['bound']}){': met' if trigger['met'] else ''}"
        for trigger in watch.proposal["triggers"]
    ]
    lines.append("it is time to train again" if watch.proposal["retrain"] else "no need to train again")
    return watch.as_json(), "\n".join(lines)
