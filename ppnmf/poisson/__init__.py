"""The Poisson family: X_ij ~ Poisson(e_ij (W H)_ij), gamma priors on W and H, known exposures e.

A count is allocated to the components that it came from; given that, every conditional is a gamma. The verbs are those of
`ppnmf.gaussian`: `sweep` draws or climbs, `scale` moves along the ridge, `start` begins.
"""
