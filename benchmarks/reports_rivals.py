"""Negation pipelines on spaCy over the reports on standard input; started by benchmarks/reports.py, never alone.

Runs in an environment of its own (`python -m venv rivals && rivals/bin/pip install spacy negspacy medspacy`) and
imports nothing of RADIA. Input: a JSON list of texts and how many rounds to time. Output: for each pipeline the
reports per second of CPU time (the best round), and for each report the findings that it calls present.

Both look for CheXpert's commonest words per finding over a blank English pipeline with a sentence splitter: negspacy
denies by NegEx (Chapman et al. 2001), medspacy by ConText (Harkema et al. 2009; denied, possible, of the past, of the
family and hypothetical are all left out) after its sectionizer. They read no French.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

WORDS = {
    "Enlarged Cardiomediastinum": ["mediastinal widening", "widened mediastinum", "enlarged mediastinum"],
    "Cardiomegaly": ["cardiomegaly", "enlarged heart", "heart is enlarged", "cardiac enlargement"],
    "Lung Opacity": ["opacity", "opacities", "infiltrate", "infiltrates", "airspace disease", "scarring", "density"],
    "Lung Lesion": ["nodule", "nodules", "mass", "masses", "lesion"],
    "Edema": ["edema", "heart failure", "vascular congestion"],
    "Consolidation": ["consolidation", "consolidations"],
    "Pneumonia": ["pneumonia", "infection"],
    "Atelectasis": ["atelectasis", "atelectases", "atelectatic"],
    "Pneumothorax": ["pneumothorax", "pneumothoraces"],
    "Pleural Effusion": ["effusion", "effusions", "pleural fluid"],
    "Pleural Other": ["pleural thickening", "pleural plaque"],
    "Fracture": ["fracture", "fractures"],
    "Support Devices": ["tube", "catheter", "pacemaker", "line", "device", "sternotomy", "stent"],
}


def negspacy() -> Callable[[str], list[str]]:
    import spacy
    from negspacy.negation import Negex  # noqa: F401 registers "negex"

    pipeline = spacy.blank("en")
    pipeline.add_pipe("sentencizer")
    patterns = [{"label": finding, "pattern": words} for finding, listed in WORDS.items() for words in listed]
    pipeline.add_pipe("entity_ruler", config={"phrase_matcher_attr": "LOWER"}).add_patterns(patterns)
    pipeline.add_pipe("negex", config={"ent_types": list(WORDS)})
    return lambda text: sorted({entity.label_ for entity in pipeline(text).ents if not entity._.negex})


def medspacy() -> Callable[[str], list[str]]:
    import medspacy as package
    from medspacy.ner import TargetRule

    pipeline: Any = package.load(enable=["medspacy_pyrush", "medspacy_target_matcher", "medspacy_context"])
    pipeline.add_pipe("medspacy_sectionizer")
    rules = [TargetRule(words, finding) for finding, listed in WORDS.items() for words in listed]
    pipeline.get_pipe("medspacy_target_matcher").add(rules)

    def label(text: str) -> list[str]:
        told = set()
        for entity in pipeline(text).ents:
            asides = (entity._.is_negated, entity._.is_uncertain, entity._.is_historical, entity._.is_family)
            if not any((*asides, entity._.is_hypothetical)):
                told.add(entity.label_)
        return sorted(told)

    return label


def measured(label: Callable[[str], list[str]], texts: list[str], rounds: int) -> dict[str, Any]:
    present = [label(text) for text in texts]
    best = 0.0
    for _ in range(rounds):
        start = time.process_time()
        for text in texts:
            label(text)
        best = max(best, len(texts) / (time.process_time() - start))
    return {"per second": round(best, 1), "present": present}


def main() -> None:
    task = json.load(sys.stdin)
    found: dict[str, Any] = {}
    for name, make in (("spacy + negspacy", negspacy), ("medspacy (ConText)", medspacy)):
        try:
            label = make()
        except (ImportError, OSError, ValueError) as error:
            found[name] = {"missing": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
            continue
        found[name] = measured(label, task["texts"], task["rounds"])
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
