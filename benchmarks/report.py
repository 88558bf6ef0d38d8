"""Where the benchmarks put what they measured: benchmarks/results.md."""

from pathlib import Path

from onelabel.files import whole_file


RESULTS = Path(__file__).resolve().parent / "results.md"


def heads(*columns):
    """Lay out the head of a table in Markdown; its first column has no name."""
    return [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]


def write_part(heading, text):
    """Put a part into results.md, in place of the one under the same heading.

    Parameters
    ----------
    heading : str
        The part's heading.
    text : str
        What stands under it, in Markdown; its own headings have two ``#`` or more.
    """
    old = RESULTS.read_text() if RESULTS.exists() else ""
    parts = dict(
        part.split("\n", 1) for part in old.removeprefix("# ").split("\n# ") if part
    )
    parts[heading] = f"\n{text.strip()}\n"
    with whole_file(RESULTS) as temporary:
        temporary.write_text("\n".join(f"# {h}\n{t}" for h, t in parts.items()))
