"""Commands, such as `python -m launch.run --config=configs/digits.py --workdir=runs/digits`."""
