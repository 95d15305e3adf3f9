"""Write the table of a real task: photographs of solar cells, sound or defective.

    pip install elpv-dataset
    python examples/solar_cells.py cells.csv
    gatehub train --backbone tf_efficientnet_lite0 --data cells.csv --task cells --out cells \\
        --input-size 112

The 2,624 electroluminescence photographs are of 44 modules (Deitsch et al., Solar Energy 185, 2019;
github.com/zae-bayern/elpv-dataset, CC BY-NC-SA 4.0). Experts gave each cell the probability of a
defect; the 2,223 of which they were sure are taken. Cells of one module are on both sides of a
random split, so a new module is harder than the figures say.
"""

from __future__ import annotations

import csv
import sys
from importlib import resources
from pathlib import Path

LABELS = {0.0: "functional", 1.0: "defective"}


def main(table: str) -> None:
    folder = Path(str(resources.files("elpv_dataset"))) / "data"
    with Path(table).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        for line in (folder / "labels.csv").read_text(encoding="utf-8").splitlines():
            path, probability, _ = line.split()
            if float(probability) in LABELS:
                writer.writerow([folder / path, LABELS[float(probability)]])


if __name__ == "__main__":
    main(sys.argv[1])
