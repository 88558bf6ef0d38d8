"""Measure what the objects of a large map cost: cleaned, measured, as polygons.

    pip install -r benchmarks/requirements.txt
    python benchmarks/objects.py [--model FILE] [--megapixels N]

A GeoTIFF of 400 megapixels, the project's own scene over and over, is predicted by the
command itself, without its objects and with them; its mask has 100,000. Then the mask
alone is read, by `predict.py --from-mask` and by GDAL's own gdal_polygonize.py where
that is installed. Each peak is that of a whole process. The table is written to
benchmarks/results.md. Needs a trained model, and 4 GB of disk for temporary files; on
two cores it takes a quarter of an hour.
"""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import memory
import report
import shapely
from pyogrio import raw, read_info
from tqdm.auto import tqdm

from onelabel import console, files, vectors


CLEANED = "--min-area 2m2 --fill-holes 2m2"
FILES = "--polygons objects.gpkg --objects objects.csv"
POLYGONIZE = "gdal_polygonize.py"
WAYS = {
    "predict.py, the mask alone": "map.tif --output mask.tif",
    "predict.py, cleaned, with objects": f"map.tif --output 2.tif {CLEANED} {FILES}",
    "predict.py --from-mask, with objects": f"--from-mask mask.tif {FILES}",
}


def row(name, command, folder, path):
    """Run a command; give its row, with the polygons of a file that it may make."""
    measured = [round(number) for number in memory.run(command, folder)[0]]
    number = f"{read_info(path, layer=0)['features']:,}" if path.exists() else "-"
    return f"| {' | '.join(map(str, [name, *measured, number]))} |"


def seconds_to_write(path):
    """Time how long the polygons of a file take to be written again."""
    meta, _, geometry, columns = raw.read(path, layer=0)
    polygons = shapely.from_wkb(geometry)
    table = dict(zip(meta["fields"], columns, strict=True))
    start = time.perf_counter()
    vectors.write_polygons(path.with_name("again.gpkg"), polygons, table)
    return time.perf_counter() - start


def main():
    """Measure all ways, and put the table into results.md."""
    parser = console.Parser(description="Measure what the objects of a map cost.")
    model = memory.ROOT / "model.pt"
    parser.add_argument("--model", type=Path, default=model, help="model file")
    parser.add_argument("--megapixels", type=int, default=400, help="of the map")
    args = parser.parse_args()
    files.check_input(args.model)
    predict = [sys.executable, memory.ROOT / "predict.py"]
    predict += ["--model", args.model.resolve()]
    side, rows = int((args.megapixels * 1e6) ** 0.5), []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        polygons, peer = folder / "objects.gpkg", folder / "peer.gpkg"
        memory.make_image(folder / "map.tif", side, side)
        for name, options in tqdm(WAYS.items(), disable=None):
            rows.append(row(name, [*predict, *options.split()], folder, polygons))
        if shutil.which(POLYGONIZE):
            command = [POLYGONIZE, "-q", "mask.tif", "-f", "GPKG", peer]
            rows.append(row(POLYGONIZE, command, folder, peer))
        else:
            rows.append(f"| {POLYGONIZE} (not installed) | - | - | - | - |")
        writing = seconds_to_write(polygons)
    lines = [
        f"`python benchmarks/objects.py`; a GeoTIFF of {args.megapixels} megapixels, "
        f"{len(os.sched_getaffinity(0))} cores of a shared machine, whole commands "
        f"from start to exit, one run each. Cleaned is `{CLEANED}`, with objects is "
        f"`{FILES}`. The last two rows read the mask of the first.",
        "",
        "| | seconds | of processor time | peak memory, MiB | polygons |",
        "|---|---|---|---|---|",
        *rows,
        "",
        f"`{POLYGONIZE}` draws the background, too, and splits objects that touch at a "
        "corner; it measures nothing. To write the GeoPackage of the last objects "
        f"alone takes {writing:.1f} seconds.",
    ]
    report.write_part("Objects", "\n".join(lines))


if __name__ == "__main__":
    raise SystemExit(console.run(main))
