"""Commands, such as `python -m launch.run --config=digits --workdir=runs/digits`."""
