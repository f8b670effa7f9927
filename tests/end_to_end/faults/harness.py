"""Injects faults into tiny runs and compares the results with an undisturbed run."""

import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

import two_processes
from launching import UNSHIFTED, Commands, Done, Server, snapshot, tiny

from edp.runtime import checksums
from tests.end_to_end.faults.damage import DAMAGE, cases, newest_checksums, newest_step
from tests.end_to_end.faults.results import STUDENT, Tally, contents, stage_contents

STAGES = ("teachers", f"students/{STUDENT}")
_OF_STAGES = ("complete", "settings")
# Saves within epochs of four steps, and at their ends.
FLAGS = (
    "--config.checkpoint_steps=3",
    "--config.distill.select=best",
    *UNSHIFTED,
)


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
        newest = newest_step(base / "teachers/checkpoints")
        expected = self.expected["teachers"]
        for kind, path in cases(newest, every):
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
        for kind, path in cases(base / "teachers/variables", every):
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
            before = newest_checksums(workdir)
            limit = self.draw.choice((100, 1000, 3000, 8000))
            done = self.run("run", workdir, max_file_bytes=limit)
            tally.faults += 1
            last = (done.stderr.splitlines() or [""])[-1]
            reported = "File too large" in last and "Traceback" not in done.stderr
            if done.code not in (1, 2) or not reported:
                tally.lost.append(f"limit {limit}: {done}")
            if not before.items() <= newest_checksums(workdir).items():
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
        tally = Tally("two processes")
        started = time.monotonic()
        reference = self.root / "two"

        def run(workdir):
            ended = two_processes.finish_both(
                two_processes.start_two(self.commands, two_processes.arguments(workdir))
            )
            assert [done.code for done in ended] == [0, 0], ended
            return contents(workdir, two_processes.STUDENT)

        expected = run(reference)
        seconds = time.monotonic() - started
        for number in range(times):
            workdir = self.root / f"two{number}"
            both = two_processes.start_two(
                self.commands, two_processes.arguments(workdir)
            )
            time.sleep(self.draw.uniform(0.4, 1) * seconds)
            both[self.draw.randrange(2)].kill()
            ended = two_processes.finish_both(both)
            tally.faults += -signal.SIGKILL in [done.code for done in ended]
            tally.compare(f"run {number}", run(workdir), expected)
        return tally

    def _copy_teachers(self, base: pathlib.Path) -> None:
        """Copies the reference as it was at the last step of the teachers."""
        shutil.copytree(self.reference / "teachers", base / "teachers")
        shutil.copy(self.reference / "split.npz", base)
        (base / "teachers/complete.json").unlink()
        shutil.rmtree(base / "teachers/variables")


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
