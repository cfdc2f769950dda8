"""Write today's tables into benches/README.md, between its markers, from benches/results/*.json.

    python benches/make_tables.py

A row is listed under "Where we lose" when torch's better memory format takes less time than we do, with the cause
that causes.json gives for the op, for its direction ("batch_norm forward") or for one format of it
("batch_norm forward channels_last"); the most exact one counts.
"""

import json
import pathlib
import statistics

HERE = pathlib.Path(__file__).parent
START, END = "<!-- tables: start -->", "<!-- tables: end -->"
UNKNOWN = "not looked into yet"


def main():
    causes = json.loads((HERE / "causes.json").read_text(encoding="utf-8"))
    parts = []
    for file in sorted((HERE / "results").glob("*.json")):
        document = json.loads(file.read_text(encoding="utf-8"))
        if "rows" in document:
            parts.append(section(file.stem, document, causes))
    readme = HERE / "README.md"
    text = readme.read_text(encoding="utf-8")
    readme.write_text(between(text, "\n\n".join(parts)), encoding="utf-8")


def between(text, tables):
    """The text with what stands between the markers replaced. Raises ValueError where there are none."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"benches/README.md: expected the markers {START} and {END}")
    return f"{before}{START}\n\n{tables}\n\n{END}{after}"


def section(name, document, causes):
    rows = [row for row in document["rows"] if row.get("median_s")]
    parts = [f"### {name}", about(document["machine"])]
    if rows:
        parts.append(table(SUMMARY, summary(rows)))
        parts.append(folded(f"All {len(rows)} rows", table(HEADERS, lines_of(rows))))
        parts += losses(rows, causes)
    wrong = [row for row in document["rows"] if row["correct"] is not True]
    if wrong:
        lines = (f"- {row['op']} {row['direction']} {row['shape_text']}: {row['detail']}" for row in wrong)
        parts += ["#### Not timed, because wrong", "\n".join(lines)]
    other = document.get("other", {})
    if other:
        parts += [
            "#### Networks, start-up and other peers",
            table(("what", "result"), map(result, other.items())),
        ]
    return "\n\n".join(parts)


def about(machine):
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    limits = [
        f"{device}: a copy moves {of['copy_gb_per_s']:.0f} GB/s"
        + (f", reading alone {of['read_gb_per_s']:.0f}" if "read_gb_per_s" in of else "")
        for device, of in machine.get("limits", {}).items()
    ]
    gpu = f" {machine['gpu']}." if machine.get("gpu") else ""
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['vectors']}, {machine['threads']} threads "
        f"({machine['threading_layer']}).{gpu} {versions}. {'; '.join(limits)}. Measured {machine['measured'][:10]}."
    )


HEADERS = ("op", "shape", "format", "forward", "limit", "torch / ours", "backward", "limit", "torch / ours")
SUMMARY = ("op", "rows", "least", "geometric mean", "of the limit, median")


def lines_of(rows):
    """One line for each case, both directions side by side."""
    cases = {}
    for row in rows:
        key = (
            row["op"],
            row["device"],
            row["dtype"],
            row["shape_text"],
            parameters(row),
            row["memory_format"],
        )
        cases.setdefault(key, {})[row["direction"]] = row
    for found in cases.values():
        first = next(iter(found.values()))
        yield (*place(first), *measured(found.get("forward")), *measured(found.get("backward")))


def place(row):
    op = row["op"] + ("" if row["device"] == "cpu" else f" ({row['device']})")
    return op, f"{row['shape_text']}{parameters(row)}", row["memory_format"][9:]


def measured(row):
    """Time, share of the limit, and the ratio with its interval."""
    if row is None:
        return "", "", ""
    return f"{row['median_s'] * 1e3:.3g} ms", f"{row['share_of_limit']:.0%}", ratio(row)


def ratio(row):
    value = row.get("torch_ratio")
    if not value:
        return ""
    low, high = row["torch_interval"]
    text = f"{value:.2f} ({low:.2f} to {high:.2f})"
    return f"**{text}**" if value < 1 else text


def summary(rows):
    """One line for each op that has rows beside torch."""
    ops = {}
    for row in rows:
        if row.get("torch_ratio"):
            ops.setdefault(row["op"], []).append(row)
    for op, found in sorted(ops.items()):
        ratios = [row["torch_ratio"] for row in found]
        share = statistics.median(row["share_of_limit"] for row in found)
        yield op, len(found), f"{min(ratios):.2f}", f"{statistics.geometric_mean(ratios):.2f}", f"{share:.0%}"


def folded(title, text):
    """Shown when asked for: several hundred lines."""
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def parameters(row):
    given = ", ".join(f"{key} {value}" for key, value in row["parameters"].items())
    return f" ({given})" if given else ""


def losses(rows, causes):
    """The rows below 1.0, worst first, each with its cause."""
    lost = sorted((r for r in rows if (r.get("torch_ratio") or 1.0) < 1.0), key=lambda r: r["torch_ratio"])
    compared = sum(bool(r.get("torch_ratio")) for r in rows)
    if not compared:
        return []
    if not lost:
        return ["#### Where we lose", f"Nowhere: all {compared} rows beside torch are at 1.0 or above."]
    headers = ("op", "shape", "format", "direction", "torch / ours", "cause")
    lines = [(*place(row), row["direction"], ratio(row), cause(row, causes)) for row in lost]
    head = f"{len(lost)} of {compared} rows beside torch. An interval that reaches beyond 1.0 may be no loss."
    return ["#### Where we lose", head, table(headers, lines)]


def cause(row, causes):
    names = (row["op"], f"{row['op']} {row['direction']}")
    names = (*names, f"{names[1]} {row['memory_format']}")
    if row["torch_interval"][1] >= 1.0:
        names = ("interval", *names)
    return next((causes[name] for name in reversed(names) if name in causes), UNKNOWN)


def result(item):
    name, values = item
    if "ratio" in values:
        low, high = values["interval"]
        return name, f"their time over ours {values['ratio']:.2f} ({low:.2f} to {high:.2f})"
    if "images_per_second" in values:
        step = values["step_s"] * 1e3
        return (
            name,
            f"{values['images_per_second']:,.0f} images/s, {step:.3g} ms for a batch of {values['batch']}",
        )
    return name, f"{values['seconds']:.2f} s"


def table(headers, rows):
    lines = [headers, ("---",) * len(headers), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


if __name__ == "__main__":
    main()
