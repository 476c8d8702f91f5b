"""Notices to people: a run failed. By webhook (JSON) or e-mail; a notice names jobs, steps and kinds of errors only."""

from __future__ import annotations

import os
import smtplib
from dataclasses import asdict, dataclass
from email.message import EmailMessage

from radia.errors import NoticeError, SettingsError
from radia.settings import EmailSettings, NotifySettings


@dataclass(frozen=True)
class Notice:
    """What failed. `errors` are the names of classes: the text of an error may quote what it found in a file."""

    job: str
    run: str
    steps: tuple[str, ...]
    errors: tuple[str, ...]
    page: str

    @property
    def text(self) -> str:
        """The notice for a person."""
        where = f" in {', '.join(self.steps)}" if self.steps else ""
        kinds = f" ({', '.join(self.errors)})" if self.errors else ""
        return f"RADIA: {self.job} failed{where}{kinds}. See {self.page}"


def send(notice: Notice, settings: NotifySettings) -> list[str]:
    """Tells everyone the settings name, and returns how: nothing where nobody is named.

    One way that fails does not keep the others from being tried. Raises NoticeError after all were, SettingsError.
    """
    webhook = _webhook(settings)
    failed: dict[str, str | None] = {}
    if webhook:
        failed["webhook"] = _posted(notice, webhook, settings.timeout_seconds)
    if settings.email:
        failed["email"] = _mailed(notice, settings.email, settings.timeout_seconds)
    reasons = [why for why in failed.values() if why]
    if reasons:
        raise NoticeError(f"a notice could not be sent: {'; '.join(reasons)}")
    return list(failed)


def _webhook(settings: NotifySettings) -> str | None:
    if settings.webhook_variable is None:
        return settings.webhook
    address = os.environ.get(settings.webhook_variable)
    if not address:
        raise SettingsError(f"{settings.webhook_variable} is not set: expected the address of the webhook")
    return address


def _posted(notice: Notice, address: str, seconds: float) -> str | None:
    """None, or why not; without the address, which is often the secret."""
    import requests

    try:
        answer = requests.post(address, json={"text": notice.text, **asdict(notice)}, timeout=seconds)
    except requests.RequestException as error:
        return f"the webhook failed ({type(error).__name__})"
    return None if answer.ok else f"the webhook answered {answer.status_code}"


def _mailed(notice: Notice, settings: EmailSettings, seconds: float) -> str | None:
    """None, or why not."""
    message = EmailMessage()
    message["Subject"] = f"RADIA: {notice.job} failed"
    message["From"], message["To"] = settings.sender, ", ".join(settings.recipients)
    message.set_content(notice.text)
    try:
        with smtplib.SMTP(settings.host, settings.port, timeout=seconds) as server:
            if settings.starttls:
                import ssl

                server.starttls(context=ssl.create_default_context())
            if settings.user:
                server.login(settings.user, _password(settings))
            server.send_message(message)
    except (smtplib.SMTPException, OSError) as error:
        return f"the mail server failed ({type(error).__name__})"
    return None


def _password(settings: EmailSettings) -> str:
    password = os.environ.get(settings.password_variable or "")
    if not password:
        raise SettingsError(f"{settings.password_variable or 'password_variable'} is not set: expected a password")
    return password
