#!/usr/bin/env python3
"""Plots and tables of docs/performance/*.md from the raw results in docs/performance (see scripts/plot.sh).

Usage: plot.py [--tables | --check]
--tables makes no plots; --check changes nothing and fails when a table does not match the raw results.
A table stands between the lines `<!-- table NAME -->` and `<!-- end -->` of a page and is replaced there. Figures are medians
of the rounds. The plots contain neither dates nor random names: the same results make the same files.
"""

import csv
import pathlib
import re
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = ROOT / "docs" / "performance"

SCENARIOS = {
    "shared": "one key a batch (transactional batches)",
    "own": "a key for each document (single upserts)",
    "own-bulk": "a key for each document (bulk)",
    "dates": "one key, documents with dates, `REWIND_FIDELITY=payload`",
}
# The scenarios of the curves: documents that share keys, and a key for each, both with the default kind of writes.
CURVES = {"shared": "shared", "own-bulk": "own"}
HANDLERS = {
    "cosmos-rewind": "cosmos-rewind", "package": "cosmos-rewind, as packaged", "forward": "only forwards bytes", "node": "Node",
    "node-bulk": "Node, `items.bulk`", "python": "Python",
}

# The measurements by number of partitions.
STEPS = ("plan", "verify", "follow")


def rows_of(name):
    path = DATA / f"{name}.csv"
    if not path.exists():
        return []
    rows = list(csv.DictReader(path.open(newline="", encoding="ascii")))
    for row in rows:
        for column, text in row.items():
            try:
                row[column] = float(text)
            except (TypeError, ValueError):
                pass
    return rows


def medians(name, by):
    """One row for each combination of the columns `by`, in the order of measurement."""
    groups = {}
    for row in rows_of(name):
        groups.setdefault(tuple(row[column] for column in by), []).append(row)
    found = []
    for key, rows in groups.items():
        one = dict(zip(by, key))
        one["rounds"] = len(rows)
        for column, value in rows[0].items():
            if column not in one and isinstance(value, float):
                one[column] = statistics.median(row[column] for row in rows)
        found.append(one)
    return found


def size_name(size):
    if size >= 1024 * 1024 * 1.5:
        return f"{size / 1024 / 1024:.1f} MB"
    return f"{size / 1024 / 1024:.0f} MB" if size >= 1024 * 1024 else f"{size / 1024:.0f} KB"


def table(head, lines):
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head)] + ["| " + " | ".join(line) + " |" for line in lines])


def capture_table():
    rows = medians("capture", ("scenario", "handler"))
    floor = {row["scenario"]: row["cpu_us"] for row in rows if row["handler"] == "forward"}
    order = list(HANDLERS)
    rows.sort(key=lambda row: (list(SCENARIOS).index(row["scenario"]), order.index(row["handler"]) if row["handler"] in order else len(order)))
    lines = []
    for row in rows:
        own = HANDLERS.get(row["handler"], row["handler"])
        times = row["cpu_us"] / floor[row["scenario"]] if row["scenario"] in floor else float("nan")
        lines.append((SCENARIOS[row["scenario"]], own, f"{row['documents_per_s']:,.0f}", f"{row['cpu_us']:.1f}", f"{times:.1f}",
                      f"{row['rss_mb']:.0f}", f"{row['ready_ms']:.1f}"))
    head = ("scenario", "handler", "documents/s", "CPU us a document", "times the floor", "peak RSS MB", "ms from spawn to ready")
    return rows and table(head, lines)


def curve_table(name, by, title, show):
    rows = medians(name, (by, "scenario", "handler"))
    lines = []
    for value in dict.fromkeys(row[by] for row in rows):
        line = [show(value)]
        for scenario in CURVES:
            for handler in ("cosmos-rewind", "forward"):
                one = [r for r in rows if r[by] == value and r["scenario"] == scenario and r["handler"] == handler]
                line.append(f"{one[0]['cpu_us']:.1f}" if one else "")
        for scenario in CURVES:
            one = [r for r in rows if r[by] == value and r["scenario"] == scenario and r["handler"] == "cosmos-rewind"]
            line.append(f"{one[0]['rss_mb']:.0f}" if one else "")
        lines.append(line)
    head = (title, "shared keys: CPU us", "floor", "own keys: CPU us", "floor", "RSS MB, shared", "RSS MB, own")
    return rows and table(head, lines)


