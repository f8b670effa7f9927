"""Injects faults into tiny runs and compares the results with an undisturbed run."""

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from launching import Commands, Done, Server, snapshot, tiny

from edp.runtime import checkpoint, checksums

STUDENT = "single_none"
STAGES = ("teachers", f"students/{STUDENT}")
# Saves within epochs of four steps, and at their ends.
FLAGS = (
    "--config.checkpoint_steps=3",
    "--config.distill.select=best",
    "--config.evaluation.step_sizes=()",
    "--config.evaluation.ood_sets=()",
    "--config.evaluation.corruptions=()",
)
_TIMES = ("train_seconds", "checkpoint_seconds")


class Tally:
    """Outcome of one kind of fault.

    Attributes:
      kind: the kind of fault.
      runs: number of runs completed and compared.
      faults: number of faults injected.
      lost: a line for each result lost.
    """

    def __init__(self, kind: str):
        self.kind, self.runs, self.faults = kind, 0, 0
        self.lost: list[str] = []
        self._started = time.monotonic()

    def compare(self, name: str, found: Any, expected: Any) -> None:
        """Counts a run, and a lost result if it is not as expected."""
        self.runs += 1
        wrong = list(differences(found, expected))
        if wrong:
            self.lost.append(f"{name}: {'; '.join(wrong)[:2000]}")
        said = "LOST" if wrong else "ok"
        print(f"{self.kind}, {name}: {said}", file=sys.stderr, flush=True)

    def __str__(self):
        seconds = time.monotonic() - self._started
        lines = [
            f"{self.kind}: {self.runs} runs, {self.faults} faults injected, "
            f"{len(self.lost)} results lost ({seconds:.0f} s)"
        ]
        return "\n".join([*lines, *(f"  LOST {line}" for line in self.lost)])


