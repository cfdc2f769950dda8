"""Is a change of a kernel faster? Two checkouts side by side: a process each, which take turns.

    git worktree add ../before HEAD
    python benches/compare_checkouts.py ../before . 'max_pool 32x256x27x27 last' 'batch_norm backward' [--starts 4] [--torch]

Each quoted argument names rows, by words that all stand in "op shape parameters format direction". Printed is the time of the
first checkout over that of the second (above 1: the second is faster), the median of all rounds of all starts, with
the lowest and highest median of a start; the second's time; and the time of a copy of as many bytes over it, its share
of the limit. Both processes start anew several times, for the same kernel can take 1.5 times as long with its arrays
elsewhere in memory: believe no figure from one start.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

ROUND_SECONDS = 0.02


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("before", type=pathlib.Path, help="a checkout")
    parser.add_argument("after", type=pathlib.Path, help="another")
    parser.add_argument("rows", nargs="+", metavar="ROWS", help="words of the rows to time")
    parser.add_argument("--starts", type=int, default=4, help="of both processes (default 4)")
    parser.add_argument("--rounds", type=int, default=9, help="a start (default 9)")
    parser.add_argument("--torch", action="store_true", help="also torch's time over the second's")
    given = parser.parse_args()
    for checkout in (given.before, given.after):
        if not (
            checkout / "normcore" / "kernels"
        ).is_dir():  # else the installed package would be timed in its place
            parser.error(f"{checkout}: expected a checkout of normcore, with a folder normcore/kernels")
    found = {}  # row: what each start measured, a list of rounds
    for _ in range(given.starts):
        workers = [Worker(given.before, given.rows, False), Worker(given.after, given.rows, given.torch)]
        common = [row for row in workers[0].rows if row in workers[1].rows]
        if not common:
            raise SystemExit(f"no row of both checkouts has the words {given.rows}")
        for row in common:
            for worker in workers:
                worker.take(row)
            rounds = []
            for number in range(given.rounds):
                order = workers if number % 2 == 0 else workers[::-1]
                times = {worker: worker.time() for worker in order}
                rounds.append((times[workers[0]][0], *times[workers[1]]))  # before, after, copy, torch
            found.setdefault(row, []).append(rounds)
        for worker in workers:
            worker.close()
    for row, starts in found.items():
        microseconds = 1e6 * statistics.median(times[1] for rounds in starts for times in rounds)
        torch = f"  torch {said(starts, 3)}" if given.torch else ""
        print(f"{row:64} {said(starts, 0)} {microseconds:9.1f} us  copy {said(starts, 2)}{torch}")


def said(starts, over, under=1):
    """Ratio of two of a round's times, with the lowest and highest start."""
    if any(len(times) <= over for rounds in starts for times in rounds):
        return "-"
    ratios = [[times[over] / times[under] for times in rounds] for rounds in starts]
    middles = sorted(map(statistics.median, ratios))
    whole = statistics.median(ratio for rounds in ratios for ratio in rounds)
    return f"{whole:5.2f} ({middles[0]:.2f} to {middles[-1]:.2f})"


class Worker:
    """A process that times the rows of one checkout when told to."""

    def __init__(self, checkout, words, torch):
        from normcore.measuring.peer import TUNED

        checkout = checkout.resolve()
        paths = [checkout, checkout / "plugins", checkout / "cli"]
        environment = {**os.environ, **TUNED, "PYTHONPATH": os.pathsep.join(map(str, paths))}
        command = [sys.executable, __file__, "--worker", json.dumps({"words": words, "torch": torch})]
        self.process = subprocess.Popen(
            command, env=environment, cwd=checkout, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.rows = json.loads(self._line())

    def take(self, row):
        """Makes arrays of their own for the row and compiles it."""
        self._say(row)
        self._line()

    def time(self):
        """Seconds a call of ours, of the copy, and of torch where it was asked for."""
        self._say("time")
        return json.loads(self._line())

    def close(self):
        self.process.stdin.close()
        self.process.wait()

    def _say(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def _line(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a worker ended; what it printed stands above")
        return line


def work(words, torch):
    """The worker's side: rows named on stdin are made ready, "time" is answered with seconds."""
    import time

    from normcore.measuring.bench import PLACES, Bench, Settings
    from normcore.measuring.peer import load
    from normcore.measuring.run import plan
    from normcore.registry import default

    answers = os.fdopen(os.dup(1), "w")  # anything else that is printed goes to stderr
    os.dup2(2, 1)

    def answer(value):
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    bench = Bench(Settings(torch=load() if torch else None))
    cases, _ = plan([found.component for found in default().all("op")], strict=False)
    rows = {}
    for case in cases:
        for direction in ("forward", "backward") if case.op.differentiable else ("forward",):
            format = case.memory_format.removeprefix("channels_")
            name = " ".join(
                f"{case.op.name} {case.shape_text} {case.parameters_text} {format} {direction}".split()
            )
            if any(set(given.split()) <= set(name.split()) for given in words):
                rows[name] = case, direction
    answer(list(rows))
    kept = []  # what was timed stays, so that the next row's arrays lie elsewhere
    for line in sys.stdin:
        if line.strip() != "time":
            case, direction = rows[line.strip()]
            if bench._places(case) < PLACES:  # memory runs short: the next row takes what this one had
                kept.clear()
                made = calls = peers = None
            arrays = [case.host_inputs(seed) for seed in range(bench._sets(case))]
            made = bench._placed(case, direction, arrays).candidates
            calls = [made["normcore"], made["copy"]]
            peers = [made[name] for name in made if name.startswith("torch ")]
            kept[:] = [*kept[-3:], (arrays, made)]
            answer("ready")
            continue
        seconds = [timed(call, time.perf_counter) for call in calls]
        if peers:
            seconds.append(min(timed(call, time.perf_counter) for call in peers))
        answer(seconds)


def timed(call, clock):
    """Seconds a call, over at least ROUND_SECONDS, after one that does not count."""
    call()
    started, count = clock(), 0
    while True:
        call()
        count += 1
        passed = clock() - started
        if passed > ROUND_SECONDS:
            return passed / count


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(**json.loads(sys.argv[2]))
    else:
        main()
