"""`kezek web`: the web server, gunicorn with threads."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click

TIMEOUT_SECONDS = 60  # a worker that hangs is restarted; no page takes this long


@click.command()
def web() -> None:
    """Run the web server."""
    from allocator.policy import load_policy
    from config.settings import load_settings

    settings = load_settings()
    load_policy(settings.policy_file)  # a faulty one is told here, before workers die of it one by one
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(_fresh_folder(settings.data_dir / "http-metrics"))
    arguments = [
        f"--bind={host}:{settings.port}",
        f"--workers={settings.web_workers}",
        f"--threads={settings.web_threads}",
        "--worker-class=gthread",
        f"--timeout={TIMEOUT_SECONDS}",
        "--graceful-timeout=10",
        "--no-control-socket",  # it would lie in the home folder, one for all sites of a user
        # the heartbeat file in memory: on a slow disk it would stall every worker
        *(["--worker-tmp-dir=/dev/shm"] if Path("/dev/shm").is_dir() else []),  # noqa: S108
        "--logger-class=web.access_log.AccessLogger",
        "--access-logfile=-" if settings.log_json else "--access-logfile=/dev/null",
        "web.wsgi:application()",
    ]
    # gunicorn takes this process's place, so that signals reach it directly
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", *arguments])  # noqa: S606


def _fresh_folder(folder: Path) -> Path:
    """The workers' latency files; those of an earlier run would be counted again."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
