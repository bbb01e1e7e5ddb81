"""The main job with nothing imitated: Chromium, gunicorn, the scheduler, Slurm 22.05, Prometheus.

Somebody registers, applies, is approved, books; slurmctld holds the reservation; a job runs in it; its
GPU-seconds come back to the page and to PromQL.
"""

from __future__ import annotations

import email
import email.policy
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from config.clock import utcnow
from config.labs.native import NativeLab
from tests.e2e.processes import environment, scheduler, seconds_until
from tests.e2e.prometheus import prometheus

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(420)]

TOKEN = "a-token-for-this-test-alone"
PASSWORD = "seven quiet steppe foxes"
ALMATY = ZoneInfo("Asia/Almaty")
SHORT = {
    "boundary_minutes = 60": "boundary_minutes = 1",
    "min_minutes = 60": "min_minutes = 1",
}
IIN = "850101300015"
TITLE = "Субтитры для сельских школ"
JOB = "#!/bin/sh\nsleep 20\n"
NEWCOMER, OPERATOR = "newcomer@example.kz", "operator@example.kz"


@dataclass(frozen=True)
class Running:
    """A site whose web server and scheduler are processes of their own."""

    url: str
    target: str
    mail: Path

    def letter_link(self, recipient: str, part: str) -> str:
        """The link below `part` in the newest letter to `recipient`, once it has been sent."""
        pattern = re.compile(re.escape(self.url) + rf"({part}\S+)")
        found: list[str] = []

        def sent() -> bool:
            files = sorted(self.mail.glob("*"), key=lambda path: path.stat().st_mtime)
            letters = [
                email.message_from_bytes(file.read_bytes(), policy=email.policy.default) for file in files
            ]
            own = [str(letter.get_content()) for letter in letters if recipient in str(letter["To"])]
            found[:] = [link for text in own for link in pattern.findall(text)]
            return bool(found)

        seconds_until(sent, 30)
        return found[-1]


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def web(env: Mapping[str, str], url: str) -> Iterator[None]:
    """`kezek web` until the end of the block."""
    process = subprocess.Popen([sys.executable, "-m", "config.cli", "web"], env=dict(env))
    try:
        port = int(url.rpartition(":")[2])
        seconds_until(lambda: answers(port), 30)
        yield
    finally:
        process.terminate()
        process.wait(timeout=20)


@contextmanager
def running(lab: NativeLab, database_url: str, folder: Path) -> Iterator[Running]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    policy = (Path(__file__).parents[2] / "config" / "policy.toml").read_text(encoding="utf-8")
    for rule, shorter in SHORT.items():
        assert rule in policy
        policy = policy.replace(rule, shorter)
    (folder / "policy.toml").write_text(policy, encoding="utf-8")
    cluster = {
        "slug": "alem",
        "adapter": "slurm_cli",
        "slurm_conf": str(lab.slurm_conf),
        "env": dict(lab.env),
    }
    env = environment(database_url, folder, cluster) | {
        "KEZEK_PORT": str(port),
        "KEZEK_POLICY_FILE": str(folder / "policy.toml"),
        "KEZEK_METRICS_TOKEN": TOKEN,
        "KEZEK_FORBIDDEN_LOGINS": "root,slurm",
        "KEZEK_DEFAULT_LANGUAGE": "en",
    }
    url = f"http://127.0.0.1:{port}"
    kezek(
        env,
        "user",
        "add",
        "--email",
        OPERATOR,
        "--name",
        "Gulnar E.",
        "--locale",
        "en",
        "--role",
        "operator",
        "--password-stdin",
    )
    with web(env, url), scheduler(env):
        yield Running(url, f"127.0.0.1:{port}", folder / "mail")


