"""The Gaussian family: X_ij ~ Normal((W H)_ij, σ²) with rectified-normal factors.

`model` what its members share; `sweep` through the factors; `noise`, σ²; `ridge`, moves that leave W @ H as it is;
`ascent`, modes; `start`, where chains begin; `blocks`, densities of its blocks for Chib's evidence;
`pinned`, known entries, and `restricted`, the moves that leave them;
`columns`, a noise variance a column; `three`, three factors;
`path`, from a fitted reference to the posterior, for stepping stones; `scale`, what default priors are made from.
"""
