"""From a person's word to the model in use: the rules that stand between, and the record of who decided what.

A person approves a candidate in MLflow by its tags (`approval`, `approver`, `reason`, and `override` where the gate
failed) or by copying it to `cxr`; or says it on the command line. Here the evidence that MLflow and the ledger keep is
re-checked and judged by the gate again before anything changes. MLflow itself is `radia.registry`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from radia import digests, gate, registry
from radia.errors import PromotionRefused
from radia.ledger import Action, Event, Ledger
from radia.registry import CANDIDATE, MODEL, Approval, Promotion
from radia.settings import GateSettings
from radia.workspace import Workspace

_CHANGES = (Action.PROMOTE, Action.ROLLBACK)
"""Events after which another model is in use."""


@dataclass(frozen=True)
class Acted:
    """What became of one decision: `promoted`, `rejected` or `refused`, and why. `version`: what is in use now."""

    candidate: str
    outcome: str
    approver: str
    why: str
    version: str = ""
    override: str = ""


def act_on_approvals(site: Workspace, ledger: Ledger, *, settings: GateSettings, actor: str) -> list[Acted]:
    """Acts on everything that people decided in MLflow since the last time.

    Two candidates approved at once contradict each other: neither is put in use until one is left.
    """
    waiting = registry.approvals(site)
    approved = [one for one in waiting if one.verdict == "approved"]
    if len(approved) > 1:
        numbers = " and ".join(one.candidate.version for one in approved)
        why = f"candidates {numbers} are approved at once: leave one approved and set the others back to pending"
        return [
            *(_act(site, ledger, one, settings, actor) for one in waiting if one not in approved),
            *(_refused(site, ledger, one, actor, why) for one in approved),
        ]
    return [_act(site, ledger, one, settings, actor) for one in waiting]


def promote(
    site: Workspace,
    ledger: Ledger,
    version: str,
    *,
    approver: str,
    reason: str,
    override: str = "",
    settings: GateSettings,
    actor: str = "",
) -> Promotion:
    """Puts a candidate in use on a person's word. actor: the account that acts; the approver's own if empty.

    Raises PromotionRefused, RegistryError. Said twice, it is done and recorded once.
    """
    said = registry.approval_of(site, version)
    approval = replace(
        said, verdict="approved", approver=approver.strip(), reason=reason.strip(), override=override.strip()
    )
    return _promote(site, ledger, approval, settings, actor or approver)


def reject(site: Workspace, ledger: Ledger, version: str, *, approver: str, reason: str, actor: str = "") -> Acted:
    """Records a person's refusal of a candidate. Raises RegistryError."""
    said = registry.approval_of(site, version)
    approval = replace(said, verdict="rejected", approver=approver.strip(), reason=reason.strip(), override="")
    return _reject(site, ledger, approval, actor or approver)


def roll_back(site: Workspace, ledger: Ledger, *, actor: str, reason: str) -> Promotion:
    """Puts the previous model in use again. Raises RegistryError."""
    if not reason.strip():
        raise PromotionRefused("a reason is needed: it stays in the record")
    with registry.one_at_a_time(site):
        done = registry.roll_back(site)
        before = {done.previous.uri.removeprefix("mlflow:"): done.previous.run_id} if done.previous else {}
        after = {f"{MODEL}/{done.version.version}": done.version.run_id}
        said = {"approver": actor, "reason": reason}
        ledger.append(Action.ROLLBACK, actor=actor, inputs=before, outputs=after, parameters=said)
    return done


def check(site: Workspace, ledger: Ledger, approval: Approval, settings: GateSettings) -> gate.Decision:
    """Whether nothing stands against an approval: who said it, the record, the evidence, the gate.

    The gate's own decision now, on the recorded evaluation and under the rules in force. Raises PromotionRefused.
    """
    if not approval.approver:
        raise PromotionRefused("nobody is named as the approver: set the tag `approver`")
    if settings.approvers and approval.approver not in settings.approvers:
        raise PromotionRefused("the approver is not among those whom params.yaml lists under gate.approvers")
    if not approval.reason:
        raise PromotionRefused("no reason is given: set the tag `reason`")
    _check_record(site, ledger, approval)
    evidence = registry.evidence(site, approval.candidate)
    decision = gate.decide(evidence.evaluation, settings)
    recorded = bool(evidence.decision.get("passed"))
    if not (decision.passed and recorded) and not approval.override:
        failed = ", ".join(rule.name for rule in decision.blocking()) or "the decision at registration"
        raise PromotionRefused(f"the gate did not pass ({failed}): approval needs the tag `override` with a reason")
    return decision


