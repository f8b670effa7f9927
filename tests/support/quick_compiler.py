"""XLA flags under which programs compile fastest, and run slowly."""

FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
