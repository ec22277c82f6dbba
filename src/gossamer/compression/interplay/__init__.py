"""How sparsity and quantization interact: measured on tensors, on dot products and on models."""