def body_table():
    rows = [r for r in medians("capture-body", ("documents", "scenario", "handler"))]
    lines = []
    for documents in dict.fromkeys(row["documents"] for row in rows):
        own = {(r["scenario"], r["handler"]): r for r in rows if r["documents"] == documents}
        body = own[("shared", "cosmos-rewind")]["body_mb"]
        line = [f"{body:.1f}"]
        for scenario in CURVES:
            rss = own[(scenario, "cosmos-rewind")]["rss_mb"]
            line += [f"{rss:.0f}", f"{rss / body:.1f}"]
        line.append(f"{own[('shared', 'forward')]['rss_mb']:.0f}")
        lines.append(line)
    head = ("invocation MB", "RSS MB, shared keys", "times the body", "RSS MB, own keys", "times the body", "floor: RSS MB")
    return rows and table(head, lines)


def follow_tables():
    rows = medians("follow", ("changes", "size"))
    counts = [r for r in rows if r["size"] == 1024]
    line = lambda r: (f"{r['seconds']:.2f}", f"{r['changes'] / r['seconds']:,.0f}", f"{r['cpu_s'] * 1e6 / r['changes']:.1f}", f"{r['rss_mb']:.0f}")
    head = ("seconds", "changes/s", "CPU us a change", "peak RSS MB")
    by_count = table(("changes of 1 KB",) + head, [(f"{r['changes']:,.0f}",) + line(r) for r in sorted(counts, key=lambda r: r["changes"])])
    sizes = [r for r in rows if r["size"] != 1024]
    by_size = table(("document", "changes") + head, [(size_name(r["size"]), f"{r['changes']:,.0f}") + line(r) for r in sizes])
    return rows and by_count, rows and by_size


def steps_table(name, count):
    rows = sorted(medians(name, ("documents", "versions")), key=lambda r: (r["documents"], r["versions"]))
    lines = []
    for r in rows:
        of = r["documents"] if count == "document" else r["versions"]
        lines.append((f"{r['documents']:,.0f}", f"{r['versions']:,.0f}", f"{r['seconds']:.2f}", f"{r['cpu_s']:.2f}",
                      f"{r['cpu_s'] * 1e6 / of:.0f}", f"{r['rss_mb']:.0f}"))
    title = "versions of each" if count == "document" else "versions in all"
    return rows and table(("documents", title, "seconds", "CPU s", f"CPU us a {count}", "peak RSS MB"), lines)


def partitions_table():
    rows = medians("partitions", ("partitions", "what"))
    lines = []
    for partitions in dict.fromkeys(row["partitions"] for row in rows):
        of = {row["what"]: row for row in rows if row["partitions"] == partitions}
        lines.append([f"{partitions:.0f}"] + [text for what in STEPS for text in (
            f"{of[what]['seconds']:.2f}", f"{of[what]['cpu_s']:.2f}", f"{of[what]['rss_mb']:.0f}")])
    head = ["partitions"] + [f"{what}: {unit}" for what in STEPS for unit in ("seconds", "CPU s", "RSS MB")]
    return rows and table(head, lines)


def ru_tables():
    rows = rows_of("ru")
    counted, policies = [], []
    for row in rows:
        if row["policy"] != "none":
            continue
        counted.append((row["layout"], row["keys"], f"{row['requests_per_document']:.2f}", f"{row['record_bytes']:,.0f}",
                        f"{row['request_bytes_per_document']:,.0f}", f"{row['local_ru']:.2f}"))
    for row in rows:
        if row["layout"] == rows[0]["layout"] and row["keys"] == rows[0]["keys"]:
            said = row["cost_says"]
            policies.append((row["policy"], f"{row['terms']:.0f}", f"{row['ru_without_index']:.2f}", f"{row['ru_low']:.1f}",
                             f"{row['ru_high']:.1f}", f"{said:.2f}" if isinstance(said, float) else "-"))
    first = table(("layout: key of `changes`", "keys of a batch", "requests a document", "bytes a record", "bytes sent a document",
                   "RU charged by the local account"), counted)
    second = table(("index policy", "index terms a record", "RU by size, published", "RU, 0.2 a term", "RU, 0.3 a term", "`cost` says"), policies)
    return rows and first, rows and second


