"""The paper's tables and figures, measured here beside what the paper prints.

Source: Song, Fallon, Li, "Improving Adversarial Robustness in Weight-quantized Neural Networks".
"""
