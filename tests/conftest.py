"""Eight host devices for `pmap` and `shard_map`, and no randomness. Runs before jax is imported."""

import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
).strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hypothesis

hypothesis.settings.register_profile(
    "deterministic", deadline=None, derandomize=True, database=None
)
hypothesis.settings.load_profile("deterministic")
