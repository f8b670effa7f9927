"""Tests the tables of measurements, and that earlier ones are kept."""

from benchmark_rows import row

from benchmarks import tables


def test_table_by_hand():
    rows = [
        row("edp", [0.5, 0.25, 1.0], strategy="vmap", ratio_to_peer=2.5),
        row("pytorch", error="Out of memory"),
    ]
    assert tables.format_table(rows).splitlines() == [
        "| case | what         | M | batch | precision | contender  | images/s "
        "| × peer | ms/step [min–max] | MFU    |",
        "| ---- | ------------ | - | ----- | --------- | ---------- | -------- "
        "| ------ | ----------------- | ------ |",
        "| c    | teacher_step | 4 | 64    | float32   | edp (vmap) | 128      "
        "| 2.50   | 500 [250–1,000]   | 25.0 % |",
        "| c    | teacher_step | 4 | 64    | float32   | pytorch    |          "
        "|        |                   |        |",
    ]
    metadata = {"command": "x", "peak_flops_per_second": {}}
    rows[0]["disturbed"] = True
    document = tables.format_document(metadata, rows)
    assert (
        document.count("- c, teacher_step: disturbed by other processes, unreliable")
        == 1
    )
    assert "- c, teacher_step: pytorch: failed, Out of memory" in document


def test_earlier_measurements_are_kept(tmp_path):
    tables.set_aside(tmp_path, ["benchmark", "machine"])
    for text in "first", "second":
        (tmp_path / "benchmark.json").write_text(text)
        tables.set_aside(tmp_path, ["benchmark", "machine"])
    assert not (tmp_path / "benchmark.json").exists()
    assert (tmp_path / "benchmark.1.json").read_text() == "first"
    assert (tmp_path / "benchmark.2.json").read_text() == "second"
