"""The part of the evaluation's page that says what blind reads make of the given labels' figures."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from radia.evaluate.figures import png, three_ways
from radia.evaluate.noisy import sentence
from radia.evaluate.page import Section, img_html
from radia.metrics import shown

TITLE = "Under label noise: given labels, blind reads, and both"
LINK = '<p><a href="noise.html">How noisy the labels are, how far readers agree, and what more reads would give</a></p>'
SIMULATED_BANNER = (
    '<p class="banner"><b>The readers are simulated.</b> This is the embedded hospital: no radiologist read anything. '
    "Invented readers with known error rates stand in, so that the whole way can be seen.</p>"
)
_WITHOUT_READS = """
<p class="lead">{sentence}</p>
<ul class="plain">
<li><b>Can be said:</b> how well each model reproduces the given labels, and which of the two does so better.</li>
<li><b>Cannot be said:</b> how often either is right. Where labels are wrong, a good model is marked down for it, and
AUROC, F1 and even the order of two models may be wrong, whatever the intervals say: they do not know of the noise.</li>
<li><b>What to do:</b> <code>radia reads plan --finding F --half-width 0.05</code> says how many blind reads are needed,
<code>radia reads queue --budget N</code> asks for them.</li>
</ul>"""


def noisy_section(evaluation: Mapping[str, Any]) -> Section:
    """The candidate by given labels, by reads alone and by both; without reads, what can and cannot be said."""
    estimates = evaluation.get("estimates") or {}
    if not estimates:
        return Section(TITLE, _WITHOUT_READS.format(sentence=escape(sentence(evaluation))) + LINK)
    banner = SIMULATED_BANNER if estimates.get("simulated") else ""
    figure = img_html(png(three_ways(_rows(evaluation))), "The candidate, estimated in three ways")
    note = (
        "<p class=note>Given labels: all images, the labels taken for true. Reads only: the re-read studies, each with "
        "weight 1 / sampling probability. Noise-aware: all studies, what is truly there being inferred from scores, "
        "given labels and reads. The candidate; bars are 95% intervals.</p>"
    )
    return Section(
        TITLE, f'{banner}<p class="lead">{escape(sentence(evaluation))}</p>{figure}{note}{_table(evaluation)}{LINK}'
    )


def _rows(evaluation: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    estimates, naive = evaluation["estimates"], evaluation["models"]["candidate"]
    alone = estimates["comparison"]["reads only"]["candidate"]
    aware = estimates["candidate"]
    rows = {
        f"{finding}  ({aware['findings'][finding]['read_positives']} of {aware['findings'][finding]['reads']})": {
            "given labels": naive["findings"][finding],
            "reads only": alone["findings"][finding],
            "noise-aware": aware["findings"][finding],
        }
        for finding in evaluation["findings"]
        if finding in aware["findings"]
    }
    means = {"given labels": naive, "reads only": alone, "noise-aware": aware}
    rows["mean"] = {way: table["means"]["all"] for way, table in means.items()}
    return rows


def _table(evaluation: Mapping[str, Any]) -> str:
    estimates = evaluation["estimates"]
    findings = estimates["candidate"]["findings"]
    gaps = estimates["comparison"]["difference"]
    rows = [_row(evaluation, finding, entry, gaps["findings"][finding]) for finding, entry in findings.items()]
    mean = {model: estimates[model]["means"]["all"] for model in ("base", "candidate")}
    rows.append(
        "<tr><td>mean<td><td>"
        + "<td>".join(escape(shown(value)) for value in (mean["base"]["auroc"], mean["candidate"]["auroc"]))
        + f"<td>{escape(shown(gaps['means']['all']['auroc'], signed=True))}"
        + f"<td>{escape(shown(mean['base']['f1']))}<td>{escape(shown(mean['candidate']['f1']))}<td></tr>"
    )
    return (
        '<div class="wide"><table class="numbers"><thead><tr><th>finding, noise-aware<th>read present / read'
        "<th>AUROC, model in use<th>AUROC, candidate<th>difference<th>F1, model in use<th>F1, candidate"
        f"<th>rests on</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _row(evaluation: Mapping[str, Any], finding: str, entry: Mapping[str, Any], gap: Mapping[str, Any]) -> str:
    base = evaluation["estimates"]["base"]["findings"][finding]
    cells = [
        escape(finding),
        f"{entry['read_positives']} / {entry['reads']}",
        escape(shown(base["auroc"])),
        escape(shown(entry["auroc"])),
        escape(shown(gap["auroc"], signed=True)),
        escape(shown(base["f1"])),
        escape(shown(entry["f1"])),
        f"<small>{escape(entry['estimator'])}</small>",
    ]
    return f"<tr>{''.join(f'<td>{cell}' for cell in cells)}</tr>"
