"""Reports labelled per second on one core, beside a negation pipeline on spaCy over the same reports.

    python benchmarks/reports.py [--reports CSV] [--repeat 3]

Without a CSV the reports are the French ones of tests/spec, which are short; real ones (`id,text`) give the number that
counts. CPU time, so that a busy machine hardly changes it; every report is labelled from scratch. The rival is negspacy
(NegEx, Chapman et al. 2001) over a blank English spaCy pipeline with a sentence splitter and 11 words of findings: far
less work, and it reads no French and no section. Where spaCy and negspacy are not installed, only our line is printed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORDS = (
    "cardiomegaly opacity nodule edema consolidation pneumonia atelectasis pneumothorax effusion thickening fracture"
)


def texts_of(path: Path | None) -> list[str]:
    if path is not None:
        from radia.reports import read_report_table

        return [str(text) for text in read_report_table(path)["text"]]
    lines = (ROOT / "tests" / "spec" / "french_reports.txt").read_text(encoding="utf-8").splitlines()
    return [line.split("|", 1)[1].strip() for line in lines if line[:1] not in ("#", "")]


def per_second(label: Callable[[str], object], texts: list[str], repeat: int) -> float:
    """The best of some rounds."""
    label(texts[0])
    best = 0.0
    for _ in range(repeat):
        start = time.process_time()
        for text in texts:
            label(text)
        best = max(best, len(texts) / (time.process_time() - start))
    return best


def spacy_pipeline() -> Callable[[str], object] | None:
    if find_spec("spacy") is None or find_spec("negspacy") is None:
        return None
    import spacy
    from negspacy.negation import Negex  # noqa: F401 registers "negex"

    pipeline = spacy.blank("en")
    pipeline.add_pipe("sentencizer")
    ruler = pipeline.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "FINDING", "pattern": [{"LOWER": word}]} for word in WORDS.split()])
    pipeline.add_pipe("negex", config={"ent_types": ["FINDING"]})
    return pipeline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reports", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    texts = texts_of(arguments.reports)
    if find_spec("radia") is None:
        raise SystemExit("radia is not installed here")
    from radia.reports import label_report

    result: dict[str, object] = {"reports": len(texts), "characters": round(sum(map(len, texts)) / len(texts))}
    ours = per_second(label_report, texts, arguments.repeat)
    result["radia per second"] = round(ours)
    pipeline = spacy_pipeline()
    if pipeline is not None:
        theirs = per_second(pipeline, texts, arguments.repeat)
        result |= {"spacy + negspacy per second": round(theirs), "ratio": round(ours / theirs, 2)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
