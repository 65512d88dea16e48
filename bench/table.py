"""The columns of the table that the rows are printed in."""

from __future__ import annotations


def show_line(*cells: str) -> None:
    """Print one line of the table."""
    what, against, baseline, library, ratio, spread, aim, reached = cells
    print(
        f"{what:<36}{against:<14}{baseline:>10}{library:>11}{ratio:>7}  {spread:<17}{aim:<15}{reached}".rstrip(),
        flush=True,
    )


def show_head() -> None:
    """Print the heads of the columns."""
    print()
    show_line("what", "baseline", "", "library", "ratio", "spread", "aim", "reached")
