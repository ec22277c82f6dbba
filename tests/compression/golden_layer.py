"""The layer of the golden vectors: the released GPTQ and SparseGPT code was run on it.

Kernels are turned to `[in, out]`.
"""

import numpy as np

INPUTS = np.array(
    [
        [1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [0, 1, 2, 0, 0, 0, 0, 0],
        [0, 0, 1, 1, 0, 0, 0, 0],
        [0, 0, 0, 1, -1, 0, 0, 0],
        [0, 0, 0, 0, 1, 2, 0, 0],
        [0, 0, 0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 0, 1, 3],
        [1, 0, 1, 0, 1, 0, 1, 0],
        [0, 1, 0, 1, 0, 1, 0, 1],
    ],
    np.float32,
)
KERNEL = np.array(
    [
        [0.9, -0.4, 0.35, 0.1, -0.6, 0.25, 0.5, -0.05],
        [0.2, 0.7, -0.3, 0.65, 0.15, -0.8, 0.05, 0.45],
    ],
    np.float32,
).T
GRAM = INPUTS.T @ INPUTS
