"""Benchmarks: speed, memory and accuracy of models, alone or compared with Paddle Inference."""