def write_tables(check):
    follow_count, follow_size = follow_tables()
    counted, policies = ru_tables()
    tables = {
        "capture": capture_table(),
        "capture-size": curve_table("capture-size", "size", "document", size_name),
        "capture-leases": curve_table("capture-leases", "leases", "leases", lambda n: f"{n:.0f}"),
        "capture-body": body_table(),
        "follow-count": follow_count,
        "follow-size": follow_size,
        "plan": steps_table("plan", "document"),
        "verify": steps_table("verify", "version"),
        "partitions": partitions_table(),
        "ru-counted": counted,
        "ru-policies": policies,
    }
    pages = {page: page.read_text(encoding="utf-8") for page in sorted(DATA.glob("*.md"))}
    pages = {page: text for page, text in pages.items() if "<!-- table " in text}
    before = dict(pages)
    for name, made in tables.items():
        pattern = re.compile(rf"(<!-- table {name} -->\n).*?(<!-- end -->)", re.S)
        page = next((page for page, text in pages.items() if pattern.search(text)), None)
        if page is None:
            sys.exit(f"error: no page of {DATA.relative_to(ROOT)} has a table {name}")
        if made:
            pages[page] = pattern.sub(lambda found, made=made: f"{found[1]}\n{made}\n\n{found[2]}", pages[page])
    for page, text in pages.items():
        if check:
            if text != before[page]:
                sys.exit(f"error: tables of {page.name} do not match the raw results; run scripts/plot.sh")
            continue
        page.write_text(text, encoding="utf-8")
        print(f"tables: {page.relative_to(ROOT)}")


