"""Packaging of edp."""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "edp/__init__.py").read_text())[1]

setuptools.setup(
    # The import is `edp`, a name that another project holds in the package index.
    name="edp-jax",
    version=VERSION,
    description="Ensemble distillation with perturbations, in JAX",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    # Commands and configurations lie beside `edp` in a checkout, and go in under it.
    packages=[
        *setuptools.find_packages(include=["edp", "edp.*"]),
        "edp.configs",
        "edp.launch",
        "edp.launch.cli",
        "edp.launch.cloud_tpu",
    ],
    package_dir={"edp.configs": "configs", "edp.launch": "launch"},
    package_data={
        "edp": ["py.typed"],
        "edp.export": ["page/*"],
        "edp.models.native": ["*.cc", "*.h"],
        "edp.report.page": ["templates/*.html"],
    },
    entry_points={"console_scripts": ["edp = edp.launch.__main__:main"]},
    python_requires=">=3.11",
    # `make test-lowest` runs the lowest version of each.
    install_requires=[
        "absl-py>=2.1",
        "array_record>=0.8.1",
        "chex>=0.1.90",
        # From 4.0 on, a contender leaves the record of the holder in the file.
        "filelock>=4.0",
        # `jax.export` writes its programs with it.
        "flatbuffers>=24.3.25",
        # The first whose `nn.remat` works with JAX 0.10.
        "flax>=0.12.2",
        # For streamed sets; small, with no dependencies of weight beside these.
        "grain>=0.2.18",
        # tensorflow-datasets imports it without asking for it.
        "importlib_resources>=6",
        "jax>=0.10",
        "jinja2>=3.1,<4",
        "markupsafe>=2.1.2",
        "matplotlib>=3.8.4,<4",
        "ml-collections>=1.0,<2",
        "numpy>=2.0,<3",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.11.30",
        "pillow>=10.1",
        # For Parquet files; tensorflow-datasets needs it too.
        "pyarrow>=18",
        "scikit-learn>=1.5,<2",
        "scipy>=1.14,<2",
        # Preparing sets without TensorFlow leans on details of these releases.
        "tensorflow-datasets>=4.9.10,<5",
        "tqdm>=4.66",
    ],
    extras_require={
        "gpu": ["jax[cuda12]"],
        "tpu": ["jax[tpu]"],
        # Workdirs at gs://.
        "gcs": ["gcsfs>=2024.6"],
        "tensorboard": ["tensorboardX>=2.6.2.2"],
        # Export as ONNX, and what it is checked with: also for the target `web`.
        # Best apart: jax2onnx brings orbax-checkpoint below 0.11.37.
        "onnx": ["jax2onnx>=0.17", "onnx>=1.20.1", "onnxruntime>=1.24.1"],
        "openvino": [
            "jax2onnx>=0.17",
            "onnx>=1.20.1",
            "onnxruntime>=1.24.1",
            "openvino>=2026.0",
        ],
        # Export for LiteRT: TensorFlow converts, and is not needed to read the file.
        "litert": ["ai-edge-litert>=2.3", "tensorflow>=2.21"],
        # Teachers trained with PyTorch, which traces them; JAX computes them.
        "torch": ["torch>=2.6"],
        # Weights to import from .safetensors files.
        "safetensors": ["safetensors>=0.4.3"],
        "docs": ["furo>=2025.7", "myst-parser>=4", "sphinx>=8.2,<10"],
        "test": [
            "hypothesis>=6",
            "import-linter>=2.1",
            "mypy>=1.18.1,<3",
            "pytest>=8",
            "pytest-xdist>=3.5",
            "ruff>=0.12",
            "tensorboardX>=2.6.2.2",
            # The first to build a wheel without help.
            "setuptools>=70.1",
        ],
    },
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
