"""XLA flags under which programs compile fastest, and run slowly."""

import importlib.metadata

FLAGS = "--xla_backend_optimization_level=0"
# jaxlib 0.12 ends the process at this flag, which it does not know.
if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11):
    FLAGS += " --xla_cpu_use_fusion_emitters=false"
    FLAGS += " --xla_cpu_parallel_codegen_split_count=1"