def _check_record(site: Workspace, ledger: Ledger, approval: Approval) -> None:
    """MLflow must still say what the ledger recorded at registration."""
    candidate = approval.candidate
    registered = _registration(ledger, candidate.version, candidate.run_id)
    for name in (*registry.EVIDENCE, "decision"):
        if registered.inputs.get(name) != candidate.tags.get(name):
            raise PromotionRefused(f"the tag `{name}` of {candidate.uri} is not what the ledger recorded")
    record = registered.outputs.get("record")
    if record is not None and record != registry.record_digest(site, CANDIDATE, candidate.version):
        raise PromotionRefused(f"what MLflow keeps of {candidate.uri} was changed after it was registered")


def _registration(ledger: Ledger, version: str, run_id: str) -> Event:
    name = f"{CANDIDATE}/{version}"
    found = [event for event in ledger.events(action=Action.REGISTER, term=name) if event.outputs.get(name) == run_id]
    if not found:
        raise PromotionRefused(f"the ledger has no registration of {name}: it did not come out of this pipeline")
    return found[-1]


def _act(site: Workspace, ledger: Ledger, approval: Approval, settings: GateSettings, actor: str) -> Acted:
    if approval.verdict == "rejected":
        return _reject(site, ledger, approval, actor)
    if approval.verdict != "approved":
        return _refused(site, ledger, approval, actor, "the tag `approval` must be pending, approved or rejected")
    try:
        done = _promote(site, ledger, approval, settings, actor)
    except PromotionRefused as error:
        return _refused(site, ledger, approval, actor, str(error))
    version = f"{MODEL}/{done.version.version}"
    return Acted(approval.candidate.version, "promoted", approval.approver, approval.reason, version, approval.override)


def _promote(site: Workspace, ledger: Ledger, approval: Approval, settings: GateSettings, actor: str) -> Promotion:
    with registry.one_at_a_time(site):
        decision = check(site, ledger, approval, settings)
        done = registry.put_in_use(site, approval)
        version, previous = f"{MODEL}/{done.version.version}", done.previous
        last = next(iter(ledger.events(action=_CHANGES, newest_first=True, limit=1)), None)
        if done.new or last is None or version not in last.outputs:  # a call that was killed is recorded by the next
            name = f"{CANDIDATE}/{approval.candidate.version}"
            ledger.append(
                Action.PROMOTE,
                actor=actor,
                inputs={name: approval.candidate.run_id, **_evidence_of(approval)},
                outputs={version: done.version.run_id},
                parameters={
                    "approver": approval.approver,
                    "reason": approval.reason,
                    "override": approval.override,
                    "gate": decision.as_json(),
                    "previous": previous.uri.removeprefix("mlflow:") if previous else "",
                },
            )
        registry.mark_acted(site, approval)
    return done


def _evidence_of(approval: Approval) -> dict[str, str]:
    return {name: approval.candidate.tags[name] for name in (*registry.EVIDENCE, "decision")}


def _reject(site: Workspace, ledger: Ledger, approval: Approval, actor: str) -> Acted:
    ledger.append(
        Action.REJECT,
        actor=actor,
        inputs={f"{CANDIDATE}/{approval.candidate.version}": approval.candidate.run_id},
        parameters={"approver": approval.approver, "reason": approval.reason},
        once=digests.of_json(["reject", approval.candidate.uri, approval.candidate.run_id, approval.key]),
    )
    registry.mark_acted(site, approval)
    return Acted(approval.candidate.version, "rejected", approval.approver, approval.reason)


def _refused(site: Workspace, ledger: Ledger, approval: Approval, actor: str, why: str) -> Acted:
    """An approval that the rules do not allow: said on the candidate and in the ledger, once for each decision."""
    ledger.append(
        Action.REJECT,
        actor=actor,
        inputs={f"{CANDIDATE}/{approval.candidate.version}": approval.candidate.run_id},
        parameters={"approver": approval.approver, "reason": approval.reason, "refused": why},
        once=digests.of_json(["refuse", approval.candidate.uri, approval.candidate.run_id, approval.key, why]),
    )
    registry.mark_acted(site, approval, refused=why)
    return Acted(approval.candidate.version, "refused", approval.approver, why)
