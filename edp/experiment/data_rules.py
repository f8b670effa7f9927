"""Validators of the `data` section: each setting, and combinations."""

from collections.abc import Iterator, Mapping
from typing import Any

from edp.data import HOLD_OUT, RESIZES, SOURCES
from edp.experiment.rules import (
    ANYTHING,
    BOOL,
    COUNT,
    FINITE,
    IMAGE_SHAPE,
    INDEX,
    POSITIVE,
    TEXT,
    Rule,
    are_names,
    one_of,
    optional,
    override,
)

# Source -> setting that identifies the dataset.
_NAMED_BY = {
    source: key
    for source, entry in SOURCES.items()
    for key in ("name", "path")
    if key in entry.reads
}


def rules(data: Mapping[str, Any]) -> dict[str, Rule]:
    """Returns the validator of every setting; some depend on other settings."""
    image_shape = data.get("image_shape")
    return {
        "source": one_of(*SOURCES),
        **dict.fromkeys(("name", "data_dir", "path"), optional(TEXT)),
        **dict.fromkeys(("train_split", "test_split"), TEXT),
        "validation": one_of(*HOLD_OUT),
        "image_shape": IMAGE_SHAPE,
        "num_classes": COUNT,
        **dict.fromkeys(
            ("train_size", "validation_size", "test_size"), optional(COUNT)
        ),
        # The configuration of an earlier run lacks these.
        "calibration_size": override(COUNT),
        "soft_labels": override(TEXT),
        "stream": BOOL,
        "num_workers": INDEX,
        "resize": one_of(*RESIZES),
        "downsample": COUNT,
        "crop_padding": INDEX,
        "flip": BOOL,
        "mean": _per_channel(FINITE, image_shape),
        "std": _per_channel(POSITIVE, image_shape),
    }


def faults(data: Mapping[str, Any]) -> Iterator[str]:
    """Yields the contradictions between settings that are each valid."""
    source, stream, factor = data["source"], data["stream"], data["downsample"]
    key = _NAMED_BY.get(source)
    if key and data[key] is None:
        yield f"data.{key}=None must be given for data.source={source!r}"
    if stream and not SOURCES[source].streams:
        streamed = [repr(name) for name, entry in SOURCES.items() if entry.streams]
        yield (
            f"data.stream=True must be False for data.source={source!r}; only "
            f"{', '.join(streamed)} are streamed"
        )
    if stream and data.get("soft_labels") is not None:
        yield (
            f"data.soft_labels={data['soft_labels']!r} must be None for "
            "data.stream=True; soft labels are read for images in memory only"
        )
    if data["resize"] != "none" and not stream:
        yield f"data.resize={data['resize']!r} must be none unless data.stream=True"
    height, width, channels = data["image_shape"]
    if factor > 1 and stream:
        yield f"data.downsample={factor} must be 1 for data.stream=True"
    if height % factor or width % factor:
        yield (
            f"data.downsample={factor} must divide height and width of "
            f"data.image_shape={tuple(data['image_shape'])}"
        )
    if SOURCES[source].streams and channels not in (1, 3):
        yield (
            f"data.image_shape={tuple(data['image_shape'])} must have 1 or 3 channels "
            f"for data.source={source!r}"
        )


def unseen_sets(data: Mapping[str, Any]) -> Rule:
    """Returns the validator of `ood_sets`, which excludes the run's own dataset."""
    source = data.get("source")
    key = _NAMED_BY.get(source)
    own = source if key is None else data.get(key)
    return Rule(
        f"distinct names of sets, none of them {own!r}, which is the run's own, or ()",
        lambda v: are_names(v) and own not in v,
    )


def _per_channel(rule: Rule, image_shape: Any) -> Rule:
    if not IMAGE_SHAPE(image_shape):
        return ANYTHING
    counts = sorted({1, image_shape[-1]})
    words = f"{' or '.join(map(str, counts))} value(s), each {rule.words}"
    return Rule(words, lambda v: len(v) in counts and all(map(rule, v)))