class Harness:
    """Runs tiny jobs with faults, beside an undisturbed reference run."""

    def __init__(self, root: pathlib.Path, seed: int = 0):
        self.root = root
        self.draw = random.Random(seed)
        self.commands = Commands(root / "compiled")
        self.server = Server(self.commands)
        self.reference = root / "reference"
        self._succeed("run", self.reference)
        started = time.monotonic()  # with compiled programs cached
        self._succeed("run", root / "timed")
        self.seconds = time.monotonic() - started
        self.expected = contents(self.reference)

    def close(self) -> None:
        self.server.close()

    def run(self, command: str, workdir: pathlib.Path, **options) -> Done:
        return self.server.run(command, *tiny(workdir, STUDENT), *FLAGS, **options)

    def _succeed(self, command: str, workdir: pathlib.Path) -> None:
        done = self.run(command, workdir)
        assert done.code == 0, done

    def _finish(self, tally: Tally, workdir: pathlib.Path, name: str) -> None:
        done = self.run("run", workdir)
        found = contents(workdir) if done.code == 0 else {"ended": done}
        tally.compare(name, found, self.expected)
        shutil.rmtree(workdir)

    # --- Kinds of faults ---

    def kill(self, runs: int) -> Tally:
        """Kills each run two or three times, at random times."""
        tally = Tally("SIGKILL")
        for number in range(runs):
            workdir = self.root / f"kill{number}"
            killed, wanted = 0, self.draw.randint(2, 3)
            while killed < wanted:
                seconds = self.draw.uniform(0, self.seconds)
                done = self.run("run", workdir, kill=(signal.SIGKILL, seconds))
                if done.code == -signal.SIGKILL:
                    killed += 1
                elif done.code == 0:  # ended before the signal: start again
                    shutil.rmtree(workdir)
                    killed = 0
                else:
                    tally.lost.append(f"run {number}: {done}")
                    break
            tally.faults += killed
            self._finish(tally, workdir, f"run {number}")
        return tally

    def terminate(self, times: int) -> Tally:
        """Terminates runs at random times: exit code 75, or early on the signal."""
        tally = Tally("SIGTERM")
        while tally.faults < times:
            workdir = self.root / f"terminate{tally.faults}"
            while tally.faults < times:
                seconds = self.draw.uniform(0, self.seconds)
                before = snapshot(workdir)
                done = self.run("run", workdir, kill=(signal.SIGTERM, seconds))
                if done.code == 0:
                    break
                tally.faults += 1
                last = (done.stderr.splitlines() or [""])[-1]
                reported = last.endswith("run the command again to go on")
                ended = done.code == -signal.SIGTERM  # before the handler was set
                early = ended and snapshot(workdir) == before
                if not (early or (done.code == 75 and reported)):
                    tally.lost.append(f"after {seconds:.2f} s: {done}")
            self._finish(tally, workdir, f"run {tally.runs}")
        return tally

    def damage_checkpoints(self, every: int = 1) -> Tally:
        """Damages each file of the newest checkpoint in turn, and resumes."""
        tally = Tally("damaged checkpoints")
        base = self.root / "teachers_only"
        self._copy_teachers(base)
        newest = _newest(base / "teachers/checkpoints")
        expected = self.expected["teachers"]
        for kind, path in _each(newest, every):
            workdir = shutil.copytree(base, self.root / "damaged")
            damaged = workdir / path.relative_to(base)
            DAMAGE[kind](damaged)
            tally.faults += 1
            done = self.run("train_teachers", workdir)
            found = {"ended": done}
            first = done.stderr.splitlines()[:1]
            reported = (
                first and first[0].startswith("warning: ") and "damaged" in first[0]
            )
            silent = path.name == checksums.NAME and kind == "missing"
            if done.code == 0 and (reported or silent):
                found = stage_contents(workdir / "teachers")
            tally.compare(f"{path.relative_to(base)} {kind}", found, expected)
            shutil.rmtree(workdir)
        return tally

    def damage_stages(self, every: int = 1) -> Tally:
        """Damages each file of a stage's variables; dependent stages must refuse."""
        tally = Tally("damaged stages")
        base = self.root / "to_distil"
        shutil.copytree(self.reference, base)
        shutil.rmtree(base / "students")
        for kind, path in _each(base / "teachers/variables", every):
            if path.name == checksums.NAME and kind == "missing":
                continue  # older versions wrote no checksums
            backup = path.read_bytes()
            DAMAGE[kind](path)
            tally.faults += 1
            done = self.run("distill", base)
            refused = done.code == 2 and done.stderr.count("\n") == 1
            named = "teachers/variables is damaged" in done.stderr
            found = "refused" if refused and named else done
            tally.compare(f"{path.relative_to(base)} {kind}", found, "refused")
            path.write_bytes(backup)
        self._finish(tally, base, "put back")
        return tally

    def damage_files(self) -> Tally:
        """Damages other files of a run: refused by name, or rewritten identically."""
        tally = Tally("other damaged files")
        names = ["split.npz", "run.json", "analysis.json", "predictions/made_from.json"]
        names += [f"predictions/{name}.npz" for name in ("teachers", STUDENT)]
        names += [f"{stage}/{n}.json" for stage in STAGES for n in _OF_STAGES]
        for name in names:
            for kind in ("truncated", "flipped"):
                workdir = shutil.copytree(self.reference, self.root / "files")
                DAMAGE[kind](workdir / name)
                tally.faults += 1
                done = self.run("run", workdir)
                # The numbers of the analysis are not checked.
                if done.code == 2 and done.stderr.count("\n") == 1:
                    place = str((workdir / name).parent)
                    found = expected = "refused by name"
                    found = found if place in done.stderr else done
                elif name == "analysis.json":
                    found, expected = done.code, 0
                else:
                    found = contents(workdir) if done.code == 0 else {"ended": done}
                    expected = self.expected
                tally.compare(f"{name} {kind}", found, expected)
                shutil.rmtree(workdir)
        return tally

    def full_disk(self, times: int) -> Tally:
        """Limits the size of files, in new and in interrupted runs."""
        tally = Tally("full disk")
        for number in range(times):
            workdir = self.root / f"full{number}"
            if number % 2:
                seconds = self.draw.uniform(0.5, 1) * self.seconds / 2
                self.run("run", workdir, kill=(signal.SIGKILL, seconds))
            before = _checkpoints(workdir)
            limit = self.draw.choice((100, 1000, 3000, 8000))
            done = self.run("run", workdir, max_file_bytes=limit)
            tally.faults += 1
            last = (done.stderr.splitlines() or [""])[-1]
            reported = "File too large" in last and "Traceback" not in done.stderr
            if done.code not in (1, 2) or not reported:
                tally.lost.append(f"limit {limit}: {done}")
            if not before.items() <= _checkpoints(workdir).items():
                tally.lost.append(f"limit {limit}: checkpoints that there were")
            self._finish(tally, workdir, f"limit {limit}")
        return tally

    def full_filesystem(self) -> Tally:
        """Fills up a small filesystem; needs the permission to mount it."""
        tally = Tally("full filesystem")
        place = self.root / "mounted"
        place.mkdir()
        size = ["-o", "size=2m"]
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", *size, "tmpfs", str(place)], capture_output=True
        )
        if mounted.returncode:
            tally.kind += " (not mounted: no permission)"
            return tally
        try:
            for kilobytes in (10, 60, 120, 200):
                workdir, ballast = place / "run", place / "ballast"
                free = shutil.disk_usage(place).free
                ballast.write_bytes(bytes(max(free - kilobytes * 1024, 0)))
                done = self.run("run", workdir)
                tally.faults += 1
                last = (done.stderr.splitlines() or [""])[-1]
                reported = "No space left" in last and "Traceback" not in done.stderr
                if done.code not in (1, 2) or not reported:
                    tally.lost.append(f"{kilobytes} kB: {done}")
                ballast.unlink()
                self._finish(tally, workdir, f"{kilobytes} kB")
        finally:
            subprocess.run(["umount", str(place)], check=True)
        return tally

    def two_processes(self, times: int) -> Tally:
        """Kills one of two processes at a random time, then restarts both."""
        from tests.end_to_end import test_distributed as distributed

        tally = Tally("two processes")
        started = time.monotonic()
        reference = self.root / "two"

        def run(workdir):
            ended = distributed.finish_both(
                distributed.start_two(self.commands, workdir)
            )
            assert [done.code for done in ended] == [0, 0], ended
            return contents(workdir, distributed.STUDENT)

        expected = run(reference)
        seconds = time.monotonic() - started
        for number in range(times):
            workdir = self.root / f"two{number}"
            both = distributed.start_two(self.commands, workdir)
            time.sleep(self.draw.uniform(0.4, 1) * seconds)
            both[self.draw.randrange(2)].kill()
            ended = distributed.finish_both(both)
            tally.faults += -signal.SIGKILL in [done.code for done in ended]
            tally.compare(f"run {number}", run(workdir), expected)
        return tally

    def _copy_teachers(self, base: pathlib.Path) -> None:
        """Copies the reference as it was at the last step of the teachers."""
        shutil.copytree(self.reference / "teachers", base / "teachers")
        shutil.copy(self.reference / "split.npz", base)
        (base / "teachers/complete.json").unlink()
        shutil.rmtree(base / "teachers/variables")