def write_plots():
    import matplotlib
    matplotlib.use("svg")
    from matplotlib import pyplot
    matplotlib.rcParams.update({
        "svg.hashsalt": "cosmos-rewind", "svg.fonttype": "none", "font.size": 9, "font.family": "sans-serif", "axes.grid": True,
        "grid.alpha": 0.3, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "legend.fontsize": 8,
    })
    colours = {"cosmos-rewind": "#1f77b4", "package": "#17becf", "forward": "#7f7f7f", "node": "#2ca02c", "python": "#d62728"}

    def save(figure, name):
        figure.tight_layout()
        lines = {}
        for axes in figure.axes:
            for handle, label in zip(*axes.get_legend_handles_labels()):
                lines.setdefault(label, handle)
        # Below the plots, where it hides nothing.
        figure.legend(list(lines.values()), list(lines), loc="upper center", bbox_to_anchor=(0.5, 0.02), ncol=min(4, len(lines)))
        figure.savefig(DATA / f"{name}.svg", metadata={"Date": None, "Creator": None}, bbox_inches="tight")
        pyplot.close(figure)
        print(f"plot: {(DATA / name).relative_to(ROOT)}.svg")

    def line(axes, rows, x, y, label, **style):
        rows = sorted(rows, key=lambda r: x(r))
        if rows:
            axes.plot([x(r) for r in rows], [y(r) for r in rows], marker="o", markersize=3, label=label, **style)

    def axes_of(axes, x, y, log_x=False, log_y=False, ticks=None):
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        if log_x:
            axes.set_xscale("log", base=2)
        if log_y:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        if ticks:
            axes.set_xticks([at for at, _ in ticks], [name for _, name in ticks], rotation=30)
            axes.minorticks_off()

    rows = medians("capture", ("scenario", "handler"))
    if rows:
        figure, all_axes = pyplot.subplots(1, 2, figsize=(8.5, 2.6))
        for axes, (column, title) in zip(all_axes, (("cpu_us", "CPU us a document (log)"), ("rss_mb", "peak RSS, MB"))):
            names = list(dict.fromkeys(r["handler"] for r in rows))
            kinds = [s for s in ("shared", "own", "own-bulk") if any(r["scenario"] == s for r in rows)]
            labelled = set()
            for i, handler in enumerate(names):
                for j, kind in enumerate(kinds):
                    one = [r for r in rows if r["handler"] == handler and r["scenario"] == kind]
                    if one:
                        bar = axes.barh(j * (len(names) + 1) + i, one[0][column], color=colours.get(handler, "#9467bd"),
                                        label=None if handler in labelled else HANDLERS.get(handler, handler))
                        labelled.add(handler)
                        axes.bar_label(bar, fmt="%.0f", padding=2, fontsize=7)
            axes.set_yticks([j * (len(names) + 1) + (len(names) - 1) / 2 for j in range(len(kinds))], [f"{k} keys" for k in kinds])
            axes.invert_yaxis()
            axes.set_xlabel(title)
            if column == "cpu_us":
                axes.set_xscale("log")
        save(figure, "capture")

    for name, by, title, ticks in (
        ("capture-size", "size", "bytes of a document", size_name),
        ("capture-leases", "leases", "leases", lambda n: f"{n:.0f}"),
    ):
        rows = medians(name, (by, "scenario", "handler"))
        if not rows:
            continue
        figure, (cpu, rss) = pyplot.subplots(1, 2, figsize=(8.5, 3))
        for handler in ("cosmos-rewind", "forward"):
            for scenario, dashes in zip(CURVES, ("-", "--")):
                own = [r for r in rows if r["handler"] == handler and r["scenario"] == scenario]
                label = f"{HANDLERS[handler]}, {CURVES[scenario]} keys"
                for axes, y in ((cpu, lambda r: r["cpu_us"]), (rss, lambda r: r["rss_mb"])):
                    line(axes, own, lambda r: r[by], y, label, color=colours[handler], linestyle=dashes)
        marks = [(value, ticks(value)) for value in sorted({r[by] for r in rows})]
        axes_of(cpu, title, "CPU us a document", True, by == "size", marks)
        axes_of(rss, title, "peak RSS, MB", True, False, marks)
        save(figure, name)

    rows = medians("capture-body", ("documents", "scenario", "handler"))
    if rows:
        figure, axes = pyplot.subplots(figsize=(5, 3))
        for handler in ("cosmos-rewind", "forward"):
            for scenario, dashes in zip(CURVES, ("-", "--")):
                own = [r for r in rows if r["handler"] == handler and r["scenario"] == scenario]
                line(axes, own, lambda r: r["body_mb"], lambda r: r["rss_mb"], f"{HANDLERS[handler]}, {CURVES[scenario]} keys",
                     color=colours[handler], linestyle=dashes)
        most = max(r["body_mb"] for r in rows)
        axes.plot([0, most], [0, 3 * most], color="#d62728", linewidth=0.8, label="3 times the body")
        axes_of(axes, "MB of an invocation", "peak RSS, MB")
        save(figure, "capture-body")

    rows = medians("follow", ("changes", "size"))
    if rows:
        figure, (counts, sizes) = pyplot.subplots(1, 2, figsize=(8.5, 3))
        for axes, own, x, title in (
            (counts, [r for r in rows if r["size"] == 1024], lambda r: r["changes"] / 1000, "thousand changes of 1 KB"),
            (sizes, [r for r in rows if r["size"] != 1024 or r["changes"] == 50000], lambda r: r["size"], "bytes of a document"),
        ):
            line(axes, own, x, lambda r: r["cpu_s"] * 1e6 / r["changes"], "CPU us a change", color="#1f77b4")
            line(axes, own, x, lambda r: r["rss_mb"], "peak RSS, MB", color="#ff7f0e")
            by_size = axes is sizes
            marks = [(value, size_name(value)) for value in sorted({x(r) for r in own})] if by_size else None
            axes_of(axes, title, "us, MB", by_size, by_size, marks)
        save(figure, "follow")

    plan, verify = medians("plan", ("documents", "versions")), medians("verify", ("documents", "versions"))
    if plan and verify:
        figure, (seconds, rss) = pyplot.subplots(1, 2, figsize=(8.5, 3))
        shades = ["#9ecae1", "#4292c6", "#08519c"]
        for versions, colour in zip(sorted({r["versions"] for r in plan}), shades):
            own = [r for r in plan if r["versions"] == versions]
            for axes, column in ((seconds, "seconds"), (rss, "rss_mb")):
                line(axes, own, lambda r: r["documents"] / 1000, lambda r: r[column], f"{versions:.0f} versions of each", color=colour)
        axes_of(seconds, "thousand documents", "restore --dry-run: seconds")
        axes_of(rss, "thousand documents", "peak RSS, MB")
        save(figure, "plan")
        figure, (seconds, rss) = pyplot.subplots(1, 2, figsize=(8.5, 3))
        for documents, colour in zip(sorted({r["documents"] for r in verify}), shades):
            own = [r for r in verify if r["documents"] == documents]
            for axes, column in ((seconds, "cpu_s"), (rss, "rss_mb")):
                line(axes, own, lambda r: r["versions"] / 1000, lambda r: r[column], f"{documents:,.0f} documents", color=colour)
        axes_of(seconds, "thousand versions", "verify: CPU seconds")
        axes_of(rss, "thousand versions", "peak RSS, MB")
        save(figure, "verify")

    rows = medians("partitions", ("partitions", "what"))
    if rows:
        figure, both = pyplot.subplots(1, 2, figsize=(8.5, 3))
        marks = [(value, f"{value:.0f}") for value in sorted({r["partitions"] for r in rows})]
        for axes, column, title in zip(both, ("cpu_s", "rss_mb"), ("CPU seconds", "peak RSS, MB")):
            for what, colour in zip(STEPS, ("#1f77b4", "#ff7f0e", "#2ca02c")):
                line(axes, [r for r in rows if r["what"] == what], lambda r: r["partitions"], lambda r: r[column], what, color=colour)
            axes_of(axes, "partitions", title, True, ticks=marks)
        save(figure, "partitions")


if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["--tables"], ["--check"]):
        sys.exit(__doc__)
    write_tables(sys.argv[1:] == ["--check"])
    if not sys.argv[1:]:
        write_plots()
