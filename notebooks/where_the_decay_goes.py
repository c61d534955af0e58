# %% [markdown]
# # Where the decay goes
#
# Test

# %%
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from tqdm import tqdm

import decoupled_wd as dwd
from decoupled_wd import plots

for _ in tqdm(range(3)):
    pass
tx = dwd.adamw(1e-3)
with plots.house_style():
    figure, axes = plt.subplots(1, 2, figsize=(8, 3))
    for a in axes:
        for i in range(4):
            a.plot(np.random.default_rng(i).normal(size=200).cumsum(), label=f"run {i}")
        a.legend()
print(jnp.ones(2))