_OF_STAGES = ("complete", "settings")


def _flip(path: pathlib.Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _truncate(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE: dict[str, Callable[[pathlib.Path], None]] = {
    "flipped": _flip,
    "truncated": _truncate,
    "missing": os.remove,
}


def _each(directory: pathlib.Path, every: int) -> Iterator[tuple[str, pathlib.Path]]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    cases = [(kind, path) for path in files for kind in DAMAGE]
    return iter(cases[::every])


def _newest(checkpoints: pathlib.Path) -> pathlib.Path:
    steps = [path for path in checkpoints.iterdir() if path.name.isdigit()]
    return max(steps, key=lambda path: int(path.name))


def _checkpoints(workdir: pathlib.Path) -> dict[str, bytes]:
    """Returns the checksums of each stage's newest checkpoint."""
    found = {}
    for path in workdir.glob("**/checkpoints"):
        if any(step.name.isdigit() for step in path.iterdir()):
            step = _newest(path)
            if checksums.exists(step) and checksums.damage(step) is None:
                found[str(step)] = (step / checksums.NAME).read_bytes()
    return found


def contents(workdir: pathlib.Path, student: str = STUDENT) -> dict[str, Any]:
    """Returns all results of a run, without times and random ids."""
    rows = json.loads((workdir / "results.json").read_text())
    for row in rows:
        for name in _TIMES:
            row.pop(name, None)
    analysis = json.loads((workdir / "analysis.json").read_text())
    del analysis["made_from"]
    found = {"results": rows, "analysis": analysis}
    for name in ("teachers", student):
        with np.load(workdir / "predictions" / f"{name}.npz") as file:
            found[f"predictions of {name}"] = {k: file[k].tobytes() for k in file}
        stage = name if name == "teachers" else f"students/{name}"
        found[stage] = stage_contents(workdir / stage)
    return found


def stage_contents(stage: pathlib.Path) -> dict[str, Any]:
    """Returns the variables of a complete stage, bit for bit, and its log."""
    variables = checkpoint.load_arrays(stage / "variables")
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    record = json.loads((stage / "complete.json").read_text())
    return {
        "log": (stage / "metrics.jsonl").read_text(),
        "selected": record.get("selected_epoch"),
        **{jax.tree_util.keystr(k): (str(x.dtype), x.tobytes()) for k, x in leaves},
    }


def differences(found: Any, expected: Any, at: str = "") -> Iterator[str]:
    """Yields a line for each difference between two results."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in expected.keys() | found.keys():
            place = f"{at}/{key}"
            if key not in found or key not in expected:
                yield f"{place} is in one only: {str(found.get(key))[-1500:]}"
            else:
                yield from differences(found[key], expected[key], place)
    elif found != expected:
        yield f"{at} differs: {str(found)[-1500:]}"


def main(arguments: Any) -> int:
    """Injects the faults chosen and prints the outcome."""
    if arguments.dir is not None:
        pathlib.Path(arguments.dir).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.dir) as root:
        harness = Harness(pathlib.Path(root), arguments.seed)
        print(f"a run takes {harness.seconds:.1f} s", flush=True)
        kinds = {
            "kill": lambda: harness.kill(arguments.runs),
            "terminate": lambda: harness.terminate(arguments.terminations),
            "checkpoints": lambda: harness.damage_checkpoints(arguments.every),
            "stages": lambda: harness.damage_stages(arguments.every),
            "files": harness.damage_files,
            "limit": lambda: harness.full_disk(arguments.full),
            "filesystem": harness.full_filesystem,
            "two": lambda: harness.two_processes(arguments.two),
        }
        tallies = []
        for kind in arguments.only or kinds:
            tallies.append(kinds[kind]())
            print(tallies[-1], flush=True)
        harness.close()
    runs, faults = sum(t.runs for t in tallies), sum(t.faults for t in tallies)
    lost = sum(len(t.lost) for t in tallies)
    print(f"in all: {runs} runs, {faults} faults injected, {lost} results lost")
    sys.stdout.flush()
    return 1 if lost else 0
