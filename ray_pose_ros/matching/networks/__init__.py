"""Networks of the learned matchers, with the parameter names of their published weights.

An extractor takes an image (1, 3, H, W) in [0, 1] with sides that are multiples of 32 and at least
64, and gives points (M, 2) in continuous pixels (centres at half-integers), unit descriptors
(M, D) and scores (M,), best first.
"""
