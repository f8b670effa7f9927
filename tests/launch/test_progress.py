"""Tests of the progress that commands print."""

import json
import os
import pty
import re
import subprocess
import termios

from finished_runs import STUDENTS
from launching import finish, tiny


def output(finished):
    """Returns (stdout, stderr) of the finished run."""
    return json.loads(finished.with_name("finished.json").read_text())[1:]


def test_progress_is_a_line_per_epoch_where_there_is_no_terminal(finished):
    stdout, stderr = output(finished)
    labels = ["teachers", *STUDENTS]
    expected = [f"{label}  epoch {e}/3" for label in labels for e in (1, 2, 3)]
    lines = stderr.splitlines()
    assert [re.match(r"\S+  epoch \d/3", line)[0] for line in lines] == expected
    for line in lines:
        assert re.search(r"  loss \d+\.\d{4}  [\d,]+ images/s$", line)
    assert "DE-2" in stdout and f"Report: {finished / 'report.html'}" in stdout


def test_progress_is_a_bar_on_a_terminal(commands, finished, tmp_path):
    screen, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    process = commands.popen(
        ["-m", "launch.train_teachers", *tiny(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=terminal,
    )
    os.close(terminal)
    shown = b""
    try:
        while data := os.read(screen, 4096):
            shown += data
    except OSError:  # Linux: the terminal has no user any more
        pass
    os.close(screen)
    assert finish(process).code == 0
    shown = shown.decode()
    assert "teachers:   0%|" in shown and "teachers: 100%|" in shown
    assert "480/480" in shown  # 2 members x 3 epochs x 80 images
    assert "epoch" not in shown
