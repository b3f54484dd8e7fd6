#!/usr/bin/env python3
"""Draws what expert_cache_bench prints: hit ratio and tokens per second by cache size, a line for each policy.

    expert_cache_bench ... | plot_expert_cache.py --title "..." --out curves.svg

Python's standard library alone. One row of two plots for each batch size.
"""

import argparse
import json
import pathlib
import sys

WIDTH, HEIGHT = 340, 210  # of a plot, in pixels, without its margins
LEFT, TOP, GAP_X, GAP_Y = 64, 64, 84, 74
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")


def read_rows(lines):
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    return [row for row in rows if row["phase"] == "decode"]


def line_name(row):
    return row["policy"] + ("" if row["prefetch"] else ", no prefetch")


def lines_of(rows, batch, key):
    """Points (share, value) by line; all lines end at the share 1, which is measured once."""
    rows = [row for row in rows if row["batch"] == batch]
    whole = [(1.0, row[key]) for row in rows if row["share"] >= 1.0]
    lines = {}
    for row in rows:
        if row["share"] < 1.0:
            lines.setdefault(line_name(row), []).append((row["share"], row[key]))
    return {name: sorted(points + whole) for name, points in lines.items()}


def nice_top(value):
    """The least of 1, 2, 2.5, 5, 10, ... that is not below `value`."""
    base = 1e-6
    while True:
        for factor in (1, 2, 2.5, 5):
            if base * factor >= value:
                return base * factor
        base *= 10


def text(x, y, what, size=12, anchor="middle", extra=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" {extra}>{what}</text>'


def draw_plot(lines, colors, x0, y0, title, top, as_percent):
    def at(point):
        return x0 + point[0] * WIDTH, y0 + HEIGHT - point[1] / top * HEIGHT

    out = [text(x0 + WIDTH / 2, y0 - 10, title, 13)]
    for i in range(5):
        share = i / 4
        x, y = at((share, top * share))
        label = f"{top * share:.0%}" if as_percent else f"{top * share:g}"
        out.append(f'<path d="M{x0} {y:.1f}H{x0 + WIDTH}M{x:.1f} {y0}V{y0 + HEIGHT}" stroke="#ddd"/>')
        out.append(text(x0 - 6, y + 4, label, 11, "end"))
        out.append(text(x, y0 + HEIGHT + 16, f"{share:.0%}", 11))
    out.append(text(x0 + WIDTH / 2, y0 + HEIGHT + 34, "experts in memory", 11))
    for name, points in lines.items():
        path = "L".join("{:.1f} {:.1f}".format(*at(point)) for point in points)
        out.append(f'<path d="M{path}" fill="none" stroke="{colors[name]}" stroke-width="2"/>')
        for point in points:
            x, y = at(point)
            out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colors[name]}"/>')
    return out


def draw(rows, title):
    batches = sorted({row["batch"] for row in rows})
    names = list(dict.fromkeys(line_name(row) for row in rows if row["share"] < 1.0))
    if not batches or not names:
        raise ValueError("no rows with less than all experts in memory")
    colors = {name: COLORS[i % len(COLORS)] for i, name in enumerate(names)}
    width = LEFT + 2 * WIDTH + GAP_X + 24
    height = TOP + len(batches) * (HEIGHT + GAP_Y) + 12
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
           'font-family="sans-serif" fill="#222">', f'<rect width="{width}" height="{height}" fill="#fff"/>',
           text(LEFT, 20, title, 14, "start", 'font-weight="bold"')]
    x = LEFT
    for name in names:
        out.append(f'<rect x="{x}" y="30" width="18" height="4" fill="{colors[name]}"/>')
        out.append(text(x + 23, 37, name, 12, "start"))
        x += 40 + 7 * len(name)
    for i, batch in enumerate(batches):
        y0 = TOP + i * (HEIGHT + GAP_Y) + 12
        hits = lines_of(rows, batch, "hit_ratio")
        rates = lines_of(rows, batch, "tokens_per_second")
        top = nice_top(max(value for line in rates.values() for _, value in line))
        out += draw_plot(hits, colors, LEFT, y0, f"hit ratio, batch {batch}", 1.0, True)
        out += draw_plot(rates, colors, LEFT + WIDTH + GAP_X, y0, f"tokens per second, batch {batch}", top, False)
    return "\n".join(out + ["</svg>"]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--title", default="Decoding with a part of the experts in memory")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    args.out.write_text(draw(read_rows(sys.stdin), args.title), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