def kezek(env: Mapping[str, str], *arguments: str) -> str:
    command = [sys.executable, "-m", "config.cli", *arguments]
    done = subprocess.run(command, env=dict(env), input=PASSWORD, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_from_registration_to_promql(
    own_lab: NativeLab, postgres_url: str, browser: Browser, tmp_path: Path
) -> None:
    with (
        running(own_lab, postgres_url, tmp_path) as site,
        prometheus(tmp_path, site.target, TOKEN) as prom,
    ):
        newcomer, operator = (browser.new_context(base_url=site.url, locale="en-GB") for _ in range(2))
        for context in (newcomer, operator):
            context.set_default_timeout(40_000)
        register(newcomer.new_page(), site)
        application = apply(newcomer.pages[0])
        approve(operator, application, own_lab.job_user)
        booking, command = book(newcomer.pages[0])

        assert reservation_of(own_lab, booking)["Accounts"] == command["account"]
        job = own_lab.sbatch([f"--{name}={value}" for name, value in command.items()], JOB)
        page_shows_use(newcomer.pages[0], booking)

        project = f'{{project="{command["account"]}"}}'
        told = told_by_sacct(own_lab, job)
        assert told >= 8 * 20
        assert prom.wait_for(f"kezek_used_gpu_seconds_total{project}", told, 60) == told
        assert prom.scalar(f"kezek_quota_gpu_seconds{project} / 3600") == 50
        assert prom.scalar(f"kezek_booked_gpu_seconds{project}") == 8 * 3600
        assert prom.scalar('sum(kezek_cluster_gpus{cluster="alem",gpu_type="h200"})') == 32
        assert prom.scalar('kezek_reservations{cluster="alem",state="reserved"}') == 1
        assert prom.scalar("min(kezek_scrape_ok)") == 1
        prom.wait_for('sum(kezek_http_request_duration_seconds_count{view="bookings.show"})', 1, 10)
        newcomer.close()
        operator.close()


def register(page: Page, site: Running) -> None:
    page.goto("/account/register")
    page.get_by_label("E-mail").fill(NEWCOMER)
    page.get_by_label("Name", exact=False).first.fill("Timur Akhmetov")
    for field in page.locator('main input[type="password"]').all():
        field.fill(PASSWORD)
    page.locator("main form button[type=submit]").click()
    page.goto(site.letter_link(NEWCOMER, "/account/confirm/"))
    page.locator('input[name="password"]').fill(PASSWORD)
    page.locator("main form button[type=submit]").click()
    sign_in(page, NEWCOMER)
    page.goto("/account")
    page.locator('input[name="iin"]').fill(IIN)
    page.locator("main form button[type=submit]").first.click()


def sign_in(page: Page, email: str) -> None:
    page.goto("/account/sign-in")
    page.locator('input[name="email"]').fill(email)
    page.locator('input[name="password"]').fill(PASSWORD)
    page.locator("main form button[type=submit]").click()
    page.get_by_role("button", name="Sign out").wait_for()


def apply(page: Page) -> str:
    """Fill in, check, submit; returns the application's number."""
    today = utcnow().astimezone(ALMATY).date()
    page.goto("/applications/new")
    page.get_by_role("radio", name="Citizen").check()
    page.locator('[name="title"]').fill(TITLE)
    page.locator('[name="purpose"]').fill("Translate open subtitles and publish code and weights.")
    page.locator('[name="nodes"]').fill("1")
    page.locator('[name="gpus_per_node"]').fill("8")
    page.locator('[name="gpu_hours"]').fill("80")
    page.locator('[name="earliest"]').fill(today.isoformat())
    page.locator('[name="latest"]').fill((today + timedelta(days=30)).isoformat())
    page.get_by_role("button", name="Save and continue").click()
    page.get_by_role("button", name="Submit the application").click()
    page.get_by_text("Being considered").first.wait_for()
    return page.url.rpartition("/")[2].partition("?")[0]


def approve(context: BrowserContext, application: str, login: str) -> None:
    """Reduce 80 GPU-hours to 50 with a reason, and give the applicant the login that runs jobs."""
    page = context.new_page()
    sign_in(page, OPERATOR)
    page.goto("/review")
    page.get_by_role("link", name=TITLE).click()
    assert page.url.endswith(f"/review/{application}")
    page.locator('[name="kind"][value="reduced"]').check()
    page.locator('[name="gpu_hours"]').fill("50")
    page.locator('[name="reason"]').fill("50 GPU-hours are enough for the first stage.")
    page.locator('[name^="login_"]').fill(login)
    page.get_by_role("button", name="See what this will do").click()
    page.get_by_role("button", name="Record the decision").click()
    page.get_by_text("The decision is recorded").wait_for()


def book(page: Page) -> tuple[str, dict[str, str]]:
    """A node for an hour as soon as possible; the booking's number and its sbatch options once it runs."""
    page.goto("/")
    page.get_by_role("link", name="Book GPUs").first.click()
    page.locator('[name="hours"]').fill("1")
    page.locator('[name="nodes"]').fill("1")
    page.locator('[name="gpus_per_node"]').fill("8")
    page.get_by_role("button", name="As soon as possible").click()
    page.get_by_role("button", name="Hold this time").first.click()
    page.get_by_role("button", name="Book it").click()
    page.wait_for_url(re.compile(r"/bookings/\d+"))
    address = page.url

    def begun() -> bool:
        page.goto(address)
        return page.get_by_text("Your booked time is running").count() > 0 and page.locator("pre").count() > 0

    seconds_until(begun, 240)  # it begins in one to two minutes, by the policy's lead
    line = page.locator("pre").first.inner_text()
    options = dict(re.findall(r"--([a-z-]+)=(\S+)", line))
    return address.rpartition("/")[2], options


def reservation_of(lab: NativeLab, booking: str) -> dict[str, str]:
    """What slurmctld itself says of the booking's reservation."""
    said = lab.run("scontrol", "-o", "show", "reservation", f"kezek-{booking}")
    return dict(pair.split("=", 1) for pair in said.split() if "=" in pair)


def page_shows_use(page: Page, booking: str) -> None:
    """The job's GPU-hours arrive on the booking's page without anybody doing anything."""

    def shown() -> bool:
        page.goto(f"/bookings/{booking}")
        return re.search(r"Jobs used 0,0[1-9]", page.locator("main").inner_text()) is not None

    seconds_until(shown, 60)


def told_by_sacct(lab: NativeLab, job: int) -> float:
    """GPU-seconds of the job as Slurm's own accounting has them once it is over."""

    def record() -> list[str]:
        text = lab.run("sacct", "-X", "-n", "-P", "-j", str(job), "-o", "state,elapsedraw,alloctres")
        return text.strip().split("|")

    seconds_until(lambda: record()[0] == "COMPLETED", 60)
    _, elapsed, tres = record()
    gpus = dict(pair.split("=") for pair in tres.split(","))["gres/gpu"]
    return float(elapsed) * float(gpus)
