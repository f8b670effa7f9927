#!/usr/bin/env bash
# TensorFlow Datasets reads the palette indices of images instead of their colours.
#
# Library:   tensorflow-datasets 4.9.10, with pillow 13.0.0 and numpy 2.4.6, and with or
#            without opencv-python-headless 5.0.0.93; Linux.
# Expected:  tfds.data_source, the way to read sets without TensorFlow, gives the pixels that
#            a PNG or GIF file shows: of a palette its colours, of one bit 0 and 255, of 16
#            bits as uint8 the upper byte (PNG specification, PLTE and sample depth).
#            tfds.features.Image stores such files as they are.
# Happens:   without OpenCV, Image.decode_example_np takes numpy.asarray of Pillow's image
#            without converting it. Palette PNGs and GIFs are returned as their indices,
#            repeated over three channels, so that shape and type are as they should be;
#            images of one bit are 0 and 1. With OpenCV these are right; the log recommends
#            it for its speed only. Of 16 bits, both return the lower byte.
# Way round: install OpenCV, or read the bytes with tfds.decode.SkipDecoding() and convert
#            the image; 16 bits need the latter.
# Seen (one row of red, green, blue and white pixels; of 1 bit, whether there is red; of 16
# bits 0, 8000, 16000 and 24000):
#   without OpenCV
#   RGB PNG     255 0 0 | 0 255 0 | 0 0 255 | 255 255 255
#   palette PNG 2 2 2 | 1 1 1 | 3 3 3 | 0 0 0  wrong
#   GIF         2 2 2 | 1 1 1 | 3 3 3 | 0 0 0  wrong
#   1-bit PNG   1 1 1 | 0 0 0 | 0 0 0 | 1 1 1  wrong
#   16-bit PNG  0 0 0 | 64 64 64 | 128 128 128 | 192 192 192  wrong
#   with OpenCV
#   RGB PNG     255 0 0 | 0 255 0 | 0 0 255 | 255 255 255
#   palette PNG 255 0 0 | 0 255 0 | 0 0 255 | 255 255 255
#   GIF         255 0 0 | 0 255 0 | 0 0 255 | 255 255 255
#   1-bit PNG   255 255 255 | 0 0 0 | 0 0 0 | 255 255 255
#   16-bit PNG  0 0 0 | 64 64 64 | 128 128 128 | 192 192 192  wrong
#
# Usage: [PYTHON=python3.12] bash findings/tfds_palette.sh
# Exits with 0 if this still happens, 1 if not, 2 if the packages do not install.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
pip=("$work/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check)
"${pip[@]}" tensorflow-datasets==4.9.10 importlib_resources==7.1.0 pillow==13.0.0 \
  numpy==2.4.6 || exit 2
cd "$work"
cat > read.py << 'EOF'
import importlib.util
import io
import sys

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from PIL import Image

logging.set_verbosity(logging.ERROR)
RGB = np.array(
    [[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], dtype=np.uint8
)
WIDE = 8000 * np.arange(4, dtype=np.uint16)[None]
image = Image.fromarray(RGB)
cases = {
    "RGB PNG": (image, "PNG", RGB),
    "palette PNG": (image.quantize(4), "PNG", RGB),
    "GIF": (image.quantize(4), "GIF", RGB),
    "1-bit PNG": (Image.fromarray(RGB[..., 0] > 0), "PNG", RGB[..., :1].repeat(3, -1)),
    "16-bit PNG": (
        Image.fromarray(WIDE),
        "PNG",
        (WIDE >> 8).astype(np.uint8)[..., None].repeat(3, -1),
    ),
}
opencv = importlib.util.find_spec("cv2") is not None
print("with OpenCV" if opencv else "without OpenCV")
feature, wrong = tfds.features.Image(shape=(None, None, 3)), []
for name, (picture, encoding, wanted) in cases.items():
    file = io.BytesIO()
    picture.save(file, encoding)
    found = feature.decode_example_np(file.getvalue())
    assert found.shape == wanted.shape and found.dtype == wanted.dtype
    equal = np.array_equal(found, wanted)
    wrong += [] if equal else [name]
    pixels = " | ".join(" ".join(map(str, pixel)) for pixel in found[0])
    print(f"{name:11} {pixels}{'' if equal else '  wrong'}")
expected = ["16-bit PNG"] if opencv else [name for name in cases if name != "RGB PNG"]
sys.exit(0 if wrong == expected else 1)
EOF
"$work/venv/bin/python" read.py || exit 1
"${pip[@]}" opencv-python-headless==5.0.0.93 || exit 2
"$work/venv/bin/python" read.py || exit 1
