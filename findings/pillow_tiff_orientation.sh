#!/usr/bin/env bash
# Pillow 13.0.0 returns wrong pixels for some rotated TIFF files that are opened by path.
#
# Input: an uncompressed 8-bit greyscale TIFF, 4 rows by 6 columns, with the EXIF
# orientation 6 (rotate by 90 degrees), written by Pillow itself.
# Expected: `Image.open(path)` and `Image.open(file object)` give the same pixels.
# Seen: the file object gives the upright image of 6 rows by 4 columns. The path gives 4
# rows by 6 columns whose pixels are in neither order: the memory-mapped data are read with
# width and height exchanged. Orientations 5 to 8 are affected, 1 to 4 are not. Image
# folders read this way train and evaluate on scrambled images without a warning.
# Way round it: open the file yourself and pass the file object.
#
# Output seen (Python 3.11, numpy 2.4.6):
#   orientation 1: by path (4, 6), by file object (4, 6), equal True
#   orientation 6: by path (4, 6), by file object (6, 4), equal False
#   as stored   [0, 10, 20, 30, 40, 50]
#   by path     [200, 160, 120, 80, 40, 0]
#   by file     [180, 120, 60, 0]
#
# Exits with 0 while this happens, 1 if it changed, 2 if the packages do not install.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pillow==13.0.0 numpy==2.4.6 || exit 2
cd "$work"
venv/bin/python - <<'PYTHON'
import io
import sys

import numpy as np
from PIL import Image

stored = (np.arange(24, dtype=np.uint8) * 10).reshape(4, 6)
equal = {}
for orientation in (1, 6):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save("ramp.tif", exif=exif)
    by_path = np.asarray(Image.open("ramp.tif"))
    with open("ramp.tif", "rb") as file:
        by_file = np.asarray(Image.open(io.BytesIO(file.read())))
    equal[orientation] = np.array_equal(by_path, by_file)
    print(
        f"orientation {orientation}: by path {by_path.shape}, "
        f"by file object {by_file.shape}, equal {equal[orientation]}"
    )
print("as stored  ", stored[0].tolist())
print("by path    ", by_path[0].tolist())
print("by file    ", by_file[0].tolist())
upright = np.array_equal(by_file, np.rot90(stored, -1))
scrambled = sorted(by_path.ravel()) == sorted(stored.ravel()) and not any(
    np.array_equal(by_path, np.rot90(turned, k))
    for turned in (stored, stored[::-1])
    for k in range(4)
)
sys.exit(0 if equal == {1: True, 6: False} and upright and scrambled else 1)
PYTHON
